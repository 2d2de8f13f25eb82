"""The emulated devices answer clients that are not ours: pymodbus' client and net-snmp's tools."""

import asyncio
import math
import struct
import subprocess

import pytest
from pymodbus.client import AsyncModbusTcpClient

from hil.devices import Devices
from hil.plant import Plant
from hil.room import design

APC = ".1.3.6.1.4.1.318.1.1.26"
INPUT_W = ".1.3.6.1.4.1.32473.1.1.0"


def with_devices(test):
    """Run `test(plant, devices)` with the devices of five racks listening."""

    async def body():
        plant = Plant(design(5), seed=1)
        plant.step(1.0)
        devices = Devices(plant)
        await devices.start()
        try:
            await test(plant, devices)
        finally:
            await devices.stop()

    asyncio.run(body())


async def modbus(devices, rack, device):
    port = int(devices.urls()[rack][device].split(":")[2].split("/")[0])
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0)
    assert await client.connect()
    return client


def floats(response):
    registers = response.registers
    return struct.unpack(f">{len(registers) // 2}f", struct.pack(f">{len(registers)}H", *registers))


async def snmp(devices, tool, *arguments, rack="r1", community=None, version="2c"):
    """Run one of net-snmp's tools; its lines of output, and its error text."""
    right, _, address = devices.urls()[rack]["pdu"].removeprefix("snmp://").partition("@")
    command = [tool, f"-v{version}", "-c", community or right, "-Onqe", "-t", "1", "-r", "0"]
    if tool == "snmpbulkget":
        command.append("-Cr3")
    process = await asyncio.create_subprocess_exec(
        *command, address, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return out.decode().splitlines(), err.decode()


def test_the_meter_tells_volts_amps_watts_hertz_and_energy_like_an_sdm630():
    async def body(plant, devices):
        client = await modbus(devices, "r2", "meter")
        phases = floats(await client.read_input_registers(0, count=18, device_id=1))
        assert phases[0:3] == (230.0, 230.0, 230.0)
        assert phases[3:6] == pytest.approx([500 / 3 / 230 / 0.97] * 3)
        assert phases[6:9] == pytest.approx([500 / 3] * 3)
        totals = floats(await client.read_input_registers(0x34, count=22, device_id=1))
        assert totals[0] == 500.0
        assert totals[9] == 50.0
        plant.step(72.0)
        energy = floats(await client.read_input_registers(0x48, count=2, device_id=1))
        assert energy[0] == pytest.approx(0.01)  # kWh: 500 W for 72 s
        client.close()

    with_devices(body)


def test_the_meter_tells_the_averages_and_sums_of_its_phases():
    async def body(plant, devices):
        client = await modbus(devices, "r2", "meter")
        reactive_var = 500 * math.tan(math.acos(0.97))
        for address, expected in (
            (0x18, [reactive_var / 3] * 3),
            (0x2A, [230.0]),
            (0x30, [500 / 230 / 0.97]),
            (0x38, [500 / 0.97]),
            (0x3C, [reactive_var]),
            (0x3E, [0.97]),
            (0x4A, [0.0]),
        ):
            answer = await client.read_input_registers(
                address, count=2 * len(expected), device_id=1
            )
            assert floats(answer) == pytest.approx(expected), hex(address)
        client.close()

    with_devices(body)


def test_a_read_of_the_whole_table_goes_over_the_registers_that_carry_nothing():
    async def body(plant, devices):
        client = await modbus(devices, "r2", "meter")
        table = floats(await client.read_input_registers(0, count=0x4C, device_id=1))
        assert table[0x2A // 2] == 230.0
        assert table[0x2C // 2] == 0.0
        assert table[0x34 // 2] == 500.0
        client.close()

    with_devices(body)


@pytest.mark.parametrize(
    ("address", "count"),
    [(0x24, 2), (0x2C, 2), (0x36, 4), (0x2A, 4), (0x4C, 2), (0x156, 2), (0x1000, 2)],
)
def test_the_meter_refuses_input_registers_that_it_does_not_serve(address, count):
    async def body(plant, devices):
        client = await modbus(devices, "r2", "meter")
        answer = await client.read_input_registers(address, count=count, device_id=1)
        assert answer.isError()
        assert answer.exception_code == 2
        client.close()

    with_devices(body)


@pytest.mark.parametrize("device", ["meter", "limit"])
def test_bits_are_served_by_no_device(device):
    async def body(plant, devices):
        client = await modbus(devices, "r2", device)
        for answer in (
            await client.read_coils(0, count=1, device_id=1),
            await client.read_discrete_inputs(0, count=1, device_id=1),
            await client.write_coil(0, True, device_id=1),
        ):
            assert answer.isError()
            assert answer.exception_code == 2
        client.close()

    with_devices(body)


def test_the_meter_has_no_holding_register_that_could_be_taken_for_a_limit():
    async def body(plant, devices):
        client = await modbus(devices, "r2", "meter")
        for address in (0, 1):
            answer = await client.read_holding_registers(address, count=1, device_id=1)
            assert answer.isError()
            assert answer.exception_code == 2
        client.close()

    with_devices(body)


@pytest.mark.parametrize("kind", ["input", "holding"])
def test_the_power_limit_refuses_registers_that_it_does_not_serve(kind):
    async def body(plant, devices):
        client = await modbus(devices, "r2", "limit")
        read = getattr(client, f"read_{kind}_registers")
        for address, count in ((2, 1), (1, 2), (0, 4)):
            answer = await read(address, count=count, device_id=1)
            assert answer.isError()
            assert answer.exception_code == 2
        client.close()

    with_devices(body)


@pytest.mark.parametrize(("address", "count"), [(1, 2), (0, 1), (0, 82), (0x17E, 4)])
def test_the_meter_refuses_half_values_and_reads_that_are_too_long(address, count):
    async def body(plant, devices):
        client = await modbus(devices, "r2", "meter")
        answer = await client.read_input_registers(address, count=count, device_id=1)
        assert answer.isError()
        assert answer.exception_code == 2
        client.close()

    with_devices(body)


def test_the_meter_cannot_be_written():
    async def body(plant, devices):
        client = await modbus(devices, "r2", "meter")
        assert (await client.write_register(0, 1, device_id=1)).isError()
        client.close()

    with_devices(body)


@pytest.mark.parametrize("many", [False, True], ids=["function 6", "function 16"])
def test_a_limit_that_is_written_shows_at_once_and_is_in_force_later(many):
    async def body(plant, devices):
        client = await modbus(devices, "r2", "limit")
        before = await client.read_holding_registers(0, count=2, device_id=1)
        assert before.registers == [500, 500]
        if many:
            answer = await client.write_registers(0, [1700], device_id=1)
        else:
            answer = await client.write_register(0, 1700, device_id=1)
        assert not answer.isError()
        at_once = await client.read_holding_registers(0, count=2, device_id=1)
        assert at_once.registers == [1700, 500]
        plant.step(2.0)
        later = await client.read_holding_registers(0, count=2, device_id=1)
        assert later.registers == [1700, 1700]
        measured = await client.read_input_registers(0, count=2, device_id=1)
        assert measured.registers == [0, 1700]
        assert plant.limit_racks["r2"].draw_w == 1700
        client.close()

    with_devices(body)


def test_the_limit_in_force_cannot_be_written_and_stays():
    async def body(plant, devices):
        client = await modbus(devices, "r2", "limit")
        assert (await client.write_register(1, 9999, device_id=1)).isError()
        assert (await client.write_registers(0, [1, 2], device_id=1)).isError()
        plant.step(2.0)
        answer = await client.read_holding_registers(0, count=2, device_id=1)
        assert answer.registers == [500, 500]
        client.close()

    with_devices(body)


def test_a_modbus_device_that_vanished_comes_back_on_its_port_with_its_setting():
    async def body(plant, devices):
        url = devices.urls()["r2"]["limit"]
        client = await modbus(devices, "r2", "limit")
        await client.write_register(0, 1200, device_id=1)
        client.close()
        await devices.stop()
        gone = AsyncModbusTcpClient("127.0.0.1", port=int(url.split(":")[2][:-2]), retries=0)
        assert not await gone.connect()
        gone.close()
        await devices.start()
        assert devices.urls()["r2"]["limit"] == url
        client = await modbus(devices, "r2", "limit")
        answer = await client.read_holding_registers(0, count=1, device_id=1)
        assert answer.registers == [1200]
        client.close()

    with_devices(body)


def test_the_pdu_tells_who_it_is_and_what_it_draws():
    async def body(plant, devices):
        rack = plant.outlet_racks["r1"]
        lines, _ = await snmp(
            devices,
            "snmpget",
            ".1.3.6.1.2.1.1.2.0",
            f"{APC}.2.1.8.1",
            f"{APC}.4.3.1.5.1",
            INPUT_W,
            f"{APC}.9.4.3.1.7.1",
            f"{APC}.9.2.3.1.5.1",
            f"{APC}.9.2.3.1.5.2",
        )
        assert [line.split(" ", 1)[1] for line in lines] == [
            ".1.3.6.1.4.1.318.1.3.4.6",
            '"AP8659"',
            str(round(rack.draw_w / 10)),
            str(round(rack.draw_w)),
            str(round(rack.outlet_w[1])),
            "2",
            "1",
        ]

    with_devices(body)


def test_an_outlet_is_switched_by_a_set_and_its_state_follows_later():
    async def body(plant, devices):
        switch, state = f"{APC}.9.2.4.1.5.3", f"{APC}.9.2.3.1.5.3"
        lines, error = await snmp(devices, "snmpset", switch, "i", "1")
        assert (lines, error) == ([f"{switch} 1"], "")
        assert (await snmp(devices, "snmpget", state))[0] == [f"{state} 1"]
        plant.step(2.0)
        assert (await snmp(devices, "snmpget", state))[0] == [f"{state} 2"]
        assert plant.outlet_racks["r1"].relays[3].on
        await snmp(devices, "snmpset", switch, "i", "2")
        plant.step(4.0)
        assert not plant.outlet_racks["r1"].relays[3].on

    with_devices(body)


@pytest.mark.parametrize(
    ("oid", "kind", "value", "reason"),
    [
        (f"{APC}.9.2.4.1.5.3", "i", "9", "wrongValue"),
        (f"{APC}.9.2.4.1.5.3", "s", "on", "wrongType"),
        (f"{APC}.9.2.3.1.5.3", "i", "2", "notWritable"),
        (f"{APC}.9.2.4.1.5.99", "i", "1", "notWritable"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused_and_switches_nothing(oid, kind, value, reason):
    async def body(plant, devices):
        allowed = f"{APC}.9.2.4.1.5.4"
        _, error = await snmp(devices, "snmpset", allowed, "i", "1", oid, kind, value)
        assert reason in error
        plant.step(2.0)
        assert not plant.outlet_racks["r1"].relays[4].on

    with_devices(body)


def test_getnext_and_getbulk_walk_the_table_in_order_and_end():
    async def body(plant, devices):
        states, _ = await snmp(devices, "snmpwalk", f"{APC}.9.2.3.1.5")
        assert [line.split(" ")[1] for line in states] == ["2"] + ["1"] * 11
        bulk, _ = await snmp(devices, "snmpbulkget", f"{APC}.9.2.3.1.5")
        assert bulk == states[:3]
        everything, _ = await snmp(devices, "snmpwalk", ".1.3.6")
        assert everything[-1].startswith("No more variables") or INPUT_W in everything[-1]
        oids = [
            tuple(int(n) for n in line.split(" ")[0].strip(".").split("."))
            for line in everything
            if line.startswith(".")
        ]
        assert oids == sorted(oids)
        assert len(oids) == 83

    with_devices(body)


def test_an_object_that_does_not_exist_is_said_not_to_and_the_others_answer():
    async def body(plant, devices):
        lines, _ = await snmp(devices, "snmpget", f"{APC}.9.2.3.1.5.13", f"{APC}.9.2.3.1.5.12")
        assert "No Such Instance" in lines[0]
        assert lines[1].endswith(" 1")

    with_devices(body)


@pytest.mark.parametrize("community", ["public", "r3-private"])
def test_another_community_gets_no_answer_at_all(community):
    async def body(plant, devices):
        lines, error = await snmp(devices, "snmpget", INPUT_W, community=community)
        assert lines == []
        assert "Timeout" in error

    with_devices(body)


def test_each_pdu_is_its_own():
    async def body(plant, devices):
        plant.outlet_racks["r3"].switch(1, False, 1.0)
        plant.step(2.0)
        state = f"{APC}.9.2.3.1.5.1"
        assert (await snmp(devices, "snmpget", state, rack="r1"))[0] == [f"{state} 2"]
        assert (await snmp(devices, "snmpget", state, rack="r3"))[0] == [f"{state} 1"]

    with_devices(body)
