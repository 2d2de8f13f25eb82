"""Texts of a device on an operator's screen, or in a file.

A device may say anything: line breaks, terminal sequences, half a page. What is shown of
it is one line of printable letters. Pure.
"""

from __future__ import annotations

LENGTH_MAX = 80


def shown(text: str, length_max: int = LENGTH_MAX) -> str:
    """One line of printable letters; what is too long ends in an ellipsis."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= length_max else line[: length_max - 1] + "…"


def number(value: float) -> str:
    return f"{value:,.10g}"
