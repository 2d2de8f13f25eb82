"""The script language of the transcripts: what each command does to the stage.

A command is a line. Racks, caps and topics go by their names, times are seconds, powers
watts; what stands in brackets may be left out.

    caps room=3000 row1=1500<room       before the racks; `<` names the parent
    fallback room 1500 5                its value when its sources were silent for 5 s (C2)
    rack r1 rank=10 floor=500 ceiling=2000 holds=500 [cap=row1 tier=2 weight=2 ttl=15
         settle=2 effect=1 outlets=700,450 base=300 stagger=0.5]
    newcomer r9 rank=90 …               the same for a rack that no site file lists (M2)
    open                                the site counts whoever fits
    start r1 r2 · crash r1 · clone r1   a clone is a second process, r1', with r1's journal
    run 5 · until 12.5                  seconds; the trace says what happened meanwhile
    unseen 8                            the same without a trace
    cut r1 [up|down] · mend r1          a cable; up is what r1 says, down what it hears
    server down [forgets] · server up
    drop|hold PATH [to r1]              messages on a topic, `+` for any name
    delay PATH SECONDS [to r1]
    pass PATH                           what was held arrives, in its order
    journal r1 accepts|refuses|waits|lost
    clock r1 unknown|known              whether anybody vouches for the wall clock
    device r1 mute|stuck|answers|resets
    device r1 acts SECONDS              so long after a write
    device r1 draws WATTS
    device r1 next-write lost|answer-lost|refused
    plug r1 out                         its hardware is at 0
    cap room 1800|withdrawn|silent by operator
    remove r1 by operator               repeated for ten seconds, or until it is done (M3)
    show hardware|counts                the sums; what the broker counts (B1)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from msgspec import structs
from script_rack import Hardware
from script_server import Rule
from script_stage import Disk, Stage, first_journal
from script_words import reserves_of

from broker.coordinator import MarketTerms
from broker.election import ElectionTiming
from broker.messages import Actuation, Ballot, Roster, RosterCap, RosterRack
from broker.node import Identity
from firmware_py.site_types import Actuator, DeviceSpec, Outlet, Rack

TIMING = ElectionTiming(tick_s=1.0, beat_timeout_s=2.0, answer_timeout_s=0.5, preempt_after_s=30.0)
SITE_HASH = "file"


class ScriptError(Exception):
    """A line that is no command of the language; the text says which."""


class Script:
    """One transcript's stage, and the commands that it has had so far."""

    def __init__(self) -> None:
        self.stage = Stage()
        self._roster_caps: list[RosterCap] = []
        self._racks: list[tuple[Rack, int]] = []  # with what their hardware holds
        self._unlisted: set[str] = set()  # in no site file
        self._is_open = False
        self._is_set = False  # racks and caps are on the stage
        self._commands: dict[str, Callable[..., None]] = {
            "caps": self._add_caps,
            "fallback": self._fall_back,
            "rack": self._add_rack,
            "newcomer": lambda name, *words: self._add_rack(name, *words, listed=False),
            "open": self._open,
            "start": self._start,
            "crash": self._crash,
            "clone": self._clone,
            "run": lambda seconds: self._until(self.stage.clock.now + float(seconds)),
            "until": lambda time_s: self._until(float(time_s)),
            "unseen": self._unseen,
            "cut": self._cut,
            "mend": self._mend,
            "server": self._server,
            "drop": lambda path, *to: self._rule(path, "drop", *to),
            "hold": lambda path, *to: self._rule(path, "hold", *to),
            "delay": lambda path, delay_s, *to: self._rule(path, "delay", *to, delay_s=delay_s),
            "pass": lambda path: self.stage.server.release(path),
            "journal": self._journal,
            "clock": self._clock,
            "device": self._device,
            "cap": self._cap,
            "plug": self._plug,
            "remove": self._remove,
            "show": self._show,
        }

    def carry_out(self, line: str) -> list[str]:
        """One command; the lines that the trace grew by."""
        verb, *words = line.split()
        if verb not in self._commands:
            raise ScriptError(f"no such command: {line}")
        before = len(self.stage.lines)
        self._commands[verb](*words)
        return self.stage.lines[before:]

    # ---- the site --------------------------------------------------------------

    def _add_caps(self, *words: str) -> None:
        for word in words:
            name, value = word.split("=")
            limit_w, _, parent = value.partition("<")
            cap = RosterCap(cap=name, limit_w=int(limit_w), parent=parent or None)
            self._roster_caps.append(cap)

    def _fall_back(self, name: str, fallback_w: str, set_ttl_s: str) -> None:
        self._roster_caps = [
            structs.replace(cap, fallback_w=int(fallback_w), set_ttl_s=float(set_ttl_s))
            if cap.cap == name
            else cap
            for cap in self._roster_caps
        ]

    def _open(self) -> None:
        self._is_open = True

    def _add_rack(self, name: str, *words: str, listed: bool = True) -> None:
        if not listed:
            self._unlisted.add(name)
        given = dict(word.split("=", 1) for word in words)
        holds_w = int(given.pop("holds"))
        self._racks.append((_rack_of(name, given, self._roster_caps[0].cap), holds_w))

    def _set_stage(self) -> None:
        roster = Roster(
            name=Ballot(0, SITE_HASH),
            racks=tuple(
                _member(rack) for rack, _ in self._racks if rack.name not in self._unlisted
            ),
            caps=tuple(self._roster_caps),
        )
        for cap in self._roster_caps:
            below = [rack.name for rack, _ in self._racks if cap.cap in self._path(rack)]
            self.stage.add_cap(cap.cap, cap.limit_w, below)
        for rack, holds_w in self._racks:
            hardware = Hardware(rack, holds_w, self.stage.clock)
            me = _identity(rack, roster)
            joins = _member(rack) if rack.name in self._unlisted else None
            me = replace(me, joins=joins, is_open=self._is_open)
            self.stage.add_rack(me, hardware, first_journal(roster.name))

    def _path(self, rack: Rack) -> list[str]:
        parents = {cap.cap: cap.parent for cap in self._roster_caps}
        path = [rack.cap]
        while (parent := parents[path[-1]]) is not None:
            path.append(parent)
        return path

    # ---- processes and time ----------------------------------------------------

    def _start(self, *names: str) -> None:
        self._set_once()
        for name in names:
            self.stage.start(name)

    def _set_once(self) -> None:
        if not self._is_set:
            self._is_set = True
            self._set_stage()

    def _crash(self, *names: str) -> None:
        for name in names:
            self.stage.say(name, "crashes")
            self.stage.crash(name)

    def _clone(self, name: str) -> None:
        self.stage.disks[f"{name}'"] = Disk(self.stage.disks[name].record)
        self.stage.start(f"{name}'")

    def _until(self, time_s: float) -> None:
        self.stage.clock.run_until(round(time_s, 6))

    def _unseen(self, seconds: str) -> None:
        shown = len(self.stage.lines)
        self._until(self.stage.clock.now + float(seconds))
        del self.stage.lines[shown:]

    # ---- what goes wrong -------------------------------------------------------

    def _cut(self, name: str, *directions: str) -> None:
        self.stage.say(name, f"cut off: {' and '.join(directions or ('up', 'down'))}")
        self.stage.server.cut(name, frozenset(directions or ("up", "down")))

    def _mend(self, name: str) -> None:
        self.stage.say(name, "the cable is mended")
        self.stage.server.mend(name)

    def _server(self, state: str, *forgets: str) -> None:
        if state == "up":
            self.stage.say("server", "is back")
            self.stage.server.come_back()
        else:
            self.stage.say("server", "goes down" + (" and forgets" if forgets else ""))
            self.stage.server.go_down(forget=bool(forgets))

    def _rule(self, path: str, fate: str, *to: str, delay_s: str = "0") -> None:
        rule = Rule(path, to[1] if to else "", fate, float(delay_s))
        self.stage.server.rules.append(rule)

    def _journal(self, name: str, mode: str) -> None:
        self._set_once()
        disk = self.stage.disks[name]
        if mode == "lost":
            disk.record = None
            return
        if mode not in ("accepts", "refuses", "waits"):
            raise ValueError(mode)
        disk.mode = mode
        waiting, disk.waiting = disk.waiting, None
        for write in waiting or []:
            write()

    def _clock(self, name: str, state: str) -> None:
        self._set_once()
        self.stage.wall_clocks[name] = {"known": True, "unknown": False}[state]

    def _device(self, name: str, does: str, *what: str) -> None:
        self._set_once()
        hardware = self.stage.hardware[name]
        match [does, *what]:
            case ["mute" | "stuck" | "answers"]:
                hardware.mute, hardware.stuck = does == "mute", does == "stuck"
            case ["resets"]:
                self.stage.say(name, "its device forgets its setting")
                hardware.reset()
            case ["acts", delay_s]:
                hardware.acts_after_s = float(delay_s)
            case ["draws", load_w]:
                hardware.load_w = int(load_w)
            case ["next-write", ("lost" | "answer-lost" | "refused") as fate]:
                hardware.next_write = fate
            case _:
                raise ValueError(what)

    def _cap(self, cap: str, value: str, _by: str, source: str) -> None:
        self._set_once()
        if value == "silent":
            self.stage.silence(cap, source)
        else:
            self.stage.source(cap, source, None if value == "withdrawn" else int(value))

    def _plug(self, name: str, _out: str) -> None:
        self.stage.hardware[name].unplug()

    def _remove(self, name: str, _by: str, operator: str) -> None:
        self.stage.say(operator, f"says that {name} is gone")
        self.stage.remove(name, operator, self.stage.clock.now + 10.0)

    def _show(self, what: str) -> None:
        if what == "hardware":
            racks = self.stage.hardware.items()
            each = " ".join(f"{name} {hardware.lets_through_w}" for name, hardware in racks)
            self.stage.say("hardware", f"{each} W ({self.stage.sums()})")
        elif what == "counts":
            for cap, state in sorted(self.stage.cap_states.items()):
                self.stage.say(state.ballot.rack, reserves_of(cap, state))
        else:
            raise ValueError(what)


# ---- from words to values --------------------------------------------------------


def _rack_of(name: str, given: dict[str, str], root: str) -> Rack:
    effect_s = float(given.pop("effect", "1"))
    peaks_w = [int(peak_w) for peak_w in given.pop("outlets", "").split(",") if peak_w]
    outlets = tuple(
        Outlet(number=n, priority=len(peaks_w) - n, peak_w=peak_w, min_off_s=0.0)
        for n, peak_w in enumerate(peaks_w, start=1)
    )
    actuator = Actuator(
        kind="outlets" if outlets else "power-limit",
        device="pdu",
        settle_s=float(given.pop("settle", str(effect_s + 1))),
        effect_delay_s=effect_s,
        ttl_s=float(given.pop("ttl", "15")),
        keeps=True,
        base_w=int(given.pop("base", "0")),
        outlets=outlets,
        stagger_s=float(given.pop("stagger", "0.5")),
    )
    device = DeviceSpec(
        name="pdu",
        url="",
        profile=None,
        measures=("input.realpower",),
        poll_s=0.5,
        stale_after_s=3.0,
        community_file=None,
    )
    rack = Rack(
        name=name,
        rank=int(given.pop("rank")),
        cap=given.pop("cap", root),
        floor_w=int(given.pop("floor")),
        ceiling_w=int(given.pop("ceiling")),
        weight=float(given.pop("weight", "1")),
        tier=int(given.pop("tier", "1")),
        devices=(device,),
        actuator=actuator,
    )
    if given:
        raise ValueError(f"unknown: {' '.join(given)}")
    return rack


def _member(rack: Rack) -> RosterRack:
    return RosterRack(
        rack=rack.name,
        rank=rack.rank,
        floor_w=rack.floor_w,
        ceiling_w=rack.ceiling_w,
        cap=rack.cap,
        weight=rack.weight,
        tier=rack.tier,
    )


def _identity(rack: Rack, roster: Roster) -> Identity:
    return Identity(
        rack=rack.name,
        instance="",
        site_hash=SITE_HASH,
        roster=roster,
        actuator=Actuation(rack.actuator.kind),
        ttl_s=rack.actuator.ttl_s,
        settle_s=rack.actuator.settle_s,
        timing=TIMING,
        terms=MarketTerms(guard=0.0),
    )
