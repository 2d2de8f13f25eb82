"""Bytes to messages and back: the only place where a payload is looked into.

A payload is JSON, except the presence of a rack, which is the plain word `online` or
`offline`. Whatever comes in is either a whole message of its topic's type or a
`WireError`; unknown keys are passed over, so that a newer controller may say more.
"""

from __future__ import annotations

import msgspec

from broker.errors import WireError
from broker.messages import (
    Beat,
    CapMeasured,
    CapSet,
    CapState,
    ElectionMessage,
    Explain,
    Grant,
    Join,
    JoinAnswer,
    Leave,
    MarketState,
    Message,
    Presence,
    Report,
    Roster,
)
from broker.topics import Kind

PAYLOAD_BYTES_MAX = 65_536  # a report of a site with 200 caps fits; more is nobody's message
ROSTER_BYTES_MAX = 524_288  # 1000 racks and 200 caps, with the longest names
_OF_MANY_RACKS = {Kind.ROSTER, Kind.BEAT, Kind.CAP_STATE, Kind.MARKET}

_encoder = msgspec.json.Encoder()
_decoders: dict[Kind, msgspec.json.Decoder[Message]] = {
    Kind.BEAT: msgspec.json.Decoder(Beat),
    Kind.REPORT: msgspec.json.Decoder(Report),
    Kind.GRANT: msgspec.json.Decoder(Grant),
    Kind.ELECTION: msgspec.json.Decoder(ElectionMessage),
    Kind.CAP_SET: msgspec.json.Decoder(CapSet),
    Kind.CAP_MEASURED: msgspec.json.Decoder(CapMeasured),
    Kind.CAP_STATE: msgspec.json.Decoder(CapState),
    Kind.MARKET: msgspec.json.Decoder(MarketState),
    Kind.ROSTER: msgspec.json.Decoder(Roster),
    Kind.JOIN: msgspec.json.Decoder(Join),
    Kind.JOIN_ANSWER: msgspec.json.Decoder(JoinAnswer),
    Kind.LEAVE: msgspec.json.Decoder(Leave),
    Kind.EXPLAIN: msgspec.json.Decoder(Explain),
}


def encode(message: Message, *, time_ms: int = 0) -> bytes:
    """The payload of `message`, stamped with the wall clock for whoever reads along."""
    if isinstance(message, Presence):
        return message.value.encode()
    if time_ms and not isinstance(message, CapSet | CapMeasured):
        message = msgspec.structs.replace(message, time_ms=time_ms)
    return _encoder.encode(message)


def bytes_max(kind: Kind) -> int:
    """The largest payload of a kind: more is neither sent nor read."""
    return ROSTER_BYTES_MAX if kind in _OF_MANY_RACKS else PAYLOAD_BYTES_MAX


def decode(kind: Kind, payload: bytes) -> Message:
    """The message in `payload`, as its topic's kind says. Raises WireError for anything else."""
    if len(payload) > bytes_max(kind):
        raise WireError(f"{len(payload)} bytes, at most {bytes_max(kind)} are read")
    if kind is Kind.ONLINE:
        return _presence(payload)
    try:
        return _decoders[kind].decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from error


def _presence(payload: bytes) -> Presence:
    try:
        return Presence(payload.decode().strip('"'))
    except ValueError as error:
        raise WireError("neither online nor offline") from error
