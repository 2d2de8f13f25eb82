"""What a profile leaves open, filled in with what the device says about itself.

Three things are known only on the spot: which member of a chain is meant, in which row
of a table a value stands, and where a SunSpec model begins. Each is looked up once; that
it is still so is proven with every read, by a condition that is added to the source: the
column must still have the value by which the row was found, the model's id must still
stand at its beginning. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from drivers.indices import MEMBER, ROW, substitute
from drivers.points import CommandSpec, Condition, Derived, FixedWrite, Lookup, Point, Source
from drivers.reading import Absence, NoAnswer, Raw

NUMBER_DIGITS_MAX = 10  # of an OID's arc (RFC 2578: below 2**32)

Column = Mapping[str, Raw | NoAnswer]
"""The rows of one column of a table: index → raw value."""


@dataclass(frozen=True, slots=True)
class Member:
    """One of several PDUs behind an agent: its name, and how it stands in an OID."""

    name: str
    index: str

    @property
    def value(self) -> int | str:
        """As a table says it: a number where it is one."""
        return int(self.name) if self.name == self.index else self.name


@dataclass(frozen=True, slots=True)
class Members:
    """Where an agent names its members (`[members]` of a profile)."""

    columns: tuple[str, ...]
    at: int
    is_text: bool
    where: int | str | None
    first: str
    by_value: bool = False

    def found(self, columns: Mapping[str, Column]) -> list[Member]:
        """Every member in `columns`, each once, in the order of the agent."""
        found: dict[str, Member] = {}
        for column in self.columns:
            for index, raw in columns.get(column, {}).items():
                if isinstance(raw, NoAnswer) or not (self.where is None or same(raw, self.where)):
                    continue
                member = _numbered(raw) if self.by_value else self.member_at(index)
                if member is not None:
                    found.setdefault(member.name, member)
        return sorted(found.values(), key=lambda m: (m.name != m.index, len(m.index), m.name))

    def member_at(self, index: str) -> Member | None:
        """Whose row this is."""
        parts = index.split(".")[self.at - 1 :]
        if not parts:
            return None
        if not self.is_text:
            return Member(parts[0], parts[0])
        text = parts[1 : 1 + int(parts[0])]  # RFC 2578 7.7: a length, then the octets
        if len(text) != int(parts[0]) or not all(32 <= int(code) < 127 for code in text):
            return None
        return Member("".join(chr(int(code)) for code in text), ".".join([parts[0], *text]))

    def named(self, name: str) -> Member | None:
        """The member that a URL means; None if it cannot be one."""
        if self.is_text:
            codes = [str(ord(letter)) for letter in name]
            return Member(name, ".".join([str(len(name)), *codes]))
        if not (name.isascii() and name.isdecimal() and len(name) <= NUMBER_DIGITS_MAX):
            return None
        return Member(str(int(name)), str(int(name)))


def columns_of(points: Iterable[Point | CommandSpec], member: Member | None) -> list[str]:
    """The columns in which rows of these are looked for."""
    found: dict[str, None] = {}
    for point in points:
        for source in _sources(point):
            for lookup in source.row:
                found[_with_member(lookup.column, member)] = None
    return list(found)


def resolve(
    point: Point, member: Member | None, columns: Mapping[str, Column], models: Mapping[int, int]
) -> Point:
    """The point with every place filled in. `models`: SunSpec id → address of the id."""
    sources = tuple(
        source if isinstance(source, Derived) else resolve_source(source, member, columns, models)
        for source in point.sources
    )
    return replace(point, sources=sources)


def resolve_command(
    command: CommandSpec,
    member: Member | None,
    columns: Mapping[str, Column],
    models: Mapping[int, int],
) -> CommandSpec:
    """The command likewise."""

    def fixed(writes: tuple[FixedWrite, ...]) -> tuple[FixedWrite, ...]:
        return tuple(
            FixedWrite(resolve_source(write.target, member, columns, models), write.raw)
            for write in writes
        )

    targets = (resolve_source(target, member, columns, models) for target in command.targets)
    return replace(
        command,
        targets=tuple(targets),
        before=fixed(command.before),
        after=fixed(command.after),
    )


def resolve_source(
    source: Source,
    member: Member | None,
    columns: Mapping[str, Column],
    models: Mapping[int, int],
) -> Source:
    """One place filled in, or with the reason why the device has none."""
    if source.models:
        return _at_model(source, models)
    if not source.oid:
        return source
    found = replace(
        source,
        oid=_with_member(source.oid, member),
        digits_oid=_with_member(source.digits_oid, member),
        factor_oid=_with_member(source.factor_oid, member),
        row=tuple(_lookup(lookup, member) for lookup in source.row),
        conditions=tuple(_condition(condition, member) for condition in source.conditions),
    )
    return _at_row(found, columns) if found.row else found


def same(raw: Raw | NoAnswer, value: int | str) -> bool:
    """Whether the device says `value`."""
    if isinstance(raw, bytes):
        raw = raw.decode("utf-8", "replace").strip(" \0\t\r\n")
    return raw == value


# ── inside ────────────────────────────────────────────────────────────────────────


def _numbered(raw: Raw) -> Member | None:
    return Member(str(raw), str(raw)) if isinstance(raw, int) and raw >= 0 else None


def _sources(point: Point | CommandSpec) -> list[Source]:
    if isinstance(point, Point):
        return [source for source in point.sources if isinstance(source, Source)]
    return [*point.targets, *(w.target for w in (*point.before, *point.after))]


def _with_member(text: str, member: Member | None) -> str:
    return substitute(text, lambda key: member.index if member and key == MEMBER else None)


def _lookup(lookup: Lookup, member: Member | None) -> Lookup:
    value = lookup.value
    if member and value == f"{{{MEMBER}}}":
        value = member.value
    return Lookup(_with_member(lookup.column, member), value)


def _condition(condition: Condition, member: Member | None) -> Condition:
    place = condition.place
    raws = tuple(
        member.value if member and raw == f"{{{MEMBER}}}" else raw for raw in condition.raws
    )
    if isinstance(place, str):
        place = _with_member(place, member)
    return replace(condition, place=place, raws=raws)


def _at_row(source: Source, columns: Mapping[str, Column]) -> Source:
    rows: set[str] | None = None
    for lookup in source.row:
        column = columns.get(lookup.column, {})
        here = {index for index, raw in column.items() if same(raw, lookup.value)}
        rows = here if rows is None else rows & here
    names = ", ".join(repr(lookup.value) for lookup in source.row)
    if not rows:
        return replace(source, nothing=NoAnswer(Absence.ABSENT, f"no row says {names}"))
    if len(rows) > 1:
        return replace(source, nothing=NoAnswer(Absence.INCOMPLETE, f"several rows say {names}"))
    row = rows.pop()

    def put(text: str) -> str:
        return substitute(text, lambda key: row if key == ROW else None)

    proofs = tuple(
        Condition(f"{look.column}.{row}", (look.value,), True, lasting=False) for look in source.row
    )
    others = tuple(
        replace(c, place=put(c.place)) if isinstance(c.place, str) else c for c in source.conditions
    )
    return replace(
        source,
        oid=put(source.oid),
        digits_oid=put(source.digits_oid),
        factor_oid=put(source.factor_oid),
        conditions=(*proofs, *others),
    )


def _at_model(source: Source, models: Mapping[int, int]) -> Source:
    for model in source.models:
        if model in models:
            base = models[model]
            factor = source.scale_factor
            placed = replace(
                source,
                address=base + source.address,
                scale_factor=None if factor is None else base + factor,
                ratios=tuple(replace(r, address=base + r.address) for r in source.ratios),
                conditions=(
                    Condition((source.table, base), (model,), True, lasting=False),
                    *(_moved(c, base) for c in source.conditions),
                ),
            )
            if max(address + count for _, address, count in placed.blocks) > 65536:
                beyond = NoAnswer(Absence.ABSENT, f"model {model} would lie beyond every register")
                return replace(source, nothing=beyond)
            return placed
    ids = ", ".join(map(str, source.models))
    return replace(source, nothing=NoAnswer(Absence.ABSENT, f"the device has no model {ids}"))


def _moved(condition: Condition, base: int) -> Condition:
    assert not isinstance(condition.place, str)
    table, address = condition.place
    return replace(condition, place=(table, base + address))
