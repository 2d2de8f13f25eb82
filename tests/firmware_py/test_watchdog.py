"""What systemd hears, over a real socket of its kind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_py.watchdog import Watchdog


class Systemd:
    """The socket that systemd listens to."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        words = []
        while True:
            try:
                words.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return words

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify"))
    yield made
    made.close()


def watchdog(tmp_path: Path, **environment: str) -> Watchdog:
    return Watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify")} | environment)


def test_it_says_ready_lives_and_stops(tmp_path: Path, systemd: Systemd) -> None:
    line = watchdog(tmp_path, WATCHDOG_USEC="10000000")
    line.ready()
    line.feed("limit 500 W", now=0.0)
    line.stopping("told to stop")
    assert systemd.heard() == [
        "READY=1",
        "WATCHDOG=1\nSTATUS=limit 500 W",
        "STOPPING=1\nSTATUS=told to stop",
    ]


def test_it_says_that_it_lives_four_times_a_period_and_no_more(
    tmp_path: Path, systemd: Systemd
) -> None:
    line = watchdog(tmp_path, WATCHDOG_USEC="10000000")
    assert line.feed_every_s == 2.5
    for tenth in range(100):
        line.feed("", now=tenth / 10)
    assert len(systemd.heard()) == 4  # at 0, 2.5, 5 and 7.5 s


def test_a_socket_in_the_abstract_namespace_is_spoken_to(tmp_path: Path) -> None:
    name = f"wattbroker-{os.getpid()}"
    systemd = Systemd(f"\0{name}")
    Watchdog({"NOTIFY_SOCKET": f"@{name}"}).ready()
    assert systemd.heard() == ["READY=1"]
    systemd.close()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"},
     {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}],
    ids=str,
)  # fmt: skip
def test_where_no_sign_of_life_is_asked_of_this_process_none_is_given(
    tmp_path: Path, systemd: Systemd, environment: dict[str, str]
) -> None:
    line = watchdog(tmp_path, **environment)
    assert line.feed_every_s is None
    line.feed("", now=0.0)
    assert systemd.heard() == []
    line.ready()
    assert systemd.heard() == ["READY=1"]


def test_where_it_is_asked_of_this_process_it_is_given(tmp_path: Path) -> None:
    line = watchdog(tmp_path, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    assert line.feed_every_s == 1.0


@pytest.mark.parametrize("path", ["", "relative", "vsock:2:1234"])
def test_without_systemd_nothing_is_said_and_nothing_fails(path: str) -> None:
    line = Watchdog({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})
    line.ready()
    line.feed("", now=0.0)
    line.stopping("")
    line.close()


def test_a_systemd_that_does_not_listen_is_not_waited_for(tmp_path: Path) -> None:
    watchdog(tmp_path).ready()  # nobody there
    systemd = Systemd(str(tmp_path / "notify"))
    line = watchdog(tmp_path, WATCHDOG_USEC="4")
    for second in range(10_000):  # its buffer holds a few hundred
        line.feed("x" * 200, now=float(second))
    assert 0 < len(systemd.heard()) < 10_000
    line.feed("again", now=20_000.0)
    assert systemd.heard() == ["WATCHDOG=1\nSTATUS=again"]
    systemd.close()


def test_a_status_cannot_say_another_word_to_systemd(tmp_path: Path, systemd: Systemd) -> None:
    line = watchdog(tmp_path, WATCHDOG_USEC="1000000")
    line.feed("by x\nSTOPPING=1\n" + "y" * 1000, now=0.0)
    (said,) = systemd.heard()
    assert said.count("\n") == 1
    assert len(said) < 250
