"""Points and commands of a profile: expanded, frozen values.

A point is one quantity in its unit. It has sources, and the first one that is there
counts (older firmware keeps the same fact in an older table). A source is a place
where the device keeps a raw value, and how that becomes the number; or it is derived
from other points.

What can be known only from the device is still open in a profile: which member of a
chain is meant (`{member}` in OIDs), in which row of a table a value stands (`row`), and
where a SunSpec model begins (`models`). `drivers.resolve` fills it in.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.reading import NoAnswer, Place

REGISTERS = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2,
             "int64": 4, "uint64": 4, "float64": 4, "bit": 1}  # fmt: skip
SNMP_TYPES = ("int32", "uint32", "uint64", "text", "decimal")
TABLES = ("input", "holding", "coil", "discrete")
UNITS = ("W", "VA", "var", "Wh", "VAh", "V", "A", "Hz", "1", "%", "s", "°C")

# The last part of a name says which quantity it is (NUT, RFC 9271), and with it the unit.
UNIT_OF_NAME = {"realpower": "W", "power": "VA", "reactivepower": "var", "energy": "Wh",
                "apparentenergy": "VAh", "voltage": "V", "current": "A", "frequency": "Hz",
                "powerfactor": "1"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """The raw value at `place` must be (or, with `must` false, must not be) among `raws`.

    Where it does not hold the point is absent; with `lasting` false it is there, but has
    no value now, and a sum cannot do without it.
    """

    place: Place
    raws: tuple[int | str, ...]
    must: bool
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class Lookup:
    """The row that is meant is the one where this column has this value."""

    column: str
    value: int | str


@dataclass(frozen=True, slots=True)
class Ratio:
    """A register that the value is multiplied with, or divided by."""

    address: int
    type: str
    divides: bool


@dataclass(frozen=True, slots=True)
class Source:
    """One place of a value: an OID, or registers of a table, and how to read it.

    `models` open: `address` and `scale_factor` count from the beginning of the model.
    `nothing` says why the device has no such place.
    """

    type: str
    oid: str = ""
    row: tuple[Lookup, ...] = ()
    table: str = ""
    address: int = 0
    length: int = 0  # registers of a text
    models: tuple[int, ...] = ()
    word_order: str = "big"
    byte_order: str = "big"
    scale: float = 1.0
    absent: tuple[int | float | str, ...] = ()
    not_now: tuple[int | float | str, ...] = ()
    words: tuple[tuple[int | str, str], ...] = ()
    suffix: str = ""
    item: int = 0
    digits_oid: str = ""
    factor_oid: str = ""
    scale_factor: int | None = None
    ratios: tuple[Ratio, ...] = ()
    four_quadrant: bool = False
    counter_bits: int = 0
    estimate: bool = False
    conditions: tuple[Condition, ...] = ()
    nothing: NoAnswer | None = None

    @property
    def registers(self) -> int:
        """How many registers hold the value itself."""
        return self.length or REGISTERS[self.type]

    @property
    def own_places(self) -> tuple[Place, ...]:
        """Where the value itself is."""
        if self.oid:
            return (self.oid,)
        return tuple((self.table, self.address + n) for n in range(self.registers))

    @property
    def places(self) -> tuple[Place, ...]:
        """Everything that must be asked to read it."""
        if self.oid:
            beside: list[Place] = [oid for oid in (self.digits_oid, self.factor_oid) if oid]
            return (self.oid, *beside, *(condition.place for condition in self.conditions))
        return tuple(
            (table, address + n) for table, address, count in self.blocks for n in range(count)
        )

    @property
    def blocks(self) -> tuple[tuple[str, int, int], ...]:
        """Registers that must be read in one piece each: (table, address, count).

        A value and its scale factor are one piece: the device may change the factor
        between two reads.
        """
        first, last = self.address, self.address + self.registers - 1
        if self.scale_factor is not None:
            first, last = min(first, self.scale_factor), max(last, self.scale_factor)
        ratios = [(self.table, ratio.address, REGISTERS[ratio.type]) for ratio in self.ratios]
        tests = [(*condition.place, 1) for condition in self.conditions
                 if not isinstance(condition.place, str)]  # fmt: skip
        return ((self.table, first, last - first + 1), *ratios, *tests)


@dataclass(frozen=True, slots=True)
class Derived:
    """The sum or the product of other points."""

    kind: str  # "sum" or "product"
    names: tuple[str, ...]
    estimate: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """One quantity. Texts and words have the unit ""; `low` and `high` are in the unit."""

    name: str
    unit: str
    low: float
    high: float
    sources: tuple[Source | Derived, ...]


@dataclass(frozen=True, slots=True)
class FixedWrite:
    """A write that belongs to a command and is always the same."""

    target: Source
    raw: int


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One thing that can be written, and the point that proves it.

    A word is written to the first of `targets` that knows it; a number has one target.
    `confirm_point` None: the device offers no proof, `confirm_why` says why.
    """

    name: str
    unit: str
    low: float
    high: float
    targets: tuple[Source, ...]
    before: tuple[FixedWrite, ...]
    after: tuple[FixedWrite, ...]
    confirm_point: str | None
    confirm_within_ms: int
    confirm_why: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for target in self.targets for _, word in target.words))


def overlaps(points: list[tuple[str, Point]]) -> list[str]:
    """Places that two points claim: one of them is a slip, or is counted twice.

    What `only_if`, a row or a part of a list tells apart are different places. Where a
    point looks only when its first place is absent, others may stand.
    """
    owners: dict[object, tuple[str, Point]] = {}
    faults: dict[tuple[str, str], str] = {}
    for where, point in points:
        source = point.sources[0]
        if isinstance(source, Derived):
            continue
        for place in source.own_places:
            key = (place, source.row, source.models, source.item, source.conditions)
            other_where, other = owners.setdefault(key, (where, point))
            if other is not point:
                shown = place if isinstance(place, str) else f"{place[0]} {place[1]}"
                faults.setdefault(
                    (where, other_where),
                    f"{where}: {shown} is already read as {other.name}",
                )
    return list(faults.values())
