"""What the plant saw, in a few numbers: did the cap hold, and how well was it used?

Pure: a row of samples and the instants of the events in, a verdict out. Nothing here
believes a controller; reports count only where the question is what was *reserved*.

    peak_share        the most that was drawn, over the cap in force, leaving out the
                      reaction window of 3 s after the cap fell
    row_peak_share    the same for the rows, whose caps never change
    under_new_cap_s   from the fall until the total is under the new cap for good
    no_broker_s       from the kill to the first live beat of another rack
    fell_to_floor     living racks whose hardware went to its floor after the kill
    use               mean of total over cap while the racks want more than the cap
    use_or_reserved   the same where a rack counts for its draw, or for what is held back
                      for it: its reserve while its controller is dead, or its bound while
                      that is above its limit. At most 1 at each instant; 10 s after time
                      0, the kill, the restart and the return are left out. None: nothing left
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

REACTION_S = 3.0
SETTLING_S = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One step of the plant, `time_s` after time 0. Every mapping is by rack (or row).

    `reserved_w` has an entry for the racks that count with something else than their draw.
    """

    time_s: float
    cap_w: int
    total_w: float
    demand_w: float
    draw_w: Mapping[str, float]
    limit_w: Mapping[str, int]
    row_share: Mapping[str, float]
    reserved_w: Mapping[str, float]
    broker: str | None
    tripped: bool


@dataclass(frozen=True, slots=True)
class Events:
    """When things happened, in seconds after time 0; None: they did not."""

    fall_s: float | None = None
    kill_s: float | None = None
    restart_s: float | None = None
    return_s: float | None = None
    new_broker_s: float | None = None
    killed: str | None = None

    @property
    def complete(self) -> bool:
        return None not in (
            self.fall_s,
            self.kill_s,
            self.restart_s,
            self.return_s,
            self.new_broker_s,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The numbers, and every reason why the run does not count as held."""

    peak_share: float
    row_peak_share: float
    under_new_cap_s: float | None
    no_broker_s: float | None
    use: float | None
    use_or_reserved: float | None
    breaker: str
    fell_to_floor: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.faults


def reserved_w(
    *,
    dead: bool,
    ceiling_w: float,
    bound_w: float | None,
    limit_w: float | None,
    published_w: float | None,
) -> float | None:
    """What is held back for a rack beyond its draw; None: its draw counts."""
    if dead:
        return ceiling_w if published_w is None else published_w
    if bound_w is not None and limit_w is not None and bound_w > limit_w:
        return bound_w
    return None


def judge(
    samples: Sequence[Sample],
    events: Events,
    floors_w: Mapping[str, int],
    *,
    other_faults: Sequence[str] = (),
) -> Verdict:
    """The verdict on one run; `other_faults` are reasons that no sample shows."""
    assert samples, "a run without a sample proves nothing"
    peak_share = max(
        (s.total_w / s.cap_w for s in samples if not _within(s, events.fall_s, REACTION_S)),
        default=0.0,
    )
    row_peak_share = max((max(s.row_share.values(), default=0.0) for s in samples), default=0.0)
    under_new_cap_s = _under_new_cap_s(samples, events.fall_s)
    no_broker_s = None
    if events.kill_s is not None and events.new_broker_s is not None:
        no_broker_s = events.new_broker_s - events.kill_s
    fell = fell_to_floor(samples, events, floors_w)
    tripped = any(s.tripped for s in samples)
    faults = list(other_faults)
    if peak_share > 1.0:
        faults.append(f"the racks drew {peak_share:.1%} of the cap")
    if row_peak_share > 1.0:
        faults.append(f"a row drew {row_peak_share:.1%} of its cap")
    if under_new_cap_s is not None and under_new_cap_s > REACTION_S:
        faults.append(f"under the new cap only after {under_new_cap_s:.1f} s")
    if tripped:
        faults.append("the breaker of the feed has tripped")
    if not events.complete:
        faults.append("not every event happened: " + ", ".join(_missing(events)))
    if fell:
        faults.append("fell to the floor though alive: " + ", ".join(fell))
    return Verdict(
        peak_share=peak_share,
        row_peak_share=row_peak_share,
        under_new_cap_s=under_new_cap_s,
        no_broker_s=no_broker_s,
        use=_mean([s.total_w / s.cap_w for s in samples if s.demand_w > s.cap_w]),
        use_or_reserved=_mean([_counted(s) for s in samples if _counts(s, events)]),
        breaker="tripped" if tripped else "closed",
        fell_to_floor=fell,
        faults=tuple(faults),
    )


def fell_to_floor(
    samples: Sequence[Sample], events: Events, floors_w: Mapping[str, int]
) -> tuple[str, ...]:
    """Racks that lived through the kill and then went from above their floor to it."""
    if events.kill_s is None:
        return ()
    fell = []
    for rack, floor_w in floors_w.items():
        if rack == events.killed:
            continue
        limits = [s.limit_w[rack] for s in samples if s.time_s >= events.kill_s]
        if any(a > floor_w >= b for a, b in pairwise(limits)):
            fell.append(rack)
    return tuple(fell)


def _under_new_cap_s(samples: Sequence[Sample], fall_s: float | None) -> float | None:
    if fall_s is None:
        return None
    over = [s.time_s for s in samples if s.time_s >= fall_s and s.total_w > s.cap_w]
    if not over:
        return 0.0
    return next((s.time_s for s in samples if s.time_s > over[-1]), over[-1] + 1.0) - fall_s


def _counts(sample: Sample, events: Events) -> bool:
    starts = (0.0, events.kill_s, events.restart_s, events.return_s)
    return sample.demand_w > sample.cap_w and not any(
        _within(sample, start_s, SETTLING_S) for start_s in starts
    )


def _counted(sample: Sample) -> float:
    counted_w = sum(sample.reserved_w.get(rack, draw_w) for rack, draw_w in sample.draw_w.items())
    return min(1.0, counted_w / sample.cap_w)


def _within(sample: Sample, start_s: float | None, seconds: float) -> bool:
    return start_s is not None and start_s <= sample.time_s < start_s + seconds


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _missing(events: Events) -> list[str]:
    instants = {
        "the cap's fall": events.fall_s,
        "the broker's death": events.kill_s,
        "a new broker": events.new_broker_s,
        "the MQTT server's restart": events.restart_s,
        "the return": events.return_s,
    }
    return [name for name, at_s in instants.items() if at_s is None]
