"""Images of real Modbus devices, served by another people's server, give their true values.

The images are not part of this project: they are looked for at `../shared/recordings`
beside the checkout, or where WATTBROKER_RECORDINGS says, and so is the server (Node.js),
which shares no code with any Modbus library. Our own captures of the same families, and
of those without an image, are in test_modbus_captures.py.

A device is compared by place, not by name alone: its expectations say which register
holds which value, so the point of that quantity and channel must read exactly that
register, and show the value to the last digit that the register can hold.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from drivers.device import Device, open_device
from drivers.errors import DeviceError, ProfileError
from drivers.profile import SHIPPED, Profile, check_profile, load_profile, profile_names
from drivers.reading import Absence, Executed, Missing, Reading, Snapshot

T = TypeVar("T")

RECORDINGS = (
    Path(os.environ.get("WATTBROKER_RECORDINGS") or Path(__file__).parents[3] / "shared/recordings")
    / "modbus"
)
SERVER = RECORDINGS.parents[1] / "tools" / "modbus_images" / "server.js"

pytestmark = pytest.mark.skipif(
    not (RECORDINGS.is_dir() and SERVER.is_file() and shutil.which("node")),
    reason=f"NO IMAGES at {RECORDINGS}, NO SERVER at {SERVER}, or no node"
    " (set WATTBROKER_RECORDINGS)",
)

READ_S_MAX = 3.0  # open and read

PROFILES = {
    "abb_b23_112": "abb-b23",
    "carlogavazzi_em340": "carlogavazzi-em340",
    "eastron_sdm120": "eastron-sdm120",
    "eastron_sdm630": "eastron-sdm630",
    "finder_7m38": "finder-7m38",
    "janitza_umg96rme": "janitza-umg96rm",
    "lovato_dmg610": "lovato-dmg610",
    "netio_powerpdu_4c": "netio-powerpdu",
    "openrack_v3_psu": "openrack-v3-psu",
    "raritan_px3_inlet1": "xerus-modbus",
    "schneider_pm5560": "schneider-pm5000",
    "shelly_pro_3em": "shelly-pro-3em",
    "siemens_pac2200": "siemens-pac2200",
    "sunspec_inverter_103_123": "sunspec-inverter",
    "sunspec_meter_203": "sunspec-meter",
    "wago_879_3000": "wago-879-30xx",
}
ON_A_LINE = ("abb_b23_112", "carlogavazzi_em340", "eastron_sdm120", "eastron_sdm630",
             "finder_7m38", "lovato_dmg610", "openrack_v3_psu", "siemens_pac2200",
             "wago_879_3000")  # fmt: skip
CASES = [(image, "tcp") for image in PROFILES] + [(image, "rtu-tcp") for image in ON_A_LINE]

TABLE_OF = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
QUANTITIES = {"active_power": "realpower", "apparent_power": "power", "reactive_power":
              "reactivepower", "power_factor": "powerfactor", "voltage": "voltage", "current":
              "current", "frequency": "frequency", "dc_power": "realpower", "dc_voltage":
              "voltage", "dc_current": "current", "temperature": "temperature",
              "fan_speed": "rpm", "outlet_state": "status"}  # fmt: skip
# A second copy of a counter, coarser: its value is compared, but nobody reads its place.
COPIES = {"total_f32"}


class Served:
    """The server with every image on a listener of its own, and its control port."""

    def __init__(self) -> None:
        arguments = [f"--listen={kind}:0={image}" for image, kind in CASES]
        split = [part for argument in arguments for part in argument.split("=", 1)]
        self._process = subprocess.Popen(
            ["node", str(SERVER), "--images", str(RECORDINGS), *split, "--control", "0"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        self._listeners = dict(zip(CASES, ready["listeners"], strict=True))
        self._control = socket.create_connection(("127.0.0.1", ready["control"]), timeout=10)
        self._answers = self._control.makefile("r", encoding="utf-8")

    def reset(self, image: str, kind: str = "tcp") -> str:
        """The device as its image says; its URL."""
        self.say(image, kind, "reset")
        listener = self._listeners[image, kind]
        scheme = {"tcp": "modbus", "rtu-tcp": "modbus+rtutcp"}[kind]
        return f"{scheme}://127.0.0.1:{listener['port']}/{listener['devices'][0]['unit']}"

    def say(self, image: str, kind: str, command: str, **more: Any) -> Any:
        name = self._listeners[image, kind]["devices"][0]["name"]
        line = json.dumps({"cmd": command, "device": name, **more})
        self._control.sendall(line.encode() + b"\n")
        answer = json.loads(self._answers.readline())
        assert "error" not in answer, answer
        return answer

    def close(self) -> None:
        self._control.close()
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = Served()
    yield server
    server.close()


@functools.cache
def shipped() -> list[Profile]:
    return [load_profile(name) for name in profile_names()]


def truth_of(image: str) -> dict[str, Any]:
    return json.loads((RECORDINGS / f"{image}.expected.json").read_text(encoding="utf-8"))


def point_of(image: str, quantity: str, channel: str) -> str:
    """How a quantity of a channel is called."""
    side = "output" if quantity.startswith("dc_") or "inverter" in image else "input"
    if quantity == "energy_import":
        side, word = "input", "energy"
    elif quantity == "energy_export":
        side, word = "output", "energy"
    elif quantity == "rated_power":
        word = "realpower.rating"
    elif quantity == "power_limit":
        return "limit.percent.setting"
    else:
        word = QUANTITIES[quantity]
    if quantity == "temperature":
        return f"air.{channel}.{word}"
    if channel in ("total", "avg", *COPIES):
        return f"{side}.{word}"
    numbered = re.fullmatch(r"(outlet|breaker|fan)(\d+)", channel)
    if numbered is None:
        return f"{side}.{channel}.{word}"
    row = {"breaker": "bank"}.get(numbered[1], numbered[1])
    if quantity == "energy_import":
        word = "energy"
    return f"{row}.{numbered[2]}.{word}"


def with_device(url: str, profile: Profile | None, use: Callable[[Device], Awaitable[T]]) -> T:
    async def run() -> T:
        device = open_device(url, profile, clock=time.monotonic)
        try:
            return await use(device)
        finally:
            await device.close()

    return asyncio.run(run())


def assert_told(
    image: str, rows: list[dict[str, Any]], found: Snapshot, tolerances: dict[Any, float]
) -> None:
    """Every row of an expectation is in the snapshot, within half a digit of its register."""
    for row in rows:
        if "quantity" not in row:
            continue
        what = (row["quantity"], row["channel"])
        told = found.points[point_of(image, *what)]
        assert isinstance(told, Reading), (what, told)
        if row["quantity"] == "outlet_state":
            assert told.value == {0: "off", 1: "on"}[row["value"]], what
            continue
        assert in_si(told) == pytest.approx(
            row["value"], abs=(row.get("tolerance") or tolerances[what]) * 1.001, rel=1e-9
        ), what


def in_si(told: Reading) -> float:
    """The truth is in joule, a point in watt-hours."""
    assert isinstance(told.value, float)
    return told.value * 3600 if told.unit == "Wh" else told.value


def tolerances_of(truth: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(m["quantity"], m["channel"]): m["tolerance"] for m in truth["measurements"]}


# ── tests ─────────────────────────────────────────────────────────────────────────


def test_every_image_has_its_profile() -> None:
    images = {path.name.removesuffix(".expected.json") for path in RECORDINGS.glob("*.exp*.json")}
    assert images == set(PROFILES)
    lines = {
        image
        for image in images
        if "rtu" in json.loads((RECORDINGS / f"{image}.json").read_text())["transports"]
    }
    assert lines == set(ON_A_LINE)


@pytest.mark.parametrize(("image", "kind"), CASES)
def test_a_served_device_shows_its_true_values_in_every_state(
    served: Served, image: str, kind: str
) -> None:
    truth = truth_of(image)
    states = {"normal": truth["measurements"], **truth.get("steps", {})}

    async def use(device: Device) -> None:
        for state, rows in states.items():
            assert len(rows) >= 9
            served.say(image, kind, "step", step=state)
            begun_s = time.monotonic()
            found = await device.read()
            assert time.monotonic() - begun_s < READ_S_MAX
            assert_told(image, rows, found, tolerances_of(truth))
            for row in truth.get("not_available", []):
                told = found.points[point_of(image, row["quantity"], row["channel"])]
                assert isinstance(told, Missing)
                assert told.absence is Absence.ABSENT
        for row in truth["measurements"] + truth.get("not_available", []):
            if row["channel"] not in COPIES:
                place = (TABLE_OF[row["read"]["function"]], row["read"]["address"])
                name = point_of(image, row["quantity"], row["channel"])
                assert place in device.places_of(name), (name, device.places_of(name))

    with_device(served.reset(image, kind), load_profile(PROFILES[image]), use)


SAYS_WHAT_IT_IS = {"raritan_px3_inlet1", "sunspec_inverter_103_123", "sunspec_meter_203"}


@pytest.mark.parametrize("image", PROFILES)
def test_only_a_device_that_says_what_it_is_is_recognised(served: Served, image: str) -> None:
    kind = "rtu-tcp" if image in ON_A_LINE else "tcp"

    async def recognise(device: Device) -> str:
        try:
            return (await device.recognise(shipped())).name
        except ProfileError as error:
            assert "does not say what it is" in str(error)
        except DeviceError:
            # It does not hear what comes sooner than 20 ms after its last answer, and
            # how long to wait stands in the profile that nobody has named.
            assert image == "eastron_sdm120"
        return ""

    found = with_device(served.reset(image, kind), None, recognise)
    assert found == (PROFILES[image] if image in SAYS_WHAT_IT_IS else "")


@pytest.mark.parametrize("image", PROFILES)
def test_a_read_asks_nothing_that_the_device_refuses(served: Served, image: str) -> None:
    """No hole is spanned, no read is too long: not one request is answered with a no."""
    profile = load_profile(PROFILES[image])
    kind = "rtu-tcp" if image in ON_A_LINE else "tcp"
    begin = served.say(image, kind, "log", last=1)["seq"]

    async def read(device: Device) -> None:
        await device.read()

    with_device(served.reset(image, kind), profile, read)
    asked = served.say(image, kind, "log", after=begin)["log"]
    assert {entry["result"] for entry in asked} == {"ok"}
    assert max(entry["count"] for entry in asked) <= profile.limits.registers_per_read_max
    assert len(asked) <= 20


def test_a_scale_factor_that_changes_is_read_with_its_value(served: Served) -> None:
    image = "sunspec_meter_203"
    url = served.reset(image)
    assert truth_of(image)["measurements"][12]["read"]["scale_factor_register"]["address"] == 40092

    async def use(device: Device) -> None:
        for raw, exponent, watts in ((22534, 0, 22534.0), (2253, 1, 22530.0), (9120, -1, 912.0)):
            for address, value in ((40088, raw), (40092, exponent & 0xFFFF)):
                served.say(image, "tcp", "set", function=3, address=address, values=[value])
            found = await device.read(["input.realpower"])
            assert found.points["input.realpower"].value == watts  # type: ignore[union-attr]

    with_device(url, load_profile("sunspec-meter"), use)


@pytest.mark.parametrize("image", ["netio_powerpdu_4c", "openrack_v3_psu", "schneider_pm5560"])
def test_a_load_that_moves_is_followed(served: Served, image: str) -> None:
    truth = truth_of(image)
    tolerances = tolerances_of(truth)
    samples = truth["timeline"]["samples"]

    async def read(device: Device) -> None:
        for index in (0, 7, 8, len(samples) // 2, len(samples) - 1):
            served.say(image, "tcp", "sample", index=index)
            found = await device.read()
            for key, value in samples[index].items():
                quantity, channel = key.split(".")
                told = found.points[point_of(image, quantity, channel)]
                assert isinstance(told, Reading)
                assert in_si(told) == pytest.approx(
                    value, abs=max(0.1, tolerances[quantity, channel]), rel=1e-6
                )

    with_device(served.reset(image), load_profile(PROFILES[image]), read)


def test_the_primary_side_of_the_transformers_is_told() -> None:
    (limit,) = truth_of("schneider_pm5560")["limits"]
    point = load_profile("schneider-pm5000").point("input.current.rating")
    assert [(s.table, s.address) for s in point.sources] == [("holding", limit["read"]["address"])]  # type: ignore[union-attr]


def test_outlets_are_switched_and_their_load_goes_with_them(served: Served) -> None:
    image = "netio_powerpdu_4c"
    off, on, short = truth_of(image)["controls"]
    tolerances = tolerances_of(truth_of(image))

    async def use(device: Device) -> None:
        done = await device.execute("outlet.3.load", "off")
        assert_done(done, "off")
        assert_told(image, off["after"], await device.read(), tolerances)
        done = await device.execute("outlet.3.load", "on")
        assert_done(done, "on")
        assert_told(image, on["after"], await device.read(), tolerances)
        done = await device.execute("outlet.1.load", "cycle")
        assert_done(done, "off")
        deadline_s = time.monotonic() + short["then_after_s"] + 2
        while time.monotonic() < deadline_s:
            found = await device.read(["outlet.1.status"])
            if found.points["outlet.1.status"].value == "on":  # type: ignore[union-attr]
                break
            await asyncio.sleep(0.05)
        assert_told(image, short["then"], found, tolerances)

    with_device(served.reset(image), load_profile(PROFILES[image]), use)


def test_a_limit_in_percent_holds_until_it_lapses(served: Served) -> None:
    image = "sunspec_inverter_103_123"
    control = truth_of(image)["controls"][0]
    text = (SHIPPED / "sunspec-inverter.toml").read_text(encoding="utf-8")
    assert "offset = 7, value = 60 }" in text
    # The shipped profile lets a limit lapse after a minute, the expectation after 2 s.
    profile = check_profile(
        text.replace("offset = 7, value = 60 }", "offset = 7, value = 2 }"), "of 2 s"
    )

    async def use(device: Device) -> None:
        before = await device.read(["limit.percent", "limit.percent.base"])
        assert isinstance(before.points["limit.percent"], Missing)
        assert before.points["limit.percent.base"].value == 10_000  # type: ignore[union-attr]
        done = await device.execute("limit.percent", 40)
        assert_done(done, 40.0)
        assert_told(image, control["after"], await device.read(), {})
        deadline_s = time.monotonic() + control["then_after_s"] + 2
        while time.monotonic() < deadline_s:
            found = await device.read()
            if isinstance(found.points["limit.percent"], Missing):
                break
            await asyncio.sleep(0.05)
        assert_told(image, control["then"], found, {})
        assert found.points["limit.percent"].absence is Absence.ABSENT  # type: ignore[union-attr]

    with_device(served.reset(image), profile, use)
    log = served.say(image, "tcp", "log", after=0)["log"]
    asked = [entry for entry in log if entry.get("device") == image]
    writes = [entry["address"] for entry in asked if entry["fc"] in (6, 16)]
    # The time and the percentage first, the enable last.
    assert [w["address"] for w in control["writes"]] == writes


def assert_done(done: Executed, proof: float | str) -> None:
    assert done.absence is None, done.detail
    assert isinstance(done.read_back, Reading)
    assert done.read_back.value == proof
