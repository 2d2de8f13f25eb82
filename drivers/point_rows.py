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
    check_placeholders,
    is_number,
    is_text,
    take_absent,
    take_conditions,
    take_enum,
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
from drivers.rows import Row

_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def take_points(row: Row, around: Surroundings) -> list[tuple[str, Point]]:
    """Every point of the file, expanded, each with the row that made it."""
    return [
        (point_row.where, point)
        for point_row in row.rows("point")
        for point in _points(point_row, around)
    ]


def take_commands(row: Row, around: Surroundings) -> list[tuple[str, CommandSpec]]:
    """Every command of the file, expanded, each with the row that made it."""
    return [
        (command_row.where, command)
        for command_row in row.rows("command")
        for command in _commands(command_row, around)
    ]


# ── rows ──────────────────────────────────────────────────────────────────────────


def _points(row: Row, around: Surroundings) -> Iterator[Point]:
    before = len(row.faults)
    name, indices = _name_and_indices(row)
    first = _source(row, around, indices)
    others = [_source(other, around, indices, last=True) for other in row.rows("otherwise")]
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
    if len(row.faults) > before:
        return
    for filled, steps in combinations(indices):
        sources = tuple(filled_in(source, filled, steps) for source in (first, *others))
        yield Point(fill_name(name, filled), unit, low, high, sources)


def _commands(row: Row, around: Surroundings) -> Iterator[CommandSpec]:
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
    if len(row.faults) > before:
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
    if target.table in ("input", "discrete"):
        row.fault(f"table = {target.table!r} cannot be written")
    if target.type in ("text", "decimal"):
        row.fault("a command writes a number or one of its words, not a text")
    check_placeholders(row, target, indices, around)
    if last:
        row.end()
    return target


def _fixed_writes(
    row: Row, key: str, around: Surroundings, indices: list[Index]
) -> list[FixedWrite]:
    writes = []
    for told in row.rows(key):
        target = take_place(told, around, reads=False)
        check_placeholders(told, target, indices, around)
        writes.append(FixedWrite(target, told.need("value", int, 0)))
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
        row.fault(f"name = {name!r} is not words joined by dots, as in input.realpower")
    return name, indices


def _source(
    row: Row, around: Surroundings, indices: list[Index], *, last: bool = False
) -> Source | Derived:
    if row.has("sum") or row.has("product"):
        derived = _derived(row, indices)
        if last:
            row.end()
        return derived
    source = take_place(row, around, reads=True)
    source = replace(
        source,
        words=take_enum(row, source.type),
        scale=take_scale(row),
        four_quadrant=row.take("four_quadrant", bool, False),
        counter_bits=row.count("counter_bits", 0, most=64),
        estimate=row.take("estimate", bool, False),
        absent=take_absent(row, source.type),
        conditions=take_conditions(row, around),
    )
    if source.type == "text" and (source.scale != 1 or source.four_quadrant):
        row.fault("a text has no scale")
    check_placeholders(row, source, indices, around)
    if last:
        row.end()
    return source


def _derived(row: Row, indices: list[Index]) -> Derived:
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
    names = [fill_name(pattern, filled) for pattern in patterns for filled, _ in combinations(over)]
    if not names:
        row.fault(f"{kind} of nothing")
    return Derived(kind, tuple(names), row.take("estimate", bool, False))


def _range(row: Row) -> tuple[float, float]:
    if not row.has("range"):
        return -math.inf, math.inf
    limits = row.take("range", list, [])
    if len(limits) != 2 or not all(is_number(limit) for limit in limits):
        row.fault(f"range = {limits!r} is not [lowest, highest]")
        return -math.inf, math.inf
    low, high = float(limits[0]), float(limits[1])
    if not low < high:
        row.fault(f"range = {limits!r} is reversed or empty")
    return low, high


def _unit(row: Row, name: str, *, is_number: bool) -> str:
    if not is_number:
        if row.take("unit", str, ""):
            row.fault("a text or a word has no unit")
        return ""
    unit = row.need("unit", str, "")
    meant = UNIT_OF_NAME.get(name.split(".")[-1])
    if unit and unit not in UNITS:
        row.fault(f"unit = {unit!r} is not one of {', '.join(UNITS)} (use scale)")
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
