"""The kinds of hardware behind a limit: a register, outlets, or nothing.

What they share is in `limiter`: when something is written, and what may be promised
meanwhile. Here is what each reads, what its setting lets through, and which writes
bring it up or down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from drivers.reading import Absence, Missing, Reading
from firmware_py.limiter import Limiter, LimiterEffect
from firmware_py.site_types import Actuator, ActuatorKind

LIMIT_POINT = "limit.realpower"


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
