"""Modbus units for tests, on pymodbus's server, and a port with worse manners."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.constants import ExcCodes
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

TABLE_OF = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 6: "holding",
            15: "coil", 16: "holding"}  # fmt: skip
SIZE = 256


@dataclass
class Unit:
    """Registers by table and address; what is not there is refused with exception 2."""

    number: int = 1
    tables: dict[str, dict[int, int]] = field(default_factory=dict)
    refuse: dict[int, int] = field(default_factory=dict)  # function → exception code
    delays_s: list[float] = field(default_factory=list)  # of the next answers, in order
    mirror: dict[int, int] = field(default_factory=dict)  # a write to holding n shows in m
    heard: list[tuple[int, int, int]] = field(default_factory=list)  # function, address, count
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def act(self, function, start, address, count, registers, writes):
        if function in (5, 6, 15, 16) and writes is None:
            return None  # pymodbus looks again at what it has just written
        self.was_asked.set()
        if self.delays_s:
            await asyncio.sleep(self.delays_s.pop(0))
        if function in self.refuse:
            return ExcCodes(self.refuse[function])
        table = self.tables.get(TABLE_OF[function], {})
        for n in range(address, address + count):
            if n not in table:
                return ExcCodes.ILLEGAL_ADDRESS
        for n, value in zip(range(address, address + count), writes or [], strict=False):
            table[n] = int(value)
            if n in self.mirror:
                table[self.mirror[n]] = int(value)
        if function in (3, 4):
            for n in range(address, address + count):
                registers[n - start] = table[n]
        return None


@contextlib.asynccontextmanager
async def serving(
    *units: Unit,
    port: int = 0,
    framer: FramerType = FramerType.SOCKET,
    identity: ModbusDeviceIdentification | None = None,
) -> AsyncIterator[int]:
    """Serves the units on loopback; the port it found."""

    def bits(unit: Unit, table: str) -> list[SimData]:
        """Bits are kept by pymodbus itself; `tables` says how they begin."""
        values = [bool(unit.tables.get(table, {}).get(n)) for n in range(SIZE)]
        return [SimData(0, values=values, datatype=DataType.BITS)]

    blocks = [SimData(0, count=SIZE, values=0, datatype=DataType.REGISTERS)]
    devices = [
        SimDevice(
            unit.number,
            simdata=(bits(unit, "coil"), bits(unit, "discrete"), blocks, blocks),
            action=unit.act,
        )
        for unit in units
    ]

    def hear(sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        for unit in units:
            if not sending and pdu.dev_id == unit.number:
                unit.heard.append((pdu.function_code, pdu.address, pdu.count))
        return pdu

    server = ModbusTcpServer(
        devices,
        address=("127.0.0.1", port),
        framer=framer,
        # pymodbus keeps the identity of the last server for all of this process: a server
        # without one of its own is given an empty one.
        identity=identity or ModbusDeviceIdentification(),
        trace_pdu=hear,
    )
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@contextlib.asynccontextmanager
async def deaf() -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A port that accepts connections and never answers; and the connections so far."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], writers
    finally:
        server.close()
        for writer in writers:
            writer.close()
