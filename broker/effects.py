"""What a machine wants done. The shell carries effects out, in order, and decides nothing.

And what the shell tells a machine that is neither a message nor a reading: the link
to the MQTT server came or went, a journal write ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from broker.messages import Ballot, CapValues, GrantKey, Message, Roster
from broker.topics import Topic


@dataclass(frozen=True, slots=True)
class Publish:
    topic: Topic
    message: Message
    retain: bool = False


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """What a controller must not forget (protocol, "journal").

    `granted`: whether this boot was granted anything (R7). `roster` is the name of
    the roster that is counted with the ballot, `members` who is in it (None: the site
    file's). `joined` is the roster that added this rack, once it was granted something
    there; None for a rack of the first roster, and for one that has left (M3). `forgot`:
    the journal before this one was lost, and no other's ballot was adopted since (R11).
    """

    ballot: Ballot
    boot: int
    granted: bool
    roster: Ballot
    caps: CapValues
    members: Roster | None = None
    joined: Ballot | None = None
    forgot: bool = False


@dataclass(frozen=True, slots=True)
class Persist:
    """Write the record, fsync, then tell the machine with `JournalWritten`."""

    record: JournalRecord


@dataclass(frozen=True, slots=True)
class JournalWritten:
    record: JournalRecord
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Connected, with the subscriptions asked for."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    reason: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Drop the connection to the MQTT server and make a new one."""

    reason: str


@dataclass(frozen=True, slots=True)
class ListenToReports:
    """Subscribe to every rack's report (a broker or candidate), or stop it."""

    on: bool


@dataclass(frozen=True, slots=True)
class Exit:
    code: int
    reason: str


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"  # a person must act


@dataclass(frozen=True, slots=True)
class Event:
    """One line for the log: a name and its keys."""

    level: Level
    name: str
    keys: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """An admitted grant: enforce `limit_w` until `until_s` (protocol R3, R4)."""

    key: GrantKey
    limit_w: int
    may_raise: bool
    until_s: float
    cap: str | None
    price: float | None
    why: str


Effect = Publish | Persist | Reconnect | ListenToReports | Exit | Event | Lease


def event(level: Level, name: str, **keys: object) -> Event:
    """An `Event` from keyword arguments."""
    return Event(level, name, tuple(keys.items()))
