"""The task of one device, against devices that are served for real: its polls, the order
of its commands, what it leaves alone for them, and what it tells of the device in the log."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pysnmp.proto import rfc1902

from broker.effects import Event
from drivers.device import open_device
from drivers.profile import Profile, check_profile, load_profile
from drivers.reading import Absence, Missing, Reading
from firmware_py.controller import DeviceRead
from firmware_py.limiter import Command, CommandDone
from firmware_py.poller import COMMANDS_WAITING_MAX, Poller

DRIVERS = Path(__file__).parents[1] / "drivers"
sys.path.append(str(DRIVERS))

import served_modbus  # noqa: E402
import served_rtu  # noqa: E402
import served_snmp  # noqa: E402

DEADLINE_S = 10.0

PDU = """
schema = 1
name = "pdu"
protocol = "snmp"
[product]
vendor = "V"
[source]
document = "made up for this test"
[match]
one_of = ["1.3.6.1.4.1.9"]
present = ["1.3.6.1.4.1.9.8.1"]
{members}
[limits]
timeout_ms = 1000
read_ms_max = 5000
oids_per_get_max = 1
repetitions_max = 0
effect_delay_ms_max = 100
[[point]]
name = "input.realpower"
unit = "W"
oid = "1.3.6.1.4.1.9.8.1"
type = "int32"
[[point]]
name = "input.L{{n}}.voltage"
unit = "V"
each = {{ n = {{ first = 1, count = 3 }} }}
oid = "1.3.6.1.4.1.9.5.{{n}}"
type = "int32"
[[point]]
name = "outlet.{{n}}.realpower"
unit = "W"
each = {{ n = {{ first = 1, count = 8 }} }}
oid = "1.3.6.1.4.1.9.6.{{n}}"
type = "int32"
[[point]]
name = "outlet.{{n}}.status"
each = {{ n = {{ first = 1, count = 8 }} }}
oid = "1.3.6.1.4.1.9.7.{{n}}"
type = "int32"
enum = {{ off = 2, on = 1 }}
[[command]]
name = "outlet.{{n}}.load"
each = {{ n = {{ first = 1, count = 8 }} }}
oid = "1.3.6.1.4.1.9.7.{{n}}"
type = "int32"
enum = {{ off = 2, on = 1 }}
confirm = {{ point = "outlet.{{n}}.status", within_ms = 100 }}
"""
CHAIN = '[members]\ncolumn = "1.3.6.1.4.1.9.4"\nfirst = "1"'
POWER = "1.3.6.1.4.1.9.8.1"
STATUS = "1.3.6.1.4.1.9.7"
OUTLET_W = "1.3.6.1.4.1.9.6"


def pdu_profile(members: str = "") -> Profile:
    return check_profile(PDU.format(members=members), "pdu.toml")


def pdu_agent(**faults: Any) -> served_snmp.Agent:
    """800 W in, 100 W from each of eight outlets."""
    values: dict[str, Any] = {"1.3.6.1.2.1.1.2.0": rfc1902.ObjectIdentifier("1.3.6.1.4.1.9")}
    values[POWER] = rfc1902.Integer32(800)
    values |= {f"1.3.6.1.4.1.9.5.{n}": rfc1902.Integer32(230) for n in (1, 2, 3)}
    values |= {f"{OUTLET_W}.{n}": rfc1902.Integer32(100) for n in range(1, 9)}
    values |= {f"{STATUS}.{n}": rfc1902.Integer32(1) for n in range(1, 9)}
    return served_snmp.Agent(values, **faults)


class Watched:
    """A poller, and what it has put and said. `now_s` goes on with the clock."""

    def __init__(self, url: str, profile: Profile | None, names: Sequence[str], **how: Any) -> None:
        self.put: list[DeviceRead | CommandDone] = []
        self.said: list[Event] = []
        self.ahead_s = 0.0
        self.device = open_device(url, profile, clock=time.monotonic)
        how = {"poll_s": 60.0, "candidates": list} | how
        self.poller = Poller(
            "pdu", self.device, names, clock=lambda: time.monotonic() + self.ahead_s,
            put=self.put.append, say=self.said.append, **how,
        )  # fmt: skip

    async def until(self, is_so: Callable[[], object], what: str) -> None:
        give_up_at_s = time.monotonic() + DEADLINE_S
        while not is_so():
            assert not self.task.done(), self.task.exception()
            assert time.monotonic() < give_up_at_s, f"never {what}"
            await asyncio.sleep(0.005)

    @property
    def reads(self) -> list[DeviceRead]:
        return [fact for fact in self.put if isinstance(fact, DeviceRead)]

    @property
    def done(self) -> list[CommandDone]:
        return [fact for fact in self.put if isinstance(fact, CommandDone)]

    def start(self) -> None:
        self.task = asyncio.create_task(self.poller.run())


@contextlib.asynccontextmanager
async def watching(
    url: str, profile: Profile | None, names: Sequence[str], **how: Any
) -> AsyncIterator[Watched]:
    watched = Watched(url, profile, names, **how)
    watched.start()
    try:
        yield watched
    finally:
        watched.task.cancel()
        await asyncio.gather(watched.task, return_exceptions=True)
        await watched.device.close()


def with_agent(
    agent: served_snmp.Agent,
    use: Callable[[Watched], Any],
    profile: Profile | None = None,
    names: Sequence[str] = ("input.realpower",),
    **how: Any,
) -> Any:
    async def run() -> Any:
        async with served_snmp.serving(agent):
            url = f"snmp://public@127.0.0.1:{agent.port}"
            async with watching(url, profile, names, **how) as watched:
                return await use(watched)

    return asyncio.run(run())


def off(number: int) -> Command:
    return Command(number, f"outlet.{number}.load", "off", raises=False)


def on(number: int) -> Command:
    return Command(number, f"outlet.{number}.load", "on", raises=True)


def sets(agent: served_snmp.Agent) -> list[str]:
    return [oids[0] for kind, oids in agent.heard if kind == "set"]


# ── commands ──────────────────────────────────────────────────────────────────────


def test_a_lowering_command_drops_the_raises_that_wait_and_says_so() -> None:
    agent = pdu_agent()

    async def use(watched: Watched) -> list[CommandDone]:
        for command in (on(1), off(2), on(3), on(4), off(5)):
            watched.poller.submit(command)
        await watched.until(lambda: len(watched.done) == 5, "five outcomes")
        return watched.done

    done = with_agent(agent, use, pdu_profile())
    never_sent = [told.id for told in done if told.executed is None]
    assert never_sent == [1, 3, 4]
    assert [told.id for told in done if told.executed is not None] == [2, 5]
    assert sets(agent) == [f"{STATUS}.2", f"{STATUS}.5"]


def test_a_raise_drops_nothing_and_commands_are_carried_out_in_their_order() -> None:
    agent = pdu_agent()

    async def use(watched: Watched) -> list[int]:
        for command in (off(3), off(1), on(2), on(4)):
            watched.poller.submit(command)
        await watched.until(lambda: len(watched.done) == 4, "four outcomes")
        return [told.id for told in watched.done]

    assert with_agent(agent, use, pdu_profile()) == [3, 1, 2, 4]
    assert sets(agent) == [f"{STATUS}.{n}" for n in (3, 1, 2, 4)]


def test_commands_go_before_the_poll_that_is_due() -> None:
    agent = pdu_agent()

    async def use(watched: Watched) -> None:
        watched.poller.submit(off(1))
        await watched.until(lambda: watched.reads, "a reading")

    with_agent(agent, use, pdu_profile())
    assert agent.heard[0] == ("set", [f"{STATUS}.1"])


def test_beyond_its_limit_the_oldest_command_is_told_as_never_sent() -> None:
    async def use(watched: Watched) -> list[CommandDone]:
        for number in range(COMMANDS_WAITING_MAX + 2):
            command = Command(number, "outlet.1.load", "off", raises=False)
            watched.poller.submit(command)
        return list(watched.done)

    assert [(told.id, told.executed) for told in with_agent(pdu_agent(), use, pdu_profile())] == [
        (0, None), (1, None),
    ]  # fmt: skip


def test_a_poll_can_be_asked_for_before_its_time() -> None:
    async def use(watched: Watched) -> float:
        await watched.until(lambda: watched.reads, "a reading")
        began_s = time.monotonic()
        watched.poller.poll_now()
        await watched.until(lambda: len(watched.reads) == 2, "another reading")
        return time.monotonic() - began_s

    assert with_agent(pdu_agent(), use, pdu_profile(), poll_s=30.0) < 5.0


def test_a_command_to_a_device_that_nobody_has_recognised_is_told_as_not_done() -> None:
    """It must not end the controller: what it drives may be switched off."""
    agent = pdu_agent(silent=True)

    async def use(watched: Watched) -> CommandDone:
        watched.poller.submit(off(1))
        await watched.until(lambda: watched.done, "an outcome")
        await watched.until(lambda: watched.reads, "a reading")
        return watched.done[0]

    done = with_agent(agent, use, None)
    assert done.executed is not None
    assert done.executed.absence is Absence.ABSENT
    assert sets(agent) == []


# ── what a lowering command does not wait for ─────────────────────────────────────


def test_a_lowering_command_is_written_within_one_request_of_a_survey() -> None:
    agent = pdu_agent(delay_s=0.2)

    async def use(watched: Watched) -> tuple[float, int]:
        await watched.until(lambda: watched.reads, "a reading")
        heard = len(agent.heard)
        await watched.until(lambda: len(agent.heard) > heard, "a survey")
        asked_before, began_s = len(agent.heard), time.monotonic()
        watched.poller.submit(off(1))
        await watched.until(lambda: sets(agent), "a write")
        took_s = time.monotonic() - began_s
        await watched.until(lambda: watched.done, "an outcome")
        executed = watched.done[0].executed
        assert executed is not None and executed.absence is None
        kinds = [kind for kind, _ in agent.heard]
        return took_s, kinds.index("set") - asked_before

    took_s, between = with_agent(agent, use, pdu_profile())
    assert took_s < 0.39
    assert between == 0


def test_a_lowering_command_is_written_within_one_request_of_counting_members() -> None:
    agent = pdu_agent(delay_s=0.2)
    agent.values |= {f"1.3.6.1.4.1.9.4.{n}": rfc1902.Integer32(n) for n in range(1, 30)}

    async def use(watched: Watched) -> float:
        await watched.until(
            lambda: [kind for kind, _ in agent.heard].count("next") > 3,
            "a walk over the members",
        )
        began_s = time.monotonic()
        watched.poller.submit(off(1))
        await watched.until(lambda: sets(agent), "a write")
        return time.monotonic() - began_s

    profile = pdu_profile(CHAIN)
    assert with_agent(agent, use, profile) < 0.39


def test_a_raise_waits_for_the_survey_and_the_survey_is_made() -> None:
    agent = pdu_agent(delay_s=0.02)

    async def use(watched: Watched) -> None:
        await watched.until(lambda: len(agent.heard) > 2, "a survey")
        watched.poller.submit(on(1))
        await watched.until(lambda: watched.done, "an outcome")

    with_agent(agent, use, pdu_profile())
    asked = [oids[0] for _, oids in agent.heard[: [k for k, _ in agent.heard].index("set")]]
    assert f"{OUTLET_W}.1" in asked


def test_a_survey_that_was_left_alone_is_made_after_the_command() -> None:
    agent = pdu_agent(delay_s=0.03)

    async def use(watched: Watched) -> None:
        await watched.until(lambda: len(agent.heard) > 2, "a survey")
        watched.poller.submit(off(1))
        last = f"{OUTLET_W}.8"
        await watched.until(lambda: any(oids == [last] for _, oids in agent.heard), "its end")

    with_agent(agent, use, pdu_profile())
    assert f"{OUTLET_W}.8" not in [oids[0] for _, oids in agent.heard[:4]]


def test_over_rtu_a_survey_that_was_left_alone_leaves_no_wrong_value() -> None:
    async def run() -> list[tuple[object, float]]:
        bus = served_rtu.RtuBus()
        bus.fates = [served_rtu.Fate(0.03)] * 400
        async with served_rtu.rtu_over_tcp(bus) as port:
            url = f"modbus+rtutcp://127.0.0.1:{port}/1"
            profile = check_profile(RTU, "rtu.toml")
            async with watching(url, profile, ["input.L1.voltage"], poll_s=0.2) as watched:
                for n in range(5):
                    heard = len(bus.heard)
                    await watched.until(lambda heard=heard: len(bus.heard) > heard, "a request")
                    watched.poller.submit(Command(n, "limit.realpower", 900 + n, raises=False))
                    await watched.until(lambda n=n: len(watched.done) > n, "an outcome")
                    watched.ahead_s += 60.0
                await watched.until(lambda: len(watched.reads) > 5, "readings")
                told = [read.snapshot.points["input.L1.voltage"] for read in watched.reads]
                assert [done.executed.absence for done in watched.done if done.executed] == [
                    None
                ] * 5
                return [(type(point), getattr(point, "value", -1.0)) for point in told]

    # A register says its address in its high byte.
    found = asyncio.run(run())
    assert {kind for kind, _ in found} == {Reading}
    assert {int(value) >> 8 for _, value in found} == {16}


RTU = """
schema = 1
name = "rtu"
protocol = "modbus"
[product]
vendor = "V"
[source]
document = "made up for this test"
[limits]
timeout_ms = 400
registers_gap_max = 0
effect_delay_ms_max = 100
[[point]]
name = "input.L{n}.voltage"
unit = "V"
each = { n = { first = 1, count = 3, stride = 16 } }
table = "holding"
address = 16
[[point]]
name = "input.L{n}.current"
unit = "A"
each = { n = { first = 1, count = 3, stride = 16 } }
table = "holding"
address = 24
[[command]]
name = "limit.realpower"
unit = "W"
table = "holding"
address = 100
range = [0, 10_000]
confirm = "none"
why = "this test looks at the bus itself"
"""


# ── what a recognised device lacks ────────────────────────────────────────────────


def test_a_point_that_the_recognised_profile_lacks_is_absent_and_the_others_are_read() -> None:
    async def use(watched: Watched) -> tuple[list[DeviceRead], list[Event]]:
        await watched.until(lambda: len(watched.reads) > 3, "four readings")
        return watched.reads, watched.said

    names = ["input.realpower", "outlet.9.status", "input.frequency"]
    reads, said = with_agent(
        pdu_agent(), use, None, names, poll_s=0.02, candidates=lambda: [pdu_profile()]
    )
    points = reads[-1].snapshot.points
    assert isinstance(points["input.realpower"], Reading)
    for name in names[1:]:
        missing = points[name]
        assert isinstance(missing, Missing)
        assert missing.absence is Absence.ABSENT
        assert "profile pdu has no such point" in missing.detail
    (told,) = [event for event in said if event.name == "device gives no value"]
    assert dict(told.keys)["points"] == "outlet.9.status, input.frequency"


def test_a_device_with_none_of_the_points_goes_on_being_told_as_absent() -> None:
    async def use(watched: Watched) -> list[DeviceRead]:
        await watched.until(lambda: len(watched.reads) > 2, "three readings")
        return watched.reads

    reads = with_agent(
        pdu_agent(), use, None, ["x.y"], poll_s=0.02, candidates=lambda: [pdu_profile()]
    )
    assert {type(read.snapshot.points["x.y"]) for read in reads} == {Missing}


# ── troubles ──────────────────────────────────────────────────────────────────────


def test_members_that_cannot_be_counted_are_asked_again_after_30_s_and_then_60() -> None:
    agent = pdu_agent()
    agent.bad_oids = {"1.3.6.1.4.1.9.4": 5}

    def walks() -> int:
        return len([0 for _, oids in agent.heard if oids == ["1.3.6.1.4.1.9.4"]])

    async def use(watched: Watched) -> list[int]:
        counted = []
        for step_s in (0.0, 20.0, 11.0, 40.0, 21.0):
            watched.ahead_s += step_s
            reads = len(watched.reads)
            await watched.until(lambda reads=reads: len(watched.reads) > reads + 3, "polls")
            counted.append(walks())
        return counted

    profile = pdu_profile(CHAIN)
    first, at_20_s, at_31_s, at_71_s, at_92_s = with_agent(agent, use, profile, poll_s=0.02)
    assert first > 0
    assert at_20_s == first
    assert at_31_s == 2 * first
    assert at_71_s == 2 * first
    assert at_92_s == 3 * first


@pytest.mark.parametrize("is_silent", [False, True])
def test_surveys_stop_while_the_device_is_silent_and_go_on_while_it_lacks_a_point(
    is_silent: bool,
) -> None:
    agent = pdu_agent()
    del agent.values[f"{STATUS}.7"]
    is_mute, falls_silent = agent._is_mute, False

    def is_mute_now(request: served_snmp.Request) -> bool:
        asked = [served_snmp.as_text(oid) for oid, _, _ in request.varbinds]
        return is_mute(request) or (falls_silent and f"{STATUS}.7" in asked)

    agent._is_mute = is_mute_now  # type: ignore[method-assign]

    async def use(watched: Watched) -> bool:
        nonlocal falls_silent
        await watched.until(lambda: watched.reads, "a reading")
        voltage = "1.3.6.1.4.1.9.5.3"
        await watched.until(lambda: any(oids == [voltage] for _, oids in agent.heard), "surveyed")
        falls_silent = is_silent
        for _ in range(2):  # what was asked before the silence, and after it
            reads = len(watched.reads)
            await watched.until(lambda reads=reads: len(watched.reads) > reads + 1, "polls")
            agent.heard.clear()
            watched.ahead_s += 60.0
        reads = len(watched.reads)
        await watched.until(lambda: len(watched.reads) > reads + 1, "polls")
        return any(oids == [voltage] for _, oids in agent.heard)

    profile = check_profile(PDU.format(members="").replace("1000", "100"), "pdu.toml")
    names = ["input.realpower", "outlet.7.status"]
    assert with_agent(agent, use, profile, names, poll_s=0.4) is not is_silent


# ── what is told of the device ────────────────────────────────────────────────────


async def polled(url: str, profile_name: str) -> list[Event]:
    """What a poller of the input's power says first, in one go."""
    profile = load_profile(profile_name)
    async with watching(url, profile, ["input.realpower"], poll_s=0.1) as watched:
        await watched.until(lambda: watched.said, "a word")
        return list(watched.said)


def floats(values: dict[int, float]) -> dict[int, int]:
    """Registers 0 … 75 of an SDM630 with these values, 0 elsewhere."""
    registers = dict.fromkeys(range(80), 0)
    for address, value in values.items():
        high, low = struct.unpack(">HH", struct.pack(">f", value))
        registers |= {address: high, address + 1: low}
    return registers


def test_a_meter_whose_watts_are_ten_times_too_large_is_named_in_the_log() -> None:
    async def run() -> list[Event]:
        # 230 V, 10 A, power factor 0.98, and 22 540 W
        values = {0: 230.0, 6: 10.0, 12: 22_540.0, 18: 2300.0, 52: 22_540.0, 56: 2300.0}
        unit = served_modbus.Unit(1, {"input": floats(values)})
        async with served_modbus.serving(unit) as port:
            url = f"modbus://127.0.0.1:{port}/1"
            return await polled(url, "eastron-sdm630")

    events = asyncio.run(run())
    assert {event.name for event in events} == {"device contradicts itself"}
    assert {dict(event.keys)["reason"] for event in events} == {"scale"}
    assert any("input.realpower" in str(dict(event.keys)["points"]) for event in events)


def test_outlets_that_do_not_add_up_to_the_inlet_are_named_in_the_log() -> None:
    agent = pdu_agent()
    agent.values[f"{OUTLET_W}.3"] = rfc1902.Integer32(913)

    async def use(watched: Watched) -> list[Event]:
        last = f"{OUTLET_W}.8"
        await watched.until(lambda: any(oids == [last] for _, oids in agent.heard), "surveyed")
        reads = len(watched.reads)
        await watched.until(lambda: len(watched.reads) > reads + 1, "polls")
        assert watched.said == []  # once may be a load that came meanwhile
        watched.ahead_s += 31.0
        await watched.until(lambda: watched.said, "a word")
        return watched.said

    (told,) = with_agent(agent, use, pdu_profile(), poll_s=0.05)
    assert told.name == "device contradicts itself"
    assert dict(told.keys)["reason"] == "sum"
    assert "input.realpower = 800 W" in str(dict(told.keys)["detail"])


def test_an_agent_with_more_pdus_than_the_url_names_is_told_in_the_log() -> None:
    async def run() -> list[Event]:
        capture = DRIVERS / "testdata" / "servertech-sentry4.snmprec"
        agent = served_snmp.Agent(served_snmp.read_snmprec(capture))
        async with served_snmp.serving(agent):
            url = f"snmp://public@127.0.0.1:{agent.port}"
            return await polled(url, "servertech-sentry4")

    (event, *_) = asyncio.run(run())
    assert event.name == "several PDUs behind one agent"
    assert "/1, and give every other" in str(dict(event.keys)["detail"])
