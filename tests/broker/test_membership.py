"""What must be on disk before it is said, and what a lost journal means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from protocol_values import FILE_ROSTER, events, persisted, record

from broker.effects import Effect, JournalRecord, JournalWritten
from broker.membership import Membership
from broker.messages import Ballot, CapValue, CapValues

WALL_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def room(limit_w: int | None, number: int = 1) -> CapValues:
    return {"room": {"operator": CapValue(number, limit_w)}}


class Disk:
    """A membership of r1 and the record that is being written; the test says how it ends."""

    def __init__(self, loaded: JournalRecord | None) -> None:
        self.memory = Membership("r1", loaded, FILE_ROSTER)
        self.writing: JournalRecord | None = None

    def __call__(self, effects: list[Effect]) -> list[str]:
        """Note what is to be written; the names of the events come back."""
        for wanted in persisted(effects):
            assert self.writing is None, "two writes at a time"
            self.writing = wanted
        return events(effects)

    def end(self, *, ok: bool = True, now: float) -> list[str]:
        assert self.writing is not None, "nothing is being written"
        ended, self.writing = self.writing, None
        done = JournalWritten(ended, ok, "" if ok else "No space left on device")
        return self(self.memory.written(done, now=now))


def started(loaded: JournalRecord | None = None, **fields: Any) -> Disk:
    disk = Disk(loaded or record(**fields))
    disk(disk.memory.start(now=0.0))
    disk.end(now=0.0)
    return disk


# ---- boots -----------------------------------------------------------------------------


def test_a_boot_is_one_more_than_the_last_and_on_disk_before_the_first_report() -> None:
    disk = Disk(record(Ballot(4, "r3"), 7))  # protocol R10
    disk(disk.memory.start(now=0.0))
    assert disk.writing == record(Ballot(4, "r3"), 8, granted=False)
    assert not disk.memory.may_report
    assert not disk.memory.may_lead
    disk.end(now=0.1)
    assert disk.memory.may_report
    assert disk.memory.may_lead
    assert disk.memory.boot == 8


def test_a_boot_that_the_disk_refuses_is_never_reported() -> None:  # protocol R10
    disk = Disk(record(boot=7))
    disk(disk.memory.start(now=0.0))
    assert disk.end(ok=False, now=0.0) == ["journal refused"]
    assert not disk.memory.may_report


def test_the_caps_of_the_journal_are_written_again_with_the_new_boot() -> None:  # protocol C1
    disk = Disk(record(caps=room(8000)))
    disk(disk.memory.start(now=0.0))
    assert disk.writing is not None
    assert disk.writing.caps == room(8000)


def test_the_first_grant_of_a_boot_is_written_once() -> None:  # protocol R7
    disk = started(boot=7)
    disk(disk.memory.granted(now=1.0))
    assert disk.writing == record(boot=8, granted=True)
    disk.end(now=1.0)
    disk(disk.memory.granted(now=2.0))
    assert disk.writing is None


# ---- ballots -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "adopted"),
    [
        (Ballot(5, "r1"), True),
        (Ballot(4, "r4"), True),
        (Ballot(4, "r3"), False),
        (Ballot(4, "r2"), False),
        (Ballot(3, "r9"), False),
    ],
)
def test_a_higher_ballot_is_adopted_first_on_disk(seen: Ballot, adopted: bool) -> None:
    disk = started(record(Ballot(4, "r3"), 7))  # protocol R1
    disk(disk.memory.adopt(seen, now=1.0))
    assert disk.memory.ballot == Ballot(4, "r3")
    if not adopted:
        assert disk.writing is None
        return
    assert disk.memory.highest == seen
    assert disk.writing == record(seen, 8, granted=False)
    disk.end(now=1.0)
    assert disk.memory.ballot == seen


def test_a_ballot_that_the_disk_refuses_is_not_adopted() -> None:  # protocol R1
    disk = started(record(Ballot(4, "r3"), 7))
    disk(disk.memory.adopt(Ballot(5, "r2"), now=1.0))
    disk.end(ok=False, now=1.0)
    assert (disk.memory.ballot, disk.memory.highest) == (Ballot(4, "r3"), Ballot(5, "r2"))


def test_one_write_at_a_time_and_the_next_has_all_that_came_meanwhile() -> None:  # protocol R1
    disk = started()
    disk(disk.memory.adopt(Ballot(5, "r2"), now=1.0))
    disk(disk.memory.adopt(Ballot(6, "r3"), now=1.1))
    disk(disk.memory.granted(now=1.2))
    assert disk.memory.next_wake() is None
    disk.end(now=1.3)
    assert disk.memory.ballot == Ballot(5, "r2")
    assert disk.writing == record(Ballot(6, "r3"), 1, granted=True)


def test_a_claim_is_the_highest_term_seen_plus_one_under_our_own_name() -> None:  # protocol B6
    disk = started(record(Ballot(4, "r3"), 7))
    disk(disk.memory.adopt(Ballot(9, "r2"), now=1.0))
    disk(disk.memory.claim(now=1.1))  # seen, though not on disk yet
    assert disk.memory.highest == Ballot(10, "r1")
    disk.end(now=1.2)
    assert disk.memory.ballot == Ballot(9, "r2")
    disk.end(now=1.3)
    assert disk.memory.ballot == Ballot(10, "r1")


def test_a_claim_that_the_disk_refused_is_made_by_nobody() -> None:  # protocol B6
    disk = started(record(Ballot(4, "r3"), 7))
    disk(disk.memory.claim(now=1.0))
    disk.end(ok=False, now=1.0)
    disk.memory.withdraw_claim()
    disk(disk.memory.wake(now=2.0))
    disk.end(now=2.0)
    assert (disk.memory.ballot, disk.memory.highest) == (Ballot(4, "r3"), Ballot(4, "r3"))


def test_only_a_claim_of_ours_is_withdrawn() -> None:
    disk = started(record(Ballot(4, "r3"), 7))
    disk(disk.memory.adopt(Ballot(9, "r2"), now=1.0))
    disk.end(ok=False, now=1.0)
    disk.memory.withdraw_claim()
    assert disk.memory.highest == Ballot(9, "r2")


@pytest.mark.parametrize(
    ("term", "taken"), [(WALL_MS + DAY_MS, True), (WALL_MS + DAY_MS + 1, False)]
)
def test_a_synchronised_clock_refuses_a_term_of_more_than_a_day_ahead(
    term: int, taken: bool
) -> None:  # protocol R11
    disk = started()
    disk(disk.memory.clock(WALL_MS, now=1.0))
    said = disk(disk.memory.adopt(Ballot(term, "r2"), now=1.0))
    assert said == ([] if taken else ["term of more than a day ahead refused"])
    assert disk.memory.highest == (Ballot(term, "r2") if taken else Ballot(0, ""))


@pytest.mark.parametrize(("term", "taken"), [(2**52, True), (2**52 + 1, False)])
def test_without_a_synchronised_clock_a_term_that_leaves_room_for_claims_is_taken(
    term: int, taken: bool
) -> None:  # protocol R11
    disk = started()
    disk(disk.memory.clock(None, now=1.0))
    disk(disk.memory.adopt(Ballot(term, "r2"), now=1.0))
    assert (disk.memory.highest == Ballot(term, "r2")) is taken
    if taken:
        disk.end(now=1.1)
    assert disk.memory.may_lead is not taken  # after the last term nobody claims the next


# ---- a disk that refuses ---------------------------------------------------------------


def test_a_refused_write_is_tried_again_with_growing_pauses_and_said_once() -> None:
    disk = started()
    disk(disk.memory.adopt(Ballot(5, "r2"), now=0.0))
    told, pauses_s, now = disk.end(ok=False, now=0.0), [], 0.0
    for _ in range(6):
        at_s = disk.memory.next_wake()
        assert at_s is not None
        disk(disk.memory.wake(now=at_s - 0.01))
        assert disk.writing is None
        pauses_s.append(at_s - now)
        now = at_s
        disk(disk.memory.wake(now=now))
        told += disk.end(ok=False, now=now)
    assert pauses_s == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert told == ["journal refused"]


def test_until_a_write_succeeds_this_rack_leads_nobody() -> None:
    disk = started()
    disk(disk.memory.adopt(Ballot(5, "r2"), now=0.0))
    disk.end(ok=False, now=0.0)
    assert not disk.memory.may_lead
    assert disk.memory.may_report
    disk(disk.memory.wake(now=1.0))
    assert disk.end(now=1.0) == ["journal accepts writes again"]
    assert disk.memory.may_lead


def test_nothing_is_written_out_of_turn_while_the_disk_refuses() -> None:
    disk = started()
    disk(disk.memory.adopt(Ballot(5, "r2"), now=0.0))
    disk.end(ok=False, now=0.0)
    disk(disk.memory.adopt(Ballot(6, "r3"), now=0.5))
    assert (disk.writing, disk.memory.next_wake()) == (None, 1.0)


# ---- caps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "at_s"),
    [
        (room(8000), room(7000, 2), 3.0),  # a fall, at once
        ({}, room(8000), 3.0),  # a first value is a fall too
        (room(8000), room(9000, 2), 10.0),  # a rise, 10 s after the last write of caps
        (room(8000), room(None, 2), 10.0),  # withdrawn: a rise
        (room(None), room(8000, 2), 3.0),
        (room(8000), room(8000, 2), None),  # repeated: never
    ],
)
def test_a_fall_is_journaled_at_once_a_rise_later_a_repetition_never(
    before: CapValues, after: CapValues, at_s: float | None
) -> None:  # protocol C1
    disk = started(record(caps=before))
    disk(disk.memory.caps(after, now=3.0))
    if at_s == 3.0:
        assert disk.writing is not None
        assert disk.writing.caps == after
        return
    assert disk.writing is None
    assert disk.memory.next_wake() == at_s
    if at_s is not None:
        disk(disk.memory.wake(now=at_s))
        assert disk.writing is not None
        assert disk.writing.caps == after


def test_a_cap_that_rises_every_second_is_written_every_ten() -> None:  # protocol C1
    disk = started(record(caps=room(1000)))
    written_at_s = []
    for second in range(1, 60):
        disk(disk.memory.caps(room(1000 + second, second), now=float(second)))
        disk(disk.memory.wake(now=float(second)))
        if disk.writing is not None:
            written_at_s.append(second)
            disk.end(now=float(second))
    assert written_at_s == [10, 20, 30, 40, 50]


def test_a_fall_does_not_wait_for_a_rise_that_waits() -> None:  # protocol C1
    disk = started(record(caps=room(8000)))
    disk(disk.memory.caps(room(9000, 2), now=1.0))
    disk(disk.memory.caps(room(7000, 3), now=2.0))
    assert disk.writing is not None
    assert disk.writing.caps == room(7000, 3)


def test_a_fall_during_a_write_is_the_next_write() -> None:  # protocol C1
    disk = started(record(caps=room(8000)))
    disk(disk.memory.adopt(Ballot(5, "r2"), now=1.0))
    disk(disk.memory.caps(room(7000, 2), now=1.0))
    disk.end(now=1.5)
    assert disk.writing is not None
    assert disk.writing.caps == room(7000, 2)


# ---- a lost journal ----------------------------------------------------------------------


def test_a_lost_journal_waits_for_a_synchronised_clock() -> None:  # protocol R11
    disk = Disk(None)
    assert disk(disk.memory.start(now=0.0)) == ["journal lost: waiting for a synchronised clock"]
    disk(disk.memory.clock(None, now=1.0))
    disk(disk.memory.adopt(Ballot(5, "r2"), now=2.0))
    assert disk.writing is None
    assert not disk.memory.may_report


def test_a_lost_journal_takes_term_and_boot_from_the_clock_and_may_not_lead() -> None:
    disk = Disk(None)  # protocol R11
    disk(disk.memory.start(now=0.0))
    disk(disk.memory.clock(WALL_MS, now=1.0))
    expected = record(Ballot(WALL_MS, "r1"), WALL_MS, granted=False)
    assert disk.writing == replace(expected, forgot=True)
    disk.end(now=1.0)
    assert disk.memory.may_report
    assert not disk.memory.may_lead


def test_a_second_look_at_the_clock_changes_neither_term_nor_boot() -> None:  # protocol R11
    disk = Disk(None)
    disk(disk.memory.clock(WALL_MS, now=1.0))
    disk.end(now=1.0)
    disk(disk.memory.clock(WALL_MS + 60_000, now=61.0))
    assert disk.writing is None
    assert disk.memory.boot == WALL_MS


def test_who_has_forgotten_may_lead_after_another_ballot_is_on_its_disk() -> None:  # protocol R11
    disk = Disk(None)
    disk(disk.memory.clock(WALL_MS, now=1.0))
    disk.end(now=1.0)
    disk(disk.memory.adopt(Ballot(WALL_MS + 1, "r2"), now=2.0))
    assert not disk.memory.may_lead
    disk.end(now=2.0)
    assert disk.memory.may_lead
