"""Who says what the caps are: two sources at most for each, heard every tick or silent.

`in_force_w` is the cap by the protocol page's own words: the smallest of the roster's limit
and each source's last word, and of the fallback while nobody has spoken for `set_ttl_s`.
A source falls silent only when every rack's disk has its last word: before that a value may
be lost with whoever knew it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sim_rack import SimRack
from sim_server import Server
from sim_site import SimSite

from broker.messages import CapSet
from broker.topics import Kind, Topic

PLANT = "plant"  # the cable on which the sources hang
NAMES = ("operator", "grid")
FOR_EVER_S = 1e9
SETTLED_S = 20.0  # a value that is younger is not on every disk for good


@dataclass(slots=True)
class Source:
    limit_w: int | None
    said_at_s: float
    number: int = 0
    silent_until_s: float = float("-inf")


class Sources:
    def __init__(
        self, site: SimSite, racks: dict[str, SimRack], server: Server, rng: Random
    ) -> None:
        self._site = site
        self._racks = racks
        self._server = server
        self._rng = rng
        self._sources: dict[tuple[str, str], Source] = {}
        self._heard_at_s: dict[str, float] = {}
        self._numbers = 0
        self.trace: Callable[[str, str], None] = lambda who, text: None
        for cap in site.caps:
            if cap.fallback_w is not None:  # a cap that falls back is one that is spoken of
                self._sources[cap.cap, NAMES[0]] = Source(cap.limit_w, 0.0)

    def in_force_w(self, cap: str, now: float) -> int:
        spec = next(c for c in self._site.caps if c.cap == cap)
        said_w = [s.limit_w for (c, _), s in self._sources.items() if c == cap]
        limits_w = [spec.limit_w, *(w for w in said_w if w is not None)]
        silent_s = now - self._heard_at_s.get(cap, float("-inf"))
        if spec.fallback_w is not None and silent_s > spec.set_ttl_s:
            limits_w.append(spec.fallback_w)
        return min(limits_w)

    def heard(self, cap: str, now: float) -> None:
        """Somebody has heard a source of it; perhaps late, but nothing newer before."""
        self._heard_at_s[cap] = now

    # ---- what they do ----------------------------------------------------------

    def speak(self, now: float) -> None:
        for (cap, by), source in self._sources.items():
            if now < source.silent_until_s:
                continue
            self._numbers += 1
            source.number = self._numbers
            self._heard_at_s[cap] = now
            said = CapSet(limit_w=source.limit_w, number=self._numbers, by=by)
            self._server.publish(PLANT, Topic(Kind.CAP_SET, cap), said, False)

    def say(self, cap: str, limit_w: int | None, now: float, by: str = NAMES[0]) -> None:
        """From now on, every tick; the first time at the next one."""
        self._sources[cap, by] = Source(limit_w, now)
        self.trace(PLANT, f"{by} says {cap}: {limit_w} W")

    def change(self, now: float) -> bool:
        """Some source says something else from now on; False where it is silent."""
        spec = self._rng.choice(self._site.caps)
        by = NAMES[0] if self._rng.random() < 0.7 else NAMES[1]
        least_w = self._site.least_w(spec.cap)
        share = self._rng.choice((0.02, 0.1, 0.4, 0.7, 1.0))
        limit_w: int | None = int(least_w + share * (spec.limit_w - least_w))
        known = self._sources.get((spec.cap, by))
        if known is not None and self._rng.random() < 0.1:
            limit_w = None  # withdrawn
        if known is not None and now < known.silent_until_s:
            return False
        self.say(spec.cap, limit_w, now, by)
        return True

    def fall_silent(self, now: float) -> bool:
        """Some source whose word is on every disk says nothing for a while, or ever."""
        known = [key for key, source in self._sources.items() if self._is_known(key, source, now)]
        if not known:
            return False
        cap, by = self._rng.choice(known)
        for_s = self._rng.choice((8.0, 30.0, FOR_EVER_S))
        self._sources[cap, by].silent_until_s = now + for_s
        self.trace(PLANT, f"{by} says nothing of {cap} for {for_s:g} s")
        return True

    def settle(self, now: float) -> None:
        """Who is silent for a while speaks again; who is silent for ever stays so."""
        for source in self._sources.values():
            if source.silent_until_s < FOR_EVER_S:
                source.silent_until_s = min(source.silent_until_s, now)

    def _is_known(self, key: tuple[str, str], source: Source, now: float) -> bool:
        if now - source.said_at_s < SETTLED_S or now < source.silent_until_s:
            return False
        cap, by = key
        for rack in self._racks.values():
            record = rack.disk.record
            value = record.caps.get(cap, {}).get(by) if record else None
            if value is None or value.limit_w != source.limit_w:
                return False
        return True
