"""What goes wrong in a run of chaos, and when: a plan drawn from a seed.

A run is a row of rounds. Each begins with the death of the broker and of nobody else,
and leaves it at that until the longest lease would have ended: what falls to its floor
then falls because of that. A storm follows, faults one on another, and then a calm, in
which everything is to come back. The cap falls in the storm and, with everyone alive,
in the calm.

The faults of the storms come from a deck with every kind in it, shuffled anew when it is
used up, so that no run of a few rounds leaves one out. Whom a fault meets is an order of
preference: the first rack of it that nothing else ails at that moment.

Pure: chance is the seed's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

ROUND_S = 60.0
ALONE_S = 16.0  # after the broker's death: a lease of 15 s, and one to see its end
STORM_S = 16.0
STORM_FAULTS = 7
CALM_FALL_S = 16.0  # before a round's end
TAIL_S = 6.0  # a run ends no sooner after the last storm
BROKER = "broker"  # in an order of preference: whoever leads
ROUND_MIN_S = ALONE_S + STORM_S + TAIL_S  # the last one may end before its calm does


class Kind(StrEnum):
    KILL = "process killed"
    STOP = "process stopped"
    CUT = "connection cut"
    STALL_UP = "connection stalled to the server"
    STALL_DOWN = "connection stalled from the server"
    SERVER_KEEPS = "MQTT server restarted, retained messages kept"
    SERVER_LAGS = "MQTT server killed, old retained messages kept"
    SERVER_FORGETS = "MQTT server killed, retained messages lost"
    DEVICE_LATE = "devices answer late"
    DEVICE_SILENT = "devices do not answer"
    DISK_FULL = "disk full"
    CLOCK_AHEAD = "clock set an hour ahead"
    CLOCK_BACK = "clock set an hour back"


OF_SERVER = frozenset({Kind.SERVER_KEEPS, Kind.SERVER_LAGS, Kind.SERVER_FORGETS})
OF_PROCESS = frozenset({Kind.KILL, Kind.STOP})
OF_LINK = frozenset({Kind.CUT, Kind.STALL_UP, Kind.STALL_DOWN})
OF_DEVICE = frozenset({Kind.DEVICE_LATE, Kind.DEVICE_SILENT})
OF_CLOCK = frozenset({Kind.CLOCK_AHEAD, Kind.CLOCK_BACK})
HOLDS_SETTING = OF_PROCESS | OF_DEVICE  # nobody can move the rack's hardware meanwhile

_LASTS_S: dict[Kind, tuple[float, float]] = {
    Kind.KILL: (0.5, 8.0),
    Kind.STOP: (1.0, 18.0),  # longer than a lease, too
    Kind.CUT: (1.0, 8.0),
    Kind.STALL_UP: (2.0, 14.0),
    Kind.STALL_DOWN: (2.0, 14.0),
    Kind.SERVER_KEEPS: (0.2, 3.0),
    Kind.SERVER_LAGS: (0.2, 3.0),
    Kind.SERVER_FORGETS: (0.2, 3.0),
    Kind.DEVICE_LATE: (4.0, 10.0),
    Kind.DEVICE_SILENT: (2.0, 8.0),
    Kind.DISK_FULL: (5.0, 15.0),
    Kind.CLOCK_AHEAD: (3.0, 10.0),
    Kind.CLOCK_BACK: (3.0, 10.0),
}
_OF_THE_BROKER = (Kind.KILL, Kind.STOP, Kind.STALL_UP, Kind.STALL_DOWN, Kind.DISK_FULL)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, `at_s` after the start, for `lasts_s`."""

    at_s: float
    kind: Kind
    victims: tuple[str, ...]  # in this order; nobody for the MQTT server
    lasts_s: float
    alone: bool = False  # nothing else may be wrong meanwhile


@dataclass(frozen=True, slots=True)
class CapChange:
    """The room's cap becomes this share of its first value."""

    at_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run, in order of time."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    caps: tuple[CapChange, ...]


def plan(*, seed: int, seconds: float, racks: Sequence[str]) -> Plan:
    """ValueError: not even one round fits."""
    if not ROUND_S <= seconds < math.inf:
        raise ValueError(f"a run of {seconds:g} s: one round takes {ROUND_S:.0f} s")
    rng = Random(seed)
    deck = _deck(rng)
    faults: list[Fault] = []
    caps: list[CapChange] = []
    begin_s = 0.0
    while begin_s + ROUND_MIN_S <= seconds:
        faults += _round(begin_s, deck, racks, rng)
        caps += _caps(begin_s, rng)
        begin_s += ROUND_S
    caps = [change for change in caps if change.at_s < seconds - TAIL_S]
    return Plan(seed, seconds, tuple(sorted(faults, key=lambda fault: fault.at_s)), tuple(caps))


def _round(
    begin_s: float, deck: Iterator[tuple[Kind, bool]], racks: Sequence[str], rng: Random
) -> Iterator[Fault]:
    yield Fault(begin_s + 0.5, Kind.KILL, (BROKER,), round(rng.uniform(3.0, 8.0), 1), alone=True)
    for index, (kind, of_the_broker) in enumerate(itertools.islice(deck, STORM_FAULTS)):
        early_s = STORM_S * (index + rng.uniform(0.0, 0.9)) / STORM_FAULTS
        lasts_s = rng.uniform(*_LASTS_S[kind])
        victims = rng.sample(list(racks), len(racks))
        first = [BROKER] if of_the_broker else []
        yield Fault(
            at_s=round(begin_s + ALONE_S + early_s, 1),
            kind=kind,
            victims=() if kind in OF_SERVER else tuple(first + victims),
            # What begins late in a storm ends soon, so that the calm is one.
            lasts_s=round(min(lasts_s, max(2.0, STORM_S + 2.0 - early_s)), 1),
        )


def _caps(begin_s: float, rng: Random) -> Iterator[CapChange]:
    storm_s = begin_s + ALONE_S
    yield CapChange(storm_s, 1.0)
    fall_s = rng.uniform(4.0, STORM_S - 6.0)
    yield CapChange(round(storm_s + fall_s, 1), rng.choice((0.6, 0.7, 0.8)))
    yield CapChange(round(storm_s + fall_s + rng.uniform(3.0, 10.0), 1), rng.choice((0.9, 1.0)))
    if rng.random() < 0.5:  # with everyone alive; the next storm lifts it again
        yield CapChange(begin_s + ROUND_S - CALM_FALL_S, rng.choice((0.7, 0.8)))


def _deck(rng: Random) -> Iterator[tuple[Kind, bool]]:
    """Every kind once, and those that hurt a broker most once more, for it."""
    cards = [(kind, False) for kind in Kind] + [(kind, True) for kind in _OF_THE_BROKER]
    while True:
        yield from rng.sample(cards, len(cards))
