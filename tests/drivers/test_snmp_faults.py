"""Every fault of an SNMP agent and of its line, over real UDP, through both libraries.

Every number that comes out must be the agent's own; what is missing must say why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking_snmp import (
    COLUMN,
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pysnmp.proto import rfc1902
from served_snmp import Agent, as_arcs, ber, ber_oid, serving
from served_snmpd import SNMPD, running

from drivers.address import SnmpAddress, parse_url
from drivers.reading import Absence, Answer, NoAnswer
from drivers.snmp import SnmpAgent, Temper

# ── the device bears less than its profile says ───────────────────────────────────


def test_a_get_that_is_too_big_is_made_smaller_and_that_is_remembered(home: str) -> None:
    agent = pdu(oids_max=3)
    oids = [f"{COLUMN}.{row}" for row in (1, 2, 3)] + [f"{NEXT_COLUMN}.{row}" for row in (1, 2, 3)]

    async def use(client: SnmpAgent) -> list[dict[str, object]]:
        first = shown(await client.fetch(oids, temper=TEMPER))
        agent.heard.clear()
        return [first, shown(await client.fetch(oids, temper=TEMPER))]

    expected = rows_of(range(1, 4)) | rows_of(range(1, 4), 100, NEXT_COLUMN)
    assert asked(agent, home, use) == [expected, expected]
    assert max(len(oids) for _, oids in agent.heard) <= 3


def test_a_getbulk_that_is_too_big_is_made_smaller_and_that_is_remembered(home: str) -> None:
    agent = pdu(oids_max=6)

    async def use(client: SnmpAgent) -> list[dict[str, object]]:
        first = shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))
        agent.repetitions.clear()
        return [first, shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))]

    assert asked(agent, home, use) == [rows_of(range(1, 25))] * 2
    assert agent.repetitions
    assert max(agent.repetitions) <= 6


def test_an_agent_that_drops_getbulk_is_read_by_name_and_that_is_remembered(home: str) -> None:
    agent = pdu(mute_bulks_above=0)

    async def use(client: SnmpAgent) -> list[dict[str, object]]:
        first = shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))
        agent.heard.clear()
        return [first, shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))]

    assert asked(agent, home, use) == [rows_of(range(1, 25))] * 2
    assert set(kinds(agent)) == {"get"}


def test_an_agent_that_drops_large_getbulks_is_asked_for_less(home: str) -> None:
    agent = pdu(mute_bulks_above=4)

    async def use(client: SnmpAgent) -> list[dict[str, object]]:
        first = shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))
        agent.repetitions.clear()
        return [first, shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))]

    assert asked(agent, home, use) == [rows_of(range(1, 25))] * 2
    assert agent.repetitions
    assert max(agent.repetitions) <= 4


def test_an_agent_that_drops_requests_for_many_objects_is_asked_one_by_one(home: str) -> None:
    agent = pdu(mute_many=True, mute_bulks_above=0)
    oids = [f"{COLUMN}.{row}" for row in (1, 2, 3)] + [f"{NEXT_COLUMN}.{row}" for row in (1, 2, 3)]
    expected = rows_of(range(1, 4)) | rows_of(range(1, 4), 100, NEXT_COLUMN)
    assert fetched(agent, home, oids) == expected


def test_a_getbulk_that_is_refused_is_asked_by_name(home: str) -> None:
    agent = pdu(refuse_bulks=5)  # genErr
    assert fetched(agent, home, cells(range(1, 25))) == rows_of(range(1, 25))


def test_an_answer_with_fewer_rows_than_asked_for_is_gone_on_from(home: str) -> None:
    agent = pdu(rows_max=3)
    assert fetched(agent, home, cells(range(1, 25))) == rows_of(range(1, 25))
    assert kinds(agent).count("bulk") == 8


def test_an_object_that_fails_the_get_is_refused_alone(home: str) -> None:
    agent = pdu(bad_oids={f"{COLUMN}.2": 5})  # genErr
    assert fetched(agent, home, cells(range(1, 4))) == rows_of(range(1, 4)) | {
        f"{COLUMN}.2": Absence.REFUSED
    }


# ── the device answers badly ──────────────────────────────────────────────────────


def test_an_agent_that_takes_800_ms_is_read(home: str) -> None:
    started_s = time.monotonic()
    found = fetched(pdu(delay_s=0.8), home, [f"{COLUMN}.7"], Temper(2.0, 5.0, 10, 10))
    assert found == {f"{COLUMN}.7": 7}
    assert time.monotonic() - started_s >= 0.8


def test_where_a_walk_ends_in_the_middle_of_a_table_the_rest_is_asked_by_name(home: str) -> None:
    agent = pdu(ends_after=f"{NEXT_COLUMN}.11")
    wanted = cells(range(1, 27), NEXT_COLUMN)  # 24 rows are there
    assert fetched(agent, home, wanted) == rows_of(range(1, 25), 100, NEXT_COLUMN) | absent(
        range(25, 27), column=NEXT_COLUMN
    )


def test_silence_in_the_middle_of_a_table_is_no_end_of_it(home: str) -> None:
    agent = pdu(mute_from=f"{COLUMN}.11")
    found = fetched(agent, home, cells(range(1, 25)))
    assert found[f"{COLUMN}.1"] == 1
    assert {raw for raw in found.values() if isinstance(raw, Absence)} == {Absence.TIMEOUT}
    assert set(absent(range(11, 25), Absence.TIMEOUT).items()) <= set(found.items())
    numbers = {oid: raw for oid, raw in found.items() if not isinstance(raw, Absence)}
    assert set(numbers.items()) <= set(rows_of(range(1, 11)).items())


def test_values_are_taken_by_name_whatever_their_order(home: str) -> None:
    oids = [f"{COLUMN}.1", f"{COLUMN}.2", f"{NEXT_COLUMN}.1"]
    assert fetched(pdu(reversed_order=True), home, oids) == {
        f"{COLUMN}.1": 1, f"{COLUMN}.2": 2, f"{NEXT_COLUMN}.1": 100,
    }  # fmt: skip


@pytest.mark.parametrize("fault", ["reversed_order", "repeats_oids"])
@pytest.mark.parametrize("scheme", ["snmp", "snmp1"])
def test_a_walk_that_does_not_go_forward_gives_no_numbers(
    home: str, fault: str, scheme: str
) -> None:
    agent = pdu(**{fault: True})
    found = fetched(agent, home, cells(range(1, 25)), scheme=scheme)
    first = found.pop(f"{COLUMN}.1")  # asked by name, to see who is there
    assert set(found.values()) == {Absence.TYPE}
    assert first in (1, Absence.TYPE)


def test_answers_to_other_questions_are_no_answers(home: str) -> None:
    found = fetched(pdu(other_oids=True), home, [f"{COLUMN}.1", f"{COLUMN}.2"])
    assert set(found.values()) == {Absence.TYPE}


def test_answers_with_another_number_are_silence(home: str) -> None:
    assert set(fetched(pdu(other_id=True), home, cells(range(1, 25))).values()) == {Absence.TIMEOUT}


@pytest.mark.parametrize(
    "mangle",
    [
        lambda datagram: datagram[:-3],
        lambda datagram: datagram[: len(datagram) // 2],
        lambda datagram: datagram + b"\x00",
        lambda datagram: b"",
        lambda datagram: b"\x30\x82\xff\xff",
        lambda datagram: b"not SNMP at all",
        lambda datagram: datagram.replace(b"public", b"others"),
    ],
)
def test_what_is_cut_off_or_garbage_is_silence(home: str, mangle: Callable[[bytes], bytes]) -> None:
    found = fetched(pdu(mangle=mangle), home, [f"{COLUMN}.1", f"{COLUMN}.2"])
    assert set(found.values()) == {Absence.TIMEOUT}


@pytest.mark.parametrize(("scheme", "version"), [("snmp", 0), ("snmp1", 1)])
def test_an_answer_of_another_version_is_no_answer(home: str, scheme: str, version: int) -> None:
    """The version is the first integer of the message."""

    def mangle(datagram: bytes) -> bytes:
        at = datagram.index(b"\x02\x01")
        return datagram[: at + 2] + bytes([version]) + datagram[at + 3 :]

    found = fetched(pdu(mangle=mangle), home, [f"{COLUMN}.1"], scheme=scheme)
    assert found == {f"{COLUMN}.1": Absence.TIMEOUT}


def test_a_duplicate_is_not_the_next_answer(home: str) -> None:
    agent = pdu(twice=True)
    assert fetched(agent, home, cells(range(1, 25))) == rows_of(range(1, 25))


def test_a_late_answer_is_not_taken_for_the_next_one(home: str) -> None:
    agent = Agent({f"{COLUMN}.1": rfc1902.Integer32(10)})

    async def use(client: SnmpAgent) -> list[dict[str, object]]:
        oids = [f"{COLUMN}.1"]
        found = [shown(await client.fetch(oids, temper=TEMPER))]
        agent.delays_s = [0.25, 0.12]  # the late one (10) arrives before the other (99)
        found.append(shown(await client.fetch(oids, temper=TEMPER)))
        agent.values[f"{COLUMN}.1"] = rfc1902.Integer32(99)
        return [*found, shown(await client.fetch(oids, temper=TEMPER))]

    assert [list(found.values()) for found in asked(agent, home, use)] == [
        [10], [Absence.TIMEOUT], [99],
    ]  # fmt: skip


def test_an_earlier_answer_sent_again_is_not_the_next_one(home: str) -> None:
    """The agent sends what it answered first, and only then what it is asked now."""
    agent = Agent({f"{COLUMN}.1": rfc1902.Integer32(10)})
    earlier = b""

    def again(datagram: bytes) -> bytes:
        if earlier:
            agent.transport.sendto(earlier, sender)
        return datagram

    original, sender = agent.datagram_received, ("", 0)

    def received(data: bytes, whence: Any) -> None:
        nonlocal sender
        sender = whence
        original(data, whence)

    agent.datagram_received = received  # type: ignore[method-assign]
    agent.mangle = again

    async def use(client: SnmpAgent) -> dict[str, object]:
        nonlocal earlier
        await client.fetch([f"{COLUMN}.1"], temper=TEMPER)
        earlier = agent.answered[-1]
        agent.values[f"{COLUMN}.1"] = rfc1902.Integer32(99)
        return shown(await client.fetch([f"{COLUMN}.1"], temper=TEMPER))

    found = asked(agent, home, use)
    assert found[f"{COLUMN}.1"] in (99, Absence.TIMEOUT)


def test_wrong_types_come_as_what_they_are(home: str) -> None:
    agent = pdu()
    agent.values[f"{COLUMN}.2"] = rfc1902.OctetString("n/a")
    agent.values[f"{COLUMN}.3"] = ber(2, b"\x01" * 9)
    found = fetched(agent, home, cells(range(1, 25)))
    expected = {f"{COLUMN}.2": b"n/a", f"{COLUMN}.3": Absence.TYPE}
    assert found == rows_of(range(1, 25)) | expected


# ── silence ───────────────────────────────────────────────────────────────────────


def test_a_dead_agent_costs_one_request_for_one_object(home: str) -> None:
    agent = pdu(silent=True)
    started_s = time.monotonic()
    found = fetched(agent, home, [*cells(range(1, 25)), f"{SYSTEM}.5.0", f"{SYSTEM}.6.0"])
    assert set(found.values()) == {Absence.TIMEOUT}
    assert agent.heard == [("get", [f"{SYSTEM}.5.0"])]
    assert 0.15 <= time.monotonic() - started_s < 0.6


def test_an_agent_that_has_died_since_costs_one_request(home: str) -> None:
    agent = pdu()

    async def use(client: SnmpAgent) -> dict[str, object]:
        await client.fetch(cells(range(1, 25)), temper=TEMPER)
        agent.silent, agent.mute_bulks_above = True, 0
        agent.heard.clear()
        return shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))

    assert set(asked(agent, home, use).values()) == {Absence.TIMEOUT}
    assert len(agent.heard) == 1


def test_a_dead_agent_does_not_teach_that_it_bears_less(home: str) -> None:
    agent = pdu()

    async def use(client: SnmpAgent) -> dict[str, object]:
        await client.fetch(cells(range(1, 25)), temper=TEMPER)
        agent.silent, agent.mute_bulks_above = True, 0
        for _ in range(3):
            await client.fetch(cells(range(1, 25)), temper=TEMPER)
        agent.silent, agent.mute_bulks_above = False, None
        agent.repetitions.clear()
        return shown(await client.fetch(cells(range(1, 25)), temper=TEMPER))

    assert asked(agent, home, use) == rows_of(range(1, 25))
    assert agent.repetitions[0] == 10


def test_after_a_silence_an_agent_is_found_alive_by_a_smaller_request(home: str) -> None:
    agent = pdu()

    async def use(client: SnmpAgent) -> list[dict[str, object]]:
        await client.fetch(cells(range(1, 25)), temper=TEMPER)
        agent.mute_bulks_above = 0  # new firmware
        return [shown(await client.fetch(cells(range(1, 25)), temper=TEMPER)) for _ in range(2)]

    first, second = asked(agent, home, use)
    assert set(first.values()) == {Absence.TIMEOUT}
    assert second == rows_of(range(1, 25))


def test_what_nobody_waits_for_costs_nothing(home: str) -> None:
    async def use(client: SnmpAgent) -> float:
        await client.fetch([f"{COLUMN}.1"], temper=TEMPER)
        before_s = time.process_time()
        await asyncio.sleep(0.3)
        return time.process_time() - before_s

    assert asked(pdu(twice=True, delay_s=0.02), home, use) < 0.1


def test_nobody_at_the_port_is_a_timeout_that_says_what_to_check(home: str) -> None:
    async def run() -> Answer:
        agent = pdu()
        async with serving(agent):
            pass
        client = SnmpAgent(address(agent), time.monotonic, home=home)
        answers = await client.fetch([f"{COLUMN}.1"], temper=TEMPER)
        await client.close()
        return answers[f"{COLUMN}.1"]

    raw = asyncio.run(run()).raw
    assert isinstance(raw, NoAnswer)
    assert raw.absence is Absence.TIMEOUT
    assert "check address, port, SNMP version, community" in raw.detail


def test_a_name_that_nobody_knows_is_a_timeout_that_says_so(home: str) -> None:
    async def run() -> Answer:
        parsed = parse_url("snmp://public@no-such-host.invalid", {})
        assert isinstance(parsed, SnmpAddress)
        client = SnmpAgent(parsed, time.monotonic, home=home)
        answers = await client.fetch([f"{COLUMN}.1"], temper=Temper(5.0, 9.0, 10, 10))
        await client.close()
        return answers[f"{COLUMN}.1"]

    raw = asyncio.run(run()).raw
    assert isinstance(raw, NoAnswer)
    assert raw.absence is Absence.TIMEOUT


def test_a_wrong_community_is_silence_and_is_not_printed(home: str) -> None:
    agent = pdu(community="s3cret")
    found = asked(agent, home, lambda client: client.fetch([f"{COLUMN}.1"], temper=TEMPER))
    raw = found[f"{COLUMN}.1"].raw
    assert isinstance(raw, NoAnswer)
    assert "community (a wrong one gets no answer)" in raw.detail
    assert "public" not in raw.detail


@pytest.mark.parametrize("lost", range(2, 6))
def test_a_lost_datagram_is_asked_for_again(home: str, lost: int) -> None:
    agent = pdu()
    original = agent.datagram_received

    def lose_one(data: bytes, sender: Any) -> None:
        agent.mute_next = 1 if len(agent.heard) == lost - 1 else 0
        original(data, sender)

    agent.datagram_received = lose_one  # type: ignore[method-assign]
    oids = cells(range(1, 25)) + cells(range(1, 4), NEXT_COLUMN) + [f"{SYSTEM}.5.0"]
    assert fetched(agent, home, oids) == rows_of(range(1, 25)) | rows_of(
        range(1, 4), 100, NEXT_COLUMN
    ) | {f"{SYSTEM}.5.0": b"a pdu"}


@pytest.mark.parametrize(("delay_s", "pause_s"), [(0.2, 0.0), (0.0, 0.2)])
def test_a_read_takes_no_longer_than_it_may(home: str, delay_s: float, pause_s: float) -> None:
    temper = Temper(2.0, read_s_max=0.5, oids_per_get_max=1, repetitions_max=0, pause_s=pause_s)
    started_s = time.monotonic()
    found = fetched(pdu(delay_s=delay_s), home, cells(range(1, 25)), temper)
    assert time.monotonic() - started_s < 0.9
    assert found[f"{COLUMN}.1"] == 1
    assert found[f"{COLUMN}.24"] is Absence.TIMEOUT


def test_an_agent_that_vanishes_and_comes_back_is_read_again(home: str) -> None:
    async def run() -> list[object]:
        agent = pdu()
        found: list[object] = []
        async with serving(agent):
            client = SnmpAgent(address(agent), time.monotonic, home=home)
            found += shown(await client.fetch([f"{COLUMN}.7"], temper=TEMPER)).values()
        found += shown(await client.fetch([f"{COLUMN}.7"], temper=TEMPER)).values()
        async with serving(agent, port=agent.port):
            found += shown(await client.fetch([f"{COLUMN}.7"], temper=TEMPER)).values()
            await client.close()
            found += shown(await client.fetch([f"{COLUMN}.7"], temper=TEMPER)).values()
            await client.close()
        return found

    assert asyncio.run(run()) == [7, Absence.TIMEOUT, 7, 7]


def test_who_waits_for_the_agent_longer_than_a_read_may_take_leaves(home: str) -> None:
    async def run() -> list[float]:
        agent = pdu(silent=True)
        slow, temper = Temper(1.0, 1.0, 5, 10), Temper(0.3, 0.35, 5, 10)
        async with serving(agent):
            clients = [SnmpAgent(address(agent), time.monotonic, home=home) for _ in range(6)]

            async def timed(client: SnmpAgent) -> float:
                began_s = time.monotonic()
                answers = await client.fetch([f"{COLUMN}.1"], temper=temper)
                assert shown(answers) == {f"{COLUMN}.1": Absence.TIMEOUT}
                return time.monotonic() - began_s

            first = asyncio.ensure_future(clients[0].fetch([f"{COLUMN}.1"], temper=slow))
            await asyncio.sleep(0)
            took_s = await asyncio.gather(*(timed(client) for client in clients[1:]))
            await first
            for client in clients:
                await client.close()
            return took_s

    assert max(asyncio.run(run())) < 0.7


# ── version 3 ─────────────────────────────────────────────────────────────────────


class Slow(asyncio.DatagramProtocol):
    """Stands between, and keeps what the agent says until it is let go."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[bytes] = []
        self.kept: list[bytes] = []
        self.is_open = False

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport
        self.asker: tuple[str, int] = ("", 0)

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        if sender[1] != self.port:
            self.asker = sender
            self.asked.append(data)
            self.transport.sendto(data, ("127.0.0.1", self.port))
        elif self.is_open:
            self.transport.sendto(data, self.asker)
        else:
            self.kept.append(data)

    def let_go(self) -> None:
        self.is_open = True
        for data in self.kept:
            self.transport.sendto(data, self.asker)


@pytest.mark.skipif(SNMPD is None, reason="NOT TESTED: snmpd is not installed (Debian: snmpd)")
def test_an_snmpv3_set_that_nobody_waits_for_any_more_is_not_sent(tmp_path: Path) -> None:
    """First the engine asks the agent who it is; the answer comes after the timeout."""
    contact = "1.3.6.1.2.1.1.4.0"

    async def run(port: int) -> tuple[object, object, int]:
        transport, slow = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Slow(port), local_addr=("127.0.0.1", 0)
        )
        between = transport.get_extra_info("sockname")[1]
        parsed = parse_url(f"snmp3://ops@127.0.0.1:{between}", {})
        assert isinstance(parsed, SnmpAddress)
        agent = SnmpAgent(parsed, time.monotonic)
        written = await agent.write(contact, b"too late", "text", timeout_s=0.5)
        asked_before = len(slow.asked)
        slow.let_go()
        temper = Temper(2.0, 5.0, 10, 10)
        answers = await agent.fetch([contact], temper=temper)
        await agent.close()
        transport.close()
        assert isinstance(written, NoAnswer)
        return written.absence, answers[contact].raw, asked_before

    with running(tmp_path, "createUser ops\nrwuser ops noauth") as snmpd:
        absence, raw, asked_before = asyncio.run(run(snmpd.port))
    assert absence is Absence.TIMEOUT
    assert isinstance(raw, bytes) and raw != b"too late"
    assert asked_before == 1


# ── anything may come ─────────────────────────────────────────────────────────────


def was_said(oid: str, number: int, datagrams: list[bytes]) -> bool:
    """Somewhere in what was sent the object's name is followed by this number."""
    name = ber_oid(as_arcs(oid))[2:]
    for datagram in datagrams:
        at = datagram.find(name)
        while at >= 0:
            value = datagram[at + len(name) :]
            if len(value) > 2 and int.from_bytes(value[2 : 2 + value[1]], "big", signed=True) == (
                number
            ):
                return True
            at = datagram.find(name, at + 1)
    return False


FAULTS = st.tuples(
    st.sampled_from(["whole", "octet", "cut", "double", "other"]),
    st.floats(0.0, 0.999),
    st.integers(0, 255),
    st.binary(max_size=60),
)


def mangled(datagram: bytes, fault: tuple[str, float, int, bytes]) -> bytes:
    kind, where, octet, other = fault
    at = int(where * len(datagram))
    return {
        "whole": datagram,
        "octet": datagram[:at] + bytes([octet]) + datagram[at + 1 :],
        "cut": datagram[:at],
        "double": datagram[:at] + datagram[at:] + datagram[at:],
        "other": other,
    }[kind]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(faults=st.lists(FAULTS, max_size=12))
def test_whatever_comes_no_number_is_made_up(
    home: str, faults: list[tuple[str, float, int, bytes]]
) -> None:
    """Octets of answers are changed, cut, doubled, or replaced altogether."""
    coming = list(faults)
    agent = pdu(mangle=lambda datagram: mangled(datagram, coming.pop(0)) if coming else datagram)
    temper = Temper(timeout_s=0.03, read_s_max=0.3, oids_per_get_max=5, repetitions_max=8)
    oids = cells(range(1, 25)) + cells(range(1, 4), NEXT_COLUMN) + [f"{SYSTEM}.6.0"]
    found = fetched(agent, home, oids, temper)
    assert list(found) == list(oids)
    numbers = {oid: raw for oid, raw in found.items() if isinstance(raw, int)}
    assert all(was_said(oid, number, agent.answered) for oid, number in numbers.items())
