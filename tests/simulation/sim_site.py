"""A random site: two to twelve racks of every kind under a tree of caps of up to three levels."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from broker.coordinator import MarketTerms
from broker.effects import JournalRecord
from broker.election import ElectionTiming
from broker.identity import Identity
from broker.messages import Actuation, Ballot, Roster, RosterCap, RosterRack
from firmware_py.site_types import Actuator, ActuatorKind, DeviceSpec, Outlet, Rack

TICK_S = 1.0
GUARD = 0.01
PREEMPT_AFTER_S = 20.0
PREEMPT_NEVER_S = 1e9
SITE_HASH = "5ea1"
KINDS: tuple[ActuatorKind, ...] = ("power-limit",) * 10 + ("outlets",) * 7 + ("none",)
PLAIN_KINDS: tuple[ActuatorKind, ...] = ("power-limit",) * 3 + ("outlets",) * 2
STEADY_KINDS: tuple[ActuatorKind, ...] = ("power-limit",)
FORGETFUL_SHARE = 0.08  # of the power limits: hardware that reverts by itself


@dataclass(frozen=True, slots=True)
class SimSite:
    racks: tuple[Rack, ...]
    caps: tuple[RosterCap, ...]
    roster: Roster
    preempt_after_s: float = PREEMPT_AFTER_S

    def under(self, cap: str) -> tuple[Rack, ...]:
        parents = {c.cap: c.parent for c in self.caps}

        def is_below(name: str | None) -> bool:
            return name == cap or (name is not None and is_below(parents[name]))

        return tuple(rack for rack in self.racks if is_below(rack.cap))

    def least_w(self, cap: str) -> int:
        """What cannot be taken from the racks under a cap: floors, and whoever is not held."""
        return sum(least_w_of(rack) for rack in self.under(cap))

    @property
    def is_steady(self) -> bool:
        """True where every rack can be brought to any watt, and nobody takes over."""
        held = all(r.actuator.kind == "power-limit" and r.actuator.keeps for r in self.racks)
        return held and self.preempt_after_s == PREEMPT_NEVER_S

    def identity(self, rack: Rack) -> Identity:
        return Identity(
            rack=rack.name,
            instance="",
            site_hash=SITE_HASH,
            roster=self.roster,
            actuator=Actuation(rack.actuator.kind),
            ttl_s=rack.actuator.ttl_s,
            settle_s=rack.actuator.settle_s,
            timing=ElectionTiming(
                tick_s=TICK_S,
                beat_timeout_s=2.0,
                answer_timeout_s=0.5,
                preempt_after_s=self.preempt_after_s,
            ),
            terms=MarketTerms(guard=GUARD),
        )

    def first_journal(self) -> JournalRecord:
        return JournalRecord(Ballot(0, ""), 0, True, self.roster.name, {})


def is_held(rack: Rack) -> bool:
    """True where a promise below the ceiling is possible at all."""
    return rack.actuator.kind != "none" and rack.actuator.keeps


def least_w_of(rack: Rack) -> int:
    return rack.floor_w if is_held(rack) else rack.ceiling_w


def site_of(rng: Random, *, plain: bool = False) -> SimSite:
    """`plain`: of middling size, with rows, and nothing in it that cannot be held."""
    count = rng.choice(
        (2, 3, 3, 4, 4, 5, 5, 6, 6) if plain else (2, 3, 3, 4, 4, 5, 6, 6, 8, 10, 12)
    )
    steady = not plain and rng.random() < 0.3
    kinds = STEADY_KINDS if steady else PLAIN_KINDS if plain else KINDS
    tree = _tree(rng, (2,) if plain else (1, 2, 2, 3))
    leaves = [cap for cap in tree if cap not in tree.values()]
    racks = tuple(
        _rack(rng, n, rng.choice(leaves), kinds, steady or plain) for n in range(1, count + 1)
    )
    caps: list[RosterCap] = []
    for cap, parent in tree.items():
        below = [rack for rack in racks if cap in _path(tree, rack.cap)]
        if below:
            caps.append(_cap(rng, cap, parent, below, may_fall_back=not plain))
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
    never = not plain and (steady or rng.random() < 0.2)
    return SimSite(racks, tuple(caps), roster, PREEMPT_NEVER_S if never else PREEMPT_AFTER_S)


def _tree(rng: Random, levels_of: tuple[int, ...]) -> dict[str, str | None]:
    """Cap → parent: a room, rows in it, and branches in a row."""
    tree: dict[str, str | None] = {"room": None}
    levels = rng.choice(levels_of)
    if levels >= 2:
        tree |= {f"row{n}": "room" for n in range(1, rng.randint(2, 4))}
    if levels == 3:
        tree |= {f"branch{n}": "row1" for n in range(1, rng.randint(2, 4))}
    return tree


def _path(tree: dict[str, str | None], cap: str) -> list[str]:
    path = [cap]
    while (parent := tree[path[-1]]) is not None:
        path.append(parent)
    return path


def _cap(
    rng: Random, name: str, parent: str | None, racks: list[Rack], *, may_fall_back: bool
) -> RosterCap:
    least_w = sum(least_w_of(rack) for rack in racks)
    ceilings_w = sum(rack.ceiling_w for rack in racks)
    share = rng.uniform(0.35, 0.75) if parent is None else rng.uniform(0.45, 0.95)
    limit_w = int(least_w + share * (ceilings_w - least_w))
    falls_back = may_fall_back and rng.random() < 0.25
    fallback_w = int(least_w + rng.uniform(0.1, 0.6) * (limit_w - least_w))
    return RosterCap(
        cap=name,
        limit_w=limit_w,
        parent=parent,
        fallback_w=fallback_w if falls_back else None,
        set_ttl_s=rng.choice((5.0, 10.0)),
    )


def _rack(rng: Random, number: int, cap: str, kinds: tuple[ActuatorKind, ...], keeps: bool) -> Rack:
    kind = rng.choice(kinds)
    base_w = 0 if kind == "none" else rng.choice((0, 50, 120))
    plugs: tuple[Outlet, ...] = ()
    floor_w = rng.randrange(150, 400, 10)
    ceiling_w = rng.randrange(900, 3000, 10)
    if kind == "outlets":
        base_w = rng.choice((150, 300))
        plugs = tuple(
            Outlet(number=n, priority=n % 4, peak_w=rng.randrange(100, 500, 10), min_off_s=2.0)
            for n in range(1, rng.randint(3, 6))
        )
        ranked = sorted(plugs, key=lambda o: (-o.priority, o.number))
        floor_w = base_w + sum(o.peak_w for o in ranked[: rng.randint(0, 1)])
        ceiling_w = base_w + sum(o.peak_w for o in plugs)
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
        cap=cap,
        floor_w=floor_w,
        ceiling_w=ceiling_w,
        weight=rng.choice((1.0, 1.0, 2.0)),
        tier=rng.choice((1, 1, 1, 2)),
        devices=(device,),
        actuator=_actuator(rng, kind, base_w, plugs, keeps),
    )


def _actuator(
    rng: Random, kind: ActuatorKind, base_w: int, plugs: tuple[Outlet, ...], keeps: bool
) -> Actuator:
    effect_delay_s = rng.choice((1.0, 2.0, 4.0) if plugs else (0.2, 1.0, 3.0))
    settle_s = effect_delay_s + 1.0
    if kind == "none":
        effect_delay_s = settle_s = 0.0
    forgets = kind == "power-limit" and not keeps and rng.random() < FORGETFUL_SHARE
    return Actuator(
        kind=kind,
        device=None if kind == "none" else "pdu",
        settle_s=settle_s,
        effect_delay_s=effect_delay_s,
        ttl_s=settle_s + 7.5 + rng.choice((3.0, 6.0)),
        keeps=not forgets,
        base_w=base_w,
        outlets=plugs,
        stagger_s=rng.choice((0.2, 0.5)),
    )
