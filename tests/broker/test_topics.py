"""Topics to paths and back, and who listens to what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.topics import (
    Kind,
    Topic,
    of_broker,
    of_controller,
    of_newcomer,
    of_roster_desk,
    parse,
)

ROWS = [
    (Topic(Kind.BEAT), "wattbroker/lab/broker"),
    (Topic(Kind.ELECTION), "wattbroker/lab/election"),
    (Topic(Kind.ROSTER), "wattbroker/lab/roster"),
    (Topic(Kind.MARKET), "wattbroker/lab/market"),
    (Topic(Kind.JOIN), "wattbroker/lab/join"),
    (Topic(Kind.JOIN_ANSWER, "r1"), "wattbroker/lab/join/r1"),
    (Topic(Kind.LEAVE), "wattbroker/lab/roster/remove"),
    (Topic(Kind.REPORT, "r1"), "wattbroker/lab/racks/r1/report"),
    (Topic(Kind.GRANT, "r1"), "wattbroker/lab/racks/r1/grant"),
    (Topic(Kind.ONLINE, "r1"), "wattbroker/lab/racks/r1/online"),
    (Topic(Kind.EXPLAIN, "r1"), "wattbroker/lab/racks/r1/explain"),
    (Topic(Kind.CAP_SET, "room"), "wattbroker/lab/caps/room/set"),
    (Topic(Kind.CAP_MEASURED, "room"), "wattbroker/lab/caps/room/measured"),
    (Topic(Kind.CAP_STATE, "room"), "wattbroker/lab/caps/room"),
]


@pytest.mark.parametrize(("topic", "path"), ROWS, ids=[path for _, path in ROWS])
def test_every_topic_has_the_path_of_the_protocol_and_is_found_by_it(
    topic: Topic, path: str
) -> None:
    assert topic.path("lab") == path
    assert parse(path, "lab") == topic


def test_every_kind_stands_in_the_table() -> None:
    assert {topic.kind for topic, _ in ROWS} == set(Kind)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "wattbroker",
        "wattbroker/lab",
        "wattbroker/lab/",
        "wattbroker/other/broker",
        "wattbroker/lab2/broker",
        "wattbroker/bal/broker",
        "wattbroker/lab/report",
        "wattbroker/lab/racks/r1",
        "wattbroker/lab/racks//report",
        "wattbroker/lab/racks/r1/broker",
        "wattbroker/lab/racks/r1/set",
        "wattbroker/lab/racks/r1/report/more",
        "wattbroker/lab/caps/",
        "wattbroker/lab/caps//set",
        "wattbroker/lab/caps/room/measured/more",
        "wattbroker/lab/broker/more",
        "x/wattbroker/lab/broker",
    ],
)
def test_any_other_path_is_not_ours(path: str) -> None:
    assert parse(path, "lab") is None


@given(st.text(max_size=60))
def test_whatever_path_is_parsed_nothing_is_raised_and_what_is_found_leads_back(rest: str) -> None:
    path = f"wattbroker/lab/{rest}"
    topic = parse(path, "lab")
    assert topic is None or topic.path("lab") == path


def test_a_controller_hears_the_site_and_of_the_racks_only_itself() -> None:
    assert set(of_controller("lab", "r1")) == {
        "wattbroker/lab/broker",
        "wattbroker/lab/election",
        "wattbroker/lab/roster",
        "wattbroker/lab/racks/+/online",
        "wattbroker/lab/caps/+/set",
        "wattbroker/lab/caps/+/measured",
        "wattbroker/lab/racks/r1/grant",
        "wattbroker/lab/racks/r1/report",
    }


def test_the_broker_hears_every_report_beside_it() -> None:
    assert of_broker("lab") == ("wattbroker/lab/racks/+/report",)


def test_the_broker_hears_who_wants_to_come_and_go_and_a_newcomer_its_answer() -> None:  # M2, M3
    assert of_roster_desk("lab") == ("wattbroker/lab/join", "wattbroker/lab/roster/remove")
    assert of_newcomer("lab", "r1") == ("wattbroker/lab/join/r1",)
