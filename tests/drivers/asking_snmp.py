"""How the tests ask an SNMP agent, and what they ask: `pdu` and its columns."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pysnmp.proto import rfc1902
from served_snmp import Agent, serving, table

from drivers.address import SnmpAddress, parse_url
from drivers.reading import Absence, Answer, NoAnswer, Place
from drivers.snmp import SnmpAgent, Temper

T = TypeVar("T")
HAS_GUFO = importlib.util.find_spec("gufo") is not None

SYSTEM = "1.3.6.1.2.1.1"
COLUMN = "1.3.6.1.4.1.9.5"
NEXT_COLUMN = "1.3.6.1.4.1.9.6"
TEMPER = Temper(timeout_s=0.15, read_s_max=5.0, oids_per_get_max=5, repetitions_max=10)


def address(agent: Agent, scheme: str = "snmp", host: str = "127.0.0.1") -> SnmpAddress:
    parsed = parse_url(f"{scheme}://public@{host}:{agent.port}", {})
    assert isinstance(parsed, SnmpAddress)
    return parsed


def asked(
    agent: Agent, home: str, use: Callable[[SnmpAgent], Awaitable[T]], scheme: str = "snmp"
) -> T:
    async def run() -> T:
        async with serving(agent):
            client = SnmpAgent(address(agent, scheme), time.monotonic, home=home)
            try:
                return await use(client)
            finally:
                await client.close()

    return asyncio.run(run())


def fetched(
    agent: Agent, home: str, oids: list[str], temper: Temper = TEMPER, scheme: str = "snmp"
) -> dict[str, object]:
    return shown(asked(agent, home, lambda client: client.fetch(oids, temper=temper), scheme))


def shown(answers: dict[Place, Answer] | dict[str, Answer]) -> dict[str, object]:
    """Values, and of what is missing the reason."""
    return {
        str(oid): answer.raw.absence if isinstance(answer.raw, NoAnswer) else answer.raw
        for oid, answer in answers.items()
    }


def cells(rows: range, column: str = COLUMN) -> list[str]:
    return [f"{column}.{row}" for row in rows]


def rows_of(rows: range, times: int = 1, column: str = COLUMN) -> dict[str, object]:
    return {f"{column}.{row}": times * row for row in rows}


def absent(rows: range, why: Absence = Absence.ABSENT, column: str = COLUMN) -> dict[str, object]:
    return dict.fromkeys(cells(rows, column), why)


def pdu(**faults: Any) -> Agent:
    """Two columns of 24 rows beside each other, and a name."""
    values = table(COLUMN, range(1, 25)) | table(NEXT_COLUMN, range(1, 25), 100)
    return Agent(values | {f"{SYSTEM}.5.0": rfc1902.OctetString("a pdu")}, **faults)


def kinds(agent: Agent) -> list[str]:
    return [kind for kind, _ in agent.heard]
