"""One agent's socket, for versions 1 and 2c: a request out, its answer in.

An answer is what comes from the agent's address, is sound (`snmp_ber`), has our version
and community and the number of the request that is being waited for. Everything else is
thrown away: what is late, foreign, sent twice, cut off or no SNMP at all.
"""

from __future__ import annotations

import asyncio
from typing import Any

from drivers.address import SnmpAddress
from drivers.snmp_ber import read_response
from drivers.snmp_home import Told


class UdpLine(asyncio.DatagramProtocol):
    """Opened by `to`; one request at a time."""

    def __init__(self, address: SnmpAddress, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._version = address.version - 1
        self._community = address.community.text.encode()
        self._transport: Any = None
        self._request_id = -1
        self._answer: asyncio.Future[Told] | None = None

    @classmethod
    async def to(cls, address: SnmpAddress) -> UdpLine:
        """OSError if the name is not known. Nothing is sent."""
        loop = asyncio.get_running_loop()
        _, line = await loop.create_datagram_endpoint(
            lambda: cls(address, loop), remote_addr=(address.host, address.port)
        )
        return line

    async def ask(self, datagram: bytes, request_id: int) -> Told:
        """Waits as long as it takes. OSError: nobody is there."""
        self._request_id = request_id
        self._answer = self.loop.create_future()
        try:
            self._transport.sendto(datagram)
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        if not self.loop.is_closed():
            self._transport.close()

    # ── what asyncio calls ──

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._answer is None or self._answer.done():
            return
        response = read_response(data)
        if (
            response is not None
            and response.request_id == self._request_id
            and response.version == self._version
            and response.community == self._community
        ):
            self._answer.set_result(response.told)

    def error_received(self, exc: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc)
