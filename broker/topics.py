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
    CAP_STATE = "caps"
    MARKET = "market"


_OF_SITE = {Kind.BEAT, Kind.ELECTION, Kind.ROSTER, Kind.MARKET}
_OF_RACK = {Kind.REPORT, Kind.GRANT, Kind.ONLINE, Kind.EXPLAIN}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a site. `name` is the rack or the cap it belongs to, "" where neither."""

    kind: Kind
    name: str = ""

    def path(self, site: str) -> str:
        if self.kind in _OF_SITE:
            return f"{ROOT}/{site}/{self.kind}"
        if self.kind in _OF_RACK:
            return f"{ROOT}/{site}/racks/{self.name}/{self.kind}"
        if self.kind is Kind.CAP_SET:
            return f"{ROOT}/{site}/caps/{self.name}/set"
        return f"{ROOT}/{site}/caps/{self.name}"


def parse(path: str, site: str) -> Topic | None:
    """The topic behind a path; None for one that is not ours."""
    prefix = f"{ROOT}/{site}/"
    if not path.startswith(prefix):
        return None
    match path[len(prefix) :].split("/"):
        case [kind] if kind in _OF_SITE:
            return Topic(Kind(kind))
        case ["racks", name, kind] if kind in _OF_RACK and name:
            return Topic(Kind(kind), name)
        case ["caps", name] if name:
            return Topic(Kind.CAP_STATE, name)
        case ["caps", name, "set"] if name:
            return Topic(Kind.CAP_SET, name)
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
        f"{base}/racks/{rack}/grant",
        f"{base}/racks/{rack}/report",
    )


def of_broker(site: str) -> tuple[str, ...]:
    """What the broker and a candidate listen to beside it."""
    return (f"{ROOT}/{site}/racks/+/report",)
