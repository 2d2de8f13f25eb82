"""Points and commands of a profile: from TOML rows to expanded, frozen values.

A point is one quantity in its unit; a source is one place where a device may keep it
and how the raw value there becomes the number. A point may have several sources: the
first one that is there counts (older firmware keeps the same fact in an older table).

The arithmetic is `raw * scale`, the only substitution is `{index}`, and the only
address arithmetic is `address += stride`. What does not fit is a key with a name:

    digits      an OID that holds the number of decimal digits: value = raw / 10**digits
    only_if     another place must say so, or the point is absent (a row that belongs to
                someone else); a place that does not answer does not say so
    unless      the point is absent where another place says so; silence says nothing

A row is checked once, before `each` expands it, so that a fault is told once and not
forty-eight times.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from drivers.reading import Place
from drivers.rows import Row

REGISTERS = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2,
             "int64": 4, "uint64": 4, "float64": 4, "bit": 1}  # fmt: skip
SNMP_TYPES = ("int32", "uint32", "uint64", "text")
TABLES = ("input", "holding", "coil", "discrete")
UNITS = ("W", "VA", "var", "Wh", "V", "A", "Hz", "1", "%", "s", "°C")

# The last part of a name says which quantity it is (NUT, RFC 9271), and with it the unit.
UNIT_OF_NAME = {"realpower": "W", "power": "VA", "reactivepower": "var", "energy": "Wh",
                "voltage": "V", "current": "A", "frequency": "Hz",
                "powerfactor": "1"}  # fmt: skip

EACH_MAX = 256  # rows of one `each`; more is a slip of the pen, not a device

_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_OID = re.compile(r"[012](\.(0|[1-9][0-9]*))+")
_INDEX = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Condition:
    """The raw value at `oid` must be (or, with `must` false, must not be) among `raws`."""

    oid: str
    raws: tuple[int | str, ...]  # texts only before `each` has filled them in
    must: bool


@dataclass(frozen=True, slots=True)
class Source:
    """One place of a value: an OID, or registers of a table, and how to read it."""

    type: str
    oid: str = ""
    table: str = ""
    address: int = 0
    word_order: str = "big"
    byte_order: str = "big"
    scale: float = 1.0
    absent: tuple[int | float | str, ...] = ()
    words: tuple[tuple[int, str], ...] = ()
    digits_oid: str = ""
    conditions: tuple[Condition, ...] = ()

    @property
    def own_places(self) -> tuple[Place, ...]:
        """Where the value itself is."""
        if self.oid:
            return (self.oid,)
        return tuple((self.table, self.address + n) for n in range(REGISTERS[self.type]))

    @property
    def places(self) -> tuple[Place, ...]:
        """Everything that must be asked to read it."""
        beside = [self.digits_oid, *(condition.oid for condition in self.conditions)]
        return (*self.own_places, *(oid for oid in beside if oid))


@dataclass(frozen=True, slots=True)
class Point:
    """One quantity. Texts and words have the unit ""; `low` and `high` are in the unit."""

    name: str
    unit: str
    low: float
    high: float
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One thing that can be written, and the point that proves it.

    `confirm_point` None: the device offers no proof, `confirm_why` says why.
    """

    name: str
    unit: str
    low: float
    high: float
    target: Source
    confirm_point: str | None
    confirm_within_ms: int
    confirm_why: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word for _, word in self.target.words)


def take_points(row: Row, protocol: str) -> list[tuple[str, Point]]:
    """Every point of the file, expanded, each with the row that made it."""
    return [
        (point_row.where, point)
        for point_row in row.rows("point")
        for point in _points(point_row, protocol)
    ]


def take_commands(row: Row, protocol: str) -> list[tuple[str, CommandSpec]]:
    """Every command of the file, expanded, each with the row that made it."""
    return [
        (command_row.where, command)
        for command_row in row.rows("command")
        for command in _commands(command_row, protocol)
    ]


def overlaps(points: list[tuple[str, Point]]) -> list[str]:
    """Places that two points claim: one of them is a slip, or is counted twice.

    Rows that `only_if` tells apart are different places: only one of them can be there.
    """
    owners: dict[tuple[Place, tuple[Condition, ...]], tuple[str, Point]] = {}
    faults: dict[tuple[str, str], str] = {}
    for where, point in points:
        for source, place in ((s, place) for s in point.sources for place in s.own_places):
            other_where, other = owners.setdefault((place, source.conditions), (where, point))
            if other is not point:
                shown = place if isinstance(place, str) else f"{place[0]} {place[1]}"
                faults.setdefault(
                    (where, other_where),
                    f"{where}: {shown} is already read as {other.name}",
                )
    return list(faults.values())


# ── rows ──────────────────────────────────────────────────────────────────────────


def _points(row: Row, protocol: str) -> Iterator[Point]:
    before = len(row.faults)
    name, indices = _name_and_indices(row)
    first = _source(row, protocol, indices)
    others = [_source(other, protocol, indices, last=True) for other in row.rows("otherwise")]
    low, high = _range(row)
    unit = _unit(row, name, is_number=not first.words and first.type != "text")
    row.end()
    if len(row.faults) > before:
        return
    for filled, steps in _combinations(indices):
        sources = tuple(_filled(source, filled, steps) for source in (first, *others))
        yield Point(_fill(name, filled), unit, low, high, sources)


def _commands(row: Row, protocol: str) -> Iterator[CommandSpec]:
    before = len(row.faults)
    name, indices = _name_and_indices(row)
    target = _source(row, protocol, indices, reads=False)
    if target.table in ("input", "discrete"):
        row.fault(f"table = {target.table!r} cannot be written")
    if target.type == "text":
        row.fault("a command writes a number or one of its words, not a text")
    if not target.words and not row.has("range"):
        row.fault("range is missing: a number that is written needs its limits")
    low, high = _range(row)
    unit = _unit(row, name, is_number=not target.words)
    point, within_ms, why = _confirm(row, indices)
    row.end()
    if len(row.faults) > before:
        return
    for filled, steps in _combinations(indices):
        proof = _fill(point, filled) if point else None
        yield CommandSpec(
            _fill(name, filled), unit, low, high, _filled(target, filled, steps), proof,
            within_ms, why,
        )  # fmt: skip


def _name_and_indices(row: Row) -> tuple[str, list[_Index]]:
    name = row.need("name", str, "?")
    each = row.table("each")
    indices = [_index(each.table(key), key) for key in each.left()]
    placeholders = _INDEX.findall(name)
    for key in (index.key for index in indices):
        if key not in placeholders:
            row.fault(f"each.{key} does not occur in the name as {{{key}}}")
    for key in set(placeholders) - {index.key for index in indices}:
        row.fault(f"{{{key}}} in the name is not in each")
    if name != "?" and not _NAME.fullmatch(_INDEX.sub("1", name)):
        row.fault(f"name = {name!r} is not words joined by dots, as in input.realpower")
    if math.prod(index.count for index in indices) > EACH_MAX:
        row.fault(f"each makes more than {EACH_MAX} rows")
    return name, indices


@dataclass(frozen=True, slots=True)
class _Index:
    """One key of `each`: first, first + 1, …; `beside` counts along from other numbers."""

    key: str
    first: int
    count: int
    stride: int
    beside: Mapping[str, int]


def _index(row: Row, key: str) -> _Index:
    first = row.count("first", 1)
    count = row.count("count", 1, least=1, most=EACH_MAX)
    stride = row.count("stride", 0)
    beside = row.table("beside")
    starts = {other: beside.count(other, 0) for other in beside.left()}
    row.end()
    return _Index(key, first, count, stride, starts)


def _combinations(indices: list[_Index]) -> Iterator[tuple[dict[str, int], int]]:
    """Every filling of the placeholders, and what it adds to the address."""
    for steps in itertools.product(*(range(index.count) for index in indices)):
        filled: dict[str, int] = {}
        for index, step in zip(indices, steps, strict=True):
            filled[index.key] = index.first + step
            filled |= {other: start + step for other, start in index.beside.items()}
        yield filled, sum(i.stride * s for i, s in zip(indices, steps, strict=True))


def _source(
    row: Row, protocol: str, indices: list[_Index], *, reads: bool = True, last: bool = False
) -> Source:
    source = _oid_source(row, reads) if protocol == "snmp" else _register_source(row)
    enum = row.take("enum", dict, {})
    words = tuple((raw, word) for word, raw in enum.items() if _is_integer(raw))
    if len(words) < len(enum) or len({raw for raw, _ in words}) < len(words):
        row.fault("enum needs a different whole number for every word")
    scale = row.take("scale", float, 1.0)
    if scale == 0 or not math.isfinite(scale):
        row.fault(f"scale = {scale:g} loses the value")
    absent = row.take("absent", list, []) if reads else []
    fits = _is_text if source.type == "text" else _is_number
    if not all(fits(value) for value in absent):
        row.fault(f"absent = {absent!r} does not fit type = {source.type!r}")
    if words and source.type == "text":
        row.fault("enum with type = 'text' has no number to compare")
    source = replace(source, words=words, scale=scale, absent=tuple(absent))
    _check_placeholders(row, source, indices)
    if last:
        row.end()
    return source


def _oid_source(row: Row, reads: bool) -> Source:
    oid = _oid(row, row.need("oid", str, "1.3"))
    type_ = row.word("type", SNMP_TYPES, "int32")
    if not reads:
        return Source(type_, oid)
    digits_oid = row.take("digits", str, "")
    if digits_oid:
        _oid(row, digits_oid)
    conditions = []
    for key, must in (("only_if", True), ("unless", False)):
        if row.has(key):
            told = row.table(key)
            conditions.append(
                Condition(_oid(told, told.need("oid", str, "1.3")), _raws(told), must)
            )
    return Source(type_, oid, digits_oid=digits_oid, conditions=tuple(conditions))


def _oid(row: Row, oid: str) -> str:
    if not _OID.fullmatch(_INDEX.sub("1", oid)):
        row.fault(f"{oid!r} is not an OID in numbers, as in 1.3.6.1.2.1.1.2.0")
    return oid


def _raws(row: Row) -> tuple[int | str, ...]:
    raws = tuple(row.need("is", list, []))
    if not all(_is_integer(raw) or (_is_text(raw) and _INDEX.fullmatch(raw)) for raw in raws):
        row.fault('is may hold whole numbers and "{index}" only')
        raws = ()
    row.end()
    return raws


def _register_source(row: Row) -> Source:
    table = row.need("table", str, "holding")
    if table not in TABLES:
        row.fault(f"table = {table!r} is not one of {', '.join(TABLES)}")
    is_bit = table in ("coil", "discrete")
    type_ = row.word("type", tuple(REGISTERS), "bit" if is_bit else "uint16")
    if is_bit != (type_ == "bit"):
        row.fault(f"type = {type_!r} does not fit table = {table!r}")
    address = row.need("address", int, 0)
    is_meant = row.take("zero_based", bool, False)
    hint = None if is_meant else _one_based_hint(table, address)
    if hint is not None:
        row.fault(
            f"address = {address} looks like a register number of a manual; on the wire that is"
            f" {hint}. Write address = {hint}, or zero_based = true if {address} is meant"
        )
    elif not 0 <= address <= 65536 - REGISTERS[type_]:
        row.fault(f"address = {address} is not between 0 and 65535 (zero-based, as on the wire)")
    return Source(
        type_,
        table=table,
        address=address,
        word_order=row.word("word_order", ("big", "little"), "big"),
        byte_order=row.word("byte_order", ("big", "little"), "big"),
    )


def _one_based_hint(table: str, address: int) -> int | None:
    """Manuals print a table digit and a number counted from 1: 30053 is input register 52."""
    digit = {"discrete": 1, "input": 3, "holding": 4}.get(table)
    for size in (10_000, 100_000):
        if digit is not None and digit * size < address < digit * size + min(size, 65_537):
            return address - digit * size - 1
    return None


def _check_placeholders(row: Row, source: Source, indices: list[_Index]) -> None:
    known = {index.key for index in indices} | {key for i in indices for key in i.beside}
    texts = [source.oid, source.digits_oid]
    for condition in source.conditions:
        texts += [condition.oid, *(raw for raw in condition.raws if isinstance(raw, str))]
    for key in sorted({key for text in texts for key in _INDEX.findall(text)} - known):
        row.fault(f"{{{key}}} is not in each")
    if source.table:
        last = source.address + sum(index.stride * (index.count - 1) for index in indices)
        if any(index.count > 1 and index.stride == 0 for index in indices):
            row.fault("each needs a stride: the registers from one row to the next")
        elif last + REGISTERS[source.type] > 65536:
            row.fault(f"the last row would be at address {last}")
    for index in indices:
        used = {index.key, *index.beside}
        if source.oid and index.count > 1 and not used & set(_INDEX.findall(source.oid)):
            row.fault(f"oid does not contain {{{index.key}}}: every row would be the same place")


def _range(row: Row) -> tuple[float, float]:
    if not row.has("range"):
        return -math.inf, math.inf
    limits = row.take("range", list, [])
    if len(limits) != 2 or not all(_is_number(limit) for limit in limits):
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


def _confirm(row: Row, indices: list[_Index]) -> tuple[str, int, str]:
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
    for key in sorted(set(_INDEX.findall(point)) - {index.key for index in indices}):
        row.fault(f"confirm: {{{key}}} is not in each")
    return point, within_ms, ""


# ── filling in ────────────────────────────────────────────────────────────────────


def _fill(text: str, filled: Mapping[str, int]) -> str:
    return _INDEX.sub(lambda found: str(filled[found[1]]), text)


def _filled(source: Source, filled: Mapping[str, int], address_step: int) -> Source:
    conditions = tuple(
        Condition(
            _fill(condition.oid, filled),
            tuple(int(_fill(str(raw), filled)) for raw in condition.raws),
            condition.must,
        )
        for condition in source.conditions
    )
    return replace(
        source,
        oid=_fill(source.oid, filled),
        digits_oid=_fill(source.digits_oid, filled),
        address=source.address + address_step,
        conditions=conditions,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
