"""Lines: who shares one, what is said when none can be opened, numbered answers on TCP,
pauses, echoes, and servers that were written by others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import serial
from pymodbus import FramerType, ModbusDeviceIdentification
from served_modbus import Unit, serving
from served_rtu import Fate, RtuBus, rtu_over_serial, rtu_over_tcp

from drivers import modbus
from drivers.address import ModbusAddress, parse_url
from drivers.errors import ProfileError
from drivers.modbus import ModbusUnit
from drivers.plan import Span
from drivers.points import Source
from drivers.reading import Absence, Answer, NoAnswer, Place

RECORDINGS = Path(
    os.environ.get(
        "WATTBROKER_RECORDINGS", Path(__file__).parents[3] / "shared" / "recordings"
    )
)  # fmt: skip
IMAGE_SERVER = RECORDINGS.parent / "tools" / "modbus_images" / "server.js"

ONE = Span("holding", 0, 1, ((0, 1),))
PAIR = Span("holding", 16, 2, ((16, 2),))
LIMIT = Source("uint16", table="holding", address=3)


@pytest.fixture(autouse=True)
def nothing_owed_yet() -> None:
    modbus._debts.clear()


def unit_at(url: str, **how: Any) -> ModbusUnit:
    address = parse_url(url, {})
    assert isinstance(address, ModbusAddress)
    return ModbusUnit(address, time.monotonic, **how)


async def fetch(unit: ModbusUnit, *spans: Span, timeout_s: float = 1.0) -> dict[Place, Answer]:
    return await unit.fetch(spans, timeout_s=timeout_s, read_s_max=10.0)


def raws(answers: dict[Place, Answer]) -> list[Any]:
    """Values, and absences where there is none, in the order of places."""
    found = [answers[place].raw for place in sorted(answers, key=str)]
    return [raw.absence if isinstance(raw, NoAnswer) else raw for raw in found]


def detail(answers: dict[Place, Answer]) -> str:
    raw = next(iter(answers.values())).raw
    assert isinstance(raw, NoAnswer)
    return raw.detail


# ── who shares a line ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("modbus+rtu:///dev/ttyS9?unit=1", "modbus+rtu:///dev/ttyS9?unit=2&baud=19200"),
        ("modbus+rtu:///dev/ttyS9?unit=1", "modbus+rtu:///dev/../dev/ttyS9?unit=2&parity=E"),
        ("modbus+rtu:///dev/ttyS9?unit=1", "modbus+rtu:///dev/ttyS9?unit=2&stop=2"),
        ("modbus://192.0.2.1:502/1", "modbus+rtutcp://192.0.2.1/2"),
    ],
)
def test_units_of_one_line_that_want_it_differently_are_an_error(one: str, other: str) -> None:
    first = unit_at(one)
    with pytest.raises(ProfileError, match="all units of one line are set up alike"):
        unit_at(other)
    del first
    unit_at(other)  # nobody is there any more who wants it otherwise


def test_two_names_of_one_port_are_one_line(tmp_path: Path) -> None:
    async def run() -> tuple[list[Any], int]:
        bus = RtuBus(units=(1, 2))
        async with rtu_over_serial(bus) as path:
            (tmp_path / "by-id").symlink_to(path)
            units = [
                unit_at(f"modbus+rtu://{path}?unit=1"),
                unit_at(f"modbus+rtu://{tmp_path}/by-id?unit=2"),
            ]
            found = await asyncio.gather(*(fetch(unit, PAIR) for unit in units))
            lines = len(modbus._lines)
            for unit in units:
                await unit.close()
            return [raws(answers) for answers in found], lines

    found, lines = asyncio.run(run())
    assert [[raw >> 8 for raw in one] for one in found] == [[16, 17], [16, 17]]
    assert lines == 1


def test_importing_the_driver_loads_neither_pyserial_nor_a_client() -> None:
    code = "import sys, drivers.modbus; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                            ).stdout.split()  # fmt: skip
    assert "pymodbus.pdu" in loaded
    assert {"serial", "pymodbus.client", "pymodbus.server"} & set(loaded) == set()


# ── a serial port that cannot be opened, or goes ──────────────────────────────────


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/dev/no-such-port", "check the path"),
        ("/dev/null", "not a serial port"),
    ],
)
def test_a_serial_port_that_cannot_be_opened_says_what_to_check(path: str, remedy: str) -> None:
    async def run() -> dict[Place, Answer]:
        unit = unit_at(f"modbus+rtu://{path}?unit=1")
        answers = await fetch(unit, ONE)
        await unit.close()
        return answers

    answers = asyncio.run(run())
    assert raws(answers) == [Absence.TIMEOUT]
    assert remedy in detail(answers)


def test_a_serial_port_without_permission_says_which_group_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*args: object, **how: object) -> None:
        raise serial.SerialException(13, "Permission denied")

    monkeypatch.setattr(serial, "Serial", refused)  # who runs the tests may be root

    async def run() -> str:
        unit = unit_at("modbus+rtu:///dev/ttyS9?unit=1")
        return detail(await fetch(unit, ONE))

    assert "group dialout" in asyncio.run(run())


def test_a_serial_port_that_another_program_uses_is_left_to_it() -> None:
    async def run() -> str:
        async with rtu_over_serial(RtuBus()) as path:
            with serial.Serial(path, exclusive=True):
                unit = unit_at(f"modbus+rtu://{path}?unit=1")
                return detail(await fetch(unit, ONE))

    assert "another program uses it" in asyncio.run(run())


def test_an_adapter_that_is_pulled_out_and_put_back_is_read_again(tmp_path: Path) -> None:
    async def run() -> list[Any]:
        link, found = tmp_path / "adapter", []
        unit = unit_at(f"modbus+rtu://{link}?unit=1")
        for _ in range(2):
            bus = RtuBus()
            async with rtu_over_serial(bus) as path:
                link.unlink(missing_ok=True)
                link.symlink_to(path)
                for _ in range(100):  # until it is opened again, at most 4 s
                    answers = await fetch(unit, PAIR, timeout_s=0.1)
                    if raws(answers) != [Absence.TIMEOUT] * 2:
                        break
                    await asyncio.sleep(0.04)
                found.append([raw if raw == "timeout" else raw >> 8 for raw in raws(answers)])
            found.append(raws(await fetch(unit, PAIR, timeout_s=0.1)))
        await unit.close()
        return found

    gone = [Absence.TIMEOUT] * 2
    assert asyncio.run(run()) == [[16, 17], gone, [16, 17], gone]


# ── pauses and quiet ──────────────────────────────────────────────────────────────


def test_three_and_a_half_characters_pass_between_rtu_frames() -> None:
    async def run() -> list[float]:
        bus = RtuBus()
        async with rtu_over_serial(bus) as path:
            unit = unit_at(f"modbus+rtu://{path}?unit=1&baud=600&parity=N&stop=2")
            for _ in range(3):
                await fetch(unit, PAIR)
            await unit.close()
            return bus.heard_at_s

    heard_at_s = asyncio.run(run())
    gap_s = 3.5 * 11 / 600
    assert all(b - a >= gap_s for a, b in itertools.pairwise(heard_at_s))


def test_the_time_that_frames_take_on_a_slow_wire_is_added_to_the_timeout() -> None:
    async def run() -> list[Any]:
        bus = RtuBus(fates=[Fate(0.3)])
        async with rtu_over_serial(bus) as path:
            unit = unit_at(f"modbus+rtu://{path}?unit=1&baud=300")
            answers = await fetch(unit, PAIR, timeout_s=0.05)  # 17 characters take 0.57 s
            await unit.close()
            return raws(answers)

    assert [raw >> 8 for raw in asyncio.run(run())] == [16, 17]


def test_the_pause_of_a_unit_is_kept_where_it_is_longer() -> None:
    async def run() -> list[float]:
        bus = RtuBus()
        async with rtu_over_tcp(bus) as port:
            unit = unit_at(f"modbus+rtutcp://127.0.0.1:{port}/1", pause_s=0.08)
            for _ in range(3):
                await fetch(unit, PAIR)
            await unit.close()
            return bus.heard_at_s

    heard_at_s = asyncio.run(run())
    assert all(b - a >= 0.08 for a, b in itertools.pairwise(heard_at_s))


def test_nothing_is_sent_before_the_line_was_quiet_for_a_timeout_after_a_timeout() -> None:
    async def run() -> list[float]:
        bus = RtuBus(fates=[Fate(0, "lost")])
        async with rtu_over_tcp(bus) as port:
            unit = unit_at(f"modbus+rtutcp://127.0.0.1:{port}/1")
            for _ in range(2):
                await fetch(unit, PAIR, timeout_s=0.1)
            await unit.close()
            return bus.heard_at_s

    first_s, second_s, *_ = asyncio.run(run())
    assert second_s - first_s >= 0.195


def test_a_unit_that_is_closed_while_it_waits_for_quiet_ends_without_a_value() -> None:
    async def run() -> tuple[str, int]:
        bus = RtuBus(fates=[Fate(0, "lost")])
        async with rtu_over_tcp(bus) as port:
            unit = unit_at(f"modbus+rtutcp://127.0.0.1:{port}/1")
            await fetch(unit, PAIR, timeout_s=0.1)
            waiting = asyncio.ensure_future(fetch(unit, PAIR, timeout_s=0.1))
            await asyncio.sleep(0)
            await unit.close()
            return detail(await waiting), len(bus.heard)

    text, heard = asyncio.run(run())
    assert "the connection was closed" in text
    assert heard == 1


def test_a_line_that_is_never_quiet_is_told_and_does_not_hang() -> None:
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"\x55" * 20)
                await writer.drain()
                await asyncio.sleep(0.005)

    async def run() -> tuple[str, float]:
        server = await asyncio.start_server(chatter, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        unit = unit_at(f"modbus+rtutcp://127.0.0.1:{port}/1")
        await fetch(unit, ONE, timeout_s=0.05)
        began_s = time.monotonic()
        answers = await fetch(unit, ONE, timeout_s=0.05)
        took_s = time.monotonic() - began_s
        await unit.close()
        server.close()
        return detail(answers), took_s

    text, took_s = asyncio.run(run())
    assert "never quiet" in text
    assert took_s < 1


# ── TCP: answers have numbers ─────────────────────────────────────────────────────


def with_tcp(
    answer: Callable[[bytes], list[bytes]], use: Callable[[ModbusUnit], Awaitable[Any]]
) -> Any:
    """A server that says `answer(request)` to each request of 12 bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                for frame in answer(await reader.readexactly(12)):
                    writer.write(frame)
        writer.close()

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        unit = unit_at(f"modbus://127.0.0.1:{port}/1")
        told = await use(unit)
        await unit.close()
        server.close()
        return told

    return asyncio.run(run())


def mbap(transaction: int, unit: int, pdu: bytes) -> bytes:
    head = transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big")
    return head + bytes([unit]) + pdu


def test_answers_to_other_requests_and_of_other_units_are_dropped_and_counted() -> None:
    def answer(request: bytes) -> list[bytes]:
        number = int.from_bytes(request[:2], "big")
        return [
            mbap(number - 1 & 0xFFFF, 1, b"\x03\x02\x00\x07"),  # late
            mbap(number, 9, b"\x03\x02\x00\x08"),  # foreign
            mbap(number, 1, b"\x03\x02\x00\x09"),
        ]

    async def use(unit: ModbusUnit) -> tuple[list[Any], int]:
        return raws(await fetch(unit, ONE)), unit.dropped

    assert with_tcp(answer, use) == ([9], 2)


def test_a_late_answer_that_a_gateway_hands_to_the_next_connection_is_not_taken() -> None:
    kept: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        kept.append(mbap(int.from_bytes(request[:2], "big"), 1, b"\x03\x02\x00\x07"))
        return [] if len(kept) == 1 else [kept[0], kept[1][:-1] + b"\x08"]

    async def use(unit: ModbusUnit) -> list[Any]:
        late = await fetch(unit, ONE, timeout_s=0.05)
        return raws(late) + raws(await fetch(unit, ONE))

    assert with_tcp(answer, use) == [Absence.TIMEOUT, 8]


@pytest.mark.parametrize("other_url", [False, True])
def test_a_late_answer_is_not_taken_after_the_line_was_closed_and_opened_again(
    other_url: bool,
) -> None:
    """The gateway answers 0.15 s late, to whoever is connected then."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while request := await reader.readexactly(12):
                number, address = int.from_bytes(request[:2], "big"), request[9:10]
                answer = mbap(number, 1, b"\x03\x02" + address * 2)
                loop = asyncio.get_running_loop()
                loop.call_later(0.15, lambda late=answer: writers[-1].write(late))

    async def run() -> list[list[Any]]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        told = []
        for address, timeout_s in ((7, 0.05), (8, 1.0)):
            host = "localhost" if other_url and address == 8 else "127.0.0.1"
            unit = unit_at(f"modbus://{host}:{port}/1")
            span = Span("holding", address, 1, ((address, 1),))
            told.append(raws(await fetch(unit, span, timeout_s=timeout_s)))
            await unit.close()
        server.close()
        return told

    assert asyncio.run(run()) == [[Absence.TIMEOUT], [0x0808]]


def test_a_process_does_not_count_its_requests_from_where_the_last_one_did() -> None:
    code = "from drivers import modbus_line; print(next(modbus_line._transactions))"
    began = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).stdout
        for _ in range(3)
    }  # fmt: skip
    assert len(began) > 1


def test_a_read_that_is_left_alone_keeps_the_connection_and_the_next_waits_for_its_answer() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while request := await reader.readexactly(12):
                asked.append(request)
                if len(asked) == 1:
                    came.set()
                    await answer_now.wait()
                echo = request[7:] if request[7] == 6 else b"\x03\x02\x00\x07"
                writer.write(mbap(int.from_bytes(request[:2], "big"), 1, echo))

    async def run() -> NoAnswer | None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        unit = unit_at(f"modbus://127.0.0.1:{server.sockets[0].getsockname()[1]}/1")
        reading = asyncio.ensure_future(fetch(unit, ONE, PAIR))
        await asyncio.wait_for(came.wait(), 5)
        waiting = asyncio.ensure_future(fetch(unit, ONE))
        await asyncio.sleep(0)
        writing = asyncio.ensure_future(unit.write(LIMIT, 900, timeout_s=1))
        await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert len(asked) == 1
        answer_now.set()
        done = await writing
        await waiting
        await unit.close()
        server.close()
        return done

    came, answer_now = asyncio.Event(), asyncio.Event()
    connected: list[asyncio.StreamWriter] = []
    assert asyncio.run(run()) is None
    assert [request[7] for request in asked] == [3, 6, 3]  # the write before who came first
    assert len(connected) == 1


def test_a_unit_that_is_closed_while_it_connects_leaves_no_connection_behind() -> None:
    async def run() -> tuple[list[Any], bytes]:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.put_nowait(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        unit = unit_at(f"modbus://127.0.0.1:{server.sockets[0].getsockname()[1]}/1")
        reading = asyncio.ensure_future(fetch(unit, ONE, timeout_s=5.0))
        for _ in range(2):  # until it connects
            await asyncio.sleep(0)
        await unit.close()
        found = raws(await reading)
        sent = await asyncio.wait_for(heard.get(), 5)
        server.close()
        return found, sent

    assert asyncio.run(run()) == ([Absence.TIMEOUT], b"")


# ── TCP: a read has one deadline ──────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def gateway(alive: int) -> AsyncIterator[int]:
    """One unit answers, the others behind it are switched off."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while request := await reader.readexactly(12):
                if request[6] == alive:
                    number = int.from_bytes(request[:2], "big")
                    writer.write(mbap(number, alive, b"\x03\x02\x00\x07"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_a_read_behind_dead_units_ends_at_its_deadline() -> None:
    async def timed(unit: ModbusUnit, timeout_s: float, read_s_max: float) -> float:
        began_s = time.monotonic()
        await unit.fetch([ONE], timeout_s=timeout_s, read_s_max=read_s_max)
        return time.monotonic() - began_s

    async def run() -> tuple[list[float], float]:
        async with gateway(alive=0) as port:
            units = [unit_at(f"modbus://127.0.0.1:{port}/{n}") for n in range(1, 8)]
            slow = asyncio.ensure_future(timed(units[0], 1.0, 1.0))
            await asyncio.sleep(0)
            took_s = await asyncio.gather(*(timed(unit, 0.15, 0.2) for unit in units[1:]))
            await slow
            alone_s = await timed(units[0], 1.0, 0.2)
            for unit in units:
                await unit.close()
            return took_s, alone_s

    took_s, alone_s = asyncio.run(run())
    assert max(took_s) < 0.5
    assert alone_s < 0.5


def test_units_that_are_switched_off_do_not_starve_the_one_that_is_not() -> None:
    """Seven timeouts are more than a read may take; the live one is asked before them."""

    async def run() -> list[list[Any]]:
        async with gateway(alive=8) as port:
            units = [unit_at(f"modbus://127.0.0.1:{port}/{n}") for n in range(1, 9)]
            for unit in units[:7]:
                await unit.fetch([ONE], timeout_s=0.05, read_s_max=1.0)
            found = await asyncio.gather(
                *(unit.fetch([ONE], timeout_s=0.2, read_s_max=0.5) for unit in units)
            )
            for unit in units:
                await unit.close()
            return [raws(answers) for answers in found]

    assert asyncio.run(run()) == [[Absence.TIMEOUT]] * 7 + [[7]]


@pytest.mark.parametrize(
    ("pdu", "absence"),
    [
        (b"\x06\x00\x03\x03\x84", None),
        (b"\x06\x00\x04\x03\x84", Absence.TYPE),  # another address
        (b"\x06\x00\x03\x03\x85", Absence.TYPE),  # another value
        (b"\x10\x00\x03\x00\x01", Absence.TYPE),  # another function
        (b"\x86\x03", Absence.REFUSED),
    ],
)
def test_a_write_is_accepted_only_for_its_own_address_and_value(
    pdu: bytes, absence: Absence | None
) -> None:
    asked: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        asked.append(request)
        return [mbap(int.from_bytes(request[:2], "big"), 1, pdu)]

    async def use(unit: ModbusUnit) -> NoAnswer | None:
        return await unit.write(LIMIT, 900, timeout_s=1)

    told = with_tcp(answer, use)
    assert (told.absence if told else None) is absence
    assert len(asked) == 1


@pytest.mark.parametrize(
    "pdu",
    [
        b"\x2b\x0e\x01\x01\x00\x00\x01\x00\x09abc",  # an object longer than the answer
        b"\x2b\x0e\x01\x01\x00\x00\x02\x00\x01a",  # fewer objects than it says
        b"\x2b\x0e\x01",
        b"\x2b\x0d\x01\x01\x00\x00\x00",
    ],
)
def test_a_damaged_identification_is_no_identification(pdu: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readexactly(11)
        writer.write(mbap(int.from_bytes(request[:2], "big"), 1, pdu))
        await reader.read()
        writer.close()

    async def run() -> dict[int, str] | NoAnswer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        unit = unit_at(f"modbus://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        told = await unit.identification(timeout_s=0.5)
        await unit.close()
        server.close()
        return told

    told = asyncio.run(run())
    assert isinstance(told, NoAnswer)
    assert told.absence is Absence.TYPE


# ── servers of others ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [1, 247, 255])
@pytest.mark.parametrize(
    ("scheme", "framer"), [("modbus", FramerType.SOCKET), ("modbus+rtutcp", FramerType.RTU)]
)
def test_pymodbus_serves_reads_writes_and_identification_with_both_framings(
    scheme: str, framer: FramerType, number: int
) -> None:
    async def run() -> tuple[list[Any], NoAnswer | None, dict[int, str] | NoAnswer]:
        identity = ModbusDeviceIdentification(
            info_name={"VendorName": "ACME", "ProductCode": "M-1", "MajorMinorRevision": "2.0",
                       "ModelName": "Meter"}
        )  # fmt: skip
        async with serving(there, framer=framer, identity=identity) as port:
            unit = unit_at(f"{scheme}://127.0.0.1:{port}/{number}")
            found = raws(await fetch(unit, ONE, PAIR))
            done = await unit.write(LIMIT, 900, timeout_s=1)
            told = await unit.identification(timeout_s=1)
            await unit.close()
            return found, done, told

    there = Unit(number, tables={"holding": {0: 7, 3: 0, 16: 8, 17: 9}})
    found, done, told = asyncio.run(run())
    assert found == [7, 8, 9]
    assert done is None and there.tables["holding"][3] == 900
    assert isinstance(told, dict)
    assert (told[0], told[1], told[2], told[5]) == ("ACME", "M-1", "2.0", "Meter")


FLOATS = [Span("input", start, 12, tuple((start + n, 2) for n in range(0, 12, 2)))
          for start in (0, 12)]  # fmt: skip
QUIRKS: list[dict[str, Any]] = [
    {"delay_ms": 130},  # longer than the timeout
    {"late_every": {"n": 2, "ms": 130}},
    {"late_every": {"n": 3, "ms": 300}},
    {"drop_every": 3},
    {"crc_bad_every": 3},
    {"wrong_tid_every": 3},
    {"wrong_unit_every": 3},
    {"truncate_every": 3},
    {"garbage_every": 2},
    {"fragment": {"bytes": 3, "gap_ms": 4}},
    {"echo": True},
    {"echo": True, "crc_bad_every": 3},
    {"min_gap_ms": 40},
    {"max_connections": 1},
    {"busy_every": 3},
]
IMAGE = "eastron_sdm630"  # refuses odd counts, so that not every length can stand in


@contextlib.asynccontextmanager
async def image_server(*listen: str) -> AsyncIterator[dict[str, Any]]:
    arguments = [word for spec in listen for word in ("--listen", spec)]
    process = await asyncio.create_subprocess_exec(
        "node", str(IMAGE_SERVER), "--images", str(RECORDINGS / "modbus"), *arguments,
        "--control", "0", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    finally:
        process.terminate()
        await process.wait()


class Control:
    """The control port of the image server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, **command: Any) -> dict[str, Any]:
        self._writer.write(json.dumps(command).encode() + b"\n")
        return json.loads(await self._reader.readline())

    async def truth(self, device: str, spans: list[Span]) -> dict[Place, int]:
        true: dict[Place, int] = {}
        for span in spans:
            told = await self.say(
                cmd="get", device=device, function=4, address=span.address, count=span.count
            )
            true |= {("input", span.address + n): raw for n, raw in enumerate(told["values"])}
        return true


async def through_quirk(
    control: Control, device: str, url: str, quirks: dict[str, Any]
) -> tuple[list[object], list[Any]]:
    """What was not true while the device had its quirks; and the last reading after."""
    true = await control.truth(device, FLOATS)
    unit, wrong = unit_at(url), []
    await control.say(cmd="quirk", device=device, quirks=quirks)
    for n in range(8):
        for place, answer in (await fetch(unit, FLOATS[n % 2], timeout_s=0.1)).items():
            if not isinstance(answer.raw, NoAnswer) and answer.raw != true[place]:
                wrong.append((quirks, place, answer))
    await control.say(cmd="reset", device=device)
    for _ in range(12):
        answers = await fetch(unit, *FLOATS, timeout_s=0.1)
        if {place: answer.raw for place, answer in answers.items()} == true:
            break
    await unit.close()
    return wrong, [] if raws(answers) == [true[p] for p in sorted(true, key=str)] else [quirks]


@pytest.mark.skipif(
    not (RECORDINGS / "modbus").is_dir() or not IMAGE_SERVER.is_file(),
    reason=f"no Modbus images at {RECORDINGS} (set WATTBROKER_RECORDINGS)",
)
@pytest.mark.skipif(shutil.which("node") is None, reason="no node for the image server")
@pytest.mark.parametrize("kind", ["tcp", "rtu-tcp", "rtu"])
def test_no_quirk_of_the_image_server_gives_a_wrong_value(kind: str, tmp_path: Path) -> None:
    if kind == "rtu" and shutil.which("socat") is None:
        pytest.skip("no socat for serial lines")

    def listener(n: int) -> str:
        where = f"{tmp_path}/bus{n}" if kind == "rtu" else "0"
        return f"{kind}:{where}={IMAGE}"

    def url_of(listening: dict[str, Any]) -> str:
        if kind == "rtu":
            return f"modbus+rtu://{listening['link']}?unit=1&baud=115200"
        scheme = {"tcp": "modbus", "rtu-tcp": "modbus+rtutcp"}[kind]
        return f"{scheme}://127.0.0.1:{listening['port']}/1"

    async def run() -> list[tuple[list[object], list[Any]]]:
        async with image_server(*(listener(n) for n in range(len(QUIRKS)))) as ready:
            reader, writer = await asyncio.open_connection("127.0.0.1", ready["control"])
            control, said = Control(reader, writer), asyncio.Lock()
            say = control.say

            async def one_at_a_time(**command: Any) -> dict[str, Any]:
                async with said:
                    return await say(**command)

            control.say = one_at_a_time  # type: ignore[method-assign]
            found = await asyncio.gather(
                *(
                    through_quirk(control, listening["devices"][0]["name"], url_of(listening), how)
                    for listening, how in zip(ready["listeners"], QUIRKS, strict=True)
                )
            )
            writer.close()
            return found

    found = asyncio.run(run())
    assert [wrong for wrong, _ in found if wrong] == []
    assert [missing for _, missing in found if missing] == []
