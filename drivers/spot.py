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

# A row or a model that was not there may have come: it is looked for again after so long,
# soon at first, as devices that start up fill their tables one after the other.
LOOK_AGAIN_S = (5.0, 30.0, 120.0, 600.0)


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
        self._member_name = member
        self._printed = printed
        self._clock = clock
        self._member: Member | None = None
        self._columns: dict[str, Column] = {}
        self._models: dict[int, int] | None = None
        self._points: dict[str, Point] = {}
        self._look_again_at_s: float | None = None
        self._looked_again = 0

    async def members(self, until_s: float) -> list[Member]:
        """The PDUs behind this agent; DeviceError if it does not answer."""
        members = self._profile.members
        if members is None:
            return []
        columns = {column: await self._column(column, until_s) for column in members.columns}
        return members.found(columns)

    async def points(self, points: Iterable[Point], until_s: float) -> list[Point]:
        """The points with their places filled in; DeviceError if the device does not say."""
        if self._look_again_at_s is not None and self._clock() >= self._look_again_at_s:
            self.forget()
            self._looked_again += 1
        points = list(points)
        unknown = [point for point in points if point.name not in self._points]
        if unknown:
            await self._look_up(unknown, until_s)
            for point in unknown:
                found = resolve(point, self._member, self._columns, self._models or {})
                self._points[point.name] = found
                if any(isinstance(s, Source) and s.nothing for s in found.sources):
                    wait_s = LOOK_AGAIN_S[min(self._looked_again, len(LOOK_AGAIN_S) - 1)]
                    self._look_again_at_s = self._look_again_at_s or self._clock() + wait_s
        return [self._points[point.name] for point in points]

    async def command(self, command: CommandSpec, until_s: float) -> CommandSpec:
        """The command likewise."""
        await self._look_up([command], until_s)
        return resolve_command(command, self._member, self._columns, self._models or {})

    async def source(self, source: Source, until_s: float) -> Source:
        """A single place likewise."""
        await self._look_up([Point("identity.text", "", 0, 0, (source,))], until_s)
        return resolve_source(source, self._member, self._columns, self._models or {})

    def known(self, name: str) -> Point | None:
        """The point of that name as it was filled in last."""
        return self._points.get(name)

    def has_moved(self, sources: Iterable[object], answers: Mapping[Place, Answer]) -> bool:
        """Whether a row or a model is no longer where it was; then all is looked up anew."""
        moved = any(isinstance(s, Source) and _has_moved(s, answers) for s in sources)
        if moved:
            self.forget()
        return moved

    def forget(self) -> None:
        """What is needed next is looked up anew; but whose device this is, stays."""
        self._columns.clear()
        self._models = None
        self._points.clear()
        self._look_again_at_s = None

    async def _look_up(self, points: Sequence[Point | CommandSpec], until_s: float) -> None:
        """Member, columns and models that these need, as far as they are not known."""
        if self._profile.members is not None and self._member is None:
            self._member = await self._choose_member(until_s)
        for column in columns_of(points, self._member):
            if column not in self._columns:
                self._columns[column] = await self._column(column, until_s)
        if self._models is None and any(_wants_models(point) for point in points):
            assert isinstance(self._at, ModbusUnit)
            timeout_s = self._profile.limits.timeout_ms / 1000
            self._models = await sunspec_models(self._at, timeout_s=timeout_s)

    async def _choose_member(self, until_s: float) -> Member:
        members = self._profile.members
        assert members is not None
        name = self._member_name or members.first
        member = members.named(name) if name else None
        if member is not None:
            return member
        known = await self.members(until_s)
        if not known:
            raise DeviceError(Absence.ABSENT, f"{self._printed}: the agent shows no PDU")
        return known[0]

    async def _column(self, column: str, until_s: float) -> Column:
        assert isinstance(self._at, SnmpAgent)
        temper = temper_of(self._profile, until_s - self._clock())
        walked = await self._at.walk(column, temper=temper)
        if walked.gap is not None:
            raise DeviceError(walked.gap.absence, walked.gap.detail)
        start = len(column) + 1
        return {oid[start:]: answer.raw for oid, answer in walked.answers.items()}


def temper_of(profile: Profile, left_s: float) -> Temper:
    """The profile's limits as its agent is asked with, while `left_s` of a read is left."""
    limits = profile.limits
    return Temper(
        timeout_s=limits.timeout_ms / 1000,
        read_s_max=max(0.0, left_s),
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
