"""A rack that brakes by itself, and what it tells of where its limit comes from."""

from __future__ import annotations

from typing import Any

from controller_life import BALLOT, FILE_ROSTER, Life, messages, rack, settled, told, written

from broker.messages import Beat, CapMeasured, CapSet, Explain
from broker.topics import Kind, Topic
from firmware_py.controller import ControllerEffect

BRAKED = "brake: a cap is exceeded, rack goes to its floor"


def meter(
    life: Life, power_w: float, now: float, cap: str = "room", **more: Any
) -> list[ControllerEffect]:
    """The feed's meter speaks; the room's cap is 9000 W, its racks brake after 2 s."""
    said = CapMeasured(power_w=power_w, age_s=0.0)
    topic = Topic(Kind.CAP_MEASURED, cap)
    return life.machine.receive(topic, said, retained=more.pop("retained", False), now=now)


def braked(life: Life) -> Life:
    """Granted 2000 W at 2.2 s, and braked at 5.1 s."""
    life.grant(2000, now=2.2, seq=1)
    life.poll("cap", now=3.4, limit=2000)
    for second in (3.0, 4.0, 5.0):
        assert written(meter(life, 9500, second)) == []
    assert written(meter(life, 9500, 5.1)) == [("cap", 500)]
    return life


def explained(life: Life, now: float) -> Explain:
    found: list[Explain] = messages(life.wake(now), Explain)
    assert len(found) == 1, "no report is due"
    return found[0]


# ---- the brake -----------------------------------------------------------------------------


def test_a_braked_rack_is_written_to_its_floor_and_says_so_without_any_grant() -> None:
    life = settled()
    for second in (3.0, 4.0, 5.0):
        meter(life, 9500, second)
    effects = meter(life, 9500, 5.1)
    assert (written(effects), told(effects)) == ([("cap", 500)], [BRAKED])
    life.poll("cap", now=6.2, limit=500)
    report = life.report(6.3)
    assert (report.limit_w, report.bound_w) == (500, 500)


def test_a_braked_rack_takes_no_raise_from_any_broker_and_renews_its_lease() -> None:
    life = braked(settled())
    life.poll("cap", now=6.2, limit=500)
    life.wake(6.3)  # seq 2
    assert written(life.grant(3000, now=6.4, seq=2)) == []
    report = life.report(20.0)
    assert report.limit_w == 500
    assert report.seen is not None
    assert report.seen.number == 2


def test_while_the_meter_shows_too_much_no_raise_is_taken_and_lowerings_are() -> None:
    life = settled()
    meter(life, 9500, 2.1)
    assert written(life.grant(3000, now=2.2, seq=1)) == []
    assert written(life.grant(800, now=2.3, seq=1)) == [("cap", 800)]
    assert told(meter(life, 9000, 2.5)) == []
    assert written(life.grant(3000, now=2.6, seq=1)) == [("cap", 3000)]


def test_a_rack_that_is_let_go_takes_the_next_raise() -> None:
    life = braked(settled())
    life.poll("cap", now=6.2, limit=500)
    for second in range(6, 37):
        effects = meter(life, 8000, float(second))
    assert told(effects) == ["brake released"]
    life.wake(37.0)  # seq 2
    assert written(life.grant(3000, now=37.1, seq=2)) == [("cap", 3000)]


def test_hardware_that_was_not_read_yet_is_braked_as_soon_as_it_is() -> None:  # protocol R7
    life = Life()
    for second in (0.5, 1.5, 2.5, 3.0):
        assert written(meter(life, 9500, second)) == []
    life.poll("cap", now=3.5, limit=1000)
    assert written(life.wake(4.0)) == [("cap", 500)]


def test_a_brake_that_does_not_hold_is_written_again() -> None:  # protocol R5
    life = braked(settled())
    life.poll("cap", now=5.5, limit=2000)
    assert written(life.wake(6.0)) == []  # once is enough until it is answered


def test_what_the_server_kept_and_other_caps_brake_nobody() -> None:
    life = settled()
    for second in range(3, 30):
        assert written(meter(life, 9500, float(second), retained=True)) == []
        assert written(meter(life, 9500, float(second), cap="cellar")) == []


def test_the_cap_that_a_source_has_set_is_what_the_meter_must_keep() -> None:
    life = settled()
    life.poll("cap", now=2.5, limit=1000)
    said = CapSet(limit_w=4000, number=1, by="operator")
    life.machine.receive(Topic(Kind.CAP_SET, "room"), said, retained=False, now=2.5)
    for second in (3.0, 4.0, 5.0):
        meter(life, 4100, second)
    assert written(meter(life, 4100, 5.5)) == [("cap", 500)]


def test_a_rack_without_an_actuator_does_not_say_that_it_brakes() -> None:
    life = Life(rack(kind="none", device=None))
    for second in range(10):
        assert told(meter(life, 9500, float(second))) == []


# ---- explain -------------------------------------------------------------------------------


def test_explain_says_who_set_the_limit_from_which_cap_since_when_and_until_when() -> None:
    life = settled()
    life.grant(2000, now=2.2, seq=1, cap="room", price=0.3, why="market")
    said = explained(life, 3.0)
    assert (said.limit_w, said.granted_w) == (2000, 2000)
    assert (said.set_by, said.why, said.cap, said.price) == (
        "broker r2, term 4", "market", "room", 0.3,
    )  # fmt: skip
    assert (said.cap_limit_w, said.cap_by) == (9000, "site")
    assert said.since_s == 0.8
    assert (said.lease_left_s, said.floor_in_s) == (14.0, 12.0)  # of the report of 2 s
    assert said.changes == (
        "up: more room under room (9000 W by site), by a broker's grant",
        "down: a broker's grant, at once",
        "down: no newer grant: 500 W",
    )


def test_explain_names_the_source_whose_value_the_cap_is() -> None:
    life = settled()
    life.grant(2000, now=2.2, seq=1, cap="room", why="market")
    cap_set = CapSet(limit_w=6000, number=1, by="plant")
    life.machine.receive(Topic(Kind.CAP_SET, "room"), cap_set, retained=False, now=2.5)
    said = explained(life, 3.0)
    assert (said.cap_limit_w, said.cap_by) == (6000, "plant")


def test_a_renewal_by_another_broker_holds_the_limit_without_having_changed_it() -> None:
    life = settled()
    life.grant(2000, now=2.2, seq=1, cap="room", why="market")
    life.wake(3.0)
    life.grant(2000, now=6.2, seq=2, cap=None, why="renewed", may_raise=False)
    said = explained(life, 7.0)
    assert (said.why, said.cap, said.since_s) == ("renewed", None, 4.8)


def test_after_the_lease_the_old_grant_is_no_longer_named_as_the_reason() -> None:
    life = settled()
    life.grant(2000, now=2.2, seq=1, cap="room", price=0.3, why="market")
    life.wake(15.0)
    said = explained(life, 16.0)
    assert (said.set_by, said.cap, said.price) == ("end of the lease", None, None)
    assert (said.limit_w, said.since_s, said.floor_in_s) == (500, 1.0, None)
    assert said.changes == ("up: a broker's grant", "down: nothing, it is at its floor")


def test_explain_says_which_cap_brakes_and_what_lets_the_rack_go() -> None:
    life = braked(settled())
    life.wake(6.0)
    life.grant(3000, now=6.4, seq=2, cap="room", why="market")
    said = explained(life, 7.1)
    assert (said.set_by, said.braked_by, said.limit_w) == ("brake of room", "room", 500)
    assert said.why == "caps/room/measured was above 9000 W for too long"
    assert (said.granted_w, said.since_s) == (3000, 2.0)
    assert said.changes[0] == (
        "up: caps/room/measured at or below 8550 W for 30 s and its turn;"
        " silence of that meter releases nothing"
    )


def test_a_renewal_at_the_floor_does_not_hide_the_brake_that_holds_the_rack_there() -> None:
    life = braked(settled())
    life.wake(6.0)
    life.grant(500, now=6.4, seq=2, may_raise=False, why="renewed")
    assert explained(life, 7.1).set_by == "brake of room"


def test_before_the_hardware_was_read_no_grant_is_named() -> None:  # protocol R7
    life = Life()
    life.report(2.0)
    life.machine.receive(
        Topic(Kind.BEAT), Beat(ballot=BALLOT, number=1, roster=FILE_ROSTER),
        retained=False, now=2.0,
    )  # fmt: skip
    life.grant(4000, now=2.1, seq=1, may_raise=False, why="renewed")
    assert explained(life, 3.0).set_by == "hardware at the start"


def test_explain_says_that_a_meter_holds_raises_back() -> None:
    life = settled()
    life.grant(2000, now=2.2, seq=1, cap="room", why="market")
    meter(life, 9001, 2.5)
    assert explained(life, 3.0).changes[0] == (
        "up: caps/room/measured lower, then a broker's grant"
    )


def test_hardware_that_was_turned_down_by_somebody_is_named() -> None:
    life = settled()
    life.poll("cap", now=6.0, limit=800)
    said = explained(life, 6.5)
    assert (said.set_by, said.why, said.limit_w) == ("hardware", "found below the limit", 800)
    assert said.since_s == 0.5


def test_until_the_setting_is_proven_a_raise_that_was_not_taken_set_nothing() -> None:
    life = Life()  # protocol R7
    life.poll("cap", now=0.5, limit=1000)
    life.report(0.8)
    life.machine.receive(
        Topic(Kind.BEAT), Beat(ballot=BALLOT, number=1, roster=FILE_ROSTER),
        retained=False, now=0.8,
    )  # fmt: skip
    life.grant(3000, now=0.9, seq=1)
    said = explained(life, 1.9)
    assert (said.set_by, said.limit_w, said.granted_w) == ("hardware at the start", 1000, 3000)
    assert said.changes[0].startswith("up: the hardware's own setting")


def test_at_its_ceiling_or_content_a_rack_says_so() -> None:
    life = settled()
    life.grant(4000, now=2.2, seq=1)
    assert explained(life, 3.0).changes[0] == "up: nothing, it is at its ceiling"
    life = settled()
    life.poll("meter", now=2.4, draw=300)
    life.grant(2000, now=2.5, seq=1)
    assert explained(life, 3.0).changes[0] == "up: a larger demand; the rack wants 500 W"


def test_a_rack_without_an_actuator_explains_that_nothing_lowers_it() -> None:
    said = explained(Life(rack(kind="none", device=None)), 2.0)
    assert said.changes == (
        "up: nothing, it is at its ceiling",
        "down: nothing, it has no actuator",
    )
    assert said.floor_in_s is None
