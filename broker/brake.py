"""The brake: what a rack does by itself when a cap's meter shows too much for too long.

The protocol keeps the sum of what racks *promise* under a cap. It does not see what
nobody promised: a load that is in no site file, a meter of a rack that lies low. Where
a cap has `brake_after_s`, every controller under it listens to the feed's own meter
(`caps/<cap>/measured`) and lowers its rack to the floor when that stays above the cap
in force, whoever is broker and whether anybody is.

- One wrong meter must not darken the room at once. The racks under the cap stand in a
  row, the lowest tier first, then the lowest rank; each reading that is still above the
  cap brakes the next one, a tick after the last. With more than `STEPS_MAX` racks
  several brake at a time, so that the row is through within so many ticks.
- What counts is when a reading was *taken*. The brake needs readings that span
  `brake_after_s`, all above the cap, none older than `STALE_TICKS` nor further apart,
  and each further step a reading that was taken after the step before. A single spike,
  a value that is said again and again, a retained message: none of them brakes.
- Stale or absent measurements never brake, and never release: silence changes nothing.
  Whoever wants out of a brake whose meter has died restarts the controller.
- It is released from the other end, the highest tier first: one step for every
  `RELEASE_S` of readings at or below the cap less `RELEASE_SHARE`. In between, nothing
  changes. While any rack is braked and the reading is above that lower mark, nobody
  under the cap takes a raise: what the braked ones gave up is not for the others.
- Nor does anybody take a raise while a fresh reading is above the cap, braked or not.

Every controller counts for itself, from the same readings: no message makes anybody
brake. One that has just started begins anew, and is not raised meanwhile. What a braked
rack cannot use the broker keeps for it, since it goes on reporting what it wants.

The row is the roster's. All doors are pure; there are no deadlines, readings drive it.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.caps import path_of
from broker.effects import Event, Level, event
from broker.messages import CapMeasured, Roster

STALE_TICKS = 5.0  # an older reading says nothing about now
STEP_TICKS_MIN = 0.75  # what is said once a tick does not come exactly a tick apart
STEPS_MAX = 20  # of a row of racks; longer ones brake several at a time
RELEASE_SHARE = 0.05  # so far below the cap it is calm
RELEASE_S = 30.0  # of calm, for each step back


@dataclass(frozen=True, slots=True)
class Braked:
    """By which cap a rack is held at its floor, and below what it is let go."""

    cap: str
    cap_w: int
    release_w: int


@dataclass(slots=True)
class _Watch:
    """One cap with a brake, from one rack's place in its row."""

    place: int  # of this rack, from 0
    steps: int  # of the whole row
    brake_after_s: float
    taken_at_s: float = float("-inf")  # the newest reading that counts
    over_since_s: float | None = None  # taken when the first of those above the cap was
    calm_since_s: float | None = None
    stepped_at_s: float = float("-inf")
    depth: int = 0  # how many steps of the row are braked
    is_calm: bool = True  # the newest reading is at or below the lower mark
    cap_w: int = 0  # in force when it was heard


class Brake:
    """One rack's brake. Powers in W, now in monotonic seconds."""

    def __init__(self, rack: str, roster: Roster, *, tick_s: float) -> None:
        self._rack = rack
        self._tick_s = tick_s
        self._watches: dict[str, _Watch] = {}
        self.count(roster)

    def count(self, roster: Roster) -> None:
        """Take the row of another roster; what the meters have shown stays."""
        before, self._watches = self._watches, {}
        mine = next((rack for rack in roster.racks if rack.rack == self._rack), None)
        if mine is None:
            return
        for cap in roster.caps:
            if cap.brake_after_s is None or cap.cap not in path_of(roster.caps, mine.cap):
                continue
            place, steps = place_in(roster, cap.cap, self._rack)
            watch = before.get(cap.cap, _Watch(place, steps, cap.brake_after_s))
            watch.place, watch.steps, watch.brake_after_s = place, steps, cap.brake_after_s
            watch.depth = min(watch.depth, steps)
            self._watches[cap.cap] = watch

    def hear(
        self, cap: str, measured: CapMeasured, *, cap_w: int, live: bool, now: float
    ) -> list[Event]:
        """The feed's meter spoke; `cap_w` is the cap in force."""
        watch = self._watches.get(cap)
        taken_at_s = now - measured.age_s
        stale_s = STALE_TICKS * self._tick_s
        if watch is None or not live or measured.age_s > stale_s:
            return []
        if taken_at_s <= watch.taken_at_s:
            return []  # said again, or overtaken by a newer one
        if taken_at_s - watch.taken_at_s > stale_s:  # nobody knows what was in between
            watch.over_since_s = watch.calm_since_s = None
        watch.taken_at_s = taken_at_s
        was = self.braked
        self._judge(watch, measured.power_w, cap_w, now)
        return self._told(was, measured.power_w)

    @property
    def braked(self) -> Braked | None:
        """By which cap this rack is held at its floor, if by one."""
        for cap, watch in self._watches.items():
            if watch.depth > watch.place:
                return Braked(cap, watch.cap_w, _release_w(watch.cap_w))
        return None

    def allows_raise(self, now: float) -> bool:
        """False while this rack is braked, or one under its caps is and it is not calm there,
        or a meter shows too much now."""
        return self.braked is None and self.held_by(now) is None

    def held_by(self, now: float) -> str | None:
        """By which cap's meter raises under it are held back, if by one."""
        held = (cap for cap, watch in self._watches.items() if self._holds(watch, now))
        return next(held, None)

    def _holds(self, watch: _Watch, now: float) -> bool:
        is_fresh = now - watch.taken_at_s <= STALE_TICKS * self._tick_s
        is_over = watch.over_since_s is not None
        return (watch.depth > 0 and not watch.is_calm) or (is_over and is_fresh)

    # ---- leaves ----------------------------------------------------------------

    def _judge(self, watch: _Watch, power_w: float, cap_w: int, now: float) -> None:
        watch.cap_w = cap_w
        watch.is_calm = power_w <= _release_w(cap_w)
        watch.calm_since_s = _since(watch.calm_since_s, watch.taken_at_s, watch.is_calm)
        watch.over_since_s = _since(watch.over_since_s, watch.taken_at_s, power_w > cap_w)
        if watch.over_since_s is not None:
            self._step_down(watch, watch.over_since_s, now)
        elif watch.calm_since_s is not None and watch.taken_at_s - watch.calm_since_s >= RELEASE_S:
            watch.depth = max(0, watch.depth - 1)
            watch.calm_since_s = watch.taken_at_s

    def _step_down(self, watch: _Watch, over_since_s: float, now: float) -> None:
        lasts = watch.taken_at_s - over_since_s > watch.brake_after_s
        is_later = watch.taken_at_s > watch.stepped_at_s
        is_due = now - watch.stepped_at_s >= STEP_TICKS_MIN * self._tick_s
        if lasts and is_later and is_due and watch.depth < watch.steps:
            watch.depth += 1
            watch.stepped_at_s = now

    def _told(self, was: Braked | None, power_w: float) -> list[Event]:
        is_ = self.braked
        if is_ is not None and was is None:
            keys = {"cap": is_.cap, "measured_w": round(power_w), "cap_w": is_.cap_w}
            return [
                event(Level.ERROR, "brake: a cap is exceeded, rack goes to its floor", **keys),
            ]
        if is_ is None and was is not None:
            return [event(Level.WARNING, "brake released", cap=was.cap, measured_w=round(power_w))]
        return []


def place_in(roster: Roster, cap: str, rack: str) -> tuple[int, int]:
    """The step at which a rack under the cap brakes, from 0, and how many steps there are."""
    row = sorted(
        (each.tier, each.rank, each.rack)
        for each in roster.racks
        if cap in path_of(roster.caps, each.cap)
    )
    at_once = -(-len(row) // STEPS_MAX)
    place = [name for _, _, name in row].index(rack) // at_once
    return place, -(-len(row) // at_once)


def _release_w(cap_w: int) -> int:
    return int(cap_w * (1 - RELEASE_SHARE))


def _since(since_s: float | None, taken_at_s: float, holds: bool) -> float | None:
    """Since when something holds without a break."""
    if not holds:
        return None
    return taken_at_s if since_s is None else since_s
