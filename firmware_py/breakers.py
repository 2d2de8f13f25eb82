"""The fast edge of a miniature circuit breaker's trip curve.

A breaker trips somewhere inside a band. What matters here is the band's lower, fast
edge: how long an overload is borne by *every* breaker of that curve. A change that
settles within that time trips nothing.

Source: IEC 60898-1 (circuit-breakers for household and similar installations), the
table of time-current operating characteristics, as multiples of the rated current In:

    1.13 In   conventional non-tripping current: no trip within 1 h (2 h above 63 A)
    1.45 In   conventional tripping current: trips within 1 h (2 h above 63 A)
    2.55 In   trips within 1 s to 60 s (to 120 s above 32 A)
    3 In (B), 5 In (C), 10 In (D)       trips in no less than 0.1 s
    5 In (B), 10 In (C), 20 In (D)      trips at once, in less than 0.1 s

Taken from it, on the safe side: the hour at 1.13 In for all sizes (the site file
knows watts, not amperes), and no time at all above the lower instantaneous limit.
1.45 In gives the slow edge only. Between the standard's points the edge is a straight
line in log-log, which is an interpolation of ours; a maker's own published curve goes
before it, and a breaker in a hot cabinet is faster than either.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final, Literal

Curve = Literal["B", "C", "D"]

# (multiple of rated current, seconds that it is borne), rising and falling strictly.
FAST_EDGE: Final[dict[Curve, tuple[tuple[float, float], ...]]] = {
    "B": ((1.13, 3600.0), (2.55, 1.0), (3.0, 0.1)),
    "C": ((1.13, 3600.0), (2.55, 1.0), (5.0, 0.1)),
    "D": ((1.13, 3600.0), (2.55, 1.0), (10.0, 0.1)),
}


def fast_trip_s(curve: Curve, multiple: float) -> float:
    """Seconds for which every breaker of `curve` bears `multiple` times its rating.

    Infinite below the conventional non-tripping current, 0 above the lower
    instantaneous limit.
    """
    points = FAST_EDGE[curve]
    if multiple < points[0][0]:
        return math.inf
    for (left, left_s), (right, right_s) in pairwise(points):
        if multiple <= right:
            share = math.log(multiple / left) / math.log(right / left)
            return float(left_s * (right_s / left_s) ** share)
    return 0.0
