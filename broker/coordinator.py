"""The broker's tick: reports in; one beat, one grant per rack and the caps' state out.

It exists only while this rack is broker, under one ballot. Each tick it counts what
every member may draw (`ledger`), clears the market on what is really there (B4),
sends decreases at once and raises only as far as the ledger has room (B2, B3). Until
every member has reported in the ballot, for at most five ticks, it only renews, so
that nobody is cut because others have not reported yet.

A rack whose actuator moves in steps cannot use what lies between two of them; what it
leaves is cleared again for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker import market
from broker.caps import FROM_FILE, CapBook, fell, path_of
from broker.effects import Effect, Event, Level, Publish, event
from broker.ledger import Ledger
from broker.messages import (
    Ballot,
    Beat,
    CapState,
    Grant,
    GrantKey,
    Join,
    JoinAnswer,
    Leave,
    MarketState,
    Report,
    Roster,
    RosterRack,
)
from broker.roster import (
    RosterDesk,
    counts_the_same,
    is_newer,
    published,
    rack_of,
    site_hash_of,
)
from broker.topics import Kind, Topic

RENEW_TICKS_MAX = 5  # protocol B3
AHEAD_TICKS = 5  # for so long somebody with a newer roster keeps a broker from raising
STRANGERS_NAMED_MAX = 3  # more are not remembered
CLEARINGS_PER_TICK_MAX = 4  # of racks in steps; what is left then stays unused


@dataclass(frozen=True, slots=True)
class MarketTerms:
    guard: float  # share of every cap that is never given away


class Coordinator:
    """One ballot's broker."""

    def __init__(
        self,
        ballot: Ballot,
        roster: Roster,
        caps: CapBook,
        *,
        site_hash: str,
        terms: MarketTerms,
        tick_s: float,
        beat_timeout_s: float,
        now: float,
        cap_fell: bool = False,  # since the last broker's beat
        file: Roster | None = None,  # of the broker's own site file; None: the same
        is_open: bool = False,
    ) -> None:
        paths = {cap: path_of(roster.caps, cap) for cap in caps.names}
        self.ballot = ballot
        self._roster = roster
        self._caps = caps
        self._file = file or roster
        self._site_hash = site_hash_of(roster) or site_hash
        self._desk = RosterDesk(
            roster, ballot, file=self._file, is_open=is_open, beat_timeout_s=beat_timeout_s
        )
        self._ahead_at_s = float("-inf")  # when somebody reported with a newer roster
        self._behind = False  # one reports with an older roster
        self._terms = terms
        self._tick_s = tick_s
        self._ledger = Ledger(ballot, roster.racks, paths, beat_timeout_s=beat_timeout_s)
        self._limits_w = caps.limits_w(now)
        self._note_file()
        self._last: dict[str, int] | None = None  # the last allocation that verified
        self._strangers: set[str] = set()  # racks that report and are in nobody's file
        self._foreign: dict[str, str] = {}  # rack → its site hash, where it is not ours
        self._beats = 0
        self._grants = 0
        self._cap_fell = cap_fell
        self._said: dict[str, object] = {}  # what was last logged of each standing fault
        self.next_tick_s = now
        # On an open site a rack that was left out while it was off may not know that: alone,
        # and with nobody heard since its start who goes by its roster, it raises nobody.
        self.may_raise = True

    # ---- doors -----------------------------------------------------------------

    def hear(self, rack: str, report: Report, *, live: bool, now: float) -> list[Effect]:
        """A report in any ballot; only those of this one, with our roster, are counted."""
        self._desk.hear_report(rack, report, live=live, now=now)
        if report.ballot != self.ballot:
            return []
        if not counts_the_same(report.roster, self._roster.name):
            return self._hear_other_roster(rack, report, now)
        if rack not in self._ledger.accounts:
            if len(self._strangers) < STRANGERS_NAMED_MAX:
                self._strangers.add(rack)
            return self._say_once(
                "strangers",
                len(self._strangers),
                event(
                    Level.ERROR,
                    "rack is not in the site file",
                    rack=", ".join(sorted(self._strangers)),
                ),
            )
        account = self._ledger.accounts[rack]
        if account.hear(report, live=live, ttl_s=report.ttl_s, now=now):
            self._note_hash(rack, report)
        return []

    def counts(self, rack: str, report: Report) -> bool:
        """True for a report of a member in this ballot, by this roster."""
        known = rack in self._ledger.accounts and report.ballot == self.ballot
        return known and report.roster == self._roster.name

    def hear_join(self, join: Join, *, now: float) -> list[Effect]:  # protocol M2
        """A newcomer asks to be counted; it is told what becomes of that."""
        self._behind = self._behind or is_newer(self._roster.name, join.roster)
        why = self._desk.hear_join(join, self._ledger.accounts, self._limits_w, now=now)
        if not why:
            return []
        answer = JoinAnswer(instance=join.instance, ballot=self.ballot, why=why)
        return [
            Publish(Topic(Kind.JOIN_ANSWER, join.rack.rack), answer),
            *self._say_once(
                f"join {join.rack.rack}",
                why,
                event(Level.INFO, "a rack asks to be counted", rack=join.rack.rack, answer=why),
            ),
        ]

    def hear_leave(self, leave: Leave, *, now: float) -> list[Effect]:  # protocol M3
        """The operator or the rack itself says that it is counted no more."""
        self._desk.hear_leave(leave, now=now)
        self._behind = self._behind or leave.rack not in self._ledger.accounts  # it is out already
        return []

    def next_roster(self, name: Ballot, *, now: float) -> Roster | None:
        """The roster that a new ballot of this name should make; None: ours holds on."""
        return self._desk.next_roster(name, self._ledger.accounts, self._limits_w, now=now)

    def is_known_to_all(self) -> bool:
        """Every member that stays has reported in this ballot with this roster (M5)."""
        accounts = self._ledger.accounts.values()
        return all(account.report is not None or account.rack.leaving for account in accounts)

    def roster(self) -> Publish:
        """Who is counted, for whoever does not know yet (protocol M1)."""
        return Publish(Topic(Kind.ROSTER), published(self._roster, self.ballot), retain=True)

    # ---- rosters and site files ------------------------------------------------

    def _hear_other_roster(
        self, rack: str, report: Report, now: float
    ) -> list[Effect]:  # protocol M1
        """Not heard in this ballot, as long as it counts others than we do."""
        if is_newer(report.roster, self._roster.name):
            self._ahead_at_s = now  # nobody is raised until it has said its roster
        else:
            self._behind = True
        return []

    def _note_file(self) -> None:  # protocol M4
        for account in self._ledger.accounts.values():
            listed = rack_of(self._file, account.rack.rack)
            if listed is not None and listed.ceiling_w != account.rack.ceiling_w:
                account.other_ceiling_w = listed.ceiling_w

    def _note_hash(self, rack: str, report: Report) -> None:  # protocol M1, M4
        """Who has another site file. A newcomer's own file is its own affair."""
        account = self._ledger.accounts[rack]
        own_file = account.rack.joined is not None and rack_of(self._file, rack) is None
        if report.site_hash == self._site_hash or own_file:
            self._foreign.pop(rack, None)
            return
        self._foreign[rack] = report.site_hash
        if report.ceiling_w != account.rack.ceiling_w:
            account.other_ceiling_w = report.ceiling_w

    def caps_changed(self, *, now: float) -> None:
        """A source spoke: a fall is acted on at once, not at the next tick."""
        limits_w = self._caps.limits_w(now)
        if fell(self._limits_w, limits_w):
            self._cap_fell = True
            self.next_tick_s = now
        self._limits_w = limits_w

    def wake(self, *, now: float) -> list[Effect]:
        if now < self.next_tick_s:
            return []
        self.next_tick_s = now + self._tick_s
        self.caps_changed(now=now)  # a fallback may have begun by silence alone
        self.next_tick_s = now + self._tick_s
        return self._tick(now)

    # ---- one tick --------------------------------------------------------------

    def _tick(self, now: float) -> list[Effect]:
        for account in self._ledger.accounts.values():
            account.may_be_granted = self._desk.may_be_granted(account.rack, self._ledger.accounts)
        reserves_w = self._ledger.reserves_w(now)
        load_w = self._ledger.load_w(reserves_w)
        followers = {rack for rack in reserves_w if self._ledger.can_follow(rack, now)}
        clearing, stepped, alarms = self._clear(reserves_w, followers)
        alarm = self._site_alarm()
        is_behind = now - self._ahead_at_s <= AHEAD_TICKS * self._tick_s
        raises = self.may_raise and not (is_behind or (alarm and self._roster.name.term == 0))
        grants = self._grants_of(clearing, followers, stepped, reserves_w, load_w, raises=raises)
        self._beats += 1
        rosters, self._behind = [self.roster()] * self._behind, False
        return [
            self.beat(now=now),
            *rosters,
            *grants,
            *self._states(clearing, reserves_w, load_w, alarm, now),
            *alarms,
            *self._say_once(
                "file",
                self._desk.file_fault,
                event(Level.ERROR, "new site file not used", reason=self._desk.file_fault),
            ),
            *self._say_once("alarm", alarm, event(Level.ERROR, "site files differ", racks=alarm)),
            *self._short_events(),
        ]

    def beat(self, *, now: float) -> Publish:
        """The sign of life; also the answer to a candidate or to a lower beat (B5)."""
        message = Beat(
            ballot=self.ballot,
            number=self._beats,
            roster=self._roster.name,
            caps=self._caps.values(),
            silent=self._ledger.silent(now),
        )
        return Publish(Topic(Kind.BEAT), message, retain=True)

    def _only_renews(self) -> bool:  # protocol B3
        return self._beats < RENEW_TICKS_MAX and not self._cap_fell and bool(self._ledger.unheard())

    def _site_alarm(self) -> str:  # protocol M1
        return ", ".join(sorted(self._foreign))

    # ---- the market of this tick -----------------------------------------------

    def _clear(
        self, reserves_w: dict[str, int], followers: set[str]
    ) -> tuple[market.Clearing, set[str], list[Event]]:
        """Targets that verify, on the caps less the guard and the room that is taken.

        Also the racks that stay between two steps: what holds each of them is what
        held it before it was left out.
        """
        rows = [
            self._row(account.rack, reserves_w[name], name in followers)
            for name, account in self._ledger.accounts.items()
        ]
        problem = self._problem(rows)
        clearing = market.clear(problem)
        held = dict(zip(clearing.racks, clearing.binding, strict=True))
        stepped: set[str] = set()
        for _ in range(CLEARINGS_PER_TICK_MAX - 1):
            between = self._between_steps(clearing, followers)
            stepped |= set(between)
            narrowed = [
                (rack, lo_w, min(hi_w, between.get(rack, hi_w)), weight, tier, cap)
                for rack, lo_w, hi_w, weight, tier, cap in rows
            ]
            if narrowed == rows:
                break
            rows = narrowed
            problem = self._problem(rows)
            clearing = market.clear(problem)
        if clearing.certificate.holds:
            self._last = dict(zip(clearing.racks, clearing.allocation_w.tolist(), strict=True))
            binding = tuple(
                held[rack] if rack in stepped else cap
                for rack, cap in zip(clearing.racks, clearing.binding, strict=True)
            )
            return replace(clearing, binding=binding), stepped, []
        fault = event(Level.ERROR, "clearing does not verify", **_residuals(clearing))
        return self._stand_in(problem, clearing), set(), [fault]

    def _row(
        self, rack: RosterRack, reserve_w: int, follows: bool
    ) -> tuple[str, float, float, float, int, str]:
        report = self._ledger.accounts[rack.rack].report
        if not follows or report is None:  # protocol B4: only counted
            return (rack.rack, reserve_w, reserve_w, rack.weight, rack.tier, rack.cap)
        highest_w = self._ledger.accounts[rack.rack].raised_to_w_max
        hi_w = max(rack.floor_w, min(highest_w, report.demand_w))
        return (rack.rack, rack.floor_w, hi_w, report.weight, rack.tier, rack.cap)

    def _problem(self, rows: Sequence[tuple[str, float, float, float, int, str]]) -> market.Problem:
        lo_w: dict[str, float] = dict.fromkeys(self._caps.names, 0.0)
        for rack, row in zip(self._ledger.accounts.values(), rows, strict=True):
            for cap in rack.path:
                lo_w[cap] += row[1]
        return market.problem_of(
            rows,
            [
                market.MarketCap(
                    cap.cap,
                    max(self._limits_w[cap.cap] * (1 - self._terms.guard), lo_w[cap.cap]),
                    cap.parent,
                )
                for cap in self._roster.caps
            ],
        )

    def _between_steps(self, clearing: market.Clearing, followers: set[str]) -> dict[str, int]:
        """Racks whose target is above their limit but below their next step: they stay."""
        stay: dict[str, int] = {}
        for rack, target_w in zip(clearing.racks, clearing.allocation_w.tolist(), strict=True):
            report = self._ledger.accounts[rack].report
            if rack not in followers or report is None:
                continue
            blocked = report.next_w <= report.limit_w
            if report.limit_w < target_w and (blocked or target_w < report.next_w):
                stay[rack] = max(report.limit_w, report.floor_w)
        return stay

    def _stand_in(self, problem: market.Problem, clearing: market.Clearing) -> market.Clearing:
        """Instead of a clearing that failed: the last one if it verifies now, else the floors."""
        if self._last is not None and market.verifies(self._last, problem):
            x_w = [self._last[rack] for rack in problem.racks]
        else:
            x_w = problem.lo_w.astype(int).tolist()
        allocation_w = clearing.allocation_w.copy()
        allocation_w[:] = x_w
        return market.Clearing(
            clearing.racks,
            allocation_w.astype(float),
            allocation_w,
            dict.fromkeys(clearing.price),
            (None,) * len(x_w),
            clearing.certificate,
        )

    # ---- grants ----------------------------------------------------------------

    def _grants_of(
        self,
        clearing: market.Clearing,
        followers: set[str],
        stepped: set[str],
        reserves_w: dict[str, int],
        load_w: dict[str, int],
        *,
        raises: bool,
    ) -> list[Effect]:
        renew_only = self._only_renews()
        targets_w = dict(zip(clearing.racks, clearing.allocation_w.tolist(), strict=True))
        held_by = dict(zip(clearing.racks, clearing.binding, strict=True))
        grants: list[Effect] = []
        for rack in self._in_order(targets_w):
            account = self._ledger.accounts[rack]
            report = account.report
            if report is None or not account.may_be_granted:
                continue
            limit_w, why = account.renewal_w(), "renewed"
            if rack not in followers:
                why = "renewed: cannot follow now"
            elif not renew_only and (raises or targets_w[rack] < limit_w):
                limit_w, why = self._target(rack, targets_w[rack], reserves_w, load_w)
                if rack in stepped and limit_w == report.limit_w:
                    why = "no step up fits"
            may_raise = limit_w > account.renewal_w()
            key = self._next_key()
            self._ledger.grant(rack, key, limit_w)
            cap = held_by[rack]
            grants.append(
                Publish(
                    Topic(Kind.GRANT, rack),
                    Grant(
                        key=key,
                        instance=report.instance,
                        boot=report.boot,
                        seq=report.seq,
                        limit_w=limit_w,
                        may_raise=may_raise,
                        ttl_s=report.ttl_s,
                        price=None if cap is None else self._rack_price(rack, clearing),
                        cap=cap,
                        why=why,
                    ),
                )
            )
        return grants

    def _in_order(self, targets_w: dict[str, int]) -> list[str]:
        """Who is served first while the room is short: higher tiers, then the furthest below."""

        def urgency(rack: str) -> tuple[int, float, str]:
            account = self._ledger.accounts[rack]
            limit_w = account.report.limit_w if account.report else 0
            return (-account.rack.tier, limit_w / max(1, targets_w[rack]), rack)

        return sorted(targets_w, key=urgency)

    def _target(
        self, rack: str, target_w: int, reserves_w: dict[str, int], load_w: dict[str, int]
    ) -> tuple[int, str]:
        account = self._ledger.accounts[rack]
        report = account.report
        assert report is not None
        renewal_w = account.renewal_w()
        if target_w <= renewal_w:
            return target_w, "market"
        if report.next_w <= report.limit_w or target_w < report.next_w:
            return renewal_w, "no step up fits"
        room = dict(reserves_w), dict(load_w)
        limit_w = self._ledger.reserve(
            rack, target_w, limits_w=self._limits_w, reserves_w=room[0], load_w=room[1]
        )
        if limit_w <= renewal_w or limit_w < report.next_w:
            return renewal_w, "waits for room"
        reserves_w.update(room[0])
        load_w.update(room[1])
        return limit_w, "market" if limit_w == target_w else "waits for room"

    def _next_key(self) -> GrantKey:
        self._grants += 1
        return GrantKey(self.ballot.term, self.ballot.rack, self._grants)

    def _rack_price(self, rack: str, clearing: market.Clearing) -> float | None:
        prices = [clearing.price[cap] for cap in self._ledger.accounts[rack].path]
        known = [price for price in prices if price is not None]
        return _rounded(sum(known)) if len(known) == len(prices) else None

    # ---- what monitors see -----------------------------------------------------

    def _states(
        self,
        clearing: market.Clearing,
        reserves_w: dict[str, int],
        load_w: dict[str, int],
        alarm: str,
        now: float,
    ) -> list[Effect]:
        allocation_w = dict(zip(clearing.racks, clearing.allocation_w.tolist(), strict=True))
        effects: list[Effect] = [
            self._cap_state(cap.cap, clearing, allocation_w, reserves_w, load_w, now)
            for cap in self._roster.caps
        ]
        state = MarketState(
            ballot=self.ballot,
            mechanism=clearing.certificate.mechanism,
            price={cap: _rounded(price) for cap, price in clearing.price.items()},
            allocation_w=allocation_w,
            violation_w=round(clearing.certificate.violation_w, 3),
            kkt=clearing.certificate.kkt,
            iterations=clearing.certificate.iterations,
            alarm=alarm,
        )
        return [*effects, Publish(Topic(Kind.MARKET), state, retain=True)]

    def _cap_state(
        self,
        cap: str,
        clearing: market.Clearing,
        allocation_w: dict[str, int],
        reserves_w: dict[str, int],
        load_w: dict[str, int],
        now: float,
    ) -> Publish:
        below = [name for name, a in self._ledger.accounts.items() if cap in a.path]
        limit_w = self._limits_w[cap]
        state = CapState(
            ballot=self.ballot,
            limit_w=limit_w,
            by=self._source_of(cap, limit_w),
            reserved_w=load_w.get(cap, 0),
            reserve_w={name: reserves_w[name] for name in below},
            allocated_w=sum(allocation_w[name] for name in below),
            draw_w=self._draw_w(below, now),
            demand_w=sum(self._demand_w(name) for name in below),
            headroom_w=limit_w - load_w.get(cap, 0),
            price=_rounded(clearing.price[cap]),
            short_w=max(0, self._floors_w(cap) - limit_w),
        )
        return Publish(Topic(Kind.CAP_STATE, cap), state, retain=True)

    def _draw_w(self, racks: Sequence[str], now: float) -> int | None:
        """Their draw; unknown as soon as one's is (missing is not zero)."""
        silent = self._ledger.silent(now)
        total_w = 0
        for name in racks:
            report = self._ledger.accounts[name].report
            if report is None or report.measured_w is None or name in silent:
                return None
            total_w += report.measured_w
        return total_w

    def _demand_w(self, rack: str) -> int:
        """What a rack wants; its ceiling while it has not said so in this ballot."""
        account = self._ledger.accounts[rack]
        return account.report.demand_w if account.report else account.rack.ceiling_w

    def _source_of(self, cap: str, limit_w: int) -> str:
        for by, value in self._caps.values().get(cap, {}).items():
            if value.limit_w == limit_w:
                return by
        spec = next(c for c in self._roster.caps if c.cap == cap)
        return FROM_FILE if limit_w == spec.limit_w else "fallback"

    def _floors_w(self, cap: str) -> int:
        return sum(a.rack.floor_w for a in self._ledger.accounts.values() if cap in a.path)

    def _short_events(self) -> list[Effect]:  # protocol C3
        effects: list[Effect] = []
        for cap, limit_w in self._limits_w.items():
            short_w = max(0, self._floors_w(cap) - limit_w)
            effects += self._say_once(
                f"short {cap}",
                short_w,
                event(Level.ERROR, "cap is below its floors", cap=cap, short_w=short_w),
            )
        return effects

    def _say_once(self, what: str, state: object, said: Event) -> list[Effect]:
        """The event when a standing fault begins or changes, not every tick."""
        if self._said.get(what) == state:
            return []
        self._said[what] = state
        return [said] if state else []


def _rounded(price: float | None) -> float | None:
    """Six digits of a price are enough for whoever reads it."""
    return None if price is None else float(f"{price:.6g}")


def _residuals(clearing: market.Clearing) -> dict[str, float]:
    certificate = clearing.certificate
    return {"violation_w": certificate.violation_w, "kkt": certificate.kkt}
