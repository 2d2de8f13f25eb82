"""The judge looks at the hardware and at the caps, never at what a controller believes.

The sum: what the hardware under a cap lets through is at most that cap. After a fall
the old value counts for a window: one tick and the largest settle_s where nothing else
has gone wrong lately, the largest ttl_s and what a fault may add where something has.
A rack without a living controller, or whose controller has just come back, keeps its
last setting: that is physics and only named, but then everybody else under the cap has
to be at the floor, and a raise is a violation whoever else is over. Nor does a raise
leave the broker while the hardware under one of its caps is above what the cap has been
since the source's last word.

A device that resets itself is no raise of ours. Until its controller must have noticed and
set it back it counts at what it let through before; after that at what it lets through now.

The promise: what a living controller says its rack can draw at most (bound_w) is no
less than what the hardware lets through, now and when every write on its way has
arrived. It is what every sum is built on, so it is looked at on its own.

A raise: whoever writes a higher setting has just been granted it, by a grant that may
raise and that names this process (R2, R4). And nobody reports or leads under a ballot or a
boot that is not on its disk (R1, R10, B6), nor leads who has lost its journal (R11).
"""

from __future__ import annotations

from dataclasses import dataclass

from sim_rack import Disk, SimRack
from sim_site import TICK_S, SimSite

from broker.messages import Ballot, Grant

HEARD_S = 0.1  # from a source's word to the broker's ear on a good day
TROUBLE_S = 20.0  # so long after a fault the wide window counts
# What lost messages, lost writes and elections add to the wide window. A broker that finds
# the cap already fallen renews for up to five ticks, and may be followed by another.
LATE_S = 16.0
FALLS_KEPT_S = 60.0


class Violation(Exception):
    """The product let through what it must not. The text says what, where and when."""


@dataclass(slots=True)
class _Fallen:
    at_s: float
    from_w: int


@dataclass(slots=True)
class _Reset:
    cover_w: int  # what it let through before, and what was written to it
    until_s: float


class Judge:
    def __init__(self, site: SimSite, racks: dict[str, SimRack], *, reorders: bool) -> None:
        self._site = site
        self._racks = racks
        self._reorders = reorders  # hardware may take writes in another order
        self._below = {c.cap: [racks[r.name] for r in site.under(c.cap)] for c in site.caps}
        self._above = {r.name: [c for c in self._below if racks[r.name] in self._below[c]]
                       for r in site.racks}  # fmt: skip
        self._least_w = {cap.cap: site.least_w(cap.cap) for cap in site.caps}
        self.cap_w = {cap.cap: cap.limit_w for cap in site.caps}
        self._falls: dict[str, list[_Fallen]] = {cap.cap: [] for cap in site.caps}
        self._resets: dict[str, _Reset] = {}
        self._twins_until_s: dict[str, float] = {}
        self._trouble_until_s = float("-inf")
        self.looks = 0
        self.peak_share = 0.0

    # ---- what it is told ---------------------------------------------------------

    def set_cap(self, cap: str, limit_w: int, now: float) -> None:
        if limit_w < self.cap_w[cap]:
            falls = [f for f in self._falls[cap] if now - f.at_s < FALLS_KEPT_S]
            self._falls[cap] = [*falls, _Fallen(now, self.cap_w[cap])]
        self.cap_w[cap] = limit_w

    def trouble(self, until_s: float) -> None:
        """Something goes wrong until then: the wide window counts, and a little longer."""
        self._trouble_until_s = max(self._trouble_until_s, until_s + TROUBLE_S)

    def expect_reset(self, rack: SimRack, until_s: float) -> None:
        """The rack's hardware is about to reset itself; until then it is to be set back."""
        self._through_w(rack, until_s)  # an earlier one may be over
        cover_w = rack.hardware.worst_w
        earlier = self._resets.get(rack.name)
        if earlier is not None:
            cover_w = min(cover_w, earlier.cover_w)
        self._resets[rack.name] = _Reset(cover_w, until_s)

    def expect_twins(self, rack: SimRack, until_s: float) -> None:
        """Two processes write to one hardware: neither can promise for the other."""
        self._twins_until_s[rack.name] = until_s

    # ---- when it looks -----------------------------------------------------------

    def look(self, now: float) -> None:
        """At everything. Raises Violation."""
        for cap in self.cap_w:
            self._look_at_sum(cap, now, None)
        for rack in self._racks.values():
            self.look_at_promise(rack, now)

    def look_at(self, rack: SimRack, now: float, *, raised: bool) -> None:
        """At a rack whose hardware has changed, and at the caps above it."""
        for cap in self._above[rack.name]:
            self._look_at_sum(cap, now, rack if raised else None)
        self.look_at_promise(rack, now)

    def look_at_grant(self, rack: str, grant: Grant, now: float) -> None:
        """Protocol B3, where nothing else has gone wrong lately: the broker knows the fall."""
        if not grant.may_raise or now <= self._trouble_until_s:
            return
        for cap in self._above[rack]:
            through_w = sum(self._through_w(below, now) for below in self._below[cap])
            allowed_w = self._allowed_w(cap, now, window_s=TICK_S + HEARD_S)
            if through_w > allowed_w:
                why = f"the broker raises {rack} all the same"
                self._condemn(cap, through_w, allowed_w, why, now)

    def look_at_raise(self, rack: SimRack, to_w: int, granted_w: int, now: float) -> None:
        """Protocol R2, R4: a raising write is one that was granted to this process just now."""
        if to_w > granted_w and rack.name not in self._resets and not self._has_twin(rack, now):
            raise Violation(
                f"t={now:.3f} {rack.name}: writes {to_w} W, was granted a raise to {granted_w} W"
            )

    def look_at_journal(
        self, rack: SimRack, ballot: Ballot, boot: int, disk: Disk, now: float
    ) -> None:
        """Protocol R1, R10, B6: what is said is what would be remembered after a crash now."""
        record = disk.record
        if record is None or record.ballot < ballot or record.boot < boot:
            known = None if record is None else (str(record.ballot), record.boot)
            said = (str(ballot), boot)
            raise Violation(f"t={now:.3f} {rack.name}: says {said}, its disk has {known}")

    def look_at_leader(self, rack: SimRack, disk: Disk, now: float) -> None:
        """Protocol R11: who has forgotten who is counted leads nobody."""
        if disk.was_lost:
            raise Violation(f"t={now:.3f} {rack.name}: leads, and has forgotten who is counted")

    # ---- the sum ---------------------------------------------------------------

    def _look_at_sum(self, cap: str, now: float, raised: SimRack | None) -> None:
        self.looks += 1
        racks = self._below[cap]
        through_w = sum([rack.hardware.lets_through_w for rack in racks])
        self.peak_share = max(self.peak_share, through_w / max(1, self.cap_w[cap]))
        if through_w <= self.cap_w[cap]:
            return
        through_w = sum(self._through_w(rack, now) for rack in racks)
        allowed_w = self._allowed_w(cap, now)
        if through_w <= allowed_w:
            return
        excused = [rack for rack in racks if now < rack.excused_until_s]
        if raised is not None and raised not in excused:
            self._condemn(cap, through_w, allowed_w, f"{raised.name} was raised", now)
        others = [rack for rack in racks if rack not in excused]
        others_w = sum(self._through_w(rack, now) for rack in others)
        least_w = sum(rack.least_w for rack in others)
        excused_w = through_w - others_w
        if not excused or others_w > max(least_w, allowed_w - excused_w):
            self._condemn(cap, through_w, allowed_w, "the living are not down", now)

    def _through_w(self, rack: SimRack, now: float) -> int:
        """What the rack's hardware lets through, but for a reset that is still to be noticed."""
        through_w = rack.hardware.lets_through_w
        reset = self._resets.get(rack.name)
        if reset is None:
            return through_w
        if through_w <= reset.cover_w:
            del self._resets[rack.name]
            return through_w
        open_still = rack.process is None or now < max(reset.until_s, rack.excused_until_s)
        return reset.cover_w if open_still else through_w

    def _allowed_w(self, cap: str, now: float, window_s: float | None = None) -> int:
        """The cap in force, or what it was within the window before; never below the least."""
        window_s = self._window_s(now) if window_s is None else window_s
        recent = [f.from_w for f in self._falls[cap] if now - f.at_s <= window_s]
        return max([self.cap_w[cap], self._least_w[cap], *recent])

    def _window_s(self, now: float) -> float:
        actuators = [rack.actuator for rack in self._site.racks]
        if now > self._trouble_until_s:
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

    def look_at_promise(self, rack: SimRack, now: float) -> None:
        controller = rack.controller
        if controller is None:
            return
        promise_w = controller.promise_w
        worst_w = rack.hardware.worst_w
        if worst_w <= promise_w or self._has_twin(rack, now):
            return
        reset = self._resets.get(rack.name)
        if reset is not None and now < max(reset.until_s, rack.excused_until_s):
            return
        raise Violation(
            f"t={now:.3f} {rack.name}: its hardware may let through {worst_w} W,"
            f" it promises {promise_w} W"
        )

    def _has_twin(self, rack: SimRack, now: float) -> bool:
        return rack.twin is not None or now < self._twins_until_s.get(rack.name, 0.0)
