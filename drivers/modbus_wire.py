"""The bytes of one connection: a TCP socket or a serial port. The only home of pyserial.

A wire takes bytes and keeps what has come, with the instant of the last byte. It knows
nothing of frames. What cannot be opened is told in the operator's words (`CannotOpen`).
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass
from typing import Any, Protocol

# Four times the longest frame. What comes while nobody listens is kept up to this.
RECEIVED_BYTES_MAX = 1040

_SERIAL_REMEDIES = {
    errno.ENOENT: "there is no such port: check the path and the cable",
    errno.ENXIO: "there is nothing behind this port: check the path and the cable",
    errno.EACCES: "not permitted: check the path, and that the user is in the group dialout",
    errno.EPERM: "not permitted: check the path, and that the user is in the group dialout",
    errno.EBUSY: "another program uses it",
    errno.EAGAIN: "another program uses it",
}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LineSettings:
    """What two units on one line must agree about. Serial if `path` is there."""

    framing: str  # "tcp" or "rtu"
    host: str = ""
    port: int = 0
    path: str = ""
    baud: int = 0
    parity: str = ""
    stop_bits: int = 0
    data_bits: int = 0

    @property
    def character_s(self) -> float:
        """How long one character takes on a serial line; 0 where the wire is a socket."""
        if not self.path:
            return 0.0
        return (1 + self.data_bits + (self.parity != "N") + self.stop_bits) / self.baud


class CannotOpen(Exception):
    """The connection could not be made; the text says what to check."""


class _Sender(Protocol):
    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Wire(asyncio.Protocol):
    """What has come, and since when it is quiet."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.news = asyncio.Event()
        self.is_lost = False
        self.heard_at_s = 0.0  # of the event loop
        self._sender: _Sender | None = None

    def attach(self, sender: _Sender) -> None:
        self._sender = sender

    def connection_made(self, transport: Any) -> None:
        self._sender = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        # Beyond the limit the oldest bytes go: nobody has waited for them.
        del self.received[:-RECEIVED_BYTES_MAX]
        self.heard_at_s = asyncio.get_running_loop().time()
        self.news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.news.set()

    def send(self, data: bytes) -> None:
        if self._sender is not None and not self.is_lost:
            self._sender.write(data)

    def close(self) -> None:
        self.is_lost = True
        self.news.set()
        if self._sender is not None:
            self._sender.close()


async def open_wire(settings: LineSettings, timeout_s: float) -> Wire:
    """A new connection, or CannotOpen."""
    if settings.path:
        return _open_serial(settings)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, wire = await loop.create_connection(Wire, settings.host, settings.port)
    except (TimeoutError, OSError):
        raise CannotOpen("refused, unreachable, or in use by another master") from None
    return wire


class _SerialPort:
    """A serial port as the event loop reads it."""

    def __init__(self, port: Any, wire: Wire) -> None:
        self._port = port
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(port.fileno(), self._read)

    def write(self, data: bytes) -> None:
        try:
            # A whole frame fits the kernel's buffer, so that this does not block; what
            # does not go out is an answer that does not come.
            self._port.write(data)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        if self._port.is_open:
            self._loop.remove_reader(self._port.fileno())
            self._port.close()

    def _read(self) -> None:
        try:
            data = self._port.read(RECEIVED_BYTES_MAX)
        except OSError as error:  # the adapter was pulled out
            self._fail(error)
            return
        if data:
            self._wire.data_received(data)

    def _fail(self, error: OSError) -> None:
        self.close()
        self._wire.connection_lost(error)


def _open_serial(settings: LineSettings) -> Wire:
    try:
        import serial  # only who has a serial line pays for it
    except ImportError:
        raise CannotOpen("pyserial is not installed") from None
    try:
        port = serial.Serial(
            settings.path,
            baudrate=settings.baud,
            bytesize=settings.data_bits,
            parity=settings.parity,
            stopbits=settings.stop_bits,
            timeout=0,
            write_timeout=0,
            exclusive=True,  # two masters on one bus take each other's answers
        )
    except OSError as error:
        remedy = _SERIAL_REMEDIES.get(error.errno or 0)
        text = f"not a serial port, or not with these settings: {error}"
        raise CannotOpen(remedy or text) from None
    except ValueError as error:
        raise CannotOpen(f"{error}") from None
    wire = Wire()
    wire.attach(_SerialPort(port, wire))
    return wire
