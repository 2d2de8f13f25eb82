"""From devices that were found to a site file: commented, and as it stands usable.

What is a guess is called one, in a comment beside it. Nothing in the file commands a
device: which outlets may be switched off, and how far a limit may fall, only the operator
knows, so every actuator is there as a comment. Until then a rack counts at its ceiling.

What devices say of themselves goes into comments, as one line of printable letters, or
through `quoted`; names are made of the letters that a name may have. So nothing that a
device says can break the file or add a key to it. Secrets are named by a variable of the
environment. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from drivers.profile import Profile
from drivers.reading import Absence, Identity, Missing, Reading
from firmware_py.discovered_watts import (
    FLOOR_SHARE,
    REALPOWER,
    Points,
    ceiling_of,
    floor_of,
    rounded_up,
    value_of,
)
from firmware_py.shown import number, shown
from firmware_py.site_keys import OUTLETS_PER_RACK_MAX, RACKS_MAX

GUARD = 0.01  # share of a cap that is never given away (the market's default)
CAP_W_MAX = 99_000_000  # a cap holds 100 MW, and some of it is the guard
DRAWS = ("input.", "inlet.", "outlet.", "bank.")  # points of what draws power
OUTLET_W = 500  # stands in where the outlet is not metered


@dataclass(frozen=True, slots=True)
class Found:
    """A device that was recognised and read. `url` is for the site file, without secrets;
    `host` is where it is, `called` what its system calls itself; `is_named`: the operator
    gave its port or its URL, and not only its address."""

    host: str
    is_named: bool
    url: str
    member: str
    called: str
    profile: Profile
    identity: Identity
    points: Points

    @property
    def what(self) -> str:
        parts = (self.identity.vendor, self.identity.model)
        serial = f"serial {self.identity.serial}" if self.identity.serial else ""
        return shown(" ".join(part for part in (*parts, serial) if part))

    @property
    def watts(self) -> float | None:
        return value_of(self.points, REALPOWER)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that answered and is not known: what it said, and what to do about it."""

    url: str
    said: Mapping[str, str]
    advice: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A device that gets no rack, and why."""

    found: Found
    why: str


@dataclass(frozen=True, slots=True)
class Rack:
    """One rack of the file. `twin` is the rack that may be the same device."""

    name: str
    found: Found
    ceiling_w: int
    ceiling_why: str
    floor_w: int
    twin: str


def racks_of(found: Sequence[Found]) -> tuple[list[Rack], list[LeftOut]]:
    """A rack for every device that draws power, and what is left out.

    An address that answers SNMP and Modbus is taken for one device, which must not be
    counted twice, if they were not named one by one. What only delivers power has no
    place in a site file.
    """
    found = sorted(found, key=lambda each: _natural(f"{each.host} {each.url}"))
    by_snmp = {e.host for e in found if e.profile.protocol == "snmp" and not e.is_named}
    racks: list[Rack] = []
    left_out: list[LeftOut] = []
    names: set[str] = set()
    serials: dict[tuple[str | None, str], str] = {}
    ceilings_w = 0
    for each in found:
        ceiling_w, ceiling_why = ceiling_of(each.points)
        is_full = len(racks) >= RACKS_MAX or ceilings_w + ceiling_w > CAP_W_MAX
        why = "a site file holds no more" if is_full else _why_left_out(each, by_snmp)
        if why:
            left_out.append(LeftOut(each, why))
            continue
        ceilings_w += ceiling_w
        name = _unique(_name_of(each), names)
        names.add(name)
        serial = (each.identity.vendor, each.identity.serial or "")
        twin = serials.setdefault(serial, name) if serial[1] else name
        twin = "" if twin == name else twin
        floor_w = floor_of(each.points, ceiling_w)
        racks.append(Rack(name, each, ceiling_w, ceiling_why, floor_w, twin))
    return racks, left_out


def _why_left_out(found: Found, by_snmp: set[str]) -> str:
    if found.profile.protocol == "modbus" and not found.is_named and found.host in by_snmp:
        return "probably a device from above that speaks two protocols"
    if not any(point.name.startswith(DRAWS) for point in found.profile.points):
        return "it delivers power, and draws none"
    return ""


def site_text(
    racks: Sequence[Rack],
    left_out: Sequence[LeftOut],
    unknown: Sequence[Unknown],
    *,
    variables: Sequence[str] = (),
    profiles: str = "",
) -> str:
    """The site file; `variables` are those of the environment that its URLs need."""
    lines = [*_head(variables, profiles), *_cap(racks)]
    for rank, rack in enumerate(racks, start=1):
        lines += ["", *_rack(rack, 10 * rank)]
    return "\n".join([*lines, "", *remarks(left_out, unknown)]).rstrip("\n") + "\n"


def remarks(left_out: Sequence[LeftOut], unknown: Sequence[Unknown]) -> list[str]:
    """Comments on what answered and got no rack."""
    lines = ["# Left out:"] * bool(left_out)
    for out in left_out:
        lines.append(f"#   {_said(out.found.url)}  {out.found.what}: {out.why}")
    lines += ["# What answered, and is not known:"] * bool(unknown)
    for each in sorted(unknown, key=lambda each: _natural(each.url)):
        lines.append(f"#   {_said(each.url)}")
        lines += [f"#     {label}: {shown(text)}" for label, text in each.said.items()]
        lines.append(f"#     {shown(each.advice, 300)}")
    return lines


def quoted(text: str) -> str:
    """A TOML basic string (TOML 1.0): whatever the text, it is one value."""
    out = []
    for letter in text:
        if letter in '"\\':
            out.append("\\" + letter)
        elif letter.isprintable():
            out.append(letter)
        elif 0xD800 <= ord(letter) <= 0xDFFF:
            out.append("�")  # no character, and TOML cannot say it
        else:
            code = ord(letter)
            out.append(f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}")
    return '"' + "".join(out) + '"'


# ── the parts of the file ─────────────────────────────────────────────────────────


def _head(variables: Sequence[str], profiles: str) -> Iterator[str]:
    yield "# Found by wattbroker discover. Every line marked (guess) wants a look; every key is"
    yield "# explained in docs/site-file.md. Then: wattbroker check site.toml"
    if variables:
        yield "#"
        yield "# Secrets are not written here. The controllers take them from their environment:"
        yield f"#   {', '.join(variables)}"
    yield ""
    yield "schema = 1"
    yield 'site = "discovered"                     # (guess) MQTT topics begin with it'
    if profiles:
        yield f"profiles = {quoted(profiles)}"
    yield ""
    yield "[mqtt]"
    yield 'host = "127.0.0.1"                      # (guess) where your MQTT server is'


def _cap(racks: Sequence[Rack]) -> Iterator[str]:
    ceilings_w = sum(rack.ceiling_w for rack in racks)
    limit_w = rounded_up(ceilings_w / (1 - GUARD), 100)
    yield ""
    yield "[[cap]]"
    yield 'name = "room"'
    yield (f"limit_w = {limit_w:<30}# (guess) Σ ceiling_w {ceilings_w}, and the guard of"
           f" {GUARD:.0%}: what may the room draw?")  # fmt: skip


def _rack(rack: Rack, rank: int) -> Iterator[str]:
    found, watts = rack.found, rack.found.watts
    now = f"{number(round(watts, 1))} W now" if watts is not None else _no_watts(found)
    yield f"# {found.what}: {now}"
    if rack.twin:
        yield f"# It has the serial number of {rack.twin}: if it is the same device, delete one."
    yield "[[rack]]"
    yield f"name = {quoted(rack.name)}"
    yield f"rank = {rank}"
    yield 'cap = "room"'
    yield f"floor_w = {rack.floor_w:<30}# (guess) what it may always draw"
    yield f"ceiling_w = {rack.ceiling_w:<28}# (guess) {rack.ceiling_why}"
    yield ""
    yield "  [[rack.device]]"
    yield '  name = "pdu"' if found.profile.protocol == "snmp" else '  name = "meter"'
    yield f"  url = {quoted(found.url)}"
    yield f"  profile = {quoted(found.profile.name)}"
    if not _can_be_measured(found):
        yield "  measures = []                         # it does not say its watts"
    yield from _actuator(found)


def _actuator(found: Found) -> Iterator[str]:
    """How the rack could be limited, as a comment."""
    commands = {command.name: command for command in found.profile.commands}
    device = "pdu" if found.profile.protocol == "snmp" else "meter"
    outlets = [n for n in _outlets(found.points) if f"outlet.{n}.load" in commands]
    if not outlets and "limit.realpower" not in commands:
        return
    yield ""
    if found.profile.status == "untested":
        yield "  # It can be commanded, but its profile is untested: it is only read."
        return
    if "limit.realpower" in commands:
        yield "  # It knows a power limit. To let wattbroker set it, down to floor_w:"
        yield "  #   [rack.actuator]"
        yield '  #   kind = "power-limit"'
        yield f'  #   device = "{device}"'
        return
    yield "  # Its outlets can be switched. To let wattbroker switch some of them off, list those,"
    yield "  # with what they draw at most, and set floor_w to one of the steps:"
    yield "  #   [rack.actuator]"
    yield '  #   kind = "outlets"'
    yield f'  #   device = "{device}"'
    yield "  #   base_w = 0                          # what all other outlets draw at most"
    yield "  #   outlets = ["
    for n in outlets[:OUTLETS_PER_RACK_MAX]:
        yield f"  #     {_outlet(found.points, n)}"
    yield "  #   ]"


def _outlet(points: Points, n: int) -> str:
    watts = value_of(points, f"outlet.{n}.realpower")
    peak_w = rounded_up(watts * FLOOR_SHARE, 10) if watts else OUTLET_W
    name, status = points.get(f"outlet.{n}.name"), points.get(f"outlet.{n}.status")
    said = [shown(str(p.value), 40) for p in (name, status) if isinstance(p, Reading)]
    said += [f"{number(watts)} W now"] if watts is not None else []
    return f"{{ number = {n}, priority = 1, peak_w = {peak_w} }},  # {', '.join(said)}"


def _said(url: str) -> str:
    return shown(url, 200)


def _no_watts(found: Found) -> str:
    if not found.profile.metered:
        return "it has no meter, its power is unknown"
    said = found.points.get(REALPOWER)
    return f"it does not say its watts ({said.absence})" if isinstance(said, Missing) else (
        "it does not say its watts"
    )  # fmt: skip


def _can_be_measured(found: Found) -> bool:
    """A device that was silent once may speak again; one that lacks the point never will."""
    told = found.points.get(REALPOWER)
    return told is not None and not (isinstance(told, Missing) and told.absence is Absence.ABSENT)


def _outlets(points: Points) -> list[int]:
    """The numbers of the outlets that the device has."""
    found = {
        int(number[1])
        for name, told in points.items()
        if isinstance(told, Reading) and (number := re.fullmatch(r"outlet\.(\d+)\.status", name))
    }
    return sorted(found)


# ── names ─────────────────────────────────────────────────────────────────────────


def _natural(text: str) -> tuple[tuple[bool, int, str], ...]:
    """A key that sorts addresses and members in the order of their numbers."""
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
                 for part in re.findall(r"[0-9]+|[^0-9]+", text))  # fmt: skip


def _name_of(found: Found) -> str:
    """What its system calls itself, or else its address; with the member's name."""
    base = _as_name(found.called) or _as_name(found.host) or found.profile.name
    unit = (
        re.search(r"(?:/|[?&]unit=)(\d+)(?:$|&)", found.url)
        if found.profile.protocol == "modbus"
        else None
    )
    member = _as_name(found.member or (unit[1] if unit else ""))
    return f"{base[: 60 - len(member)]}-{member}" if member else base[:60]


def _as_name(text: str) -> str:
    letters = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return letters[:48]


def _unique(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    return next(free for n in range(2, RACKS_MAX + 2) if (free := f"{name[:58]}-{n}") not in taken)
