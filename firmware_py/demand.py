"""What a rack would draw if it were let: floor ≤ wanted ≤ ceiling.

A capped rack's meter shows the cap, not the wish. While the limit binds, the estimate
probes upwards by a share of the limit; otherwise it is the measured draw with a margin
that covers what may be switched on within a few ticks. A rack whose draw is not known
wants its ceiling (R9), and so does one whose outlets wait to be switched on: what an
outlet draws is not seen while it is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MARGIN_SHARE = 0.08
MARGIN_W = 20
BINDING_SHARE = 0.95  # a draw above this share of the limit is held by it
PROBE_SHARE = 0.6  # how far above a binding limit the next wish goes


@dataclass(frozen=True, slots=True)
class Demand:
    """In whole watts, rounded up."""

    floor_w: int
    wanted_w: int
    ceiling_w: int


def estimate(
    measured_w: int | None, limit_w: int, *, floor_w: int, ceiling_w: int, in_steps: bool
) -> Demand:
    """The demand of a rack that draws `measured_w` (None: not known) under `limit_w`."""
    if measured_w is None or in_steps:
        return Demand(floor_w, ceiling_w, ceiling_w)
    wanted_w = measured_w * (1 + MARGIN_SHARE) + MARGIN_W
    if measured_w >= BINDING_SHARE * limit_w:
        wanted_w = max(wanted_w, limit_w * (1 + PROBE_SHARE))
    return Demand(floor_w, max(floor_w, min(ceiling_w, math.ceil(wanted_w))), ceiling_w)
