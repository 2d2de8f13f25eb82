"""What `wattbroker probe` shows people: a block per device, a line per point. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from drivers.reading import Reading
from firmware_py.shown import number, shown

if TYPE_CHECKING:
    from firmware_py.plausible import Guesses

MEASURED = ("W", "VA", "V", "A")
NO_METER = "no meter: its power is unknown"


def tables(found: Mapping[str, Any]) -> str:
    """One round as text: every device that it holds."""
    return "\n\n".join(table(each) for each in found.get("members", [found]))


def table(found: Mapping[str, Any]) -> str:
    """The device, then a line per point; runs of rows that the device lacks (outlet.9 to
    outlet.48) share one."""
    device = found["device"]
    known = [shown(device[key]) for key in ("vendor", "model", "serial") if device[key]]
    lines = [f"{device['url']}  {' '.join(known)}  (profile {device['profile']})"]
    if device.get("metered") is False or not _measures(found):
        lines.append(f"  {NO_METER}")
    rows = [_row(list(run)) for _, run in groupby(found["points"].items(), key=_run_of)]
    width = max((len(row[0]) for row in rows), default=0)
    for name, value, unit, remark in rows:
        lines.append(f"  {name:<{width}}  {value:>12} {unit:<3}  {remark}".rstrip())
    return "\n".join(lines)


def _measures(found: Mapping[str, Any]) -> bool:
    """Whether any electrical quantity was asked for and is not simply not there."""
    return any(
        point.get("unit") in MEASURED or point.get("missing", "absent") != "absent"
        for point in found["points"].values()
    )


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What is wrong in itself, a line each; with the device where there are several."""
    devices: Sequence[Mapping[str, Any]] = found.get("members", [found])
    return [
        f"warning: {each['device']['url'] + ': ' if len(devices) > 1 else ''}{told['text']}"
        for each in devices
        for told in each.get("warnings", [])
    ]


def plausible_lines(guesses: Guesses) -> list[str]:
    """The profiles that would read a device plausibly, each with what it would show."""
    lines = []
    if guesses.plausible:
        lines.append("These would show something that can be; say which it is with --profile:")
    else:
        lines.append(
            "None of the profiles shows anything that can be; see wattbroker profiles list"
        )
    width = max((len(each.profile) for each in guesses.plausible), default=0)
    for each in guesses.plausible:
        told = [point for point in each.points.values() if isinstance(point, Reading)]
        values = ", ".join(f"{_short(p.name)} {_value(p)}" for p in told)
        lines.append(f"  {each.profile:<{width}}  {values}")
    if guesses.untried:
        lines.append(f"No time was left to try: {', '.join(guesses.untried)}")
    return lines


def _short(name: str) -> str:
    return name.removeprefix("input.")


def _value(point: Reading) -> str:
    value = point.value if isinstance(point.value, str) else number(float(f"{point.value:.4g}"))
    return f"{value} {point.unit}" if point.unit != "1" else value


def _run_of(item: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    """Neighbours of one run: missing for one reason, and differing only in their number."""
    name, point = item
    return (re.sub(r"\d+", "#", name), point["missing"]) if "missing" in point else (name, "")


def _row(run: list[tuple[str, dict[str, Any]]]) -> tuple[str, str, str, str]:
    """Name, value, unit and remark of a line."""
    (name, point), last = run[0], run[-1][0]
    if "missing" in point:
        return (name if len(run) == 1 else f"{name} … {last}", "—", "", point["missing"])
    value = point["value"]
    told = shown(value, 40) if isinstance(value, str) else number(value)
    estimate = "  estimate" if point.get("estimate") else ""
    return name, told, point["unit"], f"{point['age_s']:.1f} s ago{estimate}"
