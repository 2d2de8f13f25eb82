"""One rack: hardware and disk, which stay, and controller processes, which come and go.

A process is the product's `Controller` in a shell that carries effects out as the
product's own does: in order, deadlines by `next_wake`, nothing of an old session. It has
its own clock and its own disk; usually there is one of it. A twin is a second process of
the same name with a copy of the disk: a cloned SD card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from sim_device import DevicePort
from sim_hardware import Hardware
from sim_server import Server
from sim_site import least_w_of
from sim_timeline import LocalClock, Timeline
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
from broker.identity import ClockRead, Identity
from broker.messages import Ballot, Beat, CapSet, Grant, Message, Presence, Report
from broker.topics import Topic
from firmware_py.controller import Controller, ControllerEffect, Execute, Fact, PollNow
from firmware_py.limiter import Command

Trace = Callable[[str, str], None]

WALL_MS = 1_790_000_000_000  # the wall clock when a run begins
CLOCK_READ_EVERY_S = 5.0
DRIFT_MAX = 0.002  # twenty times what a cheap quartz does
GRANT_ACTED_ON_S = 4.0  # a raise of outlets takes its time from one step to the next


@dataclass(slots=True)
class Disk:
    record: JournalRecord | None
    was_lost: bool = False  # and nobody else's ballot has been on it since

    def keep(self, record: JournalRecord, rack: str) -> None:
        self.record = record
        self.was_lost = self.was_lost and record.ballot.rack == rack


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
        self.disk = Disk(disk)
        self.timeline = timeline
        self.server = server
        self.weather = weather
        self.rng = rng
        self.trace = trace
        self.counts: Counter[str] = server.counts
        self.process: Process | None = None
        self.twin: Process | None = None
        self.granting: Callable[[str, Grant], None] = lambda rack, grant: None
        self.raising: Callable[[int, int], None] = lambda to_w, granted_w: None
        self.struck: Callable[[], None] = lambda: None  # a crash in the middle of a decision
        self.left_alone: Callable[[], None] = lambda: None  # the last process ended by itself
        self.hearing: Callable[[str], None] = lambda cap: None  # a cap's source, live
        self.announcing: Callable[[Ballot, int, Disk], None] = _nobody_hears
        self.leading: Callable[[Disk], None] = lambda disk: None
        self.promising: Callable[[], None] = lambda: None  # a report leaves
        self.least_w = least_w_of(hardware.rack)
        self.excused_until_s = 0.0  # dead or just back: its last setting is only named
        self.wall_offset_ms = rng.uniform(-200.0, 200.0)
        self.clock_known_at_s = 0.0  # from then on somebody vouches for the wall clock

    def start(self) -> None:
        assert self.process is None
        self.trace(self.name, "starts")
        self.clock_known_at_s = self.timeline.now
        if self.rng.random() < self.weather.clock_unknown:
            self.clock_known_at_s += self.rng.uniform(1.0, 30.0)
        self.process = Process(self, self.disk, self.name)
        self.process.begin()

    def start_twin(self, record: JournalRecord) -> None:
        assert self.twin is None
        self.trace(self.name, f"a twin starts with a journal of boot {record.boot}")
        self.counts["twin"] += 1
        self.twin = Process(self, Disk(record, self.disk.was_lost), f"{self.name}*")
        self.twin.begin()

    def crash(self) -> None:
        """The first process ends where it is; a twin goes on in its place."""
        if self.process is not None:
            self.trace(self.name, f"crashes at {self.hardware.lets_through_w} W")
            self.counts["crash"] += 1
            self._end(self.process)

    def exited(self, process: Process) -> None:
        """A process ended by itself, for its twin's sake."""
        self._end(process)
        if self.process is None:
            self.left_alone()

    def _end(self, process: Process) -> None:
        if process is self.process:
            self.process, self.twin = self.twin, None
            if self.process is not None:
                self.disk = self.process.disk
        elif process is self.twin:
            self.twin = None
        process.end(will=True)

    @property
    def controller(self) -> Controller | None:
        return self.process.controller if self.process else None

    def wall_ms(self) -> int | None:
        """What a controller is told of the wall clock: None while nobody vouches for it."""
        if self.timeline.now < self.clock_known_at_s:
            return None
        return WALL_MS + int(1000 * self.timeline.now + self.wall_offset_ms)


class Process:
    def __init__(self, rack: SimRack, disk: Disk, client_id: str) -> None:
        self._rack = rack
        self._timeline = rack.timeline
        self._rng = rack.rng
        self.name = rack.name
        self.client_id = client_id
        self.disk = disk
        self._instance = f"{rack.rng.getrandbits(64):016x}"
        drift = rack.rng.uniform(-DRIFT_MAX, DRIFT_MAX)
        self._clock = LocalClock(rack.timeline, rack.rng.uniform(0.0, 1e5), 1.0 + drift)
        me = replace(rack.me, instance=self._instance)
        self.controller = Controller(
            me, rack.hardware.rack, load_journal(disk.record, me), now=self._clock.now()
        )
        self._port = DevicePort(
            rack.hardware,
            rack.timeline,
            rack.weather,
            rack.rng,
            self._clock,
            self.read,
            lambda what: self._count(what),
        )
        self._session: int | None = None
        self._ended = False
        self._stalled_until_s = 0.0
        self._inbox: list[Callable[[], list[ControllerEffect]]] = []
        self._wakes_at_s: float | None = None
        self._boot = -1
        self._raises: list[tuple[float, int]] = []  # grants to this process that may raise
        self._caps_heard: dict[tuple[str, str], int] = {}
        self._writing: JournalRecord | None = None

    def begin(self) -> None:
        self._port.open()
        self._read_clock()
        self._timeline.after(self._rng.uniform(0.01, 0.3), self._connect)
        self._schedule()

    def _read_clock(self) -> None:
        if not self._ended:
            self.read(ClockRead(self._rack.wall_ms()))
            self._timeline.after(CLOCK_READ_EVERY_S, self._read_clock)

    def end(self, *, will: bool) -> None:
        self._ended = True
        self._port.close()
        if self._writing is not None and self._rng.random() < 0.5:
            self.disk.keep(self._writing, self.name)  # the write had got through
        self._rack.server.drop(self, will=will)

    def obey(self, effects: list[ControllerEffect]) -> None:
        """Carry out what came of a word to this machine's own controller."""
        self._carry(effects)
        self._schedule()

    def stall(self, for_s: float) -> None:
        """The machine does something else; what comes in waits."""
        self._stalled_until_s = self._timeline.now + for_s
        self._timeline.after(for_s, self._catch_up)

    # ---- the client side of the link -------------------------------------------

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
            if isinstance(message, Grant):
                self._note_grant(message)
            elif isinstance(message, CapSet) and not retained:
                self._note_cap(topic.name, message)
            return self.controller.receive(topic, message, retained=retained, now=self._clock.now())

        self._put(heard)

    # ---- the loop --------------------------------------------------------------

    def read(self, fact: Fact) -> None:
        self._put(lambda: self.controller.read(fact, now=self._clock.now()))

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
        self._timeline.at(self._clock.in_ours(at_s), lambda: self._wake(at_s))

    def _wake(self, at_s: float) -> None:
        if self._ended or self._wakes_at_s != at_s:
            return
        self._wakes_at_s = None
        if self._timeline.now < self._stalled_until_s:
            return
        now = self._clock.now()
        if 0.0 < at_s - now < 1e-6:  # the two clocks are rounded
            now = at_s
        due_s = self.controller.next_wake()
        if due_s is not None and now >= due_s:
            self._carry(self.controller.wake(now=now))
        self._schedule()

    # ---- effects ---------------------------------------------------------------

    def _carry(self, effects: list[ControllerEffect]) -> None:
        midway = self._rack.weather.crash_midway
        for effect in effects:
            self._carry_one(effect)
            if midway and self._rng.random() < midway:
                self._count("crash midway")
                self._rack.struck()
            if self._ended:
                return

    def _carry_one(self, effect: ControllerEffect) -> None:
        match effect:
            case Publish():
                self._publish(effect)
            case Persist():
                self._persist(effect.record)
            case Execute():
                self._execute(effect.command)
            case PollNow():
                self._port.poll_now()
            case ListenToReports():
                if self._session is not None:
                    self._rack.server.listen(self, self._session, on=effect.on)
            case Reconnect():
                self._count("reconnect: own reports do not come back")
                self._reconnect()
            case Event():
                self._say(effect)
            case Exit():
                self._trace(f"exits: {effect.reason}")
                self._count("exit for a twin")
                self._rack.exited(self)

    def _publish(self, effect: Publish) -> None:
        if self._session is None:
            return
        match effect.message:
            case Grant() as grant:
                up = "raise to" if grant.may_raise else "at most"
                self._trace(f"grants {effect.topic.name} {up} {grant.limit_w}")
                self._rack.granting(effect.topic.name, grant)
            case Report() as report:
                self._rack.announcing(report.ballot, report.boot, self.disk)
                if self is self._rack.process:
                    self._rack.promising()
            case Beat() as beat:
                self._rack.announcing(beat.ballot, self._boot, self.disk)
                self._rack.leading(self.disk)
            case Presence() as presence:
                self._trace(f"says {presence}")
        self._rack.server.publish(self.name, effect.topic, effect.message, effect.retain)

    def _reconnect(self) -> None:
        session = self._session
        if session is not None:
            self._rack.server.drop(self, will=self._rng.random() < 0.5)
            self._timeline.after(0.0, lambda: self.disconnected(session))

    def _persist(self, record: JournalRecord) -> None:
        weather, rng = self._rack.weather, self._rng
        self._boot = record.boot
        slow = rng.random() < weather.journal_slow
        refused = rng.random() < weather.journal_refused
        takes_s = rng.uniform(0.2, 3.0) if slow else rng.uniform(0.001, 0.02)
        lands = not refused or rng.random() < 0.2  # a refusal may come after the fact
        self._writing = record if lands else None
        if slow:
            self._count("journal slow")

        def land() -> None:
            if lands and not self._ended:
                self.disk.keep(record, self.name)

        def told() -> None:
            if self._writing is record:
                self._writing = None
            self.read(JournalWritten(record, not refused, "disk full" if refused else ""))

        self._timeline.after(takes_s * rng.uniform(0.5, 1.0), land)
        self._timeline.after(takes_s, told)

    def _execute(self, command: Command) -> None:
        way = "raises" if command.raises else "lowers"
        self._trace(f"{way} {command.name} = {command.value}")
        if command.raises:
            self._rack.raising(self._result_w(command), self._may_raise_to_w())
        self._port.submit(command)

    def _say(self, event: Event) -> None:
        reason = dict(event.keys).get("reason", "") if event.name == "grant refused" else ""
        self._count(f"{event.name}: {reason}" if reason else event.name)
        keys = " ".join(f"{key}={value}" for key, value in event.keys)
        self._trace(f"{event.name} {keys}")

    # ---- what was granted to this process, as the wire has it --------------------

    def _note_grant(self, grant: Grant) -> None:
        if grant.may_raise and (grant.instance, grant.boot) == (self._instance, self._boot):
            now = self._timeline.now
            floor_w = self._rack.hardware.rack.floor_w
            self._raises = [r for r in self._raises if now - r[0] <= GRANT_ACTED_ON_S]
            self._raises.append((now, max(grant.limit_w, floor_w)))

    def _note_cap(self, cap: str, said: CapSet) -> None:
        key = (cap, said.by)
        if said.number >= self._caps_heard.get(key, 0):
            self._caps_heard[key] = said.number
            self._rack.hearing(cap)

    def _may_raise_to_w(self) -> int:
        """The highest limit that a grant of the last moments let this process go to."""
        since_s = self._timeline.now - GRANT_ACTED_ON_S
        return max((limit_w for at_s, limit_w in self._raises if at_s >= since_s), default=0)

    def _result_w(self, command: Command) -> int:
        """What the hardware lets through with this command, and nothing else, in force."""
        hardware = self._rack.hardware
        if isinstance(command.value, str):
            number = int(command.name.split(".")[1])
            is_off = hardware.settings()[f"outlet.{number}.status"] == "off"
            peak_w = next(o.peak_w for o in hardware.rack.actuator.outlets if o.number == number)
            return hardware.lets_through_w + (peak_w if is_off else 0)
        return int(command.value) + hardware.rack.actuator.base_w

    def _count(self, what: str) -> None:
        self._rack.counts[what] += 1

    def _trace(self, text: str) -> None:
        self._rack.trace(self.client_id, text)


def _nobody_hears(ballot: Ballot, boot: int, disk: Disk) -> None:
    return


def load_journal(disk: JournalRecord | None, me: Identity) -> JournalRecord | None:
    """What a starting process finds; a seam for the deliberate faults."""
    return disk
