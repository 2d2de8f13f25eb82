"""A small room for the tests of the whole: real devices, a site file, real processes.

`Hardware` is the plant and its devices on a thread of their own, stepped in real time.
`Room` writes the site file for it and starts the product's commands as an operator
would; every process is ended by its id. `Heard` is what a monitor on the MQTT server
hears, decoded with the product's own decoder.

The timings are a fifth of the usual ones, and the devices act within 0.1 s and say 0.3:
their profiles are the product's and hil's with other numbers. So a lease ends within
three seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar

from broker import topics, wire
from broker.errors import WireError
from broker.messages import Ballot, Beat, Explain, Grant, Message, Report
from broker.topics import Kind, Topic
from firmware_py.journal import Journal, first_record
from firmware_py.site import load_site, site_hash
from hil.modbus_device import ModbusDevice, power_limit, sdm630
from hil.plant import LimitRack, OutletRack
from hil.room import Outlet, RackPlan
from hil.snmp_device import SnmpDevice, rpdu2

ROOT = Path(__file__).parents[2]
SITE = "lab"
TTL_S = 2.0  # 0.4 to settle, 0.5 to elect, five ticks
EFFECT_S = 0.1
STEP_S = 0.02
DEADLINE_S = 20.0  # for whatever must come true at last, on a busy machine, too
T = TypeVar("T")

TIMING = f"""\
[timing]
tick_s = 0.2
beat_timeout_s = 0.4
answer_timeout_s = 0.1
lease_ttl_s = {TTL_S}
"""


# Profile, and what of it is said otherwise.
QUICK_PROFILES: dict[Path, dict[str, str]] = {
    ROOT / "drivers/profiles/generic-power-limit.toml": {
        'name = "generic-power-limit"': 'name = "quick-limit"',
        "effect_delay_ms_max = 1000": "effect_delay_ms_max = 300",
        "within_ms = 1000": "within_ms = 300",
    },
    ROOT / "drivers/profiles/eastron-sdm630.toml": {
        'name = "eastron-sdm630"': 'name = "quick-meter"',
        "poll_interval_ms_min = 500": "poll_interval_ms_min = 100",
        "timeout_ms = 1000": "timeout_ms = 300",
    },
    ROOT / "hil/profiles/demo-rpdu.toml": {},
}


class RecordedRack(LimitRack):
    """A rack behind a power limit that remembers every write and obeys soon."""

    def __init__(self, plan: RackPlan) -> None:
        super().__init__(plan, Random(1))
        self.writes_w: list[int] = []
        self._due: deque[tuple[float, int]] = deque()

    def write_limit(self, limit_w: int, now_s: float) -> None:
        self.writes_w.append(limit_w)
        self.register_w = limit_w
        self._due.append((now_s + EFFECT_S, limit_w))

    def step(self, now_s: float, dt_s: float, powered: bool) -> None:
        while self._due and self._due[0][0] <= now_s:
            self.in_force_w = self._due.popleft()[1]
        super().step(now_s, dt_s, powered)

    def preset(self, limit_w: int) -> None:
        """What somebody else has set before, or the device by itself."""
        self.register_w = self.in_force_w = limit_w


class Hardware:
    """Racks, their devices and the loop that turns them."""

    def __init__(self) -> None:
        self.limit_racks: dict[str, RecordedRack] = {}
        self.outlet_racks: dict[str, OutletRack] = {}
        self.meters: dict[str, ModbusDevice] = {}
        self.limits: dict[str, ModbusDevice] = {}
        self.pdus: dict[str, SnmpDevice] = {}
        self.peak_w = 0  # of what the limits of all racks together let through
        self._began_s = time.monotonic()
        self._now_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._turning = asyncio.run_coroutine_threadsafe(self._turn(), self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it where the devices live."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)

    def add_limit_rack(self, plan: RackPlan) -> RecordedRack:
        rack = RecordedRack(plan)
        self.meters[plan.name] = sdm630(rack)
        self.limits[plan.name] = power_limit(rack, lambda: self._now_s)
        self.call(self.meters[plan.name].start())
        self.call(self.limits[plan.name].start())
        self.limit_racks[plan.name] = rack
        return rack

    def add_outlet_rack(self, plan: RackPlan, *, community: str) -> OutletRack:
        rack = OutletRack(plan, Random(1))
        self.pdus[plan.name] = SnmpDevice(rpdu2(rack, lambda: self._now_s), community=community)
        self.call(self.pdus[plan.name].start())
        self.outlet_racks[plan.name] = rack
        return rack

    def serve(self, device: ModbusDevice) -> int:
        """A Modbus device of a test's own; its port. It is stopped with all others."""
        self.call(device.start())
        self.meters[f"own {device.port}"] = device
        return device.port

    def stop(self) -> None:
        for device in (*self.meters.values(), *self.limits.values(), *self.pdus.values()):
            self.call(device.stop())
        self._turning.cancel()
        self.call(asyncio.sleep(0))  # lets the cancelled task end
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)

    async def _turn(self) -> None:
        while True:
            now_s = time.monotonic() - self._began_s
            dt_s, self._now_s = now_s - self._now_s, now_s
            racks = list(self.limit_racks.values())
            for rack in (*racks, *self.outlet_racks.values()):
                rack.step(now_s, dt_s, True)
            self.peak_w = max(self.peak_w, sum(rack.limit_w for rack in racks))
            await asyncio.sleep(STEP_S)


class Process:
    """One command of the product, its log in a file."""

    def __init__(self, arguments: list[str], log_path: Path, environment: dict[str, str]) -> None:
        self._log_path = log_path
        with log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "firmware_py", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=log_path.parent,
            )

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def logs(self, text: str) -> bool:
        return text in self.log

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        return self._popen.wait(timeout_s)

    def terminate(self) -> int:
        self._popen.terminate()
        return self.wait()

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


class Tap(Protocol):
    messages: list[Any]

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None: ...


class Heard:
    """What a monitor hears, decoded; what cannot be is passed over."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def last(self, topic: Topic) -> Message | None:
        path = topic.path(SITE)
        for message in reversed(self.tap.messages):
            if message.topic == path:
                with suppress(WireError):
                    return wire.decode(topic.kind, message.payload)
        return None

    def report(self, rack: str) -> Report | None:
        found = self.last(Topic(Kind.REPORT, rack))
        return found if isinstance(found, Report) else None

    def first_report(self, rack: str, *, boot: int) -> Report | None:
        """The first that a boot of the rack sent."""
        path = Topic(Kind.REPORT, rack).path(SITE)
        for message in list(self.tap.messages):
            if message.topic == path:
                found = wire.decode(Kind.REPORT, message.payload)
                if isinstance(found, Report) and found.boot == boot:
                    return found
        return None

    def leader(self) -> str | None:
        """Whose beat was heard last."""
        beat = self.beat()
        return None if beat is None else beat.ballot.rack

    def grant(self, rack: str) -> Grant | None:
        found = self.last(Topic(Kind.GRANT, rack))
        return found if isinstance(found, Grant) else None

    def explain(self, rack: str) -> Explain | None:
        found = self.last(Topic(Kind.EXPLAIN, rack))
        return found if isinstance(found, Explain) else None

    def beat(self) -> Beat | None:
        found = self.last(Topic(Kind.BEAT))
        return found if isinstance(found, Beat) else None

    def presence(self, rack: str) -> str | None:
        found = self.last(Topic(Kind.ONLINE, rack))
        return None if found is None else str(found)

    def limit_w(self, rack: str) -> int | None:
        report = self.report(rack)
        return None if report is None else report.limit_w

    def seq(self, rack: str) -> int:
        report = self.report(rack)
        return 0 if report is None else report.seq

    def say(self, topic: Topic, payload: bytes, *, retain: bool = False) -> None:
        self.tap.publish(topic.path(SITE), payload, retain)

    def topics(self) -> set[str]:
        return {message.topic for message in self.tap.messages}

    def undecodable(self) -> list[str]:
        """Topics of the site whose payloads the product's decoder refuses, or does not know."""
        bad = []
        for message in list(self.tap.messages):
            topic = topics.parse(message.topic, SITE)
            try:
                assert topic is not None
                wire.decode(topic.kind, message.payload)
            except Exception as error:
                bad.append(f"{message.topic}: {error!r}")
        return bad


class Room:
    """A site in a folder: its file, its journals, its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hardware = Hardware()
        self.site = folder / "site.toml"
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self._processes: list[Process] = []
        self._racks: dict[str, str] = {}
        self._write_profiles()

    # ---- what is in it -----------------------------------------------------------

    def limit_rack(self, name: str = "r1", *, rank: int = 10, holds_w: int = 500) -> RecordedRack:
        """A rack with a meter and a power limit: floor 500 W, ceiling 3 000 W, wants all."""
        plan = RackPlan(name, rank, "room", 500, 3000, base_w=0, demand_w=3000)
        rack = self.hardware.add_limit_rack(plan)
        rack.preset(holds_w)
        meter, limit = self.hardware.meters[name].port, self.hardware.limits[name].port
        self.set_limit_rack(
            name, meter=f"modbus://127.0.0.1:{meter}/1", limit=f"modbus://127.0.0.1:{limit}/1"
        )
        return rack

    def set_limit_rack(self, name: str, *, meter: str, limit: str, rank: int = 0) -> None:
        rank = rank or 10 * int(name.removeprefix("r"))
        self._racks[name] = (
            f'[[rack]]\nname = "{name}"\nrank = {rank}\ncap = "room"\n'
            "floor_w = 500\nceiling_w = 3_000\n"
            f'[[rack.device]]\nname = "meter"\nurl = "{meter}"\n'
            'profile = "quick-meter"\npoll_s = 0.2\nstale_after_s = 1.0\n'
            f'[[rack.device]]\nname = "limit"\nurl = "{limit}"\n'
            'profile = "quick-limit"\npoll_s = 0.1\n'
            '[rack.actuator]\nkind = "power-limit"\ndevice = "limit"\nsettle_s = 0.4\n'
        )

    def outlet_rack(self, name: str = "r1", *, community: str, asked_as: str = "") -> OutletRack:
        """A PDU with two outlets: steps of 300, 1 000 and 1 450 W."""
        outlets = (Outlet(1, 9, 700), Outlet(2, 1, 450))
        plan = RackPlan(name, 10, "room", 1000, 1450, base_w=300, demand_w=1450, outlets=outlets)
        rack = self.hardware.add_outlet_rack(plan, community=community)
        url = f"snmp://{asked_as or community}@127.0.0.1:{self.hardware.pdus[name].port}"
        self._racks[name] = (
            f'[[rack]]\nname = "{name}"\nrank = 10\ncap = "room"\n'
            "floor_w = 1_000\nceiling_w = 1_450\n"
            f'[[rack.device]]\nname = "pdu"\nurl = "{url}"\nprofile = "demo-rpdu"\n'
            'poll_s = 0.3\nmeasures = ["input.realpower"]\n'
            '[rack.actuator]\nkind = "outlets"\ndevice = "pdu"\nsettle_s = 1.1\nttl_s = 3.0\n'
            "stagger_s = 0.2\nbase_w = 300\n"
            "outlets = [ { number = 1, priority = 9, peak_w = 700 },"
            " { number = 2, priority = 1, peak_w = 450 } ]\n"
        )
        return rack

    def write_site(self, port: int, *, cap_w: int = 2000, mqtt: str = "", timing: str = "") -> None:
        """The site file for all racks so far; `mqtt` and `timing`: further lines."""
        head = (
            f'schema = 1\nsite = "{SITE}"\nprofiles = "profiles"\n'
            f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n{mqtt}\n{TIMING}{timing}\n'
            f'[[cap]]\nname = "room"\nlimit_w = {cap_w}\n'
        )
        self.site.write_text(head + "\n".join(self._racks.values()))

    # ---- what runs in it ---------------------------------------------------------

    def state(self, rack: str) -> Path:
        return self.folder / "state" / rack

    def init(self, *racks: str, boot: int = 0, state: Path | None = None) -> None:
        """What `init` writes; with `boot` the journal of a rack that was started so often."""
        record = first_record(Ballot(0, site_hash(load_site(self.site))))
        for rack in racks:
            with Journal(state or self.state(rack)) as journal:
                journal.write(replace(record, boot=boot))

    def run(self, rack: str = "r1", *options: str, state: Path | None = None) -> Process:
        """Start the controller of a rack."""
        where = ["--rack", rack, "--state", str(state or self.state(rack))]
        return self.begin("run", *where, *options)

    def begin(self, name: str, *arguments: str) -> Process:
        """Start a command that takes its time."""
        process = Process(
            [name, *self._where(name, arguments), *arguments],
            self.folder / f"{name}-{len(self._processes)}.log",
            self.environment,
        )
        self._processes.append(process)
        return process

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "firmware_py", name),
                *(*self._where(name, arguments), *arguments),
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env=self.environment,
            cwd=self.folder,
        )

    def probe_json(self, *arguments: str) -> dict[str, Any]:
        done = self.command("probe", *arguments, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _where(self, name: str, arguments: tuple[str, ...]) -> list[str]:
        """The site file, and for `init` the journal."""
        where = [] if name in ("check", "probe") else ["--site", str(self.site)]
        if name == "init":
            where += ["--state", str(self.state(arguments[arguments.index("--rack") + 1]))]
        return where

    def _write_profiles(self) -> None:
        folder = self.folder / "profiles"
        folder.mkdir()
        for path, edits in QUICK_PROFILES.items():
            text = path.read_text()
            for old, new in edits.items():
                assert old in text, f"{path.name} has no {old!r}"
                text = text.replace(old, new)
            name = next(line for line in text.splitlines() if line.startswith("name = "))
            (folder / f"{json.loads(name.removeprefix('name = '))}.toml").write_text(text)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        self.hardware.stop()


MakeTap = Callable[..., Tap]
