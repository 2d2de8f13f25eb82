"""Every queue of the shell has a limit, and this is what happens at it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from limiter_bench import only, register
from site_files import GOOD, read

from broker.effects import Event, JournalRecord, Level, Publish
from broker.messages import (
    CAPS_MAX,
    RACKS_MAX,
    Ballot,
    CapValue,
    MarketState,
    Presence,
    Roster,
    RosterCap,
    RosterRack,
)
from broker.mqtt_values import Connected, Received
from broker.topics import Kind, Topic
from drivers.device import open_device
from drivers.profile import load_profile
from drivers.reading import Absence, Executed
from firmware_py.journal import FILE_BYTES_MAX, Journal
from firmware_py.limiter import WRITES_MAX, Command, CommandDone
from firmware_py.poller import COMMANDS_WAITING_MAX, Poller
from firmware_py.runtime import EVENTS_KNOWN_MAX, INBOX_MAX, EventLog, Runtime


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A controller whose loop is busy with something else."""
    site = read(GOOD)
    with Journal(tmp_path) as journal:
        yield Runtime(site, site.rack("r2"), journal)


def heard(number: int) -> Received:
    return Received("wattbroker/lab/broker", str(number).encode(), False, 1)


# ---- the inbox -----------------------------------------------------------------------------


class BusyLoop:
    """Stands where the event loop is; what it is called for waits."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        self.calls.append(call)


def test_behind_a_busy_loop_messages_wait_up_to_a_limit_and_call_it_once(runtime: Runtime) -> None:
    loop: Any = BusyLoop()
    runtime._loop = loop
    for number in range(INBOX_MAX + 500):
        runtime._from_link(heard(number))
    assert len(runtime._messages) == INBOX_MAX
    assert runtime._messages[0] == heard(0)  # what came first is kept: it is served first
    assert runtime._dropped == 500
    assert len(loop.calls) == 1
    loop.calls.pop()()
    assert runtime._called.is_set()
    runtime._messages.clear()
    runtime._from_link(heard(1))
    assert len(loop.calls) == 1


def test_that_the_link_came_or_went_is_never_dropped(runtime: Runtime) -> None:
    loop: Any = BusyLoop()
    runtime._loop = loop
    for number in range(INBOX_MAX + 1):
        runtime._from_link(heard(number))
    runtime._from_link(Connected(2, "5"))
    assert runtime._messages[-1] == Connected(2, "5")


# ---- out -----------------------------------------------------------------------------------


class SentLog:
    def __init__(self) -> None:
        self.topics: list[str] = []

    def publish(self, topic: str, payload: bytes, retain: bool, *, session: int | None) -> None:
        self.topics.append(topic)


def test_a_message_that_nobody_would_read_is_not_sent_and_said(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    link: Any = SentLog()
    runtime._link = link
    caplog.set_level(logging.ERROR, "wattbroker")
    allocation_w = {f"r{number:060}": 1 for number in range(10_000)}
    state = MarketState(
        ballot=Ballot(1, "r1"), mechanism="exact", price={}, allocation_w=allocation_w,
        violation_w=0.0, kkt=0.0, iterations=1,
    )  # fmt: skip
    runtime._publish(Publish(Topic(Kind.MARKET), state, retain=True))
    runtime._publish(Publish(Topic(Kind.ONLINE, "r2"), Presence.ONLINE, retain=True))
    assert link.topics == ["wattbroker/lab/racks/r2/online"]
    assert "message too large to be sent topic=wattbroker/lab/market" in caplog.text


# ---- commands ------------------------------------------------------------------------------


def poller(put: Callable[[Any], None]) -> Poller:
    device = open_device(
        "modbus://127.0.0.1:9/1", load_profile("generic-power-limit"), clock=time.monotonic
    )
    return Poller(
        "cap", device, ("limit.realpower",), poll_s=1.0, candidates=list,
        clock=time.monotonic, put=put, say=lambda _: None,
    )  # fmt: skip


def test_of_too_many_commands_the_oldest_is_given_up_and_said_to_be() -> None:
    async def run() -> list[CommandDone]:
        given_up: list[CommandDone] = []
        waiting = poller(given_up.append)
        for number in range(COMMANDS_WAITING_MAX + 3):
            waiting.submit(Command(number, "limit.realpower", number, raises=True))
        return given_up

    assert [(done.id, done.executed) for done in asyncio.run(run())] == [
        (0, None), (1, None), (2, None),
    ]  # fmt: skip


# ---- writes that may still take effect -----------------------------------------------------


def lower(bench: Any, granted_w: int, now: float) -> None:
    """One lowering whose answer comes at once, and after which nothing can be read."""
    command = only(bench.limit(granted_w, now=now))
    executed = Executed(command.name, command.value, now, now, Absence.TIMEOUT, "", None)
    bench.limiter.done(CommandDone(command.id, executed, now), now=now)


def test_hardware_that_never_shows_its_setting_again_is_written_for_ever_in_bounded_memory() -> (
    None
):
    bench = register()
    bench.read(now=50.0, limit=3000)
    lower(bench, 1000, 60.0)
    for second in range(61, 400):
        for command in bench.read(now=float(second), limit=None):
            executed = Executed(
                command.name, command.value, second, second, Absence.TIMEOUT, "", None
            )
            bench.limiter.done(CommandDone(command.id, executed, second), now=float(second))
    assert len(bench.limiter._writes) == 1
    assert bench.limiter.bound_w == 3000  # as last read: nothing has proven more


def test_of_too_many_writes_the_two_oldest_count_as_one_at_the_larger_value() -> None:
    bench = register()
    bench.read(now=50.0, limit=500)
    command = only(bench.limit(4000, now=60.0))
    done = Executed(command.name, command.value, 60.0, 60.0, None, "", None)
    bench.limiter.done(CommandDone(command.id, done, 60.0), now=60.0)
    for number in range(3 * WRITES_MAX):
        lower(bench, 3900 - number, 61.0 + number)
    writes = bench.limiter._writes
    assert len(writes) == WRITES_MAX
    assert bench.limiter.bound_w == 4000  # the raise may still take effect: it was not read since
    assert writes[0].value == 4000
    bench.read(now=61.0 + 3 * WRITES_MAX + 1.0, limit=3900 - 3 * WRITES_MAX + 1)
    assert len(bench.limiter._writes) == 0


# ---- the log -------------------------------------------------------------------------------


def test_the_log_forgets_what_it_has_said_before_it_remembers_too_much(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wattbroker")
    told = EventLog()
    first = Event(Level.INFO, "grant refused", (("reason", 0),))
    told.say(first)
    told.say(first)
    assert len(caplog.records) == 1  # the same line, within ten seconds
    for number in range(1, EVENTS_KNOWN_MAX + 1):
        told.say(Event(Level.INFO, "grant refused", (("reason", number),)))
        assert len(told._said_at_s) <= EVENTS_KNOWN_MAX
    told.say(first)
    assert len(caplog.records) == EVENTS_KNOWN_MAX + 2


# ---- the journal ---------------------------------------------------------------------------


def test_the_largest_record_that_there_can_be_is_read_again(tmp_path: Path) -> None:
    def name(letter: str, number: int) -> str:
        return f"{letter}{number}".ljust(64, "x")

    roster = Roster(
        name=Ballot(2**52, name("r", 0)),
        racks=tuple(
            RosterRack(rack=name("r", n), rank=n, floor_w=10**8, ceiling_w=10**8, cap=name("c", 0))
            for n in range(RACKS_MAX)
        ),
        caps=tuple(RosterCap(cap=name("c", n), limit_w=10**8) for n in range(CAPS_MAX)),
    )
    values = {
        name("c", n): {name("s", s): CapValue(2**53 - 1, 10**9) for s in range(64)}
        for n in range(CAPS_MAX)
    }
    record = JournalRecord(
        Ballot(2**52, name("r", 0)), 2**53 - 1, True, roster.name, values, members=roster
    )
    with Journal(tmp_path) as journal:
        journal.write(record)
        assert journal.path.stat().st_size < FILE_BYTES_MAX
        assert journal.load() == (record, "")
