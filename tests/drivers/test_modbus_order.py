"""No frame of a unit that answers in order is ever taken for another request's answer."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus import _choice
from drivers.modbus_frames import Frame, Request, find_rtu, read_request, registers_request
from drivers.modbus_order import RUNS_MAX, Unanswered, Verdict
from drivers.plan import Span

UNIT = 1


def frame_for(request: Request, *, refused: bool = False) -> Frame:
    """What the unit says to `request`."""
    if refused:
        return Frame(UNIT, bytes([request.function | 0x80, 2]))
    if request.acknowledged_by:
        return Frame(UNIT, request.acknowledged_by)
    return Frame(UNIT, bytes([request.function, request.shape.size - 2]).ljust(request.shape.size))


def read(address: int, count: int) -> Request:
    return read_request(UNIT, "holding", address, count)


def test_an_answer_to_the_only_request_is_its_answer() -> None:
    assert Unanswered().heard(frame_for(read(0, 2)), read(0, 2)) is Verdict.ANSWER


def test_a_frame_of_the_length_of_an_earlier_read_is_late() -> None:
    owed = Unanswered()
    owed.give_up(read(0, 2))
    assert owed.is_owed(read(16, 2).shape)
    assert owed.heard(frame_for(read(16, 2)), read(16, 2)) is Verdict.LATE
    assert not owed


def test_an_answer_of_another_length_settles_everything_before_it() -> None:
    owed = Unanswered()
    for count in (2, 3, 2):
        owed.give_up(read(0, count))
    assert owed.heard(frame_for(read(0, 4)), read(0, 4)) is Verdict.ANSWER
    assert not owed


def test_a_late_answer_settles_what_was_asked_before_it_and_nothing_after_it() -> None:
    owed = Unanswered()
    for count in (2, 3, 4):
        owed.give_up(read(0, count))
    assert owed.heard(frame_for(read(0, 3)), None) is Verdict.LATE
    assert [owed.is_owed(read(0, count).shape) for count in (2, 3, 4)] == [False, False, True]


def test_a_refusal_is_believed_only_when_no_earlier_request_can_be_meant() -> None:
    owed = Unanswered()
    owed.give_up(read(0, 2))
    assert owed.heard(frame_for(read(0, 1), refused=True), read(0, 1)) is Verdict.LATE
    assert owed.heard(frame_for(read(0, 1), refused=True), read(0, 1)) is Verdict.ANSWER


def test_a_refusal_of_another_function_is_believed() -> None:
    owed = Unanswered()
    owed.give_up(registers_request(UNIT, 0, [7]))
    assert owed.heard(frame_for(read(0, 1), refused=True), read(0, 1)) is Verdict.ANSWER


@pytest.mark.parametrize("pdu", [b"\x06\x00\x01\x00\x07", b"\x06\x00\x00\x00\x08"])
def test_an_acknowledgement_of_another_address_or_value_is_foreign(pdu: bytes) -> None:
    assert Unanswered().heard(Frame(UNIT, pdu), registers_request(UNIT, 0, [7])) is Verdict.FOREIGN


def test_the_acknowledgement_of_an_earlier_write_is_not_that_of_the_same_write_now() -> None:
    owed, write = Unanswered(), registers_request(UNIT, 0, [7])
    owed.give_up(write)
    assert owed.heard(frame_for(write), write) is Verdict.LATE
    assert owed.heard(frame_for(write), write) is Verdict.ANSWER


REQUESTS = [
    *(read(0, count) for count in (1, 2, 3)),
    *(read_request(UNIT, "input", 0, count) for count in (1, 2)),
    registers_request(UNIT, 0, [7]),
    registers_request(UNIT, 0, [8]),
    registers_request(UNIT, 0, [7, 8]),
]


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(REQUESTS) - 1),
            # What the unit does before we give up: how many of its requests it answers
            # (yes), refuses, or never answers.
            st.lists(st.sampled_from(["answers", "refuses", "loses"]), max_size=4),
        ),
        max_size=60,
    )
)
def test_an_answer_is_always_that_of_the_request_being_waited_for(
    script: list[tuple[int, list[str]]],
) -> None:
    owed = Unanswered()
    at_the_unit: deque[tuple[int, Request]] = deque()  # in the order in which it was asked
    for number, (which, deeds) in enumerate(script):
        request = REQUESTS[which]
        at_the_unit.append((number, request))
        for deed in deeds:
            if not at_the_unit:
                break
            told_number, told = at_the_unit.popleft()
            if deed == "loses":
                continue
            if owed.heard(frame_for(told, refused=deed == "refuses"), request) is Verdict.ANSWER:
                assert told_number == number
                assert not owed
                break
        else:
            owed.give_up(request)


@pytest.mark.parametrize("answered", [(1,), (2,), (3,), (4,), (6,), (8,)])
@pytest.mark.parametrize("polls_in_silence", [1, 2, 5, 50, 1000])
@pytest.mark.parametrize(
    "span",
    [
        Span("holding", 0, 8, ((0, 2), (2, 2), (4, 2), (6, 2))),
        Span("holding", 0, 6, ((0, 2), (4, 2))),
        Span("holding", 0, 2, ((0, 2),)),
        Span("holding", 0, 1, ((0, 1),)),
    ],
)
def test_a_unit_that_comes_back_is_believed_again_after_a_few_requests(
    span: Span, polls_in_silence: int, answered: tuple[int, ...]
) -> None:
    """It answers reads of what is wanted and of one other length; the rest it ignores."""
    owed = Unanswered()
    for _ in range(polls_in_silence):
        owed.give_up(_choice(UNIT, span, owed).request)
    for _ in range(2 * RUNS_MAX):
        choice = _choice(UNIT, span, owed)
        count = choice.request.count
        if count != span.count and count not in answered:
            owed.give_up(choice.request)  # it does not even refuse
            continue
        if owed.heard(frame_for(choice.request), choice.request) is Verdict.ANSWER:
            break
        owed.give_up(choice.request)
    wants_another_length = answered[0] not in (span.count, *STAND_INS, *pieces(span))
    if answered[0] == span.count or wants_another_length:
        return  # there is no second length that it answers: see the head of modbus_order
    assert not owed


STAND_INS = (1, 2, 3, 4)


def pieces(span: Span) -> list[int]:
    """The lengths of what is left when halves are halved."""
    halves = span.halves()
    return [halves[0].count, *pieces(halves[0])] if halves else []


def test_what_is_remembered_of_a_silent_unit_is_bounded() -> None:
    owed = Unanswered()
    for count in range(1, 120):
        owed.give_up(read(0, count))
    for value in range(300):
        owed.give_up(registers_request(UNIT, 0, [value]))
        owed.give_up(read(0, 2))
    assert len(owed._runs) == RUNS_MAX
    assert all(owed.is_owed(read(0, count).shape) for count in range(1, 120))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_searched_without_an_error(received: bytes) -> None:
    shapes = {(unit, read(0, 1).shape) for unit in (0, 1, 255)}
    found = find_rtu(received, shapes)
    assert found is None or found[1] <= len(received)
