"""One device: read it, command it, ask who it is.

The shell around profile, plan, codec and the two protocols. What the world does never
raises: a point asked for is in the snapshot as a reading or with the reason why not,
and a command that could not be given says so. What the operator wrote wrong (a URL, a
profile, a name that the profile has not) raises ProfileError with the remedy.

A command is written once and its proof is read once, whatever the write said; whether
that proves enough, and what to do if not, is decided by who commands (protocol R5).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from drivers.address import ModbusAddress, SnmpAddress, parse_url
from drivers.codec import decode, encode
from drivers.errors import DeviceError, ProfileError
from drivers.modbus import ModbusUnit
from drivers.plan import plan_oids, plan_registers
from drivers.points import CommandSpec, Point, Source
from drivers.profile import Match, Profile, TextSource
from drivers.reading import (
    Absence,
    Answer,
    Executed,
    Identity,
    Missing,
    NoAnswer,
    Place,
    Reading,
    Snapshot,
)
from drivers.secret import Secret
from drivers.snmp import SnmpAgent

# Before a profile is known: who are you?
RECOGNISE_TIMEOUT_S = 2.0
RECOGNISE_S_MAX = 10.0
RECOGNISE_OIDS_MAX = 10


def open_device(
    url: str,
    profile: Profile | None,
    *,
    clock: Callable[[], float],
    community: Secret | None = None,
) -> Device:
    """The device at `url`. No I/O: it need not be there.

    `clock` gives monotonic seconds; `community` replaces the one in the URL.
    ProfileError: the URL or the profile cannot be used.
    """
    address = parse_url(url, os.environ, community)
    if profile is not None:
        speaks = "snmp" if isinstance(address, SnmpAddress) else "modbus"
        if profile.protocol != speaks:
            raise ProfileError(
                f"{address.printed}: profile {profile.name} is for {profile.protocol}"
            )
    return Device(address, profile, clock)


class Device:
    """One device behind one URL. `url` is safe to print."""

    def __init__(
        self,
        address: SnmpAddress | ModbusAddress,
        profile: Profile | None,
        clock: Callable[[], float],
    ) -> None:
        self.url = address.printed
        self.profile = profile
        self._clock = clock
        self._agent: SnmpAgent | None = None
        self._unit: ModbusUnit | None = None
        self._commanding = asyncio.Lock()
        if isinstance(address, SnmpAddress):
            self._agent = SnmpAgent(address, clock)
        else:
            limits = profile.limits if profile else None
            self._unit = ModbusUnit(
                address,
                clock,
                framing=limits.framing if limits else "tcp",
                pause_s=limits.pause_between_requests_ms / 1000 if limits else 0.0,
            )

    async def close(self) -> None:
        """Ends the connection. The device can be used again after it."""
        if self._agent is not None:
            await self._agent.close()
        if self._unit is not None:
            await self._unit.close()

    async def read(self, names: Collection[str] | None = None) -> Snapshot:
        """One round of reading `names` (None: every point of the profile).

        A device that does not answer costs one timeout, a slow one `read_ms_max`.
        """
        profile = self._known_profile()
        points = profile.points if names is None else [self._point(name) for name in names]
        asked_at_s = self._clock()
        found = await self._read(profile, points)
        return Snapshot(asked_at_s, self._clock(), found)

    async def execute(self, name: str, value: float | str) -> Executed:
        """Writes `value` once, then reads the command's proof once."""
        profile = self._known_profile()
        command = self._command(name)
        raw = encode(command, value)
        if profile.status == "untested":
            text = f"profile {profile.name} is untested: it can be read, never commanded"
            raw = NoAnswer(Absence.REFUSED, text)
        if isinstance(raw, NoAnswer):
            now_s = self._clock()
            return Executed(name, value, now_s, now_s, raw.absence, raw.detail, None)
        async with self._commanding:  # another command's write must not slip before our proof
            sent_at_s = self._clock()
            refused = await self._write(profile, command, raw)
            done_at_s = self._clock()
            proof = await self._proof(profile, command)
        absence, detail = (refused.absence, refused.detail) if refused else (None, "")
        return Executed(name, value, sent_at_s, done_at_s, absence, detail, proof)

    async def identify(self) -> Identity:
        """What the device calls itself; DeviceError if it does not answer.

        A Modbus device is not asked: its model is the profile's, if it is for one only.
        """
        profile = self._known_profile()
        if self._agent is None:
            model = profile.models[0] if len(profile.models) == 1 else None
            return Identity(profile.vendor, model, None)
        texts = (*profile.model_from, *profile.serial_from)
        answers = await self._ask_oids(
            [text.oid for text in texts], profile.limits.oids_per_get_max
        )
        model, serial = _text(profile.model_from, answers), _text(profile.serial_from, answers)
        return Identity(profile.vendor, model, serial)

    async def recognise(self, profiles: Iterable[Profile]) -> Profile:
        """The one profile that fits, which the device then has.

        DeviceError if the device does not answer; ProfileError if none fits, or several.
        """
        if self._agent is None:
            raise ProfileError(
                f"{self.url}: a Modbus device does not say what it is: name a profile"
            )
        candidates = [(profile, profile.match) for profile in profiles if profile.match]
        oids = [oid for _, match in candidates for oid in (match.oid, *match.present)]
        answers = await self._ask_oids(oids, RECOGNISE_OIDS_MAX)
        fitting = [profile for profile, match in candidates if _fits(match, answers)]
        if len(fitting) != 1:
            said = {match.oid: answers[match.oid].raw for _, match in candidates}
            raise ProfileError(_unrecognised(self.url, fitting, said, candidates))
        self.profile = fitting[0]
        return fitting[0]

    # ── inside ──

    async def _read(
        self, profile: Profile, points: Iterable[Point]
    ) -> dict[str, Reading | Missing]:
        """Asks the first source of every point, then the next one of those that lack it."""
        answers: dict[Place, Answer] = {}
        found: dict[str, Reading | Missing] = {}
        pending = list(points)
        depth = 0
        while pending:
            answers |= await self._fetch(profile, [point.sources[depth] for point in pending])
            found |= {point.name: decode(point, answers) for point in pending}
            depth += 1
            pending = [p for p in pending if len(p.sources) > depth and _lacks(found[p.name])]
        return found

    async def _fetch(self, profile: Profile, sources: Sequence[Source]) -> dict[Place, Answer]:
        limits = profile.limits
        timeout_s, read_s_max = limits.timeout_ms / 1000, limits.read_ms_max / 1000
        if self._agent is not None:
            gets = plan_oids(sources, limits.oids_per_get_max)
            return await self._agent.fetch(gets, timeout_s=timeout_s, read_s_max=read_s_max)
        assert self._unit is not None
        spans = plan_registers(sources, limits.registers_per_read_max, limits.registers_gap_max)
        return await self._unit.fetch(spans, timeout_s=timeout_s, read_s_max=read_s_max)

    async def _write(
        self, profile: Profile, command: CommandSpec, raw: int | float
    ) -> NoAnswer | None:
        target, timeout_s = command.target, profile.limits.timeout_ms / 1000
        if self._agent is not None:
            return await self._agent.write(target.oid, int(raw), target.type, timeout_s=timeout_s)
        assert self._unit is not None
        return await self._unit.write(target, raw, timeout_s=timeout_s)

    async def _proof(self, profile: Profile, command: CommandSpec) -> Reading | Missing | None:
        if command.confirm_point is None:
            return None
        point = profile.point(command.confirm_point)
        return (await self._read(profile, [point]))[point.name]

    async def _ask_oids(self, oids: Sequence[str], oids_max: int) -> dict[Place, Answer]:
        """Answers to all of `oids`; DeviceError if there is nobody to give them."""
        assert self._agent is not None
        gets = plan_oids([Source("text", oid) for oid in oids], oids_max)
        answers = await self._agent.fetch(
            gets, timeout_s=RECOGNISE_TIMEOUT_S, read_s_max=RECOGNISE_S_MAX
        )
        silent = [a.raw for a in answers.values() if isinstance(a.raw, NoAnswer)]
        troubles = [raw for raw in silent if raw.absence is not Absence.ABSENT]
        for trouble in troubles:
            if trouble.absence is Absence.TIMEOUT or len(troubles) == len(answers):
                raise DeviceError(trouble.absence, trouble.detail)
        return answers

    def _known_profile(self) -> Profile:
        if self.profile is None:
            raise ProfileError(f"{self.url}: no profile: name one, or let it be recognised")
        return self.profile

    def _point(self, name: str) -> Point:
        try:
            return self._known_profile().point(name)
        except KeyError:
            text = f"{self.url}: profile {self._known_profile().name} has no point {name}"
            raise ProfileError(text) from None

    def _command(self, name: str) -> CommandSpec:
        try:
            return self._known_profile().command(name)
        except KeyError:
            text = f"{self.url}: profile {self._known_profile().name} has no command {name}"
            raise ProfileError(text) from None


def _lacks(found: Reading | Missing) -> bool:
    return isinstance(found, Missing) and found.absence is Absence.ABSENT


def _text(sources: Iterable[TextSource], answers: dict[Place, Answer]) -> str | None:
    """The first text that is there; with a mark, the word that follows it."""
    for source in sources:
        raw = answers[source.oid].raw
        if not isinstance(raw, bytes):
            continue
        text = raw.decode("utf-8", "replace").strip(" \0\t\r\n")
        if source.after:
            words = text.partition(source.after)[2].split(maxsplit=1)
            text = words[0].rstrip(",;)") if words else ""
        if text:
            return text
    return None


def _fits(match: Match, answers: dict[Place, Answer]) -> bool:
    there = [answers[oid].raw for oid in match.present]
    return answers[match.oid].raw in match.one_of and not any(
        isinstance(raw, NoAnswer) for raw in there
    )


def _unrecognised(
    url: str, fitting: list[Profile], said: dict[str, Any], candidates: list[tuple[Profile, Match]]
) -> str:
    if fitting:
        names = ", ".join(profile.name for profile in fitting)
        return f"{url}: several profiles fit ({names}): name the one that is meant"
    facts = ", ".join(
        f"{oid} is {'absent' if isinstance(raw, NoAnswer) else raw}" for oid, raw in said.items()
    )
    known = ", ".join(profile.name for profile, _ in candidates)
    return f"{url}: no profile fits ({facts}); name one of {known}, or write one"


def probe_json(
    device_url: str, profile: Profile, identity: Identity, snapshot: Snapshot, now_s: float
) -> dict[str, Any]:
    """The JSON of `wattbroker probe`. An age counts from the asking: no older than that."""
    points: dict[str, dict[str, Any]] = {}
    for name, found in snapshot.points.items():
        if isinstance(found, Missing):
            points[name] = {"missing": found.absence.value}
        else:
            age_s = round(max(0.0, now_s - found.asked_at_s), 1)
            points[name] = {"value": found.value, "unit": found.unit, "age_s": age_s}
    return {
        "device": {
            "profile": profile.name,
            "vendor": identity.vendor,
            "model": identity.model,
            "serial": identity.serial,
            "url": device_url,
        },
        "points": points,
    }
