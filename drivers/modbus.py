"""Modbus units: reads of spans, single writes, and who they say they are.

A unit is reached over TCP, over RTU on a serial port, or over RTU in a TCP connection;
the address says which, and nothing here depends on it but one thing: over RTU a read may
have to make room for another one first, whose answer cannot be taken for a late one
(`drivers.modbus_order` says why). That other read is a shorter piece of what is wanted
where there is one, so that it costs nothing. What a late answer is, the line decides
(`drivers.modbus_line`); here it only counts as no answer.

A write is sent exactly once, and what acknowledges it must name its address and value.
A read that the device refuses is split, down to single values; the ranges are remembered.

A read has a deadline for all that it waits for: its turn, the connection, quiet on the
line, and every answer. Others behind the same gateway may be switched off.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from drivers.address import ModbusAddress
from drivers.codec import registers_of
from drivers.errors import ProfileError
from drivers.modbus_frames import (
    SINGLE_WRITES,
    Frame,
    Request,
    coil_request,
    identify_request,
    objects_in,
    read_request,
    registers_request,
    values_in,
)
from drivers.modbus_line import Line
from drivers.modbus_order import Unanswered
from drivers.modbus_wire import LineSettings
from drivers.plan import Span
from drivers.points import Source
from drivers.reading import Absence, Answer, NoAnswer, Place
from drivers.turns import Rank, Turn

# Modbus Application Protocol 1.1b3, section 7
_EXCEPTIONS = {1: "illegal function", 2: "illegal data address", 3: "illegal data value",
               4: "device failure", 5: "acknowledge", 6: "device busy", 8: "memory parity error",
               10: "gateway path unavailable", 11: "gateway target did not respond"}  # fmt: skip
SPLITTABLE = (2, 3)  # what devices answer to a read over a hole, or a too long one
UNREACHED = (10, 11)  # the gateway's way to say that nobody answered

# Reads of these lengths may stand in where no piece of the wanted read can. Refused or
# answered, their answer says where in the order we are. Bits come eight to the byte.
STAND_IN_REGISTERS = (1, 2, 3, 4)
STAND_IN_BITS = (1, 9, 17)
STAND_INS_MAX = 8  # in one fetch; then the unit counts as silent

# A write or an identification waits for its turn for at most so many of its timeouts. With
# less than this share of its timeout left, a read is not sent: its answer would be late.
TURN_TIMEOUTS_MAX = 10
TIMEOUT_SHARE_MIN = 0.2

# Device identification, 6.21: the basic objects 0 to 2, the regular ones 3 to 6.
BASIC, REGULAR = (1, 0), (2, 3)
CONFORMS_TO_REGULAR = (0x02, 0x03, 0x82, 0x83)
PAGES_MAX = 8  # of objects; a device that goes on and on is not believed further

# What pymodbus logs as errors are answers of the world that we hand on as values.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class ModbusUnit:
    """One unit on a line. Nothing is opened before the first request.

    ProfileError: another unit on the same line wants it set up differently.
    """

    def __init__(
        self, address: ModbusAddress, clock: Callable[[], float], *, pause_s: float = 0.0
    ) -> None:
        self._unit = address.unit
        self._printed = address.printed
        self._clock = clock
        self.pause_s = pause_s  # between requests, as long as this unit wants
        self._key = _key_of(address)
        self._settings = _agreed_settings(self._key, address)
        self._line: Line | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refused: set[Span] = set()  # merged reads that this unit does not like
        self._is_silent = False  # it left the last request unanswered

    @property
    def dropped(self) -> int:
        """Answers on this unit's line that were late, foreign or damaged, and not used."""
        return self._line.dropped if self._line is not None else 0

    async def fetch(
        self, spans: Iterable[Span], *, timeout_s: float, read_s_max: float
    ) -> dict[Place, Answer]:
        """Every register of `spans` that belongs to a value, or the reason for none."""
        pending = deque(spans)
        answers: dict[Place, Answer] = {}
        deadline_s = self._clock() + read_s_max
        stand_ins = 0
        while pending:
            span = pending.popleft()
            if span in self._refused:
                pending.extendleft(reversed(span.halves()))
                continue
            if self._clock() >= deadline_s or stand_ins > STAND_INS_MAX:
                return answers | self._nothing((span, *pending), self._too_long())
            choice, asked_at_s, outcome = await self._ask_for(span, timeout_s, deadline_s)
            pending.extendleft(reversed(choice.left))
            if choice.piece is None:  # a stand-in: only that it was answered counts
                stand_ins += 1
                if isinstance(outcome, NoAnswer):
                    return answers | self._nothing(pending, outcome)
                continue
            if isinstance(outcome, NoAnswer) and outcome.absence is Absence.TIMEOUT:
                return answers | self._nothing((choice.piece, *pending), outcome)
            if isinstance(outcome, Frame) and self._must_split(choice.piece, outcome):
                pending.extendleft(reversed(choice.piece.halves()))
                continue
            answers |= self._told(choice, asked_at_s, outcome)
        return answers

    async def write(self, target: Source, raw: int | float, *, timeout_s: float) -> NoAnswer | None:
        """Sends one write, once. None: the device accepted it."""
        request = _write_request(self._unit, target, raw)
        line = self._joined()
        if self._settings.framing == "rtu" and request.function in SINGLE_WRITES:
            await self._learn_echo(line, target, timeout_s)
        _, outcome = await self._ask(_always(request), timeout_s, rank=Rank.WRITE)
        if isinstance(outcome, NoAnswer):
            return outcome
        return None if outcome.exception is None else _refusal(outcome.exception)

    async def identification(self, *, timeout_s: float) -> dict[int, str] | NoAnswer:
        """What the device says of itself (function 43/14): 0 vendor, 1 product code,
        2 revision, and 3 to 6 where it offers them. REFUSED: it does not know how."""
        found: dict[int, str] = {}
        conformity = await self._identify(BASIC, found, timeout_s)
        if isinstance(conformity, NoAnswer):
            return conformity
        if conformity in CONFORMS_TO_REGULAR:
            more: dict[int, str] = {}
            if not isinstance(await self._identify(REGULAR, more, timeout_s), NoAnswer):
                found = more | found
        return found

    async def close(self) -> None:
        """Closes the line with its last unit. The unit can be used again after it."""
        line, self._line = self._line, None
        if line is not None and self._loop is not None:
            _leave(self, self._loop, line)

    # ── one request ──

    async def _ask_for(
        self, span: Span, timeout_s: float, until_s: float
    ) -> tuple[_Choice, float, Frame | NoAnswer]:
        chosen = [_Choice(read_request(self._unit, span.table, span.address, span.count), span)]

        def choose(owed: Unanswered) -> Request:
            chosen[0] = _choice(self._unit, span, owed)
            return chosen[0].request

        asked_at_s, outcome = await self._ask(choose, timeout_s, until_s)
        return chosen[0], asked_at_s, outcome

    async def _ask(
        self,
        choose: Callable[[Unanswered], Request],
        timeout_s: float,
        until_s: float | None = None,
        rank: Rank | None = None,
    ) -> tuple[float, Frame | NoAnswer]:
        """The instant of asking, and the answer. What is asked is chosen when the line is
        free: a late answer may just have changed what can be asked."""
        line, clock = self._joined(), self._clock
        if rank is None:
            rank = Rank.READ_OF_THE_SILENT if self._is_silent else Rank.READ
        if until_s is None:
            until_s = clock() + TURN_TIMEOUTS_MAX * timeout_s

        def patience_s() -> float:
            return timeout_s if rank is Rank.WRITE else min(timeout_s, until_s - clock())

        def is_time(turn: Turn) -> bool:
            return turn.is_wanted and patience_s() >= TIMEOUT_SHARE_MIN * timeout_s

        async def talk(turn: Turn) -> tuple[float, Frame | NoAnswer]:
            begun_at_s = clock()
            if not is_time(turn):
                return begun_at_s, self._too_long()
            left_s = until_s - begun_at_s
            refused = await line.ready(timeout_s, self.pause_s, clock, self._printed, left_s=left_s)
            if refused is not None:
                return begun_at_s, refused
            if not is_time(turn):
                return begun_at_s, self._too_long()
            request = choose(line.unanswered(self._unit))
            told = await line.exchange(request, patience_s(), clock, self._printed)
            self._is_silent = _is_silence(told[1])
            return told

        told = await line.turns.speak(talk, rank=rank, wait_s=until_s - clock())
        return told or (clock(), self._too_long())

    def _too_long(self) -> NoAnswer:
        text = f"{self._printed}: it took too long, with all that waits for this line"
        return NoAnswer(Absence.TIMEOUT, text)

    def _joined(self) -> Line:
        loop = asyncio.get_running_loop()
        if self._line is None or self._loop is not loop:
            self._line, self._loop = _join(self, loop), loop
        return self._line

    async def _learn_echo(self, line: Line, target: Source, timeout_s: float) -> None:
        """Where the answer looks like the request, it must be known first if the line
        sends back what it is given; any read shows it."""
        if line.echoes is None:
            request = read_request(self._unit, target.table, target.address, 1)
            await self._ask(_always(request), timeout_s)

    async def _identify(
        self, level: tuple[int, int], found: dict[int, str], timeout_s: float
    ) -> int | NoAnswer:
        """Adds the objects of one level to `found`; how much the device says it offers."""
        read_code, first = level
        for _ in range(PAGES_MAX):
            request = identify_request(self._unit, read_code, first)
            await self._make_room(request, timeout_s)
            _, outcome = await self._ask(_always(request), timeout_s)
            if isinstance(outcome, NoAnswer):
                return outcome
            if outcome.exception is not None:
                return _refusal(outcome.exception)
            page = objects_in(outcome)
            if page is None:
                return NoAnswer(Absence.TYPE, f"{self._printed}: an identification in pieces")
            found |= page.texts
            if page.next_object is None or page.next_object <= first:
                return page.conformity
            first = page.next_object
        return NoAnswer(Absence.TYPE, f"{self._printed}: an identification without an end")

    async def _make_room(self, request: Request, timeout_s: float) -> None:
        if self._joined().unanswered(self._unit).is_owed(request.shape):
            nowhere = Span("holding", 0, 1, ((0, 1),))
            await self._ask(lambda owed: _choice(self._unit, nowhere, owed).request, timeout_s)

    # ── what came of it ──

    def _must_split(self, piece: Span, frame: Frame) -> bool:
        if frame.exception not in SPLITTABLE or not piece.halves():
            return False
        self._refused.add(piece)
        return True

    def _told(
        self, choice: _Choice, asked_at_s: float, outcome: Frame | NoAnswer
    ) -> dict[Place, Answer]:
        piece = choice.piece
        assert piece is not None
        if isinstance(outcome, NoAnswer):
            return self._nothing((piece,), outcome)
        if outcome.exception is not None:
            return self._nothing((piece,), _refusal(outcome.exception))
        values = values_in(choice.request, outcome)
        if values is None:
            text = f"{self._printed}: an answer that cannot be taken apart"
            return self._nothing((piece,), NoAnswer(Absence.TYPE, text))
        taken_at_s = self._clock()
        return {
            place: Answer(values[place[1] - piece.address], asked_at_s, taken_at_s)
            for place in _places(piece)
        }

    def _nothing(self, spans: Iterable[Span], why: NoAnswer) -> dict[Place, Answer]:
        now_s = self._clock()
        return {place: Answer(why, now_s, now_s) for span in spans for place in _places(span)}


# ── what to ask ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Choice:
    """A read to send now: for the values of `piece`, or (None) only for the order; and
    what is left to be asked."""

    request: Request
    piece: Span | None
    left: tuple[Span, ...] = ()


def _choice(unit: int, span: Span, owed: Unanswered) -> _Choice:
    """`span`, if its answer could be no late one; else the first thing that is so."""
    wanted = read_request(unit, span.table, span.address, span.count)
    if not owed.is_owed(wanted.shape):
        return _Choice(wanted, span)
    if not owed.is_full:
        piece, left = span, deque[Span]()
        while piece.halves():
            piece, right = piece.halves()
            left.appendleft(right)
            request = read_request(unit, span.table, piece.address, piece.count)
            if not owed.is_owed(request.shape):
                return _Choice(request, piece, tuple(left))
        is_bits = span.table in ("coil", "discrete")
        for count in STAND_IN_BITS if is_bits else STAND_IN_REGISTERS:
            address = min(span.address, 0x10000 - count)
            request = read_request(unit, span.table, address, count)
            if not owed.is_owed(request.shape):
                return _Choice(request, None, (span,))
    return _Choice(wanted, None, (span,))


def _always(request: Request) -> Callable[[Unanswered], Request]:
    return lambda _: request


def _write_request(unit: int, target: Source, raw: int | float) -> Request:
    if target.table == "coil":
        return coil_request(unit, target.address, bool(raw))
    return registers_request(unit, target.address, registers_of(target, raw))


def _places(span: Span) -> list[tuple[str, int]]:
    return [(span.table, address + n) for address, count in span.values for n in range(count)]


def _is_silence(outcome: Frame | NoAnswer) -> bool:
    if isinstance(outcome, NoAnswer):
        return outcome.absence is Absence.TIMEOUT
    return outcome.exception in UNREACHED


def _refusal(code: int) -> NoAnswer:
    text = f"exception {code}, {_EXCEPTIONS.get(code, 'unknown')}"
    return NoAnswer(Absence.TIMEOUT if code in UNREACHED else Absence.REFUSED, text)


# ── lines ─────────────────────────────────────────────────────────────────────────

_Key = tuple[str, int] | str  # host and port, or the path of a serial port

# Lines in use and their units, by event loop.
_lines: dict[tuple[asyncio.AbstractEventLoop, _Key], tuple[Line, set[ModbusUnit]]] = {}

# How each line is set up, as long as there is a unit that wants it so.
_settings: WeakValueDictionary[_Key, LineSettings] = WeakValueDictionary()

# What each line still owes; longer than the line is open.
_debts: dict[_Key, dict[int, Unanswered]] = {}


def _key_of(address: ModbusAddress) -> _Key:
    # /dev/serial/by-id/… is a link: two names of one port.
    return os.path.realpath(address.path) if address.path else (address.host, address.port)


def _agreed_settings(key: _Key, address: ModbusAddress) -> LineSettings:
    wanted = LineSettings(framing="tcp" if address.transport == "tcp" else "rtu")
    if address.path:
        wanted = replace(
            wanted,
            path=address.path,
            baud=address.baud,
            parity=address.parity,
            stop_bits=address.stop_bits,
            data_bits=address.data_bits,
        )
    else:
        wanted = replace(wanted, host=address.host, port=address.port)
    known = _settings.setdefault(key, wanted)
    if known != replace(wanted, path=known.path):
        raise ProfileError(
            f"{address.printed}: the same line is already used as {_described(known)};"
            " all units of one line are set up alike"
        )
    return known


def _described(settings: LineSettings) -> str:
    if settings.path:
        bits = f"{settings.data_bits}{settings.parity}{settings.stop_bits}"
        return f"{settings.path} with {settings.baud} baud, {bits}"
    return "modbus+rtutcp://" if settings.framing == "rtu" else "modbus://"


def _join(unit: ModbusUnit, loop: asyncio.AbstractEventLoop) -> Line:
    for stale in [other for other in _lines if other[0].is_closed()]:
        del _lines[stale]
    key = unit._key
    if (loop, key) not in _lines:
        _lines[loop, key] = (Line(unit._settings, _debts.setdefault(key, {})), set())
    line, units = _lines[loop, key]
    units.add(unit)
    return line


def _leave(unit: ModbusUnit, loop: asyncio.AbstractEventLoop, line: Line) -> None:
    _, units = _lines.get((loop, unit._key), (line, set()))
    units.discard(unit)
    if not units:
        line.close()
        _lines.pop((loop, unit._key), None)
        if not line.owes:
            _debts.pop(unit._key, None)
