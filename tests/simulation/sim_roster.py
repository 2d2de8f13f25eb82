"""A simulated site whose racks come and go: what `sim_world` does, and beside it

- racks that no site file lists arrive, with their hardware at 0, and ask to be counted;
- racks are switched off, and the operator says so until they are counted no more, or
  until somebody loses patience; sooner or later they are switched on again, with the
  journal that they had;
- racks that were turned down to 0 by hand say goodbye by themselves.

Only racks with a power limit go: hardware with outlets draws its base load always. The
judge counts whatever hardware lets through, of members or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from msgspec.structs import replace as changed
from sim_hardware import Hardware, LimitHardware
from sim_judge import Judge, Violation
from sim_rack import SimRack
from sim_server import Cut
from sim_site import GUARD, SimSite, site_of
from sim_sources import PLANT
from sim_weather import PLAIN, Weather, weather_of
from sim_world import World

from broker.messages import Beat, Leave, Report, Roster, RosterRack
from broker.node import Identity
from broker.roster import rack_of
from broker.topics import Kind, Topic
from firmware_py.site_types import Rack

NEWCOMERS_MAX = 2
RANK_FIRST = 100  # of newcomers; no rack of the file has such a one
WORD_S_MAX = 25.0  # so long the operator repeats that a rack is gone
QUIET_S = 30.0  # before the faults end nobody is switched off any more


@dataclass(slots=True)
class Counted:
    """What happened, for the test of whether anything did."""

    admitted: int = 0
    left: int = 0
    gave_up: int = 0
    goodbyes: int = 0
    refused: int = 0
    rosters: set[str] = field(default_factory=set)


class RosterWorld(World):
    """`leave_every_s`: mean seconds between racks that are switched off; 0 never."""

    def __init__(
        self,
        seed: int,
        *,
        tracing: bool = False,
        weather: Weather | None = None,
        leave_every_s: float = 25.0,
    ) -> None:
        super().__init__(seed, tracing=tracing, weather=weather)
        self.counted = Counted()
        self._leave_every_s = leave_every_s
        self._leaves_until_s = 0.0
        self._founders = self.site = _with_ranks_of_their_own(self.site)
        dice = Random(seed + 1_000_003)
        specs = [_newcomer(dice, n, self.site) for n in range(dice.randint(1, NEWCOMERS_MAX))]
        self.site = replace(self.site, racks=(*self.site.racks, *specs))
        self._newcomers: list[SimRack] = []
        for rack in self.racks.values():
            rack.me = replace(rack.me, roster=self.site.roster, is_open=True)
        for spec in specs:
            self.server.cuts[spec.name] = Cut()
            rack = self._rack_of(spec.name)
            rack.me = _identity(self._founders, spec, rack.me)
            _switch_off(rack.hardware)
            self._newcomers.append(rack)
        everybody = {**self.racks, **{rack.name: rack for rack in self._newcomers}}
        self.judge = Judge(self.site, everybody, reorders=self.weather.hardware_reorders)

    def make_site(self, rng: Random) -> SimSite:
        return site_of(rng, plain=True)

    def make_weather(self, rng: Random) -> Weather:
        return weather_of(rng, PLAIN)

    def run(self, seconds: float) -> None:
        self._leaves_until_s = seconds - 50.0 - QUIET_S
        for rack in self._newcomers:
            self.timeline.at(self.rng.uniform(5.0, 45.0), lambda r=rack: self._arrive(r))
        self._next_leave()
        self._every(0.5, self._note)
        super().run(seconds)

    def change_cap(self) -> None:
        """Never below the floors of all who may be counted, never above the file's limit."""
        spec = self.rng.choice(self.site.caps)
        floors_w = sum(rack.floor_w for rack in self.site.under(spec.cap))
        share = self.rng.choice((0.1, 0.4, 0.7, 1.0))
        limit_w = min(spec.limit_w, int(floors_w + share * max(0, spec.limit_w - floors_w)))
        self.sources.say(spec.cap, limit_w, self.timeline.now)

    # ---- who comes and goes ----------------------------------------------------

    def _arrive(self, rack: SimRack) -> None:
        self.racks[rack.name] = rack
        rack.start()

    def _next_leave(self) -> None:
        if self._leave_every_s > 0:
            self.timeline.after(self.rng.expovariate(1 / self._leave_every_s), self._leave)

    def _leave(self) -> None:
        if self.timeline.now > self._leaves_until_s:
            return
        self._next_leave()
        able = [r for r in self.racks.values() if isinstance(r.hardware, LimitHardware)]
        up = [rack for rack in able if rack.process is not None]
        if not up or len(self.racks) < 3:
            return
        rack = self.rng.choice(up)
        if self.rng.random() < 0.3:
            self._turn_down(rack)
        else:
            self._switch_off(rack)

    def _switch_off(self, rack: SimRack) -> None:
        """The operator pulls the plug, and says so."""
        rack.crash()
        rack.excused_until_s = float("inf")
        _switch_off(rack.hardware)
        self.trace(rack.name, "is switched off by the operator")
        self.racks.pop(rack.name)  # nothing else befalls it
        patient_until_s = self.timeline.now + self.rng.uniform(5.0, WORD_S_MAX)
        self.timeline.after(0.5, lambda: self._say_gone(rack, patient_until_s))

    def _say_gone(self, rack: SimRack, until_s: float) -> None:
        roster = self.server.retained.get(Topic(Kind.ROSTER))
        beat = self.server.retained.get(Topic(Kind.BEAT))
        gone = isinstance(roster, Roster) and rack_of(roster, rack.name) is None
        if gone or self.timeline.now > until_s:
            self.counted.left += gone
            self.counted.gave_up += not gone
            self.trace(rack.name, "is counted no more" if gone else "is left as it is")
            away_s = self.rng.uniform(0.1, 10.0)
            self.timeline.after(away_s, lambda: self._switch_on(rack))
            return
        report = self.server.retained.get(Topic(Kind.REPORT, rack.name))
        if isinstance(beat, Beat):
            known = isinstance(report, Report)
            leave = Leave(
                rack=rack.name,
                by="operator",
                ballot=beat.ballot,
                boot=report.boot if known else None,
                seq=report.seq if known else None,
            )
            self.server.publish(PLANT, Topic(Kind.LEAVE), leave, False)
        self.timeline.after(1.0, lambda: self._say_gone(rack, until_s))

    def _switch_on(self, rack: SimRack) -> None:
        self.racks[rack.name] = rack
        if not self._load_varies:
            rack.hardware.load_w = float(rack.hardware.rack.ceiling_w)
        self.fates.revive(rack)

    def _turn_down(self, rack: SimRack) -> None:
        """Somebody turns its hardware down by hand; the rack says goodbye if it sees that."""
        self.trace(rack.name, "is turned down to 0")
        before_w = rack.hardware.lets_through_w
        _switch_off(rack.hardware)
        rack.hardware.changed(before_w)
        until_s = self.timeline.now + 8.0
        self.timeline.after(0.05, lambda: self._say_goodbye(rack, until_s))

    def _say_goodbye(self, rack: SimRack, until_s: float) -> None:
        process = rack.process
        if process is None or self.timeline.now > until_s:
            return
        effects = process.controller.leave(now=self.timeline.now)
        if not effects:
            self.timeline.after(0.05, lambda: self._say_goodbye(rack, until_s))
            return
        self.trace(rack.name, "says goodbye")
        self.counted.goodbyes += 1
        process.obey(effects)
        back_s = self.rng.uniform(10.0, 30.0)
        self.timeline.after(back_s, lambda: self._restart(rack))

    def _restart(self, rack: SimRack) -> None:
        if rack.process is not None and rack.name in self.racks:
            rack.crash()
            rack.excused_until_s = float("inf")
            self.timeline.after(0.5, lambda: self.fates.revive(rack))

    # ---- what was seen ---------------------------------------------------------

    def _note(self) -> None:
        roster = self.server.retained.get(Topic(Kind.ROSTER))
        if isinstance(roster, Roster) and str(roster.name) not in self.counted.rosters:
            self.counted.rosters.add(str(roster.name))
            racks = " ".join(r.rack + "-" * r.leaving for r in roster.racks)
            self.trace("roster", f"{roster.name}: {racks}")
            newcomers = {rack.name for rack in self._newcomers}
            self.counted.admitted += sum(r.rack in newcomers for r in roster.racks)

    def expect_a_good_division(self) -> None:
        """Everybody goes by one roster, whoever is alive is counted, and the room is used."""
        rosters = {
            rack.name: rack.process.controller.roster_name
            for rack in self.racks.values()
            if rack.process is not None and rack.process.controller.is_member
        }
        if len(set(rosters.values())) > 1:
            raise Violation(f"rosters after the faults: {rosters}")
        out = [
            rack.name
            for rack in self.racks.values()
            if rack.process is not None and not rack.process.controller.is_member
        ]
        drawing = [name for name in out if self.racks[name].hardware.lets_through_w > 0]
        if drawing:
            raise Violation(f"not counted, and not at 0: {drawing}")
        for name in out:
            self.counted.refused += 1
            self.racks.pop(name)
        members = tuple(rack for rack in self.site.racks if rack.name in self.racks)
        self.site = replace(self.site, racks=members)
        self._expect_no_room_left()

    def _expect_no_room_left(self) -> None:
        """Whoever could be given more has nothing left to be given."""
        limits_w = {name: rack.hardware.lets_through_w for name, rack in self.racks.items()}
        for rack in self.racks.values():
            spec = rack.hardware.rack
            below = {cap.cap: {r.name for r in self.site.under(cap.cap)} for cap in self.site.caps}
            above = [cap for cap in self.site.caps if rack.name in below[cap.cap]]
            free_w = min(
                int(self.judge.cap_w[cap.cap] * (1 - GUARD))
                - sum(limits_w[name] for name in below[cap.cap])
                for cap in above
            )
            limit_w = limits_w[rack.name]
            wants_w = min(50, spec.ceiling_w - limit_w) if _is_stepless(rack) else 0
            if wants_w and free_w > wants_w + 5:
                raise Violation(f"{rack.name} is at {limit_w} W while {free_w} W are free")


def _is_stepless(rack: SimRack) -> bool:
    return rack.hardware.rack.actuator.kind == "power-limit"


def _switch_off(hardware: Hardware) -> None:
    """At 0 W, and nothing on its way."""
    assert isinstance(hardware, LimitHardware)
    off_w = -float(hardware.rack.actuator.base_w)
    hardware._register_w = off_w
    for number, (name, _) in hardware._pending.items():
        hardware._pending[number] = (name, off_w)


def _with_ranks_of_their_own(site: SimSite) -> SimSite:
    """Who comes back is refused where its rank is taken."""
    ranks = {rack.name: rack.rank + number for number, rack in enumerate(site.racks)}
    racks = tuple(changed(rack, rank=ranks[rack.name]) for rack in site.racks)
    listed = tuple(changed(rack, rank=ranks[rack.rack]) for rack in site.roster.racks)
    return replace(site, racks=racks, roster=changed(site.roster, racks=listed))


def _newcomer(dice: Random, number: int, site: SimSite) -> Rack:
    """A rack like one of the site's with a power limit, or small enough to be one."""
    cap = dice.choice(site.caps[1:] or site.caps).cap
    models = [rack for rack in site.racks if rack.actuator.kind == "power-limit"]
    model = dice.choice(models or list(site.racks))
    actuator = model.actuator
    if actuator.kind != "power-limit":
        actuator = changed(actuator, kind="power-limit", outlets=(), base_w=0)
    return changed(
        model,
        name=f"n{number}",
        rank=RANK_FIRST + number,
        cap=cap,
        floor_w=max(actuator.base_w, dice.choice((60, 120, model.floor_w))),
        ceiling_w=dice.randrange(600, 2500, 10),
        actuator=actuator,
    )


def _identity(founders: SimSite, rack: Rack, like: Identity) -> Identity:
    mine = RosterRack(
        rack=rack.name,
        rank=rack.rank,
        floor_w=rack.floor_w,
        ceiling_w=rack.ceiling_w,
        cap=rack.cap,
        weight=rack.weight,
        tier=rack.tier,
    )
    return replace(like, roster=founders.roster, joins=mine, is_open=True)


def run_seed(seed: int, seconds: float, weather: Weather | None = None) -> str:
    """Runs one seed; what went wrong, "" where nothing did."""
    try:
        RosterWorld(seed, weather=weather).run(seconds)
    except (Violation, AssertionError) as fault:
        return f"{type(fault).__name__}: {fault}"
    return ""
