"""Turns on a shared line: one at a time, each to its end, writes first, the silent last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from drivers.turns import Rank, Turn, Turns


class Line:
    """Notes who speaks, and lets each go on when it is told to."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.said: list[str] = []
        self.go_on = asyncio.Event()

    def asking(self, name: str, rank: Rank = Rank.READ, wait_s: float = 5.0) -> asyncio.Task[Any]:
        async def talk(turn: Turn) -> str:
            if turn.is_wanted:
                self.said.append(f"{name} begins")
            await self.go_on.wait()
            self.said.append(f"{name} ends" if turn.is_wanted else f"{name} ends unheard")
            return name

        return asyncio.ensure_future(self.turns.speak(talk, rank=rank, wait_s=wait_s))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(use: Callable[[Line], Coroutine[Any, Any, None]]) -> list[str]:
    async def main() -> list[str]:
        line = Line()
        await use(line)
        return line.said

    return asyncio.run(asyncio.wait_for(main(), 5))


def test_a_write_goes_before_reads_and_the_silent_come_last() -> None:
    async def use(line: Line) -> None:
        asked = [
            line.asking("first"),
            line.asking("silent", Rank.READ_OF_THE_SILENT),
            line.asking("read"),
            line.asking("another"),
            line.asking("write", Rank.WRITE),
        ]
        await settled()
        line.go_on.set()
        assert await asyncio.gather(*asked) == ["first", "silent", "read", "another", "write"]

    said = run(use)
    assert [word.split()[0] for word in said[::2]] == [
        "first", "write", "read", "another", "silent",
    ]  # fmt: skip
    assert [word.split()[0] for word in said[::2]] == [word.split()[0] for word in said[1::2]]


def test_a_request_that_nobody_wants_any_more_keeps_the_line_to_its_end() -> None:
    async def use(line: Line) -> None:
        left, write = line.asking("left"), line.asking("write", Rank.WRITE)
        await settled()
        left.cancel()
        await settled()
        assert left.cancelled()
        assert line.said == ["left begins"]
        line.go_on.set()
        assert await write == "write"

    assert run(use) == ["left begins", "left ends unheard", "write begins", "write ends"]


def test_who_leaves_before_its_turn_has_begun_says_nothing() -> None:
    async def use(line: Line) -> None:
        line.go_on.set()
        begun = line.asking("begun")
        await asyncio.sleep(0)  # the turn is its own, but nothing is said yet
        begun.cancel()
        await settled()
        assert await line.asking("next") == "next"

    assert run(use) == ["begun ends unheard", "next begins", "next ends"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_who_leaves_while_it_waits_does_not_keep_the_line(at: int) -> None:
    async def use(line: Line) -> None:
        asked = [line.asking(name) for name in ("a", "b", "c", "d")]
        await settled()
        asked[1 + at].cancel()
        line.go_on.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        names = ["a", "b", "c", "d"]
        assert [told for told in found if isinstance(told, str)] == names[: 1 + at] + names[
            2 + at :
        ]

    run(use)


def test_who_is_given_the_line_in_the_moment_it_leaves_passes_it_on() -> None:
    async def use(line: Line) -> None:
        first, second, third = (line.asking(name) for name in ("a", "b", "c"))
        await settled()
        first.add_done_callback(lambda _: second.cancel())
        line.turns._waiting[0][2].add_done_callback(lambda _: second.cancel())
        line.go_on.set()
        assert await third == "c"
        assert second.cancelled()
        assert await first == "a"

    assert "c ends" in run(use)


def test_who_has_waited_for_long_enough_leaves_with_nothing() -> None:
    async def use(line: Line) -> None:
        first, second = line.asking("first"), line.asking("second", wait_s=0.02)
        assert await second is None
        third = line.asking("third")
        line.go_on.set()
        assert await asyncio.gather(first, third) == ["first", "third"]

    assert run(use) == ["first begins", "first ends", "third begins", "third ends"]
