"""The plan of a run of chaos: enough faults, of every kind, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from hil.faults import ALONE_S, BROKER, OF_SERVER, ROUND_S, STORM_S, Kind, plan

RACKS = ["r1", "r2", "r3", "r4", "r5"]


def made(seed: int = 1, seconds: float = 600.0):
    return plan(seed=seed, seconds=seconds, racks=RACKS)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    assert made(7) == made(7)
    assert made(7).faults != made(8).faults


@pytest.mark.parametrize("seed", range(20))
def test_ten_minutes_have_sixty_faults_at_least_and_every_kind_twice(seed):
    faults = made(seed).faults
    kinds = Counter(fault.kind for fault in faults)
    assert len(faults) >= 60
    assert set(kinds) == set(Kind)
    assert min(kinds.values()) >= 2
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)


@pytest.mark.parametrize("seed", range(20))
def test_every_round_begins_with_the_death_of_the_broker_and_of_nobody_else(seed):
    run = made(seed)
    for begin_s in range(0, 600, int(ROUND_S)):
        first, second = [f for f in run.faults if f.at_s >= begin_s][:2]
        assert (first.kind, first.victims, first.alone) == (Kind.KILL, (BROKER,), True)
        assert second.at_s >= begin_s + ALONE_S
        alone = range(begin_s, begin_s + int(ALONE_S))
        assert [c for c in run.caps if int(c.at_s) in alone] == []


@pytest.mark.parametrize("seed", range(20))
def test_every_round_ends_in_a_calm(seed):
    for fault in made(seed).faults:
        assert (fault.at_s + fault.lasts_s) % ROUND_S <= ALONE_S + STORM_S + 4.0


def test_a_fault_of_a_rack_can_meet_any_rack_and_one_of_the_server_meets_nobody():
    for fault in made().faults:
        if fault.kind in OF_SERVER:
            assert fault.victims == ()
        elif not fault.alone:
            assert set(RACKS) <= set(fault.victims)


def test_a_minute_has_faults_and_a_fall_of_the_cap():
    run = made(1, 60.0)
    assert len(run.faults) == 8
    assert min(change.share for change in run.caps) <= 0.8
    assert all(change.at_s < 60.0 for change in run.caps)


@pytest.mark.parametrize("seconds", [0.0, 59.0, float("nan"), float("inf")])
def test_a_run_too_short_for_a_round_or_without_an_end_is_refused_in_words(seconds):
    with pytest.raises(ValueError, match="one round takes 60 s"):
        made(1, seconds)
