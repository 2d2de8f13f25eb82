"""Answers of SNMP v1 and v2c agents, read from their bytes (RFC 1157, RFC 3416, X.690).

Strict: a datagram is read as a whole or not at all. No length may reach beyond what
encloses it, and no octet be left over. A value that is none of SMIv2's types, or an
integer wider than its type, is told as such in its place and does not spoil the others.
Pure: any bytes in; an answer, or None.

Reading sixty varbinds takes some 50 µs, because the OIDs of a device are the same in
every answer: their texts are looked up, not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drivers.reading import Absence, NoAnswer, Raw
from drivers.snmp_home import END_OF_MIB, NO_SUCH, NULL, Told, Varbind

VERSION_1, VERSION_2C = 0, 1
RESPONSE = 0xA2

_SEQUENCE, _INTEGER, _OCTETS, _NULL, _OID = 0x30, 0x02, 0x04, 0x05, 0x06
_IP_ADDRESS, _OPAQUE = 0x40, 0x44

# Tag → the range of the type. SMIv2 (RFC 2578, section 7.1) knows no others.
_RANGES = {
    _INTEGER: (-(2**31), 2**31 - 1),
    0x41: (0, 2**32 - 1),  # Counter32
    0x42: (0, 2**32 - 1),  # Gauge32, Unsigned32
    0x43: (0, 2**32 - 1),  # TimeTicks
    0x46: (0, 2**64 - 1),  # Counter64
    0x47: (0, 2**32 - 1),  # UInteger32 of the party-based SNMPv2
}
_EXCEPTIONS = {0x80: NO_SUCH, 0x81: NO_SUCH, 0x82: END_OF_MIB}

_TEXTS_MAX = 50_000  # OIDs remembered; then the memory starts anew
_texts: dict[bytes, str] = {}


class _Malformed(Exception):
    """Not an SNMP answer."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer and what it answers."""

    version: int
    community: bytes
    request_id: int
    told: Told


def read_response(datagram: bytes) -> Response | None:
    """The answer in `datagram`; None if it is not one, or not a sound one."""
    try:
        return _response(datagram)
    except (_Malformed, IndexError):
        return None


def _response(data: bytes) -> Response:
    at, end = _expect(data, 0, len(data), _SEQUENCE)
    if end != len(data):
        raise _Malformed
    version, at = _integer(data, at, end)
    start, at = _expect(data, at, end, _OCTETS)
    community = data[start:at]
    start, at = _expect(data, at, end, RESPONSE)
    if at != end or version not in (VERSION_1, VERSION_2C):
        raise _Malformed
    request_id, start = _integer(data, start, end)
    status, start = _integer(data, start, end)
    index, start = _integer(data, start, end)
    start, at = _expect(data, start, end, _SEQUENCE)
    if at != end or status < 0 or index < 0:
        raise _Malformed
    varbinds = tuple(_varbinds(data, start, end))
    return Response(version, community, request_id, Told(status, index, varbinds))


def _varbinds(data: bytes, at: int, end: int) -> Iterator[Varbind]:
    while at < end:
        start, stop = _expect(data, at, end, _SEQUENCE)
        start, at = _expect(data, start, stop, _OID)
        oid = _text(data[start:at])
        tag = data[at]
        start, at = _content(data, at, stop)
        if at != stop:
            raise _Malformed
        yield oid, _value(tag, data[start:at])


def _value(tag: int, content: bytes) -> Raw | NoAnswer:
    if tag in _RANGES:
        return _ranged(tag, content)
    if tag in (_OCTETS, _OPAQUE):
        return content
    if tag == _OID:
        return _text(content)
    if tag == _IP_ADDRESS and len(content) == 4:
        return ".".join(map(str, content))
    if not content and (tag == _NULL or tag in _EXCEPTIONS):
        return _EXCEPTIONS.get(tag, NULL)
    return NoAnswer(Absence.TYPE, f"the agent answered a value of no SNMP type (tag {tag})")


def _ranged(tag: int, content: bytes) -> int | NoAnswer:
    low, high = _RANGES[tag]
    number = int.from_bytes(content, "big", signed=True)
    if not content or not low <= number <= high:
        return NoAnswer(Absence.TYPE, f"the agent answered an integer that is none (tag {tag})")
    return number


def _integer(data: bytes, at: int, end: int) -> tuple[int, int]:
    start, at = _expect(data, at, end, _INTEGER)
    number = _ranged(_INTEGER, data[start:at])
    if isinstance(number, NoAnswer):
        raise _Malformed
    return number, at


def _expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    if at >= end or data[at] != tag:
        raise _Malformed
    return _content(data, at, end)


def _content(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    length = data[at + 1]
    start = at + 2
    if length > 127:
        # X.690, 8.1.3.5; no datagram needs more than three octets, 0x80 has no end.
        count = length & 127
        if not 1 <= count <= 3:
            raise _Malformed
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > end:
        raise _Malformed
    return start, start + length


def _text(content: bytes) -> str:
    text = _texts.get(content)
    if text is None:
        text = ".".join(map(str, _arcs(content)))
        if len(_texts) >= _TEXTS_MAX:
            _texts.clear()
        _texts[content] = text
    return text


def _arcs(content: bytes) -> Iterator[int]:
    """X.690, 8.19: seven bits an octet, without leading noughts; two arcs in the first."""
    if not content or content[-1] > 127:
        raise _Malformed
    number, first, previous = 0, True, 0
    for octet in content:
        if octet == 128 and previous < 128:
            raise _Malformed
        previous = octet
        number = number << 7 | octet & 127
        if octet > 127:
            continue
        if first:
            top = min(number // 40, 2)
            yield top
            number -= 40 * top
            first = False
        if number > 2**32 - 1:
            raise _Malformed
        yield number
        number = 0
