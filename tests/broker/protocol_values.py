"""Values of the grant protocol for the tests: complete ones, of which a test names what matters.

A site of three racks under one cap: r1 (rank 10), r2 (rank 20), r3 (rank 30), each with
a floor of 500 W and a ceiling of 4000 W. The site file's hash is "h", the roster's name
therefore [0, "h"].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from msgspec.structs import replace

from broker.caps import CapBook
from broker.coordinator import Coordinator, MarketTerms
from broker.effects import Effect, Event, JournalRecord, Persist, Publish
from broker.election import ElectionTiming
from broker.messages import (
    Ballot,
    Beat,
    CapSet,
    CapState,
    Grant,
    GrantKey,
    MarketState,
    Message,
    Report,
    Roster,
    RosterCap,
    RosterRack,
)

SITE = "h"
FILE_ROSTER = Ballot(0, SITE)
FIRST = Ballot(1, "r1")
NEVER = Ballot(0, "")
TIMING = ElectionTiming(tick_s=1.0, beat_timeout_s=2.0, answer_timeout_s=0.5, preempt_after_s=30.0)

M = TypeVar("M", bound=Message)
E = TypeVar("E")


def rack(name: str, **changed: Any) -> RosterRack:
    ranks = {"r1": 10, "r2": 20, "r3": 30}
    plain = RosterRack(rack=name, rank=ranks.get(name, 5), floor_w=500, ceiling_w=4000, cap="room")
    return replace(plain, **changed)


def cap(name: str, limit_w: int, parent: str | None = None, **more: Any) -> RosterCap:
    return RosterCap(cap=name, limit_w=limit_w, parent=parent, **more)


def roster(
    *racks: RosterRack, caps: Iterable[RosterCap] = (), limit_w: int = 9000, **more: Any
) -> Roster:
    return Roster(
        name=FILE_ROSTER,
        racks=racks or (rack("r1"), rack("r2"), rack("r3")),
        caps=tuple(caps) or (cap("room", limit_w),),
        **more,
    )


def report(ballot: Ballot = FIRST, **changed: Any) -> Report:
    """A rack that holds 1000 W, would like 4000 W and has been up for long."""
    changed.setdefault("bound_w", changed.get("limit_w", 1000))
    changed.setdefault("next_w", changed.get("limit_w", 1000) + 1)
    plain: dict[str, Any] = {
        "instance": "a",
        "boot": 1,
        "seq": 1,
        "ballot": ballot,
        "roster": FILE_ROSTER,
        "site_hash": SITE,
        "limit_w": 1000,
        "floor_w": 500,
        "ceiling_w": 4000,
        "ttl_s": 15.0,
        "settle_s": 2.0,
        "demand_w": 4000,
    }
    return Report(**(plain | changed))


def grant(key: GrantKey, **changed: Any) -> Grant:
    plain: dict[str, Any] = {
        "instance": "a",
        "boot": 1,
        "seq": 1,
        "limit_w": 2000,
        "may_raise": True,
        "ttl_s": 15.0,
    }
    return Grant(key=key, **(plain | changed))


def beat(ballot: Ballot, number: int = 0, **more: Any) -> Beat:
    return Beat(ballot=ballot, number=number, roster=more.pop("roster", FILE_ROSTER), **more)


def cap_set(limit_w: int | None, number: int, by: str = "operator") -> CapSet:
    return CapSet(limit_w=limit_w, number=number, by=by)


def record(ballot: Ballot = NEVER, boot: int = 0, **more: Any) -> JournalRecord:
    plain: dict[str, Any] = {"granted": True, "roster": FILE_ROSTER, "caps": {}}
    return JournalRecord(ballot, boot, **(plain | more))


# ---- what came out ----------------------------------------------------------------


def kinds(effects: Iterable[Any], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def said(effects: Iterable[Effect], kind: type[M]) -> list[M]:
    """The messages of one type among what is published, in order."""
    return [e.message for e in kinds(effects, Publish) if isinstance(e.message, kind)]


def grants(effects: Iterable[Effect]) -> dict[str, Grant]:
    """The grants among what is published, by rack."""
    published = kinds(effects, Publish)
    return {e.topic.name: e.message for e in published if isinstance(e.message, Grant)}


def persisted(effects: Iterable[Effect]) -> list[JournalRecord]:
    return [effect.record for effect in kinds(effects, Persist)]


def events(effects: Iterable[Effect]) -> list[str]:
    return [effect.name for effect in kinds(effects, Event)]


def the(messages: list[M]) -> M:
    assert len(messages) == 1, messages
    return messages[0]


# ---- a broker ------------------------------------------------------------------------


class Office:
    """A coordinator with its cap book, told what the racks report and woken tick by tick."""

    def __init__(
        self,
        site: Roster,
        ballot: Ballot = FIRST,
        *,
        guard: float = 0.0,
        values: dict[str, Any] | None = None,
    ) -> None:
        self.ballot = ballot
        self.book = CapBook(site.caps, values or {})
        self.seq = 0
        self.coordinator = Coordinator(
            ballot,
            site,
            self.book,
            site_hash=SITE,
            terms=MarketTerms(guard=guard),
            tick_s=1.0,
            beat_timeout_s=2.0,
            now=0.0,
        )

    def hear(self, name: str, *, now: float, live: bool = True, **changed: Any) -> list[Effect]:
        self.seq += 1
        changed.setdefault("seq", self.seq)
        changed.setdefault("ballot", self.ballot)
        return self.coordinator.hear(name, report(**changed), live=live, now=now)

    def hear_all(self, *, now: float, **limits_w: int) -> None:
        for name, limit_w in limits_w.items():
            self.hear(name, limit_w=limit_w, now=now)

    def set_cap(self, limit_w: int, *, number: int, now: float, name: str = "room") -> None:
        self.book.hear(name, cap_set(limit_w, number), live=True, now=now)
        self.coordinator.caps_changed(now=now)

    def tick(self, now: float) -> list[Effect]:
        return self.coordinator.wake(now=now)

    def grants(self, now: float) -> dict[str, Grant]:
        return grants(self.tick(now))


def cap_state(effects: Iterable[Effect]) -> CapState:
    return the(said(effects, CapState))


def market_state(effects: Iterable[Effect]) -> MarketState:
    return the(said(effects, MarketState))
