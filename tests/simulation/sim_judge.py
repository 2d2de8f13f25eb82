"""The judge looks at the hardware and at the caps, never at what a controller believes.

The sum: what the hardware under a cap lets through is at most that cap. After a fall
the old value counts for a window: one tick and the largest settle_s where nothing else
has gone wrong lately, the largest ttl_s and what a fault may add where something has.
A rack without a living controller, or whose controller has just come back, keeps its
last setting: that is physics and only named, but then everybody else under the cap has
to be at the floor, and a raise is a violation whoever else is over. Nor does a raise
leave the broker while the hardware under one of its caps is above what the cap has been
since the source's last word.

The promise: what a living controller says its rack can draw at most (bound_w) is no
less than what the hardware lets through, now and when every write on its way has
arrived. It is what every sum is built on, so it is looked at on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim_rack import SimRack
from sim_site import TICK_S, SimSite

from broker.messages import Grant

HEARD_S = 0.1  # from a source's word to the broker's ear on a good day
TROUBLE_S = 40.0  # so long after a fault the wide window counts
# What lost messages, lost writes and elections add to the wide window. A broker that finds
# the cap already fallen renews for up to five ticks, and may be followed by another.
LATE_S = 16.0


class Violation(Exception):
    """The product let through what it must not. The text says what, where and when."""


@dataclass(slots=True)
class _Fallen:
    at_s: float
    from_w: int


class Judge:
    def __init__(self, site: SimSite, racks: dict[str, SimRack], *, reorders: bool) -> None:
        self._site = site
        self._racks = racks
        self._reorders = reorders  # hardware may take writes in another order
        self._below = {c.cap: [racks[r.name] for r in site.under(c.cap)] for c in site.caps}
        self.cap_w = {cap.cap: cap.limit_w for cap in site.caps}
        self._falls: dict[str, list[_Fallen]] = {cap.cap: [] for cap in site.caps}
        self.trouble_at_s = float("-inf")
        self.looks = 0
        self.peak_share = 0.0

    def set_cap(self, cap: str, limit_w: int, now: float) -> None:
        if limit_w < self.cap_w[cap]:
            self._falls[cap].append(_Fallen(now, self.cap_w[cap]))
        self.cap_w[cap] = limit_w

    def look(self, now: float, raised: SimRack | None = None) -> None:
        """Raises Violation. `raised`: whose hardware lets more through than a moment ago."""
        self.looks += 1
        for cap in self.cap_w:
            self._look_at_sum(cap, now, raised)
        for rack in self._racks.values():
            self._look_at_promise(rack, now)

    def look_at_grant(self, rack: str, grant: Grant, now: float) -> None:
        """Protocol B3, where nothing else has gone wrong lately: the broker knows the fall."""
        if not grant.may_raise or now - self.trouble_at_s <= TROUBLE_S:
            return
        for cap, racks in self._below.items():
            through_w = sum(below.hardware.lets_through_w for below in racks)
            allowed_w = self._allowed_w(cap, now, window_s=TICK_S + HEARD_S)
            if self._racks[rack] in racks and through_w > allowed_w:
                why = f"the broker raises {rack} all the same"
                self._condemn(cap, through_w, allowed_w, why, now)

    # ---- the sum ---------------------------------------------------------------

    def _look_at_sum(self, cap: str, now: float, raised: SimRack | None) -> None:
        racks = self._below[cap]
        through_w = sum(rack.hardware.lets_through_w for rack in racks)
        allowed_w = self._allowed_w(cap, now)
        self.peak_share = max(self.peak_share, through_w / allowed_w)
        if through_w <= allowed_w:
            return
        excused = [rack for rack in racks if now < rack.excused_until_s]
        if raised is not None and raised in racks and raised not in excused:
            self._condemn(cap, through_w, allowed_w, f"{raised.name} was raised", now)
        others = [rack for rack in racks if rack not in excused]
        others_w = sum(rack.hardware.lets_through_w for rack in others)
        floors_w = sum(rack.hardware.rack.floor_w for rack in others)
        excused_w = through_w - others_w
        if not excused or others_w > max(floors_w, allowed_w - excused_w):
            self._condemn(cap, through_w, allowed_w, "the living are not down", now)

    def _allowed_w(self, cap: str, now: float, window_s: float | None = None) -> int:
        """The cap in force, or what it was within the window before."""
        window_s = self._window_s(now) if window_s is None else window_s
        falls = self._falls[cap] = [f for f in self._falls[cap] if now - f.at_s < 120.0]
        recent = [f.from_w for f in falls if now - f.at_s <= window_s]
        return max([self.cap_w[cap], *recent])

    def _window_s(self, now: float) -> float:
        actuators = [rack.actuator for rack in self._site.racks]
        if now - self.trouble_at_s > TROUBLE_S:
            # A raise on its way may overtake the lowering, which is then written anew.
            again_s = max(a.settle_s for a in actuators) + 2.0 if self._reorders else 0.0
            return TICK_S + max(a.settle_s for a in actuators) + again_s
        return max(a.ttl_s for a in actuators) + LATE_S

    def _condemn(self, cap: str, through_w: int, allowed_w: int, why: str, now: float) -> None:
        racks = ", ".join(
            f"{rack.name} {rack.hardware.lets_through_w}" for rack in self._below[cap]
        )
        raise Violation(f"t={now:.3f} {cap}: {through_w} W of {allowed_w} W: {why} ({racks})")

    # ---- the promise -----------------------------------------------------------

    def _look_at_promise(self, rack: SimRack, now: float) -> None:
        controller = rack.controller
        if controller is None:
            return
        worst_w = rack.hardware.worst_w
        if worst_w > controller.promise_w:
            raise Violation(
                f"t={now:.3f} {rack.name}: its hardware may let through {worst_w} W,"
                f" it promises {controller.promise_w} W"
            )
