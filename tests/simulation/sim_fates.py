"""What befalls a site: faults that come one by one, each kind at its own mean pace.

What is lost, late or doubled all the time is decided where it happens (`sim_server`,
`sim_device`, `sim_rack`); here are the events. Every one is told to the judge with how long
it lasts, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from sim_hardware import Meter
from sim_rack import SimRack
from sim_server import Cut

from broker.messages import Ballot, ElectionKind, ElectionMessage, Presence
from broker.topics import Kind, Topic

if TYPE_CHECKING:
    from sim_world import World

REVIVED_S = 8.0  # beside its lease and its settling time: until it is one like all others
WALL_JUMP_MS_MAX = 3_600_000.0


class Fates:
    def __init__(self, world: World, rng: Random) -> None:
        self._world = world  # whose racks and judge may change while it runs
        self._timeline = world.timeline
        self._server = world.server
        self._weather = world.weather
        self._rng = rng
        self._trace = world.trace
        self._counts = world.counts
        # Where no rack has a journal any more, the operator has to act (R11).
        self._elder = rng.choice(list(world.racks))

    def begin(self) -> None:
        self._befall("crash_every_s", lambda: self.crash(self._some_rack()))
        self._befall("cut_every_s", self._cut)
        self._befall("server_restart_every_s", self._restart_server)
        self._befall("cap_change_every_s", self._world.change_cap)
        self._befall("silence_every_s", self._silence)
        self._befall("stall_every_s", self._stall)
        self._befall("twin_every_s", self._start_twin)
        self._befall("reset_every_s", self._reset)
        self._befall("meter_every_s", self._spoil_meter)
        self._befall("election_every_s", self._force_election)
        self._befall("clock_jump_every_s", self._jump_clock)

    def end(self) -> None:
        """Everyone is up, connected and has a journal; what is silent may stay so."""
        self._trace("world", "faults end")
        self._weather.calm()
        self._world.sources.settle(self._timeline.now)
        for rack in self._world.racks.values():
            self._server.cuts[rack.name] = Cut()
            rack.clock_known_at_s = min(rack.clock_known_at_s, self._timeline.now)
            rack.hardware.show(Meter.GOOD)
            if rack.process is None:
                self.revive(rack)

    def _befall(self, kind: str, happening: Callable[[], None]) -> None:
        def maybe() -> None:
            every_s = getattr(self._weather, kind)
            if every_s > 0:
                happening()
                self._timeline.after(self._rng.expovariate(1 / every_s), maybe)

        every_s = getattr(self._weather, kind)
        if every_s > 0:
            self._timeline.after(self._rng.expovariate(1 / every_s), maybe)

    def _some_rack(self) -> SimRack:
        return self._rng.choice(list(self._world.racks.values()))

    def _trouble(self, for_s: float) -> None:
        self._world.judge.trouble(self._timeline.now + for_s)

    # ---- processes -------------------------------------------------------------

    def crash(self, rack: SimRack) -> None:
        """Also from within: a process may die between two effects of one decision."""
        if rack.process is None:
            return
        rack.crash()
        if rack.process is not None:  # the twin goes on
            self._world.judge.expect_twins(rack, self._excused_until_s(rack))
            return
        quick = self._rng.random() < 0.4
        down_s = self._rng.uniform(0.05, 1.0 if quick else self._weather.down_s_max or 1.0)
        if rack.name != self._elder and self._rng.random() < self._weather.journal_lost:
            self._trace(rack.name, "loses its journal")
            self._counts["journal lost"] += 1
            rack.disk.record, rack.disk.was_lost = None, True
        self._lie_down(rack, down_s)

    def left_alone(self, rack: SimRack) -> None:
        """Ended for a twin that is gone as well: somebody has to start it again."""
        self._trace(rack.name, "nobody runs it any more")
        self._lie_down(rack, self._rng.uniform(3.0, 10.0))

    def _lie_down(self, rack: SimRack, for_s: float) -> None:
        rack.excused_until_s = float("inf")
        self._trouble(for_s)
        self._timeline.after(for_s, lambda: self.revive(rack))

    def revive(self, rack: SimRack) -> None:
        if rack.process is not None:
            return
        rack.start()
        rack.excused_until_s = self._excused_until_s(rack)
        self._trouble(rack.clock_known_at_s - self._timeline.now)

    def _excused_until_s(self, rack: SimRack) -> float:
        actuator = rack.hardware.rack.actuator
        return self._timeline.now + actuator.ttl_s + actuator.settle_s + REVIVED_S

    def _start_twin(self) -> None:
        rack = self._some_rack()
        record = rack.disk.record
        if rack.process is None or rack.twin is not None or record is None:
            return
        back = self._rng.choice((0, 1, 1, 4))  # a newer boot, the same one, an older one
        copy = replace(record, boot=max(0, record.boot - back))
        rack.start_twin(copy)
        self._world.judge.expect_twins(rack, float("inf"))
        self._trouble(20.0)
        self._watch_twins(rack)

    def _watch_twins(self, rack: SimRack) -> None:
        """Until one of them is gone, and its last writes and promises with it."""
        if rack.twin is not None:
            self._timeline.after(1.0, lambda: self._watch_twins(rack))
            self._trouble(1.0)
        else:
            rack.excused_until_s = max(rack.excused_until_s, self._excused_until_s(rack))
            self._world.judge.expect_twins(rack, self._excused_until_s(rack))

    def _stall(self) -> None:
        rack = self._some_rack()
        if rack.process is not None:
            for_s = self._rng.uniform(0.1, self._weather.stall_s_max)
            self._trace(rack.name, f"stalls for {for_s:.1f} s")
            self._counts["stall"] += 1
            self._trouble(for_s)
            rack.process.stall(for_s)

    def _jump_clock(self) -> None:
        rack = self._some_rack()
        jump_ms = self._rng.uniform(0.0, WALL_JUMP_MS_MAX)
        self._counts["clock jump"] += 1
        self._trace(rack.name, f"its wall clock jumps by {jump_ms / 1000:.0f} s")
        rack.wall_offset_ms += jump_ms

    # ---- the net -----------------------------------------------------------------

    def _cut(self) -> None:
        rack = self._some_rack()
        both, up = self._rng.random() < 0.5, self._rng.random() < 0.5
        for_s = self._rng.uniform(0.5, self._weather.cut_s_max)
        held = self._rng.random() < 0.5
        self._trace(rack.name, f"cut off: up={both or up} down={both or not up} for {for_s:.1f} s")
        self._counts[f"cut {'both ways' if both else 'up' if up else 'down'}"] += 1
        self._trouble(for_s)
        self._server.cut(rack.name, up=both or up, down=both or not up, held=held, for_s=for_s)

    def _restart_server(self) -> None:
        memory = self._rng.choice(("none", "all", "old"))
        away_s = self._rng.uniform(0.1, 5.0)
        self._trace("server", f"restarts, and remembers {memory}")
        self._counts[f"server back with its memory: {memory}"] += 1
        self._trouble(away_s)
        self._server.restart(away_s, memory)

    def _force_election(self) -> None:
        """Nobody died, but somebody says so; or a ballot turns up that nobody holds."""
        leads = [rack.name for rack in self._world.racks.values() if is_broker(rack)]
        if not leads:
            return
        self._counts["forced election"] += 1
        self._trouble(5.0)
        if self._rng.random() < 0.5:
            self._trace("world", f"{leads[0]} is said to be offline")
            self._server.say(Topic(Kind.ONLINE, leads[0]), Presence.OFFLINE)
            return
        rack = self._some_rack()
        term = max(r.disk.record.ballot.term for r in self._world.racks.values() if r.disk.record)
        ballot = Ballot(term + self._rng.randint(0, 2), rack.name)
        self._trace("world", f"a ballot {ballot} turns up")
        asks = ElectionMessage(
            kind=ElectionKind.ELECTION, rack=rack.name, rank=0, ballot=ballot, instance="nobody"
        )
        self._server.say(Topic(Kind.ELECTION), asks)

    # ---- caps, devices -------------------------------------------------------------

    def _silence(self) -> None:
        if self._world.sources.fall_silent(self._timeline.now):
            self._counts["source silent"] += 1

    def _reset(self) -> None:
        rack = self._some_rack()
        actuator = rack.hardware.rack.actuator
        never_started = rack.process is None and not rack.excused_until_s
        if actuator.kind == "none" or never_started:
            return
        full = self._rng.random() < 0.6
        self._trace(rack.name, f"its hardware resets itself to {'full' if full else 'nothing'}")
        self._counts[f"reset to {'full' if full else 'nothing'}"] += 1
        poll_s = rack.hardware.rack.devices[0].poll_s
        noticed_s = 2 * poll_s + 2 * actuator.effect_delay_s + 3.0
        if self._weather.is_always_rough or self._weather.stall_every_s:
            noticed_s += 15.0
        self._trouble(noticed_s)
        if full:
            self._world.judge.expect_reset(rack, self._timeline.now + noticed_s)
        rack.hardware.reset(full=full)

    def _spoil_meter(self) -> None:
        rack = self._some_rack()
        meter = self._rng.choice((Meter.STOPS, Meter.LOW, Meter.HANGS))
        self._trace(rack.name, f"its meter {meter}")
        self._counts[f"meter {meter}"] += 1
        rack.hardware.show(meter)
        self._timeline.after(self._rng.uniform(3.0, 25.0), lambda: rack.hardware.show(Meter.GOOD))


def is_broker(rack: SimRack) -> bool:
    return any(p is not None and p.controller.leads for p in (rack.process, rack.twin))
