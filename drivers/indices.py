"""`each`: rows that are told once and stand for many, and what is put for `{index}`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from drivers.points import Condition, Derived, Lookup, Source
from drivers.rows import Row, shown

EACH_MAX = 256  # rows of one `each`; more is a slip of the pen, not a device
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
WORD = re.compile(r"[A-Za-z0-9-]+")  # it stands in a name, between dots …
WORDS = re.compile(rf"{WORD.pattern}(\.{WORD.pattern})*")  # … and of a sum, for several
INDEX = re.compile(r"\{([^{}]*)\}")
MEMBER, ROW = "member", "row"  # filled in on the spot, with what the device says


@dataclass(frozen=True, slots=True)
class Index:
    """One key of `each`: first, first + 1, …, and what the rows are called."""

    key: str
    first: int
    count: int
    stride: int
    words: tuple[str, ...]


def take_indices(row: Row, key: str) -> list[Index]:
    table = row.table(key)
    pattern = WORDS if key == "over" else WORD
    indices = [_index(table.table(name), name, pattern) for name in table.left()]
    if math.prod(index.count for index in indices) > EACH_MAX:
        row.fault(f"{key} makes more than {EACH_MAX} rows")
        return [replace(index, count=1) for index in indices]
    return indices


def _index(row: Row, key: str, pattern: re.Pattern[str]) -> Index:
    if key in (MEMBER, ROW):
        row.fault(f"{{{key}}} has a meaning of its own: call it otherwise")
    elif not KEY.fullmatch(key):
        row.fault(f"{shown(key)} is not a word of letters and digits")
    words = row.texts("words")
    first = row.count("first", 1)
    count = row.count("count", len(words) or 1, least=1, most=EACH_MAX)
    stride = row.count("stride", 0)
    if words and len(words) != count:
        row.fault(f"{len(words)} words for {count} rows")
    for word in words:
        if not pattern.fullmatch(word):
            row.fault(f"{shown(word)} cannot stand in a name: letters, digits and - only")
    row.end()
    return Index(key, first, count, stride, words)


Filled = Mapping[str, tuple[int, str]]
"""Of every key of `each`: its number and what stands for it in a name."""


def combinations(indices: list[Index]) -> Iterator[tuple[Filled, int]]:
    """Every filling of the placeholders, and what it adds to the address."""
    for steps in itertools.product(*(range(index.count) for index in indices)):
        filled: dict[str, tuple[int, str]] = {}
        for index, step in zip(indices, steps, strict=True):
            number = index.first + step
            filled[index.key] = (number, index.words[step] if index.words else str(number))
        yield filled, sum(i.stride * s for i, s in zip(indices, steps, strict=True))


def substitute(text: str, of: Callable[[str], str | None]) -> str:
    """`text` with every `{key}` that `of` knows replaced."""
    if "{" not in text:
        return text

    def put(found: re.Match[str]) -> str:
        told = of(found[1])
        return found[0] if told is None else told

    return INDEX.sub(put, text)


def _fill(text: str, filled: Filled) -> str:
    return substitute(text, lambda key: str(filled[key][0]) if key in filled else None)


def fill_name(text: str, filled: Filled) -> str:
    return substitute(text, lambda key: filled[key][1] if key in filled else None)


def _fill_value(value: int | str, filled: Filled) -> int | str:
    """`"{index}"` becomes the number; any other text is meant as it is."""
    if isinstance(value, str) and value[1:-1] in filled and INDEX.fullmatch(value):
        return filled[value[1:-1]][0]
    return _fill(value, filled) if isinstance(value, str) else value


def filled_in(source: Source | Derived, filled: Filled, address_step: int) -> Source | Derived:
    if isinstance(source, Derived):
        return replace(source, names=tuple(fill_name(name, filled) for name in source.names))
    return filled_source(source, filled, address_step)


def filled_source(source: Source, filled: Filled, address_step: int) -> Source:
    conditions = tuple(
        Condition(
            _fill(c.place, filled) if isinstance(c.place, str) else c.place,
            tuple(_fill_value(raw, filled) for raw in c.raws),
            c.must,
            c.lasting,
        )
        for c in source.conditions
    )
    item = _fill_value(source.item, filled)
    return replace(
        source,
        oid=_fill(source.oid, filled),
        digits_oid=_fill(source.digits_oid, filled),
        factor_oid=_fill(source.factor_oid, filled),
        row=tuple(
            Lookup(_fill(look.column, filled), _fill_value(look.value, filled))
            for look in source.row
        ),
        item=int(item),
        address=source.address + address_step,
        conditions=conditions,
    )
