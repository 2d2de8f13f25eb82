"""Deliberate faults of the product, one rule each: the simulation has to find them.

Each is a function that breaks one rule by monkeypatching the product's own classes.
`known_seed` is a seed of the mix of faults named for it in which it is found; the rest of a
world follows from the seed as always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sim_rack
from msgspec import structs
from sim_weather import Weather

from broker.caps import CapBook
from broker.coordinator import Coordinator
from broker.lease import LeaseDesk
from broker.ledger import Account, Ledger
from broker.membership import Membership
from broker.messages import Ballot, Grant, GrantKey, Report
from broker.node import Node
from firmware_py.controller import Controller
from firmware_py.limiter import Command, CommandDone, Limiter
from firmware_py.limiter_kinds import OutletLimiter, PowerLimiter

Patch = pytest.MonkeyPatch


# ---- the hardware: R4 to R8 --------------------------------------------------------


def acknowledge_before_read_back(patch: Patch) -> None:  # R5
    def settle(self: Limiter, now: float) -> None:
        self.bound_w = self._ceiling_w if self.starting else self.limit_w

    patch.setattr(Limiter, "_settle_bound", settle)


def acknowledge_because_the_meter_shows_little(patch: Patch) -> None:  # R5
    read_device = Controller._read_device

    def believe(self: Controller, fact: Any, now: float) -> Any:
        effects = read_device(self, fact, now)
        measured = self._measured(now)
        limiter = self._limiter
        if measured is not None and not limiter.starting and measured[0] <= limiter.limit_w:
            limiter.bound_w = limiter.limit_w
        return effects

    patch.setattr(Controller, "_read_device", believe)


def believe_the_answer_of_a_write(patch: Patch) -> None:  # R5: an answer alone proves nothing
    def outlived(self: Limiter, write: Any) -> bool:
        return write.done_at_s is not None

    patch.setattr(Limiter, "_is_outlived", outlived)


def let_a_write_of_yesterday_overtake_todays(patch: Patch) -> None:  # R5
    def by_the_setting_alone(self: PowerLimiter) -> int:
        return self._setting_w()

    patch.setattr(PowerLimiter, "_possible_w", by_the_setting_alone)


def repeat_a_raise(patch: Patch) -> None:  # R5
    write, done = Limiter._write, Limiter.done

    def remember(self: Any, name: str, value: Any, *, raises: bool) -> Command:
        command = write(self, name, value, raises=raises)
        if raises:
            self.__dict__.setdefault("sent", {})[command.id] = command
        return command

    def again(self: Any, fact: CommandDone, *, now: float) -> Any:
        effects = done(self, fact, now=now)
        command = self.__dict__.get("sent", {}).pop(fact.id, None)
        unanswered = fact.executed is not None and fact.executed.absence is not None
        return [*effects, command] if command is not None and unanswered else effects

    patch.setattr(Limiter, "_write", remember)
    patch.setattr(Limiter, "done", again)


def take_half_an_answer_for_the_whole(patch: Patch) -> None:  # R5, R7
    def newest(self: Limiter) -> float | None:
        return max(self._asked_at_s.values(), default=None)

    def outlived(self: Limiter, write: Any) -> bool:
        asked_at_s = max(self._asked_at_s.values())
        done_at_s = write.done_at_s
        return done_at_s is not None and asked_at_s >= done_at_s + self._actuator.effect_delay_s

    patch.setattr(Limiter, "_oldest_asked_at_s", newest)
    patch.setattr(Limiter, "_is_outlived", outlived)


def take_a_lowering_grant_for_the_limit_itself(patch: Patch) -> None:  # R4
    limit = Limiter.limit

    def whatever_it_says(self: Limiter, granted_w: int, *, may_raise: bool, now: float) -> Any:
        return limit(self, granted_w, may_raise=True, now=now)

    patch.setattr(Limiter, "limit", whatever_it_says)


def hold_the_limit_when_the_lease_ends(patch: Patch) -> None:  # R6
    def hold(self: Controller, now: float) -> Any:
        if now >= self._lowers_at_s:
            self._lease_ended = True
        return []

    patch.setattr(Controller, "_watch_lease", hold)


def trust_the_first_read_back(patch: Patch) -> None:  # R7
    whole = Limiter._oldest_asked_at_s

    def read(self: Limiter) -> float | None:
        asked_at_s = whole(self)
        if asked_at_s is not None:
            self._started_at_s = float("-inf")
        return asked_at_s

    patch.setattr(Limiter, "_oldest_asked_at_s", read)


def promise_what_was_written_not_what_is_read(patch: Patch) -> None:  # R5, R7
    def written_w(self: PowerLimiter) -> int:
        return max(int(float(w.value)) + self._actuator.base_w for w in self._writes)

    def possible_w(self: PowerLimiter) -> int:
        return written_w(self) if self._writes else self.limit_w

    patch.setattr(PowerLimiter, "_possible_w", possible_w)


def take_a_reset_for_a_false_reading(patch: Patch) -> None:  # R7
    take = PowerLimiter._take

    def plausible(self: PowerLimiter, points: Any, asked_at_s: float | None) -> None:
        point = points.get("limit.realpower")
        value = getattr(point, "value", None)
        above = isinstance(value, float) and value + self._actuator.base_w > self.bound_w
        if not (above and self.known and not self.starting):
            take(self, points, asked_at_s)

    patch.setattr(PowerLimiter, "_take", plausible)


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


def report_the_steps_while_the_limit_is_the_number(patch: Patch) -> None:  # R8
    def steps_in_force(self: Limiter, now: float) -> None:
        self.bound_w = self._ceiling_w if self.starting else self._possible_w()

    def without_what_waits(self: OutletLimiter) -> set[int]:
        on = {n for n in self._outlets if self._is_on(n)}
        return on | {int(w.name.split(".")[1]) for w in self._writes if w.raises}

    patch.setattr(Limiter, "_settle_bound", steps_in_force)
    patch.setattr(OutletLimiter, "_possibly_on", without_what_waits)


# ---- grants and ballots: R1 to R3, R10, R11 ----------------------------------------


def _accept_also(patch: Patch, ignored: Callable[[str, Grant, Ballot], bool]) -> None:
    processed = LeaseDesk._processed

    def accept(self: LeaseDesk, grant: Grant, boot: int, ballot: Ballot, highest: Ballot) -> str:
        refusal = processed(self, grant, boot, ballot, highest)
        return "" if ignored(refusal, grant, highest) else refusal

    patch.setattr(LeaseDesk, "_processed", accept)


def accept_keys_out_of_order(patch: Patch) -> None:  # R2
    _accept_also(patch, lambda refusal, grant, highest: refusal == "old key")


def accept_a_lower_ballot(patch: Patch) -> None:  # R1, R2
    def lower(refusal: str, grant: Grant, highest: Ballot) -> bool:
        return refusal in ("lower ballot", "old key") and grant.key.ballot < highest

    _accept_also(patch, lower)


def accept_a_grant_for_an_earlier_boot(patch: Patch) -> None:  # R2
    _accept_also(patch, lambda refusal, grant, highest: refusal == "another process")


def announce_a_ballot_before_it_is_on_disk(patch: Patch) -> None:  # R1, B6
    def on_its_way(self: Membership) -> Ballot:
        known = [r.ballot for r in (self._wanted, self.durable, self._loaded) if r is not None]
        return max(known, default=Ballot(0, ""))

    patch.setattr(Membership, "ballot", property(on_its_way))


def share_a_ballot_between_brokers(patch: Patch) -> None:  # words: no two brokers ever share one
    def without_a_name(self: Membership) -> Ballot:
        return Ballot(self.highest.term + 1, "broker")

    patch.setattr(Membership, "next_ballot", property(without_a_name))


def forget_the_journal_and_start_from_zero(patch: Patch) -> None:  # R10, R11
    def empty(disk: Any, me: Any) -> Any:
        if disk is None:
            return None
        return replace(disk, ballot=Ballot(0, ""), boot=0, caps={})

    patch.setattr(sim_rack, "load_journal", empty)


def order_boots_by_chance(patch: Patch) -> None:  # R10
    def by_chance(disk: Any, me: Any) -> Any:
        return None if disk is None else replace(disk, boot=int(me.instance[:8], 16))

    patch.setattr(sim_rack, "load_journal", by_chance)


def lead_after_the_journal_was_lost(patch: Patch) -> None:  # R11
    def as_if_nothing_were(self: Membership) -> bool:
        return self.may_report and not self._last_write_failed

    patch.setattr(Membership, "may_lead", property(as_if_nothing_were))


def obey_although_a_twin_is_heard(patch: Patch) -> None:  # R10
    hear_own, notice = Node._hear_own, Account._notice_twins

    def deaf(self: Node, report: Report, now: float) -> Any:
        return hear_own(self, report, now) if report.instance == self._me.instance else []

    def blind(self: Account, report: Report, ttl_s: float, now: float) -> None:
        notice(self, report, 0.0, now)

    patch.setattr(Node, "_hear_own", deaf)
    patch.setattr(Account, "_notice_twins", blind)


# ---- the broker: B1 to B4 ----------------------------------------------------------


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


def believe_what_has_no_actuator(patch: Patch) -> None:  # B1: unlimited is its ceiling
    hear = Account.hear

    def by_the_meter(self: Account, report: Report, **how: Any) -> bool:
        if report.actuator == "none":
            measured_w = report.measured_w or self.rack.floor_w
            report = structs.replace(report, bound_w=measured_w, limit_w=measured_w)
        return hear(self, report, **how)

    patch.setattr(Account, "hear", by_the_meter)


# ---- caps and elections ------------------------------------------------------------


def start_a_ballot_with_the_cap_of_the_file(patch: Patch) -> None:  # C1
    start = Coordinator.__init__

    def afresh(self: Coordinator, ballot: Any, roster: Any, caps: Any, **more: Any) -> None:
        start(self, ballot, roster, CapBook(roster.caps, {}), **more)

    patch.setattr(Coordinator, "__init__", afresh)


def let_a_cap_rise_when_its_source_falls_silent(patch: Patch) -> None:  # C1
    hear, in_force = CapBook.hear, CapBook.in_force
    heard_at_s: dict[tuple[int, str], float] = {}

    def note(self: CapBook, cap: str, said: Any, *, live: bool, now: float) -> bool:
        heard_at_s[id(self), cap] = now
        return hear(self, cap, said, live=live, now=now)

    def while_it_speaks(self: CapBook, cap: str, now: float) -> tuple[int, str]:
        if now - heard_at_s.get((id(self), cap), now) > 5.0:
            return (self._caps[cap].limit_w, "site")
        return in_force(self, cap, now)

    patch.setattr(CapBook, "hear", note)
    patch.setattr(CapBook, "in_force", while_it_speaks)


def forget_the_fallback(patch: Patch) -> None:  # C2
    patch.setattr(CapBook, "_is_silent", lambda self, spec, now: False)


def go_on_leading_under_a_higher_ballot(patch: Patch) -> None:  # B5
    def stay(self: Node, now: float) -> Any:
        return []

    patch.setattr(Node, "_step_down", stay)


_LATE = {"message_late": 0.15, "late_s_max": 8.0, "message_twice": 0.2}
_CRASHES = {"crash_every_s": 6.0, "down_s_max": 6.0}
_QUICK = {"crash_every_s": 4.0, "down_s_max": 1.0, "message_late": 0.3, "late_s_max": 8.0}
_CUTS = {"cut_every_s": 6.0, "cut_s_max": 12.0}
_CAPS = {"cap_change_every_s": 8.0}
_DEVICES = {"answer_lost": 0.15, "poll_lost": 0.1, "point_lost": 0.2}
_SLOW = {"slow_hardware": True, "hardware_reorders": True}
_LOST_WRITES = {"write_lost": 0.3, "cap_change_every_s": 5.0}
_METERS = {"meter_every_s": 4.0, "cap_change_every_s": 8.0}
_RESETS = {"reset_every_s": 8.0}
_SILENCE = {"cap_change_every_s": 15.0, "silence_every_s": 5.0}
_LOST_JOURNALS = {"crash_every_s": 5.0, "down_s_max": 8.0, "journal_lost": 0.5}
_SLOW_DISKS = {"journal_slow": 0.6, "journal_refused": 0.2, "crash_midway": 0.002}
_ELECTIONS = {"election_every_s": 4.0}
_TWINS = {"twin_every_s": 8.0}


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
    Sabotage("R5", acknowledge_because_the_meter_shows_little, {**_METERS, **_SLOW}, 0),
    Sabotage("R5", believe_the_answer_of_a_write, _SLOW, 0),
    Sabotage("R5", let_a_write_of_yesterday_overtake_todays, {**_CAPS, **_SLOW}, 0),
    Sabotage("R5", repeat_a_raise, {**_CAPS, **_SLOW, "answer_lost": 0.4}, 2),
    Sabotage("R5", take_half_an_answer_for_the_whole, _DEVICES, 3),
    Sabotage("R4", take_a_lowering_grant_for_the_limit_itself, {**_LATE, **_CUTS}, 11),
    Sabotage("R6", hold_the_limit_when_the_lease_ends, {**_CAPS, **_CUTS, "cut_s_max": 60.0}, 61),
    Sabotage("R7", trust_the_first_read_back, {**_CRASHES, **_SLOW}, 2),
    Sabotage("R7", promise_what_was_written_not_what_is_read, _SLOW, 0),
    Sabotage("R7", take_a_reset_for_a_false_reading, _RESETS, 0),
    Sabotage("R8", switch_on_by_the_limit_not_by_the_promise, _LOST_WRITES, 243),
    Sabotage("R8", report_the_steps_while_the_limit_is_the_number, _CAPS, 63),
    Sabotage("R2", accept_keys_out_of_order, _LATE, 3),
    Sabotage("R1", accept_a_lower_ballot, {**_LATE, **_ELECTIONS}, 10),
    Sabotage("R2", accept_a_grant_for_an_earlier_boot, _QUICK, 26),
    Sabotage("R1", announce_a_ballot_before_it_is_on_disk, {**_SLOW_DISKS, **_CRASHES}, 0),
    Sabotage("words", share_a_ballot_between_brokers, {**_LATE, **_CUTS, **_ELECTIONS}, 0),
    Sabotage("R11", forget_the_journal_and_start_from_zero, {**_LATE, **_CRASHES}, 0),
    Sabotage("R10", order_boots_by_chance, {**_LATE, **_CRASHES}, 0),
    Sabotage("R11", lead_after_the_journal_was_lost, {**_LOST_JOURNALS, **_SILENCE}, 28),
    Sabotage("R10", obey_although_a_twin_is_heard, _TWINS, 0),
    Sabotage("B1", count_the_unheard_at_their_last_bound, {**_LATE, **_CUTS, **_CRASHES}, 47),
    Sabotage("B1", count_the_silent_at_their_floor, _CRASHES, 0),
    Sabotage("B1", forget_unacknowledged_grants, _LATE, 5),
    Sabotage("B1", believe_what_has_no_actuator, {}, 0),
    Sabotage("B3", raise_while_the_cap_is_exceeded, _CAPS, 6),
    Sabotage("B5", go_on_leading_under_a_higher_ballot, {**_CUTS, **_LATE}, 1),
    Sabotage("C1", start_a_ballot_with_the_cap_of_the_file, {**_CAPS, **_CRASHES}, 0),
    Sabotage("C1", let_a_cap_rise_when_its_source_falls_silent, _SILENCE, 0),
    Sabotage("C2", forget_the_fallback, _SILENCE, 5),
)
