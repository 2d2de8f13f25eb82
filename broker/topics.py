"""The topics under `wattbroker/<site>/`: what each carries and who listens to it.

A name that goes into a topic was checked when the site file was read; what comes
from outside is parsed here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

ROOT = "wattbroker"


class Kind(StrEnum):
    """What a topic carries; the value is its last level."""

    BEAT = "broker"
    REPORT = "report"
    GRANT = "grant"
    ONLINE = "online"
    EXPLAIN = "explain"
    ELECTION = "election"
    ROSTER = "roster"
    CAP_SET = "set"
    CAP_MEASURED = "measured"
    CAP_STATE = "caps"
    MARKET = "market"
    JOIN = "join"
    JOIN_ANSWER = "answer"
    LEAVE = "roster/remove"


_OF_SITE = {Kind.BEAT, Kind.ELECTION, Kind.ROSTER, Kind.MARKET, Kind.JOIN, Kind.LEAVE}
_OF_RACK = {Kind.REPORT, Kind.GRANT, Kind.ONLINE, Kind.EXPLAIN}
_OF_CAP = {Kind.CAP_SET, Kind.CAP_MEASURED}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a site. `name` is the rack or the cap it belongs to, "" where neither."""

    kind: Kind
    name: str = ""

    def path(self, site: str) -> str:
        if self.kind in _OF_SITE:
            return f"{ROOT}/{site}/{self.kind}"
        if self.kind is Kind.JOIN_ANSWER:
            return f"{ROOT}/{site}/join/{self.name}"
        if self.kind in _OF_RACK:
            return f"{ROOT}/{site}/racks/{self.name}/{self.kind}"
        if self.kind in _OF_CAP:
            return f"{ROOT}/{site}/caps/{self.name}/{self.kind}"
        return f"{ROOT}/{site}/caps/{self.name}"


def parse(path: str, site: str) -> Topic | None:
    """The topic behind a path; None for one that is not ours."""
    prefix = f"{ROOT}/{site}/"
    if not path.startswith(prefix):
        return None
    match path[len(prefix) :].split("/"):
        case [kind] if kind in _OF_SITE:
            return Topic(Kind(kind))
        case ["roster", "remove"]:
            return Topic(Kind.LEAVE)
        case ["join", name] if name:
            return Topic(Kind.JOIN_ANSWER, name)
        case ["racks", name, kind] if kind in _OF_RACK and name:
            return Topic(Kind(kind), name)
        case ["caps", name] if name:
            return Topic(Kind.CAP_STATE, name)
        case ["caps", name, kind] if kind in _OF_CAP and name:
            return Topic(Kind(kind), name)
    return None


def of_controller(site: str, rack: str) -> tuple[str, ...]:
    """What every controller subscribes to."""
    base = f"{ROOT}/{site}"
    return (
        f"{base}/broker",
        f"{base}/election",
        f"{base}/roster",
        f"{base}/racks/+/online",
        f"{base}/caps/+/set",
        f"{base}/caps/+/measured",
        f"{base}/racks/{rack}/grant",
        f"{base}/racks/{rack}/report",
    )


def of_broker(site: str) -> tuple[str, ...]:
    """What the broker and a candidate listen to beside it."""
    return (f"{ROOT}/{site}/racks/+/report",)


def of_newcomer(site: str, rack: str) -> tuple[str, ...]:
    """Where a rack that asks to be counted is told why it is not (protocol M2)."""
    return (f"{ROOT}/{site}/join/{rack}",)


def of_roster_desk(site: str) -> tuple[str, ...]:
    """Where the broker hears who wants to be counted, and who no more (protocol M2, M3)."""
    return (f"{ROOT}/{site}/join", f"{ROOT}/{site}/roster/remove")
