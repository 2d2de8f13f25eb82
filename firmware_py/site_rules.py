"""What must hold between the values of a site file.

Each rule is one function that reads the tables and reports every breach of itself. A
value that was wrong in itself is UNSET here; it has been reported, and a rule that
would need it keeps silent, so that one slip is one fault. A rule that only adds up
goes on with the values it has: if the floors that are known are already too much, it
is true whatever the others are.

The rules make the protocol's assumptions true before it starts: floors that fit under
every cap, leases longer than a change of broker (R6), actuators that wait out their
own delay (R5), steps that the limiter can reach (R8).

Pure. `check` is the only door.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import UNSET, UnsetType

from firmware_py.site_defaults import (
    Profiles,
    actuator_device,
    facts_of,
    settle_s_of,
)
from firmware_py.site_keys import CapTable, RackTable, SiteTable
from firmware_py.site_lines import KeyPath
from firmware_py.site_rack_rules import check_rack, has_own_lease, lease_fault
from firmware_py.site_tables import Faults, quoted, unknown
from firmware_py.site_types import Timing

# The cap above each cap: None at a root, UNSET where the file says something else.
Parents = dict[str, str | UnsetType | None]


def check(site: SiteTable, profiles: Profiles, faults: Faults) -> None:
    """Report to `faults` whatever cannot hold together."""
    _check_timing(site.timing, faults)
    _check_mqtt(site, faults)
    _check_caps(_caps(site), _racks(site), faults)
    _check_duplicates(site, faults)
    for index, rack in enumerate(_racks(site)):
        check_rack(rack, ("rack", index), site.timing, profiles, faults)
    _check_shared_lease(site, profiles, faults)
    _check_roster(site, faults)


def _check_roster(site: SiteTable, faults: Faults) -> None:
    """Racks that join do so on a site that lets them."""
    if site.roster == "open":
        return
    for index, rack in enumerate(_racks(site)):
        if rack.joins:
            faults.add(
                ("rack", index, "joins"),
                'nobody can join a static site; write roster = "open" at the top, on every'
                " rack of the site",
            )


def _caps(site: SiteTable) -> tuple[CapTable, ...]:
    return () if site.cap is UNSET else site.cap


def _racks(site: SiteTable) -> tuple[RackTable, ...]:
    return () if site.rack is UNSET else site.rack


# --- Timing and leases ----------------------------------------------------------------


def _check_timing(timing: Timing, faults: Faults) -> None:
    if timing.beat_timeout_s <= timing.tick_s:
        faults.add(
            ("timing", "beat_timeout_s"),
            f"{timing.beat_timeout_s:g} s is not longer than a tick of {timing.tick_s:g} s: every"
            " beat would come too late; give at least two ticks",
        )
    if timing.answer_timeout_s >= timing.beat_timeout_s:
        faults.add(
            ("timing", "answer_timeout_s"),
            f"{timing.answer_timeout_s:g} s is not shorter than beat_timeout_s"
            f" {timing.beat_timeout_s:g} s: an election would overtake itself; give less",
        )
    if timing.preempt_after_s < timing.beat_timeout_s:
        faults.add(
            ("timing", "preempt_after_s"),
            f"{timing.preempt_after_s:g} s is shorter than beat_timeout_s"
            f" {timing.beat_timeout_s:g} s: a rack would take over before it can know who leads;"
            " give more",
        )


def _check_shared_lease(site: SiteTable, profiles: Profiles, faults: Faults) -> None:
    """timing.lease_ttl_s, once, for the slowest of the racks that use it."""
    slowest = (0.0, "")
    for rack in _racks(site):
        settle_s = settle_s_of(rack.actuator, facts_of(actuator_device(rack), profiles))
        if settle_s is None or has_own_lease(rack):
            continue
        if settle_s > slowest[0]:
            slowest = (settle_s, f" (rack {rack.name})" if isinstance(rack.name, str) else "")
    fault = lease_fault(site.timing.lease_ttl_s, slowest[0], site.timing)
    if fault is not None:
        faults.add(("timing", "lease_ttl_s"), fault + slowest[1])


# --- The MQTT server --------------------------------------------------------------------


def _check_mqtt(site: SiteTable, faults: Faults) -> None:
    mqtt = site.mqtt
    if mqtt is UNSET:
        return
    if isinstance(mqtt.host, str) and (set(mqtt.host) & set(" /@?#") or len(mqtt.host) > 253):
        faults.add(("mqtt", "host"), 'not a host; give a name or an address, as "192.0.2.10"')
    if mqtt.password_file is not None and mqtt.username is None:
        faults.add(("mqtt", "password_file"), "a password without a user; add username =")
    if mqtt.tls is not None and (mqtt.tls.cert is None) != (mqtt.tls.key is None):
        there, absent = ("cert", "key") if mqtt.tls.key is None else ("key", "cert")
        faults.add(("mqtt", "tls", there), f"{there} without {absent}; give both or neither")


# --- Caps ---------------------------------------------------------------------------------


def _check_caps(caps: Sequence[CapTable], racks: Sequence[RackTable], faults: Faults) -> None:
    parents: Parents = {}
    for cap in caps:
        if isinstance(cap.name, str):
            parents.setdefault(cap.name, cap.parent)
    below: dict[str, list[RackTable]] = {name: [] for name in parents}
    all_names_known = bool(caps) and all(cap.name is not UNSET for cap in caps)
    for index, rack in enumerate(racks):
        if isinstance(rack.cap, str) and rack.cap not in parents and all_names_known:
            faults.add(("rack", index, "cap"), _no_such_cap(rack.cap, parents))
        for name in _upwards(rack.cap, parents):
            below[name].append(rack)
    all_places_known = (
        bool(racks)
        and all(rack.cap is not UNSET for rack in racks)
        and UNSET not in parents.values()
    )
    in_cycle: set[str] = set()
    for index, cap in enumerate(caps):
        path: KeyPath = ("cap", index)
        if all_names_known:
            _check_parent(cap, path, parents, in_cycle, faults)
        _check_fallback(cap, path, faults)
        members = below.get(cap.name, []) if isinstance(cap.name, str) else None
        if members == [] and all_places_known:
            faults.add(
                (*path, "name"),
                f"no rack hangs from it; let a [[rack]] say cap = {quoted(str(cap.name))},"
                " or leave it out",
            )
        if members:
            _check_floors(cap, path, members, faults)


def _no_such_cap(name: str, parents: Parents) -> str:
    return f"there is no cap {quoted(name)}; {unknown(name, tuple(parents))}"


def _upwards(name: str | UnsetType, parents: Parents) -> Iterator[str]:
    """The cap of that name and every known one above it, each once."""
    seen: set[str] = set()
    at: str | UnsetType | None = name
    while isinstance(at, str) and at in parents and at not in seen:
        seen.add(at)
        yield at
        at = parents[at]


def _check_parent(
    cap: CapTable,
    path: KeyPath,
    parents: Parents,
    in_cycle: set[str],
    faults: Faults,
) -> None:
    if not isinstance(cap.parent, str):
        return
    if cap.parent not in parents:
        faults.add((*path, "parent"), _no_such_cap(cap.parent, parents))
        return
    chain = list(_upwards(cap.name, parents))
    if chain and parents[chain[-1]] == cap.name and cap.name not in in_cycle:
        in_cycle.update(chain)
        circle = " → ".join([*chain, chain[0]])
        faults.add((*path, "parent"), f"a cycle: {circle}; one of them must have no parent")


def _check_fallback(cap: CapTable, path: KeyPath, faults: Faults) -> None:
    if cap.set_ttl_s is not None and cap.fallback_w is None:
        faults.add(
            (*path, "set_ttl_s"), "means nothing without fallback_w; add it, or leave this out"
        )
    if not isinstance(cap.fallback_w, int) or cap.limit_w is UNSET:
        return
    if cap.fallback_w > cap.limit_w:
        faults.add(
            (*path, "fallback_w"),
            f"{cap.fallback_w} W is above limit_w {cap.limit_w} W and would never hold; give less",
        )


def _check_floors(
    cap: CapTable, path: KeyPath, members: Sequence[RackTable], faults: Faults
) -> None:
    floors = [(each.floor_w, each.name) for each in members if isinstance(each.floor_w, int)]
    total_w = sum(floor_w for floor_w, _ in floors)
    if cap.limit_w is UNSET or total_w <= cap.limit_w:
        return
    largest = sorted(floors, key=lambda each: -each[0])[:5]
    shown = ", ".join(f"{name} {floor_w}" for floor_w, name in largest if isinstance(name, str))
    faults.add(
        (*path, "limit_w"),
        f"the floor_w of the racks below adds up to {total_w} W, above the cap's"
        f" {cap.limit_w} W (the largest: {shown}); lower floors by {total_w - cap.limit_w} W,"
        " or raise the cap if its breaker allows",
    )


# --- Names and numbers that must be unique ----------------------------------------------


def _check_duplicates(site: SiteTable, faults: Faults) -> None:
    racks = _racks(site)
    _once("name", ((("cap", i, "name"), cap.name) for i, cap in enumerate(_caps(site))), faults)
    _once("name", ((("rack", i, "name"), rack.name) for i, rack in enumerate(racks)), faults)
    _once("rank", ((("rack", i, "rank"), rack.rank) for i, rack in enumerate(racks)), faults)
    for i, rack in enumerate(racks):
        devices = ((("rack", i, "device", j, "name"), d.name) for j, d in enumerate(rack.device))
        _once("name", devices, faults)
        outlets = rack.actuator.outlets if rack.actuator else ()
        at: KeyPath = ("rack", i, "actuator", "outlets")
        _once("number", (((*at, j, "number"), o.number) for j, o in enumerate(outlets)), faults)


def _once(
    what: str, values: Iterable[tuple[KeyPath, str | int | UnsetType]], faults: Faults
) -> None:
    first: dict[str | int, int | str] = {}
    for path, value in values:
        if isinstance(value, UnsetType):
            continue
        where = path[-2]
        if value in first:
            faults.add(
                path,
                f"{what} {value} is already that of {path[-3]}[{first[value]}]; give each its own",
            )
        first.setdefault(value, where)
