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

Three kinds of hardware share these rules (`limiter_kinds`): a power limit in a register,
outlets switched by priority, and none at all (bound = ceiling).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

from broker.effects import Event, Level, event
from drivers.reading import Executed, Missing, Reading
from firmware_py.site_types import Actuator

WRITES_MAX = 64  # of numbers; above it the two oldest count as one, at the larger of them
REWRITE_S = 1.0  # pause before a lowering that does not hold is written again


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
            for write in self._without_twins(done.id)
        ]
        self._merge_oldest()
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

    def _without_twins(self, finished_id: int) -> list[_Write]:
        """Without the finished writes of the same value: a later one outlasts them.

        Hardware that takes writes and does not say its setting is written again and again.
        """
        last = next((write for write in self._writes if write.id == finished_id), None)
        if last is None:
            return self._writes
        older = [w for w in self._twins(last.name, last.value) if w.done_at_s is not None]
        return [write for write in self._writes if write not in older]

    def _merge_oldest(self) -> None:
        finished = [w for w in self._writes if w.done_at_s is not None]
        if len(finished) <= WRITES_MAX:
            return
        first, second = finished[:2]
        if isinstance(first.value, str) or isinstance(second.value, str):
            return  # of outlets: two of each are all there can be
        larger = max(first.value, second.value)
        self._writes.remove(first)
        self._writes = [
            replace(second, value=larger, provable=False) if write is second else write
            for write in self._writes
        ]

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
