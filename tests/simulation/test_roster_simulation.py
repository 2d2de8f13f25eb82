"""Racks come and go, whatever else goes wrong: the caps hold, and everyone is counted.

A failing seed is replayed with `SEED=17 pytest tests/simulation/test_roster_simulation.py`;
`ROSTER_SEEDS=1000 START=100` runs that many from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sim_judge import Violation
from sim_roster import RosterWorld
from sim_weather import Weather

from broker.ledger import Account
from broker.messages import Ballot, Roster
from broker.roster import RosterDesk, without

SECONDS = 150.0
START = int(os.environ.get("START", "0"))
SEEDS = (
    [int(os.environ["SEED"])]
    if "SEED" in os.environ
    else range(START, START + int(os.environ.get("ROSTER_SEEDS", "10")))
)
SEEDS_TRIED = 20  # a change elsewhere in the product moves the luck a little
ROUGH = {
    "message_lost": 0.15, "crash_every_s": 6.0, "down_s_max": 25.0, "cut_every_s": 6.0,
    "cut_s_max": 25.0,
}  # fmt: skip
CRASHES = {"crash_every_s": 6.0, "down_s_max": 25.0}


@pytest.mark.parametrize("seed", SEEDS)
def test_caps_hold_while_racks_come_and_go(seed: int) -> None:
    world = RosterWorld(seed, tracing="SEED" in os.environ)
    try:
        world.run(SECONDS)
    except (Violation, AssertionError) as fault:
        told = [f"SEED={seed}: {fault or repr(fault)}", f"weather: {world.weather.names}"]
        pytest.fail("\n".join([*told, *world.trace_lines[-80:]]), pytrace=False)


def test_on_a_fine_day_whoever_comes_is_counted_and_whoever_is_gone_is_not() -> None:
    world = RosterWorld(3, weather=Weather(), leave_every_s=30.0)
    world.run(SECONDS)
    assert world.counted.admitted >= 1
    assert world.counted.left >= 1
    assert world.counted.gave_up == 0
    assert len(world.counted.rosters) >= 4


def test_a_seed_tells_the_same_story_twice() -> None:
    first, second = RosterWorld(7, tracing=True), RosterWorld(7, tracing=True)
    first.run(SECONDS)
    second.run(SECONDS)
    assert first.trace_lines == second.trace_lines
    assert any("the roster changes" in line for line in first.trace_lines)


# ---- deliberate faults -----------------------------------------------------------------

Patch = pytest.MonkeyPatch


def forget_the_silent(patch: Patch) -> None:  # M3
    whole = RosterDesk.next_roster

    def without_the_silent(
        self: RosterDesk,
        name: Ballot,
        accounts: Mapping[str, Account],
        limits_w: Any,
        *,
        now: float,
    ) -> Roster | None:
        silent = {
            rack
            for rack, account in accounts.items()
            if account.report is not None and self._is_silent(account, now)
        }
        if silent and len(silent) < len(accounts):
            return without(self._roster, silent, name)
        return whole(self, name, accounts, limits_w, now=now)

    patch.setattr(RosterDesk, "next_roster", without_the_silent)


SABOTAGES = [
    (forget_the_silent, CRASHES, 0),
]


@pytest.mark.parametrize(("breaks", "weather", "known_seed"), SABOTAGES)
def test_a_deliberate_fault_is_found(
    breaks: Callable[[Patch], None],
    weather: dict[str, float],
    known_seed: int,
    monkeypatch: Patch,
) -> None:
    breaks(monkeypatch)
    for seed in range(known_seed, known_seed + SEEDS_TRIED):
        try:
            RosterWorld(seed, weather=Weather(**weather)).run(SECONDS)
        except (Violation, AssertionError) as found:
            print(f"seed {seed}: {found}")
            return
    pytest.fail("not found")


@pytest.mark.parametrize(("weather", "seed"), [(ROUGH, 39), (CRASHES, 0)])
def test_without_the_fault_the_same_seed_holds(weather: dict[str, float], seed: int) -> None:
    RosterWorld(seed, weather=Weather(**weather)).run(SECONDS)
