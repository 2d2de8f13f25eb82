"""What must hold within one rack of a site file, between it and its device profiles.

The devices: a URL that can be one, a profile of the same protocol, points that exist
and are watts, polls that the device bears. The actuator: a device that can do what is
asked and says how late it may do it, leases that outlive a change of broker, floors
that the hardware can keep.

Pure. `check_rack` is the only door; as in `site_rules`, what is UNSET is passed over.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import UNSET, UnsetType

from drivers.address import SnmpAddress, parse_url
from drivers.errors import ProfileError
from drivers.secret import Secret
from firmware_py.site_defaults import (
    ProfileFacts,
    Profiles,
    actuator_device,
    ceiling_w_of,
    facts_of,
    measures_of,
    outlets_of,
    poll_s_of,
    settle_s_of,
    stale_after_s_of,
    steps_w,
    ttl_s_of,
)
from firmware_py.site_keys import ActuatorTable, DeviceTable, RackTable
from firmware_py.site_lines import KeyPath
from firmware_py.site_tables import Faults, quoted, unknown
from firmware_py.site_types import Timing

LIMIT_COMMAND: Final = "limit.realpower"
TICKS_TO_CHANGE_BROKER: Final = 5
SLACK_S: Final = 1e-9  # sums of decimal seconds


def check_rack(
    rack: RackTable, path: KeyPath, timing: Timing, profiles: Profiles, faults: Faults
) -> None:
    """Report to `faults` what cannot hold within the rack at `path`."""
    for index, device in enumerate(rack.device):
        _check_device(rack, device, (*path, "device", index), profiles, faults)
    if rack.actuator is not None:
        _check_actuator(rack, rack.actuator, (*path, "actuator"), profiles, faults)
        _check_own_lease(rack, (*path, "actuator"), timing, profiles, faults)
    _check_span(rack, path, faults)


def _check_span(rack: RackTable, path: KeyPath, faults: Faults) -> None:
    """floor_w, base_w and ceiling_w against each other."""
    actuator, ceiling_w = rack.actuator, ceiling_w_of(rack)
    kind = actuator.kind if actuator else "none"
    if rack.ceiling_w is None and kind in ("none", "power-limit"):
        faults.add(
            (*path, "ceiling_w"),
            "missing; add for example ceiling_w = 3000 (only outlets say it by themselves)",
        )
    if rack.floor_w is UNSET:
        return
    if ceiling_w is not None and rack.floor_w > ceiling_w:
        faults.add(
            (*path, "floor_w"),
            f"{rack.floor_w} W is above the rack's ceiling of {ceiling_w} W; lower it,"
            " or raise ceiling_w",
        )
    if actuator is not None and kind == "outlets":
        _check_step(rack.floor_w, actuator, path, faults)
    if actuator is not None and kind == "power-limit" and rack.floor_w < actuator.base_w:
        faults.add(
            (*path, "floor_w"),
            f"{rack.floor_w} W is below base_w {actuator.base_w} W, which is never limited;"
            " give at least that",
        )


def _check_step(floor_w: int, actuator: ActuatorTable, path: KeyPath, faults: Faults) -> None:
    outlets = outlets_of(actuator)
    if not outlets:
        return
    steps = steps_w(actuator.base_w, outlets)
    if floor_w not in steps:
        above = min(max(bisect(steps, floor_w), 1), len(steps) - 1)
        near = steps[above - 1 : above + 1]
        shown = ", ".join(str(step) for step in steps[:16]) + (", …" if len(steps) > 16 else "")
        faults.add(
            (*path, "floor_w"),
            f"{floor_w} W is none of the steps that the outlets add up to ({shown});"
            f" the nearest are {' and '.join(str(step) for step in near)}",
        )


def _check_own_lease(
    rack: RackTable, path: KeyPath, timing: Timing, profiles: Profiles, faults: Faults
) -> None:
    settle_s = settle_s_of(rack.actuator, facts_of(actuator_device(rack), profiles))
    if settle_s is not None and has_own_lease(rack):
        fault = lease_fault(ttl_s_of(rack.actuator, timing), settle_s, timing)
        if fault is not None:
            faults.add((*path, "ttl_s"), fault)


# --- Leases -----------------------------------------------------------------------------


def _change_of_broker_s(timing: Timing) -> float:
    """How long a lease must outlive the last grant of a broker that died."""
    return timing.beat_timeout_s + timing.answer_timeout_s + TICKS_TO_CHANGE_BROKER * timing.tick_s


def lease_fault(ttl_s: float, settle_s: float, timing: Timing) -> str | None:
    """Why a lease of `ttl_s` would not outlive a change of broker; None if it does."""
    needed_s = _change_of_broker_s(timing)
    if ttl_s - settle_s >= needed_s - SLACK_S:
        return None
    return (
        f"{ttl_s:g} s less settle_s {settle_s:g} s leave {ttl_s - settle_s:g} s, but a change of"
        f" broker takes {needed_s:g} s (beat_timeout_s + answer_timeout_s +"
        f" {TICKS_TO_CHANGE_BROKER} ticks) and would drop the rack to its floor; give at least"
        f" {needed_s + settle_s:g}"
    )


def has_own_lease(rack: RackTable) -> bool:
    """The rack does not use timing.lease_ttl_s."""
    actuator = rack.actuator
    return actuator is not None and (actuator.ttl_s is not None or actuator.kind == "outlets")


# --- One device -----------------------------------------------------------------------------


def _check_device(
    rack: RackTable, device: DeviceTable, path: KeyPath, profiles: Profiles, faults: Faults
) -> None:
    facts = facts_of(device, profiles)
    if isinstance(device.url, str):
        _check_url(device.url, device, facts, path, faults)
    poll_s = poll_s_of(device, facts)
    if facts is not None:
        _check_measures(measures_of(rack, device), facts, path, faults)
        if poll_s < facts.poll_s_min - SLACK_S:
            faults.add(
                (*path, "poll_s"),
                f"{poll_s:g} s is more often than profile {facts.name} bears; give at least"
                f" {facts.poll_s_min:g}",
            )
    if stale_after_s_of(device, poll_s) < poll_s:
        faults.add(
            (*path, "stale_after_s"),
            f"{device.stale_after_s:g} s is shorter than poll_s {poll_s:g} s: every reading would"
            " be too old; give two or three polls",
        )


def _check_measures(
    measures: Sequence[str], facts: ProfileFacts, path: KeyPath, faults: Faults
) -> None:
    watts = sorted(name for name, unit in facts.points.items() if unit == "W")
    for name, times in Counter(measures).items():
        if name not in facts.points:
            text = f"profile {facts.name} has no point {quoted(name)}; {unknown(name, watts)}"
        elif facts.points[name] != "W":
            text = f"{name} is not in W and cannot be a draw; {unknown(name, watts)}"
        elif times > 1:
            text = f"{name} stands here {times} times and would count so; name it once"
        else:
            continue
        faults.add((*path, "measures"), text)


class _AnyEnvironment(Mapping[str, str]):
    """The file is checked anywhere, its env:NAMEs are needed only where it runs."""

    def __getitem__(self, name: str) -> str:
        return "long enough for a key"

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _check_url(
    url: str, device: DeviceTable, facts: ProfileFacts | None, path: KeyPath, faults: Faults
) -> None:
    community = Secret("from a file") if device.community_file is not None else None
    try:
        address = parse_url(url, _AnyEnvironment(), community)
    except ProfileError as error:
        faults.add((*path, "url"), _without_secrets(str(error), url))
        return
    protocol = "snmp" if isinstance(address, SnmpAddress) else "modbus"
    if facts is not None and facts.protocol != protocol:
        faults.add(
            (*path, "profile"),
            f"{facts.name} is a profile for {facts.protocol}, the url is one for {protocol};"
            " change one of them",
        )
    if facts is not None and isinstance(address, SnmpAddress) and address.member:
        if facts.members is None:
            faults.add(
                (*path, "url"), f"profile {facts.name} knows of one PDU only; leave out what"
                " stands behind the host"
            )  # fmt: skip
        elif facts.members.named(address.member) is None:
            faults.add((*path, "url"), "what stands behind the host is not the number of a PDU")
    if not isinstance(device.community_file, str):
        return
    if not isinstance(address, SnmpAddress) or address.version == 3:
        faults.add(
            (*path, "community_file"), "only snmp:// and snmp1:// have a community; leave it out"
        )
    elif "@" in url:
        faults.add(
            (*path, "community_file"), "the url names a community too; leave one of them out"
        )


def _without_secrets(text: str, url: str) -> str:
    """What the driver says of a URL, unless it repeats a part where a secret may stand."""
    body = url.partition("://")[2] or url
    user, at, _ = body.rpartition("@")
    values = [pair.partition("=")[2] for pair in body.partition("?")[2].split("&")]
    if any(secret and secret in text for secret in [user if at else "", *values]):
        return "not a device URL; write it as snmp://COMMUNITY@host:port or modbus://host:port/unit"
    return text


# --- The actuator ---------------------------------------------------------------------------


def _check_actuator(
    rack: RackTable, actuator: ActuatorTable, path: KeyPath, profiles: Profiles, faults: Faults
) -> None:
    kind = actuator.kind
    if isinstance(kind, UnsetType):
        return
    if actuator.outlets and kind != "outlets":
        faults.add(
            (*path, "outlets"), f'belong to kind = "outlets", not to "{kind}"; change one of them'
        )
    if kind == "outlets" and not actuator.outlets:
        faults.add((*path, "outlets"), "none are listed; add those that may be switched off")
    if kind == "none":
        if isinstance(actuator.device, str):
            faults.add((*path, "device"), 'kind = "none" commands nothing; leave it out')
        return
    device = actuator_device(rack)
    if device is None:
        _report_no_device(rack, actuator, path, faults)
    elif device.profile is None:
        # Delays and commands must be known before anything is written (protocol R5).
        faults.add(
            (*path, "device"),
            f"device {actuator.device} has no profile, and what is commanded must be known"
            " beforehand; add profile = (wattbroker probe recognises it)",
        )
    elif (facts := facts_of(device, profiles)) is not None:
        _check_commands(actuator, facts, path, faults)


def _report_no_device(
    rack: RackTable, actuator: ActuatorTable, path: KeyPath, faults: Faults
) -> None:
    names = [each.name for each in rack.device if isinstance(each.name, str)]
    if actuator.device is None:
        known = ", ".join(names) or "none yet: add a [[rack.device]]"
        faults.add((*path, "device"), f"missing; name one of this rack's devices ({known})")
    elif isinstance(actuator.device, str) and len(names) == len(rack.device):
        faults.add(
            (*path, "device"),
            f"this rack has no device {quoted(actuator.device)}; {unknown(actuator.device, names)}",
        )


def _check_commands(
    actuator: ActuatorTable, facts: ProfileFacts, path: KeyPath, faults: Faults
) -> None:
    if not facts.commandable:
        faults.add(
            (*path, "device"),
            f"profile {facts.name} is untested: it can be read, never commanded;"
            " record the device first",
        )
    if actuator.settle_s is not None and actuator.settle_s < facts.effect_delay_s:
        faults.add(
            (*path, "settle_s"),
            f"{actuator.settle_s:g} s is shorter than the {facts.effect_delay_s:g} s within which"
            f" profile {facts.name} takes effect; give more, or leave it out",
        )
    if actuator.kind == "power-limit" and LIMIT_COMMAND not in facts.commands:
        faults.add(
            (*path, "kind"),
            f"profile {facts.name} has no command {LIMIT_COMMAND}; name a device that has,"
            " or another kind",
        )
    for index, outlet in enumerate(actuator.outlets if actuator.kind == "outlets" else ()):
        if isinstance(outlet.number, int) and f"outlet.{outlet.number}.load" not in facts.commands:
            faults.add(
                (*path, "outlets", index, "number"),
                f"profile {facts.name} cannot switch outlet {outlet.number};"
                f" {_switchable(facts.commands)}",
            )


def _switchable(commands: frozenset[str]) -> str:
    numbers = sorted(
        int(parts[1])
        for parts in (name.split(".") for name in commands)
        if len(parts) == 3 and parts[0] == "outlet" and parts[2] == "load" and parts[1].isdecimal()
    )
    if not numbers:
        return "it has no outlets that can be switched"
    return f"it knows {numbers[0]} to {numbers[-1]}"
