"""The link to the MQTT server: bytes in, bytes out, and it always comes back.

It decides nothing about watts and knows no payload. It keeps one promise that the
protocol builds on: *no message from before a disconnect is ever sent after it*. A
client library that queues would break it, so everything that waits to be sent
belongs to one `_Connection`, which is made for one TCP connection and thrown away
with it: the library's client, its buffers, our outbox, the socket. A lost
connection is closed with a reset, so that the kernel throws its buffer away as well;
that buffer is kept small, because what the peer's kernel has taken cannot be called
back. A caller that composed a message before a disconnect and hands it over after
the reconnect is refused if it names its `session`.

QoS 0 and clean sessions throughout: whoever needs certainty repeats (as the grant
protocol does every tick). There is no retry below the caller.

Threads: one of our own talks to paho, nobody else touches it. Callers of `publish`
put into the outbox and wake that thread, so a message leaves at once. `on_event` is
called on that thread, once per message: it must be quick, must not raise, and should
put into an inbox whose bound is the caller's business. If it raises, that is a bug
of ours: the connection is reset (the will speaks) and the thread ends with its
traceback; `alive` is then False.

Limits: payloads above `payload_bytes_max` are neither sent nor delivered (an MQTT 5
server withholds them; on 3.1.1 they are read, dropped and counted, and only the
server's own limit guards the memory). PENDING_MAX messages may wait for a server
that has stopped reading; then the connection is given up and they are dropped.
"""

from __future__ import annotations

import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.mqtt_retry import (
    BACKOFF_MAX_S,
    CONNECT_TIMEOUT_S,
    Down,
    VersionChoice,
    backoff_s,
    hung_up,
    lost,
    refused,
    silent,
    unreachable,
)
from broker.mqtt_socket import Wake, finish, reset_on_close, tls_context, unread_alert
from broker.mqtt_values import (
    PAYLOAD_BYTES_MAX,
    Connected,
    Disconnected,
    Event,
    MqttSettings,
    Received,
    Secret,
    SubscriptionRefused,
    TlsSettings,
    Version,
)

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "Connected",
    "Disconnected",
    "Event",
    "MqttLink",
    "MqttSettings",
    "Received",
    "Secret",
    "SubscriptionRefused",
    "TlsSettings",
]

PENDING_MAX: Final = 100  # messages that may wait for a server that does not read
OUTBOX_MAX: Final = 10_000  # messages of one burst, server reading or not
STALL_S: Final = 0.5  # not one byte taken for so long: it does not read
GOODBYE_S: Final = 1.0
SEND_BUFFER_BYTES: Final = 65_536
TOPIC_BYTES_MAX: Final = 512
HEADER_BYTES_MAX: Final = 1_024  # topic and properties of a packet whose payload still fits

_PAHO_VERSION = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


class MqttLink:
    """See the head of the module. Safe to call from any thread, `on_event` included."""

    def __init__(
        self,
        settings: MqttSettings,
        on_event: Callable[[Event], None],
        *,
        rng: random.Random | None = None,
    ) -> None:
        _check_settings(settings)
        self._settings = settings
        self._on_event = on_event
        self._rng = rng or random.Random()
        self._version = VersionChoice()
        self._wake = Wake()
        self._lock = threading.Lock()  # guards everything below
        self._topics = dict.fromkeys(settings.subscriptions)
        self._connection: _Connection | None = None  # only while the server has accepted us
        self._sessions = 0
        self._dropped = 0
        self._stopping = False
        self._goodbye = False
        self._left = False
        self._thread = threading.Thread(target=self._run, name="mqtt-link", daemon=True)

    def start(self) -> None:
        """Connect and keep connected; once in the life of a link."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False before the start, after the stop, and if `on_event` has raised."""
        return self._thread.is_alive()

    @property
    def dropped(self) -> int:
        """Messages that came in and were not delivered: too large, or topic not UTF-8."""
        return self._dropped

    def publish(
        self, topic: str, payload: bytes, retain: bool = False, *, session: int | None = None
    ) -> bool:
        """Send now, or not at all: False if there is no connection (or not that `session`).

        True means handed to the connection, not that it arrived (QoS 0).
        ValueError: the topic cannot be published to, or the payload is too large.
        """
        _check_message(self._settings, topic, payload)
        with self._lock:
            connection = self._connection
            if connection is None or session not in (None, connection.session):
                return False
            return connection.post(lambda client: client.publish(topic, payload, 0, retain))

    def subscribe(self, *topics: str) -> None:
        """Also hear these, now and after each reconnect. ValueError: not a topic filter."""
        _check_filters(topics)
        with self._lock:
            new = [topic for topic in topics if topic not in self._topics]
            self._topics.update(dict.fromkeys(new))
            if self._connection is not None:
                self._connection.subscribe(new)

    def unsubscribe(self, *topics: str) -> None:
        with self._lock:
            old = [topic for topic in topics if topic in self._topics]
            for topic in old:
                del self._topics[topic]
            if self._connection is not None and old:
                self._connection.post(lambda client: client.unsubscribe(old))

    def reconnect(self, reason: str) -> None:
        """Drop the connection (the will speaks: it was of no use) and come back."""
        with self._lock:
            if self._connection is not None:
                self._connection.give_up(reason)

    def stop(self, goodbye: bool) -> bool:
        """Send what is pending and the goodbye, and leave without a will; at most GOODBYE_S.

        True if the server has read it all (it closed the connection after our DISCONNECT).
        """
        with self._lock:
            self._stopping, self._goodbye = True, goodbye
        self._wake.set()
        if self.alive and threading.current_thread() is not self._thread:
            self._thread.join(GOODBYE_S + 0.2)
        return self._left

    # --- everything below runs on the link's own thread

    def _run(self) -> None:
        attempt = 0
        try:
            while not self._stopping:
                began_s = time.monotonic()
                down = self._one_connection()
                if down is None or self._stopping:
                    return
                # Two clients with one id throw each other out at once, again and again:
                # only a connection that has lasted makes the next attempt a first one.
                lasted = down.session is not None and time.monotonic() - began_s > BACKOFF_MAX_S
                attempt = 0 if lasted else attempt
                self._on_event(down)
                self._pause(backoff_s(attempt, self._rng))
                attempt += 1
        finally:
            self._wake.close()

    def _one_connection(self) -> Disconnected | None:
        """From CONNECT to the end; None if it ended because we left."""
        connection = _Connection(self._settings, self._version.version, self._wake)
        try:
            connection.dial()
            while not connection.accepted and not self._stopping:
                connection.turn()
            self._serve(connection)
            return None
        except Down as down:
            self._version.learn(down)
            return Disconnected(down.reason, down.fatal, connection.session)
        finally:
            with self._lock:
                self._connection = None
            connection.abort()

    def _serve(self, connection: _Connection) -> None:
        if connection.accepted:
            self._version.worked()
            self._open(connection)
        while not self._stopping:
            connection.turn()
            self._deliver(connection)
        if connection.accepted:
            self._left = connection.leave(self._goodbye)

    def _open(self, connection: _Connection) -> None:
        with self._lock:
            self._sessions += 1
            connection.session = self._sessions
            if (birth := self._settings.birth) is not None:
                connection.post(lambda client: client.publish(*birth, 0, True))
            # The server reads in order: what the caller publishes from now on finds
            # these subscriptions in place, its own messages come back to it.
            connection.subscribe(list(self._topics))
            self._connection = connection
        self._on_event(Connected(connection.session, self._version.version))

    def _deliver(self, connection: _Connection) -> None:
        while connection.arrived:
            event = connection.arrived.popleft()
            if event is None:
                self._dropped += 1
            else:
                self._on_event(event)

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while not self._stopping and (left_s := until_s - time.monotonic()) > 0:
            self._wake.wait(left_s)


class _Connection:
    """One TCP connection and everything that belongs to it; never used for a second.

    `post`, `subscribe` and `give_up` may be called from any thread (under the link's
    lock), all others from the link's thread only.
    """

    def __init__(self, settings: MqttSettings, version: Version, wake: Wake) -> None:
        self.session: int | None = None
        self.accepted = False
        self.arrived: deque[Received | SubscriptionRefused | None] = deque()  # None: dropped
        self._settings = settings
        self._version = version
        self._wake = wake
        self._outbox: deque[Callable[[Client], object]] = deque()
        self._asked: dict[int | None, list[str]] = {}  # topics by the id of their SUBSCRIBE
        self._given_up: str | None = None
        self._leaving_until_s: float | None = None
        self._said_disconnect = False
        self._left = False
        self._refusal: ReasonCode | None = None
        self._closed_because = ""
        self._last_error = ""
        self._stalled_since_s: float | None = None
        self._answer_until_s = 0.0
        self._poll = select.poll()
        self._client = _new_client(settings, version)
        self._client.on_socket_open = self._on_socket_open
        self._client.on_socket_close = self._on_socket_close
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_log = self._on_log

    # --- from any thread

    def post(self, order: Callable[[Client], object]) -> bool:
        if len(self._outbox) >= OUTBOX_MAX:
            self.give_up(f"more than {OUTBOX_MAX} messages wait to be sent")
            return False
        self._outbox.append(order)
        self._wake.set()
        return True

    def subscribe(self, topics: list[str]) -> None:
        if topics:
            self.post(lambda client: self._subscribe(client, topics))

    def give_up(self, reason: str) -> None:
        self._given_up = reason
        self._wake.set()

    # --- from the link's thread

    def dial(self) -> None:
        """TCP, TLS, CONNECT; the server's answer comes in a later turn."""
        settings = self._settings
        if settings.tls is not None:
            self._client.tls_set_context(tls_context(settings.tls))
        host, port, keepalive_s = settings.host, settings.port, settings.keepalive_s
        try:
            if self._version == "5":
                self._client.connect(
                    host,
                    port,
                    keepalive_s,
                    clean_start=True,
                    properties=_connect_properties(settings),
                )
            else:
                self._client.connect(host, port, keepalive_s)
        except (OSError, ValueError) as error:  # ValueError: a name that is none (IDNA)
            raise unreachable(settings, error) from error
        self._answer_until_s = time.monotonic() + CONNECT_TIMEOUT_S

    def turn(self) -> None:
        """Send, wait for the network at most a second, receive. Down: it is over."""
        self._raise_if_down()
        self._feed()
        sock = self._socket()
        if sock is None:
            return  # the next turn says why
        readable, writable = self._wait(sock)
        try:
            if readable:
                self._client.loop_read()
            if writable:
                self._stalled_since_s = None
                self._client.loop_write()
            self._client.loop_misc()
        except Exception as error:
            # Whatever paho stumbles over here came over the wire; our own code is not
            # called from inside it (events are delivered between turns).
            what = f"{type(error).__name__}: {error}"
            raise Down(f"the MQTT server at {self._where} sent nonsense ({what})") from error

    def leave(self, goodbye: bool) -> bool:
        """Everything pending, the goodbye, DISCONNECT; True once the server has closed."""
        self._leaving_until_s = time.monotonic() + GOODBYE_S
        if goodbye and self._settings.will_topic is not None:
            topic, payload = self._settings.will_topic, self._settings.goodbye
            self.post(lambda client: client.publish(topic, payload, 0, True))
        self.post(lambda client: client.disconnect())
        with suppress(Down):
            while time.monotonic() < self._leaving_until_s:
                self.turn()
        return self._left

    def abort(self) -> None:
        """Throw away the connection with all that it has not sent; harmless when closed."""
        sock = self._socket()
        if sock is not None:
            reset_on_close(sock)
            sock.close()

    def _socket(self) -> socket.socket | None:
        return cast("socket.socket | None", self._client.socket())  # TCP or TLS: a socket

    @property
    def _where(self) -> str:
        return self._settings.address

    def _raise_if_down(self) -> None:
        now_s = time.monotonic()
        if self._given_up is not None:
            raise Down(f"connection to {self._where} given up: {self._given_up}")
        if self._client.socket() is None:
            raise self._why()
        if not self.accepted and now_s > self._answer_until_s:
            raise silent(self._settings)
        self._raise_if_stalled(now_s)

    def _raise_if_stalled(self, now_s: float) -> None:
        if not self._client.want_write():
            self._stalled_since_s = None
            return
        if self._stalled_since_s is None:
            self._stalled_since_s = now_s
        stalled_s = now_s - self._stalled_since_s
        too_many = len(self._outbox) > PENDING_MAX and stalled_s >= STALL_S
        if too_many or stalled_s >= self._settings.keepalive_s:
            raise Down(
                f"the MQTT server at {self._where} has stopped reading;"
                f" {len(self._outbox)} messages that were waiting are dropped"
            )

    def _feed(self) -> None:
        """Hand the outbox to paho, which sends at once, one by one while it keeps nothing."""
        while (
            self._outbox
            and (self.accepted or self._leaving_until_s is not None)
            and not self._client.want_write()
            and self._client.socket() is not None
        ):
            self._outbox.popleft()(self._client)

    def _wait(self, sock: socket.socket) -> tuple[bool, bool]:
        """(readable, writable), after the network, a wake-up or at most a second."""
        wants_write = self._client.want_write()
        self._poll.register(sock, select.POLLIN | (select.POLLOUT if wants_write else 0))
        self._poll.register(self._wake, select.POLLIN)
        timeout_s = 1.0
        if self._outbox or wants_write or not self.accepted:
            timeout_s = 0.05
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            timeout_s = 0.0  # decrypted already: the kernel will not report it
        ready = dict(self._poll.poll(timeout_s * 1000))
        if self._wake.fileno() in ready:
            self._wake.clear()
        found = ready.get(sock.fileno(), 0)
        readable = bool(found & ~select.POLLOUT) or timeout_s == 0.0
        return readable, bool(found & select.POLLOUT)

    def _subscribe(self, client: Client, topics: list[str]) -> None:
        if self._version == "5":
            options = SubscribeOptions(
                qos=0,
                noLocal=False,  # a rack hears its own report (protocol R10)
                retainAsPublished=False,  # retained: kept by the server, not "was sent so"
                retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE,
            )
            _, mid = client.subscribe([(topic, options) for topic in topics])
        else:
            _, mid = client.subscribe([(topic, 0) for topic in topics])
        self._asked[mid] = topics

    def _why(self) -> Down:
        """What ended a connection that paho has closed."""
        if self._refusal is not None:
            return refused(self._settings, str(self._refusal))
        if not self.accepted:
            return hung_up(self._settings, self._last_error)
        return lost(self._settings, self._closed_because, self._last_error)

    # --- paho's callbacks; always on the link's thread, inside a turn or dial

    def _on_socket_open(self, client: Client, userdata: object, opened: object) -> None:
        sock = cast(socket.socket, opened)
        keepalive_ms = self._settings.keepalive_s * 1000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        # A cable that was pulled: what nobody acknowledges is not sent minutes later.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, keepalive_ms)

    def _on_socket_close(self, client: Client, userdata: object, closing: object) -> None:
        sock = cast(socket.socket, closing)
        if self._said_disconnect and self._leaving_until_s is not None:
            self._left = finish(sock, self._leaving_until_s)
        if not self.accepted:
            self._last_error = unread_alert(sock) or self._last_error
        if not self._left:
            reset_on_close(sock)

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refusal = reason
        else:
            self.accepted = True

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server or reason.is_failure:
            self._closed_because = str(reason)
        else:  # paho calls this when DISCONNECT has been written, before it closes
            self._said_disconnect = True

    def _on_subscribe(
        self,
        client: Client,
        userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        for topic, reason in zip(self._asked.pop(mid, []), reasons, strict=False):
            if reason.is_failure:
                self.arrived.append(SubscriptionRefused(topic, str(reason), self.session or 0))

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.arrived.append(None)
            return
        payload = bytes(message.payload)
        fits = len(payload) <= self._settings.payload_bytes_max
        self.arrived.append(
            Received(topic, payload, message.retain, self.session or 0) if fits else None
        )

    def _on_log(self, client: Client, userdata: object, level: int, text: str) -> None:
        # paho tells a socket's error nowhere else.
        if level == LogLevel.MQTT_LOG_ERR:
            self._last_error = text.partition("socket: ")[2] or text


# --- leaves --------------------------------------------------------------------------


def _check_message(settings: MqttSettings, topic: str, payload: bytes) -> None:
    if not topic or "+" in topic or "#" in topic or "\0" in topic:
        raise ValueError(f"cannot publish to topic {topic!r}")
    if len(topic.encode()) > TOPIC_BYTES_MAX:
        raise ValueError(f"topic {topic[:80]!r}… is longer than {TOPIC_BYTES_MAX} bytes")
    if len(payload) > settings.payload_bytes_max:
        raise ValueError(f"{topic}: more than {settings.payload_bytes_max} bytes: {len(payload)}")


def _check_filters(topics: Iterable[str]) -> None:
    """MQTT 5, section 4.7.1: a wildcard fills its level, `#` only the last one."""
    for topic in topics:
        *levels, last = topic.split("/")
        wild = any("#" in level or ("+" in level and level != "+") for level in levels)
        if not topic or "\0" in topic or wild or (("#" in last or "+" in last) and len(last) > 1):
            raise ValueError(f"cannot subscribe to topic {topic!r}")


def _check_settings(settings: MqttSettings) -> None:
    """At the start and in the caller's thread, not at the first connect and in ours."""
    _check_filters(settings.subscriptions)
    if settings.will_topic is not None:
        _check_message(settings, settings.will_topic, settings.will_payload)
        _check_message(settings, settings.will_topic, settings.goodbye)
    if settings.birth is not None:
        _check_message(settings, *settings.birth)


def _new_client(settings: MqttSettings, version: Version) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if version == "5" else True,
        protocol=_PAHO_VERSION[version],
        transport="tcp",
        reconnect_on_failure=False,  # this client lives for one connection
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    if settings.username is not None:
        word = settings.password.reveal() if settings.password is not None else None
        client.username_pw_set(settings.username, word)
    if settings.will_topic is not None:
        client.will_set(settings.will_topic, settings.will_payload, qos=0, retain=True)
    return client


def _connect_properties(settings: MqttSettings) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = settings.payload_bytes_max + HEADER_BYTES_MAX
    return properties
