"""One rack in the grant protocol: what it says, what it obeys, and whether it leads.

The node joins four machines that know nothing of each other: what is remembered
(`membership`), who leads (`election`), the broker's tick while this rack leads
(`coordinator`), and the rack's own leases (`lease`). Its doors are those of every
machine here: `receive` a message, `read` a fact, `wake` at a deadline, `next_wake`.

It knows nothing of hardware: the controller tells it the rack's state (`RackState`)
and gets back the leases that grants turned into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker.caps import CapBook
from broker.coordinator import Coordinator, MarketTerms
from broker.effects import (
    Effect,
    Exit,
    JournalRecord,
    JournalWritten,
    Level,
    LinkDown,
    LinkUp,
    ListenToReports,
    Publish,
    Reconnect,
    event,
)
from broker.election import Election, ElectionTiming, Role
from broker.lease import LeaseDesk
from broker.membership import Membership
from broker.messages import (
    Actuation,
    Ballot,
    Beat,
    CapSet,
    CapValues,
    ElectionKind,
    ElectionMessage,
    Explain,
    Grant,
    Message,
    Presence,
    Report,
    Roster,
)
from broker.topics import Kind, Topic

OWN_REPORT_TICKS_MAX = 5  # not hearing our own reports for longer: the link is half dead


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is, and what it goes by all its life."""

    rack: str
    instance: str
    site_hash: str
    roster: Roster
    actuator: Actuation
    ttl_s: float
    settle_s: float
    timing: ElectionTiming
    terms: MarketTerms


@dataclass(frozen=True, slots=True)
class RackState:
    """The rack as the controller sees it now; powers in whole watts."""

    bound_w: int
    limit_w: int
    next_w: int
    demand_w: int
    measured_w: int | None
    measured_age_s: float | None
    starting: bool
    set_by: str = "hardware"


@dataclass(frozen=True, slots=True)
class ClockRead:
    """The wall clock in ms, or None while nobody vouches for it (protocol R11)."""

    wall_ms: int | None


class Node:
    """The protocol machine of one rack."""

    def __init__(self, me: Identity, loaded: JournalRecord | None, *, now: float) -> None:
        mine = next(rack for rack in me.roster.racks if rack.rack == me.rack)
        self._me = me
        self._mine = mine
        self._memory = Membership(me.rack, loaded, me.roster.name)
        self._caps = CapBook(me.roster.caps, loaded.caps if loaded else {})
        self._election = Election(
            rack=me.rack,
            rank=mine.rank,
            ranks={rack.rack: rack.rank for rack in me.roster.racks},
            instance=me.instance,
            timing=me.timing,
            now=now,
        )
        # R7: a boot that was never granted anything gives the next one no lease, so
        # that a controller which keeps crashing reaches its floor.
        held = loaded is None or loaded.granted
        self._desk = LeaseDesk(
            instance=me.instance,
            ttl_s=me.ttl_s,
            settle_s=me.settle_s,
            until_s=now + me.ttl_s if held else now,
        )
        self._coordinator: Coordinator | None = None
        self._state: RackState | None = None
        self._seq = 0
        self._connected = False
        self._report_at_s = now
        self._own_report_heard_s = now
        self._deaf = False  # reconnected for not hearing itself, and has not since
        self._claimed: Ballot | None = None
        self._offline_said = False  # by a broker whose journal refused
        self._twin_until_s = float("-inf")
        self._beat_caps: tuple[tuple[Ballot, int], CapValues] | None = None  # of the newest
        self._foreign_roster: Ballot | None = None
        self._started = False

    # ---- what the controller may ask -------------------------------------------

    @property
    def lowers_at_s(self) -> float:
        """When the rack lowers itself to its floor without a newer grant (R6)."""
        return self._desk.lowers_at_s

    @property
    def leads(self) -> bool:
        return self._coordinator is not None

    # ---- doors -----------------------------------------------------------------

    def receive(
        self, topic: Topic, message: Message, *, retained: bool, now: float
    ) -> list[Effect]:
        """A message of the right type for its topic."""
        match message:
            case Beat():
                return self._hear_beat(message, retained, now)
            case Report():
                return self._hear_report(topic.name, message, retained, now)
            case Grant() if topic.name == self._me.rack and not retained:
                return self._hear_grant(message, now)
            case ElectionMessage() if not retained:
                return self._hear_election(message, now)
            case Presence():
                return self._hear_presence(topic.name, message, retained, now)
            case CapSet():
                return self._hear_cap(topic.name, message, retained, now)
            case Roster() if message.ballot is not None:
                return self._adopt(message.ballot, now)
        return []

    def read(
        self, fact: RackState | JournalWritten | LinkUp | LinkDown | ClockRead, *, now: float
    ) -> list[Effect]:
        """Something of this machine changed or answered."""
        match fact:
            case RackState():
                self._state = fact
                return []
            case JournalWritten():
                return self._journal_written(fact, now)
            case LinkUp():
                return self._link_up(now)
            case LinkDown():
                return self._link_down(now)
            case ClockRead():
                return self._memory.clock(fact.wall_ms, now=now)

    def wake(self, *, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if not self._started:
            self._started = True
            effects += self._memory.start(now=now)
        effects += self._memory.wake(now=now)
        if now >= self._report_at_s:
            self._report_at_s = now + self._me.timing.tick_s
            effects += self._watch_link(now)
            effects += self.report(now=now)
        before = self._election.role
        effects += self._election.wake(highest=self._memory.highest, able=self._able(now), now=now)
        if self._election.role is Role.CLAIMING and before is not Role.CLAIMING:
            effects += self._memory.claim(now=now)
            self._claimed = self._memory.highest
        if self._coordinator is not None:
            effects += self._coordinator.wake(now=now)
        return effects

    def next_wake(self) -> float | None:
        times = [self._report_at_s, self._memory.next_wake(), self._election.next_wake()]
        if self._coordinator is not None:
            times.append(self._coordinator.next_tick_s)
        return min(time for time in times if time is not None)

    # ---- reports ---------------------------------------------------------------

    def report(self, *, now: float) -> list[Effect]:
        """What this rack promises, wants and draws; with the record for `explain`."""
        if not (self._connected and self._memory.may_report) or self._state is None:
            return []
        state = self._state
        self._seq += 1
        self._desk.sent(self._seq, now)
        report = Report(
            instance=self._me.instance,
            boot=self._memory.boot,
            seq=self._seq,
            ballot=self._memory.ballot,
            roster=self._me.roster.name,
            site_hash=self._me.site_hash,
            caps=self._caps.values(),
            seen=self._desk.seen,
            bound_w=state.bound_w,
            limit_w=state.limit_w,
            next_w=state.next_w,
            floor_w=self._mine.floor_w,
            ceiling_w=self._mine.ceiling_w,
            ttl_s=self._me.ttl_s,
            settle_s=self._me.settle_s,
            demand_w=state.demand_w,
            measured_w=state.measured_w,
            measured_age_s=state.measured_age_s,
            weight=self._mine.weight,
            actuator=self._me.actuator,
            starting=state.starting,
        )
        return [
            Publish(Topic(Kind.REPORT, self._me.rack), report, retain=True),
            Publish(Topic(Kind.EXPLAIN, self._me.rack), self._explain(state, now), retain=True),
        ]

    def _explain(self, state: RackState, now: float) -> Explain:
        lease = self._desk.lease
        return Explain(
            limit_w=state.limit_w,
            bound_w=state.bound_w,
            set_by=state.set_by,
            cap=lease.cap if lease else None,
            price=lease.price if lease else None,
            why=lease.why if lease else "no grant since the start",
            since_s=round(now - self._desk.since_s, 1) if lease else 0.0,
            lease_left_s=round(max(0.0, self._desk.until_s - now), 1),
        )

    # ---- messages --------------------------------------------------------------

    def _hear_beat(self, beat: Beat, retained: bool, now: float) -> list[Effect]:
        effects = self._merge_caps(beat.caps, now)  # protocol C1: wherever it is seen
        coordinator = self._coordinator
        if coordinator is not None and beat.ballot < coordinator.ballot:
            return effects if retained else [*effects, coordinator.beat(now=now)]  # protocol B5
        effects += self._adopt(beat.ballot, now)
        if beat.ballot < self._memory.highest:
            return effects  # a broker of the past, or a ballot that was refused
        number = (beat.ballot, beat.number)
        if self._beat_caps is None or number >= self._beat_caps[0]:
            self._beat_caps = (number, beat.caps)
        effects += self._compare_roster(beat.roster)
        if not retained:
            effects += self._election.beat(
                beat.ballot,
                highest=self._memory.highest,
                members_silent=bool(beat.silent),
                able=self._able(now),
                now=now,
            )
        return effects

    def _hear_report(self, rack: str, report: Report, retained: bool, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if rack == self._me.rack and not retained:
            effects += self._hear_own(report, now)
        effects += self._adopt(report.ballot, now)
        effects += self._merge_caps(report.caps, now)
        if self._coordinator is not None:
            effects += self._coordinator.hear(rack, report, live=not retained, now=now)
        return effects

    def _hear_own(self, report: Report, now: float) -> list[Effect]:  # protocol R10
        if report.instance == self._me.instance:
            self._own_report_heard_s = now
            self._deaf = False
            return []
        first = now >= self._twin_until_s
        self._twin_until_s = now + self._me.ttl_s
        effects: list[Effect] = []
        if first:
            effects.append(
                event(
                    Level.ERROR,
                    "another controller runs under this rack's name",
                    rack=self._me.rack,
                    boot=report.boot,
                    instance=report.instance,
                )
            )
        mine = (self._memory.next_boot, self._me.instance)
        if mine < (report.boot, report.instance):
            reason = f"another controller runs as {self._me.rack} (boot {report.boot})"
            effects.append(Exit(2, reason))
        return effects

    def _hear_grant(self, grant: Grant, now: float) -> list[Effect]:
        effects = self._adopt(grant.key.ballot, now)
        if not self._memory.may_report or now < self._twin_until_s:
            return effects
        admitted = self._desk.admit(
            grant,
            boot=self._memory.boot,
            ballot=self._memory.ballot,
            highest=self._memory.highest,
            now=now,
        )
        if isinstance(admitted, str):
            return [*effects, event(Level.INFO, "grant refused", reason=admitted)]
        if admitted.may_raise and self._knows_lower_caps(grant.key.ballot):  # protocol C1
            admitted = replace(admitted, may_raise=False)
        return [*effects, *self._memory.granted(now=now), admitted]

    def _hear_election(self, message: ElectionMessage, now: float) -> list[Effect]:
        effects = self._adopt(message.ballot, now)
        effects += self._election.hear(
            message, highest=self._memory.highest, able=self._able(now), now=now
        )
        asks = message.kind is ElectionKind.ELECTION and message.rack != self._me.rack
        if asks and self._coordinator is not None:
            effects.append(self._coordinator.beat(now=now))
        return effects

    def _hear_presence(
        self, rack: str, presence: Presence, retained: bool, now: float
    ) -> list[Effect]:
        if presence is not Presence.OFFLINE or retained:
            return []
        if rack == self._me.rack:  # the will of an earlier connection, or of a twin
            says = self._connected and not self._offline_said
            return [self._presence(Presence.ONLINE)] if says else []
        return self._election.offline(
            rack, highest=self._memory.highest, able=self._able(now), now=now
        )

    def _hear_cap(self, cap: str, said: CapSet, retained: bool, now: float) -> list[Effect]:
        if self._caps.is_full(cap, said.by):
            return [event(Level.ERROR, "too many sources for a cap", cap=cap, by=said.by)]
        changed = self._caps.hear(cap, said, live=not retained, now=now)
        return self._caps_changed(now) if changed else []

    # ---- ballots and the journal -----------------------------------------------

    def _adopt(self, ballot: Ballot, now: float) -> list[Effect]:  # protocol R1, B5
        before = self._memory.highest
        effects = self._memory.adopt(ballot, now=now)
        if self._memory.highest > before:
            effects += self._step_down(now)
        return effects

    def _journal_written(self, done: JournalWritten, now: float) -> list[Effect]:
        before = self._memory.ballot
        effects = self._memory.written(done, now=now)
        if not done.ok:
            return effects + self._journal_refused(now)
        if self._memory.ballot != before:
            self._report_at_s = now  # a broker counts us at our ceiling until it hears us
        if self._offline_said and self._connected:
            self._offline_said = False
            effects.append(self._presence(Presence.ONLINE))
        if self._election.role is Role.CLAIMING and self._memory.ballot == self._claimed:
            effects += self._become_broker(now)
        return effects

    def _journal_refused(self, now: float) -> list[Effect]:
        """A broker whose journal refuses leads no more until a write succeeds."""
        if self._election.role is Role.CLAIMING:
            self._memory.withdraw_claim()
        effects: list[Effect] = []
        if self._coordinator is not None:
            self._offline_said = True
            effects.append(self._presence(Presence.OFFLINE))
        return effects + self._step_down(now)

    def _become_broker(self, now: float) -> list[Effect]:
        self._election.become_broker()
        self._coordinator = Coordinator(
            self._memory.ballot,
            self._me.roster,
            self._caps,
            site_hash=self._me.site_hash,
            terms=self._me.terms,
            tick_s=self._me.timing.tick_s,
            beat_timeout_s=self._me.timing.beat_timeout_s,
            now=now,
            cap_fell=self._beat_caps is not None and self._caps.is_below(self._beat_caps[1]),
        )
        # The members hear the first beat, adopt its ballot and report in it at once.
        self._coordinator.next_tick_s = now
        roster = _published(self._me.roster, self._memory.ballot)
        coordinator = ElectionMessage(
            kind=ElectionKind.COORDINATOR,
            rack=self._me.rack,
            rank=self._mine.rank,
            ballot=self._memory.ballot,
            instance=self._me.instance,
        )
        return [
            event(Level.INFO, "this rack is broker now", ballot=str(self._memory.ballot)),
            *self._coordinator.wake(now=now),
            Publish(Topic(Kind.ELECTION), coordinator),
            Publish(Topic(Kind.ROSTER), roster, retain=True),
        ]

    def _step_down(self, now: float) -> list[Effect]:
        effects = self._election.step_down(now=now)
        if self._coordinator is not None:
            self._coordinator = None
            effects.append(event(Level.INFO, "this rack is broker no more"))
        return effects

    def _presence(self, presence: Presence) -> Publish:
        return Publish(Topic(Kind.ONLINE, self._me.rack), presence, retain=True)

    def _able(self, now: float) -> bool:
        """Could this rack lead (not barred by R10, R11 or its journal)?"""
        return self._memory.may_lead and now >= self._twin_until_s and self._hears_itself(now)

    # ---- caps ------------------------------------------------------------------

    def _merge_caps(self, values: CapValues, now: float) -> list[Effect]:
        return self._caps_changed(now) if self._caps.merge(values) else []

    def _caps_changed(self, now: float) -> list[Effect]:
        if self._coordinator is not None:
            self._coordinator.caps_changed(now=now)
        return self._memory.caps(self._caps.values(), now=now)

    def _knows_lower_caps(self, ballot: Ballot) -> bool:
        known = self._beat_caps
        return self._caps.is_below(known[1] if known and known[0][0] == ballot else {})

    def _compare_roster(self, roster: Ballot) -> list[Effect]:  # protocol M1
        foreign = roster if roster != self._me.roster.name else None
        if foreign == self._foreign_roster:
            return []
        self._foreign_roster = foreign
        if foreign is None:
            return [event(Level.INFO, "the broker's site file is ours again")]
        return [event(Level.ERROR, "the broker's site file is another", roster=str(foreign))]

    # ---- the link --------------------------------------------------------------

    def _link_up(self, now: float) -> list[Effect]:
        self._connected = True
        self._own_report_heard_s = now
        self._report_at_s = now
        return [*self._election.link_up(now=now), ListenToReports(False)]

    def _link_down(self, now: float) -> list[Effect]:  # protocol B6
        self._connected = False
        effects = self._step_down(now)
        return effects + self._election.link_down()

    def _hears_itself(self, now: float) -> bool:
        return not self._deaf and now - self._own_report_heard_s <= self._deaf_after_s

    @property
    def _deaf_after_s(self) -> float:
        return OWN_REPORT_TICKS_MAX * self._me.timing.tick_s

    def _watch_link(self, now: float) -> list[Effect]:
        """Who does not hear its own reports reconnects."""
        waits = now - self._own_report_heard_s <= self._deaf_after_s
        if not (self._connected and self._memory.may_report) or waits:
            return []
        self._own_report_heard_s = now  # one attempt per period
        self._deaf = True
        return [Reconnect("own reports do not come back")]


def _published(roster: Roster, ballot: Ballot) -> Roster:
    return Roster(name=roster.name, racks=roster.racks, caps=roster.caps, ballot=ballot)
