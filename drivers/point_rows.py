"""Points and commands out of TOML rows: strict, and every fault told.

A row is checked once, before `each` expands it, so that a fault is told once and not
forty-eight times. The keys are described in docs/profiles.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from drivers.indices import (
    INDEX,
    Index,
    combinations,
    fill_name,
    filled_in,
    filled_source,
    take_indices,
)
from drivers.place_rows import (
    Surroundings,
    check_fits,
    check_placeholders,
    is_number,
    is_text,
    take_conditions,
    take_enum,
    take_markers,
    take_place,
    take_scale,
)
from drivers.points import (
    UNIT_OF_NAME,
    UNITS,
    CommandSpec,
    Derived,
    FixedWrite,
    Point,
    Source,
)
from drivers.rows import Row, shown

FACTS_MAX = 200_000  # ten times what the largest profile says, all rows expanded
LARGEST = 1e18  # no quantity of a device is more; a float of noise is
COUNTER_BITS_MIN = 8

_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def take_points(row: Row, around: Surroundings) -> list[tuple[str, Point]]:
    """Every point of the file, expanded, each with the row that made it."""
    budget = Budget(row)
    return [
        (point_row.where, point)
        for point_row in row.rows("point")
        for point in _points(point_row, around, budget)
    ]


def take_commands(row: Row, around: Surroundings) -> list[tuple[str, CommandSpec]]:
    """Every command of the file, expanded, each with the row that made it."""
    budget = Budget(row)
    return [
        (command_row.where, command)
        for command_row in row.rows("command")
        for command in _commands(command_row, around, budget)
    ]


class Budget:
    """How much a file may say once its rows are expanded; told once when it is too much."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._left = FACTS_MAX

    def takes(self, facts: int) -> bool:
        """Whether so much more may be made."""
        had, self._left = self._left, self._left - facts
        if had >= 0 > self._left:
            self._row.fault(f"its rows say more than {FACTS_MAX} things: too much for a device")
        return self._left >= 0


# ── rows ──────────────────────────────────────────────────────────────────────────


def _points(row: Row, around: Surroundings, budget: Budget) -> Iterator[Point]:
    before = len(row.faults)
    name, indices = _name_and_indices(row)
    first = _source(row, around, indices, budget)
    others = [_source(other, around, indices, budget, is_first=False)
              for other in row.rows("otherwise")]  # fmt: skip
    if any(isinstance(source, Derived) for source in (first, *others)[:-1]):
        row.fault("sum and product come last: nothing can stand after what is calculated")
    low, high = _range(row)
    numbers = [
        isinstance(s, Derived) or not (s.words or s.type == "text") for s in (first, *others)
    ]
    if len(set(numbers)) > 1:
        row.fault("a number in one place and a word or text in another")
    unit = _unit(row, name, is_number=numbers[0])
    row.end()
    parts = sum(len(s.names) for s in (first, *others) if isinstance(s, Derived))
    if len(row.faults) > before or not budget.takes(_rows_of(indices) * (row.facts + parts)):
        return
    for filled, steps in combinations(indices):
        sources = tuple(filled_in(source, filled, steps) for source in (first, *others))
        yield Point(fill_name(name, filled), unit, low, high, sources)


def _commands(row: Row, around: Surroundings, budget: Budget) -> Iterator[CommandSpec]:
    before = len(row.faults)
    name, indices = _name_and_indices(row)
    targets = [_target(row, around, indices)]
    targets += [_target(other, around, indices, last=True) for other in row.rows("otherwise")]
    if len(targets) > 1 and not all(target.words for target in targets):
        row.fault("otherwise: only words can go to several places, so all need an enum")
    if not targets[0].words and not row.has("range"):
        row.fault("range is missing: a number that is written needs its limits")
    low, high = _range(row)
    unit = _unit(row, name, is_number=not targets[0].words)
    fixed = {key: _fixed_writes(row, key, around, indices) for key in ("first", "then")}
    point, within_ms, why = _confirm(row, indices)
    row.end()
    if len(row.faults) > before or not budget.takes(_rows_of(indices) * row.facts):
        return
    for filled, steps in combinations(indices):
        writes = {
            key: tuple(FixedWrite(filled_source(w.target, filled, steps), w.raw) for w in some)
            for key, some in fixed.items()
        }
        yield CommandSpec(
            fill_name(name, filled), unit, low, high,
            tuple(filled_source(target, filled, steps) for target in targets),
            writes["first"], writes["then"],
            fill_name(point, filled) if point else None, within_ms, why,
        )  # fmt: skip


def _target(row: Row, around: Surroundings, indices: list[Index], *, last: bool = False) -> Source:
    target = take_place(row, around, reads=False)
    target = replace(target, words=take_enum(row, target.type), scale=take_scale(row))
    _check_writable(row, target)
    check_placeholders(row, target, indices, around)
    if last:
        row.end()
    return target


def _check_writable(row: Row, target: Source) -> None:
    if target.table in ("input", "discrete"):
        row.fault(f"table = {target.table!r} cannot be written")
    if target.type in ("text", "decimal"):
        row.fault("a command writes a number or one of its words, not a text")


def _fixed_writes(
    row: Row, key: str, around: Surroundings, indices: list[Index]
) -> list[FixedWrite]:
    writes = []
    for told in row.rows(key):
        target = take_place(told, around, reads=False)
        _check_writable(told, target)
        check_placeholders(told, target, indices, around)
        value = told.need("value", int, 0)
        check_fits(told, "value", value, target.type)
        writes.append(FixedWrite(target, value))
        told.end()
    return writes


def _name_and_indices(row: Row) -> tuple[str, list[Index]]:
    name = row.need("name", str, "?")
    indices = take_indices(row, "each")
    placeholders = INDEX.findall(name)
    for key in (index.key for index in indices):
        if key not in placeholders:
            row.fault(f"each.{key} does not occur in the name as {{{key}}}")
    for key in set(placeholders) - {index.key for index in indices}:
        row.fault(f"{{{key}}} in the name is not in each")
    if name != "?" and not _NAME.fullmatch(INDEX.sub("1", name)):
        row.fault(f"name = {shown(name)} is not words joined by dots, as in input.realpower")
    return name, indices


def _source(
    row: Row,
    around: Surroundings,
    indices: list[Index],
    budget: Budget,
    *,
    is_first: bool = True,
) -> Source | Derived:
    if row.has("sum") or row.has("product"):
        derived = _derived(row, indices, budget)
        if not is_first:
            row.end()
        return derived
    source = take_place(row, around, reads=True)
    source = replace(
        source,
        words=take_enum(row, source.type),
        scale=take_scale(row),
        four_quadrant=row.take("four_quadrant", bool, False),
        counter_bits=_counter_bits(row, source.type, is_first),
        estimate=row.take("estimate", bool, False),
        absent=take_markers(row, "absent", source.type),
        not_now=take_markers(row, "not_now", source.type),
        conditions=take_conditions(row, around),
    )
    if source.type == "text" and (source.scale != 1 or source.four_quadrant):
        row.fault("a text has no scale")
    check_placeholders(row, source, indices, around)
    if not is_first:
        row.end()
    return source


def _counter_bits(row: Row, type_: str, is_first: bool) -> int:
    if not row.has("counter_bits"):
        return 0
    if not is_first:
        row.fault("counter_bits: rounds are counted in a point's first place only")
    elif "int" not in type_:
        row.fault(f"counter_bits: type = {type_!r} does not wrap")
    return row.count("counter_bits", 0, least=COUNTER_BITS_MIN, most=64)


def _derived(row: Row, indices: list[Index], budget: Budget) -> Derived:
    kind = "sum" if row.has("sum") else "product"
    told = row.any(kind)
    over = take_indices(row, "over")
    patterns = [told] if isinstance(told, str) else told
    if not isinstance(patterns, list) or not all(is_text(name) for name in patterns):
        row.fault(f"{kind} wants the name of a point, or a list of them")
        patterns = []
    if kind == "product" and (over or len(patterns) < 2):
        row.fault("product wants a list of two names or more")
    known = {index.key for index in (*over, *indices)}
    for key in sorted({k for name in patterns for k in INDEX.findall(name)} - known):
        row.fault(f"{{{key}}} is neither in over nor in each")
    names: list[str] = []
    if budget.takes(len(patterns) * _rows_of(over)):
        fillings = [filled for filled, _ in combinations(over)]
        names = [fill_name(pattern, filled) for pattern in patterns for filled in fillings]
    if not patterns:
        row.fault(f"{kind} of nothing")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(names) <= 256 else []
    if twice and kind == "sum":
        row.fault(f"sum counts {twice[0]} more than once")
    return Derived(kind, tuple(names), row.take("estimate", bool, False))


def _rows_of(indices: list[Index]) -> int:
    return math.prod(index.count for index in indices)


def _range(row: Row) -> tuple[float, float]:
    if not row.has("range"):
        return -LARGEST, LARGEST
    limits = row.take("range", list, [])
    if len(limits) != 2 or not all(is_number(limit) for limit in limits):
        row.fault(f"range = {shown(limits)} is not [lowest, highest]")
        return -LARGEST, LARGEST
    low, high = float(limits[0]), float(limits[1])
    if not low < high:
        row.fault(f"range = {limits!r} is reversed or empty")
    elif low < -LARGEST or high > LARGEST:
        row.fault(f"range = {limits!r} goes beyond {LARGEST:g}")
    return low, high


def _unit(row: Row, name: str, *, is_number: bool) -> str:
    if not is_number:
        if row.take("unit", str, ""):
            row.fault("a text or a word has no unit")
        return ""
    unit = row.need("unit", str, "")
    meant = UNIT_OF_NAME.get(name.split(".")[-1])
    if unit and unit not in UNITS:
        row.fault(f"unit = {shown(unit)} is not one of {', '.join(UNITS)} (use scale)")
    elif unit and meant and unit != meant:
        row.fault(f"unit = {unit!r}, but {name} is in {meant}")
    return unit


def _confirm(row: Row, indices: list[Index]) -> tuple[str, int, str]:
    """The name of the proof, its delay, or why there is none."""
    confirm = row.any("confirm")
    if confirm == "none":
        why = row.take("why", str, "")
        if not why:
            row.fault('confirm = "none" needs a why')
        return "", 0, why
    if not isinstance(confirm, dict):
        row.fault('confirm is missing: { point = "…", within_ms = … }, or "none" and a why')
        return "", 0, ""
    told = Row(row.faults, f"{row.where}: confirm", confirm)
    point = told.need("point", str, "")
    within_ms = told.count("within_ms", 0, most=3_600_000)
    told.end()
    for key in sorted(set(INDEX.findall(point)) - {index.key for index in indices}):
        row.fault(f"confirm: {{{key}}} is not in each")
    return point, within_ms, ""
