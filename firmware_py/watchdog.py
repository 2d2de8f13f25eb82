"""What systemd is told: that the controller is ready, lives, and stops (sd_notify(3)).

The signs of life come from the control loop itself, at the end of a turn that has done
what was due: not from a thread or a timer, which would go on saying that all is well
for a loop that hangs. Who stops saying it is killed by systemd after `WatchdogSec` and
started again; the hardware keeps its setting meanwhile (protocol R7).

Without systemd (no NOTIFY_SOCKET) nothing is said. A word that cannot be sent is lost,
never waited for: the next turn says it again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

FEEDS_PER_PERIOD = 4  # one late turn, or one lost word, is not yet a death
STATUS_CHARS_MAX = 200


class Watchdog:
    """The line to systemd. Seconds are monotonic."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = _address_of(environment.get("NOTIFY_SOCKET", ""))
        self.period_s = _period_s(environment)
        self._fed_at_s = float("-inf")
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def feed_every_s(self) -> float | None:
        """How often a sign of life is wanted; None: never."""
        return self.period_s / FEEDS_PER_PERIOD if self.period_s is not None else None

    def ready(self) -> None:
        """The control loop runs."""
        self._say("READY=1")

    def feed(self, status: str, *, now: float) -> None:
        """A turn of the loop is over; said to systemd as often as it wants to hear it."""
        every_s = self.feed_every_s
        if every_s is None or now - self._fed_at_s < every_s:
            return
        self._fed_at_s = now
        self._say(f"WATCHDOG=1\nSTATUS={_one_line(status)}")

    def stopping(self, reason: str) -> None:
        """The controller ends, on purpose."""
        self._say(f"STOPPING=1\nSTATUS={_one_line(reason)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, words: str) -> None:
        if self._socket is None or self._address is None:
            return
        with suppress(OSError):  # nobody listens, or it is full: lost, and said again
            self._socket.sendto(words.encode(), self._address)


def _address_of(path: str) -> str | None:
    """A path, or `@name` in the abstract namespace; anything else is not ours to speak to."""
    if path.startswith("@"):
        return "\0" + path[1:]
    return path if path.startswith("/") else None


def _period_s(environment: Mapping[str, str]) -> float | None:
    """WatchdogSec, where it is meant for this process."""
    try:
        period_s = int(environment.get("WATCHDOG_USEC", "")) / 1e6
        for_us = int(environment.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except ValueError:
        return None
    return period_s if period_s > 0 and for_us else None


def _one_line(text: str) -> str:
    """A status is one line; a second one would be another word to systemd."""
    return " ".join(text.split())[:STATUS_CHARS_MAX]
