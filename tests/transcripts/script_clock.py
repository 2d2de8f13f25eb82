"""Virtual time of a transcript: what happens, in order. Nothing here reads a clock.

What happens at one instant happens in the order in which it was asked for.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Happening = Callable[[], None]


class ScriptClock:
    def __init__(self) -> None:
        self.now = 0.0  # seconds since the script began
        self._heap: list[tuple[float, int, Happening]] = []
        self._count = 0

    def at(self, time_s: float, happening: Happening) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(time_s, self.now), self._count, happening))

    def after(self, delay_s: float, happening: Happening) -> None:
        self.at(self.now + delay_s, happening)

    def run_until(self, end_s: float) -> None:
        while self._heap and self._heap[0][0] <= end_s:
            self.now, _, happening = heapq.heappop(self._heap)
            happening()
        self.now = max(self.now, end_s)
