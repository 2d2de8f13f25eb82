"""An SNMP v1/v2c agent for tests: real UDP, values from a table, and the faults of the world.

`Agent.values` maps OIDs to values, pyasn1's or a recording's, and may be changed while it
serves. The other attributes are its faults. It keeps every request it heard in `heard`,
and of GETBULKs how many repetitions they wanted in `repetitions`.

The codec here is its own: nothing of the code under test encodes or decodes.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import rfc1902, rfc1905
from pysnmp.proto.api import v2c

GET, GET_NEXT, RESPONSE, SET, GET_BULK = 0xA0, 0xA1, 0xA2, 0xA3, 0xA5
KINDS = {GET: "get", GET_NEXT: "next", SET: "set", GET_BULK: "bulk"}
TOO_BIG, NO_SUCH_NAME = 1, 2
NO_SUCH_INSTANCE, END_OF_MIB_VIEW = b"\x81\x00", b"\x82\x00"

Arcs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A value of a recording: a tag and a text (`4x` in hexadecimal, `4e` with escapes)."""

    tag: str
    text: str


def read_snmprec(path: Path) -> dict[str, Any]:
    """OID → value, from lines of `oid|tag|value`; encoded only when it is asked for."""
    values = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            oid, tag, text = line.split("|", 2)
            values[oid] = Recorded(tag, text)
    return values


# ── BER ───────────────────────────────────────────────────────────────────────────


def ber(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(octets)]) + octets + content


def ber_integer(number: int, tag: int = 2) -> bytes:
    return ber(tag, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


@functools.lru_cache(100_000)
def ber_oid(arcs: Arcs) -> bytes:
    octets = bytearray()
    for number in (40 * arcs[0] + (arcs[1] if len(arcs) > 1 else 0), *arcs[2:]):
        part = [number & 127]
        while number := number >> 7:
            part.append(128 | number & 127)
        octets += bytes(reversed(part))
    return ber(6, bytes(octets))


def ber_parts(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """The elements of `data`: tag, content, and all of it."""
    parts, at = [], 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size > 127:
            start += size & 127
            size = int.from_bytes(data[at + 2 : start], "big")
        parts.append((tag, data[start : start + size], data[at : start + size]))
        at = start + size
    return parts


def oid_arcs(content: bytes) -> Arcs:
    numbers, number = [], 0
    for octet in content:
        number = number << 7 | octet & 127
        if octet < 128:
            numbers.append(number)
            number = 0
    top = min(numbers[0] // 40, 2)
    return (top, numbers[0] - 40 * top, *numbers[1:])


def as_arcs(oid: str) -> Arcs:
    return tuple(int(arc) for arc in oid.split("."))


def as_text(arcs: Arcs) -> str:
    return ".".join(map(str, arcs))


def encoded(value: Any) -> bytes:
    if isinstance(value, bytes):  # encoded already
        return value
    if isinstance(value, Recorded):
        return _encoded(value)
    return bytes(encoder.encode(value))


@functools.lru_cache(100_000)
def _encoded(value: Recorded) -> bytes:
    tag = int(value.tag.rstrip("ex"))
    if value.tag.endswith("x"):
        return ber(tag, bytes.fromhex(value.text))
    if value.tag.endswith("e"):
        return ber(tag, value.text.encode().decode("unicode_escape").encode("latin-1"))
    if tag == 6:
        return ber_oid(as_arcs(value.text))
    if tag == 64:
        return ber(tag, bytes(as_arcs(value.text)))
    if tag in (4, 68):
        return ber(tag, value.text.encode("utf-8"))
    return ber(5) if tag == 5 else ber_integer(int(value.text), tag)


def _decoded(varbind: bytes) -> tuple[Any, Any]:
    pair: tuple[Any, Any] = v2c.apiVarBind.get_oid_value(
        decoder.decode(varbind, asn1Spec=rfc1905.VarBind())[0]
    )
    return pair


# ── the agent ─────────────────────────────────────────────────────────────────────


@dataclass
class Request:
    version: int
    kind: int
    request_id: int
    first: int  # non-repeaters of a GETBULK
    second: int  # its max-repetitions
    varbinds: list[tuple[Arcs, bytes, bytes]]  # name, its value, and both as they came


@dataclass
class Agent(asyncio.DatagramProtocol):
    values: dict[str, Any]
    community: str = "public"
    silent: bool = False
    mute_next: int = 0  # so many requests get no answer
    mute_sets: bool = False  # a SET is done but not answered
    mute_bulks_above: int | None = None  # repetitions; 0: no GETBULK is answered
    mute_many: bool = False  # requests for more than one object get no answer
    mute_from: str = ""  # an answer that would hold this object or one after it is not sent
    refuse_sets: int = 0  # error-status for every SET
    refuse_bulks: int = 0  # error-status for every GETBULK
    bad_oids: dict[str, int] = field(default_factory=dict)  # OID → error-status of the GET
    oids_max: int = 100  # more in an answer: tooBig
    rows_max: int = 1000  # of a GETBULK's answer; the rest is left out, as RFC 3416 allows
    walk_skips: set[str] = field(default_factory=set)  # left out by GETNEXT and GETBULK
    ends_after: str = ""  # nothing after this object is there for GETNEXT and GETBULK
    delay_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)  # of the next answers, one each
    other_oids: bool = False  # answers objects that nobody asked for
    reversed_order: bool = False  # the varbinds of an answer come from last to first
    repeats_oids: bool = False  # GETNEXT and GETBULK answer what they were asked from
    other_id: bool = False  # answers with another request's number
    twice: bool = False  # every answer is sent two times
    mangle: Callable[[bytes], bytes] | None = None  # the answer as it is really sent
    heard: list[tuple[str, list[str]]] = field(default_factory=list)
    repetitions: list[int] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    switches: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    port: int = 0
    transport: Any = None
    _sorted: list[Arcs] = field(default_factory=list)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        request = self._read(data)
        if request is None:
            return
        self.heard.append((KINDS[request.kind], [as_text(oid) for oid, _, _ in request.varbinds]))
        if request.kind == GET_BULK:
            self.repetitions.append(request.second)
        if self._is_mute(request):
            return
        status, index, told = self._answer(request)
        if request.kind == SET and self.mute_sets:
            return
        if self.mute_from and any(oid >= as_arcs(self.mute_from) for oid, _ in told):
            return
        self._send(request, status, index, told, sender)

    def _read(self, data: bytes) -> Request | None:
        ((_, message, _),) = ber_parts(data)
        (_, version, _), (_, community, _), (kind, pdu, _) = ber_parts(message)
        if community != self.community.encode():
            return None
        numbers = [int.from_bytes(part, "big", signed=True) for _, part, _ in ber_parts(pdu)[:3]]
        varbinds = []
        for _, varbind, whole in ber_parts(ber_parts(pdu)[3][1]):
            (_, oid, _), (_, _, value) = ber_parts(varbind)
            varbinds.append((oid_arcs(oid), value, whole))
        return Request(version[0], kind, *numbers, varbinds)

    def _is_mute(self, request: Request) -> bool:
        if self.mute_next > 0:
            self.mute_next -= 1
            return True
        if request.kind == GET_BULK and self.mute_bulks_above is not None:
            return request.second > self.mute_bulks_above
        return self.silent or (self.mute_many and len(request.varbinds) > 1)

    def _answer(self, request: Request) -> tuple[int, int, list[tuple[Arcs, bytes]]]:
        echo = [(oid, value) for oid, value, _ in request.varbinds]
        asked = [oid for oid, _, _ in request.varbinds]
        if request.kind == SET:
            decoded = [_decoded(whole) for _, _, whole in request.varbinds]
            status, index, _ = self._set(decoded)
            return status, index, echo
        if request.kind == GET_BULK:
            if self.refuse_bulks:
                return self.refuse_bulks, 0, echo
            told = self._bulk(asked, request.second)
        else:
            told = [self._one(request.kind, oid) for oid in asked]
        if len(told) > self.oids_max:
            return TOO_BIG, 0, echo if request.version == 0 else []
        for number, (oid, (_, value)) in enumerate(zip(asked, told, strict=False), start=1):
            if as_text(oid) in self.bad_oids:
                return self.bad_oids[as_text(oid)], number, echo
            if request.version == 0 and value in (NO_SUCH_INSTANCE, END_OF_MIB_VIEW):
                return NO_SUCH_NAME, number, echo
        if self.other_oids:
            told = [((1, 3, 9, 9), value) for _, value in told]
        return 0, 0, told[::-1] if self.reversed_order else told

    def _one(self, kind: int, oid: Arcs) -> tuple[Arcs, bytes]:
        if kind == GET_NEXT:
            return self._next(oid)
        value = self.values.get(as_text(oid))
        return oid, NO_SUCH_INSTANCE if value is None else encoded(value)

    def _bulk(self, asked: Sequence[Arcs], repetitions: int) -> list[tuple[Arcs, bytes]]:
        told: list[tuple[Arcs, bytes]] = []
        row = list(asked)
        for _ in range(min(repetitions, self.rows_max)):
            found = [self._next(oid) for oid in row]
            told += found
            row = [oid for oid, _ in found]
            if all(value == END_OF_MIB_VIEW for _, value in found):
                break
        return told

    def _next(self, oid: Arcs) -> tuple[Arcs, bytes]:
        if len(self._sorted) != len(self.values):
            self._sorted = sorted(as_arcs(name) for name in self.values)
        at = bisect.bisect_right(self._sorted, oid)
        while at < len(self._sorted) and ".".join(map(str, self._sorted[at])) in self.walk_skips:
            at += 1
        if self.repeats_oids and at:
            return self._sorted[at - 1], encoded(self.values[as_text(self._sorted[at - 1])])
        if at == len(self._sorted) or (self.ends_after and oid >= as_arcs(self.ends_after)):
            return oid, END_OF_MIB_VIEW
        return self._sorted[at], encoded(self.values[as_text(self._sorted[at])])

    def _set(self, varbinds: Any) -> tuple[int, int, Any]:
        """Does what is told by (name, value), both pyasn1's; error status and index."""
        if self.refuse_sets:
            return self.refuse_sets, 1, varbinds
        for oid, value in varbinds:
            for number, change in self.switches.get(str(oid), {}).items():
                if value == number:
                    self.values |= change
        return 0, 0, varbinds

    def _send(
        self,
        request: Request,
        status: int,
        index: int,
        told: list[tuple[Arcs, bytes]],
        sender: Any,
    ) -> None:
        varbinds = [ber(0x30, ber_oid(oid), value) for oid, value in told]
        number = request.request_id ^ 1 if self.other_id else request.request_id
        pdu = ber(RESPONSE, ber_integer(number), ber_integer(status), ber_integer(index),
                  ber(0x30, *varbinds))  # fmt: skip
        datagram = ber(0x30, ber_integer(request.version), ber(4, self.community.encode()), pdu)
        if self.mangle is not None:
            datagram = self.mangle(datagram)
        self.answered.append(datagram)
        delay_s = self.delays_s.pop(0) if self.delays_s else self.delay_s
        for _ in range(2 if self.twice else 1):
            if delay_s:
                loop = asyncio.get_running_loop()
                loop.call_later(delay_s, self.transport.sendto, datagram, sender)
            else:
                self.transport.sendto(datagram, sender)


def table(column: str, rows: range, times: int = 1) -> dict[str, Any]:
    """A column of integers: row n holds `times` · n."""
    return {f"{column}.{row}": rfc1902.Integer32(times * row) for row in rows}


@contextlib.asynccontextmanager
async def serving(agent: Agent, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[Agent]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: agent, local_addr=(host, port)
    )
    agent.port = transport.get_extra_info("sockname")[1]
    try:
        yield agent
    finally:
        transport.close()
