"""The breaker's curve against IEC 60898-1, table 7."""

import math

import pytest

from hil.breaker import FAST, SLOW, Breaker, trip_time_s


@pytest.mark.parametrize(
    ("edge", "multiple", "borne_s"),
    [
        (FAST, 1.129, math.inf),
        (FAST, 1.13, 3600.0),
        (FAST, 2.55, 1.0),
        (FAST, 5.0, 0.1),
        (FAST, 5.01, 0.0),
        (SLOW, 1.449, math.inf),
        (SLOW, 1.45, 3600.0),
        (SLOW, 2.55, 60.0),
        (SLOW, 10.0, 0.1),
        (SLOW, 10.01, 0.0),
    ],
)
def test_both_edges_of_curve_c_pass_through_the_points_of_the_standard(edge, multiple, borne_s):
    assert trip_time_s(multiple, "C", edge) == pytest.approx(borne_s)


@pytest.mark.parametrize(("curve", "multiple"), [("B", 3.0), ("C", 5.0), ("D", 10.0)])
def test_the_magnetic_part_holds_at_its_multiple_and_opens_above_it(curve, multiple):
    assert trip_time_s(multiple, curve) == pytest.approx(0.1)
    assert trip_time_s(multiple + 0.01, curve) == 0.0


def test_the_more_load_the_sooner_it_opens_and_the_fast_edge_comes_first():
    multiples = [1.45 + n / 50 for n in range(200)]
    fast = [trip_time_s(m, "C", FAST) for m in multiples]
    assert fast == sorted(fast, reverse=True)
    assert all(trip_time_s(m, "C", SLOW) >= t for m, t in zip(multiples, fast, strict=True))


@pytest.mark.parametrize("dt_s", [0.1, 0.5, 1.0])
def test_stepping_opens_when_the_curve_says_so_whatever_the_step(dt_s):
    breaker, elapsed_s = Breaker(10_000, "C"), dt_s
    while breaker.step(15_000, dt_s):
        elapsed_s += dt_s
    assert elapsed_s == pytest.approx(208.3, abs=dt_s)  # 3600 s and 1 s, joined at 1.5


def test_two_overloads_add_up_and_a_long_rest_makes_good():
    breaker = Breaker(10_000, "C")
    for _ in range(150):
        assert breaker.step(15_000, 1.0)
    assert breaker.used_up == pytest.approx(150 / 208.3, rel=0.001)
    rested = Breaker(10_000, "C")
    rested.used_up = breaker.used_up
    for _ in range(600):
        assert rested.step(10_000, 1.0)
    assert rested.used_up == 0.0
    assert all(breaker.step(15_000, 1.0) for _ in range(58))
    assert not breaker.step(15_000, 1.0)


def test_a_load_at_the_rating_never_opens_it():
    breaker = Breaker(10_000, "C")
    assert all(breaker.step(10_000, 60.0) for _ in range(10_000))


def test_an_open_breaker_stays_open():
    breaker = Breaker(10_000, "B")
    assert not breaker.step(40_000, 0.1)
    assert not breaker.step(0, 3600)
    assert breaker.tripped


def test_a_curve_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="curve Z"):
        Breaker(10_000, "Z")
