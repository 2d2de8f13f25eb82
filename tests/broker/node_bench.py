"""A node whose disk, link and echo the test can hold back."""

from __future__ import annotations

from typing import Any

from protocol_values import (
    SITE,
    TIMING,
    beat,
    grant,
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
    JournalRecord,
    JournalWritten,
    Lease,
    LinkUp,
    Publish,
)
from broker.explain import Cause
from broker.messages import (
    Actuation,
    Ballot,
    CapSet,
    ElectionKind,
    ElectionMessage,
    GrantKey,
    Message,
    Report,
    Roster,
)
from broker.node import Identity, Node, RackState
from broker.topics import Kind, Topic

WALL_MS = 1_700_000_000_000
HELD = RackState(
    bound_w=1000, limit_w=1000, next_w=1001, demand_w=4000, measured_w=900,
    measured_age_s=0.4, starting=False, cause=Cause("the test", "to see", 0.0),
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
        is_open: bool = False,
    ) -> None:
        self.name = name
        me = Identity(
            rack=name, instance="m", site_hash=SITE, roster=site or roster(), ttl_s=15.0,
            settle_s=2.0, actuator=Actuation.POWER_LIMIT, timing=TIMING,
            terms=MarketTerms(guard=0.0), is_open=is_open,
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


def the_record(effects: list[Effect]) -> JournalRecord:
    records = persisted(effects)
    assert len(records) == 1
    return records[0]


def leases_of(effects: list[Effect]) -> list[Lease]:
    """The leases among `effects`, in order."""
    return [effect for effect in effects if isinstance(effect, Lease)]
