"""Who is counted: how rosters follow from each other, and what a rack makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from node_bench import Rack, leader
from protocol_values import (
    FILE_ROSTER,
    SITE,
    cap,
    grants,
    persisted,
    rack,
    record,
    report,
    roster,
    said,
    the,
)

from broker.caps import CapBook
from broker.coordinator import Coordinator, MarketTerms
from broker.effects import JournalRecord
from broker.messages import (
    Ballot,
    Beat,
    Grant,
    GrantKey,
    Join,
    JoinAnswer,
    Leave,
    Report,
    Roster,
    RosterRack,
)
from broker.roster import (
    counts_the_same,
    fault_of,
    is_newer,
    of_new_file,
    refusal,
    with_leaving,
    with_racks,
    without,
)
from broker.topics import Kind, Topic

B1, B2, B3 = Ballot(1, "r1"), Ballot(2, "r1"), Ballot(3, "r1")
N1 = rack("n1", rank=40, floor_w=300, ceiling_w=2000)


# ---- rosters as values -----------------------------------------------------------------


def test_the_roster_of_a_ballot_is_newer_than_a_files_and_those_of_files_are_not_ordered() -> None:
    assert is_newer(B1, FILE_ROSTER) and is_newer(B2, B1)  # protocol M1
    assert not is_newer(B1, B2) and not is_newer(B1, B1)
    assert not is_newer(Ballot(0, "z"), Ballot(0, "a"))
    assert counts_the_same(B1, B1) and counts_the_same(Ballot(0, "z"), Ballot(0, "a"))
    assert not counts_the_same(B1, B2) and not counts_the_same(B1, FILE_ROSTER)


def test_a_larger_roster_names_the_newcomer_by_itself_and_a_smaller_one_lacks_the_rack() -> None:
    larger = with_racks(roster(), [N1], B1)
    assert (larger.name, larger.site_hash) == (B1, SITE)
    assert [(r.rack, r.joined) for r in larger.racks] == [
        ("r1", None), ("r2", None), ("r3", None), ("n1", B1),
    ]  # fmt: skip
    leaving = with_leaving(larger, {"r2"}, B2)
    assert [r.rack for r in leaving.racks if r.leaving] == ["r2"]
    assert [r.rack for r in without(leaving, {"r2"}, B3).racks] == ["r1", "r3", "n1"]


def test_a_new_files_roster_keeps_the_members_that_it_lacks() -> None:  # protocol M4
    before = with_racks(roster(), [N1], B1)
    file = Roster(
        name=Ballot(0, "new"),
        racks=(rack("r1", ceiling_w=3000), rack("r2"), rack("r4", rank=50)),
        caps=(cap("room", 8000),),
    )
    after = of_new_file(before, file, B2)
    assert (after.name, after.site_hash) == (B2, "new")
    assert [(r.rack, r.ceiling_w, r.joined) for r in after.racks] == [
        ("r1", 3000, None), ("r2", 4000, None), ("r4", 4000, B2), ("r3", 4000, None),
        ("n1", 2000, B1),
    ]  # fmt: skip
    assert after.caps == (cap("room", 8000),)


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (roster(), ""),
        (roster(rack("r1"), rack("r1")), "two racks of one name"),
        (roster(rack("r1", cap="hall")), "a rack under no cap"),
        (roster(caps=(cap("room", 9), cap("room", 8))), "two caps of one name"),
        (roster(caps=(cap("room", 9, "hall"),)), "a cap under no cap"),
        (roster(caps=(cap("room", 9, "row"), cap("row", 9, "room"))), "a cycle of caps"),
    ],
)
def test_a_roster_that_cannot_be_counted_by_is_refused(made: Roster, fault: str) -> None:
    assert fault_of(made) == fault


# ---- who may join ----------------------------------------------------------------------


def join(member: RosterRack = N1, **changed: Any) -> Join:
    plain: dict[str, Any] = {
        "instance": "i", "boot": 1, "ballot": B1, "roster": FILE_ROSTER, "bound_w": 0,
    }  # fmt: skip
    return Join(rack=member, **(plain | changed))


@pytest.mark.parametrize(
    ("wish", "limit_w", "why"),
    [
        (join(), 1800, ""),  # 3 · 500 + 300
        (join(), 1799, "no room under room"),
        (join(bound_w=1), 3500, ""),  # 3 · 500 + 2000
        (
            join(bound_w=1), 3499,
            "no room under room for its ceiling, and it carries load already",
        ),
        (join(rack("r2", rank=40)), 9000, "the name r2 is taken"),
        (join(rack("n1", rank=30)), 9000, "rank 30 is taken by r3"),
        (join(rack("n1", rank=40, cap="hall")), 9000, "there is no cap hall here"),
        (join(rack("n1", rank=40, ceiling_w=400)), 9000, "its ceiling is below its floor"),
    ],
)  # fmt: skip
def test_a_newcomer_fits_floor_for_floor_or_is_told_why_not(  # protocol M2
    wish: Join, limit_w: int, why: str
) -> None:
    assert refusal(roster(), wish, {"room": limit_w}, is_open=True) == why


def test_nobody_joins_a_static_site() -> None:
    why = refusal(roster(), join(), {"room": 9000}, is_open=False)
    assert why == 'this site counts the racks of its file only: roster = "static"'


# ---- the broker's desk -----------------------------------------------------------------


class Desk:
    """A broker with a roster, in the ballot [1, "r1"], told reports, joins and leaves."""

    def __init__(
        self, counted: Roster, *, file: Roster | None = None, is_open: bool = True
    ) -> None:
        self.counted = counted
        self.seq = 0
        self.broker = Coordinator(
            B1, counted, CapBook(counted.caps, {}), site_hash=SITE, terms=MarketTerms(guard=0.0),
            tick_s=1.0, beat_timeout_s=2.0, now=0.0, file=file, is_open=is_open,
        )  # fmt: skip

    def hear(self, *names: str, now: float = 0.0, **changed: Any) -> None:
        for name in names:
            self.seq += 1
            plain = {"seq": self.seq, "ballot": B1, "roster": self.counted.name}
            self.broker.hear(name, report(**(plain | changed)), live=True, now=now)

    def asked(self, wish: Join, now: float = 0.1) -> str:
        answers = said(self.broker.hear_join(wish, now=now), JoinAnswer)
        return answers[0].why if answers else ""

    def leave(self, name: str, *, now: float = 0.1, **changed: Any) -> None:
        plain: dict[str, Any] = {"by": "operator", "ballot": B1, "boot": 1, "seq": self.seq}
        self.broker.hear_leave(Leave(rack=name, **(plain | changed)), now=now)

    def next(self, now: float = 0.2) -> Roster | None:
        return self.broker.next_roster(B2, now=now)

    def names(self, now: float = 0.2) -> list[str] | None:
        found = self.next(now)
        return None if found is None else [r.rack + "-" * r.leaving for r in found.racks]

    def granted(self, now: float) -> dict[str, Grant]:
        return grants(self.broker.wake(now=now))


def test_a_newcomer_is_taken_into_a_new_ballot() -> None:  # protocol M2
    desk = Desk(roster())
    desk.hear("r1", "r2", "r3")
    assert desk.asked(join()) == "accepted: a new ballot is made with it"
    assert desk.names() == ["r1", "r2", "r3", "n1"]
    made = desk.next()
    assert made is not None and (made.name, made.racks[3].joined) == (B2, B2)


def test_nothing_changes_before_every_member_has_reported_in_the_ballot() -> None:  # protocol M5
    desk = Desk(roster())
    desk.hear("r1", "r2")
    desk.hear("r3", ballot=Ballot(0, "r9"))
    assert desk.asked(join()) == "waits until r3 can be heard"
    assert desk.next() is None
    desk.hear("r3")
    assert desk.names() == ["r1", "r2", "r3", "n1"]


def test_a_wish_of_another_ballot_changes_nothing_and_one_not_repeated_lapses() -> None:
    desk = Desk(roster())
    desk.hear("r1", "r2", "r3")
    assert desk.asked(join(ballot=Ballot(0, "r1"))) == ""
    desk.leave("r2", ballot=Ballot(0, "r1"))
    assert desk.next() is None
    desk.asked(join(), now=0.1)
    assert desk.next(now=4.1) is not None and desk.next(now=4.2) is None


def test_a_newcomer_is_granted_nothing_before_every_other_member_knows_it() -> None:
    counted = with_racks(roster(), [N1], B1)  # protocol M2
    desk = Desk(counted)
    desk.hear("r1", "r2", limit_w=1000)
    desk.hear("n1", limit_w=0)
    assert set(desk.granted(0.0)) == {"r1", "r2"}
    assert set(desk.granted(9.0)) == {"r1", "r2"}, "for as long as it takes"
    desk.hear("r3", limit_w=1000, now=9.5)
    desk.hear("n1", limit_w=0, now=9.5)
    assert desk.granted(10.0)["n1"].may_raise


def test_a_newcomer_that_was_granted_something_needs_no_more_waiting() -> None:  # protocol M2
    desk = Desk(with_racks(roster(), [N1], B1))
    desk.hear("r1", "r2", limit_w=1000)
    desk.hear("n1", limit_w=400, joined=B1)
    assert "n1" in desk.granted(0.0)
    desk = Desk(with_racks(roster(), [N1], B1))
    desk.hear("r1", "r2", limit_w=1000)
    desk.hear("n1", limit_w=400, joined=Ballot(0, "r1"))  # of a time before it left
    assert "n1" not in desk.granted(0.0)


def test_a_report_with_another_roster_counts_as_none() -> None:  # protocol M1
    desk = Desk(with_racks(roster(), [N1], B1))
    desk.hear("r1", "r2", "n1", limit_w=1000)
    desk.hear("r3", limit_w=1000, roster=FILE_ROSTER)
    effects = desk.broker.wake(now=0.0)
    assert "r3" not in grants(effects)
    assert the(said(effects, Roster)).name == B1, "whoever names an older one is told"
    assert said(desk.broker.wake(now=1.0), Roster) == []


def test_nobody_is_raised_while_somebody_has_a_newer_roster() -> None:  # protocol M1
    desk = Desk(roster(rack("r1"), rack("r2")))
    desk.hear("r1", limit_w=1000)
    desk.hear("r2", limit_w=1000, roster=Ballot(7, "r3"))
    desk.broker._beats = 5
    assert not any(grant.may_raise for grant in desk.granted(0.0).values())
    desk.hear("r1", now=5.9, limit_w=1000)
    assert desk.granted(6.0)["r1"].may_raise


def test_who_leaves_is_marked_first_and_left_out_when_all_know_the_mark() -> None:  # protocol M3
    desk = Desk(roster())
    desk.hear("r1", "r3")
    desk.leave("r2", boot=None, seq=None)
    assert desk.names() == ["r1", "r2-", "r3"]
    marked = Desk(with_leaving(roster(), {"r2"}, B1))
    marked.hear("r1")
    assert marked.names() is None
    marked.hear("r3")
    assert marked.names() == ["r1", "r3"]


def test_a_leaving_rack_is_counted_and_granted_nothing() -> None:  # protocol M3
    desk = Desk(with_leaving(roster(), {"r2"}, B1))
    desk.hear("r1", "r2", "r3", limit_w=1000)
    assert set(desk.granted(0.0)) == {"r1", "r3"}
    assert desk.broker._ledger.reserves_w(0.0)["r2"] == 1000


def test_one_that_says_that_it_draws_stays_counted_whatever_was_said_of_it() -> None:
    desk = Desk(with_leaving(roster(), {"r2"}, B1))  # protocol M3
    desk.hear("r1", "r2", "r3", limit_w=1000)
    assert desk.names() == ["r1", "r2", "r3"]
    assert desk.names(now=2.5) == ["r1", "r3"], "silent since"


@pytest.mark.parametrize(
    ("word", "leaves"),
    [
        ({"boot": 1, "seq": 9}, True),
        ({"boot": 1, "seq": 8}, False),  # it was heard after the word was said
        ({"boot": 0, "seq": 99}, False),  # it has been started again
        ({"boot": None, "seq": None}, False),  # by somebody who never heard it
    ],
)
def test_a_word_older_than_the_racks_last_report_takes_nobody_out(
    word: dict[str, Any], leaves: bool
) -> None:  # protocol M3
    desk = Desk(roster())
    desk.hear("r1", "r3")
    desk.hear("r2", limit_w=0, next_w=1, seq=9)
    desk.leave("r2", **word)
    assert (desk.names() == ["r1", "r2-", "r3"]) is leaves


def test_a_living_rack_that_is_not_at_0_does_not_leave() -> None:  # protocol M3
    desk = Desk(roster())
    desk.hear("r1", "r2", "r3", limit_w=1000)
    desk.leave("r2")
    assert desk.next(now=2.0) is None
    desk.hear("r1", "r3", now=2.5)
    desk.leave("r2", now=2.5, seq=2)
    assert desk.names(now=2.6) == ["r1", "r2-", "r3"], "it is silent now"


def test_the_last_one_stays() -> None:
    desk = Desk(roster(rack("r1"), rack("r2")))
    desk.hear("r1", "r2", limit_w=0, next_w=1)
    for name in ("r1", "r2"):
        desk.leave(name, by=name)
    assert desk.names() == ["r1-", "r2"]


def test_a_changed_file_counts_when_all_of_its_racks_show_it() -> None:  # protocol M4
    file = Roster(name=Ballot(0, "new"), racks=(rack("r1"), rack("r2")), caps=(cap("room", 5000),))
    desk = Desk(with_racks(roster(), [N1], B1), file=file)
    desk.hear("r1", site_hash="new")
    desk.hear("r2", "r3", "n1")
    assert desk.next() is None
    desk.hear("r2", site_hash="new")
    made = desk.next()
    assert made is not None and (made.site_hash, made.caps[0].limit_w) == ("new", 5000)
    assert [r.rack for r in made.racks] == ["r1", "r2", "r3", "n1"], "counted until they leave"


def test_while_files_differ_a_rack_goes_to_the_smaller_ceiling_and_counts_at_the_larger() -> None:
    counted = with_racks(roster(limit_w=20_000), [], B1)  # protocol M4
    desk = Desk(counted, file=roster(rack("r1"), rack("r2", ceiling_w=2500), rack("r3")))
    desk.hear("r1", "r2", limit_w=1000, demand_w=9000)
    desk.hear("r3", limit_w=1000, demand_w=9000, site_hash="new", ceiling_w=6000)
    given = desk.granted(0.0)
    assert (given["r1"].limit_w, given["r2"].limit_w, given["r3"].limit_w) == (4000, 2500, 4000)
    fresh = Desk(counted, file=roster(rack("r1"), rack("r2", ceiling_w=6000), rack("r3")))
    assert fresh.broker._ledger.reserves_w(0.0) == {"r1": 4000, "r2": 6000, "r3": 4000}


# ---- a rack and its roster -------------------------------------------------------------


def larger_roster(name: Ballot, *racks: RosterRack, ballot: Ballot | None = None) -> Roster:
    return replace(with_racks(roster(), racks, name), ballot=ballot or name)


def hear_roster(node: Rack, made: Roster, now: float, **how: Any) -> Any:
    return node.receive(Topic(Kind.ROSTER), made, now, **how)


def names_in_reports(node: Rack, now: float) -> Ballot:
    return the(said(node.node.report(now=now), Report)).roster


def test_a_roster_is_taken_when_the_beat_names_it_and_is_on_disk_before_it_is_said() -> None:
    node = Rack()  # protocol M1
    node.start()
    made = larger_roster(Ballot(5, "r3"), N1)
    hear_roster(node, made, 1.0)
    assert names_in_reports(node, 1.0) == FILE_ROSTER, "no beat has named it"
    node.disk_ok = None
    node.hear_beat(Ballot(5, "r3"), 1.1, roster=made.name)
    assert names_in_reports(node, 1.1) == FILE_ROSTER
    node.end_write(ok=True, now=1.2)
    if node.writing is not None:
        node.end_write(ok=True, now=1.3)
    assert names_in_reports(node, 1.3) == made.name


def test_whoever_holds_a_newer_roster_than_the_beat_names_says_its_own() -> None:  # protocol M1
    made = larger_roster(Ballot(4, "r3"), N1)
    node = Rack(loaded=record(Ballot(4, "r3"), 6, roster=made.name, members=made))
    node.start()
    effects = node.hear_beat(Ballot(5, "r2"), 1.0, roster=FILE_ROSTER)
    assert the(said(effects, Roster)).name == made.name
    assert said(node.hear_beat(Ballot(5, "r2"), 1.4, roster=FILE_ROSTER), Roster) == []
    effects = node.hear_beat(Ballot(5, "r2"), 2.0, roster=FILE_ROSTER)
    assert [r.rack for r in the(said(effects, Roster)).racks] == ["r1", "r2", "r3", "n1"]


def test_a_broker_that_hears_of_a_newer_roster_leads_by_it_in_a_new_ballot() -> None:
    node = leader()  # [5, "r1"]  # protocol M1
    effects = hear_roster(node, larger_roster(Ballot(4, "r3"), N1), 3.0)
    assert persisted(effects)[-1].ballot == Ballot(6, "r1")
    assert the(said(effects, Beat)).roster == Ballot(4, "r3")
    assert node.node.leads


def test_a_broker_that_a_newer_roster_lacks_leads_no_more_and_says_so() -> None:
    node = leader()
    made = replace(without(roster(), {"r1"}, Ballot(4, "r3")), ballot=Ballot(4, "r3"))
    hear_roster(node, made, 3.0)
    assert not node.node.leads and not node.node.place.is_member
    node.hear_beat(Ballot(6, "r3"), 3.5, roster=made.name)
    assert node.hear_grant(GrantKey(6, "r3", 1), 4.0) is not None
    assert node.node.lowers_at_s < 20.0, "no grant is taken"


def test_who_has_lost_its_journal_leads_nobody_before_a_beat_names_its_roster() -> None:
    made = larger_roster(Ballot(4, "r3"), N1)  # protocol R11
    node = Rack(lost=True)
    node.read(_clock(), 0.0)
    node.start()
    assert not node.node._able(0.1)
    node.hear_beat(Ballot(1_800_000_000_000, "r3"), 0.2, roster=made.name)
    assert not node.node._able(0.3), "it knows the ballot, not who is counted"
    hear_roster(node, made, 0.4)
    node.hear_beat(Ballot(1_800_000_000_000, "r3"), 0.5, roster=made.name)
    assert node.node._able(0.6)


def _clock() -> Any:
    from broker.node import ClockRead

    return ClockRead(1_800_000_000_000)


def test_a_rack_that_was_left_out_while_it_was_off_asks_to_be_counted() -> None:  # protocol M3
    made = replace(without(roster(), {"r1"}, Ballot(4, "r3")), ballot=Ballot(4, "r3"))
    node = Rack()
    node.start()
    hear_roster(node, made, 0.5, retained=True)
    node.hear_beat(Ballot(5, "r3"), 1.0, roster=made.name)
    assert not node.node.place.is_member
    asked = said(node.wake(1.1), Join) + said(node.wake(2.2), Join)
    assert (asked[0].rack.rack, asked[0].ballot, asked[0].roster) == ("r1", B(5), made.name)
    assert asked[0].bound_w == 1000


def B(term: int) -> Ballot:
    return Ballot(term, "r3")


def test_a_rack_that_was_left_out_while_it_ran_does_not_ask_before_its_next_start() -> None:
    node = Rack()  # protocol M3
    node.start()
    node.hear_beat(Ballot(4, "r3"), 0.2)
    made = replace(without(roster(), {"r1"}, Ballot(5, "r3")), ballot=Ballot(5, "r3"))
    hear_roster(node, made, 0.5)
    node.hear_beat(Ballot(5, "r3"), 1.0, roster=made.name)
    assert not node.node.place.is_member
    effects = node.wake(1.1) + node.wake(2.2)
    assert said(effects, Join) == []
    assert said(effects, Report) != [], "its hardware is not at 0: somebody should see it"


def test_what_a_newcomer_was_granted_first_it_remembers() -> None:  # protocol M2
    made = larger_roster(Ballot(5, "r3"), N1)
    start = JournalRecord(Ballot(5, "r3"), 6, True, made.name, {}, made)
    node = Rack("n1", loaded=start, site=made)
    node.start()
    node.hear_beat(Ballot(5, "r3"), 0.5, roster=made.name)
    assert the(said(node.node.report(now=0.5), Report)).joined is None
    effects = node.hear_grant(GrantKey(5, "r3", 1), 0.6)
    assert persisted(effects)[-1].joined == Ballot(5, "r3")
    assert the(said(node.node.report(now=0.7), Report)).joined == Ballot(5, "r3")


def test_goodbye_is_said_at_0_only_and_nothing_is_taken_after_it() -> None:  # protocol M3
    node = Rack()
    node.start()
    node.hear_beat(Ballot(4, "r3"), 0.2)
    assert node.node.leave(now=0.3) == []
    node.read(_at_0(), 0.4)
    leave = the(said(node.node.leave(now=0.5), Leave))
    assert (leave.rack, leave.by, leave.ballot, leave.bound_w) == ("r1", "r1", B(4), 0)
    assert leave.seq is not None and leave.boot == 7
    node.hear_grant(GrantKey(4, "r3", 1), 0.6, seq=1)
    assert node.node._desk.seen is None
    assert said(node.wake(2.0), Report) == []


def _at_0() -> Any:
    from dataclasses import replace as changed

    from node_bench import HELD

    return changed(HELD, bound_w=0, limit_w=0, next_w=1, measured_w=0)


def test_on_an_open_site_a_broker_that_nobody_has_confirmed_raises_nobody() -> None:  # protocol M3
    made = with_racks(roster(rack("r1"), rack("r2")), [], Ballot(4, "r3"))
    start = record(Ballot(4, "r3"), 6, roster=made.name, members=made)
    node = Rack(loaded=start, is_open=True)
    node.start()
    node.run(2.5)
    assert node.node.leads
    alone = grants(node.run(12.0, after_s=2.5))
    assert not alone["r1"].may_raise
    node.hear_report("r2", 12.1, ballot=Ballot(5, "r1"), roster=made.name, seq=3)
    node.run(14.0, after_s=12.1)
    assert node.node._coordinator is not None and node.node._coordinator.may_raise


def test_who_says_goodbye_and_is_out_is_told_the_newer_roster() -> None:  # protocol M3
    desk = Desk(without(roster(), {"r2"}, B1))
    desk.hear("r1", "r3")
    desk.leave("r2", by="r2")
    assert the(said(desk.broker.wake(now=0.5), Roster)).name == B1
