"""Answers read from their bytes: what stands there, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysnmp.proto import rfc1902, rfc1905
from served_snmp import ber, ber_integer, ber_oid, encoded

from drivers.reading import Absence, NoAnswer
from drivers.snmp_ber import read_response
from drivers.snmp_home import END_OF_MIB, NO_SUCH, NULL


def answer(*varbinds: bytes, version: bytes = b"\x02\x01\x01", tail: bytes = b"") -> bytes:
    pdu = ber(0xA2, ber_integer(-7), ber_integer(0), ber_integer(0), ber(0x30, *varbinds), tail)
    return ber(0x30, version, ber(4, b"public"), pdu)


def varbind(value: bytes, oid: tuple[int, ...] = (1, 3, 6, 1)) -> bytes:
    return ber(0x30, ber_oid(oid), value)


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (rfc1902.Integer32(-(2**31)), -(2**31)),
        (rfc1902.Integer32(2**31 - 1), 2**31 - 1),
        (rfc1902.Counter32(2**32 - 1), 2**32 - 1),
        (rfc1902.Gauge32(2**32 - 1), 2**32 - 1),
        (rfc1902.TimeTicks(1), 1),
        (rfc1902.Counter64(2**64 - 1), 2**64 - 1),
        (rfc1902.OctetString(b"\x00\xff"), b"\x00\xff"),
        (rfc1902.OctetString(b"x" * 300), b"x" * 300),
        (rfc1902.Opaque(b"\x9f"), b"\x9f"),
        (rfc1902.IpAddress("192.0.2.1"), "192.0.2.1"),
        (rfc1902.ObjectIdentifier("2.999.4294967295.0"), "2.999.4294967295.0"),
        (rfc1902.ObjectIdentifier("0.10.43"), "0.10.43"),
        (rfc1905.noSuchInstance, NO_SUCH),
        (rfc1905.noSuchObject, NO_SUCH),
        (rfc1905.endOfMibView, END_OF_MIB),
        (rfc1902.Null(""), NULL),
    ],
)
def test_every_type_of_value(value: object, raw: object) -> None:
    response = read_response(answer(varbind(encoded(value))))
    assert response is not None
    assert response.told.varbinds == (("1.3.6.1", raw),)
    assert (response.version, response.community, response.request_id) == (1, b"public", -7)


@pytest.mark.parametrize(
    "value",
    [
        b"\x02\x09" + b"\x01" * 9,  # wider than an integer is
        b"\x02\x05\x00\x80\x00\x00\x00",  # 2**31
        b"\x02\x00",  # no octets: no number
        b"\x42\x04\xff\xff\xff\xff",  # a gauge below zero
        b"\x46\x08" + b"\xff" * 8,
        b"\x03\x02\x00\x05",  # a bit string
        b"\x01\x01\xff",  # a truth value
        b"\x09\x01\x00",  # a real
        b"\x40\x02\x01\x02",  # half an address
        b"\x81\x01\x00",  # noSuchInstance with something in it
        b"\x30\x00",
    ],
)
def test_what_is_no_value_is_no_number_and_does_not_spoil_its_neighbours(value: bytes) -> None:
    response = read_response(answer(varbind(value), varbind(ber_integer(5), (1, 3, 6, 2))))
    assert response is not None
    (_, bad), good = response.told.varbinds
    assert isinstance(bad, NoAnswer)
    assert bad.absence is Absence.TYPE
    assert good == ("1.3.6.2", 5)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x30",
        b"\x30\x82\xff\xff",
        b"\x30\x80\x00\x00",
        b"hello",
        b"\x00" * 50,
        answer(varbind(ber_integer(5)))[:-1],
        answer(varbind(ber_integer(5))) + b"\x00",
        answer(varbind(ber_integer(5)), tail=b"\x02\x01\x00"),
        answer(varbind(ber_integer(5)), version=b"\x02\x01\x03"),
        answer(varbind(ber_integer(5) + b"\x00")),
        answer(ber(0x30, ber(6, b"\x2b\x86"), ber_integer(5))),  # an OID that does not end
        answer(ber(0x30, ber(6), ber_integer(5))),
        answer(ber(0x30, ber(6, b"\x2b\x80\x06"), ber_integer(5))),  # 6, with a nought before
        answer(b"\x30\x05\x06\x01\x2b\x02\x05\x01"),  # longer than what encloses it
        answer(varbind(ber_integer(5))).replace(b"\xa2", b"\xa0", 1),  # a request
    ],
)
def test_what_is_not_a_sound_answer_is_none(datagram: bytes) -> None:
    assert read_response(datagram) is None


@given(st.binary(max_size=200))
def test_any_bytes_in_an_answer_or_none_out(datagram: bytes) -> None:
    response = read_response(datagram)
    assert response is None or response.version in (0, 1)


@given(st.data())
def test_no_octet_of_an_answer_can_be_lost_or_doubled(data: st.DataObject) -> None:
    whole = answer(*[varbind(ber_integer(n), (1, 3, n)) for n in range(5)])
    at = data.draw(st.integers(0, len(whole) - 1))
    assert read_response(whole[:at] + whole[at + 1 :]) is None
    assert read_response(whole[:at] + whole[at : at + 1] + whole[at:]) is None
