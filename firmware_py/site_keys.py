"""What may stand in a site file: every key, its bounds, its default, a description.

One type per table, one field per key. The reader (`site_tables`), the JSON Schema and
the messages are made from them, so that there is one place to look and one to change.
A value that stood in the file but was wrong is `UNSET` where a type says so, else the
default: it has been reported, and the rules pass it over instead of reporting its
consequences. Defaults that depend on other values are None here and decided in
`site_defaults`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, UnsetType, field

from firmware_py.breakers import Curve

ActuatorKind = Literal["outlets", "power-limit", "none"]

# Names become levels of MQTT topics and parts of file names.
NAME_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Watts = Annotated[int, Meta(gt=0, le=100_000_000)]
WattsOrZero = Annotated[int, Meta(ge=0, le=100_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SecondsOrZero = Annotated[float, Meta(ge=0, le=86_400)]

RACKS_MAX = 1000
CAPS_MAX = 200
DEVICES_PER_RACK_MAX = 16
OUTLETS_PER_RACK_MAX = 64
MEASURES_MAX = 64


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file as written."""


class Timing(Table, frozen=True, kw_only=True):
    """Periods of the protocol, one set for the whole site."""

    tick_s: Annotated[Seconds, Meta(description="Period of beats, reports and grants.")] = 1.0
    beat_timeout_s: Annotated[
        Seconds, Meta(description="Silence of the broker after which a new one is elected.")
    ] = 2.0
    answer_timeout_s: Annotated[
        Seconds, Meta(description="How long a candidate waits for a higher rank's answer.")
    ] = 0.5
    preempt_after_s: Annotated[
        Seconds, Meta(description="How long a higher rank is up before it takes over.")
    ] = 30.0
    lease_ttl_s: Annotated[
        Seconds, Meta(description="A rack that is cut off is at its floor within this.")
    ] = 15.0
    clock: Annotated[
        Literal["trusted"] | None,
        Meta(description="The machines' clocks are right although no time service says so."),
    ] = None


class Market(Table, frozen=True, kw_only=True):
    """How what is there is shared out."""

    mechanism: Annotated[Literal["exact"], Meta(description="How the market is cleared.")] = "exact"
    guard: Annotated[
        float, Meta(ge=0, lt=0.5, description="Share of every cap that is never given away.")
    ] = 0.01
    auction: Annotated[bool, Meta(description="Racks bid; not in this version.")] = False


class TlsTable(Table, frozen=True, kw_only=True):
    """TLS to the MQTT server. Paths are relative to the site file."""

    ca: (
        Annotated[
            Text,
            Meta(
                examples=["ca.pem"],
                description="Certificate of the authority that signed the server's.",
            ),
        ]
        | UnsetType
    )
    cert: Annotated[Text | UnsetType | None, Meta(description="This client's certificate.")] = None
    key: Annotated[Text | UnsetType | None, Meta(description="This client's key.")] = None


class MqttTable(Table, frozen=True, kw_only=True):
    """The MQTT server."""

    host: (
        Annotated[
            Text, Meta(examples=["192.0.2.10"], description="Name or address of the MQTT server.")
        ]
        | UnsetType
    )
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 1883
    username: Text | UnsetType | None = None
    password_file: Annotated[
        Text | UnsetType | None, Meta(description="File whose first line is the password.")
    ] = None
    tls: TlsTable | None = None


class BreakerTable(Table, frozen=True, kw_only=True):
    """The breaker that a cap protects."""

    rating_w: (
        Annotated[Watts, Meta(examples=[22_000], description="Rated current times voltage, in W.")]
        | UnsetType
    )
    curve: (
        Annotated[Curve, Meta(examples=["C"], description="Trip curve after IEC 60898-1.")]
        | UnsetType
    )


class OutletTable(Table, frozen=True, kw_only=True):
    """One outlet that may be switched."""

    number: (
        Annotated[int, Meta(ge=1, le=9999, examples=[1], description="As the profile counts them.")]
        | UnsetType
    )
    priority: (
        Annotated[
            int,
            Meta(ge=0, le=1_000_000, examples=[5], description="The lowest is switched off first."),
        ]
        | UnsetType
    )
    peak_w: (
        Annotated[Watts, Meta(examples=[450], description="Nameplate, or the most it has drawn.")]
        | UnsetType
    )
    min_off_s: Annotated[
        SecondsOrZero, Meta(description="Once off, off for at least this long.")
    ] = 60.0


class CapTable(Table, frozen=True, kw_only=True):
    """A limit in W on the sum of the racks below it."""

    name: (
        Annotated[Name, Meta(examples=["room"], description="Letters, digits, - _ . (MQTT topic).")]
        | UnsetType
    )
    limit_w: Annotated[Watts, Meta(examples=[20_000], description="The limit.")] | UnsetType
    parent: Annotated[Name | UnsetType | None, Meta(description="The cap above this one.")] = None
    breaker: BreakerTable | None = None
    fallback_w: Annotated[
        WattsOrZero | UnsetType | None, Meta(description="The cap while its sources are silent.")
    ] = None
    set_ttl_s: Annotated[
        Seconds | UnsetType | None,
        Meta(description="Silence after which fallback_w holds; default 30."),
    ] = None
    brake_after_s: Annotated[
        Seconds | None,
        Meta(description="Racks brake by themselves when the cap's meter is above it so long."),
    ] = None


class DeviceTable(Table, frozen=True, kw_only=True):
    """A device that measures or limits a rack."""

    name: Annotated[Name, Meta(examples=["pdu"], description="Unique within the rack.")] | UnsetType
    url: (
        Annotated[
            Text,
            Meta(
                examples=["snmp://public@192.0.2.21"],
                description="snmp://COMMUNITY@host:port, modbus://host:port/unit, …",
            ),
        ]
        | UnsetType
    )
    profile: Annotated[
        Name | UnsetType | None,
        Meta(description="Left out: recognised at start (not for an actuator)."),
    ] = None
    measures: Annotated[
        Annotated[tuple[Text, ...], Meta(max_length=MEASURES_MAX)] | UnsetType | None,
        Meta(description="Points that count as the rack's draw; all devices add up."),
    ] = None
    poll_s: Annotated[
        Seconds | None, Meta(description="Default 1, or the least that the profile bears.")
    ] = None
    stale_after_s: Annotated[
        Seconds | None, Meta(description="Older readings are not believed; default 3 · poll_s.")
    ] = None
    community_file: Annotated[
        Text | UnsetType | None, Meta(description="File whose first line is the SNMP community.")
    ] = None


class ActuatorTable(Table, frozen=True, kw_only=True):
    """What limits the rack's draw."""

    kind: (
        Annotated[
            ActuatorKind,
            Meta(
                examples=["outlets"],
                description="outlets: switched by priority · power-limit: told in W · none.",
            ),
        ]
        | UnsetType
    )
    device: Annotated[
        Name | UnsetType | None, Meta(description="Name of one of the rack's devices.")
    ] = None
    settle_s: Annotated[
        Seconds | None,
        Meta(description="From a lowering write to its read-back; default effect delay + 1 s."),
    ] = None
    ttl_s: Annotated[
        Seconds | None,
        Meta(description="This rack's own lease; default 300 for outlets, else lease_ttl_s."),
    ] = None
    keeps: Annotated[
        bool, Meta(description="false: it reverts by itself, or forgets on power loss.")
    ] = True
    base_w: Annotated[
        WattsOrZero, Meta(description="Draw of everything that is never switched or limited.")
    ] = 0
    outlets: Annotated[tuple[OutletTable, ...], Meta(max_length=OUTLETS_PER_RACK_MAX)] = ()
    stagger_s: Annotated[
        SecondsOrZero, Meta(description="Pause between two outlets that return.")
    ] = 1.0


class RackTable(Table, frozen=True, kw_only=True):
    """One rack and its controller."""

    name: (
        Annotated[Name, Meta(examples=["r1"], description="Letters, digits, - _ . (MQTT topic).")]
        | UnsetType
    )
    rank: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=1_000_000,
                examples=[10],
                description="The highest rank that lives is the broker.",
            ),
        ]
        | UnsetType
    )
    cap: (
        Annotated[Name, Meta(examples=["room"], description="The cap that the rack hangs from.")]
        | UnsetType
    )
    floor_w: (
        Annotated[WattsOrZero, Meta(examples=[1_000], description="What the rack may always draw.")]
        | UnsetType
    )
    ceiling_w: Annotated[
        Watts | UnsetType | None,
        Meta(description="The most it can draw; left out with outlets: everything on."),
    ] = None
    weight: Annotated[
        float, Meta(gt=0, le=1_000_000, description="Share of what is scarce, within a tier.")
    ] = 1.0
    tier: Annotated[int, Meta(ge=0, le=1000, description="The larger number is served first.")] = 1
    joins: Annotated[
        bool,
        Meta(description="true: not one of the site's first racks; it asks to be counted."),
    ] = False
    device: Annotated[tuple[DeviceTable, ...], Meta(max_length=DEVICES_PER_RACK_MAX)] = ()
    actuator: ActuatorTable | None = None


class SiteTable(Table, frozen=True, kw_only=True):
    """A wattbroker site: one file, the same on every controller."""

    schema: (
        Annotated[Literal[1], Meta(examples=[1], description="Version of this format.")] | UnsetType
    )
    site: (
        Annotated[Name, Meta(examples=["lab"], description="Letters, digits, - _ . (MQTT topic).")]
        | UnsetType
    )
    roster: Annotated[
        Literal["static", "open"],
        Meta(description="static: only the racks below · open: others may join while it runs."),
    ] = "static"
    profiles: Annotated[
        Text | UnsetType | None,
        Meta(description="Folder of your own profiles, relative to this file."),
    ] = None
    mqtt: MqttTable | UnsetType
    timing: Timing = field(default_factory=Timing)
    market: Market = field(default_factory=Market)
    cap: Annotated[tuple[CapTable, ...], Meta(min_length=1, max_length=CAPS_MAX)] | UnsetType
    rack: Annotated[tuple[RackTable, ...], Meta(min_length=1, max_length=RACKS_MAX)] | UnsetType
