"""A random small site: a room with two rows, two to six racks, both kinds of actuator."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from broker.coordinator import MarketTerms
from broker.effects import JournalRecord
from broker.election import ElectionTiming
from broker.messages import Actuation, Ballot, Roster, RosterCap, RosterRack
from broker.node import Identity
from firmware_py.site_types import Actuator, DeviceSpec, Outlet, Rack

TICK_S = 1.0
GUARD = 0.01
TIMING = ElectionTiming(
    tick_s=TICK_S, beat_timeout_s=2.0, answer_timeout_s=0.5, preempt_after_s=20.0
)
SITE_HASH = "5ea1"


@dataclass(frozen=True, slots=True)
class SimSite:
    racks: tuple[Rack, ...]
    caps: tuple[RosterCap, ...]
    roster: Roster

    def under(self, cap: str) -> tuple[Rack, ...]:
        parents = {c.cap: c.parent for c in self.caps}
        return tuple(r for r in self.racks if cap in (r.cap, parents[r.cap]))

    def identity(self, rack: Rack) -> Identity:
        return Identity(
            rack=rack.name,
            instance="",
            site_hash=SITE_HASH,
            roster=self.roster,
            actuator=Actuation(rack.actuator.kind),
            ttl_s=rack.actuator.ttl_s,
            settle_s=rack.actuator.settle_s,
            timing=TIMING,
            terms=MarketTerms(guard=GUARD),
        )

    def first_journal(self) -> JournalRecord:
        return JournalRecord(Ballot(0, ""), 0, True, self.roster.name, {})


def site_of(rng: Random) -> SimSite:
    count = rng.randint(2, 6)
    racks = tuple(_rack(rng, n) for n in range(1, count + 1))
    caps = [_cap(rng, "room", None, racks)]
    for row in ("row1", "row2"):
        below = tuple(rack for rack in racks if rack.cap == row)
        if below:
            caps.append(_cap(rng, row, "room", below))
    roster = Roster(
        name=Ballot(0, SITE_HASH),
        racks=tuple(
            RosterRack(
                rack=rack.name,
                rank=rack.rank,
                floor_w=rack.floor_w,
                ceiling_w=rack.ceiling_w,
                cap=rack.cap,
                weight=rack.weight,
                tier=rack.tier,
            )
            for rack in racks
        ),
        caps=tuple(caps),
    )
    return SimSite(racks, tuple(caps), roster)


def _cap(rng: Random, name: str, parent: str | None, racks: tuple[Rack, ...]) -> RosterCap:
    floors_w = sum(rack.floor_w for rack in racks)
    ceilings_w = sum(rack.ceiling_w for rack in racks)
    share = rng.uniform(0.35, 0.75) if parent is None else rng.uniform(0.45, 0.95)
    limit_w = int(floors_w + share * (ceilings_w - floors_w))
    return RosterCap(cap=name, limit_w=limit_w, parent=parent)


def _rack(rng: Random, number: int) -> Rack:
    outlets = rng.random() < 0.4
    effect_delay_s = rng.choice((1.0, 2.0, 4.0)) if outlets else rng.choice((0.2, 1.0, 3.0))
    settle_s = effect_delay_s + 1.0
    base_w = rng.choice((0, 50, 120))
    plugs: tuple[Outlet, ...] = ()
    if outlets:
        base_w = rng.choice((150, 300))
        plugs = tuple(
            Outlet(number=n, priority=n % 4, peak_w=rng.randrange(100, 500, 10), min_off_s=2.0)
            for n in range(1, rng.randint(3, 6))
        )
        ranked = sorted(plugs, key=lambda o: (-o.priority, o.number))
        floor_w = base_w + sum(o.peak_w for o in ranked[: rng.randint(0, 1)])
        ceiling_w = base_w + sum(o.peak_w for o in plugs)
    else:
        floor_w = rng.randrange(150, 400, 10)
        ceiling_w = rng.randrange(900, 3000, 10)
    actuator = Actuator(
        kind="outlets" if outlets else "power-limit",
        device="pdu",
        settle_s=settle_s,
        effect_delay_s=effect_delay_s,
        ttl_s=settle_s + 7.5 + rng.choice((3.0, 6.0)),
        keeps=True,
        base_w=base_w,
        outlets=plugs,
        stagger_s=rng.choice((0.2, 0.5)),
    )
    device = DeviceSpec(
        name="pdu",
        url="",
        profile=None,
        measures=("input.realpower",),
        poll_s=rng.choice((0.5, 1.0, 2.0)),
        stale_after_s=6.0,
        community_file=None,
    )
    return Rack(
        name=f"r{number}",
        rank=rng.randint(1, 4) * 10,  # equal ranks are decided by name
        cap=f"row{rng.randint(1, 2)}",
        floor_w=floor_w,
        ceiling_w=ceiling_w,
        weight=rng.choice((1.0, 1.0, 2.0)),
        tier=rng.choice((1, 1, 1, 2)),
        devices=(device,),
        actuator=actuator,
    )
