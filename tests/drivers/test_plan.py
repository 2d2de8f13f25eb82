"""Places to requests: few, whole, and within what the device bears."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.plan import Span, plan_registers
from drivers.points import Condition, Ratio, Source
from drivers.profile import load_profile


def at(address: int, type_: str = "uint16", table: str = "holding") -> Source:
    return Source(type_, table=table, address=address)


def test_neighbours_become_one_read() -> None:
    spans = plan_registers([at(2), at(0), at(1)], 125, 0)
    assert spans == [Span("holding", 0, 3, ((0, 1), (1, 1), (2, 1)))]


def test_a_hole_is_read_over_only_up_to_the_gap() -> None:
    assert [(s.address, s.count) for s in plan_registers([at(0), at(3)], 125, 2)] == [(0, 4)]
    assert [(s.address, s.count) for s in plan_registers([at(0), at(4)], 125, 2)] == [
        (0, 1), (4, 1)
    ]  # fmt: skip


def test_a_value_is_never_split_at_the_longest_read() -> None:
    spans = plan_registers([at(0, "uint32"), at(2, "uint32"), at(4, "uint32")], 5, 0)
    assert [(s.address, s.count) for s in spans] == [(0, 4), (4, 2)]


def test_tables_are_read_apart() -> None:
    assert len(plan_registers([at(0), at(1, table="input")], 125, 10)) == 2


def test_all_of_an_sdm630_is_one_read_of_at_most_80_registers() -> None:
    profile = load_profile("eastron-sdm630")
    limits = profile.limits
    sources = [point.sources[0] for point in profile.points]
    spans = plan_registers(sources, limits.registers_per_read_max, limits.registers_gap_max)
    assert [(s.address, s.count) for s in spans] == [(0, 76)]


def test_a_poll_of_one_point_asks_for_one_point() -> None:
    source = load_profile("eastron-sdm630").point("input.realpower").sources[0]
    assert plan_registers([source], 80, 16) == [Span("input", 52, 2, ((52, 2),))]


def test_a_span_halves_between_values() -> None:
    span = plan_registers([at(0, "uint32"), at(2), at(3)], 125, 0)[0]
    assert span.halves() == (
        Span("holding", 0, 2, ((0, 2),)),
        Span("holding", 2, 2, ((2, 1), (3, 1))),
    )
    assert span.halves()[0].halves() == ()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300),
            st.sampled_from(["uint16", "float32", "uint64"]),
            st.sampled_from(["holding", "input"]),
        ),
        max_size=40,
    ),
    st.integers(4, 125),
    st.integers(0, 20),
)
def test_every_value_is_whole_in_exactly_one_span(
    rows: list[tuple[int, str, str]], length_max: int, gap_max: int
) -> None:
    sources = [at(8 * address, type_, table) for address, type_, table in rows]
    spans = plan_registers(sources, length_max, gap_max)
    for source in sources:
        first, count = source.address, len(source.own_places)
        holders = [s for s in spans if s.table == source.table and (first, count) in s.values]
        assert len(holders) == 1
        assert holders[0].address <= first
        assert first + count <= holders[0].address + holders[0].count
    assert all(span.count <= length_max for span in spans)


def test_a_value_and_its_scale_factor_are_read_in_one_piece() -> None:
    source = Source("int16", table="holding", address=40088, scale_factor=40092)
    spans = plan_registers([source, at(40090)], 4, 0)
    assert [(s.address, s.count) for s in plan_registers([source], 5, 0)] == [(40088, 5)]
    assert spans[0].values[0] == (40088, 5)  # never split, whatever else is read


def test_ratios_and_conditions_are_read_too() -> None:
    source = Source(
        "int16", table="holding", address=0, ratios=(Ratio(9, "uint16", False),),
        conditions=(Condition(("input", 3), (1,), True),),
    )  # fmt: skip
    assert [(s.table, s.address, s.count) for s in plan_registers([source], 125, 0)] == [
        ("holding", 0, 1), ("holding", 9, 1), ("input", 3, 1),
    ]  # fmt: skip
