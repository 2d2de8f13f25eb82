"""One rack in the grant protocol: what it says, what it obeys, and whether it leads.

The node joins four machines that know nothing of each other: what is remembered
(`membership`), who leads (`election`), the broker's tick while this rack leads
(`coordinator`), and the rack's own leases (`lease`). Its doors are those of every
machine here: `receive` a message, `read` a fact, `wake` at a deadline, `next_wake`.

It knows nothing of hardware: the controller tells it the rack's state (`RackState`)
and gets back the leases that grants turned into.
"""

from __future__ import annotations

from dataclasses import replace

from broker.belonging import Belonging
from broker.caps import CapBook
from broker.coordinator import Coordinator
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
from broker.election import Election, Role
from broker.explain import Limited, explain
from broker.identity import ClockRead, Identity, RackState
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
    Grant,
    Join,
    JoinAnswer,
    Leave,
    Message,
    Presence,
    Report,
    Roster,
)
from broker.roster import changes, is_newer
from broker.topics import Kind, Topic

OWN_REPORT_TICKS_MAX = 5  # not hearing our own reports for longer: the link is half dead


class Node:
    """The protocol machine of one rack."""

    def __init__(self, me: Identity, loaded: JournalRecord | None, *, now: float) -> None:
        listed = next((rack for rack in me.roster.racks if rack.rack == me.rack), None)
        mine = me.joins or listed
        assert mine is not None
        self._me = me
        self._mine = mine  # as its own site file has it
        self._place = Belonging(me.rack, me.roster, loaded, mine=mine, joins=bool(me.joins))
        roster = self._place.roster
        self._memory = Membership(me.rack, loaded, roster.name, roster)
        self._caps = CapBook(roster.caps, loaded.caps if loaded else {})
        self._election = Election(
            rack=me.rack,
            rank=mine.rank,
            ranks={rack.rack: rack.rank for rack in roster.racks},
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
        self._limits_w: dict[str, int] = {}  # at the claim of a ballot
        self._started = False

    # ---- what the controller may ask -------------------------------------------

    @property
    def lowers_at_s(self) -> float:
        """When the rack lowers itself to its floor without a newer grant (R6)."""
        return self._desk.lowers_at_s

    def cap_w(self, cap: str, now: float) -> int | None:
        """The cap in force as this rack knows it; None where there is no such cap."""
        return self._caps.in_force(cap, now)[0] if cap in self._caps.names else None

    @property
    def place(self) -> Belonging:
        """Whether this rack is counted, and by which roster."""
        return self._place

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
            case Roster():
                return self._hear_roster(message, now)
            case Join() if self._coordinator is not None and not retained:
                return self._coordinator.hear_join(message, now=now)
            case Leave() if self._coordinator is not None and not retained:
                return self._coordinator.hear_leave(message, now=now)
            case JoinAnswer() if topic.name == self._me.rack and not retained:
                return self._place.hear_answer(message, self._me.instance)
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
            effects += self._claim(self._place.newest(), now)
        if self._coordinator is not None:
            ticks = now >= self._coordinator.next_tick_s
            effects += self._coordinator.wake(now=now)
            effects += self._change_roster(now) if ticks else []
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
        said = [*self._ask_or_leave(state), self._explained(state, now)]
        if not self._place.reports(state.bound_w):
            return said
        self._seq += 1
        self._desk.sent(self._seq, now)
        report = Report(
            instance=self._me.instance,
            boot=self._memory.boot,
            seq=self._seq,
            ballot=self._memory.ballot,
            roster=self._place.roster.name,
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
            joined=self._memory.joined,
        )
        return [
            Publish(Topic(Kind.REPORT, self._me.rack), report, retain=True),
            *said,
        ]

    def _explained(self, state: RackState, now: float) -> Publish:
        limited = Limited(
            limit_w=state.limit_w,
            bound_w=state.bound_w,
            floor_w=self._mine.floor_w,
            ceiling_w=self._mine.ceiling_w,
            demand_w=state.demand_w,
            starting=state.starting,
            can_lower=self._me.actuator is not Actuation.NONE,
            cause=state.cause,
            braked=state.braked,
            held_by=state.held_by,
        )
        record = explain(
            limited,
            self._desk.lease,
            self._caps,
            until_s=self._desk.until_s,
            lowers_at_s=self._desk.lowers_at_s,
            now=now,
        )
        return Publish(Topic(Kind.EXPLAIN, self._me.rack), record, retain=True)

    # ---- messages --------------------------------------------------------------

    def _hear_beat(self, beat: Beat, retained: bool, now: float) -> list[Effect]:
        effects = self._merge_caps(beat.caps, now)  # protocol C1: wherever it is seen
        coordinator = self._coordinator
        if coordinator is not None and beat.ballot < coordinator.ballot:
            return effects if retained else [*effects, coordinator.beat(now=now)]  # protocol B5
        effects += self._adopt(beat.ballot, now, names=beat.roster)
        if beat.ballot < self._memory.highest:
            return effects  # a broker of the past, or a ballot that was refused
        if not retained and beat.ballot.rack != self._me.rack:
            self._place.confirm(beat.roster)
        effects += self._follow_roster(beat.roster, now)
        number = (beat.ballot, beat.number)
        if self._beat_caps is None or number >= self._beat_caps[0]:
            self._beat_caps = (number, beat.caps)
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
            if rack != self._me.rack and not retained and self._coordinator.counts(rack, report):
                self._place.confirm(report.roster)
                self._coordinator.may_raise = True
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
        if not self._place.takes_grants:
            return [*effects, event(Level.INFO, "grant refused", reason="counted no more")]
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
        entry = self._place.entry
        joined = entry.joined if entry is not None else None
        return [*effects, *self._memory.granted(now=now, joined=joined), admitted]

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

    def _adopt(
        self, ballot: Ballot, now: float, *, names: Ballot | None = None
    ) -> list[Effect]:  # protocol R1, B5, M1
        """`names`: the roster that goes with the ballot, as its beat says."""
        before = self._memory.highest
        roster = self._place.to_follow(names) if names is not None else None
        effects = self._memory.adopt(ballot, now=now, roster=roster)
        if self._memory.highest > before:
            effects += self._step_down(now)
        return effects

    def _journal_written(self, done: JournalWritten, now: float) -> list[Effect]:
        before = self._memory.ballot
        effects = self._memory.written(done, now=now)
        if not done.ok:
            return effects + self._journal_refused(now)
        effects += self._use_roster(done.record.members, now)
        if self._memory.ballot != before:
            self._report_at_s = now  # a broker counts us at our ceiling until it hears us
        if self._offline_said and self._connected:
            self._offline_said = False
            effects.append(self._presence(Presence.ONLINE))
        if self._election.role is Role.CLAIMING and self._memory.ballot == self._claimed:
            effects += self._become_broker(now)
        elif self._coordinator is not None and self._coordinator.ballot != self._memory.ballot:
            effects += self._lead(now)
        return effects

    def _journal_refused(self, now: float) -> list[Effect]:
        """A broker whose journal refuses leads no more until a write succeeds."""
        if self._election.role is Role.CLAIMING or self._coordinator is not None:
            self._memory.withdraw_claim()
        effects: list[Effect] = []
        if self._coordinator is not None:
            self._offline_said = True
            effects.append(self._presence(Presence.OFFLINE))
        return effects + self._step_down(now)

    def _claim(self, roster: Roster, now: float) -> list[Effect]:
        """Take the next term, with the roster to go by; on disk first (B6)."""
        effects = self._memory.claim(now=now, roster=roster)
        self._claimed = self._memory.highest
        self._limits_w = self._caps.limits_w(now)
        return effects

    def _become_broker(self, now: float) -> list[Effect]:
        self._election.become_broker()
        fell_since = self._beat_caps is not None and self._caps.is_below(self._beat_caps[1])
        return self._lead(now, cap_fell=fell_since)

    def _lead(self, now: float, *, cap_fell: bool = False) -> list[Effect]:
        """The ballot on disk is ours: begin to lead in it."""
        limits_w = self._caps.limits_w(now)
        known_w = self._limits_w
        self._coordinator = Coordinator(
            self._memory.ballot,
            self._place.roster,
            self._caps,
            site_hash=self._me.site_hash,
            terms=self._me.terms,
            tick_s=self._me.timing.tick_s,
            beat_timeout_s=self._me.timing.beat_timeout_s,
            now=now,
            cap_fell=cap_fell or any(limits_w[c] < known_w.get(c, 0) for c in limits_w),
            file=self._me.roster if self._me.joins is None else None,
            is_open=self._me.is_open,
        )
        self._coordinator.may_raise = not self._me.is_open or self._place.is_confirmed
        # The members hear the first beat, adopt its ballot and report in it at once.
        self._coordinator.next_tick_s = now
        roster = self._coordinator.roster()
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
            roster,
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
        ready = self._memory.may_lead and self._place.may_lead
        return ready and now >= self._twin_until_s and self._hears_itself(now)

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

    # ---- the roster ------------------------------------------------------------

    def leave(self, *, now: float) -> list[Effect]:  # protocol M3
        """Say goodbye, with the hardware at 0; no grant is taken from now on."""
        if self._state is None or self._state.bound_w > 0 or not self._place.is_member:
            return []
        self._place.says_goodbye = True
        return self.report(now=now)

    def _ask_or_leave(self, state: RackState) -> list[Effect]:  # protocol M2, M3
        """What a rack says that is not counted, or will not be."""
        ballot, boot = self._memory.ballot, self._memory.boot
        if self._place.is_member:
            if not self._place.says_goodbye:
                return []
            self._seq += 1
            return [self._place.goodbye(ballot, boot=boot, seq=self._seq)]
        if state.starting or not self._place.may_ask or ballot < self._memory.highest:
            return []
        return [self._place.ask(self._me.instance, ballot, boot=boot, bound_w=state.bound_w)]

    def _hear_roster(self, roster: Roster, now: float) -> list[Effect]:  # protocol M1
        effects = self._adopt(roster.ballot, now) if roster.ballot is not None else []
        if roster.name > self._memory.highest:
            return effects  # of a ballot that was refused
        fault = self._place.hear(roster)
        if fault:
            return [*effects, event(Level.ERROR, "roster refused", reason=fault)]
        if self._coordinator is not None:
            return effects + self._take_newer(now)
        taken = self._place.to_take()
        return effects + (self._memory.take(taken, now=now) if taken else [])

    def _follow_roster(self, name: Ballot, now: float) -> list[Effect]:
        """The broker in office counts by the roster of that name."""
        taken = self._place.follow(name)
        if taken is not None:
            return self._memory.take(taken, now=now)
        return self._place.compare(name, self._memory.ballot, self._me.timing.tick_s, now=now)

    def _take_newer(self, now: float) -> list[Effect]:
        """A broker that hears of a newer roster leads by it in a new ballot, or not at all."""
        newest, coordinator = self._place.newest(), self._coordinator
        if coordinator is None or self._memory.highest != coordinator.ballot:
            return []  # a claim is on its way to the disk
        if not is_newer(newest.name, self._place.roster.name):
            return []
        if self._place.may_lead:
            return self._claim(newest, now)
        return [*self._memory.take(newest, now=now), *self._retire(now)]

    def _change_roster(self, now: float) -> list[Effect]:  # protocol M2 to M5
        """Once a tick: the roster that those who come, go and have new files ask for."""
        coordinator = self._coordinator
        if coordinator is None or self._memory.highest != coordinator.ballot:
            return []
        effects = self._take_newer(now)
        if effects:
            return effects
        entry = self._place.entry
        if entry is not None and entry.leaving:  # another one leaves us out
            return self._retire(now) if coordinator.is_known_to_all() else []
        roster = coordinator.next_roster(self._memory.next_ballot, now=now)
        if roster is None:
            return []
        return [changes(roster), *self._claim(roster, now)]

    def _use_roster(self, roster: Roster | None, now: float) -> list[Effect]:
        """The roster on disk is another one."""
        if roster is None or roster.name == self._place.roster.name:
            return []
        effects = self._place.use(roster)
        self._caps.use(roster.caps)
        entry = self._place.entry
        rank = self._mine.rank if entry is None else entry.rank
        self._election.know(rank, {rack.rack: rack.rank for rack in roster.racks})
        self._report_at_s = self._own_report_heard_s = now
        return effects + (self._memory.left(now=now) if entry is None else [])

    def _retire(self, now: float) -> list[Effect]:
        """Lead no more, and say so, that another one may."""
        self._offline_said = True
        return [self._presence(Presence.OFFLINE), *self._step_down(now)]

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
        speaks = self._place.is_member and not self._place.says_goodbye
        if not (self._connected and self._memory.may_report and speaks) or waits:
            return []
        self._own_report_heard_s = now  # one attempt per period
        self._deaf = True
        return [Reconnect("own reports do not come back")]
