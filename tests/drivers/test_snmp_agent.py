"""SNMP agents over real UDP, through both libraries: objects, tables, walks and SETs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asking_snmp import (
    COLUMN,
    HAS_GUFO,
    NEXT_COLUMN,
    SYSTEM,
    TEMPER,
    absent,
    address,
    asked,
    cells,
    fetched,
    kinds,
    pdu,
    rows_of,
    shown,
)
from pysnmp.proto import rfc1902
from served_snmp import Agent, ber, read_snmprec, serving, table

from drivers.address import SnmpAddress, parse_url
from drivers.errors import ProfileError
from drivers.reading import Absence, Answer, NoAnswer
from drivers.snmp import SnmpAgent, Temper, Walked

TESTDATA = Path(__file__).parent / "testdata"


# ── what is read ──────────────────────────────────────────────────────────────────


def test_tables_and_scalars_are_read_in_a_few_requests(home: str) -> None:
    agent = pdu()
    oids = cells(range(1, 25)) + cells(range(1, 25), NEXT_COLUMN) + [f"{SYSTEM}.5.0"]
    temper = Temper(1.0, 5.0, oids_per_get_max=10, repetitions_max=25)
    assert fetched(agent, home, oids, temper) == (
        rows_of(range(1, 25)) | rows_of(range(1, 25), 100, NEXT_COLUMN)
        | {f"{SYSTEM}.5.0": b"a pdu"}
    )  # fmt: skip
    assert agent.heard[0] == ("get", [f"{SYSTEM}.5.0"])
    assert 2 <= len(agent.heard) <= 3  # one GETBULK for both columns, or one for each


def test_rows_that_the_agent_lacks_are_absent(home: str) -> None:
    agent = pdu()
    del agent.values[f"{COLUMN}.3"], agent.values[f"{COLUMN}.4"]
    found = fetched(agent, home, cells(range(1, 31)) + cells(range(1, 31), NEXT_COLUMN))
    assert found == (
        rows_of(range(1, 25)) | absent(range(3, 5)) | absent(range(25, 31))
        | rows_of(range(1, 25), 100, NEXT_COLUMN)
        | absent(range(25, 31), column=NEXT_COLUMN)
    )  # fmt: skip


def test_a_table_whose_rows_begin_at_nought(home: str) -> None:
    agent = Agent(table(COLUMN, range(20)))
    assert fetched(agent, home, cells(range(20))) == rows_of(range(20))


def test_explicit_objects_that_the_agent_lacks_are_absent(home: str) -> None:
    found = fetched(pdu(), home, [f"{SYSTEM}.5.0", f"{SYSTEM}.6.0", f"{COLUMN}.25"])
    assert found == {
        f"{SYSTEM}.5.0": b"a pdu", f"{SYSTEM}.6.0": Absence.ABSENT, f"{COLUMN}.25": Absence.ABSENT,
    }  # fmt: skip


def test_an_object_asked_twice_is_asked_once(home: str) -> None:
    agent = pdu()
    assert fetched(agent, home, [f"{COLUMN}.7"] * 3) == {f"{COLUMN}.7": 7}
    assert agent.heard == [("get", [f"{COLUMN}.7"])]


@pytest.mark.parametrize("capture", sorted(path.stem for path in TESTDATA.glob("*.snmprec")))
def test_both_libraries_give_the_same_answers_to_a_whole_capture(capture: str) -> None:
    if not HAS_GUFO:
        pytest.skip("NOT TESTED WITH GUFO_SNMP: extra fast")
    values = read_snmprec(TESTDATA / f"{capture}.snmprec")
    oids = [*values, *[f"{oid}.7" for oid in values]]
    one, other = (fetched(Agent(dict(values)), home, oids) for home in ("pysnmp", "gufo"))
    assert one == other
    nulls = [oid for oid, value in values.items() if value.tag == "5"]
    lacking = {oid for oid, raw in one.items() if raw is Absence.ABSENT}
    assert lacking == {*nulls, *[f"{oid}.7" for oid in values]}


def test_every_type_of_value_is_the_same_through_both(home: str) -> None:
    values = {
        f"{SYSTEM}.1.0": rfc1902.Integer32(-(2**31)),
        f"{SYSTEM}.2.0": rfc1902.Gauge32(2**32 - 1),
        f"{SYSTEM}.3.0": rfc1902.Counter64(2**64 - 1),
        f"{SYSTEM}.4.0": rfc1902.TimeTicks(77),
        f"{SYSTEM}.5.0": rfc1902.OctetString(b"\xff\x00"),
        f"{SYSTEM}.6.0": rfc1902.ObjectIdentifier("1.3.6.1.4.1.318"),
        f"{SYSTEM}.7.0": rfc1902.IpAddress("192.0.2.7"),
        f"{SYSTEM}.8.0": rfc1902.Opaque(b"\x9f"),
        f"{SYSTEM}.9.0": rfc1902.Null(""),
        f"{SYSTEM}.10.0": ber(2, b"\x01" * 9),
        f"{SYSTEM}.11.0": ber(3, b"\x00\x05"),
        f"{SYSTEM}.12.0": rfc1902.OctetString(b"after all that"),
    }
    expected = {
        f"{SYSTEM}.1.0": -(2**31), f"{SYSTEM}.2.0": 2**32 - 1, f"{SYSTEM}.3.0": 2**64 - 1,
        f"{SYSTEM}.4.0": 77, f"{SYSTEM}.5.0": b"\xff\x00", f"{SYSTEM}.6.0": "1.3.6.1.4.1.318",
        f"{SYSTEM}.7.0": "192.0.2.7", f"{SYSTEM}.8.0": b"\x9f", f"{SYSTEM}.9.0": Absence.ABSENT,
        f"{SYSTEM}.10.0": Absence.TYPE,                 # wider than an integer is
        f"{SYSTEM}.11.0": Absence.TYPE,                 # a bit string
        f"{SYSTEM}.12.0": b"after all that",
    }  # fmt: skip
    assert fetched(Agent(values), home, list(values), Temper(0.5, 5.0, 20, 10)) == expected


def test_an_answer_longer_than_one_datagram_holds_on_the_wire_is_read(home: str) -> None:
    values = {f"{SYSTEM}.{n}.0": rfc1902.OctetString(b"x" * 900) for n in range(1, 11)}
    assert set(fetched(Agent(values), home, list(values)).values()) == {b"x" * 900}


# ── version 1 ─────────────────────────────────────────────────────────────────────


def test_in_version_1_missing_rows_do_not_take_the_others_along(home: str) -> None:
    agent = pdu()
    for row in (1, 7, 8, 24):
        del agent.values[f"{NEXT_COLUMN}.{row}"]
    found = fetched(agent, home, cells(range(1, 27), NEXT_COLUMN), scheme="snmp1")
    assert found == rows_of(range(1, 27), 100, NEXT_COLUMN) | {
        f"{NEXT_COLUMN}.{row}": Absence.ABSENT for row in (1, 7, 8, 24, 25, 26)
    }
    assert "bulk" not in kinds(agent)


def test_in_version_1_missing_objects_are_taken_out_of_the_get(home: str) -> None:
    oids = [f"{SYSTEM}.4.0", f"{SYSTEM}.5.0", f"{SYSTEM}.6.0", f"{COLUMN}.9", f"{COLUMN}.99"]
    assert fetched(pdu(), home, oids, scheme="snmp1") == {
        f"{SYSTEM}.4.0": Absence.ABSENT, f"{SYSTEM}.5.0": b"a pdu",
        f"{SYSTEM}.6.0": Absence.ABSENT, f"{COLUMN}.9": 9, f"{COLUMN}.99": Absence.ABSENT,
    }  # fmt: skip


# ── one thing at a time, many agents at once ──────────────────────────────────────


def test_members_behind_one_agent_wait_for_each_other(home: str) -> None:
    agent = pdu(delay_s=0.05)

    async def run() -> list[Answer]:
        async with serving(agent):
            clients = [SnmpAgent(address(agent), time.monotonic, home=home) for _ in range(3)]
            found = await asyncio.gather(
                *(client.fetch([f"{COLUMN}.1"], temper=TEMPER) for client in clients)
            )
            for client in clients:
                await client.close()
            return sorted((a[f"{COLUMN}.1"] for a in found), key=lambda answer: answer.asked_at_s)

    first, second, third = asyncio.run(run())
    assert second.asked_at_s >= first.taken_at_s
    assert third.asked_at_s >= second.taken_at_s


def test_many_agents_are_asked_at_once(home: str) -> None:
    async def run() -> float:
        async with all_serving([pdu(delay_s=0.3) for _ in range(8)]) as agents:
            clients = [SnmpAgent(address(agent), time.monotonic, home=home) for agent in agents]
            started_s = time.monotonic()
            temper = Temper(2.0, 5.0, 10, 10)
            found = await asyncio.gather(
                *(client.fetch([f"{COLUMN}.1"], temper=temper) for client in clients)
            )
            took_s = time.monotonic() - started_s
            for client in clients:
                await client.close()
        assert [shown(answers) for answers in found] == [{f"{COLUMN}.1": 1}] * 8
        return took_s

    assert asyncio.run(run()) < 1.0


@contextlib.asynccontextmanager
async def all_serving(agents: list[Agent]) -> AsyncIterator[list[Agent]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(agent)) for agent in agents]


def test_there_is_a_pause_between_requests_if_the_device_wants_one(home: str) -> None:
    temper = Temper(0.5, 5.0, oids_per_get_max=1, repetitions_max=0, pause_s=0.1)
    answers = asked(pdu(), home, lambda client: client.fetch(cells(range(1, 4)), temper=temper))
    first, second, third = (answers[oid] for oid in cells(range(1, 4)))
    assert second.asked_at_s - first.taken_at_s >= 0.099
    assert third.asked_at_s - second.taken_at_s >= 0.099


def test_an_answer_is_true_between_its_asking_and_its_coming(home: str) -> None:
    before_s = time.monotonic()
    answers = asked(
        pdu(delay_s=0.05), home, lambda client: client.fetch([f"{COLUMN}.1"], temper=TEMPER)
    )
    answer = answers[f"{COLUMN}.1"]
    assert before_s <= answer.asked_at_s <= answer.taken_at_s - 0.05
    assert answer.taken_at_s <= time.monotonic()


def test_an_ipv6_agent_is_read(home: str) -> None:
    async def run() -> dict[str, object]:
        agent = pdu()
        try:
            async with serving(agent, host="::1"):
                client = SnmpAgent(address(agent, host="[::1]"), time.monotonic, home=home)
                answers = await client.fetch([f"{COLUMN}.1"], temper=TEMPER)
                await client.close()
                return shown(answers)
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")

    assert asyncio.run(run()) == {f"{COLUMN}.1": 1}


# ── what is below ─────────────────────────────────────────────────────────────────


def walked(agent: Agent, home: str, scheme: str = "snmp", rows_max: int = 2000) -> Walked:
    return asked(
        agent, home, lambda client: client.walk(COLUMN, temper=TEMPER, rows_max=rows_max), scheme
    )


@pytest.mark.parametrize("scheme", ["snmp", "snmp1"])
@pytest.mark.parametrize("column", [COLUMN, NEXT_COLUMN])
def test_a_walk_tells_everything_below_in_the_agents_order(
    home: str, scheme: str, column: str
) -> None:
    found = asked(pdu(), home, lambda client: client.walk(column, temper=TEMPER), scheme)
    assert list(shown(found.answers)) == cells(range(1, 25), column)
    assert found.gap is None


@pytest.mark.parametrize("mute_bulks_above", [0, 3])
def test_a_walk_goes_on_where_getbulks_are_dropped(home: str, mute_bulks_above: int) -> None:
    found = walked(pdu(mute_bulks_above=mute_bulks_above), home)
    assert shown(found.answers) == rows_of(range(1, 25))
    assert found.gap is None


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"mute_from": f"{COLUMN}.11"}, Absence.TIMEOUT),
        ({"repeats_oids": True}, Absence.TYPE),
        ({"silent": True, "mute_bulks_above": 0}, Absence.TIMEOUT),
        ({"oids_max": 0}, Absence.REFUSED),
    ],
)
def test_a_walk_that_does_not_see_the_end_says_so(
    home: str, fault: dict[str, Any], why: Absence
) -> None:
    found = walked(pdu(**fault), home)
    assert found.gap is not None
    assert found.gap.absence is why
    assert set(shown(found.answers).items()) <= set(rows_of(range(1, 25)).items())


def test_a_walk_has_a_limit(home: str) -> None:
    found = walked(pdu(), home, rows_max=7)
    assert len(found.answers) == 7
    assert found.gap is not None
    assert found.gap.absence is Absence.INCOMPLETE


@pytest.mark.parametrize("scheme", ["snmp", "snmp1"])
def test_the_first_object_below_each_prefix(home: str, scheme: str) -> None:
    agent = pdu()
    prefixes = [COLUMN, f"{COLUMN}.7", f"{COLUMN}.24", NEXT_COLUMN, f"{NEXT_COLUMN}.24", SYSTEM]
    found = asked(agent, home, lambda client: client.below(prefixes, temper=TEMPER), scheme)
    told = {
        prefix: (answer[0], answer[1].raw) if isinstance(answer, tuple) else answer.absence
        for prefix, answer in found.items()
    }
    assert told == {
        COLUMN: (f"{COLUMN}.1", 1),
        f"{COLUMN}.7": Absence.ABSENT,
        f"{COLUMN}.24": Absence.ABSENT,
        NEXT_COLUMN: (f"{NEXT_COLUMN}.1", 100),
        f"{NEXT_COLUMN}.24": Absence.ABSENT,
        SYSTEM: (f"{SYSTEM}.5.0", b"a pdu"),
    }
    assert len(agent.heard) <= 3 if scheme == "snmp" else len(agent.heard) <= 4


def test_below_a_silent_agent_everything_is_unknown(home: str) -> None:
    agent = pdu(silent=True)
    found = asked(agent, home, lambda client: client.below([COLUMN, SYSTEM], temper=TEMPER))
    assert [told.absence for told in found.values() if isinstance(told, NoAnswer)] == [
        Absence.TIMEOUT, Absence.TIMEOUT,
    ]  # fmt: skip


# ── SET ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("type_", "raw", "wire"),
    [
        ("int32", -5, b"\x02\x01\xfb"),
        ("uint32", 2**32 - 1, b"\x42\x05\x00\xff\xff\xff\xff"),
        ("uint64", 2**64 - 1, b"\x46\x09\x00" + b"\xff" * 8),
        ("text", b"web 1", b"\x04\x05web 1"),
    ],
)
def test_a_set_is_sent_once_and_as_its_type(
    home: str, type_: str, raw: int | bytes, wire: bytes
) -> None:
    agent, datagrams = pdu(), []
    original = agent.datagram_received

    def keep(data: bytes, sender: Any) -> None:
        datagrams.append(data)
        original(data, sender)

    agent.datagram_received = keep  # type: ignore[method-assign]
    told = asked(agent, home, lambda client: client.write(f"{COLUMN}.1", raw, type_, timeout_s=0.5))
    assert told is None
    assert agent.heard == [("set", [f"{COLUMN}.1"])]
    assert datagrams[0].endswith(wire)


def test_a_refused_set_says_why(home: str) -> None:
    told = asked(
        pdu(refuse_sets=17),
        home,
        lambda client: client.write(f"{COLUMN}.1", 1, "int32", timeout_s=0.5),
    )
    assert told == NoAnswer(Absence.REFUSED, "the agent says notWritable")


def test_a_set_without_an_answer_is_not_sent_again(home: str) -> None:
    agent = pdu()

    async def use(client: SnmpAgent) -> NoAnswer | None:
        await client.fetch([f"{COLUMN}.1"], temper=TEMPER)
        agent.mute_sets = True
        return await client.write(f"{COLUMN}.1", 1, "int32", timeout_s=0.1)

    told = asked(agent, home, use)
    assert told is not None
    assert told.absence is Absence.TIMEOUT
    assert kinds(agent) == ["get", "set"]


def test_a_set_keeps_the_pause_that_the_device_wants(home: str) -> None:
    """Both after the answer before it, and before the request after it."""
    temper = Temper(0.5, 5.0, 10, 10, pause_s=0.1)
    agent, heard_at_s = pdu(), []
    original = agent.datagram_received

    def keep(data: bytes, sender: Any) -> None:
        heard_at_s.append(time.monotonic())
        original(data, sender)

    agent.datagram_received = keep  # type: ignore[method-assign]

    async def use(client: SnmpAgent) -> None:
        await client.fetch([f"{COLUMN}.1"], temper=temper)
        for number in (1, 2):
            assert await client.write(f"{COLUMN}.1", number, "int32", timeout_s=0.5) is None
        await client.fetch([f"{COLUMN}.1"], temper=temper)

    asked(agent, home, use)
    assert kinds(agent) == ["get", "set", "set", "get"]
    assert all(b - a >= 0.099 for a, b in itertools.pairwise(heard_at_s))


def test_a_set_goes_before_reads_that_wait_and_after_the_one_that_was_sent(home: str) -> None:
    agent = pdu(delay_s=0.05)
    temper = Temper(1.0, 5.0, oids_per_get_max=1, repetitions_max=0)

    async def use(client: SnmpAgent) -> NoAnswer | None:
        reading = [
            asyncio.ensure_future(client.fetch(cells(range(1, 5)), temper=temper)) for _ in range(2)
        ]
        await asyncio.sleep(0.02)
        told = await client.write(f"{COLUMN}.1", 1, "int32", timeout_s=1.0)
        assert kinds(agent) in (["get", "set"], ["get", "set", "get"])
        await asyncio.gather(*reading)
        return told

    assert asked(agent, home, use) is None


def test_after_a_read_that_was_left_alone_a_set_waits_for_the_open_answer_only(home: str) -> None:
    agent = pdu(delay_s=0.1)
    temper = Temper(1.0, 5.0, oids_per_get_max=1, repetitions_max=0)

    async def use(client: SnmpAgent) -> tuple[float, dict[str, object]]:
        reading = asyncio.ensure_future(client.fetch(cells(range(1, 25)), temper=temper))
        await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        began_s = time.monotonic()
        assert await client.write(f"{COLUMN}.1", 1, "int32", timeout_s=1.0) is None
        took_s = time.monotonic() - began_s
        return took_s, shown(await client.fetch([f"{COLUMN}.2"], temper=temper))

    took_s, found = asked(agent, home, use)
    assert 0.15 < took_s < 0.4  # the rest of one request, and its own
    assert found == {f"{COLUMN}.2": 2}
    assert kinds(agent) == ["get", "set", "get"]


# ── which library ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("scheme", "wanted", "chosen"),
    [
        ("snmp", None, "gufo" if HAS_GUFO else "pysnmp"),
        ("snmp1", None, "gufo" if HAS_GUFO else "pysnmp"),
        ("snmp", "pysnmp", "pysnmp"),
        ("snmp3", None, "pysnmp"),
    ],
)
def test_the_faster_library_serves_what_it_can(
    monkeypatch: pytest.MonkeyPatch, scheme: str, wanted: str | None, chosen: str
) -> None:
    monkeypatch.delenv("WATTBROKER_SNMP", raising=False)
    parsed = parse_url(f"{scheme}://ops@192.0.2.1", {})
    assert isinstance(parsed, SnmpAddress)
    assert SnmpAgent(parsed, time.monotonic, home=wanted).home_name == chosen
    if wanted:
        monkeypatch.setenv("WATTBROKER_SNMP", wanted)
        assert SnmpAgent(parsed, time.monotonic).home_name == chosen


def test_an_unknown_library_is_the_operators_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTBROKER_SNMP", "netsnmp")
    with pytest.raises(ProfileError, match="WATTBROKER_SNMP=netsnmp is not one of pysnmp, gufo"):
        SnmpAgent(address(pdu(port=161)), time.monotonic)
