"""SNMP agents: what is asked, how often, and when it is enough.

Everything that does not depend on a library: which requests (`snmp_plan`), how large
(`snmp_bearing`), and the rules of the line. An agent has one outstanding request; all
who speak to the same host and port take turns (`turns`), as the members of a daisy chain
are separate devices behind one agent. A datagram may be lost: what was asked is asked
once more if the agent has answered before in the same fetch, beginning with its smallest
part, as the agent may have found it too much. Otherwise the first silence ends the
fetch, so that a dead agent costs one timeout and not one per request; to one that has
not answered yet the first request is for one object. A SET is sent exactly once,
whatever happens to it.

The libraries' homes are `snmp_pysnmp` (everything) and `snmp_gufo` (versions 1 and 2c,
faster, optional). WATTBROKER_SNMP=pysnmp or gufo chooses one; left out, gufo serves what
it can if it is installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary, WeakValueDictionary

from drivers.address import SnmpAddress
from drivers.errors import ProfileError
from drivers.reading import Absence, Answer, NoAnswer, Place, Raw
from drivers.snmp_bearing import Bearing
from drivers.snmp_home import Home, Outcome, Refusal, Silence, Told, status_name
from drivers.snmp_plan import (
    PASSED,
    Below,
    Job,
    Request,
    Said,
    Sweep,
    Temper,
    first_of,
    plan_fetch,
)
from drivers.snmp_pysnmp import pysnmp_home
from drivers.turns import Rank, Turn, Turns

__all__ = ["HOMES", "SnmpAgent", "Temper", "Walked"]

HOMES = ("pysnmp", "gufo")

TURN_TIMEOUTS_MAX = 10  # a SET waits for its turn for at most so many of its timeouts

ABSENT_MAX = 20_000  # objects of one agent that are remembered as not there

_TOO_LONG = NoAnswer(Absence.TIMEOUT, "the read took too long")


@dataclass(frozen=True, slots=True)
class Walked:
    """What is below a column, by OID in the agent's order. `gap` None: that is all of it."""

    answers: dict[str, Answer]
    gap: NoAnswer | None


class SnmpAgent:
    """One agent. Nothing is sent or opened before it is first asked.

    `home` is one of HOMES. ProfileError: it is not installed, or the address needs what
    is not installed.
    """

    def __init__(
        self, address: SnmpAddress, clock: Callable[[], float], *, home: str | None = None
    ) -> None:
        self.home_name = _home_name(address, home or os.environ.get("WATTBROKER_SNMP") or None)
        self._address = address
        self._clock = clock
        self._home: Home = pysnmp_home(address)
        if self.home_name == "gufo":
            from drivers.snmp_gufo import GufoHome

            self._home = GufoHome(address, self._home)
        self._line: _Line | None = None

    async def fetch(self, oids: Sequence[str], *, temper: Temper) -> dict[Place, Answer]:
        """Every one of `oids` with its answer, or with the reason for none."""
        wanted = list(dict.fromkeys(oids))
        plan = plan_fetch(
            wanted, temper, version=self._address.version, columns_max=self._home.columns_max
        )
        said, over = await self._ask_all(plan, temper)
        if over is None:
            over = await self._ask_passed(said, replace(temper, repetitions_max=0))
        now_s = self._clock()
        missing = Answer(over or NoAnswer(Absence.INCOMPLETE, "not reached"), now_s, now_s)
        return {oid: _answer(said[oid]) if oid in said else missing for oid in wanted}

    async def _ask_passed(self, said: dict[str, _Said], temper: Temper) -> NoAnswer | None:
        """Asks by name, once in an agent's life, for what a walk has passed without seeing:
        some agents leave rows out of a GETBULK, and a sum must not lose one by that."""
        absent = self._own_line().absent
        passed = [oid for oid, told in said.items() if told.said is PASSED and oid not in absent]
        if self._address.version == 1 or not passed:
            return None
        plan = plan_fetch(passed, temper, version=2, columns_max=1)
        again, over = await self._ask_all(plan, temper)
        said |= again
        if len(absent) + len(passed) > ABSENT_MAX:
            absent.clear()
        absent |= {oid for oid, told in again.items() if _is_absent(told.said)}
        return over

    async def walk(self, column: str, *, temper: Temper, rows_max: int = 2000) -> Walked:
        """Everything below `column`, at most `rows_max` objects."""
        said, over = await self._ask_all([Sweep(column, column, rows_max)], temper)
        return Walked({oid: _answer(told) for oid, told in said.items()}, over)

    async def below(
        self, prefixes: Sequence[str], *, temper: Temper
    ) -> dict[str, tuple[str, Answer] | NoAnswer]:
        """The first object below each of `prefixes`, ABSENT if nothing is there."""
        wanted = tuple(dict.fromkeys(prefixes))
        said, over = await self._ask_all([Below(wanted)] if wanted else [], temper)
        found: dict[str, tuple[str, Answer] | NoAnswer] = {}
        for prefix in wanted:
            told = said.get(prefix)
            if told is None:
                found[prefix] = over or NoAnswer(Absence.INCOMPLETE, "not reached")
            elif isinstance(told.said, tuple):
                oid, raw = told.said
                found[prefix] = (oid, Answer(raw, told.asked_at_s, told.taken_at_s))
            else:
                assert isinstance(told.said, NoAnswer)
                found[prefix] = told.said
        return found

    async def write(
        self, oid: str, raw: int | bytes, type_: str, *, timeout_s: float
    ) -> NoAnswer | None:
        """Sends one SET, once. None: the agent accepted it."""
        line = self._own_line()

        async def talk(turn: Turn) -> Outcome:
            await line.pause(self._clock, line.pause_s)
            if not turn.is_wanted:
                return Silence()
            try:
                return await self._home.set(oid, raw, type_, timeout_s)
            finally:
                line.ended_at_s = self._clock()

        wait_s = TURN_TIMEOUTS_MAX * timeout_s
        outcome = await line.turns.speak(talk, rank=Rank.WRITE, wait_s=wait_s)
        match outcome:
            case None:
                text = f"{self._address.printed}: not sent, the agent was busy for {wait_s:g} s"
                return NoAnswer(Absence.TIMEOUT, text)
            case Told(status=0):
                line.bearing.is_alive = True
                return None
            case Told(status=status):
                return NoAnswer(Absence.REFUSED, f"the agent says {status_name(status)}")
            case _:
                return self._verdict(outcome, timeout_s)

    async def close(self) -> None:
        """Ends what is open. The agent can be used again after it."""
        await self._home.close()
        self._line = None

    # ── inside ──

    async def _ask_all(
        self, jobs: Iterable[Job], temper: Temper
    ) -> tuple[dict[str, _Said], NoAnswer | None]:
        """Carries out `jobs`: what was said, and why it ended before the last of them."""
        if self._address.version == 1:
            temper = replace(temper, repetitions_max=0)  # it has no GETBULK
        round_ = _Round(deque(jobs), self._own_line().bearing, temper)
        deadline_s = self._clock() + temper.read_s_max
        while round_.pending and round_.over is None:
            job, request = round_.next()
            timeout_s, asked_at_s, outcome = await self._exchange(request, temper, deadline_s)
            taken_at_s = self._clock()
            if isinstance(outcome, Told):
                round_.told(job, request, outcome, asked_at_s, taken_at_s)
            elif isinstance(outcome, Silence) and timeout_s < temper.timeout_s:
                round_.over = _TOO_LONG
            else:
                round_.not_told(job, request, outcome, self._verdict(outcome, timeout_s))
        return round_.said, round_.over

    async def _exchange(
        self, request: Request, temper: Temper, deadline_s: float
    ) -> tuple[float, float, Outcome]:
        """One request in its turn: how long it could take, when it was sent, and what came."""
        line, clock = self._own_line(), self._clock

        async def talk(turn: Turn) -> tuple[float, float, Outcome]:
            await line.pause(clock, temper.pause_s)
            asked_at_s = clock()
            timeout_s = min(temper.timeout_s, deadline_s - asked_at_s)
            if timeout_s <= 0 or not turn.is_wanted:
                return 0.0, asked_at_s, Silence()
            line.pause_s = temper.pause_s
            try:
                return timeout_s, asked_at_s, await self._send(request, timeout_s)
            finally:
                line.ended_at_s = clock()

        told = await line.turns.speak(talk, rank=Rank.READ, wait_s=deadline_s - clock())
        return told or (0.0, clock(), Silence())

    async def _send(self, request: Request, timeout_s: float) -> Outcome:
        if request.kind == "get":
            return await self._home.get(request.oids, timeout_s)
        if request.kind == "next":
            return await self._home.get_next(request.oids, timeout_s)
        return await self._home.get_bulk(request.oids, request.repetitions, timeout_s)

    def _verdict(self, outcome: Outcome, timeout_s: float) -> NoAnswer:
        """Why there is no answer, and what the operator should look at."""
        where = self._address.printed
        if isinstance(outcome, Refusal):
            text = f"{where}: {outcome.detail}; check the user and its keys"
            return NoAnswer(Absence.REFUSED, text)
        assert isinstance(outcome, Silence)
        why = f" ({outcome.detail})" if outcome.detail else ""
        hint = "community (a wrong one gets no answer)"
        if self._address.version == 3:
            hint = "user, privacy key (many agents do not answer a wrong one)"
        return NoAnswer(
            Absence.TIMEOUT,
            f"{where}: no answer within {timeout_s:g} s{why}; check address, port,"
            f" SNMP version, {hint} and the agent's access list",
        )

    def _own_line(self) -> _Line:
        loop = asyncio.get_running_loop()
        if self._line is None or self._line.loop is not loop:
            key = (self._address.host, self._address.port)
            lines = _lines.setdefault(loop, WeakValueDictionary())
            self._line = lines.setdefault(key, _Line(loop))
        return self._line


# ── one fetch ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Said:
    said: Said
    asked_at_s: float
    taken_at_s: float


def _is_absent(said: Said) -> bool:
    return isinstance(said, NoAnswer) and said.absence is Absence.ABSENT


def _answer(told: _Said) -> Answer:
    assert not isinstance(told.said, tuple)
    raw: Raw | NoAnswer = told.said
    return Answer(raw, told.asked_at_s, told.taken_at_s)


@dataclass(slots=True)
class _Round:
    """The jobs of one fetch, what was said to them, and why it is over, if it is.

    `doubted` is the request that the agent left unanswered a moment ago; only when it
    answers a smaller one is it known to be alive, and the other to have been too much.
    """

    pending: deque[Job]
    bearing: Bearing
    temper: Temper
    said: dict[str, _Said] = field(default_factory=dict)
    over: NoAnswer | None = None
    has_heard: bool = False
    doubted: Request | None = None

    def next(self) -> tuple[Job, Request]:
        parts = self.bearing.fit(self.pending.popleft(), self.temper)
        if not self.bearing.is_alive:
            parts = [*first_of(parts[0]), *parts[1:]]
        self.pending.extendleft(reversed(parts[1:]))
        return parts[0], self.bearing.request(parts[0], self.temper)

    def told(
        self, job: Job, request: Request, told: Told, asked_at_s: float, taken_at_s: float
    ) -> None:
        self.has_heard = True
        if self.doubted is not None:
            self.bearing.failed(self.doubted)
            self.doubted = None
        heard = job.hear(told)
        self.bearing.is_alive, self.over = True, heard.fault
        if not heard.too_much:
            self.bearing.bore(request)
        elif not self.bearing.failed(request):
            self.over = NoAnswer(Absence.REFUSED, "one object is too much for the agent")
        for oid, said in heard.said.items():
            self.said[oid] = _Said(said, asked_at_s, taken_at_s)
        self.pending.extendleft(reversed(heard.jobs))

    def not_told(self, job: Job, request: Request, outcome: Outcome, verdict: NoAnswer) -> None:
        is_alive = self.has_heard and self.doubted is None
        if isinstance(outcome, Refusal) or not is_alive:
            self.over = verdict
            self.bearing.is_alive = False
            return
        self.doubted = request
        self.pending.extendleft(reversed(first_of(job)))


# ── the line that all share who speak to one host and port ────────────────────────


class _Line:
    """One request at a time, and what the agent at its end bears.

    `pause_s` is what the last read kept between requests; a SET keeps it, too.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.turns = Turns()
        self.bearing = Bearing()
        self.ended_at_s = float("-inf")
        self.pause_s = 0.0
        self.absent: set[str] = set()  # asked by name and not there

    async def pause(self, clock: Callable[[], float], pause_s: float) -> None:
        """Until the last answer was `pause_s` ago."""
        wait_s = self.ended_at_s + pause_s - clock()
        if wait_s > 0:
            await asyncio.sleep(wait_s)


_lines: WeakKeyDictionary[
    asyncio.AbstractEventLoop, WeakValueDictionary[tuple[str, int], _Line]
] = WeakKeyDictionary()


# ── which library ─────────────────────────────────────────────────────────────────


def _home_name(address: SnmpAddress, wanted: str | None) -> str:
    """Which home serves `address`: the one place where that is decided.

    gufo_snmp is not used for SNMPv3: 0.13 sends authenticated requests but believes
    answers without verifying their digest, so that anyone could forge them.
    """
    if wanted not in (None, *HOMES):
        raise ProfileError(f"WATTBROKER_SNMP={wanted} is not one of {', '.join(HOMES)}")
    is_installed = all(importlib.util.find_spec(name) for name in ("gufo", "gufo.snmp"))
    if wanted == "gufo" and not is_installed:
        raise ProfileError("WATTBROKER_SNMP=gufo needs gufo_snmp: pip install 'wattbroker[fast]'")
    if wanted == "pysnmp" or not is_installed or address.version == 3:
        return "pysnmp"
    return "gufo"
