"""What may be run, but should be known beforehand.

Two facts of the protocol become numbers here. A rack whose controller is down while
the broker changes counts at its ceiling (B1), and what is missing under the cap is
taken from the others, who fall to their floors. And a cap that falls while racks are
cut off is kept only once their leases have run out (R6): a breaker that is faster
than that trips.

Pure, on a `Site` that holds every rule; what is secret on disk is looked at by the
caller.
"""

from __future__ import annotations

from collections.abc import Iterator

from firmware_py.breakers import fast_trip_s
from firmware_py.errors import Warning_
from firmware_py.site_types import Cap, Rack, Site


def warnings(site: Site) -> Iterator[Warning_]:
    """Every warning, cap by cap, then rack by rack."""
    for cap in site.caps:
        racks = site.under(cap.name)
        yield from _missing_controllers(cap, racks)
        yield from _uncontrolled(cap, racks)
        yield from _trips(cap, racks)
        yield from _low_fallback(cap, racks)
        yield from _hasty_brake(cap, racks, site.timing.tick_s)
    yield from (_unmeasured(rack) for rack in site.racks if not _is_measured(rack))


def _missing_controllers(cap: Cap, racks: tuple[Rack, ...]) -> Iterator[Warning_]:
    floors_w = sum(rack.floor_w for rack in racks)
    for rack in racks:
        others_w = floors_w - rack.floor_w
        if rack.ceiling_w + others_w > cap.limit_w:
            yield Warning_(
                f'cap "{cap.name}", rack "{rack.name}"',
                f"ceiling_w {rack.ceiling_w} + floors of the others {others_w} ="
                f" {rack.ceiling_w + others_w} W is above limit_w {cap.limit_w}: if {rack.name}'s"
                f" Pi is down when the broker changes, all others under {cap.name} fall to their"
                " floors",
            )


def _uncontrolled(cap: Cap, racks: tuple[Rack, ...]) -> Iterator[Warning_]:
    """Racks that nothing limits count at their ceilings always, not only at times."""
    least_w = sum(r.ceiling_w if r.actuator.kind == "none" else r.floor_w for r in racks)
    if least_w > cap.limit_w:
        names = ", ".join(rack.name for rack in racks if rack.actuator.kind == "none")
        yield Warning_(
            f'cap "{cap.name}"',
            f"cannot be promised: ceilings of the racks without actuator ({names}) + floors of the"
            f" others = {least_w} W is above limit_w {cap.limit_w}",
        )


def _trips(cap: Cap, racks: tuple[Rack, ...]) -> Iterator[Warning_]:
    breaker = cap.breaker
    if breaker is None:
        return
    if cap.limit_w > breaker.rating_w:
        yield Warning_(
            f'cap "{cap.name}"',
            f"limit_w {cap.limit_w} is above its breaker's rating_w {breaker.rating_w}",
        )
    most_w = sum(rack.ceiling_w for rack in racks)
    trip_s = fast_trip_s(breaker.curve, most_w / breaker.rating_w)
    slow = [rack for rack in racks if _cut_off_s(rack) > trip_s]
    if not slow:
        return
    slowest = max(slow, key=_cut_off_s)
    yield Warning_(
        f'cap "{cap.name}"',
        f"if limit_w falls while racks are cut off, {slowest.name} takes up to"
        f" {_cut_off_s(slowest):g} s (ttl_s {slowest.actuator.ttl_s:g} + settle_s"
        f" {slowest.actuator.settle_s:g}), but at Σ ceiling_w {most_w} W ="
        f" {most_w / breaker.rating_w:.2f} x rating_w {breaker.rating_w} a breaker of curve"
        f" {breaker.curve} may trip after {trip_s:.3g} s ({len(slow)} of {len(racks)} racks are"
        " slower than that)",
    )


def _cut_off_s(rack: Rack) -> float:
    return rack.actuator.ttl_s + rack.actuator.settle_s


def _low_fallback(cap: Cap, racks: tuple[Rack, ...]) -> Iterator[Warning_]:
    floors_w = sum(rack.floor_w for rack in racks)
    if cap.fallback_w is not None and cap.fallback_w < floors_w:
        yield Warning_(
            f'cap "{cap.name}"',
            f"fallback_w {cap.fallback_w} is below the floors' {floors_w} W: when its sources are"
            " silent all are at their floors and it is exceeded",
        )


def _hasty_brake(cap: Cap, racks: tuple[Rack, ...], tick_s: float) -> Iterator[Warning_]:
    slowest = max(racks, key=lambda rack: rack.actuator.settle_s)
    needed_s = tick_s + slowest.actuator.settle_s
    if cap.brake_after_s is not None and cap.brake_after_s <= needed_s:
        yield Warning_(
            f'cap "{cap.name}"',
            f"brake_after_s {cap.brake_after_s:g} is not longer than a tick and the settle_s of"
            f" {slowest.name}, {needed_s:g} s in all: racks may brake each time that the cap falls",
        )


def _is_measured(rack: Rack) -> bool:
    return any(device.measures for device in rack.devices)


def _unmeasured(rack: Rack) -> Warning_:
    return Warning_(
        f'rack "{rack.name}"',
        f"nothing measures it: it counts as wanting its ceiling_w {rack.ceiling_w} all the time",
    )
