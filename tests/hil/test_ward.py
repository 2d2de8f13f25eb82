"""What is done to a rack is real, and is undone: its disk, its clock, its devices, itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from random import Random

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException

from hil.devices import Devices
from hil.faults import Kind
from hil.mosquitto import MqttServer
from hil.plant import Plant
from hil.proxy import Proxy
from hil.rack import Controller
from hil.room import design
from hil.ward import STEPPED_CLOCK, Ward, clock_file, fill_disk, make_room, set_clock
from hil.wiretap import Wiretap

TELLS_THE_TIME = """
import sys, time
for line in sys.stdin:
    print(time.time() - float(line), time.time_ns() // 10**9 - int(float(line)), flush=True)
"""
DEADLINE_S = 10.0


def until(true, what):
    deadline_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.01)


def controller_in(folder):
    return Controller("r1", folder / "site.toml", folder)


def test_a_full_disk_refuses_every_journal_until_there_is_room(tmp_path):
    fresh = tmp_path / "journal.new"
    asyncio.run(fill_disk(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        fresh.write_bytes(b"a record")
    make_room(tmp_path)
    fresh.write_bytes(b"a record")
    assert fresh.read_bytes() == b"a record"


def test_the_clock_of_a_child_goes_wrong_by_an_hour_while_it_runs_and_no_other_does(tmp_path):
    controller = controller_in(tmp_path)
    set_clock(controller, 0)
    environment = os.environ | {
        "PYTHONPATH": str(STEPPED_CLOCK),
        "CLOCK_STEP_FILE": str(clock_file(controller)),
    }
    with subprocess.Popen(
        [sys.executable, "-c", TELLS_THE_TIME],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:

        def is_wrong_by(seconds):
            child.stdin.write(f"{time.time()}\n")
            child.stdin.flush()
            told = [float(word) for word in child.stdout.readline().split()]
            return told == pytest.approx([seconds, seconds], abs=5.0)

        assert is_wrong_by(0)
        set_clock(controller, 3600)
        assert is_wrong_by(3600)
        set_clock(controller, -3600)
        assert is_wrong_by(-3600)
        set_clock(controller, 0)
        assert is_wrong_by(0)
        child.stdin.close()


def test_devices_that_are_late_or_silent_do_all_the_same_what_was_asked():
    async def body():
        plant = Plant(design(5), seed=1)
        plant.step(1.0)
        devices = Devices(plant)
        await devices.start()
        port = int(devices.urls()["r2"]["limit"].split(":")[2].split("/")[0])
        client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0)
        assert await client.connect()
        loop = asyncio.get_running_loop()
        devices.answer_after("r2", 0.3)
        asked_s = loop.time()
        answer = await client.read_holding_registers(0, count=1, device_id=1)
        assert answer.registers == [500]
        assert loop.time() - asked_s >= 0.3
        devices.answer_after("r2", float("inf"))
        client.comm_params.timeout_connect = 0.2
        with pytest.raises((ModbusIOException, TimeoutError)):
            await asyncio.wait_for(client.write_register(0, 700, device_id=1), 0.5)
        plant.step(2.0)
        assert plant.limit_racks["r2"].in_force_w == 700
        assert plant.limit_racks["r4"].register_w == 500
        client.close()
        devices.answer_after("r2", 0.0)
        client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0)
        assert await client.connect()
        answer = await client.read_holding_registers(0, count=1, device_id=1)
        assert answer.registers == [700]
        client.close()
        await devices.stop()

    asyncio.run(body())


def test_a_pdu_that_is_silent_switches_all_the_same():
    async def body():
        plant = Plant(design(5), seed=1)
        plant.step(1.0)
        devices = Devices(plant)
        await devices.start()
        community, _, address = devices.urls()["r1"]["pdu"][7:].partition("@")
        outlet = ".1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.2"
        command = ["-v2c", "-c", community, "-Onqe", "-t", "0.4", "-r", "0", address]

        async def run(tool, *words):
            process = await asyncio.create_subprocess_exec(
                tool, *command, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, err = await process.communicate()
            return out.decode(), err.decode()

        devices.answer_after("r1", float("inf"))
        _, error = await run("snmpset", outlet, "i", "1")
        assert "Timeout" in error
        plant.step(2.0)
        assert plant.outlet_racks["r1"].relays[2].on
        devices.answer_after("r1", 0.1)
        told, _ = await run("snmpget", outlet)
        assert told.split()[-1] == "1"
        await devices.stop()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("kind", "remembered"),
    [(Kind.SERVER_KEEPS, True), (Kind.SERVER_FORGETS, False)],
)
def test_the_mqtt_server_comes_back_with_its_memory_or_without(tmp_path, kind, remembered):
    async def body():
        server = MqttServer("mosquitto", tmp_path, remembers=True)
        server.start()
        ward = Ward(server, Devices(Plant(design(5), seed=1)), {}, {}, Random(1))
        tap = Wiretap(server.port)
        tap.start()
        try:
            until(lambda: tap.heard().connected, "a connection")
            tap._client.publish("wattbroker/demo/racks/r1/report", '{"bound_w": 1}', retain=True)
            until(lambda: "r1" in tap.heard().reports, "the report")
            await ward.begin(kind, "")
            assert not ward.server_up
            await ward.end(kind, "")
            assert ward.server_up
            again = Wiretap(server.port)
            again.start()
            until(lambda: again.heard().connected, "a connection")
            if remembered:
                until(lambda: "r1" in again.heard().reports, "the retained report")
            again._client.publish("wattbroker/demo/racks/r2/report", "{}")
            until(lambda: "r2" in again.heard().reports, "what came after what is retained")
            assert ("r1" in again.heard().reports) is remembered
            again.stop()
        finally:
            tap.stop()
            server.stop()

    asyncio.run(body())


def test_a_link_that_heals_passes_again_whether_it_was_cut_or_stalled():
    async def body():
        proxy = Proxy(1)
        await proxy.start()
        ward = Ward(
            MqttServer("auto", STEPPED_CLOCK),  # never started
            Devices(Plant(design(5), seed=1)),
            {},
            {"r1": proxy},
            Random(1),
        )
        for kind in (Kind.CUT, Kind.STALL_UP, Kind.STALL_DOWN):
            await ward.begin(kind, "r1")
            assert not proxy.passes
            assert ward.ails == {"r1": kind}
            await ward.end(kind, "r1")
            assert proxy.passes
            assert ward.ails == {}
        await proxy.stop()

    asyncio.run(body())
