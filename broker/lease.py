"""The rack's side of a grant: what is admitted, and until when (protocol R2, R3).

A grant answers one report of one process. It is *processed* when its ballot is not
lower than the rack's, its instance and boot are this process', and its key is higher
than every key processed before; its key is then `seen`, whatever happens to it next.
It is *admitted* when there is time left to act: the lease runs from the instant the
report was sent, on this machine's own monotonic clock, so no clocks are compared.

What the admitted limit does to the hardware is the limiter's business (R4, R5, R8).
"""

from __future__ import annotations

from collections import OrderedDict

from broker.effects import Lease
from broker.messages import Ballot, Grant, GrantKey

REPORTS_REMEMBERED_MAX = 1024  # older ones are forgotten; a grant for one is refused


class LeaseDesk:
    """The reports sent and the grants processed by one process."""

    def __init__(self, *, instance: str, ttl_s: float, settle_s: float, until_s: float) -> None:
        self._instance = instance
        self._ttl_s = ttl_s
        self._settle_s = settle_s
        self._sent_at_s: OrderedDict[int, float] = OrderedDict()
        self.seen: GrantKey | None = None
        self.until_s = until_s
        self.lease: Lease | None = None

    def sent(self, seq: int, now: float) -> None:
        """A report has left."""
        self._sent_at_s[seq] = now
        while len(self._sent_at_s) > REPORTS_REMEMBERED_MAX:
            self._sent_at_s.popitem(last=False)

    def admit(
        self, grant: Grant, *, boot: int, ballot: Ballot, highest: Ballot, now: float
    ) -> Lease | str:
        """The lease that the grant gives, or in a word why it gives none.

        `ballot` is the one on disk, `highest` the highest one seen: a rack obeys
        under a ballot only when it is on disk (R1), and under no lower one.
        """
        refusal = self._processed(grant, boot, ballot, highest)
        if refusal:
            return refusal
        self.seen = grant.key
        sent_at_s = self._sent_at_s.get(grant.seq)
        if sent_at_s is None:
            return "unknown report"
        until_s = sent_at_s + min(grant.ttl_s, self._ttl_s)
        if until_s - now <= self._settle_s:
            return "too late"
        self.until_s = until_s
        self.lease = Lease(
            grant.key, grant.limit_w, grant.may_raise, until_s, grant.cap, grant.price, grant.why
        )
        return self.lease

    def _processed(
        self, grant: Grant, boot: int, ballot: Ballot, highest: Ballot
    ) -> str:  # protocol R2
        if grant.key.ballot < highest:
            return "lower ballot"
        if grant.key.ballot > ballot:
            return "ballot not on disk"
        if (grant.instance, grant.boot) != (self._instance, boot):
            return "another process"
        if self.seen is not None and grant.key <= self.seen:
            return "old key"
        return ""

    @property
    def lowers_at_s(self) -> float:
        """When the rack lowers itself to its floor, if no newer grant comes (R6)."""
        return self.until_s - self._settle_s
