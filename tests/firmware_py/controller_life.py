"""A controller's machine in virtual time, with the devices and the broker in the test's hand."""

from __future__ import annotations

from typing import Any

from broker.coordinator import MarketTerms
from broker.effects import (
    Event,
    JournalRecord,
    JournalWritten,
    LinkUp,
    Persist,
    Publish,
)
from broker.election import ElectionTiming
from broker.messages import (
    Actuation,
    Ballot,
    Beat,
    Grant,
    GrantKey,
    Report,
    Roster,
    RosterCap,
    RosterRack,
)
from broker.node import Identity
from broker.topics import Kind, Topic
from drivers.reading import Absence, Missing, Reading, Snapshot
from firmware_py.controller import Controller, ControllerEffect, DeviceRead, Execute
from firmware_py.site_types import Actuator, DeviceSpec, Rack

FILE_ROSTER = Ballot(0, "h")
BALLOT = Ballot(4, "r2")


def device(name: str, *measures: str) -> DeviceSpec:
    return DeviceSpec(
        name=name, url="modbus://127.0.0.1:5020/1", profile=None, measures=measures, poll_s=2.0,
        stale_after_s=6.0, community_file=None,
    )  # fmt: skip


METER = device("meter", "input.realpower")
TWO_FEEDS = (device("a", "input.realpower"), device("b", "input.realpower"))


def rack(*meters: DeviceSpec, **changed: Any) -> Rack:
    """500 to 4000 W, limited by the register of the device "cap"."""
    plain: dict[str, Any] = {
        "kind": "power-limit", "device": "cap", "settle_s": 2.0, "effect_delay_s": 1.0,
        "ttl_s": 15.0, "keeps": True, "base_w": 0, "outlets": (), "stagger_s": 0.0,
    }  # fmt: skip
    return Rack(
        name="r1", rank=10, cap="room", floor_w=500, ceiling_w=4000, weight=1.0, tier=1,
        devices=(*(meters or (METER,)), device("cap")), actuator=Actuator(**(plain | changed)),
    )  # fmt: skip


class Life:
    """A controller whose journal writes at once, connected at 0 s, in boot 7 under r2."""

    def __init__(self, spec: Rack | None = None, *, granted: bool = True) -> None:
        self.rack = spec or rack()
        row = {"floor_w": 500, "ceiling_w": 4000, "cap": "room"}
        roster = Roster(
            name=FILE_ROSTER,
            racks=(
                RosterRack(rack="r1", rank=10, **row),  # type: ignore[arg-type]
                RosterRack(rack="r2", rank=20, **row),  # type: ignore[arg-type]
            ),
            caps=(RosterCap(cap="room", limit_w=9000, brake_after_s=2.0),),
        )
        me = Identity(
            rack="r1", instance="m", site_hash="h", roster=roster, ttl_s=15.0, settle_s=2.0,
            actuator=Actuation(self.rack.actuator.kind), timing=ElectionTiming(1.0, 2.0, 0.5, 30.0),
            terms=MarketTerms(guard=0.0),
        )  # fmt: skip
        loaded = JournalRecord(BALLOT, 6, granted, FILE_ROSTER, {})
        self.machine = Controller(me, self.rack, loaded, now=0.0)
        self.number = 0
        self.wake(0.0)
        self.machine.read(LinkUp(), now=0.0)

    def _after(self, effects: list[ControllerEffect], now: float) -> list[ControllerEffect]:
        for effect in list(effects):
            if isinstance(effect, Persist):
                done = JournalWritten(effect.record, True)
                effects += self.machine.read(done, now=now)
        return effects

    def wake(self, now: float) -> list[ControllerEffect]:
        return self._after(self.machine.wake(now=now), now)

    def report(self, now: float) -> Report:
        """The report of a tick at `now`."""
        reports: list[Report] = messages(self.wake(now), Report)
        assert len(reports) == 1, "no report is due"
        return reports[0]

    def poll(
        self, name: str, *, now: float, at_s: float | None = None, **points: Any
    ) -> list[ControllerEffect]:
        """`draw=900` or `limit=1000`; None: no answer."""
        at_s = now if at_s is None else at_s
        words = {"draw": "input.realpower", "limit": "limit.realpower"}
        taken = {
            words[word]: Missing(words[word], Absence.TIMEOUT) if value is None
            else Missing(words[word], value) if isinstance(value, Absence)
            else Reading(words[word], value, "W", at_s, at_s)
            for word, value in points.items()
        }  # fmt: skip
        return self.machine.read(DeviceRead(name, Snapshot(at_s, at_s, taken)), now=now)

    def grant(self, limit_w: int, *, now: float, seq: int, **more: Any) -> list[ControllerEffect]:
        self.number += 1
        message = Grant(
            key=GrantKey(BALLOT.term, BALLOT.rack, self.number), instance="m", boot=7, seq=seq,
            limit_w=limit_w, may_raise=more.pop("may_raise", True), ttl_s=15.0, **more,
        )  # fmt: skip
        topic = Topic(Kind.GRANT, "r1")
        return self._after(self.machine.receive(topic, message, retained=False, now=now), now)


def messages(effects: list[ControllerEffect], kind: type[Any]) -> list[Any]:
    published = [effect for effect in effects if isinstance(effect, Publish)]
    return [effect.message for effect in published if isinstance(effect.message, kind)]


def written(effects: list[ControllerEffect]) -> list[tuple[str, float | str]]:
    return [(e.device, e.command.value) for e in effects if isinstance(e, Execute)]


def told(effects: list[ControllerEffect]) -> list[str]:
    return [effect.name for effect in effects if isinstance(effect, Event)]


def settled(spec: Rack | None = None) -> Life:
    """Its register was read at 1000 W; the first report (seq 1) left at 2 s, after a beat."""
    life = Life(spec)
    life.poll("cap", now=1.5, limit=1000)
    assert life.report(2.0).seq == 1
    beat = Beat(ballot=BALLOT, number=1, roster=FILE_ROSTER)
    life.machine.receive(Topic(Kind.BEAT), beat, retained=False, now=2.0)
    return life
