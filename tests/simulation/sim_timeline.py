"""Virtual time: what happens, in order. Nothing here sleeps or reads a clock.

A process has a clock of its own, which starts anywhere and runs a little fast or slow:
no instant of one machine means anything on another.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Happening = Callable[[], None]

AT_ONE_INSTANT_MAX = 100_000  # happenings: a machine that asks to be woken now, for ever


class Timeline:
    """Happenings by time; those of one instant in the order in which they were made."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Happening]] = []
        self._count = 0
        self.after_each: Callable[[], None] = lambda: None

    def at(self, time_s: float, happening: Happening) -> None:
        self._count += 1
        now = self.now
        heapq.heappush(self._heap, (time_s if time_s > now else now, self._count, happening))

    def after(self, delay_s: float, happening: Happening) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._count, happening))

    def run_until(self, end_s: float) -> None:
        heap, pop = self._heap, heapq.heappop
        stuck, since_s = 0, -1.0
        while heap and heap[0][0] <= end_s:
            self.now, _, happening = pop(heap)
            stuck = stuck + 1 if self.now == since_s else 0
            assert stuck < AT_ONE_INSTANT_MAX, f"t={self.now:.3f}: time does not go on"
            since_s = self.now
            happening()
            self.after_each()
        self.now = end_s


class LocalClock:
    """The monotonic clock of one machine: `rate` of its seconds pass in one of ours."""

    __slots__ = ("_offset_s", "_rate", "_timeline")

    def __init__(self, timeline: Timeline, offset_s: float, rate: float) -> None:
        self._timeline = timeline
        self._offset_s = offset_s
        self._rate = rate

    def now(self) -> float:
        return self._offset_s + self._rate * self._timeline.now

    def in_ours(self, local_s: float) -> float:
        return (local_s - self._offset_s) / self._rate
