"""A limit becomes hardware: what is written, and what may be promised meanwhile.

`limit_w` is what this rack enforces. `bound_w` is the promise that its draw cannot
exceed this even if the controller dies this instant: it follows from the hardware's
own setting as last read back and from every write that may still take effect. A raise
counts before it is written and is written once; a lowering is written at once and
again until it holds, and the promise falls only when the setting has been read back
(R5). After a start nothing is promised but the ceiling until the setting has been
read and `effect_delay_s` has passed (R7), and nothing is written before it was read
or the lease has ended.

A write is *in flight* until `effect_delay_s` after the driver is done with it, unless
it was the only one of its value and has been read back in force. Whoever lost the
answer of a write knows no more than that. A setting of several points is as old as the
point that was asked longest ago: half an answer proves nothing about the other half.

Three kinds of hardware share these rules: a power limit in a register, outlets
switched by priority, and none at all (bound = ceiling).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

from broker.effects import Event, Level, event
from drivers.reading import Absence, Executed, Missing, Reading
from firmware_py.site_types import Actuator, ActuatorKind

REWRITE_S = 1.0  # pause before a lowering that does not hold is written again
LIMIT_POINT = "limit.realpower"


@dataclass(frozen=True, slots=True)
class Command:
    """One write for the actuator's device."""

    id: int
    name: str
    value: float | str
    raises: bool


@dataclass(frozen=True, slots=True)
class CommandDone:
    """What became of a command. `executed` None: it was never sent (a lower one overtook it)."""

    id: int
    executed: Executed | None
    done_at_s: float


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Ask the device for its own setting now, out of turn."""


LimiterEffect = Command | ReadBack | Event


@dataclass(frozen=True, slots=True)
class _Write:
    id: int
    name: str
    value: float | str
    raises: bool
    provable: bool  # its value showed nowhere before it, and no other write of it was in flight
    done_at_s: float | None = None  # None: the driver is still at it


class Limiter(ABC):
    """The rules of R4–R8 that all hardware shares. Powers in whole watts, now in seconds."""

    def __init__(self, actuator: Actuator, *, floor_w: int, ceiling_w: int, now: float) -> None:
        self._actuator = actuator
        self._floor_w = floor_w
        self._ceiling_w = ceiling_w
        self._started_at_s = now
        self._writes: list[_Write] = []
        self._asked_at_s: dict[str, float] = {}  # of every point of the setting that was read
        self._next_id = 0
        self._last_write_done_s = float("-inf")
        self._raise_due_s: float | None = None  # when the last raise must show
        self._ask_at_s: float | None = None  # when to ask whether it does
        self._reset_seen = False  # R7: the setting was found above the promise
        self._lowered = False  # since the start, by a grant or by the end of the lease
        self.starting = True
        self.known = False  # the setting has been read since the start
        self.limit_w = ceiling_w
        self.bound_w = ceiling_w

    # ---- doors -----------------------------------------------------------------

    def limit(self, granted_w: int, *, may_raise: bool, now: float) -> list[LimiterEffect]:
        """Enforce a lease (R4, R8). Without `may_raise` it can only lower."""
        if not self.known:
            return []  # R7: nothing is written before the setting has been read
        granted_w = min(max(granted_w, self._floor_w), self._ceiling_w)
        if granted_w > self.limit_w and may_raise and not self.starting:
            return self._raise(granted_w, now)
        if granted_w < self.limit_w:
            self._lowered = True
            return self._lower(granted_w, now)
        return []

    def lower_to_floor(self, *, now: float) -> list[LimiterEffect]:
        """The lease has ended (R6): the floor, even where nothing was ever read (R7)."""
        if self.known and self.limit_w <= self._floor_w:
            return self._again(now)
        self._lowered = True
        effects = self._lower(self._floor_w, now)
        self.known = True
        return effects

    def read(
        self,
        points: Mapping[str, Reading | Missing],
        *,
        now: float,
        asked_at_s: float | None = None,
    ) -> list[LimiterEffect]:
        """The actuator's device answered a poll, or did not.

        `asked_at_s`: when the round began; it dates answers that carry no instant.
        """
        self._take(points, asked_at_s)
        asked_at_s = self._oldest_asked_at_s()
        if asked_at_s is None:  # R7: what was never read counts as its most
            self._settle_bound(now)
            return []
        self._forget_writes(points)
        effects: list[LimiterEffect] = []
        if not self.known:
            self.known = True
            self.limit_w = min(self._setting_w(), self._ceiling_w)
            effects.append(event(Level.INFO, "hardware read", limit_w=self.limit_w))
        elif self.starting and not self._lowered and self._setting_w() > self.limit_w:
            # R7: a raise of the last boot came into force late; the restart drops nobody.
            self.limit_w = min(self._setting_w(), self._ceiling_w)
            self._follow_setting()
        if self.starting and asked_at_s >= self._started_at_s + self._actuator.effect_delay_s:
            self.starting = False
        effects += self._notice_reset()
        effects += self._notice_lost_raise(asked_at_s)
        self._settle_bound(now)
        return effects + self._again(now)

    def done(self, done: CommandDone, *, now: float) -> list[LimiterEffect]:
        """A command was carried out, refused, or never answered."""
        self._last_write_done_s = now
        if done.executed is None:
            self._writes = [write for write in self._writes if write.id != done.id]
            return []
        self._writes = [
            replace(write, done_at_s=done.done_at_s) if write.id == done.id else write
            for write in self._writes
        ]
        effects: list[LimiterEffect] = []
        if done.executed.absence is not None:
            effects.append(
                event(
                    Level.WARNING,
                    "write failed",
                    command=done.executed.name,
                    reason=done.executed.absence.value,
                    detail=done.executed.detail,
                    device=self._actuator.device,
                )
            )
        if self._raise_due_s is not None:
            self._expect_raise(done.done_at_s)
        proof = done.executed.read_back
        if isinstance(proof, Reading):
            effects += self.read({proof.name: proof}, now=now)
        return effects

    def wake(self, *, now: float) -> list[LimiterEffect]:
        self._settle_bound(now)
        effects = self._advance(now)
        if self._ask_at_s is not None and now >= self._ask_at_s:
            effects.append(ReadBack())
            self._ask_at_s = now + REWRITE_S  # asked again until it is answered
        return effects

    def next_wake(self) -> float | None:
        return self._ask_at_s

    @property
    @abstractmethod
    def next_w(self) -> int:
        """What `limit_w` would become by the next step up; `limit_w` where there is none."""

    # ---- what the kinds differ in ----------------------------------------------

    @abstractmethod
    def _take(self, points: Mapping[str, Reading | Missing], asked_at_s: float | None) -> None:
        """Note the settings among `points`, and when each was asked for."""

    @abstractmethod
    def _proofs(self) -> tuple[str, ...]:
        """The points that make up the setting."""

    @abstractmethod
    def _setting_w(self) -> int:
        """What the hardware lets through by its own setting as last read."""

    @abstractmethod
    def _possible_w(self) -> int:
        """The same, with every write in flight counted as if it took effect."""

    @abstractmethod
    def _raise(self, granted_w: int, now: float) -> list[LimiterEffect]: ...

    @abstractmethod
    def _lower(self, granted_w: int, now: float) -> list[LimiterEffect]: ...

    @abstractmethod
    def _lowering(self) -> list[tuple[str, float | str]]:
        """The writes that would bring the setting, as last read, down to the limit."""

    def _advance(self, now: float) -> list[LimiterEffect]:
        """The next step of a raise in several steps."""
        return []

    def _notice_lost_raise(self, asked_at_s: float) -> list[LimiterEffect]:
        """R5: a raise that does not show in time never happened; the next grant may repeat it."""
        if self._raise_due_s is not None and asked_at_s >= self._raise_due_s:
            self._raise_due_s = self._ask_at_s = None
        unsettled = self._raise_due_s is not None or self._writes
        if unsettled or self._setting_w() >= self.limit_w:
            return []
        self.limit_w = self._setting_w()
        self._follow_setting()
        return [event(Level.WARNING, "hardware is below the limit", limit_w=self.limit_w)]

    @abstractmethod
    def _follow_setting(self) -> None:
        """The limit has become what was read."""

    # ---- leaves ----------------------------------------------------------------

    def _expect_raise(self, written_at_s: float) -> None:
        self._raise_due_s = self._ask_at_s = written_at_s + self._actuator.effect_delay_s

    def _expect_no_raise(self) -> None:
        self._raise_due_s = self._ask_at_s = None

    def _write(self, name: str, value: float | str, *, raises: bool) -> Command:
        self._next_id += 1
        shown = self._shown_by(self._proof_of(name))
        provable = shown != value and not self._twins(name, value)
        self._writes.append(_Write(self._next_id, name, value, raises, provable))
        return Command(self._next_id, name, value, raises)

    def _again(self, now: float) -> list[LimiterEffect]:
        """A lowering that does not hold is written again."""
        busy = any(write.done_at_s is None for write in self._writes)
        if busy or now - self._last_write_done_s < REWRITE_S or not self.known:
            return []
        return [self._write(name, value, raises=False) for name, value in self._lowering()]

    def _oldest_asked_at_s(self) -> float | None:
        """When the setting as a whole was asked for; None where a part of it never answered."""
        times = [self._asked_at_s.get(point) for point in self._proofs()]
        known = [time for time in times if time is not None]
        return min(known) if known and len(known) == len(times) else None

    def _forget_writes(self, points: Mapping[str, Reading | Missing]) -> None:
        """Drop the writes that can change nothing any more, each by its own point."""
        self._writes = [
            write
            for write in self._writes
            if not (self._is_outlived(write) or self._is_in_force(write, points))
        ]

    def _is_outlived(self, write: _Write) -> bool:
        """True where its point was asked for after it must have taken effect."""
        asked_at_s = self._asked_at_s[self._proof_of(write.name)]
        delay_s = self._actuator.effect_delay_s
        return write.done_at_s is not None and asked_at_s >= write.done_at_s + delay_s

    def _is_in_force(self, write: _Write, points: Mapping[str, Reading | Missing]) -> bool:
        """True where the reading can only come from this write having taken effect."""
        shown = points.get(self._proof_of(write.name))
        return (
            write.provable
            and len(self._twins(write.name, write.value)) == 1
            and write.done_at_s is not None
            and isinstance(shown, Reading)
            and shown.asked_at_s >= write.done_at_s
            and shown.value == write.value
        )

    def _twins(self, name: str, value: float | str) -> list[_Write]:
        return [write for write in self._writes if (write.name, write.value) == (name, value)]

    @abstractmethod
    def _proof_of(self, command: str) -> str:
        """The point that shows what a command did."""

    @abstractmethod
    def _shown_by(self, point: str) -> float | str | None:
        """What that point showed last; None where it was never read."""

    def _notice_reset(self) -> list[LimiterEffect]:  # protocol R7
        if self.starting:
            return []
        setting_w = self._setting_w()
        if setting_w > self.bound_w and not self._reset_seen:
            self._reset_seen = True
            return [
                event(
                    Level.ERROR,
                    "hardware lets through more than was promised",
                    setting_w=setting_w,
                    bound_w=self.bound_w,
                    device=self._actuator.device,
                    remedy="it is set back; find out who or what else changes it",
                )
            ]
        if setting_w <= self.limit_w:
            self._reset_seen = False
        return []

    def _settle_bound(self, now: float) -> None:
        if self.starting or not self._actuator.keeps or self._reset_seen:
            self.bound_w = self._ceiling_w
        else:
            self.bound_w = min(self._ceiling_w, max(self.limit_w, self._possible_w()))


class PowerLimiter(Limiter):
    """A limit in W, written to a register and read back (`limit.realpower`)."""

    def __init__(self, actuator: Actuator, *, floor_w: int, ceiling_w: int, now: float) -> None:
        super().__init__(actuator, floor_w=floor_w, ceiling_w=ceiling_w, now=now)
        self._read_w: int | None = None  # base_w included
        self._shown: float | None = None  # as the register has it

    @property
    def next_w(self) -> int:
        return min(self.limit_w + 1, self._ceiling_w)

    def _take(self, points: Mapping[str, Reading | Missing], asked_at_s: float | None) -> None:
        match points.get(LIMIT_POINT):
            case Reading(value=(float() | int()) as value) as reading:
                self._shown = value
                self._read_w = math.ceil(value) + self._actuator.base_w
                self._asked_at_s[LIMIT_POINT] = reading.asked_at_s
            case Missing(absence=Absence.ABSENT):  # "no limit" is set
                self._shown = None
                self._read_w = self._ceiling_w
                if asked_at_s is not None:
                    self._asked_at_s[LIMIT_POINT] = asked_at_s

    def _proofs(self) -> tuple[str, ...]:
        return (LIMIT_POINT,)

    def _setting_w(self) -> int:
        return self._ceiling_w if self._read_w is None else self._read_w

    def _possible_w(self) -> int:
        written_w = [
            math.ceil(float(write.value)) + self._actuator.base_w for write in self._writes
        ]
        return max([self._setting_w(), *written_w])

    def _raise(self, granted_w: int, now: float) -> list[LimiterEffect]:
        self.limit_w = granted_w
        command = self._write(LIMIT_POINT, self._register_w(), raises=True)
        self._expect_raise(now)
        self._settle_bound(now)  # R5: the promise rises before the write
        return [command]

    def _lower(self, granted_w: int, now: float) -> list[LimiterEffect]:
        self.limit_w = granted_w
        self._expect_no_raise()
        command = self._write(LIMIT_POINT, self._register_w(), raises=False)
        self._settle_bound(now)
        return [command]

    def _lowering(self) -> list[tuple[str, float | str]]:
        if self._setting_w() <= self.limit_w:
            return []
        return [(LIMIT_POINT, self._register_w())]

    def _follow_setting(self) -> None:
        return

    def _register_w(self) -> int:
        return max(0, self.limit_w - self._actuator.base_w)

    def _proof_of(self, command: str) -> str:
        return LIMIT_POINT

    def _shown_by(self, point: str) -> float | str | None:
        return self._shown


class OutletLimiter(Limiter):
    """Outlets switched by priority: the lowest goes first and comes back last.

    `_on` is the set of outlets that should be on. Its steps are base_w plus the peaks
    from the highest priority down; nothing in between exists, so a limit is rounded
    down to one (R8).
    """

    def __init__(self, actuator: Actuator, *, floor_w: int, ceiling_w: int, now: float) -> None:
        super().__init__(actuator, floor_w=floor_w, ceiling_w=ceiling_w, now=now)
        ranked = sorted(actuator.outlets, key=lambda o: (-o.priority, o.number))
        self._outlets = {outlet.number: outlet for outlet in ranked}
        self._shown: dict[int, str] = {}  # status as last read
        self._on: set[int] = set(self._outlets)
        self._waiting: list[int] = []  # steps of a raise that are still to be switched
        self._step_at_s = now
        self._off_since_s: dict[int, float] = {}
        self._now_s = now

    @property
    def next_w(self) -> int:
        following = self._following(self._now_s)
        if following is None:
            return self.limit_w
        return min(self.limit_w + self._outlets[following].peak_w, self._ceiling_w)

    def wake(self, *, now: float) -> list[LimiterEffect]:
        self._now_s = now
        return super().wake(now=now)

    def next_wake(self) -> float | None:
        times = [self._ask_at_s, self._step_at_s if self._waiting else None]
        return min((time for time in times if time is not None), default=None)

    def _take(self, points: Mapping[str, Reading | Missing], asked_at_s: float | None) -> None:
        for number in self._outlets:
            point = _status(number)
            match points.get(point):
                case Reading(value=str() as word) as reading:
                    self._shown[number] = word
                    self._asked_at_s[point] = reading.asked_at_s

    def _proofs(self) -> tuple[str, ...]:
        return tuple(_status(number) for number in self._outlets)

    def _watts(self, numbers: set[int]) -> int:
        total_w = self._actuator.base_w + sum(self._outlets[n].peak_w for n in numbers)
        return min(total_w, self._ceiling_w)

    def _is_on(self, number: int) -> bool:
        return self._shown.get(number) != "off"  # unread or unknown: on

    def _setting_w(self) -> int:
        return self._watts({n for n in self._outlets if self._is_on(n)})

    def _possible_w(self) -> int:
        return self._watts(self._possibly_on())

    def _possibly_on(self) -> set[int]:
        """What is on or unread, what a write on its way switches on, and what waits its turn."""
        on = {n for n in self._outlets if self._is_on(n)}
        rising = {_number_of(write.name) for write in self._writes if write.raises}
        return on | rising | set(self._waiting)

    def _following(self, now: float) -> int | None:
        """The next outlet that would come back; None where it must rest or all are on."""
        for number, outlet in self._outlets.items():
            if number not in self._on:
                off_since_s = self._off_since_s.get(number, float("-inf"))
                return number if now - off_since_s >= outlet.min_off_s else None
        return None

    def _raise(self, granted_w: int, now: float) -> list[LimiterEffect]:
        """One step up after the other, as long as the promise stays within what was granted.

        An outlet that is to be off and is still on counts too: the broker reserved the
        larger of the promise and the grant, not what both may come to together.
        """
        self._now_s = now
        while (number := self._following(now)) is not None:
            if self._watts(self._on | self._possibly_on() | {number}) > granted_w:
                break
            self._on.add(number)
            self._waiting.append(number)
        if not self._waiting:
            return []
        self.limit_w = self._watts(self._on)
        self._settle_bound(now)  # R5: the promise rises before the first step
        return self._advance(now)

    def _advance(self, now: float) -> list[LimiterEffect]:
        if not self._waiting or now < self._step_at_s:
            return []
        number = self._waiting.pop(0)
        self._step_at_s = now + self._actuator.stagger_s
        command = self._write(_load(number), "on", raises=True)
        self._expect_raise(now)
        self._settle_bound(now)
        return [command]

    def _lower(self, granted_w: int, now: float) -> list[LimiterEffect]:
        self._now_s = now
        for number in self._waiting:  # R8: steps that were not taken are dropped
            self._on.discard(number)
        self._waiting.clear()
        for number in reversed(self._outlets):
            if self._watts(self._on) <= granted_w:
                break
            if number in self._on:
                self._on.discard(number)
                self._off_since_s[number] = now
        self.limit_w = self._watts(self._on)
        self._expect_no_raise()
        commands = [
            self._write(_load(n), "off", raises=False)
            for n in reversed(self._outlets)
            if n not in self._on and (self._is_on(n) or self._rises(n))
        ]
        self._settle_bound(now)
        return list(commands)

    def _rises(self, number: int) -> bool:
        return any(w.raises and w.name == _load(number) for w in self._writes)

    def _lowering(self) -> list[tuple[str, float | str]]:
        return [
            (_load(n), "off")
            for n in reversed(self._outlets)
            if n not in self._on and self._is_on(n)
        ]

    def _follow_setting(self) -> None:
        self._on = {n for n in self._outlets if self._is_on(n)}

    def _notice_lost_raise(self, asked_at_s: float) -> list[LimiterEffect]:
        if self._waiting:  # the raise is not over
            return []
        return super()._notice_lost_raise(asked_at_s)

    def read(
        self,
        points: Mapping[str, Reading | Missing],
        *,
        now: float,
        asked_at_s: float | None = None,
    ) -> list[LimiterEffect]:
        self._now_s = now
        was_known = self.known
        effects = super().read(points, now=now, asked_at_s=asked_at_s)
        if self.known and not was_known:
            self._follow_setting()
            self.limit_w = self._watts(self._on)
            self._settle_bound(now)
        return effects

    def _proof_of(self, command: str) -> str:
        return _status(_number_of(command))

    def _shown_by(self, point: str) -> float | str | None:
        return self._shown.get(_number_of(point))


class NoLimiter(Limiter):
    """Advice only: nothing is written, and the ceiling is all that can be promised."""

    def limit(self, granted_w: int, *, may_raise: bool, now: float) -> list[LimiterEffect]:
        return []

    def lower_to_floor(self, *, now: float) -> list[LimiterEffect]:
        return []

    def read(
        self,
        points: Mapping[str, Reading | Missing],
        *,
        now: float,
        asked_at_s: float | None = None,
    ) -> list[LimiterEffect]:
        return []

    def wake(self, *, now: float) -> list[LimiterEffect]:
        self.starting = False
        return []

    @property
    def next_w(self) -> int:
        return self.limit_w

    def _take(self, points: Mapping[str, Reading | Missing], asked_at_s: float | None) -> None:
        return

    def _proofs(self) -> tuple[str, ...]:
        return ()

    def _setting_w(self) -> int:
        return self._ceiling_w

    _possible_w = _setting_w

    def _raise(self, granted_w: int, now: float) -> list[LimiterEffect]:
        return []

    _lower = _raise

    def _follow_setting(self) -> None:
        return

    def _lowering(self) -> list[tuple[str, float | str]]:
        return []

    def _proof_of(self, command: str) -> str:
        return ""

    def _shown_by(self, point: str) -> float | str | None:
        return None


def limiter_of(actuator: Actuator, *, floor_w: int, ceiling_w: int, now: float) -> Limiter:
    """The limiter for the kind of hardware that the site file names."""
    kinds: dict[ActuatorKind, type[Limiter]] = {
        "power-limit": PowerLimiter,
        "outlets": OutletLimiter,
        "none": NoLimiter,
    }
    return kinds[actuator.kind](actuator, floor_w=floor_w, ceiling_w=ceiling_w, now=now)


def _load(number: int) -> str:
    return f"outlet.{number}.load"


def _status(number: int) -> str:
    return f"outlet.{number}.status"


def _number_of(command: str) -> int:
    return int(command.split(".")[1])
