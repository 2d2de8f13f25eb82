"""One device, one task: polls on its own period, commands as they come.

A device is asked one thing at a time. Commands go before polls; a lowering command
drops the raises that still wait, and says so, so that nothing that was overtaken is
written later. What the device answered, or did not, goes into the controller's inbox.
Which points are missing is told to the log when it changes, not at every poll. Now and
then, when nothing else waits, it is asked for more, to see whether it can be believed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from broker.effects import Event, Level, event
from drivers.device import Device
from drivers.errors import DeviceError, ProfileError
from drivers.profile import Candidate
from drivers.reading import Absence, Missing, Snapshot
from firmware_py.controller import DeviceRead
from firmware_py.limiter import Command, CommandDone
from firmware_py.survey import Survey, only_one_member

COMMANDS_WAITING_MAX = 256  # above it the oldest is reported as never sent
NAMES_SHOWN_MAX = 3  # of missing points, in one line of the log


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
        self._knows_members = False

    def submit(self, command: Command) -> None:
        """Queue a command; a lowering one overtakes and drops the raises that wait."""
        if not command.raises:
            for waiting in [c for c in self._commands if c.raises]:
                self._drop(waiting)
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
        if self._device.profile is None and not await self._recognise():
            return
        self._tell(await self._device.read(self._names))

    async def _look_closer(self) -> bool:
        """A little of what shows whether the device can be believed; False if not now."""
        profile = self._device.profile
        if profile is None or self._missing:
            return False  # it has troubles enough
        if not self._knows_members:
            await self._count_members()
        names = self._survey.names_to_ask(profile, self._clock())
        if not names:
            return False
        for told in self._survey.see(await self._device.read(names)):
            self._say(told)
        return True

    async def _count_members(self) -> None:
        if not self._device.member:
            try:
                members = await self._device.members()
            except DeviceError:
                return
            if len(members) > 1:
                self._say(only_one_member(self.name, members, self._device.url))
        self._knows_members = True

    async def _execute(self, command: Command) -> None:
        executed = await self._device.execute(command.name, command.value)
        self._put(CommandDone(command.id, executed, executed.done_at_s))

    async def _recognise(self) -> bool:
        try:
            self._device.profile = await self._device.recognise(self._candidates())
        except (DeviceError, ProfileError) as error:
            absence = error.absence if isinstance(error, DeviceError) else Absence.ABSENT
            now_s = self._clock()
            missing = {name: Missing(name, absence, str(error)) for name in self._names}
            self._tell(Snapshot(now_s, now_s, missing))
            return False
        return True

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
