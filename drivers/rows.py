"""Strict reading of TOML tables: every fault is kept, none is passed over.

A `Row` hands its keys out once each with their type checked; what nobody took is an
unknown key. Faults are sentences with file, row and key, collected in one list, so
that who wrote the file sees all of them at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false",
          list: "a list", dict: "a table"}  # fmt: skip


class Row:
    """One table of a file. `where` says which, in the words of the reader."""

    def __init__(self, faults: list[str], where: str, values: Mapping[str, Any]) -> None:
        self.faults = faults
        self.where = where
        self._left = dict(values)
        self._known: set[str] = set()

    def fault(self, text: str) -> None:
        self.faults.append(f"{self.where}: {text}")

    def has(self, key: str) -> bool:
        return key in self._left

    def left(self) -> list[str]:
        """The keys that nobody has taken yet."""
        return list(self._left)

    def need(self, key: str, kind: type[T], otherwise: T) -> T:
        """The value of a key that must be there; `otherwise` stands in after a fault."""
        if key not in self._left:
            self._known.add(key)
            self.fault(f"{key} is missing")
            return otherwise
        return self.take(key, kind, otherwise)

    def take(self, key: str, kind: type[T], otherwise: T) -> T:
        """The value of a key that may be left out."""
        self._known.add(key)
        value = self._left.pop(key, otherwise)
        if value is otherwise or _fits(value, kind):
            return float(value) if kind is float else value  # type: ignore[return-value]
        self.fault(f"{key} = {value!r} is not {_KINDS[kind]}")
        return otherwise

    def any(self, key: str) -> Any:
        """The value of a key that has more than one form; None if left out."""
        self._known.add(key)
        return self._left.pop(key, None)

    def word(self, key: str, words: Collection[str], otherwise: str) -> str:
        """One of `words`."""
        value = self.take(key, str, otherwise)
        if value != otherwise and value not in words:
            self.fault(f"{key} = {value!r} is not one of {', '.join(words)}{_meant(value, words)}")
            return otherwise
        return value

    def count(self, key: str, otherwise: int, *, least: int = 0, most: int = 2**31 - 1) -> int:
        """A whole number within limits."""
        value = self.take(key, int, otherwise)
        if not least <= value <= most:
            self.fault(f"{key} = {value} is not between {least} and {most}")
            return otherwise
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self.take(key, list, [])
        if any(not isinstance(value, str) for value in values):
            self.fault(f"{key} may hold texts only")
            return ()
        return tuple(values)

    def table(self, key: str, *, needed: bool = False) -> Row:
        """A table inside this one; empty if left out."""
        values = self.need(key, dict, {}) if needed else self.take(key, dict, {})
        return Row(self.faults, f"{self.where}: [{key}]", values)

    def rows(self, key: str) -> list[Row]:
        """An array of tables, each called by its number (from 1) and its name."""
        found = []
        for number, values in enumerate(self.take(key, list, []), start=1):
            if not isinstance(values, dict):
                self.fault(f"{key} number {number} is not a table")
                continue
            name = values.get("name")
            called = f' "{name}"' if isinstance(name, str) else ""
            found.append(
                Row(self.faults, f"{self.where}: [[{key}]] number {number}{called}", values)
            )
        return found

    def end(self) -> None:
        """Whatever is left is unknown."""
        for key in self._left:
            self.fault(f"unknown key {key}{_meant(key, self._known)}")


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _meant(word: str, words: Collection[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f" (meant {near[0]}?)" if near else ""
