"""net-snmp's snmpd for tests: an SNMPv3 agent that is not ours, on a free port of loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SNMPD = shutil.which("snmpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

START_S_MAX = 10.0


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Snmpd:
    """`users` are lines of snmpd.conf: createUser and rwuser. It can be started again."""

    folder: Path
    users: str
    port: int = field(default_factory=free_port)
    engine: str = "8000000001020304"
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "snmpd.log"

    def start(self) -> None:
        state = self.folder / "state"
        state.mkdir(parents=True, exist_ok=True)
        config = self.folder / "snmpd.conf"
        config.write_text(
            f"exactEngineID 0x{self.engine}\nrocommunity public\nsysDescr a test\n{self.users}\n",
            encoding="utf-8",
        )
        self.log.write_bytes(b"")
        self.process = subprocess.Popen(
            [str(SNMPD), "-f", "-Lf", str(self.log), "-C", "-c", str(config), "-m", "",
             "-I", "-smux", f"udp:127.0.0.1:{self.port}"],
            env={**os.environ, "SNMP_PERSISTENT_DIR": str(state), "SNMPCONFPATH": str(state)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline_s = time.monotonic() + START_S_MAX
        while b"NET-SNMP version" not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline_s, "snmpd does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def forget(self) -> None:
        """Loses its state: how often it has started, too."""
        shutil.rmtree(self.folder / "state")


@contextmanager
def running(folder: Path, users: str) -> Iterator[Snmpd]:
    snmpd = Snmpd(folder, users)
    snmpd.start()
    try:
        yield snmpd
    finally:
        snmpd.stop()
