"""Emulated Modbus TCP devices: a three-phase meter and a power-limit register.

Real servers on loopback; only this module knows pymodbus. The registers are computed
from the plant when they are read, so a reading is never older than the plant's step.

    meter   Eastron SDM630: input registers, float32, high word first. The device refuses
            a read that starts or ends in the middle of a value, or on registers that carry
            none, and more than 80 registers. Inside a read those registers are 0.
    limit   holding 0  limit in W, uint16 (65535: none)    holding 1  limit in force
            input 0-1  measured W, uint32, high word first

What a device does not serve (another address, another table, bits) is exception 2: a 0
that nobody measured would be believed.

A device can be made to answer late, or not at all. What was asked of it is done at once
all the same: a write whose answer is lost is the harder case for whoever wrote.

Facts of the SDM630 are from Eastron's register list as used by mbmd
(meters/rs485/sdm.go) and mbmap-library (maps/eastron/sdm630-modbus.mbmap.json).
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
from collections.abc import Callable
from typing import cast

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hil.plant import LimitRack

# A controller that is killed in the middle of a request is what this room is for: the
# server's dump of that request is nothing that its operator should read.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)

VOLTS = 230.0
HERTZ = 50.0
POWER_FACTOR = 0.97
VAR_PER_W = math.tan(math.acos(POWER_FACTOR))

_READ_INPUT = 4
_OF_BITS = frozenset({1, 2, 5, 15})  # function codes
_SDM630_REGISTERS_PER_READ = 80

Refresh = Callable[[], dict[int, list[int]]]  # input address → registers, at this instant
Write = Callable[[int, list[int]], bool]  # holding address, values → taken?


class ModbusDevice:
    """One server with unit id 1 on a free port of 127.0.0.1."""

    def __init__(
        self,
        *,
        inputs: int,
        holdings: int = 0,
        refresh_inputs: Refresh,
        refresh_holdings: Refresh | None = None,
        write: Write | None = None,
        readable: Callable[[int, int], bool] = lambda address, count: True,
    ) -> None:
        self._refresh_inputs = refresh_inputs
        self._refresh_holdings = refresh_holdings
        self._write = write
        self._readable = readable
        self._holdings = holdings
        # pymodbus has no empty tables; `_answer` refuses these bits, and a lone register.
        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        self._device = SimDevice(
            id=1,
            simdata=(
                bits,
                list(bits),
                [SimData(0, count=max(1, holdings), values=0, datatype=DataType.REGISTERS)],
                [SimData(0, count=inputs, values=0, datatype=DataType.REGISTERS)],
            ),
            action=self._answer,
        )
        self._server: ModbusTcpServer | None = None
        self._late_s = 0.0
        self._speaks = asyncio.Event()
        self._speaks.set()
        self.port = 0

    async def start(self) -> None:
        """Listen; `port` is known afterwards (a second start takes the same port again)."""
        self._server = ModbusTcpServer(self._device, address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)
        # The transport of a listening server is asyncio's server, whatever it is declared as.
        listener = cast(asyncio.Server, self._server.transport)
        self.port = listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Vanish from the network, connections included; the setting stays."""
        if self._server is not None:
            await self._server.shutdown()
            self._server = None

    async def _answer(
        self,
        function_code: int,
        start_address: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """pymodbus' hook: called before registers are read or written.

        The echo of a write is a read under the write's function code, without values.
        """
        refusal = self._do(function_code, start_address, address, count, registers, values)
        await self._until_it_may_answer()
        return refusal

    def answer_after(self, late_s: float) -> None:
        """From now on answer so late; infinity: not before it is told otherwise."""
        self._late_s = late_s
        if math.isinf(late_s):
            self._speaks.clear()
        else:
            self._speaks.set()

    async def _until_it_may_answer(self) -> None:
        if not self._speaks.is_set():
            await self._speaks.wait()
        elif self._late_s:
            await asyncio.sleep(self._late_s)

    def _do(
        self,
        function_code: int,
        start_address: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if function_code in _OF_BITS:
            return ExcCodes.ILLEGAL_ADDRESS
        if values is not None:
            return self._take(address, [int(v) for v in values])
        if function_code == _READ_INPUT:
            if not self._readable(address, count):
                return ExcCodes.ILLEGAL_ADDRESS
            fresh = self._refresh_inputs()
        else:
            if address + count > self._holdings:
                return ExcCodes.ILLEGAL_ADDRESS
            fresh = self._refresh_holdings() if self._refresh_holdings else {}
        for first, words in fresh.items():
            offset = first - start_address
            registers[offset : offset + len(words)] = words
        return None

    def _take(self, address: int, values: list[int]) -> ExcCodes | None:
        if self._write is None:
            return ExcCodes.ILLEGAL_ADDRESS
        return None if self._write(address, values) else ExcCodes.ILLEGAL_ADDRESS


def float32(value: float) -> list[int]:
    """Two registers, high word first."""
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return [high, low]


def uint32(value: int) -> list[int]:
    """Two registers, high word first."""
    return [value >> 16 & 0xFFFF, value & 0xFFFF]


def sdm630(rack: LimitRack) -> ModbusDevice:
    """The meter of a rack, its load balanced over three phases."""

    def refresh() -> dict[int, list[int]]:
        return {address: float32(value) for address, value in _sdm630_values(rack).items()}

    served = frozenset(_sdm630_values(rack))

    def readable(address: int, count: int) -> bool:
        whole = count % 2 == 0 and count <= _SDM630_REGISTERS_PER_READ
        return whole and {address, address + count - 2} <= served

    return ModbusDevice(inputs=max(served) + 2, refresh_inputs=refresh, readable=readable)


def _sdm630_values(rack: LimitRack) -> dict[int, float]:
    """Every value that is served, by its input address; the addresses never change."""
    volts = VOLTS if rack.powered else 0.0
    phase_w = rack.draw_w / 3
    values: dict[int, float] = {}
    for n in (0, 2, 4):
        values[0x00 + n] = volts
        values[0x06 + n] = phase_w / VOLTS / POWER_FACTOR
        values[0x0C + n] = phase_w
        values[0x12 + n] = phase_w / POWER_FACTOR
        values[0x18 + n] = phase_w * VAR_PER_W
        values[0x1E + n] = POWER_FACTOR
    values[0x2A] = volts  # mean, phase to neutral
    values[0x30] = rack.draw_w / VOLTS / POWER_FACTOR  # sum of the line currents
    values[0x34] = rack.draw_w
    values[0x38] = rack.draw_w / POWER_FACTOR
    values[0x3C] = rack.draw_w * VAR_PER_W
    values[0x3E] = POWER_FACTOR
    values[0x46] = HERTZ
    values[0x48] = rack.energy_wh / 1000  # taken from the supply
    values[0x4A] = 0.0  # delivered to it
    return values


def power_limit(rack: LimitRack, clock: Callable[[], float]) -> ModbusDevice:
    """The limit register of a rack; `clock` gives the plant's time, for when a write came."""

    def write(address: int, values: list[int]) -> bool:
        if address != 0 or len(values) != 1:
            return False  # holding 1 tells what is in force and cannot be written
        rack.write_limit(values[0], clock())
        return True

    return ModbusDevice(
        inputs=2,
        holdings=2,
        refresh_inputs=lambda: {0: uint32(round(rack.draw_w))},
        refresh_holdings=lambda: {0: [rack.register_w, rack.in_force_w]},
        write=write,
    )
