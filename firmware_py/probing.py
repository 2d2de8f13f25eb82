"""`wattbroker probe`: one reading of one device, whoever it is."""

from __future__ import annotations

from collections.abc import Sequence
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
        raise Unanswered(f"{device.url}: {silent[0].detail or 'no answer'}")


def table(result: dict[str, Any]) -> str:
    """The same for people: the device, then a line per point."""
    device = result["device"]
    known = [device[key] for key in ("vendor", "model", "serial") if device[key]]
    lines = [f"{device['url']}  {' '.join(known)}  (profile {device['profile']})"]
    width = max((len(name) for name in result["points"]), default=0)
    for name, point in result["points"].items():
        if "missing" in point:
            lines.append(f"  {name:<{width}}  {'—':>12}     {point['missing']}")
        else:
            lines.append(f"  {name:<{width}}  {_number(point['value']):>12} {point['unit']:<3}")
    return "\n".join(lines)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.10g}"
