"""Who stands, answers, claims and takes over: the bully algorithm with ballots."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from protocol_values import TIMING, kinds, said, the

from broker.effects import Effect, ListenToReports
from broker.election import ANSWERS_IGNORED_S, Election, Role
from broker.messages import Ballot, ElectionKind, ElectionMessage

RANKS = {"r1": 10, "r2": 20, "r3": 30}
SEEN = Ballot(4, "r3")  # the highest ballot that the rack knows


def message(kind: ElectionKind, rack: str, to: str | None = None) -> ElectionMessage:
    return ElectionMessage(
        kind=kind, rack=rack, rank=RANKS.get(rack, 5), ballot=SEEN, instance=f"of-{rack}", to=to
    )


class One:
    """One rack's election, connected at 0 s; the doors with what the tests do not vary."""

    def __init__(self, rack: str = "r2", *, rank: int | None = None) -> None:
        self.rack = rack
        self.able = True
        self.machine = Election(
            rack=rack,
            rank=RANKS[rack] if rank is None else rank,
            ranks=RANKS if rank is None else dict.fromkeys(RANKS, rank),
            instance=f"of-{rack}",
            timing=TIMING,
            now=0.0,
        )
        self.machine.link_up(now=0.0)

    @property
    def role(self) -> Role:
        return self.machine.role

    def wake(self, now: float) -> list[Effect]:
        return self.machine.wake(highest=SEEN, able=self.able, now=now)

    def hear(
        self, kind: ElectionKind, rack: str, *, to: str | None = None, now: float
    ) -> list[Effect]:
        return self.machine.hear(message(kind, rack, to), highest=SEEN, able=self.able, now=now)

    def echo(self, now: float) -> None:
        self.hear(ElectionKind.ELECTION, self.rack, now=now)

    def beat(self, ballot: Ballot, *, silent: bool = False, now: float) -> list[Effect]:
        return self.machine.beat(
            ballot, highest=ballot, members_silent=silent, able=self.able, now=now
        )

    def offline(self, rack: str, now: float) -> list[Effect]:
        return self.machine.offline(rack, highest=SEEN, able=self.able, now=now)


def candidate(rack: str = "r2", *, now: float = 2.0) -> One:
    one = One(rack)
    one.wake(now)
    assert one.role is Role.CANDIDATE
    return one


def claiming(rack: str = "r2") -> One:
    one = candidate(rack)
    one.echo(2.1)
    one.wake(2.5)
    assert one.role is Role.CLAIMING
    return one


def broker(rack: str = "r2") -> One:
    one = claiming(rack)
    one.machine.become_broker()
    return one


def follower(rack: str = "r2", *, of: Ballot = SEEN) -> One:
    one = One(rack)
    one.beat(of, now=1.0)
    return one


def answered() -> One:
    one = candidate()
    one.hear(ElectionKind.ANSWER, "r3", to="r2", now=2.2)
    assert one.role is Role.ANSWERED
    return one


# ---- silence ---------------------------------------------------------------------------


def test_silence_of_the_broker_starts_an_election() -> None:
    one = One()
    assert one.machine.next_wake() == 2.0
    assert one.wake(1.9) == []
    effects = one.wake(2.0)
    assert the(said(effects, ElectionMessage)) == message(ElectionKind.ELECTION, "r2")
    assert kinds(effects, ListenToReports) == [ListenToReports(True)]
    assert one.role is Role.CANDIDATE


def test_every_beat_puts_the_election_off_by_beat_timeout() -> None:
    one = One()
    one.beat(SEEN, now=1.5)
    assert one.machine.next_wake() == 3.5
    assert one.wake(3.4) == []
    assert one.wake(3.5) != []


def test_after_a_reconnect_it_waits_out_beat_timeout_like_anyone() -> None:  # protocol B6
    one = broker()
    one.machine.link_down()
    assert (one.role, one.machine.next_wake(), one.wake(50.0)) == (Role.DEAF, None, [])
    one.machine.link_up(now=60.0)
    assert (one.role, one.machine.next_wake()) == (Role.FOLLOWER, 62.0)


@pytest.mark.parametrize("make", [candidate, claiming, broker, follower, answered, One])
def test_who_loses_the_mqtt_server_is_nothing_any_more(make: Callable[[], One]) -> None:
    one = make()  # protocol B6
    one.machine.link_down()
    assert (one.role, one.machine.broker, one.machine.next_wake()) == (Role.DEAF, None, None)
    assert one.beat(SEEN, now=3.0) == []
    assert one.hear(ElectionKind.ELECTION, "r1", now=3.0) == []
    assert one.offline("r3", now=3.0) == []
    assert one.role is Role.DEAF


@pytest.mark.parametrize("able", [True, False])
def test_who_may_not_lead_waits_instead_of_standing(able: bool) -> None:  # protocol R10, R11
    one = One()
    one.able = able
    one.wake(2.0)
    assert one.role is (Role.CANDIDATE if able else Role.FOLLOWER)
    assert one.machine.next_wake() == (2.5 if able else 4.0)


# ---- the will --------------------------------------------------------------------------


def test_the_will_of_the_broker_starts_an_election_at_once() -> None:
    one = follower()
    effects = one.offline("r3", now=1.2)
    assert the(said(effects, ElectionMessage)).kind is ElectionKind.ELECTION
    assert (one.role, one.machine.next_wake()) == (Role.CANDIDATE, 1.7)


def test_the_will_of_anybody_else_is_nothing() -> None:
    one = follower()
    assert one.offline("r1", now=1.2) == []
    assert (one.role, one.machine.next_wake()) == (Role.FOLLOWER, 3.0)


# ---- the claim -------------------------------------------------------------------------


def test_a_candidate_claims_after_its_own_message_came_back_and_nobody_answered() -> None:
    one = candidate()
    one.echo(2.1)
    assert one.wake(2.4) == []
    assert one.role is Role.CANDIDATE
    one.wake(2.5)
    assert (one.role, one.machine.next_wake()) == (Role.CLAIMING, None)


def test_a_candidate_that_does_not_hear_itself_never_claims() -> None:  # protocol B6
    one = candidate()
    for second in (2.5, 3.0, 3.5):
        assert the(said(one.wake(second), ElectionMessage)).kind is ElectionKind.ELECTION
        assert one.role is Role.CANDIDATE


@pytest.mark.parametrize(
    "heard",
    [
        message(ElectionKind.ANSWER, "r2"),  # not the election message
        ElectionMessage(
            kind=ElectionKind.ELECTION, rack="r2", rank=20, ballot=SEEN, instance="a twin's"
        ),
    ],
)
def test_only_its_own_election_message_is_an_echo(heard: ElectionMessage) -> None:  # protocol B6
    one = candidate()
    one.machine.hear(heard, highest=SEEN, able=True, now=2.1)
    one.wake(2.5)
    assert one.role is Role.CANDIDATE


def test_an_echo_of_an_earlier_election_does_not_serve_for_the_next() -> None:  # protocol B6
    one = candidate()
    one.echo(2.1)
    one.beat(SEEN, now=2.2)
    one.wake(4.2)
    assert one.role is Role.CANDIDATE
    one.wake(4.7)
    assert one.role is Role.CANDIDATE


def test_a_candidate_that_may_lead_no_more_gives_up() -> None:
    one = candidate()
    one.echo(2.1)
    one.able = False
    assert kinds(one.wake(2.5), ListenToReports) == [ListenToReports(False)]
    assert one.role is Role.FOLLOWER


def test_a_beat_ends_a_candidacy() -> None:
    one = candidate()
    assert kinds(one.beat(SEEN, now=2.2), ListenToReports) == [ListenToReports(False)]
    assert (one.role, one.machine.next_wake()) == (Role.FOLLOWER, 4.2)


def test_its_own_beat_ends_nothing() -> None:
    one = broker()
    one.beat(Ballot(5, "r2"), now=3.0)
    assert one.role is Role.BROKER


@pytest.mark.parametrize("make", [claiming, broker])
def test_a_higher_ballot_ends_the_role_at_once(make: Callable[[], One]) -> None:  # protocol B5
    one = make()
    assert kinds(one.machine.step_down(now=3.0), ListenToReports) == [ListenToReports(False)]
    assert (one.role, one.machine.next_wake()) == (Role.FOLLOWER, 5.0)


def test_a_candidate_that_sees_a_higher_ballot_goes_on() -> None:
    one = candidate()
    assert one.machine.step_down(now=2.2) == []
    assert one.role is Role.CANDIDATE


# ---- answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(("rack", "heeded"), [("r3", True), ("r1", False)])
def test_only_a_higher_rank_answers(rack: str, heeded: bool) -> None:
    one = candidate()
    one.hear(ElectionKind.ANSWER, rack, to="r2", now=2.2)
    assert one.role is (Role.ANSWERED if heeded else Role.CANDIDATE)


def test_an_answer_to_another_candidate_is_not_ours() -> None:
    one = candidate()
    one.hear(ElectionKind.ANSWER, "r3", to="r1", now=2.2)
    assert one.role is Role.CANDIDATE


def test_who_was_answered_waits_beat_timeout_for_the_beat() -> None:
    one = answered()
    assert one.machine.next_wake() == 4.2
    one.beat(Ballot(5, "r3"), now=3.0)
    assert (one.role, one.machine.next_wake()) == (Role.FOLLOWER, 5.0)


def test_an_answer_that_no_beat_follows_is_ignored_for_thirty_seconds() -> None:
    assert ANSWERS_IGNORED_S == 30.0
    one = answered()
    assert the(said(one.wake(4.2), ElectionMessage)).kind is ElectionKind.ELECTION
    one.hear(ElectionKind.ANSWER, "r3", to="r2", now=4.3)
    assert one.role is Role.CANDIDATE
    one.echo(4.3)
    one.wake(4.7)
    assert one.role is Role.CLAIMING


@pytest.mark.parametrize(("now", "role"), [(34.1, Role.CANDIDATE), (34.2, Role.ANSWERED)])
def test_after_the_thirty_seconds_its_answers_count_again(now: float, role: Role) -> None:
    one = answered()
    one.wake(4.2)
    one.hear(ElectionKind.ANSWER, "r3", to="r2", now=now)
    assert one.role is role


def test_another_ranks_answer_counts_while_one_is_ignored() -> None:
    one = One("r1")
    one.wake(2.0)
    one.hear(ElectionKind.ANSWER, "r3", to="r1", now=2.2)
    one.wake(4.2)
    one.hear(ElectionKind.ANSWER, "r2", to="r1", now=4.3)
    assert one.role is Role.ANSWERED


def test_a_higher_rank_answers_and_holds_its_own_election() -> None:
    one = One()
    effects = one.hear(ElectionKind.ELECTION, "r1", now=1.0)
    assert said(effects, ElectionMessage) == [
        message(ElectionKind.ANSWER, "r2", to="r1"),
        message(ElectionKind.ELECTION, "r2"),
    ]
    assert one.role is Role.CANDIDATE


def test_a_higher_rank_that_knows_a_broker_answers_and_stays() -> None:
    one = follower()
    effects = one.hear(ElectionKind.ELECTION, "r1", now=1.5)
    assert said(effects, ElectionMessage) == [message(ElectionKind.ANSWER, "r2", to="r1")]
    assert one.role is Role.FOLLOWER


@pytest.mark.parametrize("make", [candidate, answered, claiming])
def test_a_higher_rank_that_is_not_in_office_yet_answers_too(make: Callable[[], One]) -> None:
    one = make()
    role = one.role
    effects = one.hear(ElectionKind.ELECTION, "r1", now=2.6)
    assert said(effects, ElectionMessage) == [message(ElectionKind.ANSWER, "r2", to="r1")]
    assert one.role is role


def test_the_broker_in_office_keeps_its_office_and_answers_with_its_beat_alone() -> None:
    one = broker()  # the beat is the node's
    assert one.hear(ElectionKind.ELECTION, "r1", now=3.0) == []
    assert one.role is Role.BROKER


def test_a_lower_rank_does_not_answer() -> None:
    one = One()
    assert one.hear(ElectionKind.ELECTION, "r3", now=1.0) == []
    assert one.role is Role.FOLLOWER


def test_a_higher_rank_that_may_not_lead_does_not_answer() -> None:  # protocol R10, R11
    one = One()
    one.able = False
    assert one.hear(ElectionKind.ELECTION, "r1", now=1.0) == []
    assert one.role is Role.FOLLOWER


@pytest.mark.parametrize(("rack", "answers"), [("r1", True), ("r3", False)])
def test_equal_ranks_are_ordered_by_name(rack: str, answers: bool) -> None:
    one = One("r2", rank=10)
    asked = ElectionMessage(
        kind=ElectionKind.ELECTION, rack=rack, rank=10, ballot=SEEN, instance="x"
    )
    effects = one.machine.hear(asked, highest=SEEN, able=True, now=1.0)
    assert bool(effects) is answers


# ---- taking over -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("office", "now", "silent", "able", "stands"),
    [
        ("r1", 30.0, False, True, True),
        ("r1", 29.9, False, True, False),  # not up for long enough
        ("r1", 30.0, True, True, False),  # a new ballot turns known bounds into ceilings
        ("r1", 30.0, False, False, False),
        ("r3", 30.0, False, True, False),  # a higher rank is in office
    ],
)
def test_a_higher_rank_takes_over_once_it_is_up_and_no_member_is_silent(
    office: str, now: float, silent: bool, able: bool, stands: bool
) -> None:
    one = One()
    one.able = able
    effects = one.beat(Ballot(5, office), silent=silent, now=now)
    assert one.role is (Role.CANDIDATE if stands else Role.FOLLOWER)
    assert bool(said(effects, ElectionMessage)) is stands


def test_who_was_beaten_back_tries_again_only_after_as_long() -> None:
    one = One()
    one.beat(Ballot(5, "r1"), now=30.0)
    one.hear(ElectionKind.ANSWER, "r3", to="r2", now=30.2)
    for now, role in ((31.0, Role.FOLLOWER), (59.9, Role.FOLLOWER), (60.0, Role.CANDIDATE)):
        one.beat(Ballot(5, "r1"), now=now)
        assert one.role is role, now


def test_equal_ranks_take_over_by_name() -> None:
    one = One("r2", rank=10)
    one.beat(Ballot(5, "r3"), now=40.0)
    assert one.role is Role.FOLLOWER
    one.beat(Ballot(5, "r1"), now=41.0)
    assert one.role is Role.CANDIDATE


def test_the_beat_of_the_one_it_replaces_does_not_stop_it() -> None:
    one = One()
    one.beat(Ballot(5, "r1"), now=30.0)
    one.echo(30.1)
    one.beat(Ballot(5, "r1"), now=30.2)
    assert one.role is Role.CANDIDATE
    one.wake(30.5)
    assert one.role is Role.CLAIMING
    one.beat(Ballot(5, "r1"), now=30.6)
    assert one.role is Role.CLAIMING


def test_the_beat_of_a_higher_rank_does_stop_it() -> None:
    one = One()
    one.beat(Ballot(5, "r1"), now=30.0)
    one.beat(Ballot(6, "r3"), now=30.2)
    assert one.role is Role.FOLLOWER


def test_a_candidate_by_silence_gives_way_to_a_lower_ranks_beat() -> None:
    one = candidate()
    one.beat(Ballot(5, "r1"), now=2.2)
    assert one.role is Role.FOLLOWER


def test_a_change_that_no_rule_allows_stops_the_process() -> None:
    with pytest.raises(AssertionError):
        One().machine.become_broker()
