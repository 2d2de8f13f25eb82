"""One simulated site from its seed: the plant, the net, the racks and what befalls them.

Everything that happens follows from the seed. Faults end after `FAULTS_S` of the time;
what has to come back by itself has the rest of it.
"""

from __future__ import annotations

from random import Random

from sim_hardware import hardware_of
from sim_judge import Judge, Violation
from sim_rack import SimRack
from sim_server import Cut, Server
from sim_site import GUARD, TICK_S, SimSite, site_of
from sim_timeline import Timeline
from sim_weather import Weather, weather_of

from broker import market
from broker.messages import CapSet
from broker.topics import Kind, Topic

RECOVERY_S = 50.0  # before the end everything works again
SETTLED_S = 25.0  # and for so long before the end it has to show
MESSAGES_PER_S_MAX = 200  # of one controller: a tick's are a few per rack
PLANT = "plant"


class World:
    def __init__(self, seed: int, *, tracing: bool = False, weather: Weather | None = None) -> None:
        self.seed = seed
        self.trace_lines: list[str] = []
        self._tracing = tracing
        rng = Random(seed)
        self.site: SimSite = site_of(rng)
        self.weather = weather_of(rng) if weather is None else weather
        self.rng = rng
        self.timeline = Timeline()
        self.server = Server(self.timeline, self.weather, Random(rng.getrandbits(64)))
        self.server.cuts[PLANT] = Cut()
        self.racks: dict[str, SimRack] = {}
        for rack in self.site.racks:
            self.server.cuts[rack.name] = Cut()
            self.racks[rack.name] = self._rack_of(rack.name)
        self.judge = Judge(self.site, self.racks, reorders=self.weather.hardware_reorders)
        self._numbers = 0
        self._said_w: dict[str, int] = {}
        self._load_varies = True

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

        def changed(before_w: float) -> None:
            through_w = hardware.lets_through_w
            if through_w != before_w:
                self.trace(name, f"hardware: {before_w:.0f} → {through_w} W")
            self.judge.look(self.timeline.now, rack if through_w > before_w else None)

        hardware.changed = changed
        rack.granting = lambda to, grant: self.judge.look_at_grant(to, grant, self.timeline.now)
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
        self._every(0.25, lambda: self.judge.look(self.timeline.now))
        self.timeline.after_each = self._expect_no_storm
        self._befall("crash_every_s", self._crash)
        self._befall("cut_every_s", self._cut)
        self._befall("server_restart_every_s", self._restart_server)
        self._befall("cap_change_every_s", self._change_cap)
        self._befall("stall_every_s", self._stall)
        if self.weather.is_rough:
            self.judge.trouble_at_s = seconds - RECOVERY_S
        faults_s = seconds - RECOVERY_S
        self.timeline.at(faults_s, self._end_faults)
        self.timeline.run_until(seconds - SETTLED_S)
        self._every(TICK_S, self._expect_one_broker)
        self.timeline.run_until(seconds)
        self._expect_a_good_division()

    def _every(self, period_s: float, happening: object) -> None:
        def again() -> None:
            happening()  # type: ignore[operator]
            self.timeline.after(period_s, again)

        self.timeline.after(period_s, again)

    # ---- the plant -------------------------------------------------------------

    def _plant_tick(self) -> None:
        for rack in self.racks.values():
            hardware = rack.hardware
            if self._load_varies and self.rng.random() < 0.1:
                span_w = hardware.rack.ceiling_w * self.rng.uniform(0.2, 1.1)
                hardware.load_w = min(float(hardware.rack.ceiling_w), span_w)
        for cap, limit_w in self._said_w.items():
            self._numbers += 1
            said = CapSet(limit_w=limit_w, number=self._numbers, by=PLANT)
            self.server.publish(PLANT, Topic(Kind.CAP_SET, cap), said, False)

    def _change_cap(self) -> None:
        spec = self.rng.choice(self.site.caps)
        floors_w = sum(rack.floor_w for rack in self.site.under(spec.cap))
        share = self.rng.choice((0.1, 0.4, 0.7, 1.0))
        limit_w = int(floors_w + share * (spec.limit_w - floors_w))
        self.trace(PLANT, f"{spec.cap}: {self.judge.cap_w[spec.cap]} → {limit_w} W")
        self._said_w[spec.cap] = limit_w
        self.judge.set_cap(spec.cap, limit_w, self.timeline.now)

    # ---- what befalls it -------------------------------------------------------

    def _befall(self, kind: str, happening: object) -> None:
        def maybe() -> None:
            every_s = getattr(self.weather, kind)
            if every_s > 0:
                happening()  # type: ignore[operator]
                self.timeline.after(self.rng.expovariate(1 / every_s), maybe)

        every_s = getattr(self.weather, kind)
        if every_s > 0:
            self.timeline.after(self.rng.expovariate(1 / every_s), maybe)

    def _some_rack(self) -> SimRack:
        return self.rng.choice(list(self.racks.values()))

    def _crash(self) -> None:
        rack = self._some_rack()
        if rack.process is None:
            return
        rack.crash()
        rack.excused_until_s = float("inf")
        quick = self.rng.random() < 0.4
        down_s = self.rng.uniform(0.05, 1.0 if quick else self.weather.down_s_max)
        self.timeline.after(down_s, lambda: self._revive(rack))

    def _revive(self, rack: SimRack) -> None:
        if rack.process is not None:
            return
        rack.start()
        actuator = rack.hardware.rack.actuator
        rack.excused_until_s = self.timeline.now + actuator.ttl_s + actuator.settle_s + 8.0

    def _cut(self) -> None:
        rack = self._some_rack()
        both, up = self.rng.random() < 0.5, self.rng.random() < 0.5
        for_s = self.rng.uniform(0.5, self.weather.cut_s_max)
        held = self.rng.random() < 0.5
        self.trace(rack.name, f"cut off: up={both or up} down={both or not up} for {for_s:.1f} s")
        self.server.cut(rack.name, up=both or up, down=both or not up, held=held, for_s=for_s)

    def _restart_server(self) -> None:
        self.trace("server", "restarts without its memory")
        self.server.restart(self.rng.uniform(0.1, 5.0))

    def _stall(self) -> None:
        rack = self._some_rack()
        if rack.process is not None:
            for_s = self.rng.uniform(0.1, self.weather.stall_s_max)
            self.trace(rack.name, f"stalls for {for_s:.1f} s")
            rack.process.stall(for_s)

    def _end_faults(self) -> None:
        self.trace("world", "faults end")
        self.weather.calm()
        self._still_load()
        for rack in self.racks.values():
            self.server.cuts[rack.name] = Cut()
            if rack.process is None:
                self._revive(rack)

    def _still_load(self) -> None:
        for rack in self.racks.values():
            rack.hardware.load_w = float(rack.hardware.rack.ceiling_w)
        self._load_varies = False

    # ---- afterwards ------------------------------------------------------------

    def _expect_no_storm(self) -> None:
        if self.server.busiest > MESSAGES_PER_S_MAX:
            name = self.server.published.most_common(1)[0][0][1]
            raise Violation(f"t={self.timeline.now:.3f} {name} floods the MQTT server")

    def _expect_one_broker(self) -> None:
        leads = [r.name for r in self.racks.values() if r.controller and r.controller.leads]
        if len(leads) != 1:
            raise Violation(f"t={self.timeline.now:.3f} brokers after the faults: {leads}")

    def _expect_a_good_division(self) -> None:
        limits_w = {name: rack.hardware.lets_through_w for name, rack in self.racks.items()}
        room_w = {
            cap: int(limit_w * (1 - GUARD)) - sum(limits_w[r.name] for r in self.site.under(cap))
            for cap, limit_w in self.judge.cap_w.items()
        }
        outlets = [r for r in self.racks.values() if r.hardware.rack.actuator.kind == "outlets"]
        all_steps_w = sum(self._step_w(rack) for rack in outlets)
        for name, rack in self.racks.items():
            step_w = self._step_w(rack)
            free_w = min(room_w[c] for c in room_w if rack in self._below(c))
            if rack.hardware.rack.actuator.kind == "outlets":
                step_w = all_steps_w  # the market does not try every combination of steps
            if step_w and free_w >= step_w + 5:
                raise Violation(f"{name} is at {limits_w[name]} W while {free_w} W are free")
        if all(rack.actuator.kind == "power-limit" for rack in self.site.racks):
            self._expect_the_optimum(limits_w)

    def _below(self, cap: str) -> list[SimRack]:
        return [self.racks[rack.name] for rack in self.site.under(cap)]

    def _step_w(self, rack: SimRack) -> int:
        """The rack's next step up, 0 where there is none."""
        spec = rack.hardware.rack
        if spec.actuator.kind == "power-limit":
            return min(50, max(0, spec.ceiling_w - rack.hardware.lets_through_w))
        shown = rack.hardware.settings()
        ranked = sorted(spec.actuator.outlets, key=lambda o: (-o.priority, o.number))
        off = [o.peak_w for o in ranked if shown[f"outlet.{o.number}.status"] == "off"]
        return off[0] if off else 0

    def _expect_the_optimum(self, limits_w: dict[str, int]) -> None:
        rows = [
            (r.name, float(r.floor_w), float(r.ceiling_w), r.weight, r.tier, r.cap)
            for r in self.site.racks
        ]
        caps = [
            market.MarketCap(c.cap, self.judge.cap_w[c.cap] * (1 - GUARD), c.parent)
            for c in self.site.caps
        ]
        best = market.clear(market.problem_of(rows, caps))
        for name, best_w in zip(best.racks, best.allocation_w.tolist(), strict=True):
            if abs(limits_w[name] - best_w) > 0.01 * best_w + 2:
                raise Violation(f"{name} is at {limits_w[name]} W, the optimum is {best_w} W")


def run_seed(seed: int, seconds: float) -> str:
    """Runs one seed; the report of what went wrong, "" where nothing did."""
    try:
        World(seed).run(seconds)
    except (Violation, AssertionError) as fault:
        return f"{type(fault).__name__}: {fault}"
    return ""
