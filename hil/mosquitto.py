"""The MQTT server of a run: mosquitto, or the embedded one, as a process of its own.

Both listen on one loopback port for the whole run, and can be killed and started again
without their memory: they keep nothing on disk, unless mosquitto is asked to
(`remembers`). The embedded server takes a second or more to load, so a spare is loaded
beside the one that serves and only told to listen.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

SERVERS = ("auto", "mosquitto", "embedded")
START_TIMEOUT_S = 20.0
AUTOSAVE_S = 3  # so old is what a killed server remembers


class MqttServerError(Exception):
    """The MQTT server cannot be started; the text says why and what to do."""


def find_mosquitto() -> str | None:
    """Debian puts it into /usr/sbin, which is not on everybody's path."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin:/usr/local/sbin"
    return shutil.which("mosquitto", path=path)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class MqttServer:
    """`kind` is mosquitto or embedded; `folder` takes its configuration and its log."""

    def __init__(self, kind: str, folder: Path, *, remembers: bool = False) -> None:
        self._mosquitto = find_mosquitto() if kind in ("auto", "mosquitto") else None
        if kind == "mosquitto" and self._mosquitto is None:
            raise MqttServerError("mosquitto is not installed (Debian: apt install mosquitto)")
        self.kind = "mosquitto" if self._mosquitto else "embedded"
        if remembers and not self._mosquitto:
            raise MqttServerError("only mosquitto keeps anything (Debian: apt install mosquitto)")
        self._remembers = remembers
        self._memory_path = folder / "mosquitto.db"
        self.log_path = folder / "mqtt-server.log"
        self._config_path = folder / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self._spare: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Blocks until the port takes connections; MqttServerError if it never does."""
        if self._mosquitto:
            self._process = self._run_mosquitto()
        else:
            self._process = self._spare or self._load_embedded()
            self._tell(self._process)
        self._wait_until_listening()
        # The spare is loaded while nothing is in a hurry.
        self._spare = None if self._mosquitto else self._load_embedded()

    def kill(self) -> None:
        """SIGKILL: nothing is saved, nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        """SIGTERM: a server that remembers writes its memory first."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def forget(self) -> None:
        """Between a kill and a start: what was on disk is gone."""
        self._memory_path.unlink(missing_ok=True)

    def stop(self) -> None:
        """End everything this object started."""
        self.kill()
        if self._spare is not None:
            self._spare.kill()
            self._spare.wait()
            self._spare = None

    def _run_mosquitto(self) -> subprocess.Popen[bytes]:
        self._config_path.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            + (self._memory() if self._remembers else "persistence false\n")
        )
        assert self._mosquitto is not None
        return self._spawn([self._mosquitto, "-c", str(self._config_path)])

    def _memory(self) -> str:
        """Started as root mosquitto drops to a user who may not write into our folder."""
        return (
            f"user {getpass.getuser()}\npersistence true\nautosave_interval {AUTOSAVE_S}\n"
            f"persistence_location {self._memory_path.parent}/\n"
        )

    def _load_embedded(self) -> subprocess.Popen[bytes]:
        return self._spawn([sys.executable, "-m", "hil.mqtt_server", str(self.port)])

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    @staticmethod
    def _tell(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(b"listen\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died while loading: the wait says so

    def _wait_until_listening(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.5).close()
                return
            except OSError:
                time.sleep(0.01)
        hint = (
            "" if self._mosquitto else " (pip install 'wattbroker[demo]', or apt install mosquitto)"
        )
        raise MqttServerError(
            f"the {self.kind} MQTT server does not listen on port {self.port}"
            + ("" if self._mosquitto else hint)
            + ":\n"
            + tail(self.log_path)
        )


def tail(path: Path, lines: int = 20) -> str:
    """The end of a log, for the operator."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return f"({path.name}: no log)"
    return "\n".join(text.splitlines()[-lines:]) or f"({path.name}: empty)"
