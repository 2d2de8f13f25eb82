"""Which profiles would read an unknown Modbus device plausibly.

A Modbus device that does not say what it is answers some registers to everybody, and
almost any register is some number. So nothing is chosen here: the key points of every
profile (W, V, A, Hz, power factor) are read, politely, one request after the other and no
register twice, and a profile is named only if its values can be true together. Who knows
the device decides. Profiles for SunSpec devices are left out: those say what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.address import ModbusAddress
from drivers.codec import decode
from drivers.modbus import ModbusUnit
from drivers.plan import plan_registers
from drivers.points import Derived, Point, Source
from drivers.profile import Limits, Profile
from drivers.reading import Absence, Answer, Missing, NoAnswer, Place, Reading

TIMEOUT_S = 1.0
PAUSE_S = 0.025  # some devices do not hear what comes sooner after an answer
SILENCES_MAX = 3  # in a row: the device does not answer any more

LINES = ("L1", "L2", "L3")
FIRST = ("input.realpower",)  # what most profiles fail with, one request each
REST = (
    *(f"input.{line}.{quantity}" for quantity in ("voltage", "current") for line in LINES),
    "input.voltage", "input.current", "input.frequency", "input.powerfactor",
    "input.L1.powerfactor",
)  # fmt: skip

VOLTS = (80.0, 500.0)
HERTZ = (45.0, 65.0)
AMPERES_MAX = 10_000.0
WATTS_SLACK = 10.0  # a meter's own noise without load
SMALLEST = 1e-4  # what is smaller is a float that was put together wrongly

Found = Mapping[str, Reading | Missing]


@dataclass(frozen=True, slots=True)
class Plausible:
    """A profile, and the values it would show."""

    profile: str
    points: Found

    def json(self) -> dict[str, Any]:
        told = [point for point in self.points.values() if isinstance(point, Reading)]
        values = {point.name: {"value": point.value, "unit": point.unit} for point in told}
        return {"profile": self.profile, "points": values}


@dataclass(frozen=True, slots=True)
class Guesses:
    """The plausible profiles, best first; `untried` had no time."""

    plausible: tuple[Plausible, ...]
    untried: tuple[str, ...]


async def plausible_profiles(
    address: ModbusAddress,
    profiles: Iterable[Profile],
    clock: Callable[[], float],
    *,
    until_s: float,
) -> Guesses:
    """Reads the device's key points with one profile after the other, until `until_s`."""
    every = [profile for profile in profiles if profile.protocol == "modbus"]
    candidates = [p for p in every if not (p.match and p.match.models)]
    registers = _Registers(address, clock, until_s)
    fitting: list[tuple[tuple[float, ...], Plausible]] = []
    try:
        for number, profile in enumerate(candidates):
            if registers.is_over:
                untried = tuple(each.name for each in candidates[number:])
                break
            found = await _key_points(registers, profile)
            rank = rank_of(found)
            if rank is not None:
                fitting.append((rank, Plausible(profile.name, found)))
        else:
            untried = ()
    finally:
        await registers.close()
    fitting.sort(key=lambda each: (each[0], each[1].profile))
    return Guesses(tuple(each for _, each in fitting), untried)


def rank_of(found: Found) -> tuple[float, ...] | None:
    """How well the values fit together, the smaller the better; None if they cannot be true.

    A device that lacks a value is plausible, one that gives an impossible value is not.
    """
    if any(isinstance(p, Missing) and not _is_absent(p) for p in found.values()):
        return None
    values = {name: float(p.value) for name, p in found.items()
              if isinstance(p, Reading) and not isinstance(p.value, str)}  # fmt: skip
    quantities = {name.rpartition(".")[2] for name in values}
    if len(quantities) < 2 or not all(_is_possible(*item) for item in values.items()):
        return None
    if not any(value for name, value in values.items() if not name.endswith("powerfactor")):
        return None
    error = _error(values)
    if error is None:
        return (1.0, -len(values), 0.0)
    return (0.0, -len(values), error) if error <= 1.0 else None


def _is_possible(name: str, value: float) -> bool:
    quantity = name.rpartition(".")[2]
    if value and abs(value) < SMALLEST:
        return False
    if quantity == "voltage":
        return VOLTS[0] <= value <= VOLTS[1] or (value == 0.0 and name[6:8] in LINES[1:])
    if quantity == "frequency":
        return HERTZ[0] <= value <= HERTZ[1]
    if quantity == "powerfactor":
        return abs(value) <= 1.0
    return quantity != "current" or abs(value) <= AMPERES_MAX


def _error(values: Mapping[str, float]) -> float | None:
    """W against V·I over the phases, as a share of what may be between them; None if
    there is nothing to compare."""
    watts = values.get("input.realpower")
    products = [
        values[f"input.{line}.voltage"] * abs(values[f"input.{line}.current"])
        for line in LINES
        if f"input.{line}.voltage" in values and f"input.{line}.current" in values
    ]
    if not products and "input.voltage" in values and "input.current" in values:
        products = [values["input.voltage"] * abs(values["input.current"])]
    if watts is None or not products:
        return None
    va = sum(products)
    factor = values.get("input.powerfactor", values.get("input.L1.powerfactor"))
    if factor is not None and len(products) > 1 and "input.powerfactor" not in values:
        factor = None  # of one phase only
    if factor:
        return abs(abs(watts) - va * abs(factor)) / (0.15 * va + WATTS_SLACK)
    if abs(watts) > 1.1 * va + WATTS_SLACK or abs(watts) < 0.1 * va - WATTS_SLACK:
        return 2.0
    return 0.5


async def _key_points(registers: _Registers, profile: Profile) -> Found:
    """The key points that the profile has; only as many as it takes to see that they
    cannot be true."""
    names = {point.name for point in profile.points}
    found: dict[str, Reading | Missing] = {}
    for keys in (FIRST, REST):
        points = [profile.point(name) for name in keys if name in names]
        at_once = [p.sources[0] for p in points if isinstance(p.sources[0], Source)]
        await registers.ask(at_once, profile.limits)
        for point in points:
            await _read(registers, profile, point, found)
        said = [found[point.name] for point in points]
        if any(isinstance(p, Missing) and not _is_absent(p) for p in said):
            break
    return {name: found[name] for name in (*FIRST, *REST) if name in found}


async def _read(
    registers: _Registers, profile: Profile, point: Point, found: dict[str, Reading | Missing]
) -> None:
    """The point from the first of its sources that is there, and what it is made of.

    A register that the device refuses speaks against the profile, a marker in it does not.
    """
    answers: dict[Place, Answer] = {}
    for source in point.sources:
        refusal: NoAnswer | None = None
        if isinstance(source, Derived):
            for name in source.names:
                if name not in found:
                    await _read(registers, profile, profile.point(name), found)
        else:
            told = await registers.ask([source], profile.limits)
            refusal = next((a.raw for a in told.values() if isinstance(a.raw, NoAnswer)), None)
            answers |= told
        found[point.name] = (
            Missing(point.name, Absence.REFUSED, refusal.detail)
            if refusal is not None
            else decode(point, answers, found)
        )
        if refusal is None and not _is_absent(found[point.name]):
            return


def _is_absent(point: Reading | Missing) -> bool:
    return isinstance(point, Missing) and point.absence is Absence.ABSENT


Piece = tuple[str, int, int]
"""Registers that are read together: table, address, count."""


class _Registers:
    """What the unit has said so far; nothing is asked twice."""

    def __init__(self, address: ModbusAddress, clock: Callable[[], float], until_s: float) -> None:
        self._unit = ModbusUnit(address, clock, pause_s=PAUSE_S)
        self._clock = clock
        self._until_s = until_s
        self._answers: dict[Place, Answer] = {}
        self._refused: dict[Piece, Answer] = {}  # in one piece: a part of it may answer
        self._silences = 0

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._until_s or self._silences >= SILENCES_MAX

    async def ask(self, sources: Sequence[Source], limits: Limits) -> dict[Place, Answer]:
        """Every register of `sources`."""
        unknown = [s for s in sources if not all(self._knows(piece) for piece in s.blocks)]
        if unknown and not self.is_over:
            spans = plan_registers(unknown, limits.registers_per_read_max, limits.registers_gap_max)
            left_s = max(0.1, self._until_s - self._clock())
            timeout_s = min(TIMEOUT_S, limits.timeout_ms / 1000, left_s)
            told = await self._unit.fetch(spans, timeout_s=timeout_s, read_s_max=left_s)
            self._note(told)
            for piece in (piece for source in unknown for piece in source.blocks):
                self._keep(piece, told)
        return {
            place: self._refused.get(piece) or self._answers.get(place) or self._nothing()
            for source in sources
            for piece in source.blocks
            for place in _places(piece)
        }

    async def close(self) -> None:
        await self._unit.close()

    def _knows(self, piece: Piece) -> bool:
        return piece in self._refused or all(place in self._answers for place in _places(piece))

    def _keep(self, piece: Piece, told: Mapping[Place, Answer]) -> None:
        for place in _places(piece):
            answer = told.get(place) or self._answers.get(place) or self._nothing()
            if isinstance(answer.raw, NoAnswer):
                self._refused[piece] = answer
            else:
                self._answers[place] = answer

    def _note(self, told: Mapping[Place, Answer]) -> None:
        raws = [answer.raw for answer in told.values()]
        silent = any(isinstance(r, NoAnswer) and r.absence is Absence.TIMEOUT for r in raws)
        self._silences = self._silences + 1 if silent else 0

    def _nothing(self) -> Answer:
        now_s = self._clock()
        return Answer(NoAnswer(Absence.INCOMPLETE, "not asked"), now_s, now_s)


def _places(piece: Piece) -> list[Place]:
    table, address, count = piece
    return [(table, address + n) for n in range(count)]
