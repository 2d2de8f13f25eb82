"""What a rack would draw if it were let: floor ≤ wanted ≤ ceiling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_py.demand import Demand, DemandEstimator


def rack(*, in_steps: bool = False) -> DemandEstimator:
    return DemandEstimator(floor_w=500, ceiling_w=4000, in_steps=in_steps, effect_delay_s=1.0)


def wanted_w(
    machine: DemandEstimator, measured_w: int | None, limit_w: int, now: float, age_s: float = 0.0
) -> int:
    return machine.estimate(measured_w, now - age_s, limit_w, now=now).wanted_w


@pytest.mark.parametrize("limit_w", [500, 1000, 4000])
def test_an_unknown_draw_counts_as_the_ceiling(limit_w: int) -> None:  # protocol R9
    assert rack().estimate(None, 0.0, limit_w, now=0.0) == Demand(500, 4000, 4000)


def test_a_draw_that_becomes_unknown_counts_as_the_ceiling_at_once() -> None:  # protocol R9
    machine = rack()
    assert wanted_w(machine, 2000, 4000, 0.0) == 2180
    assert wanted_w(machine, None, 4000, 1.0) == 4000
    assert wanted_w(machine, 600, 4000, 2.0) == 668  # known again, it begins anew


@pytest.mark.parametrize("measured_w", [None, 0, 900, 4000])
def test_a_rack_in_steps_wants_all_its_outlets(measured_w: int | None) -> None:
    assert wanted_w(rack(in_steps=True), measured_w, 1000, 0.0) == 4000


@pytest.mark.parametrize(
    ("measured_w", "limit_w", "expected_w"),
    [
        (1000, 4000, 1100),  # 8 % and 20 W
        (1001, 4000, 1102),  # rounded up
        (0, 4000, 500),  # never below the floor
        (3900, 4000, 4000),  # never above the ceiling
        (949, 1000, 1045),  # below 95 % of the limit: not held by it
        (950, 1000, 1600),  # held: it probes to 160 % of the limit
        (1000, 1000, 1600),
        (3000, 1000, 3260),  # overdraws: what it draws counts
        (2900, 3000, 4000),
    ],
)
def test_a_first_reading_is_wanted_with_a_margin_and_a_binding_limit_is_probed(
    measured_w: int, limit_w: int, expected_w: int
) -> None:
    assert wanted_w(rack(), measured_w, limit_w, 0.0) == expected_w


def test_a_wish_rises_at_once() -> None:
    machine = rack()
    assert wanted_w(machine, 600, 4000, 0.0) == 668
    assert wanted_w(machine, 2000, 4000, 1.0) == 2180


def test_a_wish_is_kept_while_a_lowered_limit_holds_the_rack() -> None:
    machine = rack()
    assert wanted_w(machine, 3000, 4000, 0.0) == 3260
    assert wanted_w(machine, 1000, 1000, 1.0) == 3260


def test_what_is_drawn_over_the_limit_counts_at_once() -> None:
    machine = rack()
    assert wanted_w(machine, 600, 1000, 0.0) == 668
    assert wanted_w(machine, 3000, 1000, 1.0) == 3260


def test_a_wish_comes_down_with_a_time_constant_of_five_seconds() -> None:
    machine = rack()
    assert wanted_w(machine, 2000, 4000, 0.0) == 2180
    assert wanted_w(machine, 1000, 4000, 5.0) == 1498  # 1100 + 1080 / e = 1497.3
    assert wanted_w(machine, 1000, 4000, 60.0) == 1101  # to the last watt


def test_after_a_raise_it_comes_down_only_on_readings_that_can_show_what_it_is_used_for() -> None:
    machine = rack()
    assert wanted_w(machine, 1000, 1000, 0.0) == 1600
    assert wanted_w(machine, 1000, 1600, 1.0) == 1600  # raised at 1 s
    assert wanted_w(machine, 1000, 1600, 3.5, age_s=0.6) == 1600  # read 2.9 s: too early
    assert wanted_w(machine, 1000, 1600, 4.0, age_s=1.0) < 1600  # read 3 s: delay and response


def test_a_limit_that_is_only_repeated_or_lowered_is_no_raise() -> None:
    machine = rack()
    assert wanted_w(machine, 2000, 4000, 0.0) == 2180
    for now in (1.0, 2.0):
        assert wanted_w(machine, 1000, 3500, now) < 2180


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 6000), st.integers(0, 4000), st.floats(0.1, 5)),
        max_size=20,
    )
)
def test_whatever_is_read_the_wish_is_between_floor_and_ceiling(
    rows: list[tuple[int | None, int, float]],
) -> None:
    machine, now = rack(), 0.0
    for measured_w, limit_w, pause_s in rows:
        now += pause_s
        demand = machine.estimate(measured_w, now, limit_w, now=now)
        assert demand.floor_w <= demand.wanted_w <= demand.ceiling_w
