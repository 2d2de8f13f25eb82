"""Profiles: what a product is, as data.

One TOML file per product, in the folders of the site first, then beside this module.
`check_profile` reads one strictly and reports every fault at once; what it returns is
expanded and frozen, and nothing further is looked up at run time. Pure but for reading
the file. A profile without a recording (`status = "untested"`) can be read, never
commanded; the refusal is where commands are executed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drivers.errors import ProfileError
from drivers.points import CommandSpec, Point, overlaps, take_commands, take_points
from drivers.rows import Row

SHIPPED = Path(__file__).parent / "profiles"


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
    registers_per_read_max: int
    registers_gap_max: int
    connections_max: int
    framing: str


@dataclass(frozen=True, slots=True)
class Match:
    """How a connected device proves that the profile fits: the value of `oid` is among
    `one_of`, and every OID of `present` answers."""

    oid: str
    one_of: tuple[str, ...]
    present: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextSource:
    """An OID with a text; with `after`, the word that follows this mark in it."""

    oid: str
    after: str


@dataclass(frozen=True, slots=True)
class Profile:
    """One product, expanded. `models` are those the profile was written for."""

    name: str
    protocol: str
    vendor: str
    models: tuple[str, ...]
    source: str
    status: str
    match: Match | None
    model_from: tuple[TextSource, ...]
    serial_from: tuple[TextSource, ...]
    limits: Limits
    points: tuple[Point, ...]
    commands: tuple[CommandSpec, ...]
    _points: dict[str, Point] = field(repr=False, compare=False)
    _commands: dict[str, CommandSpec] = field(repr=False, compare=False)

    def point(self, name: str) -> Point:
        """KeyError if the profile has none of that name."""
        return self._points[name]

    def command(self, name: str) -> CommandSpec:
        """KeyError if the profile has none of that name."""
        return self._commands[name]


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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from None
    profile = check_profile(text, str(path))
    if profile.name != path.stem:
        raise ProfileError(f"{path}: name = {profile.name!r} is not the name of the file")
    return profile


def check_profile(text: str, where: str) -> Profile:
    """The profile in `text`, or ProfileError with every fault; `where` names the file."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{where}: not TOML: {error}") from None
    faults: list[str] = []
    profile = _profile(Row(faults, where, values))
    if faults:
        raise ProfileError(*faults)
    return profile


def _profile(row: Row) -> Profile:
    if row.need("schema", int, 1) != 1:
        row.fault("schema is not 1, the only one there is")
    name = row.need("name", str, "?")
    protocol = row.need("protocol", str, "snmp")
    if protocol not in ("snmp", "modbus"):
        row.fault(f"protocol = {protocol!r} is not one of snmp, modbus")
    status = row.word("status", ("recorded", "untested"), "recorded")
    product = row.table("product", needed=True)
    vendor, models = product.need("vendor", str, "?"), product.texts("models")
    product.end()
    origin = row.table("source", needed=True)
    document = origin.need("document", str, "?")
    origin.end()
    match = _match(row, protocol)
    model_from, serial_from = _identity(row, protocol)
    commanded = row.has("command")
    limits = _limits(row.table("limits", needed=True), protocol, commanded)
    if not row.has("point"):
        row.fault("no [[point]]: nothing could be read")
    before = len(row.faults)
    points = take_points(row, protocol)
    points_are_sound = len(row.faults) == before
    commands = take_commands(row, protocol)
    _check_names(row, points, commands)
    if points_are_sound:  # otherwise a point may be missing because of its own fault
        _check_proofs(row, points, commands)
    row.end()
    return Profile(
        name, protocol, vendor, models, document, status, match, model_from, serial_from, limits,
        tuple(point for _, point in points), tuple(command for _, command in commands),
        {point.name: point for _, point in points},
        {command.name: command for _, command in commands},
    )  # fmt: skip


def _match(row: Row, protocol: str) -> Match | None:
    if protocol != "snmp":
        return None
    table = row.table("match", needed=True)
    match = Match(
        table.take("oid", str, "1.3.6.1.2.1.1.2.0"), table.texts("one_of"), table.texts("present")
    )
    table.end()
    if not match.one_of or not match.present:
        table.fault("one_of and present must both name something")
    return match


def _identity(row: Row, protocol: str) -> tuple[tuple[TextSource, ...], tuple[TextSource, ...]]:
    if protocol != "snmp":
        return (), ()
    table = row.table("identity")
    found = {}
    for key in ("model", "serial"):
        sources = []
        for told in table.rows(key):
            sources.append(TextSource(told.need("oid", str, "1.3"), told.take("after", str, "")))
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
        # 125: the most that fits a Modbus frame
        registers_per_read_max=(
            row.count("registers_per_read_max", 125, least=4, most=125) if is_modbus else 0
        ),
        registers_gap_max=row.count("registers_gap_max", 0, most=120) if is_modbus else 0,
        connections_max=row.count("connections_max", 1, least=1, most=100) if is_modbus else 0,
        framing=row.word("framing", ("tcp", "rtu"), "tcp") if is_modbus else "",
    )
    row.end()
    return limits


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
