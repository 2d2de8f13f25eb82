"""One rack: hardware and disk, which stay, and a controller process, which comes and goes.

The process is the product's `Controller` in a shell that carries effects out as the
product's own does: in order, deadlines by `next_wake`, nothing of an old session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from sim_device import DevicePort
from sim_hardware import Hardware
from sim_server import Server
from sim_timeline import Timeline
from sim_weather import Weather

from broker.effects import (
    Event,
    Exit,
    JournalRecord,
    JournalWritten,
    LinkDown,
    LinkUp,
    ListenToReports,
    Persist,
    Publish,
    Reconnect,
)
from broker.messages import Grant, Message, Presence
from broker.node import ClockRead, Identity
from broker.topics import Topic
from firmware_py.controller import Controller, ControllerEffect, Execute, Fact, PollNow

Trace = Callable[[str, str], None]


class SimRack:
    def __init__(
        self,
        me: Identity,
        hardware: Hardware,
        disk: JournalRecord | None,
        *,
        timeline: Timeline,
        server: Server,
        weather: Weather,
        rng: Random,
        trace: Trace,
    ) -> None:
        self.me = me
        self.name = me.rack
        self.hardware = hardware
        self.disk = disk
        self.timeline = timeline
        self.server = server
        self.weather = weather
        self.rng = rng
        self.trace = trace
        self.process: Process | None = None
        self.granting: Callable[[str, Grant], None] = lambda rack, grant: None
        self.excused_until_s = 0.0  # dead or just back: its last setting is only named

    def start(self) -> None:
        assert self.process is None
        self.trace(self.name, "starts")
        self.process = Process(self)
        self.process.begin()

    def crash(self) -> None:
        if self.process is not None:
            self.trace(self.name, f"crashes at {self.hardware.lets_through_w} W")
            process, self.process = self.process, None
            process.end(will=True)

    @property
    def controller(self) -> Controller | None:
        return self.process.controller if self.process else None


class Process:
    def __init__(self, rack: SimRack) -> None:
        self._rack = rack
        self._timeline = rack.timeline
        self._rng = rack.rng
        instance = f"{rack.rng.getrandbits(64):016x}"
        me = replace(rack.me, instance=instance)
        self.controller = Controller(
            me, rack.hardware.rack, load_journal(rack.disk, me), now=self._timeline.now
        )
        self._port = DevicePort(rack.hardware, rack.timeline, rack.weather, rack.rng, self.read)
        self._session: int | None = None
        self._ended = False
        self._stalled_until_s = 0.0
        self._inbox: list[Callable[[], list[ControllerEffect]]] = []
        self._wakes_at_s: float | None = None

    def begin(self) -> None:
        self._port.open()
        self.read(ClockRead(1_000 + int(1000 * self._timeline.now)))
        self._timeline.after(self._rng.uniform(0.01, 0.3), self._connect)
        self._schedule()

    def end(self, *, will: bool) -> None:
        self._ended = True
        self._port.close()
        self._rack.server.drop(self._rack.name, will=will)

    def stall(self, for_s: float) -> None:
        """The machine does something else; what comes in waits."""
        self._stalled_until_s = self._timeline.now + for_s
        self._timeline.after(for_s, self._catch_up)

    # ---- the client side of the link -------------------------------------------

    @property
    def name(self) -> str:
        return self._rack.name

    def _connect(self) -> None:
        if self._ended or self._session is not None:
            return
        if not self._rack.server.connect(self):
            self._timeline.after(self._rng.uniform(0.2, 2.0), self._connect)

    def connected(self, session: int) -> None:
        self._session = session
        self._trace("connected")
        self.read(LinkUp())

    def disconnected(self, session: int) -> None:
        if self._ended or session != self._session:
            return
        self._session = None
        self._trace("disconnected")
        self.read(LinkDown("gone"))
        self._timeline.after(self._rng.uniform(0.2, 2.0), self._connect)

    def deliver(self, session: int, topic: Topic, message: Message, retained: bool) -> None:
        def heard() -> list[ControllerEffect]:
            if session != self._session:
                return []  # from before a disconnect
            return self.controller.receive(
                topic, message, retained=retained, now=self._timeline.now
            )

        self._put(heard)

    # ---- the loop --------------------------------------------------------------

    def read(self, fact: Fact) -> None:
        self._put(lambda: self.controller.read(fact, now=self._timeline.now))

    def _put(self, door: Callable[[], list[ControllerEffect]]) -> None:
        if self._ended:
            return
        if self._timeline.now < self._stalled_until_s:
            self._inbox.append(door)
            return
        self._carry(door())
        self._schedule()

    def _catch_up(self) -> None:
        if self._timeline.now < self._stalled_until_s:
            return
        waiting, self._inbox = self._inbox, []
        for door in waiting:
            self._put(door)
        self._schedule()

    def _schedule(self) -> None:
        at_s = self.controller.next_wake() if not self._ended else None
        if at_s is None or (self._wakes_at_s is not None and self._wakes_at_s <= at_s):
            return
        self._wakes_at_s = at_s
        self._timeline.at(at_s, lambda: self._wake(at_s))

    def _wake(self, at_s: float) -> None:
        if self._ended or self._wakes_at_s != at_s:
            return
        self._wakes_at_s = None
        if self._timeline.now < self._stalled_until_s:
            return
        due_s = self.controller.next_wake()
        if due_s is not None and self._timeline.now >= due_s:
            self._carry(self.controller.wake(now=self._timeline.now))
        self._schedule()

    # ---- effects ---------------------------------------------------------------

    def _carry(self, effects: list[ControllerEffect]) -> None:
        for effect in effects:
            match effect:
                case Publish():
                    self._publish(effect)
                case Persist():
                    self._persist(effect.record)
                case Execute():
                    command = effect.command
                    way = "raises" if command.raises else "lowers"
                    self._trace(f"{way} {command.name} = {command.value}")
                    self._port.submit(command)
                case PollNow():
                    self._port.poll_now()
                case ListenToReports():
                    if self._session is not None:
                        self._rack.server.listen(self.name, self._session, on=effect.on)
                case Reconnect():
                    self._reconnect()
                case Event():
                    keys = " ".join(f"{key}={value}" for key, value in effect.keys)
                    self._trace(f"{effect.name} {keys}")
                case Exit():
                    self._trace(f"exits: {effect.reason}")
                    self._rack.crash()

    def _publish(self, effect: Publish) -> None:
        if self._session is None:
            return
        match effect.message:
            case Grant() as grant:
                up = "raise to" if grant.may_raise else "at most"
                self._trace(f"grants {effect.topic.name} {up} {grant.limit_w}")
                self._rack.granting(effect.topic.name, grant)
            case Presence() as presence:
                self._trace(f"says {presence}")
        self._rack.server.publish(self.name, effect.topic, effect.message, effect.retain)

    def _reconnect(self) -> None:
        session = self._session
        if session is not None:
            self._rack.server.drop(self.name, will=self._rng.random() < 0.5)
            self._timeline.after(0.0, lambda: self.disconnected(session))

    def _persist(self, record: JournalRecord) -> None:
        weather, rng = self._rack.weather, self._rng
        slow = rng.random() < weather.journal_slow
        refused = rng.random() < weather.journal_refused
        takes_s = rng.uniform(0.2, 3.0) if slow else rng.uniform(0.001, 0.02)
        lands = not refused or rng.random() < 0.2  # a refusal may come after the fact

        def land() -> None:
            if lands and not self._ended:
                self._rack.disk = record

        self._timeline.after(takes_s * rng.uniform(0.5, 1.0), land)
        written = JournalWritten(record, not refused, "disk full" if refused else "")
        self._timeline.after(takes_s, lambda: self.read(written))

    def _trace(self, text: str) -> None:
        self._rack.trace(self.name, text)


def load_journal(disk: JournalRecord | None, me: Identity) -> JournalRecord | None:
    """What a starting process finds; a seam for the deliberate faults."""
    return disk
