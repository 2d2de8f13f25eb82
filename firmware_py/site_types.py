"""What a site file means: values in which every rule holds.

Defaults are filled in, paths are absolute, whole watts are ints, units are in the
names. The rest of the program sees only these; what was written stands in
`site_keys`.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from firmware_py.breakers import Curve
from firmware_py.site_keys import ActuatorKind, Market, Timing

__all__ = [
    "Actuator",
    "ActuatorKind",
    "Breaker",
    "Cap",
    "DeviceSpec",
    "Market",
    "Mqtt",
    "Outlet",
    "Rack",
    "Site",
    "Timing",
    "Tls",
]


class Value(Struct, frozen=True):
    """A resolved part of a site."""


class Tls(Value, frozen=True, kw_only=True):
    """Absolute paths; `cert` and `key` are both there or both None."""

    ca: Path
    cert: Path | None
    key: Path | None


class Mqtt(Value, frozen=True, kw_only=True):
    """Where the MQTT server is, and how to be let in."""

    host: str
    port: int
    username: str | None
    password_file: Path | None
    tls: Tls | None


class Breaker(Value, frozen=True, kw_only=True):
    """The breaker that a cap protects: rated current times voltage, and its trip curve."""

    rating_w: int
    curve: Curve


class Cap(Value, frozen=True, kw_only=True):
    """A limit on the sum of the racks below it; `parent` is None at a root."""

    name: str
    limit_w: int
    parent: str | None
    breaker: Breaker | None
    fallback_w: int | None
    set_ttl_s: float
    brake_after_s: float | None


class DeviceSpec(Value, frozen=True, kw_only=True):
    """How to reach a device and what it counts for.

    `profile` None: recognised at start. `measures` are the points whose sum is the
    rack's draw; empty for a device that only limits.
    """

    name: str
    url: str
    profile: str | None
    measures: tuple[str, ...]
    poll_s: float
    stale_after_s: float
    community_file: Path | None

    def __repr__(self) -> str:
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{name}=***" if name == "url" else f"{name}={value!r}" for name, value in fields)
        return f"DeviceSpec({', '.join(shown)})"


class Outlet(Value, frozen=True, kw_only=True):
    """One outlet that may be switched: `peak_w` at most, and once off for `min_off_s`."""

    number: int
    priority: int
    peak_w: int
    min_off_s: float


class Actuator(Value, frozen=True, kw_only=True):
    """What limits the rack's draw; with kind `none`, nothing does.

    A write has taken effect `effect_delay_s` after it, and has been read back
    `settle_s` after it (protocol R5); a lease of the rack runs `ttl_s`.
    """

    kind: ActuatorKind
    device: str | None
    settle_s: float
    effect_delay_s: float
    ttl_s: float
    keeps: bool
    base_w: int
    outlets: tuple[Outlet, ...]
    stagger_s: float


class Rack(Value, frozen=True, kw_only=True):
    """One rack: its place in the site, its limits, its devices."""

    name: str
    rank: int
    cap: str
    floor_w: int
    ceiling_w: int
    weight: float
    tier: int
    devices: tuple[DeviceSpec, ...]
    actuator: Actuator
    joins: bool = False  # not of the first roster: it asks to be counted (protocol M2)


class Site(Value, frozen=True, kw_only=True):
    """A site file in which every rule holds."""

    schema: int
    site: str
    roster: str
    profiles: Path | None
    mqtt: Mqtt
    timing: Timing
    market: Market
    caps: tuple[Cap, ...]
    racks: tuple[Rack, ...]

    def rack(self, name: str) -> Rack:
        """The rack of that name; KeyError if there is none."""
        for rack in self.racks:
            if rack.name == name:
                return rack
        raise KeyError(name)

    def cap(self, name: str) -> Cap:
        """The cap of that name; KeyError if there is none."""
        for cap in self.caps:
            if cap.name == name:
                return cap
        raise KeyError(name)

    def under(self, cap_name: str) -> tuple[Rack, ...]:
        """The racks below a cap, through every level, in the file's order."""
        below = {cap_name}
        grown = True
        while grown:
            more = {cap.name for cap in self.caps if cap.parent in below} - below
            below |= more
            grown = bool(more)
        return tuple(rack for rack in self.racks if rack.cap in below)
