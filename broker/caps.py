"""What every cap is worth now (protocol C1, C2).

A cap in force is the smallest of its limit in the roster and the newest value of each
of its sources. The higher number wins wherever it is seen, so that a value outlives
its broker and the MQTT server; silence never raises a cap. A cap with `fallback_w`
counts that at the most while none of its sources is heard.

Every controller keeps such a book; the broker's goes out with its beat.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from broker.messages import SOURCES_PER_CAP_MAX, CapSet, CapValue, CapValues, RosterCap

FROM_FILE = "site"
FALLBACK = "fallback"
SOURCES_KNOWN_MAX = 4 * SOURCES_PER_CAP_MAX  # the withdrawn ones of a cap included
# Of all sources' names and values as JSON: with the caps' own names they must leave room
# in a beat and a report (64 KiB), which nobody would read otherwise.
BYTES_MAX = 32_768
VALUE_BYTES = 34  # `:[number,limit_w],` at its longest


class CapBook:
    """The values of all caps, as one controller knows them."""

    def __init__(self, caps: Iterable[RosterCap], values: CapValues) -> None:
        self._caps = {cap.cap: cap for cap in caps}
        self._values: CapValues = {name: {} for name in self._caps}
        self._heard_at_s: dict[str, float] = {}
        self._bytes = 0
        self.merge(values)

    def use(self, caps: Iterable[RosterCap]) -> None:
        """The caps of another roster; what was said of those that stay holds on."""
        said = self._values
        self._caps = {cap.cap: cap for cap in caps}
        self._values = {name: said.get(name, {}) for name in self._caps}
        self._bytes = sum(_bytes_of(by) for sources in self._values.values() for by in sources)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._caps)

    def values(self) -> CapValues:
        """The newest value of each source: what beats, reports and the journal carry."""
        return {name: dict(by) for name, by in self._values.items() if by}

    def hear(self, cap: str, said: CapSet, *, live: bool, now: float) -> bool:
        """Take what a source said; True where it changed something."""
        if cap not in self._caps:
            return False
        known = self._values[cap].get(said.by)
        is_late = known is not None and said.number < known.number  # a word of the past
        if live and not is_late:
            self._heard_at_s[cap] = now
        return self._take(cap, said.by, CapValue(said.number, said.limit_w))

    def merge(self, values: CapValues) -> bool:
        """Take another controller's book; the higher number of each source wins."""
        changed = [
            self._take(cap, by, value)
            for cap, sources in values.items()
            if cap in self._caps
            for by, value in sources.items()
        ]
        return any(changed)

    def is_full(self, cap: str, by: str) -> bool:
        """True where a new source would be one too many. It is not counted then.

        A withdrawn source takes no place, but its number is kept: it must not come
        back by a message of yesterday.
        """
        known = self._values.get(cap, {})
        speaking = sum(value.limit_w is not None for value in known.values())
        full = speaking >= SOURCES_PER_CAP_MAX or len(known) >= SOURCES_KNOWN_MAX
        return by not in known and (full or self._bytes + _bytes_of(by) > BYTES_MAX)

    def _take(self, cap: str, by: str, value: CapValue) -> bool:
        known = self._values[cap].get(by)
        if (known is not None and value.number <= known.number) or self.is_full(cap, by):
            return False
        self._bytes += _bytes_of(by) if known is None else 0
        self._values[cap][by] = value
        return known is None or known.limit_w != value.limit_w

    def in_force(self, cap: str, now: float) -> tuple[int, str]:
        """The cap's limit in W and whose value it is."""
        spec = self._caps[cap]
        candidates = [(spec.limit_w, FROM_FILE)]
        candidates += [
            (value.limit_w, by)
            for by, value in self._values[cap].items()
            if value.limit_w is not None
        ]
        if spec.fallback_w is not None and self._is_silent(spec, now):
            candidates.append((spec.fallback_w, FALLBACK))
        return min(candidates, key=lambda candidate: candidate[0])

    def limits_w(self, now: float) -> dict[str, int]:
        return {cap: self.in_force(cap, now)[0] for cap in self._caps}

    def is_below(self, others: CapValues) -> bool:
        """True where some cap of ours is lower than `others` would make it.

        A rack takes no raise from a broker that has not heard of a fall yet (C1).
        Only what sources said is compared: limits of the file are equal by their
        hash, silence is counted by each controller itself.
        """
        theirs = CapBook(self._caps.values(), others)
        return any(self._said_w(cap) < theirs._said_w(cap) for cap in self._caps)

    def _said_w(self, cap: str) -> int:
        said = [v.limit_w for v in self._values[cap].values() if v.limit_w is not None]
        return min([self._caps[cap].limit_w, *said])

    def _is_silent(self, spec: RosterCap, now: float) -> bool:
        heard_at_s = self._heard_at_s.get(spec.cap)
        return heard_at_s is None or now - heard_at_s > spec.set_ttl_s


def _bytes_of(by: str) -> int:
    return len(msgspec.json.encode(by)) + VALUE_BYTES


def fell(before_w: dict[str, int], after_w: dict[str, int]) -> bool:
    """True where any cap is lower than before."""
    return any(after_w[cap] < before_w[cap] for cap in after_w)


def path_of(caps: Iterable[RosterCap], cap: str) -> tuple[str, ...]:
    """A cap and its ancestors, the nearest first."""
    parents = {c.cap: c.parent for c in caps}
    path = [cap]
    while (parent := parents[path[-1]]) is not None:
        path.append(parent)
    return tuple(path)
