"""The stage of a transcript: racks, processes, disks, and the trace of what they do.

A process is the product's `Controller` in a shell that carries effects out as the
product's own does: in order, deadlines by `next_wake`, nothing of an old session. What
the script does not disturb works at once and never by chance: 20 ms for a message, for
a device's answer, for the disk.

Beside the trace the stage keeps one check of its own, so that no transcript can be
regenerated into a lie: when a write of ours lets more through, the hardware under every
cap is within what the cap is, or was within the window of its last fall.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from script_clock import ScriptClock
from script_rack import Fact as DeviceFact
from script_rack import Hardware, Line
from script_server import HOP_S, ScriptServer
from script_words import cap_set, caps_words, event_words, journal_words, line_of, raise_of

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
from broker.messages import (
    Ballot,
    Beat,
    CapSet,
    CapState,
    Grant,
    Leave,
    Message,
    Report,
    Roster,
)
from broker.node import ClockRead, Identity
from broker.topics import Kind, Topic
from firmware_py.controller import Controller, ControllerEffect, Execute, Fact, PollNow

DISK_S = 0.02
CONNECT_S = 0.05
RECONNECT_S = 1.0
WALL_MS = 1_000_000  # when the script begins, as everybody's wall clock has it
TICK_S = 1.0


@dataclass(slots=True)
class Disk:
    """A journal: what is on it, and what becomes of the next write."""

    record: JournalRecord | None
    mode: str = "accepts"  # accepts, refuses or waits
    waiting: list[Callable[[], None]] | None = None


class Stage:
    """Everything but the script. `racks` are the hardware, `processes` what runs."""

    def __init__(self) -> None:
        self.clock = ScriptClock()
        self.server = ScriptServer(self.clock)
        self.lines: list[str] = []
        self.hardware: dict[str, Hardware] = {}
        self.identities: dict[str, Identity] = {}
        self.disks: dict[str, Disk] = {}  # by process, like what follows
        self.processes: dict[str, Process] = {}
        self.wall_clocks: dict[str, bool] = {}
        self.cap_w: dict[str, int] = {}
        self.below: dict[str, list[str]] = {}
        self.cap_states: dict[str, CapState] = {}
        self._fell_at_s: dict[str, tuple[float, int]] = {}
        self._said_w: dict[tuple[str, str], int | None] = {}
        self._file_w: dict[str, int] = {}
        self._speaking: dict[tuple[str, str], bool] = {}
        self._numbers = 0

    def say(self, who: str, text: str) -> None:
        self.lines.append(f"{self.clock.now:6.2f} {who:8} {text}")

    # ---- what the script does --------------------------------------------------

    def add_cap(self, cap: str, limit_w: int, racks: list[str]) -> None:
        self.cap_w[cap] = self._file_w[cap] = limit_w
        self.below[cap] = racks

    def add_rack(self, identity: Identity, hardware: Hardware, record: JournalRecord) -> None:
        name = identity.rack
        self.identities[name] = identity
        self.hardware[name] = hardware
        self.disks[name] = Disk(record)
        hardware.changed = lambda before_w, ours: self._changed(name, before_w, ours)

    def start(self, name: str) -> None:
        assert name not in self.processes, f"{name} runs already"
        process = self.processes[name] = Process(self, name)
        process.begin()

    def crash(self, name: str) -> None:
        process = self.processes.pop(name)
        process.end()

    def source(self, cap: str, by: str, limit_w: int | None) -> None:
        """A source speaks, and repeats itself every tick until it falls silent."""
        known = (cap, by) in self._speaking
        self._said_w[cap, by] = limit_w
        said = [self._file_w[cap]]
        said += [w for (c, _), w in self._said_w.items() if c == cap and w is not None]
        if min(said) < self.cap_w[cap]:
            self._fell_at_s[cap] = (self.clock.now, self.cap_w[cap])
        self.cap_w[cap] = min(said)
        self._speaking[cap, by] = True
        self.say(by, cap_set(cap, CapSet(limit_w=limit_w, number=0, by=by)))
        self._speak(cap, by)
        if not known:
            self.clock.after(TICK_S, lambda: self._repeat(cap, by))

    def remove(self, rack: str, by: str, until_s: float) -> None:
        """An operator's word, each tick until the roster is without the rack (protocol M3)."""
        roster = self.server.kept(Topic(Kind.ROSTER))
        gone = isinstance(roster, Roster) and rack not in [r.rack for r in roster.racks]
        if gone or self.clock.now > until_s:
            self.say(by, f"sees that {rack} is counted no more" if gone else "gives up")
            return
        beat = self.server.kept(Topic(Kind.BEAT))
        last = self.server.kept(Topic(Kind.REPORT, rack))
        if isinstance(beat, Beat) and isinstance(last, Report):
            leave = Leave(rack=rack, by=by, ballot=beat.ballot, boot=last.boot, seq=last.seq)
            self.server.publish(by, Topic(Kind.LEAVE), leave, False)
        self.clock.after(TICK_S, lambda: self.remove(rack, by, until_s))

    def silence(self, cap: str, by: str) -> None:
        self._speaking[cap, by] = False

    def _repeat(self, cap: str, by: str) -> None:
        if self._speaking[cap, by]:
            self._speak(cap, by)
        self.clock.after(TICK_S, lambda: self._repeat(cap, by))

    def _speak(self, cap: str, by: str) -> None:
        self._numbers += 1
        said = CapSet(limit_w=self._said_w[cap, by], number=WALL_MS + self._numbers, by=by)
        self.server.publish(by, Topic(Kind.CAP_SET, cap), said, False)

    # ---- the hardware ----------------------------------------------------------

    def total_w(self, cap: str) -> int:
        return sum(self.hardware[name].lets_through_w for name in self.below[cap])

    def sums(self) -> str:
        """What the hardware under every cap lets through, and how far that is above the cap."""
        return "; ".join(
            f"{cap} {self.total_w(cap)} of {cap_w} W"
            + (f", {self.total_w(cap) - cap_w} OVER" if self.total_w(cap) > cap_w else "")
            for cap, cap_w in self.cap_w.items()
        )

    def _changed(self, name: str, before_w: int, ours: bool) -> None:
        through_w = self.hardware[name].lets_through_w
        if through_w == before_w:
            return
        self.say(name, f"hardware: {before_w} -> {through_w} W ({self.sums()})")
        if ours and through_w > before_w:
            self._expect_room(name)

    def _expect_room(self, name: str) -> None:
        settle_s = max(hardware.rack.actuator.settle_s for hardware in self.hardware.values())
        for cap, racks in self.below.items():
            fell_at_s, from_w = self._fell_at_s.get(cap, (float("-inf"), 0))
            recent = self.clock.now - fell_at_s <= TICK_S + settle_s
            allowed_w = max(self.cap_w[cap], from_w if recent else 0)
            if name in racks and self.total_w(cap) > allowed_w:
                trace = "\n".join(self.lines)
                raise AssertionError(f"{name} was raised above {cap}:\n{trace}")


class Process:
    """One controller process; it ends with a crash, or by itself."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.name = name  # r1, or r1' for a second process of the same rack
        self.rack_name = name.rstrip("'")
        self._stage = stage
        self._clock = stage.clock
        self._disk = stage.disks[name]
        hardware = stage.hardware[self.rack_name]
        boot = self._disk.record.boot + 1 if self._disk.record else 0
        me = replace(stage.identities[self.rack_name], instance=f"{name}-{boot}")
        self.controller = Controller(me, hardware.rack, self._disk.record, now=self._clock.now)
        self._line = Line(hardware, self._read_device)
        self._session: int | None = None
        self._ended = False
        self._wakes_at_s: float | None = None
        self._said: dict[str, object] = {}
        self._said_caps = ""
        self._last: list[str] = []

    def begin(self) -> None:
        self._say(f"starts with the journal: {journal_words(self._disk.record)}")
        self._line.open()
        self.read_clock()
        self._clock.after(CONNECT_S, self._connect)
        self._schedule()

    def end(self) -> None:
        self._ended = True
        self._line.close()
        self._stage.server.drop(self.name)

    def read_clock(self) -> None:
        """Every second, as a forgetful controller does; the others are told nothing new."""
        vouched = self._stage.wall_clocks.get(self.rack_name, True)
        wall_ms = WALL_MS + round(1000 * self._clock.now) if vouched else None
        self.read(ClockRead(wall_ms))
        self._clock.after(1.0, self.read_clock)

    # ---- the client side of the link -------------------------------------------

    def _connect(self) -> None:
        if self._ended or self._session is not None:
            return
        if not self._stage.server.connect(self):
            self._clock.after(RECONNECT_S, self._connect)

    def connected(self, session: int) -> None:
        self._session = session
        self._say("connected")
        self.read(LinkUp())

    def disconnected(self, session: int) -> None:
        if self._ended or session != self._session:
            return
        self._session = None
        self._say("disconnected")
        self.read(LinkDown("gone"))
        self._clock.after(RECONNECT_S, self._connect)

    def deliver(self, session: int, topic: Topic, message: Message, retained: bool) -> None:
        if not self._ended and session == self._session:
            now = self._clock.now
            self._carry(self.controller.receive(topic, message, retained=retained, now=now))
            self._schedule()

    # ---- the loop --------------------------------------------------------------

    def _read_device(self, fact: DeviceFact) -> None:
        self.read(fact)

    def read(self, fact: Fact) -> None:
        if not self._ended:
            self._carry(self.controller.read(fact, now=self._clock.now))
            self._schedule()

    def _schedule(self) -> None:
        at_s = self.controller.next_wake() if not self._ended else None
        if at_s is None or (self._wakes_at_s is not None and self._wakes_at_s <= at_s):
            return
        self._wakes_at_s = at_s
        self._clock.at(at_s, lambda: self._wake(at_s))

    def _wake(self, at_s: float) -> None:
        if self._ended or self._wakes_at_s != at_s:
            return
        self._wakes_at_s = None
        due_s = self.controller.next_wake()
        if due_s is not None and self._clock.now >= due_s:
            self._carry(self.controller.wake(now=self._clock.now))
        self._schedule()

    # ---- effects ---------------------------------------------------------------

    def _carry(self, effects: list[ControllerEffect]) -> None:
        for effect in effects:
            match effect:
                case Publish():
                    self._publish(effect)
                case Persist():
                    self._persist(effect.record)
                case Execute(command=command):
                    verb = "raises" if command.raises else "lowers"
                    value = command.value
                    shown = f"{value:g}" if isinstance(value, int | float) else value
                    self._say(f"{verb}: writes {command.name} = {shown}")
                    self._line.submit(command)
                case PollNow():
                    self._line.poll_now()
                case ListenToReports():
                    self._stage.server.listen(self.name, on=effect.on)
                case Reconnect():
                    self._reconnect(effect.reason)
                case Event():
                    self._say(event_words(effect))
                case Exit():
                    self._say(f"exits with {effect.code}: {effect.reason}")
                    self._stage.crash(self.name)
                    return

    def _publish(self, effect: Publish) -> None:
        if self._session is None:
            return
        if isinstance(effect.message, CapState):
            self._stage.cap_states[effect.topic.name] = effect.message
        self._tell(effect.topic, effect.message)
        self._stage.server.publish(self.name, effect.topic, effect.message, effect.retain)

    def _tell(self, topic: Topic, message: Message) -> None:
        """One line where it says something that the last one of its topic did not."""
        said = line_of(topic, message)
        if said is None:
            return
        place, caps = topic.path(""), self._said_caps
        before, self._said[place] = self._said.get(place), said[1]
        if isinstance(message, Beat | Report):
            caps = caps_words(message.caps)
        if isinstance(message, Grant) and before == raise_of(message):
            return  # the rack is there: what follows a raise renews it
        is_new = before != said[1] or said[1] is None
        if is_new or caps != self._said_caps:
            shown = caps != self._said_caps or isinstance(message, Beat)
            self._say(said[0] + (caps if shown else ""))
        self._said_caps = caps

    def _reconnect(self, reason: str) -> None:
        self._say(f"reconnects: {reason}")
        session = self._session
        if session is not None:
            self._stage.server.drop(self.name)
            self._clock.after(HOP_S, lambda: self.disconnected(session))

    def _persist(self, record: JournalRecord) -> None:
        if self._disk.mode == "waits":
            self._disk.waiting = [*(self._disk.waiting or []), lambda: self._persist(record)]
            return
        ok = self._disk.mode == "accepts"

        def ended() -> None:
            if self._ended:
                return
            if ok:
                before, self._disk.record = self._disk.record, record
                if journal_words(before) != journal_words(record):
                    self._say(f"journal: {journal_words(record)}")
            self.read(JournalWritten(record, ok, "" if ok else "disk full"))

        self._clock.after(DISK_S, ended)

    def _say(self, text: str) -> None:
        """An event or a call for election that repeats one of the last two lines is left out."""
        repeats = text in self._last and text.startswith(("!", "election"))
        if text and not repeats:
            self._stage.say(self.name, text)
        self._last = [*self._last[-1:], text]


def first_journal(roster: Ballot) -> JournalRecord:
    return JournalRecord(Ballot(0, ""), 0, True, roster, {})
