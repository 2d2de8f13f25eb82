"""The way to a device as one process has it: one thing at a time, as the poller does it.

Commands go before polls; a lowering one drops the raises that wait. Answers get lost,
come before the effect, or come in part. What is told to the process is dated by its own
clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from sim_hardware import Hardware
from sim_timeline import LocalClock, Timeline
from sim_weather import Weather

from drivers.reading import Absence, Executed, Missing, Reading, Snapshot
from firmware_py.controller import DeviceRead
from firmware_py.limiter import Command, CommandDone

TIMEOUT_S = 0.4


class DevicePort:
    def __init__(
        self,
        hardware: Hardware,
        timeline: Timeline,
        weather: Weather,
        rng: Random,
        clock: LocalClock,
        put: Callable[[DeviceRead | CommandDone], None],
        note: Callable[[str], None],
    ) -> None:
        self._hardware = hardware
        self._timeline = timeline
        self._weather = weather
        self._rng = rng
        self._clock = clock
        self._put = put
        self._note = note
        self._commands: deque[Command] = deque()
        self._busy = False
        self._poll_at_s = timeline.now
        self._closed = False

    def open(self) -> None:
        self._next()

    def close(self) -> None:
        """The process is gone; what it wrote is not."""
        self._closed = True

    def submit(self, command: Command) -> None:
        if not command.raises:
            for waiting in [c for c in self._commands if c.raises]:
                self._commands.remove(waiting)
                dropped = CommandDone(waiting.id, None, self._clock.now())
                self._later(0.0, lambda done=dropped: self._put(done))
        self._commands.append(command)
        self._later(0.0, self._next)

    def poll_now(self) -> None:
        self._poll_at_s = self._timeline.now
        self._later(0.0, self._next)

    # ---- one thing at a time ---------------------------------------------------

    def _next(self) -> None:
        if self._busy:
            return
        now = self._timeline.now
        if self._commands:
            self._busy = True
            self._execute(self._commands.popleft())
        elif now >= self._poll_at_s:
            self._busy = True
            self._poll_at_s = now + self._hardware.rack.devices[0].poll_s
            self._poll()
            self._timeline.at(self._poll_at_s, self._next_if_open)

    def _next_if_open(self) -> None:
        if not self._closed:
            self._next()

    def _execute(self, command: Command) -> None:
        sent_at_s = self._clock.now()
        fate = self._fate()
        timed_out = fate in ("answer lost", "write lost")
        takes_s = TIMEOUT_S if timed_out else self._rng.uniform(0.002, 0.03)
        if fate in ("", "answer lost"):
            arrives_s = self._rng.uniform(0.0, takes_s)
            self._timeline.after(  # on its way: a crash of ours does not stop it
                arrives_s, lambda: self._hardware.write(command.name, command.value, self._weather)
            )

        def answered() -> None:
            done_at_s = self._clock.now()
            absence = {"": None, "refused": Absence.REFUSED}.get(fate, Absence.TIMEOUT)

            def proven(points: dict[str, Reading | Missing]) -> None:
                proof = points[self._proof_of(command)]
                executed = Executed(
                    command.name, command.value, sent_at_s, done_at_s, absence, fate, proof
                )
                self._finish(CommandDone(command.id, executed, done_at_s))

            self._ask([self._proof_of(command)], proven)

        self._later(takes_s, answered)

    def _poll(self) -> None:
        asked_at_s = self._clock.now()
        names = list(self._hardware.settings())
        half = len(names) // 2

        def first(points: dict[str, Reading | Missing]) -> None:
            def second(more: dict[str, Reading | Missing]) -> None:
                snapshot = Snapshot(asked_at_s, self._clock.now(), points | more)
                self._finish(DeviceRead("pdu", snapshot))

            self._ask([*names[half:], "input.realpower"], second)

        if half:
            self._ask(names[:half], first)
        else:
            first({})

    def _ask(self, names: list[str], then: Callable[[dict[str, Reading | Missing]], None]) -> None:
        """One request: the values are true some time between asking and answer."""
        asked_at_s = self._clock.now()
        if self._rng.random() < self._weather.poll_lost:
            self._note("poll lost")
            lost: dict[str, Reading | Missing] = {
                name: Missing(name, Absence.TIMEOUT) for name in names
            }
            self._later(TIMEOUT_S, lambda: then(lost))
            return
        values: dict[str, float | str | None] = {}

        def look() -> None:
            shown = {**self._hardware.settings(), "input.realpower": self._hardware.shown_draw_w}
            values.update({name: shown[name] for name in names})

        def answered() -> None:
            taken_at_s = self._clock.now()
            then(
                {
                    name: Missing(name, Absence.REFUSED)
                    if value is None or self._rng.random() < self._weather.point_lost
                    else Reading(name, value, "", asked_at_s, taken_at_s)
                    for name, value in values.items()
                }
            )

        takes_s = self._rng.uniform(0.002, 0.03)
        self._later(self._rng.uniform(0.0, takes_s), look)
        self._later(takes_s, answered)

    # ---- leaves ----------------------------------------------------------------

    def _fate(self) -> str:
        roll = self._rng.random()
        for fate in ("answer lost", "write lost", "write refused"):
            roll -= getattr(self._weather, fate.replace(" ", "_"))
            if roll < 0:
                self._note(fate)
                return fate.replace("write refused", "refused")
        return ""

    def _proof_of(self, command: Command) -> str:
        return command.name.replace(".load", ".status")

    def _finish(self, fact: DeviceRead | CommandDone) -> None:
        self._busy = False
        self._put(fact)
        self._next()

    def _later(self, delay_s: float, happening: Callable[[], None]) -> None:
        def unless_closed() -> None:
            if not self._closed:
                happening()

        self._timeline.after(delay_s, unless_closed)
