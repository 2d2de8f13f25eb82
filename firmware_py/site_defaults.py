"""What a site file leaves out, and how it becomes a `Site`.

Every default that depends on something else is decided here, once; the rules ask the
same functions, so that what is checked is what will run. What depends on a device
comes from its profile, as `ProfileFacts`.

`measures` left out means `input.realpower`, except for a device that is there to
limit: it counts nothing when another device of the rack measures, because most
limiters report their own idea of the same watts and a sum would count them twice.

Pure. `resolve` assumes that every rule holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from msgspec import UNSET, UnsetType

from drivers.resolve import Members
from firmware_py.site_keys import (
    ActuatorTable,
    BreakerTable,
    CapTable,
    DeviceTable,
    MqttTable,
    RackTable,
    SiteTable,
    TlsTable,
)
from firmware_py.site_types import (
    Actuator,
    Breaker,
    Cap,
    DeviceSpec,
    Mqtt,
    Outlet,
    Rack,
    Site,
    Timing,
    Tls,
)

REALPOWER = "input.realpower"
POLL_S = 1.0
STALE_POLLS = 3.0
SETTLE_MARGIN_S = 1.0  # from "it has taken effect" to "it has been read back"
OUTLETS_TTL_S = 300.0  # nobody switches servers off because the MQTT server was updated
SET_TTL_S = 30.0


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What the site file's rules need to know about a device profile."""

    name: str
    protocol: str
    points: Mapping[str, str]  # name to unit
    commands: frozenset[str]
    commandable: bool  # False: read only, because nobody has tested it
    members: Members | None  # how it names the PDUs behind one agent
    effect_delay_s: float
    poll_s_min: float


Profiles = Mapping[str, ProfileFacts]


def facts_of(device: DeviceTable | None, profiles: Profiles) -> ProfileFacts | None:
    """The profile that the device names; None if it names none that can be used."""
    if device is None or not isinstance(device.profile, str):
        return None
    return profiles.get(device.profile)


def actuator_device(rack: RackTable) -> DeviceTable | None:
    """The device that limits the rack."""
    wanted = rack.actuator.device if rack.actuator else None
    if not isinstance(wanted, str):
        return None
    return next((each for each in rack.device if each.name == wanted), None)


def measures_of(rack: RackTable, device: DeviceTable) -> tuple[str, ...]:
    """The points of this device that count as the rack's draw."""
    if device.measures is UNSET:
        return ()
    if device.measures is not None:
        return device.measures
    others = [each for each in rack.device if each is not device]
    if device is actuator_device(rack) and any(each.measures != () for each in others):
        return ()
    return (REALPOWER,)


def poll_s_of(device: DeviceTable, facts: ProfileFacts | None) -> float:
    """The period of polling: a second, or what the device bears if that is longer."""
    if device.poll_s is not None:
        return device.poll_s
    return max(POLL_S, facts.poll_s_min) if facts else POLL_S


def stale_after_s_of(device: DeviceTable, poll_s: float) -> float:
    """The age at which a reading is no longer believed."""
    return STALE_POLLS * poll_s if device.stale_after_s is None else device.stale_after_s


def settle_s_of(actuator: ActuatorTable | None, facts: ProfileFacts | None) -> float | None:
    """The longest time from a lowering write to its read-back; None if nothing says."""
    if actuator is None or actuator.kind == "none":
        return 0.0
    if actuator.settle_s is not None:
        return actuator.settle_s
    return facts.effect_delay_s + SETTLE_MARGIN_S if facts else None


def ttl_s_of(actuator: ActuatorTable | None, timing: Timing) -> float:
    """How long a lease of this rack runs."""
    if actuator is None:
        return timing.lease_ttl_s
    if actuator.ttl_s is not None:
        return actuator.ttl_s
    return OUTLETS_TTL_S if actuator.kind == "outlets" else timing.lease_ttl_s


def steps_w(base_w: int, outlets: Sequence[Outlet]) -> tuple[int, ...]:
    """What a rack with outlets may draw: `base_w`, then one outlet more at each step."""
    order = sorted(outlets, key=lambda each: (-each.priority, each.number))
    return tuple(accumulate((each.peak_w for each in order), initial=base_w))


def outlets_of(actuator: ActuatorTable) -> tuple[Outlet, ...] | None:
    """The outlets; None if a value of one of them was wrong."""
    if any(UNSET in (each.number, each.priority, each.peak_w) for each in actuator.outlets):
        return None
    return tuple(
        Outlet(
            number=_known(each.number),
            priority=_known(each.priority),
            peak_w=_known(each.peak_w),
            min_off_s=each.min_off_s,
        )
        for each in actuator.outlets
    )


def ceiling_w_of(rack: RackTable) -> int | None:
    """What the rack can draw at most; None if nothing says."""
    if rack.ceiling_w is UNSET:
        return None
    if rack.ceiling_w is not None:
        return rack.ceiling_w
    actuator = rack.actuator
    if actuator is None or actuator.kind != "outlets":
        return None
    outlets = outlets_of(actuator)
    return steps_w(actuator.base_w, outlets)[-1] if outlets else None


# --- The whole site -----------------------------------------------------------------


def resolve(table: SiteTable, profiles: Profiles, folder: Path) -> Site:
    """The site that is meant; paths are taken from `folder`."""
    return Site(
        schema=_known(table.schema),
        site=_known(table.site),
        roster=table.roster,
        profiles=_path(table.profiles, folder),
        mqtt=_mqtt(_known(table.mqtt), folder),
        timing=table.timing,
        market=table.market,
        caps=tuple(_cap(each) for each in _known(table.cap)),
        racks=tuple(_rack(each, table.timing, profiles, folder) for each in _known(table.rack)),
    )


T = TypeVar("T")


def _known(value: T | UnsetType) -> T:
    assert not isinstance(value, UnsetType), "a site with faults is never resolved"
    return value


def _path(text: str | UnsetType | None, folder: Path) -> Path | None:
    return None if text is None else folder / _known(text)


def _mqtt(table: MqttTable, folder: Path) -> Mqtt:
    return Mqtt(
        host=_known(table.host),
        port=table.port,
        username=_known(table.username),
        password_file=_path(table.password_file, folder),
        tls=None if table.tls is None else _tls(table.tls, folder),
    )


def _tls(table: TlsTable, folder: Path) -> Tls:
    return Tls(
        ca=folder / _known(table.ca),
        cert=_path(table.cert, folder),
        key=_path(table.key, folder),
    )


def _breaker(table: BreakerTable) -> Breaker:
    return Breaker(rating_w=_known(table.rating_w), curve=_known(table.curve))


def _cap(table: CapTable) -> Cap:
    return Cap(
        name=_known(table.name),
        limit_w=_known(table.limit_w),
        parent=_known(table.parent),
        breaker=None if table.breaker is None else _breaker(table.breaker),
        fallback_w=_known(table.fallback_w),
        set_ttl_s=SET_TTL_S if table.set_ttl_s is None else _known(table.set_ttl_s),
        brake_after_s=table.brake_after_s,
    )


def _rack(table: RackTable, timing: Timing, profiles: Profiles, folder: Path) -> Rack:
    ceiling_w = ceiling_w_of(table)
    assert ceiling_w is not None, "a site with faults is never resolved"
    return Rack(
        name=_known(table.name),
        rank=_known(table.rank),
        cap=_known(table.cap),
        floor_w=_known(table.floor_w),
        ceiling_w=ceiling_w,
        weight=table.weight,
        tier=table.tier,
        joins=table.joins,
        devices=tuple(_device(each, table, profiles, folder) for each in table.device),
        actuator=_actuator(table, timing, profiles),
    )


def _device(table: DeviceTable, rack: RackTable, profiles: Profiles, folder: Path) -> DeviceSpec:
    poll_s = poll_s_of(table, facts_of(table, profiles))
    return DeviceSpec(
        name=_known(table.name),
        url=_known(table.url),
        profile=_known(table.profile),
        measures=measures_of(rack, table),
        poll_s=poll_s,
        stale_after_s=stale_after_s_of(table, poll_s),
        community_file=_path(table.community_file, folder),
    )


def _actuator(rack: RackTable, timing: Timing, profiles: Profiles) -> Actuator:
    table = rack.actuator or ActuatorTable(kind="none")
    facts = facts_of(actuator_device(rack), profiles)
    settle_s, outlets = settle_s_of(table, facts), outlets_of(table)
    assert settle_s is not None and outlets is not None, "a site with faults is never resolved"
    return Actuator(
        kind=_known(table.kind),
        device=_known(table.device),
        settle_s=settle_s,
        effect_delay_s=facts.effect_delay_s if facts else 0.0,
        ttl_s=ttl_s_of(table, timing),
        keeps=table.keeps,
        base_w=table.base_w,
        outlets=outlets,
        stagger_s=table.stagger_s,
    )
