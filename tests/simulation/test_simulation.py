"""Whole sites in virtual time, each from its seed: the caps hold whatever goes wrong.

The product's own controllers run against simulated hardware, disks, a net and an MQTT
server; a judge looks at the hardware after everything that happens. A failing seed is
replayed with `SEED=17 pytest tests/simulation`, and over a longer time with
`SECONDS_EACH=300`; `SEEDS=5000 START=100` runs that many from there.
"""

from __future__ import annotations

import os

import pytest
from sim_judge import Violation
from sim_weather import Weather
from sim_world import World

SECONDS = float(os.environ.get("SECONDS_EACH", "120"))
START = int(os.environ.get("START", "0"))
SEEDS = (
    [int(os.environ["SEED"])]
    if "SEED" in os.environ
    else range(START, START + int(os.environ.get("SEEDS", "40")))
)
TRACE_LINES_MAX = 60


@pytest.mark.parametrize("seed", SEEDS)
def test_caps_hold_and_the_site_recovers_whatever_goes_wrong(seed: int) -> None:
    try:
        World(seed).run(SECONDS)
    except (Violation, AssertionError) as fault:
        pytest.fail(_told(seed, fault), pytrace=False)


def test_a_seed_tells_the_same_story_twice() -> None:
    first, second = World(7, tracing=True), World(7, tracing=True)
    first.run(120.0)
    second.run(120.0)
    assert first.trace_lines == second.trace_lines
    assert len(first.trace_lines) > 100


def test_on_a_fine_day_the_racks_use_the_room() -> None:
    world = World(1, weather=Weather())
    world.run(120.0)
    through_w = sum(rack.hardware.lets_through_w for rack in world.racks.values())
    assert world.judge.looks > 400
    assert 0.8 * world.judge.cap_w["room"] <= through_w <= world.judge.cap_w["room"]


def _told(seed: int, fault: Exception) -> str:
    """The fault, how to see it again, and what happened just before it."""
    world = World(seed, tracing=True)
    again: Exception | None = None
    try:
        world.run(SECONDS)
    except (Violation, AssertionError) as same:
        again = same
    lines = [
        f"SEED={seed}: {fault or repr(fault)}",
        f"weather: {', '.join(world.weather.names)}",
        f"replay: SEED={seed} SECONDS_EACH={SECONDS:g} python -m pytest tests/simulation",
        *world.trace_lines[-TRACE_LINES_MAX:],
    ]
    if str(again) != str(fault):
        lines.append(f"a second run says: {again!r}")
    return "\n".join(lines)
