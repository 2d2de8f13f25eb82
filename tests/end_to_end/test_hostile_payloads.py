"""Whatever stands on the topics that the product listens to: it lives, and its limit stays."""

from __future__ import annotations

import json
from random import Random

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
    filters += [*topics.of_broker(SITE), *topics.of_roster_desk(SITE)]
    names = {"racks": ("r1", "r2", "stranger"), "caps": ("room", "stranger")}
    found: set[str] = set()
    for path in filters:
        kind = path.split("/")[2]
        found |= {path.replace("+", name) for name in names.get(kind, ("",))}
    return sorted(found)


def test_the_list_of_topics_is_the_one_of_the_protocol():
    assert listened_to() == [
        "wattbroker/lab/broker",
        "wattbroker/lab/caps/room/measured",
        "wattbroker/lab/caps/room/set",
        "wattbroker/lab/caps/stranger/measured",
        "wattbroker/lab/caps/stranger/set",
        "wattbroker/lab/election",
        "wattbroker/lab/join",
        "wattbroker/lab/racks/r1/grant",
        "wattbroker/lab/racks/r1/online",
        "wattbroker/lab/racks/r1/report",
        "wattbroker/lab/racks/r2/grant",
        "wattbroker/lab/racks/r2/online",
        "wattbroker/lab/racks/r2/report",
        "wattbroker/lab/racks/stranger/online",
        "wattbroker/lab/racks/stranger/report",
        "wattbroker/lab/roster",
        "wattbroker/lab/roster/remove",
    ]


def the_cycle_goes_on(clean, wait_until):
    """Both report, the broker answers, both obey newer grants."""
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
    clean = Heard(tap(mosquitto, "wattbroker/lab/racks/+/grant"))
    the_cycle_goes_on(clean, wait_until)
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


# What the rules pass over (R2, B1, B5, C1): other processes' grants, candidates and brokers of
# the past, racks and caps that nobody knows, meters where nothing brakes.
PASSED_OVER = (
    ("racks/r1/grant", {"key": [0, "r2", 1], "instance": "0", "boot": 1, "seq": 1,
                        "limit_w": 3000, "may_raise": True, "ttl_s": 2.0}),
    ("racks/r2/grant", {"key": [1, "r1", 2**53 - 1], "instance": "ffff", "boot": 2**53 - 1,
                        "seq": 1, "limit_w": 0, "may_raise": False, "ttl_s": 1e9}),
    ("broker", {"ballot": [0, "r1"], "number": 2**53 - 1, "roster": [0, "x"], "silent": ["r2"]}),
    ("election", {"kind": "answer", "rack": "r2", "rank": 99, "ballot": [0, "r2"],
                  "instance": "0", "to": "r1"}),
    ("election", {"kind": "coordinator", "rack": "r1", "rank": -1, "ballot": [0, "r1"],
                  "instance": "0"}),
    ("racks/stranger/report", {
        "instance": "0", "boot": 1, "seq": 1, "ballot": [0, "x"], "roster": [0, "x"],
        "site_hash": "x", "bound_w": 10**9, "limit_w": 10**9, "next_w": 10**9, "floor_w": 0,
        "ceiling_w": 10**9, "ttl_s": 1e9, "settle_s": 0.0, "demand_w": 10**9, "weight": 5e-324}),
    ("caps/stranger/set", {"limit_w": 0, "number": 2**53 - 1, "by": "stranger"}),
    ("caps/room/measured", {"power_w": 1e9, "age_s": 0.0}),
)  # fmt: skip
ODD = (None, True, -1, 1.5, 2**53, 10**400, float("nan"), float("inf"), "", "x" * 70_000, [], {})


def a_message(chance: Random, recorded: list) -> tuple[str, bytes]:
    """Noise, a message of the past once more, or a message that the rules pass over."""
    kind = chance.choice(("noise", "again", "passed over", "spoiled", "spoiled"))
    if kind == "noise":
        return chance.choice(listened_to()), chance.randbytes(chance.randrange(64))
    if kind == "again":
        old = chance.choice(recorded)
        return old.topic, old.payload
    path, message = chance.choice(PASSED_OVER)
    message = dict(message)
    if kind == "spoiled":
        message[chance.choice(sorted(message.keys() - {"instance", "ballot"}))] = chance.choice(ODD)
    payload = json.dumps(message).encode()
    cut = kind == "spoiled" and chance.random() < 0.3
    return f"wattbroker/{SITE}/{path}", payload[
        : chance.randrange(len(payload))
    ] if cut else payload


def test_a_thousand_messages_that_the_rules_pass_over_move_nothing(
    room, mosquitto, two_racks, tap, wait_until
):
    racks = room.hardware.limit_racks
    recorder = tap(mosquitto, f"wattbroker/{SITE}/#")
    said = [f"wattbroker/{SITE}/{path}" for path in ("broker", "racks/r1/grant", "racks/r2/report")]
    wait_until(
        lambda: all(sum(m.topic == path for m in recorder.messages) >= 5 for path in said),
        DEADLINE_S,
        "messages to say again",
    )
    recorded = [message for message in list(recorder.messages) if message.topic in said]
    written = {name: list(rack.writes_w) for name, rack in racks.items()}
    chance = Random(5)
    stranger = tap(mosquitto, "nothing/of/interest")
    for _ in range(1000):
        stranger.publish(*a_message(chance, recorded))
    clean = Heard(tap(mosquitto, f"wattbroker/{SITE}/racks/+/grant"))
    the_cycle_goes_on(clean, wait_until)
    for name, controller in two_racks.items():
        assert controller.alive, controller.log
        assert racks[name].writes_w == written[name]
        assert not controller.logs("Traceback")
        assert not controller.logs("lease ended")
        assert controller.logs("WARNING message refused topic=wattbroker/lab/")
