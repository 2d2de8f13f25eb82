"""gufo_snmp: versions 1 and 2c, in Rust. The only home of gufo_snmp.

It saves most of pysnmp's time, but keeps to itself what the agent said beside values: an
error status, a missing object, the end of the MIB and an empty answer look the same; an
integer that is wider than its type is cut; a malformed value can end in a panic. So every
datagram is read beside it (`snmp_ber`) before it is allowed to: what is not a sound answer
never reaches it. That reading is what is told, and only if gufo_snmp, which knows the
number of its request, has found the same values in the same datagram.

It has no SET, and one object in a GETNEXT or GETBULK. The rest goes through pysnmp.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from gufo.snmp._fast import GetIter, SnmpError, SnmpV1ClientSocket, SnmpV2cClientSocket

from drivers.address import SnmpAddress
from drivers.reading import NoAnswer
from drivers.snmp_ber import read_response
from drivers.snmp_home import (
    END_OF_MIB,
    NO_SUCH,
    NULL,
    Home,
    Outcome,
    Silence,
    Told,
    Varbind,
)

DATAGRAM_MAX = 65_535
DATAGRAMS_DRAINED_MAX = 1000
GUFO_MAX = 4080  # gufo_snmp's buffer

# Receiving with it takes every object that begins with 1.3, not only those of a table.
_ANYWHERE = "1.3"

_SOCKETS: dict[int, Any] = {1: SnmpV1ClientSocket, 2: SnmpV2cClientSocket}


class GufoHome:
    """One agent; `rest` serves what gufo_snmp cannot."""

    columns_max = 1

    def __init__(self, address: SnmpAddress, rest: Home) -> None:
        self._address = address
        self._rest = rest
        self._line: _Line | None = None

    async def get(self, oids: Sequence[str], timeout_s: float) -> Outcome:
        names = list(oids)
        told = await self._exchange(lambda gufo: gufo.send_get_many(names), timeout_s)
        return told or await self._rest.get(oids, timeout_s)

    async def get_next(self, oids: Sequence[str], timeout_s: float) -> Outcome:
        if len(oids) > 1:
            return await self._rest.get_next(oids, timeout_s)
        start = GetIter(oids[0])
        told = await self._exchange(lambda gufo: gufo.send_get_next(start), timeout_s)
        return told or await self._rest.get_next(oids, timeout_s)

    async def get_bulk(self, oids: Sequence[str], repetitions: int, timeout_s: float) -> Outcome:
        if len(oids) > 1:
            return await self._rest.get_bulk(oids, repetitions, timeout_s)
        start = GetIter(oids[0], repetitions)
        told = await self._exchange(lambda gufo: gufo.send_get_bulk(start), timeout_s)
        return told or await self._rest.get_bulk(oids, repetitions, timeout_s)

    async def set(self, oid: str, raw: int | bytes, type_: str, timeout_s: float) -> Outcome:
        return await self._rest.set(oid, raw, type_, timeout_s)

    async def close(self) -> None:
        self._hang_up()
        await self._rest.close()

    async def _exchange(self, send: Callable[[Any], None], timeout_s: float) -> Outcome | None:
        """None: gufo_snmp cannot write the request, or cannot read a sound answer."""
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._open()
                line.drain()
                send(line.gufo)
                while True:
                    await line.readable()
                    told = line.take()
                    if told is not None:
                        return told
        except SnmpError:
            return None
        except TimeoutError:
            self._hang_up()
            return Silence()
        except OSError as error:
            self._hang_up()
            return Silence(error.strerror or str(error))

    async def _open(self) -> _Line:
        loop = asyncio.get_running_loop()
        if self._line is not None and self._line.loop is not loop:
            self._hang_up()
        if self._line is None:
            host, port = self._address.host, self._address.port
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            self._line = _Line(loop, self._address, found[0][4])
        return self._line

    def _hang_up(self) -> None:
        """A name is looked up again after every silence."""
        if self._line is not None:
            self._line.close()
            self._line = None


class _Line:
    """gufo_snmp's socket, and a second hold on the same one to look into it first."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: SnmpAddress, where: tuple[Any, ...]
    ) -> None:
        host = f"[{where[0]}]" if ":" in where[0] else where[0]
        self.loop = loop
        self.gufo = _SOCKETS[address.version](
            f"{host}:{where[1]}", address.community.text, 0, 0, 0, 0
        )
        self._version = address.version - 1
        self._community = address.community.text.encode()
        self._beside = socket.socket(fileno=os.dup(self.gufo.get_fd()))
        self._waiting: asyncio.Future[None] | None = None
        loop.add_reader(self._beside.fileno(), self._wake)

    async def readable(self) -> None:
        self._waiting = self.loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def take(self) -> Told | None:
        """The next datagram, if it is the answer that gufo_snmp is waiting for.

        SnmpError: it is one, but gufo_snmp cannot take it.
        """
        try:
            datagram = self._beside.recv(DATAGRAM_MAX, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        response = read_response(datagram)
        if (
            response is None
            or response.version != self._version
            or response.community != self._community
        ):
            self._beside.recv(1)
            return None
        if len(datagram) > GUFO_MAX:
            self._beside.recv(1)
            raise SnmpError("the answer is longer than gufo_snmp's buffer")
        values = list(_values(response.told))
        bad = {oid for oid, raw in values if isinstance(raw, NoAnswer)}
        found = self._found()
        if found is None or _comparable(found, bad) != _comparable(values, bad):
            return None
        return response.told

    def _found(self) -> list[tuple[str, Any]] | None:
        """What gufo_snmp finds; None: not the answer to its request, and thrown away.

        Whatever was sent, what comes is received as if it were the answer to a GETBULK:
        that looks least at what it is, and leaves out what has no value.
        SnmpError: the answer is sound, but gufo_snmp does not understand it.
        """
        try:
            pairs = self.gufo.recv_get_bulk(GetIter(_ANYWHERE))
        except StopAsyncIteration:
            return []
        except BlockingIOError:
            return None
        return [pair for pair in pairs if pair is not None]

    def drain(self) -> None:
        """Throws away what has come without being asked for, or too late."""
        for _ in range(DATAGRAMS_DRAINED_MAX):
            try:
                self._beside.recv(1)
            except BlockingIOError:
                return
            except OSError:
                continue  # the port was closed when something was sent to it

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(self._beside.fileno())
        self._beside.close()

    def _wake(self) -> None:
        if self._waiting is None:
            self.drain()
        elif not self._waiting.done():
            self._waiting.set_result(None)


def _values(told: Told) -> Iterator[Varbind]:
    """The varbinds that hold something, up to the first that is outside of `_ANYWHERE`."""
    for oid, raw in told.varbinds:
        if raw is NO_SUCH or raw is END_OF_MIB or raw is NULL:
            continue
        if not oid.startswith(_ANYWHERE + "."):
            return
        yield oid, raw


def _comparable(pairs: Iterable[tuple[str, Any]], bad: set[str]) -> list[tuple[str, Any]]:
    """Without what is no value, of which gufo_snmp makes a number, and without the texts
    of OIDs and addresses, of which it writes some otherwise."""
    return [(oid, None if isinstance(raw, str) else raw) for oid, raw in pairs if oid not in bad]
