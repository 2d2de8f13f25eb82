"""What an agent has been found to bear, learnt from what it left unanswered.

A profile says what a device bears by its maker's word or ours. Some bear less: they are
silent when an answer would not fit, or say tooBig, or have no GETBULK, or drop a GET of
more than one object. So the number that failed is halved, and quartered while nothing of
the kind has ever been answered; a lost datagram looks the same, so a number that has
been borne is tried again, after a hundred good answers, then four hundred, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drivers.snmp_plan import Job, Request, Temper, Walk

PATIENCE = 100
PATIENCE_MAX = 100_000


@dataclass(slots=True)
class Limit:
    """How many of a kind go into one request; `most` None: as many as the profile says."""

    floor: int
    most: int | None = None
    borne: int = 0
    good: int = 0
    patience: int = PATIENCE

    def at(self, wish: int) -> int:
        return wish if self.most is None else min(self.most, wish)

    def bore(self, count: int) -> None:
        if count > 1:
            self.borne = max(self.borne, count)
        if self.most is None or count < self.most or not self.borne:
            return
        self.good += 1
        if self.good >= self.patience:
            self.most, self.good = 2 * self.most, 0

    def failed(self, count: int) -> None:
        less = count // 2 if self.borne else count // 4
        self.most, self.good = max(self.floor, less), 0
        self.patience = min(4 * self.patience, PATIENCE_MAX)


@dataclass(slots=True)
class Bearing:
    """`is_alive`: the last request was answered, so that silence means something."""

    is_alive: bool = False
    oids: Limit = field(default_factory=lambda: Limit(floor=1))
    repetitions: Limit = field(default_factory=lambda: Limit(floor=0))

    def fit(self, job: Job, temper: Temper) -> Sequence[Job]:
        """`job` in parts that the agent bears."""
        if isinstance(job, Walk) and self.repetitions.at(temper.repetitions_max) == 0:
            job = job.by_name()
        return job.parts(max(1, self.oids.at(temper.oids_per_get_max)))

    def request(self, job: Job, temper: Temper) -> Request:
        return job.request(self.repetitions.at(temper.repetitions_max) if self.is_alive else 0)

    def bore(self, request: Request) -> None:
        if request.kind == "bulk":
            self.repetitions.bore(request.repetitions)
        else:
            self.oids.bore(len(request.oids))

    def failed(self, request: Request) -> bool:
        """Asks for less from now on; False if there is no less."""
        if request.kind == "bulk":
            self.repetitions.failed(request.repetitions)
        elif len(request.oids) > 1:
            self.oids.failed(len(request.oids))
        else:
            return False
        return True
