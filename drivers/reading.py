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
