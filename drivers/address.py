"""Device URLs: where a device is, and with which secret it is asked.

    snmp://COMMUNITY@host:port      v2c; port 161 and community "public" if left out
    snmp1://COMMUNITY@host:port     v1
    snmp3://USER@host:port?auth=SHA256&authkey=env:NAME&priv=AES&privkey=env:NAME
    modbus://host:port/unit         TCP; port 502 and unit 1 if left out

A community or key may be `env:NAME`, so that a site file holds no secret. Pure: the
environment is an argument, and nothing is resolved or connected. What is printed of
an address never holds a community or a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from drivers.errors import ProfileError
from drivers.secret import Secret

SCHEMES = "snmp://, snmp1://, snmp3://, modbus://"

# RFC 7860 and RFC 3826 names, as net-snmp spells them.
AUTH_PROTOCOLS = ("MD5", "SHA", "SHA224", "SHA256", "SHA384", "SHA512")
PRIV_PROTOCOLS = ("DES", "AES", "AES192", "AES256")


@dataclass(frozen=True, slots=True)
class SnmpAddress:
    """An SNMP agent. `version` is 1, 2 (v2c) or 3; `printed` is safe to show."""

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


@dataclass(frozen=True, slots=True)
class ModbusAddress:
    """A Modbus TCP server and the unit behind it."""

    host: str
    port: int
    unit: int
    printed: str


def parse_url(
    url: str, environ: Mapping[str, str], community: Secret | None = None
) -> SnmpAddress | ModbusAddress:
    """The address in `url`; ProfileError with remedy if it is none.

    `community` (from a file, say) replaces the one in the URL.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in ("snmp", "snmp1", "snmp3"):
        return _snmp(url, scheme, environ, community)
    if scheme == "modbus":
        return _modbus(url)
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
    if urlsplit(url).path not in ("", "/"):
        raise ProfileError(f"{where}: nothing may follow the port of an SNMP URL")
    if version != 3:
        if query:
            raise ProfileError(f"{where}: keys after '?' belong to snmp3:// only")
        told = community or Secret(_from_environ(user_info or "public", environ, where))
        return SnmpAddress(host, port, version, told, "", "", None, "", None, where)
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
    return SnmpAddress(host, port, 3, Secret(""), user_info, auth, auth_key, priv, priv_key, where)


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


def _modbus(url: str) -> ModbusAddress:
    host, port, explicit = _host_and_port(url, 502)
    path = urlsplit(url).path
    where = _printed("modbus", host, port, explicit) + path
    unit_text = path.removeprefix("/")
    if urlsplit(url).query or "@" in urlsplit(url).netloc:
        raise ProfileError(f"{where}: a Modbus URL is modbus://host:port/unit and no more")
    # 0 is broadcast (nobody answers); 248..255 are reserved, but power shelves use them.
    if unit_text and not (unit_text.isdecimal() and 1 <= int(unit_text) <= 255):
        raise ProfileError(f"{where}: unit {unit_text!r} is not a number from 1 to 255")
    return ModbusAddress(host, port, int(unit_text or 1), where)


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
