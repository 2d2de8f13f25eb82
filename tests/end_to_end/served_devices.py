"""Devices on loopback for tests of the commands: real UDP and TCP, on a thread of their own.

`Devices.agent` serves an SNMP agent, `Devices.unit` a Modbus unit, both from the captures
of tests/drivers/testdata, and keep what they were asked and when. `command` runs the
product to its end, `begin` starts it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pymodbus.constants import ExcCodes
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "drivers"))

from served_snmp import Agent, as_text, ber_parts, read_snmprec  # noqa: E402

TESTDATA = ROOT / "tests" / "drivers" / "testdata"
DEADLINE_S = 30.0
TABLE_OF = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 6: "holding",
            15: "coil", 16: "holding"}  # fmt: skip
T = TypeVar("T")


@dataclass
class HeardAgent(Agent):
    """It notes when it was asked, also in vain."""

    heard_at_s: list[float] = field(default_factory=list)
    knows_v2c: bool = True
    dies_of: str = ""  # asked for this object, it never answers again

    def datagram_received(self, data: bytes, sender: Any) -> None:
        self.heard_at_s.append(time.monotonic())
        ((_, message, _),) = ber_parts(data)
        is_v1 = ber_parts(message)[0][1] == b"\0"
        if is_v1 or self.knows_v2c:
            super().datagram_received(data, sender)

    def _is_mute(self, request: Any) -> bool:
        asked = [as_text(oid) for oid, _, _ in request.varbinds]
        self.silent |= bool(self.dies_of) and self.dies_of in asked
        return super()._is_mute(request)


@dataclass
class HeardUnit:
    """A Modbus server with one unit; what is in no table is refused with exception 2."""

    number: int
    tables: dict[str, dict[int, int]]
    host: str
    port: int = 0
    silent: bool = False
    heard: list[tuple[int, int, int]] = field(default_factory=list)  # function, address, count
    heard_at_s: list[float] = field(default_factory=list)
    connections: int = 0
    server: Any = None

    async def start(self) -> None:
        def registers(table: str) -> list[SimData]:
            there = self.tables.get(table) or {65535: 0}
            return [
                SimData(address, values=values, datatype=DataType.REGISTERS)
                for address, values in _runs(there)
            ]

        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        simdata = (bits, bits, registers("holding"), registers("input"))
        self.server = ModbusTcpServer(
            [SimDevice(self.number, simdata=simdata, action=self._act)],
            address=(self.host, self.port),
            trace_pdu=self._hear,
            trace_connect=self._connected,
        )
        await self.server.serve_forever(background=True)
        self.port = self.server.transport.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        await self.server.shutdown()

    async def _act(
        self, function: int, start: int, address: int, count: int, registers: Any, values: Any
    ) -> ExcCodes | None:
        if self.silent:
            await asyncio.sleep(DEADLINE_S)
        table = self.tables.get(TABLE_OF[function], {})
        for n in range(address, address + count):
            if n not in table:
                return ExcCodes.ILLEGAL_ADDRESS
            registers[n - start] = table[n]
        return None

    def _hear(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        if not sending:
            self.heard.append((pdu.function_code, pdu.address, pdu.count))
            self.heard_at_s.append(time.monotonic())
        return pdu

    def _connected(self, is_there: bool) -> None:
        self.connections += is_there
        if is_there:
            self.heard_at_s.append(time.monotonic())


class Devices:
    """Everything that is served in a test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._agents: list[HeardAgent] = []
        self._units: list[HeardUnit] = []

    def agent(
        self, values: str | dict[str, Any], host: str = "127.0.0.1", port: int = 0, **faults: Any
    ) -> HeardAgent:
        """A capture by its name, or a table of values."""
        if isinstance(values, str):
            values = read_snmprec(TESTDATA / f"{values}.snmprec")
        agent = HeardAgent(values, **faults)

        async def serve() -> None:
            transport, _ = await self._loop.create_datagram_endpoint(
                lambda: agent, local_addr=(host, port)
            )
            agent.port = transport.get_extra_info("sockname")[1]

        self.call(serve())
        self._agents.append(agent)
        return agent

    def unit(
        self, tables: str | dict[str, dict[int, int]], host: str = "127.0.0.1", port: int = 0
    ) -> HeardUnit:
        number = 1
        if isinstance(tables, str):
            told = tomllib.loads((TESTDATA / f"{tables}.registers.toml").read_text("utf-8"))
            number, tables = told.get("unit", 1), {}
            for block in told["block"]:
                place = tables.setdefault(block["table"], {})
                place |= dict(enumerate(block["registers"], block["address"]))
        unit = HeardUnit(number, tables, host, port)
        self.call(unit.start())
        self._units.append(unit)
        return unit

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            for agent in self._agents:
                agent.transport.close()
            for unit in self._units:
                await unit.stop()

        self.call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)


def _runs(table: dict[int, int]) -> Iterator[tuple[int, list[int]]]:
    """Registers that follow each other, with the address of the first."""
    run: tuple[int, list[int]] | None = None
    for address in sorted(table):
        if run is not None and address == run[0] + len(run[1]):
            run[1].append(table[address])
            continue
        if run is not None:
            yield run
        run = (address, [table[address]])
    if run is not None:
        yield run


def command(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The product's command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "firmware_py", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=_environment(environment),
        cwd=cwd,
    )


def commands(*each: Sequence[str]) -> list[subprocess.CompletedProcess[str]]:
    """Several of them at once, each to its end."""
    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(lambda arguments: command(*arguments), each))


def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The product's command, going on; Ctrl-C reaches it, even where ours is ignored (as in
    the background of a shell)."""
    return subprocess.Popen(
        [sys.executable, "-m", "firmware_py", *arguments],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=_environment(environment),
    )


def answer(*arguments: str, **environment: str) -> dict[str, Any]:
    """The JSON of a command that must succeed without a word beside it."""
    done = command(*arguments, "--json", **environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}
