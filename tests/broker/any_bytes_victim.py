"""A controller whose disk, device and echo work, and an oracle that knows what may move it.

The victim is the product's whole controller (node, demand, limiter) of rack r1 in boot 7,
behind the product's own decoder. Its surroundings answer at once and honestly; only
what the test sends is hostile.

The oracle looks from outside: at what the victim publishes and at the commands that it
gives its hardware. It states, for a rack with a power limit and no brake:

- A raise is commanded only while a grant is heard that is live, on the rack's own topic,
  says may_raise, names this instance and boot, has a ballot not lower than any heard,
  a key higher than every one processed before, and answers a report that this process
  sent less than min(ttl_s) - settle_s ago (R1-R4); and only to its limit, at most the
  ceiling, at least the floor (R8); and not where the caps known here are lower than
  those of the broker's beat (C1).
- A lower limit is commanded only by such a grant, to exactly its limit or the floor, or
  to the floor when the lease from the last such grant (or from the start) ends (R6).
  Nothing else that is heard gives a command or moves the promise (bound_w).
- The promise is never below what the hardware lets through, nor below the limit (R5).
- The process ends only when its own topic carries, live, a foreign instance with a
  higher boot, or with the same boot and a larger instance (R10).

Where somebody has said a roster, the rack may have been put out by it (M3) and take no
grants; then only the first of these is asked, without the order of ballots and keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker import topics, wire
from broker.coordinator import MarketTerms
from broker.effects import (
    Exit,
    JournalRecord,
    JournalWritten,
    LinkDown,
    LinkUp,
    Persist,
    Publish,
    Reconnect,
)
from broker.election import ElectionTiming
from broker.errors import WireError
from broker.messages import (
    Actuation,
    Ballot,
    Beat,
    CapSet,
    CapValue,
    CapValues,
    ElectionMessage,
    Grant,
    GrantKey,
    Message,
    Report,
    Roster,
    RosterCap,
    RosterRack,
)
from broker.node import ClockRead, Identity
from broker.topics import Kind, Topic
from drivers.reading import Executed, Reading, Snapshot
from firmware_py.controller import Controller, ControllerEffect, DeviceRead, Execute, PollNow
from firmware_py.limiter import Command, CommandDone
from firmware_py.site_types import Actuator, DeviceSpec, Outlet, Rack

SITE = "lab"
INSTANCE = "5f3c"
BOOT = 7
FLOOR_W, CEILING_W, CAP_W, HELD_W = 500, 4000, 14_000, 1000
TTL_S, SETTLE_S, EFFECT_S = 15.0, 2.0, 1.0
TERM_MAX = 2**52  # higher ones are refused by everyone
WALL_MS = 1_700_000_000_000
DAY_MS = 24 * 3600 * 1000  # a synchronised clock refuses terms further ahead (R11)
POLL_S = 0.5
TIMING = ElectionTiming(tick_s=1.0, beat_timeout_s=2.0, answer_timeout_s=0.5, preempt_after_s=30.0)
OUTLETS = tuple(
    Outlet(number=n, priority=9 - n, peak_w=peak_w, min_off_s=0.0)
    for n, peak_w in enumerate((700, 450, 1000), start=1)
)
BASE_W = 300
_OFFICE = Ballot(4, "r3")  # who leads at the start, as the journal has it


@dataclass(frozen=True, slots=True)
class Heard:
    """What the oracle must know of a message before the controller has it."""

    message: Message
    topic: Topic
    retained: bool
    is_own: bool  # the victim's, come back to it

    @property
    def grant(self) -> Grant | None:
        mine = self.topic == Topic(Kind.GRANT, "r1") and not self.retained
        return self.message if mine and isinstance(self.message, Grant) else None

    @property
    def ballot(self) -> Ballot | None:
        """The ballot that a rack adopts from it, if it is higher (R1)."""
        match self.message:
            case Beat(ballot=ballot) | Report(ballot=ballot):
                return ballot
            case Grant(key=key) if self.grant is not None:
                return key.ballot
            case ElectionMessage(ballot=ballot) if not self.retained:
                return ballot
            case Roster(ballot=ballot):
                return ballot
        return None

    @property
    def is_foreign(self) -> bool:
        """A roster other than that of the site file which everybody has."""
        return isinstance(self.message, Roster) and self.message.name != Ballot(0, "h")

    @property
    def twin(self) -> Report | None:
        """The live report of another process under this rack's name."""
        live = self.topic == Topic(Kind.REPORT, "r1") and not self.retained
        report = self.message if live and isinstance(self.message, Report) else None
        return report if report is not None and report.instance != INSTANCE else None

    def ends(self, boot: int) -> bool:  # protocol R10
        """True where the process with that boot has to go."""
        twin = self.twin
        return twin is not None and (twin.boot, twin.instance) > (boot, INSTANCE)


class Oracle:
    """What grants, ballots and caps the victim has heard, by the protocol page alone."""

    def __init__(self, lease_until_s: float, *, clock_known: bool, boot: int) -> None:
        self.sent_at_s: dict[int, float] = {}
        self.highest = _OFFICE if boot == BOOT else Ballot(boot, "r1")
        self._boot = boot
        self.seen: GrantKey | None = None
        self.lease_until_s = lease_until_s
        self.twin_until_s = float("-inf")
        self.heard_roster = False
        self._term_max = WALL_MS + DAY_MS if clock_known else TERM_MAX
        self._caps: CapValues = {}
        self._beat: tuple[Ballot, int] | None = None
        self._beat_caps: CapValues = {}

    def admits(self, heard: Heard, now: float) -> Grant | None:
        """Take note of a message; the grant in it, if it is one to act on."""
        on_disk = self.highest
        self._note(heard, now)
        grant = heard.grant
        if grant is None or now < self.twin_until_s:
            return None
        if (grant.instance, grant.boot) != (INSTANCE, self._boot):
            return None
        if not self.heard_roster and not self._is_next(grant, on_disk):
            return None
        self.seen = grant.key
        sent_at_s = self.sent_at_s.get(grant.seq)
        until_s = float("-inf") if sent_at_s is None else sent_at_s + min(grant.ttl_s, TTL_S)
        if until_s - now <= SETTLE_S:
            return None
        self.lease_until_s = until_s
        return grant

    def _is_next(self, grant: Grant, on_disk: Ballot) -> bool:  # protocol R1, R2
        """False for a lower ballot, for one that is adopted only now, and for an old key."""
        in_order = self.seen is None or grant.key > self.seen
        return in_order and grant.key.ballot == self.highest == on_disk

    def may_raise(self, grant: Grant) -> bool:  # protocol R4, C1
        shown = self._beat_caps if self._beat and self._beat[0] == grant.key.ballot else {}
        return grant.may_raise and _room_w(self._caps) >= _room_w(shown)

    def _note(self, heard: Heard, now: float) -> None:
        ballot, message = heard.ballot, heard.message
        if isinstance(message, Beat | Report):
            for by, value in message.caps.get("room", {}).items():
                self._take(by, value)
        if isinstance(message, CapSet) and heard.topic.name == "room":
            self._take(message.by, CapValue(message.number, message.limit_w))
        self.heard_roster |= isinstance(message, Roster) and heard.is_foreign
        if ballot is not None and (ballot.term <= self._term_max or heard.is_own):
            self.highest = max(self.highest, ballot)
        if isinstance(message, Beat) and message.ballot >= self.highest:
            number = (message.ballot, message.number)
            if self._beat is None or number >= self._beat:
                self._beat, self._beat_caps = number, message.caps
        if heard.twin is not None:
            self.twin_until_s = now + TTL_S

    def _take(self, by: str, value: CapValue) -> None:
        known = self._caps.setdefault("room", {}).get(by)
        if known is None or value.number > known.number:
            self._caps["room"][by] = value


def _room_w(values: CapValues) -> int:
    said = [value.limit_w for value in values.get("room", {}).values()]
    return min([CAP_W, *(limit_w for limit_w in said if limit_w is not None)])


class Victim:
    """The controller of r1, its hardware, and the oracle beside it."""

    def __init__(
        self, *, outlets: bool = False, clock_known: bool = True, forgot: bool = False
    ) -> None:
        self.now = 0.0
        self.ended = False
        self.last_report_s = float("-inf")
        self.commands = 0
        self._rack = _rack(outlets=outlets)
        self._register: dict[str, float | str] = (
            {f"outlet.{n}.status": "on" if n == 1 else "off" for n in (1, 2, 3)}
            if outlets
            else {"limit.realpower": float(HELD_W)}
        )
        self.clock_known = clock_known  # else one message can use up the terms
        self._inbox: list[tuple[str, bytes]] = []  # what the server sends back
        self._commanding: list[Command] = []  # of the door that was called last
        self._poll_at_s = 0.0
        self._clock_at_s = 0.0
        self._connect_at_s: float | None = 0.1
        self._limit_w = self.through_w  # as commanded or read at the start
        self._granted_w = self.through_w  # the largest raise since the last lowering
        self.forgot = forgot  # its journal is lost: boot and term come from the clock (R11)
        self.boot = WALL_MS if forgot else BOOT
        self.oracle = Oracle(TTL_S, clock_known=clock_known, boot=self.boot)
        record = None if forgot else JournalRecord(_OFFICE, BOOT - 1, True, _roster().name, {})
        self._controller = Controller(_identity(self._rack), self._rack, record, now=0.0)
        self.elapse(1.5)

    # ---- what the test does ----------------------------------------------------

    def hear(self, path: str, payload: bytes, *, retained: bool = False) -> None:
        """Bytes on a topic, as the runtime takes them."""
        if not self.ended and self._connect_at_s is None:
            self._receive(path, payload, retained, is_own=False)
            self._echoes()

    def elapse(self, seconds: float) -> None:
        """Time passes: deadlines, polls, the clock, a lost connection that comes back."""
        end_s = self.now + seconds
        while not self.ended:
            times = [self._poll_at_s, self._clock_at_s, self._connect_at_s]
            times.append(self._controller.next_wake())
            at_s = min(time for time in times if time is not None)
            if at_s > end_s:
                break
            self.now = max(self.now, at_s)
            self._turn()
        self.now = max(self.now, end_s)

    @property
    def through_w(self) -> int:
        """What the hardware lets through."""
        limit = self._register.get("limit.realpower")
        if limit is not None:
            return int(float(limit))
        on = [o.peak_w for o in OUTLETS if self._register[f"outlet.{o.number}.status"] == "on"]
        return BASE_W + sum(on)

    @property
    def leads(self) -> bool:
        return self._controller.leads

    @property
    def last_seq(self) -> int:
        return max(self.oracle.sent_at_s, default=0)

    # ---- the doors -------------------------------------------------------------

    def _turn(self) -> None:
        """One thing that is due now."""
        if self._connect_at_s is not None and self.now >= self._connect_at_s:
            self._connect_at_s = None
            self._carry(self._controller.read(LinkUp(), now=self.now))
        elif self.now >= self._clock_at_s:
            self._clock_at_s = self.now + 60.0
            wall_ms = WALL_MS if self.clock_known else None
            self._carry(self._controller.read(ClockRead(wall_ms), now=self.now))
        elif self.now >= self._poll_at_s:
            self._poll()
        else:
            self._wake()
        self._echoes()

    def _wake(self) -> None:
        due_s = self._controller.next_wake()
        assert due_s is not None
        if self.now < due_s:
            return
        promise_w = self._controller.promise_w
        effects = self._controller.wake(now=self.now)
        commands = _commands(effects)
        over = self.now >= self.oracle.lease_until_s - SETTLE_S
        for command in commands if self._rack.actuator.kind == "power-limit" else ():
            early = not over and not self.oracle.heard_roster
            assert not early and not command.raises, f"{command} before the lease ended"
            assert command.value == FLOOR_W, command
        assert self._controller.promise_w <= max(promise_w, self._granted_w)
        self._carry(effects)
        if over and not self.oracle.heard_roster and self._rack.actuator.kind == "power-limit":
            assert self._limit_w <= FLOOR_W, "the lease has ended, the rack is not at its floor"

    def _receive(self, path: str, payload: bytes, retained: bool, *, is_own: bool) -> None:
        topic = topics.parse(path, SITE)
        if topic is None:
            return
        try:
            message = wire.decode(topic.kind, payload)
        except WireError:
            return
        heard = Heard(message, topic, retained, is_own)
        grant = self.oracle.admits(heard, self.now)
        promise_w = self._controller.promise_w
        effects = self._controller.receive(topic, message, retained=retained, now=self.now)
        self._judge(grant, _commands(effects), promise_w)
        exits = [effect for effect in effects if isinstance(effect, Exit)]
        has_boot = self.boot if self.clock_known or not self.forgot else -1
        assert bool(exits) == heard.ends(has_boot), exits
        self._carry(effects)

    # ---- the oracle's word -----------------------------------------------------

    def _judge(self, grant: Grant | None, commands: list[Command], promise_w: int) -> None:
        now_w = self._controller.promise_w
        if grant is None or (self.oracle.heard_roster and not commands):
            assert not commands, f"{commands} without a grant to act on"
            assert now_w == promise_w, f"the promise moved from {promise_w} to {now_w} W"
            return
        limit_w = min(max(grant.limit_w, FLOOR_W), CEILING_W)
        for command in commands:
            if command.raises:
                assert self.oracle.may_raise(grant), f"{command} by {grant}"
                assert limit_w > self._limit_w
            else:
                assert limit_w < promise_w, f"{command} by {grant}"
        assert now_w <= max(promise_w, limit_w)
        assert now_w >= promise_w or commands, "only a reading lowers a promise"
        if any(command.raises for command in commands):
            self._granted_w = max(self._granted_w, limit_w)
        elif commands:
            self._granted_w = limit_w
        if self._rack.actuator.kind == "power-limit":
            assert [command.value for command in commands] in ([], [limit_w])

    def _hold_to_the_promise(self) -> None:
        through_w, promise_w = self.through_w, self._controller.promise_w
        assert through_w <= promise_w <= CEILING_W, (through_w, promise_w)

    # ---- effects, and what answers them ----------------------------------------

    def _carry(self, effects: list[ControllerEffect]) -> None:
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            match effect:
                case Publish():
                    self._publish(effect)
                case Persist(record=record):
                    waiting += self._controller.read(JournalWritten(record, True), now=self.now)
                case Execute(command=command):
                    waiting += self._execute(command)
                case PollNow():
                    self._poll_at_s = self.now
                case Reconnect():
                    waiting += self._controller.read(LinkDown("asked for"), now=self.now)
                    self._connect_at_s = self.now + 0.3
                case Exit():
                    self.ended = True

    def _publish(self, effect: Publish) -> None:
        path, payload = effect.topic.path(SITE), wire.encode(effect.message)
        if isinstance(effect.message, Report):
            report = effect.message
            self.oracle.sent_at_s[report.seq] = self.last_report_s = self.now
            assert report.bound_w >= report.limit_w
            assert report.limit_w == self._limit_w or self._rack.actuator.kind == "outlets"
        if len(payload) <= wire.PAYLOAD_BYTES_MAX and self._is_mine(effect.topic):
            self._inbox.append((path, payload))

    def _is_mine(self, topic: Topic) -> bool:
        own = topic.kind in (Kind.GRANT, Kind.REPORT) and topic.name == "r1"
        return own or topic.kind in (Kind.BEAT, Kind.ELECTION, Kind.ROSTER)

    def _echoes(self) -> None:
        """What it published itself comes back, as from any MQTT server."""
        while self._inbox and not self.ended:
            path, payload = self._inbox.pop(0)
            if self._connect_at_s is None:
                self._receive(path, payload, False, is_own=True)

    def _execute(self, command: Command) -> list[ControllerEffect]:
        self.commands += 1
        point = command.name.replace(".load", ".status")
        before_w, self._register[point] = self.through_w, command.value
        assert self.through_w <= max(before_w, self._granted_w)
        if point == "limit.realpower":
            self._limit_w = int(float(command.value))
        self._hold_to_the_promise()
        shown = Reading(point, command.value, "", self.now, self.now)
        done = Executed(command.name, command.value, self.now, self.now, None, "", shown)
        return self._controller.read(CommandDone(command.id, done, self.now), now=self.now)

    def _poll(self) -> None:
        self._poll_at_s = self.now + POLL_S
        points = {**self._register, "input.realpower": float(self.through_w)}
        readings = {
            name: Reading(name, value, "", self.now, self.now) for name, value in points.items()
        }
        snapshot = Snapshot(self.now, self.now, readings)
        effects = self._controller.read(DeviceRead("pdu", snapshot), now=self.now)
        assert not _commands(effects), "the hardware is as it was told"
        self._carry(effects)
        self._hold_to_the_promise()


def _commands(effects: list[ControllerEffect]) -> list[Command]:
    return [effect.command for effect in effects if isinstance(effect, Execute)]


# ---- the site ------------------------------------------------------------------------


def _roster() -> Roster:
    racks = tuple(
        RosterRack(rack=name, rank=rank, floor_w=FLOOR_W, ceiling_w=CEILING_W, cap="room")
        for name, rank in (("r1", 10), ("r2", 20), ("r3", 30))
    )
    return Roster(name=Ballot(0, "h"), racks=racks, caps=(RosterCap(cap="room", limit_w=CAP_W),))


def _rack(*, outlets: bool) -> Rack:
    return Rack(
        name="r1",
        rank=10,
        cap="room",
        floor_w=BASE_W if outlets else FLOOR_W,
        ceiling_w=CEILING_W,
        weight=1.0,
        tier=1,
        devices=(
            DeviceSpec(
                name="pdu",
                url="",
                profile=None,
                measures=("input.realpower",),
                poll_s=POLL_S,
                stale_after_s=3.0,
                community_file=None,
            ),
        ),
        actuator=Actuator(
            kind="outlets" if outlets else "power-limit",
            device="pdu",
            settle_s=SETTLE_S,
            effect_delay_s=EFFECT_S,
            ttl_s=TTL_S,
            keeps=True,
            base_w=BASE_W if outlets else 0,
            outlets=OUTLETS if outlets else (),
            stagger_s=0.4,
        ),
    )


def _identity(rack: Rack) -> Identity:
    return Identity(
        rack="r1",
        instance=INSTANCE,
        site_hash="h",
        roster=_roster(),
        actuator=Actuation(rack.actuator.kind),
        ttl_s=TTL_S,
        settle_s=SETTLE_S,
        timing=TIMING,
        terms=MarketTerms(guard=0.01),
    )
