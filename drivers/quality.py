"""Whether readings can be true together, and whether they still move.

A device can answer every question and be wrong: a manual that prints the wrong unit makes
a power ten times too large, a sensor that hangs repeats its last value for ever. What a
device says several times in different ways is compared here:

    scale        W, VA and V·I differ by about 10, 100 or 1000
    powerfactor  more watts than volt-amperes, or a power factor that disagrees with them
    sum          outlets, inlets or phases against the total
    stuck        a value that stays while what is coupled to it moves

A finding is a warning for a person; nothing is corrected, no reading is taken away. So a
finding must be true: readings of one round are seconds apart, and a device rounds. How it
rounds is guessed from the numbers themselves: if all currents of a kind are whole tenths,
a tenth is what they are good for. What is estimated by the device is not compared.

Pure. Time is that of the snapshots.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from drivers.reading import Absence, Missing, Reading, Snapshot

Points = Mapping[str, Reading | Missing]

SPREAD = 0.05  # two readings of one round may differ by so much and both be right
POWER_FACTOR_SPREAD = 0.1  # cos φ, which some devices show, is above the true power factor
TIMES = (10, 100, 1000)
FACTOR_MIN = 3.0  # up to here it may be √3, or a share of something; above it is a scale
LOW_LOAD_VA = 100.0  # below, a power factor of 0.1 is what idle power supplies have
OUTLETS_OWN_USE = 0.1  # what a PDU, its lamps and its switched coils take of the total
OUTLETS_OWN_USE_W = 30.0

STUCK_AFTER_S = 600.0
STUCK_AFTER_READINGS = 20
STEPS_MIN = 200  # coarser values may well stay the same
COARSE = {"current": 1.0, "voltage": 1.0}  # whole amperes and volts certainly may
MOVES_MIN = 3  # so often must a neighbour have moved meanwhile
STEPS_OF_A_MOVE = 3
MOVED_SHARE_MIN = 0.75  # of the neighbours of the same quantity

# The coarsest step that a device may have; a single 1200 W says nothing finer.
STEP_MAX = {"realpower": 100.0, "power": 100.0, "current": 1.0, "voltage": 1.0,
            "powerfactor": 0.1, "energy": 1000.0, "apparentenergy": 1000.0}  # fmt: skip
STEP_MIN = 1e-3
NUMBER_MAX = 1e15  # more is no measurement, and its last digits are gone

# A move of less than this share is no news (a voltage hardly moves at all).
MOVE_MIN = {"realpower": 0.01, "power": 0.01, "current": 0.01, "voltage": 0.0005}
COUPLED = {"realpower": ("current", "power"), "power": ("current", "realpower"),
           "current": ("realpower", "power"), "voltage": ()}  # fmt: skip
COUNTERS = {"energy": "realpower", "apparentenergy": "power"}

PAIRS = ("L1-L2", "L2-L3", "L3-L1")
LINES = ("L1", "L2", "L3")

_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Finding:
    """What cannot be true, and which points say so."""

    kind: str  # scale, powerfactor, sum or stuck
    names: tuple[str, ...]
    text: str


def check_snapshot(points: Points) -> list[Finding]:
    """What one round of readings says against itself; empty if nothing."""
    told = _Told(points)
    findings = [finding for prefix in told.prefixes() for finding in _at_place(told, prefix)]
    suspect = {name for finding in findings if finding.kind == "scale" for name in finding.names}
    return findings + [finding for finding in _sums(told) if not suspect & set(finding.names)]


# ── numbers and what they are good for ────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Amount:
    """A number and the limits between which the truth is."""

    value: float
    low: float
    high: float

    def times(self, other: _Amount) -> _Amount:
        """The product of two amounts that cannot be negative."""
        return _Amount(self.value * other.value, self.low * other.low, self.high * other.high)

    def by(self, number: float) -> _Amount:
        return _Amount(self.value * number, self.low * number, self.high * number)

    def plus(self, other: _Amount) -> _Amount:
        return _Amount(self.value + other.value, self.low + other.low, self.high + other.high)


class _Told:
    """The numbers of a snapshot, with the steps in which they are told."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.numbers = {name: n for name, p in points.items() if (n := _number(p)) is not None}
        kinds: dict[str, list[float]] = {}
        for name, number in self.numbers.items():
            kinds.setdefault(_kind(name), []).append(number)
        self.steps = {kind: _step(kind, numbers) for kind, numbers in kinds.items()}

    def prefixes(self) -> list[str]:
        """Every place that has a power."""
        powers = (name for name in self.numbers if _quantity(name) in ("realpower", "power"))
        return list(dict.fromkeys(name.rpartition(".")[0] for name in powers))

    def lacks(self, name: str) -> bool:
        """Whether the device has no such point; one that failed now is not lacking."""
        point = self.points.get(name)
        return point is None or (isinstance(point, Missing) and point.absence is Absence.ABSENT)

    def amount(self, name: str) -> _Amount | None:
        """The magnitude (a power that flows back, a leading power factor: its amount)."""
        number = self.numbers.get(name)
        if number is None:
            return None
        step, size = self.steps[_kind(name)], abs(number)
        return _Amount(size, max(0.0, size - step), size + step)


def _number(point: Reading | Missing) -> float | None:
    if isinstance(point, Missing) or point.estimate or isinstance(point.value, str):
        return None
    return point.value if abs(point.value) < NUMBER_MAX else None  # NaN is not below


def _quantity(name: str) -> str:
    return name.rpartition(".")[2]


def _kind(name: str) -> str:
    """outlet.3.current and outlet.4.current are of one kind."""
    return _NUMBERS.sub("#", name)


def _step(kind: str, numbers: Iterable[float]) -> float:
    """The largest power of ten of which all numbers are multiples."""
    step = STEP_MAX.get(_quantity(kind), 1.0)
    for number in numbers:
        while step > STEP_MIN and abs(number / step - round(number / step)) > 1e-6:
            step /= 10
    return step


# ── W, VA, V·I and the power factor of one place ──────────────────────────────────


def _at_place(told: _Told, prefix: str) -> Iterator[Finding]:
    watts, va = told.amount(f"{prefix}.realpower"), told.amount(f"{prefix}.power")
    factor = told.amount(f"{prefix}.powerfactor")
    names, product = _volt_amperes(told, prefix)
    scales = []
    if watts and product:
        scales.append(_watts_scale(f"{prefix}.realpower", watts, names, product, factor))
    if watts and va:
        scales.append(_watts_scale(f"{prefix}.realpower", watts, (f"{prefix}.power",), va, factor))
    if va and product:
        scales.append(_va_scale(f"{prefix}.power", va, names, product))
    found = [finding for finding in scales if finding]
    if found:
        yield found[0]
        return
    for against, load in (((f"{prefix}.power",), va), (names, product)):
        # Of several lines V·I is rough (in a delta the current of a line is not that of a
        # pair): enough for a limit, not for a power factor.
        rough = load is product and (len(names) > 2 or _is_one_of_lines(told, prefix))
        finding = watts and load and _power_factor(prefix, watts, against, load, factor, rough)
        if finding:
            yield finding
            return


def _volt_amperes(told: _Told, prefix: str) -> tuple[tuple[str, ...], _Amount | None]:
    """V·I of a place, and the points that it is from; None if it cannot be known.

    Of three phases it is a sum: of the lines to neutral, of the pairs with the currents
    between them, or of the line currents with V / √3 of the voltages between lines (which
    is right for the sum of a delta, not for each of its lines).
    """
    if prefix.rpartition(".")[2] in (*LINES, *PAIRS) or not _has_lines(told, prefix):
        names = (f"{prefix}.voltage", f"{prefix}.current")
        return _product(told, names, 1.0)
    for voltages, currents, share in (
        (LINES, LINES, 1.0), (PAIRS, PAIRS, 1.0), (PAIRS, LINES, 1 / math.sqrt(3)),
    ):  # fmt: skip
        rows = [(f"{prefix}.{v}.voltage", f"{prefix}.{c}.current")
                for v, c in zip(voltages, currents, strict=True)]  # fmt: skip
        rows = [row for row in rows if not told.lacks(row[1])]
        parts = [product for row in rows if (product := _product(told, row, share)[1])]
        if parts and len(parts) == len(rows):
            total = parts[0]
            for part in parts[1:]:
                total = total.plus(part)
            return tuple(name for row in rows for name in row), total
    return (), None


def _product(
    told: _Told, names: tuple[str, str], share: float
) -> tuple[tuple[str, ...], _Amount | None]:
    volts, amperes = told.amount(names[0]), told.amount(names[1])
    if volts is None or amperes is None:
        return (), None
    return names, volts.times(amperes).by(share)


def _is_one_of_lines(told: _Told, prefix: str) -> bool:
    head, _, line = prefix.rpartition(".")
    return line in LINES and any(
        f"{head}.{other}.current" in told.numbers for other in LINES if other != line
    )


def _has_lines(told: _Told, prefix: str) -> bool:
    return any(f"{prefix}.{line}.current" in told.numbers for line in (*LINES, *PAIRS))


def _watts_scale(
    name: str,
    watts: _Amount,
    against: tuple[str, ...],
    load: _Amount,
    factor: _Amount | None,
) -> Finding | None:
    """Watts that are a power of ten away from volt-amperes."""
    if watts.low > load.high * (1 + SPREAD) and watts.value >= FACTOR_MIN * load.value:
        most = load.value * (1 + SPREAD)
        above = next((times for times in TIMES if watts.value <= times * most), 0)
        return _scale(name, watts, against, load, above) if above else None
    if factor is not None:
        load = load.times(factor)
        if load.low <= 0 or watts.high * FACTOR_MIN > load.low:
            return None
    elif load.value < LOW_LOAD_VA or watts.high * 7 > load.low:
        return None
    times = _power_of_ten(load.value / watts.value) if watts.value > 0 else 0
    return _scale(name, watts, against, load, 1 / times) if times else None


def _va_scale(name: str, va: _Amount, against: tuple[str, ...], product: _Amount) -> Finding | None:
    """Volt-amperes are volts times amperes; √3 between them is a matter of names."""
    if va.value <= 0 or product.value <= 0:
        return None
    if va.low > product.high * FACTOR_MIN:
        times = _power_of_ten(va.value / product.value)
        return _scale(name, va, against, product, times) if times else None
    if product.low > va.high * FACTOR_MIN:
        times = _power_of_ten(product.value / va.value)
        return _scale(name, va, against, product, 1 / times) if times else None
    return None


def _power_of_ten(ratio: float) -> int:
    """10, 100 or 1000 if the ratio is about that (or up to twice it), otherwise 0."""
    return next((times for times in TIMES if 0.7 * times <= ratio <= 2 * times), 0)


def _scale(
    name: str, told: _Amount, against: tuple[str, ...], load: _Amount, times: float
) -> Finding:
    size = f"{times:g} times too large" if times > 1 else f"{1 / times:g} times too small"
    return Finding(
        "scale",
        (name, *against),
        f"{name} = {told.value:g} seems {size}: {_shown(against)} is {load.value:g}",
    )


def _shown(against: tuple[str, ...]) -> str:
    """One name, or V × I + V × I …"""
    if len(against) == 1:
        return against[0]
    pairs = zip(against[::2], against[1::2], strict=True)
    return " + ".join(f"{volts} × {amperes}" for volts, amperes in pairs)


def _power_factor(
    prefix: str,
    watts: _Amount,
    against: tuple[str, ...],
    load: _Amount,
    factor: _Amount | None,
    rough: bool,
) -> Finding | None:
    name = f"{prefix}.realpower"
    loads = _shown(against)
    if watts.low > load.high * (1 + SPREAD):
        text = f"{name} = {watts.value:g} W is more than {loads} = {load.value:g} VA"
        return Finding("powerfactor", (name, *against), text)
    if factor is None or rough:
        return None
    high = load.high * min(1.0, factor.high + POWER_FACTOR_SPREAD) * (1 + SPREAD)
    low = load.low * max(0.0, factor.low - POWER_FACTOR_SPREAD) * (1 - SPREAD)
    if low <= watts.high and watts.low <= high:
        return None
    return Finding(
        "powerfactor",
        (f"{prefix}.powerfactor", name, *against),
        f"{prefix}.powerfactor = {factor.value:g}, but {name} = {watts.value:g} W"
        f" and {loads} = {load.value:g} VA",
    )


# ── sums ──────────────────────────────────────────────────────────────────────────


def _sums(told: _Told) -> Iterator[Finding]:
    total_name = "input.realpower"
    total = told.amount(total_name)
    if total is None or told.numbers[total_name] < 0:
        return
    for rows in (LINES, PAIRS):
        yield from _parts(told, total_name, total, [f"input.{row}.realpower" for row in rows])
    for head in ("inlet", "outlet"):
        pattern = re.compile(rf"{head}\.[^.]+\.realpower")
        names = [name for name in told.points if pattern.fullmatch(name)]
        yield from _parts(told, total_name, total, names, outlets=head == "outlet")


def _parts(
    told: _Told, total_name: str, total: _Amount, names: list[str], *, outlets: bool = False
) -> Iterator[Finding]:
    """The parts against the total; nothing if one of them is missing and could be large."""
    there = [name for name in names if name in told.numbers]
    if not there or not all(name in told.numbers or told.lacks(name) for name in names):
        return
    parts = [told.amount(name) for name in there]
    value = math.fsum(told.numbers[name] for name in there)
    slack = math.fsum(part.high - part.value for part in parts if part)
    slack += total.high - total.value + SPREAD * max(abs(value), total.value)
    below = slack
    if outlets:
        below += OUTLETS_OWN_USE * total.value + OUTLETS_OWN_USE_W
        if not _all_metered(told, there):
            below = math.inf
    if total.value - below <= value <= total.value + slack:
        return
    what = f"the {len(there)} of {_kind(there[0])}"
    text = f"{total_name} = {total.value:g} W, but {what} are {value:g} W together"
    yield Finding("sum", (total_name, *there), text)


def _all_metered(told: _Told, there: list[str]) -> bool:
    """Whether every outlet that the device shows is metered; a single one is no PDU."""
    metered = {name.rpartition(".")[0] for name in there}
    shown = {
        name.rpartition(".")[0]
        for name, point in told.points.items()
        if name.startswith("outlet.") and isinstance(point, Reading)
    }
    return len(metered) > 1 and shown <= metered


# ── what does not move ────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Track:
    """One point over time.

    `value` is unchanged since `since_s`, through `readings` readings. `moved_at_s` are its
    last moves of any size worth the name, `owed` is what a counter should have counted
    since it last did (in its unit).
    """

    value: float
    since_s: float
    readings: int
    at_s: float
    anchor: float
    moved_at_s: tuple[float, ...] = ()
    owed: float = 0.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen so far. `see` gives the next one; nothing is changed in place."""

    tracks: Mapping[str, Track] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)

    def see(self, snapshot: Snapshot) -> tuple[Watch, list[Finding]]:
        """The watch after this snapshot, and every value that is stuck now."""
        told = _Told(snapshot.points)
        steps = dict(self.steps)
        for kind, step in told.steps.items():
            steps[kind] = min(step, steps.get(kind, step))
        tracks = dict(self.tracks)
        for name, number in told.numbers.items():
            if _quantity(name) in MOVE_MIN or _quantity(name) in COUNTERS:
                before = self.tracks.get(name)
                tracks[name] = _tracked(
                    name, number, before, steps[_kind(name)], told, snapshot.taken_at_s
                )
        watch = Watch(tracks, steps)
        findings = (watch._stuck(told, name) for name in told.numbers if name in tracks)
        return watch, [finding for some in findings for finding in some]

    def _stuck(self, told: _Told, name: str) -> Iterator[Finding]:
        track, step = self.tracks[name], self.steps[_kind(name)]
        lasted_s = track.at_s - track.since_s
        if lasted_s < STUCK_AFTER_S or track.readings < STUCK_AFTER_READINGS:
            return
        if not _flows(told, name):
            return
        if _quantity(name) in COUNTERS:
            why = f"{COUNTERS[_quantity(name)]} flows" if track.owed >= 3 * step else ""
        elif abs(track.value) < STEPS_MIN * step or step >= COARSE.get(_quantity(name), math.inf):
            why = ""
        else:
            why = self._moved_beside(told, name)
        if why:
            text = f"{name} = {track.value:g} has not changed for {lasted_s:.0f} s, while {why}"
            yield Finding("stuck", (name,), text)

    def _moved_beside(self, told: _Told, name: str) -> str:
        """What moved that is coupled to `name`, in words; empty if nothing."""
        prefix, _, quantity = name.rpartition(".")
        since_s = self.tracks[name].since_s
        coupled = [f"{prefix}.{other}" for other in COUPLED[quantity]]
        if quantity in ("realpower", "power"):
            coupled += [f"{prefix}.{line}.{quantity}" for line in (*LINES, *PAIRS)]
        for other in coupled:
            if self._moved(other, since_s):
                return f"{other} moved"
        kind = _kind(name)
        beside = [n for n in told.numbers if n != name and _kind(n) == kind and _flows(told, n)]
        moved = [n for n in beside if self._moved(n, since_s)]
        if len(beside) >= 2 and len(moved) >= MOVED_SHARE_MIN * len(beside):
            return f"{len(moved)} others moved ({moved[0]} …)"
        return ""

    def _moved(self, name: str, since_s: float) -> bool:
        track = self.tracks.get(name)
        moves = [at_s for at_s in track.moved_at_s if at_s > since_s] if track else []
        return len(moves) >= MOVES_MIN


def _tracked(
    name: str, number: float, before: Track | None, step: float, told: _Told, now_s: float
) -> Track:
    if before is None:
        return Track(number, now_s, 1, now_s, number)
    if number == before.value:
        track = replace(before, readings=before.readings + 1, at_s=now_s)
        load = told.numbers.get(f"{name.rpartition('.')[0]}.{COUNTERS.get(_quantity(name), '?')}")
        if load is not None and load > 0:
            owed = before.owed + load * max(0.0, now_s - before.at_s) / 3600
            track = replace(track, owed=owed)
        return track
    track = replace(before, value=number, since_s=now_s, readings=1, at_s=now_s, owed=0.0)
    least = max(STEPS_OF_A_MOVE * step, MOVE_MIN.get(_quantity(name), 0.0) * abs(before.anchor))
    if abs(number - before.anchor) < least:
        return track
    moves = (*before.moved_at_s, now_s)[-MOVES_MIN:]
    return replace(track, anchor=number, moved_at_s=moves)


def _flows(told: _Told, name: str) -> bool:
    """Whether there is something that could move: not nothing, and not switched off."""
    if told.numbers[name] == 0 and _quantity(name) not in COUNTERS:
        return False
    status = told.points.get(f"{name.rpartition('.')[0]}.status")
    return not (isinstance(status, Reading) and status.value == "off")
