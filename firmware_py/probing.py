"""`wattbroker probe`: one reading of one device, whoever it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from drivers.device import Device, open_device, probe_json
from drivers.errors import ProfileError
from drivers.profile import Profile, load_profile, profile_names
from drivers.reading import Absence, Missing, Snapshot
from firmware_py import clock


class Unanswered(Exception):
    """Nothing at all came back; the text says what to check."""


async def probe(url: str, profile_name: str | None, folders: Sequence[Path]) -> dict[str, Any]:
    """One reading as the JSON that `probe --json` prints.

    ProfileError: the URL or the profile cannot be used. DeviceError: the device cannot
    be recognised. Unanswered: it said nothing.
    """
    profile = load_profile(profile_name, folders) if profile_name else None
    device = open_device(url, profile, clock=clock.now_s)
    try:
        if device.profile is None:
            device.profile = await _recognise(device, folders)
        snapshot = await device.read()
        _require_an_answer(device, snapshot)
        identity = await device.identify()
        return probe_json(device.url, device.profile, identity, snapshot, clock.now_s())
    finally:
        await device.close()


async def _recognise(device: Device, folders: Sequence[Path]) -> Profile:
    every = [load_profile(name, folders) for name in profile_names(folders)]
    if device.url.startswith("modbus"):
        names = ", ".join(p.name for p in every if p.protocol == "modbus")
        raise ProfileError(
            f"{device.url}: a Modbus device does not say what it is;"
            f" name its profile with --profile, one of: {names}"
        )
    return await device.recognise([p for p in every if p.protocol == "snmp"])


def _require_an_answer(device: Device, snapshot: Snapshot) -> None:
    points = snapshot.points.values()
    silent = [p for p in points if isinstance(p, Missing) and p.absence is Absence.TIMEOUT]
    if points and len(silent) == len(points):
        detail = silent[0].detail or "no answer"
        known = detail.startswith(device.url)  # who could not be reached is said mostly
        raise Unanswered(detail if known else f"{device.url}: {detail}")


def table(result: dict[str, Any]) -> str:
    """The same for people: the device, then a line per point; runs of rows that the
    device lacks (outlet.9 to outlet.48) share one."""
    device = result["device"]
    known = [device[key] for key in ("vendor", "model", "serial") if device[key]]
    lines = [f"{device['url']}  {' '.join(known)}  (profile {device['profile']})"]
    rows = [_row(list(run)) for _, run in groupby(result["points"].items(), key=_run_of)]
    width = max((len(row[0]) for row in rows), default=0)
    for name, value, unit, remark in rows:
        lines.append(f"  {name:<{width}}  {value:>12} {unit:<3}  {remark}".rstrip())
    return "\n".join(lines)


def _run_of(item: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    """Neighbours of one run: missing for one reason, and differing only in their number."""
    name, point = item
    return (re.sub(r"\d+", "#", name), point["missing"]) if "missing" in point else (name, "")


def _row(run: list[tuple[str, dict[str, Any]]]) -> tuple[str, str, str, str]:
    """Name, value, unit and remark of a line."""
    (name, point), last = run[0], run[-1][0]
    if "missing" in point:
        return (name if len(run) == 1 else f"{name} … {last}", "—", "", point["missing"])
    return name, _number(point["value"]), point["unit"], f"{point['age_s']:.1f} s ago"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.10g}"
