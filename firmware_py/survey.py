"""Whether a device that is polled can be believed, and whether it is all of it.

A poll asks for what the rack needs: mostly one number, which nothing contradicts. So now
and then the input's other quantities are asked too, and compared (`drivers.quality`), and
more rarely every outlet's watts, which must add up to the input's. What is found is an
event for a person; no reading is taken away, nothing is corrected.

What an outlet showed holds until the outlets are asked again: a survey of the input says
nothing about it. Between the first outlet and the last some time passes, in which a load
may come or go: a sum is told only if it is wrong once more in the survey after that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from broker.effects import Event, Level, event
from drivers.profile import Profile
from drivers.quality import Finding, Watch, check_snapshot
from drivers.reading import Absence, Missing, Reading, Snapshot

SURVEY_S = 30.0
OUTLETS_EVERY = 10  # surveys
NAMES_AT_ONCE = 8  # a poll waits for no more than that
PLACES = ("input", "inlet")
QUANTITIES = ("realpower", "power", "current", "voltage", "powerfactor")
NAMES_MAX = 64  # of the input in one survey: it must stay small beside the polls
OUTLETS_MAX = 192  # beyond it none: half of them would not add up to anything
TOTAL = "input.realpower"

_OUTLET_WATTS = re.compile(r"outlet\.[^.]+\.realpower")


def names_to_survey(profile: Profile) -> tuple[str, ...]:
    """The points of the input that can contradict each other; none if there are not two."""
    names = _of_input(profile)
    return names if len(names) > 1 else ()


def names_with_outlets(profile: Profile) -> tuple[str, ...]:
    """The same, and the watts of all outlets; without them where they have no total."""
    names = _of_input(profile)
    outlets = tuple(p.name for p in profile.points if _OUTLET_WATTS.fullmatch(p.name))
    if TOTAL not in names or not 1 < len(outlets) <= OUTLETS_MAX:
        return names_to_survey(profile)
    return names + outlets


def _of_input(profile: Profile) -> tuple[str, ...]:
    names = [
        point.name
        for point in profile.points
        if point.name.split(".")[0] in PLACES and point.name.split(".")[-1] in QUANTITIES
    ]
    return tuple(names[:NAMES_MAX])


class Survey:
    """One device: what to ask it next, and the findings when they come and when they go."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._watch = Watch()
        self._told: frozenset[_Known] = frozenset()
        self._surveys = 0
        self._with_outlets = False
        self._doubted: frozenset[_Known] = frozenset()  # sums that were wrong once
        self._left: list[str] = []
        self._points: dict[str, Reading | Missing] = {}
        self._begins_at_s = 0.0

    def names_to_ask(self, profile: Profile, now_s: float) -> tuple[str, ...]:
        """The next few points; empty while it is not yet time."""
        if not self._left and now_s >= self._begins_at_s:
            self._begins_at_s = now_s + SURVEY_S
            self._with_outlets = self._surveys % OUTLETS_EVERY == 0 or bool(self._doubted)
            self._surveys += 1
            names = names_with_outlets if self._with_outlets else names_to_survey
            self._left = list(names(profile))
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
        if self._with_outlets:
            sums = {known for known in now if known[0] == "sum" and _is_of_outlets(known)}
            unsure = sums - self._told - self._doubted
            self._doubted, now = frozenset(unsure), now - unsure
        else:
            now |= {known for known in self._told if _is_of_outlets(known)}
        events = [
            _found(self._device, finding)
            for finding in findings
            if (finding.kind, finding.names) in now - self._told
        ]
        if self._told and not now:
            events.append(event(Level.INFO, "device can be believed again", device=self._device))
        self._told = now
        return events


_Known = tuple[str, tuple[str, ...]]
"""A finding that was told: its kind and its points."""


def _is_of_outlets(known: _Known) -> bool:
    return any(name.startswith("outlet.") for name in known[1])


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
