"""What the MQTT link is told and what it tells: settings and events.

Values only. A password is a `Secret` from the moment it was read: neither the
settings' repr nor any reason of `Disconnected` contains it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal

PAYLOAD_BYTES_MAX: Final = 65_536
Version = Literal["5", "3.1.1"]


class Secret:
    """Text that is never printed."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """PEM files, read again at each connect. The server must be certified by `ca`."""

    ca: str | os.PathLike[str]
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where to connect, as whom, and what the server says of us while we cannot.

    `client_id` must be unique per process (it contains the instance): a server ends
    the older of two connections with one id. Will, birth and goodbye are retained;
    the goodbye goes to the will's topic.
    """

    host: str
    client_id: str
    port: int = 1883
    username: str | None = None
    password: Secret | None = None
    tls: TlsSettings | None = None
    keepalive_s: int = 5
    will_topic: str | None = None
    will_payload: bytes = b""
    birth: tuple[str, bytes] | None = None
    goodbye: bytes = b""
    subscriptions: tuple[str, ...] = ()
    payload_bytes_max: int = PAYLOAD_BYTES_MAX  # of any topic, in and out

    def __post_init__(self) -> None:
        if self.password is not None and self.username is None:
            raise ValueError("a password without a user name")

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Connected:
    """The server has accepted us; what is published from now on comes after the birth."""

    session: int  # counts connections from 1
    protocol: Version


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection was lost, or could not be made; another attempt follows by itself.

    `reason` is a sentence for the operator without secrets. `fatal` is set when
    waiting will not help and a person must act: it says in a few words what is wrong.
    `session` is the session that ended, None when there was none.
    """

    reason: str
    fatal: str | None = None
    session: int | None = None


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes
    retained: bool  # kept by the server from earlier: says nothing about now
    session: int


@dataclass(frozen=True, slots=True)
class SubscriptionRefused:
    """The server will not deliver this topic (its access rules); the link stays."""

    topic: str
    reason: str
    session: int


Event = Connected | Disconnected | Received | SubscriptionRefused
