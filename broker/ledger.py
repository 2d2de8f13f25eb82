"""What every rack may draw at the most, as far as the broker can know (B1), and
whether a raise fits (B2).

The reserve of a rack that has reported in the broker's own ballot is the largest of
its promise, every limit granted to this process of it that it may still act on, and
its fresh measured power. For a rack that has not reported in the ballot it is the
ceiling. Silence changes nothing: what a dead rack may draw stays reserved. A rack's
floor is always its own, so no reserve is below it.

Before a raise leaves, the sum is asserted: a ledger that breaks its promise stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker.messages import Ballot, GrantKey, Report, RosterRack

GRANTS_UNSEEN_MAX = 64  # of one rack; above it the two oldest are counted as the larger one
LOWERINGS_OPEN_MAX = 64  # of one rack; above it newer ones are not timed, the older ones are


@dataclass(slots=True)
class Account:
    """One rack in the ledger of one ballot."""

    rack: RosterRack
    path: tuple[str, ...]  # its caps, the nearest first
    report: Report | None = None  # the newest in this ballot
    heard_at_s: float = float("-inf")
    granted: list[tuple[GrantKey, int]] = field(default_factory=list)
    lowerings: list[tuple[float, int]] = field(default_factory=list)  # not settled: since, limit_w
    contested_until_s: float = float("-inf")  # protocol R10
    newest: tuple[int, str] | None = None  # boot and instance heard last, live
    other_ceiling_w: int = 0  # in a changed site file that some already have (protocol M4)
    may_be_granted: bool = True  # protocol M2, M3

    def hear(self, report: Report, *, live: bool, ttl_s: float, now: float) -> bool:
        """Take a report of the broker's own ballot; False for one that is old."""
        if live:
            self._notice_twins(report, ttl_s, now)
        if self.report is not None:
            # R10: of two processes with one boot the smaller instance exits; whoever stays
            # counts, however short it has been up.
            if _order(report) <= _order(self.report):
                return False
            if report.boot != self.report.boot:
                self.granted.clear()  # R2: an earlier process' grants are refused by this one
        self.report = report
        self.granted = [
            (key, limit_w)
            for key, limit_w in self.granted
            if report.seen is None or key > report.seen
        ]
        if live:
            self.heard_at_s = now
        self._note_lowering(report, now)
        return True

    def _note_lowering(self, report: Report, now: float) -> None:  # protocol B4
        """Each lowering has settle_s of its own: a rack that is lowered every tick keeps up."""
        open_still = [
            (since_s, limit_w)
            for since_s, limit_w in self.lowerings
            if report.limit_w <= limit_w < report.bound_w
        ]
        is_new = report.limit_w not in (limit_w for _, limit_w in open_still)
        if report.bound_w > report.limit_w and is_new and len(open_still) < LOWERINGS_OPEN_MAX:
            open_still.append((now, report.limit_w))
        self.lowerings = open_still

    @property
    def lagging_since_s(self) -> float | None:
        """Since when the oldest lowering that bound_w has not come down to is waited for."""
        return self.lowerings[0][0] if self.lowerings else None

    def _notice_twins(self, report: Report, ttl_s: float, now: float) -> None:  # protocol R10
        me = (report.boot, report.instance)
        if self.newest is not None and me != self.newest:
            older_boot = report.boot < self.newest[0]
            same_boot = report.boot == self.newest[0]
            if older_boot or same_boot:
                self.contested_until_s = now + ttl_s
        if self.newest is None or me > self.newest:
            self.newest = me

    def is_contested(self, now: float) -> bool:
        return now < self.contested_until_s

    def is_silent(self, beat_timeout_s: float, now: float) -> bool:
        return now - self.heard_at_s > beat_timeout_s

    def reserve_w(self, *, beat_timeout_s: float, now: float) -> int:  # protocol B1
        ceiling_w = max(self.rack.ceiling_w, self.rack.floor_w, self.other_ceiling_w)
        if self.report is None or self.is_contested(now):
            return ceiling_w
        candidates = [self.report.bound_w, self.rack.floor_w]
        candidates += [limit_w for _, limit_w in self.granted]
        if self.report.measured_w is not None and not self.is_silent(beat_timeout_s, now):
            candidates.append(self.report.measured_w)
        return max(candidates)

    @property
    def raised_to_w_max(self) -> int:
        """The smaller of its two ceilings while site files differ (protocol M4)."""
        return min(self.rack.ceiling_w, self.other_ceiling_w or self.rack.ceiling_w)

    def renewal_w(self) -> int:
        """The smallest of the reported limit and what was granted since (B3, B4)."""
        assert self.report is not None
        return min([self.report.limit_w, *(limit_w for _, limit_w in self.granted)])

    def can_follow(self, *, beat_timeout_s: float, now: float) -> bool:  # protocol B4
        report = self.report
        if report is None or report.actuator == "none" or report.starting:
            return False
        if not self.may_be_granted:
            return False
        if self.is_contested(now) or self.is_silent(beat_timeout_s, now):
            return False
        since_s = self.lagging_since_s
        return since_s is None or now - since_s <= report.settle_s


class Ledger:
    """The accounts of all members under one ballot."""

    def __init__(
        self,
        ballot: Ballot,
        racks: Sequence[RosterRack],
        paths: Mapping[str, tuple[str, ...]],
        *,
        beat_timeout_s: float,
    ) -> None:
        self.ballot = ballot
        self.accounts = {rack.rack: Account(rack, paths[rack.cap]) for rack in racks}
        self._beat_timeout_s = beat_timeout_s

    def reserves_w(self, now: float) -> dict[str, int]:
        """The reserve of every member in W."""
        return {
            name: account.reserve_w(beat_timeout_s=self._beat_timeout_s, now=now)
            for name, account in self.accounts.items()
        }

    def load_w(self, reserves_w: Mapping[str, int]) -> dict[str, int]:
        """Σ reserve under every cap in W."""
        load: dict[str, int] = {}
        for name, account in self.accounts.items():
            for cap in account.path:
                load[cap] = load.get(cap, 0) + reserves_w[name]
        return load

    def can_follow(self, rack: str, now: float) -> bool:
        account = self.accounts[rack]
        return account.can_follow(beat_timeout_s=self._beat_timeout_s, now=now)

    def silent(self, now: float) -> tuple[str, ...]:
        """Members that are not heard now."""
        return tuple(
            name
            for name, account in self.accounts.items()
            if account.is_silent(self._beat_timeout_s, now)
        )

    def unheard(self) -> tuple[str, ...]:
        """Members that have not reported in this ballot."""
        return tuple(name for name, account in self.accounts.items() if account.report is None)

    def reserve(
        self,
        rack: str,
        wanted_w: int,
        *,
        limits_w: Mapping[str, int],
        reserves_w: dict[str, int],
        load_w: dict[str, int],
    ) -> int:
        """How far up the rack may go now, in W; the room is taken in the arguments (B2, B3).

        `limits_w` are the caps in force. Returns the rack's present renewal where
        nothing can be given.
        """
        account = self.accounts[rack]
        room_w = min(limits_w[cap] - load_w[cap] for cap in account.path)
        if room_w < 0:  # B3: no raise while the condition does not hold, even within the reserve
            return account.renewal_w()
        limit_w = min(wanted_w, reserves_w[rack] + room_w, account.raised_to_w_max)
        taken_w = max(0, limit_w - reserves_w[rack])
        reserves_w[rack] += taken_w
        for cap in account.path:
            load_w[cap] += taken_w
            assert load_w[cap] <= limits_w[cap], (cap, load_w[cap], limits_w[cap])
        return limit_w

    def grant(self, rack: str, key: GrantKey, limit_w: int) -> None:
        """A grant is about to leave: what it allows is counted until it is seen."""
        granted = self.accounts[rack].granted
        if granted and granted[-1][1] == limit_w:
            granted.pop()  # the same promise under a later key
        granted.append((key, limit_w))
        if len(granted) > GRANTS_UNSEEN_MAX:  # a rack that speaks but does not hear
            (_, oldest_w), (later, next_w) = granted[:2]
            granted[:2] = [(later, max(oldest_w, next_w))]


def _order(report: Report) -> tuple[int, str, int]:
    return (report.boot, report.instance, report.seq)
