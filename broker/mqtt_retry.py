"""Why there is no connection to the MQTT server, and what the next attempt does differently.

Pure: an error goes in, a sentence for the operator comes out; a failed attempt goes
in, a pause and a protocol version come out. `Down.reason` says what is wrong and what
to check, with host and port and never with a password. `Down.fatal` is set where
waiting cannot help. The codes are those of MQTT 5, section 3.2.2.2, by the names that
the client library gives them (it translates the fewer ones of 3.1.1).
"""

from __future__ import annotations

import os
import random
import socket
import ssl
from typing import Final

from broker.mqtt_values import MqttSettings, TlsSettings, Version

CONNECT_TIMEOUT_S: Final = 2.0  # for TCP and TLS, and again for the answer to CONNECT
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 2.0
UNANSWERED_MAX: Final = 3  # attempts before a version that has worked is doubted


class Down(Exception):
    """The connection is over or could not be made; in the operator's words."""

    def __init__(
        self,
        reason: str,
        fatal: str | None = None,
        *,
        version_refused: bool = False,
        unanswered: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal
        self.version_refused = version_refused
        self.unanswered = unanswered


def backoff_s(attempt: int, rng: random.Random) -> float:
    """Seconds before attempt number `attempt` (from 0): doubling, ± a quarter by chance."""
    base_s = min(BACKOFF_FIRST_S * 2.0 ** min(attempt, 16), BACKOFF_MAX_S)
    return base_s * rng.uniform(0.75, 1.25)


class VersionChoice:
    """MQTT 5 first; the other after a refusal; what has worked is kept.

    Some servers of 3.1.1 do not refuse version 5 but hang up, and some (amqtt) wait
    without a word for the rest of what they take for a longer packet. So does every
    server that is just stopping or stuck, hence the count before a version that has
    worked is doubted.
    """

    def __init__(self) -> None:
        self.version: Version = "5"
        self._proven = False
        self._unanswered = 0

    def worked(self) -> None:
        self._proven, self._unanswered = True, 0

    def learn(self, down: Down) -> None:
        self._unanswered += down.unanswered
        patience = UNANSWERED_MAX if self._proven else 1
        if down.version_refused or self._unanswered >= patience:
            self.version = "3.1.1" if self.version == "5" else "5"
            self._proven, self._unanswered = False, 0


def unreachable(settings: MqttSettings, error: Exception) -> Down:
    """TCP or TLS did not come about."""
    where = settings.address
    if isinstance(error, ssl.SSLError):
        return _tls_failed(settings, error)
    if isinstance(error, (socket.gaierror, ValueError)):
        return Down(f"the name {settings.host!r} is not known: check [mqtt] host and the DNS")
    if isinstance(error, TimeoutError):
        return Down(
            f"{where} does not answer within {CONNECT_TIMEOUT_S:g} s: is the machine on,"
            " is a firewall between? check [mqtt] host and port"
        )
    if isinstance(error, ConnectionRefusedError):
        return Down(
            f"nothing listens at {where}: is the MQTT server running? check [mqtt] host and port"
        )
    if settings.tls is not None and isinstance(error, ConnectionError):
        return _tls_failed(settings, error)
    return Down(f"{where} cannot be reached ({error}): check the network, [mqtt] host and port")


def _tls_failed(settings: MqttSettings, error: Exception) -> Down:
    where, tls = settings.address, settings.tls
    assert tls is not None
    if isinstance(error, ssl.SSLCertVerificationError):
        # X509_V_ERR_HOSTNAME_MISMATCH 62, X509_V_ERR_IP_ADDRESS_MISMATCH 64 (OpenSSL)
        if error.verify_code in (62, 64):
            return Down(
                f"the certificate of {where} is for another name ({error.verify_message}):"
                " check [mqtt] host",
                "the MQTT server's certificate is for another name",
            )
        return Down(
            f"the certificate of {where} is not trusted by {os.fspath(tls.ca)}"
            f" ({error.verify_message}): check [mqtt] tls.ca and the server's certificate",
            "the MQTT server's certificate is not trusted",
        )
    return _alert(settings, str(error)) or Down(
        f"no TLS with {where} ({error}): does this port speak TLS? check [mqtt] port and tls"
    )


def _alert(settings: MqttSettings, error: str) -> Down | None:
    """The server's TLS alert about our certificate, if `error` is one."""
    if settings.tls is None or "ALERT" not in error:
        return None
    if settings.tls.cert is None:
        return Down(
            f"{settings.address} wants a client certificate: set [mqtt] tls.cert and tls.key",
            "the MQTT server wants a client certificate",
        )
    return Down(
        f"{settings.address} does not accept the certificate {os.fspath(settings.tls.cert)}"
        f" ({error}): check [mqtt] tls.cert and the server's CA",
        "the MQTT server does not accept the client certificate",
    )


def tls_files_unusable(tls: TlsSettings, error: Exception) -> Down:
    files = ", ".join(os.fspath(file) for file in (tls.ca, tls.cert, tls.key) if file is not None)
    return Down(
        f"the TLS files cannot be used ({error}): check [mqtt] tls: {files}",
        "the TLS files cannot be used",
    )


def silent(settings: MqttSettings) -> Down:
    """TCP (and TLS) came about, and CONNECT was not answered."""
    return Down(
        f"{settings.address} accepts connections and does not answer within"
        f" {CONNECT_TIMEOUT_S:g} s: is an MQTT server running there, with"
        f" {'TLS' if settings.tls else 'no TLS'}? check [mqtt] host and port",
        unanswered=True,
    )


def refused(settings: MqttSettings, name: str) -> Down:
    """The server answered CONNECT with no (MQTT 5, 3.2.2.2; paho translates 3.1.1's codes)."""
    where = settings.address
    if name == "Unsupported protocol version":
        return Down(f"{where} refuses this version of MQTT, trying the other", version_refused=True)
    if name in ("Bad user name or password", "Not authorized"):
        who = "without a user name" if settings.username is None else f"as {settings.username!r}"
        return Down(
            f"the MQTT server at {where} lets nobody in {who} with this password:"
            " check [mqtt] username and password_file",
            "wrong user name or password",
        )
    if name in ("Client identifier not valid", "Banned"):
        return Down(f"the MQTT server at {where} refuses this client ({name})", name)
    return Down(f"the MQTT server at {where} refuses the connection for now ({name})")


def lost(settings: MqttSettings, name: str, error: str) -> Down:
    """A connection that had been accepted is gone: a socket's error, or the library's name."""
    because = {
        "": "it closed the connection",
        "Unspecified error": "it closed the connection",  # what the library makes of EOF
        "Keep alive timeout": f"no answer to a ping within {settings.keepalive_s} s",
        "Session taken over": "another client with the same id has connected",
    }.get(name, name)
    return Down(f"lost the MQTT server at {settings.address}: {error or because}")


def hung_up(settings: MqttSettings, error: str) -> Down:
    """Closed between CONNECT and its answer."""
    if (alert := _alert(settings, error)) is not None:
        return alert
    if settings.tls is None:
        question = "does this port speak MQTT without TLS? check [mqtt] port and tls"
    else:  # a reset may overtake the alert that says so
        question = "does it want another client certificate? check [mqtt] tls.cert and port"
    because = f" ({error})" if error else ""
    return Down(
        f"{settings.address} hangs up without an answer{because}: {question}", unanswered=True
    )
