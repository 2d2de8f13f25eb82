"""What the plant saw of a run of chaos, in a few numbers, and which bounds they break.

Pure: samples and what was done in, a verdict out. Nothing here believes a controller,
but for what is *reserved*, which only they can know.

    over_cap_s          time in which the racks drew more than a cap, the room's or a row's
    let_over_cap_s      the same for what their hardware let through; both leave out the
                        reaction window after a fall of the room's cap: 3 s with everyone
                        there (a tick, and the time that hardware is given to settle), else
                        until it is obeyed, at most the longest lease, within which a rack
                        that is cut off lowers itself
    no_broker_s         longest time without a beat in the highest ballot, counted while the
                        MQTT server and two racks that can send and hear live; a broker that
                        was stopped counts from its last beat
    use                 mean of draw over cap, in calm: nothing ails, everyone has been back
                        for SETTLING_S, no cap has changed since, and the racks want more
    use_or_reserved     the same where a rack counts for its reserve if that is more
    fell                racks that went from above their floor to it, and why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

REACTION_S = 3.0
LEASE_S = 15.0  # the site file's, for every rack
SETTLING_S = 10.0
ALONE_S = LEASE_S + 1.0
NO_BROKER_S_MAX = 6.0
ABLE_MIN = 2
USE_MIN = 0.85
USE_OR_RESERVED_MIN = 0.95
FAULTS_PER_MINUTE_MIN = 6
EPSILON_W = 0.001  # of sums of floats


@dataclass(frozen=True, slots=True)
class Sample:
    """One step of the plant, `time_s` after the start."""

    time_s: float
    cap_w: int
    draw_w: float
    let_w: float  # what the hardware of all racks lets through
    row_draw_share: float  # of the row that is nearest to its cap
    row_let_share: float
    demand_w: float
    counted_w: float  # Σ of the larger of draw and reserve
    limit_w: Mapping[str, int]
    able: int  # racks that can send and hear, and whose journal takes writes
    server_up: bool
    beat_at_s: float  # the last in the highest ballot
    everyone_back: bool
    tripped: bool


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault as it was, on the same time line."""

    kind: str
    rack: str  # empty: the MQTT server
    led: bool  # the rack was broker
    alone: bool
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class FloorFall:
    """A rack's hardware went to its floor."""

    time_s: float
    rack: str
    said: str  # by the rack itself, when it was heard again
    ailed: str  # what we had done to it, or to the server, within one lease


@dataclass(frozen=True, slots=True)
class Verdict:
    seconds: float
    faults_by_kind: Mapping[str, int]
    over_cap_s: float
    let_over_cap_s: float
    worst_share: float  # of a cap, outside the windows, of what was let through
    no_broker_s: float
    no_broker_at_s: float
    use: float | None
    use_or_reserved: float | None
    calm_s: float
    fell: tuple[FloorFall, ...]
    fell_alone: tuple[FloorFall, ...]
    cap_falls: int
    window_s: float  # of all reaction windows together
    broken: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.broken


def judge(
    samples: Sequence[Sample],
    injected: Sequence[Injected],
    fell: Sequence[FloorFall],
    *,
    other_faults: Sequence[str] = (),
) -> Verdict:
    """The verdict; `other_faults` are reasons that no sample shows."""
    assert len(samples) > 1, "a run without samples proves nothing"
    seconds = samples[-1].time_s - samples[0].time_s
    windows = reaction_windows(samples)
    outside = [
        (sample, later.time_s - sample.time_s)
        for sample, later in pairwise(samples)
        if not any(begin_s <= sample.time_s < end_s for begin_s, end_s in windows)
    ]
    no_broker_s, no_broker_at_s = longest_without_broker(samples)
    calm = calm_samples(samples)
    fell_alone = tuple(fall for fall in fell if _by_a_brokers_death_alone(fall, injected))
    kinds = [fault.kind for fault in injected]
    verdict = Verdict(
        seconds=seconds,
        faults_by_kind={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        over_cap_s=sum(dt_s for sample, dt_s in outside if draw_share(sample) > 1),
        let_over_cap_s=sum(dt_s for sample, dt_s in outside if let_share(sample) > 1),
        worst_share=max((let_share(sample) for sample, _ in outside), default=0.0),
        no_broker_s=no_broker_s,
        no_broker_at_s=no_broker_at_s,
        use=_mean([sample.draw_w / sample.cap_w for sample in calm]),
        use_or_reserved=_mean([min(1.0, sample.counted_w / sample.cap_w) for sample in calm]),
        calm_s=seconds * len(calm) / len(samples),
        fell=tuple(fell),
        fell_alone=fell_alone,
        cap_falls=len(windows),
        window_s=seconds - sum(dt_s for _, dt_s in outside),
        broken=(),
    )
    return _with_bounds(verdict, len(injected), any(s.tripped for s in samples), other_faults)


def _with_bounds(
    verdict: Verdict, faults: int, tripped: bool, other_faults: Sequence[str]
) -> Verdict:
    few = FAULTS_PER_MINUTE_MIN * verdict.seconds / 60
    broken = [
        text
        for is_broken, text in (
            (verdict.over_cap_s > 0, f"{verdict.over_cap_s:.1f} s over a cap"),
            (
                verdict.let_over_cap_s > 0,
                f"the hardware let more than a cap through for {verdict.let_over_cap_s:.1f} s",
            ),
            (
                verdict.no_broker_s > NO_BROKER_S_MAX,
                f"{verdict.no_broker_s:.1f} s without a broker, at {verdict.no_broker_at_s:.0f} s",
            ),
            (verdict.use is None, "there was no calm to see how the cap is used"),
            (_below(verdict.use, USE_MIN), f"only {verdict.use or 0:.1%} of the cap used"),
            (
                _below(verdict.use_or_reserved, USE_OR_RESERVED_MIN),
                f"only {verdict.use_or_reserved or 0:.1%} of the cap used or reserved",
            ),
            (
                bool(verdict.fell_alone),
                "a broker's death alone sent to the floor: "
                + ", ".join(sorted({fall.rack for fall in verdict.fell_alone})),
            ),
            (tripped, "the breaker of the feed has tripped"),
            (faults < few, f"only {faults} faults in {verdict.seconds:.0f} s"),
        )
        if is_broken
    ]
    return replace(verdict, broken=(*broken, *other_faults))


# ---- leaves --------------------------------------------------------------------------


def draw_share(sample: Sample) -> float:
    """Of the cap that is nearest to being exceeded."""
    return max((sample.draw_w - EPSILON_W) / sample.cap_w, sample.row_draw_share)


def let_share(sample: Sample) -> float:
    return max((sample.let_w - EPSILON_W) / sample.cap_w, sample.row_let_share)


def reaction_windows(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """From each fall of the cap until it must be obeyed.

    Once it is, later than a write of before the fall can act, the window is over.
    """
    falls_s = [b.time_s for a, b in pairwise(samples) if b.cap_w < a.cap_w]
    windows = []
    for fall_s in falls_s:
        soon = [s for s in samples if fall_s <= s.time_s < fall_s + REACTION_S]
        end_s = fall_s + REACTION_S
        if not all(sample.everyone_back for sample in soon):
            later = (s for s in samples if end_s <= s.time_s < fall_s + LEASE_S)
            end_s = next((s.time_s for s in later if let_share(s) <= 1), fall_s + LEASE_S)
        windows.append((fall_s, end_s))
    return windows


def longest_without_broker(samples: Sequence[Sample]) -> tuple[float, float]:
    """Seconds, and when they were over."""
    longest_s, at_s = 0.0, 0.0
    since_s: float | None = None  # since when somebody could have led
    for sample in samples:
        if not (sample.server_up and sample.able >= ABLE_MIN):
            since_s = None
            continue
        since_s = sample.time_s if since_s is None else since_s
        without_s = sample.time_s - max(sample.beat_at_s, since_s)
        if without_s > longest_s:
            longest_s, at_s = without_s, sample.time_s
    return longest_s, at_s


def calm_samples(samples: Sequence[Sample]) -> list[Sample]:
    calm: list[Sample] = []
    since_s = samples[0].time_s
    cap_w = samples[0].cap_w
    for sample in samples:
        if not sample.everyone_back or sample.cap_w != cap_w:
            since_s, cap_w = sample.time_s, sample.cap_w
        elif sample.time_s - since_s >= SETTLING_S and sample.demand_w > sample.cap_w:
            calm.append(sample)
    return calm


def _by_a_brokers_death_alone(fall: FloorFall, injected: Sequence[Injected]) -> bool:
    return any(
        fault.alone
        and fault.led
        and fault.rack != fall.rack
        and fault.from_s <= fall.time_s < fault.from_s + ALONE_S
        for fault in injected
    )


def _below(share: float | None, least: float) -> bool:
    return share is not None and share < least


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
