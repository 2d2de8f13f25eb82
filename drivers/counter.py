"""Counters that wrap: readings that go on where the device begins again at zero.

A counter of b bits that was in its last quarter and is now in its first has wrapped; one
that went down otherwise was reset, and starts anew. Both are guesses about what happened
between two readings, so a counter must be read more than four times per round.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counter:
    """The last raw value, and the rounds before it."""

    bits: int
    raw: int
    rounds: int = 0

    def then(self, raw: int) -> Counter:
        """The counter after its next raw value."""
        quarter = 1 << (self.bits - 2)
        if raw >= self.raw:
            return Counter(self.bits, raw, self.rounds)
        wrapped = self.raw >= 3 * quarter and raw < quarter
        return Counter(self.bits, raw, self.rounds + 1 if wrapped else 0)

    @property
    def total(self) -> int:
        """The raw value with its rounds."""
        return (self.rounds << self.bits) + self.raw
