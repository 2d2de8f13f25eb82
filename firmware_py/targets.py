"""What `wattbroker discover` was told to ask, and nothing else.

A target is a network (192.0.2.0/28), a host, a host and port, or a device URL. Networks
are counted before they are spelled out: 2^64 addresses are refused, not tried. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivers.address import ModbusAddress, SnmpAddress, parse_url
from drivers.errors import ProfileError

ADDRESSES_MAX = 1024
MANY_MAX = 65_536  # with the operator's word

UNITS_MAX = 32

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_HOST_AND_PORT = re.compile(r"(\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:]+)):(?P<port>\d{1,5})")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TargetError(Exception):
    """Targets that cannot be asked; every fault, a line each."""


@dataclass(frozen=True, slots=True)
class Host:
    """One address; `port` counts for both protocols, None: the usual ones."""

    name: str
    port: int | None = None

    @property
    def in_url(self) -> str:
        return f"[{self.name}]" if ":" in self.name else self.name


@dataclass(frozen=True, slots=True)
class Targets:
    """Each once, in the order given."""

    hosts: tuple[Host, ...]
    urls: tuple[str, ...]


def parse_targets(
    texts: Sequence[str], environ: Mapping[str, str], *, many: bool = False
) -> Targets:
    """The targets in `texts`; TargetError with every fault."""
    faults: list[str] = []
    parts: list[Network | Host] = []
    urls: dict[str, None] = {}
    for text in texts:
        try:
            if "://" in text:
                parse_url(text, environ)
                urls[text] = None
            else:
                parts.append(_part(text))
        except ProfileError as error:
            faults.extend(error.faults)
        except ValueError as error:
            faults.append(str(error))
    count = sum(1 if isinstance(part, Host) else part.num_addresses for part in parts)
    most = MANY_MAX if many else ADDRESSES_MAX
    if count > most:
        more = "" if many or count > MANY_MAX else "; --yes-many if all of them are meant"
        faults.append(f"{count} addresses are more than {most}{more}")
    if faults:
        raise TargetError("\n".join(faults))
    hosts: dict[Host, None] = {}
    for part in parts:
        if isinstance(part, Host):
            hosts[part] = None
        else:
            hosts.update((Host(str(address)), None) for address in part.hosts())
    return Targets(tuple(hosts), tuple(urls))


def parse_units(text: str) -> tuple[int, ...]:
    """`1`, `1,2,5` or `1-16`, in any mixture; ValueError with the reason."""
    units: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        numbers = (first, last) if dash else (first, first)
        if not all(number.isascii() and number.isdecimal() for number in numbers):
            raise ValueError(f"{part.strip()!r} is neither a unit nor a range of units, as 1-16")
        low, high = int(numbers[0]), int(numbers[1])
        if not 1 <= low <= high <= 255:
            raise ValueError(f"{part.strip()}: units are numbers from 1 to 255")
        units.update(dict.fromkeys(range(low, high + 1)))
    if len(units) > UNITS_MAX:
        raise ValueError(f"{len(units)} units are more than {UNITS_MAX}")
    return tuple(units)


def host_of(address: SnmpAddress | ModbusAddress) -> str:
    """The machine, or the serial port, that an address leads to."""
    return address.host or getattr(address, "path", "")


def _part(text: str) -> Network | Host:
    if "/" in text:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not a network, as 192.0.2.0/28") from None
        _refuse_many_at_once(network.network_address)
        return network
    found = _HOST_AND_PORT.fullmatch(text)
    name, port = (found["six"] or found["host"], int(found["port"])) if found else (text, None)
    try:
        address = ipaddress.ip_address(text if found is None else name)
    except ValueError:
        if not _HOST.fullmatch(name) or not _is_port(port):
            raise ValueError(
                f"{text!r} is not a network, a host, host:port or a device URL"
            ) from None
        return Host(name, port)
    if not _is_port(port):
        raise ValueError(f"{text!r}: ports are numbers from 1 to 65535")
    _refuse_many_at_once(address)
    return Host(str(address), port)


def _is_port(port: int | None) -> bool:
    return port is None or 1 <= port <= 65535


def _refuse_many_at_once(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise ValueError(f"{address} is not the address of one machine")
