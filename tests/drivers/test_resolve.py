"""What a profile leaves open and the device says: members, rows, models, rounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.counter import Counter
from drivers.points import Condition, Lookup, Point, Source
from drivers.reading import Absence, NoAnswer
from drivers.resolve import Member, Members, columns_of, resolve, resolve_source
from drivers.sunspec import chain_at

CHAIN = Members(("1.3.3",), 1, False, None, "")
MACS = Members(("1.3.3",), 2, True, None, "")
MAC = "12.48.48.48.69.68.51.48.48.65.65.70.70"  # 000ED300AAFF


def test_the_members_of_a_chain_are_the_rows_of_a_column_each_once_in_order() -> None:
    column = {"10.1": 5, "2.1": 5, "2.2": 5, "1.1": 5}
    assert [member.name for member in CHAIN.found({"1.3.3": column})] == ["1", "2", "10"]


def test_a_member_may_be_a_text_in_the_middle_of_an_index() -> None:
    found = MACS.found({"1.3.3": {f"1.{MAC}": 0, f"2.{MAC}": 0, "1.3.65": 0, "1": 0}})
    assert found == [Member("000ED300AAFF", MAC)]
    assert MACS.named("000ED300AAFF") == Member("000ED300AAFF", MAC)


def test_only_rows_with_the_wanted_value_name_members() -> None:
    members = Members(("1.3.3",), 1, False, "Total.Power", "")
    column = {"1.7": b"Door", "2.12": b"Total.Power\0", "3.1": NoAnswer(Absence.TYPE)}
    assert [member.name for member in members.found({"1.3.3": column})] == ["2"]


def test_a_url_can_only_mean_a_number_where_members_are_numbers() -> None:
    assert CHAIN.named("007") == Member("7", "7")
    assert CHAIN.named("a") is None
    assert CHAIN.named("²") is None
    assert CHAIN.named("9" * 5000) is None


def test_the_member_stands_in_every_oid_and_condition() -> None:
    source = Source(
        "int32", "1.3.1.{member}.5", digits_oid="1.3.2.{member}", factor_oid="1.3.3.{member}",
        conditions=(Condition("1.3.4.{member}", ("{member}", 9), True),),
    )  # fmt: skip
    assert resolve_source(source, Member("2", "2"), {}, {}) == Source(
        "int32", "1.3.1.2.5", digits_oid="1.3.2.2", factor_oid="1.3.3.2",
        conditions=(Condition("1.3.4.2", (2, 9), True),),
    )  # fmt: skip


BY_NAME = Source(
    "int32", "1.3.11.2.{row}", (Lookup("1.3.3.2", "Power"),), factor_oid="1.3.7.2.{row}"
)


def test_a_row_is_found_by_what_it_says_and_proven_at_every_read() -> None:
    columns = {"1.3.3.2": {"11": b"Voltage", "12": b"Power"}}
    found = resolve_source(BY_NAME, None, columns, {})
    assert (found.oid, found.factor_oid) == ("1.3.11.2.12", "1.3.7.2.12")
    assert found.conditions == (Condition("1.3.3.2.12", ("Power",), True, lasting=False),)


def test_a_row_that_is_not_there_or_twice_is_no_place() -> None:
    nothing = resolve_source(BY_NAME, None, {"1.3.3.2": {"1": b"Voltage"}}, {}).nothing
    assert nothing is not None
    assert nothing.absence is Absence.ABSENT
    twice = resolve_source(BY_NAME, None, {"1.3.3.2": {"1": b"Power", "2": b"Power"}}, {}).nothing
    assert twice is not None
    assert twice.absence is Absence.INCOMPLETE


def test_several_columns_must_hold_in_the_same_row() -> None:
    source = Source("int32", "1.3.5.{row}", (Lookup("1.3.2", "{member}"), Lookup("1.3.3", 1)))
    columns = {"1.3.2": {"1": 1, "2": 1, "3": 2, "4": 2}, "1.3.3": {"1": 1, "2": 2, "3": 1, "4": 2}}
    assert resolve_source(source, Member("2", "2"), columns, {}).oid == "1.3.5.3"
    point = Point("input.L1.current", "A", 0, 1, (source,))
    assert columns_of([point], Member("2", "2")) == ["1.3.2", "1.3.3"]


def test_a_model_moves_its_registers_and_must_still_be_there() -> None:
    source = Source("int16", table="holding", address=18, models=(203, 213), scale_factor=22)
    point = Point("input.realpower", "W", 0, 1, (source,))
    moved = resolve(point, None, {}, {1: 40002, 203: 40070}).sources[0]
    assert isinstance(moved, Source)
    assert (moved.address, moved.scale_factor) == (40088, 40092)
    assert moved.conditions == (Condition(("holding", 40070), (203,), True, lasting=False),)
    lacking = resolve(point, None, {}, {1: 40002}).sources[0]
    assert isinstance(lacking, Source)
    assert lacking.nothing is not None


def test_a_model_that_would_lie_beyond_every_register_is_none() -> None:
    source = Source("int16", table="holding", address=15535, models=(203,))
    assert resolve_source(source, None, {}, {203: 60000}).nothing is not None


def test_a_chain_of_models_is_followed_to_its_end() -> None:
    chain = chain_at(40000)
    assert chain.ask == 40002
    for header in ((1, 66), (203, 105), (64001, 10), (203, 105)):
        chain = chain.said(*header)
    assert dict(chain.models) == {1: 40002, 203: 40070, 64001: 40177}
    assert chain.ask == 40296
    assert chain.said(0xFFFF, 0).ask is None


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=200))
def test_every_chain_ends(headers: list[tuple[int, int]]) -> None:
    chain, asked = chain_at(0), 0
    for header in headers:
        if chain.ask is None:
            break
        assert 0 <= chain.ask <= 65534
        chain, asked = chain.said(*header), asked + 1
    assert asked <= 65


def test_a_counter_goes_on_beyond_its_width_and_starts_anew_after_a_reset() -> None:
    counter = Counter(32, 4_294_967_290).then(5)
    assert counter.total == 4_294_967_301
    assert counter.then(10).total == 4_294_967_306
    assert Counter(32, 1_000_000).then(7).total == 7


@given(st.integers(0, 2**16 - 1), st.lists(st.integers(0, 2**14), max_size=50))
def test_a_counter_that_is_read_often_enough_never_loses_a_count(
    start: int, steps: list[int]
) -> None:
    counter, total = Counter(16, start), start
    for step in steps:
        total += step
        counter = counter.then(total % 2**16)
        assert counter.total == total
