"""Raw answers to readings, and commanded values to raw numbers.

Pure and total: whatever a device sends, `decode` returns a value that the point can
have, or `Missing` with the reason; never an exception and never a 0 that nobody
measured. A number is refused outside the point's range, not clamped to it.

`encode` rounds a number down to what the device can hold: a command is a limit, and
watts that must add up are rounded against ourselves.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence

from drivers.points import REGISTERS, CommandSpec, Derived, Point, Source
from drivers.reading import Absence, Answer, Missing, NoAnswer, Place, Raw, Reading
from drivers.resolve import same

TEXT_LENGTH_MAX = 255  # SNMPv2-TC DisplayString; more is no name but a fault
DIGITS_MAX = 9
EXPONENT_MAX = 10  # of a SunSpec scale factor

_NORMAL_MIN = {"float32": 2.0**-126, "float64": 2.0**-1022}  # IEEE 754; below: subnormal

NOTHING_FOUND: Mapping[str, Reading | Missing] = {}

_DECIMAL = re.compile(r"[+-]?(\d{1,15}(\.\d{0,15})?|\.\d{1,15})")

_STRUCTS = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q",
            "uint64": ">Q", "float32": ">f", "float64": ">d"}  # fmt: skip
_LIMITS = {
    f"{sign}int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if not sign else (0, 2**bits - 1)
    for sign in ("", "u")
    for bits in (16, 32, 64)
} | {"bit": (0, 1)}


def decode(
    point: Point,
    answers: Mapping[Place, Answer],
    found: Mapping[str, Reading | Missing] = NOTHING_FOUND,
    rounds: int = 0,
) -> Reading | Missing:
    """The point's value from the first of its sources that is there.

    Only sources that were asked count; where the first ones are absent and a later one
    was not asked yet, the point is absent so far. `found` holds the points that others
    are derived from, `rounds` says how often the counter in the first place has wrapped.
    """
    first: Missing | None = None
    for source in point.sources:
        told: Reading | Missing
        if isinstance(source, Derived):
            if any(name not in found for name in source.names):
                break
            told = derive(point, source, found)
        elif source.nothing is not None:
            told = Missing(point.name, source.nothing.absence, source.nothing.detail)
        elif any(place not in answers for place in source.places):
            break
        else:
            told = _read(point, source, answers, rounds if source is point.sources[0] else 0)
        if isinstance(told, Reading) or told.absence is not Absence.ABSENT:
            return told
        first = first or told
    return first or Missing(point.name, Absence.INCOMPLETE, "not asked")


def raw_count(source: Source, answers: Mapping[Place, Answer]) -> int | None:
    """The raw value of a counter, for who counts its rounds; None if it has none now."""
    if source.nothing or any(place not in answers for place in source.places):
        return None
    raws = [answers[place].raw for place in source.own_places]
    number = _from_registers(source, raws) if source.table else _from_varbind(source, raws[0])
    is_count = isinstance(number, int) and number >= 0 and number not in source.absent
    return number if is_count and not not_there(source, answers) else None  # type: ignore[return-value]


def _read(
    point: Point, source: Source, answers: Mapping[Place, Answer], rounds: int
) -> Reading | Missing:
    value = not_there(source, answers) or _value(source, answers, rounds)
    if isinstance(value, NoAnswer):
        return Missing(point.name, value.absence, value.detail)
    told = [answers[place] for place in source.places]
    return _in_range(
        point,
        value,
        min(answer.asked_at_s for answer in told),
        max(answer.taken_at_s for answer in told),
        source.estimate,
    )


def _in_range(
    point: Point, value: float | str, asked_at_s: float, taken_at_s: float, estimate: bool
) -> Reading | Missing:
    if isinstance(value, float) and not point.low <= value <= point.high:
        return Missing(point.name, Absence.RANGE, f"{value:g} {point.unit} cannot be")
    return Reading(point.name, value, point.unit, asked_at_s, taken_at_s, estimate)


def derive(
    point: Point, source: Derived, found: Mapping[str, Reading | Missing]
) -> Reading | Missing:
    """The sum or product of other points.

    A row that the device has not is no part of a sum; anything else that is missing makes
    it missing, and so it is with nothing at all to add.
    """
    readings: list[Reading] = []
    for name in source.names:
        told = found[name]
        if isinstance(told, Reading):
            readings.append(told)
        elif source.kind == "product" or told.absence is not Absence.ABSENT:
            absent = told.absence is Absence.ABSENT
            absence = Absence.ABSENT if absent else Absence.INCOMPLETE
            return Missing(point.name, absence, f"{name} is missing: {told.detail}")
    values = [reading.value for reading in readings if isinstance(reading.value, float)]
    if not readings:
        return Missing(point.name, Absence.ABSENT, f"none of {len(source.names)} rows is there")
    if len(values) != len(readings):
        return Missing(point.name, Absence.TYPE, "a word cannot be calculated with")
    return _in_range(
        point,
        _rounded(math.fsum(values) if source.kind == "sum" else math.prod(values)),
        min(reading.asked_at_s for reading in readings),
        max(reading.taken_at_s for reading in readings),
        source.estimate or any(reading.estimate for reading in readings),
    )


def _rounded(value: float) -> float:
    """12 digits: what the device knows, without the noise of binary fractions (13 * 0.1)."""
    return float(f"{value:.12g}")


def not_there(source: Source, answers: Mapping[Place, Answer]) -> NoAnswer | None:
    """Why the conditions of the source forbid to believe it, if they do."""
    for condition in source.conditions:
        raw = answers[condition.place].raw
        if isinstance(raw, NoAnswer):
            if raw.absence is Absence.ABSENT and condition.must and not condition.lasting:
                return NoAnswer(Absence.INCOMPLETE, f"{_shown(condition.place)} does not answer")
            if condition.must or raw.absence is not Absence.ABSENT:
                return raw
        elif any(same(raw, meant) for meant in condition.raws) != condition.must:
            if not condition.lasting:
                return NoAnswer(Absence.INCOMPLETE, f"not valid now: {_shown(condition.place)}")
            return NoAnswer(Absence.ABSENT, f"the device says so at {_shown(condition.place)}")
    return None


def _shown(place: Place) -> str:
    return place if isinstance(place, str) else f"{place[0]} {place[1]}"


def _value(source: Source, answers: Mapping[Place, Answer], rounds: int) -> float | str | NoAnswer:
    raws = [answers[place].raw for place in source.own_places]
    for raw in raws:
        if isinstance(raw, NoAnswer):
            return raw
    number = _from_registers(source, raws) if source.table else _from_varbind(source, raws[0])
    if isinstance(number, NoAnswer):
        return number
    if number in source.absent:
        return NoAnswer(Absence.ABSENT, f"the device says {number!r}: not supported")
    if number in source.not_now:
        return NoAnswer(Absence.INCOMPLETE, f"the device says {number!r}: no value now")
    if source.words:
        return _word(source, number)
    if isinstance(number, str):
        return number
    exponent = _exponent(source, answers)
    if isinstance(exponent, NoAnswer):
        return exponent
    factor = _factor(source, answers)
    if isinstance(factor, NoAnswer):
        return factor
    value = (number + (rounds << source.counter_bits)) * source.scale * factor
    # Dividing by a power of ten is exact where multiplying by its inverse is not.
    value = value * 10**exponent if exponent >= 0 else value / 10**-exponent
    if source.four_quadrant and abs(value) > 1:
        value = 2 - value if value > 0 else -2 - value
    return _rounded(value) if math.isfinite(value) else NoAnswer(Absence.RANGE, "infinite")


def _word(source: Source, number: float | str) -> str | NoAnswer:
    for raw, word in source.words:
        if raw == number:
            return word
    words = ", ".join(f"{word} ({raw})" for raw, word in source.words)
    return NoAnswer(Absence.RANGE, f"{number} is none of {words}")


def _exponent(source: Source, answers: Mapping[Place, Answer]) -> int | NoAnswer:
    """The power of ten that the device itself applies."""
    if source.digits_oid:
        raw = answers[source.digits_oid].raw
        if isinstance(raw, int) and 0 <= raw <= DIGITS_MAX:
            return -raw
    elif source.scale_factor is not None:
        raw = answers[(source.table, source.scale_factor)].raw
        if isinstance(raw, int) and 0 <= raw <= 0xFFFF:
            signed = raw - 0x10000 if raw >= 0x8000 else raw
            if signed == -0x8000:  # sunssf, not implemented
                return NoAnswer(Absence.ABSENT, "the device has no scale factor for it")
            if -EXPONENT_MAX <= signed <= EXPONENT_MAX:
                return signed
            return NoAnswer(Absence.RANGE, f"a scale factor of {signed} cannot be")
    else:
        return 0
    if isinstance(raw, NoAnswer) and raw.absence is not Absence.ABSENT:
        return raw
    return NoAnswer(Absence.INCOMPLETE, "the device does not say how many digits it has")


def _factor(source: Source, answers: Mapping[Place, Answer]) -> float | NoAnswer:
    """What the value is multiplied with: a factor of the device, ratios of transformers."""
    factor = 1.0
    if source.factor_oid:
        raw = answers[source.factor_oid].raw
        if isinstance(raw, NoAnswer):
            return raw if raw.absence is not Absence.ABSENT else _NO_FACTOR
        if not isinstance(raw, int):
            return _NO_FACTOR
        if abs(raw) > 1:
            factor = 1 / -raw if raw < 0 else float(raw)
    for ratio in source.ratios:
        places = [(source.table, ratio.address + n) for n in range(REGISTERS[ratio.type])]
        place = Source(ratio.type, table=source.table, word_order=source.word_order,
                       byte_order=source.byte_order)  # fmt: skip
        told = _from_registers(place, [answers[place].raw for place in places])
        if isinstance(told, NoAnswer):
            return told
        if isinstance(told, str) or told <= 0:
            return NoAnswer(Absence.INCOMPLETE, f"a transformer ratio of {told} cannot be")
        factor = factor / told if ratio.divides else factor * told
    return factor


_NO_FACTOR = NoAnswer(Absence.INCOMPLETE, "the device does not say its factor")


def _from_varbind(source: Source, raw: Raw | NoAnswer) -> int | float | str | NoAnswer:
    if source.type in ("text", "decimal"):
        text = _text(raw)
        if isinstance(text, NoAnswer):
            return text
        if source.item:
            parts = text.split(",")
            if len(parts) < source.item:
                return NoAnswer(Absence.ABSENT, f"the list has {len(parts)} parts")
            text = parts[source.item - 1].strip()
        return _decimal(source, text) if source.type == "decimal" else text
    if not isinstance(raw, int):
        return NoAnswer(Absence.TYPE, f"a text where a number belongs: {raw!r:.40}")
    low, high = _LIMITS[source.type]
    if not low <= raw <= high:
        return NoAnswer(Absence.RANGE, f"{raw:.6g} does not fit {source.type}")
    return raw


def _decimal(source: Source, text: str) -> float | str | NoAnswer:
    """The number that is written in `text`; the text itself where it means absent."""
    if text in source.absent or text in source.not_now:
        return text
    number, _, rest = text.partition(" ")
    if source.suffix and not rest and number.endswith(source.suffix):
        number, rest = number.removesuffix(source.suffix), source.suffix
    if rest.strip() != source.suffix or not _DECIMAL.fullmatch(number):
        return NoAnswer(Absence.TYPE, f"{text!r:.40} is not a number")
    value = float(number)
    if source.words and value.is_integer():
        return int(value)
    return value


def _text(raw: Raw | NoAnswer) -> str | NoAnswer:
    if not isinstance(raw, bytes):
        return NoAnswer(Absence.TYPE, f"a number where a text belongs: {raw!r:.40}")
    return _printable(raw)


def _printable(raw: bytes) -> str | NoAnswer:
    # Some agents count a C string's closing zero, or pad with spaces.
    text = raw.decode("utf-8", "replace").strip(" \0\t\r\n")
    if len(text) > TEXT_LENGTH_MAX or not all(c.isprintable() for c in text):
        return NoAnswer(Absence.RANGE, "not a text that can be printed")
    return text


def _from_registers(source: Source, raws: Sequence[Raw | NoAnswer]) -> int | float | str | NoAnswer:
    for raw in raws:
        if isinstance(raw, NoAnswer):
            return raw
    registers = [raw for raw in raws if isinstance(raw, int) and 0 <= raw <= 0xFFFF]
    if len(registers) != len(raws):
        return NoAnswer(Absence.TYPE, f"not a register: {raws!r:.40}")
    if source.type == "bit":
        return registers[0] if registers[0] in (0, 1) else NoAnswer(Absence.TYPE, "not a bit")
    if source.type == "text":
        form = "<H" if source.byte_order == "little" else ">H"
        return _printable(b"".join(struct.pack(form, register) for register in registers))
    payload = _ordered(source, registers)
    number: int | float = struct.unpack(_STRUCTS[source.type], payload)[0]
    if math.isnan(number):
        return NoAnswer(Absence.ABSENT, "the device says NaN")
    if math.isinf(number):
        return NoAnswer(Absence.RANGE, "infinite")
    smallest = _NORMAL_MIN.get(source.type, 0.0)
    if 0 < abs(number) < smallest:
        # A marker of integers (0x8000 0x8000) where a float belongs; no measurement is.
        return NoAnswer(Absence.ABSENT, f"{number:g} is no measurement")
    return _shortest(number, payload) if source.type == "float32" else number


def _ordered(source: Source, registers: list[int]) -> bytes:
    """The registers as one big-endian number."""
    words = registers if source.word_order == "big" else registers[::-1]
    swap = source.byte_order == "little"
    return b"".join(struct.pack("<H" if swap else ">H", word) for word in words)


def _shortest(number: float, payload: bytes) -> float:
    """The shortest decimal with the same float32: 228.4, not 228.39999389648438."""
    for digits in range(6, 9):
        short = float(f"{number:.{digits}g}")
        if abs(short) < 3.4e38 and struct.pack(">f", short) == payload:
            return short
    return number


# ── commands ──────────────────────────────────────────────────────────────────────


def encode(
    command: CommandSpec, value: float | str, answers: Mapping[Place, Answer] | None = None
) -> tuple[Source, int | float] | NoAnswer:
    """Where to write and the raw number that stands for `value`, or why it cannot be sent.

    `answers` holds the scale factor of the target, where it has one.
    """
    if command.words:
        for target in command.targets:
            for raw, word in target.words:
                if word == value:
                    assert isinstance(raw, int)
                    return target.nothing or (target, raw)
        words = ", ".join(command.words)
        return NoAnswer(Absence.RANGE, f"{command.name} knows {words}, not {value!r}")
    target = command.targets[0]
    if isinstance(value, (str, bool)) or not math.isfinite(value):
        return NoAnswer(Absence.TYPE, f"{command.name} wants a number, not {value!r}")
    if not command.low <= value <= command.high:
        limits = f"{command.low:g} to {command.high:g} {command.unit}"
        return NoAnswer(Absence.RANGE, f"{command.name} goes from {limits}, not {value:g}")
    if target.nothing is not None:
        return target.nothing
    exponent = _exponent(target, answers or {}) if target.scale_factor is not None else 0
    if isinstance(exponent, NoAnswer):
        return exponent
    scale = target.scale * 10.0**exponent
    if target.type.startswith("float"):
        return target, value / scale
    steps = value / scale
    # The tiny amount: 0.3 / 0.1 is 2.9999999999999996 and means 3.
    raw = math.floor(steps + 1e-9) if scale > 0 else math.ceil(steps - 1e-9)
    low, high = _LIMITS[target.type]
    if not low <= raw <= high:
        return NoAnswer(Absence.RANGE, f"{raw} does not fit {target.type}")
    return target, raw


def registers_of(target: Source, raw: int | float) -> list[int]:
    """The registers that hold `raw`, in the target's order."""
    assert target.type in REGISTERS and target.type != "bit"
    payload = struct.pack(_STRUCTS[target.type], raw)
    form = "<H" if target.byte_order == "little" else ">H"
    words = [struct.unpack(form, payload[n : n + 2])[0] for n in range(0, len(payload), 2)]
    return words if target.word_order == "big" else words[::-1]
