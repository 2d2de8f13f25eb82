"""Whether a device that is polled can be believed, and whether it is all of it.

A poll asks for what the rack needs: mostly one number, which nothing contradicts. So now
and then the input's other quantities are asked too, and compared (`drivers.quality`).
What is found is an event for a person; no reading is taken away, nothing is corrected.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.effects import Event, Level, event
from drivers.profile import Profile
from drivers.quality import Finding, Watch, check_snapshot
from drivers.reading import Absence, Missing, Reading, Snapshot

SURVEY_S = 30.0
NAMES_AT_ONCE = 8  # a command waits for no more than that
PLACES = ("input", "inlet")
QUANTITIES = ("realpower", "power", "current", "voltage", "powerfactor")
NAMES_MAX = 64  # of one survey: it must stay small beside the polls


def names_to_survey(profile: Profile) -> tuple[str, ...]:
    """The points of the input that can contradict each other; none if there are not two."""
    names = [
        point.name
        for point in profile.points
        if point.name.split(".")[0] in PLACES and point.name.split(".")[-1] in QUANTITIES
    ]
    return tuple(names[:NAMES_MAX]) if len(names) > 1 else ()


class Survey:
    """One device: what to ask it next, and the findings when they come and when they go."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._watch = Watch()
        self._told: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
        self._left: list[str] = []
        self._points: dict[str, Reading | Missing] = {}
        self._begins_at_s = 0.0

    def names_to_ask(self, profile: Profile, now_s: float) -> tuple[str, ...]:
        """The next few points; empty while it is not yet time."""
        if not self._left and now_s >= self._begins_at_s:
            self._begins_at_s = now_s + SURVEY_S
            self._left = list(names_to_survey(profile))
            self._points = {}
        return tuple(self._left[:NAMES_AT_ONCE])

    def see(self, snapshot: Snapshot) -> list[Event]:
        """The answers to what was asked; with the last of them, what is new."""
        self._left = [name for name in self._left if name not in snapshot.points]
        self._points |= snapshot.points
        points = self._points.values()
        if any(isinstance(p, Missing) and p.absence is Absence.TIMEOUT for p in points):
            self._left = []  # half a round says nothing
            return []
        if self._left:
            return []
        return self._compare(Snapshot(snapshot.asked_at_s, snapshot.taken_at_s, self._points))

    def _compare(self, snapshot: Snapshot) -> list[Event]:
        self._watch, stuck = self._watch.see(snapshot)
        findings = [*check_snapshot(snapshot.points), *stuck]
        now = frozenset((finding.kind, finding.names) for finding in findings)
        events = [
            _found(self._device, finding)
            for finding in findings
            if (finding.kind, finding.names) not in self._told
        ]
        if self._told and not now:
            events.append(event(Level.INFO, "device can be believed again", device=self._device))
        self._told = now
        return events


def only_one_member(device: str, members: Sequence[str], url: str) -> Event:
    """The URL names no PDU of a chain: the rest of it is counted nowhere."""
    return event(
        Level.WARNING,
        "several PDUs behind one agent",
        device=device,
        detail=f"{', '.join(members)}: only {members[0]} is read; name the one that is meant, as"
        f" {url}/{members[0]}, and give every other that feeds the rack a device of its own",
    )


def _found(device: str, finding: Finding) -> Event:
    return event(
        Level.WARNING,
        "device contradicts itself",
        device=device,
        points=", ".join(finding.names[:3]),
        reason=finding.kind,
        detail=finding.text,
    )
