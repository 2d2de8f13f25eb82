"""SNMP agents: GET and SET over UDP. The only home of pysnmp.

One engine per process serves every agent and is closed with the last of them. Each
agent has one outstanding request. A datagram may be lost: a GET is sent once more if
the agent has answered before in the same fetch, otherwise the first silence ends the
fetch, so that a dead agent costs one timeout and not one per request. A SET is sent
exactly once, whatever happens to it.

Translated here, and nowhere else: pysnmp reports a timeout and a refused user as an
error indication, an agent's "no" as an error status, a missing row as a value
(v2c, v3) or as the failure of the whole GET (v1: RFC 1157 noSuchName).
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyasn1.error import PyAsn1Error  # type: ignore[import-untyped]
from pyasn1.type import univ  # type: ignore[import-untyped]
from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch import asyncio as hlapi
from pysnmp.proto import errind, rfc1902, rfc1905

from drivers.address import SnmpAddress
from drivers.errors import ProfileError
from drivers.reading import Absence, Answer, NoAnswer, Place, Raw
from drivers.secret import Secret

# pysnmp looks at its timers twice a second; ours are exact, its own only clean up.
CLEAN_UP_S = 1.0

TOO_BIG, NO_SUCH_NAME = 1, 2  # RFC 1157 and 3416 error-status

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
    "AES192": hlapi.USM_PRIV_CFB192_AES,
    "AES256": hlapi.USM_PRIV_CFB256_AES,
}
_SET_TYPES = {"int32": rfc1902.Integer32, "uint32": rfc1902.Gauge32, "uint64": rfc1902.Counter64}


class SnmpAgent:
    """One agent. Nothing is sent or opened before the first `fetch` or `write`."""

    def __init__(self, address: SnmpAddress, clock: Callable[[], float]) -> None:
        if address.priv and importlib.util.find_spec("cryptography") is None:
            raise ProfileError(
                f"{address.printed}: priv={address.priv} needs the Python package cryptography"
                " (pip install cryptography, or apt install python3-cryptography)"
            )
        self._address = address
        self._clock = clock
        self._credentials = _credentials(address)
        self._target: Any = None
        self._lock = asyncio.Lock()

    async def fetch(
        self, gets: Iterable[Sequence[str]], *, timeout_s: float, read_s_max: float
    ) -> dict[Place, Answer]:
        """Every OID of `gets` with its answer, or with the reason for none."""
        pending: deque[Sequence[str]] = deque(gets)
        answers: dict[Place, Answer] = {}
        deadline_s = self._clock() + read_s_max
        may_repeat = False
        while pending:
            if self._clock() >= deadline_s:
                return self._give_up(answers, pending, "the read took too long")
            oids = pending.popleft()
            asked_at_s, outcome = await self._exchange(hlapi.get_cmd, _nulls(oids), timeout_s)
            if isinstance(outcome, NoAnswer):
                if may_repeat and outcome.absence is Absence.TIMEOUT:
                    pending.appendleft(oids)
                    may_repeat = False
                    continue
                for oid in oids:
                    answers[oid] = Answer(outcome, asked_at_s, self._clock())
                return self._give_up(answers, pending, outcome.detail, outcome.absence)
            if not answers:
                may_repeat = True
            again, told = _told(oids, *outcome)
            pending.extendleft(reversed(again))
            taken_at_s = self._clock()
            answers |= {oid: Answer(raw, asked_at_s, taken_at_s) for oid, raw in told.items()}
        return answers

    async def write(self, oid: str, raw: int, type_: str, *, timeout_s: float) -> NoAnswer | None:
        """Sends one SET, once. None: the agent accepted it."""
        varbind = hlapi.ObjectType(hlapi.ObjectIdentity(oid), _SET_TYPES[type_](raw))
        _, outcome = await self._exchange(hlapi.set_cmd, [varbind], timeout_s)
        if isinstance(outcome, NoAnswer):
            return outcome
        status, _, _ = outcome
        return NoAnswer(Absence.REFUSED, f"the agent says {_named(status)}") if status else None

    async def close(self) -> None:
        """Closes the engine with its last agent. The agent can be used again after it."""
        self._target = None
        if _release(self):
            await asyncio.sleep(0)  # lets the engine's cancelled timer end

    async def _exchange(
        self, command: Any, varbinds: list[Any], timeout_s: float
    ) -> tuple[float, NoAnswer | tuple[Any, int, Sequence[Any]]]:
        """One request and its answer: (error status, error index, varbinds)."""
        async with self._lock:
            asked_at_s = self._clock()
            try:
                target = await self._resolved(timeout_s)
                asked_at_s = self._clock()
                indication, status, index, answered = await asyncio.wait_for(
                    command(_engine(self), self._credentials, target, hlapi.ContextData(),
                            *varbinds, lookupMib=False),
                    timeout_s,
                )  # fmt: skip
            except TimeoutError:
                return asked_at_s, self._silence(timeout_s)
            except (PySnmpError, PyAsn1Error, OSError) as error:
                self._target = None
                return asked_at_s, NoAnswer(Absence.TIMEOUT, f"{self._address.printed}: {error}")
        if isinstance(indication, errind.RequestTimedOut):
            return asked_at_s, self._silence(timeout_s)
        if indication:
            text = f"{self._address.printed}: {indication}; check the user and its keys"
            return asked_at_s, NoAnswer(Absence.REFUSED, text)
        return asked_at_s, (status, int(index), answered)

    async def _resolved(self, timeout_s: float) -> Any:
        """The transport target; a name is looked up again after every silence."""
        if self._target is None or self._target.timeout != timeout_s + CLEAN_UP_S:
            host = (self._address.host, self._address.port)
            kind = hlapi.Udp6TransportTarget if ":" in host[0] else hlapi.UdpTransportTarget
            creation = kind.create(host, timeout=timeout_s + CLEAN_UP_S, retries=0)
            self._target = await asyncio.wait_for(creation, timeout_s)
        return self._target

    def _silence(self, timeout_s: float) -> NoAnswer:
        self._target = None
        hint = "user" if self._address.version == 3 else "community (a wrong one gets no answer)"
        return NoAnswer(
            Absence.TIMEOUT,
            f"{self._address.printed}: no answer within {timeout_s:g} s; check address, port,"
            f" SNMP version, {hint} and the agent's access list",
        )

    def _give_up(
        self,
        answers: dict[Place, Answer],
        pending: Iterable[Sequence[str]],
        detail: str,
        absence: Absence = Absence.TIMEOUT,
    ) -> dict[Place, Answer]:
        now_s = self._clock()
        for oid in (oid for oids in pending for oid in oids):
            answers[oid] = Answer(NoAnswer(absence, detail), now_s, now_s)
        return answers


def _told(
    oids: Sequence[str], status: Any, index: int, varbinds: Sequence[Any]
) -> tuple[list[Sequence[str]], dict[str, Raw | NoAnswer]]:
    """What a response says about each OID, and what must be asked again."""
    if not status:
        found = {str(name): _raw(value) for name, value in varbinds}
        nothing = NoAnswer(Absence.TYPE, "the agent answered other objects than it was asked")
        return [], {oid: found.get(oid, nothing) for oid in oids}
    if int(status) == TOO_BIG and len(oids) > 1:
        return _halves(oids), {}
    if not 1 <= index <= len(oids):
        if len(oids) > 1:
            return _halves(oids), {}
        index = 1
    # One bad object fails the whole GET: take it out and ask for the others again.
    absence = Absence.ABSENT if int(status) == NO_SUCH_NAME else Absence.REFUSED
    others = [oid for oid in oids if oid != oids[index - 1]]
    told = {oids[index - 1]: NoAnswer(absence, f"the agent says {_named(status)}")}
    return [others] if others else [], dict(told)


def _halves(oids: Sequence[str]) -> list[Sequence[str]]:
    middle = len(oids) // 2
    return [oids[:middle], oids[middle:]]


def _raw(value: Any) -> Raw | NoAnswer:
    if isinstance(value, (rfc1905.NoSuchObject, rfc1905.NoSuchInstance, rfc1905.EndOfMibView)):
        return NoAnswer(Absence.ABSENT, "the agent has no such object")
    if isinstance(value, univ.ObjectIdentifier):
        return str(value)
    if isinstance(value, univ.OctetString):
        return bytes(value)
    if isinstance(value, univ.Integer):
        return int(value)
    return NoAnswer(Absence.ABSENT, "the agent answered nothing (NULL)")


def _nulls(oids: Sequence[str]) -> list[Any]:
    return [hlapi.ObjectType(hlapi.ObjectIdentity(oid)) for oid in oids]


def _named(status: Any) -> str:
    return status.prettyPrint() if hasattr(status, "prettyPrint") else str(status)


def _credentials(address: SnmpAddress) -> Any:
    if address.version < 3:
        return hlapi.CommunityData(address.community.text, mpModel=address.version - 1)
    return hlapi.UsmUserData(
        address.user,
        authKey=_text(address.auth_key),
        privKey=_text(address.priv_key),
        authProtocol=_AUTH.get(address.auth),
        privProtocol=_PRIV.get(address.priv),
    )


def _text(secret: Secret | None) -> str | None:
    return secret.text if secret else None


# ── the engine that all agents share ──────────────────────────────────────────────

_shared: dict[asyncio.AbstractEventLoop, tuple[hlapi.SnmpEngine, set[SnmpAgent]]] = {}


def _engine(agent: SnmpAgent) -> hlapi.SnmpEngine:
    """The engine of the running loop, opened by its first user (it loads MIBs: 0.1 s)."""
    loop = asyncio.get_running_loop()
    for other in [other for other in _shared if other.is_closed()]:
        del _shared[other]
    if loop not in _shared:
        _shared[loop] = (hlapi.SnmpEngine(), set())
    engine, users = _shared[loop]
    users.add(agent)
    return engine


def _release(agent: SnmpAgent) -> bool:
    """True if the engine was closed."""
    loop = asyncio.get_running_loop()
    if loop not in _shared:
        return False
    engine, users = _shared[loop]
    users.discard(agent)
    if users:
        return False
    del _shared[loop]
    engine.close_dispatcher()
    return True
