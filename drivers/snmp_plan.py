"""Objects to ask → the fewest requests the agent bears, and what its answers prove.

Objects that share everything but the last number are a column of a table. A column of
four wanted rows or more is walked with GETBULK, beside others with the same rows, where
that takes fewer requests than asking each object with GET. Version 1 has no GETBULK,
and one missing object fails a whole GET, so there every row of a column is asked with
GETNEXT from its predecessor: what comes is the row, or something beyond it.

A job is one request and what is made of its answer (`hear`): answers, and the jobs that
are left. What a walk has passed without seeing it is absent. What it did not reach is
still to be asked. An answer whose objects do not increase (RFC 3416, 4.2.2 and 4.2.3
say that they do) is put together wrongly or goes in circles: nothing in it is believed.

Pure: no I/O, no clock. That an agent is silent, and what follows, is `drivers.snmp`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from drivers.reading import Absence, NoAnswer, Raw
from drivers.snmp_home import (
    AUTHORIZATION_ERROR,
    END_OF_MIB,
    NO_SUCH_NAME,
    TOO_BIG,
    Told,
    Varbind,
    status_name,
)

T = TypeVar("T")

COLUMN_ROWS_MIN = 4
COLUMN_STRIDE_MAX = 4  # a walk passes every row between the wanted ones; more is sparse
VARBINDS_MAX = 60  # of one GETBULK's answer: about what a datagram of 1 500 octets holds

Found = tuple[str, Raw | NoAnswer]
Said = Raw | NoAnswer | Found
"""What is known of one thing asked: its value, or for `Below` the object and its value."""

_FOREIGN = NoAnswer(Absence.TYPE, "the agent answered other objects than it was asked")
_DISORDER = NoAnswer(Absence.TYPE, "the objects of the agent's answer do not increase")
_NONE_SUCH = NoAnswer(Absence.ABSENT, "the agent has no such object")
PASSED = NoAnswer(Absence.ABSENT, "the agent has no such object: a walk passed it")


@dataclass(frozen=True, slots=True)
class Temper:
    """What a device bears: a profile's [limits], for one fetch.

    `repetitions_max` rows are asked for with one GETBULK, 0 forbids it; `pause_s` is
    between an answer and the next request.
    """

    timeout_s: float
    read_s_max: float
    oids_per_get_max: int
    repetitions_max: int
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """`kind` is get, next or bulk; `repetitions` is of bulk."""

    kind: str
    oids: tuple[str, ...]
    repetitions: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What an answer proves, and what is left to ask.

    `too_much`: the agent cannot put so much into one answer; the jobs ask all of it
    again and must be made smaller. `fault`: the walk cannot go on, and why.
    """

    said: dict[str, Said]
    jobs: Sequence[Job] = ()
    too_much: bool = False
    fault: NoAnswer | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """GET of explicit objects."""

    oids: tuple[str, ...]

    def request(self, repetitions: int) -> Request:
        return Request("get", self.oids)

    def parts(self, oids_max: int) -> Sequence[Job]:
        return [Get(part) for part in _cut(self.oids, oids_max)]

    def hear(self, told: Told) -> Heard:
        if told.status:
            return _without_the_bad_one(self, self.oids, told)
        found = dict(told.varbinds)
        return Heard({oid: _here(found.get(oid, _FOREIGN)) for oid in self.oids})


@dataclass(frozen=True, slots=True)
class Rows:
    """GETNEXT of the predecessor of every wanted object (version 1)."""

    oids: tuple[str, ...]

    def request(self, repetitions: int) -> Request:
        return Request("next", tuple(predecessor(oid) for oid in self.oids))

    def parts(self, oids_max: int) -> Sequence[Job]:
        return [Rows(part) for part in _cut(self.oids, oids_max)]

    def hear(self, told: Told) -> Heard:
        if told.status:
            return _without_the_bad_one(self, self.oids, told)
        nexts = _successors([predecessor(oid) for oid in self.oids], told.varbinds)
        if nexts is None:
            return Heard(dict.fromkeys(self.oids, _DISORDER))
        said: dict[str, Said] = {}
        between: list[Job] = []
        for oid, (name, raw) in zip(self.oids, nexts, strict=True):
            if name == oid:
                said[oid] = _here(raw)
            elif raw is END_OF_MIB or arcs(name) > arcs(oid):
                said[oid] = _NONE_SUCH
            else:  # something stands before it: ask for it by name
                between.append(Get((oid,)))
        return Heard(said, between)


@dataclass(frozen=True, slots=True)
class Below:
    """GETNEXT: the first object below each prefix, if there is one."""

    oids: tuple[str, ...]

    def request(self, repetitions: int) -> Request:
        return Request("next", self.oids)

    def parts(self, oids_max: int) -> Sequence[Job]:
        return [Below(part) for part in _cut(self.oids, oids_max)]

    def hear(self, told: Told) -> Heard:
        if told.status:
            return _without_the_bad_one(self, self.oids, told)
        nexts = _successors(self.oids, told.varbinds)
        if nexts is None:
            return Heard(dict.fromkeys(self.oids, _DISORDER))
        said: dict[str, Said] = {}
        for prefix, (name, raw) in zip(self.oids, nexts, strict=True):
            below = raw is not END_OF_MIB and name.startswith(prefix + ".")
            said[prefix] = (name, raw) if below else NoAnswer(Absence.ABSENT, "nothing is there")
        return Heard(said)


@dataclass(frozen=True, slots=True)
class Column:
    """A column being walked: the wanted rows not yet decided, and how far the walk is.

    `seen` is what followed the column's OID in the last object seen; it need not be
    wanted, and need not be one number. Before the first answer it is the place before
    the first row.
    """

    oid: str
    rows: tuple[int, ...]
    seen: tuple[int, ...]

    @property
    def last(self) -> str:
        return ".".join([self.oid, *map(str, self.seen)])

    @property
    def rows_ahead(self) -> int:
        return self.rows[-1] - (self.seen[0] if self.seen else self.rows[0] - 1)

    def cells(self) -> tuple[str, ...]:
        return tuple(f"{self.oid}.{row}" for row in self.rows)


@dataclass(frozen=True, slots=True)
class Walk:
    """GETBULK of columns side by side."""

    columns: tuple[Column, ...]

    @property
    def oids(self) -> tuple[str, ...]:
        """Every object that is still wanted."""
        return tuple(cell for column in self.columns for cell in column.cells())

    def request(self, repetitions: int) -> Request:
        ahead = max(column.rows_ahead for column in self.columns)
        share = max(1, VARBINDS_MAX // len(self.columns))
        lasts = tuple(column.last for column in self.columns)
        return Request("bulk", lasts, min(ahead, share, repetitions))

    def parts(self, oids_max: int) -> Sequence[Job]:
        return [Walk(part) for part in _cut(self.columns, oids_max)]

    def by_name(self) -> Get:
        return Get(self.oids)

    def hear(self, told: Told) -> Heard:
        if told.status == TOO_BIG or not (told.status or told.varbinds):
            return Heard({}, [self], too_much=True)
        if told.status:
            return Heard({}, [self.by_name()])
        chains = [told.varbinds[n :: len(self.columns)] for n in range(len(self.columns))]
        told_by = list(zip(self.columns, chains, strict=True))
        if not all(_increases(column.last, chain) for column, chain in told_by):
            return Heard(dict.fromkeys(self.oids, _DISORDER))
        said: dict[str, Said] = {}
        left = [_walked(column, chain, said) for column, chain in told_by]
        going = tuple(column for column in left if column.rows)
        return Heard(said, [Walk(going)] if going else [])


@dataclass(frozen=True, slots=True)
class Sweep:
    """Everything below one OID, from `last` on; `gently`: one object, by GETNEXT."""

    column: str
    last: str
    rows_left: int
    gently: bool = False
    oids: tuple[str, ...] = field(default=(), init=False)  # wants nothing by name

    def request(self, repetitions: int) -> Request:
        many = 1 if self.gently else min(repetitions, self.rows_left, VARBINDS_MAX)
        return Request("bulk" if many > 1 else "next", (self.last,), many)

    def parts(self, oids_max: int) -> Sequence[Job]:
        return [self]

    def hear(self, told: Told) -> Heard:
        if told.status == NO_SUCH_NAME:
            return Heard({})  # version 1 says so at the end
        if told.status == TOO_BIG or not (told.status or told.varbinds):
            return Heard({}, [self], too_much=True)
        if told.status:
            return Heard({}, fault=_refused(told.status))
        if not _increases(self.last, told.varbinds):
            return Heard({}, fault=_DISORDER)
        said: dict[str, Said] = {}
        for name, raw in told.varbinds:
            if raw is END_OF_MIB or not name.startswith(self.column + "."):
                return Heard(said)
            said[name] = raw
        if len(said) >= self.rows_left:
            return Heard(said, fault=NoAnswer(Absence.INCOMPLETE, "the table has too many rows"))
        return Heard(said, [Sweep(self.column, name, self.rows_left - len(said))])


Job = Get | Rows | Below | Walk | Sweep


def plan_fetch(oids: Sequence[str], temper: Temper, *, version: int, columns_max: int) -> list[Job]:
    """The jobs that ask each of `oids` once; explicit objects come first.

    `columns_max`: so many columns fit into one GETBULK of the home. The jobs may still
    be larger than the agent bears: `parts` cuts them.
    """
    columns = _columns(oids) if version == 1 or temper.repetitions_max > 0 else {}
    if version == 1:
        rows = [oid for oid in oids if _column_of(oid) in columns]
        rest = tuple(oid for oid in oids if _column_of(oid) not in columns)
        return [job for job in (Get(rest), Rows(tuple(rows))) if job.oids]
    walks = [
        walk
        for wanted, group in _same_rows(columns)
        for walk in _walks(group, wanted, temper, columns_max)
    ]
    walked = {column.oid for walk in walks for column in walk.columns}
    rest = tuple(oid for oid in oids if _column_of(oid) not in walked)
    return [*([Get(rest)] if rest else []), *walks]


def first_of(job: Job) -> Sequence[Job]:
    """`job` with its smallest useful part before it: one object, to see who is there."""
    if isinstance(job, Walk):
        return [Get(job.oids[:1]), job]
    if isinstance(job, Sweep):
        return [replace(job, gently=True)]
    if len(job.oids) == 1:
        return [job]
    return [replace(job, oids=job.oids[:1]), replace(job, oids=job.oids[1:])]


def arcs(oid: str) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))


def predecessor(oid: str) -> str:
    """From where GETNEXT comes to `oid`, if it is there and nothing stands between."""
    column, _, last = oid.rpartition(".")
    return column if last == "0" else f"{column}.{int(last) - 1}"


# ── columns ───────────────────────────────────────────────────────────────────────


def _column_of(oid: str) -> str:
    return oid.rpartition(".")[0]


def _columns(oids: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Column → wanted rows, of those that are dense enough to be walked."""
    rows: dict[str, set[int]] = {}
    for oid in oids:
        column, _, last = oid.rpartition(".")
        rows.setdefault(column, set()).add(int(last))
    return {column: tuple(sorted(told)) for column, told in rows.items() if _is_dense(told)}


def _is_dense(rows: set[int]) -> bool:
    span = max(rows) - min(rows) + 1
    return len(rows) >= COLUMN_ROWS_MIN and span <= COLUMN_STRIDE_MAX * len(rows)


def _same_rows(
    columns: dict[str, tuple[int, ...]],
) -> Iterator[tuple[tuple[int, ...], list[str]]]:
    by_rows: dict[tuple[int, ...], list[str]] = {}
    for column, rows in columns.items():
        by_rows.setdefault(rows, []).append(column)
    yield from by_rows.items()


def _walks(
    group: Sequence[str], rows: tuple[int, ...], temper: Temper, columns_max: int
) -> list[Walk]:
    """The walks of columns with the same rows; none where GETs are as few."""
    span = rows[-1] - rows[0] + 1
    repetitions = min(temper.repetitions_max, span, VARBINDS_MAX)
    beside = max(1, min(columns_max, VARBINDS_MAX // repetitions, temper.oids_per_get_max))
    bulks = -(-len(group) // beside) * -(-span // repetitions)
    gets = -(-len(group) * len(rows) // temper.oids_per_get_max)
    if gets <= bulks:
        return []
    before = () if rows[0] == 0 else (rows[0] - 1,)
    columns = [Column(oid, rows, before) for oid in sorted(group, key=arcs)]
    return [Walk(part) for part in _cut(columns, beside)]


def _walked(column: Column, chain: Sequence[Varbind], said: dict[str, Said]) -> Column:
    """Puts what the chain proves of the column into `said`; the column that is left."""
    prefix, seen = column.oid + ".", column.seen
    for name, raw in chain:
        if raw is END_OF_MIB or not name.startswith(prefix):
            said |= dict.fromkeys(column.cells(), PASSED) | _known(column, said)
            return replace(column, rows=())
        seen = arcs(name[len(prefix) :])
        if len(seen) == 1 and seen[0] in column.rows:
            said[name] = _here(raw)
    # A row itself is passed only once something at or after it has been seen.
    decided = [row for row in column.rows if (row,) <= seen]
    passed = {f"{prefix}{row}": PASSED for row in decided}
    said |= passed | _known(column, said)
    return Column(column.oid, column.rows[len(decided) :], seen)


def _known(column: Column, said: dict[str, Said]) -> dict[str, Said]:
    return {cell: said[cell] for cell in column.cells() if cell in said}


# ── answers ───────────────────────────────────────────────────────────────────────


def _increases(last: str, chain: Iterable[Varbind]) -> bool:
    """Each object comes after the one before; behind the end, agents repeat the last."""
    previous = arcs(last)
    for name, raw in chain:
        if raw is END_OF_MIB:
            return True
        here = arcs(name)
        if here <= previous:
            return False
        previous = here
    return True


def _successors(oids: Sequence[str], varbinds: Sequence[Varbind]) -> Sequence[Varbind] | None:
    """What came for each of `oids`; None if it cannot be told, or comes not after it."""
    if len(varbinds) != len(oids):
        return None
    sound = all(_increases(oid, [told]) for oid, told in zip(oids, varbinds, strict=True))
    return varbinds if sound else None


def _without_the_bad_one(job: Get | Rows | Below, oids: tuple[str, ...], told: Told) -> Heard:
    """One bad object fails the whole request: take it out and ask for the others again."""
    if told.status == TOO_BIG and len(oids) > 1:
        return Heard({}, [job], too_much=True)
    if told.status == AUTHORIZATION_ERROR:
        return Heard(dict.fromkeys(oids, _no(told.status)))
    if not 1 <= told.index <= len(oids):
        if len(oids) > 1:
            return Heard({}, job.parts(-(-len(oids) // 2)))
        return Heard({oids[0]: _no(told.status)})
    others = oids[: told.index - 1] + oids[told.index :]
    return Heard({oids[told.index - 1]: _no(told.status)},
                 [replace(job, oids=others)] if others else [])  # fmt: skip


def _no(status: int) -> NoAnswer:
    """Version 1 says noSuchName where version 2 has a value for it."""
    if status == NO_SUCH_NAME:
        return NoAnswer(Absence.ABSENT, f"the agent says {status_name(status)}")
    return _refused(status)


def _refused(status: int) -> NoAnswer:
    return NoAnswer(Absence.REFUSED, f"the agent says {status_name(status)}")


def _here(raw: Raw | NoAnswer) -> Raw | NoAnswer:
    return _NONE_SUCH if raw is END_OF_MIB else raw


def _cut(things: Sequence[T], size: int) -> list[tuple[T, ...]]:
    return [tuple(things[n : n + size]) for n in range(0, len(things), size)]
