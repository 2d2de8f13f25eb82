"""What reading devices costs: CPU time of a poll, ours beside what others do.

All in one run on one machine, against real servers on loopback: net-snmp's snmpd with
the objects of a PDU, and pymodbus's server with the registers of an
SDM630. CPU time is that of the reading process alone (of the whole child process for
commands). Ratios are what to look at: absolute figures are this machine's.

    python benchmarks/devices.py [--seconds 30] [--skip-pollers]

1. One poll of a PDU with 48 outlets: status, current, power, energy of each (192 values)
   and 5 totals.
2. One read of 76 registers.
3. 50 PDUs of 24 outlets, every 5 s, from one process: share of a core, and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from drivers.device import Device, open_device
from drivers.profile import load_profile
from drivers.reading import Reading

GEIST = "1.3.6.1.4.1.21239.5.2.3"  # VERTIV-V5-MIB: state, current, power, energy of an outlet
COLUMNS = tuple(f"{GEIST}.{column}" for column in ("5.1.4", "6.1.8", "6.1.12", "6.1.15"))
APC = "1.3.6.1.4.1.318.1.1.26"  # PowerNet-MIB rPDU2, with the columns that say whose row it is
ROUNDS = 60
PDUS, OUTLETS, PERIOD_S = 50, 24, 5.0
CORE_PERCENT_MAX, RSS_MB_MAX = 25.0, 120.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


# ── servers ───────────────────────────────────────────────────────────────────────


def geist_objects(outlets: int) -> dict[str, int]:
    """The integers of a Vertiv Geist with that many outlets."""
    told = {f"{GEIST}.1.1.{c}.1": v for c, v in ((6, 0), (9, 4120), (10, 4300), (11, 96))}
    told |= {f"{GEIST}.1.1.12.1": 2353700, f"{GEIST}.2.1.4.1": 2300, f"{GEIST}.2.1.8.1": 1870}
    for n in range(1, outlets + 1):
        values = zip(COLUMNS, (1, 41, 86, 3046 + n), strict=True)
        told |= {f"{column}.{n}": value for column, value in values}
    return told


def apc_objects(outlets: int) -> dict[str, int]:
    """The integers of an outlet-metered APC PDU with that many outlets."""
    told = {f"{APC}.4.3.1.{c}.1": v for c, v in ((2, 1), (5, 412), (9, 1967), (16, 430))}
    told |= {f"{APC}.6.3.1.{c}.1": v for c, v in ((2, 1), (3, 1), (5, 187), (6, 230), (7, 412))}
    for n in range(1, outlets + 1):
        for table in ("9.2.3.1", "9.4.3.1"):
            told |= {f"{APC}.{table}.2.{n}": 1, f"{APC}.{table}.4.{n}": n}
        values = (("9.2.3.1.5", 2), ("9.4.3.1.6", 4), ("9.4.3.1.7", 86), ("9.4.3.1.11", 3046 + n))
        told |= {f"{APC}.{column}.{n}": value for column, value in values}
    return told


@contextlib.contextmanager
def snmpd(folder: Path, objects: dict[str, int], agents: int) -> Iterator[list[int]]:
    """net-snmp's agent with these objects, on so many ports."""
    lines = ["rocommunity public 127.0.0.1", "[snmp] persistentDir " + str(folder)]
    lines += [f"override .{oid} integer {value}" for oid, value in objects.items()]
    config = folder / "snmpd.conf"
    config.write_text("\n".join(lines) + "\n")
    ports = free_udp_ports(agents)
    addresses = ",".join(f"udp:127.0.0.1:{port}" for port in ports)
    command = [shutil.which("snmpd", path="/usr/sbin:/sbin:" + os.environ["PATH"]) or "snmpd"]
    command += ["-f", "-Lo", "-C", "-c", str(config), "-r", "-I-", addresses]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        try:
            wait_for_agent(ports[-1], next(iter(objects)))
            yield ports
        finally:
            agent.terminate()


def free_udp_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for _ in range(count)
        ]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for_agent(port: int, oid: str) -> None:
    command = ["snmpget", "-v2c", "-c", "public", "-t", "0.2", "-r", "50", "-m", ""]
    subprocess.run([*command, f"127.0.0.1:{port}", oid], check=True, capture_output=True)


SERVE_MODBUS = """
import asyncio, struct
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
async def main():
    words = [w for n in range(64) for w in struct.unpack(">HH", struct.pack(">f", 230.0 + n))]
    device = SimDevice(1, simdata=[SimData(0, values=words, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@contextlib.contextmanager
def modbus_server() -> Iterator[int]:
    """pymodbus's server in a process of its own."""
    command = [sys.executable, "-c", SERVE_MODBUS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()


# ── one poll ──────────────────────────────────────────────────────────────────────


async def cpu_ms(poll: Callable[[], Awaitable[None]], rounds: int = ROUNDS) -> tuple[float, float]:
    """Median CPU and wall milliseconds of a poll."""
    for _ in range(5):
        await poll()
    cpu, wall = [], []
    for _ in range(rounds):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await poll()
        cpu.append(time.process_time() - cpu_s)
        wall.append(time.perf_counter() - wall_s)
    return 1000 * statistics.median(cpu), 1000 * statistics.median(wall)


def command_ms(commands: list[list[str]], rounds: int = 20) -> tuple[float, float]:
    """Mean CPU and wall milliseconds of all these commands together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    for _ in range(rounds):
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
    wall_s = time.perf_counter() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * cpu_s / rounds, 1000 * wall_s / rounds


def names(outlets: int) -> list[str]:
    totals = ["realpower", "power", "energy", "L1.voltage", "L1.current"]
    kinds = ("status", "current", "realpower", "energy")
    return [f"input.{name}" for name in totals] + [
        f"outlet.{n}.{kind}" for n in range(1, outlets + 1) for kind in kinds
    ]


async def ours(port: int, home: str, profile: str) -> tuple[float, float]:
    os.environ["WATTBROKER_SNMP"] = home
    device = open_device(
        f"snmp://public@127.0.0.1:{port}", load_profile(profile), clock=time.monotonic
    )
    wanted = names(48)

    async def poll() -> None:
        require_all(await device.read(wanted), len(wanted))

    try:
        return await cpu_ms(poll)
    finally:
        await device.close()


def require_all(snapshot: object, count: int) -> None:
    points = snapshot.points  # type: ignore[attr-defined]
    there = sum(isinstance(point, Reading) for point in points.values())
    if there != count:
        raise SystemExit(f"{there} of {count} values: this would measure something else")


async def plain_pysnmp(port: int) -> tuple[float, float]:
    """The same rows with pysnmp's own asynchronous API, as its documentation shows it."""
    from pysnmp.hlapi.v3arch import asyncio as hlapi

    engine = hlapi.SnmpEngine()
    target = await hlapi.UdpTransportTarget.create(("127.0.0.1", port))
    user, context = hlapi.CommunityData("public"), hlapi.ContextData()

    async def poll() -> None:
        last = [hlapi.ObjectType(hlapi.ObjectIdentity(column)) for column in COLUMNS]
        seen = 0
        while seen < 48:
            _, _, _, varbinds = await hlapi.bulk_cmd(
                engine, user, target, context, 0, 12, *last, lookupMib=False
            )
            seen += len(varbinds) // 4
            last = [hlapi.ObjectType(hlapi.ObjectIdentity(str(v[0]))) for v in varbinds[-4:]]

    try:
        return await cpu_ms(poll)
    finally:
        engine.close_dispatcher()


async def plain_gufo(port: int) -> tuple[float, float]:
    """The same columns with gufo_snmp's own API."""
    from gufo.snmp import SnmpVersion
    from gufo.snmp.aio import SnmpSession

    session = SnmpSession("127.0.0.1", port=port, community="public", version=SnmpVersion.v2c)

    async def poll() -> None:
        async with session:
            for column in COLUMNS:
                count = 0
                async for _ in session.getbulk(column, max_repetitions=24):
                    count += 1
                assert count == 48

    return await cpu_ms(poll)


def snmpbulkget(port: int) -> tuple[float, float]:
    base = ["snmpbulkget", "-v2c", "-c", "public", "-m", "", "-Cr12", f"127.0.0.1:{port}"]
    starts = [[f"{column}.{n}" if n else column for column in COLUMNS] for n in (0, 12, 24, 36)]
    return command_ms([base + start for start in starts])


# ── Modbus ────────────────────────────────────────────────────────────────────────


async def our_modbus(port: int) -> tuple[float, float]:
    profile = load_profile("eastron-sdm630")
    device = open_device(f"modbus://127.0.0.1:{port}/1", profile, clock=time.monotonic)
    wanted = [p.name for p in profile.points if p.sources[0].address < 76]  # type: ignore[union-attr]

    async def poll() -> None:
        await device.read(wanted)

    try:
        return await cpu_ms(poll)
    finally:
        await device.close()


async def plain_pymodbus(port: int) -> tuple[float, float]:
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()

    async def poll() -> None:
        answer = await client.read_input_registers(0, count=76, device_id=1)
        assert len(answer.registers) == 76

    try:
        return await cpu_ms(poll)
    finally:
        client.close()


def mbpoll(port: int) -> tuple[float, float]:
    command = ["mbpoll", "-m", "tcp", "-p", str(port), "-a", "1", "-t", "3", "-0", "-r", "0"]
    return command_ms([[*command, "-c", "76", "-1", "-q", "127.0.0.1"]])


# ── fifty at once ─────────────────────────────────────────────────────────────────


def own_rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


async def pollers(ports: list[int], seconds: float) -> None:
    """This process polls every agent once in PERIOD_S; prints what it cost as JSON."""
    profile = load_profile("apc-rpdu2")
    wanted = names(OUTLETS)
    urls = [f"snmp://public@127.0.0.1:{port}" for port in ports]
    devices = [open_device(url, profile, clock=time.monotonic) for url in urls]
    missed = 0

    async def keep(device: Device, offset_s: float) -> None:
        nonlocal missed
        await asyncio.sleep(offset_s)
        while True:
            next_s = time.monotonic() + PERIOD_S
            snapshot = await device.read(wanted)
            missed += sum(not isinstance(p, Reading) for p in snapshot.points.values())
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    step_s = PERIOD_S / len(devices)
    tasks = [asyncio.create_task(keep(d, n * step_s)) for n, d in enumerate(devices)]
    await asyncio.sleep(PERIOD_S + 1.0)  # everyone has read once
    cpu_s, began_s = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    share = 100 * (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    rss_mb = own_rss_mb()
    print(json.dumps({"core_percent": share, "rss_mb": rss_mb, "missed": missed}))


def fifty(folder: Path, home: str, seconds: float) -> None:
    with snmpd(folder, apc_objects(OUTLETS), PDUS) as ports:
        command = [sys.executable, __file__, "--poll", ",".join(map(str, ports))]
        done = subprocess.run(
            [*command, "--seconds", str(seconds)],
            env=os.environ | {"WATTBROKER_SNMP": home},
            check=True,
            capture_output=True,
            text=True,
        )
    told = json.loads(done.stdout)
    print(
        f"{PDUS} PDUs x {OUTLETS} outlets every {PERIOD_S:g} s, {home}:"
        f" {told['core_percent']:.1f} % of a core (target {CORE_PERCENT_MAX:g} %),"
        f" {told['rss_mb']:.0f} MB (target {RSS_MB_MAX:g} MB), {told['missed']} values missed"
    )


def show(name: str, cost: tuple[float, float], base: float | None = None) -> float:
    ratio = f"   x {cost[0] / base:.2f}" if base else ""
    print(f"  {name:<44} {cost[0]:8.2f} ms CPU  {cost[1]:8.2f} ms wall{ratio}")
    return cost[0]


async def main(seconds: float, skip_pollers: bool) -> None:
    has_gufo = importlib.util.find_spec("gufo") is not None
    homes = ["pysnmp", "gufo"] if has_gufo else ["pysnmp"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("a PDU of 48 outlets: 192 values and 5 totals (the libraries alone: 192 values)")
        with snmpd(folder, geist_objects(48), 1) as (port,):
            base = show("snmpbulkget (4 processes)", await asyncio.to_thread(snmpbulkget, port))
            for home in homes:
                show(f"wattbroker, {home}", await ours(port, home, "vertiv-geist"), base)
            show("pysnmp alone, 4 GETBULKs", await plain_pysnmp(port), base)
            if has_gufo:
                show("gufo_snmp alone, 4 columns", await plain_gufo(port), base)
        print("the same of a PDU that may be one of a group (196 objects more say whose row it is)")
        with snmpd(folder, apc_objects(48), 1) as (port,):
            for home in homes:
                show(f"wattbroker, {home}", await ours(port, home, "apc-rpdu2"), base)
        print("an SDM630: 76 registers")
        with modbus_server() as port:
            modbus_base = None
            if shutil.which("mbpoll"):
                modbus_base = show("mbpoll (a process)", await asyncio.to_thread(mbpoll, port))
            else:
                print("  mbpoll is not installed (Debian: mbpoll)")
            show("wattbroker", await our_modbus(port), modbus_base)
            show("pymodbus alone", await plain_pymodbus(port), modbus_base)
        for home in [] if skip_pollers else homes:
            await asyncio.to_thread(fifty, folder, home, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--skip-pollers", action="store_true")
    parser.add_argument("--poll", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.poll:
        asyncio.run(pollers([int(port) for port in told.poll.split(",")], told.seconds))
    else:
        asyncio.run(main(told.seconds, told.skip_pollers))
