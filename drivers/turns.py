"""Who speaks next on a line that several share: one after the other, each to its end.

A turn is one request and its answer, or the time in which that should have come. Who no
longer wants the answer is let go at once, but what has been sent cannot be called back:
its answer comes all the same, and on many lines nothing tells it from the next one. So
the turn goes on without its owner, and the line knows what it knows after any request.
A turn that has sent nothing yet sends nothing any more (`Turn.is_wanted`).

Waiting has ranks: a write goes before reads, and who did not answer last time is asked
when nobody else wants to be. Otherwise devices that are switched off would use up, one
timeout each, the time in which the others behind the same gateway must be read.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from enum import IntEnum
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")


class Rank(IntEnum):
    """The lower number goes first; within one rank, who came first."""

    WRITE = 0
    READ = 1
    READ_OF_THE_SILENT = 2


class Turn:
    """One request, as whoever carries it out sees it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for what comes of it."""
        return self.answer is None or not self.answer.cancelled()


class Turns:
    """The turns of one line, in one event loop."""

    def __init__(self) -> None:
        self._is_taken = False
        self._numbers = count()
        self._waiting: list[tuple[Rank, int, asyncio.Future[bool]]] = []

    async def speak(
        self, talk: Callable[[Turn], Coroutine[Any, Any, T]], *, rank: Rank, wait_s: float
    ) -> T | None:
        """Carries out `talk` when it is its turn; None if that takes more than `wait_s`."""
        if not await self._take(rank, wait_s):
            return None
        turn = Turn()
        talking = asyncio.ensure_future(talk(turn))
        talking.add_done_callback(lambda _: self._pass_on())
        turn.answer = answer = asyncio.shield(talking)
        return await answer

    async def _take(self, rank: Rank, wait_s: float) -> bool:
        if not self._is_taken:
            self._is_taken = True
            return True
        loop = asyncio.get_running_loop()
        given: asyncio.Future[bool] = loop.create_future()
        heapq.heappush(self._waiting, (rank, next(self._numbers), given))
        timer = loop.call_later(max(0.0, wait_s), _give, given, False)
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled() and given.result():
                self._pass_on()
            raise
        finally:
            timer.cancel()

    def _pass_on(self) -> None:
        self._is_taken = False
        while self._waiting and not self._is_taken:
            _, _, given = heapq.heappop(self._waiting)
            self._is_taken = _give(given, True)


def _give(given: asyncio.Future[bool], it: bool) -> bool:
    """False if whoever waited has given up."""
    if given.done():
        return False
    given.set_result(it)
    return True
