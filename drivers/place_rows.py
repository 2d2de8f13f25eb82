"""Places out of TOML rows: where a raw value stands, and what must hold for it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from drivers.indices import INDEX, MEMBER, ROW, Index
from drivers.points import REGISTERS, SNMP_TYPES, TABLES, Condition, Lookup, Ratio, Source
from drivers.rows import Row

TEXT_REGISTERS_MAX = 64

_OID = re.compile(r"[012](\.(0|[1-9][0-9]*))+")


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


def take_oid(row: Row, oid: str) -> str:
    """`oid` if it is one in numbers (with or without `{index}`); told as a fault otherwise."""
    if not _OID.fullmatch(INDEX.sub("1", oid)):
        row.fault(f"{oid!r} is not an OID in numbers, as in 1.3.6.1.2.1.1.2.0")
        return "1.3"
    return oid


def take_place(
    row: Row,
    around: Surroundings,
    *,
    reads: bool,
    types: tuple[str, ...] = (),
    otherwise: str = "",
) -> Source:
    if around.protocol == "snmp":
        return _oid_place(row, reads, types or SNMP_TYPES, otherwise or "int32")
    return _register_place(row, around, reads, otherwise)


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
    row.fault(f'{key} = {told!r} is not a number from 1, nor "{{index}}"')
    return 0


def _lookups(row: Row) -> tuple[Lookup, ...]:
    found = []
    for column, value in row.take("row", dict, {}).items():
        take_oid(row, column)
        if not (is_integer(value) or is_text(value)):
            row.fault(f"row: {value!r} is neither a whole number nor a text")
        found.append(Lookup(column, value))
    return tuple(found)


def _register_place(row: Row, around: Surroundings, reads: bool, otherwise: str) -> Source:
    source = _model_place(row) if row.has("model") else _table_place(row, otherwise)
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
        scale_factor=row.take("scale_factor", int, -1) if row.has("scale_factor") else None,
        ratios=(*_ratios(row, "multiply_by", False), *_ratios(row, "divide_by", True)),
    )
    last = max(address + count for _, address, count in source.blocks)
    piece = max(count for _, _, count in source.blocks)
    if not source.models and not 0 <= last <= 65536:
        row.fault(f"the last register would be {last - 1}")
    if piece > around.registers_per_read_max:
        row.fault(
            f"{piece} registers must be read in one piece, but registers_per_read_max ="
            f" {around.registers_per_read_max}"
        )
    if not reads and source.ratios:
        row.fault("multiply_by and divide_by are for reading")
    return source


def _table_place(row: Row, otherwise: str) -> Source:
    table = row.need("table", str, "holding")
    if table not in TABLES:
        row.fault(f"table = {table!r} is not one of {', '.join(TABLES)}")
    is_bit = table in ("coil", "discrete")
    type_ = row.word("type", (*REGISTERS, "text"), otherwise or ("bit" if is_bit else "uint16"))
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


def _model_place(row: Row) -> Source:
    told = row.any("model")
    models = told if isinstance(told, list) else [told]
    if not models or not all(is_integer(model) and 1 <= model <= 65534 for model in models):
        row.fault(f"model = {told!r} is not a SunSpec model, or a list of them")
        models = [1]
    type_ = row.word("type", (*REGISTERS, "text"), "uint16")
    offset = row.count("offset", 0, most=65535) if row.has("offset") else row.need("offset", int, 0)
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
    return words


def take_scale(row: Row) -> float:
    scale = row.take("scale", float, 1.0)
    if scale == 0 or not math.isfinite(scale):
        row.fault(f"scale = {scale:g} loses the value")
    return scale


def take_absent(row: Row, type_: str) -> tuple[int | float | str, ...]:
    absent = row.take("absent", list, [])
    fits = is_text if type_ in ("text", "decimal") else is_number
    if not all(fits(value) for value in absent):
        row.fault(f"absent = {absent!r} does not fit type = {type_!r}")
    return tuple(absent)


def take_conditions(row: Row, around: Surroundings) -> tuple[Condition, ...]:
    conditions = []
    for key, must in (("only_if", True), ("unless", False)):
        told = row.any(key)
        for values in told if isinstance(told, list) else [told] if told is not None else []:
            if not isinstance(values, dict):
                row.fault(f"{key} is not a table {{ oid = …, is = [ … ] }}")
                continue
            inner = Row(row.faults, f"{row.where}: {key}", values)
            conditions.append(Condition(_condition_place(inner, around), _raws(inner), must))
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


def check_placeholders(
    row: Row, source: Source, indices: list[Index], around: Surroundings
) -> None:
    known = {index.key for index in indices} | ({MEMBER} if around.has_members else set())
    texts = [source.oid, source.digits_oid, source.factor_oid, str(source.item)]
    for lookup in source.row:
        texts += [lookup.column, str(lookup.value)]
        if ROW in INDEX.findall(lookup.column):
            row.fault("row: the column's own index is what is looked for: leave {row} out")
    for condition in source.conditions:
        texts += [str(condition.place), *map(str, condition.raws)]
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
    for index in indices:
        if source.oid and index.count > 1 and index.key not in used:
            row.fault(f"oid does not contain {{{index.key}}}: every row would be the same place")


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
