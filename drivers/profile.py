"""Profiles: what a product is, as data.

One TOML file per product, in the folders of the site first, then beside this module.
`check_profile` reads one strictly and reports every fault at once; what it returns is
expanded and frozen, and nothing further is looked up at run time. Pure but for reading
the file. A profile without a recording (`status = "untested"`) can be read, never
commanded; the refusal is where commands are executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from drivers.errors import ProfileError
from drivers.place_rows import Surroundings, is_integer, is_text, take_oid, take_text_source
from drivers.point_rows import take_commands, take_points
from drivers.points import CommandSpec, Derived, Point, Source, overlaps
from drivers.resolve import Members
from drivers.rows import TEXT_MAX, Row, parsed, shown

SHIPPED = Path(__file__).parent / "profiles"
PROTOCOLS = ("snmp", "modbus")
CALCULATED_DEPTH_MAX = 8  # sums of sums of …
RINGS_MAX = 20  # points calculated from themselves: more are told when these are mended
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NUMBER_MEMBER = re.compile(r"[0-9]{1,10}")
_TEXT_MEMBER = re.compile(r"[ -~]{1,64}")
SYS_DESCR, SYS_OBJECT_ID = "1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.2.0"  # SNMPv2-MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The device's temper. What the site wishes stands in the site file.

    A read ends at the first request without an answer, and in any case after
    `read_ms_max`; points not asked by then are missing.
    """

    timeout_ms: int
    read_ms_max: int
    poll_interval_ms_min: int
    effect_delay_ms_max: int
    pause_between_requests_ms: int
    oids_per_get_max: int
    repetitions_max: int
    registers_per_read_max: int
    registers_gap_max: int


@dataclass(frozen=True, slots=True)
class Match:
    """How a connected device proves that the profile fits.

    SNMP: the value of `oid` is among `one_of` or begins with one of `under`, or the
    system's description contains one of `describes`; and every one of `present` answers,
    something is below each of `present_below`, each of `positive` is a number above zero,
    and none of `lacking` answers. Modbus: the device has one of the SunSpec `models`, or
    its identification contains `vendor` and `product`.
    """

    oid: str = SYS_OBJECT_ID
    one_of: tuple[str, ...] = ()
    under: tuple[str, ...] = ()
    describes: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    present_below: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    models: tuple[int, ...] = ()
    vendor: str = ""
    product: str = ""


@dataclass(frozen=True, slots=True)
class TextSource:
    """A place with a text; with `after`, the word that follows this mark in it."""

    source: Source
    after: str


@dataclass(frozen=True, slots=True)
class Profile:
    """One product, expanded. `models` are those the profile was written for."""

    name: str
    protocol: str
    vendor: str
    models: tuple[str, ...]
    metered: bool
    source: str
    status: str
    match: Match | None
    members: Members | None
    model_from: tuple[TextSource, ...]
    serial_from: tuple[TextSource, ...]
    limits: Limits
    points: tuple[Point, ...]
    commands: tuple[CommandSpec, ...]
    _points: dict[str, Point] = field(repr=False, compare=False)
    _commands: dict[str, CommandSpec] = field(repr=False, compare=False)
    _settings: frozenset[str] = field(repr=False, compare=False)

    def point(self, name: str) -> Point:
        """KeyError if the profile has none of that name."""
        return self._points[name]

    @property
    def settings(self) -> frozenset[str]:
        """The points that show what a command has set."""
        return self._settings

    def command(self, name: str) -> CommandSpec:
        """KeyError if the profile has none of that name."""
        return self._commands[name]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile of which only the head was read: enough to see whether it fits."""

    name: str
    protocol: str
    match: Match | None
    path: Path

    def load(self) -> Profile:
        """The whole of it; ProfileError with all its faults."""
        return _read(self.path)


def candidates(folders: Sequence[Path] = ()) -> list[Candidate]:
    """Every profile by its head; ProfileError if one cannot even be read so far."""
    found: dict[str, Path] = {}
    for folder in (*folders, SHIPPED):
        for path in folder.glob("*.toml"):
            found.setdefault(path.stem, path)
    return [_head(name, path) for name, path in sorted(found.items())]


def _head(name: str, path: Path) -> Candidate:
    faults: list[str] = []
    row = Row(faults, str(path), parsed(_text_of(path), str(path)))
    protocol = row.word("protocol", PROTOCOLS, "snmp")
    match = _snmp_match(row) if protocol == "snmp" else _modbus_match(row)
    if faults:
        raise ProfileError(*faults)
    return Candidate(name, protocol, match, path)


def profile_names(folders: Sequence[Path] = ()) -> list[str]:
    """Every profile that `load_profile` would find, in alphabetical order."""
    return sorted({path.stem for folder in (*folders, SHIPPED) for path in folder.glob("*.toml")})


def load_profile(name: str, folders: Sequence[Path] = ()) -> Profile:
    """The profile of that name; ProfileError if there is none, or with all its faults."""
    # A name, never a path: it may come from a site file that someone else wrote.
    found = [folder / f"{name}.toml" for folder in (*folders, SHIPPED)]
    if Path(name).name == name:
        for path in found:
            if path.is_file():
                return _read(path)
    known = ", ".join(profile_names(folders))
    raise ProfileError(f"no profile called {name!r}; there are: {known}")


def _read(path: Path) -> Profile:
    profile = check_profile(_text_of(path), str(path))
    if profile.name != path.stem:
        raise ProfileError(f"{path}: name = {profile.name!r} is not the name of the file")
    return profile


def _text_of(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(TEXT_MAX + 1)  # one more than may be: longer is refused
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from None


def check_profile(text: str, where: str) -> Profile:
    """The profile in `text`, or ProfileError with every fault; `where` names the file."""
    faults: list[str] = []
    profile = _profile(Row(faults, where, parsed(text, where)))
    if faults:
        raise ProfileError(*faults)
    return profile


def _profile(row: Row) -> Profile:
    if row.need("schema", int, 1) != 1:
        row.fault("schema is not 1, the only one there is")
    name = row.need("name", str, "?")
    if name != "?" and not _NAME.fullmatch(name):
        row.fault(f"name = {shown(name)} is not letters, digits, dots, _ and - only")
    protocol = row.need("protocol", str, "snmp")
    if protocol not in PROTOCOLS:
        row.fault(f"protocol = {shown(protocol)} is not one of {', '.join(PROTOCOLS)}")
    status = row.word("status", ("recorded", "untested"), "recorded")
    product = row.table("product", needed=True)
    vendor, models = product.need("vendor", str, "?"), product.texts("models")
    metered = product.take("metered", bool, True)
    product.end()
    origin = row.table("source", needed=True)
    document = origin.need("document", str, "?")
    origin.end()
    match = _snmp_match(row) if protocol == "snmp" else _modbus_match(row)
    members = _members(row) if protocol == "snmp" and row.has("members") else None
    commanded = row.has("command")
    limits = _limits(row.table("limits", needed=True), protocol, commanded)
    around = Surroundings(protocol, members is not None, limits.registers_per_read_max)
    model_from, serial_from = _identity(row, around)
    if not row.has("point"):
        row.fault("no [[point]]: nothing could be read")
    before = len(row.faults)
    points = take_points(row, around)
    points_are_sound = len(row.faults) == before
    commands = take_commands(row, around)
    _check_names(row, points, commands)
    if points_are_sound:  # otherwise a point may be missing because of its own fault
        _check_derived(row, points)
        _check_proofs(row, points, commands)
    row.end()
    return Profile(
        name, protocol, vendor, models, metered, document, status, match, members, model_from,
        serial_from, limits,
        tuple(point for _, point in points), tuple(command for _, command in commands),
        {point.name: point for _, point in points},
        {command.name: command for _, command in commands},
        frozenset(c.confirm_point for _, c in commands if c.confirm_point),
    )  # fmt: skip


def _snmp_match(row: Row) -> Match:
    table = row.table("match", needed=True)
    oid = take_oid(table, table.take("oid", str, SYS_OBJECT_ID), is_open=False)
    kinds = ("one_of", "under", "describes", "present", "present_below", "positive", "lacking")
    texts = {kind: table.texts(kind) for kind in kinds}
    table.end()
    for kind in kinds:
        for text in texts[kind] if kind != "describes" else ():
            if kind not in ("one_of", "under") or oid == SYS_OBJECT_ID:
                take_oid(table, text, is_open=False)
    if not any(texts[kind] for kind in ("one_of", "under", "describes")):
        table.fault("one of one_of, under and describes must name something")
    if not any(texts[kind] for kind in ("present", "present_below", "positive")):
        table.fault("one of present, present_below and positive must name something")
    return Match(
        oid, texts["one_of"], texts["under"], texts["describes"], texts["present"],
        texts["present_below"], texts["positive"], texts["lacking"],
    )  # fmt: skip


def _modbus_match(row: Row) -> Match | None:
    if not row.has("match"):
        return None
    table = row.table("match")
    models = table.take("models", list, [])
    if not all(is_integer(model) and 1 <= model <= 65534 for model in models):
        table.fault("models may hold the ids of SunSpec models only")
        models = []
    vendor, product = table.take("vendor", str, ""), table.take("product", str, "")
    table.end()
    if bool(models) == bool(vendor and product):
        table.fault("either models, or vendor and product of the identification (43/14)")
    return Match(models=tuple(models), vendor=vendor, product=product)


def _members(row: Row) -> Members:
    table = row.table("members")
    columns = list(table.texts("columns"))
    if table.has("column"):
        columns.append(table.need("column", str, "1.3"))
    for column in columns:
        take_oid(table, column, is_open=False)
    if not columns:
        table.fault("column is missing: below which object are the members' rows?")
    at = table.count("at", 1, least=1, most=20)
    by_text = table.word("as", ("number", "text"), "number") == "text"
    where = table.any("where")
    if not (where is None or is_integer(where) or is_text(where)):
        table.fault(f"where = {shown(where)} is neither a whole number nor a text")
        where = None
    first = table.take("first", str, "")
    by_value = table.word("named_by", ("index", "value"), "index") == "value"
    table.end()
    if first and not (_TEXT_MEMBER if by_text else _NUMBER_MEMBER).fullmatch(first):
        table.fault(f"first = {shown(first)} cannot be a member")
        first = ""
    if by_value and (by_text or at != 1):
        table.fault('named_by = "value" takes the number in the column: leave at and as out')
    return Members(tuple(columns), at, by_text, where, first, by_value)


def _identity(
    row: Row, around: Surroundings
) -> tuple[tuple[TextSource, ...], tuple[TextSource, ...]]:
    table = row.table("identity")
    found = {}
    for key in ("model", "serial"):
        sources = []
        for told in table.rows(key):
            source = take_text_source(told, around)
            sources.append(TextSource(source, told.take("after", str, "")))
            told.end()
        found[key] = tuple(sources)
    table.end()
    return found["model"], found["serial"]


def _limits(row: Row, protocol: str, commanded: bool) -> Limits:
    """Keys of the other protocol are unknown keys."""
    if commanded and not row.has("effect_delay_ms_max"):  # protocol R5, R7
        row.fault("effect_delay_ms_max is missing: how late may a write still take effect?")
    is_snmp, is_modbus = protocol == "snmp", protocol == "modbus"
    timeout_ms = row.count("timeout_ms", 2000, least=50, most=60_000)
    limits = Limits(
        timeout_ms=timeout_ms,
        read_ms_max=row.count("read_ms_max", 10 * timeout_ms, least=timeout_ms, most=600_000),
        poll_interval_ms_min=row.count("poll_interval_ms_min", 1000, most=3_600_000),
        effect_delay_ms_max=row.count("effect_delay_ms_max", 0, most=3_600_000),
        pause_between_requests_ms=row.count("pause_between_requests_ms", 0, most=10_000),
        oids_per_get_max=row.count("oids_per_get_max", 10, least=1, most=100) if is_snmp else 0,
        repetitions_max=row.count("repetitions_max", 10, most=100) if is_snmp else 0,
        # 125: the most that fits a Modbus frame
        registers_per_read_max=(
            row.count("registers_per_read_max", 125, least=1, most=125) if is_modbus else 0
        ),
        registers_gap_max=row.count("registers_gap_max", 0, most=120) if is_modbus else 0,
    )
    row.end()
    return limits


def _check_derived(row: Row, points: list[tuple[str, Point]]) -> None:
    """Every point that is calculated with exists, and none depends on itself."""
    parts = {
        point.name: {name for s in point.sources if isinstance(s, Derived) for name in s.names}
        for _, point in points
    }
    faults: dict[str, None] = {}
    rings = {point.name for _, point in points if point.name in parts[point.name]}
    depth = 0
    for _ in range(RINGS_MAX):
        left = {name: parts[name] - {name} for name in parts if name not in rings}
        depth, ring = _depth_and_ring(left)
        if not ring:
            break
        rings.update(ring)
    for where, point in points:
        for name in sorted(parts[point.name] - set(parts)):
            faults[f"{where}: {name} is not a point"] = None
        if point.name in rings:
            faults[f"{where}: {point.name} is calculated from itself"] = None
    if depth > CALCULATED_DEPTH_MAX:
        faults[f"{row.where}: calculated from each other over {depth} points in a row"] = None
    row.faults.extend(faults)


def _depth_and_ring(parts: Mapping[str, set[str]]) -> tuple[int, Sequence[str]]:
    """The longest way from a point over what it is calculated from, or a ring of them."""
    sorter = TopologicalSorter(parts)
    try:
        sorter.prepare()
    except CycleError as error:
        return 0, error.args[1]
    depth = -1
    while sorter.is_active():
        sorter.done(*sorter.get_ready())
        depth += 1
    return depth, ()


def _check_names(
    row: Row, points: list[tuple[str, Point]], commands: list[tuple[str, CommandSpec]]
) -> None:
    faults: dict[str, None] = {}  # each row once, in the order of the file
    for named in ([(w, p.name) for w, p in points], [(w, c.name) for w, c in commands]):
        seen: set[str] = set()
        for where, name in named:
            if name in seen:
                faults[f"{where}: duplicate name {name}"] = None
            seen.add(name)
    row.faults.extend(faults)
    row.faults.extend(overlaps(points))


def _check_proofs(
    row: Row, points: list[tuple[str, Point]], commands: list[tuple[str, CommandSpec]]
) -> None:
    names = {point.name for _, point in points}
    unproven: dict[str, str] = {
        where: command.confirm_point
        for where, command in reversed(commands)
        if command.confirm_point and command.confirm_point not in names
    }
    for where, proof in unproven.items():
        row.faults.append(f"{where}: confirm names {proof}, which is not a point")
