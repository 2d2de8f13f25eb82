"""What has to come back by itself when the faults are over, and how soon.

One broker, and a division of the caps that uses them. Where every rack can be held at any
watt and nobody takes over from a living broker, the broker is there within ten ticks, as the
protocol page promises; with outlets and takeovers later, all the same. The division is looked
at in the end: a wish that is held by its limit goes up step by step, and what a rack would
draw is not known to anybody before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sim_fates import is_broker
from sim_judge import Violation
from sim_rack import SimRack
from sim_site import GUARD, TICK_S, is_held

from broker import market

if TYPE_CHECKING:
    from sim_world import World

BROKER_TICKS = 10  # after the faults, where the site is steady
SETTLED_S = 25.0  # before the end a site of any kind has one broker, which stays
STEPPED_MAX = 2  # racks in steps: with more, what they leave may stay unused
SHARE_MAX = 0.01  # how far from the optimum


class Recovery:
    def __init__(self, world: World) -> None:
        self._world = world  # whose racks may change while it runs

    def plan(self, faults_s: float, end_s: float) -> Iterator[tuple[float, Callable[[], None]]]:
        """When to look, and at what."""
        world = self._world
        if world.site.is_steady and not world.counts["twin"]:  # a twin bars its rack for ttl_s
            yield faults_s + BROKER_TICKS * TICK_S, self._expect_one_broker
        at_s = max(end_s - SETTLED_S, world.timeline.now)
        while at_s < end_s:
            yield at_s, self._expect_one_broker
            at_s += TICK_S
        yield end_s, self._world.expect_a_good_division

    def _expect_one_broker(self) -> None:
        leads = [rack.name for rack in self._world.racks.values() if is_broker(rack)]
        if len(leads) != 1:
            raise Violation(f"t={self._world.timeline.now:.3f} brokers after the faults: {leads}")

    def expect_a_good_division(self) -> None:
        limits_w = {name: rack.hardware.lets_through_w for name, rack in self._world.racks.items()}
        room_w = {
            cap: int(limit_w * (1 - GUARD)) - sum(self._counted_w(r) for r in self._below(cap))
            for cap, limit_w in self._world.judge.cap_w.items()
        }
        steps = [
            r for r in self._world.racks.values() if r.hardware.rack.actuator.kind == "outlets"
        ]
        all_steps_w = sum(self._step_w(rack) for rack in steps)
        for name, rack in self._world.racks.items():
            step_w = self._step_w(rack)
            free_w = min(room_w[c] for c in room_w if rack in self._below(c))
            if step_w and (rack in steps or len(steps) > STEPPED_MAX):
                step_w += all_steps_w  # the broker does not try every combination of steps
            if step_w and free_w >= step_w + 5:
                raise Violation(f"{name} is at {limits_w[name]} W while {free_w} W are free")
        if all(
            r.actuator.kind == "power-limit" and r.actuator.keeps for r in self._world.site.racks
        ):
            self._expect_the_optimum(limits_w)

    def _counted_w(self, rack: SimRack) -> int:
        spec = rack.hardware.rack
        return rack.hardware.lets_through_w if is_held(spec) else spec.ceiling_w

    def _below(self, cap: str) -> list[SimRack]:
        return [self._world.racks[rack.name] for rack in self._world.site.under(cap)]

    def _step_w(self, rack: SimRack) -> int:
        """The rack's next step up, 0 where there is none."""
        spec = rack.hardware.rack
        if not is_held(spec):
            return 0
        if spec.actuator.kind == "power-limit":
            return min(50, max(0, spec.ceiling_w - rack.hardware.lets_through_w))
        shown = rack.hardware.settings()
        ranked = sorted(spec.actuator.outlets, key=lambda o: (-o.priority, o.number))
        off = [o.peak_w for o in ranked if shown[f"outlet.{o.number}.status"] == "off"]
        return off[0] if off else 0

    def _expect_the_optimum(self, limits_w: dict[str, int]) -> None:
        rows = [
            (r.name, float(r.floor_w), float(r.ceiling_w), r.weight, r.tier, r.cap)
            for r in self._world.site.racks
        ]
        caps = [
            market.MarketCap(c.cap, self._world.judge.cap_w[c.cap] * (1 - GUARD), c.parent)
            for c in self._world.site.caps
        ]
        best = market.clear(market.problem_of(rows, caps))
        for name, best_w in zip(best.racks, best.allocation_w.tolist(), strict=True):
            if abs(limits_w[name] - best_w) > SHARE_MAX * best_w + 2:
                raise Violation(f"{name} is at {limits_w[name]} W, the optimum is {best_w} W")
