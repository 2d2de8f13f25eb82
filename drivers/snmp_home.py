"""What a library that speaks SNMP must do for us: one request, one answer.

A home sends a request once and says what came of it: `Told` (the agent answered,
perhaps with an error status), `Silence` (nothing that answers this request came in
time) or `Refusal` (the agent said that it will not talk to us). A home never raises for
what the world does, never repeats a request, plans nothing and remembers nothing about
what an agent bears: that is decided in `drivers.snmp`, the same for every home.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from drivers.reading import Absence, NoAnswer, Raw

Varbind = tuple[str, Raw | NoAnswer]

# RFC 3416: the exceptions that stand in the place of a value, and NULL.
NO_SUCH = NoAnswer(Absence.ABSENT, "the agent has no such object")
END_OF_MIB = NoAnswer(Absence.ABSENT, "nothing of the agent comes after this")
NULL = NoAnswer(Absence.ABSENT, "the agent answered nothing (NULL)")

# RFC 3416, section 3, error-status by number.
STATUS_NAMES = (
    "noError", "tooBig", "noSuchName", "badValue", "readOnly", "genErr", "noAccess",
    "wrongType", "wrongLength", "wrongEncoding", "wrongValue", "noCreation",
    "inconsistentValue", "resourceUnavailable", "commitFailed", "undoFailed",
    "authorizationError", "notWritable", "inconsistentName",
)  # fmt: skip
TOO_BIG, NO_SUCH_NAME, AUTHORIZATION_ERROR = 1, 2, 16


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: error status and the number (from 1) of the varbind that caused it."""

    status: int
    index: int
    varbinds: Sequence[Varbind]


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer; `detail` says more than that, if more is known."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The agent answered that it will not serve us (SNMPv3: user, keys, level)."""

    detail: str


Outcome = Told | Silence | Refusal


class Home(Protocol):
    """One agent, spoken to through one library."""

    columns_max: int
    """So many columns go into one GETBULK."""

    async def get(self, oids: Sequence[str], timeout_s: float) -> Outcome: ...

    async def get_next(self, oids: Sequence[str], timeout_s: float) -> Outcome: ...

    async def get_bulk(
        self, oids: Sequence[str], repetitions: int, timeout_s: float
    ) -> Outcome: ...

    async def set(self, oid: str, raw: int | bytes, type_: str, timeout_s: float) -> Outcome: ...

    async def close(self) -> None: ...


def status_name(status: int) -> str:
    """The agent's "no" in the words of the RFC."""
    return STATUS_NAMES[status] if 0 <= status < len(STATUS_NAMES) else f"error {status}"
