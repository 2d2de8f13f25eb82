"""The sockets under the MQTT link: how they are opened, woken and closed.

A connection ends in one of two ways. `finish` is the clean one: the server has read
everything and closes first. `reset_on_close` is for all others: what the kernel has
not sent yet must never leave, so the socket ends with RST.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from contextlib import suppress

from broker.mqtt_retry import tls_files_unusable
from broker.mqtt_values import TlsSettings


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=tls.ca)
        if tls.cert is not None:
            # A key with a password must fail, not ask for it on a terminal.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise tls_files_unusable(tls, error) from error
    return context


def reset_on_close(sock: socket.socket) -> None:
    """What the kernel has not sent yet is thrown away at close (RST instead of FIN)."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def finish(sock: socket.socket, until_s: float) -> bool:
    """After DISCONNECT: close our half and read until the server closes its own.

    A close with unread bytes would send a reset, which may overtake the goodbye.
    """
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while (left_s := until_s - time.monotonic()) > 0:
            sock.settimeout(left_s)
            if not sock.recv(65_536):
                return True
    return False


def unread_alert(sock: socket.socket) -> str:
    """The TLS alert that a server sent before it closed, or "".

    In TLS 1.3 it refuses our certificate after the handshake is over for us, so the
    first thing that fails is our own writing, which does not say why.
    """
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock.recv(1)
        except OSError as error:
            return str(error) if "ALERT" in str(error) else ""
    return ""


class Wake:
    """Wakes the link's thread out of poll(); cheap when it is awake already."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def set(self) -> None:
        with suppress(OSError):  # full: it will wake anyway; closed: nobody to wake
            self._writer.send(b"\0")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            self._reader.recv(4096)

    def wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if poll.poll(seconds * 1000):
            self.clear()

    def fileno(self) -> int:
        return self._reader.fileno()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
