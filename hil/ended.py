"""A run that Ctrl-C or SIGTERM ends in order: everything it started is stopped first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Ended(Exception):
    """By a signal. Everything that the run started has been stopped."""

    def __init__(self, which: signal.Signals) -> None:
        super().__init__(which.name)
        self.signal = which


async def until_signal(run: Coroutine[Any, Any, T]) -> T:
    """The run's result, or Ended; either way everything it started has been stopped."""
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(run)
    ended: list[signal.Signals] = []

    def end(which: signal.Signals) -> None:
        if not ended:  # a second Ctrl-C must not cut the stopping short
            ended.append(which)
            work.cancel()

    for which in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(which, end, which)
    try:
        return await work
    except asyncio.CancelledError:
        if not ended:
            raise
        raise Ended(ended[0]) from None
