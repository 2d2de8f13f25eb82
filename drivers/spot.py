"""What is looked up on the spot: the member of a chain, rows of tables, SunSpec models.

Each is looked up when a point first needs it and kept; a read that shows a row or model
elsewhere than it was makes everything be looked up anew (`drivers.resolve`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from drivers.errors import DeviceError
from drivers.modbus import ModbusUnit
from drivers.points import CommandSpec, Point, Source
from drivers.profile import Profile
from drivers.reading import Absence, Answer, NoAnswer, Place
from drivers.recognition import sunspec_models
from drivers.resolve import (
    Column,
    Member,
    columns_of,
    resolve,
    resolve_command,
    resolve_source,
    same,
)
from drivers.snmp import SnmpAgent, Temper

# A row or a model that was not there may have come: it is looked for again after so long.
LOOK_AGAIN_S = 600.0


class Spot:
    """One device and one profile: places filled in with what the device says."""

    def __init__(
        self,
        profile: Profile,
        at: SnmpAgent | ModbusUnit,
        member: str,
        printed: str,
        clock: Callable[[], float],
    ) -> None:
        self._profile = profile
        self._at = at
        self._asked_member = member
        self._printed = printed
        self._clock = clock
        self._member: Member | None = None
        self._columns: dict[str, Column] = {}
        self._models: dict[int, int] | None = None
        self._points: dict[str, Point] = {}
        self._look_again_at_s: float | None = None

    async def members(self) -> list[Member]:
        """The PDUs behind this agent; DeviceError if it does not answer."""
        members = self._profile.members
        if members is None:
            return []
        return members.found({column: await self._column(column) for column in members.columns})

    async def points(self, points: Iterable[Point]) -> list[Point]:
        """The points with their places filled in; DeviceError if the device does not say."""
        if self._look_again_at_s is not None and self._clock() >= self._look_again_at_s:
            self.forget()
        points = list(points)
        unknown = [point for point in points if point.name not in self._points]
        if unknown:
            await self._look_up(unknown)
            for point in unknown:
                found = resolve(point, self._member, self._columns, self._models or {})
                self._points[point.name] = found
                if any(isinstance(s, Source) and s.nothing for s in found.sources):
                    self._look_again_at_s = self._look_again_at_s or self._clock() + LOOK_AGAIN_S
        return [self._points[point.name] for point in points]

    async def command(self, command: CommandSpec) -> CommandSpec:
        """The command likewise."""
        await self._look_up([command])
        return resolve_command(command, self._member, self._columns, self._models or {})

    async def source(self, source: Source) -> Source:
        """A single place likewise."""
        await self._look_up([Point("identity.text", "", 0, 0, (source,))])
        return resolve_source(source, self._member, self._columns, self._models or {})

    def known(self, name: str) -> Point | None:
        """The point of that name as it was filled in last."""
        return self._points.get(name)

    def note(self, points: Iterable[Point], answers: Mapping[Place, Answer]) -> None:
        """Forgets everything if a row or a model is no longer where it was."""
        sources = [source for point in points for source in point.sources]
        if any(isinstance(source, Source) and _has_moved(source, answers) for source in sources):
            self.forget()

    def forget(self) -> None:
        """What is needed next is looked up anew."""
        self._member = None
        self._columns.clear()
        self._models = None
        self._points.clear()
        self._look_again_at_s = None

    async def _look_up(self, points: Sequence[Point | CommandSpec]) -> None:
        """Member, columns and models that these need, as far as they are not known."""
        if self._profile.members is not None and self._member is None:
            self._member = await self._choose_member()
        for column in columns_of(points, self._member):
            if column not in self._columns:
                self._columns[column] = await self._column(column)
        if self._models is None and any(_wants_models(point) for point in points):
            assert isinstance(self._at, ModbusUnit)
            timeout_s = self._profile.limits.timeout_ms / 1000
            self._models = await sunspec_models(self._at, timeout_s=timeout_s)

    async def _choose_member(self) -> Member:
        members = self._profile.members
        assert members is not None
        name = self._asked_member or members.first
        member = members.named(name) if name else None
        if member is not None:
            return member
        known = await self.members()
        if not known:
            raise DeviceError(Absence.ABSENT, f"{self._printed}: the agent shows no PDU")
        return known[0]

    async def _column(self, column: str) -> Column:
        assert isinstance(self._at, SnmpAgent)
        walked = await self._at.walk(column, temper=temper_of(self._profile))
        if walked.gap is not None:
            raise DeviceError(walked.gap.absence, walked.gap.detail)
        start = len(column) + 1
        return {oid[start:]: answer.raw for oid, answer in walked.answers.items()}


def temper_of(profile: Profile) -> Temper:
    """The profile's limits as its agent is asked with."""
    limits = profile.limits
    return Temper(
        timeout_s=limits.timeout_ms / 1000,
        read_s_max=limits.read_ms_max / 1000,
        oids_per_get_max=limits.oids_per_get_max,
        repetitions_max=limits.repetitions_max,
        pause_s=limits.pause_between_requests_ms / 1000,
    )


def _wants_models(point: Point | CommandSpec) -> bool:
    sources: Sequence[object] = point.sources if isinstance(point, Point) else point.targets
    return any(isinstance(source, Source) and source.models for source in sources)


def _has_moved(source: Source, answers: Mapping[Place, Answer]) -> bool:
    """Whether the row or model that was found is no longer what it was."""
    if not (source.row or source.models) or source.nothing is not None:
        return False
    for proof in source.conditions[: len(source.row) or 1]:
        raw = answers[proof.place].raw if proof.place in answers else None
        if isinstance(raw, NoAnswer):
            if raw.absence in (Absence.ABSENT, Absence.REFUSED):
                return True
        elif raw is not None and not same(raw, proof.raws[0]):
            return True
    return False
