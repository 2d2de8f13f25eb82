"""An SNMP v1/v2c agent for tests: real UDP, pysnmp's message codec, values from a table.

`Agent.values` maps OIDs to pyasn1 values and may be changed while it serves. The other
attributes are its faults. It keeps every request it heard in `heard`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import api, rfc1902, rfc1905

TAGS = {
    "2": rfc1902.Integer32,
    "4": rfc1902.OctetString,
    "5": lambda _: rfc1902.Null(""),
    "6": rfc1902.ObjectIdentifier,
    "64": rfc1902.IpAddress,
    "65": rfc1902.Counter32,
    "66": rfc1902.Gauge32,
    "67": rfc1902.TimeTicks,
    "70": rfc1902.Counter64,
}


def read_snmprec(path: Path) -> dict[str, Any]:
    """OID → value, from lines of `oid|tag|value`; an x after the tag means hexadecimal."""
    values = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        oid, tag, text = line.split("|", 2)
        if tag.endswith("x"):
            values[oid] = rfc1902.OctetString(hexValue=text)
        else:
            values[oid] = TAGS[tag](text)
    return values


@dataclass
class Agent(asyncio.DatagramProtocol):
    values: dict[str, Any]
    community: str = "public"
    silent: bool = False
    mute_next: int = 0  # so many requests get no answer
    mute_sets: bool = False  # a SET is done but not answered
    refuse_sets: int = 0  # error-status for every SET
    bad_oids: dict[str, int] = field(default_factory=dict)  # OID → error-status of the GET
    oids_max: int = 100  # more: tooBig
    delay_s: float = 0.0
    other_oids: bool = False  # answers objects that nobody asked for
    heard: list[tuple[str, list[str]]] = field(default_factory=list)
    switches: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    port: int = 0
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        version = api.decodeMessageVersion(data)
        proto = api.PROTOCOL_MODULES[version]
        message, _ = decoder.decode(data, asn1Spec=proto.Message())
        if bytes(proto.apiMessage.get_community(message)) != self.community.encode():
            return
        request = proto.apiMessage.get_pdu(message)
        is_set = request.isSameTypeWith(proto.SetRequestPDU())
        varbinds = proto.apiPDU.get_varbinds(request)
        self.heard.append(("set" if is_set else "get", [str(oid) for oid, _ in varbinds]))
        if self.silent:
            return
        if self.mute_next > 0:
            self.mute_next -= 1
            return
        answer = proto.apiMessage.get_response(message)
        pdu = proto.apiMessage.get_pdu(answer)
        status, index, told = self._set(varbinds) if is_set else self._get(version, varbinds)
        proto.apiPDU.set_varbinds(pdu, told)
        proto.apiPDU.set_error_status(pdu, status)
        proto.apiPDU.set_error_index(pdu, index)
        if is_set and self.mute_sets:
            return
        payload = encoder.encode(answer)
        asyncio.get_running_loop().call_later(
            self.delay_s, lambda: self.transport.sendto(payload, sender)
        )

    def _get(self, version: int, varbinds: Any) -> tuple[int, int, Any]:
        if len(varbinds) > self.oids_max:
            return 1, 0, varbinds
        told = []
        for number, (oid, _) in enumerate(varbinds, start=1):
            if str(oid) in self.bad_oids:
                return self.bad_oids[str(oid)], number, varbinds
            if str(oid) not in self.values and version == api.SNMP_VERSION_1:
                return 2, number, varbinds
            value = self.values.get(str(oid), rfc1905.noSuchInstance)
            told.append((rfc1902.ObjectName("1.3.9.9") if self.other_oids else oid, value))
        return 0, 0, told

    def _set(self, varbinds: Any) -> tuple[int, int, Any]:
        if self.refuse_sets:
            return self.refuse_sets, 1, varbinds
        for oid, value in varbinds:
            self.values |= self.switches.get(str(oid), {}).get(int(value), {})
        return 0, 0, varbinds


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
