"""The hardware of a rack in a transcript, and the way to it as one process has it.

Hardware keeps its last setting whatever becomes of the controllers, and acts
`acts_after_s` after a write has arrived. The script decides what the device answers:
nothing at all, no answer to the next write, or a write that never arrives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from script_clock import ScriptClock

from drivers.reading import Absence, Executed, Missing, Reading, Snapshot
from firmware_py.controller import DeviceRead
from firmware_py.limiter import Command, CommandDone
from firmware_py.site_types import Outlet, Rack

ANSWER_S = 0.02
TIMEOUT_S = 0.4
LIMIT = "limit.realpower"
DRAW = "input.realpower"
Fact = DeviceRead | CommandDone


class Hardware:
    """A power limit in a register, or outlets: whichever the rack has."""

    def __init__(self, rack: Rack, holds_w: int, clock: ScriptClock) -> None:
        self.rack = rack
        self.clock = clock
        self.load_w = rack.ceiling_w
        self.acts_after_s = 0.1
        self.mute = False  # answers nothing
        self.stuck = False  # answers, and keeps its setting
        self.next_write = ""  # "answer-lost", "lost" or "refused"
        self.changed: Callable[[int, bool], None] = lambda before_w, ours: None
        self._last_effect_s = 0.0
        self._setting: dict[str, float | str] = {}
        if rack.actuator.kind == "outlets":
            for outlet in _ranked(rack):
                holds_w -= outlet.peak_w
                on = holds_w >= rack.actuator.base_w
                self._setting[f"outlet.{outlet.number}.status"] = "on" if on else "off"
        else:
            self._setting[LIMIT] = float(holds_w - rack.actuator.base_w)

    @property
    def lets_through_w(self) -> int:
        base_w = self.rack.actuator.base_w
        if LIMIT in self._setting:
            return min(int(float(self._setting[LIMIT])) + base_w, self.rack.ceiling_w)
        on = [o for o in self.rack.actuator.outlets if self._status(o.number) == "on"]
        return base_w + sum(outlet.peak_w for outlet in on)

    def points(self) -> dict[str, float | str]:
        return {**self._setting, DRAW: float(min(self.load_w, self.lets_through_w))}

    def write(self, command: Command) -> None:
        if self.stuck:
            return
        at_s = max(self.clock.now + self.acts_after_s, self._last_effect_s)
        self._last_effect_s = at_s  # one after the other
        self.clock.at(at_s, lambda: self._set(proof_of(command.name), command.value, True))

    def reset(self) -> None:
        """The device has forgotten its setting: everything is let through."""
        for point in self._setting:
            value = float(self.rack.ceiling_w) if point == LIMIT else "on"
            self._set(point, value, False)

    def unplug(self) -> None:
        """Somebody has pulled the plug, or turned it down by hand."""
        for point in self._setting:
            self._set(point, 0.0 if point == LIMIT else "off", False)

    def _status(self, number: int) -> float | str:
        return self._setting[f"outlet.{number}.status"]

    def _set(self, point: str, value: float | str, ours: bool) -> None:
        before_w = self.lets_through_w
        self._setting[point] = value
        self.changed(before_w, ours)


class Line:
    """One process' way to the device: one thing at a time, commands before polls."""

    def __init__(self, hardware: Hardware, put: Callable[[Fact], None]) -> None:
        self._hardware = hardware
        self._clock = hardware.clock
        self._put = put
        self._poll_s = hardware.rack.devices[0].poll_s
        self._poll_at_s = self._clock.now
        self._commands: deque[Command] = deque()
        self._busy = False
        self._closed = False

    def open(self) -> None:
        self._next()

    def close(self) -> None:
        """The process is gone; what it wrote is not."""
        self._closed = True

    def submit(self, command: Command) -> None:
        """A lowering one overtakes the raises that wait, and says so."""
        waiting = [] if command.raises else [c for c in self._commands if c.raises]
        for overtaken in waiting:
            self._commands.remove(overtaken)
            dropped = CommandDone(overtaken.id, None, self._clock.now)
            self._later(0.0, partial(self._put, dropped))
        self._commands.append(command)
        self._later(0.0, self._next)

    def poll_now(self) -> None:
        self._poll_at_s = self._clock.now
        self._later(0.0, self._next)

    def _next(self) -> None:
        if self._busy:
            return
        if self._commands:
            self._busy = True
            self._execute(self._commands.popleft())
        elif self._clock.now >= self._poll_at_s:
            self._busy = True
            self._poll_at_s = self._clock.now + self._poll_s
            self._later(self._poll_s, self._next)
            asked_at_s = self._clock.now
            names = list(self._hardware.points())
            self._ask(names, lambda points: self._polled(asked_at_s, points))

    def _polled(self, asked_at_s: float, points: dict[str, Reading | Missing]) -> None:
        snapshot = Snapshot(asked_at_s, self._clock.now, points)
        self._finish(DeviceRead("pdu", snapshot))

    def _execute(self, command: Command) -> None:
        sent_at_s = self._clock.now
        fate, self._hardware.next_write = self._hardware.next_write, ""
        if self._hardware.mute:
            fate = "lost"
        if fate in ("", "answer-lost"):  # on its way: a crash of ours does not stop it
            self._clock.after(ANSWER_S / 2, lambda: self._hardware.write(command))
        lost = fate in ("lost", "answer-lost")
        absence = Absence.TIMEOUT if lost else Absence.REFUSED if fate else None

        def answered() -> None:
            done_at_s = self._clock.now
            point = proof_of(command.name)

            def proven(points: dict[str, Reading | Missing]) -> None:
                executed = Executed(
                    command.name, command.value, sent_at_s, done_at_s, absence, fate, points[point]
                )
                self._finish(CommandDone(command.id, executed, done_at_s))

            self._ask([point], proven)

        self._later(TIMEOUT_S if lost else ANSWER_S, answered)

    def _ask(self, names: list[str], then: Callable[[dict[str, Reading | Missing]], None]) -> None:
        asked_at_s = self._clock.now
        if self._hardware.mute:
            silence: dict[str, Reading | Missing] = {
                name: Missing(name, Absence.TIMEOUT) for name in names
            }
            self._later(TIMEOUT_S, lambda: then(silence))
            return

        def answered() -> None:
            shown = self._hardware.points()
            then(
                {name: Reading(name, shown[name], "", asked_at_s, self._clock.now)
                 for name in names}
            )  # fmt: skip

        self._later(ANSWER_S, answered)

    def _finish(self, fact: Fact) -> None:
        self._busy = False
        self._put(fact)
        self._next()

    def _later(self, delay_s: float, happening: Callable[[], None]) -> None:
        self._clock.after(delay_s, lambda: None if self._closed else happening())


def proof_of(command: str) -> str:
    return command.replace(".load", ".status")


def _ranked(rack: Rack) -> list[Outlet]:
    return sorted(rack.actuator.outlets, key=lambda o: (-o.priority, o.number))
