"""SNMP devices over real UDP: values, absences, commands, and every fault of the line."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config, engine
from pysnmp.entity.rfc3413 import cmdrsp, context
from pysnmp.proto import rfc1902
from served_snmp import Agent, read_snmprec, serving

from drivers.device import Device, open_device, probe_json
from drivers.errors import DeviceError, ProfileError
from drivers.profile import Profile, check_profile, load_profile, profile_names
from drivers.reading import Absence, Identity, Missing, Reading, Snapshot

T = TypeVar("T")
TESTDATA = Path(__file__).parent / "testdata"
POWER = "1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"
STATE = "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.{}"
COMMAND = "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.{}"
OFF, ON = rfc1902.Integer32(1), rfc1902.Integer32(2)

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


def test_an_apc_pdu_is_recognised_identified_and_read_in_si_units() -> None:
    async def use(device: Device) -> tuple[str, Identity, Snapshot]:
        profile = await device.recognise([load_profile(name) for name in profile_names()])
        return profile.name, await device.identify(), await device.read()

    agent = Agent(read_snmprec(TESTDATA / "apc_three_phase.snmprec"))
    name, identity, snapshot = with_device(agent, None, use)
    assert name == "apc-rpdu2"
    assert identity == Identity("APC by Schneider Electric", "APDU9953", "TEST00000001")
    found = shown(snapshot)
    assert len(found) == len(load_profile("apc-rpdu2").points)
    expected = {
        "input.realpower": 4310.0, "input.energy": 12_345_600.0, "input.powerfactor": 0.97,
        "input.power": Absence.ABSENT,                  # -1: not supported
        "device.2.input.realpower": 870.0, "device.3.input.realpower": Absence.ABSENT,
        "input.L1.current": 6.3, "input.L2.voltage": 231.0,
        "input.L3.current": Absence.ABSENT,             # the row is the other PDU's
        "bank.1.current": 5.5, "bank.2.current": Absence.ABSENT,
        "outlet.1.name": "web 1", "outlet.2.name": "web 2", "outlet.3.name": Absence.ABSENT,
        "outlet.1.status": "on", "outlet.2.status": "off", "outlet.3.status": Absence.RANGE,
        "outlet.1.realpower": 207.0, "outlet.2.realpower": Absence.TYPE,
        "outlet.3.realpower": Absence.RANGE,            # 70 kW through an outlet
        "outlet.1.current": 0.9, "outlet.1.energy": 304_600.0,
        "outlet.48.status": Absence.ABSENT,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_a_raritan_pdu_is_read_with_its_own_digits_and_availability() -> None:
    async def use(device: Device) -> tuple[Identity, Snapshot]:
        await device.recognise([load_profile(name) for name in profile_names()])
        return await device.identify(), await device.read()

    agent = Agent(read_snmprec(TESTDATA / "raritan_px3.snmprec"))
    identity, snapshot = with_device(agent, None, use)
    assert identity == Identity("Raritan", "PX3-TEST", "TEST2")
    expected = {
        "input.realpower": 1665.0, "input.current": 7.467,
        "input.voltage": Absence.ABSENT,                # available(2): not a voltage of 0 V
        "input.power": Absence.INCOMPLETE,              # a number without its digits
        "input.energy": 4e9, "device.2.input.realpower": 812.5,
        "outlet.1.name": "1", "outlet.1.status": "on", "outlet.2.status": "off",
        "outlet.3.status": "on",                        # only its sensor says so
        "outlet.4.status": Absence.ABSENT,
    }  # fmt: skip
    assert {name: shown(snapshot)[name] for name in expected} == expected


def test_only_the_named_points_are_asked() -> None:
    async def use(device: Device) -> Snapshot:
        return await device.read(["input.realpower"])

    agent = Agent({POWER: rfc1902.Integer32(27)})
    assert shown(with_device(agent, load_profile("apc-rpdu2"), use)) == {"input.realpower": 270.0}
    assert agent.heard == [("get", [POWER])]


def test_a_point_that_the_profile_lacks_is_the_callers_fault() -> None:
    async def use(device: Device) -> Snapshot:
        return await device.read(["input.torque"])

    with pytest.raises(ProfileError, match=r"profile quick has no point input\.torque"):
        with_device(quick_agent(), quick(), use)


def test_gets_are_no_longer_than_the_agent_bears() -> None:
    agent = quick_agent(oids_max=2)
    found = shown(with_device(agent, quick(), lambda device: device.read()))
    assert found == {f"outlet.{n}.realpower": 10.0 * n for n in range(1, 7)}
    assert [len(oids) for _, oids in agent.heard] == [2, 2, 2]


def test_a_get_that_is_too_big_is_halved() -> None:
    agent = quick_agent(oids_max=1)
    found = shown(with_device(agent, quick(), lambda device: device.read()))
    assert found == {f"outlet.{n}.realpower": 10.0 * n for n in range(1, 7)}


def test_an_object_that_fails_the_get_is_refused_alone() -> None:
    agent = quick_agent(bad_oids={"1.3.3": 5})  # genErr
    found = shown(with_device(agent, quick(), lambda device: device.read()))
    assert found["outlet.3.realpower"] is Absence.REFUSED
    assert found["outlet.4.realpower"] == 40.0


def test_in_v1_a_missing_object_does_not_take_the_others_along() -> None:
    agent = quick_agent()
    del agent.values["1.3.3"], agent.values["1.3.4"]
    url = "snmp1://public@127.0.0.1:{port}"
    found = shown(with_device(agent, quick(), lambda device: device.read(), url))
    assert found == {f"outlet.{n}.realpower": 10.0 * n for n in (1, 2, 5, 6)} | {
        "outlet.3.realpower": Absence.ABSENT,
        "outlet.4.realpower": Absence.ABSENT,
    }


def test_answers_to_other_questions_are_no_answers() -> None:
    found = shown(with_device(quick_agent(other_oids=True), quick(), lambda device: device.read()))
    assert set(found.values()) == {Absence.TYPE}


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


def test_one_lost_datagram_is_asked_again() -> None:
    async def use(device: Device) -> Snapshot:
        original = agent.datagram_received

        def lose_the_second(data: bytes, sender: object) -> None:
            agent.mute_next = 1 if len(agent.heard) == 1 else 0
            original(data, sender)

        agent.datagram_received = lose_the_second  # type: ignore[method-assign]
        return await device.read()

    agent = quick_agent()
    assert shown(with_device(agent, quick(), use)) == {
        f"outlet.{n}.realpower": 10.0 * n for n in range(1, 7)
    }
    assert len(agent.heard) == 4


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    async def use(device: Device) -> tuple[Snapshot, Snapshot]:
        await device.read(["outlet.2.realpower"])
        agent.delay_s = 0.25
        late = await device.read(["outlet.1.realpower"])
        agent.delay_s = 0.12  # the late one (10 W) arrives before this one (99 W)
        agent.values["1.3.1"] = rfc1902.Integer32(99)
        return late, await device.read(["outlet.1.realpower"])

    agent = quick_agent()
    late, next_one = with_device(agent, quick(), use)
    assert shown(late) == {"outlet.1.realpower": Absence.TIMEOUT}
    assert shown(next_one) == {"outlet.1.realpower": 99.0}


def test_an_agent_that_vanishes_and_comes_back_is_read_again() -> None:
    async def run() -> list[object]:
        agent = quick_agent()
        values: list[object] = []
        async with serving(agent):
            url = f"snmp://public@127.0.0.1:{agent.port}"
            device = open_device(url, quick(), clock=time.monotonic)
            values += shown(await device.read(["outlet.1.realpower"])).values()
        values += shown(await device.read(["outlet.1.realpower"])).values()
        async with serving(agent, port=agent.port):
            values += shown(await device.read(["outlet.1.realpower"])).values()
            await device.close()
        return values

    assert asyncio.run(run()) == [10.0, Absence.TIMEOUT, 10.0]


def test_an_agent_is_asked_one_thing_at_a_time() -> None:
    async def use(device: Device) -> list[Snapshot]:
        return list(await asyncio.gather(*(device.read([f"outlet.{n}.realpower"]) for n in (1, 2))))

    agent = quick_agent(delay_s=0.05)
    first, second = with_device(agent, quick(), use)
    one, two = first.points["outlet.1.realpower"], second.points["outlet.2.realpower"]
    assert isinstance(one, Reading)
    assert isinstance(two, Reading)
    assert two.asked_at_s >= one.taken_at_s


def test_two_agents_share_the_engine_and_each_can_be_closed() -> None:
    async def run() -> list[object]:
        one, two = quick_agent(), quick_agent()
        async with serving(one), serving(two):
            urls = [f"snmp://public@127.0.0.1:{agent.port}" for agent in (one, two)]
            first, second = (open_device(u, quick(), clock=time.monotonic) for u in urls)
            await first.read(["outlet.1.realpower"])
            before = shown(await second.read(["outlet.1.realpower"]))
            await first.close()
            after = shown(await second.read(["outlet.1.realpower"]))
            await second.close()
            await second.close()
            return [before, after]

    assert asyncio.run(run()) == [{"outlet.1.realpower": 10.0}] * 2


# ── commands ──────────────────────────────────────────────────────────────────────


def pdu(**faults: object) -> Agent:
    """Outlet 1 of an rPDU2: off(2) and on(1) as commands, off(1) and on(2) as states."""
    switches = {COMMAND.format(1): {1: {STATE.format(1): ON}, 2: {STATE.format(1): OFF}}}
    return Agent({STATE.format(1): ON}, switches=switches, **faults)  # type: ignore[arg-type]


def test_an_outlet_is_switched_with_one_set_and_read_back_after_it() -> None:
    agent = pdu()
    done = with_device(
        agent, load_profile("apc-rpdu2"), lambda device: device.execute("outlet.1.load", "off")
    )
    assert (done.absence, done.detail) == (None, "")
    assert isinstance(done.read_back, Reading)
    assert (done.read_back.name, done.read_back.value) == ("outlet.1.status", "off")
    assert done.sent_at_s <= done.done_at_s <= done.read_back.asked_at_s
    assert [kind for kind, _ in agent.heard] == ["set", "get"]


def test_a_refused_set_is_refused_and_the_proof_is_read_all_the_same() -> None:
    agent = pdu(refuse_sets=17)  # notWritable
    done = with_device(
        agent, load_profile("apc-rpdu2"), lambda device: device.execute("outlet.1.load", "off")
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


# ── who are you ───────────────────────────────────────────────────────────────────


def test_a_sysobjectid_alone_never_decides() -> None:
    async def use(device: Device) -> Profile:
        return await device.recognise([quick()])

    agent = Agent({"1.3.6.1.2.1.1.2.0": rfc1902.ObjectIdentifier("1.3.6.1.4.1.9")})
    with pytest.raises(ProfileError, match=r"no profile fits \(1\.3\.6\.1\.2\.1\.1\.2\.0 is 1"):
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
        agent = Agent(read_snmprec(TESTDATA / "apc_three_phase.snmprec"))
        async with serving(agent):
            command = ["snmpget", "-v2c", "-cpublic", "-On", f"127.0.0.1:{agent.port}", POWER]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=10, check=True
            )
            return done.stdout

    try:
        assert "INTEGER: 431" in asyncio.run(run())
    except FileNotFoundError:
        pytest.skip("snmpget is not installed (Debian package snmp)")


# ── SNMPv3, against pysnmp's own agent ────────────────────────────────────────────

V3_PROFILE = """
schema = 1
name = "v3"
protocol = "snmp"
[product]
vendor = "V"
[source]
document = "SNMP-FRAMEWORK-MIB"
[match]
one_of = ["1.3.6.1.4.1.9"]
present = ["1.3.1"]
[limits]
timeout_ms = 1000
[[point]]
name = "message.size"
unit = "1"
oid = "1.3.6.1.6.3.10.2.1.4.0"
"""


def test_snmpv3_reads_with_the_right_key_and_is_refused_with_a_wrong_one() -> None:
    async def run() -> list[object]:
        agent = engine.SnmpEngine()
        transport = udp.UdpAsyncioTransport().open_server_mode(("127.0.0.1", 0))
        config.add_transport(agent, udp.DOMAIN_NAME, transport)
        config.add_v3_user(agent, "ops", config.USM_AUTH_HMAC192_SHA256, "authkey-12")
        config.add_vacm_user(agent, 3, "ops", "authNoPriv", (1, 3, 6), (1, 3, 6))
        cmdrsp.GetCommandResponder(agent, context.SnmpContext(agent))
        await transport._lport  # the endpoint is being opened
        port = transport.transport.get_extra_info("sockname")[1]
        profile = check_profile(V3_PROFILE, "v3.toml")
        found: list[object] = []
        for user, key in (("ops", "authkey-12"), ("ops", "wrongkey-12"), ("eve", "authkey-12")):
            url = f"snmp3://{user}@127.0.0.1:{port}?auth=SHA256&authkey={key}"
            device = open_device(url, profile, clock=time.monotonic)
            found += shown(await device.read()).values()
            await device.close()
        agent.close_dispatcher()
        return found

    assert asyncio.run(run()) == [65507.0, Absence.REFUSED, Absence.REFUSED]


def test_privacy_without_its_library_is_refused_with_the_remedy() -> None:
    if importlib.util.find_spec("cryptography") is not None:
        pytest.skip("the library is installed")
    url = "snmp3://ops@192.0.2.1?auth=SHA&authkey=authkey-12&priv=AES&privkey=privkey-12"
    with pytest.raises(ProfileError, match="needs the Python package cryptography"):
        open_device(url, None, clock=time.monotonic)


@pytest.mark.parametrize("garbage", [b"", b"\x30", b"\x30\x82\xff\xff", b"\x00" * 50, b"hello"])
def test_garbage_instead_of_an_answer_is_a_timeout(garbage: bytes) -> None:
    class Mad(Agent):
        def datagram_received(self, data: bytes, sender: object) -> None:
            self.transport.sendto(garbage, sender)

    found = with_device(Mad({}), quick(), lambda device: device.read(["outlet.1.realpower"]))
    assert shown(found) == {"outlet.1.realpower": Absence.TIMEOUT}
