"""A polled device that cannot be believed, or is not all of it, is told in the log."""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from pathlib import Path

from broker.effects import Event
from drivers.device import open_device
from drivers.profile import load_profile
from firmware_py.poller import Poller

DRIVERS = Path(__file__).parents[1] / "drivers"
sys.path.append(str(DRIVERS))

import served_modbus  # noqa: E402
import served_snmp  # noqa: E402

DEADLINE_S = 10.0


async def polled(url: str, profile_name: str) -> list[Event]:
    """What a poller of the input's power says first, in one go."""
    events: list[Event] = []
    said = asyncio.Event()

    def say(event: Event) -> None:
        events.append(event)
        said.set()

    device = open_device(url, load_profile(profile_name), clock=time.monotonic)
    poller = Poller(
        "pdu", device, ["input.realpower"], poll_s=0.1, candidates=list, clock=time.monotonic,
        put=lambda _: None, say=say,
    )  # fmt: skip
    task = asyncio.create_task(poller.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await said.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await device.close()
    return events


def floats(values: dict[int, float]) -> dict[int, int]:
    """Registers 0 … 75 of an SDM630 with these values, 0 elsewhere."""
    registers = dict.fromkeys(range(80), 0)
    for address, value in values.items():
        high, low = struct.unpack(">HH", struct.pack(">f", value))
        registers |= {address: high, address + 1: low}
    return registers


def test_a_meter_whose_watts_are_ten_times_too_large_is_named_in_the_log() -> None:
    async def run() -> list[Event]:
        # 230 V, 10 A, power factor 0.98, and 22 540 W
        values = {0: 230.0, 6: 10.0, 12: 22_540.0, 18: 2300.0, 52: 22_540.0, 56: 2300.0}
        unit = served_modbus.Unit(1, {"input": floats(values)})
        async with served_modbus.serving(unit) as port:
            url = f"modbus://127.0.0.1:{port}/1"
            return await polled(url, "eastron-sdm630")

    events = asyncio.run(run())
    assert {event.name for event in events} == {"device contradicts itself"}
    assert {dict(event.keys)["reason"] for event in events} == {"scale"}
    assert any("input.realpower" in str(dict(event.keys)["points"]) for event in events)


def test_an_agent_with_more_pdus_than_the_url_names_is_told_in_the_log() -> None:
    async def run() -> list[Event]:
        capture = DRIVERS / "testdata" / "servertech-sentry4.snmprec"
        agent = served_snmp.Agent(served_snmp.read_snmprec(capture))
        async with served_snmp.serving(agent):
            url = f"snmp://public@127.0.0.1:{agent.port}"
            return await polled(url, "servertech-sentry4")

    (event, *_) = asyncio.run(run())
    assert event.name == "several PDUs behind one agent"
    assert "/1, and give every other" in str(dict(event.keys)["detail"])
