"""A miniature circuit breaker: how long an overload may last before it opens.

What it decides: given the load step by step, is the breaker still closed?
The numbers are the time-current characteristic of IEC 60898-1, table 7, which gives
a band, not a line: every specimen on sale lies between the two edges.

    multiple of the rating   within            must
    1.13                     1 h               hold
    1.45                     1 h               open
    2.55                     1 s .. 60 s       open in that band (ratings up to 32 A)
    B 3 · C 5 · D 10         0.1 s             hold
    B 5 · C 10 · D 20        0.1 s             open

Ours, not the standard's: between its points an edge is a straight line on the usual
double logarithmic sheet; a changing overload uses up the breaker in parts, each second
at a load as much as one over the time that load is borne; and below the edge's first
point what was used up comes back within ten minutes.

Assumed: power stands for current (constant voltage, balanced phases), and the breaker
is cold at the start. An open breaker stays open: nobody resets it here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

RECOVERY_S = 600.0

Point = tuple[float, float]  # multiple of the rating, seconds it is borne


@dataclass(frozen=True, slots=True)
class Edge:
    """One border of the band: the thermal points, then per curve the magnetic one."""

    thermal: tuple[Point, Point]
    magnetic: dict[str, float]

    def points(self, curve: str) -> tuple[Point, ...]:
        return (*self.thermal, (self.magnetic[curve], 0.1))


FAST = Edge(((1.13, 3600.0), (2.55, 1.0)), {"B": 3.0, "C": 5.0, "D": 10.0})
SLOW = Edge(((1.45, 3600.0), (2.55, 60.0)), {"B": 5.0, "C": 10.0, "D": 20.0})


def trip_time_s(multiple: float, curve: str = "C", edge: Edge = FAST) -> float:
    """Seconds a cold breaker holds a constant load, as a multiple of its rating; inf: for good."""
    points = edge.points(curve)
    if multiple < points[0][0]:
        return math.inf
    for (left, left_s), (right, right_s) in pairwise(points):
        if multiple <= right:
            along = math.log(multiple / left) / math.log(right / left)
            return math.exp((1 - along) * math.log(left_s) + along * math.log(right_s))
    return 0.0


class Breaker:
    """One breaker under a changing load. `tripped` stays true once it is."""

    def __init__(self, rating_w: float, curve: str = "C", edge: Edge = FAST) -> None:
        if rating_w <= 0 or curve not in edge.magnetic:
            raise ValueError(f"no such breaker: {rating_w} W, curve {curve}")
        self.rating_w = rating_w
        self.curve = curve
        self.edge = edge
        self.used_up = 0.0  # 1: it opens
        self.tripped = False

    def step(self, load_w: float, dt_s: float) -> bool:
        """The load was `load_w` for the last `dt_s`; true while the breaker is closed."""
        if self.tripped:
            return False
        borne_s = trip_time_s(load_w / self.rating_w, self.curve, self.edge)
        if math.isinf(borne_s):
            self.used_up = max(0.0, self.used_up - dt_s / RECOVERY_S)
        elif borne_s > 0:
            self.used_up += dt_s / borne_s
        # A hair below 1: the steps of a constant load must add up to its time.
        self.tripped = borne_s == 0 or self.used_up >= 1 - 1e-9
        return not self.tripped
