"""Recordings of real PDUs and meters, served over real UDP, give their expected values.

The recordings are not part of this project: they are looked for at
`../shared/recordings` beside the checkout, or where WATTBROKER_RECORDINGS says. Our own
captures of the same families are in test_captures.py.

A recording is compared by place, not by name: its expectations say which object holds
which value, so some point must read exactly that object, with that value, and its name
must say the same quantity of the same phase, bank or outlet. The served values do not
move, so a reading is right only if it is raw × scale to the last digit.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from served_snmp import Agent, read_snmprec, serving

from drivers.device import open_device
from drivers.errors import ProfileError
from drivers.profile import Profile, load_profile, profile_names
from drivers.reading import Identity, Missing, Place, Reading

RECORDINGS = (
    Path(os.environ.get("WATTBROKER_RECORDINGS") or Path(__file__).parents[3] / "shared/recordings")
    / "snmp"
)

pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason=f"NO RECORDINGS at {RECORDINGS}: set WATTBROKER_RECORDINGS"
)

PROBE_S_MAX = 3.0  # recognise, identify and read

PROFILES = {
    "apc-epdu_epdu1116s": "apc-easy-pdu",
    "apc_ap7900b": "apc-rpdu",
    "apc_ap8641_outletmetered": "apc-rpdu2",
    "apc_ap8853": "apc-rpdu2",
    "apc_ap8959eu3": "apc-rpdu2",
    "apc_masterswitch2": "apc-masterswitch",
    "aten_pe-16-outlet": "aten-pe",
    "chatsworth_econnect-chain": "chatsworth-econnect",
    "cyberpower_pdu81005": "cyberpower-epdu",
    "dataprobe_iboot-pdu8": "dataprobe-iboot",
    "dell-rpdu": "dell-rpdu",
    "digipower_swv-1623k-24n1": "digipower-swh",
    "eaton_epdu-ma-g3": "eaton-epdu",
    "enlogic_pdu-v2": "enlogic-pdu",
    "fs_net-pdu": "fs-pdu",
    "gude_epc-1104_no-meter": "gude-epc",
    "gude_epc-1202": "gude-epc",
    "hpe_mapdu-pdu2": "hpe-mapdu",
    "hpe_pdu-management-module": "hpe-pdu-module",
    "ict_180s-12brcp_dc": "ict-dc",
    "janitza_umg-generic": "janitza-umg",
    "panduit_p42d04m": "panduit-pdu",
    "planet_ipm-8220": "planet-ipm",
    "raritan-pdu_px2": "raritan-pdu2",
    "raritan-pdu_px3": "raritan-pdu2",
    "raritan_dominion-px": "raritan-dominion-px",
    "riedo_e3meter-ips1290": "riedo-e3meter",
    "rittal_cmc3-pdu-controller": "rittal-cmc3",
    "rnx_updu-rn3214": "rnx-updu",
    "schleifenbauer_6-outlet": "schleifenbauer",
    "sentry3_3phase": "servertech-sentry3",
    "sentry3_switched": "servertech-sentry3",
    "sentry4_master-link": "servertech-sentry4",
    "socomec_nrt-op-pdu": "socomec-nrt",
    "tripplite_pdumv30hvnetlx": "tripplite-pdu",
    "vertiv_geist-mg02e4w1": "vertiv-geist",
    "westmountain_rigrunner-4005i": "westmountain-rigrunner",
    "wti_vmr-8hd20": "wti-vmr",
}
REFUSED = ("cyberpower_ups_negative",)

# No object of these says the model, and the file has it from elsewhere.
WITHOUT_A_MODEL = {
    "apc_masterswitch2", "chatsworth_econnect-chain", "hpe_pdu-management-module",
    "planet_ipm-8220", "raritan-pdu_px2", "rittal_cmc3-pdu-controller",
}  # fmt: skip

# The last words of a point's name that say the quantity of an expectation's key.
QUANTITIES = {
    "active_power_w": {"realpower"},
    "apparent_power_va": {"power"},
    "reactive_power_var": {"reactivepower"},
    "power_factor": {"powerfactor"},
    "energy_wh": {"energy"},
    "energy_vah": {"apparentenergy"},
    "current_a": {"current"},
    "total_current_a": {"current"},
    "voltage_v": {"voltage"},
    "frequency_hz": {"frequency"},
    "state": {"status"},
    "control": {"status"},  # one object that is both
    "near_overload_a": {"current.high.warning"},
    "overload_a": {"current.high.critical"},
    "high_load_threshold_a": {"current.high.warning", "current.high.critical"},  # only one there
    "near_overload_power_w": {"realpower.high.warning"},
    "overload_power_w": {"realpower.high.critical"},
    "max_current_per_phase_a": {"current.rating"},
    "breaker_a": {"current.rating"},
    "capacity_a": {"current.rating"},
    "rated_current_a": {"current.rating"},
    "max_power_w": {"realpower.rating"},
    "rated_power_va": {"power.rating"},
    "nominal_voltage_v": {"voltage.rating"},
}

# What no point need read.
NOT_OURS = {
    "percent_load": "a share of something else that is read in amperes or watts",
    "fuse": "says that a fuse blew, not what flows",
    "aux": "a fourth channel that measures anything, and not this supply",
}

# Rows of a column that the expectations call unavailable by naming its first row only.
ALSO_UNAVAILABLE = {
    "apc-epdu_epdu1116s": [f"1.3.6.1.4.1.318.1.1.30.4.2.1.4.{row}" for row in (2, 3)],  # 0.0 V
}


@dataclass(frozen=True)
class Probe:
    """What one unit behind the agent told, read through one home."""

    profile: Profile
    identity: Identity
    points: dict[str, Reading | Missing]
    places: dict[str, tuple[Place, ...]]
    took_s: float


@dataclass(frozen=True)
class Wanted:
    """One measurement of an expectation file."""

    path: tuple[str, ...]  # inside the unit: ("outlets", "3", "current_a")
    oid: str
    value: float | str


@pytest.fixture(params=["pysnmp", "gufo"])
def home(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def usable(home: str) -> str:
    parts = ("gufo", "gufo.snmp")
    if home == "gufo" and not all(importlib.util.find_spec(part) for part in parts):
        pytest.skip("gufo_snmp IS NOT INSTALLED: the recordings are read through pysnmp only")
    return home


@functools.cache
def truth_of(name: str) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads(
        (RECORDINGS / f"{name}.expected.json").read_text(encoding="utf-8")
    )
    return truth


@functools.cache
def shipped() -> list[Profile]:
    return [load_profile(name) for name in profile_names()]


@functools.cache
def served_values(name: str) -> Any:
    return read_snmprec(RECORDINGS / f"{name}.snmprec")


@functools.cache
def probe(name: str, home: str) -> dict[str, Probe]:
    """Each unit behind the agent, recognised among all shipped profiles and read."""
    units = list(truth_of(name)["units"])
    return {unit: asyncio.run(probe_unit(name, home, unit, len(units) > 1)) for unit in units}


async def probe_unit(name: str, home: str, unit: str, named: bool) -> Probe:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WATTBROKER_SNMP", home)
        async with serving(Agent(served_values(name))) as agent:
            member = f"/{unit}" if named else ""
            url = f"snmp://public@127.0.0.1:{agent.port}{member}"
            started_s = time.monotonic()
            device = open_device(url, None, clock=time.monotonic)
            try:
                profile = await device.recognise(shipped())
                identity = await device.identify()
                snapshot = await device.read()
                took_s = time.monotonic() - started_s
                points = dict(snapshot.points)
                places = {point: tuple(device.places_of(point)) for point in points}
                return Probe(profile, identity, points, places, took_s)
            finally:
                await device.close()


def wanted(unit: dict[str, Any]) -> Iterator[Wanted]:
    """Every measurement that is one object of the agent; sums say theirs under `from`."""

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[Wanted]:
        if "oid" in node and "raw" in node:
            if node.get("value") is not None:
                yield Wanted(path, node["oid"], node["value"])
            return
        for key, value in node.items():
            if isinstance(value, dict) and key not in NOT_OURS:
                yield from walk(value, (*path, key))

    yield from walk(unit, ())


def prefixes(path: tuple[str, ...], unit: dict[str, Any]) -> set[str]:
    """How the name of a point may begin that reads a measurement at `path`."""
    if len(path) == 1:
        return {"input"}
    group, key = path[0], path[1]
    number = str("ABCDEFGH".find(key) + 1) if re.fullmatch("[A-H]", key) else key
    number = "-".join(re.findall(r"\d+", number)) or number
    if group == "outlets":
        return {f"outlet.{number}"}
    if group == "banks" or key.startswith("bank"):
        return {f"bank.{number}", f"bank.{key}"}
    if group == "neutral":
        return {"input.N", "inlet.4"}  # an infeed of its own on some
    if group in ("ratings", "inlets") or key in ("device", "inlet1"):
        only = len(unit.get("inlets", {})) <= 1
        breaker = {"bank"} if path[-1] == "breaker_a" else set()
        return {f"inlet.{number}"} | ({"input"} if only else set()) | breaker
    assert group in ("phases", "lines", "thresholds"), path
    line = key.rpartition(":")[2]
    line = {"Phase A": "L1", "Phase B": "L2", "Phase C": "L3"}.get(line, line)
    single = {"input"} if len(unit.get("phases", {})) == 1 else set()
    pair = {f"input.L{number}-L{int(number) % 3 + 1}"} if number in "123" else set()
    return {f"input.{line}", f"inlet.1.{line}", f"inlet.{number}"} | single | pair


def suffixes(path: tuple[str, ...]) -> set[str]:
    return QUANTITIES[path[-1]]


# ── what is read ──────────────────────────────────────────────────────────────────


def test_every_recording_has_its_row_here() -> None:
    recorded = {path.name.removesuffix(".snmprec") for path in RECORDINGS.glob("*.snmprec")}
    assert recorded == PROFILES.keys() | set(REFUSED)


@pytest.mark.parametrize("name", PROFILES)
def test_a_recorded_device_is_recognised_among_all_profiles(name: str, home: str) -> None:
    truth = truth_of(name)
    for unit, told in probe(name, home).items():
        assert told.profile.name == PROFILES[name]
        assert told.profile.status == "recorded"
        serials = {truth.get("serial"), truth["units"][unit].get("serial")} - {None}
        placeholder = any("serial" in row["quantity"] for row in truth["unavailable"])
        if placeholder:
            assert told.identity.serial is None
        elif told.identity.serial is not None and serials:
            assert told.identity.serial in serials
        models = {truth.get("model"), truth["units"][unit].get("model")} - {None}
        if told.identity.model is not None and models:
            assert told.identity.model
            assert any(told.identity.model in model for model in models)
    units = probe(name, home).values()
    models_told = {told.identity.model for told in units} - {None}
    if name in WITHOUT_A_MODEL:
        assert not models_told
    elif truth.get("model") and any(told.profile.model_from for told in units):
        assert models_told


@pytest.mark.parametrize("name", PROFILES)
def test_every_recorded_measurement_is_read_from_its_object(name: str, home: str) -> None:
    truth = truth_of(name)
    gone = unavailable_oids(name)
    faults, compared = [], 0
    for unit, told in probe(name, home).items():
        ways: dict[str, list[Wanted]] = {}  # one object may stand in several places of the file
        for row in wanted(truth["units"][unit]):
            if row.oid not in gone:
                ways.setdefault(row.oid, []).append(row)
        readers: dict[Place, list[str]] = {}
        for point, places in told.places.items():
            for place in places:
                readers.setdefault(place, []).append(point)
        for oid, rows in ways.items():
            names = {
                f"{prefix}.{suffix}"
                for row in rows
                for prefix in prefixes(row.path, truth["units"][unit])
                for suffix in suffixes(row.path)
            }
            read = {point: told.points[point] for point in readers.get(oid, [])}
            right = [
                point
                for point, found in read.items()
                if point in names and isinstance(found, Reading) and same(found, rows[0].value)
            ]
            compared += 1
            if not right:
                faults.append(f"{'.'.join(rows[0].path)} = {rows[0].value} at {oid}: {read}")
    assert not faults, f"{len(faults)} of {compared}:\n" + "\n".join(faults)


@pytest.mark.parametrize("name", PROFILES)
def test_the_total_of_each_unit_is_right_or_missing(name: str, home: str) -> None:
    for unit, told in probe(name, home).items():
        total = truth_of(name)["units"][unit]["total_active_power_w"]["value"]
        found = told.points.get("input.realpower")
        if total is None:
            assert found is None or isinstance(found, Missing)
        else:
            assert isinstance(found, Reading)
            assert found.value == pytest.approx(total, rel=0.01, abs=0.1)


@pytest.mark.parametrize("name", PROFILES)
def test_what_is_unavailable_is_no_number(name: str, home: str) -> None:
    gone, there = unavailable_oids(name), served_values(name)
    for told in probe(name, home).values():
        for point, places in told.places.items():
            found = told.points[point]
            served = [place for place in places if place in there]  # what is not there says nothing
            if isinstance(found, Reading) and served:
                assert not set(served) <= gone, f"{point} = {found} is read from {served}"
                assert not (point.endswith("realpower") and set(served) & no_watts(name)), point


@pytest.mark.parametrize("name", PROFILES)
def test_names_of_outlets_are_told(name: str, home: str) -> None:
    for unit, told in probe(name, home).items():
        for number, outlet in truth_of(name)["units"][unit].get("outlets", {}).items():
            if outlet.get("name"):
                found = told.points.get(f"outlet.{number.replace('.', '-')}.name")
                assert isinstance(found, Reading), number
                assert found.value == outlet["name"]


@pytest.mark.parametrize("name", PROFILES)
def test_a_probe_is_quick(name: str, home: str) -> None:
    for told in probe(name, home).values():
        assert told.took_s < PROBE_S_MAX


@pytest.mark.parametrize("name", PROFILES)
def test_both_homes_give_the_same_readings(name: str) -> None:
    usable("gufo")
    one, other = probe(name, "pysnmp"), probe(name, "gufo")
    for unit, told in one.items():
        assert shown(told) == shown(other[unit])


@pytest.mark.parametrize(
    "name",
    [name for name in PROFILES if name in ("apc_masterswitch2", "gude_epc-1104_no-meter")],
)
def test_the_power_of_a_pdu_without_a_meter_is_unknown(name: str, home: str) -> None:
    assert truth_of(name)["kind"] == "pdu-no-metering"
    (told,) = probe(name, home).values()
    assert not isinstance(told.points.get("input.realpower"), Reading)


def test_a_switch_without_a_meter_says_so_in_its_profile() -> None:
    profile = load_profile("apc-masterswitch")
    assert profile.metered is False
    assert "input.realpower" not in {point.name for point in profile.points}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_pdu_is_refused(name: str, home: str) -> None:
    assert truth_of(name)["kind"] == "not-a-pdu"
    with pytest.raises(ProfileError, match="no profile fits"):
        asyncio.run(probe_unit(name, home, "1", named=False))


# ── inside ────────────────────────────────────────────────────────────────────────


def unavailable_oids(name: str) -> set[str]:
    rows = truth_of(name)["unavailable"]
    return {row["oid"] for row in rows} - no_watts(name) | set(ALSO_UNAVAILABLE.get(name, ()))


def no_watts(name: str) -> set[str]:
    """Objects of which the file says that they are not the watts they were taken for."""
    truth = truth_of(name)
    measured = {row.oid: row.path[-1] for unit in truth["units"].values() for row in wanted(unit)}
    return {
        row["oid"]
        for row in truth["unavailable"]
        if "active power" in row["quantity"]
        and measured.get(row["oid"], "active_power_w") != "active_power_w"
    }


def same(found: Reading, value: float | str) -> bool:
    if isinstance(value, str) or isinstance(found.value, str):
        return found.value == value
    return found.value == pytest.approx(value, rel=1e-6, abs=1e-9)


def shown(told: Probe) -> dict[str, object]:
    return {
        name: (found.value, found.unit) if isinstance(found, Reading) else found.absence
        for name, found in told.points.items()
    }
