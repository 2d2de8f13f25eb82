"""What is left of a run of chaos: a summary for a person, and one object of JSON."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from hil.chaos import Recording
from hil.chaos_judge import (
    FAULTS_PER_MINUTE_MIN,
    NO_BROKER_S_MAX,
    USE_MIN,
    USE_OR_RESERVED_MIN,
    Verdict,
)
from hil.faults import Plan


def as_json(plan: Plan, recording: Recording, verdict: Verdict) -> str:
    """Keys with their units; every number as it was seen."""
    content: dict[str, Any] = {
        "ok": verdict.ok,
        "broken": list(verdict.broken),
        "seed": plan.seed,
        "seconds": round(verdict.seconds, 1),
        "faults": len(recording.injected),
        "faults_by_kind": dict(verdict.faults_by_kind),
        "faults_of_the_broker": sum(fault.led for fault in recording.injected),
        "faults_left_out": recording.left_out,
        "cap_falls": verdict.cap_falls,
        "reaction_windows_s": round(verdict.window_s, 1),
        "over_cap_s": round(verdict.over_cap_s, 2),
        "let_over_cap_s": round(verdict.let_over_cap_s, 2),
        "worst_share": round(verdict.worst_share, 4),
        "no_broker_s": round(verdict.no_broker_s, 2),
        "no_broker_at_s": round(verdict.no_broker_at_s, 1),
        "use": _rounded(verdict.use),
        "use_or_reserved": _rounded(verdict.use_or_reserved),
        "calm_s": round(verdict.calm_s, 1),
        "fell_to_floor": [
            {
                "time_s": round(fall.time_s, 1),
                "rack": fall.rack,
                "said": fall.said,
                "ailed": fall.ailed,
            }
            for fall in verdict.fell
        ],
        "fell_by_a_brokers_death_alone": sorted({fall.rack for fall in verdict.fell_alone}),
        "plant_step_s_max": round(recording.step_s_max, 3),
    }
    return json.dumps(content, indent=2)


def summary(plan: Plan, recording: Recording, verdict: Verdict) -> str:
    """For a person."""
    lines = [
        "",
        "EVERY BOUND HELD" if verdict.ok else "NOT EVERY BOUND HELD",
        "",
        f"  seed {plan.seed}, {verdict.seconds:.0f} s, {len(recording.injected)} faults "
        f"({sum(fault.led for fault in recording.injected)} of the broker), "
        f"{verdict.cap_falls} falls of the cap (their reaction windows: {verdict.window_s:.0f} s)",
        "",
        *(f"    {count:3d}  {kind}" for kind, count in verdict.faults_by_kind.items()),
        *(f"    left out: {text}" for text in recording.left_out),
        "",
        "  What the plant saw:",
        _row("over a cap", f"{verdict.over_cap_s:.1f} s", "drawn; must be 0.0 s"),
        _row("", f"{verdict.let_over_cap_s:.1f} s", "let through; must be 0.0 s"),
        _row("highest", f"{verdict.worst_share:.1%}", "of a cap, let through"),
        _row(
            "longest without a broker",
            f"{verdict.no_broker_s:.1f} s",
            f"at {verdict.no_broker_at_s:.0f} s; must be within {NO_BROKER_S_MAX:.0f} s",
        ),
        _row("cap used", _share(verdict.use), f"in calm; at least {USE_MIN:.0%}"),
        _row(
            "cap used or reserved",
            _share(verdict.use_or_reserved),
            f"in calm, {verdict.calm_s:.0f} s; at least {USE_OR_RESERVED_MIN:.0%}",
        ),
        _row(
            "faults",
            f"{len(recording.injected) / verdict.seconds * 60:.1f} a minute",
            f"at least {FAULTS_PER_MINUTE_MIN}",
        ),
        _row("longest step of the plant", f"{recording.step_s_max:.2f} s", "how busy we were"),
        "",
        f"  Racks that went to their floor: {len(verdict.fell)}",
        *_falls(verdict),
    ]
    lines += ["", *(f"  ! {text}" for text in verdict.broken)] if verdict.broken else []
    return "\n".join(lines)


def write_steps(path: Path, recording: Recording) -> None:
    """What the plant saw at each step, for whoever wants to know how it came to be."""
    racks = list(recording.samples[0].limit_w)
    heads = ["monotonic_s", "time_s", "cap_w", "draw_w", "let_w", "able", "back"]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*heads, *(f"{rack}_limit_w" for rack in racks)])
        for s in recording.samples:
            times_s = (round(recording.zero_s + s.time_s, 2), round(s.time_s, 2))
            seen = (s.cap_w, round(s.draw_w), s.let_w, s.able, int(s.everyone_back))
            table.writerow([*times_s, *seen, *(s.limit_w[rack] for rack in racks)])


def _falls(verdict: Verdict) -> list[str]:
    counts = Counter((fall.said, fall.ailed) for fall in verdict.fell)
    return [
        f"    {count:3d}  {said}; within one lease before: {ailed}"
        for (said, ailed), count in counts.most_common()
    ]


def _row(name: str, value: str, remark: str) -> str:
    return f"    {name:<27}{value:<16}{remark}".rstrip()


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _rounded(share: float | None) -> float | None:
    return None if share is None else int(share * 10_000) / 10_000
