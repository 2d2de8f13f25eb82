"""The physical side: servers, outlets, power limits, a meter each, and the feed's breaker.

The plant is the judge of everything: what it says was drawn was drawn, whatever the
controllers believe. It is stepped with the time as an argument and seeded; the same
seed and the same commands at the same times give the same watts.

    OutletRack   base load that is never switched, and outlets with a server each.
                 A relay follows its command after 0.2 to 0.7 s; a server that gets
                 its power back boots within two seconds to what it wants.
    LimitRack    one load under a power limit: draws min(wanted, limit in force).
                 The limit in force follows its register after 0.2 to 0.7 s.

Hardware keeps its last setting, whoever set it and whatever became of them. Commands to
one device act in the order in which they came. An open feed breaker makes every rack
dark; the settings stay.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from random import Random

from hil.breaker import Breaker
from hil.room import LIMIT_SWING, SERVER_SHARE_MIN, Outlet, RackPlan, Room

EFFECT_DELAY_S = (0.2, 0.7)
BOOT_S = 2.0
BOOT_SHARE_FIRST = 0.4  # of what it wants, the instant a server gets its power back
NO_LIMIT_W = 65_535


class Wander:
    """A smooth value between -1 and 1: the mean of two sines of incommensurable periods.

    A function of time alone, so that the length of the plant's step changes nothing.
    """

    def __init__(self, rng: Random) -> None:
        self._waves = tuple(
            (2 * math.pi / rng.uniform(*period_s), rng.uniform(0, 2 * math.pi))
            for period_s in ((7.0, 19.0), (23.0, 61.0))
        )

    def at(self, now_s: float) -> float:
        return sum(math.sin(w * now_s + phase) for w, phase in self._waves) / len(self._waves)


class Relay:
    """One outlet and the server behind it."""

    def __init__(self, outlet: Outlet, rng: Random, *, on: bool) -> None:
        self.outlet = outlet
        self.on = on
        self._rng = rng
        self._wander = Wander(rng)
        self._on_since_s = -math.inf
        self._pending: deque[tuple[float, bool]] = deque()

    def command(self, on: bool, now_s: float) -> None:
        self._pending.append((_effect_at_s(self._pending, self._rng, now_s), on))

    def step(self, now_s: float) -> None:
        while self._pending and self._pending[0][0] <= now_s:
            at_s, on = self._pending.popleft()
            if on and not self.on:
                self._on_since_s = at_s
            self.on = on

    def wanted_w(self, now_s: float) -> float:
        """What the server draws when it is up: mostly near its peak, at times 15 % below."""
        dip = ((1 - self._wander.at(now_s)) / 2) ** 2
        return self.outlet.peak_w * (1 - (1 - SERVER_SHARE_MIN) * dip)

    def draw_w(self, now_s: float) -> float:
        if not self.on:
            return 0.0
        up = min(1.0, (now_s - self._on_since_s) / BOOT_S)
        return self.wanted_w(now_s) * (BOOT_SHARE_FIRST + (1 - BOOT_SHARE_FIRST) * up)


class OutletRack:
    """A rack behind an outlet PDU."""

    def __init__(self, plan: RackPlan, rng: Random) -> None:
        self.plan = plan
        self._base = Wander(rng)
        self.relays = {
            o.number: Relay(o, rng, on=o.number in plan.outlets_at_floor) for o in plan.outlets
        }
        self.powered = True
        self.base_w = self.draw_w = self.demand_w = 0.0
        self.outlet_w = dict.fromkeys(self.relays, 0.0)
        self.energy_wh = 0.0

    @property
    def limit_w(self) -> int:
        """The most that can be drawn with the relays as they are."""
        return self.plan.base_w + sum(r.outlet.peak_w for r in self.relays.values() if r.on)

    def switch(self, number: int, on: bool, now_s: float) -> None:
        self.relays[number].command(on, now_s)

    def step(self, now_s: float, dt_s: float, powered: bool) -> None:
        self.powered = powered
        base_w = self.plan.base_w * (0.97 + 0.03 * self._base.at(now_s))
        for number, relay in self.relays.items():
            relay.step(now_s)
            self.outlet_w[number] = relay.draw_w(now_s) if powered else 0.0
        self.demand_w = base_w + sum(r.wanted_w(now_s) for r in self.relays.values())
        self.base_w = base_w if powered else 0.0
        self.draw_w = self.base_w + sum(self.outlet_w.values())
        self.energy_wh += self.draw_w * dt_s / 3600


class LimitRack:
    """A rack behind a power limit: what it wants above the limit in force is held back."""

    def __init__(self, plan: RackPlan, rng: Random) -> None:
        self.plan = plan
        self._rng = rng
        self._wander = Wander(rng)
        self.register_w = plan.floor_w  # as written: NO_LIMIT_W is no limit
        self.in_force_w = plan.floor_w
        self._pending: deque[tuple[float, int]] = deque()
        self.powered = True
        self.draw_w = self.demand_w = 0.0
        self.energy_wh = 0.0

    @property
    def limit_w(self) -> int:
        """The most that can be drawn with the limit as it is."""
        return min(self.in_force_w, self.plan.ceiling_w)

    def write_limit(self, limit_w: int, now_s: float) -> None:
        self.register_w = limit_w
        self._pending.append((_effect_at_s(self._pending, self._rng, now_s), limit_w))

    def step(self, now_s: float, dt_s: float, powered: bool) -> None:
        while self._pending and self._pending[0][0] <= now_s:
            self.in_force_w = self._pending.popleft()[1]
        self.powered = powered
        self.demand_w = self.plan.demand_w * (1 + LIMIT_SWING * self._wander.at(now_s))
        self.draw_w = min(self.demand_w, self.limit_w) if powered else 0.0
        self.energy_wh += self.draw_w * dt_s / 3600


def _effect_at_s(
    pending: deque[tuple[float, bool]] | deque[tuple[float, int]], rng: Random, now_s: float
) -> float:
    """A random delay from now, but never before a command that came earlier."""
    at_s = now_s + rng.uniform(*EFFECT_DELAY_S)
    return max(at_s, pending[-1][0]) if pending else at_s


@dataclass(frozen=True, slots=True)
class Watts:
    """What the plant saw at one instant; every mapping is by rack."""

    draw_w: dict[str, float]
    limit_w: dict[str, int]
    demand_w: float
    total_w: float
    tripped: bool


class Plant:
    """Every rack of the room behind one breaker."""

    def __init__(self, room: Room, *, seed: int) -> None:
        rng = Random(seed)
        self.outlet_racks: dict[str, OutletRack] = {}
        self.limit_racks: dict[str, LimitRack] = {}
        for plan in room.racks:
            if plan.outlets:
                self.outlet_racks[plan.name] = OutletRack(plan, rng)
            else:
                self.limit_racks[plan.name] = LimitRack(plan, rng)
        both: dict[str, OutletRack | LimitRack] = {**self.outlet_racks, **self.limit_racks}
        self.racks = {plan.name: both[plan.name] for plan in room.racks}
        self.breaker = Breaker(room.breaker_rating_w, room.breaker_curve)
        self.now_s = 0.0

    def step(self, now_s: float) -> Watts:
        """Go on to `now_s` (seconds, never backwards)."""
        assert now_s >= self.now_s, "time runs forwards"
        dt_s, self.now_s = now_s - self.now_s, now_s
        powered = not self.breaker.tripped
        for rack in self.racks.values():
            rack.step(now_s, dt_s, powered)
        total_w = sum(rack.draw_w for rack in self.racks.values())
        self.breaker.step(total_w, dt_s)
        return Watts(
            draw_w={name: rack.draw_w for name, rack in self.racks.items()},
            limit_w={name: rack.limit_w for name, rack in self.racks.items()},
            demand_w=sum(rack.demand_w for rack in self.racks.values()),
            total_w=total_w,
            tripped=self.breaker.tripped,
        )
