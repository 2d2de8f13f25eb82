"""Whatever stands on the topics that the product listens to: it lives, and its limit stays."""

from __future__ import annotations

import json

import pytest
from emulated_room import DEADLINE_S, SITE, Heard

from broker import topics

MEGABYTE = b"x" * 1_000_000
PAYLOADS = {
    "empty": b"",
    "cut off": b'{"ballot": [1, "r1"',
    "no UTF-8": b"\xff\xfe\x00\x80",
    "no UTF-8 in a string": b'{"ballot": [1, "\xff\xfe"]}',
    "zeros": bytes(64),
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "a string": b'"on"',
    "a number": b"1e999",
    "an infinite number": b'{"limit_w": Infinity, "number": NaN, "by": "operator"}',
    "deep": b"[" * 60_000,
    "deep object": b'{"ballot":' * 6_000,
    "one megabyte": MEGABYTE,
    "one megabyte of JSON": json.dumps({"by": MEGABYTE.decode()}).encode(),
    "200 kB": MEGABYTE[:200_000],
    "200 kB of roster": b'{"name":[0,"a"],"caps":[],"racks":[' + b"0," * 100_000 + b"0]}",
}
WRONG = {
    "ballot": "high",
    "number": -1,
    "roster": [0],
    "caps": {"room": {"operator": [1, "much"]}},
    "key": [1, "r1"],
    "instance": 7,
    "boot": "last",
    "seq": 1.5,
    "limit_w": -500,
    "bound_w": 1e12,
    "may_raise": "yes",
    "ttl_s": None,
    "kind": "revolution",
    "rack": "",
    "rank": "highest",
    "by": 3,
    "name": {},
    "racks": 17,
}
PAYLOADS["wrong types"] = json.dumps(WRONG).encode()


def listened_to() -> list[str]:
    """Every topic that some controller of r1 and r2 subscribes to, wildcards filled in."""
    filters = [*topics.of_controller(SITE, "r1"), *topics.of_controller(SITE, "r2")]
    filters += topics.of_broker(SITE)
    names = {"racks": ("r1", "r2", "stranger"), "caps": ("room", "stranger")}
    found: set[str] = set()
    for path in filters:
        kind = path.split("/")[2]
        found |= {path.replace("+", name) for name in names.get(kind, ("",))}
    return sorted(found)


def test_the_list_of_topics_is_the_one_of_the_protocol():
    assert listened_to() == [
        "wattbroker/lab/broker",
        "wattbroker/lab/caps/room/set",
        "wattbroker/lab/caps/stranger/set",
        "wattbroker/lab/election",
        "wattbroker/lab/racks/r1/grant",
        "wattbroker/lab/racks/r1/online",
        "wattbroker/lab/racks/r1/report",
        "wattbroker/lab/racks/r2/grant",
        "wattbroker/lab/racks/r2/online",
        "wattbroker/lab/racks/r2/report",
        "wattbroker/lab/racks/stranger/online",
        "wattbroker/lab/racks/stranger/report",
        "wattbroker/lab/roster",
    ]


@pytest.fixture
def two_racks(room, mosquitto, wait_until):
    """r1 and r2 at their shares of 1980 W, r2 the broker."""
    r1, r2 = room.limit_rack("r1", holds_w=1500), room.limit_rack("r2", holds_w=1500)
    room.write_site(mosquitto.port, cap_w=4000)
    room.init("r1", "r2")
    controllers = {"r1": room.run("r1"), "r2": room.run("r2")}
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (1980, 1980), DEADLINE_S, "equal shares")
    return controllers


def test_no_payload_on_any_topic_moves_a_limit_or_stops_a_controller(
    room, mosquitto, two_racks, tap, wait_until
):
    racks = room.hardware.limit_racks
    written = {name: list(rack.writes_w) for name, rack in racks.items()}
    stranger = tap(mosquitto, "nothing/of/interest")
    for retain in (False, True):
        for payload in PAYLOADS.values():
            for topic in listened_to():
                stranger.publish(topic, payload, retain)
    # The cycle goes on: both report, the broker answers, both obey newer grants.
    clean = Heard(tap(mosquitto, "wattbroker/lab/racks/+/grant"))
    for name in ("r1", "r2"):
        wait_until(lambda name=name: clean.grant(name) is not None, DEADLINE_S, f"grant of {name}")
        number, seq = clean.grant(name).key.number, clean.grant(name).seq
        wait_until(
            lambda name=name, number=number, seq=seq: (
                clean.grant(name).key.number >= number + 10 and clean.grant(name).seq >= seq + 5
            ),
            DEADLINE_S,
            f"the grants of {name} go on",
        )
    for name, controller in two_racks.items():
        assert controller.alive, controller.log
        assert racks[name].writes_w == written[name]
        assert not controller.logs("Traceback")
        for topic in ("broker", "election", "roster", "caps/room/set", f"racks/{name}/report"):
            assert controller.logs(f"WARNING message refused topic=wattbroker/lab/{topic} reason=")
        assert "xxxxxxxx" not in controller.log, "a payload is not for the log"
    # Who comes now finds the last of it, retained, on every topic.
    two_racks["r1"].kill()
    again = room.run("r1")
    wait_until(lambda: again.logs("connected to the MQTT server"), DEADLINE_S)
    wait_until(lambda: clean.grant("r1").boot == 2, DEADLINE_S, "a grant of the second boot")
    assert again.alive
    assert racks["r1"].writes_w[-1] == 1980
