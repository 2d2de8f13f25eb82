"""The judge on series made by hand: every number can be checked with a pencil."""

import pytest

from hil.judge import Events, Sample, judge, reserved_w

FLOORS = {"r1": 100, "r2": 100}
ALL = Events(
    fall_s=20.0, kill_s=30.0, restart_s=40.0, return_s=50.0, new_broker_s=32.5, killed="r2"
)


def sample(time_s, r1_w=450.0, r2_w=450.0, **changed):
    values = {
        "time_s": time_s,
        "cap_w": 1000 if time_s < 20 else 800,
        "total_w": r1_w + r2_w,
        "demand_w": 1500.0,
        "draw_w": {"r1": r1_w, "r2": r2_w},
        "limit_w": {"r1": 500, "r2": 500},
        "row_share": {"row1": 0.5},
        "reserved_w": {},
        "broker": "r2",
        "tripped": False,
    }
    return Sample(**{**values, **changed})


def series(**at):
    """A sample a second for a minute: 900 W of 1000, then 700 W of 800; `at`: s12=sample."""
    samples = [sample(float(t)) if t < 20 else sample(float(t), 350.0, 350.0) for t in range(60)]
    for key, other in at.items():
        samples[int(key[1:])] = other
    return samples


def test_a_run_in_which_everything_held_is_ok():
    verdict = judge(series(), ALL, FLOORS)
    assert verdict.ok
    assert verdict.peak_share == 0.9
    assert verdict.under_new_cap_s == 0.0
    assert verdict.no_broker_s == 2.5
    assert verdict.breaker == "closed"
    assert verdict.use == pytest.approx((20 * 0.9 + 40 * 0.875) / 60)


def test_one_instant_above_the_cap_is_the_end_of_it():
    verdict = judge(series(s12=sample(12.0, 500.0, 500.1)), ALL, FLOORS)
    assert verdict.peak_share == pytest.approx(1.0001)
    assert not verdict.ok


def test_exactly_the_cap_is_within_it():
    assert judge(series(s12=sample(12.0, 500.0, 500.0)), ALL, FLOORS).ok


def test_the_three_seconds_after_the_fall_do_not_count_for_the_peak():
    late = {f"s{t}": sample(float(t), 450.0, 400.0) for t in (20, 21, 22)}
    verdict = judge(series(**late), ALL, FLOORS)
    assert verdict.ok
    assert verdict.peak_share == 0.9
    assert verdict.under_new_cap_s == 3.0


def test_under_the_new_cap_means_for_good():
    verdict = judge(series(s20=sample(20.0), s33=sample(33.0)), ALL, FLOORS)
    assert verdict.under_new_cap_s == 14.0
    assert verdict.peak_share == pytest.approx(1.125)
    assert len(verdict.faults) == 2


def test_a_row_above_its_cap_fails_the_run_though_the_room_holds():
    over = sample(12.0, row_share={"row1": 1.01, "row2": 0.4})
    verdict = judge(series(s12=over), ALL, FLOORS)
    assert verdict.peak_share == 0.9
    assert not verdict.ok


def test_an_open_breaker_fails_the_run():
    dark = sample(55.0, 0.0, 0.0, tripped=True)
    verdict = judge(series(s55=dark), ALL, FLOORS)
    assert verdict.breaker == "tripped"
    assert not verdict.ok


@pytest.mark.parametrize("missing", ["fall_s", "kill_s", "restart_s", "return_s", "new_broker_s"])
def test_an_event_that_did_not_happen_fails_the_run(missing):
    instants = {name: getattr(ALL, name) for name in ALL.__slots__} | {missing: None}
    verdict = judge(series(), Events(**instants), FLOORS)
    assert any("not every event" in fault for fault in verdict.faults)
    assert (verdict.no_broker_s is None) == (missing in ("kill_s", "new_broker_s"))


def test_a_living_rack_that_goes_to_its_floor_after_the_kill_fails_the_run():
    low = sample(45.0, 100.0, 350.0, limit_w={"r1": 100, "r2": 500})
    verdict = judge(series(s45=low), ALL, FLOORS)
    assert verdict.fell_to_floor == ("r1",)
    assert not verdict.ok


def test_the_killed_rack_and_falls_before_the_kill_are_not_held_against_the_run():
    killed = sample(45.0, 350.0, 100.0, limit_w={"r1": 500, "r2": 100})
    early = sample(25.0, 100.0, 350.0, limit_w={"r1": 100, "r2": 500})
    assert judge(series(s45=killed, s25=early), ALL, FLOORS).ok


def test_a_rack_at_its_floor_all_the_time_has_not_fallen():
    samples = [sample(float(t), 100.0, 350.0, limit_w={"r1": 100, "r2": 500}) for t in range(60)]
    assert judge(samples, ALL, FLOORS).fell_to_floor == ()


def test_use_counts_only_while_the_racks_want_more_than_the_cap():
    idle = sample(12.0, 10.0, 10.0, demand_w=20.0)
    assert judge([sample(11.0), idle], ALL, FLOORS).use == 0.9
    assert judge([idle], ALL, FLOORS).use is None


def test_use_or_reserved_leaves_out_ten_seconds_after_each_event_but_the_fall():
    waste = {f"s{t}": sample(float(t), 1.0, 1.0) for t in (*range(10), *range(30, 60))}
    verdict = judge(series(**waste), ALL, FLOORS)
    assert verdict.use_or_reserved == pytest.approx((10 * 0.9 + 10 * 0.875) / 20)


def test_use_or_reserved_counts_what_is_held_back_for_a_rack_in_place_of_its_draw():
    held = sample(12.0, 400.0, 100.0, reserved_w={"r2": 550.0})
    assert judge([held], ALL, FLOORS).use_or_reserved == pytest.approx(0.95)


def test_use_or_reserved_is_at_most_one_at_each_instant():
    held = sample(12.0, 400.0, 100.0, reserved_w={"r2": 900.0})
    half = sample(13.0, 250.0, 250.0)
    assert judge([held, half], ALL, FLOORS).use_or_reserved == pytest.approx(0.75)


def test_use_or_reserved_is_none_where_nothing_is_left_to_count():
    assert judge([sample(3.0)], ALL, FLOORS).use_or_reserved is None


@pytest.mark.parametrize(
    ("dead", "bound_w", "limit_w", "published_w", "counted_w"),
    [
        (True, 500.0, 500.0, 700.0, 700.0),
        (True, 500.0, 500.0, None, 900.0),
        (False, 600.0, 500.0, 700.0, 600.0),
        (False, 500.0, 500.0, 700.0, None),
        (False, None, 500.0, None, None),
    ],
)
def test_what_is_held_back_for_a_rack(dead, bound_w, limit_w, published_w, counted_w):
    held_w = reserved_w(
        dead=dead, ceiling_w=900.0, bound_w=bound_w, limit_w=limit_w, published_w=published_w
    )
    assert held_w == counted_w


def test_a_fault_that_no_sample_shows_fails_the_run_too():
    assert not judge(series(), ALL, FLOORS, other_faults=["r1 ended by itself"]).ok
