"""`wattbroker profiles`: what a profile says, in few lines. Pure.

Rows of one kind share a line: outlet.1…48.current.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby, product
from typing import Any

from drivers.points import CommandSpec, Derived, Point
from drivers.profile import Match, Profile

_NUMBER = re.compile(r"\d+")


def list_lines(profiles: Sequence[Profile]) -> list[str]:
    rows = [
        (p.name, p.protocol, p.status, f"{p.vendor}: {', '.join(p.models)}" if p.models
         else p.vendor)
        for p in profiles
    ]  # fmt: skip
    width = max((len(row[0]) for row in rows), default=0)
    return [f"{name:<{width}}  {protocol:<6}  {status:<8}  {what}"
            for name, protocol, status, what in rows]  # fmt: skip


def list_json(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "protocol": profile.protocol,
        "vendor": profile.vendor,
        "models": list(profile.models),
        "status": profile.status,
        "metered": profile.metered,
    }


def show_lines(profile: Profile) -> list[str]:
    return [
        f"{profile.name}  {profile.vendor}: {', '.join(profile.models) or 'any model'}",
        f"  protocol    {profile.protocol}",
        f"  status      {_status(profile)}",
        f"  source      {profile.source}",
        *([] if profile.metered else ["  metered     no: its power is unknown"]),
        *_block("match", _match(profile.match)),
        *_block("members", _members(profile)),
        *_block("limits", _limits(profile)),
        *_block("points", _points(profile.points)),
        *_block("commands", _commands(profile.commands)),
    ]


def show_json(profile: Profile) -> dict[str, Any]:
    limits = asdict(profile.limits)
    match = asdict(profile.match) if profile.match else {}
    return list_json(profile) | {
        "source": profile.source,
        "match": {key: value for key, value in match.items() if value},
        "members": profile.members is not None,
        "limits": {key: value for key, value in limits.items() if value},
        "points": [{"name": point.name, "unit": point.unit} for point in profile.points],
        "commands": [
            {
                "name": command.name,
                "unit": command.unit,
                "words": list(command.words),
                "range": None if command.words else [command.low, command.high],
                "proof": command.confirm_point,
                "within_ms": command.confirm_within_ms,
                "why": command.confirm_why,
            }
            for command in profile.commands
        ],
    }


def compacted(names: Iterable[str]) -> list[tuple[str, str]]:
    """Neighbours that differ in their numbers only, as (one for all, the first of them):
    outlet.1…4-1…48.current and outlet.1-1.current."""
    return [line for _, same in groupby(names, key=_kind) for line in _lines(list(same))]


def _kind(name: str) -> str:
    return _NUMBER.sub("#", name)


def _lines(names: list[str]) -> list[tuple[str, str]]:
    """Of one kind: a line if every number runs from one to another in all combinations,
    else a line for every first number, and so on."""
    numbers = [tuple(map(int, _NUMBER.findall(name))) for name in names]
    spans = [range(min(column), max(column) + 1) for column in zip(*numbers, strict=True)]
    if sorted(numbers) == list(product(*spans)):
        shown = iter(f"{s[0]}" if len(s) == 1 else f"{s[0]}…{s[-1]}" for s in spans)
        return [(_NUMBER.sub(lambda _: next(shown), names[0]), names[0])]
    at = next(n for n, span in enumerate(spans) if len(span) > 1)
    parts: dict[int, list[str]] = {}
    for name, number in zip(names, numbers, strict=True):
        parts.setdefault(number[at], []).append(name)
    return [line for part in parts.values() for line in _lines(part)]


def _block(title: str, lines: Iterable[str]) -> list[str]:
    return [f"  {title if n == 0 else '':<11} {line}" for n, line in enumerate(lines)]


def _status(profile: Profile) -> str:
    known = "read and compared with a device or a recording of one"
    untested = "nobody has tried it: it can be read, never commanded"
    return f"{profile.status}: {untested if profile.status == 'untested' else known}"


def _match(match: Match | None) -> Iterator[str]:
    if match is None:
        yield "none: it is named with --profile"
        return
    if match.models:
        yield f"SunSpec model {', '.join(map(str, match.models))}"
    if match.vendor:
        yield f"identification (43/14) {match.vendor!r}, {match.product!r}"
    if match.one_of or match.under:
        yield f"{match.oid} is one of: {', '.join(match.one_of) or '-'}"
    for kind in ("under", "describes", "present", "present_below", "positive", "lacking"):
        texts = getattr(match, kind)
        if texts:
            yield f"{kind}: {', '.join(texts)}"


def _members(profile: Profile) -> Iterator[str]:
    if profile.members is not None:
        yield f"several PDUs behind one agent, named in {', '.join(profile.members.columns)}"


def _limits(profile: Profile) -> Iterator[str]:
    for key, value in asdict(profile.limits).items():
        if value:
            yield f"{key} = {value}"


def _points(points: Sequence[Point]) -> Iterator[str]:
    """A line per quantity: its unit, and whether it is calculated or estimated."""
    by_name = {point.name: point for point in points}
    for names, first in compacted(by_name):
        point = by_name[first]
        calculated = isinstance(point.sources[0], Derived)
        estimate = any(source.estimate for source in point.sources)
        remarks = ["calculated"] * calculated + ["may be an estimate"] * estimate
        yield f"{names:<40} {point.unit:<4} {', '.join(remarks)}".rstrip()


def _commands(commands: Sequence[CommandSpec]) -> Iterator[str]:
    by_name = {command.name: command for command in commands}
    for names, first in compacted(by_name):
        command = by_name[first]
        said = ", ".join(command.words) or f"{command.low:g} to {command.high:g} {command.unit}"
        proof = command.confirm_point
        if proof is None:
            yield f"{names}: {said}; no proof: {command.confirm_why}"
            continue
        shown = proof if names == first else _kind(proof).replace("#", "…")
        yield f"{names}: {said}; proven by {shown} within {command.confirm_within_ms} ms"
