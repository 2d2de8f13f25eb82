"""Every emulated device of a room, on its own loopback port, and the URLs to reach them."""

from __future__ import annotations

from collections.abc import Callable

from hil.modbus_device import ModbusDevice, power_limit, sdm630
from hil.plant import Plant
from hil.snmp_device import SnmpDevice, rpdu2


class Devices:
    """All devices of a plant. They share the plant's event loop, so nothing is locked."""

    def __init__(self, plant: Plant) -> None:
        def clock() -> float:
            return plant.now_s

        self._pdus = {
            name: SnmpDevice(rpdu2(rack, clock), community=f"{name}-private")
            for name, rack in plant.outlet_racks.items()
        }
        self._meters = {name: sdm630(rack) for name, rack in plant.limit_racks.items()}
        self._limits = {name: power_limit(rack, clock) for name, rack in plant.limit_racks.items()}

    @property
    def _all(self) -> list[ModbusDevice | SnmpDevice]:
        return [*self._pdus.values(), *self._meters.values(), *self._limits.values()]

    async def start(self) -> None:
        for device in self._all:
            await device.start()

    async def stop(self) -> None:
        for device in self._all:
            await device.stop()

    def answer_after(self, rack: str, late_s: float) -> None:
        """Every device of a rack answers so late; infinity: not at all."""
        for devices in (self._pdus, self._meters, self._limits):
            if device := devices.get(rack):
                device.answer_after(late_s)

    def urls(self) -> dict[str, dict[str, str]]:
        """Rack → device → URL, once started."""
        urls = {
            name: {"pdu": f"snmp://{pdu.community}@127.0.0.1:{pdu.port}"}
            for name, pdu in self._pdus.items()
        }
        modbus: Callable[[ModbusDevice], str] = lambda d: f"modbus://127.0.0.1:{d.port}/1"  # noqa: E731
        for name in self._meters:
            urls[name] = {
                "meter": modbus(self._meters[name]),
                "limit": modbus(self._limits[name]),
            }
        return urls
