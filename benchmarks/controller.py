"""What one controller costs: memory and CPU of a real process with two real devices.

A controller with a Modbus meter and a Modbus power limit (emulated, on loopback) at
tick 1 s, first as the member of a room of four, then as its broker. Figures are the
operating system's own account of the process. The targets beside them were set for a
developer's machine; a Pi is several times slower.

    python benchmarks/controller.py [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hil.devices import Devices
from hil.mosquitto import MqttServer
from hil.plant import Plant
from hil.rack import Controller
from hil.room import design, site_toml
from hil.wiretap import Wiretap

RSS_MB_MAX = 80.0
CPU_PERCENT_MAX = 3.0
START_S_MAX = 30.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROFILES = Path(__file__).parent.parent / "hil" / "profiles"


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


async def measure(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        room = design(4)
        plant = Plant(room, seed=1)
        devices = Devices(plant)
        server = MqttServer("auto", folder)
        server.start()
        await devices.start()
        site = folder / "site.toml"
        site.write_text(site_toml(room, mqtt_port=server.port, urls=devices.urls()))
        shutil.copytree(PROFILES, folder / "profiles")
        controllers = [Controller(rack.name, site, folder) for rack in room.racks]
        member, leader = (rack.name for rack in room.racks if not rack.outlets)
        stepping = asyncio.create_task(step(plant))
        try:
            await watch(controllers, member, leader, server, seconds)
        finally:
            for controller in controllers:
                controller.terminate()
            for controller in controllers:
                controller.wait_or_kill(5.0)
            stepping.cancel()
            await asyncio.gather(stepping, return_exceptions=True)
            await devices.stop()
            server.stop()


async def step(plant: Plant) -> None:
    while True:
        plant.step(time.monotonic())
        await asyncio.sleep(0.1)


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + START_S_MAX
    while not condition():  # other processes' doing: there is nothing to wait on but the clock
        if time.monotonic() > deadline_s:
            raise TimeoutError("the controllers did not start")
        await asyncio.sleep(0.05)


async def watch(
    controllers: list[Controller], member: str, leader: str, server: MqttServer, seconds: float
) -> None:
    """The figures of a follower with two devices, and of the broker with two devices."""
    for controller in controllers:
        controller.init()
    await until(lambda: all(controller.exit_code is not None for controller in controllers))
    for controller in controllers:
        controller.run()
    wiretap = Wiretap(server.port)
    wiretap.start()
    await until(lambda: wiretap.heard().broker == leader)
    await asyncio.sleep(5.0)  # past the start, which is not what is measured
    by_name = {controller.rack: controller for controller in controllers}
    pids = {"a member": by_name[member].pid, "the broker": by_name[leader].pid}
    before = {what: cpu_s(pid) for what, pid in pids.items() if pid}
    started_s = time.monotonic()
    await asyncio.sleep(seconds)
    passed_s = time.monotonic() - started_s
    wiretap.stop()
    print(f"one controller, two Modbus devices, tick 1 s, over {passed_s:.0f} s")
    for what, pid in pids.items():
        if pid:
            share = 100 * (cpu_s(pid) - before[what]) / passed_s
            print(
                f"  {what:<11} RSS {rss_mb(pid):5.1f} MB (target {RSS_MB_MAX:.0f})"
                f"   CPU {share:4.2f} % of a core (target {CPU_PERCENT_MAX:.0f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    asyncio.run(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
