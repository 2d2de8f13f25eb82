"""The first round of `discover`: a knock at every address that was named.

One SNMP request for the sysObjectID, with each community, repeated once if there is no
answer; one TCP connection to the Modbus port, which is closed again. Each waits for its
turn, so that there are never more in a second than the operator allowed.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from drivers.address import ModbusAddress, SnmpAddress, parse_url
from drivers.profile import SYS_OBJECT_ID
from drivers.reading import Absence, NoAnswer
from drivers.secret import Secret
from drivers.snmp import SnmpAgent, Temper
from firmware_py import clock
from firmware_py.secrets_named import Named, without_secrets
from firmware_py.targets import Host, Targets, host_of

SNMP_TRIES = 2


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked, and how."""

    targets: Targets
    secrets: Named
    snmp1: bool
    snmp_port: int
    modbus_port: int
    units: tuple[int, ...]
    rate_per_s: float
    timeout_s: float
    folders: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Lead:
    """A place where something answered. `url` is what is opened, `site_url` what may be
    written down; `is_named`: not only its address was given."""

    host: str
    is_named: bool
    url: str
    site_url: str
    community: Secret | None = None

    @property
    def printed(self) -> str:
        """Without a user, a community or a key."""
        parts = urlsplit(self.site_url)
        if not parts.scheme.startswith("snmp"):
            return self.site_url
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


class Pace:
    """Turns that are never closer together than the rate allows."""

    def __init__(self, rate_per_s: float) -> None:
        self._gap_s = 1.0 / rate_per_s
        self._next_s = 0.0

    async def turn(self) -> None:
        now_s = clock.now_s()
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._gap_s
        await asyncio.sleep(at_s - now_s)


async def knock(host: Host, wishes: Wishes, pace: Pace) -> list[Lead]:
    """What answers at `host`; OSError if no machine has that name."""
    await asyncio.get_running_loop().getaddrinfo(host.name, None)
    by_snmp = await _knock_snmp(host, wishes, pace)
    return [*by_snmp, *await _knock_modbus(host, wishes, pace)]


def lead_of(url: str, wishes: Wishes) -> Lead:
    """A URL that was given whole; its secrets are named."""
    address = parse_url(url, os.environ)
    host = host_of(address)
    if isinstance(address, ModbusAddress):
        return Lead(host, True, url, url)
    return Lead(host, True, url, without_secrets(url, wishes.secrets.names))


async def _knock_snmp(host: Host, wishes: Wishes, pace: Pace) -> list[Lead]:
    """The first version and community that is answered."""
    port = host.port or wishes.snmp_port
    where = host.in_url if port == 161 else f"{host.in_url}:{port}"
    schemes = ("snmp", "snmp1") if wishes.snmp1 else ("snmp",)
    for scheme in schemes:
        for community in wishes.secrets.communities:
            url = f"{scheme}://{where}"
            address = parse_url(url, os.environ, community)
            assert isinstance(address, SnmpAddress)
            if await _answers(address, wishes.timeout_s, pace):
                named = wishes.secrets.names[community]
                site_url = f"{scheme}://{named}@{where}"
                return [Lead(host.name, host.port is not None, url, site_url, community)]
    return []


async def _answers(address: SnmpAddress, timeout_s: float, pace: Pace) -> bool:
    """Whether the agent says anything at all to one object."""
    agent = SnmpAgent(address, clock.now_s)
    temper = Temper(timeout_s, timeout_s, oids_per_get_max=1, repetitions_max=0)
    try:
        for _ in range(SNMP_TRIES):
            await pace.turn()
            raw = (await agent.fetch([SYS_OBJECT_ID], temper=temper))[SYS_OBJECT_ID].raw
            if not (isinstance(raw, NoAnswer) and raw.absence is Absence.TIMEOUT):
                return True
    finally:
        await agent.close()
    return False


async def _knock_modbus(host: Host, wishes: Wishes, pace: Pace) -> list[Lead]:
    port = host.port or wishes.modbus_port
    await pace.turn()
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.name, port), wishes.timeout_s
        )
    except (OSError, TimeoutError):
        return []
    writer.close()
    with suppress(OSError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), wishes.timeout_s)
    where = host.in_url if port == 502 else f"{host.in_url}:{port}"
    urls = [f"modbus://{where}/{unit}" for unit in wishes.units]
    return [Lead(host.name, host.port is not None, url, url) for url in urls]
