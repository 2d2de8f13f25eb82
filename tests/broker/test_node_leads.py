"""Whether a node leads: its claim, its beat, and what ends its office."""

from __future__ import annotations

import pytest
from node_bench import Rack, follower, leader, the_record
from protocol_values import (
    beat,
    cap_set,
    events,
    grants,
    report,
    roster,
    said,
    the,
)

from broker.effects import (
    LinkDown,
    ListenToReports,
    Publish,
)
from broker.messages import (
    Ballot,
    Beat,
    CapValue,
    ElectionKind,
    ElectionMessage,
    Message,
    Presence,
    Report,
    Roster,
)
from broker.topics import Kind, Topic

# ---- becoming broker -------------------------------------------------------------------


def test_silence_ends_in_a_new_ballot_on_disk_and_then_a_beat() -> None:  # protocol B6
    rack = Rack()
    rack.start()
    assert not rack.node.leads
    effects = rack.run(2.0)
    assert the(said(effects, ElectionMessage)).kind is ElectionKind.ELECTION
    assert ListenToReports(True) in effects
    rack.disk_ok = None
    effects = rack.run(2.5)
    assert the_record(effects).ballot == Ballot(5, "r1")
    assert said(rack.run(2.9), Beat) == []
    effects = rack.end_write(ok=True, now=2.95)
    assert the(said(effects, Beat)) == beat(Ballot(5, "r1"), 1, silent=("r1", "r2", "r3"))
    assert the(said(effects, ElectionMessage)) == ElectionMessage(
        kind=ElectionKind.COORDINATOR, rack="r1", rank=10, ballot=Ballot(5, "r1"), instance="m"
    )
    assert the(said(effects, Roster)) == roster(ballot=Ballot(5, "r1"))
    assert rack.node.leads


def test_a_candidate_that_does_not_hear_itself_pushes_no_term() -> None:  # protocol B6
    rack = Rack()
    rack.hears_itself = False
    rack.start()
    rack.run(4.0)
    assert (rack.node.leads, rack.ballot) == (False, Ballot(4, "r3"))


def test_a_claim_that_the_disk_refuses_is_not_made_and_tried_with_the_same_term() -> None:
    rack = Rack()  # protocol B6
    rack.start()
    rack.run(2.0)
    rack.disk_ok = False
    assert said(rack.run(2.5), Beat) == []
    assert not rack.node.leads
    rack.disk_ok = True
    effects = rack.run(8.0, after_s=2.5)
    assert said(effects, Beat)[0].ballot == Ballot(5, "r1")


def test_the_leader_counts_its_own_report_and_grants_itself() -> None:
    rack = leader()
    effects = rack.run(3.6)
    assert {r.ballot for r in said(effects, Report)} == {Ballot(5, "r1")}
    assert grants(effects)["r1"].key.ballot == Ballot(5, "r1")


def test_a_broker_whose_journal_refuses_says_offline_and_leads_no_more() -> None:
    rack = leader()
    rack.disk_ok = False
    effects = rack.hear_cap(cap_set(6000, 5), 2.7)
    assert said(effects, Presence) == [Presence.OFFLINE]
    assert not rack.node.leads
    offline = Topic(Kind.ONLINE, "r1")
    assert rack.receive(offline, Presence.OFFLINE, 2.8) == []  # it meant it
    rack.disk_ok = True
    assert said(rack.run(3.7), Presence) == [Presence.ONLINE]


def test_who_loses_the_server_leads_no_more_and_then_only_with_a_new_term() -> None:
    rack = leader()  # protocol B6
    rack.read(LinkDown("gone"), 3.0)
    assert not rack.node.leads
    rack.start(10.0)
    assert said(rack.run(12.0), Beat) == []
    rack.run(12.5)
    assert rack.node.leads
    assert rack.ballot == Ballot(6, "r1")


def test_a_link_that_ends_during_the_claim_ends_the_claim() -> None:  # protocol B6
    rack = Rack()
    rack.start()
    rack.run(2.0)
    rack.disk_ok = None
    rack.run(2.5)
    rack.read(LinkDown("gone"), 2.6)
    assert said(rack.end_write(ok=True, now=2.7), Beat) == []
    assert not rack.node.leads


# ---- staying broker, or not ------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        (Topic(Kind.BEAT), beat(Ballot(6, "r2"))),
        (Topic(Kind.REPORT, "r2"), report(Ballot(6, "r2"))),
        (Topic(Kind.BEAT), beat(Ballot(5, "r2"))),  # the same term, the higher name
    ],
)
def test_a_higher_ballot_seen_anywhere_ends_the_brokers_role_at_once(
    message: tuple[Topic, Message],
) -> None:  # protocol B5
    rack = leader()
    rack.disk_ok = None  # not even the disk is waited for
    rack.receive(*message, 2.7)
    assert not rack.node.leads
    assert grants(rack.run(3.6)) == {}


def test_a_lower_beat_is_answered_by_its_own_beat() -> None:  # protocol B5
    rack = leader()
    effects = rack.hear_beat(Ballot(4, "r3"), 2.7)
    assert the(said(effects, Beat)).ballot == Ballot(5, "r1")
    assert rack.node.leads


def test_a_retained_lower_beat_is_the_past_and_answered_by_nobody() -> None:  # protocol B5
    rack = leader()
    caps = {"room": {"operator": CapValue(5, 6000)}}
    effects = rack.hear_beat(Ballot(4, "r3"), 2.7, retained=True, caps=caps)
    assert said(effects, Beat) == []
    assert the_record(effects).caps == caps  # protocol C1: wherever it is seen


@pytest.mark.parametrize("rank", [5, 99])
def test_the_broker_in_office_answers_a_candidate_with_its_beat(rank: int) -> None:
    rack = leader()
    effects = rack.hear_election(ElectionKind.ELECTION, "r3", 2.7, rank=rank)
    assert the(said(effects, Beat)).ballot == Ballot(5, "r1")
    assert said(effects, ElectionMessage) == []
    assert rack.node.leads


def test_a_beat_lower_than_the_ballot_seen_does_not_put_the_election_off() -> None:
    rack = follower()
    rack.hear_beat(Ballot(3, "r2"), 1.9)
    assert said(rack.run(2.0), ElectionMessage) != []


def test_a_retained_beat_is_no_sign_of_life() -> None:
    rack = Rack()
    rack.start()
    rack.hear_beat(Ballot(4, "r3"), 1.9, retained=True)
    assert said(rack.run(2.0), ElectionMessage) != []


def test_a_retained_election_message_is_the_past() -> None:
    rack = Rack()
    rack.start()
    message = ElectionMessage(
        kind=ElectionKind.ELECTION, rack="r9", rank=1, ballot=Ballot(0, ""), instance="x"
    )
    assert rack.receive(Topic(Kind.ELECTION), message, 1.0, retained=True) == []
    assert said(rack.receive(Topic(Kind.ELECTION), message, 1.0), ElectionMessage) != []


def test_the_brokers_will_starts_the_election_and_a_retained_one_does_not() -> None:
    rack = follower()
    will = Topic(Kind.ONLINE, "r3")
    assert rack.receive(will, Presence.OFFLINE, 0.5, retained=True) == []
    assert rack.receive(will, Presence.ONLINE, 0.5) == []
    effects = rack.receive(will, Presence.OFFLINE, 0.5)
    assert the(said(effects, ElectionMessage)).kind is ElectionKind.ELECTION


def test_the_will_of_an_earlier_connection_of_ours_is_contradicted() -> None:
    rack = follower()
    effects = rack.receive(Topic(Kind.ONLINE, "r1"), Presence.OFFLINE, 0.5)
    assert effects == [Publish(Topic(Kind.ONLINE, "r1"), Presence.ONLINE, retain=True)]


@pytest.mark.parametrize("silent", [(), ("r2",)])
def test_a_higher_rank_takes_over_only_while_no_member_is_silent(silent: tuple[str, ...]) -> None:
    rack = Rack("r2")
    rack.start()
    rack.run(29.5, beats=Ballot(5, "r1"))
    rack.hear_beat(Ballot(5, "r1"), 30.0, silent=silent)
    rack.wake(30.5)
    assert rack.node.leads is (not silent)
    assert rack.ballot == (Ballot(5, "r1") if silent else Ballot(6, "r2"))


def test_a_broker_that_names_another_roster_is_told_once() -> None:  # protocol M1
    rack = follower()
    other = Ballot(0, "another")
    assert events(rack.hear_beat(Ballot(4, "r3"), 0.5, roster=other)) == [
        "the broker's site file is another"
    ]
    assert events(rack.hear_beat(Ballot(4, "r3"), 1.0, roster=other)) == []
    assert events(rack.hear_beat(Ballot(4, "r3"), 1.5)) == ["the broker's site file is ours again"]
