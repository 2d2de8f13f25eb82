"""Raw answers to readings: the number, or the reason why not."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.codec import decode, encode, registers_of
from drivers.points import CommandSpec, Condition, Derived, Point, Ratio, Source
from drivers.reading import Absence, Answer, Missing, NoAnswer, Reading

OID = "1.3.6.1.4.1.9.1"
SILENCE = NoAnswer(Absence.TIMEOUT, "no answer")
NONE_SUCH = NoAnswer(Absence.ABSENT, "no such object")


def point(*sources: Source, low: float = -math.inf, high: float = math.inf) -> Point:
    return Point("input.realpower", "W", low, high, sources)


def told(raws: dict) -> dict:
    return {place: Answer(raw, 10.0, 11.0) for place, raw in raws.items()}


def outcome(found: Reading | Missing) -> object:
    return found.value if isinstance(found, Reading) else found.absence


@pytest.mark.parametrize(
    ("source", "raw", "expected"),
    [
        (Source("int32", OID, scale=10, absent=(-1,)), 27, 270.0),
        (Source("int32", OID, scale=0.1), 13, 1.3),  # not 1.3000000000000000444
        (Source("int32", OID, scale=10, absent=(-1,)), 0, 0.0),
        (Source("int32", OID, absent=(-2,), not_now=(-1,)), -1, Absence.INCOMPLETE),
        (Source("decimal", OID, not_now=("n/a",)), b"n/a", Absence.INCOMPLETE),
        (Source("int32", OID, scale=10, absent=(-1,)), -1, Absence.ABSENT),
        (Source("int32", OID), -5, Absence.RANGE),
        (Source("int32", OID), 2_000_001, Absence.RANGE),
        (Source("int32", OID), 2**40, Absence.RANGE),
        (Source("uint32", OID), -7, Absence.RANGE),
        (Source("int32", OID), b"270", Absence.TYPE),
        (Source("int32", OID), "1.3.6", Absence.TYPE),
        (Source("int32", OID), SILENCE, Absence.TIMEOUT),
        (Source("int32", OID), NoAnswer(Absence.REFUSED, "genErr"), Absence.REFUSED),
        (Source("int32", OID), NONE_SUCH, Absence.ABSENT),
        (Source("int32", OID, words=((1, "off"), (2, "on"))), 2, "on"),
        (Source("int32", OID, words=((1, "off"), (2, "on"))), 3, Absence.RANGE),
        (Source("text", OID), b"web 1 \0", "web 1"),
        (Source("text", OID), "Zürich".encode(), "Zürich"),
        (Source("text", OID), b"\x01\x02", Absence.RANGE),
        (Source("text", OID), b"x" * 256, Absence.RANGE),
        (Source("text", OID), 7, Absence.TYPE),
        (Source("text", OID, absent=("",)), b"\0", Absence.ABSENT),
        (Source("text", OID, words=(("OFF", "off"), ("ON", "on"))), b"ON ", "on"),
        (Source("text", OID, words=(("OFF", "off"), ("ON", "on"))), b"BOOT", Absence.RANGE),
        (Source("decimal", OID), b"238.44", 238.44),
        (Source("decimal", OID), b" 12 \0", 12.0),
        (Source("decimal", OID, suffix="Amps"), b"0.21 Amps", 0.21),
        (Source("decimal", OID, suffix="A"), b"0.21A", 0.21),
        (Source("decimal", OID, suffix="Amps"), b"0.21 Volts", Absence.TYPE),
        (Source("decimal", OID, suffix="Amps"), b"0.21", Absence.TYPE),
        (Source("decimal", OID), b"0.21 Amps", Absence.TYPE),
        (Source("decimal", OID), b"1e5", Absence.TYPE),
        (Source("decimal", OID), b"nan", Absence.TYPE),
        (Source("decimal", OID), b"", Absence.TYPE),
        (Source("decimal", OID, absent=("not-support",)), b"not-support", Absence.ABSENT),
        (Source("decimal", OID, item=2), b"3, 4.5 ,-1", 4.5),
        (Source("decimal", OID, item=4), b"3,4.5,-1", Absence.ABSENT),
        (Source("decimal", OID, item=1, words=((0, "off"), (1, "on"))), b"1,0", "on"),
        (Source("int32", OID, scale=0.001, four_quadrant=True), 1020, 0.98),
        (Source("int32", OID, scale=0.001, four_quadrant=True), 970, 0.97),
    ],
)
def test_a_varbind_becomes_its_value_or_the_reason(
    source: Source, raw: object, expected: object
) -> None:
    found = decode(point(source, low=0, high=2_000_000), told({OID: raw}))
    assert outcome(found) == expected
    assert type(outcome(found)) is type(expected)


@pytest.mark.parametrize(
    ("source", "registers", "expected"),
    [
        (Source("uint16", table="holding"), [65535], 65535.0),
        (Source("uint16", table="holding", absent=(65535,)), [65535], Absence.ABSENT),
        (Source("int16", table="holding"), [0xFFFF], -1.0),
        (Source("uint32", table="input"), [1, 2], 65538.0),
        (Source("uint32", table="input", word_order="little"), [1, 2], 131073.0),
        (Source("int32", table="input"), [0xFFFF, 0xFFFE], -2.0),
        (Source("uint16", table="input", byte_order="little"), [0x1234], 0x3412),
        (Source("float32", table="input"), [17252, 26214], 228.4),  # not 228.39999389648438
        (Source("float32", table="input", word_order="little"), [26214, 17252], 228.4),
        (Source("float32", table="input", scale=1000), [0x4020, 0], 2500.0),
        (Source("float32", table="input"), [0x7FC0, 0], Absence.ABSENT),  # NaN
        (Source("float32", table="input"), [0xFFC0, 0], Absence.ABSENT),
        (Source("float32", table="input"), [0x7F80, 0], Absence.RANGE),  # infinite
        (Source("float32", table="input"), [0x8000, 0x8000], Absence.ABSENT),  # subnormal
        (Source("float32", table="input"), [0x8000, 0], -0.0),
        (Source("float64", table="input"), [0x408F, 0x4000, 0, 0], 1000.0),
        (Source("uint64", table="input"), [0, 0, 1, 0], 65536.0),
        (Source("uint32", table="input"), [1, SILENCE], Absence.TIMEOUT),  # half a value
        (Source("uint32", table="input"), [1, 70_000], Absence.TYPE),
        (Source("uint32", table="input"), [1, b"x"], Absence.TYPE),
        (Source("bit", table="coil", words=((0, "off"), (1, "on"))), [1], "on"),
    ],
)
def test_registers_become_their_value_or_the_reason(
    source: Source, registers: list, expected: object
) -> None:
    raws = {(source.table, n): raw for n, raw in enumerate(registers)}
    assert outcome(decode(point(source), told(raws))) == expected


def test_a_reading_has_the_outermost_instants_of_everything_it_was_made_from() -> None:
    source = Source("uint32", table="input")
    answers = {("input", 0): Answer(0, 1.0, 4.0), ("input", 1): Answer(9, 2.0, 3.0)}
    assert decode(point(source), answers) == Reading("input.realpower", 9.0, "W", 1.0, 4.0)


DIGITS = Source("uint32", OID, digits_oid="1.3.2")


@pytest.mark.parametrize(
    ("digits", "expected"),
    [(3, 7.467), (0, 7467.0), (10, Absence.INCOMPLETE), (-1, Absence.INCOMPLETE),
     (NONE_SUCH, Absence.INCOMPLETE), (SILENCE, Absence.TIMEOUT), (b"3", Absence.INCOMPLETE)],
)  # fmt: skip
def test_without_its_digits_a_number_is_no_value(digits: object, expected: object) -> None:
    assert outcome(decode(point(DIGITS), told({OID: 7467, "1.3.2": digits}))) == expected


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(-10, 229.2), (10, 22920.0), (1, 2292.0), (-1, 2292.0), (0, 2292.0),
     (NONE_SUCH, Absence.INCOMPLETE), (SILENCE, Absence.TIMEOUT), (b"-10", Absence.INCOMPLETE)],
)  # fmt: skip
def test_a_factor_multiplies_or_divides(factor: object, expected: object) -> None:
    source = Source("int32", OID, factor_oid="1.3.2")
    assert outcome(decode(point(source), told({OID: 2292, "1.3.2": factor}))) == expected


@pytest.mark.parametrize(
    ("registers", "expected"),
    [
        ([2253, 0], 2253.0), ([2253, 1], 22530.0), ([2253, 0xFFFF], 225.3),
        ([2253, 0xFFF6], 2.253e-7), ([2253, 0x8000], Absence.ABSENT),
        ([2253, 11], Absence.RANGE), ([2253, NONE_SUCH], Absence.INCOMPLETE),
        ([2253, SILENCE], Absence.TIMEOUT), ([0x8000, 0], Absence.ABSENT),
    ],
)  # fmt: skip
def test_a_scale_factor_is_read_with_its_value(registers: list, expected: object) -> None:
    source = Source("int16", table="holding", scale_factor=1, absent=(-32768,))
    raws = {("holding", n): raw for n, raw in enumerate(registers)}
    assert outcome(decode(point(source), told(raws))) == expected


@pytest.mark.parametrize(
    ("ct1", "ct2", "expected"),
    [(100, 5, 4000.0), (5, 5, 200.0), (100, 0, Absence.INCOMPLETE), (NONE_SUCH, 5, Absence.ABSENT)],
)
def test_ratios_of_transformers_multiply_and_divide(
    ct1: object, ct2: object, expected: object
) -> None:
    ratios = (Ratio(1, "uint16", False), Ratio(2, "uint16", True))
    source = Source("int16", table="holding", ratios=ratios)
    raws = {("holding", 0): 200, ("holding", 1): ct1, ("holding", 2): ct2}
    assert outcome(decode(point(source), told(raws))) == expected


def reading(name: str, value: float, *, estimate: bool = False) -> Reading:
    return Reading(name, value, "W", 1.0, 2.0, estimate)


GONE, NO_ROW = Missing("c", Absence.TIMEOUT, "x"), Missing("c", Absence.ABSENT, "x")


@pytest.mark.parametrize(
    ("kind", "parts", "expected"),
    [
        ("sum", {"a": reading("a", 0.1), "b": reading("b", 0.2)}, 0.3),
        ("sum", {"a": reading("a", 5.0), "c": NO_ROW}, 5.0),
        ("sum", {"a": reading("a", 5.0), "c": GONE}, Absence.INCOMPLETE),
        ("sum", {"c": NO_ROW}, Absence.ABSENT),
        ("sum", {"a": reading("a", 5.0), "c": Reading("c", "on", "", 1, 2)}, Absence.TYPE),
        ("product", {"a": reading("a", 12.0), "b": reading("b", 0.5)}, 6.0),
        ("product", {"a": reading("a", 12.0), "c": NO_ROW}, Absence.ABSENT),
        ("product", {"a": reading("a", 12.0), "c": GONE}, Absence.INCOMPLETE),
    ],
)
def test_what_is_calculated_is_as_good_as_its_parts(
    kind: str, parts: dict, expected: object
) -> None:
    derived = Derived(kind, tuple(parts))
    total = Point("input.realpower", "W", 0, 1000, (derived,))  # type: ignore[arg-type]
    assert outcome(decode(total, {}, parts)) == expected


def test_a_sum_outside_its_range_is_refused_and_an_estimate_stays_one() -> None:
    parts = {"a": reading("a", 900.0), "b": reading("b", 90.0, estimate=True)}
    total = Point("input.realpower", "W", 0, 1000, (Derived("sum", ("a", "b")),))
    assert decode(total, {}, parts) == Reading("input.realpower", 990.0, "W", 1.0, 2.0, True)
    parts["b"] = reading("b", 200.0)
    assert outcome(decode(total, {}, parts)) is Absence.RANGE


@pytest.mark.parametrize(
    ("must", "said", "expected"),
    [
        (True, 1, 5.0), (True, 2, Absence.ABSENT), (True, NONE_SUCH, Absence.ABSENT),
        (True, SILENCE, Absence.TIMEOUT), (True, b"1", Absence.ABSENT),
        (False, 1, Absence.ABSENT), (False, 2, 5.0), (False, NONE_SUCH, 5.0),
        (False, SILENCE, Absence.TIMEOUT),
    ],
)  # fmt: skip
def test_a_condition_decides_whether_the_row_is_there(
    must: bool, said: object, expected: object
) -> None:
    source = Source("int32", OID, conditions=(Condition("1.3.2", (1,), must),))
    assert outcome(decode(point(source), told({OID: 5, "1.3.2": said}))) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (1, 5.0),
        (2, Absence.INCOMPLETE),
        (NONE_SUCH, Absence.INCOMPLETE),
        (SILENCE, Absence.TIMEOUT),
    ],
)
def test_what_is_not_valid_now_is_there_but_has_no_value(said: object, expected: object) -> None:
    source = Source("int32", OID, conditions=(Condition("1.3.2", (1,), True, lasting=False),))
    assert outcome(decode(point(source), told({OID: 5, "1.3.2": said}))) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (7, 8, 7.0), (NONE_SUCH, 8, 8.0), (NONE_SUCH, NONE_SUCH, Absence.ABSENT),
        (SILENCE, 8, Absence.TIMEOUT), (b"x", 8, Absence.TYPE), (NONE_SUCH, None, Absence.ABSENT),
    ],
)  # fmt: skip
def test_the_next_source_counts_only_where_the_first_is_absent(
    first: object, second: object, expected: object
) -> None:
    answers = told({OID: first} | ({"1.3.2": second} if second is not None else {}))
    assert outcome(decode(point(Source("int32", OID), Source("int32", "1.3.2")), answers)) == (
        expected
    )


def test_a_point_that_was_not_asked_is_incomplete_and_not_zero() -> None:
    assert outcome(decode(point(Source("int32", OID)), {})) is Absence.INCOMPLETE


RAWS = st.one_of(
    st.integers(),
    st.integers(0, 65535),
    st.binary(max_size=300),
    st.text(max_size=20),
    st.sampled_from([NoAnswer(absence) for absence in Absence]),
)
SOURCES = st.one_of(
    st.builds(
        Source,
        st.sampled_from(["int32", "uint32", "uint64", "text", "decimal"]),
        st.just(OID),
        scale=st.sampled_from([1.0, 0.1, 10.0, 1e300]),
        digits_oid=st.sampled_from(["", "1.3.2"]),
        factor_oid=st.sampled_from(["", "1.3.4"]),
        four_quadrant=st.booleans(),
        conditions=st.sampled_from([(), (Condition("1.3.3", (1,), True),)]),
        words=st.sampled_from([(), ((1, "off"), (2, "on"))]),
    ),
    st.builds(
        Source,
        st.sampled_from(["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32",
                         "float64", "bit"]),
        table=st.just("input"),
        word_order=st.sampled_from(["big", "little"]),
        byte_order=st.sampled_from(["big", "little"]),
        scale=st.sampled_from([1.0, 0.001, 1e300]),
        scale_factor=st.sampled_from([None, 6]),
        ratios=st.sampled_from([(), (Ratio(8, "uint16", True), Ratio(9, "float32", False))]),
    ),
)  # fmt: skip


@given(SOURCES, st.lists(RAWS, min_size=12, max_size=12))
def test_whatever_a_device_sends_is_a_possible_value_or_missing(source: Source, raws: list) -> None:
    answers = told(dict(zip(source.places, raws * 2, strict=False)))
    found = decode(point(source, low=-1000, high=1000), answers)
    if isinstance(found, Missing):
        assert found.name == "input.realpower"
    elif isinstance(found.value, float):
        assert -1000 <= found.value <= 1000
        own = [answers[place].raw for place in source.own_places]
        assert all(isinstance(raw, bytes if source.type == "decimal" else int) for raw in own)
        if found.value == 0 and source.oid and source.type != "decimal":
            # A 0 was said, or what four quadrants make one of.
            assert own == [0] or source.four_quadrant
    else:
        assert isinstance(found.value, str)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_a_float32_survives_as_the_same_float32(number: float) -> None:
    payload = struct.pack(">f", number)
    registers = struct.unpack(">HH", payload)
    raws = {("input", n): raw for n, raw in enumerate(registers)}
    found = decode(point(Source("float32", table="input")), told(raws))
    assert isinstance(found, Reading)
    assert struct.pack(">f", found.value) == payload or (number == 0 and found.value == 0)


def limit(target: Source, low: float = 0, high: float = 65534) -> CommandSpec:
    return CommandSpec("limit.realpower", "W", low, high, (target,), (), (), None, 0, "test")


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        (Source("uint16", table="holding"), 1500, 1500),
        (Source("uint16", table="holding"), 1499.99, 1499),  # a limit is rounded down
        (Source("uint16", table="holding", scale=0.1), 0.3, 3),  # 0.3 / 0.1 is 2.99…
        (Source("uint16", table="holding", scale=100), 1999, 19),
        (Source("uint16", table="holding"), 65534, 65534),
        (Source("uint16", table="holding"), 65535, Absence.RANGE),  # it would mean "none"
        (Source("uint16", table="holding"), -1, Absence.RANGE),
        (Source("int16", table="holding"), 40_000, Absence.RANGE),
        (Source("uint16", table="holding"), math.nan, Absence.TYPE),
        (Source("uint16", table="holding"), math.inf, Absence.TYPE),
        (Source("uint16", table="holding"), True, Absence.TYPE),
        (Source("uint16", table="holding"), "full", Absence.TYPE),
        (Source("int32", OID, words=((1, "on"), (2, "off"))), "off", 2),
        (Source("int32", OID, words=((1, "on"), (2, "off"))), "OFF", Absence.RANGE),
        (Source("int32", OID, words=((1, "on"), (2, "off"))), 2, Absence.RANGE),
    ],
)
def test_a_command_is_encoded_or_refused(target: Source, value: object, expected: object) -> None:
    found = encode(limit(target), value)
    if isinstance(found, NoAnswer):
        assert found.absence == expected
    else:
        assert found == (target, expected)


def test_a_word_goes_to_the_first_place_that_knows_it() -> None:
    off = Source("int32", "1.3.1", words=((0, "off"),))
    on = Source("int32", "1.3.2", words=((0, "on"),))
    command = CommandSpec("o.load", "", 0, 0, (off, on), (), (), None, 0, "test")
    assert encode(command, "off") == (off, 0)
    assert encode(command, "on") == (on, 0)
    refused = encode(command, "cycle")
    assert isinstance(refused, NoAnswer)
    assert "o.load knows off, on" in refused.detail


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(0xFFFE, 4000), (0, 40), (0x8000, Absence.ABSENT), (None, Absence.INCOMPLETE)],
)  # fmt: skip
def test_a_command_is_scaled_by_what_the_device_says(factor: object, expected: object) -> None:
    target = Source("uint16", table="holding", address=5, scale_factor=23)
    answers = told({("holding", 23): factor if factor is not None else NONE_SUCH})
    found = encode(limit(target, 0, 100), 40, answers)
    assert (found.absence if isinstance(found, NoAnswer) else found[1]) == expected


@pytest.mark.parametrize(
    ("target", "registers"),
    [
        (Source("uint16", table="holding"), [1500]),
        (Source("uint32", table="holding"), [0, 1500]),
        (Source("uint32", table="holding", word_order="little"), [1500, 0]),
        (Source("uint16", table="holding", byte_order="little"), [0xDC05]),
        (Source("float32", table="holding"), [0x44BB, 0x8000]),
    ],
)
def test_what_is_written_reads_back_as_itself(target: Source, registers: list[int]) -> None:
    assert registers_of(target, 1500) == registers
    raws = {("holding", n): raw for n, raw in enumerate(registers)}
    assert outcome(decode(point(target), told(raws))) == 1500.0
