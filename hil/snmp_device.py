"""An emulated outlet PDU that speaks real SNMP v2c; only this module knows pysnmp.

Laid out like APC's rPDU2 (PowerNet-MIB, 318.1.1.26): one device, one phase, outlets
that are switched one by one. Where a real PDU answers in units of 10 W, the demo also
wants whole watts, so that a rack on the edge of its promise is not counted a rounding
above it. That one object stands under 32473, the enterprise number which RFC 5612
reserves for examples: 1.3.6.1.4.1.32473.1.1.0, the input in W.

pysnmp decodes, authenticates (one community per device; a wrong one gets no answer at
all) and encodes. The values come from a table of OIDs, sorted, whose cells are read
from the plant when asked: GET, GETNEXT, GETBULK and SET are four look-ups.

A SET answers at once and acts later, as PDUs do: what proves it is the outlet's state.
A device can be made to answer late, or not at all; what was asked is done all the same.
"""

from __future__ import annotations

import bisect
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config, engine
from pysnmp.entity.rfc3413 import cmdrsp, context
from pysnmp.proto import rfc1902, rfc1905
from pysnmp.smi import error as smi_error
from pysnmp.smi.instrum import AbstractMibInstrumController

from hil.plant import OutletRack

Oid = tuple[int, ...]

VOLTS = 230.0
POWER_FACTOR = 0.97
MODEL = "AP8659"

_APC = (1, 3, 6, 1, 4, 1, 318)
_RPDU2 = (*_APC, 1, 1, 26)
_SYSTEM = (1, 3, 6, 1, 2, 1, 1)
INPUT_W = (1, 3, 6, 1, 4, 1, 32473, 1, 1, 0)
OUTLET_STATE = (*_RPDU2, 9, 2, 3, 1, 5)  # off 1, on 2
OUTLET_COMMAND = (*_RPDU2, 9, 2, 4, 1, 5)  # on 1, off 2, reboot 3
_COMMAND_ON, _COMMAND_OFF, _COMMAND_REBOOT = 1, 2, 3
_COMMANDS = frozenset((_COMMAND_ON, _COMMAND_OFF, _COMMAND_REBOOT))


@dataclass(frozen=True, slots=True)
class Cell:
    """One object: how it is read, which values may be written, and what a write does."""

    read: Callable[[], Any]
    accepts: frozenset[int] = frozenset()
    write: Callable[[int], None] | None = None


class OidTable(AbstractMibInstrumController):
    """pysnmp's door to the table: what its command responders call."""

    def __init__(self, cells: dict[Oid, Cell]) -> None:
        self._cells = cells
        self._oids = sorted(cells)

    def read_variables(self, *varBinds: Any, **_: Any) -> list[Any]:
        return [(name, self._value(tuple(name))) for name, _value in varBinds]

    def read_next_variables(self, *varBinds: Any, **_: Any) -> list[Any]:
        return [self._next(name) for name, _value in varBinds]

    def write_variables(self, *varBinds: Any, **_: Any) -> list[Any]:
        """Refuses the whole request before anything is written, as RFC 3416, 4.2.5 asks."""
        writes = []
        for index, (name, value) in enumerate(varBinds):
            cell = self._cells.get(tuple(name))
            if cell is None or cell.write is None:
                raise smi_error.NotWritableError(name=name, idx=index)
            if not isinstance(value, rfc1902.Integer32):
                raise smi_error.WrongTypeError(name=name, idx=index)
            if int(value) not in cell.accepts:
                raise smi_error.WrongValueError(name=name, idx=index)
            writes.append((cell.write, int(value)))
        for write, number in writes:
            write(number)
        return list(varBinds)

    def _value(self, oid: Oid) -> Any:
        cell = self._cells.get(oid)
        return rfc1905.noSuchInstance if cell is None else cell.read()

    def _next(self, name: Any) -> tuple[Any, Any]:
        at = bisect.bisect_right(self._oids, tuple(name))
        if at == len(self._oids):
            return name, rfc1905.endOfMibView
        oid = self._oids[at]
        return rfc1902.ObjectName(oid), self._cells[oid].read()


class LateTransport(udp.UdpTransport):
    """UDP whose answers leave `late_s` after they were made; infinity: never."""

    late_s = 0.0

    def send_message(self, outgoingMessage: Any, transportAddress: Any) -> None:
        if self.late_s == 0:
            super().send_message(outgoingMessage, transportAddress)
        elif math.isfinite(self.late_s):
            late = super().send_message
            self.loop.call_later(self.late_s, late, outgoingMessage, transportAddress)


class SnmpDevice:
    """One agent on a free UDP port of 127.0.0.1."""

    def __init__(self, cells: dict[Oid, Cell], *, community: str) -> None:
        self._cells = cells
        self.community = community
        self.port = 0
        self._engine: engine.SnmpEngine | None = None
        self._transport: LateTransport | None = None
        self._late_s = 0.0

    async def start(self) -> None:
        """Answer; `port` is known afterwards (a second start takes the same port again)."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        agent = engine.SnmpEngine()
        self._transport = LateTransport().open_server_mode(sock=sock)
        self.answer_after(self._late_s)
        config.add_transport(agent, udp.DOMAIN_NAME, self._transport)
        config.add_v1_system(agent, "pdu", self.community)
        everything = (1, 3, 6)
        config.add_vacm_user(agent, 2, "pdu", "noAuthNoPriv", everything, everything)
        objects = context.SnmpContext(agent)
        objects.unregister_context_name(b"")
        objects.register_context_name(b"", OidTable(self._cells))
        for responder in (
            cmdrsp.GetCommandResponder,
            cmdrsp.NextCommandResponder,
            cmdrsp.BulkCommandResponder,
            cmdrsp.SetCommandResponder,
        ):
            responder(agent, objects)
        self._engine = agent

    async def stop(self) -> None:
        """Vanish from the network; the relays stay as they are."""
        if self._engine is not None:
            self._engine.close_dispatcher()
            self._engine = self._transport = None

    def answer_after(self, late_s: float) -> None:
        """From now on answer so late; infinity: not at all. What was asked is done."""
        self._late_s = late_s
        if self._transport is not None:
            self._transport.late_s = late_s


def rpdu2(rack: OutletRack, clock: Callable[[], float]) -> dict[Oid, Cell]:
    """The objects of a rack's PDU; `clock` gives the plant's time, for when a command came."""

    def volts() -> float:
        return VOLTS if rack.powered else 0.0

    def integer(oid: Oid, read: Callable[[], float]) -> None:
        cells[oid] = Cell(lambda: rfc1902.Integer32(round(read())))

    def text(oid: Oid, value: str) -> None:
        cells[oid] = Cell(lambda: rfc1902.OctetString(value))

    cells: dict[Oid, Cell] = {
        (*_SYSTEM, 2, 0): Cell(lambda: rfc1902.ObjectIdentifier((*_APC, 1, 3, 4, 6))),
        (*_SYSTEM, 3, 0): Cell(lambda: rfc1902.TimeTicks(int(clock() * 100))),
    }
    text(
        (*_SYSTEM, 1, 0), f"APC Web/SNMP Management Card (emulated MN:{MODEL} SN: {_serial(rack)})"
    )
    text((*_SYSTEM, 5, 0), rack.plan.name)
    text((*_RPDU2, 2, 1, 3, 1), rack.plan.name)  # rPDU2IdentName
    text((*_RPDU2, 2, 1, 8, 1), MODEL)  # rPDU2IdentModelNumber
    text((*_RPDU2, 2, 1, 9, 1), _serial(rack))  # rPDU2IdentSerialNumber
    status = (*_RPDU2, 4, 3, 1)  # rPDU2DeviceStatusTable
    integer((*_RPDU2, 3, 0), lambda: 1)
    integer((*status, 1, 1), lambda: 1)
    integer((*status, 2, 1), lambda: 1)
    text((*status, 3, 1), rack.plan.name)
    integer((*status, 5, 1), lambda: rack.draw_w / 10)  # hundredths of kW
    integer((*status, 9, 1), lambda: rack.energy_wh / 100)  # tenths of kWh
    integer((*status, 16, 1), lambda: rack.draw_w / POWER_FACTOR / 10)
    integer((*status, 17, 1), lambda: POWER_FACTOR * 100)
    phase = (*_RPDU2, 6, 3, 1)  # rPDU2PhaseStatusTable
    integer((*phase, 1, 1), lambda: 1)
    integer((*phase, 2, 1), lambda: 1)  # of the first PDU
    integer((*phase, 3, 1), lambda: 1)
    integer((*phase, 5, 1), lambda: rack.draw_w / VOLTS / POWER_FACTOR * 10)
    integer((*phase, 6, 1), volts)
    integer((*phase, 7, 1), lambda: rack.draw_w / 10)
    for number in rack.relays:
        _add_outlet(cells, rack, number, clock)
    integer(INPUT_W, lambda: rack.draw_w)
    return cells


def _add_outlet(
    cells: dict[Oid, Cell], rack: OutletRack, number: int, clock: Callable[[], float]
) -> None:
    relay = rack.relays[number]

    def command(value: int) -> None:
        if value in (_COMMAND_OFF, _COMMAND_REBOOT):
            rack.switch(number, False, clock())
        if value in (_COMMAND_ON, _COMMAND_REBOOT):
            rack.switch(number, True, clock())

    def integer(read: Callable[[], float]) -> Callable[[], Any]:
        return lambda: rfc1902.Integer32(round(read()))

    metered = (*_RPDU2, 9, 4, 3, 1)  # rPDU2OutletMeteredStatusTable
    amps = integer(lambda: rack.outlet_w[number] / VOLTS / POWER_FACTOR * 10)
    name = rfc1902.OctetString(f"server {number}")
    cells[(*_RPDU2, 9, 2, 3, 1, 3, number)] = Cell(lambda: name)
    cells[(*OUTLET_STATE, number)] = Cell(integer(lambda: 2 if relay.on else 1))
    # Reads 1 on, 2 off: the other way round than the state, as the MIB has it.
    cells[(*OUTLET_COMMAND, number)] = Cell(
        integer(lambda: 1 if relay.on else 2), _COMMANDS, command
    )
    cells[(*metered, 6, number)] = Cell(amps)
    cells[(*metered, 7, number)] = Cell(integer(lambda: rack.outlet_w[number]))


def _serial(rack: OutletRack) -> str:
    return f"EMU{rack.plan.rank:07d}"
