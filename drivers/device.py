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
from drivers.codec import decode, encode, not_there, raw_count
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
    settle_s: float = 0.0,
) -> Device:
    """The device at `url`. No I/O: it need not be there.

    `clock` gives monotonic seconds; `community` replaces the one in the URL. For so long
    as `settle_s` after the first value a sum is not believed without all its rows.
    ProfileError: the URL or the profile cannot be used.
    """
    address = parse_url(url, os.environ, community)
    device = Device(address, profile, clock, settle_s)
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
        settle_s: float = 0.0,
    ) -> None:
        self.url = address.printed
        self._profile = profile
        self._clock = clock
        self._settle_s = settle_s
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
        # What readings leave behind: wrapped counters, and which place of a point had it.
        self._counters: dict[str, Counter] = {}
        self._had: dict[str, int] = {}
        self._heard_at_s: float | None = None

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
            self._had.clear()
            self._heard_at_s = None
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
            found = await self._read(profile, points, self._until_s(profile))
        except DeviceError as error:
            found = {p.name: Missing(p.name, error.absence, str(error)) for p in points}
        return Snapshot(asked_at_s, self._clock(), {p.name: found[p.name] for p in points})

    def _until_s(self, profile: Profile) -> float:
        """When a read or a command that begins now must have had its answers."""
        return self._clock() + profile.limits.read_ms_max / 1000

    def places_of(self, name: str) -> tuple[Place, ...]:
        """Where the point is read, as far as it was looked up: every place of its own."""
        point = self._looked_up().known(name) or self._point(name)
        sources = [s for s in point.sources if isinstance(s, Source) and s.nothing is None]
        return tuple(place for source in sources for place in source.own_places)

    async def _read(
        self, profile: Profile, points: Sequence[Point], until_s: float
    ) -> dict[str, Reading | Missing]:
        """Every one of `points`, and what they are calculated from.

        If a row is not where it was, it is looked up anew and all is read again, once.
        """
        found: dict[str, Reading | Missing] = {}
        if await self._find(profile, points, found, until_s):
            found = {}
            await self._find(profile, points, found, until_s)
        return found

    async def _find(
        self,
        profile: Profile,
        points: Iterable[Point],
        found: dict[str, Reading | Missing],
        until_s: float,
    ) -> bool:
        """Fills `found`; True if something is no longer where it was.

        Asks the first place of every point, then the next one of those that lack it; what
        is calculated comes last in a point, and when its parts are known.
        """
        wanted = self._with_parts(points, found)
        calculated = [point for point in wanted if isinstance(point.sources[0], Derived)]
        asked = [point for point in wanted if isinstance(point.sources[0], Source)]
        asked = pending = await self._looked_up().points(asked, until_s)
        answers: dict[Place, Answer] = {}
        depth = 0
        while pending:
            here = [point.sources[depth] for point in pending]
            sources = [s for s in here if isinstance(s, Source) and s.nothing is None]
            answers |= await self._fetch(profile, sources, until_s)
            for point in pending:
                found[point.name] = self._kept(point, depth, self._decode(point, answers, found))
            depth += 1
            lacking = [p for p in pending if len(p.sources) > depth and _lacks(found[p.name])]
            pending = [p for p in lacking if isinstance(p.sources[depth], Source)]
            calculated += [p for p in lacking if isinstance(p.sources[depth], Derived)]
        has_moved = self._looked_up().has_moved((s for p in asked for s in p.sources), answers)
        left = {point.name: point for point in calculated}
        while left:
            has_moved |= await self._complete(
                profile, next(iter(left)), left, answers, found, until_s
            )
        return has_moved

    async def _complete(
        self,
        profile: Profile,
        name: str,
        left: dict[str, Point],
        answers: Mapping[Place, Answer],
        found: dict[str, Reading | Missing],
        until_s: float,
    ) -> bool:
        """Calculates one point of `left`, after those of its parts that are still left."""
        point = left.pop(name)
        last = point.sources[-1]
        assert isinstance(last, Derived)
        has_moved = False
        for part in last.names:
            if part in left:
                has_moved |= await self._complete(profile, part, left, answers, found, until_s)
        unknown = [profile.point(part) for part in last.names if part not in found]
        if unknown:
            has_moved |= await self._find(profile, unknown, found, until_s)
        told = self._calculated(point, last, answers, found)
        found[name] = self._kept(point, len(point.sources) - 1, told)
        return has_moved

    def _kept(self, point: Point, depth: int, told: Reading | Missing) -> Reading | Missing:
        """`told`, unless the point had its number in a better place before: that is gone for
        a while only, and what stands in for it may be less than the whole. A setting may
        rightly go: a limit that was taken away is absent."""
        if not point.unit or point.name in self._known_profile().settings:
            return told
        if isinstance(told, Reading):
            self._heard_at_s = self._heard_at_s or told.taken_at_s
            self._had[point.name] = min(depth, self._had.get(point.name, depth))
        elif _lacks(told) and self._had.get(point.name, len(point.sources)) <= depth:
            return Missing(point.name, Absence.INCOMPLETE, f"it was there before: {told.detail}")
        return told

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

    def _calculated(
        self,
        point: Point,
        derived: Derived,
        answers: Mapping[Place, Answer],
        found: Mapping[str, Reading | Missing],
    ) -> Reading | Missing:
        """A device that has just started may not show all its rows yet: a sum that lacks some
        is believed only when they have stayed away for `settle_s`."""
        told = decode(point, answers, found)
        if derived.kind == "sum" and isinstance(told, Reading):
            heard_at_s = told.taken_at_s if self._heard_at_s is None else self._heard_at_s
            away = [name for name in derived.names if _lacks(found[name])]
            if away and told.taken_at_s - heard_at_s < self._settle_s:
                text = f"{away[0]} may still come: wait {self._settle_s:g} s"
                return Missing(point.name, Absence.INCOMPLETE, text)
        return told

    async def members(self) -> list[str]:
        """The names of the PDUs behind this agent; empty if the profile knows of none.

        DeviceError if the agent does not answer.
        """
        until_s = self._until_s(self._known_profile())
        return [member.name for member in await self._looked_up().members(until_s)]

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
        until_s = self._until_s(profile)
        try:
            proven = await self._proven(profile, command, until_s)
            if proven is None:  # rows have moved: looked up anew, and asked again
                proven = await self._proven(profile, command, until_s)
        except DeviceError as error:
            return NoAnswer(error.absence, str(error))
        if proven is None:
            return NoAnswer(Absence.REFUSED, "its place is not where it was; nothing was written")
        filled, answers = proven
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

    async def _proven(
        self, profile: Profile, command: CommandSpec, until_s: float
    ) -> tuple[CommandSpec, dict[Place, Answer]] | None:
        """The command filled in, and what it needs to know; None if a place has moved."""
        filled = await self._looked_up().command(command, until_s)
        writes = (*filled.before, *filled.after)
        targets = [*filled.targets, *(write.target for write in writes)]
        there = [target for target in targets if target.nothing is None]
        beside = [source for target in there for source in _beside(target)]
        answers = await self._fetch(profile, beside, until_s)
        for target in there:
            if not_there(target, answers) is not None:
                self._looked_up().forget()
                return None
        return filled, answers

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
            return (await self._read(profile, [point], self._until_s(profile)))[point.name]
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
            until_s = self._until_s(profile)
            sources = {text: await self._looked_up().source(text.source, until_s) for text in told}
            places = [source for source in sources.values() if source.nothing is None]
            answers = await self._fetch(profile, places, until_s)
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

    async def _fetch(
        self, profile: Profile, sources: Sequence[Source], until_s: float
    ) -> dict[Place, Answer]:
        limits, left_s = profile.limits, until_s - self._clock()
        if not sources:
            return {}
        if self._agent is not None:
            oids = dict.fromkeys(str(place) for source in sources for place in source.places)
            return await self._agent.fetch(list(oids), temper=temper_of(profile, left_s))
        assert self._unit is not None
        spans: list[Span] = plan_registers(
            sources, limits.registers_per_read_max, limits.registers_gap_max
        )
        return await self._unit.fetch(
            spans, timeout_s=limits.timeout_ms / 1000, read_s_max=max(0.0, left_s)
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


def _beside(target: Source) -> list[Source]:
    """What must be read before a target is written: its proofs and its scale factor."""
    beside = [
        Source("int32", place)
        if isinstance(place, str)
        else Source("uint16", table=place[0], address=place[1])
        for place in (condition.place for condition in target.conditions)
    ]
    if target.scale_factor is not None:
        beside.append(Source("uint16", table=target.table, address=target.scale_factor))
    return beside


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
