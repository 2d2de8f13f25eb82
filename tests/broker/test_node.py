"""One rack in the grant protocol: what it says, what it obeys, and whether it leads."""

from __future__ import annotations

from typing import Any

import pytest
from protocol_values import (
    FILE_ROSTER,
    SITE,
    TIMING,
    beat,
    cap,
    cap_set,
    events,
    grant,
    grants,
    kinds,
    persisted,
    record,
    report,
    roster,
    said,
    the,
)

from broker.coordinator import MarketTerms
from broker.effects import (
    Effect,
    Exit,
    JournalRecord,
    JournalWritten,
    Lease,
    LinkDown,
    LinkUp,
    ListenToReports,
    Publish,
    Reconnect,
)
from broker.messages import (
    Actuation,
    Ballot,
    Beat,
    CapSet,
    CapState,
    CapValue,
    ElectionKind,
    ElectionMessage,
    Explain,
    GrantKey,
    Message,
    Presence,
    Report,
    Roster,
)
from broker.node import ClockRead, Identity, Node, RackState, leases_of
from broker.topics import Kind, Topic

WALL_MS = 1_700_000_000_000
HELD = RackState(
    bound_w=1000, limit_w=1000, next_w=1001, demand_w=4000, measured_w=900,
    measured_age_s=0.4, starting=False, set_by="the test",
)  # fmt: skip


class Rack:
    """A node of r1 (or another) whose disk, link and echo the test can hold back.

    By itself the disk ends every write at once and the MQTT server sends our own
    reports and election messages back, as it does in a healthy site.
    """

    def __init__(
        self,
        name: str = "r1",
        loaded: JournalRecord | None = None,
        *,
        lost: bool = False,
        site: Roster | None = None,
    ) -> None:
        self.name = name
        me = Identity(
            rack=name, instance="m", site_hash=SITE, roster=site or roster(), ttl_s=15.0,
            settle_s=2.0, actuator=Actuation.POWER_LIMIT, timing=TIMING,
            terms=MarketTerms(guard=0.0),
        )  # fmt: skip
        self.node = Node(me, None if lost else loaded or record(Ballot(4, "r3"), 6), now=0.0)
        self.disk_ok: bool | None = True  # None: writes do not end
        self.hears_itself = True
        self.writing: JournalRecord | None = None
        self.node.read(HELD, now=0.0)

    def _after(self, effects: list[Effect], now: float) -> list[Effect]:
        """What follows at once: the ends of writes, and our own messages coming back."""
        out: list[Effect] = []
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            out.append(effect)
            waiting += self._echo(effect, now)
            for wanted in persisted([effect]):
                self.writing = wanted
                if self.disk_ok is not None:
                    waiting += self._end_write(self.disk_ok, now)
        return out

    def _end_write(self, ok: bool, now: float) -> list[Effect]:
        assert self.writing is not None
        ended, self.writing = self.writing, None
        return self.node.read(JournalWritten(ended, ok, "" if ok else "full"), now=now)

    def _echo(self, effect: Effect, now: float) -> list[Effect]:
        if not self.hears_itself or not isinstance(effect, Publish):
            return []
        mine = effect.topic == Topic(Kind.REPORT, self.name)
        if not mine and effect.topic.kind is not Kind.ELECTION:
            return []
        return self.node.receive(effect.topic, effect.message, retained=False, now=now)

    # ---- doors

    def end_write(self, *, ok: bool, now: float) -> list[Effect]:
        return self._after(self._end_write(ok, now), now)

    def start(self, now: float = 0.0) -> list[Effect]:
        """The boot is on disk, then the server lets us in."""
        return self.wake(now) + self.read(LinkUp(), now) + self.wake(now)

    def read(self, fact: Any, now: float) -> list[Effect]:
        return self._after(self.node.read(fact, now=now), now)

    def wake(self, now: float) -> list[Effect]:
        return self._after(self.node.wake(now=now), now)

    def receive(
        self, topic: Topic, message: Message, now: float, *, retained: bool = False
    ) -> list[Effect]:
        return self._after(self.node.receive(topic, message, retained=retained, now=now), now)

    def run(self, until_s: float, *, after_s: float = 0.0, beats: Ballot | None = None) -> Any:
        """Wake it at its own deadlines; a broker beats every second where one is named."""
        out: list[Effect] = []
        now, beat_at_s = after_s, after_s
        while True:
            wake_s = self.node.next_wake()
            assert wake_s is not None
            now = max(now, wake_s if beats is None else min(wake_s, beat_at_s))
            if now > until_s:
                return out
            if beats is not None and now >= beat_at_s:
                out += self.hear_beat(beats, now)
                beat_at_s = now + 1.0
            out += self.wake(now)

    # ---- messages

    def hear_beat(self, ballot: Ballot, now: float, *, retained: bool = False, **more: Any) -> Any:
        return self.receive(Topic(Kind.BEAT), beat(ballot, **more), now, retained=retained)

    def hear_report(
        self, name: str, now: float, *, retained: bool = False, **changed: Any
    ) -> list[Effect]:
        ballot = changed.pop("ballot", Ballot(4, "r3"))
        topic = Topic(Kind.REPORT, name)
        return self.receive(topic, report(ballot, **changed), now, retained=retained)

    def hear_grant(self, key: GrantKey, now: float, *, retained: bool = False, **more: Any) -> Any:
        plain = {"instance": "m", "boot": 7, "seq": 1}
        message = grant(key, **(plain | more))
        return self.receive(Topic(Kind.GRANT, self.name), message, now, retained=retained)

    def hear_cap(self, message: CapSet, now: float, *, retained: bool = False) -> list[Effect]:
        return self.receive(Topic(Kind.CAP_SET, "room"), message, now, retained=retained)

    def hear_election(
        self, kind: ElectionKind, rack: str, now: float, *, rank: int = 5, **more: Any
    ) -> list[Effect]:
        ballot = more.pop("ballot", Ballot(0, ""))
        message = ElectionMessage(
            kind=kind, rack=rack, rank=rank, ballot=ballot, instance=f"of-{rack}", **more
        )
        return self.receive(Topic(Kind.ELECTION), message, now)

    @property
    def ballot(self) -> Ballot:
        return the(said(self.node.report(now=0.0), Report)).ballot


def follower() -> Rack:
    """r1 in boot 7, connected, under r3's ballot 4; its report of seq 1 left at 0 s."""
    rack = Rack()
    rack.start()
    rack.hear_beat(Ballot(4, "r3"), 0.0)
    return rack


def leader(*, site: Roster | None = None) -> Rack:
    """Broker by silence since 2.5 s, in the ballot [5, "r1"]."""
    rack = Rack(site=site)
    rack.start()
    rack.run(2.5)
    assert rack.node.leads
    return rack


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
    assert (explain.set_by, explain.why) == ("the test", "no grant since the start")
    assert explain.lease_left_s == 14.0
    rack.hear_grant(GrantKey(4, "r3", 1), 1.5, cap="room", price=0.4, why="market")
    explain = the(said(rack.wake(2.0), Explain))
    assert (explain.cap, explain.price, explain.why) == ("room", 0.4, "market")
    assert (explain.since_s, explain.lease_left_s) == (0.5, 13.0)


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


def the_record(effects: list[Effect]) -> JournalRecord:
    records = persisted(effects)
    assert len(records) == 1
    return records[0]


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
