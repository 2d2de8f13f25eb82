"""One device, one task: polls on its own period, commands as they come.

A device is asked one thing at a time. Commands go before polls; a lowering command
drops the raises that still wait, and says so, so that nothing that was overtaken is
written later. What the device answered, or did not, goes into the controller's inbox.
Which points are missing is told to the log when it changes, not at every poll.

Now and then, when nothing else waits, it is asked for more, to see whether it can be
believed. That may take long on a slow device, and a lowering command must not wait for
it: it is left alone in the middle, and what was asked of it is asked again later.

What only a recognised device shows (that its profile has no such point, or no such
command) is an absence like others: the controller goes on with what there is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from broker.effects import Event, Level, event
from drivers.device import Device
from drivers.errors import DeviceError, ProfileError
from drivers.profile import Candidate, Profile
from drivers.reading import Absence, Executed, Missing, Reading, Snapshot
from firmware_py.controller import DeviceRead
from firmware_py.limiter import Command, CommandDone
from firmware_py.survey import Survey, only_one_member

T = TypeVar("T")

COMMANDS_WAITING_MAX = 256  # above it the oldest is reported as never sent
NAMES_SHOWN_MAX = 3  # of missing points, in one line of the log
MEMBERS_AGAIN_S_MIN = 30.0  # after the members could not be counted; doubling
MEMBERS_AGAIN_S_MAX = 600.0


class Poller:
    """The task of one device. `names` are the points that this rack needs."""

    def __init__(
        self,
        name: str,
        device: Device,
        names: Sequence[str],
        *,
        poll_s: float,
        candidates: Callable[[], Sequence[Candidate]],
        clock: Callable[[], float],
        put: Callable[[DeviceRead | CommandDone], None],
        say: Callable[[Event], None],
    ) -> None:
        self.name = name
        self._device = device
        self._names = tuple(names)
        self._poll_s = poll_s
        self._candidates = candidates
        self._clock = clock
        self._put = put
        self._say = say
        self._missing: frozenset[tuple[str, Absence]] = frozenset()
        self._commands: deque[Command] = deque()
        self._called = asyncio.Event()
        self._poll_at_s = clock()
        self._survey = Survey(name)
        self._aside: asyncio.Task[Any] | None = None
        self._knows_members = False
        self._members_at_s = clock()
        self._members_again_s = MEMBERS_AGAIN_S_MIN

    def submit(self, command: Command) -> None:
        """Queue a command; a lowering one overtakes and drops the raises that wait, and
        ends what is asked for no reading's sake."""
        if not command.raises:
            for waiting in [c for c in self._commands if c.raises]:
                self._drop(waiting)
            if self._aside is not None:
                self._aside.cancel()
        if len(self._commands) >= COMMANDS_WAITING_MAX:
            self._drop(self._commands[0])
        self._commands.append(command)
        self._called.set()

    def poll_now(self) -> None:
        """Poll before the period is over."""
        self._poll_at_s = self._clock()
        self._called.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._commands:
                await self._execute(self._commands.popleft())
            elif self._clock() >= self._poll_at_s:
                self._poll_at_s = self._clock() + self._poll_s
                await self.poll()
            elif not await self._look_closer():
                await self._pause()

    async def poll(self) -> None:
        """One round of the device, into the inbox."""
        profile = self._device.profile or await self._recognise()
        if profile is None:
            return
        lacking = _lacking(profile, self._names)
        names = [name for name in self._names if name not in lacking]
        begun_at_s = self._clock()
        read = Snapshot(begun_at_s, begun_at_s, {})
        if names:
            read = await self._device.read(names)
        self._tell(Snapshot(read.asked_at_s, read.taken_at_s, {**read.points, **lacking}))

    async def _look_closer(self) -> bool:
        """A little of what shows whether the device can be believed; False if not now."""
        profile = self._device.profile
        if profile is None or any(absence is Absence.TIMEOUT for _, absence in self._missing):
            return False  # it has troubles enough
        if not self._knows_members and self._clock() >= self._members_at_s:
            await self._count_members()
            return True
        names = self._survey.names_to_ask(profile, self._clock())
        if not names:
            return False
        snapshot = await self._unless_called(self._device.read(names))
        for told in self._survey.see(snapshot) if snapshot else ():
            self._say(told)
        return True

    async def _count_members(self) -> None:
        if self._device.member:
            self._knows_members = True
            return
        try:
            members = await self._unless_called(self._device.members())
        except DeviceError:
            self._members_at_s = self._clock() + self._members_again_s
            self._members_again_s = min(2 * self._members_again_s, MEMBERS_AGAIN_S_MAX)
            return
        if members is None:
            return
        if len(members) > 1:
            self._say(only_one_member(self.name, members, self._device.url))
        self._knows_members = True

    async def _unless_called(self, asking: Coroutine[Any, Any, T]) -> T | None:
        """What comes of `asking`; None if a lowering command came first."""
        aside = self._aside = asyncio.ensure_future(asking)
        try:
            await asyncio.wait([aside])
        finally:
            self._aside = None
            aside.cancel()
        return None if aside.cancelled() else aside.result()

    async def _execute(self, command: Command) -> None:
        begun_at_s = self._clock()
        try:
            executed = await self._device.execute(command.name, command.value)
        except ProfileError as error:
            executed = Executed(command.name, command.value, begun_at_s, self._clock(),
                                Absence.ABSENT, str(error), None)  # fmt: skip
        self._put(CommandDone(command.id, executed, executed.done_at_s))

    async def _recognise(self) -> Profile | None:
        try:
            return await self._device.recognise(self._candidates())
        except (DeviceError, ProfileError) as error:
            absence = error.absence if isinstance(error, DeviceError) else Absence.ABSENT
            now_s = self._clock()
            missing = {name: Missing(name, absence, str(error)) for name in self._names}
            self._tell(Snapshot(now_s, now_s, missing))
            return None

    def _tell(self, snapshot: Snapshot) -> None:
        missing = [point for point in snapshot.points.values() if isinstance(point, Missing)]
        now_missing = frozenset((point.name, point.absence) for point in missing)
        if now_missing != self._missing:
            self._missing = now_missing
            self._say(_missing_event(self.name, missing))
        self._put(DeviceRead(self.name, snapshot))

    async def _pause(self) -> None:
        self._called.clear()
        try:
            async with asyncio.timeout(max(0.0, self._poll_at_s - self._clock())):
                await self._called.wait()
        except TimeoutError:
            return

    def _drop(self, command: Command) -> None:
        self._commands.remove(command)
        self._put(CommandDone(command.id, None, self._clock()))


def _lacking(profile: Profile, names: Sequence[str]) -> dict[str, Reading | Missing]:
    """Of `names`, those of which the profile knows nothing."""
    known = {point.name for point in profile.points}
    text = f"profile {profile.name} has no such point: 'wattbroker profiles show {profile.name}'"
    return {name: Missing(name, Absence.ABSENT, text) for name in names if name not in known}


def _missing_event(device: str, missing: Sequence[Missing]) -> Event:
    if not missing:
        return event(Level.INFO, "device gives all its values again", device=device)
    names = ", ".join(point.name for point in missing[:NAMES_SHOWN_MAX])
    more = len(missing) - NAMES_SHOWN_MAX
    return event(
        Level.WARNING,
        "device gives no value",
        device=device,
        points=names + (f" and {more} more" if more > 0 else ""),
        reason=missing[0].absence.value,
        detail=missing[0].detail,
    )
