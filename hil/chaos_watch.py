"""Who can send and hear, who is back, who leads: what a run of chaos knows at each step.

It joins what we did ourselves (the ward), what was heard over MQTT (the wiretap) and what
the plant drew into one sample. A rack is

    held    nobody can move its hardware: its process is dead, stopped or still starting,
            or its devices do not answer
    able    it can send and hear, and its journal takes writes: it could lead. A connection
            that we have healed counts at once, how long the controller takes to come back
            is its own affair; a process counts from its first report
    back    nothing ails it, and it is heard
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hil.chaos_judge import LEASE_S, FloorFall, Injected, Sample
from hil.faults import HOLDS_SETTING, OF_PROCESS, Kind
from hil.plant import Plant, Watts
from hil.room import Room
from hil.ward import Ward
from hil.wiretap import Heard, Wiretap

HEARD_S = 2.5  # reports come every second
BEAT_FRESH_S = 3.0
SAID_AFTER_S = 1.0  # a report, and what explains it right behind
_UNABLE = OF_PROCESS | {Kind.CUT, Kind.STALL_UP, Kind.STALL_DOWN, Kind.DISK_FULL}


@dataclass(frozen=True, slots=True)
class _Fall:
    """A rack that went to its floor and has not been heard about it yet."""

    at_s: float  # the loop's time
    rack: str


class Watch:
    """Looks once per step; the questions are answered as of the last look."""

    def __init__(self, room: Room, ward: Ward, wiretap: Wiretap) -> None:
        self._room = room
        self._ward = ward
        self._wiretap = wiretap
        self._heard = Heard()
        self._floors_w = {rack.name: rack.floor_w for rack in room.racks}
        self._ceilings_w = {rack.name: rack.ceiling_w for rack in room.racks}
        self._limit_w: dict[str, int] = {}
        self._fallen: list[_Fall] = []
        self.leader: str | None = None
        self.held: frozenset[str] = frozenset()
        self.able: frozenset[str] = frozenset()
        self.everyone_back = False

    def sample(self, watts: Watts, cap_w: int, now_s: float, zero_s: float) -> Sample:
        """Look at everything; `now_s` and `zero_s` on the loop's clock."""
        heard = self._heard = self._wiretap.heard()
        ails, racks = self._ward.ails, self._floors_w
        reported = {rack for rack in racks if self._has_reported(rack)}
        self.held = frozenset(r for r in racks if ails.get(r) in HOLDS_SETTING or r not in reported)
        self.able = frozenset(r for r in reported if ails.get(r) not in _UNABLE)
        back = {r for r in reported - set(ails) if now_s - heard.report_at_s[r] < HEARD_S}
        server_up = self._ward.server_up and heard.connected
        self.everyone_back = server_up and len(back) == len(racks)
        fresh = now_s - heard.office_at_s < BEAT_FRESH_S
        self.leader = heard.ballot[1] if fresh and heard.ballot[1] in racks else None
        self._look_for_falls(watts.limit_w, now_s)
        draw_share, let_share = self._row_shares(watts)
        return Sample(
            time_s=now_s - zero_s,
            cap_w=cap_w,
            draw_w=watts.total_w,
            let_w=sum(watts.limit_w.values()),
            row_draw_share=draw_share,
            row_let_share=let_share,
            demand_w=watts.demand_w,
            counted_w=sum(
                max(draw_w, heard.reserve_w.get(rack, 0.0)) for rack, draw_w in watts.draw_w.items()
            ),
            limit_w=watts.limit_w,
            able=len(self.able),
            server_up=server_up,
            beat_at_s=heard.office_at_s - zero_s,
            everyone_back=self.everyone_back,
            tripped=watts.tripped,
        )

    def holds_w(self, rack: str, plant: Plant) -> int:
        """The most that the rack's hardware may hold, or come to by what was sent to it.

        Its setting, and what it promised and was granted: a stopped controller may go on
        with a raise that it was just about to write.
        """
        report = self._heard.reports.get(rack)
        bound_w = (report.bound_w if report else None) or 0.0
        reserve_w = self._heard.reserve_w.get(rack, 0.0)
        highest_w = max(plant.racks[rack].limit_w, bound_w, reserve_w)
        return min(self._ceilings_w[rack], round(highest_w))

    def falls(self, now_s: float, zero_s: float, injected: Sequence[Injected]) -> list[FloorFall]:
        """Racks that went to their floor and have said why by now."""
        known = [f for f in self._fallen if self._has_said(f) or now_s - f.at_s > 2 * LEASE_S]
        for fall in known:
            self._fallen.remove(fall)
        return [
            FloorFall(
                time_s=fall.at_s - zero_s,
                rack=fall.rack,
                said=self._said(fall),
                ailed=what_ailed(fall.rack, fall.at_s - zero_s, injected),
            )
            for fall in known
        ]

    def _has_reported(self, rack: str) -> bool:
        """Since its last start."""
        started_s = self._ward.started_at_s.get(rack, 0.0)
        return self._heard.report_at_s.get(rack, 0.0) > started_s

    def _look_for_falls(self, limit_w: dict[str, int], now_s: float) -> None:
        for rack, floor_w in self._floors_w.items():
            if self._limit_w.get(rack, 0) > floor_w >= limit_w[rack]:
                self._fallen.append(_Fall(now_s, rack))
        self._limit_w = limit_w

    def _has_said(self, fall: _Fall) -> bool:
        return self._heard.report_at_s.get(fall.rack, 0.0) > fall.at_s + SAID_AFTER_S

    def _said(self, fall: _Fall) -> str:
        if not self._has_said(fall):
            return "not heard since"
        if self._ward.started_at_s[fall.rack] > fall.at_s:
            return "was started again before it could say"
        said = self._heard.explains.get(fall.rack)
        if said is None or not said.set_by:
            return "does not say"
        return f"set by {said.set_by} ({said.why})"

    def _row_shares(self, watts: Watts) -> tuple[float, float]:
        """What is drawn and let through in the row that is nearest to its cap."""
        draws, lets = [0.0], [0.0]
        for row in self._room.rows:
            names = [rack.name for rack in self._room.racks if rack.row == row]
            draws.append(sum(watts.draw_w[name] for name in names) / self._room.row_cap_w)
            lets.append(sum(watts.limit_w[name] for name in names) / self._room.row_cap_w)
        return max(draws), max(lets)


def what_ailed(rack: str, time_s: float, injected: Sequence[Injected]) -> str:
    """What was done to the rack, or to the MQTT server, within a lease before; pure."""
    done = [
        fault.kind
        for fault in injected
        if fault.rack in ("", rack) and fault.from_s <= time_s < fault.until_s + LEASE_S
    ]
    return ", ".join(dict.fromkeys(done)) or "nothing of its own"
