"""Both MQTT servers do what the product needs of one, and forget when they are killed."""

import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from hil.mosquitto import MqttServer, MqttServerError
from hil.wiretap import Wiretap

DEADLINE_S = 5.0


def until(true, what):
    deadline_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.01)


@pytest.fixture(scope="module", params=["mosquitto", "embedded"])
def server(request, tmp_path_factory):
    server = MqttServer(request.param, tmp_path_factory.mktemp(request.param))
    server.start()
    yield server
    server.stop()


class Client:
    """A client of 3.1.1 that keeps what it heard; ended at the end of the test."""

    def __init__(self, server, name, *, will=None, protocol=mqtt.MQTTv311, topic=None):
        self.heard, self.subscribed, self.results = [], [], []
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=protocol)
        self.paho.on_message = lambda c, u, m: self.heard.append(
            (m.topic, m.payload.decode(), m.retain)
        )
        self.paho.on_subscribe = lambda *_: self.subscribed.append(True)
        self.paho.on_connect = lambda c, u, flags, code, properties: self.results.append(code)
        if will:
            self.paho.will_set(*will)
        self.paho.connect("127.0.0.1", server.port, keepalive=10)
        self.paho.loop_start()
        until(lambda: self.results, f"{name} connects")
        if topic:
            self.paho.subscribe(topic)
            until(lambda: self.subscribed, f"{name} subscribes")

    def say(self, topic, payload, retain=False):
        self.paho.publish(topic, payload, retain=retain)

    def vanish(self):
        """The connection ends without a goodbye."""
        self.paho.loop_stop()
        self.paho.socket().close()

    def end(self):
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.fixture
def client(server):
    clients = []

    def make(name, **options):
        clients.append(Client(server, name, **options))
        return clients[-1]

    yield make
    for one in clients:
        one.end()


def test_a_retained_message_reaches_who_subscribes_later_and_is_marked(client):
    live = client("live", topic="kept/#")
    client("speaker").say("kept/a", "1", retain=True)
    until(lambda: live.heard, "the live message")
    late = client("late", topic="kept/#")
    until(lambda: late.heard, "the retained message")
    assert live.heard == [("kept/a", "1", False)]
    assert late.heard == [("kept/a", "1", True)]


def test_an_empty_retained_message_clears_the_topic(client):
    speaker = client("speaker", topic="cleared/#")
    speaker.say("cleared/a", "1", retain=True)
    speaker.say("cleared/a", "", retain=True)
    until(lambda: len(speaker.heard) == 2, "both messages")
    late = client("late", topic="cleared/#")
    speaker.say("cleared/b", "end")
    until(lambda: late.heard, "the live message")
    assert late.heard == [("cleared/b", "end", False)]


def test_the_will_of_a_client_that_vanishes_is_sent_and_retained(client):
    witness = client("witness", topic="racks/+/online")
    client("mortal", will=("racks/r9/online", "offline", 0, True)).vanish()
    until(lambda: witness.heard, "the will")
    assert witness.heard == [("racks/r9/online", "offline", False)]
    late = client("late", topic="racks/+/online")
    until(lambda: late.heard, "the retained will")
    assert ("racks/r9/online", "offline", True) in late.heard


def test_a_client_that_says_goodbye_leaves_no_will(client):
    witness = client("witness", topic="polite/#")
    client("polite", will=("polite/will", "offline", 0, False)).end()
    witness.say("polite/after", "1")
    until(lambda: witness.heard, "the message after the goodbye")
    assert witness.heard == [("polite/after", "1", False)]


def test_a_client_hears_nothing_that_it_has_not_subscribed_to(client):
    first = client("first", topic="others/#")
    first.say("others/a", "1", retain=True)
    until(lambda: first.heard, "the retained message")
    second = client("second", topic="mine/#")
    second.say("mine/a", "2")
    until(lambda: second.heard, "its own message")
    assert second.heard == [("mine/a", "2", False)]


def test_messages_arrive_in_their_order_and_big_ones_whole(client):
    witness = client("witness", topic="order/#")
    speaker = client("speaker")
    for number in range(300):
        speaker.say("order/n", str(number))
    speaker.say("order/big", "x" * 1_000_000)
    until(lambda: len(witness.heard) == 301, "all messages")
    assert [int(m[1]) for m in witness.heard[:300]] == list(range(300))
    assert len(witness.heard[300][1]) == 1_000_000


def test_a_client_of_mqtt_5_is_served_or_told_the_reason(server, client):
    five = client("five", protocol=mqtt.MQTTv5)
    served = not five.results[0].is_failure
    assert served == (server.kind == "mosquitto")
    assert served or "protocol version" in str(five.results[0])


def test_killed_and_started_again_it_is_back_within_a_second_without_its_memory(server, client):
    lasting = client("lasting", topic="memory/#")
    lasting.paho.reconnect_delay_set(1, 1)
    lasting.say("memory/a", "1", retain=True)
    until(lambda: lasting.heard, "the retained message")
    port, first = server.port, server.pid
    began_s = time.monotonic()
    server.kill()
    server.start()
    assert time.monotonic() - began_s < 1.0
    assert server.port == port
    assert server.pid != first
    late = client("late", topic="memory/#")
    late.say("memory/b", "2")
    until(lambda: late.heard, "a live message")
    assert late.heard == [("memory/b", "2", False)]
    until(lambda: len(lasting.results) == 2, "the client that was there before is back")


def test_the_wiretap_says_its_cap_and_comes_back_after_a_restart(server, client):
    witness = client("witness", topic="wattbroker/demo/#")
    wiretap = Wiretap(server.port)
    wiretap.start()
    try:
        until(lambda: wiretap.heard().connected, "the wiretap connects")
        witness.say("wattbroker/demo/racks/r1/report", '{"bound_w": 700, "limit_w": 600}')
        until(lambda: "r1" in wiretap.heard().reports, "the report")
        assert wiretap.heard().reports["r1"].bound_w == 700
        wiretap.set_cap(9000)
        until(lambda: any("caps/room/set" in m[0] for m in witness.heard), "the cap")
        server.kill()
        until(lambda: not wiretap.heard().connected, "the wiretap sees the end")
        server.start()
        until(lambda: wiretap.heard().connected, "the wiretap is back")
    finally:
        wiretap.stop()


def test_a_server_that_is_not_installed_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("hil.mosquitto.find_mosquitto", lambda: None)
    with pytest.raises(MqttServerError, match="not installed"):
        MqttServer("mosquitto", tmp_path)
    assert MqttServer("auto", tmp_path).kind == "embedded"
