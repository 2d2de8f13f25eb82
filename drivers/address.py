"""Device URLs: where a device is, and with which secret it is asked.

    snmp://COMMUNITY@host:port      v2c; port 161 and community "public" if left out
    snmp1://COMMUNITY@host:port     v1
    snmp3://USER@host:port?auth=SHA256&authkey=env:NAME&priv=AES&privkey=env:NAME
    snmp://COMMUNITY@host/MEMBER    one PDU of a chain behind one agent (every version)
    modbus://host:port/unit         TCP; port 502 and unit 1 if left out
    modbus+rtutcp://host:port/unit  RTU frames in a TCP connection; likewise
    modbus+rtu:///dev/ttyUSB0?unit=1&baud=9600&parity=N&stop=1
                                    RTU on a serial port; the defaults are these

A community or key may be `env:NAME`, so that a site file holds no secret. Pure: the
environment is an argument, and nothing is resolved or connected. What is printed of
an address never holds a community or a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from drivers.errors import ProfileError
from drivers.secret import Secret

SCHEMES = "snmp://, snmp1://, snmp3://, modbus://, modbus+rtutcp://, modbus+rtu://"

# RFC 7860 and RFC 3826 names, as net-snmp spells them.
AUTH_PROTOCOLS = ("MD5", "SHA", "SHA224", "SHA256", "SHA384", "SHA512")
PRIV_PROTOCOLS = ("DES", "AES", "AES192", "AES256")

# The standard's default is even parity; without parity it wants two stop bits, and most
# devices use one. RTU frames are 8-bit characters (Modbus over serial line 1.02, 2.5.1).
SERIAL_DEFAULTS = {"unit": "1", "baud": "9600", "parity": "N", "stop": "1", "data": "8"}
BAUD_MIN, BAUD_MAX = 300, 4_000_000

_MEMBER = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class SnmpAddress:
    """An SNMP agent. `version` is 1, 2 (v2c) or 3; `printed` is safe to show. `member`
    names one PDU of a chain behind the agent; "" is the agent itself."""

    host: str
    port: int
    version: int
    community: Secret
    user: str
    auth: str
    auth_key: Secret | None
    priv: str
    priv_key: Secret | None
    printed: str
    member: str = ""


@dataclass(frozen=True, slots=True)
class ModbusAddress:
    """A Modbus server, gateway or serial bus, and the unit behind it.

    `transport` is "tcp", "rtutcp" or "serial"; a serial one has no host and no port.
    """

    host: str
    port: int
    unit: int
    printed: str
    transport: str = "tcp"
    path: str = ""
    baud: int = 9600
    parity: str = "N"
    stop_bits: int = 1
    data_bits: int = 8


def parse_url(
    url: str, environ: Mapping[str, str], community: Secret | None = None
) -> SnmpAddress | ModbusAddress:
    """The address in `url`; ProfileError with remedy if it is none.

    `community` (from a file, say) replaces the one in the URL.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in ("snmp", "snmp1", "snmp3"):
        return _snmp(url, scheme, environ, community)
    if scheme in ("modbus", "modbus+rtutcp"):
        return _modbus(url, scheme)
    if scheme == "modbus+rtu":
        return _modbus_serial(url)
    raise ProfileError(
        f"{_shown(url)}: not a device URL; expected one of {SCHEMES},"
        " for example snmp://public@192.0.2.21 or modbus://192.0.2.31:502/1"
    )


def _snmp(
    url: str, scheme: str, environ: Mapping[str, str], community: Secret | None
) -> SnmpAddress:
    host, port, explicit = _host_and_port(url, 161)
    user_info = unquote(urlsplit(url).netloc.rpartition("@")[0])
    query = dict(parse_qsl(urlsplit(url).query))
    where = _printed(scheme, host, port, explicit)
    version = {"snmp1": 1, "snmp": 2, "snmp3": 3}[scheme]
    member = _member(url, where)
    where += f"/{member}" if member else ""
    if version != 3:
        if query:
            raise ProfileError(f"{where}: keys after '?' belong to snmp3:// only")
        told = community or Secret(_from_environ(user_info or "public", environ, where))
        return SnmpAddress(host, port, version, told, "", "", None, "", None, where, member)
    if not user_info:
        raise ProfileError(f"{where}: SNMPv3 needs a user: snmp3://USER@{host}")
    auth, auth_key = _protocol(query, "auth", AUTH_PROTOCOLS, environ, where)
    priv, priv_key = _protocol(query, "priv", PRIV_PROTOCOLS, environ, where)
    if query:
        raise ProfileError(
            f"{where}: unknown key {', '.join(sorted(query))};"
            " snmp3:// knows auth, authkey, priv and privkey"
        )
    if priv and not auth:
        raise ProfileError(f"{where}: priv= without auth=; SNMPv3 has no privacy alone")
    return SnmpAddress(
        host, port, 3, Secret(""), user_info, auth, auth_key, priv, priv_key, where, member
    )


def _member(url: str, where: str) -> str:
    path = urlsplit(url).path.removeprefix("/")
    member = unquote(path)
    if path and not _MEMBER.fullmatch(member):
        raise ProfileError(
            f"{where}: {member!r:.80} is no member of a chain; after the port there may stand"
            " one name of at most 64 letters, digits and - _ ."
        )
    return member


def _protocol(
    query: dict[str, str],
    key: str,
    known: tuple[str, ...],
    environ: Mapping[str, str],
    where: str,
) -> tuple[str, Secret | None]:
    """Takes `key` and its secret out of the query."""
    name, secret = query.pop(key, ""), query.pop(key + "key", "")
    if not name and not secret:
        return "", None
    if name not in known:
        raise ProfileError(f"{where}: {key}={name or '(missing)'}; one of {', '.join(known)}")
    if not secret:
        raise ProfileError(f"{where}: {key}={name} needs {key}key=env:NAME")
    text = _from_environ(secret, environ, where)
    if len(text) < 8:
        raise ProfileError(f"{where}: {key}key is shorter than the 8 characters of RFC 3414")
    return name, Secret(text)


def _modbus(url: str, scheme: str) -> ModbusAddress:
    host, port, explicit = _host_and_port(url, 502)
    path = urlsplit(url).path
    where = _printed(scheme, host, port, explicit) + path
    if urlsplit(url).query or "@" in urlsplit(url).netloc:
        raise ProfileError(f"{where}: a Modbus URL is {scheme}://host:port/unit and no more")
    transport = "tcp" if scheme == "modbus" else "rtutcp"
    unit = _unit(path.removeprefix("/") or "1", where)
    return ModbusAddress(host, port, unit, where, transport)


def _modbus_serial(url: str) -> ModbusAddress:
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ProfileError(f"{_shown(url)}: {error}") from None
    where = f"modbus+rtu://{parts.path}" + (f"?{parts.query}" if parts.query else "")
    path = unquote(parts.path)
    if parts.netloc or not path.strip("/"):
        raise ProfileError(
            f"{_shown(url)}: the path of a serial port is absolute, after three slashes:"
            " modbus+rtu:///dev/ttyUSB0?unit=1"
        )
    told = dict(pairs)
    unknown = sorted(set(told) - set(SERIAL_DEFAULTS))
    if unknown or len(told) != len(pairs):
        raise ProfileError(
            f"{where}: {'unknown key ' + ', '.join(unknown) if unknown else 'a key twice'};"
            f" modbus+rtu:// knows {', '.join(SERIAL_DEFAULTS)}"
        )
    told = SERIAL_DEFAULTS | told
    return ModbusAddress(
        "",
        0,
        _unit(told["unit"], where),
        where,
        "serial",
        path,
        _baud(told["baud"], where),
        _one_of(told["parity"].upper(), ("N", "E", "O"), "parity", where),
        int(_one_of(told["stop"], ("1", "2"), "stop", where)),
        int(_one_of(told["data"], ("8",), "data", where)),
    )


def _unit(text: str, where: str) -> int:
    # 0 is broadcast (nobody answers); 248..255 are reserved, but power shelves use them.
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 255):
        raise ProfileError(f"{where}: unit {text!r} is not a number from 1 to 255")
    return int(text)


def _baud(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal() and BAUD_MIN <= int(text) <= BAUD_MAX):
        raise ProfileError(
            f"{where}: baud={text or '(missing)'} is not a number from {BAUD_MIN} to {BAUD_MAX}"
        )
    return int(text)


def _one_of(text: str, known: tuple[str, ...], key: str, where: str) -> str:
    if text not in known:
        raise ProfileError(f"{where}: {key}={text or '(missing)'}; one of {', '.join(known)}")
    return text


def _host_and_port(url: str, default_port: int) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ProfileError(
            f"{_shown(url)}: {error}; an IPv6 address stands in brackets, [::1]"
        ) from None
    if not host:
        raise ProfileError(f"{_shown(url)}: no host in it")
    if port == 0:
        raise ProfileError(f"{_shown(url)}: port 0 is not a port")
    return host, port or default_port, port is not None


def _from_environ(text: str, environ: Mapping[str, str], where: str) -> str:
    if not text.startswith("env:"):
        return text
    name = text.removeprefix("env:")
    if name not in environ:
        raise ProfileError(f"{where}: the environment has no variable {name}")
    return environ[name]


def _printed(scheme: str, host: str, port: int, explicit: bool) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}" + (f":{port}" if explicit else "")


def _shown(url: str) -> str:
    """A URL that could not be parsed, without what might be a secret."""
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]
