"""An RTU bus for tests, over real TCP and real pseudo terminals, that keeps the rules of
RTU and no others: its units answer in the order in which they were asked, as late as the
script says, or not at all. Its frames are made here, without any Modbus library.

Every register says where it is and when it was read: the high byte is its address, the
low byte the number of the request, and `heard_at_s` says when that request came. So a
value can be judged without knowing anything of the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


def crc16(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def framed(unit: int, pdu: bytes) -> bytes:
    frame = bytes([unit]) + pdu
    return frame + crc16(frame)


@dataclass(frozen=True)
class Fate:
    """What becomes of one answer."""

    delay_s: float = 0.0
    how: str = "whole"  # or lost, damaged, cut, foreign, noisy, refused, in pieces


@dataclass
class RtuBus:
    """`fates` of the next answers, in order; then every answer comes at once."""

    units: tuple[int, ...] = (1,)
    fates: list[Fate] = field(default_factory=list)
    lengths: tuple[int, ...] = ()  # of the reads it does not refuse; () for all
    echo: bool = False
    heard: list[tuple[int, int, int, int]] = field(default_factory=list)  # unit, function, …
    heard_at_s: list[float] = field(default_factory=list)
    written: dict[int, int] = field(default_factory=dict)
    objects: dict[int, bytes] = field(default_factory=dict)
    connections: int = 0
    _received: bytes = b""
    _queue: asyncio.Queue[tuple[int, bytes, Fate, float]] = field(default_factory=asyncio.Queue)
    _say: Callable[[bytes], None] = lambda data: None

    def connect(self, say: Callable[[bytes], None]) -> None:
        """Answers go to who came last, late ones of earlier connections too."""
        self.connections += 1
        self._say = say
        self._received = b""

    def hear(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 2 and len(self._received) >= self._size():
            size = self._size()
            frame, self._received = self._received[:size], self._received[size:]
            assert crc16(frame[:-2]) == frame[-2:], "the client sent a damaged frame"
            if self.echo:
                self._say(frame)
            if frame[0] in self.units:
                self._ask(frame[0], frame[1:-2])

    def _size(self) -> int:
        function = self._received[1]
        if function == 16:
            return 9 + self._received[6] if len(self._received) > 6 else 999
        return 7 if function == 43 else 8

    def _ask(self, unit: int, pdu: bytes) -> None:
        address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        self.heard.append((unit, pdu[0], address, count))
        now_s = asyncio.get_running_loop().time()
        self.heard_at_s.append(now_s)
        fate = self.fates.pop(0) if self.fates else Fate()
        answer = self._answer(pdu, address, count, len(self.heard_at_s) - 1)
        if fate.how == "refused":
            answer = bytes([pdu[0] | 0x80, 2])
        self._queue.put_nowait((unit, answer, fate, now_s + fate.delay_s))

    def _answer(self, pdu: bytes, address: int, count: int, number: int) -> bytes:
        function = pdu[0]
        if function in (3, 4):
            if self.lengths and count not in self.lengths:
                return bytes([function | 0x80, 2])
            words = [(address + n) % 256 << 8 | number % 256 for n in range(count)]
            return bytes([function, 2 * count]) + b"".join(w.to_bytes(2, "big") for w in words)
        if function in (5, 6):
            self.written[address] = count
            return pdu
        if function == 16:
            for n in range(count):
                self.written[address + n] = int.from_bytes(pdu[6 + 2 * n : 8 + 2 * n], "big")
            return pdu[:5]
        if function == 43 and self.objects:
            return self._page(pdu[2], pdu[3])
        return bytes([function | 0x80, 1])

    def _page(self, read_code: int, first: int) -> bytes:
        """One object a page."""
        last = 2 if read_code == 1 else 6
        there = sorted(n for n in self.objects if first <= n <= last)
        more = there[1] if len(there) > 1 else None
        head = bytes([43, 14, read_code, 0x82, 0xFF if more else 0, more or 0, 1, there[0]])
        text = self.objects[there[0]]
        return head + bytes([len(text)]) + text

    async def answer(self) -> None:
        """One after the other, none before its time."""
        loop = asyncio.get_running_loop()
        while True:
            unit, pdu, fate, at_s = await self._queue.get()
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            frame = framed(unit, pdu)
            if fate.how == "damaged":
                frame = frame[:-1] + bytes([frame[-1] ^ 0x40])
            elif fate.how == "cut":
                frame = frame[:-3]
            elif fate.how == "foreign":
                frame = framed(unit + 100, pdu)
            elif fate.how == "noisy":
                frame = b"\x00\xff\x01\x03\x5a" + frame + b"\x00"
            if fate.how == "in pieces":
                for byte in frame:
                    self._say(bytes([byte]))
                    await asyncio.sleep(0.001)
            elif fate.how != "lost":
                self._say(frame)


@contextlib.asynccontextmanager
async def rtu_over_tcp(bus: RtuBus) -> AsyncIterator[int]:
    """Serves `bus` on loopback; the port."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        bus.connect(lambda data: None if writer.is_closing() else writer.write(data))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1024):
                bus.hear(data)

    writers: list[asyncio.StreamWriter] = []
    answering = asyncio.ensure_future(bus.answer())
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        answering.cancel()
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(answering, return_exceptions=True)


@contextlib.asynccontextmanager
async def rtu_over_serial(bus: RtuBus) -> AsyncIterator[str]:
    """Serves `bus` on a pseudo terminal; the path of its other end."""
    loop = asyncio.get_running_loop()
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)

    def say(data: bytes) -> None:
        os.write(ours, data)

    bus.connect(say)
    loop.add_reader(ours, lambda: bus.hear(os.read(ours, 1024)))
    answering = asyncio.ensure_future(bus.answer())
    try:
        yield os.ttyname(theirs)
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)
