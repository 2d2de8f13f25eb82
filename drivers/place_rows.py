"""Places out of TOML rows: where a raw value stands, and what must hold for it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from drivers.indices import INDEX, KEY, MEMBER, ROW, Index
from drivers.points import REGISTERS, SNMP_TYPES, TABLES, Condition, Lookup, Ratio, Source
from drivers.rows import Row, shown

TEXT_REGISTERS_MAX = 64

SCALE_MIN, SCALE_MAX = 1e-9, 1e9  # nano and giga: what a device may count in
OFFSET_MAX = 15_535  # of a SunSpec map at 50000, the highest place where one begins
ARCS_MAX = 128  # RFC 2578 3.5, and that each is below 2^32
ARC_MAX = 2**32 - 1

_ARC = re.compile(r"0|[1-9][0-9]{0,9}")
_OPEN_ARC = re.compile(rf"\{{{KEY.pattern}\}}")


_INTEGERS = {
    type_: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if type_[0] == "i" else (0, 2**bits - 1)
    for bits in (16, 32, 64)
    for type_ in (f"int{bits}", f"uint{bits}")
} | {"bit": (0, 1)}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the rest of the profile says and a row must know."""

    protocol: str
    has_members: bool
    registers_per_read_max: int


def take_text_source(row: Row, around: Surroundings) -> Source:
    """A place with a text, for the identity of a device."""
    source = take_place(row, around, reads=True, types=("text",), otherwise="text")
    check_placeholders(row, source, [], around)
    return source


def take_oid(row: Row, oid: str, *, is_open: bool = True) -> str:
    """`oid` if it is one in numbers, told as a fault otherwise; where it `is_open` a whole
    number of it may be `{index}`."""
    if not _is_oid(oid, is_open):
        row.fault(f"{shown(oid)} is not an OID in numbers, as in 1.3.6.1.2.1.1.2.0")
        return "1.3"
    return oid


def _is_oid(oid: str, is_open: bool) -> bool:
    arcs = oid.split(".")
    if not 2 <= len(arcs) <= ARCS_MAX:
        return False
    numbers = [int(arc) if _ARC.fullmatch(arc) else -1 for arc in arcs]
    if not 0 <= numbers[0] <= 2 or not 0 <= numbers[1] <= (39 if numbers[0] < 2 else ARC_MAX):
        return False
    return all(
        0 <= number <= ARC_MAX or (is_open and _OPEN_ARC.fullmatch(arc))
        for number, arc in zip(numbers, arcs, strict=True)
    )


def take_place(
    row: Row,
    around: Surroundings,
    *,
    reads: bool,
    types: tuple[str, ...] = (),
    otherwise: str = "",
) -> Source:
    if around.protocol == "snmp":
        source = _oid_place(row, reads, types or SNMP_TYPES, otherwise or "int32")
    else:
        source = _register_place(row, around, reads, types or (*REGISTERS, "text"), otherwise)
    beside = (source.digits_oid, source.factor_oid, source.ratios)
    if source.type == "text" and (any(beside) or source.scale_factor is not None):
        row.fault("a text is not multiplied or divided")
    return source


def _oid_place(row: Row, reads: bool, types: tuple[str, ...], otherwise: str) -> Source:
    oid = take_oid(row, row.need("oid", str, "1.3"))
    type_ = row.word("type", types, otherwise)
    lookups = _lookups(row)
    if not reads:
        return Source(type_, oid, lookups)
    digits, factor = row.take("digits", str, ""), row.take("factor", str, "")
    for beside in (digits, factor):
        if beside:
            take_oid(row, beside)
    suffix = row.take("suffix", str, "")
    if suffix and type_ != "decimal":
        row.fault("suffix belongs to type = 'decimal'")
    if row.has("item") and type_ not in ("text", "decimal"):
        row.fault("item belongs to type = 'text' or 'decimal'")
    return Source(
        type_, oid, lookups, suffix=suffix, digits_oid=digits, factor_oid=factor,
        item=_open_number(row, "item"),
    )  # fmt: skip


def _open_number(row: Row, key: str) -> int:
    """A number, or `"{index}"`: kept as text until `each` fills it in."""
    told = row.any(key)
    if told is None:
        return 0
    if (is_integer(told) and told >= 1) or (is_text(told) and INDEX.fullmatch(told)):
        return told  # type: ignore[no-any-return]
    row.fault(f'{key} = {shown(told)} is not a number from 1, nor "{{index}}"')
    return 0


def _lookups(row: Row) -> tuple[Lookup, ...]:
    found = []
    for column, value in row.take("row", dict, {}).items():
        take_oid(row, column)
        if not (is_integer(value) or is_text(value)):
            row.fault(f"row: {shown(value)} is neither a whole number nor a text")
        found.append(Lookup(column, value))
    return tuple(found)


def _register_place(
    row: Row, around: Surroundings, reads: bool, types: tuple[str, ...], otherwise: str
) -> Source:
    place = _model_place if row.has("model") else _table_place
    source = place(row, types, otherwise)
    type_ = source.type
    length = 0
    if type_ == "text":
        length = row.count("length", 1, least=1, most=TEXT_REGISTERS_MAX)
    words = row.word("word_order", ("big", "little"), "big")
    source = replace(
        source,
        length=length,
        word_order=words,
        byte_order=row.word("byte_order", ("big", "little"), "big"),
        scale_factor=row.count("scale_factor", 0, most=65535) if row.has("scale_factor") else None,
        ratios=(*_ratios(row, "multiply_by", False), *_ratios(row, "divide_by", True)),
    )
    _check_blocks(row, source, around)
    if not reads and source.ratios:
        row.fault("multiply_by and divide_by are for reading")
    return source


def _check_blocks(row: Row, source: Source, around: Surroundings) -> None:
    last = max(address + count for _, address, count in source.blocks)
    piece = max(count for _, _, count in source.blocks)
    if last > (OFFSET_MAX + 1 if source.models else 65536):
        row.fault(f"the last register would be {last - 1}")
    elif piece > around.registers_per_read_max:
        row.fault(
            f"{piece} registers must be read in one piece, but registers_per_read_max ="
            f" {around.registers_per_read_max}"
        )


def _table_place(row: Row, types: tuple[str, ...], otherwise: str) -> Source:
    table = row.need("table", str, "holding")
    if table not in TABLES:
        row.fault(f"table = {table!r} is not one of {', '.join(TABLES)}")
    is_bit = table in ("coil", "discrete")
    type_ = row.word("type", types, otherwise or ("bit" if is_bit else "uint16"))
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
    elif not 0 <= address <= 65536 - REGISTERS.get(type_, 1):
        row.fault(f"address = {address} is not between 0 and 65535 (zero-based, as on the wire)")
    return Source(type_, table=table, address=address)


def _model_place(row: Row, types: tuple[str, ...], otherwise: str) -> Source:
    told = row.any("model")
    models = told if isinstance(told, list) else [told]
    if not models or not all(is_integer(model) and 1 <= model <= 65534 for model in models):
        row.fault(f"model = {shown(told)} is not a SunSpec model, or a list of them")
        models = [1]
    type_ = row.word("type", types, otherwise or "uint16")
    if type_ == "bit":
        row.fault("type = 'bit' does not fit a SunSpec model")
    row.need("offset", int, 0) if not row.has("offset") else None
    offset = row.count("offset", 0, most=OFFSET_MAX)
    return Source(type_, table="holding", address=offset, models=tuple(models))


def _ratios(row: Row, key: str, divides: bool) -> list[Ratio]:
    found = []
    for told in row.rows(key):
        address = told.count("address", 0, most=65535)
        type_ = told.word("type", tuple(REGISTERS), "uint16")
        told.end()
        found.append(Ratio(address, type_, divides))
    return found


def _one_based_hint(table: str, address: int) -> int | None:
    """Manuals print a table digit and a number counted from 1: 30053 is input register 52."""
    digit = {"discrete": 1, "input": 3, "holding": 4}.get(table)
    for size in (10_000, 100_000):
        if digit is not None and digit * size < address < digit * size + min(size, 65_537):
            return address - digit * size - 1
    return None


# ── keys ──────────────────────────────────────────────────────────────────────────


def take_enum(row: Row, type_: str) -> tuple[tuple[int | str, str], ...]:
    enum = row.take("enum", dict, {})
    fits = is_text if type_ == "text" else is_integer
    words = tuple((raw, word) for word, raw in enum.items() if fits(raw))
    if len(words) < len(enum) or len({raw for raw, _ in words}) < len(words):
        kind = "text" if type_ == "text" else "whole number"
        row.fault(f"enum needs a different {kind} for every word")
    for raw, word in words:
        check_fits(row, f"enum: {shown(word)}", raw, type_)
    return words


def check_fits(row: Row, what: str, raw: int | str, type_: str) -> None:
    """A whole number that no value of this type can be is a slip, and cannot be written."""
    if isinstance(raw, str) or type_ not in _INTEGERS:
        return
    low, high = _INTEGERS[type_]
    if not low <= raw <= high:
        row.fault(f"{what} = {raw} does not fit type = {type_!r}")


def take_scale(row: Row) -> float:
    scale = row.take("scale", float, 1.0)
    if scale == 0 or not math.isfinite(scale):
        row.fault(f"scale = {scale:g} loses the value")
    elif not SCALE_MIN <= abs(scale) <= SCALE_MAX:
        row.fault(f"scale = {scale:g} is not between {SCALE_MIN:g} and {SCALE_MAX:g}")
    else:
        return scale
    return 1.0


def take_markers(row: Row, key: str, type_: str) -> tuple[int | float | str, ...]:
    """Raw values that stand for no value: `absent` or `not_now`."""
    markers = row.take(key, list, [])
    fits = is_text if type_ in ("text", "decimal") else is_number
    if not all(fits(value) for value in markers):
        row.fault(f"{key} = {shown(markers)} does not fit type = {type_!r}")
    return tuple(markers)


def take_conditions(row: Row, around: Surroundings) -> tuple[Condition, ...]:
    conditions = []
    for key, must, lasting in (
        ("only_if", True, True),
        ("unless", False, True),
        ("valid_if", True, False),
    ):
        told = row.any(key)
        for values in told if isinstance(told, list) else [told] if told is not None else []:
            if not isinstance(values, dict):
                row.fault(f"{key} is not a table {{ oid = …, is = [ … ] }}")
                continue
            inner = Row(row.faults, f"{row.where}: {key}", values)
            place = _condition_place(inner, around)
            raws = _raws(inner)
            if not isinstance(place, str):
                _check_register_raws(inner, place[0], raws)
            conditions.append(Condition(place, raws, must, lasting))
            inner.end()
    return tuple(conditions)


def _condition_place(row: Row, around: Surroundings) -> str | tuple[str, int]:
    if around.protocol == "snmp":
        return take_oid(row, row.need("oid", str, "1.3"))
    table = row.word("table", TABLES, "holding")
    return table, row.count("address", 0, most=65535)


def _raws(row: Row) -> tuple[int | str, ...]:
    raws = tuple(row.need("is", list, []))
    if not raws or not all(is_integer(raw) or is_text(raw) for raw in raws):
        row.fault('is may hold whole numbers, texts and "{index}" only')
        raws = ()
    return raws


def _check_register_raws(row: Row, table: str, raws: tuple[int | str, ...]) -> None:
    """One unsigned register, or one bit, is compared."""
    most = 1 if table in ("coil", "discrete") else 0xFFFF
    for raw in raws:
        if isinstance(raw, str):
            if not _OPEN_ARC.fullmatch(raw):
                row.fault(f"is = {shown(raw)}: a register is compared with numbers only")
        elif not 0 <= raw <= most:
            row.fault(f"is = {raw} is not between 0 and {most}")


def check_placeholders(
    row: Row, source: Source, indices: list[Index], around: Surroundings
) -> None:
    known = {index.key for index in indices} | ({MEMBER} if around.has_members else set())
    texts = [source.oid, source.digits_oid, source.factor_oid]
    _check_item(row, source, indices)
    values: list[int | str] = []
    for lookup in source.row:
        texts += [lookup.column, str(lookup.value)]
        values.append(lookup.value)
        if ROW in INDEX.findall(lookup.column):
            row.fault("row: the column's own index is what is looked for: leave {row} out")
    for condition in source.conditions:
        texts += [str(condition.place), *map(str, condition.raws)]
        values += condition.raws
    for value in values:
        open_value = INDEX.findall(str(value))
        if ROW in open_value or (MEMBER in open_value and value != f"{{{MEMBER}}}"):
            row.fault(f'{shown(value)}: "{{member}}" is a value as a whole, "{{row}}" never')
    used = {key for text in texts for key in INDEX.findall(text)}
    for key in sorted(used - known - ({ROW} if source.row else set())):
        if key == MEMBER:
            row.fault("{member} needs [members]")
        else:
            row.fault(f"{{{key}}} is not in each")
    if source.row and ROW not in INDEX.findall(source.oid):
        row.fault("row is looked up, but oid does not contain {row}")
    if source.table and indices:
        last = source.address + sum(index.stride * (index.count - 1) for index in indices)
        if any(index.count > 1 and index.stride == 0 for index in indices):
            row.fault("each needs a stride: the registers from one row to the next")
        elif last + source.registers > 65536:
            row.fault(f"the last row would be at address {last}")
        elif last > source.address:
            _check_blocks(row, replace(source, address=last), around)
    open_item = INDEX.findall(str(source.item))
    for index in indices:
        if source.oid and index.count > 1 and index.key not in (*used, *open_item):
            row.fault(f"oid does not contain {{{index.key}}}: every row would be the same place")


def _check_item(row: Row, source: Source, indices: list[Index]) -> None:
    """Which part of a list is meant must be known from the profile alone."""
    first = {index.key: index.first for index in indices}
    for key in INDEX.findall(str(source.item)):
        if key not in first:
            row.fault(f"item = '{{{key}}}' is not in each")
        elif first[key] < 1:
            row.fault(f"item counts from 1, and {{{key}}} from {first[key]}")


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
