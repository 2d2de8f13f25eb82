"""A rack's controller as hil sees it: a process that is started, killed and ended.

`init` writes the first journal, once; `run` is the controller. Both are the product's
own commands, in processes of their own (and sessions of their own, so that Ctrl-C ends
the demo and the demo ends them, in order). Each keeps its log in a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hil.mosquitto import tail


class Controller:
    """The controller of one rack, with its state folder and its log."""

    def __init__(
        self,
        rack: str,
        site: Path,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,  # beside the one that we have
    ) -> None:
        self.rack = rack
        self.state = folder / rack
        self._environment = {**os.environ, **(environment or {})}
        self.log_path = folder / f"{rack}.log"
        self._options = ["--site", str(site), "--rack", rack, "--state", str(self.state)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def init(self) -> None:
        """Start `init`; wait for it by `exit_code`."""
        self._process = self._spawn("init")

    def run(self) -> None:
        assert not self.alive, f"{self.rack} is running already"
        self._process = self._spawn("run")

    def kill(self) -> None:
        """SIGKILL: its hardware keeps what it has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: its sockets stay open, and nobody is told."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive and self._process is not None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        if self.alive and self._process is not None:
            self._process.terminate()

    def wait_or_kill(self, timeout_s: float) -> None:
        """After `terminate`: gone within `timeout_s`, one way or the other."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def log_tail(self, lines: int = 15) -> str:
        return tail(self.log_path, lines)

    def _spawn(self, command: str) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "firmware_py", command, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
