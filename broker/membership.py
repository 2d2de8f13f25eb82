"""What one controller must remember: the highest ballot, its boot, the newest caps.

A ballot or a boot is on disk before anyone hears of it (R1, R10, B6); a falling cap
is obeyed first and journaled right after, a rising one at most every ten seconds, an
unchanged one not at all (C1: SD cards wear). One write is under way at a time; what
is wanted meanwhile goes into the next. A refused write is tried again with growing
pauses, and until one succeeds this rack leads nobody.

A controller whose journal is missing or unreadable has forgotten what it promised
(R11): it takes boot and term from the wall clock, once that is known to be right, and
stands for no election before it has adopted another's ballot.

A roster is journaled as a whole, and used only from then on (M1).
"""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from broker.effects import Effect, JournalRecord, JournalWritten, Level, Persist, event
from broker.messages import Ballot, CapValues, Roster

RETRY_S_MIN = 1.0
RETRY_S_MAX = 10.0
CAP_RISE_INTERVAL_S = 10.0
TERM_MAX = 2**52  # no clock in ms and no count of elections comes near it
TERM_AHEAD_MS_MAX = 24 * 3600 * 1000  # protocol R11


class Membership:
    """The journal's pure half: what is on disk, what should be, and what follows."""

    def __init__(
        self,
        rack: str,
        loaded: JournalRecord | None,
        roster: Ballot,
        members: Roster | None = None,
    ) -> None:
        self._rack = rack
        self.forgot = loaded is None or loaded.forgot
        self.durable: JournalRecord | None = None
        self._wanted: JournalRecord | None = None
        if loaded is not None:
            self._wanted = replace(
                loaded, boot=loaded.boot + 1, granted=False, roster=roster, members=members
            )
        self._roster = roster
        self._members = members
        self._loaded = loaded
        self._writing: JournalRecord | None = None
        self._last_write_failed = False
        self._retry_s = RETRY_S_MIN
        self._write_at_s: float | None = None  # None: nothing to write
        self._caps_written_at_s = float("-inf")
        self._term_max = TERM_MAX

    # ---- what it knows ---------------------------------------------------------

    @property
    def ballot(self) -> Ballot:
        """The ballot under which this rack reports and obeys: the one on disk."""
        if self.durable is not None:
            return self.durable.ballot
        return self._loaded.ballot if self._loaded is not None else Ballot(0, "")

    @property
    def highest(self) -> Ballot:
        """The highest ballot known, on disk or on its way there."""
        return max(self.ballot, self._wanted.ballot) if self._wanted else self.ballot

    @property
    def boot(self) -> int:
        assert self.durable is not None
        return self.durable.boot

    @property
    def next_boot(self) -> int:
        """This boot, on disk or on its way there; -1 while it has no number (R11)."""
        return self._wanted.boot if self._wanted is not None else -1

    @property
    def may_report(self) -> bool:
        """The boot is on disk (R10)."""
        return self.durable is not None

    @property
    def may_lead(self) -> bool:
        ready = self.may_report and not self.forgot and not self._last_write_failed
        return ready and self.highest.term < TERM_MAX

    @property
    def next_ballot(self) -> Ballot:
        """The one that a claim would take."""
        return Ballot(self.highest.term + 1, self._rack)

    @property
    def joined(self) -> Ballot | None:
        """The roster that added this rack, once it was granted something there (M2)."""
        return self._wanted.joined if self._wanted is not None else None

    # ---- what changes ----------------------------------------------------------

    def start(self, *, now: float) -> list[Effect]:
        """The first write: this boot. A forgetful one waits for the clock instead."""
        if self._wanted is None:
            return [
                event(
                    Level.INFO,
                    "journal lost: waiting for a synchronised clock",
                    remedy='start a time service, or say clock = "trusted" in the site file',
                )
            ]
        return self._write(now)

    def clock(self, wall_ms: int | None, *, now: float) -> list[Effect]:
        """The synchronised wall clock in ms, or None where nobody vouches for it (R11)."""
        if wall_ms is None:
            return []
        self._term_max = wall_ms + TERM_AHEAD_MS_MAX
        if self._wanted is not None:
            return []
        self._wanted = JournalRecord(
            ballot=Ballot(wall_ms, self._rack),
            boot=wall_ms,
            granted=False,
            roster=self._roster,
            caps={},
            members=self._members,
            forgot=True,
        )
        return [
            event(Level.ERROR, "journal lost: term and boot taken from the clock", boot=wall_ms),
            *self._write(now),
        ]

    def adopt(
        self, ballot: Ballot, *, now: float, roster: Roster | None = None
    ) -> list[Effect]:  # protocol R1, M1
        """A ballot was seen; a higher one is taken, on disk first, with the roster it goes by."""
        if self._wanted is None or ballot <= self.highest:
            return []
        if ballot.term > self._term_max:
            return [event(Level.ERROR, "term of more than a day ahead refused", ballot=str(ballot))]
        forgot = self._wanted.forgot and ballot.rack == self._rack
        self._wanted = _with(replace(self._wanted, ballot=ballot, forgot=forgot), roster)
        return self._write(now)

    def take(self, roster: Roster, *, now: float) -> list[Effect]:  # protocol M1
        """A newer roster is used once it is on disk."""
        if self._wanted is None or self._wanted.roster == roster.name:
            return []
        self._wanted = _with(self._wanted, roster)
        return self._write(now)

    def claim(self, *, now: float, roster: Roster | None = None) -> list[Effect]:  # protocol B6
        """Take the next term for this rack, on disk first, with the roster that it makes."""
        assert self._wanted is not None
        self._wanted = _with(replace(self._wanted, ballot=self.next_ballot), roster)
        return self._write(now)

    def granted(
        self, *, now: float, joined: Ballot | None = None
    ) -> list[Effect]:  # protocol R7, M2
        """This boot was granted something, as a member that the roster `joined` added."""
        if self._wanted is None or (self._wanted.granted and self._wanted.joined == joined):
            return []
        self._wanted = replace(self._wanted, granted=True, joined=joined)
        return self._write(now)

    def left(self, *, now: float) -> list[Effect]:  # protocol M3
        """Counted no more: a newcomer again."""
        if self._wanted is None or self._wanted.joined is None:
            return []
        self._wanted = replace(self._wanted, joined=None)
        return self._write(now)

    def caps(self, values: CapValues, *, now: float) -> list[Effect]:  # protocol C1
        """The newest values: a fall is written at once, a rise later, a repetition never."""
        if self._wanted is None or _said(values) == _said(self._wanted.caps):
            return []
        fell = _falls(self._wanted.caps, values)
        self._wanted = replace(self._wanted, caps=values)
        at_s = now if fell else max(now, self._caps_written_at_s + CAP_RISE_INTERVAL_S)
        return self._write(now, at_s)

    def written(self, done: JournalWritten, *, now: float) -> list[Effect]:
        """A journal write ended."""
        self._writing = None
        if not done.ok:
            return self._refused(done, now)
        recovered = self._last_write_failed
        self._last_write_failed = False
        self._retry_s = RETRY_S_MIN
        if self.durable is None or _said(done.record.caps) != _said(self.durable.caps):
            self._caps_written_at_s = now
        self.durable = done.record
        self.forgot = done.record.forgot  # until another's ballot, with its roster, is on disk
        effects: list[Effect] = []
        if recovered:
            effects.append(event(Level.INFO, "journal accepts writes again"))
        if self._write_at_s is not None:
            effects += self._write(now, self._write_at_s)
        return effects

    def withdraw_claim(self) -> None:
        """A claim that the disk refused was heard by nobody: it is not made."""
        assert self._wanted is not None
        if self._wanted.ballot.rack == self._rack and self._wanted.ballot > self.ballot:
            before = self.durable or self._wanted
            self._wanted = replace(
                self._wanted, ballot=self.ballot, roster=before.roster, members=before.members
            )

    def wake(self, *, now: float) -> list[Effect]:
        if self._write_at_s is None or now < self._write_at_s:
            return []
        return self._write(now, self._write_at_s)

    def next_wake(self) -> float | None:
        return None if self._writing is not None else self._write_at_s

    # ---- leaves ----------------------------------------------------------------

    def _write(self, now: float, at_s: float | None = None) -> list[Effect]:
        """Start a write now, or note when."""
        at_s = now if at_s is None else at_s
        busy = self._writing is not None
        if self._write_at_s is not None and self._last_write_failed:
            at_s = max(at_s, self._write_at_s)
        if busy or at_s > now:
            self._write_at_s = at_s if self._write_at_s is None else min(at_s, self._write_at_s)
            return []
        assert self._wanted is not None
        self._writing = self._wanted
        self._write_at_s = None
        return [Persist(self._wanted)]

    def _refused(self, done: JournalWritten, now: float) -> list[Effect]:
        first = not self._last_write_failed
        self._last_write_failed = True
        self._write_at_s = now + self._retry_s
        self._retry_s = min(RETRY_S_MAX, 2 * self._retry_s)
        return [event(Level.ERROR, "journal refused", reason=done.detail)] if first else []


def _with(record: JournalRecord, roster: Roster | None) -> JournalRecord:
    if roster is None:
        return record
    return replace(
        record, roster=roster.name, members=structs.replace(roster, ballot=None, time_ms=0)
    )


def _said(values: CapValues) -> dict[tuple[str, str], int | None]:
    """The values without their numbers, which rise with every repetition."""
    return {(cap, by): v.limit_w for cap, sources in values.items() for by, v in sources.items()}


def _falls(before: CapValues, after: CapValues) -> bool:
    old = _said(before)
    for key, limit_w in _said(after).items():
        was_w = old.get(key)
        if limit_w is not None and (was_w is None or limit_w < was_w):
            return True
    return False
