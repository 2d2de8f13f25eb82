"""What a device can carry, from what it says of itself: proposals for a site file. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from drivers.reading import Missing, Reading
from firmware_py.shown import number

REALPOWER = "input.realpower"
FLOOR_SHARE = 1.25  # of what it draws now
FLOOR_W_MIN = 100
UNKNOWN_CEILING_W = 3680  # 16 A at 230 V
VOLTS_MIN = 50.0  # below, a phase is not wired
MAINS_V = 230.0
PAIRS = ("L1-L2", "L2-L3", "L3-L1")
WATTS_MAX = 1_000_000  # of one device; more is a fault, and not a rating
NUMBER_MAX = 1e9  # more is no measurement of anything in a rack

Points = Mapping[str, Reading | Missing]


def ceiling_of(points: Points) -> tuple[int, str]:
    """The most that the device can carry, as far as it says so, and where that is from."""
    rated_w, why = _rating(points)
    now_w = value_of(points, REALPOWER) or 0.0
    if not 0 < rated_w <= WATTS_MAX:
        why = "it does not say its rating: take the breaker's"
        rated_w = max(float(UNKNOWN_CEILING_W), 1.5 * min(now_w, WATTS_MAX / 2))
    elif rated_w < now_w <= WATTS_MAX:
        rated_w, why = now_w, f"what it draws now, above its rating of {number(rated_w)} W"
    return rounded_up(rated_w, 10), why


def _rating(points: Points) -> tuple[float, str]:
    rated_w = value_of(points, "input.realpower.rating")
    if rated_w:
        return rated_w, "its rated power"
    rated_va = value_of(points, "input.power.rating")
    if rated_va:
        return rated_va, "its rated volt-amperes"
    rated_a = value_of(points, "input.current.rating")
    if rated_a:
        volts, shown_volts = _volts(points)
        return rated_a * volts, f"its rated {number(rated_a)} A x {shown_volts}"
    inlets = _inlets(points)
    if inlets:
        return sum(inlets), "the rating of its inlet" if len(inlets) == 1 else "its inlets' ratings"
    return 0.0, ""


def _volts(points: Points) -> tuple[float, str]:
    """The voltages that a current of every phase adds up over."""
    lines = [value_of(points, f"input.L{n}.voltage") or 0.0 for n in (1, 2, 3)]
    wired = [volts for volts in lines if volts >= VOLTS_MIN]
    if wired:
        return sum(wired), " + ".join(f"{number(round(volts))} V" for volts in wired)
    pairs = [
        value_of(points, f"input.{pair}.voltage") or 0.0 for pair in ("L1-L2", "L2-L3", "L3-L1")
    ]
    wired = [volts for volts in pairs if volts >= VOLTS_MIN]
    if wired:
        mean = sum(wired) / len(wired)
        both = 1.0 if len(wired) == 1 else math.sqrt(3)
        return mean * both, f"{number(round(mean))} V" + ("" if len(wired) == 1 else " x √3")
    volts = value_of(points, "input.voltage") or value_of(points, "input.voltage.rating")
    if volts and volts > 0:
        return volts, f"{number(round(volts))} V"
    return MAINS_V, f"{number(MAINS_V)} V"


def _inlets(points: Points) -> list[float]:
    rated = []
    for name in points:
        found = re.fullmatch(r"(inlet\.[^.]+)\.(realpower|power|current)\.rating", name)
        if found is None:
            continue
        value = value_of(points, name)
        if value and found[2] == "current":
            volts = value_of(points, f"{found[1]}.voltage")
            value *= volts or value_of(points, f"{found[1]}.voltage.rating") or MAINS_V
        if value and value > 0:
            rated.append((found[1], value))
    return list(dict(reversed(rated)).values())  # of one inlet, what the profile says first


def floor_of(points: Points, ceiling_w: int) -> int:
    """A quarter more than it draws now; its ceiling, if that is not known."""
    watts = value_of(points, REALPOWER)
    if watts is None:
        return ceiling_w
    wanted = max(FLOOR_W_MIN, rounded_up(min(max(watts, 0.0), WATTS_MAX) * FLOOR_SHARE, 10))
    return min(ceiling_w, wanted)


def value_of(points: Points, name: str) -> float | None:
    """The number, if there is one that can be."""
    told = points.get(name)
    if not isinstance(told, Reading) or isinstance(told.value, str):
        return None
    return float(told.value) if abs(told.value) <= NUMBER_MAX else None  # NaN is not below


def rounded_up(watts: float, step: int) -> int:
    """Draws are rounded against ourselves."""
    return max(step, math.ceil(watts / step - 1e-9) * step)
