"""Chaos on real processes: a plan of faults is carried out, and the plant judges.

One event loop runs the plant, the emulated devices, a proxy for each controller and the
plan. Controllers and the MQTT server are processes of their own. Time 0 is when every
rack has reported and the cap is in use.

Some things are never done, since physics and not the protocol would be tested:

- The cap never falls below what fits: the racks that nobody can move now (their process
  or their devices do not answer) at the most they may hold, all others at their floors.
  Nor is a rack made one of them where that would not fit.
- Two controllers at least are left able to lead.

A controller that ends without our doing counts against the run, and is started again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from hil.chaos_judge import ABLE_MIN, LEASE_S, FloorFall, Injected, Sample
from hil.chaos_watch import Watch
from hil.devices import Devices
from hil.faults import BROKER, HOLDS_SETTING, OF_CLOCK, OF_DEVICE, CapChange, Fault, Plan
from hil.mosquitto import MqttServer
from hil.plant import Plant
from hil.proxy import Proxy
from hil.rack import Controller
from hil.room import Room, site_toml
from hil.scenario import PROFILES, NotStarted
from hil.ward import STEPPED_CLOCK, Ward, clock_file, set_clock
from hil.wiretap import Wiretap

STEP_S = 0.1
TRACE = "mqtt.log"
TICK_S = 1.0
START_TIMEOUT_S = 60.0
WARM_SHARE = 0.85  # of the cap in use at time 0
WARM_TIMEOUT_S = 30.0
VICTIM_TIMEOUT_S = 5.0  # to find one; then the fault is left out
ALONE_TIMEOUT_S = 12.0  # to find everyone back
GRACE_S = 4.0  # from SIGTERM to SIGKILL
FIT_MARGIN = 1.02

Say = Callable[[float, str], None]


@dataclass(slots=True)
class Recording:
    """What is left when the run is over."""

    samples: list[Sample] = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    fell: list[FloorFall] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # reasons that no sample shows
    zero_s: float = 0.0  # time 0 on the machine's monotonic clock
    step_s_max: float = 0.0  # the longest step of the plant: how busy this machine was


async def run(room: Room, plan: Plan, *, say: Say, folder: Path | None = None) -> Recording:
    """The whole run. NotStarted or MqttServerError: something does not come up.

    `folder`: where logs and journals stay, and every message (`mqtt.log`); None: in one
    that is removed.
    """
    async with AsyncExitStack() as stack:
        keeps, trace = folder is not None, None
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattbroker-")))
        folder.mkdir(parents=True, exist_ok=True)
        server = MqttServer("mosquitto", folder, remembers=True)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        await asyncio.to_thread(server.start)
        plant = Plant(room, seed=plan.seed)
        devices = Devices(plant)
        stack.push_async_callback(devices.stop)
        await devices.start()
        proxies = {rack.name: Proxy(server.port) for rack in room.racks}
        for proxy in proxies.values():
            stack.push_async_callback(proxy.stop)
            await proxy.start()
        if keeps:
            trace = stack.enter_context((folder / TRACE).open("w"))
        wiretap = Wiretap(server.port, reconnect_s=0.1, trace=trace)
        stack.callback(wiretap.stop)
        wiretap.start()
        controllers = _controllers(folder, room, devices, proxies)
        ward = Ward(server, devices, controllers, proxies, Random(plan.seed))
        chaos = _Chaos(room, plan, plant, ward, wiretap, say)
        stack.push_async_callback(chaos.stop)
        # The last to be entered is the first to end: the controllers before their devices.
        stack.push_async_callback(asyncio.to_thread, _end, list(controllers.values()))
        stack.callback(chaos.close)
        await chaos.start()
        await chaos.play()
        return chaos.recording


def _controllers(
    folder: Path, room: Room, devices: Devices, proxies: dict[str, Proxy]
) -> dict[str, Controller]:
    """Each with a site file of its own, which differs in the port of its proxy alone."""
    if not (STEPPED_CLOCK / "sitecustomize.py").is_file():
        raise NotStarted(f"{STEPPED_CLOCK} is missing: run it from the source tree")
    shutil.copytree(PROFILES, folder / "profiles", dirs_exist_ok=True)
    path = os.pathsep.join(filter(None, [str(STEPPED_CLOCK), os.environ.get("PYTHONPATH", "")]))
    controllers = {}
    for rack in room.racks:
        site = folder / f"site-{rack.name}.toml"
        text = site_toml(
            room,
            mqtt_port=proxies[rack.name].port,
            urls=devices.urls(),
            outlets_ttl_s=LEASE_S,
            clock_trusted=True,  # or nobody would notice that it goes wrong
        )
        site.write_text(text)
        environment = {
            "PYTHONPATH": path,
            "CLOCK_STEP_FILE": str(folder / f"{rack.name}.clock"),
        }
        controller = Controller(rack.name, site, folder, environment=environment)
        assert str(clock_file(controller)) == environment["CLOCK_STEP_FILE"]
        set_clock(controller, 0)
        controllers[rack.name] = controller
    return controllers


def _end(controllers: list[Controller]) -> None:
    """Every controller, the stopped ones too."""
    for controller in controllers:
        controller.go_on()
        controller.terminate()
    deadline_s = time.monotonic() + GRACE_S
    for controller in controllers:
        controller.wait_or_kill(max(0.0, deadline_s - time.monotonic()))


class _Chaos:
    """`_turn` moves the plant and records, `play` makes things happen."""

    def __init__(
        self, room: Room, plan: Plan, plant: Plant, ward: Ward, wiretap: Wiretap, say: Say
    ) -> None:
        self.recording = Recording()
        self._room = room
        self._plan = plan
        self._plant = plant
        self._ward = ward
        self._wiretap = wiretap
        self._say = say
        self._cap_w = room.cap_w
        self._watch = Watch(room, ward, wiretap)
        self._zero_s: float | None = None  # on the loop's clock
        self._over = False
        self._turning: asyncio.Task[None] | None = None
        self._suffering: set[asyncio.Task[None]] = set()

    # What goes on all the time

    async def _turn(self) -> None:
        """Step the plant, tell the cap every tick, record; until cancelled."""
        loop = asyncio.get_running_loop()
        started_s = next_s = next_tick_s = last_s = loop.time()
        while True:
            now_s = loop.time()
            watts = self._plant.step(now_s - started_s)
            if now_s >= next_tick_s:
                self._wiretap.set_cap(self._cap_w)
                next_tick_s += TICK_S
            if self._zero_s is not None and not self._over:
                self._look_for_unplanned_deaths()
                sample = self._watch.sample(watts, self._cap_w, now_s, self._zero_s)
                self.recording.samples.append(sample)
                self._note_falls(now_s)
                self.recording.step_s_max = max(self.recording.step_s_max, now_s - last_s)
            last_s = now_s
            next_s = max(next_s + STEP_S, now_s)
            await asyncio.sleep(next_s - now_s)

    def _note_falls(self, now_s: float) -> None:
        for fall in self._watch.falls(now_s, self._zero_s or 0.0, self.recording.injected):
            self.recording.fell.append(fall)
            self._tell(f"{fall.rack} had gone to its floor at {fall.time_s:.1f} s: {fall.said}")

    def _look_for_unplanned_deaths(self) -> None:
        for name, controller in self._ward.controllers.items():
            if controller.alive or name in self._ward.ails:
                continue
            text = f"the controller of {name} ended by itself (exit {controller.exit_code})"
            self.recording.faults.append(f"{text}:\n{controller.log_tail()}")
            self._tell(text)
            self._ward.run(name)

    # What happens once

    async def start(self) -> None:
        """`init`, `run`, the first reports, and the cap in use; this is time 0."""
        self._turning = asyncio.create_task(self._turn())
        controllers = self._ward.controllers
        for controller in controllers.values():
            controller.init()
        await self._until(
            lambda: not any(c.alive for c in controllers.values()), "`init` does not end"
        )
        for controller in controllers.values():
            if controller.exit_code != 0:
                raise NotStarted(f"{controller.rack} refused `init`:\n{controller.log_tail()}")
        for name in controllers:
            self._ward.run(name)
        await self._until(
            lambda: set(controllers) <= set(self._wiretap.heard().report_at_s), "no reports"
        )
        await self._until(self._is_warm, "the cap is not used", WARM_TIMEOUT_S)
        self._zero_s = self.recording.zero_s = asyncio.get_running_loop().time()

    def _is_warm(self) -> bool:
        in_use_w = sum(rack.draw_w for rack in self._plant.racks.values())
        return in_use_w >= WARM_SHARE * self._cap_w

    async def _until(
        self, true: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S
    ) -> None:
        """NotStarted with the logs' ends if it does not come true."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not true():
            if loop.time() > deadline_s:
                logs = [f"{c.rack}:\n{c.log_tail(5)}" for c in self._ward.controllers.values()]
                raise NotStarted("\n".join([f"{what} within {timeout_s:.0f} s", *logs]))
            await asyncio.sleep(STEP_S)

    async def play(self) -> None:
        """The plan, from time 0 to the end."""
        steps: list[Fault | CapChange] = [*self._plan.faults, *self._plan.caps]
        for step in sorted(steps, key=lambda step: step.at_s):
            await asyncio.sleep(max(0.0, step.at_s - self._time_s()))
            doing = self._suffer(step) if isinstance(step, Fault) else self._change_cap(step)
            task = asyncio.create_task(doing)
            self._suffering.add(task)
            task.add_done_callback(self._suffering.discard)
        await asyncio.sleep(max(0.0, self._plan.seconds - self._time_s()))
        self.close()
        await asyncio.gather(*self._suffering)

    def close(self) -> None:
        """Record no more: what the controllers do while they are ended is not judged."""
        self._over = True

    async def stop(self) -> None:
        tasks = [task for task in (self._turning, *self._suffering) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Faults

    async def _suffer(self, fault: Fault) -> None:
        found = await self._victim(fault)
        if found is None:
            self.recording.left_out.append(f"{fault.kind} at {fault.at_s:.1f} s")
            self._tell(f"left out: {fault.kind}")
            return
        rack, from_s = found, self._time_s()
        led = bool(rack) and rack == self._watch.leader
        who = f"{rack}, the broker" if led else rack
        self._tell(f"{fault.kind}{f' of {who}' if who else ''}, for {fault.lasts_s:.1f} s")
        index = len(self.recording.injected)
        self.recording.injected.append(
            Injected(fault.kind, rack, led, fault.alone, from_s, float("inf"))
        )
        await self._ward.begin(fault.kind, rack)
        await asyncio.sleep(fault.lasts_s)
        if self._over:
            return  # the run ends with it
        await self._ward.end(fault.kind, rack)
        self.recording.injected[index] = Injected(
            fault.kind, rack, led, fault.alone, from_s, self._time_s()
        )
        self._tell(f"over: {fault.kind}{f' of {rack}' if rack else ''}")

    async def _victim(self, fault: Fault) -> str | None:
        """Whom it may meet now; empty for the MQTT server, None: nobody in time."""
        timeout_s = ALONE_TIMEOUT_S if fault.alone else VICTIM_TIMEOUT_S
        deadline_s = self._time_s() + timeout_s
        while self._time_s() < deadline_s and not self._over:
            if not fault.victims:
                if self._ward.server_up:
                    return ""
            elif not fault.alone or self._watch.everyone_back:
                for name in fault.victims:
                    rack = self._watch.leader if name == BROKER else name
                    if rack is not None and self._may_ail(rack, fault):
                        return rack
            await asyncio.sleep(STEP_S)
        return None

    def _may_ail(self, rack: str, fault: Fault) -> bool:
        if rack in self._ward.ails or not self._ward.controllers[rack].alive:
            return False
        harmless = fault.kind in OF_DEVICE | OF_CLOCK
        if not harmless and len(self._watch.able - {rack}) < ABLE_MIN:
            return False
        held = self._watch.held
        if fault.kind not in HOLDS_SETTING:
            return True
        return self._fits_w(held | {rack}) <= self._cap_w

    def _fits_w(self, held: frozenset[str]) -> int:
        """The least cap under which all fits: those that nobody can move, floors else."""
        return sum(
            self._watch.holds_w(rack.name, self._plant) if rack.name in held else rack.floor_w
            for rack in self._room.racks
        )

    # The cap

    async def _change_cap(self, change: CapChange) -> None:
        """Said while somebody can hear it, and never below what fits."""
        await self._until(self._can_be_heard, "no MQTT server")
        cap_w = int(self._room.cap_w * change.share)
        if cap_w < self._cap_w:
            least_w = int(self._fits_w(self._watch.held) * FIT_MARGIN) + 1
            cap_w = min(self._cap_w, max(cap_w, least_w))
        if cap_w == self._cap_w:
            return
        verb = "falls" if cap_w < self._cap_w else "rises"
        self._cap_w = cap_w
        self._wiretap.set_cap(cap_w)
        self._tell(f"the cap {verb} to {cap_w:,} W")

    # Small things

    def _can_be_heard(self) -> bool:
        return self._ward.server_up and self._wiretap.heard().connected

    def _time_s(self) -> float:
        assert self._zero_s is not None
        return asyncio.get_running_loop().time() - self._zero_s

    def _tell(self, text: str) -> None:
        self._say(self._time_s(), text)
