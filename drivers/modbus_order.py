"""Which request a frame without a number answers. Pure.

An RTU answer says its unit and function, and by its length how much was read, but not
from where. So a late answer looks like the answer to the next read of as many registers,
and no waiting helps: a gateway may hold an answer for longer than anyone waits. Order
helps. What is assumed of a unit, and all that is assumed:

    A1  it answers a request at most once, and only requests of this line (one master)
    A2  it answers in the order in which it was asked; an answer may be lost or damaged,
        but does not overtake another one of the same unit
    A3  a damaged frame does not have a CRC that fits

Nothing is assumed of time, and nothing about the order between units. Then:

    When a frame comes, let e be the earliest unanswered request that it fits. It answers
    e or a later one (A1). By A2 everything before e will never be answered; e is answered
    now, or was passed over. So e and all before it can be struck out (`heard`).

    If e is the request being waited for, no earlier one fits: the frame is its answer
    (ANSWER). Otherwise it proves nothing about that request and is dropped (LATE).

So a number is believed only if no unanswered request could be meant by a frame of its
shape, and whoever chooses requests sees to that: a read whose shape is owed is not sent;
in its place goes a read of another length (`is_owed`). Its answer strikes out everything
older, and the read that was wanted is free again. A refusal has no length: it fits every
unanswered request of its function, and one that comes too early is dropped like the rest.

Is there always such a length? A unit that is silent for hours uses them up. Then the
wanted read itself is repeated, only for the order; its repetitions are one run, however
many. When the unit is back, the first answer settles the first of them, the second one
everything up to the repetitions, and the other lengths are free again. `RUNS_MAX` bounds
what is remembered: beyond it, which of the last requests came when is forgotten, but not
that they may be answered (`is_full`: then no further length is spent).

A unit that answers one length only, and not even refuses others, cannot be told from a
late one after a lost answer; it counts as silent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from drivers.modbus_frames import Frame, Request, Shape

RUNS_MAX = 16


class Verdict(Enum):
    ANSWER = "answer"  # to the request being waited for, and to nothing else
    LATE = "late"  # or not to be told from a late one
    FOREIGN = "foreign"  # fits nothing that was asked


@dataclass(slots=True)
class _Run:
    """Requests sent one after the other: `count` of them, each of one of these shapes."""

    shapes: set[Shape]
    count: int


@dataclass(slots=True)
class Unanswered:
    """The requests to one unit that may still be answered, oldest first."""

    silences: int = 0  # requests given up since it was last heard
    _runs: list[_Run] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def is_full(self) -> bool:
        return len(self._runs) >= RUNS_MAX

    @property
    def shapes(self) -> set[Shape]:
        return {shape for run in self._runs for shape in run.shapes}

    def is_owed(self, shape: Shape) -> bool:
        """If a frame of this shape could be the answer to an earlier request."""
        return any(shape in run.shapes for run in self._runs)

    def give_up(self, request: Request) -> None:
        """Nobody waits for the answer to `request` any longer; it may still come."""
        self.silences += 1
        shape = request.shape
        if self._runs and self._runs[-1].shapes == {shape}:
            self._runs[-1].count += 1
        elif self.is_full:
            self._runs[-1].shapes.add(shape)
            self._runs[-1].count += 1
        else:
            self._runs.append(_Run({shape}, 1))

    def heard(self, frame: Frame, waited_for: Request | None) -> Verdict:
        """Strikes out what `frame` settles, and says what it is."""
        for n, run in enumerate(self._runs):
            if _fits(frame, run.shapes):
                self.silences = 0
                run.count -= 1
                del self._runs[: n if run.count else n + 1]
                return Verdict.LATE
        if waited_for is None or not waited_for.fits(frame):
            return Verdict.FOREIGN
        self._runs.clear()
        self.silences = 0
        return Verdict.ANSWER


def _fits(frame: Frame, shapes: set[Shape]) -> bool:
    if frame.exception is not None:
        return any(shape.function == frame.function for shape in shapes)
    return frame.shape in shapes
