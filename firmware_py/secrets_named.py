"""Communities and keys that `discover` was given, and what a site file calls them.

A site file is copied and shown around, so it holds `env:NAME` where a secret would stand.
"public" is none. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from drivers.errors import ProfileError
from drivers.secret import Secret

PUBLIC = "public"
VARIABLES = {"": "SNMP_COMMUNITY", "authkey": "SNMP_AUTHKEY", "privkey": "SNMP_PRIVKEY"}


@dataclass(frozen=True, slots=True)
class Named:
    """What is asked with, and the text that stands for each secret, by the secret."""

    communities: tuple[Secret, ...]
    names: Mapping[Secret, str]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of the environment that the controllers need."""
        named = dict.fromkeys(self.names.values())
        return tuple(name.removeprefix("env:") for name in named if name.startswith("env:"))


def name_secrets(
    communities: Sequence[str], urls: Sequence[str], environ: Mapping[str, str]
) -> Named:
    """Names for all of them; ProfileError if the environment lacks one that is named."""
    names: dict[Secret, str] = {}
    asked: dict[Secret, None] = {}
    for text in communities:
        secret = Secret(_from_environ(text, environ))
        asked[secret] = None
        names.setdefault(secret, _name(text, "", names))
    for url in urls:
        for key, text in _secrets_in(url):
            names.setdefault(Secret(text), _name(text, key, names))
    return Named(tuple(asked), names)


def without_secrets(url: str, names: Mapping[Secret, str]) -> str:
    """A device URL in which every secret has its name."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("snmp"):
        return url
    user, _, where = parts.netloc.rpartition("@")
    if parts.scheme != "snmp3":
        return urlunsplit(parts._replace(netloc=f"{names[Secret(user or PUBLIC)]}@{where}"))
    pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
    query = "&".join(
        f"{key}={names[Secret(value)] if key in VARIABLES else value}" for key, _, value in pairs
    )
    return urlunsplit(parts._replace(query=query))


def _secrets_in(url: str) -> Iterator[tuple[str, str]]:
    """(key of the URL, text) of everything secret; the community has no key."""
    parts = urlsplit(url)
    if parts.scheme in ("snmp", "snmp1"):
        yield "", parts.netloc.rpartition("@")[0] or PUBLIC
    elif parts.scheme == "snmp3":
        for pair in parts.query.split("&"):
            key, _, text = pair.partition("=")
            if key in VARIABLES:
                yield key, text


def _name(text: str, key: str, names: Mapping[Secret, str]) -> str:
    if text == PUBLIC or text.startswith("env:"):
        return text
    base, taken = f"env:{VARIABLES[key]}", set(names.values())
    if base not in taken:
        return base
    return next(name for n in range(2, len(taken) + 3) if (name := f"{base}_{n}") not in taken)


def _from_environ(text: str, environ: Mapping[str, str]) -> str:
    if not text.startswith("env:"):
        return text
    name = text.removeprefix("env:")
    if name not in environ:
        raise ProfileError(f"--community {text}: the environment has no variable {name}")
    return environ[name]
