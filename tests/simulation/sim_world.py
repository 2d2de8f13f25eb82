"""One simulated site from its seed: the plant, the net, the racks and what befalls them.

Everything that happens follows from the seed. Faults end `RECOVERY_S` before the end; what
has to come back by itself has the rest of the time (`sim_recovery`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from sim_fates import Fates, is_broker
from sim_hardware import hardware_of
from sim_judge import Judge, Violation
from sim_rack import SimRack
from sim_recovery import Recovery
from sim_server import Cut, Server
from sim_site import TICK_S, SimSite, site_of
from sim_sources import PLANT, Sources
from sim_timeline import Timeline
from sim_weather import Weather, weather_of

RECOVERY_S = 50.0  # before the end everything works again
MESSAGES_PER_S_MAX = 140  # of one controller, and for each rack
MESSAGES_PER_RACK_MAX = 10


class World:
    def __init__(self, seed: int, *, tracing: bool = False, weather: Weather | None = None) -> None:
        self.seed = seed
        self.trace_lines: list[str] = []
        self._tracing = tracing
        rng = Random(seed)
        self.site = self.make_site(rng)
        self.weather = self.make_weather(rng) if weather is None else weather
        self.rng = rng
        self.timeline = Timeline()
        self.server = Server(self.timeline, self.weather, Random(rng.getrandbits(64)))
        self.server.cuts[PLANT] = Cut()
        self.counts: Counter[str] = self.server.counts
        self.racks: dict[str, SimRack] = {}
        for rack in self.site.racks:
            self.server.cuts[rack.name] = Cut()
            self.racks[rack.name] = self._rack_of(rack.name)
        self.judge = Judge(self.site, self.racks, reorders=self.weather.hardware_reorders)
        self.sources = Sources(self.site, self.racks, self.server, Random(rng.getrandbits(64)))
        self.sources.trace = self.trace
        self.fates = Fates(self, Random(rng.getrandbits(64)))
        self.recovery = Recovery(self)
        self._load_varies = True
        self._split = False

    def make_site(self, rng: Random) -> SimSite:
        return site_of(rng)

    def make_weather(self, rng: Random) -> Weather:
        return weather_of(rng)

    def _rack_of(self, name: str) -> SimRack:
        spec = next(rack for rack in self.site.racks if rack.name == name)
        hardware = hardware_of(spec, self.timeline, Random(self.rng.getrandbits(64)))
        rack = SimRack(
            self.site.identity(spec),
            hardware,
            self.site.first_journal(),
            timeline=self.timeline,
            server=self.server,
            weather=self.weather,
            rng=Random(self.rng.getrandbits(64)),
            trace=self.trace,
        )

        def changed(before_w: float, by_itself: bool = False) -> None:
            through_w = hardware.lets_through_w
            if through_w != before_w and self._tracing:
                self.trace(name, f"hardware: {before_w:.0f} → {through_w} W")
            raised = through_w > before_w and not by_itself
            self.judge.look_at(rack, self.timeline.now, raised=raised)

        hardware.changed = changed

        def judge() -> Judge:  # it is made after the racks
            return self.judge

        rack.granting = lambda to, grant: judge().look_at_grant(to, grant, self.timeline.now)
        rack.raising = lambda to_w, granted_w: judge().look_at_raise(
            rack, to_w, granted_w, self.timeline.now
        )
        rack.announcing = lambda ballot, boot, disk: judge().look_at_journal(
            rack, ballot, boot, disk, self.timeline.now
        )
        rack.leading = lambda disk: judge().look_at_leader(rack, disk, self.timeline.now)
        rack.hearing = lambda cap: self.sources.heard(cap, self.timeline.now)
        rack.promising = lambda: judge().look_at_promise(rack, self.timeline.now)
        rack.struck = lambda: self.fates.crash(rack)
        rack.left_alone = lambda: self.fates.left_alone(rack)
        return rack

    def trace(self, who: str, text: str) -> None:
        if self._tracing:
            self.trace_lines.append(f"{self.timeline.now:9.3f} {who:6} {text}")

    # ---- a run -----------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Raises Violation, or AssertionError where a promise of the product's own broke."""
        for rack in self.racks.values():
            self.timeline.after(self.rng.uniform(0.0, 2.0), rack.start)
        self._every(TICK_S, self._plant_tick)
        self._every(0.25, self._look)
        self.timeline.after_each = self._expect_no_storm
        self.server.save()
        self._note_caps()
        self.judge.trouble(0.0)  # everyone starts
        faults_s = seconds - RECOVERY_S
        if self.weather.is_always_rough:
            self.judge.trouble(faults_s)
        self.fates.begin()
        self.timeline.at(faults_s, self._end_faults)
        self.timeline.run_until(faults_s)
        for at_s, expect in self.recovery.plan(faults_s, seconds):
            self.timeline.run_until(at_s)
            expect()

    def _every(self, period_s: float, happening: Callable[[], None]) -> None:
        def again() -> None:
            happening()
            self.timeline.after(period_s, again)

        self.timeline.after(period_s, again)

    def _look(self) -> None:
        self._note_caps()
        self.judge.look(self.timeline.now)

    def _note_caps(self) -> None:
        now = self.timeline.now
        for cap, was_w in self.judge.cap_w.items():
            limit_w = self.sources.in_force_w(cap, now)
            if limit_w != was_w:
                self.counts["cap falls" if limit_w < was_w else "cap rises"] += 1
                self.trace(PLANT, f"{cap} is {limit_w} W, was {was_w} W")
                self.judge.set_cap(cap, limit_w, now)

    # ---- the plant -------------------------------------------------------------

    def _plant_tick(self) -> None:
        for rack in self.racks.values():
            hardware = rack.hardware
            if self._load_varies and self.rng.random() < 0.1:
                span_w = hardware.rack.ceiling_w * self.rng.uniform(0.2, 1.1)
                hardware.load_w = min(float(hardware.rack.ceiling_w), span_w)
        self.sources.speak(self.timeline.now)
        self._note_caps()
        split = sum(is_broker(rack) for rack in self.racks.values()) > 1
        if split and not self._split:
            self.counts["split: two brokers at a time"] += 1
        self._split = split

    def change_cap(self) -> None:
        """A source of a cap says something else from now on."""
        if self.sources.change(self.timeline.now):
            self.counts["cap changed"] += 1

    def expect_a_good_division(self) -> None:
        """At the end of a run."""
        self.recovery.expect_a_good_division()

    def _end_faults(self) -> None:
        self.fates.end()
        for rack in self.racks.values():
            rack.hardware.load_w = float(rack.hardware.rack.ceiling_w)
        self._load_varies = False

    def _expect_no_storm(self) -> None:
        if self.server.busiest > MESSAGES_PER_S_MAX + MESSAGES_PER_RACK_MAX * len(self.racks):
            name = self.server.published.most_common(1)[0][0]
            raise Violation(f"t={self.timeline.now:.3f} {name} floods the MQTT server")


def run_seed(seed: int, seconds: float) -> str:
    """Runs one seed; the report of what went wrong, "" where nothing did."""
    try:
        World(seed).run(seconds)
    except (Violation, AssertionError) as fault:
        return f"{type(fault).__name__}: {fault}"
    return ""
