"""Whether this rack is counted, by which roster, and what it says of that (M1 to M3).

The rack's side of `broker/roster`. It goes by one roster, the one on its disk, and
remembers the newest other one that it has heard. A follower takes a roster only when a
beat of the highest ballot names it; a broker takes any newer one before anything else,
and so does who is about to become one. Whoever holds a newer roster than the beat
names says it again.

A rack that is not in its roster leads nobody, reports nothing and takes no grant; it
asks to be counted, once its hardware has been read. One that was put out while it ran
does not ask before its controller is started again: somebody wanted it gone. If its
hardware is not at 0 it goes on reporting, so that somebody sees it. One that was put
out while it was off learns that at its start, and asks at once.
"""

from __future__ import annotations

from msgspec.structs import replace

from broker.effects import Effect, JournalRecord, Level, Publish, event
from broker.messages import Ballot, Join, JoinAnswer, Leave, Roster, RosterCap, RosterRack
from broker.roster import fault_of, is_newer, published, rack_of, site_hash_of
from broker.topics import Kind, Topic


class Belonging:
    """One rack's place in the roster."""

    def __init__(
        self,
        rack: str,
        file: Roster,
        loaded: JournalRecord | None,
        *,
        mine: RosterRack,
        joins: bool,
    ) -> None:
        """`mine`: this rack as its site file has it. `joins`: no site file lists it."""
        self._rack = rack
        self._mine = mine
        self._joins = joins
        self._admitted = loaded.joined if loaded is not None else None
        self.roster = _first(file, loaded)
        # Who has lost its journal has forgotten who is counted, too (R11).
        self._is_known = loaded is not None
        self._heard: Roster | None = None
        self._named: Ballot | None = None
        self._was_member = False  # in this boot
        self._confirmed: Ballot | None = None  # the roster that another one goes by, too
        self._was_confirmed = False  # in this boot
        self._was_put_out = False
        self._answer = ""  # what the broker said to our wish to be counted
        self._told_at_s = float("-inf")
        self._foreign: Ballot | None = None  # a broker's roster of another site file
        self.says_goodbye = False

    # ---- what it is ------------------------------------------------------------

    @property
    def entry(self) -> RosterRack | None:
        """This rack in its roster; None where it is not counted."""
        entry = rack_of(self.roster, self._rack)
        return None if entry is None or self._is_another(entry) else entry

    @property
    def is_member(self) -> bool:
        return self.entry is not None

    @property
    def is_confirmed(self) -> bool:
        """Another one has shown since our start that it counts this rack as we do."""
        alone = len(self.roster.racks) == 1
        return self.is_member and (alone or self._confirmed == self.roster.name)

    @property
    def name_is_taken(self) -> bool:
        return not self.is_member and rack_of(self.roster, self._rack) is not None

    @property
    def takes_grants(self) -> bool:
        entry = self.entry
        return entry is not None and not entry.leaving and not self.says_goodbye

    @property
    def may_lead(self) -> bool:
        """It is counted by its own roster and by the newest that it has heard of."""
        newest = rack_of(self.newest(), self._rack)
        stays = newest is not None and not newest.leaving
        return self._is_known and self.takes_grants and stays

    def reports(self, bound_w: int) -> bool:
        """A member does, and one that was put out while it draws."""
        if self.is_member:
            return not self.says_goodbye
        return self._was_member and bound_w > 0

    @property
    def may_ask(self) -> bool:
        """It knows who is counted, is not, and was not put out under its feet."""
        out = not self.is_member and not self.name_is_taken and not self._was_put_out
        return out and self._named is not None  # who names an old roster is told the new one

    # ---- what is heard ---------------------------------------------------------

    def hear(self, roster: Roster) -> str:
        """A roster was said; what is wrong with it, "" where nothing is."""
        fault = fault_of(roster)
        if not fault and roster.name != self.roster.name:
            older = self._heard is not None and is_newer(self._heard.name, roster.name)
            if not older or roster.name == self._named:
                self._heard = roster
        return fault

    def follow(self, name: Ballot) -> Roster | None:
        """A beat of the highest ballot names its roster; the one to take for it, if any."""
        self._named = name
        self._is_known = self._is_known or name == self.roster.name
        return self.to_follow(name)

    def confirm(self, name: Ballot) -> None:
        """Another rack was heard now that goes by the roster of that name."""
        self._confirmed = name
        self._was_confirmed = self._was_confirmed or self.is_confirmed

    def to_follow(self, name: Ballot) -> Roster | None:
        """The roster of that name, where it has been heard and replaces ours."""
        heard = self._heard
        return heard if heard is not None and heard.name == name and self._yields_to(name) else None

    def to_take(self) -> Roster | None:
        """The roster that was heard and that the beat names."""
        return None if self._named is None else self.to_follow(self._named)

    def newest(self) -> Roster:
        """The newest roster known: what a broker goes by."""
        heard = self._heard
        if heard is not None and is_newer(heard.name, self.roster.name):
            return heard
        return self.roster

    def compare(
        self, name: Ballot, ballot: Ballot, every_s: float, *, now: float
    ) -> list[Effect]:  # protocol M1
        """The broker goes by the roster `name`: say ours if it is newer, or that they differ."""
        ours = self.roster.name
        if self._is_known and is_newer(ours, name):
            if now - self._told_at_s < every_s:
                return []
            self._told_at_s = now
            return [Publish(Topic(Kind.ROSTER), published(self.roster, ballot), retain=True)]
        foreign = name if name != ours and name.term == ours.term == 0 else None
        if foreign == self._foreign:
            return []
        self._foreign = foreign
        if foreign is None:
            return [event(Level.INFO, "the broker's site file is ours again")]
        return [event(Level.ERROR, "the broker's site file is another", roster=str(foreign))]

    def hear_answer(self, answer: JoinAnswer, instance: str) -> list[Effect]:  # protocol M2
        """What the broker says to our wish to be counted."""
        if answer.instance != instance or answer.why == self._answer:
            return []
        self._answer = answer.why
        return [event(Level.WARNING, "asked to be counted", rack=self._rack, answer=answer.why)]

    def use(self, roster: Roster) -> list[Effect]:
        """The roster is on disk."""
        was_member = self.is_member
        self._was_member = self._was_member or was_member
        self.roster = roster
        self._is_known = self._is_known or self._named == roster.name
        if self.is_member:
            self._was_confirmed = self._was_confirmed or self.is_confirmed
            return [] if was_member else [self._says("this rack is counted now")]
        self._was_put_out = self._was_confirmed
        self.says_goodbye = False
        if self.name_is_taken:
            return [self._says("another rack is counted under this name")]
        return [self._says("this rack is counted no more" if was_member else "not counted yet")]

    # ---- what it says ----------------------------------------------------------

    def ask(self, instance: str, ballot: Ballot, *, boot: int, bound_w: int) -> Publish:
        """The wish to be counted (M2)."""
        join = Join(
            rack=self._mine,
            instance=instance,
            boot=boot,
            ballot=ballot,
            roster=self.roster.name,
            bound_w=bound_w,
        )
        return Publish(Topic(Kind.JOIN), join)

    def goodbye(self, ballot: Ballot, *, boot: int, seq: int) -> Publish:
        """The word to be counted no more, with the hardware at 0 (M3)."""
        rack = self._rack
        leave = Leave(rack=rack, by=rack, ballot=ballot, boot=boot, seq=seq)
        return Publish(Topic(Kind.LEAVE), leave)

    # ---- leaves ----------------------------------------------------------------

    def _yields_to(self, name: Ballot) -> bool:
        """A newer one; any at all where ours is only that of a file that does not count us."""
        not_ours = self.roster.name.term == 0 and not (self._is_known and self.is_member)
        return is_newer(name, self.roster.name) or (not_ours and name != self.roster.name)

    def _is_another(self, entry: RosterRack) -> bool:
        """True where the entry is that of another rack with the name of this newcomer."""
        admitted = entry.joined is not None and entry.joined == self._admitted
        return self._joins and not admitted and _place(entry) != _place(self._mine)

    def _says(self, what: str) -> Effect:
        return event(Level.WARNING, what, rack=self._rack, roster=str(self.roster.name))


def _place(rack: RosterRack) -> tuple[int, int, int, str]:
    return (rack.rank, rack.floor_w, rack.ceiling_w, rack.cap)


def _first(file: Roster, loaded: JournalRecord | None) -> Roster:
    """The roster on disk, or the site file's where there is none yet (M1, M4).

    What is not agreed upon by hash (weights, tiers, fallbacks) is the file's.
    """
    if loaded is None or loaded.members is None or fault_of(loaded.members):
        return file
    kept = loaded.members
    if site_hash_of(kept) != site_hash_of(file):
        return kept
    if kept.name.term == 0:
        return file
    racks = {rack.rack: rack for rack in file.racks}
    caps = {cap.cap: cap for cap in file.caps}
    return replace(
        kept,
        racks=tuple(_with_wishes(rack, racks.get(rack.rack)) for rack in kept.racks),
        caps=tuple(_with_fallback(cap, caps.get(cap.cap)) for cap in kept.caps),
    )


def _with_wishes(rack: RosterRack, listed: RosterRack | None) -> RosterRack:
    return rack if listed is None else replace(rack, weight=listed.weight, tier=listed.tier)


def _with_fallback(cap: RosterCap, listed: RosterCap | None) -> RosterCap:
    if listed is None:
        return cap
    return replace(listed, cap=cap.cap, limit_w=cap.limit_w, parent=cap.parent)
