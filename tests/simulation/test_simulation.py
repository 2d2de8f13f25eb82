"""Whole sites in virtual time, each from its seed: the caps hold whatever goes wrong.

The product's own controllers run against simulated hardware, disks, clocks, a net and an
MQTT server; a judge looks at the hardware after everything that happens. `make sim` runs
more seeds, and replays one with its whole trace.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from sim_coverage import EVERY_KIND
from sim_site import is_held
from sim_weather import FAULTS, Weather
from sim_world import World
from simulate import TRACE_LINES_MAX, Outcome, run_seed, told

SEEDS = range(60)
SECONDS = 300.0


@cache
def outcome_of(seed: int) -> Outcome:
    return run_seed(seed, SECONDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_caps_hold_and_the_site_recovers_whatever_goes_wrong(seed: int) -> None:
    if outcome_of(seed).fault:
        pytest.fail(told(seed, SECONDS, TRACE_LINES_MAX), pytrace=False)


def test_every_kind_of_event_happened_in_the_fixed_seeds() -> None:
    counts = sum((outcome_of(seed).counts for seed in SEEDS), Counter[str]())
    assert [kind for kind in EVERY_KIND if not counts[kind]] == []


def test_sites_of_every_shape_are_among_the_fixed_seeds() -> None:
    sites = [World(seed).site for seed in SEEDS]
    assert {2, 12} <= {len(site.racks) for site in sites}
    levels = {max(len(_path(site, c.cap)) for c in site.caps) for site in sites}
    assert levels == {1, 2, 3}
    racks = [rack for site in sites for rack in site.racks]
    assert {rack.actuator.kind for rack in racks} == {"power-limit", "outlets", "none"}
    assert any(rack.actuator.kind == "power-limit" and not is_held(rack) for rack in racks)
    assert any(cap.fallback_w is not None for site in sites for cap in site.caps)


def test_a_seed_tells_the_same_story_twice() -> None:
    first, second = World(7, tracing=True), World(7, tracing=True)
    first.run(120.0)
    second.run(120.0)
    assert first.trace_lines == second.trace_lines
    assert len(first.trace_lines) > 100


def test_on_a_fine_day_the_racks_use_the_room() -> None:
    world = World(5, weather=Weather())
    world.run(120.0)
    through_w = sum(rack.hardware.lets_through_w for rack in world.racks.values())
    assert world.judge.looks > 400
    assert 0.8 * world.judge.cap_w["room"] <= through_w <= world.judge.cap_w["room"]


def test_a_calm_weather_has_no_faults_left() -> None:
    weather = Weather(message_lost=0.5, reset_every_s=1.0, journal_lost=0.5, crash_midway=0.1)
    weather.calm()
    assert [name for name in FAULTS if getattr(weather, name)] == []


def _path(site: object, cap: str) -> list[str]:
    parents = {c.cap: c.parent for c in site.caps}  # type: ignore[attr-defined]
    path = [cap]
    while (parent := parents[path[-1]]) is not None:
        path.append(parent)
    return path
