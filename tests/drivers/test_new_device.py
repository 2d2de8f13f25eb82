"""A device that nobody knew is added by a TOML file in a folder, and by nothing else.

The profiles are those that docs/add-a-device.md shows, so that the guide is true: they are
checked, recognised and read by the command line in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import served_modbus
import served_snmp
from served_snmp import Recorded

from drivers.profile import profile_names

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
ACME = "1.3.6.1.4.1.32473.9"  # RFC 5612: the enterprise of examples

PDU = {
    "1.3.6.1.2.1.1.2.0": Recorded("6", f"{ACME}.4"),
    f"{ACME}.1.1.0": Recorded("4", "P9-24"),
    f"{ACME}.1.2.0": Recorded("4", "ZA0042"),
    f"{ACME}.2.1.0": Recorded("2", "187"),
    f"{ACME}.2.2.0": Recorded("65", "45123"),
    f"{ACME}.2.3.0": Recorded("2", "2304"),
    f"{ACME}.3.1.2.1": Recorded("4", "server 1"),
    f"{ACME}.3.1.3.1": Recorded("2", "1"),
    f"{ACME}.3.1.4.1": Recorded("2", "4210"),
    f"{ACME}.3.1.2.2": Recorded("4", "spare"),
    f"{ACME}.3.1.3.2": Recorded("2", "2"),
    f"{ACME}.3.1.4.2": Recorded("2", "-1"),
}
METER = {
    "input": {0: 2304, 1: 2311, 2: 2298, 3: 421, 4: 398, 5: 65535, 10: 0, 11: 187, 20: 2, 21: 5},
    "holding": {100: 1500},
}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


async def wattbroker(*arguments: str) -> Done:
    """The command in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "firmware_py", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The profiles of the guide, each in its file."""
    guide = (ROOT / "docs" / "add-a-device.md").read_text(encoding="utf-8")
    for block in re.findall(r"^    schema = 1\n(?:(?:    .*)?\n)+", guide, re.M):
        text = textwrap.dedent(block)
        name = re.search(r'^name = "(.+)"$', text, re.M)
        assert name is not None
        (tmp_path / f"{name[1]}.toml").write_text(text, encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"acme-pdu9.toml", "acme-m3.toml"}
    assert not {"acme-pdu9", "acme-m3"} & set(profile_names())
    return tmp_path


def at_the_pdu(use: Callable[[str], Awaitable[T]]) -> T:
    async def run() -> T:
        async with served_snmp.serving(served_snmp.Agent(dict(PDU))) as agent:
            return await use(f"snmp://public@127.0.0.1:{agent.port}")

    return asyncio.run(run())


def at_the_meter(use: Callable[[str], Awaitable[T]]) -> T:
    async def run() -> T:
        unit = served_modbus.Unit(tables={table: dict(rows) for table, rows in METER.items()})
        async with served_modbus.serving(unit) as port:
            return await use(f"modbus://127.0.0.1:{port}/1")

    return asyncio.run(run())


def values(done: Done) -> dict[str, Any]:
    assert (done.code, done.err) == (0, "")
    points = json.loads(done.out)["points"]
    return {
        name: (told["value"], told["unit"]) if "value" in told else told["missing"]
        for name, told in points.items()
    }


def test_the_profiles_of_the_guide_have_no_fault(folder: Path) -> None:
    files = [str(folder / name) for name in ("acme-pdu9.toml", "acme-m3.toml")]
    done = asyncio.run(wattbroker("profiles", "check", *files))
    assert (done.code, done.err) == (0, "")
    assert [line.partition(": ")[0] for line in done.out.splitlines()] == files


def test_a_slip_is_told_with_row_and_remedy(folder: Path) -> None:
    path = folder / "acme-m3.toml"
    text = path.read_text(encoding="utf-8")
    assert "address = 10 " in text
    path.write_text(text.replace("address = 10 ", "address = 30011 "), encoding="utf-8")
    done = asyncio.run(wattbroker("profiles", "check", str(path)))
    assert done.code == 2
    assert 'acme-m3.toml: [[point]] number 1 "input.realpower": address = 30011' in done.err
    assert "Write address = 10" in done.err


def test_a_new_pdu_recognises_itself_and_is_read(folder: Path) -> None:
    async def use(url: str) -> Done:
        return await wattbroker("probe", url, "--profiles", str(folder), "--json")

    done = at_the_pdu(use)
    found = values(done)
    device = json.loads(done.out)["device"]
    assert (device["profile"], device["vendor"]) == ("acme-pdu9", "ACME")
    assert (device["model"], device["serial"]) == ("P9-24", "ZA0042")
    assert found["input.realpower"] == (1870.0, "W")
    assert found["input.energy"] == (4_512_300.0, "Wh")
    assert found["input.L1.voltage"] == (230.4, "V")
    assert found["outlet.1.name"] == ("server 1", "")
    assert [found[f"outlet.{n}.status"] for n in (1, 2)] == [("on", ""), ("off", "")]
    assert [found[f"outlet.{n}.current"] for n in (1, 2, 3)] == [(4.21, "A"), "absent", "absent"]


def test_without_the_folder_the_same_pdu_is_unknown() -> None:
    done = at_the_pdu(lambda url: wattbroker("probe", url))
    assert (done.code, done.out) == (2, "")
    assert "no profile fits" in done.err


def test_a_new_meter_is_read_by_the_profile_that_is_named(folder: Path) -> None:
    async def use(url: str) -> Done:
        where = ("--profiles", str(folder), "--profile", "acme-m3")
        return await wattbroker("probe", url, *where, "--json")

    done = at_the_meter(use)
    assert values(done) == {
        "input.realpower": (1870.0, "W"),
        "input.energy": (13_107_700.0, "Wh"),
        "input.L1.voltage": (230.4, "V"),
        "input.L2.voltage": (231.1, "V"),
        "input.L3.voltage": (229.8, "V"),
        "input.L1.current": (4.21, "A"),
        "input.L2.current": (3.98, "A"),
        "input.L3.current": "absent",
        "limit.realpower": (1500.0, "W"),
    }
    assert json.loads(done.out)["device"]["model"] == "M3"


def test_without_the_folder_the_name_of_the_meter_is_unknown() -> None:
    done = at_the_meter(lambda url: wattbroker("probe", url, "--profile", "acme-m3"))
    assert (done.code, done.out) == (2, "")
    assert "no profile called 'acme-m3'" in done.err
