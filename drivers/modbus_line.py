"""One connection or bus, the units that share it, and one outstanding request.

Many gateways bear one connection, and a bus has one talker at a time. So all units
behind one host and port, or one serial path, share one line: one request is sent, and
nothing else until it is answered or given up (`drivers.turns`). Connecting again is ours
(from 0.2 s, doubling to 2 s, between failed attempts). Nothing is ever sent twice.

Modbus TCP numbers its requests: an answer with another transaction or unit is dropped
and counted, and the connection is closed after a timeout, as it is after bytes that are
not Modbus. A gateway may hand what is late to whoever connects next, also to the next
process: so all lines count on together, from a number that is drawn at the start.

RTU numbers nothing, on a serial port as over TCP. Closing a connection would not help
(the gateway may hand a late answer to the next one), so it is kept, and what comes late
is seen to come late:

    - After a timeout the line is drained: nothing is sent until it has been quiet for as
      long again. That keeps requests from running into late answers; it proves nothing. A
      unit that was silent three times running is not waited for again: a dead unit would
      take the time of the others on its bus.
    - The proof is the order (`drivers.modbus_order`). Who wants something asks
      `unanswered(unit)` first and sends what cannot be confused; every frame is shown to
      it, and only an ANSWER is given back. What is still unanswered is remembered when
      the connection breaks, and when the line is closed and opened again.

What another process left unanswered on a gateway is not known here: a serial port is
ours alone while it is open, and what it holds is thrown away when it is opened.

An adapter may send back every byte that it is given (a local echo). Our own request,
coming first, is taken out once. For a write of one value the answer *is* the request: as
long as no read was answered without an echo, the first copy counts as the echo.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from drivers.modbus_frames import (
    SINGLE_WRITES,
    DamagedStream,
    Frame,
    Request,
    cut_tcp,
    find_rtu,
    rtu_frame,
    tcp_frame,
)
from drivers.modbus_order import Unanswered, Verdict
from drivers.modbus_wire import CannotOpen, LineSettings, Wire, open_wire
from drivers.reading import Absence, NoAnswer
from drivers.turns import Turns

BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 2.0

# Modbus over serial line 1.02, 2.5.1.1: 3.5 characters, above 19200 baud 1.75 ms.
GAP_CHARACTERS = 3.5
FAST_BAUD = 19_200
FAST_GAP_S = 0.00175
GATEWAY_GAP_S = 0.004  # whose baud rate is not known: that of 9600

SILENCES_MAX = 3  # then a unit is not drained for, and a gateway's connection is made anew
DRAINS_MAX = 4  # a line that is not quiet for one of so many timeouts never will be
FRAME_BYTES_MAX = 256

_transactions = count(secrets.randbelow(0x10000))


class Line:
    """One connection. Its methods are called in a turn of `turns`."""

    def __init__(self, settings: LineSettings, debts: dict[int, Unanswered]) -> None:
        self.turns = Turns()
        self.dropped = 0
        self.echoes: bool | None = None  # until a read was answered
        self._settings = settings
        self._is_rtu = settings.framing == "rtu"
        self._gap_s = _gap_s(settings) if self._is_rtu else 0.0
        self._loop = asyncio.get_running_loop()
        self._debts = debts
        self._wire: Wire | None = None
        self._is_asking = False
        self._is_closed = False
        self._backoff_s = 0.0
        self._closed_until_s = 0.0
        self._answered_at_s = 0.0
        self._drain_s = 0.0
        self._disturbed_at_s = 0.0
        self._silences = 0  # of all units, in a row

    @property
    def owes(self) -> bool:
        """If something was asked that may still be answered."""
        return self._is_asking or any(self._debts.values())

    def unanswered(self, unit: int) -> Unanswered:
        """What this unit may still answer. Nothing on TCP, where answers have numbers."""
        return self._debts.setdefault(unit, Unanswered())

    async def ready(
        self,
        timeout_s: float,
        pause_s: float,
        clock: Callable[[], float],
        where: str,
        *,
        left_s: float,
    ) -> NoAnswer | None:
        """Connects, and waits until a request may be sent, at most for `left_s`; or says
        why none may."""
        until_s = self._loop.time() + left_s
        closed = NoAnswer(Absence.TIMEOUT, f"{where}: the connection was closed")
        if self._is_closed:
            return closed
        try:
            wire = await self._connected(min(timeout_s, max(0.0, left_s)), clock)
        except CannotOpen as error:
            return NoAnswer(Absence.TIMEOUT, f"{where}: no connection ({error})")
        unquiet = await self._unquiet(wire, pause_s, timeout_s, until_s)
        if unquiet:
            return NoAnswer(Absence.TIMEOUT, f"{where}: {unquiet}")
        if self._is_closed:
            self._hang_up()
        return closed if wire is not self._wire or wire.is_lost else None

    async def exchange(
        self, request: Request, timeout_s: float, clock: Callable[[], float], where: str
    ) -> tuple[float, Frame | NoAnswer]:
        """Sends one request, once: the instant of asking, and its answer or why none.

        Called right after `ready`, without waiting for anything in between.
        """
        wire = self._wire
        assert wire is not None
        dropped_before = self.dropped
        asked_at_s = clock()
        self._is_asking = True
        try:
            talk = self._exchange_rtu if self._is_rtu else self._exchange_tcp
            outcome = await talk(wire, request, timeout_s)
        except BaseException:
            # Cancelled: what comes next may belong to this request.
            self._give_up(request, timeout_s)
            raise
        finally:
            self._is_asking = False
        if isinstance(outcome, Frame):
            self._answered_at_s = self._loop.time()
            return asked_at_s, outcome
        self._give_up(request, timeout_s)
        text = f"{where}: {outcome.detail}"
        if self.dropped > dropped_before or wire.received:
            text += "; what came was late, damaged or foreign"
        return asked_at_s, NoAnswer(outcome.absence, text)

    def close(self) -> None:
        """For good: who still waits for this line is told so."""
        self._is_closed = True
        self._hang_up()

    # ── the connection ──

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    async def _connected(self, timeout_s: float, clock: Callable[[], float]) -> Wire:
        if self._wire is not None and not self._wire.is_lost:
            return self._wire
        self._hang_up()
        if clock() < self._closed_until_s:
            raise CannotOpen("it was refused a moment ago")
        try:
            self._wire = await open_wire(self._settings, timeout_s)
        except CannotOpen:
            self._backoff_s = min(max(2 * self._backoff_s, BACKOFF_S_MIN), BACKOFF_S_MAX)
            self._closed_until_s = clock() + self._backoff_s
            raise
        self._backoff_s = 0.0
        return self._wire

    def _give_up(self, request: Request, timeout_s: float) -> None:
        if not self._is_rtu:
            self._hang_up()
            return
        owed = self.unanswered(request.unit)
        owed.give_up(request)
        is_dead = owed.silences >= SILENCES_MAX
        self._disturbed_at_s = self._loop.time()
        self._drain_s = self._gap_s if is_dead else max(timeout_s, self._gap_s)
        self._silences += 1
        if self._silences % SILENCES_MAX == 0 and not self._settings.path:
            self._hang_up()  # a gateway that was switched off and on knows nothing of us

    async def _unquiet(self, wire: Wire, pause_s: float, timeout_s: float, until_s: float) -> str:
        """Waits for the pause, and on RTU until nothing comes any more; or why it does not."""
        gap_s = max(self._gap_s, pause_s)
        give_up_at_s = self._loop.time() + gap_s + DRAINS_MAX * max(self._drain_s, timeout_s)
        while True:
            if self._is_rtu:
                # What came before a request was sent is no answer to it.
                self._next_rtu(wire, None)
            heard_at_s = wire.heard_at_s if self._is_rtu else 0.0
            now_s = self._loop.time()
            free_at_s = max(
                max(self._answered_at_s, heard_at_s) + gap_s,
                max(self._disturbed_at_s, heard_at_s) + self._drain_s,
            )
            if now_s >= free_at_s:
                break
            if now_s >= give_up_at_s:
                return "the line is never quiet: noise, or another master"
            if free_at_s >= until_s:
                return "the line is not quiet in time"
            await asyncio.sleep(free_at_s - now_s)
        self._drain_s = 0.0
        if self._is_rtu and wire.received:
            self.dropped += 1
            wire.received.clear()
        return ""

    # ── TCP ──

    async def _exchange_tcp(
        self, wire: Wire, request: Request, timeout_s: float
    ) -> Frame | NoAnswer:
        transaction = next(_transactions) & 0xFFFF
        deadline_s = self._loop.time() + timeout_s
        wire.send(tcp_frame(request.unit, request.pdu, transaction))
        while True:
            try:
                frame = self._next_tcp(wire, request, transaction)
            except DamagedStream:
                self.dropped += 1
                return NoAnswer(Absence.TIMEOUT, "what it sends is not Modbus TCP")
            if frame is not None and request.fits(frame):
                return frame
            if frame is not None:
                self.dropped += 1
                return NoAnswer(Absence.TYPE, _misfit(request, frame))
            if not await self._news(wire, deadline_s):
                return self._silence(wire, timeout_s)

    def _next_tcp(self, wire: Wire, request: Request, transaction: int) -> Frame | None:
        while (cut := cut_tcp(bytes(wire.received))) is not None:
            used, number, frame = cut
            del wire.received[:used]
            if (number, frame.unit) == (transaction, request.unit):
                return frame
            self.dropped += 1
        return None

    # ── RTU ──

    async def _exchange_rtu(
        self, wire: Wire, request: Request, timeout_s: float
    ) -> Frame | NoAnswer:
        own = rtu_frame(request.unit, request.pdu)
        asked = _Asked(request, own, request.function not in SINGLE_WRITES or self._may_echo)
        size = len(own) + (request.shape.size + 3 if request.shape.size else FRAME_BYTES_MAX)
        # The timeout is the device's; the time that the wire takes is added.
        deadline_s = self._loop.time() + timeout_s + size * self._settings.character_s
        wire.send(own)
        while (frame := self._next_rtu(wire, asked)) is None:
            if not await self._news(wire, deadline_s):
                return self._silence(wire, timeout_s)
        if request.function not in SINGLE_WRITES:
            self.echoes = not asked.echo_is_due
        return frame

    @property
    def _may_echo(self) -> bool:
        return self.echoes is not False

    def _next_rtu(self, wire: Wire, asked: _Asked | None) -> Frame | None:
        """The answer to `asked`, if it has come. Everything else is shown to the order,
        counted and dropped."""
        if asked is not None and _is_echo_coming(asked, wire.received):
            return None
        expected = {(unit, shape) for unit, owed in self._debts.items() for shape in owed.shapes}
        if asked is not None:
            expected.add((asked.request.unit, asked.request.shape))
        while (found := find_rtu(bytes(wire.received), expected)) is not None:
            begin, end, frame = found
            own = bytes(wire.received[begin:end])
            self.dropped += begin > 0  # noise before it
            del wire.received[:end]
            if asked is not None and asked.echo_is_due and own == asked.own:
                asked.echo_is_due = False
                continue
            is_its_unit = asked is not None and frame.unit == asked.request.unit
            waited_for = asked.request if asked is not None and is_its_unit else None
            self._silences = 0
            if self.unanswered(frame.unit).heard(frame, waited_for) is Verdict.ANSWER:
                return frame
            self.dropped += 1
        return None

    # ── both ──

    async def _news(self, wire: Wire, deadline_s: float) -> bool:
        """Waits for more bytes; False if there will be none in time."""
        if wire.is_lost or self._loop.time() >= deadline_s:
            return False
        wire.news.clear()
        try:
            async with asyncio.timeout_at(deadline_s):
                await wire.news.wait()
        except TimeoutError:
            pass  # what came with the last moment is looked at once more
        return True

    def _silence(self, wire: Wire, timeout_s: float) -> NoAnswer:
        lost = "the connection was closed before the answer"
        return NoAnswer(
            Absence.TIMEOUT, lost if wire.is_lost else f"no answer within {timeout_s:g} s"
        )


@dataclass(slots=True)
class _Asked:
    """An RTU request on its way, and if its own echo may still come."""

    request: Request
    own: bytes
    echo_is_due: bool


def _is_echo_coming(asked: _Asked, received: bytearray) -> bool:
    """Takes out the echo of a request that no answer can look like; True: it has begun,
    so that nothing can be said yet."""
    if not asked.echo_is_due or asked.request.function in SINGLE_WRITES or not received:
        return False
    at = received.find(asked.own)
    if at >= 0:
        del received[at : at + len(asked.own)]
        asked.echo_is_due = False
        return False
    return asked.own.startswith(received)


def _misfit(request: Request, frame: Frame) -> str:
    if frame.function != request.function:
        return f"asked with function {request.function}, answered with {frame.function}"
    if request.acknowledged_by:
        return "the answer to the write is for another address or value"
    return "another number of registers was answered than asked for"


def _gap_s(settings: LineSettings) -> float:
    if not settings.path:
        return GATEWAY_GAP_S
    return FAST_GAP_S if settings.baud > FAST_BAUD else GAP_CHARACTERS * settings.character_s
