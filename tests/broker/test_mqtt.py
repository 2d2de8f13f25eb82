"""The MQTT link against real servers, and against a few that misbehave on purpose."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.mqtt import (
    PAYLOAD_BYTES_MAX,
    Connected,
    Event,
    MqttLink,
    MqttSettings,
    Secret,
    SubscriptionRefused,
)
from broker.mqtt_retry import Down, VersionChoice, backoff_s

ROOT = Path(__file__).resolve().parents[2]
ONLINE = "wattbroker/lab/racks/r1/online"
PRESENCE: dict[str, Any] = {
    "will_topic": ONLINE,
    "will_payload": b"offline",
    "birth": (ONLINE, b"online"),
    "goodbye": b"goodbye",
}
CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_311 = b"\x20\x02\x00\x00"
CONNACK_311_VERSION_REFUSED = b"\x20\x02\x00\x01"


# --- servers of this test ------------------------------------------------------------


class RawServer:
    """A TCP server: `script(number, connection)` runs for each connection, in order.

    `heard[n]` is what connection n has sent; a script calls `listen` to fill it.
    """

    def __init__(self, script: Callable[[RawServer, int, socket.socket], None]) -> None:
        self.heard: list[bytearray] = []
        self._script = script
        self._listener = socket.socket()
        # Inherited by the connections: a reader that stops reading fills up soon.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.host, self.port = self._listener.getsockname()
        self.closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def listen(self, number: int, connection: socket.socket, until: bytes | None = None) -> None:
        """Read until `until` was heard, or until the other end closes."""
        while until is None or until not in self.heard[number]:
            try:
                chunk = connection.recv(65_536)
            except OSError:
                return
            if not chunk:
                return
            self.heard[number] += chunk

    def version_byte(self, number: int) -> int:
        """The protocol level in CONNECT: 5, or 4 for 3.1.1."""
        return self.heard[number][self.heard[number].index(b"MQTT") + 4]

    def close(self) -> None:
        self.closing.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.heard.append(bytearray())
            number = len(self.heard) - 1
            threading.Thread(target=self._run, args=(number, connection), daemon=True).start()

    def _run(self, number: int, connection: socket.socket) -> None:
        with connection:
            self._script(self, number, connection)


@pytest.fixture
def raw_server() -> Iterator[Callable[..., RawServer]]:
    made: list[RawServer] = []

    def make(script: Callable[[RawServer, int, socket.socket], None]) -> RawServer:
        made.append(RawServer(script))
        return made[-1]

    yield make
    for server in made:
        server.close()


@dataclass(frozen=True)
class Amqtt:
    host: str
    port: int


@pytest.fixture
def amqtt(free_port: Callable[[], int], wait_until: Any) -> Iterator[Amqtt]:
    """The embedded server of the demo: a real one that knows 3.1.1 only."""
    from amqtt.broker import Broker

    port = free_port()
    loop = asyncio.new_event_loop()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def start() -> Any:
        broker = Broker(config)
        await broker.start()
        return broker

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    broker = asyncio.run_coroutine_threadsafe(start(), loop).result(10.0)
    yield Amqtt("127.0.0.1", port)
    asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(10.0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5.0)
    loop.close()


# --- being there, and no longer ------------------------------------------------------


def test_birth_is_sent_first_then_the_subscriptions(raw_server, mqtt_link, wait_until):
    def script(server, number, connection):
        server.listen(number, connection, until=b"MQTT")
        connection.sendall(CONNACK_5)
        server.listen(number, connection)

    server = raw_server(script)
    linked = mqtt_link(server, **PRESENCE, subscriptions=("wattbroker/lab/broker",))
    linked.wait_connected()
    linked.link.publish("wattbroker/lab/first", b"{}")
    wait_until(lambda: b"lab/first" in server.heard[0])
    after_connect = bytes(server.heard[0][2 + server.heard[0][1] :])
    assert after_connect[0] == 0x31  # PUBLISH, QoS 0, retained
    first, second, third = (
        after_connect.index(part) for part in (b"online", b"lab/broker", b"lab/first")
    )
    assert first < second < third


def test_birth_stays_retained_for_who_comes_later(mosquitto, mqtt_link, tap):
    mqtt_link(mosquitto, **PRESENCE).wait_connected()
    late = tap(mosquitto, ONLINE)
    late.wait_for(ONLINE, b"online")
    assert [message.retained for message in late.messages] == [True]


def test_will_is_published_when_the_process_is_killed(mosquitto, tap):
    ears = tap(mosquitto, ONLINE)
    program = (
        "import time; from broker.mqtt import *; MqttLink(MqttSettings("
        f"host={mosquitto.host!r}, port={mosquitto.port}, client_id='r1',"
        f" will_topic={ONLINE!r}, will_payload=b'offline', birth=({ONLINE!r}, b'online')"
        "), print).start(); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        ears.wait_for(ONLINE, b"online", 10.0)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    ears.wait_for(ONLINE, b"offline")


def test_stop_says_goodbye_and_the_will_stays_silent(mosquitto, mqtt_link, tap):
    ears = tap(mosquitto, ONLINE)
    linked = mqtt_link(mosquitto, **PRESENCE)
    linked.wait_connected()
    assert linked.link.publish(ONLINE, b"last words") is True
    assert linked.link.stop(goodbye=True) is True
    ears.publish(ONLINE, b"after")
    ears.wait_for(ONLINE, b"after")
    assert ears.payloads(ONLINE) == [b"online", b"last words", b"goodbye", b"after"]
    late = tap(mosquitto, ONLINE)
    late.wait_for(ONLINE, b"goodbye")  # retained


def test_stop_without_goodbye_leaves_birth_standing(mosquitto, mqtt_link, tap):
    ears = tap(mosquitto, ONLINE)
    linked = mqtt_link(mosquitto, **PRESENCE)
    linked.wait_connected()
    assert linked.link.stop(goodbye=False) is True
    ears.publish(ONLINE, b"after")
    ears.wait_for(ONLINE, b"after")
    assert ears.payloads(ONLINE) == [b"online", b"after"]
    assert linked.disconnected() == []


def test_goodbye_arrives_in_the_middle_of_a_flood(mosquitto, mqtt_link, tap):
    """Closing a socket with unread bytes resets it, which could swallow the goodbye."""
    ears = tap(mosquitto, ONLINE)
    flooding = threading.Event()
    flooding.set()

    def flood() -> None:
        while flooding.is_set():
            source.link.publish("wattbroker/lab/flood", b"x" * 4000)

    source = mqtt_link(mosquitto)
    source.wait_connected()
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for number in range(8):
            linked = mqtt_link(
                mosquitto,
                client_id=f"r{number}",
                **(PRESENCE | {"goodbye": b"goodbye %d" % number}),
                subscriptions=("wattbroker/lab/flood",),
            )
            linked.wait_connected()
            linked.link.stop(goodbye=True)
    finally:
        flooding.clear()
        thread.join()
    ears.publish(ONLINE, b"after")
    ears.wait_for(ONLINE, b"after")
    said = [payload for payload in ears.payloads(ONLINE) if payload.startswith(b"goodbye")]
    assert said == [b"goodbye %d" % number for number in range(8)]
    assert b"offline" not in ears.payloads(ONLINE)


def test_stop_ends_within_its_second_when_the_server_is_stuck(mosquitto, mqtt_link):
    linked = mqtt_link(mosquitto, **PRESENCE)
    linked.wait_connected()
    mosquitto.pause()
    began_s = time.monotonic()
    left = linked.link.stop(goodbye=True)
    took_s = time.monotonic() - began_s
    mosquitto.resume()
    assert left is False
    assert took_s < 1.4


def test_stop_during_an_outage_returns_at_once(free_port, mqtt_link):
    linked = mqtt_link(NoServer(free_port()))
    linked.wait_disconnected()
    began_s = time.monotonic()
    assert linked.link.stop(goodbye=True) is False
    assert time.monotonic() - began_s < 0.5
    assert linked.link.alive is False


# --- what is heard -------------------------------------------------------------------


def test_retained_is_true_only_for_what_the_server_had_kept(mosquitto, mqtt_link, tap):
    hand = tap(mosquitto, "none")
    hand.publish("caps/room", b"kept", retain=True)
    linked = mqtt_link(mosquitto, subscriptions=("caps/room",))
    linked.wait_received("caps/room", b"kept")
    hand.publish("caps/room", b"live", retain=True)
    linked.wait_received("caps/room", b"live")
    heard = [(event.payload, event.retained) for event in linked.received("caps/room")]
    assert heard == [(b"kept", True), (b"live", False)]


def test_link_hears_its_own_messages_in_order(mosquitto, mqtt_link, wait_until):
    linked = mqtt_link(mosquitto, subscriptions=("racks/r1/report",))
    linked.wait_connected()
    expected = [b"%d" % number for number in range(3000)]  # a burst is not a stall
    assert all(linked.link.publish("racks/r1/report", payload) for payload in expected)
    wait_until(lambda: len(linked.received("racks/r1/report")) == 3000)
    assert [event.payload for event in linked.received("racks/r1/report")] == expected
    assert linked.disconnected() == []


def test_a_message_leaves_at_once(mosquitto, mqtt_link):
    linked = mqtt_link(mosquitto, subscriptions=("echo",))
    linked.wait_connected()
    began_s = time.monotonic()
    for number in range(50):
        linked.link.publish("echo", b"%d" % number)
        linked.wait_received("echo", b"%d" % number)
    assert time.monotonic() - began_s < 2.5  # polling once a second would take 50 s


def test_topics_come_and_go_at_run_time_and_survive_a_reconnect(mosquitto, mqtt_link, tap):
    linked = mqtt_link(mosquitto, subscriptions=("at-start", "dropped"))
    linked.wait_connected()
    linked.link.subscribe("added")
    linked.link.unsubscribe("dropped")
    for session in (1, 2):
        linked.wait_connected(session)
        hand = tap(mosquitto, "none")
        marker = b"in session %d" % session
        linked.link.publish("at-start", marker)  # back: the subscriptions are in place
        linked.wait_received("at-start", marker)
        for topic in ("dropped", "added"):
            hand.publish(topic, marker)
        linked.wait_received("added", marker)
        if session == 1:
            mosquitto.restart()
    assert linked.received("dropped") == []
    assert [event.session for event in linked.received("added")] == [1, 2]


def test_a_megabyte_is_withheld_and_the_link_lives(mosquitto, mqtt_link, tap):
    check_megabyte(mosquitto, mqtt_link, tap, "5", dropped=0)


def test_a_megabyte_over_3_1_1_is_dropped_and_counted(amqtt, mqtt_link, tap):
    check_megabyte(amqtt, mqtt_link, tap, "3.1.1", dropped=1)


def check_megabyte(server, mqtt_link, tap, protocol, dropped):
    linked = mqtt_link(server, subscriptions=("racks/#",))
    linked.wait_connected()
    hand = tap(server, "none")
    hand.publish("racks/r1/report", b"x" * 1_000_000)
    hand.publish("racks/r1/report", b"y" * PAYLOAD_BYTES_MAX)
    linked.wait_received("racks/r1/report", b"y" * PAYLOAD_BYTES_MAX)
    assert len(linked.received("racks/r1/report")) == 1
    assert linked.connected() == [Connected(1, protocol)]
    assert linked.link.dropped == dropped


def test_the_limit_of_a_payload_is_a_setting(mosquitto, mqtt_link):
    small = mqtt_link(mosquitto, subscriptions=("roster",))
    large = mqtt_link(mosquitto, subscriptions=("roster",), payload_bytes_max=262_144)
    small.wait_connected()
    large.wait_connected()
    large.link.publish("roster", b"x" * 262_144)
    large.wait_received("roster", b"x" * 262_144)
    large.link.publish("roster", b"end")
    small.wait_received("roster", b"end")
    assert [event.payload for event in small.received("roster")] == [b"end"]
    with pytest.raises(ValueError, match="more than 262144 bytes"):
        large.link.publish("roster", b"x" * 262_145)


def test_a_refused_subscription_is_told(raw_server, mqtt_link, wait_until):
    def script(server, number, connection):
        server.listen(number, connection, until=b"MQTT")
        connection.sendall(CONNACK_5)
        server.listen(number, connection, until=b"wattbroker/lab/broker")
        start = server.heard[number].index(b"\x82")
        mid = bytes(server.heard[number][start + 2 : start + 4])
        connection.sendall(b"\x90\x05" + mid + b"\x00\x00\x87")  # granted, not authorized
        server.listen(number, connection)

    linked = mqtt_link(raw_server(script), subscriptions=("election", "wattbroker/lab/broker"))
    wait_until(lambda: len(linked.events) == 2)
    assert linked.events[1] == SubscriptionRefused("wattbroker/lab/broker", "Not authorized", 1)


# --- coming back ---------------------------------------------------------------------


def test_link_is_back_soon_after_the_server_restarts(mosquitto, mqtt_link, tap):
    linked = mqtt_link(mosquitto, **PRESENCE, subscriptions=("wattbroker/#",))
    linked.wait_connected()
    mosquitto.restart()
    linked.wait_connected(2, timeout_s=2.0)
    reason = linked.disconnected()[0].reason
    assert reason == f"lost the MQTT server at 127.0.0.1:{mosquitto.port}: it closed the connection"
    assert linked.disconnected()[0].session == 1
    tap(mosquitto, ONLINE).wait_for(ONLINE, b"online")


def test_nothing_published_during_an_outage_is_ever_sent(mosquitto, mqtt_link, tap):
    linked = mqtt_link(mosquitto)
    linked.wait_connected()
    mosquitto.stop()
    linked.wait_disconnected()
    assert linked.link.publish("report", b"stale", retain=True) is False
    mosquitto.start()
    linked.wait_connected(2)
    assert linked.link.publish("report", b"fresh", retain=True) is True
    ears = tap(mosquitto, "report")
    ears.wait_for("report", b"fresh")
    assert ears.payloads("report") == [b"fresh"]


def test_a_message_of_an_earlier_session_is_refused(mosquitto, mqtt_link):
    linked = mqtt_link(mosquitto)
    linked.wait_connected()
    assert linked.link.publish("report", b"{}", session=1) is True
    linked.link.reconnect("a test asks for it")
    linked.wait_connected(2)
    assert linked.link.publish("report", b"{}", session=1) is False
    assert linked.link.publish("report", b"{}", session=2) is True


def test_what_waited_for_a_stalled_server_is_dropped_not_kept(raw_server, mqtt_link, wait_until):
    reads_again, has_read = threading.Event(), threading.Event()

    def script(server, number, connection):
        server.listen(number, connection, until=b"MQTT")
        connection.sendall(CONNACK_5)
        if number == 0:
            reads_again.wait(10.0)
        server.listen(number, connection)
        has_read.set()

    server = raw_server(script)
    linked = mqtt_link(server, keepalive_s=60, birth=(ONLINE, b"online"))
    linked.wait_connected()
    accepted = 0
    while not linked.disconnected() and linked.link.publish("report", b"stale" * 200, session=1):
        accepted += 1
        time.sleep(0.0005)
    assert "has stopped reading" in linked.wait_disconnected().reason
    linked.wait_connected(2)
    linked.link.publish("report", b"fresh")
    wait_until(lambda: b"fresh" in server.heard[1])
    after_connect = bytes(server.heard[1][2 + server.heard[1][1] :])
    assert b"stale" not in after_connect
    assert after_connect.index(b"online") < after_connect.index(b"fresh")
    # What our kernel had taken and not yet sent is not sent after all: the old
    # connection carries no more than the server's own kernel had room for.
    reads_again.set()
    assert has_read.wait(5.0)
    assert len(server.heard[0]) < 50_000 < 200_000 < accepted * 1_000


def test_a_burst_that_nobody_takes_is_cut_at_ten_thousand(raw_server, mqtt_link):
    def script(server, number, connection):
        server.listen(number, connection, until=b"MQTT")
        connection.sendall(CONNACK_5)
        server.closing.wait(10.0)

    linked = mqtt_link(raw_server(script), keepalive_s=60)
    linked.wait_connected()
    accepted = 0
    while linked.link.publish("report", b"x" * 1_000, session=1):
        accepted += 1
    assert "more than 10000 messages wait" in linked.wait_disconnected().reason
    assert 10_000 <= accepted < 11_000  # the rest is what the kernels took


def test_a_stuck_server_is_noticed_by_its_missing_ping(mosquitto, mqtt_link, wait_until):
    linked = mqtt_link(mosquitto, keepalive_s=1)
    linked.wait_connected()
    mosquitto.pause()
    lost = linked.wait_disconnected(timeout_s=4.0)
    mosquitto.resume()
    assert "no answer to a ping within 1 s" in lost.reason
    linked.wait_connected(2)


def test_reconnect_drops_the_connection_and_comes_back(mosquitto, mqtt_link, tap, wait_until):
    ears = tap(mosquitto, ONLINE)
    linked = mqtt_link(mosquitto, **PRESENCE)
    linked.wait_connected()
    linked.link.reconnect("own reports are not heard")
    linked.wait_connected(2)
    assert "own reports are not heard" in linked.disconnected()[0].reason
    wait_until(lambda: len(ears.messages) == 3)
    assert ears.payloads(ONLINE) == [b"online", b"offline", b"online"]


def test_two_clients_with_one_id_throw_each_other_out_more_and_more_slowly(
    mosquitto, mqtt_link, wait_until
):
    """A first pause each time would be 5 rounds a second for ever."""
    linked = mqtt_link(mosquitto, client_id="twin")
    linked.wait_connected()
    mqtt_link(mosquitto, client_id="twin")
    wait_until(lambda: len(linked.disconnected()) == 3)
    ends = [at for at, e in zip(linked.told_at_s, linked.events, strict=True)
            if e in linked.disconnected()]  # fmt: skip
    assert ends[2] - ends[1] > 0.3


def test_a_session_that_was_taken_over_is_named(raw_server, mqtt_link):
    def script(server, number, connection):
        server.listen(number, connection, until=b"MQTT")
        connection.sendall(CONNACK_5 + b"\xe0\x02\x8e\x00")  # DISCONNECT, session taken over

    lost = mqtt_link(raw_server(script)).wait_disconnected()
    assert "another client with the same id" in lost.reason


def test_nonsense_from_the_server_is_a_lost_connection(raw_server, mqtt_link):
    def script(server, number, connection):
        server.listen(number, connection, until=b"MQTT")
        connection.sendall(CONNACK_5)
        if number == 0:
            connection.sendall(b"\x30\x02\xff\xff" + b"\xff" * 100)
        server.listen(number, connection)

    linked = mqtt_link(raw_server(script))
    linked.wait_connected(2)
    assert linked.disconnected()[0].session == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_caller_ends_the_link_with_its_will(mosquitto, tap, wait_until):
    def broken(event: Event) -> None:
        raise RuntimeError("a bug")

    ears = tap(mosquitto, ONLINE)
    settings = MqttSettings(mosquitto.host, "r1", mosquitto.port, **PRESENCE)
    link = MqttLink(settings, broken, rng=random.Random(1))
    link.start()
    wait_until(lambda: not link.alive)
    ears.wait_for(ONLINE, b"offline")
    assert link.publish(ONLINE, b"online") is False


# --- what goes wrong, in an operator's words -----------------------------------------


@dataclass(frozen=True)
class NoServer:
    port: int
    host: str = "127.0.0.1"


def test_no_server_is_told_at_each_attempt_with_growing_pauses(free_port, mqtt_link, wait_until):
    port = free_port()
    linked = mqtt_link(NoServer(port))
    wait_until(lambda: len(linked.disconnected()) >= 4)
    for event in linked.disconnected():
        assert f"nothing listens at 127.0.0.1:{port}" in event.reason
        assert event.fatal is None
    first, second, third = (
        later - earlier
        for earlier, later in zip(linked.told_at_s[:3], linked.told_at_s[1:4], strict=True)
    )
    assert 0.15 <= first <= 0.35
    assert 0.30 <= second <= 0.60
    assert 0.60 <= third <= 1.10


@pytest.mark.parametrize("word", [Secret("wrong-word-77"), None], ids=["wrong", "none"])
def test_wrong_password_is_named_and_never_shown(mosquitto_factory, mqtt_link, wait_until, word):
    server = mosquitto_factory(users={"r1": "right-word-42"})
    linked = mqtt_link(server, username="r1", password=word)
    wait_until(lambda: len(linked.disconnected()) >= 2)  # it is retried
    for event in linked.disconnected():
        assert event.fatal == "wrong user name or password"
        assert f"127.0.0.1:{server.port}" in event.reason
        assert "'r1'" in event.reason
        assert "word-77" not in event.reason


def test_no_user_name_where_one_is_wanted_is_named(mosquitto_factory, mqtt_link):
    linked = mqtt_link(mosquitto_factory(users={"r1": "right-word-42"}))
    assert "without a user name" in linked.wait_disconnected().reason


def test_right_password_lets_in(mosquitto_factory, mqtt_link):
    server = mosquitto_factory(users={"r1": "right-word-42"})
    mqtt_link(server, username="r1", password=Secret("right-word-42")).wait_connected()


def test_a_password_is_not_in_the_settings_repr():
    settings = MqttSettings("h", "r1", username="r1", password=Secret("right-word-42"))
    assert "password=***" in repr(settings)
    assert "right-word-42" not in f"{settings!r} {settings!s}"


def test_a_port_that_never_answers_is_given_up_after_two_seconds(black_hole, mqtt_link):
    began_s = time.monotonic()
    linked = mqtt_link(black_hole)
    assert "does not answer within 2 s" in linked.wait_disconnected().reason
    assert 1.9 <= time.monotonic() - began_s <= 2.6


def test_an_unknown_name_is_told(mqtt_link):
    linked = mqtt_link(NoServer(1883), host="no-such-host.invalid")
    assert "'no-such-host.invalid' is not known" in linked.wait_disconnected(10.0).reason


# --- versions of the protocol --------------------------------------------------------


def test_mqtt_5_is_spoken_where_it_is_understood(mosquitto, mqtt_link):
    linked = mqtt_link(mosquitto, client_id="five")
    linked.wait_connected()
    assert linked.connected() == [Connected(1, "5")]
    assert "as five (p5, c1, k5)" in mosquitto.log()  # c1: clean start


def test_3_1_1_is_spoken_with_a_server_that_knows_no_other(amqtt, mqtt_link):
    linked = mqtt_link(amqtt, **PRESENCE, subscriptions=("report",))
    linked.wait_connected()
    assert linked.connected() == [Connected(1, "3.1.1")]
    linked.link.publish("report", b"{}")
    linked.wait_received("report", b"{}")
    assert linked.link.stop(goodbye=True) is True


@pytest.mark.parametrize("refusal", [CONNACK_311_VERSION_REFUSED, b""], ids=["no", "hang up"])
def test_the_version_that_worked_is_remembered(raw_server, mqtt_link, refusal):
    def script(server, number, connection):
        server.listen(number, connection, until=b"r1-0")
        if server.version_byte(number) == 5:
            connection.sendall(refusal)
            return
        connection.sendall(CONNACK_311)
        server.listen(number, connection)

    server = raw_server(script)
    linked = mqtt_link(server)
    linked.wait_connected(1)
    linked.link.reconnect("a test asks for it")
    linked.wait_connected(2)
    assert [server.version_byte(number) for number in range(3)] == [5, 4, 4]
    assert {event.protocol for event in linked.connected()} == {"3.1.1"}


def test_a_proven_version_is_doubted_after_three_attempts_without_an_answer():
    choice = VersionChoice()
    choice.worked()
    seen = []
    for _ in range(4):
        choice.learn(Down("hangs up", unanswered=True))
        seen.append(choice.version)
    assert seen == ["5", "5", "3.1.1", "5"]


def test_an_outage_does_not_change_the_version():
    choice = VersionChoice()
    for _ in range(10):
        choice.learn(Down("nothing listens"))
    assert choice.version == "5"


# --- arithmetic and refusals at the door ---------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "least_s", "most_s"),
    [(0, 0.15, 0.25), (1, 0.3, 0.5), (2, 0.6, 1.0), (3, 1.2, 2.0), (4, 1.5, 2.5), (999, 1.5, 2.5)],
)
def test_backoff_doubles_to_two_seconds_with_jitter(attempt, least_s, most_s):
    pauses_s = [backoff_s(attempt, random.Random(seed)) for seed in range(200)]
    assert least_s <= min(pauses_s) < max(pauses_s) <= most_s
    assert max(pauses_s) - min(pauses_s) > 0.8 * (most_s - least_s)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("", b""),
        ("racks/+/report", b""),
        ("racks/#", b""),
        ("a\0b", b""),
        ("report", b"x" * 65_537),
        ("t" * 513, b""),
    ],
)
def test_what_cannot_be_published_is_refused_in_the_callers_thread(topic, payload):
    link = MqttLink(MqttSettings("127.0.0.1", "r1"), print)
    with pytest.raises(ValueError, match=r"cannot publish|more than 65536|longer than 512"):
        link.publish(topic, payload)


@pytest.mark.parametrize("topic", ["", "a/#/b", "a/b#", "a/b+/c", "a\0b"])
def test_what_is_no_topic_filter_is_refused_in_the_callers_thread(topic):
    with pytest.raises(ValueError, match="cannot subscribe"):
        MqttLink(MqttSettings("127.0.0.1", "r1", subscriptions=(topic,)), print)
    with pytest.raises(ValueError, match="cannot subscribe"):
        MqttLink(MqttSettings("127.0.0.1", "r1"), print).subscribe(topic)


def test_a_password_without_a_user_name_is_refused():
    with pytest.raises(ValueError, match="without a user name"):
        MqttSettings("127.0.0.1", "r1", password=Secret("word"))
