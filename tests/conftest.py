"""Real servers for every test: mosquitto, certificates, a port that never answers, a tap.

Nothing here imitates a protocol. What is started is a program of Debian on a free
port of the loopback, and it is ended by its process id. A program that is missing
fails the test with the name of its package: a skipped test proves nothing.

    mosquitto            a running MQTT server: .host .port .stop() .restart() .pause()
                         .resume() .connections .log()
    mosquitto_factory    the same with options: users, TLS, client certificates
    certificates         a CA made at test time, a server's and a client's certificate,
                         and another CA that signed none of them
    tap                  tap(server, "wattbroker/#"): a plain subscriber that collects
    mqtt_link            mqtt_link(server, **settings): the product's link, its events kept
    free_port            free_port(): a TCP port nobody listens on
    black_hole           .host .port of a port that accepts and never answers
    wait_until           wait_until(lambda: condition, 2.0): polls, fails after the deadline
"""

from __future__ import annotations

import getpass
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker.mqtt import Connected, Disconnected, Event, MqttLink, MqttSettings, Received

LOOPBACK = "127.0.0.1"
WaitUntil = Callable[..., None]


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def poll_until(
    condition: Callable[[], object], timeout_s: float = 5.0, what: str = "the condition"
) -> None:
    """Return as soon as `condition()` is true; fail the test after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"{what} did not come true within {timeout_s} s")
        time.sleep(0.01)


def program(name: str, package: str) -> str:
    """Full path of a program; Debian keeps servers in /usr/sbin, which is not on every PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {package}")
    return found


def answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.2):
            return True
    except OSError:
        return False


class HasPort(Protocol):
    """Anything that listens: Mosquitto, BlackHole, a server of a test's own."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


# --- certificates --------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files. The server's certificate is for 127.0.0.1 and localhost."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    other_ca: Path
    other_client_cert: Path  # signed by other_ca
    other_client_key: Path


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(
        [program("openssl", "openssl"), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def _make_ca(folder: Path, name: str) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl("req", "-x509", *_NEW_KEY, "-keyout", key, "-out", cert, "-subj", f"/CN={name}")
    return cert, key


def _make_leaf(folder: Path, name: str, ca: tuple[Path, Path], names: str) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl(
        "req", "-x509", *_NEW_KEY, "-keyout", key, "-out", cert, "-subj", f"/CN={name}",
        "-CA", ca[0], "-CAkey", ca[1], "-addext", f"subjectAltName={names}",
        "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    return cert, key


@pytest.fixture
def run_openssl() -> Callable[..., None]:
    return _openssl


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other_ca = _make_ca(folder, "site-ca"), _make_ca(folder, "other-ca")
    server = _make_leaf(folder, "server", ca, f"IP:{LOOPBACK},DNS:localhost")
    client = _make_leaf(folder, "client", ca, "DNS:r1")
    stranger = _make_leaf(folder, "stranger", other_ca, "DNS:r1")
    return Certificates(ca[0], *server, *client, other_ca[0], *stranger)


# --- mosquitto -----------------------------------------------------------------------


@dataclass
class Mosquitto:
    """A mosquitto process; it keeps its port over a restart and forgets everything else."""

    folder: Path
    port: int
    lines: tuple[str, ...] = ("allow_anonymous true",)
    host: str = LOOPBACK
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        assert self.process is None, "it is running already"
        config = self.folder / "mosquitto.conf"
        head = (
            f"listener {self.port} {self.host}",
            f"user {getpass.getuser()}",  # started as root it would drop to one without our files
            "persistence false",
            "log_dest stderr",
            "log_type all",
            "set_tcp_nodelay true",
        )
        config.write_text("\n".join((*head, *self.lines)) + "\n")
        with self._log_file().open("ab") as log:
            self.process = subprocess.Popen(
                [program("mosquitto", "mosquitto"), "-c", str(config)], stdout=log, stderr=log
            )
        poll_until(self._accepts, 5.0, "mosquitto's port")

    def stop(self) -> None:
        """End it now, without a word to its clients; harmless if it has ended already."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """It keeps its sockets and neither reads nor answers until resume()."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Everything it and its predecessors on this port have logged."""
        return self._log_file().read_text(errors="replace")

    @property
    def connections(self) -> int:
        """How many MQTT connections it and its predecessors have accepted so far."""
        return self.log().count("New client connected")

    def _accepts(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"mosquitto ended at its start:\n{self.log()}")
        return answers(self.host, self.port)

    def _log_file(self) -> Path:
        return self.folder / "mosquitto.log"


MosquittoFactory = Callable[..., Mosquitto]


@pytest.fixture
def mosquitto_factory(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[MosquittoFactory]:
    """Call it with users={"r1": "word"}, tls=True, client_certificates=True, lines=(…,)."""
    running: list[Mosquitto] = []

    def make(
        *,
        users: Mapping[str, str] | None = None,
        tls: bool = False,
        client_certificates: bool = False,
        lines: tuple[str, ...] = (),
        port: int | None = None,
    ) -> Mosquitto:
        folder = tmp_path_factory.mktemp("mosquitto")
        options = [f"allow_anonymous {'false' if users else 'true'}"]
        if users:
            options.append(f"password_file {_write_passwords(folder / 'passwords', users)}")
        if tls or client_certificates:
            made: Certificates = request.getfixturevalue("certificates")
            options += [
                f"cafile {made.ca}",
                f"certfile {made.server_cert}",
                f"keyfile {made.server_key}",
                f"require_certificate {'true' if client_certificates else 'false'}",
            ]
        server = Mosquitto(folder, port or find_free_port(), (*options, *lines))
        running.append(server)
        server.start()
        return server

    yield make
    for server in running:
        server.stop()


def _write_passwords(path: Path, users: Mapping[str, str]) -> Path:
    path.touch(mode=0o600)
    for name, word in users.items():
        subprocess.run(
            [program("mosquitto_passwd", "mosquitto"), "-b", str(path), name, word],
            check=True,
            capture_output=True,
        )
    return path


@pytest.fixture
def mosquitto(mosquitto_factory: MosquittoFactory) -> Mosquitto:
    return mosquitto_factory()


# --- a tap on the server -------------------------------------------------------------


@dataclass(frozen=True)
class Tapped:
    topic: str
    payload: bytes
    retained: bool


class Tap:
    """A plain subscriber that collects what it hears; it can publish as a stranger would."""

    def __init__(self, host: str, port: int, topics: tuple[str, ...]) -> None:
        self.messages: list[Tapped] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_message = self._collect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_connect = lambda client, *_: client.subscribe([(t, 0) for t in topics])
        self._client.connect(host, port, keepalive=60)
        self._client.loop_start()
        assert self._subscribed.wait(5.0), f"no subscription at {host}:{port}"

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in self.messages if message.topic == topic]

    def wait_for(self, topic: str, payload: bytes, timeout_s: float = 5.0) -> None:
        poll_until(lambda: payload in self.payloads(topic), timeout_s, f"{payload!r} on {topic}")

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Returns when the server has it (QoS 1), so that what follows comes later."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5.0)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _collect(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        self.messages.append(Tapped(message.topic, bytes(message.payload), message.retain))


MakeTap = Callable[..., Tap]


@pytest.fixture
def tap() -> Iterator[MakeTap]:
    """tap(server, *topics) with any server that has .host and .port; "#" without topics."""
    open_taps: list[Tap] = []

    def make(server: HasPort, *topics: str) -> Tap:
        made = Tap(server.host, server.port, topics or ("#",))
        open_taps.append(made)
        return made

    yield make
    for made in open_taps:
        made.close()


# --- the product's own link ----------------------------------------------------------


class Linked:
    """A started MqttLink and every event it has told so far, each with its instant."""

    def __init__(self, settings: MqttSettings) -> None:
        self.events: list[Event] = []
        self.told_at_s: list[float] = []
        self.link = MqttLink(settings, self._keep, rng=random.Random(1))
        self.link.start()

    def connected(self) -> list[Connected]:
        return [event for event in self.events if isinstance(event, Connected)]

    def disconnected(self) -> list[Disconnected]:
        return [event for event in self.events if isinstance(event, Disconnected)]

    def received(self, topic: str) -> list[Received]:
        return [e for e in self.events if isinstance(e, Received) and e.topic == topic]

    def wait_connected(self, session: int = 1, timeout_s: float = 5.0) -> None:
        poll_until(
            lambda: any(event.session == session for event in self.connected()),
            timeout_s,
            f"session {session}",
        )

    def wait_disconnected(self, timeout_s: float = 5.0) -> Disconnected:
        poll_until(self.disconnected, timeout_s, "a Disconnected")
        return self.disconnected()[0]

    def wait_received(self, topic: str, payload: bytes, timeout_s: float = 5.0) -> None:
        poll_until(
            lambda: any(event.payload == payload for event in self.received(topic)),
            timeout_s,
            f"{payload[:40]!r} on {topic}",
        )

    def _keep(self, event: Event) -> None:
        self.told_at_s.append(time.monotonic())
        self.events.append(event)


MakeLink = Callable[..., Linked]


@pytest.fixture
def mqtt_link() -> Iterator[MakeLink]:
    """mqtt_link(server, **settings): settings are those of MqttSettings, host may be given."""
    made: list[Linked] = []

    def make(server: HasPort, **settings: Any) -> Linked:
        defaults: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "client_id": f"r1-{len(made)}",
        }
        made.append(Linked(MqttSettings(**(defaults | settings))))
        return made[-1]

    yield make
    for linked in made:
        linked.link.stop(goodbye=False)


# --- ports ---------------------------------------------------------------------------


@pytest.fixture
def free_port() -> Callable[[], int]:
    return find_free_port


@dataclass(frozen=True)
class BlackHole:
    host: str
    port: int


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    """The kernel completes every connection; nobody ever reads or answers."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(64)
        yield BlackHole(LOOPBACK, listener.getsockname()[1])


@pytest.fixture
def wait_until() -> WaitUntil:
    return poll_until
