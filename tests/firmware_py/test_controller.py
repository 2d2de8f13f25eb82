"""Hardware on one side, the grant protocol on the other: the machine of one rack."""

from __future__ import annotations

import pytest
from controller_life import (
    TWO_FEEDS,
    Life,
    messages,
    rack,
    settled,
    told,
    written,
)

from broker.messages import (
    Explain,
    GrantKey,
)
from drivers.reading import Absence, Executed
from firmware_py.controller import Execute, PollNow
from firmware_py.limiter import CommandDone

# ---- R9: what is not known ---------------------------------------------------------------


def test_a_draw_that_was_never_read_is_unknown_and_never_zero() -> None:  # protocol R9
    report = Life().report(2.0)
    assert (report.measured_w, report.measured_age_s, report.demand_w) == (None, None, 4000)


def test_a_draw_is_reported_in_whole_watts_rounded_up_with_its_age() -> None:
    life = settled()
    life.poll("meter", now=2.5, at_s=2.4, draw=700.1)
    report = life.report(3.0)
    assert (report.measured_w, report.measured_age_s) == (701, 0.6)
    assert report.demand_w == 778  # 8 % and 20 W


@pytest.mark.parametrize(("now", "measured_w"), [(8.5, 700), (8.6, None)])
def test_a_stale_draw_is_unknown_and_demand_the_ceiling(
    now: float, measured_w: int | None
) -> None:  # protocol R9
    life = settled()
    life.poll("meter", now=2.5, draw=700)
    life.poll("meter", now=7.5, draw=None)  # no answer: the last one grows old
    report = life.report(now)
    assert report.measured_w == measured_w
    assert (report.demand_w == 4000) is (measured_w is None)


def test_a_stale_draw_adds_nothing_to_the_promise() -> None:  # protocol R9
    life = settled()
    assert life.report(60.0).bound_w == 1000


def test_several_devices_add_up_with_the_age_of_the_oldest() -> None:
    life = settled(rack(*TWO_FEEDS))
    life.poll("a", now=2.1, draw=300.4)
    life.poll("b", now=2.6, draw=200.2)
    report = life.report(3.0)
    assert (report.measured_w, report.measured_age_s) == (501, 0.9)


def test_one_missing_device_makes_the_whole_draw_unknown() -> None:  # protocol R9
    life = settled(rack(*TWO_FEEDS))
    life.poll("a", now=2.1, draw=300)
    assert life.report(3.0).measured_w is None


def test_power_that_flows_back_is_no_negative_draw() -> None:
    life = settled()
    life.poll("meter", now=2.5, draw=-40.0)
    assert life.report(3.0).measured_w == 0


# ---- leases become commands --------------------------------------------------------------


def test_a_lease_is_written_to_the_actuators_device() -> None:
    life = settled()
    effects = life.grant(2000, now=2.2, seq=1)
    assert written(effects) == [("cap", 2000)]
    report = life.report(3.0)
    assert (report.limit_w, report.bound_w) == (2000, 2000)  # protocol R5
    assert report.seen == GrantKey(4, "r2", 1)


def test_a_grant_that_may_not_raise_raises_nothing() -> None:  # protocol R4
    life = settled()
    assert written(life.grant(2000, now=2.2, seq=1, may_raise=False)) == []
    assert written(life.grant(800, now=2.3, seq=1, may_raise=False)) == [("cap", 800)]


def test_a_refused_grant_writes_nothing() -> None:  # protocol R3
    life = settled()
    effects = life.grant(2000, now=2.2, seq=44)
    assert (written(effects), told(effects)) == ([], ["grant refused"])


def test_what_a_command_came_to_reaches_the_limiter_and_a_raise_is_asked_after() -> None:
    life = settled()
    command = next(e for e in life.grant(2000, now=2.2, seq=1) if isinstance(e, Execute)).command
    executed = Executed(command.name, 2000, 2.3, 2.4, Absence.TIMEOUT, "", None)
    effects = life.machine.read(CommandDone(command.id, executed, 2.4), now=2.4)
    assert told(effects) == ["write failed"]
    assert life.machine.next_wake() == 3.0
    assert PollNow("cap") not in life.wake(3.0)
    assert life.machine.next_wake() == 3.4  # the device's delay after it
    assert PollNow("cap") in life.wake(3.4)
    life.poll("cap", now=3.5, limit=1000)
    assert life.report(4.0).limit_w == 1000  # R5: the next grant may raise again


def test_explain_says_who_set_the_limit() -> None:
    life = Life()
    life.poll("cap", now=1.5, limit=1000)
    assert messages(life.wake(2.0), Explain)[0].set_by == "hardware at the start"
    life.grant(2000, now=2.2, seq=1)
    assert messages(life.wake(3.0), Explain)[0].set_by == "broker r2, term 4"
    assert messages(life.wake(20.0), Explain)[0].set_by == "end of the lease"


# ---- R6: the end of the lease --------------------------------------------------------------


def test_settle_before_the_lease_ends_the_rack_lowers_itself_to_its_floor() -> None:
    life = settled()  # protocol R6
    life.grant(2000, now=2.2, seq=1)  # the report of 2 s: until 17 s
    assert written(life.wake(14.9)) == []
    effects = life.wake(15.0)
    assert written(effects) == [("cap", 500)]
    assert told(effects) == ["lease ended: rack goes to its floor"]


def test_it_is_woken_for_the_end_of_its_lease() -> None:  # protocol R6
    life = settled()
    life.grant(2000, now=2.2, seq=1)
    life.wake(14.8)
    assert life.machine.next_wake() == 15.0


def test_a_newer_grant_puts_the_end_off() -> None:  # protocol R6
    life = settled()
    life.grant(2000, now=2.2, seq=1)
    life.wake(10.0)  # seq 2
    life.grant(2000, now=10.1, seq=2)
    assert written(life.wake(22.9)) == []
    assert written(life.wake(23.0)) == [("cap", 500)]


def test_a_grant_after_the_end_is_obeyed_and_its_end_kept_again() -> None:  # protocol R6
    life = settled()
    life.grant(2000, now=2.2, seq=1)
    life.wake(15.0)
    life.poll("cap", now=16.5, limit=500)
    life.wake(17.0)  # seq 3
    assert written(life.grant(1500, now=17.1, seq=3)) == [("cap", 1500)]
    assert written(life.wake(30.0)) == [("cap", 500)]


def test_the_end_is_told_once() -> None:  # protocol R6
    life = settled()
    ends = [told(life.wake(second)).count("lease ended: rack goes to its floor")
            for second in (13.0, 14.0, 15.0, 60.0)]  # fmt: skip
    assert sum(ends) == 1


def test_a_floor_that_does_not_hold_is_written_again() -> None:  # protocol R5, R6
    life = settled()
    command = next(e for e in life.wake(13.0) if isinstance(e, Execute)).command
    executed = Executed(command.name, 500, 13.1, 13.2, Absence.TIMEOUT, "", None)
    life.machine.read(CommandDone(command.id, executed, 13.2), now=13.2)
    assert written(life.poll("cap", now=15.0, limit=1000)) == [("cap", 500)]


# ---- R7: starts ----------------------------------------------------------------------------


def test_after_a_start_the_promise_is_the_ceiling_until_the_setting_is_proven() -> None:
    life = Life()  # protocol R7
    life.poll("cap", now=0.5, limit=1000)
    report = life.report(0.9)
    assert (report.limit_w, report.bound_w, report.starting) == (1000, 4000, True)
    life.poll("cap", now=1.5, limit=1000)
    report = life.report(2.0)
    assert (report.limit_w, report.bound_w, report.starting) == (1000, 1000, False)


def test_a_restart_keeps_what_the_hardware_has_for_one_lease() -> None:  # protocol R7
    life = settled()
    assert written(life.wake(12.9)) == []
    assert written(life.wake(13.0)) == [("cap", 500)]


def test_a_controller_that_keeps_crashing_reaches_its_floor() -> None:  # protocol R7
    life = Life(granted=False)
    life.poll("cap", now=0.5, limit=1000)
    assert life.report(2.0).limit_w == 500


def test_hardware_that_can_never_be_read_is_written_to_the_floor_at_the_leases_end() -> None:
    life = Life()  # protocol R7
    life.poll("cap", now=1.0, limit=None)
    life.report(2.0)
    assert written(life.grant(3000, now=2.0, seq=1)) == []
    life.report(12.5)
    assert written(life.grant(3000, now=12.6, seq=2)) == []  # a renewal of nothing
    assert written(life.wake(12.9)) == []
    assert life.machine.next_wake() == 13.0
    assert written(life.wake(13.0)) == [("cap", 500)]
    assert life.report(14.0).bound_w == 4000


def test_a_register_that_holds_no_limit_is_one_that_was_read() -> None:  # protocol R7
    life = Life()
    life.poll("cap", now=1.5, limit=Absence.ABSENT)
    report = life.report(2.0)
    assert (report.bound_w, report.limit_w, report.starting) == (4000, 4000, False)
    assert written(life.grant(1000, now=2.1, seq=1)) == [("cap", 1000)]


def test_only_the_actuators_own_device_says_what_the_setting_is() -> None:  # protocol R5
    life = Life()
    life.poll("meter", now=1.5, limit=1000)
    assert life.report(2.0).starting


def test_the_meter_alone_proves_nothing_of_the_setting() -> None:  # protocol R5, R7
    life = Life()
    life.poll("meter", now=1.5, draw=100)
    report = life.report(2.0)
    assert (report.bound_w, report.starting) == (4000, True)


# ---- the end -------------------------------------------------------------------------------


def test_the_rack_is_lowered_on_exit_only_if_it_is_asked_for() -> None:  # protocol R6
    life = settled()
    assert written(life.machine.floor(now=3.0)) == [("cap", 500)]


def test_a_rack_without_an_actuator_writes_nothing_and_promises_its_ceiling() -> None:
    life = Life(rack(kind="none", device=None))
    effects = life.grant(1000, now=2.0, seq=1) + life.wake(2.0) + life.wake(14.0) + life.wake(60.0)
    assert written(effects) == []
    assert "lease ended: rack goes to its floor" not in told(effects)
    report = life.report(62.0)
    assert (report.limit_w, report.bound_w, report.starting) == (4000, 4000, False)
    assert life.machine.promise_w == 4000
