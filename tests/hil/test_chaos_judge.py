"""The verdict on a run of chaos, from samples made by hand: ten a second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hil.chaos_judge import FloorFall, Injected, Sample, judge
from hil.chaos_watch import what_ailed

FAULTS = tuple(
    Injected("process killed", "r1", True, False, float(t), float(t) + 1) for t in range(10)
)


def sample(time_s: float, **changed: object) -> Sample:
    """Everyone is there, 9 000 of 10 000 W are drawn and 9 900 let through."""
    usual = Sample(
        time_s=time_s,
        cap_w=10_000,
        draw_w=9_000.0,
        let_w=9_900.0,
        row_draw_share=0.5,
        row_let_share=0.6,
        demand_w=14_000.0,
        counted_w=9_900.0,
        limit_w={"r1": 3_000, "r2": 6_900},
        able=5,
        server_up=True,
        beat_at_s=time_s - 0.5,
        everyone_back=True,
        tripped=False,
    )
    return replace(usual, **changed)  # type: ignore[arg-type]


def run_of(seconds: float, change=lambda time_s: {}) -> list[Sample]:
    times = [index / 10 for index in range(round(seconds * 10) + 1)]
    return [sample(time_s, **change(time_s)) for time_s in times]


def verdict_on(samples, injected=FAULTS, fell=(), **more):
    return judge(samples, injected, fell, **more)


def test_a_run_that_breaks_nothing_is_ok():
    verdict = verdict_on(run_of(30))
    assert verdict.broken == ()
    assert verdict.ok
    assert (verdict.over_cap_s, verdict.let_over_cap_s) == (0.0, 0.0)
    assert verdict.use == pytest.approx(0.9)
    assert verdict.use_or_reserved == pytest.approx(0.99)
    assert verdict.faults_by_kind == {"process killed": 10}


@pytest.mark.parametrize(
    ("changed", "drawn_s", "let_s"),
    [
        ({"draw_w": 10_001.0, "let_w": 10_001.0}, 1.0, 1.0),
        ({"let_w": 10_001.0}, 0.0, 1.0),
        ({"row_draw_share": 1.001, "row_let_share": 1.001}, 1.0, 1.0),
        ({"draw_w": 10_000.0, "let_w": 10_000.0}, 0.0, 0.0),
    ],
)
def test_time_over_a_cap_is_counted_for_what_is_drawn_and_for_what_is_let_through(
    changed, drawn_s, let_s
):
    verdict = verdict_on(run_of(30, lambda t: changed if 14.95 < t < 15.95 else {}))
    assert verdict.over_cap_s == pytest.approx(drawn_s)
    assert verdict.let_over_cap_s == pytest.approx(let_s)
    assert verdict.ok is (let_s == 0.0)


def fallen(t, over_until_s, back=True):
    cap = {"cap_w": 8_000} if t >= 10.0 else {}
    draw = {} if t < over_until_s else {"draw_w": 7_900.0, "let_w": 7_900.0, "counted_w": 7_900.0}
    return cap | draw | {"everyone_back": back}


def test_with_everyone_there_a_fall_of_the_cap_is_obeyed_within_three_seconds():
    assert verdict_on(run_of(40, lambda t: fallen(t, 12.9))).ok
    late = verdict_on(run_of(40, lambda t: fallen(t, 13.5)))
    assert late.let_over_cap_s == pytest.approx(0.5)
    assert not late.ok


def test_with_a_rack_cut_off_at_the_fall_the_window_is_the_longest_lease():
    def ailing(t):
        return not 9.0 < t < 12.0

    assert verdict_on(run_of(40, lambda t: fallen(t, 24.9, ailing(t)))).let_over_cap_s == 0.0
    late = verdict_on(run_of(40, lambda t: fallen(t, 25.5, ailing(t))))
    assert late.let_over_cap_s == pytest.approx(0.5)


def test_the_window_is_over_once_the_fall_is_obeyed():
    def change(t):
        return fallen(t, 14.0, back=False) | ({"let_w": 8_001.0} if 18.0 <= t < 18.95 else {})

    verdict = verdict_on(run_of(40, change))
    assert verdict.window_s == pytest.approx(4.0)
    assert verdict.let_over_cap_s == pytest.approx(1.0)
    assert verdict.over_cap_s == 0.0


def test_a_rise_of_the_cap_opens_no_window():
    verdict = verdict_on(run_of(30, lambda t: {"cap_w": 9_800} if t < 10.0 else {}))
    assert verdict.cap_falls == 0
    assert verdict.let_over_cap_s == pytest.approx(10.0)


def silent_from(begin_s, end_s):
    return lambda t: {"beat_at_s": begin_s} if begin_s < t < end_s else {}


def test_the_longest_time_without_a_broker_counts_from_its_last_beat():
    verdict = verdict_on(run_of(30, silent_from(10.0, 15.55)))
    assert verdict.no_broker_s == pytest.approx(5.5)
    assert verdict.no_broker_at_s == pytest.approx(15.5)
    assert verdict.ok
    assert not verdict_on(run_of(30, silent_from(10.0, 16.15))).ok


@pytest.mark.parametrize("missing", [{"server_up": False}, {"able": 1}])
def test_time_without_a_broker_counts_only_while_the_server_and_two_racks_live(missing):
    def change(t):
        return silent_from(10.0, 20.0)(t) | (missing if 12.0 <= t < 16.0 else {})

    verdict = verdict_on(run_of(40, change))
    assert verdict.no_broker_s == pytest.approx(3.9)  # from 16.0 on, again


def test_use_is_that_of_calm_alone():
    def change(t):
        low = {"draw_w": 100.0, "counted_w": 200.0}
        if t < 10.0:
            return low | {"everyone_back": t > 5.0}
        if t < 20.0:  # settles
            return low if t < 15.0 else {}
        return low | {"demand_w": 9_000.0} if t < 25.0 else {}

    verdict = verdict_on(run_of(30, change))
    assert verdict.use == pytest.approx(0.9)
    assert verdict.calm_s == pytest.approx(10.0, abs=0.2)


def test_a_change_of_the_cap_ends_the_calm():
    assert verdict_on(run_of(30, lambda t: {"cap_w": 10_001} if t > 20.0 else {})).calm_s == (
        pytest.approx(10.1, abs=0.2)
    )


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"draw_w": 8_400.0}, "only 84.0% of the cap used"),
        ({"counted_w": 9_400.0}, "only 94.0% of the cap used or reserved"),
        ({"everyone_back": False}, "there was no calm to see how the cap is used"),
        ({"tripped": True}, "the breaker of the feed has tripped"),
    ],
)
def test_a_bound_that_is_broken_is_named(changed, text):
    assert verdict_on(run_of(30, lambda t: changed)).broken == (text,)


def test_too_few_faults_are_a_broken_bound():
    assert verdict_on(run_of(120), FAULTS).broken == ("only 10 faults in 120 s",)


def test_what_no_sample_shows_counts_too():
    assert verdict_on(run_of(30), other_faults=["r1 ended by itself"]).broken == (
        "r1 ended by itself",
    )


@pytest.mark.parametrize(
    ("fall", "alone", "led", "blamed"),
    [
        (FloorFall(12.0, "r2", "", ""), True, True, True),
        (FloorFall(12.0, "r1", "", ""), True, True, False),  # itself
        (FloorFall(26.5, "r2", "", ""), True, True, False),  # a lease later
        (FloorFall(12.0, "r2", "", ""), False, True, False),
        (FloorFall(12.0, "r2", "", ""), True, False, False),
    ],
)
def test_a_living_rack_that_falls_to_its_floor_by_a_brokers_death_alone_breaks_a_bound(
    fall, alone, led, blamed
):
    death = Injected("process killed", "r1", led, alone, 10.0, 14.0)
    verdict = verdict_on(run_of(30), (*FAULTS[1:], death), (fall,))
    assert (verdict.fell_alone == (fall,)) is blamed
    assert verdict.ok is not blamed


def test_a_fall_is_put_down_to_what_was_done_to_the_rack_or_the_server_within_a_lease():
    done = [
        Injected("connection cut", "r1", False, False, 10.0, 12.0),
        Injected("MQTT server killed", "", False, False, 20.0, 21.0),
        Injected("process killed", "r2", False, False, 10.0, 40.0),
    ]
    assert what_ailed("r1", 26.9, done) == "connection cut, MQTT server killed"
    assert what_ailed("r1", 27.0, done) == "MQTT server killed"
    assert what_ailed("r1", 5.0, done) == "nothing of its own"
