"""One rack in the grant protocol: what it says, and what it obeys."""

from __future__ import annotations

from typing import Any

import pytest
from node_bench import WALL_MS, Rack, follower, leader, leases_of, the_record
from protocol_values import (
    FILE_ROSTER,
    SITE,
    beat,
    cap,
    cap_set,
    events,
    grant,
    kinds,
    persisted,
    record,
    report,
    roster,
    said,
    the,
)

from broker.effects import (
    Exit,
    Lease,
    LinkDown,
    Publish,
    Reconnect,
)
from broker.messages import (
    NUMBER_MAX,
    Actuation,
    Ballot,
    Beat,
    CapState,
    CapValue,
    ElectionKind,
    ElectionMessage,
    Explain,
    GrantKey,
    Message,
    Report,
)
from broker.node import ClockRead
from broker.topics import Kind, Topic

# ---- reports ---------------------------------------------------------------------------


def test_a_report_says_all_that_the_controller_knows() -> None:
    rack = follower()
    effects = rack.wake(1.0)
    assert the(said(effects, Report)) == Report(
        instance="m", boot=7, seq=2, ballot=Ballot(4, "r3"), roster=FILE_ROSTER, site_hash=SITE,
        caps={}, seen=None, bound_w=1000, limit_w=1000, next_w=1001, floor_w=500, ceiling_w=4000,
        ttl_s=15.0, settle_s=2.0, demand_w=4000, measured_w=900, measured_age_s=0.4, weight=1.0,
        actuator=Actuation.POWER_LIMIT, starting=False,
    )  # fmt: skip
    assert all(e.retain for e in kinds(effects, Publish))


def test_a_report_goes_out_every_tick_with_the_next_number() -> None:
    rack = follower()
    reports = said(rack.run(4.0, after_s=0.5, beats=Ballot(4, "r3")), Report)
    assert [r.seq for r in reports] == [2, 3, 4, 5]


def test_nothing_is_reported_before_the_boot_is_on_disk() -> None:  # protocol R10
    rack = Rack()
    rack.disk_ok = None
    rack.start()
    assert rack.writing is not None
    assert rack.writing.boot == 7
    assert said(rack.wake(1.0), Report) == []
    rack.end_write(ok=True, now=1.1)
    assert the(said(rack.wake(2.0), Report)).boot == 7


def test_without_the_mqtt_server_nothing_is_reported() -> None:
    rack = follower()
    rack.read(LinkDown("gone"), 0.5)
    assert kinds(rack.run(5.0), Publish) == []
    assert the(said(rack.start(6.0), Report)).seq == 2


def test_explain_says_where_the_limit_in_force_comes_from() -> None:
    rack = follower()
    explain = the(said(rack.wake(1.0), Explain))
    assert (explain.set_by, explain.why, explain.since_s) == ("the test", "to see", 1.0)
    assert (explain.granted_w, explain.lease_left_s, explain.floor_in_s) == (None, 14.0, 12.0)
    rack.hear_grant(GrantKey(4, "r3", 1), 1.5, limit_w=1200)
    explain = the(said(rack.wake(2.0), Explain))
    assert (explain.granted_w, explain.lease_left_s, explain.floor_in_s) == (1200, 13.0, 11.0)


# ---- ballots ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        (Topic(Kind.BEAT), beat(Ballot(5, "r2"))),
        (Topic(Kind.REPORT, "r2"), report(Ballot(5, "r2"))),
        (Topic(Kind.GRANT, "r1"), grant(GrantKey(5, "r2", 1), instance="another")),
        (Topic(Kind.ROSTER), roster(ballot=Ballot(5, "r2"))),
        (
            Topic(Kind.ELECTION),
            ElectionMessage(
                kind=ElectionKind.ANSWER, rack="r2", rank=20, ballot=Ballot(5, "r2"), instance="x"
            ),
        ),
    ],
    ids=["beat", "report", "grant", "roster", "election"],
)
def test_any_message_with_a_higher_ballot_makes_the_rack_adopt_it_on_disk_first(
    message: tuple[Topic, Message],
) -> None:  # protocol R1
    rack = follower()
    rack.disk_ok = None
    effects = rack.receive(*message, 0.5)
    assert the_record(effects).ballot == Ballot(5, "r2")
    assert the(said(rack.wake(1.0), Report)).ballot == Ballot(4, "r3")
    rack.end_write(ok=True, now=1.1)
    assert the(said(rack.wake(1.1), Report)).ballot == Ballot(5, "r2")  # at once, not next tick


@pytest.mark.parametrize("kind", [Kind.BEAT, Kind.REPORT])
def test_a_retained_ballot_is_adopted_too(kind: Kind) -> None:  # protocol R1
    rack = follower()
    messages: dict[Kind, Message] = {
        Kind.BEAT: beat(Ballot(5, "r2")), Kind.REPORT: report(Ballot(5, "r2"))
    }  # fmt: skip
    rack.receive(Topic(kind, "r2"), messages[kind], 0.5, retained=True)
    assert rack.ballot == Ballot(5, "r2")


def test_if_the_disk_refuses_nothing_is_adopted_and_nothing_obeyed() -> None:  # protocol R1
    rack = follower()
    rack.disk_ok = False
    rack.hear_beat(Ballot(5, "r2"), 0.5)
    assert the(said(rack.wake(1.0), Report)).ballot == Ballot(4, "r3")
    for key in (GrantKey(5, "r2", 1), GrantKey(4, "r3", 1)):
        assert leases_of(rack.hear_grant(key, 1.0)) == []
    assert rack.node.lowers_at_s == 13.0  # the lease runs out


def test_a_ballot_is_obeyed_as_soon_as_it_is_on_disk() -> None:  # protocol R1
    rack = follower()
    rack.disk_ok = None
    assert leases_of(rack.hear_grant(GrantKey(5, "r2", 1), 0.5)) == []
    rack.end_write(ok=True, now=0.6)
    assert len(leases_of(rack.hear_grant(GrantKey(5, "r2", 2), 0.7))) == 1


# ---- grants ----------------------------------------------------------------------------


def test_an_admitted_grant_is_a_lease_and_is_seen_in_the_next_report() -> None:  # protocol R2
    rack = follower()
    effects = rack.hear_grant(GrantKey(4, "r3", 9), 0.2, limit_w=1800)
    assert kinds(effects, Lease) == [Lease(GrantKey(4, "r3", 9), 1800, True, 15.0, None, None, "")]
    assert rack.node.lowers_at_s == 13.0  # protocol R6
    assert the(said(rack.wake(1.0), Report)).seen == GrantKey(4, "r3", 9)


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        (GrantKey(3, "r3", 9), {}),  # a lower ballot
        (GrantKey(4, "r2", 9), {}),
        (GrantKey(4, "r3", 9), {"instance": "x"}),
        (GrantKey(4, "r3", 9), {"boot": 6}),  # an earlier boot
        (GrantKey(4, "r3", 9), {"seq": 5}),  # a report that was never sent
        (GrantKey(4, "r3", 9), {"retained": True}),
    ],
)
def test_a_grant_that_is_not_for_us_now_changes_nothing(
    key: GrantKey, changed: dict[str, Any]
) -> None:  # protocol R2, R3
    rack = follower()
    assert leases_of(rack.hear_grant(key, 0.5, **changed)) == []
    assert persisted(rack.hear_grant(key, 0.6, **changed)) == []


def test_a_grant_to_another_rack_is_not_ours() -> None:
    rack = follower()
    message = grant(GrantKey(4, "r3", 1), instance="m", boot=7)
    assert rack.receive(Topic(Kind.GRANT, "r2"), message, 0.5) == []


def test_the_first_grant_of_a_boot_is_journaled_once() -> None:  # protocol R7
    rack = follower()
    assert the_record(rack.hear_grant(GrantKey(4, "r3", 1), 0.5)).granted
    assert persisted(rack.hear_grant(GrantKey(4, "r3", 2), 0.6)) == []


@pytest.mark.parametrize(("granted", "lowers_at_s"), [(True, 13.0), (False, -2.0)])
def test_a_boot_after_one_without_a_grant_has_no_lease(
    granted: bool, lowers_at_s: float
) -> None:  # protocol R7
    rack = Rack(loaded=record(Ballot(4, "r3"), 6, granted=granted))
    assert rack.node.lowers_at_s == lowers_at_s


def test_a_lost_journal_holds_what_it_reads_for_one_lease() -> None:  # protocol R11
    assert Rack(lost=True).node.lowers_at_s == 13.0


# ---- caps ------------------------------------------------------------------------------


def may_raise(rack: Rack, number: int, now: float) -> bool:
    leases = leases_of(rack.hear_grant(GrantKey(4, "r3", number), now))
    assert len(leases) == 1
    return leases[0].may_raise


def test_no_raise_is_taken_from_a_broker_whose_beat_shows_a_higher_cap() -> None:  # protocol C1
    rack = follower()
    assert may_raise(rack, 1, 0.1)
    rack.hear_cap(cap_set(6000, 5), 0.2)
    assert not may_raise(rack, 2, 0.3)
    rack.hear_beat(Ballot(4, "r3"), 0.4)  # it has not heard of the fall yet
    assert not may_raise(rack, 3, 0.5)
    rack.hear_beat(Ballot(4, "r3"), 0.6, caps={"room": {"operator": CapValue(5, 6000)}})
    assert may_raise(rack, 4, 0.7)


def test_a_beat_of_another_ballot_proves_nothing_of_this_brokers_caps() -> None:  # protocol C1
    rack = follower()
    caps = {"room": {"operator": CapValue(5, 6000)}}
    rack.hear_beat(Ballot(4, "r3"), 0.2, caps=caps)
    rack.receive(Topic(Kind.REPORT, "r2"), report(Ballot(5, "r2")), 0.3)
    rack.wake(0.3)
    admitted = leases_of(rack.hear_grant(GrantKey(5, "r2", 1), 0.5))
    assert [lease.may_raise for lease in admitted] == [False]


def test_of_one_brokers_beats_the_newest_counts_in_whatever_order_they_come() -> None:
    rack = follower()  # protocol C1
    caps = {"room": {"operator": CapValue(5, 6000)}}
    rack.hear_beat(Ballot(4, "r3"), 0.2, number=9, caps=caps)
    rack.hear_beat(Ballot(4, "r3"), 0.3, number=8)  # from before the fall
    assert may_raise(rack, 1, 0.4)


@pytest.mark.parametrize("who", ["source", "beat", "report"])
def test_a_fall_is_journaled_at_once_wherever_it_is_seen_and_reported(who: str) -> None:
    rack = follower()  # protocol C1
    caps = {"room": {"operator": CapValue(5, 6000)}}
    if who == "source":
        effects = rack.hear_cap(cap_set(6000, 5), 0.2)
    elif who == "beat":
        effects = rack.hear_beat(Ballot(4, "r3"), 0.2, caps=caps)
    else:
        effects = rack.hear_report("r2", 0.2, ballot=Ballot(4, "r3"), caps=caps)
    assert the_record(effects).caps == caps
    assert the(said(rack.wake(1.0), Report)).caps == caps


def test_a_restarted_rack_still_knows_the_caps() -> None:  # protocol C1
    caps = {"room": {"operator": CapValue(5, 6000)}}
    rack = Rack(loaded=record(Ballot(4, "r3"), 6, caps=caps))
    assert the(said(rack.start(), Report)).caps == caps


@pytest.mark.parametrize(
    ("retained", "in_force"), [(False, (8000, "operator")), (True, (3000, "fallback"))]
)
def test_only_a_live_source_keeps_a_cap_from_its_fallback(
    retained: bool, in_force: tuple[int, str]
) -> None:  # protocol C2
    rack = leader(site=roster(caps=(cap("room", 9000, fallback_w=3000),)))
    rack.hear_cap(cap_set(8000, 5), 2.7, retained=retained)
    state = said(rack.run(3.6), CapState)[-1]
    assert (state.limit_w, state.by) == in_force


def test_a_source_too_many_is_told() -> None:
    rack = follower()
    for number in range(16):
        rack.hear_cap(cap_set(9000, 1, f"s{number}"), 0.1)
    assert events(rack.hear_cap(cap_set(1, 1, "more"), 0.2)) == ["too many sources for a cap"]


def test_a_source_that_falls_makes_the_broker_tick_at_once() -> None:  # protocol C1
    rack = leader()
    rack.hear_cap(cap_set(6000, 5), 2.7)
    assert rack.node.next_wake() == 2.7
    assert the(said(rack.wake(2.7), Beat)).caps == {"room": {"operator": CapValue(5, 6000)}}


def test_a_fall_that_only_a_deposed_broker_knows_is_taken_by_its_successor() -> None:
    rack = leader()  # protocol C1: the higher number wins wherever it is seen
    caps = {"room": {"operator": CapValue(5, 6000)}}
    rack.hear_beat(Ballot(4, "r3"), 2.7, caps=caps)
    assert said(rack.run(3.6), Beat)[0].caps == caps


# ---- a second process with our name ----------------------------------------------------


def test_who_hears_its_name_from_another_instance_stops_obeying_until_ttl_after() -> None:
    rack = follower()  # protocol R10
    effects = rack.hear_report("r1", 1.0, instance="z", boot=6)
    assert "another controller runs under this rack's name" in events(effects)
    assert kinds(effects, Exit) == []
    assert leases_of(rack.hear_grant(GrantKey(4, "r3", 1), 1.1)) == []
    assert rack.node.lowers_at_s == 13.0  # R6 goes on
    rack.run(15.9, beats=Ballot(4, "r3"))
    assert leases_of(rack.hear_grant(GrantKey(4, "r3", 2), 15.9, seq=15)) == []
    assert len(leases_of(rack.hear_grant(GrantKey(4, "r3", 3), 16.0, seq=15))) == 1


@pytest.mark.parametrize(
    ("boot", "instance", "exits"),
    [
        (6, "z", False),  # ours is newer
        (7, "a", False),  # equal boots: the smaller instance exits
        (7, "z", True),
        (8, "a", True),
    ],
)
def test_the_one_with_the_lower_boot_exits_with_2(boot: int, instance: str, exits: bool) -> None:
    rack = follower()  # protocol R10
    effects = rack.hear_report("r1", 1.0, instance=instance, boot=boot)
    assert [effect.code for effect in kinds(effects, Exit)] == ([2] if exits else [])


@pytest.mark.parametrize(("boot", "exits"), [(6, False), (8, True)])
def test_a_boot_that_is_on_its_way_to_the_disk_counts_already(boot: int, exits: bool) -> None:
    rack = Rack()  # protocol R10
    rack.disk_ok = None
    rack.start()
    effects = rack.hear_report("r1", 0.5, instance="z", boot=boot)
    assert [effect.code for effect in kinds(effects, Exit)] == ([2] if exits else [])


def test_another_instance_that_is_only_retained_is_our_own_past() -> None:  # protocol R10
    rack = follower()
    assert events(rack.hear_report("r1", 1.0, retained=True, instance="z", boot=6)) == []
    assert len(leases_of(rack.hear_grant(GrantKey(4, "r3", 1), 1.1))) == 1


def test_who_shares_its_name_stands_for_no_election() -> None:  # protocol R10
    rack = follower()
    rack.hear_report("r1", 1.0, instance="z", boot=6)
    assert said(rack.run(6.0), ElectionMessage) == []


# ---- who does not hear itself ------------------------------------------------------------


def test_who_does_not_hear_its_own_reports_reconnects_and_stands_for_no_election() -> None:
    rack = follower()
    rack.hears_itself = False
    assert kinds(rack.run(5.0, beats=Ballot(4, "r3")), Reconnect) == []
    effects = rack.run(6.0, after_s=5.5, beats=Ballot(4, "r3"))
    assert len(kinds(effects, Reconnect)) == 1
    assert said(rack.run(11.0), ElectionMessage) == []  # no beat since 6 s
    rack.hears_itself = True
    assert said(rack.run(14.0, after_s=11.5), ElectionMessage) != []


def test_who_was_cut_off_has_time_to_hear_itself_again() -> None:
    rack = follower()
    rack.read(LinkDown("gone"), 1.0)
    rack.hears_itself = False
    assert kinds(rack.start(60.0), Reconnect) == []
    assert kinds(rack.run(64.9, after_s=60.0), Reconnect) == []


def test_a_follower_without_the_server_asks_for_no_reconnect() -> None:
    rack = follower()
    rack.read(LinkDown("gone"), 1.0)
    assert kinds(rack.run(30.0), Reconnect) == []


# ---- a lost journal ----------------------------------------------------------------------


def test_a_lost_journal_is_silent_until_the_clock_is_known_and_leads_nobody() -> None:
    rack = Rack(lost=True)  # protocol R11
    assert "journal lost: waiting for a synchronised clock" in events(rack.start())
    assert kinds(rack.run(5.0), Publish) == []
    rack.read(ClockRead(None), 5.0)
    assert kinds(rack.run(6.0), Publish) == []
    rack.read(ClockRead(WALL_MS), 6.5)
    first = said(rack.wake(7.0), Report)[0]
    assert (first.boot, first.ballot) == (WALL_MS, Ballot(WALL_MS, "r1"))
    assert said(rack.run(60.0), ElectionMessage) == []


def test_the_others_take_a_term_above_the_one_of_a_lost_journal() -> None:  # protocol R11
    rack = leader()
    rack.hear_report("r2", 2.7, ballot=Ballot(WALL_MS, "r2"))
    assert not rack.node.leads
    rack.run(6.0, after_s=2.7)
    assert rack.ballot == Ballot(WALL_MS + 1, "r1")


def test_who_has_forgotten_leads_again_after_anothers_ballot() -> None:  # protocol R11
    rack = Rack(lost=True)
    rack.start()
    rack.read(ClockRead(WALL_MS), 0.5)
    rack.hear_beat(Ballot(WALL_MS + 1, "r3"), 1.0)
    rack.run(5.0)
    assert rack.node.leads
    assert rack.ballot == Ballot(WALL_MS + 2, "r1")


def test_a_term_of_more_than_a_day_ahead_is_refused_and_deposes_nobody() -> None:  # protocol R11
    rack = leader()
    rack.read(ClockRead(WALL_MS), 2.6)
    effects = rack.hear_beat(Ballot(WALL_MS + 86_400_001, "r2"), 2.7)
    assert "term of more than a day ahead refused" in events(effects)
    assert rack.node.leads


def test_terms_are_53_bit_on_the_wire_and_on_disk_even_after_the_last_one() -> None:
    rack = Rack(loaded=record(Ballot(NUMBER_MAX, "r0"), 6))  # protocol R11
    effects = rack.start() + rack.run(10.0)
    terms = [written.ballot.term for written in persisted(effects)]
    terms += [message.ballot.term for message in said(effects, ElectionMessage)]
    terms += [message.ballot.term for message in said(effects, Report)]
    assert max(terms) == NUMBER_MAX
