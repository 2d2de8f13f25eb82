"""Modbus TCP: reads of spans and single writes. The only home of pymodbus.

Many gateways bear one connection, so all units behind one host and port share one
line with one outstanding request. After a timeout the connection is closed: a late
answer can then never be taken for the next one. Connecting again is ours (from 0.2 s,
doubling to 2 s, between failed attempts); pymodbus's own reconnection and its retries
are off, and a write is sent exactly once.

Translated here, and nowhere else: pymodbus *raises* for a timeout but *returns* an
object for a refusal, which looks like success to who does not ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ExceptionResponse

from drivers.address import ModbusAddress
from drivers.codec import registers_of
from drivers.plan import Span
from drivers.points import Source
from drivers.reading import Absence, Answer, NoAnswer, Place

BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 2.0

# pymodbus's own deadline; ours is shorter and closes the line.
NEVER_S = 3600.0

# Modbus Application Protocol 1.1b3, section 7
_EXCEPTIONS = {1: "illegal function", 2: "illegal data address", 3: "illegal data value",
               4: "device failure", 5: "acknowledge", 6: "device busy", 8: "memory parity error",
               10: "gateway path unavailable", 11: "gateway target did not respond"}  # fmt: skip
SPLITTABLE = (2, 3)  # what devices answer to a read over a hole, or a too long one
UNREACHED = (10, 11)  # the gateway's way to say that nobody answered

# What it logs as errors are answers of the world that we hand on as values.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class ModbusUnit:
    """One unit on a line. Nothing is opened before the first `fetch` or `write`."""

    def __init__(
        self,
        address: ModbusAddress,
        clock: Callable[[], float],
        *,
        framing: str = "tcp",
        pause_s: float = 0.0,
    ) -> None:
        self._unit = address.unit
        self._printed = address.printed
        self._clock = clock
        self._pause_s = pause_s
        self._key = (address.host, address.port, framing)
        self._line: _Line | None = None
        self._refused: set[Span] = set()  # merged reads that this unit does not like

    async def fetch(
        self, spans: Iterable[Span], *, timeout_s: float, read_s_max: float
    ) -> dict[Place, Answer]:
        """Every register of `spans` that belongs to a value, or the reason for none."""
        pending = deque(spans)
        answers: dict[Place, Answer] = {}
        deadline_s = self._clock() + read_s_max
        while pending:
            span = pending.popleft()
            if span in self._refused:
                pending.extendleft(reversed(span.halves()))
                continue
            if self._clock() >= deadline_s:
                silence = NoAnswer(Absence.TIMEOUT, "the read took too long")
                return answers | self._nothing((span, *pending), silence)
            asked_at_s, outcome = await self._ask(_read_call(span, self._unit), timeout_s)
            taken_at_s = self._clock()
            if isinstance(outcome, NoAnswer):
                if outcome.absence is Absence.TIMEOUT:
                    return answers | self._nothing((span, *pending), outcome)
                answers |= self._nothing((span,), outcome)
            elif isinstance(outcome, int):
                if outcome in SPLITTABLE and span.halves():
                    self._refused.add(span)
                    pending.extendleft(reversed(span.halves()))
                else:
                    answers |= self._nothing((span,), _refusal(outcome))
            else:
                raws = _values(span, outcome)
                answers |= {k: Answer(v, asked_at_s, taken_at_s) for k, v in raws.items()}
        return answers

    async def write(self, target: Source, raw: int | float, *, timeout_s: float) -> NoAnswer | None:
        """Sends one write, once. None: the device accepted it."""
        _, outcome = await self._ask(_write_call(target, raw, self._unit), timeout_s)
        if isinstance(outcome, int):
            return _refusal(outcome)
        return outcome if isinstance(outcome, NoAnswer) else None

    async def close(self) -> None:
        """Closes the line with its last unit. The unit can be used again after it."""
        line, self._line = self._line, None
        if line is not None:
            line.leave(self)

    async def _ask(self, call: _Call, timeout_s: float) -> tuple[float, Any]:
        """The instant of asking, and the answer, an exception code, or NoAnswer."""
        loop = asyncio.get_running_loop()
        if self._line is None or self._line.loop is not loop:
            self._line = _line_of(self._key, loop)
        self._line.join(self)
        async with self._line.lock:
            return await self._line.exchange(
                call, timeout_s, self._pause_s, self._clock, self._printed
            )

    def _nothing(self, spans: Iterable[Span], why: NoAnswer) -> dict[Place, Answer]:
        now_s = self._clock()
        return {place: Answer(why, now_s, now_s) for span in spans for place in _places(span)}


@dataclass(frozen=True, slots=True)
class _Call:
    """One request: its function code, and how it is sent."""

    function: int
    send: Callable[[AsyncModbusTcpClient], Awaitable[Any]]


class _Line:
    """One TCP connection, opened when needed, and the units that share it."""

    def __init__(self, key: tuple[str, int, str], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = asyncio.Lock()
        self._key = key
        self._users: set[ModbusUnit] = set()
        self._client: AsyncModbusTcpClient | None = None
        self._backoff_s = 0.0
        self._closed_until_s = 0.0
        self._answered_at_s = 0.0

    def join(self, unit: ModbusUnit) -> None:
        self._users.add(unit)

    def leave(self, unit: ModbusUnit) -> None:
        self._users.discard(unit)
        if not self._users:
            self._hang_up()
            _lines.pop((self.loop, self._key), None)

    async def exchange(
        self, call: _Call, timeout_s: float, pause_s: float, clock: Callable[[], float], where: str
    ) -> tuple[float, Any]:
        """One request and its answer; the caller holds the lock."""
        asked_at_s = clock()
        silence = NoAnswer(Absence.TIMEOUT, f"{where}: no answer within {timeout_s:g} s")
        try:
            client = await self._connected(timeout_s, clock)
            if client is None:
                text = f"{where}: no connection (refused, unreachable, or in use by another master)"
                return asked_at_s, NoAnswer(Absence.TIMEOUT, text)
            if pause_s > 0:
                await asyncio.sleep(max(0.0, self._answered_at_s + pause_s - clock()))
            asked_at_s = clock()
            response = await asyncio.wait_for(call.send(client), timeout_s)
            self._answered_at_s = clock()
        except (TimeoutError, ModbusException, OSError):
            self._hang_up()
            return asked_at_s, silence
        except BaseException:
            # Cancelled in between, or a frame that pymodbus cannot take: whatever
            # comes next on this connection may belong to this request.
            self._hang_up()
            raise
        if response.function_code & 0x7F != call.function:
            # pymodbus compares transaction and unit only.
            self._hang_up()
            text = f"{where}: asked with function {call.function}, answered with another"
            return asked_at_s, NoAnswer(Absence.TYPE, text)
        if isinstance(response, ExceptionResponse):
            return asked_at_s, response.exception_code
        if response.isError():
            return asked_at_s, NoAnswer(Absence.REFUSED, f"{where}: {response}")
        return asked_at_s, response

    async def _connected(
        self, timeout_s: float, clock: Callable[[], float]
    ) -> AsyncModbusTcpClient | None:
        if self._client is not None and self._client.connected:
            return self._client
        self._hang_up()
        if clock() < self._closed_until_s:
            return None
        client = _new_client(self._key)
        self._client = client
        try:
            done = await asyncio.wait_for(client.connect(), timeout_s)
        except TimeoutError:
            done = False
        if done:
            self._backoff_s = 0.0
            return client
        self._hang_up()
        self._backoff_s = min(max(2 * self._backoff_s, BACKOFF_S_MIN), BACKOFF_S_MAX)
        self._closed_until_s = clock() + self._backoff_s
        return None

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


# Lines in use, by loop and by host, port and framing.
_lines: dict[tuple[asyncio.AbstractEventLoop, tuple[str, int, str]], _Line] = {}


def _line_of(key: tuple[str, int, str], loop: asyncio.AbstractEventLoop) -> _Line:
    for stale in [other for other in _lines if other[0].is_closed()]:
        del _lines[stale]
    return _lines.setdefault((loop, key), _Line(key, loop))


def _new_client(key: tuple[str, int, str]) -> AsyncModbusTcpClient:
    host, port, framing = key
    return AsyncModbusTcpClient(
        host,
        port=port,
        framer=FramerType.RTU if framing == "rtu" else FramerType.SOCKET,
        name=f"{host}:{port}",
        reconnect_delay=0,
        timeout=NEVER_S,
        retries=0,
    )


def _read_call(span: Span, unit: int) -> _Call:
    def send(client: AsyncModbusTcpClient) -> Awaitable[Any]:
        read = {
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
        }[span.table]
        return read(span.address, count=span.count, device_id=unit)

    return _Call({"coil": 1, "discrete": 2, "holding": 3, "input": 4}[span.table], send)


def _write_call(target: Source, raw: int | float, unit: int) -> _Call:
    if target.table == "coil":
        return _Call(5, lambda client: client.write_coil(target.address, bool(raw), device_id=unit))
    registers = registers_of(target, raw)
    if len(registers) == 1:
        return _Call(
            6, lambda client: client.write_register(target.address, registers[0], device_id=unit)
        )
    return _Call(
        16, lambda client: client.write_registers(target.address, registers, device_id=unit)
    )


def _values(span: Span, response: Any) -> dict[Place, int | NoAnswer]:
    is_bits = span.table in ("coil", "discrete")
    raws = list(response.bits[: span.count] if is_bits else response.registers)
    if len(raws) != span.count:
        text = f"{span.count} registers asked, {len(raws)} answered"
        return dict.fromkeys(_places(span), NoAnswer(Absence.TYPE, text))
    return {place: int(raws[place[1] - span.address]) for place in _places(span)}


def _places(span: Span) -> list[tuple[str, int]]:
    return [(span.table, address + n) for address, count in span.values for n in range(count)]


def _refusal(code: int) -> NoAnswer:
    text = f"exception {code}, {_EXCEPTIONS.get(code, 'unknown')}"
    return NoAnswer(Absence.TIMEOUT if code in UNREACHED else Absence.REFUSED, text)
