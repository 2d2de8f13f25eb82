"""A TCP proxy between one controller and the MQTT server, which can misbehave on command.

    pass      every byte goes through at once
    cut       every connection is reset, and every new one as soon as it is made
    stalled   one direction, or both, is not read: bytes wait in the kernel's buffers, and
              go through when the stall ends, late and in order; no end is told anything

A stall that ends by being cut throws the bytes away, as a network does that comes back
after the connection was given up.

It runs in the event loop of whoever starts it and reads no payload.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum

CHUNK_BYTES = 4096
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST


class Direction(StrEnum):
    UP = "up"  # from the controller to the server
    DOWN = "down"


class Proxy:
    """One listening port on 127.0.0.1, and one server behind it."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._moves = {direction: asyncio.Event() for direction in Direction}
        self._pairs: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.port = 0
        self.resume()

    async def start(self) -> None:
        """Listen; `port` is known afterwards."""
        self._listener = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._reset_all()
        for pair in list(self._pairs):
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    @property
    def passes(self) -> bool:
        """Both ways are open."""
        return not self._is_cut and all(way.is_set() for way in self._moves.values())

    def cut(self) -> None:
        self._is_cut = True
        self._reset_all()

    def stall(self, *ways: Direction) -> None:
        for way in ways:
            self._moves[way].clear()

    def resume(self) -> None:
        """Whatever was wrong is over; bytes held by a stall go on their way."""
        self._is_cut = False
        for way in self._moves.values():
            way.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = asyncio.current_task()
        assert pair is not None
        self._pairs.add(pair)
        self._writers.add(writer)
        try:
            if not self._is_cut:
                await self._join(reader, writer)
        finally:
            self._drop_if_open(writer)
            self._pairs.discard(pair)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either end closes; what it has sent before is still delivered."""
        try:
            server = await asyncio.open_connection(
                "127.0.0.1", self._server_port, limit=CHUNK_BYTES
            )
        except OSError:
            return  # no server: the controller is reset, as it would be without us
        self._writers.add(server[1])
        ways = [
            asyncio.create_task(self._carry(Direction.UP, reader, server[1])),
            asyncio.create_task(self._carry(Direction.DOWN, server[0], writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for end in (writer, server[1]):
                self._writers.discard(end)
                end.close()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._drop_if_open(server[1])

    async def _carry(
        self, way: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._moves[way].wait()
                writer.write(chunk)
                await writer.drain()
        await self._moves[way].wait()  # the end of a stream is stalled with it

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            self._drop(writer)

    def _drop_if_open(self, writer: asyncio.StreamWriter) -> None:
        """One that is closing has words left to deliver."""
        if not writer.is_closing():
            self._drop(writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        sock = writer.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
