"""What every rack may draw at the most (B1), and whether a raise fits (B2, B3)."""

from __future__ import annotations

from typing import Any

import pytest
from protocol_values import rack, report

from broker.ledger import GRANTS_UNSEEN_MAX, LOWERINGS_OPEN_MAX, Ledger
from broker.messages import Actuation, Ballot, GrantKey

BALLOT = Ballot(4, "r3")


def key(number: int) -> GrantKey:
    return GrantKey(4, "r3", number)


def ledger_of(**racks: Any) -> Ledger:
    """Each rack under "room", and under "row" too if it says so."""
    members = [rack(name, **more) for name, more in racks.items()]
    paths = {"room": ("room",), "row": ("row", "room")}
    return Ledger(BALLOT, members, paths, beat_timeout_s=2.0)


def hear(
    ledger: Ledger, name: str = "r1", *, now: float = 0.0, live: bool = True, **changed: Any
) -> bool:
    account = ledger.accounts[name]
    return account.hear(report(BALLOT, **changed), live=live, ttl_s=15.0, now=now)


def raise_to(ledger: Ledger, wanted_w: int, caps_w: dict[str, int], now: float = 0.0) -> int:
    reserves_w = ledger.reserves_w(now)
    load_w = ledger.load_w(reserves_w)
    return ledger.reserve("r1", wanted_w, limits_w=caps_w, reserves_w=reserves_w, load_w=load_w)


# ---- reserves ------------------------------------------------------------------------


def test_a_rack_that_has_not_reported_in_the_ballot_counts_at_its_ceiling() -> None:  # protocol B1
    assert ledger_of(r1={}).reserves_w(0.0) == {"r1": 4000}


@pytest.mark.parametrize(
    ("changed", "reserve_w"),
    [
        ({"limit_w": 1000, "bound_w": 1000}, 1000),
        ({"limit_w": 1000, "bound_w": 1800}, 1800),  # the promise, not the limit
        ({"limit_w": 1000, "bound_w": 1000, "measured_w": 1200}, 1200),  # it overdraws
        ({"limit_w": 1000, "bound_w": 1000, "measured_w": 40}, 1000),  # a meter proves nothing
        ({"limit_w": 100, "bound_w": 100}, 500),  # a floor is always its own
        ({"limit_w": 1000, "bound_w": 5000}, 5000),  # more than the roster's ceiling
    ],
)
def test_the_reserve_is_the_largest_of_promise_and_measured_power(
    changed: dict[str, Any], reserve_w: int
) -> None:  # protocol B1
    ledger = ledger_of(r1={})
    hear(ledger, **changed)
    assert ledger.reserves_w(0.0) == {"r1": reserve_w}


@pytest.mark.parametrize(
    ("seen", "reserve_w"),
    [
        (None, 3000),
        (key(1), 3000),
        (key(2), 2000),
        (key(3), 1000),
        (GrantKey(3, "r9", 99), 3000),  # of an earlier broker
    ],
)
def test_every_limit_granted_is_counted_until_it_is_seen(
    seen: GrantKey | None, reserve_w: int
) -> None:  # protocol B1
    ledger = ledger_of(r1={})
    hear(ledger, seq=1)
    for number, limit_w in ((1, 1500), (2, 3000), (3, 2000)):
        ledger.grant("r1", key(number), limit_w)
    hear(ledger, seq=2, seen=seen)
    assert ledger.reserves_w(0.0) == {"r1": reserve_w}


def test_a_larger_grant_before_a_smaller_one_still_counts() -> None:  # protocol B1
    ledger = ledger_of(r1={})
    hear(ledger)
    ledger.grant("r1", key(1), 3000)
    ledger.grant("r1", key(2), 600)
    assert ledger.reserves_w(0.0) == {"r1": 3000}


def test_the_same_limit_granted_again_counts_until_its_last_key_is_seen() -> None:  # protocol B1
    ledger = ledger_of(r1={})
    hear(ledger, seq=1)
    for number in (1, 2, 3):
        ledger.grant("r1", key(number), 3000)
    hear(ledger, seq=2, seen=key(2))
    assert ledger.reserves_w(0.0) == {"r1": 3000}
    hear(ledger, seq=3, seen=key(3))
    assert ledger.reserves_w(0.0) == {"r1": 1000}


def test_a_rack_that_never_sees_its_grants_costs_bounded_memory_and_no_safety() -> None:
    ledger = ledger_of(r1={})
    hear(ledger, seq=1)
    ledger.grant("r1", key(0), 3900)
    for number in range(1, 3 * GRANTS_UNSEEN_MAX):
        ledger.grant("r1", key(number), 1000 + number)
    assert len(ledger.accounts["r1"].granted) == GRANTS_UNSEEN_MAX
    assert ledger.reserves_w(0.0) == {"r1": 3900}


@pytest.mark.parametrize("now", [2.1, 100.0, 1e6])
def test_silence_changes_nothing(now: float) -> None:  # protocol B1
    ledger = ledger_of(r1={})
    hear(ledger, limit_w=1000, bound_w=1500)
    ledger.grant("r1", key(1), 2500)
    assert ledger.reserves_w(now) == {"r1": 2500}


def test_power_that_was_measured_long_ago_is_not_fresh() -> None:  # protocol B1
    ledger = ledger_of(r1={})
    hear(ledger, limit_w=1000, measured_w=1700)
    assert ledger.reserves_w(2.0) == {"r1": 1700}
    assert ledger.reserves_w(2.1) == {"r1": 1000}


# ---- the order of reports --------------------------------------------------------------


@pytest.mark.parametrize(
    ("boot", "seq", "taken"),
    [(1, 8, True), (1, 7, False), (1, 6, False), (2, 1, True), (0, 99, False)],
)
def test_reports_are_ordered_by_boot_and_seq(boot: int, seq: int, taken: bool) -> None:
    ledger = ledger_of(r1={})  # protocol B1
    hear(ledger, boot=1, seq=7, limit_w=1000)
    assert hear(ledger, boot=boot, seq=seq, limit_w=2000) is taken
    # An older boot heard live means two processes: the ceiling.
    expected_w = 2000 if taken else 4000 if boot == 0 else 1000
    assert ledger.reserves_w(0.0) == {"r1": expected_w}


def test_grants_to_an_earlier_process_are_not_counted_for_the_next() -> None:  # protocol B1, R2
    ledger = ledger_of(r1={})
    hear(ledger, boot=1, seq=7)
    ledger.grant("r1", key(1), 3000)
    hear(ledger, boot=2, seq=1, instance="b", limit_w=1000)
    assert ledger.reserves_w(0.0) == {"r1": 1000}


def test_a_report_that_arrives_late_does_not_bring_its_rack_back_to_life() -> None:  # protocol B4
    ledger = ledger_of(r1={})
    hear(ledger, seq=5, now=0.0)
    hear(ledger, seq=4, now=5.0)
    assert ledger.silent(5.0) == ("r1",)


def test_a_retained_report_is_counted_and_proves_no_life() -> None:
    ledger = ledger_of(r1={})
    assert hear(ledger, live=False, limit_w=1000)
    assert ledger.reserves_w(0.0) == {"r1": 1000}
    assert ledger.silent(0.0) == ("r1",)


@pytest.mark.parametrize(("now", "silent"), [(2.0, ()), (2.1, ("r1",))])
def test_a_rack_is_silent_after_beat_timeout(now: float, silent: tuple[str, ...]) -> None:
    ledger = ledger_of(r1={})
    hear(ledger, now=0.0)
    assert ledger.silent(now) == silent


def test_unheard_are_those_without_a_report_in_the_ballot() -> None:
    ledger = ledger_of(r1={}, r2={})
    hear(ledger, "r2", live=False)
    assert ledger.unheard() == ("r1",)


# ---- two processes with one name -----------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "contested"),
    [
        ((1, "a"), (2, "b"), False),  # a restart
        ((2, "b"), (1, "a"), True),  # an older boot after a newer one
        ((1, "a"), (1, "b"), True),  # one boot, two instances
        ((1, "b"), (1, "a"), True),
        ((1, "a"), (1, "a"), False),
    ],
)
def test_two_processes_with_one_name_count_at_the_ceiling(
    first: tuple[int, str], second: tuple[int, str], contested: bool
) -> None:  # protocol R10
    ledger = ledger_of(r1={})
    hear(ledger, boot=first[0], instance=first[1], seq=1, now=0.0)
    hear(ledger, boot=second[0], instance=second[1], seq=2, now=1.0)
    assert ledger.reserves_w(1.0) == {"r1": 4000 if contested else 1000}
    assert ledger.can_follow("r1", 1.0) is not contested


def test_the_ceiling_is_kept_for_ttl_after_the_older_process_was_last_heard() -> None:
    ledger = ledger_of(r1={})  # protocol R10
    hear(ledger, boot=2, instance="b", seq=1, now=0.0)
    hear(ledger, boot=1, instance="a", seq=50, now=4.0)
    for now in (10.0, 18.0, 19.0):
        hear(ledger, boot=2, instance="b", seq=int(now), now=now)
        assert ledger.reserves_w(now) == {"r1": 4000 if now < 19.0 else 1000}, now


def test_an_older_boot_that_is_only_retained_is_no_second_process() -> None:  # protocol R10
    ledger = ledger_of(r1={})
    hear(ledger, boot=2, instance="b", seq=1, now=0.0)
    hear(ledger, boot=1, instance="a", seq=9, now=1.0, live=False)
    assert ledger.reserves_w(1.0) == {"r1": 1000}


# ---- who can follow --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "now", "follows"),
    [
        ({}, 0.0, True),
        ({}, 2.1, False),  # silent
        ({"actuator": Actuation.NONE}, 0.0, False),
        ({"actuator": Actuation.OUTLETS}, 0.0, True),
        ({"starting": True}, 0.0, False),  # protocol R7
        ({"limit_w": 1000, "bound_w": 2000}, 0.0, True),  # lowers just now
    ],
)
def test_who_can_follow(changed: dict[str, Any], now: float, follows: bool) -> None:  # protocol B4
    ledger = ledger_of(r1={})
    hear(ledger, **changed)
    assert ledger.can_follow("r1", now) is follows


def test_a_rack_that_has_not_reported_in_the_ballot_cannot_follow() -> None:  # protocol B4
    assert not ledger_of(r1={}).can_follow("r1", 0.0)


@pytest.mark.parametrize(("now", "follows"), [(1.0, True), (3.0, True), (3.5, False)])
def test_a_rack_whose_bound_stays_above_its_limit_for_longer_than_settle_cannot_follow(
    now: float, follows: bool
) -> None:  # protocol B4
    ledger = ledger_of(r1={})
    hear(ledger, seq=1, limit_w=1000, bound_w=2000, settle_s=2.0, now=1.0)
    hear(ledger, seq=2, limit_w=900, bound_w=2000, settle_s=2.0, now=2.5)
    assert ledger.can_follow("r1", now) is follows


def test_a_bound_that_came_down_starts_the_count_anew() -> None:  # protocol B4
    ledger = ledger_of(r1={})
    hear(ledger, seq=1, limit_w=1000, bound_w=2000, now=0.0)
    hear(ledger, seq=2, limit_w=1000, bound_w=1000, now=2.0)
    hear(ledger, seq=3, limit_w=800, bound_w=1000, now=3.0)
    assert ledger.can_follow("r1", 4.9)


def test_each_lowering_has_the_time_to_settle_of_its_own() -> None:  # protocol B4
    ledger = ledger_of(r1={})
    for second in range(9):  # lowered every second, and proven two seconds later each time
        limit_w = 3000 - 100 * second
        hear(ledger, seq=second + 1, limit_w=limit_w, bound_w=limit_w + 200, now=float(second))
        assert ledger.can_follow("r1", float(second)), second


def test_a_lowering_that_a_raise_has_overtaken_is_waited_for_no_more() -> None:  # protocol B4
    ledger = ledger_of(r1={})
    hear(ledger, seq=1, limit_w=1000, bound_w=2000, now=0.0)
    hear(ledger, seq=2, limit_w=1500, bound_w=2000, now=1.0)
    assert ledger.can_follow("r1", 2.9)
    assert not ledger.can_follow("r1", 3.1)


def test_lowerings_that_never_settle_cost_bounded_memory() -> None:
    ledger = ledger_of(r1={})
    for tick in range(3 * LOWERINGS_OPEN_MAX):
        hear(ledger, seq=tick + 1, limit_w=3000 - tick // 2, bound_w=4000, now=float(tick))
        assert len(ledger.accounts["r1"].lowerings) == min(LOWERINGS_OPEN_MAX, tick // 2 + 1)
    assert not ledger.can_follow("r1", 500.0)


@pytest.mark.parametrize(
    ("granted_w", "renewal_w"), [([], 1000), ([900], 900), ([3000, 800, 2000], 800), ([1500], 1000)]
)
def test_a_renewal_is_the_smallest_of_the_reported_limit_and_what_was_granted_since(
    granted_w: list[int], renewal_w: int
) -> None:  # protocol B3, B4
    ledger = ledger_of(r1={})
    hear(ledger, limit_w=1000)
    for number, limit_w in enumerate(granted_w):
        ledger.grant("r1", key(number), limit_w)
    assert ledger.accounts["r1"].renewal_w() == renewal_w


# ---- raises --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted_w", "room_w", "granted_w"),
    [
        (2500, 9000, 2500),
        (2500, 6499, 2499),  # counted after the raise: r2 alone is 4000
        (9999, 9000, 4000),  # never above the ceiling
        (2500, 5000, 1000),  # full: what it has
        (2500, 4999, 1000),  # over-full
        (2500, 6000, 2000),
    ],
)
def test_a_raise_goes_as_far_as_every_reserve_under_the_cap_leaves_room(
    wanted_w: int, room_w: int, granted_w: int
) -> None:  # protocol B2, B3
    ledger = ledger_of(r1={}, r2={})
    hear(ledger, limit_w=1000)
    assert raise_to(ledger, wanted_w, {"room": room_w}) == granted_w


@pytest.mark.parametrize(
    ("caps_w", "granted_w"),
    [
        ({"row": 9000, "room": 9000}, 3000),
        ({"row": 2200, "room": 9000}, 2200),
        ({"row": 9000, "room": 6200}, 2200),
        ({"row": 800, "room": 9000}, 1000),
    ],
)
def test_every_cap_on_the_way_to_the_root_is_asked(
    caps_w: dict[str, int], granted_w: int
) -> None:  # protocol B2
    ledger = ledger_of(r1={"cap": "row"}, r2={})
    hear(ledger, limit_w=1000)
    assert raise_to(ledger, 3000, caps_w) == granted_w


def test_a_raise_within_the_reserve_waits_too_while_the_cap_is_exceeded() -> None:  # protocol B3
    ledger = ledger_of(r1={}, r2={})
    hear(ledger, limit_w=1000, bound_w=3000)
    assert raise_to(ledger, 2000, {"room": 7000}) == 2000
    assert raise_to(ledger, 2000, {"room": 6999}) == 1000


def test_the_room_that_one_raise_takes_is_gone_for_the_next() -> None:  # protocol B2
    ledger = ledger_of(r1={}, r2={})
    hear(ledger, "r1", limit_w=1000)
    hear(ledger, "r2", limit_w=1000)
    reserves_w = ledger.reserves_w(0.0)
    load_w = ledger.load_w(reserves_w)
    caps_w = {"room": 4000}
    given = [
        ledger.reserve(name, 2500, limits_w=caps_w, reserves_w=reserves_w, load_w=load_w)
        for name in ("r1", "r2")
    ]
    assert (given, reserves_w, load_w) == ([2500, 1500], {"r1": 2500, "r2": 1500}, {"room": 4000})


def test_the_load_of_a_cap_is_the_sum_below_it() -> None:
    ledger = ledger_of(r1={"cap": "row"}, r2={"cap": "row"}, r3={})
    reserves_w = {"r1": 1, "r2": 20, "r3": 300}
    assert ledger.load_w(reserves_w) == {"row": 21, "room": 321}
