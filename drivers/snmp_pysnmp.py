"""pysnmp: every version, every request. The only home of pysnmp.

Versions 1 and 2c take from pysnmp what they need: its messages. Going through its engine
costs 15 ms of CPU for a table of 192 values, nine tenths of it in taking answers apart;
with `snmp_ber` for that it is a fifth.

SNMPv3 is the engine's: one per process and event loop serves every agent and is closed
with the last of them. An engine knows one set of keys by one user name, so a user of the
same name with other keys elsewhere gets a second one. Requests go past pysnmp's
high-level functions, which look names up in MIBs: objects here are numbers already.

Translated here, and nowhere else: the engine reports a timeout and a refused user as an
error indication, an agent's "no" as an error status, a missing row as a value. Where the
clock or the identity of an SNMPv3 agent is not what it was (it has restarted, or was
replaced), pysnmp asks again by itself, as RFC 3414 has it; such a request was refused
before anything was done, so that this holds for a SET as well. If that does not help,
the agent gets a new engine, which has never heard of it, and is asked once more.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pyasn1.codec.ber import encoder  # type: ignore[import-untyped]
from pyasn1.error import PyAsn1Error  # type: ignore[import-untyped]
from pyasn1.type import univ  # type: ignore[import-untyped]
from pysnmp.entity.rfc3413 import cmdgen
from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch import asyncio as hlapi
from pysnmp.hlapi.v3arch.asyncio.lcd import CommandGeneratorLcdConfigurator
from pysnmp.proto import api, errind, rfc1902, rfc1905

from drivers.address import SnmpAddress
from drivers.errors import ProfileError
from drivers.reading import Absence, NoAnswer, Raw
from drivers.secret import Secret
from drivers.snmp_home import (
    END_OF_MIB,
    NO_SUCH,
    NULL,
    Home,
    Outcome,
    Refusal,
    Silence,
    Told,
)
from drivers.snmp_udp import UdpLine

COLUMNS_MAX = 60

_OIDS_REMEMBERED = 50_000

_AUTH = {
    "MD5": hlapi.USM_AUTH_HMAC96_MD5,
    "SHA": hlapi.USM_AUTH_HMAC96_SHA,
    "SHA224": hlapi.USM_AUTH_HMAC128_SHA224,
    "SHA256": hlapi.USM_AUTH_HMAC192_SHA256,
    "SHA384": hlapi.USM_AUTH_HMAC256_SHA384,
    "SHA512": hlapi.USM_AUTH_HMAC384_SHA512,
}
_PRIV = {
    "DES": hlapi.USM_PRIV_CBC56_DES,
    "AES": hlapi.USM_PRIV_CFB128_AES,
    # As net-snmp names them; pysnmp's own names mean Cisco's (Reeder's) longer keys.
    "AES192": hlapi.USM_PRIV_CFB192_AES_BLUMENTHAL,
    "AES256": hlapi.USM_PRIV_CFB256_AES_BLUMENTHAL,
    "AES192C": hlapi.USM_PRIV_CFB192_AES,
    "AES256C": hlapi.USM_PRIV_CFB256_AES,
}
_SET_TYPES = {
    "int32": rfc1902.Integer32,
    "uint32": rfc1902.Gauge32,
    "uint64": rfc1902.Counter64,
    "text": rfc1902.OctetString,
}


def pysnmp_home(address: SnmpAddress) -> Home:
    """The home of one agent. Nothing is sent or opened before it is first asked."""
    return _UserHome(address) if address.version == 3 else _CommunityHome(address)


# ── versions 1 and 2c ─────────────────────────────────────────────────────────────


class _CommunityHome:
    """pysnmp makes the messages; `snmp_udp` sends them and reads the answers."""

    columns_max = COLUMNS_MAX

    def __init__(self, address: SnmpAddress) -> None:
        self._address = address
        self._api = api.PROTOCOL_MODULES[address.version - 1]
        self._line: UdpLine | None = None

    async def get(self, oids: Sequence[str], timeout_s: float) -> Outcome:
        return await self._exchange(self._api.GetRequestPDU(), _nulls(oids), timeout_s)

    async def get_next(self, oids: Sequence[str], timeout_s: float) -> Outcome:
        return await self._exchange(self._api.GetNextRequestPDU(), _nulls(oids), timeout_s)

    async def get_bulk(self, oids: Sequence[str], repetitions: int, timeout_s: float) -> Outcome:
        pdu = api.v2c.GetBulkRequestPDU()
        return await self._exchange(pdu, _nulls(oids), timeout_s, repetitions)

    async def set(self, oid: str, raw: int | bytes, type_: str, timeout_s: float) -> Outcome:
        varbinds = [(_name(oid), _SET_TYPES[type_](raw))]
        return await self._exchange(self._api.SetRequestPDU(), varbinds, timeout_s)

    async def close(self) -> None:
        self._hang_up()

    async def _exchange(
        self, pdu: Any, varbinds: Any, timeout_s: float, repetitions: int | None = None
    ) -> Outcome:
        request_id = secrets.randbelow(2**31)
        datagram = self._message(pdu, varbinds, request_id, repetitions)
        try:
            async with asyncio.timeout(timeout_s):
                if self._line is None or self._line.loop is not asyncio.get_running_loop():
                    self._hang_up()
                    self._line = await UdpLine.to(self._address)
                return await self._line.ask(datagram, request_id)
        except TimeoutError:
            self._hang_up()
            return Silence()
        except OSError as error:
            self._hang_up()
            return Silence(error.strerror or str(error))

    def _message(self, pdu: Any, varbinds: Any, request_id: int, repetitions: int | None) -> bytes:
        if repetitions is None:
            told = self._api.apiPDU
            told.set_defaults(pdu)
        else:
            told = api.v2c.apiBulkPDU
            told.set_defaults(pdu)
            told.set_non_repeaters(pdu, 0)
            told.set_max_repetitions(pdu, repetitions)
        told.set_request_id(pdu, request_id)
        told.set_varbinds(pdu, varbinds)
        message = self._api.Message()
        self._api.apiMessage.set_defaults(message)
        self._api.apiMessage.set_community(message, self._address.community.text)
        self._api.apiMessage.set_pdu(message, pdu)
        return bytes(encoder.encode(message))

    def _hang_up(self) -> None:
        """A name is looked up again after every silence, and what is late finds no one."""
        if self._line is not None:
            self._line.close()
            self._line = None


# ── version 3 ─────────────────────────────────────────────────────────────────────


class _UserHome:
    """Everything through pysnmp's engine."""

    columns_max = COLUMNS_MAX

    def __init__(self, address: SnmpAddress) -> None:
        if address.priv and importlib.util.find_spec("cryptography") is None:
            raise ProfileError(
                f"{address.printed}: priv={address.priv} needs the Python package cryptography"
                " (pip install cryptography, or apt install python3-cryptography)"
            )
        self._address = address
        self._credentials = _credentials(address)
        self._engine: _Engine | None = None
        self._targets: dict[int, str] = {}  # the engine's names for where the agent is
        self._is_known = False  # the engine believes to know its identity and its clock

    async def get(self, oids: Sequence[str], timeout_s: float) -> Outcome:
        return await self._exchange(_Get, _nulls(oids), timeout_s)

    async def get_next(self, oids: Sequence[str], timeout_s: float) -> Outcome:
        return await self._exchange(_GetNext, _nulls(oids), timeout_s)

    async def get_bulk(self, oids: Sequence[str], repetitions: int, timeout_s: float) -> Outcome:
        return await self._exchange(_GetBulk, _nulls(oids), timeout_s, 0, repetitions)

    async def set(self, oid: str, raw: int | bytes, type_: str, timeout_s: float) -> Outcome:
        return await self._exchange(_Set, [(_name(oid), _SET_TYPES[type_](raw))], timeout_s)

    async def close(self) -> None:
        """Closes the engine with its last agent."""
        engine, self._engine = self._engine, None
        self._targets.clear()
        if engine is not None and engine.leave(self):
            await asyncio.sleep(0)  # lets the engine's cancelled timer end

    async def _exchange(
        self, kind: type[_Patient], varbinds: Any, timeout_s: float, *numbers: int
    ) -> Outcome:
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await self._ask(kind, varbinds, timeout_s, *numbers)
                if outcome is _STRANGER:
                    self._start_anew()
                    outcome = await self._ask(kind, varbinds, timeout_s, *numbers)
        except TimeoutError:
            outcome = Silence()
        except (PySnmpError, PyAsn1Error, OSError) as error:
            outcome = Silence(str(error))
        if isinstance(outcome, Silence):
            self._targets.clear()  # a name is looked up again after every silence
            if self._is_known:
                self._start_anew()  # it may be another one now, whom pysnmp does not hear
        else:
            self._is_known = True
        return outcome

    async def _ask(
        self, kind: type[_Patient], varbinds: Any, timeout_s: float, *numbers: int
    ) -> Outcome:
        engine = self._own_engine()
        kept_s = math.ceil(timeout_s) + 1
        if kept_s not in self._targets:
            target = await engine.target(self._address, self._credentials, kept_s)
            self._targets[kept_s] = target
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            kind(answer).send_varbinds(
                engine.snmp, self._targets[kept_s], None, b"", *numbers, varbinds, _answered, answer
            )
            return await answer
        finally:
            answer.cancel()  # what comes from now on is nobody's

    def _own_engine(self) -> _Engine:
        loop = asyncio.get_running_loop()
        if self._engine is None or self._engine.loop is not loop:
            self._move_to(_Engine.of(loop, self._address))
        assert self._engine is not None
        return self._engine

    def _start_anew(self) -> None:
        self._move_to(_Engine.of(asyncio.get_running_loop(), self._address, is_new=True))

    def _move_to(self, engine: _Engine) -> None:
        left, self._engine = self._engine, engine
        self._targets.clear()
        self._is_known = not engine.join(self, self._address)
        if left is not None:
            left.leave(self)


class _Patient(cmdgen.CommandGenerator):  # type: ignore[misc]
    """A request that ends with those who wait for it: nothing is sent after that."""

    def __init__(self, answer: asyncio.Future[Outcome]) -> None:
        super().__init__()
        self._answer = answer

    def process_response_pdu(self, *told: Any) -> None:
        """What came in; pysnmp would ask a stranger again whether anybody waits or not."""
        if not self._answer.done():
            super().process_response_pdu(*told)
        else:
            told[0].transport_dispatcher.job_finished(id(self))


class _Get(_Patient, cmdgen.GetCommandGenerator):  # type: ignore[misc]
    pass


class _GetNext(_Patient, cmdgen.NextCommandGeneratorSingleRun):  # type: ignore[misc]
    pass


class _GetBulk(_Patient, cmdgen.BulkCommandGeneratorSingleRun):  # type: ignore[misc]
    pass


class _Set(_Patient, cmdgen.SetCommandGenerator):  # type: ignore[misc]
    pass


_STRANGER = Refusal("its clock or identity is not what it was, and it does not say what it is")

_REFUSALS: dict[type[errind.ErrorIndication], Refusal] = {
    errind.NotInTimeWindow: _STRANGER,
    errind.UnknownEngineID: _STRANGER,
    errind.UnknownUserName: Refusal("the agent does not know the user"),
    errind.UnknownSecurityName: Refusal("the agent does not know the user"),
    errind.WrongDigest: Refusal("wrong authentication key or protocol"),
    errind.AuthenticationFailure: Refusal("wrong authentication key or protocol"),
    errind.DecryptionError: Refusal("wrong privacy key or protocol"),
    errind.UnsupportedSecurityLevel: Refusal("the agent wants other auth or priv of this user"),
}


def _answered(
    _engine: Any, _handle: Any, indication: Any, status: Any, index: Any, varbinds: Any,
    answer: asyncio.Future[Outcome],
) -> None:  # fmt: skip
    """Called by pysnmp, once a request."""
    if answer.done():
        return
    if not indication:
        told = tuple((_text(tuple(name)), _raw(value)) for name, value in varbinds)
        answer.set_result(Told(int(status), int(index), told))
    elif isinstance(indication, errind.RequestTimedOut):
        answer.set_result(Silence())
    elif isinstance(indication, errind.ReportPduReceived):
        answer.set_result(Refusal(str(indication)))
    else:
        answer.set_result(_REFUSALS.get(type(indication)) or Silence(str(indication)))


def _raw(value: Any) -> Raw | NoAnswer:
    kind = type(value)
    if kind in _READ:
        return _READ[kind](value)
    if isinstance(value, rfc1902.IpAddress):
        return ".".join(map(str, bytes(value)))
    if isinstance(value, univ.ObjectIdentifier):
        return _text(tuple(value))
    if isinstance(value, univ.OctetString):
        return bytes(value)
    if isinstance(value, univ.Integer):
        return int(value)
    return NoAnswer(Absence.TYPE, f"the agent answered a {kind.__name__}")


_READ: dict[type, Callable[[Any], Raw | NoAnswer]] = {
    rfc1905.NoSuchObject: lambda _: NO_SUCH,
    rfc1905.NoSuchInstance: lambda _: NO_SUCH,
    rfc1905.EndOfMibView: lambda _: END_OF_MIB,
    rfc1905.UnSpecified: lambda _: NULL,
    univ.Null: lambda _: NULL,
    rfc1902.Null: lambda _: NULL,
    rfc1902.Integer32: int,
    rfc1902.Gauge32: int,
    rfc1902.OctetString: bytes,
}


@functools.lru_cache(_OIDS_REMEMBERED)
def _name(oid: str) -> Any:
    return rfc1902.ObjectName(oid)


@functools.lru_cache(_OIDS_REMEMBERED)
def _text(arcs: tuple[int, ...]) -> str:
    return ".".join(map(str, arcs))


def _nulls(oids: Sequence[str]) -> list[Any]:
    return [(_name(oid), api.v2c.null) for oid in oids]


# ── engines ───────────────────────────────────────────────────────────────────────


class _Engine:
    """One pysnmp engine (it loads MIBs: 0.1 s), the users it knows and who speaks through it."""

    _all: ClassVar[list[_Engine]] = []

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.snmp = hlapi.SnmpEngine()
        self.homes: set[_UserHome] = set()
        self._users: dict[str, SnmpAddress] = {}
        self._met: set[tuple[str, int]] = set()
        self._names = CommandGeneratorLcdConfigurator()

    @classmethod
    def of(
        cls, loop: asyncio.AbstractEventLoop, address: SnmpAddress, *, is_new: bool = False
    ) -> _Engine:
        """One that knows the address' user by the same keys, or not yet; `is_new`: and
        that has never met the agent."""
        cls._all = [engine for engine in cls._all if not engine.loop.is_closed()]
        for engine in cls._all:
            has_met = (address.host, address.port) in engine._met
            if engine.loop is loop and not (is_new and has_met) and engine._knows(address):
                return engine
        cls._all.append(cls(loop))
        return cls._all[-1]

    def join(self, home: _UserHome, address: SnmpAddress) -> bool:
        """True if it has not met this agent before."""
        where = (address.host, address.port)
        is_new = where not in self._met
        self._met.add(where)
        self._users[address.user] = address
        self.homes.add(home)
        return is_new

    def _knows(self, address: SnmpAddress) -> bool:
        known = self._users.get(address.user)
        return known is None or _keys(known) == _keys(address)

    async def target(self, address: SnmpAddress, credentials: Any, kept_s: int) -> str:
        """pysnmp's name for the agent at `address`, which is looked up if it is a name."""
        host = (address.host, address.port)
        kind = hlapi.Udp6TransportTarget if ":" in address.host else hlapi.UdpTransportTarget
        target = await kind.create(host, timeout=kept_s, retries=0)
        name, _ = self._names.configure(self.snmp, credentials, target, b"")
        return str(name)

    def leave(self, home: _UserHome) -> bool:
        """True if the engine was closed, with the last of its homes."""
        self.homes.discard(home)
        if self.homes:
            return False
        self._all.remove(self)
        if not self.loop.is_closed():
            self.snmp.close_dispatcher()
        return True


def _keys(address: SnmpAddress) -> tuple[object, ...]:
    return (address.auth, address.auth_key, address.priv, address.priv_key)


def _credentials(address: SnmpAddress) -> Any:
    return hlapi.UsmUserData(
        address.user,
        authKey=_secret(address.auth_key),
        privKey=_secret(address.priv_key),
        authProtocol=_AUTH.get(address.auth),
        privProtocol=_PRIV.get(address.priv),
    )


def _secret(secret: Secret | None) -> str | None:
    return secret.text if secret else None
