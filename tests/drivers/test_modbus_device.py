"""Modbus devices over real TCP: values, absences, commands, and every fault of the line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from served_modbus import Unit, deaf, serving

from drivers.device import Device, open_device
from drivers.errors import ProfileError
from drivers.profile import Profile, check_profile, load_profile
from drivers.reading import Absence, Identity, Missing, Reading, Snapshot

T = TypeVar("T")

METER = """
schema = 1
name = "meter"
protocol = "modbus"
status = "{status}"
[product]
vendor = "V"
models = ["M"]
[source]
document = "made up for this test"
[limits]
timeout_ms = 150
registers_gap_max = 4
effect_delay_ms_max = 100
{limits}
[[point]]
name = "input.L{{n}}.voltage"
unit = "V"
each = {{ n = {{ first = 1, count = 3, stride = 2 }} }}
table = "holding"
address = 0
scale = 0.1
[[point]]
name = "outlet.1.status"
table = "coil"
address = 3
enum = {{ off = 0, on = 1 }}
[[command]]
name = "outlet.1.load"
table = "coil"
address = 3
enum = {{ off = 0, on = 1 }}
confirm = {{ point = "outlet.1.status", within_ms = 100 }}
[[command]]
name = "limit.realpower"
unit = "W"
table = "holding"
address = 10
type = "uint32"
range = [0, 100_000]
confirm = "none"
why = "this test looks at the register itself"
"""


def meter(limits: str = "", status: str = "recorded") -> Profile:
    return check_profile(METER.format(limits=limits, status=status), "meter.toml")


def meter_unit(**more: object) -> Unit:
    tables = {"holding": {0: 2301, 1: 0, 2: 2302, 3: 0, 4: 2303, 10: 0, 11: 0}, "coil": {3: 1}}
    return Unit(tables=tables, **more)  # type: ignore[arg-type]


def limiter_unit(**more: object) -> Unit:
    tables = {"holding": {0: 65535, 1: 65535}, "input": {0: 0, 1: 700}}
    return Unit(tables=tables, mirror={0: 1}, **more)  # type: ignore[arg-type]


def with_device(unit: Unit, profile: Profile, use: Callable[[Device], Awaitable[T]]) -> T:
    async def run() -> T:
        async with serving(unit) as port:
            device = open_device(f"modbus://127.0.0.1:{port}/1", profile, clock=time.monotonic)
            try:
                return await use(device)
            finally:
                await device.close()

    return asyncio.run(run())


def shown(snapshot: Snapshot) -> dict[str, object]:
    return {
        name: found.value if isinstance(found, Reading) else found.absence
        for name, found in snapshot.points.items()
    }


VOLTAGES = {"input.L1.voltage": 230.1, "input.L2.voltage": 230.2, "input.L3.voltage": 230.3}


def test_registers_and_coils_are_read_in_one_request_each() -> None:
    unit = meter_unit()
    found = with_device(unit, meter(), lambda device: device.read())
    assert shown(found) == VOLTAGES | {"outlet.1.status": "on"}
    assert sorted(unit.heard) == [(1, 3, 1), (3, 0, 5)]


def test_only_the_named_points_are_asked() -> None:
    unit = meter_unit()
    found = with_device(unit, meter(), lambda device: device.read(["input.L2.voltage"]))
    assert shown(found) == {"input.L2.voltage": 230.2}
    assert unit.heard == [(3, 2, 1)]


def test_a_modbus_device_is_called_what_its_profile_is_for() -> None:
    assert with_device(meter_unit(), meter(), lambda d: d.identify()) == Identity("V", "M", None)


def test_a_modbus_device_cannot_be_recognised() -> None:
    async def use(device: Device) -> Profile:
        return await device.recognise([meter()])

    with pytest.raises(ProfileError, match="name its profile"):
        with_device(meter_unit(), meter(), use)


def test_an_exception_is_refused_with_its_code_in_words() -> None:
    found = with_device(meter_unit(refuse={3: 4}), meter(), lambda device: device.read())
    assert shown(found) == dict.fromkeys(VOLTAGES, Absence.REFUSED) | {"outlet.1.status": "on"}
    first = found.points["input.L1.voltage"]
    assert isinstance(first, Missing)
    assert first.detail == "exception 4, device failure"


def test_a_gateway_that_reaches_nobody_is_a_timeout() -> None:
    found = with_device(
        meter_unit(refuse={3: 11}), meter(), lambda device: device.read(["input.L1.voltage"])
    )
    assert shown(found) == {"input.L1.voltage": Absence.TIMEOUT}


def test_a_merged_read_that_is_refused_is_split_and_stays_split() -> None:
    async def use(device: Device) -> list[Snapshot]:
        return [await device.read(list(VOLTAGES)), await device.read(list(VOLTAGES))]

    unit = meter_unit()
    del unit.tables["holding"][3]  # the hole between L2 and L3
    first, second = with_device(unit, meter(), use)
    assert shown(first) == shown(second) == VOLTAGES
    reads = [(address, count) for _, address, count in unit.heard]
    assert reads == [(0, 5), (0, 1), (2, 3), (2, 1), (4, 1), (0, 1), (2, 1), (4, 1)]


def test_a_register_that_the_device_lacks_does_not_take_the_others_along() -> None:
    unit = meter_unit()
    del unit.tables["holding"][4]
    found = with_device(unit, meter(), lambda device: device.read(list(VOLTAGES)))
    assert shown(found) == VOLTAGES | {"input.L3.voltage": Absence.REFUSED}


def test_a_limit_is_written_once_rounded_down_and_read_back() -> None:
    async def use(device: Device) -> tuple[object, Snapshot]:
        return await device.execute("limit.realpower", 1499.9), await device.read()

    unit = limiter_unit()
    done, snapshot = with_device(unit, load_profile("generic-power-limit"), use)
    assert (done.absence, done.value) == (None, 1499.9)
    assert done.read_back.value == 1499.0
    assert done.sent_at_s <= done.done_at_s <= done.read_back.asked_at_s
    assert shown(snapshot) == {
        "limit.realpower.setting": 1499.0, "limit.realpower": 1499.0, "input.realpower": 700.0
    }  # fmt: skip
    assert [function for function, _, _ in unit.heard].count(6) == 1


def test_no_limit_is_absent_and_not_65535_watts() -> None:
    found = with_device(
        limiter_unit(), load_profile("generic-power-limit"), lambda device: device.read()
    )
    assert shown(found) == {
        "limit.realpower.setting": Absence.ABSENT,
        "limit.realpower": Absence.ABSENT,
        "input.realpower": 700.0,
    }


def test_a_coil_and_a_number_of_two_registers_can_be_written() -> None:
    async def use(device: Device) -> list[object]:
        return [
            await device.execute("outlet.1.load", "off"),
            await device.execute("limit.realpower", 70_000),
        ]

    unit = meter_unit()
    coil, number = with_device(unit, meter(), use)
    assert (coil.absence, coil.read_back.value) == (None, "off")
    assert (number.absence, number.read_back) == (None, None)
    assert [unit.tables["holding"][n] for n in (10, 11)] == [1, 4464]


def test_a_refused_write_is_refused_and_the_proof_is_read_all_the_same() -> None:
    done = with_device(
        limiter_unit(refuse={6: 4}),
        load_profile("generic-power-limit"),
        lambda device: device.execute("limit.realpower", 900),
    )
    assert (done.absence, done.detail) == (Absence.REFUSED, "exception 4, device failure")
    assert isinstance(done.read_back, Missing)
    assert done.read_back.absence is Absence.ABSENT


def test_a_write_without_an_answer_is_sent_once_and_the_proof_is_asked_anew() -> None:
    unit = limiter_unit(delays_s=[0.6])
    done = with_device(
        unit,
        load_profile("generic-power-limit"),
        lambda device: device.execute("limit.realpower", 900),
    )
    assert done.absence is Absence.TIMEOUT
    assert done.read_back is not None
    assert [function for function, _, _ in unit.heard] == [6, 3]


@pytest.mark.parametrize(
    ("status", "value", "absence"),
    [("untested", 900, Absence.REFUSED), ("recorded", 100_001, Absence.RANGE)],
)
def test_what_must_not_be_sent_is_not_sent(status: str, value: float, absence: Absence) -> None:
    unit = meter_unit()
    done = with_device(
        unit, meter(status=status), lambda device: device.execute("limit.realpower", value)
    )
    assert done.absence is absence
    assert unit.heard == []


def test_a_port_that_accepts_and_never_answers_costs_one_timeout() -> None:
    async def run() -> tuple[Snapshot, int]:
        async with deaf() as (port, connections):
            device = open_device(f"modbus://127.0.0.1:{port}", meter(), clock=time.monotonic)
            snapshot = await device.read()
            await device.close()
            return snapshot, len(connections)

    snapshot, connections = asyncio.run(run())
    assert set(shown(snapshot).values()) == {Absence.TIMEOUT}
    assert connections == 1  # every timeout closes its connection


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    async def use(device: Device) -> tuple[Snapshot, Snapshot]:
        late = await device.read(["input.L1.voltage"])
        unit.tables["holding"][0] = 2400
        return late, await device.read(["input.L1.voltage"])

    unit = meter_unit(delays_s=[0.2, 0.1])  # the late one would arrive while the next is waited for
    late, next_one = with_device(unit, meter(), use)
    assert shown(late) == {"input.L1.voltage": Absence.TIMEOUT}
    assert shown(next_one) == {"input.L1.voltage": 240.0}


def test_nobody_there_is_a_timeout_and_the_next_attempts_wait() -> None:
    async def run() -> list[Snapshot]:
        async with deaf() as (port, _):
            pass
        now_s = 100.0
        device = open_device(f"modbus://127.0.0.1:{port}", meter(), clock=lambda: now_s)
        snapshots = [await device.read(["input.L1.voltage"])]
        async with serving(meter_unit(), port=port):
            snapshots.append(await device.read(["input.L1.voltage"]))  # too soon
            now_s = 100.2
            snapshots.append(await device.read(["input.L1.voltage"]))
            await device.close()
        return snapshots

    nobody, too_soon, back = asyncio.run(run())
    assert shown(nobody) == shown(too_soon) == {"input.L1.voltage": Absence.TIMEOUT}
    assert "no connection" in nobody.points["input.L1.voltage"].detail  # type: ignore[union-attr]
    assert shown(back) == {"input.L1.voltage": 230.1}


def test_a_device_that_vanishes_and_comes_back_is_read_again() -> None:
    async def run() -> list[object]:
        values: list[object] = []
        async with serving(meter_unit()) as port:
            device = open_device(f"modbus://127.0.0.1:{port}", meter(), clock=time.monotonic)
            values += shown(await device.read(["input.L1.voltage"])).values()
        values += shown(await device.read(["input.L1.voltage"])).values()
        async with serving(meter_unit(), port=port):
            for _ in range(200):  # until it has connected again, at most 4 s
                found = shown(await device.read(["input.L1.voltage"]))["input.L1.voltage"]
                if found is not Absence.TIMEOUT:
                    break
                await asyncio.sleep(0.02)
            values.append(found)
            await device.close()
        return values

    assert asyncio.run(run()) == [230.1, Absence.TIMEOUT, 230.1]


def test_units_of_one_host_share_a_connection_and_wait_for_each_other() -> None:
    async def run() -> tuple[list[dict], int, int]:
        one, two = meter_unit(number=1), meter_unit(number=2)
        two.tables["holding"][0] = 1000
        for unit in (one, two):
            unit.delays_s = [0.03, 0.03]
        async with serving(one, two) as port:
            urls = [f"modbus://127.0.0.1:{port}/{unit}" for unit in (1, 2)]
            first, second = (open_device(u, meter(), clock=time.monotonic) for u in urls)
            name = ["input.L1.voltage"]
            both = await asyncio.gather(first.read(name), second.read(name))
            from drivers import modbus

            lines = len(modbus._lines)
            await first.close()
            after = await second.read(name)
            await second.close()
            return [shown(s) for s in (*both, after)], lines, len(modbus._lines)

    found, lines, lines_after = asyncio.run(run())
    assert [f["input.L1.voltage"] for f in found] == [230.1, 100.0, 100.0]
    assert (lines, lines_after) == (1, 0)


def test_a_silent_unit_does_not_spoil_the_answer_of_the_next_unit_on_the_line() -> None:
    async def run() -> list[object]:
        async with serving(meter_unit(number=9, delays_s=[0.2]), meter_unit(number=1)) as port:
            urls = [f"modbus://127.0.0.1:{port}/{unit}" for unit in (9, 1)]
            devices = [open_device(u, meter(), clock=time.monotonic) for u in urls]
            found = await asyncio.gather(*(d.read(["input.L1.voltage"]) for d in devices))
            for device in devices:
                await device.close()
            return [shown(snapshot)["input.L1.voltage"] for snapshot in found]

    assert asyncio.run(run()) == [Absence.TIMEOUT, 230.1]


def test_the_pause_between_requests_is_kept() -> None:
    async def use(device: Device) -> float:
        await device.read(["input.L1.voltage"])
        began_s = time.monotonic()
        await device.read(["input.L1.voltage"])
        return time.monotonic() - began_s

    took_s = with_device(meter_unit(), meter("pause_between_requests_ms = 80"), use)
    assert took_s >= 0.07


def test_a_slow_device_ends_the_read_at_its_limit() -> None:
    async def use(device: Device) -> Snapshot:
        return await device.read()

    limits = "read_ms_max = 180\nregisters_per_read_max = 4"
    unit = meter_unit(delays_s=[0.1, 0.1, 0.1, 0.1])
    found = shown(with_device(unit, meter(limits), use))
    assert len(found) == 4
    assert list(found.values()).count(Absence.TIMEOUT) >= 1
    assert len(unit.heard) == 2


def test_a_cancelled_read_leaves_no_answer_behind_for_the_next() -> None:
    async def use(device: Device) -> Snapshot:
        task = asyncio.ensure_future(device.read(["input.L1.voltage"]))
        await asyncio.wait_for(unit.was_asked.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        unit.tables["holding"][2] = 2222
        return await device.read(["input.L2.voltage"])

    unit = meter_unit(delays_s=[0.05])
    assert shown(with_device(unit, meter(), use)) == {"input.L2.voltage": 222.2}


@pytest.mark.parametrize(
    ("head", "body", "absence"),
    [
        ("hello, this is not Modbus at all", b"", Absence.TIMEOUT),
        ("wrong transaction", b"\x01\x03\x02\x09\x00", Absence.TIMEOUT),
        ("right", b"\x09\x03\x02\x09\x00", Absence.TIMEOUT),  # another unit
        ("right", b"\x01\x03\x04\x09\x00\x09\x00", Absence.TYPE),  # two registers for one
        ("right", b"\x01\x03\x00", Absence.TYPE),  # none
        ("right", b"\x01\x04\x02\x09\x00", Absence.TYPE),  # another function
        ("right", b"\x01\x83", Absence.TIMEOUT),  # an exception without its code
    ],
)
def test_a_damaged_answer_is_never_a_value_and_never_an_exception(
    head: str, body: bytes, absence: Absence
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readexactly(12)
        number = request[:2] if head == "right" else b"\x7f\x7f"
        frame = number + b"\x00\x00" + len(body).to_bytes(2, "big") + body
        writer.write(frame if body else head.encode())
        await reader.read()  # until the other side hangs up
        writer.close()
        hung_up.set()

    async def run() -> Snapshot:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        device = open_device(f"modbus://127.0.0.1:{port}", meter(), clock=time.monotonic)
        snapshot = await device.read(["input.L1.voltage"])
        await device.close()
        await asyncio.wait_for(hung_up.wait(), 5)
        server.close()
        return snapshot

    hung_up = asyncio.Event()

    assert shown(asyncio.run(run())) == {"input.L1.voltage": absence}
