"""The proxy passes bytes, cuts and stalls; what it holds back comes late and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hil.proxy import Direction, Proxy

QUIET_S = 0.1  # nothing has come in this time: it is held back
SOON_S = 5.0


class Line:
    """A client at one end, the server's side of its connection at the other."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.client = client
        self.server = server

    async def says(self, end, text):
        end[1].write(text)
        await end[1].drain()

    async def hears(self, end, text):
        heard = await asyncio.wait_for(end[0].readexactly(len(text)), SOON_S)
        assert heard == text

    async def hears_nothing(self, end):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(end[0].read(1), QUIET_S)

    async def is_reset(self, end):
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(end[0].read(1), SOON_S)


def with_line(test: Callable[[Line], Awaitable[None]]) -> None:
    async def body() -> None:
        joined: asyncio.Queue = asyncio.Queue()

        async def keep(reader, writer):
            await joined.put((reader, writer))

        listener = await asyncio.start_server(keep, "127.0.0.1", 0)
        proxy = Proxy(listener.sockets[0].getsockname()[1])
        await proxy.start()
        try:
            client = await asyncio.open_connection("127.0.0.1", proxy.port)
            line = Line(proxy, client, await asyncio.wait_for(joined.get(), SOON_S))
            await test(line)
        finally:
            await proxy.stop()
            listener.close()

    asyncio.run(body())


def test_bytes_pass_both_ways():
    async def body(line):
        await line.says(line.client, b"up")
        await line.hears(line.server, b"up")
        await line.says(line.server, b"down")
        await line.hears(line.client, b"down")
        assert line.proxy.passes

    with_line(body)


@pytest.mark.parametrize("way", list(Direction))
def test_a_stall_of_one_direction_holds_its_bytes_and_lets_the_other_pass(way):
    async def body(line):
        ends = (line.client, line.server)
        sender, receiver = ends if way is Direction.UP else reversed(ends)
        line.proxy.stall(way)
        assert not line.proxy.passes
        await line.says(sender, b"first")
        await line.hears_nothing(receiver)
        await line.says(receiver, b"back")
        await line.hears(sender, b"back")
        await line.says(sender, b"second")
        line.proxy.resume()
        await line.hears(receiver, b"firstsecond")

    with_line(body)


def test_the_end_of_a_stalled_stream_is_stalled_with_it():
    async def body(line):
        line.proxy.stall(Direction.UP)
        await line.says(line.client, b"last words")
        line.client[1].close()
        await line.hears_nothing(line.server)
        line.proxy.resume()
        await line.hears(line.server, b"last words")
        assert await asyncio.wait_for(line.server[0].read(1), SOON_S) == b""

    with_line(body)


def test_a_cut_resets_both_ends_and_every_new_connection_until_it_is_over():
    async def body(line):
        line.proxy.cut()
        await line.is_reset(line.client)
        await line.is_reset(line.server)
        again = await asyncio.open_connection("127.0.0.1", line.proxy.port)
        await line.is_reset(again)
        line.proxy.resume()
        better = await asyncio.open_connection("127.0.0.1", line.proxy.port)
        better[1].write(b"hello")
        await line.hears_nothing(better)  # it stays open

    with_line(body)


def test_what_a_stall_held_back_is_lost_when_the_connection_is_cut():
    async def body(line):
        line.proxy.stall(Direction.UP)
        await line.says(line.client, b"never arrives")
        await line.hears_nothing(line.server)
        line.proxy.cut()
        line.proxy.resume()
        await line.is_reset(line.server)

    with_line(body)


def test_without_a_server_behind_it_a_connection_is_reset():
    async def body():
        proxy = Proxy(1)
        await proxy.start()
        try:
            reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(1), SOON_S)
        finally:
            await proxy.stop()

    asyncio.run(body())
