"""`wattbroker discover`: who is there, asked politely.

Only what it was given is asked, in two rounds. First a knock at every address: one SNMP
request for the sysObjectID (repeated once if there is no answer), one TCP connection to
the Modbus port. Then whoever answered is recognised, and read once. Never are there more
than `rate_per_s` requests a second in all, more than 64 hosts at a time, or more than one
request outstanding at a host. Modbus devices that do not say what they are are not
guessed.

What is found goes into a `Harvest` as it comes, so that an interrupted search has what
there is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from drivers.address import ModbusAddress, SnmpAddress, parse_url
from drivers.device import Device, open_device
from drivers.errors import DeviceError, ProfileError
from drivers.modbus import ModbusUnit
from drivers.profile import SYS_DESCR, SYS_OBJECT_ID, Profile, load_profile, profile_names
from drivers.reading import Absence, Answer, Identity, Missing, NoAnswer, Place
from drivers.recognition import recognise_agent, recognise_unit
from drivers.snmp import SnmpAgent, Temper
from firmware_py import clock
from firmware_py.discovered_site import Found, Unknown
from firmware_py.knocking import Lead, Pace, Wishes, knock, lead_of
from firmware_py.probing import of_member
from firmware_py.shown import number, shown
from firmware_py.targets import Host

SYS_NAME = "1.3.6.1.2.1.1.5.0"  # SNMPv2-MIB
HOSTS_MAX = 64
READERS_MAX = 8
PAUSE_S_MIN = 0.02  # some devices do not hear what comes sooner
READ_S_MAX = 120.0  # of a device that is read slowly because we ask slowly
SNMP_TRIES = 2
PROGRESS_S = 2.0
OBJECTS_OF_43_14 = {0: "vendor", 1: "product", 2: "revision"}

WHAT_TO_DO_SNMP = (
    "no profile knows it; if it is a PDU or a meter, add one: docs/add-a-device.md"
)  # fmt: skip
WHAT_TO_DO_MODBUS = "it does not say what it is; wattbroker probe {url} lists what it could be"

T = TypeVar("T")


@dataclass(slots=True)
class Harvest:
    """What was found so far."""

    found: list[Found] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    leads: list[Lead] = field(default_factory=list)  # whom nobody has asked yet who it is
    asked: int = 0

    def interrupt(self) -> None:
        """What answered and was not looked at becomes something unknown."""
        for lead in self.leads:
            url = lead.printed
            advice = f"it answers; there was no time to ask what it is: wattbroker probe {url}"
            self.unknown.append(Unknown(url, {}, advice))
        self.leads.clear()

    def json(self) -> dict[str, Any]:
        """As `discover --json` prints it."""
        found = [
            {
                "url": each.url,
                "name": each.called,
                "member": each.member,
                "profile": each.profile.name,
                "vendor": each.identity.vendor,
                "model": each.identity.model,
                "serial": each.identity.serial,
                "realpower_w": each.watts,
            }
            for each in self.found
        ]
        unknown = [
            {"url": each.url, "said": dict(each.said), "advice": each.advice}
            for each in self.unknown
        ]
        return {"found": found, "unknown": unknown, "asked": self.asked}


Tell = Callable[[str], None]


async def discover(wishes: Wishes, harvest: Harvest, tell: Tell) -> None:
    """Fills `harvest`; may be cancelled at any time."""
    profiles = [load_profile(name, wishes.folders) for name in profile_names(wishes.folders)]
    await _knock_at_all(wishes, harvest, tell)
    named = [lead_of(url, wishes) for url in wishes.targets.urls]
    each_once = {lead.printed: lead for lead in (*harvest.leads, *named)}
    harvest.leads[:] = each_once.values()
    harvest.asked += len(named)
    by_host: dict[str, list[Lead]] = {}
    for lead in harvest.leads:
        by_host.setdefault(lead.host, []).append(lead)
    hosts = list(by_host.values())
    reader = _Reader(wishes, profiles, harvest, tell, hosts_left=len(hosts))
    await _in_parallel(hosts, reader.read_host, READERS_MAX)


# ── the first round: a knock ──────────────────────────────────────────────────────


async def _knock_at_all(wishes: Wishes, harvest: Harvest, tell: Tell) -> None:
    pace = Pace(wishes.rate_per_s)
    hosts = wishes.targets.hosts
    told_at_s = clock.now_s()

    async def at(host: Host) -> None:
        nonlocal told_at_s
        try:
            harvest.leads.extend(await knock(host, wishes, pace))
        except OSError:
            tell(f"{host.name}: no machine has this name")
        harvest.asked += 1
        if clock.now_s() - told_at_s >= PROGRESS_S:
            told_at_s = clock.now_s()
            tell(f"asked {harvest.asked} of {len(hosts)} addresses")

    await _in_parallel(hosts, at, HOSTS_MAX)


# ── the second round: who they are ────────────────────────────────────────────────


class _GentleAgent(SnmpAgent):
    """An agent that is asked slowly, whoever asks."""

    def __init__(self, address: SnmpAddress, pause_s: float, timeout_s: float) -> None:
        super().__init__(address, clock.now_s)
        self._pause_s = pause_s
        self._timeout_s = timeout_s

    async def fetch(self, oids: Sequence[str], *, temper: Temper) -> dict[Place, Answer]:
        return await super().fetch(oids, temper=self._gentle(temper))

    async def below(
        self, prefixes: Sequence[str], *, temper: Temper
    ) -> dict[str, tuple[str, Answer] | NoAnswer]:
        return await super().below(prefixes, temper=self._gentle(temper))

    def _gentle(self, temper: Temper) -> Temper:
        return replace(
            temper, pause_s=self._pause_s, timeout_s=self._timeout_s, read_s_max=READ_S_MAX
        )


@dataclass(slots=True)
class _Reader:
    """Recognises and reads, with a pause after every answer.

    All who read share the rate. Their number only falls, so a pause that was reckoned
    when there were more of them is long enough.
    """

    wishes: Wishes
    profiles: Sequence[Profile]
    harvest: Harvest
    tell: Tell
    hosts_left: int

    @property
    def pause_s(self) -> float:
        return max(PAUSE_S_MIN, min(READERS_MAX, self.hosts_left) / self.wishes.rate_per_s)

    async def read_host(self, leads: Sequence[Lead]) -> None:
        """Everything at one host."""
        try:
            await self._read_leads(leads)
        finally:
            self.hosts_left -= 1

    async def _read_leads(self, leads: Sequence[Lead]) -> None:
        """A Modbus port behind which no unit answers is told once."""
        silent: list[Lead] = []
        for lead in leads:
            await asyncio.sleep(self.pause_s)
            try:
                await self._read_lead(lead)
            except ProfileError as error:
                self._unknown(Unknown(lead.printed, {}, str(error)))
            except DeviceError as error:
                if lead.url in self.wishes.targets.urls:
                    self.tell(str(error))
                elif lead.url.startswith("modbus"):
                    silent.append(lead)
                else:
                    advice = f"it answers, but not for long: {error}"
                    self._unknown(Unknown(lead.printed, {}, advice))
            self.harvest.leads.remove(lead)
        if silent and len(silent) == sum(lead.url.startswith("modbus") for lead in leads):
            units = ", ".join(lead.url.rpartition("/")[2] for lead in silent)
            advice = f"the port is open, but no unit answers (asked: {units}); see --units"
            self._unknown(Unknown(silent[0].url.rpartition("/")[0], {}, advice))

    async def _read_lead(self, lead: Lead) -> None:
        address = parse_url(lead.url, os.environ, lead.community)
        if isinstance(address, SnmpAddress):
            await self._read_snmp(lead, address)
        else:
            await self._read_modbus(lead, address)

    async def _read_snmp(self, lead: Lead, address: SnmpAddress) -> None:
        agent = _GentleAgent(address, self.pause_s, self.wishes.timeout_s)
        try:
            said = await _says(agent)
            try:
                profile = await recognise_agent(agent, address.printed, self.profiles)
            except ProfileError as error:
                several = "several profiles fit" in str(error)
                advice = str(error) if several else WHAT_TO_DO_SNMP
                self._unknown(Unknown(lead.printed, said, advice))
                return
            await self._read_members(lead, profile, said.get("sysName", ""))
        finally:
            await agent.close()

    async def _read_members(self, lead: Lead, profile: Profile, called: str) -> None:
        gentle = self._gentle(profile)
        first = open_device(lead.url, gentle, clock=clock.now_s, community=lead.community)
        try:
            named = urlsplit(lead.url).path.strip("/")
            members = [] if profile.members is None or named else await first.members()
            if len(members) < 2:
                await self._read_device(lead, first, profile, called, named)
        finally:
            await first.close()
        for member in members if len(members) > 1 else ():
            own = replace(lead, url=of_member(lead.url, member),
                          site_url=of_member(lead.site_url, member))  # fmt: skip
            device = open_device(own.url, gentle, clock=clock.now_s, community=lead.community)
            try:
                await self._read_device(own, device, profile, called, member)
            finally:
                await device.close()

    async def _read_modbus(self, lead: Lead, address: ModbusAddress) -> None:
        unit = ModbusUnit(address, clock.now_s, pause_s=self.pause_s)
        timeout_s = self.wishes.timeout_s
        try:
            try:
                profile = await recognise_unit(
                    unit, address.printed, self.profiles, timeout_s=timeout_s
                )
            except ProfileError as error:
                told = await unit.identification(timeout_s=timeout_s)
                said = {} if isinstance(told, NoAnswer) else {
                    label: told[n] for n, label in OBJECTS_OF_43_14.items() if n in told
                }  # fmt: skip
                several = "several profiles fit" in str(error)
                advice = str(error) if several else WHAT_TO_DO_MODBUS.format(url=lead.url)
                self._unknown(Unknown(lead.printed, said, advice))
                return
            device = open_device(lead.url, self._gentle(profile), clock=clock.now_s)
            try:
                await self._read_device(lead, device, profile, "", "")
            finally:
                await device.close()
        finally:
            await unit.close()

    async def _read_device(
        self, lead: Lead, device: Device, profile: Profile, called: str, member: str
    ) -> None:
        snapshot = await device.read(wanted_points(profile))
        points = snapshot.points
        silent = [p for p in points.values() if isinstance(p, Missing)
                  and p.absence is Absence.TIMEOUT]  # fmt: skip
        if points and len(silent) == len(points):
            raise DeviceError(Absence.TIMEOUT, silent[0].detail)
        try:
            identity = await device.identify()
        except DeviceError:
            identity = Identity(profile.vendor, None, None)
        found = Found(
            lead.host, lead.is_named, lead.site_url, member, called, profile, identity, points
        )
        self.harvest.found.append(found)
        watts = "" if found.watts is None else f", {number(round(found.watts, 1))} W"
        self.tell(f"{device.url}: {found.what} ({profile.name}){watts}")

    def _unknown(self, unknown: Unknown) -> None:
        self.harvest.unknown.append(unknown)
        said = ", ".join(shown(text) for text in unknown.said.values())
        self.tell(f"{unknown.url}: not known{': ' + said if said else ''}")

    def _gentle(self, profile: Profile) -> Profile:
        """The profile with our pauses; all else as the device wants it."""
        limits = profile.limits
        pause_ms = max(limits.pause_between_requests_ms, round(1000 * self.pause_s))
        read_ms_max = max(limits.read_ms_max, round(1000 * READ_S_MAX))
        slower = replace(limits, pause_between_requests_ms=pause_ms, read_ms_max=read_ms_max)
        return replace(profile, limits=slower)


def wanted_points(profile: Profile) -> list[str]:
    """What a site file is written from: the total, the ratings, and where the device has
    outlets that can be switched, which there are."""
    switches = any(command.name.endswith(".load") for command in profile.commands)
    return [point.name for point in profile.points if _is_wanted(point.name, switches)]


def _is_wanted(name: str, switches: bool) -> bool:
    first, last = name.split(".")[0], name.rpartition(".")[2]
    if first in ("input", "inlet"):
        return name == "input.realpower" or last in ("rating", "voltage")
    return switches and first == "outlet" and last in ("name", "status", "realpower")


async def _says(agent: SnmpAgent) -> dict[str, str]:
    """What the agent's system group says, as far as it does."""
    temper = Temper(2.0, 10.0, oids_per_get_max=3, repetitions_max=0)
    objects = {"sysDescr": SYS_DESCR, "sysObjectID": SYS_OBJECT_ID, "sysName": SYS_NAME}
    answers = await agent.fetch(list(objects.values()), temper=temper)
    said = {}
    for label, oid in objects.items():
        raw = answers[oid].raw
        if isinstance(raw, NoAnswer):
            continue
        said[label] = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    return said


async def _in_parallel(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], workers: int
) -> None:
    """`work` on every item, so many at a time."""
    pending = iter(items)

    async def worker() -> None:
        for item in pending:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())
