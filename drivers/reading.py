"""What a device said about itself: values with an instant, or a reason why not.

A reading is never a bare number. `Reading` carries the unit and the two instants
between which the value was true; `Missing` carries the reason. Zero is a value,
"not known" is not zero, and an old value is never given a new instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Absence(StrEnum):
    """Why a point has no value. The words are part of the `probe --json` contract."""

    ABSENT = "absent"  # the device lacks it, or says "not supported"
    TIMEOUT = "timeout"  # no answer
    REFUSED = "refused"  # an answer that says no (SNMP error-status, Modbus exception)
    TYPE = "type"  # an answer of the wrong type
    RANGE = "range"  # a value outside what the point can be
    INCOMPLETE = "incomplete"  # a sum with a missing row, half a table
    STALE = "stale"  # too old to be believed


@dataclass(frozen=True, slots=True)
class Reading:
    """One value in the unit of its point.

    `asked_at_s` and `taken_at_s` are monotonic seconds of this machine: the request
    left not before the first, the answer was here at the second. A read-back proves
    something about a write only if it was *asked* after the write was finished.
    """

    name: str
    value: float | str
    unit: str
    asked_at_s: float
    taken_at_s: float
    estimate: bool = False  # the device calculates it from a nominal value


@dataclass(frozen=True, slots=True)
class Missing:
    """No value, and why."""

    name: str
    absence: Absence
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One round of reading a device: every point asked for, present or missing."""

    asked_at_s: float
    taken_at_s: float
    points: Mapping[str, Reading | Missing]


@dataclass(frozen=True, slots=True)
class Identity:
    """What the device calls itself; None where it does not say (or was not asked)."""

    vendor: str | None
    model: str | None
    serial: str | None


@dataclass(frozen=True, slots=True)
class Executed:
    """One command, sent at most once, and what was read back after it.

    `absence` is None when the device accepted the write, which proves nothing about
    its effect; `read_back` was asked after `done_at_s`, and is None when the profile
    names no proof or nothing was sent. A write without an answer (`timeout`) may have
    taken effect, or may still do so.
    """

    name: str
    value: float | str
    sent_at_s: float
    done_at_s: float
    absence: Absence | None
    detail: str
    read_back: Reading | Missing | None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """One place of a device (a register, an OID) that gave no value, and why."""

    absence: Absence
    detail: str = ""


Place = str | tuple[str, int]
"""Where a raw value is kept: an OID, or a Modbus table and a register address."""

Raw = int | bytes | str
"""As it came over the wire: a register or integer, an octet string, a dotted OID."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one place said, and the two instants between which it was true."""

    raw: Raw | NoAnswer
    asked_at_s: float
    taken_at_s: float
