"""What is kept of what others say is bounded, and what is sent fits into a message."""

from __future__ import annotations

from protocol_values import TIMING, beat, cap_set, report

from broker import wire
from broker.caps import BYTES_MAX, CapBook
from broker.election import Election, Role
from broker.messages import (
    CAPS_MAX,
    RACKS_MAX,
    WATTS_MAX,
    Ballot,
    CapValue,
    ElectionKind,
    ElectionMessage,
    Roster,
    RosterCap,
    RosterRack,
)
from broker.topics import Kind

NUMBER = 2**53 - 1


def longest(letter: str, number: int) -> str:
    return f"{letter}{number}".ljust(64, "x")


CAPS = [RosterCap(cap=longest("c", n), limit_w=10**8) for n in range(CAPS_MAX)]


def full_book() -> CapBook:
    book = CapBook(CAPS, {})
    for cap in CAPS:
        for source in range(16):
            said = cap_set(WATTS_MAX, NUMBER, longest("s", source))
            book.hear(cap.cap, said, live=True, now=0.0)
    return book


def test_all_sources_of_all_caps_together_have_a_limit_and_known_ones_are_still_heard() -> None:
    book = full_book()
    known = [(cap, by) for cap, sources in book.values().items() for by in sources]
    assert len(known) == BYTES_MAX // (66 + 34)
    one_more = longest("s", 99)
    assert book.is_full(CAPS[-1].cap, one_more)
    cap, by = known[0]
    assert not book.hear(CAPS[-1].cap, cap_set(1, 1, one_more), live=True, now=1.0)
    assert book.merge({cap: {by: CapValue(NUMBER + 1, 1)}})
    assert book.in_force(cap, 1.0) == (1, by)


def test_sources_of_a_cap_that_is_gone_leave_their_room_to_others() -> None:
    book = full_book()
    book.use(CAPS[-2:])
    assert not book.is_full(CAPS[-1].cap, longest("s", 99))


def test_a_source_with_a_name_that_grows_as_json_is_counted_as_it_is_sent() -> None:
    book = CapBook(CAPS, {})
    for number in range(1000):
        by = "\x01" * 50 + str(number)
        book.hear(CAPS[number % 100].cap, cap_set(1, 1, by), live=True, now=0.0)
    assert len(wire.encode(beat(Ballot(1, "r1"), caps=book.values()))) < 65_536


def test_a_report_with_all_the_caps_there_can_be_is_read_by_everyone() -> None:
    said = report(Ballot(2**52, longest("r", 1)), caps=full_book().values(), site_hash="h" * 64)
    payload = wire.encode(said, time_ms=NUMBER)
    assert len(payload) <= wire.bytes_max(Kind.REPORT)
    assert wire.decode(Kind.REPORT, payload) == wire.decode(Kind.REPORT, payload)


def test_a_beat_that_hears_none_of_a_thousand_racks_is_read_by_everyone() -> None:
    silent = tuple(longest("r", number) for number in range(RACKS_MAX))
    payload = wire.encode(beat(Ballot(1, "r1"), caps=full_book().values(), silent=silent))
    assert len(payload) <= wire.bytes_max(Kind.BEAT)
    wire.decode(Kind.BEAT, payload)


def test_the_largest_roster_is_read_by_everyone() -> None:
    racks = tuple(
        RosterRack(
            rack=longest("r", n), rank=10**6, floor_w=WATTS_MAX, ceiling_w=WATTS_MAX,
            cap=longest("c", n % CAPS_MAX), weight=123_456.789, tier=1000,
            joined=Ballot(2**52, longest("r", n)), leaving=True,
        )
        for n in range(RACKS_MAX)
    )  # fmt: skip
    caps = tuple(
        RosterCap(
            cap=cap.cap, limit_w=WATTS_MAX, parent=longest("c", 0), fallback_w=WATTS_MAX,
            set_ttl_s=86_400.0, brake_after_s=86_400.0,
        )
        for cap in CAPS
    )  # fmt: skip
    name = Ballot(2**52, longest("r", 0))
    payload = wire.encode(Roster(name=name, racks=racks, caps=caps, ballot=name), time_ms=NUMBER)
    assert len(payload) <= wire.bytes_max(Kind.ROSTER)
    wire.decode(Kind.ROSTER, payload)


def test_racks_that_promised_to_lead_and_did_not_are_forgotten_after_thirty_seconds() -> None:
    one = Election(
        rack="r1", rank=1, ranks={"r1": 1}, instance="a", timing=TIMING, now=0.0
    )  # fmt: skip
    one.link_up(now=0.0)
    now, liars = 0.0, 0
    while now < 600.0:  # somebody answers under a new name each time
        now = one.next_wake() or now + 1.0
        one.wake(highest=Ballot(1, "r9"), able=True, now=now)
        if one.role is Role.CANDIDATE:
            liars += 1
            answer = ElectionMessage(
                kind=ElectionKind.ANSWER, rack=f"x{liars}", rank=9, ballot=Ballot(1, "r9"),
                instance="b", to="r1",
            )  # fmt: skip
            one.hear(answer, highest=Ballot(1, "r9"), able=True, now=now)
    assert liars > 100
    assert len(one._ignored_until_s) <= 16  # 30 s of one every 2 s, and the last
