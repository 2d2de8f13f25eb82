"""SNMP devices over real UDP: values, absences and commands.

The faults of the line are tested where they are met, in test_snmp_agent.py.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from pysnmp.proto import rfc1902
from served_snmp import Agent, read_snmprec, serving

from drivers.device import Device, open_device, probe_json
from drivers.errors import DeviceError, ProfileError
from drivers.profile import Profile, check_profile, load_profile
from drivers.reading import Absence, Identity, Missing, Reading, Snapshot

T = TypeVar("T")
TESTDATA = Path(__file__).parent / "testdata"
POWER = "1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"
STATE = "1.3.6.1.4.1.674.10903.200.2.200.130.1.2.1.4.{}"
COMMAND = "1.3.6.1.4.1.674.10903.200.2.200.130.1.4.1.4.{}"
ON, OFF = rfc1902.Integer32(1), rfc1902.Integer32(2)

QUICK = """
schema = 1
name = "quick"
protocol = "snmp"
status = "{status}"
[product]
vendor = "V"
[source]
document = "made up for this test"
[match]
one_of = ["1.3.6.1.4.1.9"]
present = ["1.3.1"]
[limits]
timeout_ms = 150
oids_per_get_max = 2
effect_delay_ms_max = 100
[[point]]
name = "outlet.{{n}}.realpower"
unit = "W"
each = {{ n = {{ first = 1, count = 6 }} }}
oid = "1.3.{{n}}"
range = [0, 100]
[[command]]
name = "outlet.1.load"
oid = "1.3.1"
enum = {{ off = 0, on = 1 }}
confirm = {{ point = "outlet.1.realpower", within_ms = 100 }}
"""


def quick(status: str = "recorded") -> Profile:
    return check_profile(QUICK.format(status=status), "quick.toml")


def quick_agent(**faults: object) -> Agent:
    values = {f"1.3.{n}": rfc1902.Integer32(10 * n) for n in range(1, 7)}
    return Agent(values, **faults)  # type: ignore[arg-type]


def with_device(
    agent: Agent,
    profile: Profile | None,
    use: Callable[[Device], Awaitable[T]],
    url: str = "snmp://public@127.0.0.1:{port}",
) -> T:
    async def run() -> T:
        async with serving(agent):
            device = open_device(url.format(port=agent.port), profile, clock=time.monotonic)
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


def test_only_the_named_points_and_what_they_need_are_asked() -> None:
    async def use(device: Device) -> Snapshot:
        return await device.read(["outlet.2.realpower"])

    agent = quick_agent()
    assert shown(with_device(agent, quick(), use)) == {"outlet.2.realpower": 20.0}
    assert agent.heard == [("get", ["1.3.2"])]


def test_a_point_that_the_profile_lacks_is_the_callers_fault() -> None:
    async def use(device: Device) -> Snapshot:
        return await device.read(["input.torque"])

    with pytest.raises(ProfileError, match=r"profile quick has no point input\.torque"):
        with_device(quick_agent(), quick(), use)


def test_a_wrong_community_is_a_timeout_that_says_what_to_check() -> None:
    async def use(device: Device) -> Snapshot:
        return await device.read(["outlet.1.realpower"])

    url = "snmp://s3cret@127.0.0.1:{port}"
    found = with_device(quick_agent(), quick(), use, url).points["outlet.1.realpower"]
    assert isinstance(found, Missing)
    assert found.absence is Absence.TIMEOUT
    assert "no answer within 0.15 s; check address, port" in found.detail
    assert "community" in found.detail
    assert "s3cret" not in found.detail


def test_a_dead_agent_costs_one_timeout_and_not_one_per_request() -> None:
    agent = quick_agent(silent=True)
    snapshot = with_device(agent, quick(), lambda device: device.read())
    assert set(shown(snapshot).values()) == {Absence.TIMEOUT}
    assert len(agent.heard) == 1


# ── commands ──────────────────────────────────────────────────────────────────────


def pdu(**faults: object) -> Agent:
    """Outlet 1 of a Dell PDU: on(1) and off(2), as command and as state."""
    switches = {COMMAND.format(1): {1: {STATE.format(1): ON}, 2: {STATE.format(1): OFF}}}
    return Agent({STATE.format(1): ON}, switches=switches, **faults)  # type: ignore[arg-type]


def test_an_outlet_is_switched_with_one_set_and_read_back_after_it() -> None:
    agent = pdu()
    done = with_device(
        agent, load_profile("dell-rpdu"), lambda device: device.execute("outlet.1.load", "off")
    )
    assert (done.absence, done.detail) == (None, "")
    assert isinstance(done.read_back, Reading)
    assert (done.read_back.name, done.read_back.value) == ("outlet.1.status", "off")
    assert done.sent_at_s <= done.done_at_s <= done.read_back.asked_at_s
    assert [kind for kind, _ in agent.heard] == ["set", "get"]


def test_a_refused_set_is_refused_and_the_proof_is_read_all_the_same() -> None:
    agent = pdu(refuse_sets=17)  # notWritable
    done = with_device(
        agent, load_profile("dell-rpdu"), lambda device: device.execute("outlet.1.load", "off")
    )
    assert done.absence is Absence.REFUSED
    assert "notWritable" in done.detail
    assert isinstance(done.read_back, Reading)
    assert done.read_back.value == "on"


def test_a_set_without_an_answer_is_sent_once_and_may_have_worked() -> None:
    agent = Agent({"1.3.1": rfc1902.Integer32(50)}, mute_sets=True)
    agent.switches = {"1.3.1": {0: {"1.3.1": rfc1902.Integer32(0)}}}
    done = with_device(agent, quick(), lambda device: device.execute("outlet.1.load", "off"))
    assert done.absence is Absence.TIMEOUT
    assert isinstance(done.read_back, Reading)
    assert done.read_back.value == 0.0
    assert [kind for kind, _ in agent.heard] == ["set", "get"]


@pytest.mark.parametrize(
    ("status", "value", "absence"),
    [("untested", "off", Absence.REFUSED), ("recorded", "of", Absence.RANGE)],
)
def test_what_must_not_be_sent_is_not_sent(status: str, value: str, absence: Absence) -> None:
    agent = quick_agent()
    done = with_device(agent, quick(status), lambda device: device.execute("outlet.1.load", value))
    assert (done.absence, done.read_back) == (absence, None)
    assert agent.heard == []


def test_an_untested_profile_can_be_read() -> None:
    found = with_device(quick_agent(), quick("untested"), lambda device: device.read())
    assert shown(found)["outlet.6.realpower"] == 60.0


# ── what is looked up on the spot ─────────────────────────────────────────────────

CHAIN = """
schema = 1
name = "chain"
protocol = "snmp"
[product]
vendor = "V"
[source]
document = "made up for this test"
[match]
one_of = ["1.3.6.1.4.1.9"]
present_below = ["1.3.6.1.4.1.9.1"]
[members]
column = "1.3.6.1.4.1.9.1"
[limits]
timeout_ms = 150
effect_delay_ms_max = 100
[[point]]
name = "input.L{phase}.realpower"
unit = "W"
each = { phase = { first = 1, count = 3 } }
oid = "1.3.6.1.4.1.9.3.{member}.{row}"
row = { "1.3.6.1.4.1.9.2.{member}" = "{phase}" }
[[point]]
name = "input.realpower"
unit = "W"
sum = "input.L{phase}.realpower"
over = { phase = { first = 1, count = 3 } }
[[point]]
name = "input.energy"
unit = "Wh"
oid = "1.3.6.1.4.1.9.4.{member}"
type = "uint32"
counter_bits = 32
[[point]]
name = "outlet.1.status"
oid = "1.3.6.1.4.1.9.5.{member}"
enum = { off = 0, on = 1 }
[[command]]
name = "outlet.1.load"
oid = "1.3.6.1.4.1.9.6.{member}"
enum = { off = 0 }
first = [{ oid = "1.3.6.1.4.1.9.8.{member}", value = 1 }]
then = [{ oid = "1.3.6.1.4.1.9.8.{member}", value = 0 }]
confirm = { point = "outlet.1.status", within_ms = 100 }
[[command.otherwise]]
oid = "1.3.6.1.4.1.9.7.{member}"
enum = { on = 0 }
"""
COLUMN = "1.3.6.1.4.1.9"

MOVING = (
    QUICK.format(status="recorded").split("[[point]]")[0]
    + """
[[point]]
name = "outlet.1.realpower"
unit = "W"
oid = "1.3.9"
[[command]]
name = "outlet.1.load"
oid = "1.3.3.{row}"
row = { "1.3.2" = 1 }
enum = { off = 0, on = 1 }
confirm = "none"
why = "made up"
"""
)


def chain_agent(**faults: object) -> Agent:
    """PDU 4 with phases 1 and 2 in rows 7 and 8, PDU 5 with phase 1 in row 1."""
    told = {"1.4": 0, "1.5": 0, "2.4.7": 1, "2.4.8": 2, "2.5.1": 1, "3.4.7": 100, "3.4.8": 20,
            "3.5.1": 3000, "4.4": 4_294_967_290, "5.4": 1, "5.5": 1}  # fmt: skip
    values = {f"{COLUMN}.{oid}": rfc1902.Integer32(raw) for oid, raw in told.items() if raw < 2**31}
    values[f"{COLUMN}.4.4"] = rfc1902.Counter32(4_294_967_290)
    values["1.3.6.1.2.1.1.2.0"] = rfc1902.ObjectIdentifier("1.3.6.1.4.1.9")
    return Agent(values, **faults)  # type: ignore[arg-type]


def chain() -> Profile:
    return check_profile(CHAIN, "chain.toml")


def test_every_member_of_a_chain_is_a_device_of_its_own() -> None:
    async def use(device: Device) -> tuple[list[str], Snapshot]:
        return await device.members(), await device.read(["input.realpower"])

    members, lowest = with_device(chain_agent(), chain(), use)
    assert members == ["4", "5"]
    assert shown(lowest) == {"input.realpower": 120.0}
    url = "snmp://public@127.0.0.1:{port}/5"
    assert shown(with_device(chain_agent(), chain(), use, url)[1]) == {"input.realpower": 3000.0}


def test_a_member_that_the_agent_has_not_is_absent_and_not_another() -> None:
    url = "snmp://public@127.0.0.1:{port}/6"
    found = with_device(chain_agent(), chain(), lambda device: device.read(), url)
    assert set(shown(found).values()) == {Absence.ABSENT}


def test_a_member_must_be_one_that_the_profile_can_have() -> None:
    with pytest.raises(ProfileError, match="'left' is not the number of a PDU"):
        open_device("snmp://192.0.2.1/left", chain(), clock=time.monotonic)
    with pytest.raises(ProfileError, match="knows of one PDU only: leave /2 out"):
        open_device("snmp://192.0.2.1/2", quick(), clock=time.monotonic)


def test_a_row_that_has_moved_is_not_believed_and_looked_up_anew() -> None:
    agent = chain_agent()

    async def use(device: Device) -> list[object]:
        names = ["input.L1.realpower"]
        told = [shown(await device.read(names))]
        # The table was numbered anew: row 7 is phase 2 now, and 9 is phase 1.
        agent.values[f"{COLUMN}.2.4.7"] = rfc1902.Integer32(2)
        agent.values[f"{COLUMN}.2.4.9"] = rfc1902.Integer32(1)
        agent.values[f"{COLUMN}.3.4.9"] = rfc1902.Integer32(777)
        del agent.values[f"{COLUMN}.2.4.8"]
        told += [shown(await device.read(names)) for _ in range(2)]
        return [told_one["input.L1.realpower"] for told_one in told]

    assert with_device(agent, chain(), use) == [100.0, 777.0, 777.0]


def test_a_sum_does_not_go_on_without_a_row_that_was_there() -> None:
    agent = chain_agent()

    async def use(device: Device) -> list[object]:
        told = [await device.read(["input.realpower"])]
        del agent.values[f"{COLUMN}.2.4.8"]
        told += [await device.read(["input.realpower"]) for _ in range(2)]
        return [shown(snapshot)["input.realpower"] for snapshot in told]

    assert with_device(agent, chain(), use) == [120.0, Absence.INCOMPLETE, Absence.INCOMPLETE]


def test_a_member_that_goes_is_not_replaced_by_another() -> None:
    agent = chain_agent()

    async def use(device: Device) -> list[object]:
        told = [await device.read(["input.realpower"])]  # of PDU 4: the URL names none
        of_pdu_4 = [f"{COLUMN}.{column}.4" for column in range(1, 6)]
        for oid in [
            oid for oid in agent.values if f"{oid}.".startswith(tuple(f"{p}." for p in of_pdu_4))
        ]:
            del agent.values[oid]
        told += [await device.read(["input.realpower"]) for _ in range(3)]
        return [shown(snapshot)["input.realpower"] for snapshot in told]

    told = with_device(agent, chain(), use)
    assert told[0] == 120.0
    assert all(isinstance(absence, Absence) for absence in told[1:])


def test_a_command_to_a_row_that_has_moved_is_looked_up_anew_before_it_is_sent() -> None:
    profile = check_profile(MOVING, "moving.toml")
    agent = Agent({"1.3.2.7": rfc1902.Integer32(1), "1.3.2.8": rfc1902.Integer32(2)})

    async def use(device: Device) -> list[Absence | None]:
        done = [await device.execute("outlet.1.load", "off")]
        agent.values |= {"1.3.2.7": rfc1902.Integer32(2), "1.3.2.8": rfc1902.Integer32(1)}
        done.append(await device.execute("outlet.1.load", "off"))
        agent.values["1.3.2.8"] = rfc1902.Integer32(3)
        done.append(await device.execute("outlet.1.load", "off"))
        return [each.absence for each in done]

    absences = with_device(agent, profile, use)
    assert absences == [None, None, Absence.ABSENT]
    assert [oids for kind, oids in agent.heard if kind == "set"] == [["1.3.3.7"], ["1.3.3.8"]]


def test_a_sum_waits_for_rows_that_may_still_come() -> None:
    agent = chain_agent()
    row = agent.values.pop(f"{COLUMN}.2.4.8")  # the agent has not filled its table yet
    now_s = 100.0

    async def run() -> list[object]:
        nonlocal now_s
        async with serving(agent):
            url = f"snmp://public@127.0.0.1:{agent.port}"
            device = open_device(url, chain(), clock=lambda: now_s, settle_s=15.0)
            told = []
            for at_s in (100.0, 106.0, 107.0):
                now_s = at_s
                told.append(shown(await device.read(["input.realpower"]))["input.realpower"])
                if at_s == 106.0:
                    agent.values[f"{COLUMN}.2.4.8"] = row
            now_s = 140.0
            told.append(shown(await device.read(["input.realpower"]))["input.realpower"])
            await device.close()
            return told

    assert asyncio.run(run()) == [Absence.INCOMPLETE] * 3 + [120.0]


OTHERWISE = """
schema = 1
name = "otherwise"
protocol = "snmp"
[product]
vendor = "V"
[source]
document = "made up for this test"
[match]
one_of = ["1.3.6.1.4.1.9"]
present = ["1.3.1.1"]
[limits]
timeout_ms = 150
repetitions_max = 8
oids_per_get_max = 2
[[point]]
name = "input.L{n}.realpower"
unit = "W"
each = { n = { first = 1, count = 6 } }
oid = "1.3.1.{n}"
[[point]]
name = "input.realpower"
unit = "W"
oid = "1.3.2.1"
[[point.otherwise]]
sum = "input.L{n}.realpower"
over = { n = { first = 1, count = 6 } }
[[point]]
name = "input.energy"
unit = "Wh"
oid = "1.3.3.1"
type = "uint32"
counter_bits = 32
[[point.otherwise]]
oid = "1.3.3.2"
"""


def test_a_total_that_goes_is_not_replaced_by_what_is_left_of_its_parts() -> None:
    agent = Agent({"1.3.1.1": rfc1902.Integer32(200), "1.3.2.1": rfc1902.Integer32(600)})

    async def use(device: Device) -> list[object]:
        told = [await device.read(["input.realpower"])]
        del agent.values["1.3.2.1"]
        told.append(await device.read(["input.realpower"]))
        return [shown(snapshot)["input.realpower"] for snapshot in told]

    profile = check_profile(OTHERWISE, "otherwise.toml")
    assert with_device(agent, profile, use) == [600.0, Absence.INCOMPLETE]
    # What was never there is calculated from the beginning.
    assert (
        with_device(agent, profile, lambda device: device.read(["input.realpower"]))
        .points["input.realpower"]
        .value
        == 200.0
    )  # type: ignore[union-attr]


def test_a_sum_waits_for_parts_that_are_calculated_themselves() -> None:
    text = (
        OTHERWISE
        + """
[[point]]
name = "inlet.1.power"
unit = "VA"
oid = "1.3.9.1"
[[point.otherwise]]
product = ["input.L1.realpower", "input.L2.realpower"]
[[point]]
name = "input.power"
unit = "VA"
sum = ["inlet.1.power"]
"""
    )
    agent = Agent({"1.3.1.1": rfc1902.Integer32(20), "1.3.1.2": rfc1902.Integer32(3)})
    profile = check_profile(text, "otherwise.toml")
    found = with_device(agent, profile, lambda device: device.read(["input.power"]))
    assert shown(found) == {"input.power": 60.0}


def test_rounds_of_a_counter_do_not_go_to_another_place() -> None:
    agent = Agent({"1.3.3.1": rfc1902.Counter32(2**32 - 5), "1.3.3.2": rfc1902.Integer32(77)})

    async def use(device: Device) -> list[object]:
        told = []
        for raw in (2**32 - 5, 3, None):
            if raw is None:
                del agent.values["1.3.3.1"]
            else:
                agent.values["1.3.3.1"] = rfc1902.Counter32(raw)
            told.append(shown(await device.read(["input.energy"]))["input.energy"])
        return told

    profile = check_profile(OTHERWISE, "otherwise.toml")
    assert with_device(agent, profile, use) == [2.0**32 - 5, 2.0**32 + 3, Absence.INCOMPLETE]


@pytest.mark.parametrize("home", ["pysnmp", "gufo"])
def test_rows_that_a_walk_leaves_out_are_asked_by_name(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home == "gufo":
        pytest.importorskip("gufo.snmp", reason="gufo_snmp is not installed")
    monkeypatch.setenv("WATTBROKER_SNMP", home)
    values = {f"1.3.1.{n}": rfc1902.Integer32(10 * n) for n in range(1, 7)}
    agent = Agent(values, walk_skips={"1.3.1.4"})
    profile = check_profile(OTHERWISE, "otherwise.toml")
    found = with_device(agent, profile, lambda device: device.read(["input.realpower"]))
    assert shown(found) == {"input.realpower": 210.0}


def test_a_read_is_over_when_its_time_is_however_many_requests_it_would_take() -> None:
    text = OTHERWISE.replace("timeout_ms = 150", "timeout_ms = 150\nread_ms_max = 300")
    agent = Agent({"1.3.1.1": rfc1902.Integer32(200)}, delay_s=0.1)
    began_s = time.monotonic()
    found = with_device(agent, check_profile(text, "x.toml"), lambda device: device.read())
    assert time.monotonic() - began_s < 1.0
    assert Absence.TIMEOUT in shown(found).values()


def test_a_counter_goes_on_beyond_its_width() -> None:
    agent = chain_agent()

    async def use(device: Device) -> list[object]:
        told = [await device.read(["input.energy"])]
        agent.values[f"{COLUMN}.4.4"] = rfc1902.Counter32(10)
        told.append(await device.read(["input.energy"]))
        return [shown(snapshot)["input.energy"] for snapshot in told]

    assert with_device(agent, chain(), use) == [4_294_967_290.0, 4_294_967_306.0]


def test_an_agent_that_falls_silent_while_rows_are_looked_up_has_no_value() -> None:
    found = with_device(chain_agent(silent=True), chain(), lambda device: device.read())
    assert set(shown(found).values()) == {Absence.TIMEOUT}


def test_a_command_of_several_writes_is_sent_in_their_order() -> None:
    agent = chain_agent()
    done = with_device(agent, chain(), lambda device: device.execute("outlet.1.load", "on"))
    assert done.absence is None
    writes = [oids for kind, oids in agent.heard if kind == "set"]
    assert writes == [[f"{COLUMN}.8.4"], [f"{COLUMN}.7.4"], [f"{COLUMN}.8.4"]]


def test_a_command_ends_with_its_first_write_that_fails() -> None:
    agent = chain_agent(refuse_sets=17)
    done = with_device(agent, chain(), lambda device: device.execute("outlet.1.load", "off"))
    assert done.absence is Absence.REFUSED
    assert [oids for kind, oids in agent.heard if kind == "set"] == [[f"{COLUMN}.8.4"]]


# ── who are you ───────────────────────────────────────────────────────────────────


def test_a_sysobjectid_alone_never_decides() -> None:
    async def use(device: Device) -> Profile:
        return await device.recognise([quick()])

    agent = Agent({"1.3.6.1.2.1.1.2.0": rfc1902.ObjectIdentifier("1.3.6.1.4.1.9")})
    with pytest.raises(ProfileError, match=r"sysObjectID is 1\.3.*quick lack objects"):
        with_device(agent, None, use)


def test_recognising_an_agent_that_is_silent_is_a_device_error() -> None:
    async def use(device: Device) -> Profile:
        return await device.recognise([quick()])

    with pytest.raises(DeviceError, match="check address, port") as caught:
        with_device(quick_agent(silent=True), None, use)
    assert caught.value.absence is Absence.TIMEOUT


def test_without_a_profile_nothing_can_be_read() -> None:
    with pytest.raises(ProfileError, match="no profile: name one"):
        with_device(quick_agent(), None, lambda device: device.read())


def test_a_profile_of_the_other_protocol_is_refused_at_once() -> None:
    with pytest.raises(ProfileError, match="eastron-sdm630 is for modbus"):
        open_device("snmp://192.0.2.1", load_profile("eastron-sdm630"), clock=time.monotonic)


# ── the contract of probe ─────────────────────────────────────────────────────────


def test_the_json_of_probe() -> None:
    points = {
        "input.realpower": Reading("input.realpower", 270.0, "W", 99.84, 99.9),
        "outlet.3.status": Reading("outlet.3.status", "on", "", 99.0, 99.9),
        "outlet.3.current": Missing("outlet.3.current", Absence.ABSENT, "none"),
    }
    told = probe_json(
        "snmp://192.0.2.21",
        load_profile("apc-rpdu2"),
        Identity("APC", "AP8959EU3", None),
        Snapshot(99.0, 100.0, points),
        100.0,
    )
    assert json.loads(json.dumps(told)) == {
        "device": {
            "profile": "apc-rpdu2", "vendor": "APC", "model": "AP8959EU3", "serial": None,
            "url": "snmp://192.0.2.21",
        },
        "points": {
            "input.realpower": {"value": 270.0, "unit": "W", "age_s": 0.2},
            "outlet.3.status": {"value": "on", "unit": "", "age_s": 1.0},
            "outlet.3.current": {"missing": "absent"},
        },
    }  # fmt: skip


def test_the_agent_of_these_tests_answers_other_peoples_clients() -> None:
    async def run() -> str:
        agent = Agent(read_snmprec(TESTDATA / "apc-rpdu2.snmprec"))
        async with serving(agent):
            command = ["snmpget", "-v2c", "-cpublic", "-On", f"127.0.0.1:{agent.port}", POWER]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=10, check=True
            )
            return done.stdout

    try:
        assert "INTEGER: 87" in asyncio.run(run())
    except FileNotFoundError:
        pytest.skip("snmpget is not installed (Debian package snmp)")
