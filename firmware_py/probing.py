"""`wattbroker probe`: what a device says, once or again and again, whoever it is.

Behind one URL there is a device, or an agent with several (a chain of PDUs): where the
URL names no member, every member is a device of its own and is shown as one. What is
wrong in itself (`drivers.quality`) is told beside the values, never instead of them.

A value's age counts from the asking: it is no older than that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from drivers.address import SnmpAddress, parse_url
from drivers.device import Device, open_device, probe_json
from drivers.errors import DeviceError, ProfileError
from drivers.profile import Profile, candidates
from drivers.quality import Finding, Watch, check_snapshot
from drivers.reading import Absence, Identity, Missing, Snapshot
from firmware_py import clock

PERIOD_S_MIN = 1.0
NOT_EVERY = (
    "Some devices are silent when asked for what they do not know: name the profile with --profile"
)
ANOTHER_CONTACT_S = 5.0  # while it is not known who is there


class Unanswered(Exception):
    """Nothing at all came back; the text says what to check."""


class Unrecognised(Exception):
    """A Modbus device that no profile recognises; the text says what is known."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one device (or member) said in one round, read at `now_s`."""

    url: str
    profile: Profile
    identity: Identity
    snapshot: Snapshot
    findings: tuple[Finding, ...]
    now_s: float

    def json(self) -> dict[str, Any]:
        """As `probe --json` prints it."""
        found = probe_json(self.url, self.profile, self.identity, self.snapshot, self.now_s)
        if not self.profile.metered:
            found["device"]["metered"] = False
        if self.findings:
            found["warnings"] = [
                {"kind": f.kind, "points": list(f.names), "text": f.text} for f in self.findings
            ]
        return found


def aged(told: Told) -> Told:
    """What was said then, with the age that it has now."""
    return replace(told, now_s=clock.now_s())


def round_json(told: Sequence[Told]) -> dict[str, Any]:
    """One round: the first device, and all of them where there are several."""
    found = [each.json() for each in told]
    return found[0] | ({"members": found} if len(found) > 1 else {})


class Probe:
    """Everything behind one URL. `url` is what the operator typed and is never printed."""

    def __init__(self, url: str, profile: Profile | None, folders: Sequence[Path]) -> None:
        self._url = url
        self._folders = folders
        self._profile = profile
        self._first = open_device(url, profile, clock=clock.now_s)
        self._devices: list[Device] = []
        self._identities: dict[str, Identity] = {}
        self._watches: dict[str, Watch] = {}
        self.printed = self._first.url

    @property
    def period_s(self) -> float:
        """How often the device may be asked."""
        limits = self._profile.limits if self._profile else None
        return max(PERIOD_S_MIN, limits.poll_interval_ms_min / 1000 if limits else 0.0)

    async def find(self) -> None:
        """Who is there: its profile and its members.

        ProfileError: no profile can be used. Unrecognised: a Modbus device that does not
        say what it is. DeviceError: no answer.
        """
        if self._profile is None:
            self._profile = await self._recognised()
        names = await self._members()
        if len(names) < 2:
            self._devices = [self._first]
            return
        urls = [of_member(self._url, name) for name in names]
        self._devices = [open_device(url, self._profile, clock=clock.now_s) for url in urls]

    async def read(self) -> list[Told]:
        """One round. Unanswered: nothing was said.

        Once an agent falls silent, its further members are not asked in this round.
        """
        if not self._devices:
            await self.find()
        told: list[Told] = []
        silence: Snapshot | None = None
        for device in self._devices:
            snapshot = silence or await device.read()
            why = _silence(device, snapshot)
            if why is not None and not told:
                raise Unanswered(why)
            silence = snapshot if why is not None else None
            told.append(await self._told(device, snapshot, is_silent=why is not None))
        return told

    async def rounds(
        self, period_s: float | None, count: int | None
    ) -> AsyncIterator[list[Told] | str]:
        """`count` rounds (None: for ever), one each `period_s`; a text where none answered."""
        done = 0
        while count is None or done < count:
            begun_s = clock.now_s()
            try:
                yield await self.read()
            except (DeviceError, Unanswered) as error:
                yield str(error)
            done += 1
            if done != count:
                waits_s = period_s or (self.period_s if self._devices else ANOTHER_CONTACT_S)
                await asyncio.sleep(max(0.0, begun_s + waits_s - clock.now_s()))

    async def close(self) -> None:
        for device in {self._first, *self._devices}:
            await device.close()

    async def _recognised(self) -> Profile:
        every = candidates(self._folders)
        if isinstance(parse_url(self._url, os.environ), SnmpAddress):
            return await self._first.recognise(every)
        try:
            return await self._first.recognise(every)
        except ProfileError as error:
            raise Unrecognised(str(error)) from None
        except DeviceError as error:
            text = _what_to_check(str(error))
            more = "" if "no connection" in text else f". {NOT_EVERY}"
            raise DeviceError(error.absence, text + more) from None

    async def _members(self) -> list[str]:
        """The members that are to be shown; none where the URL or the profile names one."""
        assert self._profile is not None
        if self._profile.members is None or urlsplit(self._url).path not in ("", "/"):
            return []
        names = await self._first.members()
        first = self._profile.members.first
        return sorted(names, key=lambda name: name != first)  # what the URL alone means

    async def _told(self, device: Device, snapshot: Snapshot, *, is_silent: bool) -> Told:
        """The snapshot with who the device is and what is wrong in itself."""
        assert self._profile is not None
        if is_silent:
            nobody = self._identities.get(device.url) or Identity(self._profile.vendor, None, None)
            return Told(device.url, self._profile, nobody, snapshot, (), clock.now_s())
        watch, stuck = self._watches.get(device.url, Watch()).see(snapshot)
        self._watches[device.url] = watch
        findings = (*check_snapshot(snapshot.points), *stuck)
        identity = await self._identity(device)
        return Told(device.url, self._profile, identity, snapshot, findings, clock.now_s())

    async def _identity(self, device: Device) -> Identity:
        if device.url not in self._identities:
            try:
                self._identities[device.url] = await device.identify()
            except DeviceError:  # it answered a moment ago: asked again in the next round
                assert self._profile is not None
                return Identity(self._profile.vendor, None, None)
        return self._identities[device.url]


def of_member(url: str, member: str) -> str:
    """The URL of one member of the chain at `url`."""
    return urlunsplit(urlsplit(url)._replace(path="/" + quote(member, safe="")))


def _silence(device: Device, snapshot: Snapshot) -> str | None:
    """What to check, if no point has got any answer."""
    points = snapshot.points.values()
    silent = [p for p in points if isinstance(p, Missing) and p.absence is Absence.TIMEOUT]
    if not points or len(silent) < len(points):
        return None
    detail = silent[0].detail or "no answer"
    known = detail.startswith(device.url)  # who could not be reached is said mostly
    return _what_to_check(detail if known else f"{device.url}: {detail}")


def _what_to_check(text: str) -> str:
    return text if "check" in text else f"{text}; check address, port and unit"
