"""The site file: one `site.toml`, the same on every controller.

    text → tables (`site_tables`) → rules (`site_rules`) → Site (`site_defaults`)

`load_site` is the door: it gives a `Site` in which every rule holds, or raises
`SiteError` with every fault at once, each with its place and its remedy. It reads the
site file and the profiles that it names, and nothing else: secrets stay in their
files until they are used, and a site can be checked on any machine.

`python -m firmware_py.site` writes the JSON Schema for editors, made from the same
types.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from drivers.errors import ProfileError
from drivers.profile import Profile, load_profile, profile_names
from firmware_py.errors import Fault, SiteError, Warning_
from firmware_py.site_defaults import ProfileFacts, resolve, steps_w
from firmware_py.site_keys import RackTable, SiteTable
from firmware_py.site_rules import check
from firmware_py.site_tables import Faults, parse, quoted, read_site, unknown
from firmware_py.site_types import Actuator, Site
from firmware_py.site_warnings import warnings

FILE_BYTES_MAX = 1 << 20
SCHEMA_FILE = Path(__file__).parent.parent / "docs" / "site.schema.json"


def load_site(path: Path) -> Site:
    """The site in the file; SiteError with every fault if it cannot be used."""
    return site_of(_text(path), path)


def site_of(text: str, path: Path) -> Site:
    """The site in `text`; `path` names it in faults, relative paths start beside it."""
    document = parse(text, str(path))
    if isinstance(document, Fault):
        raise SiteError((document,))
    faults = Faults(str(path), document, text)
    table = read_site(document, faults)
    folder = path.absolute().parent
    profiles = _profiles(table, folder, faults)
    check(table, profiles, faults)
    if faults.all():
        raise SiteError(faults.all())
    return resolve(table, profiles, folder)


def warnings_of(site: Site) -> tuple[Warning_, ...]:
    """What the operator should know of a site that may be run.

    Looks at the permissions of files with secrets, as far as they are on this machine.
    """
    return (*warnings(site), *_open_secrets(site))


def outlet_steps_w(actuator: Actuator) -> tuple[int, ...]:
    """Every sum the outlets can make: `base_w`, then one outlet more at each step.

    The highest priority comes back first; of equal ones, the smaller number.
    """
    return steps_w(actuator.base_w, actuator.outlets)


def site_hash(site: Site) -> str:
    """16 hex digits over what every member must agree on (protocol M4).

    Names, limits and tree of the caps; names, ranks, floors, ceilings and caps of the
    racks. Nothing else counts, nor does the order in the file; racks that join are their
    own affair.
    """
    agreed = {
        "caps": sorted([cap.name, cap.parent, cap.limit_w] for cap in site.caps),
        "racks": sorted(
            [rack.name, rack.rank, rack.floor_w, rack.ceiling_w, rack.cap]
            for rack in site.racks
            if not rack.joins
        ),
    }
    text = json.dumps(agreed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a site file, for editors that know TOML."""
    schema = _without_null(msgspec.json.schema(SiteTable))
    assert isinstance(schema, dict)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wattbroker site file",
        **schema,
    }


def write_schema(path: Path = SCHEMA_FILE) -> None:
    """Write the JSON Schema where editors and the documentation find it."""
    path.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", "utf-8")


# --- Reading ------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = error.strerror if isinstance(error, OSError) else None
        _refuse(path, f"cannot be read: {reason or 'not a path'}; check the path and its owner")
    if len(raw) > FILE_BYTES_MAX:
        _refuse(path, f"larger than {FILE_BYTES_MAX} bytes; a site file is not that long")
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        _refuse(path, "begins with a byte order mark; save it as UTF-8 without one")
    try:
        return raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        _refuse(path, "not UTF-8; save it as UTF-8", line)


def _refuse(path: Path, text: str, line: int | None = None) -> NoReturn:
    raise SiteError((Fault(str(path), "", text, line),))


def _profiles(table: SiteTable, folder: Path, faults: Faults) -> Mapping[str, ProfileFacts]:
    """The profiles that the devices name, each read once and reported once."""
    own = (folder / table.profiles,) if isinstance(table.profiles, str) else ()
    if own and not _is_folder(own[0]):
        faults.add(("profiles",), "no such folder; create it beside this file, or leave it out")
        own = ()
    all_known = bool(own) or table.profiles is None
    known = profile_names(own)
    found: dict[str, ProfileFacts | None] = {}
    for path, name in _profiles_named(table):
        if name not in known and all_known:
            faults.add(path, f"there is no profile {quoted(name)}; {unknown(name, known)}")
        elif name in known and name not in found:
            try:
                found[name] = _facts(load_profile(name, own))
            except ProfileError as error:
                found[name] = None
                for fault in error.faults:
                    faults.add(path, f"profile {name} cannot be used: {fault}")
    return {name: facts for name, facts in found.items() if facts is not None}


def _profiles_named(table: SiteTable) -> Iterator[tuple[tuple[str | int, ...], str]]:
    racks: tuple[RackTable, ...] = () if table.rack is msgspec.UNSET else table.rack
    for i, rack in enumerate(racks):
        for j, device in enumerate(rack.device):
            if isinstance(device.profile, str):
                yield ("rack", i, "device", j, "profile"), device.profile


def _facts(profile: Profile) -> ProfileFacts:
    return ProfileFacts(
        name=profile.name,
        protocol=profile.protocol,
        points={point.name: point.unit for point in profile.points},
        commands=frozenset(command.name for command in profile.commands),
        commandable=profile.status != "untested",
        members=profile.members,
        effect_delay_s=profile.limits.effect_delay_ms_max / 1000,
        poll_s_min=profile.limits.poll_interval_ms_min / 1000,
    )


# --- Secrets on disk, the schema ------------------------------------------------------------


def _open_secrets(site: Site) -> Iterator[Warning_]:
    secrets = {
        "mqtt.password_file": site.mqtt.password_file,
        "mqtt.tls.key": site.mqtt.tls.key if site.mqtt.tls else None,
    }
    for rack in site.racks:
        for device in rack.devices:
            key = f'rack "{rack.name}".device "{device.name}".community_file'
            secrets[key] = device.community_file
    for key, path in secrets.items():
        if path is not None and _is_open(path):
            yield Warning_(key, f"{path} can be read by everyone on this machine; chmod o= it")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # not ours to enter, too long a name
        return False


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False  # it is on another machine; that is where it is looked for


def _without_null(schema: object) -> object:
    """TOML has no null: "this or null" is this, and a default of null is none."""
    if isinstance(schema, list):
        return [_without_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {
        key: _without_null(value)
        for key, value in schema.items()
        if not (key == "default" and value is None)
    }
    either = [each for each in kept.pop("anyOf", []) if each != {"type": "null"}]
    assert len(either) <= 1, "a key of a site file has one type"
    if "enum" in kept:
        kept["enum"] = [each for each in kept["enum"] if each is not None]
    return kept | (either[0] if either else {})


if __name__ == "__main__":
    write_schema()
