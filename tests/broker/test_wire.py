"""Bytes to messages and back: a whole message of its topic's type, or a WireError."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol_values import report

from broker import wire
from broker.errors import WireError
from broker.messages import (
    NUMBER_MAX,
    WATTS_MAX,
    Actuation,
    Ballot,
    Beat,
    CapMeasured,
    CapSet,
    CapState,
    CapValue,
    ElectionKind,
    ElectionMessage,
    Explain,
    Grant,
    GrantKey,
    Join,
    JoinAnswer,
    Leave,
    MarketState,
    Message,
    Presence,
    Report,
    Roster,
    RosterCap,
    RosterRack,
)
from broker.topics import Kind

TYPES: dict[Kind, type] = {
    Kind.BEAT: Beat,
    Kind.REPORT: Report,
    Kind.GRANT: Grant,
    Kind.ONLINE: Presence,
    Kind.EXPLAIN: Explain,
    Kind.ELECTION: ElectionMessage,
    Kind.ROSTER: Roster,
    Kind.JOIN: Join,
    Kind.JOIN_ANSWER: JoinAnswer,
    Kind.LEAVE: Leave,
    Kind.CAP_SET: CapSet,
    Kind.CAP_MEASURED: CapMeasured,
    Kind.CAP_STATE: CapState,
    Kind.MARKET: MarketState,
}

# ---- every message there can be ----------------------------------------------------------

watts = st.integers(0, WATTS_MAX)
numbers = st.integers(0, NUMBER_MAX)
seconds = st.floats(0, 1e9)
prices = st.none() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=20)
names = st.text(min_size=1, max_size=8)
ballots = st.builds(Ballot, numbers, texts)
keys = st.builds(GrantKey, numbers, names, numbers)
cap_values = st.dictionaries(
    names,
    st.dictionaries(names, st.builds(CapValue, numbers, st.none() | watts), max_size=3),
    max_size=3,
)
finite = st.floats(allow_nan=False, allow_infinity=False)

instances = st.text(min_size=1, max_size=16)
roster_racks = st.builds(
    RosterRack,
    rack=names,
    rank=st.integers(-100, 100),
    floor_w=watts,
    ceiling_w=watts,
    cap=names,
    weight=finite,
    tier=st.integers(-9, 9),
    joined=st.none() | ballots,
    leaving=st.booleans(),
)
MESSAGES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BEAT: st.builds(
        Beat,
        ballot=ballots,
        number=numbers,
        roster=ballots,
        caps=cap_values,
        silent=st.lists(texts, max_size=3).map(tuple),
        time_ms=numbers,
    ),
    Kind.REPORT: st.builds(
        Report,
        instance=names,
        boot=numbers,
        seq=numbers,
        ballot=ballots,
        roster=ballots,
        site_hash=texts,
        caps=cap_values,
        seen=st.none() | keys,
        bound_w=watts,
        limit_w=watts,
        next_w=watts,
        floor_w=watts,
        ceiling_w=watts,
        ttl_s=seconds,
        settle_s=seconds,
        demand_w=watts,
        measured_w=st.none() | watts,
        measured_age_s=st.none() | seconds,
        weight=st.floats(1e-9, 1e9),
        actuator=st.sampled_from(Actuation),
        starting=st.booleans(),
        time_ms=numbers,
    ),
    Kind.GRANT: st.builds(
        Grant,
        key=keys,
        instance=names,
        boot=numbers,
        seq=numbers,
        limit_w=watts,
        may_raise=st.booleans(),
        ttl_s=seconds,
        price=prices,
        cap=st.none() | names,
        why=texts,
        time_ms=numbers,
    ),
    Kind.ONLINE: st.sampled_from(Presence),
    Kind.EXPLAIN: st.builds(
        Explain,
        limit_w=watts,
        bound_w=watts,
        floor_w=watts,
        ceiling_w=watts,
        set_by=texts,
        why=texts,
        cap=st.none() | texts,
        cap_limit_w=st.none() | watts,
        cap_by=st.none() | texts,
        price=prices,
        since_s=seconds,
        granted_w=st.none() | watts,
        lease_left_s=seconds,
        floor_in_s=st.none() | seconds,
        braked_by=st.none() | texts,
        changes=st.lists(texts, max_size=4).map(tuple),
        time_ms=numbers,
    ),
    Kind.ELECTION: st.builds(
        ElectionMessage,
        kind=st.sampled_from(ElectionKind),
        rack=names,
        rank=st.integers(-(2**53), 2**53),
        ballot=ballots,
        instance=names,
        to=st.none() | names,
        time_ms=numbers,
    ),
    Kind.ROSTER: st.builds(
        Roster,
        name=ballots,
        racks=st.lists(
            roster_racks,
            max_size=3,
        ).map(tuple),
        caps=st.lists(
            st.builds(
                RosterCap,
                cap=names,
                limit_w=watts,
                parent=st.none() | names,
                fallback_w=st.none() | watts,
                set_ttl_s=seconds,
                brake_after_s=st.none() | seconds,
            ),
            max_size=3,
        ).map(tuple),
        ballot=st.none() | ballots,
        time_ms=numbers,
    ),
    Kind.JOIN: st.builds(
        Join,
        rack=roster_racks,
        instance=instances,
        boot=numbers,
        ballot=ballots,
        roster=ballots,
        bound_w=watts,
        time_ms=numbers,
    ),
    Kind.JOIN_ANSWER: st.builds(
        JoinAnswer, instance=instances, ballot=ballots, why=texts, time_ms=numbers
    ),
    Kind.LEAVE: st.builds(
        Leave,
        rack=names,
        by=names,
        ballot=ballots,
        boot=st.none() | numbers,
        seq=st.none() | numbers,
        time_ms=numbers,
    ),
    Kind.CAP_SET: st.builds(CapSet, limit_w=st.none() | watts, number=numbers, by=names),
    Kind.CAP_MEASURED: st.builds(
        CapMeasured, power_w=st.floats(-WATTS_MAX, WATTS_MAX), age_s=seconds
    ),
    Kind.CAP_STATE: st.builds(
        CapState,
        ballot=ballots,
        limit_w=watts,
        by=texts,
        reserved_w=watts,
        reserve_w=st.dictionaries(names, watts, max_size=3),
        allocated_w=watts,
        draw_w=watts,
        demand_w=watts,
        headroom_w=st.integers(-WATTS_MAX, WATTS_MAX),
        price=prices,
        short_w=watts,
        time_ms=numbers,
    ),
    Kind.MARKET: st.builds(
        MarketState,
        ballot=ballots,
        mechanism=texts,
        price=st.dictionaries(names, prices, max_size=3),
        allocation_w=st.dictionaries(names, watts, max_size=3),
        violation_w=finite,
        kkt=finite,
        iterations=numbers,
        alarm=texts,
        time_ms=numbers,
    ),
}


@pytest.mark.parametrize("kind", Kind)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_message_comes_back_from_its_bytes_as_it_was(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    assert wire.decode(kind, wire.encode(message)) == message


# ---- what is not a message ---------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
@given(payload=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(payload=b"")
@example(payload=b"null")
@example(payload=b"{}")
@example(payload=b"[]")
@example(payload=b"0")
@example(payload=b'"online"')
@example(payload=b"\xff\xfe")
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_message_of_the_topics_type_or_a_wire_error(
    kind: Kind, payload: bytes
) -> None:
    assert_message_or_error(kind, payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.ONLINE])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_message_with_a_part_replaced_is_a_message_or_a_wire_error(
    kind: Kind, data: st.DataObject
) -> None:
    whole = json.loads(wire.encode(data.draw(MESSAGES[kind])))
    part = data.draw(st.sampled_from(sorted(whole)))
    whole[part] = data.draw(json_values)
    assert_message_or_error(kind, json.dumps(whole).encode())  # NaN and Infinity among it


def assert_message_or_error(kind: Kind, payload: bytes) -> None:
    try:
        message: Message = wire.decode(kind, payload)
    except WireError as error:
        assert str(error)
    else:
        assert type(message) is TYPES[kind]
        wire.encode(message)


CAP_SET = b'{"limit_w":%s,"number":1,"by":"operator"}'


@pytest.mark.parametrize(
    "limit_w",
    [
        b"NaN", b"Infinity", b"-1", b"1e400", b"1.5", b"1000000001", b'"9600"', b"true", b"[]",
        b"1" * 5000, b"9600,", b"0x10",
    ],
)  # fmt: skip
def test_watts_are_whole_not_negative_and_bounded(limit_w: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(Kind.CAP_SET, CAP_SET % limit_w)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("ttl_s", "NaN"),
        ("ttl_s", "-1"),
        ("ttl_s", "1e999"),
        ("seq", "-1"),
        ("seq", str(2**53)),
        ("boot", "null"),
        ("key", '[1,"r1"]'),
        ("key", '[1,"r1",-1]'),
        ("key", '{"term":1}'),
        ("key", '[1,"",1]'),
        ("instance", '""'),
        ("instance", '"' + "x" * 33 + '"'),
        ("may_raise", "1"),
        ("limit_w", "null"),
        ("why", '"' + "x" * 201 + '"'),
    ],
)
def test_a_part_that_is_not_what_it_should_be_spoils_the_message(part: str, value: str) -> None:
    parts = {
        "key": '[1,"r1",2]', "instance": '"a"', "boot": "1", "seq": "1", "limit_w": "9",
        "may_raise": "true", "ttl_s": "15.0",
    }  # fmt: skip
    assert isinstance(wire.decode(Kind.GRANT, whole(parts)), Grant)
    with pytest.raises(WireError):
        wire.decode(Kind.GRANT, whole(parts | {part: value}))


def whole(parts: dict[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":{value}' for name, value in parts.items()) + "}").encode()


def test_a_weight_of_nothing_is_refused() -> None:
    good = json.loads(wire.encode(report()))
    assert isinstance(wire.decode(Kind.REPORT, json.dumps(good | {"weight": 2}).encode()), Report)
    for weight in (0, -1.0, 2e9):
        with pytest.raises(WireError):
            wire.decode(Kind.REPORT, json.dumps(good | {"weight": weight}).encode())


@pytest.mark.parametrize("kind", Kind)
def test_a_megabyte_is_refused_unread(kind: Kind) -> None:
    with pytest.raises(WireError, match="1048576 bytes"):
        wire.decode(kind, b" " * (1 << 20))


@pytest.mark.parametrize(("kind", "limit_bytes"), [(Kind.CAP_SET, 65_536), (Kind.ROSTER, 524_288)])
def test_a_payload_at_the_limit_is_read(kind: Kind, limit_bytes: int) -> None:
    payloads = {
        Kind.CAP_SET: b'{"limit_w":9,"number":1,"by":"operator"}',
        Kind.ROSTER: b'{"name":[0,"h"],"racks":[],"caps":[]}',
    }
    payload = payloads[kind].ljust(limit_bytes)
    assert isinstance(wire.decode(kind, payload), TYPES[kind])
    with pytest.raises(WireError):
        wire.decode(kind, payload + b" ")


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"unknown":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
    ids=["brackets", "braces", "under an unknown key"],
)
def test_deep_nesting_is_refused_and_breaks_nothing(kind: Kind, payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(kind, payload)


# ---- what it looks like --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "presence"),
    [
        (b"online", Presence.ONLINE),
        (b"offline", Presence.OFFLINE),
        (b'"online"', Presence.ONLINE),
    ],
)
def test_presence_is_a_plain_word(payload: bytes, presence: Presence) -> None:
    assert wire.decode(Kind.ONLINE, payload) is presence
    assert wire.encode(presence) == presence.value.encode()


@pytest.mark.parametrize("payload", [b"", b"ONLINE", b"away", b"{}", b"online\x00"])
def test_any_other_word_is_no_presence(payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(Kind.ONLINE, payload)


def test_keys_that_a_newer_controller_adds_are_passed_over() -> None:
    payload = b'{"limit_w":9600,"number":7,"by":"operator","season":"winter"}'
    assert wire.decode(Kind.CAP_SET, payload) == CapSet(limit_w=9600, number=7, by="operator")


def test_ballots_and_keys_are_lists_as_the_protocol_page_writes_them() -> None:
    key = GrantKey(7, "r2", 3)
    grant = Grant(key=key, instance="a", boot=1, seq=5, limit_w=900, may_raise=False, ttl_s=15.0)
    assert msgspec.json.decode(wire.encode(grant))["key"] == [7, "r2", 3]
    assert key.ballot == Ballot(7, "r2")


def test_the_wall_clock_is_stamped_on_what_monitors_read() -> None:
    beat = Beat(ballot=Ballot(1, "r1"), number=0, roster=Ballot(0, "h"))
    assert json.loads(wire.encode(beat, time_ms=1234))["time_ms"] == 1234
    assert beat.time_ms == 0
    said = CapSet(limit_w=None, number=7, by="operator")
    assert json.loads(wire.encode(said, time_ms=1234)) == {
        "limit_w": None, "number": 7, "by": "operator"
    }  # fmt: skip
    assert wire.encode(Presence.ONLINE, time_ms=1234) == b"online"


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (Ballot(1, "z"), Ballot(2, "a")),
        (Ballot(2, "a"), Ballot(2, "b")),
        (Ballot(2, "Z"), Ballot(2, "a")),  # code points, not letters
        (Ballot(2, "r10"), Ballot(2, "r9")),
        (Ballot(0, ""), Ballot(0, "h")),
        (GrantKey(1, "z", 900), GrantKey(2, "a", 0)),
        (GrantKey(2, "a", 9), GrantKey(2, "b", 0)),
        (GrantKey(2, "a", 9), GrantKey(2, "a", 10)),
    ],
)
def test_ballots_and_keys_are_ordered_by_term_then_name_then_number(
    lower: Any, higher: Any
) -> None:
    assert lower < higher
