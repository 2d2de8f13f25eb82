"""The demo: a cap is held while it falls, while the broker dies and the MQTT server forgets.

    0        every rack has reported; the hardware is at its floors
    S/3      the room's cap falls by a fifth
    S/2      the broker's process is killed
    2S/3     the MQTT server is killed and comes back empty, away for half a second
    5S/6     the killed controller is started again
    S        the end

One event loop runs the plant (ten steps a second), the emulated devices and the script.
Controllers and the MQTT server are processes of their own. Whatever happens, Ctrl-C
included, every one of them is ended by its id and the folder they worked in is removed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from hil.devices import Devices
from hil.judge import Events, Sample, reserved_w
from hil.mosquitto import MqttServer
from hil.plant import Plant, Watts
from hil.rack import Controller
from hil.report import Mark
from hil.room import Room, site_toml
from hil.wiretap import Heard, Wiretap

STEP_S = 0.1
TICK_S = 1.0
START_TIMEOUT_S = 60.0
GRACE_S = 4.0  # from SIGTERM to SIGKILL
MQTT_AWAY_S = 0.5
BEAT_FRESH_S = 3.0
BROKER_TIMEOUT_S = 5.0  # to find somebody to kill
PROFILES = Path(__file__).parent / "profiles"


class NotStarted(Exception):
    """Something that the demo needs did not start; the text carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When what happens, in seconds after time 0."""

    fall_s: float
    kill_s: float
    restart_s: float
    return_s: float
    end_s: float

    @classmethod
    def over(cls, seconds: float) -> Schedule:
        return cls(seconds / 3, seconds / 2, seconds * 2 / 3, seconds * 5 / 6, seconds)

    def coming(self, now_s: float) -> str:
        """What comes next, in words."""
        ahead = (
            (self.fall_s, "the cap falls by a fifth"),
            (self.kill_s, "the broker's process is killed"),
            (self.restart_s, "the MQTT server restarts without its memory"),
            (self.return_s, "the killed controller comes back"),
            (self.end_s, "the end"),
        )
        for at_s, text in ahead:
            if now_s < at_s:
                return f"{text}, in {at_s - now_s:.0f} s"
        return "the end"


class Viewer(Protocol):
    """Who shows the run while it goes on."""

    def event(self, time_s: float, text: str) -> None: ...

    def step(self, sample: Sample, heard: Heard, dead: frozenset[str], coming: str) -> None: ...


@dataclass(slots=True)
class Recording:
    """What is left when the run is over."""

    samples: list[Sample] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    events: Events = field(default_factory=Events)
    faults: list[str] = field(default_factory=list)


async def run(
    room: Room,
    *,
    seconds: float,
    seed: int,
    mqtt_server: str,
    viewer: Viewer,
    say: Callable[[str], None],
) -> Recording:
    """The whole demo. NotStarted or MqttServerError: something does not come up."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattbroker-")))
        server = MqttServer(mqtt_server, folder)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        await asyncio.to_thread(server.start)
        plant = Plant(room, seed=seed)
        devices = Devices(plant)
        stack.push_async_callback(devices.stop)
        await devices.start()
        wiretap = Wiretap(server.port)
        stack.callback(wiretap.stop)
        wiretap.start()
        site = _write_site(folder, room, server.port, devices)
        controllers = {rack.name: Controller(rack.name, site, folder) for rack in room.racks}
        stage = _Stage(room, Schedule.over(seconds), plant, server, wiretap, controllers, viewer)
        turning = asyncio.create_task(stage.turn())
        # The last to be entered is the first to end: the controllers before their devices.
        stack.push_async_callback(_cancelled, turning)
        stack.push_async_callback(asyncio.to_thread, _end, list(controllers.values()))
        stack.callback(stage.close)
        say(f"{len(controllers)} controllers start; MQTT server: {server.kind}")
        await stage.start_controllers()
        await stage.play()
        return stage.recording


def _write_site(folder: Path, room: Room, port: int, devices: Devices) -> Path:
    shutil.copytree(PROFILES, folder / "profiles")
    site = folder / "site.toml"
    site.write_text(site_toml(room, mqtt_port=port, urls=devices.urls()))
    return site


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _end(controllers: list[Controller]) -> None:
    """SIGTERM to all, one grace period for all of them, then SIGKILL."""
    for controller in controllers:
        controller.terminate()
    deadline_s = time.monotonic() + GRACE_S
    for controller in controllers:
        controller.wait_or_kill(max(0.0, deadline_s - time.monotonic()))


class _Stage:
    """The running demo: `turn` moves the plant and records, `play` makes things happen."""

    def __init__(
        self,
        room: Room,
        schedule: Schedule,
        plant: Plant,
        server: MqttServer,
        wiretap: Wiretap,
        controllers: dict[str, Controller],
        viewer: Viewer,
    ) -> None:
        self.recording = Recording()
        self._room = room
        self._schedule = schedule
        self._plant = plant
        self._server = server
        self._wiretap = wiretap
        self._controllers = controllers
        self._viewer = viewer
        self._cap_w = room.cap_w
        self._zero_s: float | None = None  # monotonic; None until every rack has reported
        self._over = False
        self._dead_on_purpose: str | None = None

    # What goes on all the time

    async def turn(self) -> None:
        """Step the plant, tell the cap every tick, record from time 0 on; until cancelled."""
        started_s = next_s = next_tick_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            watts = self._plant.step(now_s - started_s)
            if now_s >= next_tick_s:
                self._wiretap.set_cap(self._cap_w)
                next_tick_s += TICK_S
            if self._zero_s is not None and not self._over:
                self._record(watts, now_s)
            next_s = max(next_s + STEP_S, now_s)
            await asyncio.sleep(next_s - now_s)

    def _record(self, watts: Watts, now_s: float) -> None:
        heard = self._wiretap.heard()
        dead = frozenset(name for name, c in self._controllers.items() if not c.alive)
        self._look_for_new_broker(heard)
        self._look_for_unplanned_deaths(dead)
        sample = self._sample(watts, heard, dead, now_s)
        self.recording.samples.append(sample)
        self._viewer.step(sample, heard, dead, self._schedule.coming(sample.time_s))

    def _sample(self, watts: Watts, heard: Heard, dead: frozenset[str], now_s: float) -> Sample:
        fresh = now_s - heard.broker_at_s < BEAT_FRESH_S and heard.broker not in dead
        return Sample(
            time_s=now_s - (self._zero_s or now_s),
            cap_w=self._cap_w,
            total_w=watts.total_w,
            demand_w=watts.demand_w,
            draw_w=watts.draw_w,
            limit_w=watts.limit_w,
            row_share={
                row: sum(watts.draw_w[r.name] for r in self._room.racks if r.row == row)
                / self._room.row_cap_w
                for row in self._room.rows
            },
            reserved_w=self._reserved_w(heard, dead),
            broker=heard.broker if fresh else None,
            tripped=watts.tripped,
        )

    def _reserved_w(self, heard: Heard, dead: frozenset[str]) -> dict[str, float]:
        reserved = {}
        for rack in self._room.racks:
            report = heard.reports.get(rack.name)
            held_w = reserved_w(
                dead=rack.name in dead,
                ceiling_w=rack.ceiling_w,
                bound_w=report.bound_w if report else None,
                limit_w=report.limit_w if report else None,
                published_w=heard.reserve_w.get(rack.name),
            )
            if held_w is not None:
                reserved[rack.name] = held_w
        return reserved

    def _look_for_new_broker(self, heard: Heard) -> None:
        events = self.recording.events
        if events.kill_s is None or events.new_broker_s is not None:
            return
        at_s = self._since_zero(heard.broker_at_s)
        if heard.broker != events.killed and at_s > events.kill_s:
            self._happened(f"{heard.broker} is the new broker", new_broker_s=at_s)

    def _look_for_unplanned_deaths(self, dead: frozenset[str]) -> None:
        for name in dead - {self._dead_on_purpose}:
            fault = f"the controller of {name} ended by itself"
            if not any(fault in known for known in self.recording.faults):
                controller = self._controllers[name]
                self.recording.faults.append(
                    f"{fault} (exit {controller.exit_code}):\n{controller.log_tail()}"
                )
                self._mark(fault)

    # What happens once

    async def start_controllers(self) -> None:
        """`init`, `run`, and the first report of each; this is time 0."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        for controller in self._controllers.values():
            controller.init()
        await self._until(self._all_ended, deadline_s, "did not finish `init`")
        self._refuse_if(lambda c: c.exit_code != 0, "refused `init`")
        for controller in self._controllers.values():
            controller.run()
        await self._until(self._all_reported, deadline_s, "did not report")
        self._zero_s = time.monotonic()
        self._mark("every rack has reported")

    async def play(self) -> None:
        """The script, from time 0 to the end."""
        schedule = self._schedule
        await self._at(schedule.fall_s)
        self._cap_w = self._room.cap_after_w
        self._wiretap.set_cap(self._cap_w)
        self._happened("the cap falls by a fifth", fall_s=self._time_s())
        await self._at(schedule.kill_s)
        killed = await self._kill_the_broker()
        await self._at(schedule.restart_s)
        self._server.kill()
        self._happened("the MQTT server has lost its memory", restart_s=self._time_s())
        await asyncio.sleep(MQTT_AWAY_S)
        await asyncio.to_thread(self._server.start)
        await self._at(schedule.return_s)
        if killed is not None:
            self._controllers[killed].run()
            self._dead_on_purpose = None
            self._happened(f"{killed} is started again", return_s=self._time_s())
        await self._at(schedule.end_s)
        self.close()
        self._mark("the end")

    def close(self) -> None:
        """Record no more: what the controllers do while they are ended is not judged."""
        self._over = True

    async def _kill_the_broker(self) -> str | None:
        """SIGKILL to whoever beats; its name. None: nobody was broker."""
        deadline_s = time.monotonic() + BROKER_TIMEOUT_S
        while time.monotonic() < deadline_s:
            heard = self._wiretap.heard()
            fresh = time.monotonic() - heard.broker_at_s < BEAT_FRESH_S
            controller = self._controllers.get(heard.broker or "")
            if fresh and controller is not None and controller.alive:
                self._dead_on_purpose = controller.rack
                controller.kill()
                self._happened(
                    f"{controller.rack}, the broker, is killed",
                    kill_s=self._time_s(),
                    killed=controller.rack,
                )
                return controller.rack
            await asyncio.sleep(STEP_S)
        self.recording.faults.append("nobody was broker when the broker was to be killed")
        return None

    # Small things

    def _since_zero(self, monotonic_s: float) -> float:
        assert self._zero_s is not None
        return monotonic_s - self._zero_s

    def _time_s(self) -> float:
        return self._since_zero(time.monotonic())

    async def _at(self, time_s: float) -> None:
        await asyncio.sleep(max(0.0, time_s - self._time_s()))

    def _mark(self, text: str) -> None:
        time_s = self._time_s()
        self.recording.marks.append((time_s, text))
        self._viewer.event(time_s, text)

    def _happened(self, text: str, **instants: float | str) -> None:
        self.recording.events = replace(self.recording.events, **instants)  # type: ignore[arg-type]
        self._mark(text)

    def _all_ended(self) -> set[str]:
        return {name for name, c in self._controllers.items() if c.alive}

    def _all_reported(self) -> set[str]:
        self._refuse_if(lambda c: not c.alive, "ended before it reported")
        return set(self._controllers) - set(self._wiretap.heard().reports)

    async def _until(self, missing: Callable[[], set[str]], deadline_s: float, what: str) -> None:
        while racks := missing():
            if time.monotonic() > deadline_s:
                raise NotStarted(self._logs(sorted(racks), f"{what} in {START_TIMEOUT_S:.0f} s"))
            await asyncio.sleep(STEP_S)

    def _refuse_if(self, bad: Callable[[Controller], bool], what: str) -> None:
        racks = [name for name, c in self._controllers.items() if bad(c)]
        if racks:
            raise NotStarted(self._logs(racks, what))

    def _logs(self, racks: list[str], what: str) -> str:
        first = self._controllers[racks[0]]
        return f"{', '.join(racks)} {what}. The end of the log of {first.rack}:\n{first.log_tail()}"
