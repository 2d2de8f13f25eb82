"""One rack's controller: hardware on one side, the grant protocol on the other.

It joins the node (what is said and obeyed), the demand estimate and the limiter (what
becomes of a lease on the hardware). Like every machine here it has four doors, awaits
nothing, reads no clock and returns what is to be done. The shell around it
(`runtime`) is one loop that knows none of the rules.

Three rules are its own: when the lease ends the rack lowers itself to its floor (R6),
so it does while its brake is on (`broker/brake`), and a draw that is missing or stale
is unknown, never zero (R9).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from broker.brake import Brake
from broker.effects import (
    Effect,
    JournalRecord,
    JournalWritten,
    Lease,
    Level,
    LinkDown,
    LinkUp,
    event,
)
from broker.explain import AT_START, JUST_STARTED, LEASE_END, Cause
from broker.identity import ClockRead, Identity, RackState
from broker.messages import CapMeasured, Message
from broker.node import Node
from broker.topics import Topic
from drivers.reading import Reading, Snapshot
from firmware_py.demand import DemandEstimator
from firmware_py.limiter import (
    Command,
    CommandDone,
    LimiterEffect,
    ReadBack,
)
from firmware_py.limiter_kinds import limiter_of
from firmware_py.site_types import Rack


@dataclass(frozen=True, slots=True)
class DeviceRead:
    """One round of a device's poll, by the device's name in the site file."""

    device: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Execute:
    """Send a command to a device, once."""

    device: str
    command: Command


@dataclass(frozen=True, slots=True)
class PollNow:
    """Poll a device out of turn."""

    device: str


ControllerEffect = Effect | Execute | PollNow
Fact = DeviceRead | CommandDone | JournalWritten | LinkUp | LinkDown | ClockRead


class Controller:
    """The machine of one rack. Watts are whole, `now` is monotonic seconds."""

    def __init__(
        self, me: Identity, rack: Rack, loaded: JournalRecord | None, *, now: float
    ) -> None:
        self._rack = rack
        self._node = Node(me, loaded, now=now)
        self._limiter = limiter_of(
            rack.actuator, floor_w=rack.floor_w, ceiling_w=rack.ceiling_w, now=now
        )
        self._demand = DemandEstimator(
            floor_w=rack.floor_w,
            ceiling_w=rack.ceiling_w,
            in_steps=rack.actuator.kind == "outlets",
            effect_delay_s=rack.actuator.effect_delay_s,
        )
        self._draw: dict[tuple[str, str], Reading] = {}
        self._unread_until_s = self._node.lowers_at_s
        self._blind_until_s = now + rack.actuator.ttl_s - rack.actuator.settle_s
        self._lease_ended = False
        self._roster = self._node.place.roster
        self._brake = Brake(rack.name, self._roster, tick_s=me.timing.tick_s)
        self._is_braked = False  # and the rack was told to lower itself
        self._cause = replace(JUST_STARTED, since_s=now)

    # ---- doors -----------------------------------------------------------------

    def receive(
        self, topic: Topic, message: Message, *, retained: bool, now: float
    ) -> list[ControllerEffect]:
        """Something came over MQTT."""
        if isinstance(message, CapMeasured):
            return self._hear_meter(topic.name, message, live=not retained, now=now)
        return self._carry(self._node.receive(topic, message, retained=retained, now=now), now)

    def read(self, fact: Fact, *, now: float) -> list[ControllerEffect]:
        """A device answered or did not, a write ended, the link or the clock changed."""
        match fact:
            case DeviceRead():
                effects = self._read_device(fact, now)
            case CommandDone():
                before = (self._limiter.limit_w, self._limiter.starting)
                effects = self._to_device(self._limiter.done(fact, now=now))
                self._note_found(*before, now)
            case _:
                effects = self._carry(self._node.read(fact, now=now), now)
                self._note_roster()
        return effects

    def wake(self, *, now: float) -> list[ControllerEffect]:
        """A deadline has come."""
        effects = self._to_device(self._limiter.wake(now=now))
        effects += self._watch_lease(now)
        effects += self._watch_brake(now)
        self._node.read(self._state(now), now=now)
        return effects + self._carry(self._node.wake(now=now), now)

    def next_wake(self) -> float | None:
        times = [self._node.next_wake(), self._limiter.next_wake()]
        if not self._lease_ended and self._may_lower:
            times.append(self._lowers_at_s)
        return min((time for time in times if time is not None), default=None)

    def floor(self, *, now: float) -> list[ControllerEffect]:
        """`--floor-on-exit`: lower the rack before the process ends."""
        return self._lower_to_floor("end of the controller", "told to stop at the floor", now)

    def report(self, *, now: float) -> list[ControllerEffect]:
        """A last word before the process ends: what the hardware was left with."""
        self._node.read(self._state(now), now=now)
        return self._carry(self._node.report(now=now), now)

    def leave(self, *, now: float) -> list[ControllerEffect]:
        """Say goodbye to the site, with the hardware at 0 (protocol M3); nothing otherwise."""
        self._node.read(self._state(now), now=now)
        return self._carry(self._node.leave(now=now), now)

    def _note_roster(self) -> None:
        if self._node.place.roster is not self._roster:
            self._roster = self._node.place.roster
            self._brake.count(self._roster)

    @property
    def leads(self) -> bool:
        return self._node.leads

    @property
    def is_member(self) -> bool:
        """Counted by its own roster."""
        return self._node.place.is_member

    @property
    def roster_name(self) -> str:
        """The roster it goes by."""
        return str(self._roster.name)

    @property
    def status(self) -> str:
        """One line for whoever looks at the process."""
        role = "broker, " if self.leads else ""
        limit_w, bound_w = self._limiter.limit_w, self._limiter.bound_w
        return f"{role}limit {limit_w} W by {self._cause.set_by}, promises {bound_w} W"

    @property
    def promise_w(self) -> int:
        """bound_w, for the shell's own log."""
        return self._limiter.bound_w

    # ---- leases ----------------------------------------------------------------

    def _carry(self, effects: Iterable[Effect], now: float) -> list[ControllerEffect]:
        """Leases go to the limiter, all else to the shell."""
        out: list[ControllerEffect] = []
        for effect in effects:
            if isinstance(effect, Lease):
                out += self._obey(effect, now)
            else:
                out.append(effect)
        return out

    def _obey(self, lease: Lease, now: float) -> list[ControllerEffect]:
        self._lease_ended = False
        before_w = self._limiter.limit_w
        allows = self._brake.allows_raise(now)
        may_raise = lease.may_raise and allows
        effects = self._limiter.limit(lease.limit_w, may_raise=may_raise, now=now)
        after_w = self._limiter.limit_w
        wants_more = lease.may_raise and lease.limit_w > after_w
        held = wants_more and (self._limiter.starting or not allows)
        if after_w != before_w or not (held or self._is_braked or not self._limiter.known):
            by = f"broker {lease.key.rack}, term {lease.key.term}"
            self._put_down(Cause(by, lease.why, now, lease.cap, lease.price), before_w)
        return self._to_device(effects)

    def _watch_lease(self, now: float) -> list[ControllerEffect]:  # protocol R6
        if now < self._lowers_at_s or not self._may_lower:
            return []
        effects: list[ControllerEffect] = []
        if not self._lease_ended:
            self._lease_ended = True
            effects.append(
                event(Level.WARNING, "lease ended: rack goes to its floor", w=self._rack.floor_w)
            )
            effects += self._lower_to_floor(LEASE_END, "no newer grant came in time", now)
        return effects

    def _lower_to_floor(self, by: str, why: str, now: float) -> list[ControllerEffect]:
        before_w = self._limiter.limit_w
        effects = self._limiter.lower_to_floor(now=now)
        self._put_down(Cause(by, why, now), before_w)
        return self._to_device(effects)

    def _put_down(self, cause: Cause, before_w: int) -> None:
        """What holds the limit now; it has done so since the limit changed last."""
        changed = self._limiter.limit_w != before_w
        self._cause = cause if changed else replace(cause, since_s=self._cause.since_s)

    # ---- the brake -------------------------------------------------------------

    def _hear_meter(
        self, cap: str, measured: CapMeasured, *, live: bool, now: float
    ) -> list[ControllerEffect]:
        cap_w = self._node.cap_w(cap, now)
        if cap_w is None or not self._may_lower:
            return []
        told = self._brake.hear(cap, measured, cap_w=cap_w, live=live, now=now)
        return [*told, *self._watch_brake(now)]

    def _watch_brake(self, now: float) -> list[ControllerEffect]:
        """Braked hardware is lowered once it has been read (R7), and then stays there."""
        braked = self._brake.braked
        if braked is None:
            self._is_braked = False
            return []
        if self._is_braked or not self._limiter.known:
            return []
        self._is_braked = True
        why = f"caps/{braked.cap}/measured was above {braked.cap_w} W for too long"
        return self._lower_to_floor(f"brake of {braked.cap}", why, now)

    @property
    def _may_lower(self) -> bool:
        """Hardware that was not read yet, of a rack that nobody counts, may be at 0."""
        blind = not (self._limiter.known or self._node.place.is_member)
        return self._rack.actuator.kind != "none" and not blind

    @property
    def _lowers_at_s(self) -> float:
        """Renewals count only once the hardware has been read (R7)."""
        at_s = self._node.lowers_at_s
        if self._limiter.known:
            return at_s
        at_s = min(at_s, self._unread_until_s)
        # A rack that was left out meanwhile is at 0 (M3): its floor would be a raise. So it
        # looks first, or hears that it is counted; one that can do neither goes to the floor.
        return at_s if self._node.place.is_confirmed else max(at_s, self._blind_until_s)

    # ---- devices ---------------------------------------------------------------

    def _read_device(self, fact: DeviceRead, now: float) -> list[ControllerEffect]:
        for spec in self._rack.devices:
            if spec.name == fact.device:
                for name in spec.measures:
                    self._note_draw(spec.name, name, fact.snapshot)
        if fact.device != self._rack.actuator.device:
            return []
        before = (self._limiter.limit_w, self._limiter.starting)
        effects = self._limiter.read(
            fact.snapshot.points, now=now, asked_at_s=fact.snapshot.asked_at_s
        )
        self._note_found(*before, now)
        return self._to_device(effects)

    def _note_found(self, before_w: int, was_starting: bool, now: float) -> None:
        """The limit has followed what the hardware was found at."""
        if self._limiter.limit_w != before_w:
            by = AT_START if was_starting else "hardware"
            why = "read after the start" if was_starting else "found below the limit"
            self._put_down(Cause(by, why, now), before_w)

    def _note_draw(self, device: str, name: str, snapshot: Snapshot) -> None:
        """A missing answer leaves the last value to grow old (R9: stale_after_s)."""
        point = snapshot.points.get(name)
        if isinstance(point, Reading):
            self._draw[device, name] = point

    def _to_device(self, effects: Iterable[LimiterEffect]) -> list[ControllerEffect]:
        device = self._rack.actuator.device
        out: list[ControllerEffect] = []
        for effect in effects:
            match effect:
                case Command():
                    assert device is not None
                    out.append(Execute(device, effect))
                case ReadBack():
                    assert device is not None
                    out.append(PollNow(device))
                case _:
                    out.append(effect)
        return out

    # ---- what the rack is now --------------------------------------------------

    def _state(self, now: float) -> RackState:
        measured = self._measured(now)
        wish = self._demand.estimate(
            measured[0] if measured else None,
            now - measured[1] if measured else now,
            self._limiter.limit_w,
            now=now,
        )
        return RackState(
            bound_w=self._limiter.bound_w,
            limit_w=self._limiter.limit_w,
            next_w=self._limiter.next_w,
            demand_w=wish.wanted_w,
            measured_w=measured[0] if measured else None,
            measured_age_s=round(measured[1], 3) if measured else None,
            starting=self._limiter.starting,
            cause=self._cause,
            braked=self._brake.braked,
            held_by=self._brake.held_by(now),
        )

    def _measured(self, now: float) -> tuple[int, float] | None:
        """The rack's draw in whole watts, rounded up, and its age; None where unknown."""
        total_w, age_s, counted = 0.0, 0.0, False
        for spec in self._rack.devices:
            for name in spec.measures:
                point = self._draw.get((spec.name, name))
                if point is None or isinstance(point.value, str):
                    return None
                if now - point.taken_at_s > spec.stale_after_s:
                    return None
                total_w += point.value
                age_s = max(age_s, now - point.taken_at_s)
                counted = True
        return (max(0, math.ceil(total_w)), max(0.0, age_s)) if counted else None
