"""A text that is never printed: communities and keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """`repr` and `str` are `***`; the text itself is asked for by name."""

    text: str

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__
