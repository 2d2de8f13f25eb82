"""Which grants a rack processes and admits, and until when."""

from __future__ import annotations

from typing import Any

import pytest
from protocol_values import grant

from broker.effects import Lease
from broker.lease import REPORTS_REMEMBERED_MAX, LeaseDesk
from broker.messages import Ballot, GrantKey

BALLOT = Ballot(4, "r3")


def key(number: int, term: int = 4, rack: str = "r3") -> GrantKey:
    return GrantKey(term, rack, number)


class Desk:
    """Instance "a" in boot 1, ttl 15 s, settle 2 s; report 1 was sent at 100 s."""

    def __init__(self, until_s: float = 0.0) -> None:
        self.desk = LeaseDesk(instance="a", ttl_s=15.0, settle_s=2.0, until_s=until_s)
        self.desk.sent(1, 100.0)

    def admit(
        self,
        grant_key: GrantKey,
        *,
        now: float = 100.1,
        ballot: Ballot = BALLOT,
        highest: Ballot | None = None,
        **changed: Any,
    ) -> Lease | str:
        return self.desk.admit(
            grant(grant_key, **changed),
            boot=1,
            ballot=ballot,
            highest=highest or ballot,
            now=now,
        )


def test_a_grant_becomes_a_lease_with_all_it_says() -> None:
    admitted = Desk().admit(key(7), limit_w=1800, may_raise=False, cap="row", price=0.25, why="w")
    assert admitted == Lease(key(7), 1800, False, 115.0, "row", 0.25, "w")


@pytest.mark.parametrize(
    ("grant_key", "changed", "why"),
    [
        (key(1, term=3), {}, "lower ballot"),
        (key(1, rack="r2"), {}, "lower ballot"),  # the same term, a lower name
        (key(1, term=5), {}, "ballot not on disk"),
        (key(1), {"instance": "b"}, "another process"),
        (key(1), {"boot": 2}, "another process"),
        (key(1), {"boot": 0}, "another process"),
    ],
)
def test_a_grant_that_is_not_for_this_process_in_this_ballot_is_not_processed(
    grant_key: GrantKey, changed: dict[str, Any], why: str
) -> None:  # protocol R2
    desk = Desk()
    assert desk.admit(grant_key, **changed) == why
    assert desk.desk.seen is None
    assert desk.desk.lease is None


def test_a_ballot_that_was_seen_and_is_not_on_disk_yet_makes_lower_grants_void() -> None:
    desk = Desk()  # protocol R1, R2
    assert desk.admit(key(1), highest=Ballot(5, "r1")) == "lower ballot"


@pytest.mark.parametrize(
    ("second", "processed"),
    [
        (key(8), True),
        (key(7), False),
        (key(6), False),
    ],
)
def test_keys_are_processed_upwards_only(second: GrantKey, processed: bool) -> None:  # protocol R2
    desk = Desk()
    assert isinstance(desk.admit(key(7)), Lease)
    again = desk.admit(second, limit_w=900)
    assert isinstance(again, Lease) if processed else again == "old key"
    assert desk.desk.seen == max(key(7), second)


def test_keys_of_a_new_broker_begin_anew_above_the_old_ones() -> None:  # protocol R2
    desk = Desk()
    desk.admit(key(900))
    assert isinstance(desk.admit(key(1, term=5, rack="r1"), ballot=Ballot(5, "r1")), Lease)


@pytest.mark.parametrize("changed", [{"seq": 2}, {"now": 114.0}])
def test_a_processed_grant_is_seen_even_if_it_is_refused(
    changed: dict[str, Any],
) -> None:  # protocol R2, R3
    desk = Desk()
    assert desk.admit(key(7), **changed) in ("unknown report", "too late")
    assert desk.desk.seen == key(7)
    assert desk.desk.lease is None
    assert desk.admit(key(7)) == "old key"


@pytest.mark.parametrize(("ttl_s", "until_s"), [(15.0, 115.0), (10.0, 110.0), (60.0, 115.0)])
def test_a_lease_runs_from_when_the_report_was_sent_for_the_shorter_ttl(
    ttl_s: float, until_s: float
) -> None:  # protocol R3
    desk = Desk()
    admitted = desk.admit(key(1), ttl_s=ttl_s, now=107.5)
    assert isinstance(admitted, Lease)
    assert (admitted.until_s, desk.desk.until_s) == (until_s, until_s)
    assert desk.desk.lowers_at_s == until_s - 2.0  # protocol R6


@pytest.mark.parametrize(
    ("now", "admitted"), [(112.9, True), (113.0, False), (115.0, False), (130.0, False)]
)
def test_a_grant_with_too_little_time_left_to_act_is_refused(
    now: float, admitted: bool
) -> None:  # protocol R3
    desk = Desk()
    answer = desk.admit(key(1), now=now)
    assert isinstance(answer, Lease) if admitted else answer == "too late"


def test_each_report_has_its_own_instant() -> None:  # protocol R3
    desk = Desk()
    desk.desk.sent(2, 104.0)
    first = desk.admit(key(1), seq=2, now=105.0)
    assert isinstance(first, Lease)
    assert first.until_s == 119.0
    second = desk.admit(key(2), seq=1, now=105.0)  # a newer grant may answer an older report
    assert isinstance(second, Lease)
    assert second.until_s == 115.0


def test_reports_of_long_ago_are_forgotten() -> None:  # protocol R3
    desk = Desk()
    for seq in range(2, REPORTS_REMEMBERED_MAX + 2):
        desk.desk.sent(seq, 100.0)
    assert desk.admit(key(1), seq=1) == "unknown report"
    assert isinstance(desk.admit(key(2), seq=2), Lease)


def test_a_refused_grant_leaves_the_lease_as_it_was() -> None:  # protocol R3
    desk = Desk()
    before = desk.admit(key(1), limit_w=1500)
    assert desk.admit(key(2), limit_w=900, seq=77) == "unknown report"
    assert (desk.desk.lease, desk.desk.until_s) == (before, 115.0)


def test_without_a_grant_the_lease_is_the_one_of_the_start() -> None:  # protocol R7
    assert Desk(until_s=15.0).desk.lowers_at_s == 13.0
