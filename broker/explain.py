"""Why a rack's limit is what it is: the record for whoever asks (`racks/<rack>/explain`).

Nothing is decided here. The controller says what made the limit (`Cause`), the lease
desk what was granted until when, the cap book what the caps are; here it becomes one
record, with the ways in which the limit could change next, in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.brake import RELEASE_S, Braked
from broker.caps import CapBook
from broker.effects import Lease
from broker.messages import Explain

AT_START = "hardware at the start"
LEASE_END = "end of the lease"


@dataclass(frozen=True, slots=True)
class Cause:
    """What made the limit what it is, and since when (monotonic seconds).

    `cap` and `price` are those of the grant, where a broker is the cause.
    """

    set_by: str
    why: str
    since_s: float
    cap: str | None = None
    price: float | None = None


JUST_STARTED = Cause(AT_START, "no grant since the start", 0.0)


@dataclass(frozen=True, slots=True)
class Limited:
    """What the rack can be held to and is. Powers in whole watts."""

    limit_w: int
    bound_w: int
    floor_w: int
    ceiling_w: int
    demand_w: int
    starting: bool
    can_lower: bool
    cause: Cause
    braked: Braked | None
    held_by: str | None


def explain(
    rack: Limited,
    lease: Lease | None,
    caps: CapBook,
    *,
    until_s: float,
    lowers_at_s: float,
    now: float,
) -> Explain:
    """The record. `lease` is the newest, `until_s` its end, `lowers_at_s` when R6 acts."""
    cap = rack.braked.cap if rack.braked else rack.cause.cap
    cap_limit_w, cap_by = caps.in_force(cap, now) if cap in caps.names else (None, None)
    may_fall = rack.can_lower and rack.limit_w > rack.floor_w
    return Explain(
        limit_w=rack.limit_w,
        bound_w=rack.bound_w,
        floor_w=rack.floor_w,
        ceiling_w=rack.ceiling_w,
        set_by=rack.cause.set_by,
        why=rack.cause.why,
        cap=cap,
        cap_limit_w=cap_limit_w,
        cap_by=cap_by,
        price=rack.cause.price,
        since_s=_left_s(now - rack.cause.since_s),
        granted_w=lease.limit_w if lease else None,
        lease_left_s=_left_s(until_s - now),
        floor_in_s=_left_s(lowers_at_s - now) if may_fall else None,
        braked_by=rack.braked.cap if rack.braked else None,
        changes=(
            *_ways_up(rack, cap, cap_limit_w, cap_by, now < lowers_at_s),
            *_ways_down(rack, now < lowers_at_s),
        ),
    )


def _ways_up(
    rack: Limited,
    cap: str | None,
    cap_limit_w: int | None,
    cap_by: str | None,
    leased: bool,
) -> tuple[str, ...]:
    """The first thing that stands in the way of more; the others come after it."""
    if rack.limit_w >= rack.ceiling_w:
        return ("up: nothing, it is at its ceiling",)
    if rack.braked is not None:
        return (
            f"up: caps/{rack.braked.cap}/measured at or below {rack.braked.release_w} W for"
            f" {RELEASE_S:g} s and its turn; silence of that meter releases nothing",
        )
    if rack.held_by is not None:
        return (f"up: caps/{rack.held_by}/measured lower, then a broker's grant",)
    if rack.starting:
        return ("up: the hardware's own setting, read and proven after the start",)
    if not leased:
        return ("up: a broker's grant",)
    if cap is not None and cap_limit_w is not None:
        return (f"up: more room under {cap} ({cap_limit_w} W by {cap_by}), by a broker's grant",)
    if rack.demand_w <= rack.limit_w:
        return (f"up: a larger demand; the rack wants {rack.demand_w} W",)
    return ("up: a broker's grant, once the others have come down",)


def _ways_down(rack: Limited, leased: bool) -> tuple[str, ...]:
    if not rack.can_lower:
        return ("down: nothing, it has no actuator",)
    if rack.limit_w <= rack.floor_w:
        return ("down: nothing, it is at its floor",)
    grant = "down: a broker's grant, at once"
    if not leased:
        return (grant,)
    return (grant, f"down: no newer grant: {rack.floor_w} W")


def _left_s(seconds: float) -> float:
    return round(max(0.0, seconds), 1)
