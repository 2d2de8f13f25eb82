"""What `wattbroker explain` says of a record, to people."""

from __future__ import annotations

from typing import Any

import pytest

from broker.messages import Explain
from firmware_py.explaining import Answer, sentences


def record(**changed: Any) -> Explain:
    plain: dict[str, Any] = {
        "limit_w": 2000, "bound_w": 2100, "floor_w": 500, "ceiling_w": 4000,
        "set_by": "broker r5, term 7", "why": "market", "cap": "room", "cap_limit_w": 9600,
        "cap_by": "operator", "price": 0.34, "since_s": 31.4, "granted_w": 2000,
        "lease_left_s": 14.2, "floor_in_s": 12.2, "time_ms": 1_000_000,
        "changes": ("up: more room under room", "down: a broker's grant, at once"),
    }  # fmt: skip
    return Explain(**(plain | changed))


def told(online: bool | None = True, *, live: bool = True, at_ms: int = 1_000_000, **changed: Any):
    return sentences("r1", Answer(record(**changed), live, online), wall_ms=at_ms)


def test_a_live_word_says_who_from_which_cap_since_when_until_when_and_what_would_change_it():
    assert told() == [
        "r1: limit 2000 W (floor 500 W, ceiling 4000 W), promises 2100 W",
        "  set by   broker r5, term 7: market",
        "  cap      room is 9600 W by operator, price 0.34",
        "  since    31 s",
        "  until    12 s without a newer grant, then 500 W",
        "  up       more room under room",
        "  down     a broker's grant, at once",
    ]


def test_a_grant_that_is_not_obeyed_is_named():
    assert "  granted  3000 W" in told(granted_w=3000)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"floor_in_s": None}, "  until    something changes it"),
        ({"floor_in_s": 0.0}, "  until    its lease has ended: it goes to its floor"),
        ({"since_s": 119.0}, "  since    119 s"),
        ({"since_s": 130.0}, "  since    2 min"),
        ({"since_s": 7201.0}, "  since    2 h"),
        ({"why": ""}, "  set by   broker r5, term 7"),
        ({"cap_by": None, "cap_limit_w": None, "price": None}, "  cap      room"),
    ],
    ids=str,
)
def test_every_part_has_its_words(changed: dict[str, Any], line: str):
    assert line in told(**changed)


def test_without_a_cap_none_is_named():
    assert not any(line.startswith("  cap") for line in told(cap=None))


@pytest.mark.parametrize(
    ("online", "at_ms", "changed", "first_lines"),
    [
        (False, 1_090_000, {}, [
            "r1 is offline; its last word is 90 s old, and said:",
            "  by now: at most 2100 W if its controller died, its floor of 500 W if it lives and is"
            " cut off"]),
        (True, 1_005_000, {}, [
            "r1 does not speak; its last word is 5 s old, and said:",
            "  by now: at most 2100 W if its controller died; its lease still runs if it lives"]),
        (None, 1_090_000, {"floor_in_s": None}, [
            "r1 is unknown to the server; its last word is 90 s old, and said:",
            "  by now: at most 2100 W if its controller died, as it was if it lives"]),
        (False, 900_000, {}, [  # two machines, two clocks
            "r1 is offline; its last word is 0 s old, and said:",
            "  by now: at most 2100 W if its controller died; its lease still runs if it lives"]),
    ],
)  # fmt: skip
def test_of_a_rack_that_is_silent_it_is_said_what_must_have_become_of_it(
    online: bool | None, at_ms: int, changed: dict[str, Any], first_lines: list[str]
):
    lines = told(online, live=False, at_ms=at_ms, **changed)
    assert lines[:2] == first_lines
    assert lines[2].startswith("r1: limit 2000 W")
