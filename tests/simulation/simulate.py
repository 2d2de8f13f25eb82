"""More seeds of the simulation than the tests have, and one of them told in full.

    python tests/simulation/simulate.py --seeds 5000 --start 0 --seconds 300
    python tests/simulation/simulate.py --seed 17 --seconds 300

Prints what went wrong with the command that replays it, what was covered, and how fast it
was. Exit 1 where any seed failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from sim_judge import Violation
from sim_world import World

TRACE_LINES_MAX = 60
CHUNK = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    fault: str  # "" where nothing went wrong
    weather: tuple[str, ...]
    counts: Counter[str]


def run_seed(seed: int, seconds: float) -> Outcome:
    world = World(seed)
    fault = _run(world, seconds)
    return Outcome(seed, fault, world.weather.names, world.counts)


def told(seed: int, seconds: float, lines_max: int | None = None) -> str:
    """A seed's whole story, or the end of it: the site, what happened, what went wrong."""
    world = World(seed, tracing=True)
    fault = _run(world, seconds)
    caps = [f"  cap {c.cap} {c.limit_w} W in {c.parent}, fallback {c.fallback_w}"
            for c in world.site.caps]  # fmt: skip
    racks = [
        f"  rack {r.name} rank {r.rank} in {r.cap}: {r.floor_w} to {r.ceiling_w} W,"
        f" {r.actuator.kind}, settles in {r.actuator.settle_s:g} s, lease {r.actuator.ttl_s:g} s"
        for r in world.site.racks
    ]
    trace = world.trace_lines if lines_max is None else world.trace_lines[-lines_max:]
    return "\n".join(
        [
            f"seed {seed}: {fault or 'nothing went wrong'}",
            f"weather: {', '.join(world.weather.names)}",
            *caps,
            *racks,
            *trace,
            f"seed {seed}: {fault or 'nothing went wrong'}",
            f"replay: {replay_command(seed, seconds)}",
        ]
    )


def replay_command(seed: int, seconds: float) -> str:
    return f"make sim SEED={seed} SECONDS_EACH={seconds:g}"


def _run(world: World, seconds: float) -> str:
    try:
        world.run(seconds)
    except Violation as fault:
        return str(fault)
    except AssertionError as fault:
        return f"an assertion of the product failed: {fault!r}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="replay this one, with its whole trace")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0, help="simulated, of each seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    wanted = parser.parse_args()
    if wanted.seed is not None:
        print(told(wanted.seed, wanted.seconds))
        return int(bool(run_seed(wanted.seed, wanted.seconds).fault))
    return _many(range(wanted.start, wanted.start + wanted.seeds), wanted.seconds, wanted.jobs)


def _many(seeds: range, seconds: float, jobs: int) -> int:
    began_s = time.perf_counter()
    counts: Counter[str] = Counter()
    failed = 0
    with ProcessPoolExecutor(jobs) as pool:
        outcomes = pool.map(run_seed, seeds, [seconds] * len(seeds), chunksize=CHUNK)
        for done, outcome in enumerate(outcomes, 1):
            counts += outcome.counts
            if outcome.fault:
                failed += 1
                print(f"seed {outcome.seed} ({', '.join(outcome.weather)}): {outcome.fault}")
                print(f"  replay: {replay_command(outcome.seed, seconds)}", flush=True)
            if done % 500 == 0:
                print(f"{done} of {len(seeds)}, {failed} failed", flush=True)
    took_s = time.perf_counter() - began_s
    print("covered:")
    for kind, count in sorted(counts.items()):
        print(f"  {count:9d} {kind}")
    print(f"{len(seeds)} seeds × {seconds:g} s, {failed} failed;", end=" ")
    print(f"{len(seeds) * seconds / took_s:.0f} simulated seconds per second, {jobs} process(es)")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
