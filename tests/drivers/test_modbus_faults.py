"""RTU over real sockets and pseudo terminals: late, lost and damaged answers never become
a value, and the true values come back.

The bus answers in order and keeps no other promise (`served_rtu`). Reads of one length at
different addresses, so that nothing but the order tells their answers apart; every value
says from where and when it was read.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from served_rtu import Fate, RtuBus, rtu_over_serial, rtu_over_tcp

from drivers import modbus, modbus_line
from drivers.address import ModbusAddress, parse_url
from drivers.modbus import ModbusUnit
from drivers.modbus_frames import Frame, Request, Shape
from drivers.modbus_order import Unanswered, Verdict
from drivers.plan import Span
from drivers.points import Source
from drivers.reading import Absence, Answer, NoAnswer, Place

TIMEOUT_S = 0.05
RECOVERY_S_MAX = 20.0
LATE = [0.0, 1.0 * TIMEOUT_S, 1.5 * TIMEOUT_S, 3.0 * TIMEOUT_S]

ONE = [Span("holding", 0x10, 2, ((0x10, 2),)), Span("holding", 0x40, 2, ((0x40, 2),))]
SEVERAL = [
    Span("holding", 0x10, 6, ((0x10, 2), (0x12, 2), (0x14, 2))),
    Span("holding", 0x40, 6, ((0x40, 2), (0x42, 2), (0x44, 2))),
]
SINGLE = [Span("input", 0x10, 1, ((0x10, 1),)), Span("input", 0x40, 1, ((0x40, 1),))]


@pytest.fixture(autouse=True)
def nothing_owed_yet() -> None:
    """A free port may have been another test's, and what is owed outlives a line."""
    modbus._debts.clear()


def unit_at(url: str) -> ModbusUnit:
    address = parse_url(url, {})
    assert isinstance(address, ModbusAddress)
    return ModbusUnit(address, time.monotonic)


def false_values(bus: RtuBus, answers: dict[Place, Answer]) -> list[object]:
    """What was reported and is not true: from another register, or read before we asked."""
    found = []
    for place, answer in answers.items():
        if isinstance(answer.raw, NoAnswer):
            continue
        address, number = divmod(int(answer.raw), 256)  # type: ignore[arg-type]
        if address != place[1] or bus.heard_at_s[number] < answer.asked_at_s:
            found.append((place, answer))
    return found


def is_complete(answers: dict[Place, Answer]) -> bool:
    return not any(isinstance(answer.raw, NoAnswer) for answer in answers.values())


async def read_until_true(bus: RtuBus, unit: ModbusUnit, spans: list[Span]) -> list[object]:
    """Reads the spans in turn while the script lasts, and on until both are there."""
    wrong: list[object] = []
    complete_in_a_row = 0
    give_up_at_s = time.monotonic() + RECOVERY_S_MAX
    for n in itertools.count():
        answers = await unit.fetch([spans[n % 2]], timeout_s=TIMEOUT_S, read_s_max=5.0)
        wrong += false_values(bus, answers)
        complete_in_a_row = complete_in_a_row + 1 if is_complete(answers) else 0
        if not bus.fates and complete_in_a_row >= 2:
            return wrong
        if time.monotonic() > give_up_at_s:
            break
        if not complete_in_a_row:
            await asyncio.sleep(0.01)  # a busy machine may not even have connected in time
    raise AssertionError(f"no true values again after {bus.heard}")


async def over_tcp(fates: Iterable[Fate], spans: list[Span], **how: Any) -> list[object]:
    bus = RtuBus(fates=list(fates), **how)
    async with rtu_over_tcp(bus) as port:
        unit = unit_at(f"modbus+rtutcp://127.0.0.1:{port}/1")
        try:
            return await read_until_true(bus, unit, spans)
        finally:
            await unit.close()


async def over_serial(fates: Iterable[Fate], spans: list[Span], **how: Any) -> list[object]:
    bus = RtuBus(fates=list(fates), **how)
    async with rtu_over_serial(bus) as path:
        unit = unit_at(f"modbus+rtu://{path}?unit=1&baud=115200")
        try:
            return await read_until_true(bus, unit, spans)
        finally:
            await unit.close()


def side_by_side(runs: Iterable[Coroutine[Any, Any, list[object]]], width: int) -> list[object]:
    """All of `runs`, `width` at a time: nearly all of their time is waiting."""

    async def go() -> list[object]:
        wrong: list[object] = []
        queue = iter(runs)

        async def work() -> None:
            for run in queue:
                wrong.extend(await run)

        await asyncio.gather(*(work() for _ in range(width)))
        return wrong

    return asyncio.run(go())


EVERY_LATENESS = list(
    itertools.product([Fate(s) for s in LATE] + [Fate(0, "lost")], repeat=4)
)  # fmt: skip


def test_no_interleaving_of_late_and_lost_answers_gives_a_wrong_value() -> None:
    spans = itertools.cycle([ONE, SEVERAL, SINGLE])
    runs = (over_tcp(fates, next(spans)) for fates in EVERY_LATENESS)
    assert side_by_side(runs, 64) == []


def test_over_a_serial_port_neither() -> None:
    runs = (over_serial(fates, ONE) for fates in EVERY_LATENESS[::11])
    assert side_by_side(runs, 16) == []


def test_order_alone_is_enough_without_any_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request right after a timeout, each on a new connection, to which the gateway
    hands the old answers."""
    monkeypatch.setattr(modbus_line, "SILENCES_MAX", 1)
    spans = itertools.cycle([ONE, SEVERAL, SINGLE])
    runs = (over_tcp(fates, next(spans)) for fates in EVERY_LATENESS[::3])
    assert side_by_side(runs, 64) == []


FAULTS = ["whole", "whole", "lost", "damaged", "cut", "foreign", "noisy", "refused", "in pieces"]


def random_fates(seed: int) -> list[Fate]:
    rng = random.Random(seed)
    return [Fate(rng.choice(LATE), rng.choice(FAULTS)) for _ in range(rng.randrange(1, 8))]


def test_no_mixture_of_faults_gives_a_wrong_value() -> None:
    def runs() -> Iterable[Coroutine[Any, Any, list[object]]]:
        for seed in range(160):
            spans = (ONE, SEVERAL, SINGLE)[seed % 3]
            # Some units refuse the lengths that would stand in for the wanted one.
            lengths = (spans[0].count,) if seed % 4 == 0 else ()
            yield over_tcp(random_fates(seed), spans, lengths=lengths, echo=seed % 5 == 0)

    assert side_by_side(runs(), 48) == []


def test_a_line_that_believes_every_fitting_frame_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other tests of this module can fail."""

    def believes(owed: Unanswered, frame: Frame, asked: Request | None) -> Verdict:
        return Verdict.ANSWER if asked is not None and asked.fits(frame) else Verdict.FOREIGN

    monkeypatch.setattr(Unanswered, "heard", believes)
    monkeypatch.setattr(Unanswered, "is_owed", lambda owed, shape: False)
    fates = [Fate(3.0 * TIMEOUT_S)] * 4
    assert side_by_side([over_tcp(fates, ONE)], 1) != []


def test_a_line_that_only_waits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It strikes out what is late, but does not choose another length."""
    monkeypatch.setattr(Unanswered, "is_owed", lambda owed, shape: False)
    heard = Unanswered.heard

    def believes(owed: Unanswered, frame: Frame, asked: Request | None) -> Verdict:
        if asked is not None and asked.fits(frame):
            return Verdict.ANSWER
        return heard(owed, frame, asked)

    monkeypatch.setattr(Unanswered, "heard", believes)
    runs = (over_tcp(fates, ONE) for fates in EVERY_LATENESS[::7])
    assert side_by_side(runs, 32) != []


def with_bus(bus: RtuBus, use: Callable[[str], Coroutine[Any, Any, Any]]) -> Any:
    """Runs `use` with the host and port of `bus`."""

    async def run() -> Any:
        async with rtu_over_tcp(bus) as port:
            return await use(f"modbus+rtutcp://127.0.0.1:{port}")

    return asyncio.run(run())


def test_two_units_on_one_bus_do_not_take_each_others_late_answers() -> None:
    async def use(url: str) -> list[object]:
        one, two = unit_at(f"{url}/1"), unit_at(f"{url}/2")
        wrong: list[object] = []
        for _ in range(12):
            answers = await asyncio.gather(
                one.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5),
                two.fetch([ONE[1]], timeout_s=TIMEOUT_S, read_s_max=5),
            )
            wrong += [f for told in answers for f in false_values(bus, told)]
            if not bus.fates and all(map(is_complete, answers)):
                return wrong
        await asyncio.gather(one.close(), two.close())
        raise AssertionError("no true values again")

    bus = RtuBus(units=(1, 2), fates=[Fate(s) for s in (0.07, 0, 0.15, 0.06, 0, 0.1)])
    assert with_bus(bus, use) == []
    assert bus.connections == 1


def test_a_late_answer_is_remembered_when_the_line_is_closed_and_opened_again() -> None:
    async def use(url: str) -> dict[Place, Answer]:
        unit = unit_at(f"{url}/1")
        await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5)
        await unit.close()
        again = unit_at(f"{url}/1")
        answers = await again.fetch([ONE[1]], timeout_s=TIMEOUT_S, read_s_max=5)
        await again.close()
        return answers

    # The second answer would be in time for nothing; the first is, for the wrong request.
    bus = RtuBus(fates=[Fate(1.5 * TIMEOUT_S), Fate(0)])
    answers = with_bus(bus, use)
    assert false_values(bus, answers) == []
    assert bus.connections == 2
    assert [count for _, _, _, count in bus.heard][:2] != [2, 2]


async def left_alone(bus: RtuBus, unit: ModbusUnit, span: Span) -> None:
    """A read of `span` that is given up by who asked, when the bus has heard it."""
    heard = len(bus.heard)
    reading = asyncio.ensure_future(unit.fetch([span], timeout_s=TIMEOUT_S * 4, read_s_max=5))
    for _ in range(2000):  # at most 2 s
        if len(bus.heard) > heard:
            break
        await asyncio.sleep(0.001)
    assert len(bus.heard) > heard  # else nothing was given up that could come late
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert reading.cancelled()


@pytest.mark.parametrize("delay_s", [0.02, 0.05, TIMEOUT_S * 5])
def test_the_answer_to_a_read_that_was_left_alone_is_not_the_next_ones(delay_s: float) -> None:
    async def use(url: str) -> tuple[dict[Place, Answer], NoAnswer | None]:
        unit = unit_at(f"{url}/1")
        await left_alone(bus, unit, ONE[0])
        answers = await unit.fetch([ONE[1]], timeout_s=TIMEOUT_S * 4, read_s_max=5)
        await left_alone(bus, unit, ONE[0])
        done = await unit.write(LIMIT, 900, timeout_s=TIMEOUT_S * 4)
        await unit.close()
        return answers, done

    fast = Fate(0.01)
    bus = RtuBus(fates=[Fate(delay_s), fast, fast, fast])
    answers, done = with_bus(bus, use)
    assert is_complete(answers) and false_values(bus, answers) == []
    assert done is None


def test_a_write_after_a_read_that_was_left_alone_waits_for_its_answer_and_no_longer() -> None:
    async def use(url: str) -> float:
        unit = unit_at(f"{url}/1")
        await unit.fetch([ONE[0]], timeout_s=1.0, read_s_max=5)
        await left_alone(bus, unit, ONE[0])
        began_s = time.monotonic()
        assert await unit.write(LIMIT, 900, timeout_s=1.0) is None
        took_s = time.monotonic() - began_s
        await unit.close()
        return took_s

    bus = RtuBus(fates=[Fate(), Fate(0.05)])
    assert with_bus(bus, use) < 0.15  # not the timeout, nor a time of quiet after it


def test_a_line_that_is_closed_over_an_open_request_remembers_it() -> None:
    async def use(url: str) -> dict[Place, Answer]:
        unit = unit_at(f"{url}/1")
        await left_alone(bus, unit, ONE[0])
        await unit.close()
        again = unit_at(f"{url}/1")
        answers = await again.fetch([ONE[1]], timeout_s=TIMEOUT_S * 4, read_s_max=5)
        await again.close()
        return answers

    bus = RtuBus(fates=[Fate(0.05), Fate(0.05)])
    answers = with_bus(bus, use)
    assert false_values(bus, answers) == []
    assert bus.connections == 2
    assert [count for _, _, _, count in bus.heard][:2] != [2, 2]


def test_a_request_that_ends_with_its_event_loop_is_still_owed() -> None:
    async def run() -> None:
        port = await served.__aenter__()  # still there when the loop ends
        await left_alone(bus, unit_at(f"modbus+rtutcp://127.0.0.1:{port}/1"), ONE[0])

    bus = RtuBus(fates=[Fate(0, "lost")])
    served = rtu_over_tcp(bus)
    asyncio.run(run())
    (debts,) = modbus._debts.values()
    assert debts[1].is_owed(Shape(3, 6))


def test_late_answers_are_counted() -> None:
    async def use(url: str) -> tuple[int, int]:
        unit = unit_at(f"{url}/1")
        before = unit.dropped
        await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5)
        await unit.fetch([ONE[1]], timeout_s=TIMEOUT_S, read_s_max=5)
        dropped = unit.dropped
        await unit.close()
        return before, dropped

    assert with_bus(RtuBus(fates=[Fate(1.5 * TIMEOUT_S)]), use) == (0, 1)


def test_a_timeout_says_that_something_else_came() -> None:
    async def use(url: str) -> str:
        unit = unit_at(f"{url}/1")
        answers = await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5)
        later = await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5)
        await unit.close()
        assert is_complete(later)
        raw = answers["holding", 0x10].raw
        assert isinstance(raw, NoAnswer) and raw.absence is Absence.TIMEOUT
        return raw.detail

    assert "late, damaged or foreign" in with_bus(RtuBus(fates=[Fate(0, "damaged")]), use)


def test_a_silent_gateways_connection_is_made_anew() -> None:
    async def use(url: str) -> dict[Place, Answer]:
        unit = unit_at(f"{url}/1")
        for _ in range(8):
            answers = await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5)
        await unit.close()
        return answers

    bus = RtuBus(fates=[Fate(0, "lost")] * 4)
    assert is_complete(with_bus(bus, use))
    assert bus.connections == 2


COIL = Source("bit", table="coil", address=3)
LIMIT = Source("uint16", table="holding", address=3)
LONG_LIMIT = Source("uint32", table="holding", address=3)
WRITES = [(COIL, 1), (LIMIT, 900), (LONG_LIMIT, 70_000)]


@pytest.mark.parametrize(("target", "raw"), WRITES)
@pytest.mark.parametrize("echo", [False, True])
def test_a_write_is_sent_once_and_acknowledged(target: Source, raw: int, echo: bool) -> None:
    async def use(url: str) -> NoAnswer | None:
        unit = unit_at(f"{url}/1")
        done = await unit.write(target, raw, timeout_s=TIMEOUT_S * 4)
        await unit.close()
        return done

    bus = RtuBus(echo=echo)
    assert with_bus(bus, use) is None
    assert len([function for _, function, _, _ in bus.heard if function in (5, 6, 16)]) == 1
    assert bus.written[3] == {900: 900, 1: 0xFF00, 70_000: 1}[raw]


@pytest.mark.parametrize(("target", "raw"), WRITES)
@pytest.mark.parametrize("echo", [False, True])
def test_an_echo_is_not_an_acknowledgement(target: Source, raw: int, echo: bool) -> None:
    async def use(url: str) -> tuple[NoAnswer | None, dict[Place, Answer]]:
        unit = unit_at(f"{url}/1")
        await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S * 4, read_s_max=5)
        done = await unit.write(target, raw, timeout_s=TIMEOUT_S)
        proof = await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S * 4, read_s_max=5)
        await unit.close()
        return done, proof

    bus = RtuBus(echo=echo, fates=[Fate(), Fate(0, "lost")])
    done, proof = with_bus(bus, use)
    assert isinstance(done, NoAnswer) and done.absence is Absence.TIMEOUT
    assert is_complete(proof)
    assert len([function for _, function, _, _ in bus.heard if function in (5, 6, 16)]) == 1


@pytest.mark.parametrize(("target", "raw"), WRITES)
@pytest.mark.parametrize("late_s", [1.5 * TIMEOUT_S, 3 * TIMEOUT_S])
def test_a_late_acknowledgement_confuses_neither_a_read_nor_the_next_write(
    target: Source, raw: int, late_s: float
) -> None:
    async def use(url: str) -> list[Any]:
        unit = unit_at(f"{url}/1")
        told: list[Any] = [await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5)]
        told.append(await unit.write(target, raw, timeout_s=TIMEOUT_S))
        told.append(await unit.fetch([ONE[1]], timeout_s=TIMEOUT_S * 4, read_s_max=5))
        told.append(await unit.write(target, raw, timeout_s=TIMEOUT_S * 4))
        await unit.close()
        return told

    bus = RtuBus(fates=[Fate(), Fate(late_s)])
    before, late, proof, again = with_bus(bus, use)
    assert is_complete(before) and is_complete(proof)
    assert false_values(bus, proof) == []
    assert isinstance(late, NoAnswer) and late.absence is Absence.TIMEOUT
    assert again is None
    assert len([function for _, function, _, _ in bus.heard if function in (5, 6, 16)]) == 2


def test_the_same_write_again_is_not_acknowledged_by_the_first_ones_late_answer() -> None:
    async def use(url: str) -> list[NoAnswer | None]:
        unit = unit_at(f"{url}/1")
        await unit.fetch([ONE[0]], timeout_s=TIMEOUT_S, read_s_max=5)
        told = [await unit.write(LIMIT, 900, timeout_s=TIMEOUT_S) for _ in range(2)]
        await unit.close()
        return told

    # The first acknowledgement comes when the second one is waited for, which is lost.
    bus = RtuBus(fates=[Fate(), Fate(2.5 * TIMEOUT_S), Fate(0, "lost")])
    told = with_bus(bus, use)
    assert [done.absence if done else None for done in told] == [Absence.TIMEOUT] * 2


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("how", ["whole", "noisy", "in pieces"])
def test_an_identification_is_read_page_by_page(echo: bool, how: str) -> None:
    async def use(url: str) -> dict[int, str] | NoAnswer:
        unit = unit_at(f"{url}/1")
        told = await unit.identification(timeout_s=TIMEOUT_S * 10)
        await unit.close()
        return told

    objects = {0: b"ACME", 1: b"M-1\0", 2: b"V1.0", 4: b"Meter", 5: "Größe".encode()}
    bus = RtuBus(objects=objects, echo=echo, fates=[Fate(0, how)] * 5)
    assert with_bus(bus, use) == {0: "ACME", 1: "M-1", 2: "V1.0", 4: "Meter", 5: "Größe"}


def test_an_identification_that_was_lost_can_be_asked_for_again() -> None:
    async def use(url: str) -> list[dict[int, str] | NoAnswer]:
        unit = unit_at(f"{url}/1")
        told = [await unit.identification(timeout_s=TIMEOUT_S * 2) for _ in range(2)]
        await unit.close()
        return told

    lost, told = with_bus(RtuBus(objects={0: b"ACME"}, fates=[Fate(0, "lost")]), use)
    assert isinstance(lost, NoAnswer) and lost.absence is Absence.TIMEOUT
    assert told == {0: "ACME"}


def test_a_device_that_does_not_know_identification_refuses_it() -> None:
    async def use(url: str) -> dict[int, str] | NoAnswer:
        unit = unit_at(f"{url}/1")
        told = await unit.identification(timeout_s=TIMEOUT_S * 4)
        await unit.close()
        return told

    told = with_bus(RtuBus(), use)
    assert isinstance(told, NoAnswer) and told.absence is Absence.REFUSED


@pytest.mark.parametrize("unit", [1, 247, 248, 255])
def test_every_unit_number_is_reached_over_rtu(unit: int) -> None:
    async def use(url: str) -> dict[Place, Answer]:
        there = unit_at(f"{url}/{unit}")
        answers = await there.fetch(SEVERAL, timeout_s=TIMEOUT_S * 4, read_s_max=5)
        await there.close()
        return answers

    bus = RtuBus(units=(unit,))
    answers = with_bus(bus, use)
    assert is_complete(answers) and false_values(bus, answers) == []
