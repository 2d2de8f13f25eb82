"""Strict reading of TOML tables: every fault is kept, none is passed over.

A `Row` hands its keys out once each with their type checked; what nobody took is an
unknown key. Faults are sentences with file, row and key, collected in one list, so
that who wrote the file sees all of them at once.

Whoever wrote the file, reading it ends soon: it may be so long, so deep, and no number
larger than a device can hold. Beyond that it is refused as a whole.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from drivers.errors import ProfileError

T = TypeVar("T")

TEXT_MAX = 262_144  # characters of a file: ten times the longest profile there is
LINE_MAX = 4_096  # a key of very many parts costs their square to read
DEPTH_MAX = 16  # tables and lists within each other
INTEGER_END = 2**64  # uint64 is the widest type there is
SHOWN_MAX = 80  # characters of a value in a fault

_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false",
          list: "a list", dict: "a table"}  # fmt: skip


def parsed(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text; ProfileError if it is none, or cannot be a profile."""
    if len(text) > TEXT_MAX:
        raise ProfileError(f"{where}: longer than {TEXT_MAX} characters")
    if max(map(len, text.split("\n"))) > LINE_MAX:
        raise ProfileError(f"{where}: a line is longer than {LINE_MAX} characters")
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an integer of 5000 digits is a ValueError
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ProfileError(f"{where}: not TOML: {reason}") from None
    faults = [f"{where}: {fault}" for fault in _excesses(values)]
    if faults:
        raise ProfileError(*faults)
    return values


def _excesses(values: dict[str, Any]) -> Iterator[str]:
    pending: list[tuple[str, Any, int]] = [("", values, 0)]
    while pending:
        path, value, depth = pending.pop()
        if isinstance(value, int) and not -INTEGER_END < value < INTEGER_END:
            yield f"{path} is a number of more than 64 bits"
        elif isinstance(value, (dict, list)):
            if depth == DEPTH_MAX:
                yield f"{path} is nested more than {DEPTH_MAX} deep"
                continue
            inside = value.items() if isinstance(value, dict) else enumerate(value, start=1)
            pending += [(_path(path, key), inner, depth + 1) for key, inner in inside]


def _path(path: str, key: object) -> str:
    return f"{path}.{key!s:.{SHOWN_MAX}}" if path else f"{key!s:.{SHOWN_MAX}}"


def shown(value: object) -> str:
    """`value` in a fault: not longer than a reader wants it."""
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def facts_in(value: object) -> int:
    """How many single values there are in a table or list."""
    count, pending = 0, [value]
    while pending:
        inner = pending.pop()
        if isinstance(inner, (dict, list)):
            pending.extend(inner.values() if isinstance(inner, dict) else inner)
        count += 1
    return count


class Row:
    """One table of a file. `where` says which, in the words of the reader."""

    def __init__(self, faults: list[str], where: str, values: Mapping[str, Any]) -> None:
        self.faults = faults
        self.where = where
        self._values = values
        self._left = dict(values)
        self._known: set[str] = set()

    def fault(self, text: str) -> None:
        self.faults.append(f"{self.where}: {text}")

    def has(self, key: str) -> bool:
        return key in self._left

    @property
    def facts(self) -> int:
        """How much the table says: what making a row of it costs."""
        return facts_in(self._values)

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
        self.fault(f"{key} = {shown(value)} is not {_KINDS[kind]}")
        return otherwise

    def any(self, key: str) -> Any:
        """The value of a key that has more than one form; None if left out."""
        self._known.add(key)
        return self._left.pop(key, None)

    def word(self, key: str, words: Collection[str], otherwise: str) -> str:
        """One of `words`."""
        value = self.take(key, str, otherwise)
        if value != otherwise and value not in words:
            meant = _meant(value, words)
            self.fault(f"{key} = {shown(value)} is not one of {', '.join(words)}{meant}")
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
            called = f' "{name[:SHOWN_MAX]}"' if isinstance(name, str) else ""
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
