"""The messages of the grant protocol, as values.

Every struct is what one topic carries (`broker/topics`), with the names of the
protocol page as its fields; `broker/wire` turns it into bytes and back. Powers are
whole watts, durations seconds, prices currency per kWh.

A `Ballot` orders brokers, a `GrantKey` orders grants; both compare as the protocol
says: by term, then by the rack's name in code points, then by number.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field

WATTS_MAX = 10**9
NUMBER_MAX = 2**53 - 1  # what every JSON reader can hold exactly
RACKS_MAX = 1000
CAPS_MAX = 200
SOURCES_PER_CAP_MAX = 16

Watts = Annotated[int, Meta(ge=0, le=WATTS_MAX)]
Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Instance = Annotated[str, Meta(min_length=1, max_length=32)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class Ballot(Struct, frozen=True, order=True, array_like=True):
    """`[term, rack]`: who leads in which term. Names are unique, so no two brokers share one."""

    term: Number
    rack: Annotated[str, Meta(max_length=64)]

    def __str__(self) -> str:
        return f"{self.term}/{self.rack}"


class GrantKey(Struct, frozen=True, order=True, array_like=True):
    """`[term, rack, number]`: orders every grant that was ever made."""

    term: Number
    rack: Name
    number: Number

    @property
    def ballot(self) -> Ballot:
        return Ballot(self.term, self.rack)


class CapValue(Struct, frozen=True, array_like=True):
    """What one source last said of a cap. `limit_w` None: the source was withdrawn."""

    number: Number
    limit_w: Watts | None


CapValues = dict[str, dict[str, CapValue]]  # cap → source → its newest value


class Beat(Struct, frozen=True, kw_only=True):
    """`broker`: the sign of life of the broker in office."""

    ballot: Ballot
    number: Number
    roster: Ballot
    caps: CapValues = field(default_factory=dict)
    silent: tuple[str, ...] = ()  # members not heard now: nobody takes over meanwhile
    time_ms: Number = 0


class Actuation(StrEnum):
    """How a rack can be held, as far as the broker must know it."""

    POWER_LIMIT = "power-limit"
    OUTLETS = "outlets"
    NONE = "none"


class Report(Struct, frozen=True, kw_only=True):
    """`racks/<rack>/report`: what a rack promises, wants and draws."""

    instance: Instance
    boot: Number
    seq: Number
    ballot: Ballot
    roster: Ballot
    site_hash: Annotated[str, Meta(max_length=64)]
    caps: CapValues = field(default_factory=dict)
    seen: GrantKey | None = None
    bound_w: Watts
    limit_w: Watts
    next_w: Watts
    floor_w: Watts
    ceiling_w: Watts
    ttl_s: Seconds
    settle_s: Seconds
    demand_w: Watts
    measured_w: Watts | None = None
    measured_age_s: Seconds | None = None
    weight: Annotated[float, Meta(gt=0, le=1e9)] = 1.0
    actuator: Actuation = Actuation.POWER_LIMIT
    starting: bool = False  # protocol R7: the hardware's setting is not proven yet
    joined: Ballot | None = None  # protocol M2: the roster that added it, once it was granted
    time_ms: Number = 0


class Grant(Struct, frozen=True, kw_only=True):
    """`racks/<rack>/grant`: the answer to one report of one process."""

    key: GrantKey
    instance: Instance
    boot: Number
    seq: Number
    limit_w: Watts
    may_raise: bool
    ttl_s: Seconds
    price: float | None = None
    cap: Name | None = None  # the cap that holds the rack here, if one does
    why: Annotated[str, Meta(max_length=200)] = ""
    time_ms: Number = 0


class Presence(StrEnum):
    """`racks/<rack>/online`: plain words, as monitors expect them."""

    ONLINE = "online"
    OFFLINE = "offline"


class ElectionKind(StrEnum):
    ELECTION = "election"
    ANSWER = "answer"
    COORDINATOR = "coordinator"


class ElectionMessage(Struct, frozen=True, kw_only=True):
    """`election`: the bully algorithm's three messages."""

    kind: ElectionKind
    rack: Name
    rank: int
    ballot: Ballot
    instance: Instance
    to: Name | None = None  # whom an `answer` answers
    time_ms: Number = 0


class CapSet(Struct, frozen=True, kw_only=True):
    """`caps/<cap>/set`: a source's value (protocol C1). `limit_w` null withdraws the source."""

    limit_w: Watts | None
    number: Number
    by: Name


class CapMeasured(Struct, frozen=True, kw_only=True):
    """`caps/<cap>/measured`: what the feed's meter shows, and how old that is by now."""

    power_w: Annotated[float, Meta(ge=-WATTS_MAX, le=WATTS_MAX)]  # below zero: it flows back
    age_s: Seconds


class CapState(Struct, frozen=True, kw_only=True):
    """`caps/<cap>`: what monitors look at. `short_w`: what Σ floors lacks (protocol C3)."""

    ballot: Ballot
    limit_w: Watts
    by: str  # the source whose value is in force; "site" for the file's own limit
    reserved_w: Watts
    reserve_w: dict[str, Watts]
    allocated_w: Watts
    draw_w: Watts | None  # None while the draw of one of its racks is not known
    demand_w: Watts
    headroom_w: int
    price: float | None
    short_w: Watts
    time_ms: Number = 0


class MarketState(Struct, frozen=True, kw_only=True):
    """`market`: the last clearing in one message."""

    ballot: Ballot
    mechanism: str
    price: dict[str, float | None]
    allocation_w: dict[str, Watts]
    violation_w: float
    kkt: float
    iterations: int
    alarm: str = ""
    time_ms: Number = 0


class RosterRack(Struct, frozen=True, kw_only=True):
    rack: Name
    rank: int
    floor_w: Watts
    ceiling_w: Watts
    cap: Name
    weight: float = 1.0
    tier: int = 1
    joined: Ballot | None = None  # the roster that added it; None: of the first one
    leaving: bool = False  # granted nothing any more, counted until everybody knows (M3)


class RosterCap(Struct, frozen=True, kw_only=True):
    cap: Name
    limit_w: Watts
    parent: Name | None = None
    fallback_w: Watts | None = None
    set_ttl_s: Seconds = 30.0
    brake_after_s: Seconds | None = None  # None: nobody brakes by this cap's meter


class Roster(Struct, frozen=True, kw_only=True):
    """`roster`: who is counted, and under which caps (protocol M1)."""

    name: Ballot  # the ballot that made it; the site file's is [0, site_hash]
    racks: Annotated[tuple[RosterRack, ...], Meta(max_length=RACKS_MAX)]
    caps: Annotated[tuple[RosterCap, ...], Meta(max_length=CAPS_MAX)]
    ballot: Ballot | None = None  # in which it was published
    site_hash: Annotated[str, Meta(max_length=64)] = ""  # of the site file that it goes by
    time_ms: Number = 0


class Join(Struct, frozen=True, kw_only=True):
    """`join`: a rack that is not counted asks to be (protocol M2)."""

    rack: RosterRack
    instance: Instance
    boot: Number
    ballot: Ballot  # of the broker that it hears
    roster: Ballot  # the one it knows that it is not in
    bound_w: Watts  # above 0: it carries load already
    time_ms: Number = 0


class JoinAnswer(Struct, frozen=True, kw_only=True):
    """`join/<rack>`: why a rack is not counted yet."""

    instance: Instance
    ballot: Ballot
    why: Annotated[str, Meta(max_length=200)]
    time_ms: Number = 0


class Leave(Struct, frozen=True, kw_only=True):
    """`roster/remove`: a rack shall be counted no more; its hardware is at 0 (protocol M3).

    `boot` and `seq` are those of its last report as far as the speaker knows; None where
    nobody has ever heard one.
    """

    rack: Name
    by: Name  # the rack itself, or the operator
    ballot: Ballot  # of the broker that the speaker hears
    boot: Number | None = None
    seq: Number | None = None
    bound_w: Annotated[int, Meta(ge=0, le=0)] = 0
    time_ms: Number = 0


class Explain(Struct, frozen=True, kw_only=True):
    """`racks/<rack>/explain`: the limit in force, where it comes from, what would change it."""

    limit_w: Watts
    bound_w: Watts
    floor_w: Watts
    ceiling_w: Watts
    set_by: str
    why: str  # the broker's word with it, or what happened on the rack
    cap: str | None  # the cap that holds the rack there
    cap_limit_w: Watts | None  # that cap in force, as this rack knows it
    cap_by: str | None  # whose value that is; "site" for the file's own limit
    price: float | None
    since_s: Seconds  # for so long the limit has been what it is
    granted_w: Watts | None  # what the newest grant allows, obeyed or not
    lease_left_s: Seconds
    floor_in_s: Seconds | None  # without a newer grant; None: it is there, or cannot go there
    braked_by: str | None = None  # the cap whose meter showed too much for too long
    changes: tuple[str, ...] = ()  # what would change the limit, in words
    time_ms: Number = 0


Message = (
    Beat
    | Report
    | Grant
    | Presence
    | ElectionMessage
    | CapSet
    | CapMeasured
    | CapState
    | MarketState
    | Roster
    | Join
    | JoinAnswer
    | Leave
    | Explain
)
