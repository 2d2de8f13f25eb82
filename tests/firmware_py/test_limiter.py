"""A limit becomes hardware: what is written, and what may be promised meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from limiter_bench import (
    LIMIT,
    REGISTER,
    STRIP,
    Bench,
    only,
    register,
    settled,
    shown,
    strip,
    told,
    writes,
)
from msgspec.structs import replace

from drivers.reading import Absence
from firmware_py.limiter import (
    CommandDone,
    Limiter,
    ReadBack,
)
from firmware_py.limiter_kinds import NoLimiter, OutletLimiter, PowerLimiter, limiter_of

# ---- R7: after a start -----------------------------------------------------------------


def test_after_a_start_only_the_ceiling_is_promised_and_nothing_is_written() -> None:  # protocol R7
    bench = register()
    assert bench.state == (4000, 4000)
    assert bench.limit(1000, now=0.1) == []
    assert bench.limit(3000, now=0.2) == []
    assert bench.wake(5.0) == []
    assert bench.state == (4000, 4000)


@pytest.mark.parametrize(
    ("asked_at_s", "bound_w", "starting"),
    [(0.2, 4000, True), (0.9, 4000, True), (1.0, 1500, False)],
)
def test_the_setting_is_the_limit_and_the_promise_after_the_devices_delay(
    asked_at_s: float, bound_w: int, starting: bool
) -> None:  # protocol R7
    bench = register()
    bench.read(now=asked_at_s + 0.1, asked_at_s=asked_at_s, limit=1500)
    assert bench.state == (1500, bound_w)
    assert bench.limiter.starting is starting


def test_a_raise_of_the_last_boot_that_comes_late_drops_nobody() -> None:
    bench = register()  # protocol R7
    bench.read(now=0.2, limit=1500)
    assert writes(bench.read(now=1.1, limit=2500)) == []
    assert bench.state == (2500, 2500)


def test_a_raise_of_the_last_boot_that_comes_after_a_lowering_is_written_down() -> None:
    bench = register()  # protocol R5, R7
    bench.read(now=0.2, limit=1500)
    bench.done(bench.limit(900, now=0.3), now=0.4, shows=900)
    effects = bench.read(now=1.5, limit=2500)
    assert writes(effects) == [(LIMIT, 900)]
    assert bench.state[0] == 900
    assert bench.limiter.bound_w >= 2500


def test_an_outlet_that_the_last_boot_switched_on_late_stays_on() -> None:
    bench = strip()  # protocol R7
    bench.read(now=0.2, **shown(1))
    assert writes(bench.read(now=1.1, **shown(1, 2))) == []
    assert bench.state == (1450, 1450)


def test_a_restart_neither_raises_nor_drops_anyone() -> None:  # protocol R7
    bench = register()
    assert writes(bench.read(now=2.0, limit=1500)) == []
    assert bench.state == (1500, 1500)


def test_while_starting_nothing_is_raised_and_a_lowering_is_written() -> None:  # protocol R7
    bench = register()
    bench.read(now=0.2, limit=1500)
    assert bench.limit(3000, now=0.3) == []
    assert writes(bench.limit(900, now=0.4)) == [(LIMIT, 900)]
    assert bench.limiter.bound_w == 4000


@pytest.mark.parametrize("answer", [None, Absence.TYPE, "word"])
def test_an_answer_that_is_no_number_is_not_read(answer: Any) -> None:  # protocol R7
    bench = register()
    assert bench.read(now=2.0, limit=answer) == []
    assert (bench.limiter.known, bench.state) == (False, (4000, 4000))


def test_hardware_that_can_never_be_read_counts_at_the_ceiling_and_goes_to_the_floor() -> None:
    bench = register()  # protocol R7
    effects = bench.floor(13.0)
    assert writes(effects) == [(LIMIT, 500)]
    bench.done(effects, now=14.0, absence=Absence.TIMEOUT)
    bench.wake(60.0)
    assert bench.state == (500, 4000)


def test_a_rack_that_is_always_at_its_floor_is_written_to_it_too_where_nothing_was_read() -> None:
    bench = Bench(REGISTER, floor_w=4000, ceiling_w=4000)  # protocol R7
    assert writes(bench.floor(13.0)) == [(LIMIT, 4000)]


def test_a_register_without_a_limit_counts_at_the_ceiling() -> None:
    bench = register()
    assert told(bench.read(now=2.1, asked_at_s=2.0, limit=Absence.ABSENT)) == ["hardware read"]
    assert (bench.state, bench.limiter.starting) == ((4000, 4000), False)
    effects = bench.limit(1000, now=3.0)
    assert writes(effects) == [(LIMIT, 1000)]
    bench.done(effects, now=3.1)
    assert writes(bench.read(now=5.0, limit=Absence.ABSENT)) == [(LIMIT, 1000)]
    assert bench.state == (1000, 4000)


@pytest.mark.parametrize(("shown_w", "limit_w"), [(1500.2, 1501), (5000, 4000), (0, 0)])
def test_what_is_read_is_rounded_up_and_at_most_the_ceiling(shown_w: float, limit_w: int) -> None:
    bench = register()
    bench.read(now=2.0, limit=shown_w)
    assert bench.state == (limit_w, limit_w)


@pytest.mark.parametrize("setting_w", [2500, 3999, 9999])
def test_a_device_that_reset_itself_counts_at_the_ceiling_and_is_written_anew(
    setting_w: int,
) -> None:  # protocol R7
    bench = settled(1000)
    effects = bench.read(now=100.0, limit=setting_w)
    assert told(effects) == ["hardware lets through more than was promised"]
    assert writes(effects) == [(LIMIT, 1000)]
    assert bench.state == (1000, 4000)
    bench.done(effects, now=100.1)
    assert told(bench.read(now=100.2, limit=setting_w)) == []  # said once
    assert bench.limiter.bound_w == 4000
    bench.read(now=101.2, limit=1000)
    assert bench.state == (1000, 1000)


def test_a_device_that_resets_itself_twice_is_told_twice() -> None:  # protocol R7
    bench = settled(1000)
    for now in (100.0, 200.0):
        effects = bench.read(now=now, limit=2500)
        assert told(effects) == ["hardware lets through more than was promised"]
        bench.done(effects, now=now + 0.1)
        bench.read(now=now + 1.2, limit=1000)
    assert bench.state == (1000, 1000)


# ---- R4, R8: what a lease asks for -----------------------------------------------------


@pytest.mark.parametrize(
    ("granted_w", "may_raise", "limit_w"),
    [
        (2000, True, 2000),
        (2000, False, 1000),  # R4: min(limit now, granted)
        (800, False, 800),
        (800, True, 800),
        (1000, True, 1000),
        (9000, True, 4000),  # R8: never above the ceiling
        (0, False, 500),  # R8: the floor
        (499, True, 500),
    ],
)
def test_a_lease_is_applied_within_floor_and_ceiling(
    granted_w: int, may_raise: bool, limit_w: int
) -> None:  # protocol R4, R8
    bench = settled(1000)
    effects = bench.limit(granted_w, may_raise=may_raise, now=100.0)
    assert bench.limiter.limit_w == limit_w
    assert writes(effects) == ([] if limit_w == 1000 else [(LIMIT, limit_w)])


def test_a_limit_below_the_floor_is_not_raised_to_it_by_a_grant_that_may_not() -> None:
    bench = settled(300)  # protocol R4, R8
    assert bench.limit(100, may_raise=False, now=100.0) == []
    assert bench.limit(500, may_raise=False, now=100.0) == []
    assert bench.state == (300, 300)
    assert writes(bench.limit(500, now=101.0)) == [(LIMIT, 500)]


@pytest.mark.parametrize(("limit_w", "next_w"), [(1000, 1001), (3999, 4000), (4000, 4000)])
def test_a_power_limit_can_take_every_watt(limit_w: int, next_w: int) -> None:
    assert settled(limit_w).limiter.next_w == next_w


def test_base_load_counts_in_every_sum() -> None:
    bench = settled(1000, base_w=200)
    assert bench.state == (1000, 1000)
    effects = bench.limit(1500, now=100.0)
    assert writes(effects) == [(LIMIT, 1300)]
    assert bench.limiter.bound_w == 1500
    bench.done(effects, now=100.1, shows=1300)
    assert bench.state == (1500, 1500)


# ---- R5: raises ------------------------------------------------------------------------


def test_the_promise_rises_before_a_raise_is_written() -> None:  # protocol R5
    bench = settled(1000)
    command = only(bench.limit(2000, now=100.0))
    assert command.raises
    assert bench.state == (2000, 2000)


def test_a_raise_is_written_once_and_never_repeated() -> None:  # protocol R5
    bench = settled(1000)
    effects = bench.limit(2000, now=100.0)
    bench.done(effects, now=100.1, absence=Absence.TIMEOUT)
    again = bench.limit(2000, now=100.2)
    for tenth in range(3, 20):
        now = 100 + tenth / 10
        again += bench.wake(now)
        again += bench.read(now=now, limit=1000)
    assert writes(again) == []


def test_a_raise_that_does_not_show_in_time_never_happened_and_may_be_granted_again() -> None:
    bench = settled(1000)  # protocol R5
    effects = bench.limit(2000, now=100.0)
    bench.done(effects, now=100.1, absence=Absence.TIMEOUT)
    bench.read(now=101.0, limit=1000)
    assert bench.state == (2000, 2000)  # it may still take effect
    assert told(bench.read(now=101.1, limit=1000)) == ["hardware is below the limit"]
    assert bench.state == (1000, 1000)
    assert writes(bench.limit(2000, now=102.0)) == [(LIMIT, 2000)]


def test_the_delay_of_a_raise_counts_from_when_the_driver_was_done_with_it() -> None:
    bench = settled(1000)  # protocol R5
    effects = bench.limit(2000, now=100.0)
    bench.read(now=105.0, limit=1000)  # the driver is still at it
    assert bench.state == (2000, 2000)
    bench.done(effects, now=106.0, absence=Absence.TIMEOUT)
    bench.read(now=106.9, limit=1000)
    assert bench.state == (2000, 2000)
    bench.read(now=107.0, limit=1000)
    assert bench.state == (1000, 1000)


def test_a_reading_that_was_asked_before_the_delay_was_over_proves_no_lost_raise() -> None:
    bench = settled(1000)  # protocol R5
    bench.done(bench.limit(2000, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    bench.read(now=101.5, asked_at_s=101.0, limit=1000)
    assert bench.state == (2000, 2000)


def test_a_raise_is_asked_after_until_it_is_answered() -> None:  # protocol R5
    bench = settled(1000)
    bench.done(bench.limit(2000, now=100.0), now=100.1)
    assert bench.limiter.next_wake() == 101.1
    assert bench.wake(101.0) == []
    assert bench.wake(101.1) == [ReadBack()]
    assert bench.limiter.next_wake() == 102.1
    bench.read(now=101.5, limit=None)
    assert bench.wake(102.1) == [ReadBack()]
    bench.read(now=102.2, limit=2000)
    assert (bench.limiter.next_wake(), bench.state) == (None, (2000, 2000))


def test_a_refused_raise_is_told_and_counts_for_as_long_as_a_lost_one() -> None:  # protocol R5
    bench = settled(1000)
    effects = bench.limit(2000, now=100.0)
    assert told(bench.done(effects, now=100.1, absence=Absence.REFUSED)) == ["write failed"]
    assert bench.state == (2000, 2000)  # an answer alone proves nothing
    bench.read(now=101.1, limit=1000)
    assert bench.state == (1000, 1000)


def test_hardware_that_somebody_turned_down_makes_the_limit_what_was_read() -> None:  # protocol R5
    bench = settled(2000)
    assert told(bench.read(now=100.0, limit=1200)) == ["hardware is below the limit"]
    assert bench.state == (1200, 1200)


# ---- R5: lowerings -----------------------------------------------------------------------


def test_the_promise_falls_only_when_the_setting_was_read_back() -> None:  # protocol R5
    bench = settled(2000)
    effects = bench.limit(1000, now=100.0)
    assert not only(effects).raises
    assert bench.state == (1000, 2000)
    bench.done(effects, now=100.1)  # an answer alone proves nothing
    assert bench.state == (1000, 2000)
    bench.wake(105.0)
    assert bench.state == (1000, 2000)
    bench.read(now=105.1, limit=1000)
    assert bench.state == (1000, 1000)


def test_a_read_back_in_the_drivers_answer_is_a_proof() -> None:  # protocol R5
    bench = settled(2000)
    bench.done(bench.limit(1000, now=100.0), now=100.1, shows=1000)
    assert bench.state == (1000, 1000)


@pytest.mark.parametrize(
    ("shown_w", "state"),
    [(1001, (1000, 1001)), (1000.4, (1000, 1001)), (1000, (1000, 1000)), (900, (900, 900))],
)
def test_the_promise_is_what_the_hardware_shows_rounded_up(
    shown_w: float, state: tuple[int, int]
) -> None:  # protocol R5
    bench = settled(2000)
    bench.done(bench.limit(1000, now=100.0), now=100.1)
    bench.read(now=101.5, limit=shown_w)
    assert bench.state == state


def test_a_lowering_is_written_again_until_it_holds() -> None:  # protocol R5
    bench = settled(2000)
    effects = bench.limit(1000, now=100.0)
    assert writes(bench.read(now=100.5, limit=2000)) == []  # the driver is still at it
    for now in (101.0, 103.0, 105.0):
        bench.done(effects, now=now, absence=Absence.TIMEOUT)
        assert writes(bench.read(now=now + 0.9, limit=2000)) == []  # a second's pause
        effects = bench.read(now=now + 1.0, limit=2000)
        assert writes(effects) == [(LIMIT, 1000)]
    bench.done(effects, now=106.5)
    assert writes(bench.read(now=108.0, limit=1000)) == []
    assert bench.state == (1000, 1000)


def test_a_raise_whose_answer_was_lost_counts_until_the_devices_delay_is_over() -> None:
    bench = settled(1000)  # protocol R5
    bench.done(bench.limit(3000, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    lowering = bench.limit(1200, now=100.2)
    bench.done(lowering, now=100.3, shows=1200)
    assert bench.state == (1200, 3000)  # the 3000 may still come
    assert bench.limiter.next_wake() is None  # and is not waited for
    bench.read(now=101.0, limit=1200)
    assert bench.state == (1200, 3000)
    bench.read(now=101.1, limit=1200)
    assert bench.state == (1200, 1200)


def test_a_raise_that_was_read_back_in_force_can_come_no_second_time() -> None:  # protocol R5
    bench = settled(1000)
    bench.done(bench.limit(3000, now=100.0), now=100.1, shows=3000)
    bench.done(bench.limit(1200, now=100.2), now=100.3, shows=1200)
    assert bench.state == (1200, 1200)


def test_a_value_that_stood_there_before_proves_nothing_of_a_write() -> None:  # protocol R5
    bench = settled(1000)
    raised = bench.limit(3000, now=100.0)
    lowered = bench.limit(1000, now=100.05)
    bench.done(raised, now=100.1, absence=Absence.TIMEOUT)
    bench.done(lowered, now=100.2, shows=1000)  # it was 1000 all the time
    assert bench.state == (1000, 3000)
    bench.read(now=101.2, limit=1000)
    assert bench.state == (1000, 1000)


def test_of_two_writes_of_one_value_a_reading_proves_neither() -> None:  # protocol R5
    bench = settled(1000)
    bench.done(bench.limit(3000, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    bench.done(bench.limit(1200, now=100.2), now=100.3, shows=1200)
    bench.done(bench.limit(3000, now=100.4), now=100.5, shows=3000)
    bench.done(bench.limit(1200, now=100.6), now=100.7, shows=1200)
    assert bench.limiter.bound_w == 3000  # one of the two may be on its way still
    bench.read(now=101.7, limit=1200)
    assert bench.limiter.bound_w == 1200


def test_a_raise_to_what_the_hardware_showed_all_along_is_not_proven_by_that() -> None:
    bench = settled(3000)  # protocol R5
    bench.done(bench.limit(1200, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    bench.done(bench.limit(3000, now=100.2), now=100.3, shows=3000)
    bench.done(bench.limit(1000, now=100.4), now=100.5, shows=1000)
    assert bench.limiter.bound_w == 3000
    bench.read(now=101.3, limit=1000)
    assert bench.limiter.bound_w == 1000


def test_a_raise_that_follows_a_lost_one_of_the_same_value_is_not_proven_by_it() -> None:
    bench = settled(1000)  # protocol R5
    bench.done(bench.limit(3000, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    bench.done(bench.limit(1200, now=100.2), now=100.3, shows=1200)
    bench.done(bench.limit(3000, now=100.4), now=100.5, absence=Absence.TIMEOUT)
    for now in (101.15, 101.2):
        bench.read(now=now, limit=3000)  # the first, late, or the second
    bench.done(bench.limit(1200, now=101.3), now=101.35, shows=1200)
    assert bench.limiter.bound_w == 3000  # the second may come until 101.5
    bench.read(now=101.5, limit=1200)
    assert bench.limiter.bound_w == 1200


def test_a_reading_that_was_asked_before_the_write_was_done_proves_nothing() -> None:  # protocol R5
    bench = settled(1000)
    raised = bench.limit(3000, now=100.0)
    bench.done(raised, now=100.5, absence=Absence.TIMEOUT)
    bench.read(now=100.6, asked_at_s=100.4, limit=3000)
    bench.done(bench.limit(1000, now=100.7), now=100.8, shows=1000)
    assert bench.limiter.bound_w == 3000


def test_a_late_raise_over_a_lowering_is_written_down_again() -> None:  # protocol R5
    bench = settled(1000)
    bench.done(bench.limit(3000, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    bench.done(bench.limit(1200, now=100.2), now=100.3, shows=1200)
    effects = bench.read(now=101.4, limit=3000)
    assert writes(effects) == [(LIMIT, 1200)]
    assert bench.limiter.bound_w >= 3000


def test_a_command_that_was_never_sent_can_take_no_effect() -> None:  # protocol R5
    bench = settled(1000)
    raised = only(bench.limit(3000, now=100.0))
    lowered = bench.limit(1200, now=100.1)
    bench.limiter.done(CommandDone(raised.id, None, 100.2), now=100.2)
    bench.done(lowered, now=100.3, shows=1200)
    assert bench.state == (1200, 1200)


def test_hardware_that_does_not_keep_its_setting_is_promised_at_the_ceiling() -> None:
    bench = settled(1000, keeps=False)
    assert bench.state == (1000, 4000)
    bench.done(bench.limit(700, now=100.0), now=100.1, shows=700)
    assert bench.state == (700, 4000)


def test_the_floor_is_written_at_the_end_of_a_lease_and_again_until_it_holds() -> None:
    bench = settled(2000)  # protocol R6
    effects = bench.floor(100.0)
    assert writes(effects) == [(LIMIT, 500)]
    bench.done(effects, now=100.1, absence=Absence.TIMEOUT)
    assert writes(bench.read(now=101.5, limit=2000)) == [(LIMIT, 500)]


def test_a_lowering_to_the_floor_that_is_not_proven_is_written_again_at_the_leases_end() -> None:
    bench = settled(2000)  # protocol R5, R6
    bench.done(bench.limit(500, now=100.0), now=100.1, absence=Absence.TIMEOUT)
    assert writes(bench.read(now=100.5, limit=2000)) == []
    assert writes(bench.floor(101.5)) == [(LIMIT, 500)]


def test_who_is_at_its_floor_writes_nothing_more() -> None:  # protocol R6
    bench = settled(500)
    assert bench.floor(100.0) == []
    assert settled(300).floor(100.0) == []  # below it: a floor raises nothing


# ---- none ----------------------------------------------------------------------------------


def test_a_rack_that_cannot_be_limited_promises_its_ceiling_and_writes_nothing() -> None:
    bench = Bench(replace(REGISTER, kind="none", device=None), floor_w=500, ceiling_w=4000)
    everything = [
        *bench.limit(1000, now=1.0), *bench.limit(4000, now=2.0), *bench.floor(3.0),
        *bench.read(now=4.0, limit=1000), *bench.wake(5.0),
    ]  # fmt: skip
    assert everything == []
    assert bench.state == (4000, 4000)
    assert bench.limiter.next_w == 4000
    assert not bench.limiter.starting


@pytest.mark.parametrize(
    ("kind", "type_"),
    [("power-limit", PowerLimiter), ("outlets", OutletLimiter), ("none", NoLimiter)],
)
def test_every_kind_of_the_site_file_has_its_limiter(kind: Any, type_: type[Limiter]) -> None:
    made = limiter_of(replace(STRIP, kind=kind), floor_w=300, ceiling_w=1700, now=0.0)
    assert type(made) is type_
