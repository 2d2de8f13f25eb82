"""Deliberate faults of the product, one rule each: the simulation has to find them.

Each is a function that breaks one rule by monkeypatching the product's own classes.
`known_seed` is a seed of a kind of weather in which it is found; the rest of a world
follows from the seed as always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sim_rack
from sim_weather import Weather

from broker.caps import CapBook
from broker.coordinator import Coordinator
from broker.election import Election
from broker.lease import LeaseDesk
from broker.ledger import Account, Ledger
from broker.messages import Ballot, Grant, GrantKey, Report
from firmware_py.limiter import Limiter
from firmware_py.limiter_kinds import OutletLimiter

Patch = pytest.MonkeyPatch


def acknowledge_before_read_back(patch: Patch) -> None:  # R5
    def settle(self: Limiter, now: float) -> None:
        self.bound_w = self._ceiling_w if self.starting else self.limit_w

    patch.setattr(Limiter, "_settle_bound", settle)


def believe_the_answer_of_a_write(patch: Patch) -> None:  # R5: an answer alone proves nothing
    def outlived(self: Limiter, write: Any) -> bool:
        return write.done_at_s is not None

    patch.setattr(Limiter, "_is_outlived", outlived)


def take_half_an_answer_for_the_whole(patch: Patch) -> None:  # R5, R7
    def newest(self: Limiter) -> float | None:
        return max(self._asked_at_s.values(), default=None)

    def outlived(self: Limiter, write: Any) -> bool:
        asked_at_s = max(self._asked_at_s.values())
        done_at_s = write.done_at_s
        return done_at_s is not None and asked_at_s >= done_at_s + self._actuator.effect_delay_s

    patch.setattr(Limiter, "_oldest_asked_at_s", newest)
    patch.setattr(Limiter, "_is_outlived", outlived)


def switch_on_by_the_limit_not_by_the_promise(patch: Patch) -> None:  # R8, B1
    def grow(self: OutletLimiter, granted_w: int, now: float) -> Any:
        while (number := self._following(now)) is not None:
            if self._watts(self._on | {number}) > granted_w:
                break
            self._on.add(number)
            self._waiting.append(number)
        if not self._waiting:
            return []
        self.limit_w = self._watts(self._on)
        self._settle_bound(now)
        return self._advance(now)

    patch.setattr(OutletLimiter, "_raise", grow)


def trust_the_first_read_back(patch: Patch) -> None:  # R7
    whole = Limiter._oldest_asked_at_s

    def read(self: Limiter) -> float | None:
        asked_at_s = whole(self)
        if asked_at_s is not None:
            self._started_at_s = float("-inf")
        return asked_at_s

    patch.setattr(Limiter, "_oldest_asked_at_s", read)


def accept_keys_out_of_order(patch: Patch) -> None:  # R2
    processed = LeaseDesk._processed

    def ignore_order(
        self: LeaseDesk, grant: Grant, boot: int, ballot: Ballot, highest: Ballot
    ) -> str:
        refusal = processed(self, grant, boot, ballot, highest)
        return "" if refusal == "old key" else refusal

    patch.setattr(LeaseDesk, "_processed", ignore_order)


def accept_a_lower_ballot(patch: Patch) -> None:  # R1, R2
    processed = LeaseDesk._processed

    def ignore_ballots(
        self: LeaseDesk, grant: Grant, boot: int, ballot: Ballot, highest: Ballot
    ) -> str:
        refusal = processed(self, grant, boot, ballot, highest)
        if refusal not in ("lower ballot", "old key"):
            return refusal
        return "" if grant.key.ballot < highest else refusal

    patch.setattr(LeaseDesk, "_processed", ignore_ballots)


def count_the_unheard_at_their_last_bound(patch: Patch) -> None:  # B1
    last_bound_w: dict[tuple[int, str], int] = {}
    hear, reserve_w = Coordinator.hear, Account.reserve_w

    def remember(self: Coordinator, rack: str, report: Report, **how: Any) -> Any:
        last_bound_w[id(patch), rack] = report.bound_w
        return hear(self, rack, report, **how)

    def last_known_w(self: Account, **how: Any) -> int:
        if self.report is None:
            return last_bound_w.get((id(patch), self.rack.rack), self.rack.floor_w)
        return reserve_w(self, **how)

    patch.setattr(Coordinator, "hear", remember)
    patch.setattr(Account, "reserve_w", last_known_w)


def count_the_silent_at_their_floor(patch: Patch) -> None:  # B1
    reserve_w = Account.reserve_w

    def forget_the_dead(self: Account, *, beat_timeout_s: float, now: float) -> int:
        if self.is_silent(beat_timeout_s, now):
            return self.rack.floor_w
        return reserve_w(self, beat_timeout_s=beat_timeout_s, now=now)

    patch.setattr(Account, "reserve_w", forget_the_dead)


def forget_unacknowledged_grants(patch: Patch) -> None:  # B1
    def forget(self: Ledger, rack: str, key: GrantKey, limit_w: int) -> None:
        return

    patch.setattr(Ledger, "grant", forget)


def raise_while_the_cap_is_exceeded(patch: Patch) -> None:  # B3
    def within_the_reserve(
        self: Ledger, rack: str, wanted_w: int, *, limits_w: Any, reserves_w: Any, load_w: Any
    ) -> int:
        account = self.accounts[rack]
        room_w = max(0, min(limits_w[cap] - load_w[cap] for cap in account.path))
        limit_w = min(wanted_w, reserves_w[rack] + room_w)
        taken_w = max(0, limit_w - reserves_w[rack])
        reserves_w[rack] += taken_w
        for cap in account.path:
            load_w[cap] += taken_w
        return limit_w

    patch.setattr(Ledger, "reserve", within_the_reserve)


def forget_the_journal_and_start_from_zero(patch: Patch) -> None:  # R10, R11
    def empty(disk: Any, me: Any) -> Any:
        return replace(disk, ballot=Ballot(0, ""), boot=0, caps={})

    patch.setattr(sim_rack, "load_journal", empty)


def start_a_ballot_with_the_cap_of_the_file(patch: Patch) -> None:  # C1
    start = Coordinator.__init__

    def afresh(self: Coordinator, ballot: Any, roster: Any, caps: Any, **more: Any) -> None:
        start(self, ballot, roster, CapBook(roster.caps, {}), **more)

    patch.setattr(Coordinator, "__init__", afresh)


def time_a_slow_decline_as_one_lowering(patch: Patch) -> None:  # B4
    def since_the_first(self: Account, report: Report, now: float) -> None:
        if report.bound_w <= report.limit_w:
            self.lowerings = []
        elif not self.lowerings:
            self.lowerings = [(now, report.limit_w)]

    patch.setattr(Account, "_note_lowering", since_the_first)


def try_to_take_over_at_every_beat(patch: Patch) -> None:  # election
    def at_any_time(self: Election, ballot: Ballot, now: float) -> bool:
        return self._outranks(ballot.rack) and now >= self._timing.preempt_after_s

    patch.setattr(Election, "_may_preempt", at_any_time)


_LATE = {"message_late": 0.15, "late_s_max": 8.0, "message_twice": 0.2}
_CRASHES = {"crash_every_s": 6.0, "down_s_max": 6.0}
_CUTS = {"cut_every_s": 6.0, "cut_s_max": 12.0}
_CAPS = {"cap_change_every_s": 8.0}
_DEVICES = {"answer_lost": 0.15, "poll_lost": 0.1, "point_lost": 0.2}
_SLOW = {"slow_hardware": True, "hardware_reorders": True}
_LOST_WRITES = {"write_lost": 0.3, "cap_change_every_s": 5.0}
_SLOW_IN_ORDER = {"slow_hardware": True}


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A broken rule, the weather that brings it to light (None: the seed's own), and a seed."""

    rule: str
    breaks: Callable[[Patch], None]
    weather: dict[str, Any] | None
    known_seed: int

    def weather_now(self) -> Weather | None:
        return None if self.weather is None else Weather(**self.weather, names=(self.rule,))


SABOTAGES = (
    Sabotage("R5", acknowledge_before_read_back, _SLOW, 0),
    Sabotage("R5", believe_the_answer_of_a_write, _SLOW, 1),
    Sabotage("R5", take_half_an_answer_for_the_whole, _DEVICES, 1),
    Sabotage("R8", switch_on_by_the_limit_not_by_the_promise, _LOST_WRITES, 51),
    Sabotage("R7", trust_the_first_read_back, {**_CRASHES, **_SLOW}, 5),
    Sabotage("R2", accept_keys_out_of_order, _LATE, 3),
    Sabotage("R1", accept_a_lower_ballot, {**_LATE, **_CRASHES}, 17),
    Sabotage("B1", count_the_unheard_at_their_last_bound, {**_LATE, **_CUTS, **_CRASHES}, 45),
    Sabotage("B1", count_the_silent_at_their_floor, _CRASHES, 0),
    Sabotage("B1", forget_unacknowledged_grants, _LATE, 0),
    Sabotage("B3", raise_while_the_cap_is_exceeded, _CAPS, 0),
    Sabotage("B4", time_a_slow_decline_as_one_lowering, {**_CAPS, **_SLOW_IN_ORDER}, 23),
    Sabotage("R11", forget_the_journal_and_start_from_zero, {**_LATE, **_CRASHES}, 6),
    Sabotage("C1", start_a_ballot_with_the_cap_of_the_file, {**_CAPS, **_CRASHES}, 0),
    Sabotage("election", try_to_take_over_at_every_beat, None, 50),
)
