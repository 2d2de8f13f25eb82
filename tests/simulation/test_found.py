"""What the simulation found in the product, each as a test of its own."""

from __future__ import annotations

from collections.abc import Sequence

from broker.caps import CapBook
from broker.effects import Effect, JournalRecord, JournalWritten, Persist
from broker.ledger import Account
from broker.membership import Membership
from broker.messages import Ballot, CapSet, Report, RosterCap, RosterRack

RACK = RosterRack(rack="r1", rank=1, floor_w=300, ceiling_w=2000, cap="room")


def _report(instance: str, seq: int, bound_w: int) -> Report:
    return Report(
        instance=instance,
        boot=3,
        seq=seq,
        ballot=Ballot(2, "r2"),
        roster=Ballot(0, "5ea1"),
        site_hash="5ea1",
        bound_w=bound_w,
        limit_w=bound_w,
        next_w=bound_w,
        floor_w=300,
        ceiling_w=2000,
        ttl_s=15.0,
        settle_s=2.0,
        demand_w=bound_w,
    )


def test_of_two_processes_with_one_boot_the_one_that_stays_is_counted() -> None:  # protocol R10
    account = Account(RACK, ("room",))
    assert account.hear(_report("aaaa", 500, 700), live=True, ttl_s=15.0, now=100.0)
    assert account.hear(_report("bbbb", 1, 900), live=True, ttl_s=15.0, now=101.0)
    assert account.reserve_w(beat_timeout_s=2.0, now=101.0) == 2000  # contested
    assert not account.hear(_report("aaaa", 501, 700), live=True, ttl_s=15.0, now=101.5)
    assert account.hear(_report("bbbb", 2, 900), live=True, ttl_s=15.0, now=117.0)
    assert account.reserve_w(beat_timeout_s=2.0, now=117.0) == 900


def test_a_rack_that_lost_its_journal_does_not_lead_after_a_crash_either() -> None:  # protocol R11
    roster = Ballot(0, "5ea1")
    first = Membership("r1", None, roster)
    record = _persisted(first.clock(1_790_000_000_000, now=1.0))
    first.written(JournalWritten(record, ok=True), now=1.1)
    assert first.may_report
    assert not first.may_lead

    again = Membership("r1", record, roster)  # it crashed, and reads what it wrote
    record = _persisted(again.start(now=10.0))
    again.written(JournalWritten(record, ok=True), now=10.1)
    assert not again.may_lead

    record = _persisted(again.adopt(Ballot(1_790_000_000_001, "r2"), now=11.0))
    again.written(JournalWritten(record, ok=True), now=11.1)
    assert again.may_lead


def test_a_late_word_does_not_keep_a_cap_from_its_fallback() -> None:  # protocol C2
    cap = RosterCap(cap="room", limit_w=9000, fallback_w=4000, set_ttl_s=10.0)
    book = CapBook((cap,), {})
    book.hear("room", CapSet(limit_w=8000, number=5, by="grid"), live=True, now=0.0)
    assert book.in_force("room", 9.0) == (8000, "grid")
    book.hear("room", CapSet(limit_w=8000, number=4, by="grid"), live=True, now=9.0)
    assert book.in_force("room", 11.0) == (4000, "fallback")
    book.hear("room", CapSet(limit_w=8000, number=5, by="grid"), live=True, now=12.0)
    assert book.in_force("room", 13.0) == (8000, "grid")


def _persisted(effects: Sequence[Effect]) -> JournalRecord:
    return next(effect.record for effect in effects if isinstance(effect, Persist))
