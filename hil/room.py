"""The demo's room: which racks, which caps, which breaker, and the site file that says so.

A room is designed so that the demonstration means something, whatever its size:

- at least two racks with an outlet PDU and two with a power limit, under two rows under
  one room cap: a tree;
- the racks want about one and a half times the cap, at all times;
- one dead rack never starves the rest: its ceiling and the floors of all others take at
  most 0.7 of the cap, so they fit even after the cap has fallen by a fifth;
- the floor of an outlet rack is one of its steps (what is never switched, and the most
  important outlets), and the steps are small against its range;
- the breaker of the feed is rated at the cap: without anyone who holds the racks back
  it may open after minutes.

Pure: no ports, no files. The addresses of the devices come in when the file is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RACKS_MIN = 4
RACKS_MAX = 12
SITE = "demo"

_OVERSUBSCRIPTION = 1.5  # what the racks want, over the cap
_DROP = 0.8  # what is left of the cap after it has fallen
_ROW_SHARE = 0.7  # a row's limit over the room's: it binds only who wants far more than its part
_BASE_W = 400  # switch, fans, PDU: never switched
_OUTLETS_W = (260, 250, 240, 240, 230, 230, 220, 220, 210, 200, 200, 200)
_LIMIT_DEMANDS_W = (3000, 2900, 3100)  # middle of what a rack with a power limit wants
_LIMIT_FLOOR_W = 500

SERVER_SHARE_MIN = 0.85  # a server draws between this part of its peak and all of it
SERVER_SHARE_MEAN = 0.953  # of the load in hil.plant
BASE_SHARE_MEAN = 0.97
LIMIT_SWING = 0.05  # a limited rack wants its middle value, this much more or less


@dataclass(frozen=True, slots=True)
class Outlet:
    """One switched outlet with its server. The larger priority is served first."""

    number: int
    priority: int
    peak_w: int


@dataclass(frozen=True, slots=True)
class RackPlan:
    """One rack as built: with outlets a PDU that switches, without them a power limit."""

    name: str
    rank: int
    row: str
    floor_w: int
    ceiling_w: int
    base_w: int
    demand_w: int
    outlets: tuple[Outlet, ...] = ()

    @property
    def steps_w(self) -> tuple[int, ...]:
        """What the rack may draw with its outlets on one by one, most important first."""
        steps = [self.base_w]
        for outlet in sorted(self.outlets, key=lambda o: -o.priority):
            steps.append(steps[-1] + outlet.peak_w)
        return tuple(steps)

    @property
    def outlets_at_floor(self) -> frozenset[int]:
        """Numbers of the outlets that are on at the floor."""
        ordered = sorted(self.outlets, key=lambda o: -o.priority)
        return frozenset(o.number for o in ordered[: self.steps_w.index(self.floor_w)])


@dataclass(frozen=True, slots=True)
class Room:
    """All racks, the caps over them and the breaker that feeds them."""

    racks: tuple[RackPlan, ...]
    cap_w: int
    cap_after_w: int
    row_cap_w: int
    breaker_rating_w: int
    breaker_curve: str = "C"

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rack.row for rack in self.racks))


def design(racks: int) -> Room:
    """A room of so many racks; ValueError outside 4 to 12, in words for the operator."""
    if not RACKS_MIN <= racks <= RACKS_MAX:
        raise ValueError(
            f"--racks {racks}: the demo needs {RACKS_MIN} to {RACKS_MAX} racks "
            "(two with outlets and two with a power limit at least)"
        )
    with_outlets = max(2, racks * 2 // 5)
    plans = tuple(_rack(i, racks, with_outlets) for i in range(racks))
    cap_w = int(sum(plan.demand_w for plan in plans) / _OVERSUBSCRIPTION) // 10 * 10
    return Room(
        racks=plans,
        cap_w=cap_w,
        cap_after_w=int(cap_w * _DROP),
        row_cap_w=int(cap_w * _ROW_SHARE),
        breaker_rating_w=-(-cap_w // 100) * 100,
    )


def _rack(index: int, racks: int, with_outlets: int) -> RackPlan:
    name, rank = f"r{index + 1}", 10 * (index + 1)
    row = "row1" if index < racks // 2 else "row2"
    if index % 2 == 0 and index // 2 < with_outlets:
        return _outlet_rack(name, rank, row)
    demand_w = _LIMIT_DEMANDS_W[index % len(_LIMIT_DEMANDS_W)]
    ceiling_w = -(-round(demand_w * (1 + LIMIT_SWING)) // 10) * 10
    return RackPlan(name, rank, row, _LIMIT_FLOOR_W, ceiling_w, base_w=0, demand_w=demand_w)


def _outlet_rack(name: str, rank: int, row: str) -> RackPlan:
    count = len(_OUTLETS_W)
    outlets = tuple(Outlet(i + 1, count - i, peak_w) for i, peak_w in enumerate(_OUTLETS_W))
    demand_w = round(BASE_SHARE_MEAN * _BASE_W + SERVER_SHARE_MEAN * sum(_OUTLETS_W))
    return RackPlan(
        name,
        rank,
        row,
        floor_w=_BASE_W + _OUTLETS_W[0],
        ceiling_w=_BASE_W + sum(_OUTLETS_W),
        base_w=_BASE_W,
        demand_w=demand_w,
        outlets=outlets,
    )


def site_toml(
    room: Room,
    *,
    mqtt_port: int,
    urls: Mapping[str, Mapping[str, str]],
    outlets_ttl_s: float | None = None,
    clock_trusted: bool = False,
) -> str:
    """The site file. `urls`: rack → device ("pdu", or "meter" and "limit") → URL.

    `outlets_ttl_s`: how long a rack with outlets holds on alone; None: the product's default.
    `clock_trusted`: the controllers may go by their wall clock where they need one.
    """
    parts = [
        "schema = 1",
        f'site = "{SITE}"',
        'profiles = "profiles"   # the emulated PDU acts within a second, and its profile says so',
        "",
        "[mqtt]",
        'host = "127.0.0.1"',
        f"port = {mqtt_port}",
        "",
        "[timing]",
        "tick_s = 1.0",
        "lease_ttl_s = 15.0",
        'clock = "trusted"\n' if clock_trusted else "",
        _cap("room", room.cap_w)
        + f"breaker = {{ rating_w = {room.breaker_rating_w}, "
        + f'curve = "{room.breaker_curve}" }}\n',
    ]
    parts += [_cap(row, room.row_cap_w, parent="room") for row in room.rows]
    parts += [_rack_toml(rack, urls[rack.name], outlets_ttl_s) for rack in room.racks]
    return "\n".join(parts)


def _cap(name: str, limit_w: int, parent: str | None = None) -> str:
    parent_line = f'parent = "{parent}"\n' if parent else ""
    return f'[[cap]]\nname = "{name}"\n{parent_line}limit_w = {limit_w}\n'


def _rack_toml(rack: RackPlan, urls: Mapping[str, str], outlets_ttl_s: float | None) -> str:
    head = (
        f'[[rack]]\nname = "{rack.name}"\nrank = {rack.rank}\ncap = "{rack.row}"\n'
        f"floor_w = {rack.floor_w}\nceiling_w = {rack.ceiling_w}\n\n"
    )
    return head + (_outlets_toml(rack, urls, outlets_ttl_s) if rack.outlets else _limit_toml(urls))


def _device(name: str, url: str, profile: str, measures: bool) -> str:
    lines = [
        "  [[rack.device]]",
        f'  name = "{name}"',
        f'  url = "{url}"',
        f'  profile = "{profile}"',
        "  poll_s = 1.0",
    ]
    if measures:
        lines.append('  measures = ["input.realpower"]')
    return "\n".join(lines) + "\n\n"


def _outlets_toml(rack: RackPlan, urls: Mapping[str, str], ttl_s: float | None) -> str:
    ttl = "" if ttl_s is None else f"  ttl_s = {ttl_s}\n"
    rows = ",\n".join(
        f"    {{ number = {o.number}, priority = {o.priority}, peak_w = {o.peak_w} }}"
        for o in rack.outlets
    )
    return _device("pdu", urls["pdu"], "demo-rpdu", measures=True) + (
        '  [rack.actuator]\n  kind = "outlets"\n  device = "pdu"\n  settle_s = 2.0\n'
        f"{ttl}  stagger_s = 0.3\n  base_w = {rack.base_w}\n  outlets = [\n{rows},\n  ]\n"
    )


def _limit_toml(urls: Mapping[str, str]) -> str:
    return (
        _device("meter", urls["meter"], "eastron-sdm630", measures=True)
        + _device("limit", urls["limit"], "generic-power-limit", measures=False)
        + '  [rack.actuator]\n  kind = "power-limit"\n  device = "limit"\n'
        "  settle_s = 2.0\n  keeps = true\n"
    )
