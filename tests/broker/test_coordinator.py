"""The broker's tick: one beat, one grant per rack, and what monitors see."""

from __future__ import annotations

from typing import Any

import pytest
from protocol_values import (
    Office,
    beat,
    cap,
    cap_set,
    cap_state,
    events,
    grants,
    kinds,
    market_state,
    rack,
    roster,
    said,
    the,
)

from broker.effects import Effect, Publish
from broker.messages import Actuation, Ballot, Beat, CapState, CapValue, GrantKey
from broker.topics import Kind, Topic


def limits(effects: list[Effect]) -> dict[str, int]:
    return {name: grant.limit_w for name, grant in grants(effects).items()}


def in_office(limit_w: int = 9000, **limits_w: int) -> Office:
    """A broker that has heard everyone at 0 s; three racks at 1000 W if nothing else is said."""
    office = Office(roster(limit_w=limit_w))
    office.hear_all(now=0.0, **({"r1": 1000, "r2": 1000, "r3": 1000} | limits_w))
    return office


# ---- beat and grants ---------------------------------------------------------------------


def test_every_tick_is_a_beat_and_a_grant_for_each_that_has_reported() -> None:
    office = Office(roster())
    office.hear("r1", now=0.0)
    effects = office.tick(0.0)
    assert the(said(effects, Beat)) == beat(Ballot(1, "r1"), 1, silent=("r2", "r3"))
    assert set(grants(effects)) == {"r1"}
    assert office.tick(0.9) == []
    assert the(said(office.tick(1.0), Beat)).number == 2


def test_beat_and_states_are_retained_and_grants_are_not() -> None:
    retained = {e.topic.kind: e.retain for e in kinds(in_office().tick(0.0), Publish)}
    assert retained == {
        Kind.BEAT: True, Kind.GRANT: False, Kind.CAP_STATE: True, Kind.MARKET: True
    }  # fmt: skip


def test_a_grant_answers_the_report_of_one_process() -> None:  # protocol R2, R3
    office = Office(roster())
    office.hear("r2", now=0.0, instance="b", boot=7, seq=41, ttl_s=300.0)
    grant = office.grants(0.0)["r2"]
    assert (grant.instance, grant.boot, grant.seq, grant.ttl_s) == ("b", 7, 41, 300.0)


def test_keys_of_one_broker_rise_over_racks_and_ticks() -> None:
    office = in_office()
    sent = [*office.grants(0.0).values(), *office.grants(1.0).values()]
    assert [grant.key for grant in sent] == [GrantKey(1, "r1", n) for n in range(1, 7)]


def test_a_report_in_another_ballot_is_not_counted() -> None:  # protocol B1
    office = Office(roster())
    for ballot in (Ballot(0, "r9"), Ballot(2, "r2")):
        office.hear("r2", now=0.0, ballot=ballot)
    effects = office.tick(0.0)
    assert grants(effects) == {}
    assert cap_state(effects).reserve_w["r2"] == 4000


def test_a_rack_that_is_not_in_the_roster_is_said_once_and_granted_nothing() -> None:
    office = in_office()
    assert events(office.hear("r9", now=0.0)) == ["rack is not in the site file"]
    assert office.hear("r9", now=0.5) == []
    many = [office.hear(f"ghost{number}", now=0.6) for number in range(100)]
    assert len([effects for effects in many if effects]) == 2  # three names are enough
    assert "r9" not in office.grants(1.0)


def test_who_is_silent_is_in_the_beat() -> None:
    office = in_office()
    office.tick(0.0)
    office.hear("r1", now=2.0)
    assert the(said(office.tick(3.0), Beat)).silent == ("r2", "r3")


# ---- raises and decreases ----------------------------------------------------------------


def test_racks_are_raised_to_the_market_where_there_is_room() -> None:
    effects = in_office().tick(0.0)
    assert limits(effects) == {"r1": 3000, "r2": 3000, "r3": 3000}
    assert all(grant.may_raise for grant in grants(effects).values())
    assert cap_state(effects).reserve_w == {"r1": 3000, "r2": 3000, "r3": 3000}
    assert (cap_state(effects).reserved_w, cap_state(effects).headroom_w) == (9000, 0)


def test_a_demand_below_the_floor_or_above_the_ceiling_is_the_floor_or_the_ceiling() -> None:
    office = Office(roster())
    office.hear("r1", now=0.0, demand_w=0)
    office.hear("r2", now=0.0, demand_w=9999)
    office.hear("r3", now=0.0, demand_w=1200)
    assert limits(office.tick(0.0)) == {"r1": 500, "r2": 4000, "r3": 1200}


def test_the_guard_of_every_cap_is_given_to_nobody() -> None:
    office = Office(roster(), guard=0.1)
    office.hear_all(now=0.0, r1=1000, r2=1000, r3=1000)
    assert limits(office.tick(0.0)) == {"r1": 2700, "r2": 2700, "r3": 2700}


def test_decreases_go_at_once_and_the_room_is_given_when_it_is_confirmed() -> None:  # protocol B4
    office = in_office(limit_w=6000, r1=4000, r2=1000, r3=1000)
    assert limits(office.tick(0.0)) == {"r1": 2000, "r2": 1000, "r3": 1000}
    # r1 has lowered, and its hardware is not proven yet
    office.hear("r1", now=0.5, limit_w=2000, bound_w=4000, seen=GrantKey(1, "r1", 99))
    office.hear_all(now=0.5, r2=1000, r3=1000)
    assert limits(office.tick(1.0)) == {"r1": 2000, "r2": 1000, "r3": 1000}
    office.hear("r1", now=1.5, limit_w=2000, bound_w=2000, seen=GrantKey(1, "r1", 99))
    office.hear_all(now=1.5, r2=1000, r3=1000)
    assert limits(office.tick(2.0)) == {"r1": 2000, "r2": 2000, "r3": 2000}


def test_a_grant_that_lowers_may_not_raise() -> None:  # protocol R4
    office = in_office(limit_w=6000, r1=4000)
    sent = office.grants(0.0)
    assert [sent[name].may_raise for name in ("r1", "r2", "r3")] == [False, False, False]


def test_a_renewal_of_the_same_limit_may_not_raise() -> None:  # protocol R4
    office = in_office(r1=3000, r2=3000, r3=3000)
    assert [(g.limit_w, g.may_raise) for g in office.grants(0.0).values()] == [(3000, False)] * 3


def test_raises_of_one_tick_share_the_room_and_never_exceed_a_cap() -> None:  # protocol B2
    office = Office(roster(limit_w=8000))
    office.hear("r1", now=0.0, limit_w=1000)
    office.hear("r2", now=0.0, limit_w=1000)
    office.hear("r3", now=0.0, limit_w=1000, bound_w=4000)  # still counts 4000 for a while
    sent = limits(office.tick(0.0))
    assert sent == {"r1": 2666, "r2": 1334, "r3": 2666}


def test_grants_on_their_way_are_counted_until_they_are_seen() -> None:  # protocol B1, B2
    office = in_office(limit_w=6000)
    office.tick(0.0)  # all at 2000
    # r3 now wants little, but has not processed the grant of 2000 yet
    office.hear("r1", now=0.5, limit_w=2000, seen=GrantKey(1, "r1", 3))
    office.hear("r2", now=0.5, limit_w=2000, seen=GrantKey(1, "r1", 3))
    office.hear("r3", now=0.5, limit_w=1000, demand_w=600)
    assert limits(office.tick(1.0)) == {"r1": 2000, "r2": 2000, "r3": 600}
    office.hear("r1", now=1.5, limit_w=2000, seen=GrantKey(1, "r1", 99))
    office.hear("r2", now=1.5, limit_w=2000, seen=GrantKey(1, "r1", 99))
    office.hear("r3", now=1.5, limit_w=600, demand_w=600, seen=GrantKey(1, "r1", 99))
    assert limits(office.tick(2.0)) == {"r1": 2700, "r2": 2700, "r3": 600}


def test_who_is_furthest_below_its_target_is_served_first_while_room_is_short() -> None:
    office = Office(roster(limit_w=6000))
    office.hear("r1", now=0.0, limit_w=1900)
    office.hear("r2", now=0.0, limit_w=500)
    office.hear("r3", now=0.0, limit_w=2000, bound_w=3000)
    assert limits(office.tick(0.0)) == {"r1": 1900, "r2": 1100, "r3": 2000}


def test_a_higher_tier_is_served_first_while_room_is_short() -> None:
    office = Office(roster(rack("r1", tier=2), rack("r2"), rack("r3"), limit_w=6000))
    office.hear("r1", now=0.0, limit_w=3000)
    office.hear("r2", now=0.0, limit_w=500)
    office.hear("r3", now=0.0, limit_w=2000, bound_w=2400)
    assert limits(office.tick(0.0)) == {"r1": 3100, "r2": 500, "r3": 1000}


def test_under_a_tree_every_cap_holds() -> None:  # protocol B2
    site = roster(
        rack("r1", cap="row"), rack("r2", cap="row"), rack("r3"),
        caps=(cap("room", 7000), cap("row", 3000, "room")),
    )  # fmt: skip
    office = Office(site)
    office.hear_all(now=0.0, r1=1000, r2=1000, r3=1000)
    assert limits(office.tick(0.0)) == {"r1": 1500, "r2": 1500, "r3": 4000}


# ---- B3: nobody is cut, and nobody is raised over an exceeded cap ------------------------


def test_until_everyone_has_reported_grants_only_renew_for_five_ticks() -> None:  # protocol B3
    office = Office(roster(limit_w=6000))
    sent = []
    for tick in range(7):
        office.hear("r1", now=float(tick), limit_w=3000)
        office.hear("r2", now=float(tick), limit_w=1000)
        sent.append(limits(office.tick(float(tick))))
    # r3 is unheard and counts 4000: two thousand are left for r1 and r2.
    assert sent[:5] == [{"r1": 3000, "r2": 1000}] * 5
    assert sent[5] == {"r1": 1000, "r2": 1000}


def test_once_everyone_has_reported_the_market_is_in_force() -> None:  # protocol B3
    office = Office(roster(limit_w=9000))
    office.hear_all(now=0.0, r1=1000, r2=1000)
    assert limits(office.tick(0.0)) == {"r1": 1000, "r2": 1000}
    office.hear("r3", now=0.5, limit_w=1000)
    assert limits(office.tick(1.0)) == {"r1": 3000, "r2": 3000, "r3": 3000}


def test_a_renewal_is_the_smallest_of_what_was_reported_and_granted() -> None:  # protocol B3
    office = Office(roster(limit_w=9000))
    office.hear("r1", now=0.0, limit_w=3000)
    office.tick(0.0)
    office.hear("r1", now=0.5, limit_w=2000)
    assert limits(office.tick(1.0)) == {"r1": 2000}
    office.hear("r1", now=1.5, limit_w=3000)  # the grant of 2000 is still on its way
    assert limits(office.tick(2.0)) == {"r1": 2000}


def test_a_cap_that_falls_meanwhile_is_obeyed_before_everyone_has_reported() -> None:
    office = Office(roster(limit_w=9000))  # protocol B3
    office.hear_all(now=0.0, r1=3000, r2=3000)
    office.tick(0.0)
    office.set_cap(6000, number=1, now=0.2)
    assert limits(office.tick(0.2)) == {"r1": 1000, "r2": 1000}


def test_while_a_cap_is_exceeded_nobody_under_it_is_raised() -> None:  # protocol B3
    site = roster(
        rack("r1", cap="row"), rack("r2", cap="row"), rack("r3", cap="other"),
        caps=(cap("room", 20_000), cap("row", 4000, "room"), cap("other", 4000, "room")),
    )  # fmt: skip
    office = Office(site)
    office.hear("r1", now=0.0, limit_w=500, bound_w=500)
    office.hear("r2", now=0.0, limit_w=1500, bound_w=3600)
    office.hear("r3", now=0.0, limit_w=1000)
    assert limits(office.tick(0.0)) == {"r1": 500, "r2": 1500, "r3": 4000}


@pytest.mark.parametrize("bound_w", [4000, 3000])
def test_over_an_exceeded_cap_there_is_no_raise_even_within_the_reserve(bound_w: int) -> None:
    office = Office(roster(limit_w=6000))  # protocol B3
    office.hear("r1", now=0.0, limit_w=1000, bound_w=bound_w)
    office.hear("r2", now=0.0, limit_w=2000)
    office.hear("r3", now=0.0, limit_w=1500)
    raised = office.grants(0.0)["r1"].may_raise
    assert raised is (bound_w + 2000 + 1500 <= 6000)


# ---- B4: racks that cannot follow ----------------------------------------------------------


@pytest.mark.parametrize(
    "cannot",
    [
        {"actuator": Actuation.NONE, "bound_w": 4000},
        {"starting": True, "bound_w": 4000},
    ],
)
def test_a_rack_that_cannot_follow_is_counted_and_the_others_share_the_rest(
    cannot: dict[str, Any],
) -> None:  # protocol B4, R7
    office = Office(roster(limit_w=9000))
    office.hear("r1", now=0.0, limit_w=2500, **cannot)
    office.hear_all(now=0.0, r2=1000, r3=1000)
    sent = office.grants(0.0)
    assert {name: grant.limit_w for name, grant in sent.items()} == {
        "r1": 2500, "r2": 2500, "r3": 2500
    }  # fmt: skip
    assert not sent["r1"].may_raise


def test_a_silent_rack_keeps_its_reserve_and_is_only_renewed() -> None:  # protocol B1, B4
    office = in_office(limit_w=9000)
    office.tick(0.0)
    for now in (1.0, 2.0, 3.0):
        office.hear_all(now=now, r1=1000, r2=1000)
        effects = office.tick(now)
    # granted 3000, reported 1000: both count, in opposite directions
    assert cap_state(effects).reserve_w["r3"] == 3000
    assert grants(effects)["r3"].limit_w == 1000
    assert not grants(effects)["r3"].may_raise


def test_a_rack_whose_bound_does_not_come_down_is_left_out_of_the_market() -> None:  # protocol B4
    office = Office(roster(limit_w=6000))
    for now in (0.0, 1.0, 2.0, 3.0):
        office.hear("r1", now=now, limit_w=1000, bound_w=4000, settle_s=2.0)
        office.hear_all(now=now, r2=2000, r3=2000)
        sent = limits(office.tick(now))
    assert sent == {"r1": 1000, "r2": 1000, "r3": 1000}


def test_two_processes_with_one_name_are_counted_at_the_ceiling_and_not_raised() -> None:
    office = Office(roster(limit_w=9000))  # protocol R10
    office.hear_all(now=0.0, r2=1000, r3=1000)
    office.hear("r1", now=0.0, boot=2, instance="b")
    office.hear("r1", now=0.1, boot=1, instance="a")
    effects = office.tick(0.2)
    assert cap_state(effects).reserve_w["r1"] == 4000
    assert (grants(effects)["r1"].limit_w, grants(effects)["r1"].may_raise) == (1000, False)
    assert limits(effects)["r2"] == 2500


# ---- steps -------------------------------------------------------------------------------


def outlet_rack(office: Office, name: str, limit_w: int, next_w: int, now: float = 0.0) -> None:
    office.hear(name, now=now, limit_w=limit_w, next_w=next_w, actuator=Actuation.OUTLETS)


@pytest.mark.parametrize(
    ("next_w", "limits_w"),
    [
        (3000, {"r1": 3000, "r2": 3000, "r3": 3000}),
        (2900, {"r1": 3000, "r2": 3000, "r3": 3000}),
        (3001, {"r1": 1000, "r2": 4000, "r3": 4000}),  # its step does not fit: others have it
        (1000, {"r1": 1000, "r2": 4000, "r3": 4000}),  # no step up at present
    ],
)
def test_a_raise_below_the_next_step_is_not_sent_and_goes_to_the_others(
    next_w: int, limits_w: dict[str, int]
) -> None:
    office = Office(roster(limit_w=9000))
    outlet_rack(office, "r1", 1000, next_w)
    office.hear_all(now=0.0, r2=1000, r3=1000)
    assert limits(office.tick(0.0)) == limits_w


def test_a_rack_between_two_steps_is_told_what_holds_it() -> None:
    office = Office(roster(limit_w=9000))
    outlet_rack(office, "r1", 1000, 3001)
    office.hear_all(now=0.0, r2=1000, r3=1000)
    sent = office.grants(0.0)["r1"]
    assert (sent.limit_w, sent.cap, sent.why) == (1000, "room", "no step up fits")


def test_without_a_step_up_there_is_no_raise_not_even_back_to_where_it_is() -> None:
    office = Office(roster(limit_w=9000))
    office.set_cap(1500, number=1, now=0.0)
    for now in (0.0, 0.5):  # the cap falls and rises again before r1 has heard of either
        outlet_rack(office, "r1", 1000, 1000, now=now)
        office.hear_all(now=now, r2=500, r3=500)
        sent = office.grants(office.coordinator.next_tick_s)["r1"]
        assert (sent.limit_w, sent.may_raise) == (500, False)
        office.set_cap(9000, number=2, now=0.1)


def test_a_step_that_only_waits_for_room_is_not_cut_into_pieces() -> None:
    office = Office(roster(limit_w=9000))
    outlet_rack(office, "r1", 1000, 3000)
    office.hear("r2", now=0.0, limit_w=1500, bound_w=3500)
    office.hear("r3", now=0.0, limit_w=3000)
    grant = office.grants(0.0)["r1"]
    assert (grant.limit_w, grant.may_raise, grant.why) == (1000, False, "waits for room")


# ---- caps that change ----------------------------------------------------------------------


def test_a_fall_is_acted_on_at_once_and_not_at_the_next_tick() -> None:  # protocol C1
    office = in_office(limit_w=9000, r1=3000, r2=3000, r3=3000)
    office.tick(0.0)
    office.set_cap(6000, number=7, now=0.3)
    assert office.coordinator.next_tick_s == 0.3
    effects = office.tick(0.3)
    assert limits(effects) == {"r1": 2000, "r2": 2000, "r3": 2000}
    assert the(said(effects, Beat)).caps == {"room": {"operator": CapValue(7, 6000)}}
    assert office.coordinator.next_tick_s == 1.3


def test_a_rise_waits_for_the_tick() -> None:  # protocol C1
    office = in_office(limit_w=9000)
    office.set_cap(6000, number=7, now=0.0)
    office.tick(0.0)
    office.set_cap(7000, number=8, now=0.3)
    assert office.coordinator.next_tick_s == 1.0


def test_silence_of_all_sources_is_a_fall_to_the_fallback() -> None:  # protocol C2
    site = roster(caps=(cap("room", 9000, fallback_w=3000, set_ttl_s=30.0),))
    office = Office(site)
    office.set_cap(6000, number=1, now=0.0)
    states = []
    for now in (0.0, 29.0, 31.0):
        office.hear_all(now=now, r1=2000, r2=2000, r3=2000)
        effects = office.tick(now)
        states.append((cap_state(effects).limit_w, cap_state(effects).by, limits(effects)["r1"]))
    assert states == [(6000, "operator", 2000), (6000, "operator", 2000), (3000, "fallback", 1000)]


def test_a_cap_below_its_floors_lowers_all_to_their_floors_and_not_below() -> None:  # protocol C3
    office = in_office(limit_w=9000, r1=3000, r2=3000, r3=3000)
    office.tick(0.0)
    office.set_cap(1200, number=1, now=0.5)
    effects = office.tick(0.5)
    assert limits(effects) == {"r1": 500, "r2": 500, "r3": 500}
    assert cap_state(effects).short_w == 300
    assert "cap is below its floors" in events(effects)


def test_a_cap_below_its_floors_is_said_once_for_each_shortage() -> None:  # protocol C3
    office = in_office(r1=500, r2=500, r3=500)
    told = []
    for tick, limit_w in enumerate((1200, 1200, 1000, 9000, 1200)):
        office.set_cap(limit_w, number=tick + 1, now=float(tick))
        office.hear_all(now=float(tick), r1=500, r2=500, r3=500)
        told.append("cap is below its floors" in events(office.tick(float(tick))))
    assert told == [True, False, True, False, True]


def test_only_the_racks_below_a_short_cap_are_at_their_floors() -> None:  # protocol C3
    site = roster(
        rack("r1", cap="row"), rack("r2", cap="row"), rack("r3"),
        caps=(cap("room", 9000), cap("row", 3000, "room")),
    )  # fmt: skip
    office = Office(site)
    office.hear_all(now=0.0, r1=1000, r2=1000, r3=4000)
    office.set_cap(800, number=1, now=0.0, name="row")
    assert limits(office.tick(0.0)) == {"r1": 500, "r2": 500, "r3": 4000}


# ---- site files that differ ----------------------------------------------------------------


def differing(**limits_w: int) -> Office:
    office = in_office(limit_w=9000, **limits_w)
    office.hear("r2", now=0.1, limit_w=limits_w.get("r2", 1000), site_hash="another")
    return office


def test_while_site_files_differ_nobody_is_raised_and_it_is_an_alarm() -> None:  # protocol M1
    office = differing()
    effects = office.tick(0.2)
    assert limits(effects) == {"r1": 1000, "r2": 1000, "r3": 1000}
    assert market_state(effects).alarm == "r2"
    assert "site files differ" in events(effects)
    assert events(office.tick(1.2)) == []  # once


def test_the_alarm_ends_with_the_last_foreign_report() -> None:  # protocol M1
    office = differing()
    office.tick(0.2)
    office.hear("r2", now=0.5)
    effects = office.tick(1.2)
    assert market_state(effects).alarm == ""
    assert limits(effects) == {"r1": 3000, "r2": 3000, "r3": 3000}


def test_while_site_files_differ_a_cap_that_falls_is_obeyed_all_the_same() -> None:
    office = differing(r1=3000, r2=3000, r3=3000)  # protocol M1, C1
    office.tick(0.2)
    office.set_cap(6000, number=1, now=0.5)
    effects = office.tick(0.5)
    assert limits(effects) == {"r1": 2000, "r2": 2000, "r3": 2000}
    assert not any(grant.may_raise for grant in grants(effects).values())


# ---- what monitors see -------------------------------------------------------------------


def test_the_state_of_a_cap_adds_up() -> None:
    office = Office(roster(limit_w=9000))
    office.hear("r1", now=0.0, limit_w=1000, bound_w=1500, demand_w=2000, measured_w=900)
    office.hear("r2", now=0.0, limit_w=1000, demand_w=1100, measured_w=1200)
    assert cap_state(office.tick(0.0)) == CapState(
        ballot=Ballot(1, "r1"),
        limit_w=9000,
        by="site",
        reserved_w=6700,
        reserve_w={"r1": 1500, "r2": 1200, "r3": 4000},
        allocated_w=7100,  # r3 cannot follow: it is allocated what it reserves
        draw_w=None,  # r3's is not known, and unknown is not zero
        demand_w=7100,
        headroom_w=2300,
        price=0.0,
        short_w=0,
    )


def test_the_draw_of_a_cap_is_known_when_every_racks_is() -> None:
    office = Office(roster(limit_w=9000))
    for name, measured_w in (("r1", 900), ("r2", 1200), ("r3", 0)):
        office.hear(name, now=0.0, limit_w=2000, measured_w=measured_w)
    assert cap_state(office.tick(0.0)).draw_w == 2100
    assert cap_state(office.tick(2.5)).draw_w is None  # nobody was heard for beat_timeout_s


def test_a_grant_names_the_cap_that_holds_the_rack_and_its_price() -> None:
    site = roster(
        rack("r1", cap="row"), rack("r2", cap="row"), rack("r3"),
        caps=(cap("room", 5000), cap("row", 3000, "room")),
    )  # fmt: skip
    office = Office(site)
    office.hear("r1", now=0.0, limit_w=1500)
    office.hear("r2", now=0.0, limit_w=500, demand_w=500)
    office.hear("r3", now=0.0, limit_w=2000)
    sent = office.grants(0.0)
    assert (sent["r1"].cap, sent["r1"].price) == ("room", pytest.approx(1000 / 2250, rel=1e-5))
    assert (sent["r2"].cap, sent["r2"].price) == (None, None)


def test_a_rack_below_a_row_and_a_room_pays_both_prices() -> None:
    site = roster(
        rack("r1", cap="row"), rack("r2"), rack("r3"),
        caps=(cap("room", 7000), cap("row", 1000, "room")),
    )  # fmt: skip
    office = Office(site)
    office.hear_all(now=0.0, r1=1000, r2=3000, r3=3000)
    effects = office.tick(0.0)
    assert grants(effects)["r1"].cap == "row"
    assert grants(effects)["r1"].price == pytest.approx(1.0, rel=1e-5)  # 1000 / 1000 W
    prices = {e.topic.name: e.message.price for e in kinds(effects, Publish)
              if isinstance(e.message, CapState)}  # fmt: skip
    assert prices == {"room": pytest.approx(1 / 3, rel=1e-5), "row": pytest.approx(2 / 3, rel=1e-5)}


def test_the_market_is_told_in_one_message() -> None:
    office = in_office(limit_w=6000)
    effects = office.tick(0.0)
    state = market_state(effects)
    assert state.allocation_w == {"r1": 2000, "r2": 2000, "r3": 2000}
    assert state.price == {"room": 0.5}
    assert (state.mechanism, state.violation_w, state.alarm) == ("exact", 0.0, "")
    assert kinds(effects, Publish)[-1].topic == Topic(Kind.MARKET)


def test_a_report_weight_bends_the_shares() -> None:
    office = Office(roster(limit_w=6000))
    office.hear("r1", now=0.0, limit_w=500, weight=8.0, demand_w=9999)
    office.hear("r2", now=0.0, limit_w=500)
    office.hear("r3", now=0.0, limit_w=500)
    assert limits(office.tick(0.0)) == {"r1": 4000, "r2": 1000, "r3": 1000}


def test_the_source_of_a_cap_is_named() -> None:
    office = in_office()
    office.book.hear("room", cap_set(8000, 1, "energy"), live=True, now=0.0)
    office.coordinator.caps_changed(now=0.0)
    assert cap_state(office.tick(0.0)).by == "energy"
