"""What a rack would draw if it were let: floor ≤ wanted ≤ ceiling.

A capped rack's meter shows the cap, not the wish. While the limit binds, the wish
probes upwards by a share of the limit; else it comes down to the measured draw with a
margin that covers what may be switched on within a few ticks. It comes down slowly,
and only on readings that were taken when the load had had time to use the last raise:
otherwise a wish would fall because its own answer is not yet to be seen, and racks
would trade watts forth and back.

A rack whose draw is not known wants its ceiling (R9), and so does one whose outlets
wait to be switched on: what an outlet draws is not seen while it is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MARGIN_SHARE = 0.08
MARGIN_W = 20
BINDING_SHARE = 0.95  # a draw above this share of the limit is held by it
PROBE_SHARE = 0.6  # how far above a binding limit the next wish goes
RESPONSE_S = 1.0  # a load uses a raise within this, once the raise is in force
RELEASE_S = 5.0  # time constant of coming down


@dataclass(frozen=True, slots=True)
class Demand:
    """In whole watts, rounded up."""

    floor_w: int
    wanted_w: int
    ceiling_w: int


class DemandEstimator:
    """One rack's wish, from its draw and its limit."""

    def __init__(
        self, *, floor_w: int, ceiling_w: int, in_steps: bool, effect_delay_s: float
    ) -> None:
        self._floor_w = floor_w
        self._ceiling_w = ceiling_w
        self._in_steps = in_steps
        self._effect_delay_s = effect_delay_s
        self._wish_w: float | None = None
        self._limit_w = ceiling_w
        self._raised_at_s = float("-inf")
        self._at_s = float("-inf")

    def estimate(
        self, measured_w: int | None, taken_at_s: float, limit_w: int, *, now: float
    ) -> Demand:
        """The demand of a rack that drew `measured_w` at `taken_at_s` (None: not known)."""
        if limit_w > self._limit_w:
            self._raised_at_s = now
        self._limit_w = limit_w
        if measured_w is None or self._in_steps:
            self._wish_w = None
            return Demand(self._floor_w, self._ceiling_w, self._ceiling_w)
        self._wish_w = self._follow(measured_w, taken_at_s, now)
        self._at_s = now
        wanted_w = max(self._floor_w, min(self._ceiling_w, math.ceil(self._wish_w)))
        return Demand(self._floor_w, wanted_w, self._ceiling_w)

    def _follow(self, measured_w: int, taken_at_s: float, now: float) -> float:
        target_w = measured_w * (1 + MARGIN_SHARE) + MARGIN_W
        wish_w = target_w if self._wish_w is None else self._wish_w
        if measured_w >= BINDING_SHARE * self._limit_w:
            return max(wish_w, target_w, self._limit_w * (1 + PROBE_SHARE))
        if target_w >= wish_w:
            return target_w
        if taken_at_s < self._raised_at_s + self._effect_delay_s + RESPONSE_S:
            return wish_w  # the meter cannot show yet what the raise is used for
        kept = math.exp(-max(0.0, now - self._at_s) / RELEASE_S)
        return target_w + (wish_w - target_w) * kept
