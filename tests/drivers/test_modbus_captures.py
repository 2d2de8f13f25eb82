"""Our own small captures: every Modbus profile has one, and gives what stands beside it.

`testdata/<profile>.registers.toml` holds the registers of a device that was made up after
the facts of its manual, `[[block]]`s of `table`, `address` and `registers`; what is in no
block is refused. A profile with several has them as `<profile>.<what is other>`.
`….expected.toml` says what must come of it:

    [points]
    "input.realpower" = 1234.0       # a number, a text or a word
    "outlet.4.realpower" = "absent"  # missing, and why (a word of Absence in reading.py)
    [identity]                       # optional
    model = "P9-24"
    [[command]]
    name = "outlet.3.load"
    value = "off"
    writes = [["holding", 102, 0]]   # these registers and values, in this order, and no
                                     # others; empty: the device has no such thing
    shows = [["holding", 102, 0]]    # what the device says from then on
    proof = "off"                    # optional: what the proof then reads, if not the value
    models = { "704" = 40070 }       # of an untested profile: where SunSpec models begin,
    factors = { "40131" = 65534 }    # and what its scale factors are
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pymodbus.constants import ExcCodes
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.codec import encode, registers_of
from drivers.device import Device, open_device
from drivers.points import Source
from drivers.profile import Profile, load_profile, profile_names
from drivers.reading import Absence, Answer, Executed, Missing, Reading, Snapshot
from drivers.resolve import resolve_command

T = TypeVar("T")

TESTDATA = Path(__file__).parent / "testdata"
CAPTURES = sorted(p.name.removesuffix(".registers.toml") for p in TESTDATA.glob("*.reg*.toml"))
WORDS = {absence.value for absence in Absence}

Write = tuple[str, int, int]
TABLE_OF = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 6: "holding",
            15: "coil", 16: "holding"}  # fmt: skip


def expected(capture: str) -> dict[str, Any]:
    return tomllib.loads((TESTDATA / f"{capture}.expected.toml").read_text(encoding="utf-8"))


def profile_of(capture: str) -> Profile:
    return load_profile(capture.partition(".")[0])


def kind(name: str) -> str:
    """The name without its numbers: outlet.3.current is of the kind outlet.#.current."""
    return re.sub(r"\d+", "#", name)


@contextlib.asynccontextmanager
async def serving(
    capture: str, written: list[Write], shows: list[Write] | None = None
) -> AsyncIterator[str]:
    """The device of a capture on loopback; its URL. Every write is noted, and from the
    first one on the registers of `shows` read so."""
    told = tomllib.loads((TESTDATA / f"{capture}.registers.toml").read_text(encoding="utf-8"))
    unit = told.get("unit", 1)
    tables: dict[str, dict[int, int]] = {}
    for block in told["block"]:
        place = tables.setdefault(block["table"], {})
        place |= dict(enumerate(block["registers"], block["address"]))

    async def act(
        function: int, start: int, address: int, count: int, registers: list[int], values: Any
    ) -> ExcCodes | None:
        table = tables.get(TABLE_OF[function], {})
        there = all(n in table for n in range(address, address + count))
        for told_in, place, value in shows or [] if written else []:
            asked = function in (3, 4) and address <= place < address + count
            if asked and TABLE_OF[function] == told_in:
                registers[place - start] = value
        return None if there else ExcCodes.ILLEGAL_ADDRESS

    def hear(sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        if not sending and pdu.function_code in (5, 6, 15, 16):
            values = pdu.bits if pdu.function_code in (5, 15) else pdu.registers
            table = TABLE_OF[pdu.function_code]
            written.extend((table, pdu.address + n, int(v)) for n, v in enumerate(values))
        return pdu

    def bits(table: str) -> list[SimData]:
        values = [bool(tables.get(table, {}).get(n)) for n in range(256)]
        return [SimData(0, values=values, datatype=DataType.BITS)]

    def registers(table: str) -> list[SimData]:
        blocks = [block for block in told["block"] if block["table"] == table]
        return [
            SimData(block["address"], values=block["registers"], datatype=DataType.REGISTERS)
            for block in blocks or [{"address": 65535, "registers": [0]}]
        ]

    simdata = (bits("coil"), bits("discrete"), registers("holding"), registers("input"))
    server = ModbusTcpServer(
        [SimDevice(unit, simdata=simdata, action=act)], address=("127.0.0.1", 0), trace_pdu=hear
    )
    await server.serve_forever(background=True)
    try:
        yield f"modbus://127.0.0.1:{server.transport.sockets[0].getsockname()[1]}/{unit}"
    finally:
        await server.shutdown()


def with_device(
    capture: str,
    use: Callable[[Device], Awaitable[T]],
    written: list[Write] | None = None,
    shows: list[Write] | None = None,
) -> T:
    async def run() -> T:
        async with serving(capture, [] if written is None else written, shows) as url:
            device = open_device(url, profile_of(capture), clock=time.monotonic)
            try:
                return await use(device)
            finally:
                await device.close()

    return asyncio.run(run())


def test_every_modbus_profile_has_a_capture() -> None:
    profiles = (load_profile(name) for name in profile_names())
    modbus = {profile.name for profile in profiles if profile.protocol == "modbus"}
    assert {capture.partition(".")[0] for capture in CAPTURES} == modbus


@pytest.mark.parametrize("capture", CAPTURES)
def test_a_capture_gives_its_expected_points(capture: str) -> None:
    async def read(device: Device) -> Snapshot:
        return await device.read()

    points = expected(capture)["points"]
    found = with_device(capture, read).points
    shown = {
        name: told.absence.value if isinstance(told := found[name], Missing) else told.value
        for name in points
    }
    estimates = {p.name for p in found.values() if isinstance(p, Reading) and p.estimate}
    assert estimates == set(expected(capture).get("estimate", []))
    numbers = {name: value for name, value in points.items() if not isinstance(value, str)}
    assert {name: shown[name] for name in numbers} == pytest.approx(numbers, rel=1e-6, abs=1e-9)
    words = {name: value for name, value in points.items() if isinstance(value, str)}
    assert {name: shown[name] for name in words} == words


@pytest.mark.parametrize("profile", sorted({c.partition(".")[0] for c in CAPTURES}))
def test_every_kind_of_point_is_seen_in_a_capture(profile: str) -> None:
    told = {
        kind(name)
        for capture in CAPTURES
        if capture.partition(".")[0] == profile
        for name, value in expected(capture)["points"].items()
        if value not in WORDS
    }
    assert {kind(point.name) for point in load_profile(profile).points} - told == set()


@pytest.mark.parametrize("capture", [c for c in CAPTURES if "identity" in expected(c)])
def test_a_captured_device_says_who_it_is(capture: str) -> None:
    async def identify(device: Device) -> Any:
        return await device.identify()

    identity, told = with_device(capture, identify), expected(capture)["identity"]
    assert {key: getattr(identity, key) for key in told} == told
    assert told.get("model")


@pytest.mark.parametrize("profile", sorted({c.partition(".")[0] for c in CAPTURES}))
def test_every_profile_that_asks_for_a_model_is_told_one(profile: str) -> None:
    captures = [c for c in CAPTURES if c.partition(".")[0] == profile]
    identities = [expected(c).get("identity", {}) for c in captures]
    assert any("model" in told for told in identities) or not load_profile(profile).model_from


@pytest.mark.parametrize("profile", sorted({c.partition(".")[0] for c in CAPTURES}))
def test_every_word_of_every_kind_of_command_is_given_to_a_capture(profile: str) -> None:
    given = {
        (kind(command["name"]), command["value"] if isinstance(command["value"], str) else None)
        for capture in CAPTURES
        if capture.partition(".")[0] == profile
        for command in expected(capture).get("command", [])
    }
    assert given == {
        (kind(command.name), word)
        for command in load_profile(profile).commands
        for word in command.words or (None,)
    }


@pytest.mark.parametrize("capture", CAPTURES)
def test_a_command_writes_exactly_what_is_named_and_reads_its_proof(capture: str) -> None:
    profile = profile_of(capture)
    for command in expected(capture).get("command", []):
        written: list[Write] = []

        async def execute(device: Device, command: dict[str, Any] = command) -> Executed:
            return await device.execute(command["name"], command["value"])

        done = with_device(capture, execute, written, command.get("shows"))
        if profile.status == "untested":
            assert done.absence is Absence.REFUSED
            assert written == []
            continue
        assert written == [tuple(write) for write in command["writes"]]
        if not written:
            assert done.absence is Absence.ABSENT
            continue
        assert done.absence is None, done.detail
        assert isinstance(done.read_back, Reading), (command, done.read_back)
        assert done.read_back.name == profile.command(command["name"]).confirm_point
        proof = command.get("proof", command["value"])
        assert done.read_back.value == (
            proof if isinstance(proof, str) else pytest.approx(proof, rel=1e-9)
        )


@pytest.mark.parametrize("capture", [c for c in CAPTURES if profile_of(c).status == "untested"])
def test_what_an_untested_profile_would_write_is_right_all_the_same(capture: str) -> None:
    profile = profile_of(capture)
    for told in expected(capture).get("command", []):
        models = {int(model): at for model, at in told.get("models", {}).items()}
        command = resolve_command(profile.command(told["name"]), None, {}, models)
        factors = {
            ("holding", int(address)): Answer(raw, 0.0, 0.0)
            for address, raw in told.get("factors", {}).items()
        }
        main = encode(command, told["value"], factors)
        assert isinstance(main, tuple), main
        writes = [
            *((write.target, write.raw) for write in command.before),
            main,
            *((write.target, write.raw) for write in command.after),
        ]
        shown = [register for target, raw in writes for register in on_the_wire(target, raw)]
        assert shown == [tuple(write) for write in told["writes"]]


def on_the_wire(target: Source, raw: int | float) -> list[Write]:
    values = [int(raw)] if target.type == "bit" else registers_of(target, raw)
    return [(target.table, target.address + n, value) for n, value in enumerate(values)]


def test_the_registers_of_a_mean_device_are_asked_one_parameter_at_a_time() -> None:
    limits = {name: load_profile(name).limits for name in ("schneider-pm1200", "openrack-v2-psu",
              "carlogavazzi-em24", "eastron-sdm630")}  # fmt: skip
    assert {name: limit.registers_per_read_max for name, limit in limits.items()} == {
        "schneider-pm1200": 2, "openrack-v2-psu": 16, "carlogavazzi-em24": 11,
        "eastron-sdm630": 80,
    }  # fmt: skip
