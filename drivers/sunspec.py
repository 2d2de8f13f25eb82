"""SunSpec: devices that say themselves which registers they have.

At one of three addresses stands the marker `SunS`; after it a chain of models, each with
its id, its length L and L registers, the next one directly behind; the id 0xFFFF ends it
(SunSpec Device Information Model Specification). Pure: says what to read next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BASES = (40000, 50000, 0)
MARKER = (0x5375, 0x6E53)
END = 0xFFFF
MODELS_MAX = 64  # a chain that does not end is none


@dataclass(frozen=True, slots=True)
class Chain:
    """What is known of a device's models so far: id → address of the id register.

    `ask` is where the next two registers must be read, or None at the end. Of a model
    that occurs twice the first counts.
    """

    ask: int | None
    models: Mapping[int, int] = field(default_factory=dict)
    seen: int = 0

    def said(self, identifier: int, length: int) -> Chain:
        """The chain with the header that stands at `ask`."""
        assert self.ask is not None
        end = self.ask + 2 + length
        if identifier == END or self.seen >= MODELS_MAX or identifier == 0:
            return Chain(None, self.models, self.seen)
        models = dict(self.models)
        models.setdefault(identifier, self.ask)
        return Chain(end if end + 2 <= 65536 else None, models, self.seen + 1)


def chain_at(base: int) -> Chain:
    """The chain of a device with its marker at `base`."""
    return Chain(base + len(MARKER))
