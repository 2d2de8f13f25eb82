"""Registers to ask → the fewest reads the device bears.

Values near each other become one span. A span never splits a value, never
exceeds `registers_per_read_max`, and reads over a hole only up to `registers_gap_max`
registers (some devices refuse a read that touches an undefined register). Taking the
longest span from the left is optimal. How objects of an SNMP agent are asked is planned
where it is done: it depends on what the agent answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.points import Source


@dataclass(frozen=True, slots=True)
class Span:
    """One Modbus read: `count` registers (or bits) from `address`, and the values in it,
    each (address, count), in the order of addresses."""

    table: str
    address: int
    count: int
    values: tuple[tuple[int, int], ...]

    def halves(self) -> tuple[Span, ...]:
        """What to ask instead of a span that was refused; nothing if it is one value."""
        if len(self.values) < 2:
            return ()
        middle = len(self.values) // 2
        return (_span(self.table, self.values[:middle]), _span(self.table, self.values[middle:]))


def plan_registers(
    sources: Iterable[Source], registers_per_read_max: int, registers_gap_max: int
) -> list[Span]:
    """The spans that cover every source once."""
    values = sorted({block for source in sources for block in source.blocks})
    spans: list[Span] = []
    pending: list[tuple[int, int]] = []
    table = ""
    for value_table, address, count in values:
        if pending:
            end = max(start + length for start, length in pending)
            fits = address + count - pending[0][0] <= registers_per_read_max
            if value_table != table or not fits or address - end > registers_gap_max:
                spans.append(_span(table, tuple(pending)))
                pending = []
        table = value_table
        pending.append((address, count))
    if pending:
        spans.append(_span(table, tuple(pending)))
    return spans


def _span(table: str, values: tuple[tuple[int, int], ...]) -> Span:
    first = values[0][0]
    return Span(table, first, max(a + n for a, n in values) - first, values)
