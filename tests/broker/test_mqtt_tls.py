"""TLS and client certificates with certificates made for the test, and what goes wrong."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from broker.mqtt import TlsSettings

NOT_TRUSTED = "the MQTT server's certificate is not trusted"
WANTS_CERTIFICATE = "the MQTT server wants a client certificate"
NOT_ACCEPTED = "the MQTT server does not accept the client certificate"
FILES = "the TLS files cannot be used"


@dataclass(frozen=True)
class Misnamed:
    host: str
    port: int


@pytest.fixture
def misnamed(certificates) -> Iterator[Misnamed]:
    """A TLS server whose certificate is of the right CA and for another name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.client_cert, certificates.client_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield Misnamed(*listener.getsockname())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_messages_go_both_ways_over_tls(mosquitto_factory, certificates, mqtt_link, host):
    server = mosquitto_factory(tls=True)
    linked = mqtt_link(
        server, host=host, tls=TlsSettings(certificates.ca), subscriptions=("report",)
    )
    linked.wait_connected()
    expected = [b"%d" % number + b"x" * 9000 for number in range(100)]  # many TLS records
    for payload in expected:
        linked.link.publish("report", payload)
    linked.wait_received("report", expected[-1])
    assert [event.payload for event in linked.received("report")] == expected
    assert linked.disconnected() == []


def test_goodbye_arrives_over_tls(mosquitto_factory, certificates, mqtt_link, wait_until):
    server = mosquitto_factory(tls=True)
    tls = TlsSettings(certificates.ca)
    ears = mqtt_link(server, tls=tls, subscriptions=("online",))
    ears.wait_connected()
    linked = mqtt_link(
        server,
        tls=tls,
        will_topic="online",
        will_payload=b"will",
        birth=("online", b"birth"),
        goodbye=b"goodbye",
    )
    linked.wait_connected()
    assert linked.link.stop(goodbye=True) is True
    ears.link.publish("online", b"after")
    ears.wait_received("online", b"after")
    assert [e.payload for e in ears.received("online")] == [b"birth", b"goodbye", b"after"]


def test_wrong_ca_is_named_and_retried(mosquitto_factory, certificates, mqtt_link, wait_until):
    server = mosquitto_factory(tls=True)
    linked = mqtt_link(server, tls=TlsSettings(certificates.other_ca))
    wait_until(lambda: len(linked.disconnected()) >= 2)
    for event in linked.disconnected():
        assert event.fatal == NOT_TRUSTED
        assert f"127.0.0.1:{server.port}" in event.reason
        assert str(certificates.other_ca) in event.reason
    assert linked.connected() == []


def test_certificate_for_another_name_is_named(misnamed, certificates, mqtt_link):
    lost = mqtt_link(misnamed, tls=TlsSettings(certificates.ca)).wait_disconnected()
    assert lost.fatal == "the MQTT server's certificate is for another name"
    assert "check [mqtt] host" in lost.reason


def test_client_certificate_lets_in_where_it_is_required(
    mosquitto_factory, certificates, mqtt_link
):
    server = mosquitto_factory(client_certificates=True)
    tls = TlsSettings(certificates.ca, certificates.client_cert, certificates.client_key)
    mqtt_link(server, tls=tls).wait_connected()


def test_missing_client_certificate_is_named(
    mosquitto_factory, certificates, mqtt_link, wait_until
):
    server = mosquitto_factory(client_certificates=True)
    linked = mqtt_link(server, tls=TlsSettings(certificates.ca))
    wait_until(lambda: len(linked.disconnected()) >= 3)
    assert {event.fatal for event in linked.disconnected()} == {WANTS_CERTIFICATE}
    assert "set [mqtt] tls.cert and tls.key" in linked.disconnected()[0].reason


def test_client_certificate_of_another_ca_is_named(
    mosquitto_factory, certificates, mqtt_link, wait_until
):
    server = mosquitto_factory(client_certificates=True)
    tls = TlsSettings(
        certificates.ca, certificates.other_client_cert, certificates.other_client_key
    )
    linked = mqtt_link(server, tls=tls)
    wait_until(lambda: len(linked.disconnected()) >= 3)
    assert {event.fatal for event in linked.disconnected()} == {NOT_ACCEPTED}


def test_tls_to_a_port_without_tls_is_told(mosquitto, certificates, mqtt_link):
    lost = mqtt_link(mosquitto, tls=TlsSettings(certificates.ca)).wait_disconnected()
    assert "does this port speak TLS?" in lost.reason
    assert lost.fatal is None


def test_no_tls_to_a_port_with_tls_is_told(mosquitto_factory, mqtt_link):
    lost = mqtt_link(mosquitto_factory(tls=True)).wait_disconnected()
    assert "does this port speak MQTT without TLS?" in lost.reason


def test_tls_to_a_port_that_never_answers_is_given_up_after_two_seconds(
    black_hole, certificates, mqtt_link
):
    began_s = time.monotonic()
    linked = mqtt_link(black_hole, tls=TlsSettings(certificates.ca))
    assert "does not answer within 2 s" in linked.wait_disconnected().reason
    assert 1.9 <= time.monotonic() - began_s <= 2.6


def test_a_missing_ca_file_is_named(mosquitto_factory, mqtt_link, tmp_path):
    missing = tmp_path / "ca.pem"
    lost = mqtt_link(mosquitto_factory(tls=True), tls=TlsSettings(missing)).wait_disconnected()
    assert lost.fatal == FILES
    assert str(missing) in lost.reason


def test_a_repaired_ca_file_is_taken_without_a_restart(
    mosquitto_factory, certificates, mqtt_link, tmp_path
):
    late = tmp_path / "ca.pem"
    linked = mqtt_link(mosquitto_factory(tls=True), tls=TlsSettings(late))
    linked.wait_disconnected()
    late.write_bytes(certificates.ca.read_bytes())
    linked.wait_connected()


def test_a_key_with_a_password_fails_instead_of_asking(
    mosquitto_factory, certificates, mqtt_link, tmp_path, run_openssl
):
    locked = tmp_path / "locked.key"
    run_openssl(
        "pkcs8", "-topk8", "-in", certificates.client_key, "-out", locked,
        "-v2", "aes-256-cbc", "-passout", "pass:word",
    )  # fmt: skip
    tls = TlsSettings(certificates.ca, certificates.client_cert, locked)
    lost = mqtt_link(mosquitto_factory(tls=True), tls=tls).wait_disconnected()
    assert lost.fatal == FILES
