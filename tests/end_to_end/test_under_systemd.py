"""The control loop tells systemd that it lives, and says nothing when it hangs."""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
import sys

import pytest
from emulated_room import DEADLINE_S, ROOT

UNIT = ROOT / "deploy" / "wattbroker@.service"
HANGS = """
import sys, time
from pathlib import Path
from firmware_py import cli, controller
woken = controller.Controller.wake
began_s = time.monotonic()
def wake(self, *, now):
    if time.monotonic() - began_s > 1.0:
        time.sleep(60.0)
    return woken(self, now=now)
controller.Controller.wake = wake
cli.main(sys.argv[1:])
"""


DEAF = """
import sys, time
from firmware_py import cli, runtime
taken = runtime.Runtime._from_link
began_s = time.monotonic()
def take(self, heard):
    if time.monotonic() - began_s > 1.0:
        raise RuntimeError("a defect in the link's thread")
    taken(self, heard)
runtime.Runtime._from_link = take
cli.main(sys.argv[1:])
"""


@pytest.fixture
def systemd(room, tmp_path):
    """The socket of a systemd that wants to hear from its service every 0.4 s."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(DEADLINE_S)
        room.environment |= {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        yield listening


def hear(systemd) -> str:
    return systemd.recv(4096).decode()


def test_a_controller_says_ready_then_that_it_lives_with_its_limit_and_at_last_that_it_stops(
    room, mosquitto, systemd
):
    room.limit_rack("r1", holds_w=500)
    room.write_site(mosquitto.port)
    room.init("r1")
    controller = room.run("r1")
    assert hear(systemd) == "READY=1"
    said = hear(systemd)
    assert said.startswith("WATCHDOG=1\nSTATUS=limit 3000 W by hardware at the start")
    while said != "WATCHDOG=1\nSTATUS=broker, limit 1980 W by broker r1, term 1, promises 1980 W":
        said = hear(systemd)
    assert controller.terminate() == 0
    while said.startswith("WATCHDOG=1"):
        said = hear(systemd)
    assert said == "STOPPING=1\nSTATUS=told to stop"


def test_without_an_mqtt_server_it_lives_as_well(room, systemd, free_port):
    room.limit_rack("r1")
    room.write_site(free_port())
    room.init("r1")
    room.run("r1")
    assert hear(systemd) == "READY=1"
    assert [hear(systemd).split("\n")[0] for _ in range(10)] == ["WATCHDOG=1"] * 10


def test_a_loop_that_hangs_is_not_heard_and_says_where_it_hung_when_it_is_killed(
    room, mosquitto, systemd
):
    room.limit_rack("r1")
    room.write_site(mosquitto.port)
    room.init("r1")
    where = ["--site", str(room.site), "--rack", "r1", "--state", str(room.state("r1"))]
    hung = subprocess.Popen(
        [sys.executable, "-c", HANGS, "run", *where],
        env=room.environment, cwd=room.folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert hear(systemd) == "READY=1"
    systemd.settimeout(1.5)  # of 0.4 s; its threads go on
    with pytest.raises(TimeoutError):
        while True:
            assert hear(systemd).startswith("WATCHDOG=1")
    hung.send_signal(6)  # what WatchdogSignal=SIGABRT does
    _, log = hung.communicate(timeout=DEADLINE_S)
    assert hung.returncode == -6
    assert "Fatal Python error: Aborted" in log
    assert "in wake" in log


def test_a_controller_whose_link_has_died_for_good_ends_to_be_started_again(room, mosquitto):
    room.limit_rack("r1")
    room.write_site(mosquitto.port)
    room.init("r1")
    where = ["--site", str(room.site), "--rack", "r1", "--state", str(room.state("r1"))]
    done = subprocess.run(
        [sys.executable, "-c", DEAF, "run", *where],
        env=room.environment, cwd=room.folder, capture_output=True, text=True,
        timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 70
    assert "controller ends: the link to the MQTT server has failed" in done.stderr


# ---- the unit ------------------------------------------------------------------------------


class Unit(configparser.RawConfigParser):
    def optionxform(self, option: str) -> str:
        return option


def unit() -> Unit:
    made = Unit(strict=False)
    made.read_string(UNIT.read_text())
    return made


def test_the_unit_restarts_what_failed_but_not_what_the_operator_has_to_mend():
    service = unit()["Service"]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_unit_waits_for_the_loops_own_word_and_kills_what_does_not_speak():
    service = unit()["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    # A controller that hangs is killed and back before a lease of 15 s has ended.
    assert int(service["WatchdogSec"]) + int(service["RestartSec"]) <= 12


def test_the_unit_runs_the_command_as_it_is(room, tmp_path):
    command = unit()["Service"]["ExecStart"].split()
    assert command[1:3] == ["run", "--site"]
    assert command[4:] == ["--rack", "%i"]


@pytest.mark.skipif(not os.path.exists("/usr/bin/systemd-analyze"), reason="no systemd here")
def test_systemd_understands_every_line_of_the_unit(tmp_path):
    text = UNIT.read_text().replace("/opt/wattbroker/bin/wattbroker", "/bin/true")
    path = tmp_path / "wattbroker@r1.service"
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
