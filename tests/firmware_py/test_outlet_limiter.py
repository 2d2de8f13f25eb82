"""Outlets switched by priority: what is written, what may be promised meanwhile."""

from __future__ import annotations

import pytest
from limiter_bench import (
    STRIP,
    Bench,
    load,
    settled_strip,
    shown,
    strip,
    told,
    writes,
)
from msgspec.structs import replace

from drivers.reading import Absence
from firmware_py.limiter import (
    Command,
)

# ---- outlets: steps --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "limit_w", "next_w"),
    [
        ((), 300, 1000),
        ((1,), 1000, 1450),
        ((1, 2), 1450, 1700),
        ((1, 2, 3), 1700, 1700),
        ((3,), 550, 1250),  # whatever was on stays on; 1 would come next
    ],
)
def test_the_limit_of_outlets_is_what_their_steps_add_up_to(
    on: tuple[int, ...], limit_w: int, next_w: int
) -> None:  # protocol R7, R8
    bench = settled_strip(*on)
    assert bench.state == (limit_w, limit_w)
    assert bench.limiter.next_w == next_w


@pytest.mark.parametrize(
    ("granted_w", "limit_w", "off"),
    [
        (1699, 1450, [3]),
        (1450, 1450, [3]),
        (1449, 1000, [3, 2]),
        (1000, 1000, [3, 2]),
        (999, 300, [3, 2, 1]),
        (0, 300, [3, 2, 1]),  # R8: never below the floor
    ],
)
def test_lowering_switches_off_the_lowest_priority_first_and_rounds_down(
    granted_w: int, limit_w: int, off: list[int]
) -> None:  # protocol R8
    bench = settled_strip(1, 2, 3)
    assert writes(bench.limit(granted_w, now=100.0)) == [load(number, "off") for number in off]
    assert bench.state == (limit_w, 1700)


@pytest.mark.parametrize("granted_w", [301, 999, 1000, 1449])
def test_a_raise_between_two_steps_is_the_lower_one(granted_w: int) -> None:  # protocol R8
    bench = settled_strip()
    effects = bench.limit(granted_w, now=100.0)
    raised = granted_w >= 1000
    assert writes(effects) == ([load(1, "on")] if raised else [])
    assert bench.limiter.limit_w == (1000 if raised else 300)


def test_a_grant_that_may_not_raise_switches_nothing_on() -> None:  # protocol R4
    bench = settled_strip(1)
    assert bench.limit(1700, may_raise=False, now=100.0) == []
    assert bench.limiter.limit_w == 1000


def test_a_limit_is_never_above_the_ceiling_even_if_the_outlets_are() -> None:
    bench = Bench(STRIP, floor_w=300, ceiling_w=1200)
    bench.read(now=50.0, **shown(1, 2, 3))
    assert bench.state == (1200, 1200)


# ---- outlets: a staggered return ---------------------------------------------------------


def test_a_raise_in_several_steps_is_one_raise_and_counts_as_a_whole_at_once() -> None:
    bench = settled_strip(stagger_s=0.5)  # protocol R5, R8
    assert writes(bench.limit(1700, now=100.0)) == [load(1, "on")]
    assert bench.state == (1700, 1700)
    assert bench.limiter.next_wake() == 100.5
    assert writes(bench.wake(100.4)) == []
    assert writes(bench.wake(100.5)) == [load(2, "on")]
    assert writes(bench.wake(101.0)) == [load(3, "on")]
    assert writes(bench.wake(101.5)) == []


def test_what_is_not_switched_on_yet_is_no_lost_raise() -> None:  # protocol R5, R8
    bench = settled_strip(stagger_s=5.0)
    bench.done(bench.limit(1700, now=100.0), now=100.1, shows="on")
    bench.read(now=104.0, **shown(1))
    assert bench.state == (1700, 1700)


@pytest.mark.parametrize(
    ("granted_w", "limit_w", "off"),
    # 1450 would leave room for outlet 2: but the raise is over, a new one must bring it
    [(1450, 1000, []), (1000, 1000, []), (999, 300, [1])],
)
def test_the_steps_that_remain_are_dropped_when_anything_lower_arrives(
    granted_w: int, limit_w: int, off: list[int]
) -> None:  # protocol R8
    bench = settled_strip()
    bench.done(bench.limit(1700, now=100.0), now=100.1, shows="on")
    effects = bench.limit(granted_w, may_raise=False, now=100.5)
    assert writes(effects) == [load(number, "off") for number in off]
    later = [step for tenth in range(6, 60) for step in bench.wake(100 + tenth / 10)]
    raised = [step for step in writes(later) if step[1] == "on"]
    assert raised == []
    assert bench.limiter.limit_w == limit_w


def test_the_same_limit_again_drops_no_step() -> None:  # protocol R8
    bench = settled_strip()
    bench.limit(1700, now=100.0)
    bench.limit(1700, may_raise=False, now=100.5)
    assert writes(bench.wake(101.0)) == [load(2, "on")]


def test_after_the_steps_were_dropped_a_new_grant_brings_them_back() -> None:  # protocol R8
    bench = settled_strip()
    bench.done(bench.limit(1700, now=100.0), now=100.1, shows="on")
    bench.limit(1000, may_raise=False, now=100.5)
    assert bench.limiter.next_w == 1450
    bench.limit(1450, now=101.5)
    assert bench.limiter.limit_w == 1450


def test_an_outlet_rests_for_its_minimum_off_time() -> None:
    outlets = tuple(replace(o, min_off_s=60.0 if o.number == 2 else 0.0) for o in STRIP.outlets)
    bench = settled_strip(1, 2, 3, outlets=outlets)
    for command in [e for e in bench.limit(1000, now=100.0) if isinstance(e, Command)]:
        bench.done([command], now=100.1, shows="off")
    assert bench.state == (1000, 1000)
    bench.wake(159.9)
    assert bench.limiter.next_w == 1000  # no step up at present
    assert writes(bench.limit(1700, now=159.9)) == []  # nor one past it
    bench.wake(160.0)
    assert bench.limiter.next_w == 1450
    assert writes(bench.limit(1700, now=160.0)) == [load(2, "on")]


# ---- outlets: what is promised ---------------------------------------------------------


def test_an_outlet_that_was_never_read_counts_as_on() -> None:  # protocol R7
    bench = strip()
    bench.read(now=2.0, o1="on", o2="off", o3=None)
    assert (bench.limiter.known, bench.limiter.bound_w) == (False, 1700)
    bench.read(now=3.0, o1="on", o2="off", o3="off")
    assert bench.state == (1000, 1000)


def test_the_end_of_the_lease_switches_off_what_was_never_read() -> None:  # protocol R7
    bench = strip()
    bench.read(now=2.0, o1="on", o2="off", o3=None)
    assert writes(bench.floor(13.0)) == [load(3, "off"), load(1, "off")]


def test_an_outlet_in_an_unknown_state_counts_as_on() -> None:
    bench = strip()
    bench.read(now=2.0, o1="on", o2="pending", o3="off")
    assert bench.state == (1450, 1450)


def test_the_promise_falls_outlet_by_outlet_as_they_are_read_back() -> None:  # protocol R5
    bench = settled_strip(1, 2, 3)
    commands = [e for e in bench.limit(300, now=100.0) if isinstance(e, Command)]
    bounds = [bench.limiter.bound_w]
    for command in commands:
        bench.done([command], now=100.5, shows="off")
        bounds.append(bench.limiter.bound_w)
    assert bounds == [1700, 1450, 1000, 300]


def test_an_outlet_that_stays_on_is_written_again() -> None:  # protocol R5
    bench = settled_strip(1, 2, 3)
    for command in [e for e in bench.limit(1000, now=100.0) if isinstance(e, Command)]:
        bench.done([command], now=100.5)
    assert writes(bench.read(now=102.0, **shown(1, 2))) == [load(2, "off")]
    assert bench.state == (1000, 1450)


def test_an_outlet_that_came_on_by_itself_is_a_reset() -> None:  # protocol R7
    bench = settled_strip(1)
    effects = bench.read(now=100.0, **shown(1, 3))
    assert told(effects) == ["hardware lets through more than was promised"]
    assert writes(effects) == [load(3, "off")]
    assert bench.state == (1000, 1700)


def test_a_switch_whose_answer_was_lost_counts_until_the_delay_is_over() -> None:  # protocol R5
    bench = settled_strip(1)
    raised = bench.limit(1450, now=100.0)
    bench.done(raised, now=100.1, absence=Absence.TIMEOUT)
    lowered = bench.limit(1000, may_raise=False, now=100.2)
    assert writes(lowered) == [load(2, "off")]  # off is shown; what was written may come yet
    bench.done(lowered, now=100.3, shows="off")
    assert bench.state == (1000, 1450)
    bench.read(now=101.3, **shown(1))
    assert bench.state == (1000, 1000)


def test_a_lost_switch_is_off_again_and_may_be_granted_again() -> None:  # protocol R5
    bench = settled_strip(1)
    bench.done(bench.limit(1450, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    bench.read(now=101.1, **shown(1))
    assert (bench.state, bench.limiter.next_w) == ((1000, 1000), 1450)
    assert writes(bench.limit(1450, now=102.0)) == [load(2, "on")]


def test_only_a_reading_of_the_outlet_itself_proves_that_its_raise_was_lost() -> None:
    bench = settled_strip(1)  # protocol R5
    bench.done(bench.limit(1450, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    bench.read(now=105.0, o1="on", o2=None, o3="off")  # 2 may be on by now
    assert bench.limiter.bound_w == 1450
    bench.read(now=106.0, o1="on", o2="off", o3="off")
    assert bench.state == (1000, 1000)


def test_a_start_is_over_when_every_outlet_was_read_after_the_delay() -> None:  # protocol R7
    bench = strip()
    bench.read(now=0.2, **shown(1))  # a write of the last boot may still take effect
    bench.read(now=5.0, o1="on", o2=None, o3="off")
    assert (bench.limiter.starting, bench.limiter.bound_w) == (True, 1700)
    bench.read(now=6.0, **shown(1, 2))
    assert (bench.limiter.starting, bench.limiter.bound_w) == (False, 1450)
