"""Any bytes on any topic: no controller stops, and nothing moves a limit but the rules.

Sequences of garbage, of messages of the right shape with hostile numbers, and of honest
ones between them, against a whole controller (`any_bytes_victim` states the oracle).
Six hundred cases run with every test; `make fuzz` runs ten thousand (FUZZ_CASES).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from any_bytes_victim import BOOT, DAY_MS, EFFECT_S, INSTANCE, SITE, WALL_MS, Victim
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.caps import CapBook
from broker.lease import LeaseDesk
from broker.node import Node
from firmware_py.controller import Controller
from firmware_py.limiter import Limiter

PARTS = 5  # the tests below that share them
CASES = int(os.environ.get("FUZZ_CASES", "600"))
A_FEW_OR_MANY = settings(
    max_examples=CASES // PARTS,
    deadline=None,
    derandomize="FUZZ_CASES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

# ---- numbers that hurt ---------------------------------------------------------------

RACKS = st.sampled_from(["r1", "r2", "r3", "stranger", "", "r1/grant", "ü" * 32])
FAR_TERMS = (WALL_MS, WALL_MS + DAY_MS, WALL_MS + DAY_MS + 1, 2**52 - 1, 2**52, 2**53 - 1, 2**53)
TERMS = st.sampled_from([0, 1, 4, 5, 6, 7, 100, *FAR_TERMS, -1])
NUMBERS = st.sampled_from([0, 1, 2, 3, 10, 1000, 2**52, 2**53 - 1, 2**53, 2**64, -1])
WATTS = st.sampled_from([0, 1, 499, 500, 501, 900, 1500, 3999, 4000, 4001, 9000, 10**9, -1])
SECONDS = st.sampled_from([0, 1e-9, 0.5, 1.99, 2.0, 2.01, 3.0, 15.0, 16.0, 1e9, 1e12, -1.0])
WEIGHTS = st.sampled_from([1.0, 0.5, 5e-324, 1e-300, 1e-12, 1e9, 0.0, -1.0])
BOOTS = st.sampled_from([0, BOOT - 1, BOOT, BOOT + 1, 2**53 - 1])
INSTANCES = st.sampled_from([INSTANCE, "0", "ffff", "", "x" * 32])
RANKS = st.sampled_from([-(2**63), -1, 0, 10, 30, 31, 2**63 - 1, 2**64, 10**30])
WORDS = st.sampled_from(["", "market", "x" * 200, "x" * 201, "\x00", "\ud800", "\n", "☃"])
BALLOTS = st.tuples(TERMS, RACKS)
ODD = st.sampled_from(
    [None, True, float("nan"), float("inf"), -float("inf"), -0.0, 1.5, "1", [], {}, [[]], 10**400]
)


def caps() -> st.SearchStrategy[Any]:
    value = st.tuples(NUMBERS, st.one_of(WATTS, st.none()))
    by = st.dictionaries(st.sampled_from(["operator", "grid", "", "z"]), value, max_size=3)
    return st.dictionaries(st.sampled_from(["room", "attic", ""]), by, max_size=2)


REPORT = st.fixed_dictionaries(
    {
        "instance": INSTANCES, "boot": BOOTS, "seq": NUMBERS, "ballot": BALLOTS,
        "roster": st.sampled_from([(0, "h"), (0, "other"), (2**53 - 1, "r2")]),
        "site_hash": st.sampled_from(["h", "other", ""]), "caps": caps(),
        "bound_w": WATTS, "limit_w": WATTS, "next_w": WATTS, "floor_w": WATTS, "ceiling_w": WATTS,
        "ttl_s": SECONDS, "settle_s": SECONDS, "demand_w": WATTS,
    },
    optional={
        "seen": st.one_of(st.none(), st.tuples(TERMS, RACKS, NUMBERS)),
        "measured_w": WATTS, "measured_age_s": SECONDS, "weight": WEIGHTS,
        "actuator": st.sampled_from(["power-limit", "outlets", "none", "fan"]),
        "starting": st.booleans(),
    },
)  # fmt: skip
GRANT = st.fixed_dictionaries(
    {
        "key": st.tuples(TERMS, RACKS, NUMBERS), "instance": INSTANCES, "boot": BOOTS,
        "seq": NUMBERS, "limit_w": WATTS, "may_raise": st.booleans(), "ttl_s": SECONDS,
    },
    optional={"price": st.one_of(SECONDS, ODD), "cap": RACKS, "why": WORDS},
)  # fmt: skip
BEAT = st.fixed_dictionaries(
    {"ballot": BALLOTS, "number": NUMBERS, "roster": BALLOTS},
    optional={"caps": caps(), "silent": st.lists(RACKS, max_size=3)},
)
ELECTION = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["election", "answer", "coordinator", "revolution"]),
        "rack": RACKS, "rank": RANKS, "ballot": BALLOTS, "instance": INSTANCES,
    },
    optional={"to": RACKS},
)  # fmt: skip
CAP_SET = st.fixed_dictionaries(
    {"limit_w": st.one_of(WATTS, st.none()), "number": NUMBERS, "by": WORDS}
)
ROSTER_RACK = st.fixed_dictionaries(
    {"rack": RACKS, "rank": RANKS, "floor_w": WATTS, "ceiling_w": WATTS, "cap": RACKS},
    optional={"weight": WEIGHTS, "tier": NUMBERS},
)
ROSTER_CAP = st.fixed_dictionaries(
    {"cap": st.sampled_from(["room", "attic"]), "limit_w": WATTS},
    optional={"parent": st.sampled_from(["room", "attic", None]), "fallback_w": WATTS},
)
ROSTER = st.fixed_dictionaries(
    {
        "name": BALLOTS,
        "racks": st.lists(ROSTER_RACK, max_size=3),
        "caps": st.lists(ROSTER_CAP, max_size=2),
    },
    optional={"ballot": BALLOTS},
)
JOIN = st.fixed_dictionaries(
    {
        "rack": ROSTER_RACK, "instance": INSTANCES, "boot": BOOTS, "ballot": BALLOTS,
        "roster": BALLOTS, "bound_w": WATTS,
    }
)  # fmt: skip
LEAVE = st.fixed_dictionaries(
    {"rack": RACKS, "by": RACKS, "ballot": BALLOTS},
    optional={"boot": BOOTS, "seq": NUMBERS, "bound_w": WATTS},
)
MEASURED = st.fixed_dictionaries({"power_w": st.one_of(WATTS, ODD), "age_s": SECONDS})
RACK_TOPICS = ["racks/r1/{}", "racks/r2/{}", "racks/r3/{}", "racks/stranger/{}"]


def on(topics: list[str], message: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from(topics), message)


HOSTILE = st.one_of(
    on([t.format("report") for t in RACK_TOPICS], REPORT),
    on(["racks/r1/grant", "racks/r2/grant"], GRANT),
    on(["broker"], BEAT),
    on(["election"], ELECTION),
    on(["caps/room/set", "caps/attic/set"], CAP_SET),
    on(["caps/room/measured", "caps/attic/measured"], MEASURED),
)
ROSTER_WORD = st.one_of(on(["roster"], ROSTER), on(["join"], JOIN), on(["roster/remove"], LEAVE))
ALL_TOPICS = [
    *(t.format(kind) for t in RACK_TOPICS for kind in ("report", "grant", "online", "explain")),
    "broker", "election", "roster", "roster/remove", "join", "market", "caps/room",
    "caps/room/set", "caps/room/measured", "caps//set", "racks//report", "", "/", "#", "broker/",
]  # fmt: skip
JSON = st.recursive(
    st.one_of(ODD, NUMBERS, WORDS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
BYTES = st.one_of(
    st.binary(max_size=64),
    JSON.map(lambda value: _bytes(value)),
    st.sampled_from([b"online", b"offline", b'"offline"', b"[" * 70_000, b'{"ballot":' * 5_000]),
)


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, bytes]:
    """A message of the right shape in which one thing is odd, cut off or doubled."""
    topic, message = draw(HOSTILE)
    message = dict(message)
    match draw(st.sampled_from(["odd", "gone", "cut", "more"])):
        case "odd":
            message[draw(st.sampled_from(sorted(message)))] = draw(ODD)
        case "gone":
            del message[draw(st.sampled_from(sorted(message)))]
        case "more":
            message["limit_w2"] = draw(JSON)
        case "cut":
            whole = _bytes(message)
            return topic, whole[: draw(st.integers(0, len(whole)))]
    return topic, _bytes(message)


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


# ---- steps ---------------------------------------------------------------------------

Step = Callable[[Victim], None]
QUIET_S = 25.0  # ttl_s after a twin, two elections
QUICKLY = st.sampled_from([0.0, 0.1, 0.6, 1.0, 2.5, 6.0, 14.0])


def _elapse(seconds: float) -> Step:
    return lambda victim: victim.elapse(seconds)


def _hear(topic: str, payload: bytes, retained: bool) -> Step:
    return lambda victim: victim.hear(f"wattbroker/{SITE}/{topic}", payload, retained=retained)


def _say(topic: str, message: Any, retained: bool = False) -> Step:
    return _hear(topic, _bytes(message), retained)


def _hear_pair(said: tuple[str, bytes], retained: bool) -> Step:
    return _hear(*said, retained)


def _say_pair(said: tuple[str, Any], retained: bool) -> Step:
    return _say(*said, retained)


def _grant(
    term: int, rack: str, number: int, back: int, limit_w: int, up: bool, ttl_s: float
) -> Step:
    """One that would be admitted if its numbers were right: `back` reports ago."""

    def step(victim: Victim) -> None:
        message = {
            "key": [term, rack, number], "instance": INSTANCE, "boot": victim.boot,
            "seq": max(0, victim.last_seq - back), "limit_w": limit_w, "may_raise": up,
            "ttl_s": ttl_s,
        }  # fmt: skip
        _say("racks/r1/grant", message)(victim)

    return step


def _go_on(limit_w: int, up: bool) -> Step:
    """An honest broker's tick: its beat, and a grant that answers the last report."""

    def step(victim: Victim) -> None:
        victim.elapse(1.0)
        _beat(4, "r3", 0)(victim)
        _grant(4, "r3", 1000 + int(10 * victim.now), 0, limit_w, up, 15.0)(victim)

    return step


def _beat(term: int, rack: str, number: int) -> Step:
    return _say("broker", {"ballot": [term, rack], "number": number, "roster": [0, "h"]})


STEPS = st.one_of(
    st.builds(_elapse, QUICKLY),
    st.builds(_hear, st.sampled_from(ALL_TOPICS), BYTES, st.booleans()),
    st.builds(_hear_pair, spoiled(), st.booleans()),
    st.builds(_say_pair, HOSTILE, st.booleans()),
    st.builds(
        _grant, st.sampled_from([4, 4, 4, 5, 3]), st.sampled_from(["r3", "r3", "r2"]),
        st.integers(0, 9), st.sampled_from([0, 0, 1, 5, 13]), WATTS.filter(lambda w: w >= 0),
        st.booleans(), st.sampled_from([15.0, 15.0, 3.0, 1.0, 100.0]),
    ),
    st.builds(_go_on, st.sampled_from([0, 600, 1200, 2000, 2600, 5000]), st.booleans()),
    st.builds(_beat, st.sampled_from([4, 4, 5]), st.sampled_from(["r3", "r2"]), st.integers(0, 9)),
)  # fmt: skip


def _perform(victim: Victim, steps: list[Step]) -> None:
    for step in steps:
        step(victim)
    victim.elapse(QUIET_S)
    if victim.ended or victim.oracle.heard_roster:
        return
    has_boot = victim.clock_known or not victim.forgot
    reports = victim.now - victim.last_report_s <= 1.5
    assert reports == has_boot, "it reports no more, or without a boot"
    leads = victim.leads or victim.forgot or not victim.clock_known
    assert leads, "nobody else is there, and it does not lead"


@A_FEW_OR_MANY
@given(st.lists(STEPS, min_size=1, max_size=25), st.booleans())
def test_whatever_is_heard_a_power_limit_moves_by_the_rules_alone(
    steps: list[Step], clock_known: bool
) -> None:
    _perform(Victim(clock_known=clock_known), steps)


@A_FEW_OR_MANY
@given(st.lists(STEPS, min_size=1, max_size=25))
def test_whatever_is_heard_outlets_stay_within_what_was_granted(steps: list[Step]) -> None:
    _perform(Victim(outlets=True), steps)


@A_FEW_OR_MANY
@given(st.lists(STEPS, min_size=1, max_size=25))
def test_whatever_a_broker_hears_it_goes_on_and_its_own_grants_keep_the_rules(
    steps: list[Step],
) -> None:
    victim = Victim()
    victim.elapse(4.0)  # nobody leads: it claims
    assert victim.oracle.highest.rack == "r1"
    _perform(victim, steps)


@A_FEW_OR_MANY
@given(st.lists(STEPS, min_size=1, max_size=25), st.booleans())
def test_whatever_a_rack_hears_that_lost_its_journal_it_keeps_to_the_rules(
    steps: list[Step], clock_known: bool
) -> None:
    _perform(Victim(clock_known=clock_known, forgot=True), steps)


@A_FEW_OR_MANY
@given(
    st.lists(st.one_of(STEPS, st.builds(_say_pair, ROSTER_WORD, st.booleans())), max_size=25),
    st.booleans(),
)
def test_whoever_is_said_to_belong_nobody_is_raised_without_a_grant(
    steps: list[Step], leads: bool
) -> None:
    victim = Victim()
    victim.elapse(4.0 if leads else 0.0)
    _perform(victim, steps)


# ---- the oracle can fail -------------------------------------------------------------


def _admit_anything(patch: pytest.MonkeyPatch) -> None:
    def processed(self: LeaseDesk, *_: object) -> str:
        return ""

    patch.setattr(LeaseDesk, "_processed", processed)


def _forget_when_reports_left(patch: pytest.MonkeyPatch) -> None:  # R3
    def sent(self: LeaseDesk, seq: int, now: float) -> None:
        self._sent_at_s.update(dict.fromkeys(range(seq + 1), now))

    patch.setattr(LeaseDesk, "sent", sent)


def _obey_whatever_it_may_raise(patch: pytest.MonkeyPatch) -> None:  # R4
    limit = Limiter.limit

    def obey(self: Limiter, granted_w: int, *, may_raise: bool, now: float) -> Any:
        return limit(self, granted_w, may_raise=True, now=now)

    patch.setattr(Limiter, "limit", obey)


def _believe_every_beat(patch: pytest.MonkeyPatch) -> None:  # C1
    patch.setattr(CapBook, "is_below", lambda self, others: False)


def _obey_beside_a_twin(patch: pytest.MonkeyPatch) -> None:  # R10
    patch.setattr(Node, "_hear_own", lambda self, report, now: [])


def _never_lower_by_itself(patch: pytest.MonkeyPatch) -> None:  # R6
    patch.setattr(Controller, "_watch_lease", lambda self, now: [])


_REPORT: dict[str, Any] = {
    "instance": "0", "boot": BOOT, "seq": 1, "ballot": [4, "r3"], "roster": [0, "h"],
    "site_hash": "h", "bound_w": 500, "limit_w": 500, "next_w": 501, "floor_w": 500,
    "ceiling_w": 4000, "ttl_s": 15.0, "settle_s": 2.0, "demand_w": 4000,
}  # fmt: skip
_BEAT = {"ballot": [4, "r3"], "number": 9, "roster": [0, "h"]}
_CAP = {"limit_w": 3000, "number": 5, "by": "operator"}
_RAISE = _grant(4, "r3", 5, 0, 2000, True, 15.0)
_HELD_IN_OFFICE = [_beat(4, "r3", 0), _elapse(1.0)] * 10
_LATE_RAISE = [_RAISE, _elapse(2 * EFFECT_S), _grant(4, "r3", 4, 0, 3000, True, 15.0)]


@pytest.mark.parametrize(
    ("breaks", "steps"),
    [
        (_admit_anything, _LATE_RAISE),  # R2: keys
        (_admit_anything, [_beat(5, "r2", 0), _RAISE]),  # R2: ballots
        (
            _admit_anything,
            [_say("racks/r1/grant", {"key": [4, "r3", 1], "instance": "0", "boot": BOOT, "seq": 1,
                                     "limit_w": 2000, "may_raise": True, "ttl_s": 15.0})],
        ),  # R2: instances
        (_forget_when_reports_left, [*_HELD_IN_OFFICE, _grant(4, "r3", 5, 8, 2000, True, 9.0)]),
        (_obey_whatever_it_may_raise, [_grant(4, "r3", 5, 0, 2000, False, 15.0)]),
        (_believe_every_beat, [_say("caps/room/set", _CAP), _say("broker", _BEAT), _RAISE]),
        (_obey_beside_a_twin, [_say("racks/r1/report", _REPORT), _RAISE]),
        (_never_lower_by_itself, 2 * _HELD_IN_OFFICE),
    ],
)  # fmt: skip
def test_a_rule_that_is_broken_is_seen(
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[pytest.MonkeyPatch], None],
    steps: list[Step],
) -> None:
    _perform(Victim(), steps)
    breaks(monkeypatch)
    with pytest.raises(AssertionError):
        _perform(Victim(), steps)
