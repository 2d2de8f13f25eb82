"""Recordings of real devices, served over real UDP and TCP, give their expected values.

The recordings are not part of this project: they are looked for at
`../shared/recordings` beside the checkout, or where WATTBROKER_RECORDINGS says. The
same families are tested from small captures of our own in the other modules.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from served_snmp import Agent, read_snmprec, serving

from drivers.device import Device, open_device, probe_json
from drivers.profile import load_profile, profile_names
from drivers.reading import Identity

RECORDINGS = Path(
    os.environ.get(
        "WATTBROKER_RECORDINGS", Path(__file__).parents[3] / "shared" / "recordings"
    )
)  # fmt: skip

needs_recordings = pytest.mark.skipif(
    not (RECORDINGS / "snmp").is_dir(),
    reason=f"no recordings at {RECORDINGS} (set WATTBROKER_RECORDINGS)",
)

QUANTITIES = {"active_power_w": "realpower", "apparent_power_va": "power",
              "power_factor": "powerfactor", "energy_wh": "energy", "current_a": "current",
              "voltage_v": "voltage", "frequency_hz": "frequency"}  # fmt: skip
NOT_OURS = {"outlet": {"power", "powerfactor", "frequency"}}  # quantities without a point


def expected_points(unit: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Names and values that `probe` must show for one unit of an expectation file."""
    yield "input.realpower", unit["total_active_power_w"]["value"]
    inlets = unit.get("inlets", {})
    assert len(inlets) <= 1
    for row in (unit, *inlets.values()):
        yield from _quantities("input", row)
    for phase, row in unit.get("phases", {}).items():
        yield from _quantities(f"input.{phase}", row)
    for bank, row in unit.get("banks", {}).items():
        yield from _quantities(f"bank.{bank}", row)
    for outlet, row in unit.get("outlets", {}).items():
        yield from _quantities(f"outlet.{outlet}", row)
        yield f"outlet.{outlet}.name", row["name"]
        if "state" in row:
            yield f"outlet.{outlet}.status", row["state"]["value"]


def _quantities(prefix: str, row: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for key, quantity in QUANTITIES.items():
        if key in row and quantity not in NOT_OURS.get(prefix.split(".")[0], ()):
            yield f"{prefix}.{quantity}", row[key]["value"]


async def probe(device: Device) -> tuple[Identity, dict[str, Any]]:
    profile = await device.recognise([load_profile(name) for name in profile_names()])
    identity = await device.identify()
    snapshot = await device.read()
    return identity, probe_json(device.url, profile, identity, snapshot, time.monotonic())


@needs_recordings
@pytest.mark.parametrize(
    ("name", "profile", "model"),
    [
        ("apc_ap8959eu3", "apc-rpdu2", "AP8959EU3"),
        ("apc_ap8853", "apc-rpdu2", "AP8853"),
        ("apc_ap8641_outletmetered", "apc-rpdu2", "AP8641"),
        ("raritan-pdu_px2", "raritan-pdu2", None),
        ("raritan-pdu_px3", "raritan-pdu2", "PX3-5493U-K2"),
    ],
)
def test_a_recorded_pdu_has_its_expected_values(name: str, profile: str, model: str | None) -> None:
    async def run() -> tuple[Identity, dict[str, Any]]:
        agent = Agent(read_snmprec(RECORDINGS / "snmp" / f"{name}.snmprec"), community=name)
        async with serving(agent):
            url = f"snmp://{name}@127.0.0.1:{agent.port}"
            device = open_device(url, None, clock=time.monotonic)
            try:
                return await probe(device)
            finally:
                await device.close()

    path = RECORDINGS / "snmp" / f"{name}.expected.json"
    truth = json.loads(path.read_text(encoding="utf-8"))
    identity, told = asyncio.run(run())
    assert told["device"]["profile"] == profile
    assert identity.model == model
    if truth["serial"] is not None:
        assert identity.serial == truth["serial"]
    expected = dict(expected_points(truth["units"]["1"]))
    assert len(expected) >= 10
    assert {name: told["points"][name].get("value") for name in expected} == expected
    # What the device has not, nobody made up: every other point is missing, or is one
    # that the expectations do not speak of.
    shown = {name for name, point in told["points"].items() if "value" in point}
    assert {name for name in shown - set(expected) if name.startswith("input.")} == set()


@needs_recordings
def test_the_older_apc_generation_does_not_fit_the_rpdu2_profile() -> None:
    async def run() -> str:
        agent = Agent(read_snmprec(RECORDINGS / "snmp" / "apc_ap7900b.snmprec"))
        async with serving(agent):
            device = open_device(f"snmp://127.0.0.1:{agent.port}", None, clock=time.monotonic)
            try:
                await device.recognise([load_profile(name) for name in profile_names()])
            except Exception as error:
                return str(error)
            finally:
                await device.close()
        return ""

    assert "no profile fits" in asyncio.run(run())


MODBUS_NAMES = {"active_power": "realpower", "apparent_power": "power",
                "reactive_power": "reactivepower", "power_factor": "powerfactor",
                "voltage": "voltage", "current": "current", "frequency": "frequency",
                "energy_import": "energy"}  # fmt: skip


@contextlib.asynccontextmanager
async def image_server(name: str) -> AsyncIterator[int]:
    """Another people's Modbus server with the image `name`; its port."""
    tools = RECORDINGS.parent / "tools" / "modbus_images" / "server.js"
    process = await asyncio.create_subprocess_exec(
        "node", str(tools), "--images", str(RECORDINGS / "modbus"), "--listen", f"tcp:0={name}",
        "--control", "0", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        yield ready["listeners"][0]["port"]
    finally:
        process.terminate()
        await process.wait()


@needs_recordings
@pytest.mark.skipif(
    shutil.which("node") is None
    or not (RECORDINGS.parent / "tools" / "modbus_images" / "server.js").is_file(),
    reason="no node, or no server for Modbus images beside the recordings",
)
def test_a_recorded_sdm630_has_its_expected_values() -> None:
    async def run() -> dict[str, Any]:
        async with image_server("eastron_sdm630") as port:
            profile = load_profile("eastron-sdm630")
            device = open_device(f"modbus://127.0.0.1:{port}/1", profile, clock=time.monotonic)
            identity, snapshot = await device.identify(), await device.read()
            await device.close()
            return probe_json(device.url, profile, identity, snapshot, time.monotonic())["points"]

    path = RECORDINGS / "modbus" / "eastron_sdm630.expected.json"
    truth = json.loads(path.read_text(encoding="utf-8"))
    points = asyncio.run(run())
    compared = 0
    for row in truth["measurements"]:
        if row["quantity"] not in MODBUS_NAMES:
            continue
        line = f"{row['channel']}." if row["channel"].startswith("L") else ""
        told = points[f"input.{line}{MODBUS_NAMES[row['quantity']]}"]
        in_si = 3600 if row["quantity"] == "energy_import" else 1  # the truth is in joule
        assert told["value"] * in_si == pytest.approx(row["value"], abs=row["tolerance"], rel=0)
        compared += 1
    assert compared == 26
