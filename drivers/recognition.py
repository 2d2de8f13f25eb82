"""Who is there: which profile fits a device, and what it has.

An SNMP agent is asked for its sysObjectID and description first, and then only for what
the profiles that come into question want to see. A Modbus device says what it is only
where it has a SunSpec marker or answers the identification (function 43/14); any other
is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from drivers.errors import DeviceError, ProfileError
from drivers.modbus import ModbusUnit
from drivers.plan import Span
from drivers.profile import SYS_DESCR, SYS_OBJECT_ID, Match
from drivers.reading import Absence, Answer, NoAnswer, Place, Raw
from drivers.snmp import SnmpAgent, Temper
from drivers.sunspec import BASES, MARKER, Chain, chain_at

VENDOR, PRODUCT = 0, 1  # objects of the identification

# Before a profile is known: a gentle way to ask.
TEMPER = Temper(timeout_s=2.0, read_s_max=10.0, oids_per_get_max=8, repetitions_max=10)


class Matching(Protocol):
    """A profile, or as much of it as recognition needs."""

    @property
    def name(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def match(self) -> Match | None: ...


M = TypeVar("M", bound=Matching)


async def recognise_agent(agent: SnmpAgent, url: str, profiles: Iterable[M]) -> M:
    """The one profile that fits the agent.

    DeviceError if the agent does not answer; ProfileError if none fits, or several.
    """
    candidates = [(profile, profile.match) for profile in profiles if profile.match]
    candidates = [(p, match) for p, match in candidates if p.protocol == "snmp"]
    first = list(dict.fromkeys([SYS_OBJECT_ID, SYS_DESCR, *(m.oid for _, m in candidates)]))
    said = _told(await agent.fetch(first, temper=TEMPER))
    likely = [(profile, match) for profile, match in candidates if _is_likely(match, said)]
    objects = [oid for _, m in likely for oid in (*m.present, *m.positive, *m.lacking)]
    answers: dict[str, Raw | NoAnswer] = {}
    if objects:
        answers |= _told(await agent.fetch(list(dict.fromkeys(objects)), temper=TEMPER), whole=True)
    prefixes = list(dict.fromkeys(oid for _, m in likely for oid in m.present_below))
    below = await agent.below(prefixes, temper=TEMPER) if prefixes else {}
    for found in below.values():
        if isinstance(found, NoAnswer) and found.absence is not Absence.ABSENT:
            raise DeviceError(found.absence, found.detail)
    fitting = [p for p, match in likely if _is_proven(match, answers, below)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(profile.name for profile in fitting)
        raise ProfileError(f"{url}: several profiles fit ({names}): name the one that is meant")
    facts = f"sysObjectID is {_shown(said[SYS_OBJECT_ID])}, sysDescr {_shown(said[SYS_DESCR])}"
    nearly = f"; {', '.join(p.name for p, _ in likely)} lack objects they need" if likely else ""
    raise ProfileError(
        f"{url}: no profile fits ({facts}{nearly}). If it is a PDU or a meter, name its profile"
        " with --profile ('wattbroker profiles list'), or write one (docs/add-a-device.md)"
    )


async def recognise_unit(
    unit: ModbusUnit, url: str, profiles: Iterable[M], *, timeout_s: float
) -> M:
    """The one profile that fits a Modbus device which says what it is.

    DeviceError if it does not answer; ProfileError if it does not say what it is, or if
    none of the profiles fits, or several.
    """
    candidates = [(p, p.match) for p in profiles if p.protocol == "modbus" and p.match]
    models = await sunspec_models(unit, timeout_s=timeout_s)
    texts: Mapping[int, str] = {}
    if models:
        fitting = [p for p, match in candidates if any(model in models for model in match.models)]
        what = f"SunSpec models {', '.join(map(str, models))}"
    else:
        told = await unit.identification(timeout_s=timeout_s)
        if isinstance(told, NoAnswer) and told.absence is Absence.TIMEOUT:
            raise DeviceError(told.absence, told.detail)
        texts = {} if isinstance(told, NoAnswer) else told
        fitting = [p for p, match in candidates if _is_identified(match, texts)]
        what = f"identification {', '.join(texts.values())}" if texts else ""
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(profile.name for profile in fitting)
        raise ProfileError(f"{url}: several profiles fit ({names}): name the one that is meant")
    if what:
        raise ProfileError(f"{url}: no profile fits ({what}): name one with --profile")
    raise ProfileError(f"{url}: a Modbus device that does not say what it is: name its profile")


async def sunspec_models(unit: ModbusUnit, *, timeout_s: float) -> dict[int, int]:
    """SunSpec id → address of the model's id register; empty if the device is none.

    DeviceError if it does not answer, or stops answering in the middle of the chain.
    """
    for base in BASES:
        if await _two_registers(unit, base, timeout_s) == MARKER:
            chain: Chain = chain_at(base)
            while chain.ask is not None:
                header = await _two_registers(unit, chain.ask, timeout_s)
                if header is None:
                    raise DeviceError(
                        Absence.INCOMPLETE, f"the chain of models breaks off at {chain.ask}"
                    )
                chain = chain.said(*header)
            return dict(chain.models)
    return {}


async def _two_registers(
    unit: ModbusUnit, address: int, timeout_s: float
) -> tuple[int, int] | None:
    """The registers there; None if the device refuses."""
    span = Span("holding", address, 2, ((address, 2),))
    answers = await unit.fetch([span], timeout_s=timeout_s, read_s_max=2 * timeout_s)
    raws = [answers[("holding", address + n)].raw for n in (0, 1)]
    for raw in raws:
        if isinstance(raw, NoAnswer) and raw.absence is Absence.TIMEOUT:
            raise DeviceError(raw.absence, raw.detail)
    high, low = raws
    return (high, low) if isinstance(high, int) and isinstance(low, int) else None


def _told(answers: Mapping[Place, Answer], *, whole: bool = False) -> dict[str, Raw | NoAnswer]:
    """What the agent said; DeviceError if it said nothing, or nothing but no.

    `whole`: or if only one object is not known to be there or not to be there. An agent
    that starts up must not be taken for another.
    """
    troubles = []
    for answer in answers.values():
        raw = answer.raw
        if isinstance(raw, NoAnswer) and raw.absence is not Absence.ABSENT:
            troubles.append(raw)
    for trouble in troubles:
        if whole or trouble.absence is Absence.TIMEOUT or len(troubles) == len(answers):
            raise DeviceError(trouble.absence, trouble.detail)
    return {str(place): answer.raw for place, answer in answers.items()}


def _is_likely(match: Match, said: Mapping[str, Raw | NoAnswer]) -> bool:
    identifier, description = said[match.oid], said[SYS_DESCR]
    if isinstance(identifier, bytes):
        identifier = identifier.decode("utf-8", "replace")
    if not isinstance(identifier, NoAnswer):
        text = str(identifier)
        if text in match.one_of or any(_is_under(text, prefix) for prefix in match.under):
            return True
    text = description.decode("utf-8", "replace") if isinstance(description, bytes) else ""
    return any(mark in text for mark in match.describes)


def _is_under(oid: str, prefix: str) -> bool:
    return oid == prefix or oid.startswith(prefix + ".")


def _is_proven(
    match: Match,
    answers: Mapping[str, Raw | NoAnswer],
    below: Mapping[str, tuple[str, Answer] | NoAnswer],
) -> bool:
    positives = [answers[oid] for oid in match.positive]
    return (
        not any(isinstance(answers[oid], NoAnswer) for oid in match.present)
        and not any(isinstance(below[oid], NoAnswer) for oid in match.present_below)
        and all(isinstance(raw, int) and raw > 0 for raw in positives)
        and all(isinstance(answers[oid], NoAnswer) for oid in match.lacking)
    )


def _is_identified(match: Match, texts: Mapping[int, str]) -> bool:
    return bool(match.vendor) and (
        match.vendor in texts.get(VENDOR, "") and match.product in texts.get(PRODUCT, "")
    )


def _shown(raw: Raw | NoAnswer) -> str:
    if isinstance(raw, NoAnswer):
        return "absent"
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    return repr(text[:60]) if isinstance(raw, bytes) else text


def texts_of(sources: Sequence[tuple[object, str]]) -> str | None:
    """The first text that is there; with a mark, the word that follows it."""
    for told, after in sources:
        if not isinstance(told, str):
            continue
        if after:
            words = told.partition(after)[2].split(maxsplit=1)
            told = words[0].rstrip(",;)") if words else ""
        if told:
            return told
    return None
