"""What a node is told of the machine that it runs on: values only."""

from __future__ import annotations

from dataclasses import dataclass

from broker.brake import Braked
from broker.coordinator import MarketTerms
from broker.election import ElectionTiming
from broker.explain import JUST_STARTED, Cause
from broker.messages import Actuation, Roster, RosterRack


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is, and what it goes by all its life."""

    rack: str
    instance: str
    site_hash: str
    roster: Roster
    actuator: Actuation
    ttl_s: float
    settle_s: float
    timing: ElectionTiming
    terms: MarketTerms
    joins: RosterRack | None = None  # this rack, where no site file lists it (protocol M2)
    is_open: bool = False  # others may join


@dataclass(frozen=True, slots=True)
class RackState:
    """The rack as the controller sees it now; powers in whole watts."""

    bound_w: int
    limit_w: int
    next_w: int
    demand_w: int
    measured_w: int | None
    measured_age_s: float | None
    starting: bool
    cause: Cause = JUST_STARTED  # of limit_w, for whoever asks
    braked: Braked | None = None
    held_by: str | None = None  # the cap whose meter holds raises back


@dataclass(frozen=True, slots=True)
class ClockRead:
    """The wall clock in ms, or None while nobody vouches for it (protocol R11)."""

    wall_ms: int | None
