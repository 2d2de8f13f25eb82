"""The racks of a run of chaos, and the hands that make them ail and get well again.

Each rack is a controller, its proxy to the MQTT server and its devices. At most one thing
ails it at a time. What is done here is done to real processes, sockets and files, and
undone by the same id or path.

    disk full   the file in which the next journal is written beside the old one becomes a
                link to /dev/full, which answers every write as a full disk does
    clock       the wall clock of the child alone goes wrong (hil/stepped_clock)
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from random import Random

from hil.devices import Devices
from hil.faults import OF_CLOCK, OF_DEVICE, OF_LINK, OF_SERVER, Kind
from hil.mosquitto import MqttServer
from hil.proxy import Direction, Proxy
from hil.rack import Controller

HOUR_S = 3600
LATE_S = (0.2, 0.9)  # below and above what drivers wait for
STEPPED_CLOCK = Path(__file__).parent / "stepped_clock"
_WAYS = {Kind.STALL_UP: Direction.UP, Kind.STALL_DOWN: Direction.DOWN}


class Ward:
    """Everything that can be made to fail, by rack."""

    def __init__(
        self,
        server: MqttServer,
        devices: Devices,
        controllers: dict[str, Controller],
        proxies: dict[str, Proxy],
        rng: Random,
    ) -> None:
        self.server = server
        self.controllers = controllers
        self.proxies = proxies
        self._devices = devices
        self._rng = rng
        self.ails: dict[str, Kind] = {}
        self.server_up = True
        self.started_at_s: dict[str, float] = {}  # the loop's time of the last start

    def run(self, rack: str) -> None:
        self.started_at_s[rack] = asyncio.get_running_loop().time()
        self.controllers[rack].run()

    async def begin(self, kind: Kind, rack: str) -> None:
        """`rack` is empty for the MQTT server."""
        if kind in OF_SERVER:
            await self._stop_server(kind)
            return
        self.ails[rack] = kind
        if kind is Kind.KILL:
            self.controllers[rack].kill()
        elif kind is Kind.STOP:
            self.controllers[rack].pause()
        elif kind is Kind.CUT:
            self.proxies[rack].cut()
        elif kind in OF_LINK:
            self.proxies[rack].stall(_WAYS[kind])
        elif kind in OF_DEVICE:
            late_s = math.inf if kind is Kind.DEVICE_SILENT else self._rng.uniform(*LATE_S)
            self._devices.answer_after(rack, late_s)
        elif kind is Kind.DISK_FULL:
            await fill_disk(self.controllers[rack].state)
        elif kind in OF_CLOCK:
            set_clock(self.controllers[rack], HOUR_S if kind is Kind.CLOCK_AHEAD else -HOUR_S)

    async def end(self, kind: Kind, rack: str) -> None:
        if kind in OF_SERVER:
            await asyncio.to_thread(self.server.start)
            self.server_up = True
            return
        if kind is Kind.KILL:
            self.run(rack)
        elif kind is Kind.STOP:
            self.controllers[rack].go_on()
        elif kind in OF_LINK:
            self._heal_link(rack)
        elif kind in OF_DEVICE:
            self._devices.answer_after(rack, 0.0)
        elif kind is Kind.DISK_FULL:
            make_room(self.controllers[rack].state)
        elif kind in OF_CLOCK:
            set_clock(self.controllers[rack], 0)
        del self.ails[rack]

    def _heal_link(self, rack: str) -> None:
        """What a stall has held back is delivered late, or lost with the connection."""
        if self._rng.random() < 0.5:
            self.proxies[rack].cut()
        self.proxies[rack].resume()

    async def _stop_server(self, kind: Kind) -> None:
        self.server_up = False
        if kind is Kind.SERVER_KEEPS:
            await asyncio.to_thread(self.server.terminate)
            return
        self.server.kill()
        if kind is Kind.SERVER_FORGETS:
            self.server.forget()


async def fill_disk(state: Path) -> None:
    """Every journal that is written from now on meets a full disk."""
    fresh = state / "journal.new"
    while not fresh.is_symlink():
        try:
            fresh.symlink_to("/dev/full")
        except FileExistsError:
            await asyncio.sleep(0.001)  # one is just being written


def make_room(state: Path) -> None:
    (state / "journal.new").unlink(missing_ok=True)


def clock_file(controller: Controller) -> Path:
    return controller.state.with_suffix(".clock")


def set_clock(controller: Controller, seconds: int) -> None:
    """The child's wall clock goes wrong by so much."""
    clock_file(controller).write_text(str(seconds))
