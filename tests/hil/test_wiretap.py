"""What the outside observer takes from a message, and what it passes over."""

import json

import pytest

from hil.wiretap import Heard, Report, Wiretap, after


def hear(topic, content, heard=None, retained=False):
    return after(heard or Heard(), topic, content, cap="room", retained=retained, now_s=12.5)


def test_a_report_is_kept_by_its_rack_and_missing_keys_are_none():
    heard = hear("racks/r1/report", {"bound_w": 700, "limit_w": 600, "demand_w": 900, "new": 1})
    heard = hear("racks/r2/report", {"bound_w": "much"}, heard)
    assert heard.reports == {"r1": Report(700.0, 600.0, 900.0), "r2": Report()}


def test_a_live_beat_names_the_broker_and_a_retained_one_does_not():
    assert hear("broker", {"ballot": [3, "r5"]}).broker == "r5"
    assert hear("broker", {"ballot": [3, "r5"]}).broker_at_s == 12.5
    assert hear("broker", {"ballot": [3, "r5"]}, retained=True).broker is None


def test_price_and_reserve_are_those_of_the_room():
    assert hear("market", {"price": {"room": 0.25, "row1": 1.0}}).price == 0.25
    assert hear("market", {"price": {"room": None}}).price is None
    reserves = {"reserve_w": {"r1": 700, "r2": None}}
    assert hear("caps/room", reserves).reserve_w == {"r1": 700.0}
    assert hear("caps/row1", reserves).reserve_w == {}


@pytest.mark.parametrize(
    ("topic", "content"),
    [
        ("broker", {"ballot": "r5"}),
        ("broker", {}),
        ("market", {"price": 3}),
        ("caps/room", {"reserve_w": [1]}),
        ("racks/r1/grant", {"limit_w": 1}),
        ("caps/room/set", {"limit_w": 1}),
    ],
)
def test_a_message_that_says_nothing_known_changes_nothing_known(topic, content):
    heard = hear(topic, content)
    assert (heard.broker, heard.price, heard.reserve_w, heard.reports) == (None, None, {}, {})


def test_numbers_of_the_cap_only_ever_rise_even_within_one_millisecond():
    said = []
    wiretap = Wiretap(1)
    wiretap._heard_so_far = Heard(connected=True)
    wiretap._client.publish = lambda topic, payload, qos: said.append(json.loads(payload))
    for _ in range(50):
        wiretap.set_cap(9000)
    numbers = [message["number"] for message in said]
    assert numbers == sorted(set(numbers))
    assert said[0] == {"limit_w": 9000, "number": numbers[0], "by": "plant"}


def test_no_cap_is_kept_for_later_while_there_is_no_connection():
    said = []
    wiretap = Wiretap(1)
    wiretap._client.publish = lambda *message, **_: said.append(message)
    wiretap.set_cap(9000)
    assert said == []
