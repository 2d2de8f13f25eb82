"""Who is counted: rosters, how one follows from another, and when (protocol M1 to M5).

A roster is made by a ballot and named by it; the first one is the site file's, named
`[0, site_hash]`. Of two rosters the one with the higher name is the newer, except that
two of site files are not ordered: they are the same or they disagree.

Two rules keep every rack that draws power counted by everyone who could be broker:

- A newcomer is granted nothing until every other member has reported in a ballot whose
  roster has it. What it was granted first it remembers (`joined`), so that a later
  broker need not wait for everybody again.
- Who leaves is first marked as leaving: still counted, but granted nothing any more by
  whoever knows. Only when every member that stays has reported with that mark is the
  rack left out; one that says that it draws is kept instead. So a roster without it may
  come to light late, even from a broker that died before anybody heard of it: nobody has
  granted that rack anything since.

A broker changes the roster only while every member that stays has reported in its
ballot with its roster (M5). Two brokers can therefore not change it from two ends: the
later one had the report of the earlier one, and with it the name of its roster.

`RosterDesk` is the broker's side, for one ballot; `broker/belonging` is the rack's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from broker.caps import path_of
from broker.effects import Event, Level, event
from broker.ledger import Account
from broker.messages import Ballot, Join, Leave, Report, Roster, RosterCap, RosterRack

WISHES_MAX = 16  # joins, and leaves; more are answered when there is room again
SILENT_NAMED_MAX = 3
ACCEPTED = "accepted: a new ballot is made with it"


# ---- rosters as values -------------------------------------------------------------


def is_newer(name: Ballot, than: Ballot) -> bool:
    """True where the roster `name` replaces the other one. That of a file replaces none."""
    return name.term > 0 and name > than


def counts_the_same(name: Ballot, other: Ballot) -> bool:
    """True where reports with one roster are counted by a broker with the other.

    Site files that disagree are an alarm of their own: nobody is raised then (M1).
    """
    return name == other or name.term == other.term == 0


def site_hash_of(roster: Roster) -> str:
    """The hash of the site file that the roster goes by."""
    return roster.site_hash or (roster.name.rack if roster.name.term == 0 else "")


def rack_of(roster: Roster, name: str) -> RosterRack | None:
    """The member of that name."""
    return next((rack for rack in roster.racks if rack.rack == name), None)


def fault_of(roster: Roster) -> str:
    """What makes a roster from outside unusable; "" where nothing does."""
    caps = {cap.cap for cap in roster.caps}
    if len(caps) != len(roster.caps):
        return "two caps of one name"
    if len({rack.rack for rack in roster.racks}) != len(roster.racks):
        return "two racks of one name"
    if any(rack.cap not in caps for rack in roster.racks):
        return "a rack under no cap"
    if any(cap.parent is not None and cap.parent not in caps for cap in roster.caps):
        return "a cap under no cap"
    if not _is_tree(roster.caps):
        return "a cycle of caps"
    return ""


def _is_tree(caps: Sequence[RosterCap]) -> bool:
    parents = {cap.cap: cap.parent for cap in caps}
    above_nothing = {cap for cap, parent in parents.items() if parent is None}
    while more := {c for c, p in parents.items() if p in above_nothing} - above_nothing:
        above_nothing |= more
    return len(above_nothing) == len(parents)


def short_cap(roster: Roster, limits_w: Mapping[str, int], least_w: Mapping[str, int]) -> str:
    """The first cap that Σ `least_w` of the racks below does not fit; "" where all do."""
    for cap in roster.caps:
        below = [r for r in roster.racks if cap.cap in path_of(roster.caps, r.cap)]
        if sum(least_w[rack.rack] for rack in below) > limits_w[cap.cap]:
            return cap.cap
    return ""


# ---- one roster from another -------------------------------------------------------


def with_racks(roster: Roster, racks: Sequence[RosterRack], name: Ballot) -> Roster:
    """M2: the larger roster. The new racks are named by the roster that added them."""
    added = tuple(replace(rack, joined=name, leaving=False) for rack in racks)
    return _named(replace(roster, racks=(*roster.racks, *added)), name)


def with_leaving(roster: Roster, racks: set[str], name: Ballot, *, leaving: bool = True) -> Roster:
    """M3, first half: granted nothing any more, still counted; or taken back."""
    marked = tuple(replace(r, leaving=leaving) if r.rack in racks else r for r in roster.racks)
    return _named(replace(roster, racks=marked), name)


def without(roster: Roster, racks: set[str], name: Ballot) -> Roster:
    """M3, second half: the smaller roster."""
    kept = tuple(rack for rack in roster.racks if rack.rack not in racks)
    return _named(replace(roster, racks=kept), name)


def of_new_file(roster: Roster, file: Roster, name: Ballot) -> Roster:
    """M4: the new file's racks and caps, and beside them every member that it lacks."""
    known = {rack.rack: rack for rack in roster.racks}
    racks = []
    for rack in file.racks:
        was = known.pop(rack.rack, None)
        joined, leaving = (name, False) if was is None else (was.joined, was.leaving)
        racks.append(replace(rack, joined=joined, leaving=leaving))
    site_hash = site_hash_of(file)
    return Roster(name=name, racks=(*racks, *known.values()), caps=file.caps, site_hash=site_hash)


def _named(roster: Roster, name: Ballot) -> Roster:
    return replace(roster, name=name, site_hash=site_hash_of(roster), ballot=None, time_ms=0)


def published(roster: Roster, ballot: Ballot) -> Roster:
    """The roster as it is said in a ballot."""
    return replace(roster, ballot=ballot)


def changes(roster: Roster) -> Event:
    """A line for the log, when a new roster is made."""
    leaving = ", ".join(rack.rack for rack in roster.racks if rack.leaving)
    counted = ", ".join(rack.rack for rack in roster.racks if not rack.leaving)
    keys = {"counted": counted} | ({"leaving": leaving} if leaving else {})
    return event(Level.WARNING, "the roster changes", **keys)


# ---- who may join ------------------------------------------------------------------


def refusal(roster: Roster, join: Join, limits_w: Mapping[str, int], *, is_open: bool) -> str:
    """Why the newcomer cannot be counted, in words for its operator; "" where it can.

    It has to fit under every cap floor for floor: what the others hold above their
    floors is taken back for it. One that carries load has to fit with its ceiling.
    """
    rack = join.rack
    if not is_open:
        return 'this site counts the racks of its file only: roster = "static"'
    if rack_of(roster, rack.rack) is not None:
        return f"the name {rack.rack} is taken"
    taken = next((other.rack for other in roster.racks if other.rank == rack.rank), None)
    if taken is not None:
        return f"rank {rack.rank} is taken by {taken}"
    if rack.cap not in {cap.cap for cap in roster.caps}:
        return f"there is no cap {rack.cap} here"
    if rack.ceiling_w < rack.floor_w:
        return "its ceiling is below its floor"
    larger = with_racks(roster, [rack], roster.name)
    least_w = {other.rack: other.floor_w for other in roster.racks}
    least_w[rack.rack] = rack.ceiling_w if join.bound_w > 0 else rack.floor_w
    full = short_cap(larger, limits_w, least_w)
    if full and join.bound_w > 0:
        return f"no room under {full} for its ceiling, and it carries load already"
    return f"no room under {full}" if full else ""


# ---- the broker's desk -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wish:
    heard_at_s: float
    message: Join | Leave


class RosterDesk:
    """Who wants to be counted, and who no more, in one ballot with one roster.

    A wish is made in the broker's present ballot and is forgotten with it, so that one
    of yesterday changes nothing. It is repeated each tick by whoever has it.
    """

    def __init__(
        self,
        roster: Roster,
        ballot: Ballot,
        *,
        file: Roster,
        is_open: bool,
        beat_timeout_s: float,
    ) -> None:
        self._roster = roster
        self._ballot = ballot
        self._file = file
        self._is_open = is_open
        self._beat_timeout_s = beat_timeout_s
        self._wish_s = 2 * beat_timeout_s  # one that is not repeated for so long is none any more
        self._wishes: dict[str, _Wish] = {}
        self._newest: dict[str, tuple[int, int]] = {}  # boot and seq of each rack, any ballot
        self._drawing_at_s: dict[str, float] = {}  # when a rack last said that it is not at 0
        self.file_fault = ""  # why a file that all racks show cannot be used
        self._hashes: dict[str, str] = {}  # of the members that reported in this ballot

    # ---- what is heard ---------------------------------------------------------

    def hear_report(self, rack: str, report: Report, *, live: bool, now: float) -> None:
        """Any report of a member, of any ballot and roster: a leave has to be newer."""
        at = (report.boot, report.seq)
        self._newest[rack] = max(at, self._newest.get(rack, at))
        if live and report.bound_w > 0:
            self._drawing_at_s[rack] = now
        if report.ballot == self._ballot:
            self._hashes[rack] = report.site_hash

    def hear_join(
        self,
        join: Join,
        accounts: Mapping[str, Account],
        limits_w: Mapping[str, int],
        *,
        now: float,
    ) -> str:
        """A newcomer's word; why it has to wait or cannot come, "" for one of yesterday."""
        if join.ballot != self._ballot or join.roster != self._roster.name:
            return ""
        why = self._refusal(join, limits_w)
        if why:
            self._wishes.pop(join.rack.rack, None)
            return why
        if join.rack.rack not in self._wishes and len(self._wishes) >= WISHES_MAX:
            return "too many want to join at once"
        self._wishes[join.rack.rack] = _Wish(now, join)
        return self._waits_for(accounts, set()) or ACCEPTED

    def hear_leave(self, leave: Leave, *, now: float) -> None:
        """The operator's or the rack's own word (M3)."""
        member = rack_of(self._roster, leave.rack)
        if leave.ballot != self._ballot or member is None or member.leaving:
            return
        if leave.rack in self._wishes or len(self._wishes) < WISHES_MAX:
            self._wishes[leave.rack] = _Wish(now, leave)

    # ---- what follows ----------------------------------------------------------

    def may_be_granted(self, rack: RosterRack, accounts: Mapping[str, Account]) -> bool:
        """M2, M3: everybody knows a newcomer, and nobody grants to one that leaves."""
        if rack.leaving:
            return False
        report = accounts[rack.rack].report
        if rack.joined is None or (report is not None and report.joined == rack.joined):
            return True
        others = (account for name, account in accounts.items() if name != rack.rack)
        return all(account.report is not None for account in others)

    def next_roster(
        self,
        name: Ballot,
        accounts: Mapping[str, Account],
        limits_w: Mapping[str, int],
        *,
        now: float,
    ) -> Roster | None:
        """The roster that the ballot `name` should make; None where this one holds on."""
        self._forget_old_wishes(now)
        leavers = self._leavers(accounts, now)
        if self._waits_for(accounts, leavers):  # protocol M5
            return None
        if leavers:
            return with_leaving(self._roster, leavers, name)
        leaving = {rack.rack for rack in self._roster.racks if rack.leaving}
        back = {rack for rack in leaving if self._is_drawing(rack, now)}
        if back:  # it is not at 0, whatever was said
            return with_leaving(self._roster, back, name, leaving=False)
        gone = {rack for rack in leaving if self._is_at_0(rack, accounts, now)}
        if gone:  # everybody who stays has the mark
            return without(self._roster, gone, name)
        return self._of_the_file(name, accounts) or self._with_newcomers(name, limits_w)

    # ---- leaves ----------------------------------------------------------------

    def _leavers(self, accounts: Mapping[str, Account], now: float) -> set[str]:
        """Who leaves now. The last one that stays does not: nobody could lead any more."""
        leavers = {
            leave.rack
            for leave in (wish.message for wish in self._wishes.values())
            if isinstance(leave, Leave) and self._may_leave(leave, accounts, now)
        }
        stay = {(r.rank, r.rack): r.rack for r in self._roster.racks if not r.leaving}
        if leavers >= set(stay.values()) and stay:
            leavers.discard(stay[max(stay)])
        return leavers

    def _may_leave(self, leave: Leave, accounts: Mapping[str, Account], now: float) -> bool:
        """The word is newer than all that was heard, and nothing heard speaks against it.

        A rack that says goodbye takes no grant from then on; with the operator's word,
        one that is on its way to a living rack may still be taken.
        """
        account = accounts[leave.rack]
        if not self._is_up_to_date(leave) or not self._is_at_0(leave.rack, accounts, now):
            return False
        on_its_way = any(limit_w > 0 for _, limit_w in account.granted)
        return leave.by == leave.rack or not on_its_way or self._is_silent(account, now)

    def _is_at_0(self, rack: str, accounts: Mapping[str, Account], now: float) -> bool:
        """Nothing that was heard lately speaks against it."""
        account = accounts[rack]
        quiet = account.report is None or self._is_silent(account, now)
        at_0 = account.report is not None and account.report.bound_w == 0
        return (quiet or at_0) and not self._is_drawing(rack, now)

    def _is_drawing(self, rack: str, now: float) -> bool:
        said_at_s = self._drawing_at_s.get(rack)
        return said_at_s is not None and now - said_at_s <= self._beat_timeout_s

    def _is_silent(self, account: Account, now: float) -> bool:
        return account.is_silent(self._beat_timeout_s, now)

    def _is_up_to_date(self, leave: Leave) -> bool:
        """Nothing was heard of the rack that the speaker did not know of."""
        newest = self._newest.get(leave.rack)
        if newest is None:
            return True
        if leave.boot is None or leave.seq is None:
            return False
        return (leave.boot, leave.seq) >= newest

    def _of_the_file(self, name: Ballot, accounts: Mapping[str, Account]) -> Roster | None:
        """M4: all members that the new file has show its hash."""
        new = site_hash_of(self._file)
        if new == site_hash_of(self._roster):
            return None
        listed = {rack.rack for rack in self._file.racks}
        asked = [name_ for name_ in accounts if name_ in listed]
        if not asked or any(self._hashes.get(rack) != new for rack in asked):
            return None
        roster = of_new_file(self._roster, self._file, name)
        fault = fault_of(roster)
        self.file_fault = f"{fault}: remove who is not in it first" if fault else ""
        return None if fault else roster

    def _with_newcomers(self, name: Ballot, limits_w: Mapping[str, int]) -> Roster | None:
        larger = self._roster
        for wish in self._wishes.values():
            join = wish.message
            if isinstance(join, Join) and not self._refusal(join, limits_w, larger):
                larger = with_racks(larger, [join.rack], name)
        return None if larger is self._roster else larger

    def _refusal(
        self, join: Join, limits_w: Mapping[str, int], roster: Roster | None = None
    ) -> str:
        """A rack of the file may come back to a static site, too."""
        listed = rack_of(self._file, join.rack.rack) is not None
        return refusal(roster or self._roster, join, limits_w, is_open=self._is_open or listed)

    def _waits_for(self, accounts: Mapping[str, Account], leavers: set[str]) -> str:
        """M5, in words; "" where every member that stays has reported in this ballot."""
        stay = [r.rack for r in self._roster.racks if not (r.leaving or r.rack in leavers)]
        silent = [name for name in stay if accounts[name].report is None]
        if not silent:
            return ""
        more = f" and {len(silent) - SILENT_NAMED_MAX} more" * (len(silent) > SILENT_NAMED_MAX)
        return f"waits until {', '.join(silent[:SILENT_NAMED_MAX])}{more} can be heard"

    def _forget_old_wishes(self, now: float) -> None:
        fresh = {r: w for r, w in self._wishes.items() if now - w.heard_at_s <= self._wish_s}
        self._wishes = fresh
