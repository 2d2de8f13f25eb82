"""Who leads: the bully algorithm over one topic (Garcia-Molina 1982), with ballots.

Silence of the broker, or its `offline` will, makes a rack a candidate: it sends
`election`; each living higher rank that could lead sends `answer` and holds its own.
A candidate claims when its own `election` has come back to it (so it can be heard,
B6) and no higher rank has answered within `answer_timeout_s`. Who was answered waits
`beat_timeout_s` for the beat; if none follows, that rack's answers are ignored for a
while and it starts again. A higher rank that has been up for `preempt_after_s` takes
over from a lower one while no member is silent; it tries once per `preempt_after_s`, so
that two of them, or one that is answered and beaten back, cannot stir up the topic.

This machine decides *that* this rack should lead; the ballot, its journal and the
beat are the node's. It never acts on a retained message.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from broker.effects import Effect, Level, ListenToReports, Publish, event
from broker.messages import Ballot, ElectionKind, ElectionMessage
from broker.topics import Kind, Topic

ANSWERS_IGNORED_S = 30.0


@dataclass(frozen=True, slots=True)
class ElectionTiming:
    tick_s: float
    beat_timeout_s: float
    answer_timeout_s: float
    preempt_after_s: float


class Role(StrEnum):
    DEAF = "deaf"  # no MQTT server
    FOLLOWER = "follower"  # a broker is in office, or is being waited for
    CANDIDATE = "candidate"  # has sent `election`
    ANSWERED = "answered"  # a higher rank said it will do it
    CLAIMING = "claiming"  # the ballot is on its way to the disk
    BROKER = "broker"


# Which change is allowed from where; anything else is our own mistake and stops us.
_TRANSITIONS: dict[Role, frozenset[Role]] = {
    Role.DEAF: frozenset({Role.FOLLOWER}),
    Role.FOLLOWER: frozenset({Role.CANDIDATE, Role.DEAF}),
    Role.CANDIDATE: frozenset({Role.FOLLOWER, Role.ANSWERED, Role.CLAIMING, Role.DEAF}),
    Role.ANSWERED: frozenset({Role.FOLLOWER, Role.CANDIDATE, Role.DEAF}),
    Role.CLAIMING: frozenset({Role.BROKER, Role.FOLLOWER, Role.DEAF}),
    Role.BROKER: frozenset({Role.FOLLOWER, Role.DEAF}),
}


class Election:
    """One rack's part in the election."""

    def __init__(
        self,
        *,
        rack: str,
        rank: int,
        ranks: dict[str, int],
        instance: str,
        timing: ElectionTiming,
        now: float,
    ) -> None:
        self._rack = rack
        self._rank = rank
        self._ranks = ranks
        self._instance = instance
        self._timing = timing
        self._preempts_at_s = now + timing.preempt_after_s
        self._deadline_s: float | None = None
        self._echoed = False
        self._preempting = False
        self._answered_by: str | None = None
        self._ignored_until_s: dict[str, float] = {}
        self.role = Role.DEAF
        self.broker: Ballot | None = None  # whose beat was heard within beat_timeout_s

    # ---- what happens ----------------------------------------------------------

    def link_up(self, *, now: float) -> list[Effect]:
        """B6: after a reconnect an ordinary controller, which waits out beat_timeout_s."""
        if self.role is not Role.DEAF:
            self._become(Role.DEAF)
        self._become(Role.FOLLOWER, now + self._timing.beat_timeout_s)
        return []

    def link_down(self) -> list[Effect]:
        if self.role is not Role.DEAF:
            self._become(Role.DEAF)
        self.broker = None
        return []

    def beat(
        self, ballot: Ballot, *, highest: Ballot, members_silent: bool, able: bool, now: float
    ) -> list[Effect]:
        """A live beat that is not lower than the highest ballot known."""
        if self.role is Role.DEAF or ballot.rack == self._rack:
            return []
        self.broker = ballot
        stands = self.role in (Role.CANDIDATE, Role.CLAIMING)
        if stands and self._preempting and self._outranks(ballot.rack):
            return []
        effects: list[Effect] = []
        if self.role is not Role.FOLLOWER:
            self._become(Role.FOLLOWER)
            effects.append(ListenToReports(False))
        self._deadline_s = now + self._timing.beat_timeout_s
        if able and not members_silent and self._may_preempt(ballot, now):
            self._preempts_at_s = now + self._timing.preempt_after_s
            effects += self._stand(highest, now, preempting=True)
        return effects

    def offline(self, rack: str, *, highest: Ballot, able: bool, now: float) -> list[Effect]:
        """A live `offline` of a rack; only the broker's own matters."""
        if self.broker is None or self.broker.rack != rack or self.role is not Role.FOLLOWER:
            return []
        self.broker = None
        return self._stand_or_wait(highest, able, now)

    def hear(
        self, message: ElectionMessage, *, highest: Ballot, able: bool, now: float
    ) -> list[Effect]:
        """A live message on the topic `election`."""
        if self.role is Role.DEAF:
            return []
        if message.rack == self._rack:
            return self._hear_self(message)
        match message.kind:
            case ElectionKind.ELECTION:
                return self._hear_candidate(message, highest, able, now)
            case ElectionKind.ANSWER if message.to == self._rack:
                return self._hear_answer(message, now)
        return []

    def wake(self, *, highest: Ballot, able: bool, now: float) -> list[Effect]:
        if self._deadline_s is None or now < self._deadline_s:
            return []
        match self.role:
            case Role.FOLLOWER:
                self.broker = None
                return self._stand_or_wait(highest, able, now)
            case Role.CANDIDATE if self._echoed and able:
                self._become(Role.CLAIMING)
                return []
            case Role.CANDIDATE if able:  # not heard ourselves yet: say it again
                return self._stand(highest, now, preempting=self._preempting)
            case Role.CANDIDATE:
                self._become(Role.FOLLOWER, now + self._timing.beat_timeout_s)
                return [ListenToReports(False)]
            case Role.ANSWERED:
                assert self._answered_by is not None
                self._ignore(self._answered_by, now)
                return self._stand_or_wait(highest, able, now)
        return []

    def next_wake(self) -> float | None:
        return self._deadline_s

    # ---- what the node tells ---------------------------------------------------

    def know(self, rank: int, ranks: dict[str, int]) -> None:
        """The ranks of another roster."""
        self._rank = rank
        self._ranks = ranks

    def become_broker(self) -> None:
        """The new ballot is on disk (B6)."""
        self._become(Role.BROKER)
        self.broker = None

    def step_down(self, *, now: float) -> list[Effect]:
        """B5, or the journal refused. A candidate goes on: it will claim a higher term."""
        if self.role in (Role.BROKER, Role.CLAIMING):
            self._become(Role.FOLLOWER, now + self._timing.beat_timeout_s)
            return [ListenToReports(False)]
        return []

    # ---- leaves ----------------------------------------------------------------

    def _become(self, role: Role, deadline_s: float | None = None) -> None:
        assert role in _TRANSITIONS[self.role], (self.role, role)
        self.role = role
        self._deadline_s = deadline_s
        if role is not Role.CANDIDATE and role is not Role.CLAIMING:
            self._preempting = False

    def _may_preempt(self, ballot: Ballot, now: float) -> bool:
        return self._outranks(ballot.rack) and now >= self._preempts_at_s

    def _outranks(self, rack: str) -> bool:
        """Higher rank wins; equal ranks by name."""
        return (self._rank, self._rack) > (self._ranks.get(rack, self._rank), rack)

    def _stand_or_wait(self, highest: Ballot, able: bool, now: float) -> list[Effect]:
        if able:
            return self._stand(highest, now)
        if self.role is not Role.FOLLOWER:
            self._become(Role.FOLLOWER)
        self._deadline_s = now + self._timing.beat_timeout_s
        return []

    def _stand(self, highest: Ballot, now: float, *, preempting: bool = False) -> list[Effect]:
        if self.role is not Role.CANDIDATE:
            self._become(Role.CANDIDATE)
        self._echoed = False
        self._preempting = preempting
        self._answered_by = None
        self._deadline_s = now + self._timing.answer_timeout_s
        return [
            ListenToReports(True),
            self._say(ElectionKind.ELECTION, highest),
            event(Level.INFO, "election started", preempting=preempting),
        ]

    def _hear_self(self, message: ElectionMessage) -> list[Effect]:
        if message.kind is ElectionKind.ELECTION and message.instance == self._instance:
            self._echoed = True
        return []

    def _hear_candidate(
        self, message: ElectionMessage, highest: Ballot, able: bool, now: float
    ) -> list[Effect]:
        if self.role is Role.BROKER:
            return []  # the node answers with its beat
        lower = (message.rank, message.rack) < (self._rank, self._rack)
        if not (lower and able):
            return []
        effects: list[Effect] = [self._say(ElectionKind.ANSWER, highest, to=message.rack)]
        knows_broker = self.role is Role.FOLLOWER and self.broker is not None
        if not knows_broker and self.role is Role.FOLLOWER:
            effects += self._stand(highest, now)
        return effects

    def _hear_answer(self, message: ElectionMessage, now: float) -> list[Effect]:
        higher = (message.rank, message.rack) > (self._rank, self._rack)
        ignored = now < self._ignored_until_s.get(message.rack, 0.0)
        if self.role is not Role.CANDIDATE or not higher or ignored:
            return []
        self._become(Role.ANSWERED, now + self._timing.beat_timeout_s)
        self._answered_by = message.rack
        return [ListenToReports(False)]

    def _ignore(self, rack: str, now: float) -> None:
        """A rack that promised to lead and did not; who was ignored long enough is forgotten."""
        still = {name: end_s for name, end_s in self._ignored_until_s.items() if end_s > now}
        self._ignored_until_s = still | {rack: now + ANSWERS_IGNORED_S}

    def _say(self, kind: ElectionKind, highest: Ballot, to: str | None = None) -> Publish:
        return Publish(
            Topic(Kind.ELECTION),
            ElectionMessage(
                kind=kind,
                rack=self._rack,
                rank=self._rank,
                ballot=highest,
                instance=self._instance,
                to=to,
            ),
        )
