"""Modbus requests to bytes, bytes to answers. Pure; the only home of pymodbus.

pymodbus knows how a request is written and what an answer says. Where an answer begins
and ends in a stream is decided here, because its RTU framer throws away what follows a
frame or a damaged byte, and takes any frame of the right function for the answer.

RTU frames carry the unit, the function and a CRC, but neither an address nor a number:
what such a frame may be the answer to is the theory of `drivers.modbus_order`. Here a
frame is searched for by what could come at all: a unit and a function that were asked,
the length that such an answer has, and a CRC that fits. So noise before a frame is
skipped, and a frame of nobody's is not a frame.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadDiscreteInputsRequest,
    WriteSingleCoilRequest,
)
from pymodbus.pdu.mei_message import ReadDeviceInformationRequest, ReadDeviceInformationResponse
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

EXCEPTION = 0x80  # this bit of the function code says "no"
IDENTIFY = 43
SINGLE_WRITES = (5, 6)  # their answer is the request itself

_READS = {"coil": ReadCoilsRequest, "discrete": ReadDiscreteInputsRequest,
          "holding": ReadHoldingRegistersRequest, "input": ReadInputRegistersRequest}  # fmt: skip
_WRITE_ANSWER_BYTES = 5  # function, address, and the value or the count
_MBAP_BYTES = 7
_RTU_BYTES_MIN = 5  # unit, function, code, CRC
_RTU_BYTES_MAX = 256

_decoder = DecodePDU(is_server=False)
_rtu, _socket = FramerRTU(_decoder), FramerSocket(_decoder)


class Shape(NamedTuple):
    """All that tells the answers of one unit apart over RTU: the function, and how many
    bytes follow the unit up to the CRC (0: any number, the answer says it itself)."""

    function: int
    size: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What a unit sent: function code and content, without framing."""

    unit: int
    pdu: bytes

    @property
    def function(self) -> int:
        return self.pdu[0] & ~EXCEPTION

    @property
    def exception(self) -> int | None:
        return self.pdu[1] if self.pdu[0] & EXCEPTION else None

    @property
    def shape(self) -> Shape:
        return Shape(self.function, 0 if self.function == IDENTIFY else len(self.pdu))


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and the answer that fits it. `count` is of registers or bits."""

    unit: int
    pdu: bytes
    shape: Shape
    count: int = 0
    acknowledged_by: bytes = b""  # a write's answer, to the letter

    @property
    def function(self) -> int:
        return self.shape.function

    def fits(self, frame: Frame) -> bool:
        """If `frame` can be the answer: a refusal, or of this shape and, for a write, for
        this address and value."""
        if (frame.unit, frame.function) != (self.unit, self.function):
            return False
        if frame.exception is not None:
            return True
        return frame.shape == self.shape and self.acknowledged_by in (b"", frame.pdu)


@dataclass(frozen=True, slots=True)
class Objects:
    """One page of an identification, and the object with which the next one begins."""

    texts: dict[int, str]
    conformity: int
    next_object: int | None


class DamagedStream(Exception):
    """TCP bytes that are not Modbus: nothing after them can be believed."""


# ── requests ──────────────────────────────────────────────────────────────────────


def read_request(unit: int, table: str, address: int, count: int) -> Request:
    """A read of `count` registers, or bits, from `address`."""
    function = _READS[table].function_code
    size = count * 2 if table in ("holding", "input") else (count + 7) // 8
    pdu = _pdu(_READS[table](address=address, count=count))
    return Request(unit, pdu, Shape(function, 2 + size), count)


def coil_request(unit: int, address: int, on: bool) -> Request:
    return _write(unit, WriteSingleCoilRequest(address=address, bits=[on]))


def registers_request(unit: int, address: int, registers: list[int]) -> Request:
    """A write of one register (function 6) or of several (function 16)."""
    several = len(registers) > 1
    kind = WriteMultipleRegistersRequest if several else WriteSingleRegisterRequest
    return _write(unit, kind(address=address, registers=registers))


def identify_request(unit: int, read_code: int, first_object: int) -> Request:
    """Function 43/14; `read_code` 1 is the basic objects, 2 the regular ones."""
    asked = ReadDeviceInformationRequest(read_code=read_code, object_id=first_object)
    return Request(unit, _pdu(asked), Shape(IDENTIFY, 0))


def _write(unit: int, message: ModbusPDU) -> Request:
    pdu = _pdu(message)
    shape = Shape(message.function_code, _WRITE_ANSWER_BYTES)
    return Request(unit, pdu, shape, acknowledged_by=pdu[:_WRITE_ANSWER_BYTES])


def _pdu(message: ModbusPDU) -> bytes:
    return message.function_code.to_bytes(1, "big") + message.encode()


# ── framing ───────────────────────────────────────────────────────────────────────


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    return _rtu.encode(pdu, unit, 0)


def tcp_frame(unit: int, pdu: bytes, transaction: int) -> bytes:
    return _socket.encode(pdu, unit, transaction)


def find_rtu(
    received: bytes, expected: Collection[tuple[int, Shape]]
) -> tuple[int, int, Frame] | None:
    """The first whole frame in `received` that anybody expects: begin, end, content."""
    asked = {(unit, shape.function) for unit, shape in expected}
    for begin in range(len(received) - _RTU_BYTES_MIN + 1):
        unit, function = received[begin], received[begin + 1]
        if (unit, function & ~EXCEPTION) not in asked:
            continue
        size = _pdu_size(received[begin : begin + _RTU_BYTES_MAX])
        end = begin + 1 + size + 2
        if end > len(received):
            continue
        frame = Frame(unit, received[begin + 1 : end - 2])
        if frame.exception is None and (unit, frame.shape) not in expected:
            continue
        crc = int.from_bytes(received[end - 2 : end], "big")
        if FramerRTU.check_CRC(received[begin : end - 2], crc):
            return begin, end, frame
    return None


def _pdu_size(received: bytes) -> int:
    """How long the answer is that begins here, as far as it says so."""
    function = received[1]
    if function & EXCEPTION:
        return 2
    if function <= 4:
        return 2 + received[2]
    if function == IDENTIFY:
        return ReadDeviceInformationResponse.calculateRtuFrameSize(received) - 3
    return _WRITE_ANSWER_BYTES


def cut_tcp(received: bytes) -> tuple[int, int, Frame] | None:
    """The frame that `received` begins with: its length, its transaction, its content.

    None: it is not complete yet. DamagedStream: it will never be one.
    """
    if len(received) < _MBAP_BYTES:
        return None
    _, protocol, length = struct.unpack(">HHH", received[:6])
    if protocol != 0 or not 3 <= length <= 254:
        raise DamagedStream
    used, unit, transaction, pdu = _socket.decode(received[: 6 + length])
    return (used, transaction, Frame(unit, pdu)) if used else None


# ── what an answer says ───────────────────────────────────────────────────────────


def values_in(request: Request, frame: Frame) -> list[int] | None:
    """The registers or bits of a read; None if it is not as many as were asked for."""
    message = _decoder.decode(frame.pdu)
    if message is None:
        return None
    if request.function > 2:
        values = [int(register) for register in message.registers]
    elif len(frame.pdu) == request.shape.size:
        values = [int(bit) for bit in message.bits[: request.count]]
    else:
        return None
    return values if len(values) == request.count else None


def objects_in(frame: Frame) -> Objects | None:
    """One page of an identification; None if it cannot be taken apart."""
    message = _decoder.decode(frame.pdu)
    if not isinstance(message, ReadDeviceInformationResponse):
        return None
    # pymodbus takes what is there, as many objects and bytes as it may be.
    if _pdu_size(bytes([frame.unit]) + frame.pdu) != len(frame.pdu):
        return None
    texts: dict[int, str] = {}
    for number, content in message.information.items():
        if not isinstance(content, bytes):  # the same object twice
            return None
        texts[number] = content.decode("utf-8", "replace").strip(" \0\t\r\n")
    more = message.next_object_id if message.more_follows == 0xFF else None
    return Objects(texts, message.conformity, more)
