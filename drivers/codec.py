"""Raw answers to readings, and commanded values to raw numbers.

Pure and total: whatever a device sends, `decode` returns a value that the point can
have, or `Missing` with the reason; never an exception and never a 0 that nobody
measured. A number is refused outside the point's range, not clamped to it.

`encode` rounds a number down to what the device can hold: a command is a limit, and
watts that must add up are rounded against ourselves.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

from drivers.points import REGISTERS, CommandSpec, Point, Source
from drivers.reading import Absence, Answer, Missing, NoAnswer, Place, Raw, Reading

TEXT_LENGTH_MAX = 255  # SNMPv2-TC DisplayString; more is no name but a fault
DIGITS_MAX = 9

_STRUCTS = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q",
            "uint64": ">Q", "float32": ">f", "float64": ">d"}  # fmt: skip
_LIMITS = {
    f"{sign}int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if not sign else (0, 2**bits - 1)
    for sign in ("", "u")
    for bits in (16, 32, 64)
} | {"bit": (0, 1)}


def decode(point: Point, answers: Mapping[Place, Answer]) -> Reading | Missing:
    """The point's value from the first of its sources that is there.

    Only sources that were asked count; where the first ones are absent and a later one
    was not asked yet, the point is absent so far.
    """
    first: Missing | None = None
    for source in point.sources:
        if any(place not in answers for place in source.places):
            break
        found = _read(point, source, answers)
        if isinstance(found, Reading) or found.absence is not Absence.ABSENT:
            return found
        first = first or found
    return first or Missing(point.name, Absence.INCOMPLETE, "not asked")


def _read(point: Point, source: Source, answers: Mapping[Place, Answer]) -> Reading | Missing:
    told = [answers[place] for place in source.places]
    value = _not_there(source, answers) or _value(source, answers)
    if isinstance(value, float) and not point.low <= value <= point.high:
        value = NoAnswer(Absence.RANGE, f"{value:g} {point.unit} cannot be")
    if isinstance(value, NoAnswer):
        return Missing(point.name, value.absence, value.detail)
    return Reading(
        point.name,
        value,
        point.unit,
        min(answer.asked_at_s for answer in told),
        max(answer.taken_at_s for answer in told),
    )


def _not_there(source: Source, answers: Mapping[Place, Answer]) -> NoAnswer | None:
    """Why the conditions of the source forbid to believe it, if they do."""
    for condition in source.conditions:
        raw = answers[condition.oid].raw
        if isinstance(raw, NoAnswer):
            if condition.must or raw.absence is not Absence.ABSENT:
                return raw
        elif (raw in condition.raws) != condition.must:
            return NoAnswer(Absence.ABSENT, f"the device says so at {condition.oid}")
    return None


def _value(source: Source, answers: Mapping[Place, Answer]) -> float | str | NoAnswer:
    raws = [answers[place].raw for place in source.own_places]
    for raw in raws:
        if isinstance(raw, NoAnswer):
            return raw
    number = _from_registers(source, raws) if source.table else _from_varbind(source, raws[0])
    if isinstance(number, NoAnswer):
        return number
    if number in source.absent:
        return NoAnswer(Absence.ABSENT, f"the device says {number!r}: not supported")
    if isinstance(number, str):
        return number
    if source.words:
        return _word(source, number)
    digits = _digits(source, answers)
    if isinstance(digits, NoAnswer):
        return digits
    # 12 digits: what the device knows, without the noise of binary fractions (13 * 0.1).
    value = float(f"{number * source.scale / 10**digits:.12g}")
    return value if math.isfinite(value) else NoAnswer(Absence.RANGE, "beyond every number")


def _word(source: Source, number: float) -> str | NoAnswer:
    for raw, word in source.words:
        if raw == number:
            return word
    words = ", ".join(f"{word} ({raw})" for raw, word in source.words)
    return NoAnswer(Absence.RANGE, f"{number} is none of {words}")


def _digits(source: Source, answers: Mapping[Place, Answer]) -> int | NoAnswer:
    if not source.digits_oid:
        return 0
    raw = answers[source.digits_oid].raw
    if isinstance(raw, int) and 0 <= raw <= DIGITS_MAX:
        return raw
    if isinstance(raw, NoAnswer) and raw.absence is not Absence.ABSENT:
        return raw
    return NoAnswer(Absence.INCOMPLETE, "the device does not say how many digits it has")


def _from_varbind(source: Source, raw: Raw | NoAnswer) -> int | str | NoAnswer:
    if source.type == "text":
        return _text(raw)
    if not isinstance(raw, int):
        return NoAnswer(Absence.TYPE, f"a text where a number belongs: {raw!r:.40}")
    low, high = _LIMITS[source.type]
    if not low <= raw <= high:
        return NoAnswer(Absence.RANGE, f"{raw:.6g} does not fit {source.type}")
    return raw


def _text(raw: Raw | NoAnswer) -> str | NoAnswer:
    if not isinstance(raw, bytes):
        return NoAnswer(Absence.TYPE, f"a number where a text belongs: {raw!r:.40}")
    # Some agents count a C string's closing zero, or pad with spaces.
    text = raw.decode("utf-8", "replace").strip(" \0\t\r\n")
    if len(text) > TEXT_LENGTH_MAX or not all(c.isprintable() for c in text):
        return NoAnswer(Absence.RANGE, "not a text that can be printed")
    return text


def _from_registers(source: Source, raws: list[Raw | NoAnswer]) -> int | float | NoAnswer:
    registers = [raw for raw in raws if isinstance(raw, int) and 0 <= raw <= 0xFFFF]
    if len(registers) != len(raws):
        return NoAnswer(Absence.TYPE, f"not a register: {raws!r:.40}")
    if source.type == "bit":
        return registers[0] if registers[0] in (0, 1) else NoAnswer(Absence.TYPE, "not a bit")
    payload = _ordered(source, registers)
    number: int | float = struct.unpack(_STRUCTS[source.type], payload)[0]
    if math.isnan(number):
        return NoAnswer(Absence.ABSENT, "the device says NaN")
    if math.isinf(number):
        return NoAnswer(Absence.RANGE, "infinite")
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


def encode(command: CommandSpec, value: float | str) -> int | float | NoAnswer:
    """The raw number that stands for `value`, or why it cannot be sent."""
    target = command.target
    if target.words:
        for raw, word in target.words:
            if word == value:
                return raw
        words = ", ".join(command.words)
        return NoAnswer(Absence.RANGE, f"{command.name} knows {words}, not {value!r}")
    if isinstance(value, (str, bool)) or not math.isfinite(value):
        return NoAnswer(Absence.TYPE, f"{command.name} wants a number, not {value!r}")
    if not command.low <= value <= command.high:
        limits = f"{command.low:g} to {command.high:g} {command.unit}"
        return NoAnswer(Absence.RANGE, f"{command.name} goes from {limits}, not {value:g}")
    if target.type.startswith("float"):
        return value / target.scale
    steps = value / target.scale
    # The tiny amount: 0.3 / 0.1 is 2.9999999999999996 and means 3.
    raw = math.floor(steps + 1e-9) if target.scale > 0 else math.ceil(steps - 1e-9)
    low, high = _LIMITS[target.type]
    if not low <= raw <= high:
        return NoAnswer(Absence.RANGE, f"{raw} does not fit {target.type}")
    return raw


def registers_of(target: Source, raw: int | float) -> list[int]:
    """The registers that hold `raw`, in the target's order."""
    assert target.type in REGISTERS and target.type != "bit"
    payload = struct.pack(_STRUCTS[target.type], raw)
    form = "<H" if target.byte_order == "little" else ">H"
    words = [struct.unpack(form, payload[n : n + 2])[0] for n in range(0, len(payload), 2)]
    return words if target.word_order == "big" else words[::-1]
