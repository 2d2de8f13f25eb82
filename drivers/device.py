"""One device: read it, command it, ask who it is.

The shell around profile, codec and the two protocols. What the world does never raises:
a point asked for is in the snapshot as a reading or with the reason why not, and a
command that could not be given says so. What the operator wrote wrong (a URL, a profile,
a name that the profile has not) raises ProfileError with the remedy.

A command is written once and its proof is read once, whatever the write said; whether
that proves enough, and what to do if not, is decided by who commands (protocol R5).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from drivers.address import ModbusAddress, SnmpAddress, parse_url
from drivers.codec import decode, encode, raw_count
from drivers.counter import Counter
from drivers.errors import DeviceError, ProfileError
from drivers.modbus import ModbusUnit
from drivers.plan import Span, plan_registers
from drivers.points import CommandSpec, Derived, Point, Source
from drivers.profile import Candidate, Profile, TextSource
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
from drivers.recognition import TEMPER, recognise_agent, recognise_unit, texts_of
from drivers.secret import Secret
from drivers.snmp import SnmpAgent
from drivers.spot import Spot, temper_of

STRANGER_PAUSE_S = 0.03  # between requests to a Modbus device of which nothing is known


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
    device = Device(address, profile, clock)
    if profile is not None:
        device.check_profile(profile)
    return device


class Device:
    """One device behind one URL. `url` is safe to print."""

    def __init__(
        self,
        address: SnmpAddress | ModbusAddress,
        profile: Profile | None,
        clock: Callable[[], float],
    ) -> None:
        self.url = address.printed
        self._profile = profile
        self._clock = clock
        self._agent: SnmpAgent | None = None
        self._unit: ModbusUnit | None = None
        self._asked_member = ""
        self._commanding = asyncio.Lock()
        if isinstance(address, SnmpAddress):
            self._agent = SnmpAgent(address, clock)
            self._asked_member = address.member
        else:
            self._unit = ModbusUnit(address, clock, pause_s=_pause_s(profile))
        self._spot: Spot | None = None
        # What readings leave behind.
        self._counters: dict[str, Counter] = {}
        self._rows_seen: set[str] = set()

    @property
    def member(self) -> str:
        """The PDU of a chain that the URL names; empty if it names none."""
        return self._asked_member

    @property
    def profile(self) -> Profile | None:
        return self._profile

    @profile.setter
    def profile(self, profile: Profile | None) -> None:
        if profile is not self._profile:
            self._spot = None
            self._counters.clear()
            self._rows_seen.clear()
        self._profile = profile
        if self._unit is not None:
            self._unit.pause_s = _pause_s(profile)

    def check_profile(self, profile: Profile) -> None:
        """ProfileError if the profile does not fit the URL."""
        speaks = "snmp" if self._agent is not None else "modbus"
        if profile.protocol != speaks:
            raise ProfileError(f"{self.url}: profile {profile.name} is for {profile.protocol}")
        if not self._asked_member:
            return
        if profile.members is None:
            raise ProfileError(
                f"{self.url}: profile {profile.name} knows of one PDU only:"
                f" leave /{self._asked_member} out"
            )
        if profile.members.named(self._asked_member) is None:
            raise ProfileError(f"{self.url}: {self._asked_member!r} is not the number of a PDU")

    async def close(self) -> None:
        """Ends the connection. The device can be used again after it."""
        if self._agent is not None:
            await self._agent.close()
        if self._unit is not None:
            await self._unit.close()

    # ── reading ──

    async def read(self, names: Collection[str] | None = None) -> Snapshot:
        """One round of reading `names` (None: every point of the profile).

        A device that does not answer costs one timeout, a slow one `read_ms_max`.
        """
        profile = self._known_profile()
        points = profile.points if names is None else [self._point(name) for name in names]
        asked_at_s = self._clock()
        try:
            found = await self._read(profile, points)
        except DeviceError as error:
            found = {p.name: Missing(p.name, error.absence, str(error)) for p in points}
        return Snapshot(asked_at_s, self._clock(), {p.name: found[p.name] for p in points})

    def places_of(self, name: str) -> tuple[Place, ...]:
        """Where the point is read, as far as it was looked up: every place of its own."""
        point = self._looked_up().known(name) or self._point(name)
        sources = [s for s in point.sources if isinstance(s, Source) and s.nothing is None]
        return tuple(place for source in sources for place in source.own_places)

    async def _read(
        self, profile: Profile, points: Iterable[Point]
    ) -> dict[str, Reading | Missing]:
        """Every one of `points`, and what they are calculated from."""
        found: dict[str, Reading | Missing] = {}
        await self._find(profile, points, found)
        return found

    async def _find(
        self, profile: Profile, points: Iterable[Point], found: dict[str, Reading | Missing]
    ) -> None:
        """Fills `found`. Asks the first place of every point, then the next one of those
        that lack it; what is calculated comes last in a point, and when its parts are known.
        """
        wanted = self._with_parts(points, found)
        calculated = [point for point in wanted if isinstance(point.sources[0], Derived)]
        asked = [point for point in wanted if isinstance(point.sources[0], Source)]
        asked = pending = await self._looked_up().points(asked)
        answers: dict[Place, Answer] = {}
        depth = 0
        while pending:
            here = [point.sources[depth] for point in pending]
            sources = [s for s in here if isinstance(s, Source) and s.nothing is None]
            answers |= await self._fetch(profile, sources)
            found |= {point.name: self._decode(point, answers, found) for point in pending}
            depth += 1
            lacking = [p for p in pending if len(p.sources) > depth and _lacks(found[p.name])]
            pending = [p for p in lacking if isinstance(p.sources[depth], Source)]
            calculated += [p for p in lacking if isinstance(p.sources[depth], Derived)]
        self._looked_up().note(asked, answers)
        for point in calculated:
            last = point.sources[-1]
            assert isinstance(last, Derived)
            parts = [profile.point(name) for name in last.names if name not in found]
            if parts:
                await self._find(profile, parts, found)
            found[point.name] = self._calculate(point, last, answers, found)

    def _with_parts(
        self, points: Iterable[Point], found: Mapping[str, Reading | Missing]
    ) -> list[Point]:
        """The points that are not found yet and what they are calculated from, parts first."""
        ordered: dict[str, Point] = {}

        def add(point: Point) -> None:
            first = point.sources[0]
            for name in first.names if isinstance(first, Derived) else ():
                if name not in ordered:
                    add(self._point(name))
            if point.name not in found:
                ordered[point.name] = point

        for point in points:
            add(point)
        return list(ordered.values())

    def _decode(
        self,
        point: Point,
        answers: Mapping[Place, Answer],
        found: Mapping[str, Reading | Missing],
    ) -> Reading | Missing:
        first = point.sources[0]
        if not (isinstance(first, Source) and first.counter_bits):
            return decode(point, answers, found)
        count = raw_count(first, answers)
        if count is not None:
            known = self._counters.get(point.name)
            fresh = Counter(first.counter_bits, count)
            self._counters[point.name] = known.then(count) if known else fresh
        rounds = self._counters[point.name].rounds if point.name in self._counters else 0
        return decode(point, answers, found, rounds)

    def _calculate(
        self,
        point: Point,
        derived: Derived,
        answers: Mapping[Place, Answer],
        found: Mapping[str, Reading | Missing],
    ) -> Reading | Missing:
        """A sum is only as good as its rows: one that was there before may not be left out."""
        parts = {name: found[name] for name in derived.names}
        if derived.kind == "sum":
            self._rows_seen |= {name for name, told in parts.items() if isinstance(told, Reading)}
            for name in self._rows_seen & set(parts):
                if _lacks(parts[name]):
                    parts[name] = Missing(name, Absence.INCOMPLETE, "it was there before")
        return decode(point, answers, parts)

    async def members(self) -> list[str]:
        """The names of the PDUs behind this agent; empty if the profile knows of none.

        DeviceError if the agent does not answer.
        """
        return [member.name for member in await self._looked_up().members()]

    def _looked_up(self) -> Spot:
        """What the device says about the places that its profile leaves open."""
        if self._spot is None:
            at = self._agent or self._unit
            assert at is not None
            profile = self._known_profile()
            self._spot = Spot(profile, at, self._asked_member, self.url, self._clock)
        return self._spot

    # ── commands ──

    async def execute(self, name: str, value: float | str) -> Executed:
        """Writes `value` once, then reads the command's proof once.

        Where a command is several writes, the first that fails ends it.
        """
        profile = self._known_profile()
        command = self._command(name)
        async with self._commanding:  # another command's write must not slip before our proof
            begun_at_s = self._clock()
            planned = await self._planned(profile, command, value)
            if isinstance(planned, NoAnswer):
                return Executed(name, value, begun_at_s, self._clock(), planned.absence,
                                planned.detail, None)  # fmt: skip
            sent_at_s = self._clock()
            refused = None
            for target, raw in planned:
                refused = refused or await self._write(profile, target, raw)
            done_at_s = self._clock()
            proof = await self._proof(profile, command)
        absence, detail = (refused.absence, refused.detail) if refused else (None, "")
        return Executed(name, value, sent_at_s, done_at_s, absence, detail, proof)

    async def _planned(
        self, profile: Profile, command: CommandSpec, value: float | str
    ) -> list[tuple[Source, int | float]] | NoAnswer:
        """Every write that the command is, or why it cannot be given."""
        if profile.status == "untested":
            text = f"profile {profile.name} is untested: it can be read, never commanded"
            return NoAnswer(Absence.REFUSED, text)
        try:
            filled = await self._looked_up().command(command)
            factors = [t for t in filled.targets if t.scale_factor is not None and not t.nothing]
            answers = await self._fetch(profile, factors)
        except DeviceError as error:
            return NoAnswer(error.absence, str(error))
        main = encode(filled, value, answers)
        if isinstance(main, NoAnswer):
            return main
        writes = [
            *((write.target, write.raw) for write in filled.before),
            main,
            *((write.target, write.raw) for write in filled.after),
        ]
        for target, _ in writes:
            if target.nothing is not None:
                return target.nothing
        return writes

    async def _write(self, profile: Profile, target: Source, raw: int | float) -> NoAnswer | None:
        timeout_s = profile.limits.timeout_ms / 1000
        if self._agent is not None:
            return await self._agent.write(target.oid, int(raw), target.type, timeout_s=timeout_s)
        assert self._unit is not None
        return await self._unit.write(target, raw, timeout_s=timeout_s)

    async def _proof(self, profile: Profile, command: CommandSpec) -> Reading | Missing | None:
        if command.confirm_point is None:
            return None
        point = profile.point(command.confirm_point)
        try:
            return (await self._read(profile, [point]))[point.name]
        except DeviceError as error:
            return Missing(point.name, error.absence, str(error))

    # ── who it is ──

    async def identify(self) -> Identity:
        """What the device calls itself; DeviceError if it does not answer.

        Where it says no model, it is the profile's, if that is for one only.
        """
        profile = self._known_profile()
        told = (*profile.model_from, *profile.serial_from)
        texts: dict[TextSource, object] = {}
        if told:
            sources = {text: await self._looked_up().source(text.source) for text in told}
            places = [source for source in sources.values() if source.nothing is None]
            answers = await self._fetch(profile, places)
            _require_an_answer(answers)
            for text, source in sources.items():
                found = decode(Point("identity.text", "", 0, 0, (source,)), answers)
                texts[text] = found.value if isinstance(found, Reading) else None
        model = texts_of([(texts[text], text.after) for text in profile.model_from])
        serial = texts_of([(texts[text], text.after) for text in profile.serial_from])
        if model is None and not profile.model_from and len(profile.models) == 1:
            model = profile.models[0]
        return Identity(profile.vendor, model, serial)

    async def recognise(self, profiles: Iterable[Profile | Candidate]) -> Profile:
        """The one profile that fits, which the device then has.

        DeviceError if the device does not answer; ProfileError if none fits, or several.
        """
        found: Profile | Candidate
        if self._agent is not None:
            found = await recognise_agent(self._agent, self.url, profiles)
        else:
            assert self._unit is not None
            found = await recognise_unit(self._unit, self.url, profiles, timeout_s=TEMPER.timeout_s)
        profile = found.load() if isinstance(found, Candidate) else found
        self.check_profile(profile)
        self.profile = profile
        return profile

    async def identification(self) -> Mapping[int, str] | NoAnswer:
        """What a Modbus device answers to function 43/14."""
        if self._unit is None:
            return NoAnswer(Absence.ABSENT, "not a Modbus device")
        return await self._unit.identification(timeout_s=TEMPER.timeout_s)

    # ── inside ──

    async def _fetch(self, profile: Profile, sources: Sequence[Source]) -> dict[Place, Answer]:
        limits = profile.limits
        if not sources:
            return {}
        if self._agent is not None:
            oids = dict.fromkeys(str(place) for source in sources for place in source.places)
            return await self._agent.fetch(list(oids), temper=temper_of(profile))
        assert self._unit is not None
        spans: list[Span] = plan_registers(
            sources, limits.registers_per_read_max, limits.registers_gap_max
        )
        return await self._unit.fetch(
            spans, timeout_s=limits.timeout_ms / 1000, read_s_max=limits.read_ms_max / 1000
        )

    def _known_profile(self) -> Profile:
        if self._profile is None:
            raise ProfileError(f"{self.url}: no profile: name one, or let it be recognised")
        return self._profile

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


def _pause_s(profile: Profile | None) -> float:
    return STRANGER_PAUSE_S if profile is None else profile.limits.pause_between_requests_ms / 1000


def _lacks(found: Reading | Missing) -> bool:
    return isinstance(found, Missing) and found.absence is Absence.ABSENT


def _require_an_answer(answers: Mapping[Place, Answer]) -> None:
    for answer in answers.values():
        if isinstance(answer.raw, NoAnswer) and answer.raw.absence is Absence.TIMEOUT:
            raise DeviceError(answer.raw.absence, answer.raw.detail)


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
            if found.estimate:
                points[name]["estimate"] = True
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
