"""The MQTT server of a transcript, and the cables to it.

Every message takes 10 ms up and 10 ms down, in order, unless the script says otherwise
for its topic: dropped, delayed, or held until it is released. Cables are cut in one
direction or in both; a connection is given up after six seconds of silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from script_clock import ScriptClock

from broker.messages import Message, Presence
from broker.topics import ROOT, Kind, Topic

HOP_S = 0.01
KEEPALIVE_S = 6.0
SITE = "lab"
_COMMON = {
    *(Kind.BEAT, Kind.ELECTION, Kind.ROSTER, Kind.ONLINE),
    *(Kind.CAP_SET, Kind.CAP_MEASURED),
}
_OWN = {Kind.GRANT, Kind.REPORT, Kind.JOIN_ANSWER}
_DESK = {Kind.REPORT, Kind.JOIN, Kind.LEAVE}  # what the broker and a candidate hear beside it


class Client(Protocol):
    """A process: `name` tells two of one rack apart, `rack` is whose topics are its own."""

    name: str
    rack_name: str

    def connected(self, session: int) -> None: ...

    def disconnected(self, session: int) -> None: ...

    def deliver(self, session: int, topic: Topic, message: Message, retained: bool) -> None: ...


@dataclass(slots=True)
class Rule:
    """What becomes of messages on `path` (+: any name), to one process or to all."""

    path: str
    to: str
    fate: str  # drop, hold or delay
    delay_s: float = 0.0
    held: list[Callable[[], None]] = field(default_factory=list)

    def fits(self, path: str, name: str) -> bool:
        levels, pattern = path.split("/"), self.path.split("/")
        same = [p in ("+", level) for p, level in zip(pattern, levels, strict=False)]
        return self.to in ("", name) and len(levels) == len(pattern) and all(same)


@dataclass(slots=True)
class _Session:
    number: int
    client: Client
    reports: bool = False


class ScriptServer:
    def __init__(self, clock: ScriptClock) -> None:
        self._clock = clock
        self._numbers = 0
        self._sessions: dict[str, _Session] = {}
        self._retained: dict[Topic, Message] = {}
        self._cut: dict[str, frozenset[str]] = {}  # process → "up", "down"
        self.rules: list[Rule] = []
        self.up = True

    # ---- what clients do -------------------------------------------------------

    def connect(self, client: Client) -> bool:
        if not self.up or self._cut.get(client.name):
            return False
        self._numbers += 1
        session = self._sessions[client.name] = _Session(self._numbers, client)
        client.connected(session.number)
        self._replay(session, lambda topic: self._listens(session, topic))
        self._arrive(Topic(Kind.ONLINE, client.rack_name), Presence.ONLINE, True)
        return True

    def listen(self, name: str, *, on: bool) -> None:
        session = self._sessions.get(name)
        if session is None:
            return

        def heard() -> None:
            session.reports = on
            if on:
                self._replay(session, lambda topic: topic.kind is Kind.REPORT)

        self._travel(name, "up", heard)

    def publish(self, name: str, topic: Topic, message: Message, retain: bool) -> None:
        self._travel(name, "up", lambda: self._arrive(topic, message, retain))

    def drop(self, name: str) -> None:
        """The process died or closed its connection: the server publishes its will."""
        session = self._sessions.get(name)
        if session is not None and "up" not in self._cut.get(name, ()):
            self._clock.after(HOP_S, lambda: self._end(session))

    def kept(self, topic: Topic) -> Message | None:
        """What the server has retained there."""
        return self._retained.get(topic)

    # ---- what the script does --------------------------------------------------

    def cut(self, name: str, directions: frozenset[str]) -> None:
        self._cut[name] = directions
        session = self._sessions.get(name)
        if session is not None:
            self._clock.after(KEEPALIVE_S, lambda: self._give_up(session, directions))

    def mend(self, name: str) -> None:
        self._cut.pop(name, None)

    def go_down(self, *, forget: bool) -> None:
        self.up = False
        if forget:
            self._retained.clear()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            self._clock.after(HOP_S, partial(session.client.disconnected, session.number))

    def come_back(self) -> None:
        self.up = True

    def release(self, path: str) -> None:
        """What was held arrives now, in its order; what follows passes."""
        for rule in [rule for rule in self.rules if rule.path == path]:
            self.rules.remove(rule)
            for happening in rule.held:
                self._clock.after(0.0, happening)

    # ---- leaves ----------------------------------------------------------------

    def _give_up(self, session: _Session, directions: frozenset[str]) -> None:
        name = session.client.name
        if self._cut.get(name) != directions or self._sessions.get(name) is not session:
            return
        if "up" in directions:
            self._end(session)
        session.client.disconnected(session.number)

    def _end(self, session: _Session) -> None:
        if self._sessions.get(session.client.name) is session:
            del self._sessions[session.client.name]
            will = Topic(Kind.ONLINE, session.client.rack_name)
            self._arrive(will, Presence.OFFLINE, True)

    def _arrive(self, topic: Topic, message: Message, retain: bool) -> None:
        if not self.up:
            return
        if retain:
            self._retained[topic] = message
        for session in list(self._sessions.values()):
            if self._listens(session, topic):
                self._deliver(session, topic, message, retained=False)

    def _listens(self, session: _Session, topic: Topic) -> bool:
        mine = topic.kind in _OWN and topic.name == session.client.rack_name
        return mine or topic.kind in _COMMON or (session.reports and topic.kind in _DESK)

    def _replay(self, session: _Session, wanted: Callable[[Topic], bool]) -> None:
        for topic, message in list(self._retained.items()):
            if wanted(topic):
                self._deliver(session, topic, message, retained=True)

    def _deliver(
        self, session: _Session, topic: Topic, message: Message, *, retained: bool
    ) -> None:
        client = session.client

        def arrive() -> None:
            client.deliver(session.number, topic, message, retained)

        path = topic.path(SITE).removeprefix(f"{ROOT}/{SITE}/")
        rule = next((rule for rule in self.rules if rule.fits(path, client.name)), None)
        match rule.fate if rule else "":
            case "":
                self._travel(client.name, "down", arrive)
            case "hold":
                assert rule is not None
                rule.held.append(arrive)
            case "delay":
                assert rule is not None
                self._clock.after(rule.delay_s, arrive)

    def _travel(self, name: str, direction: str, happening: Callable[[], None]) -> None:
        if direction not in self._cut.get(name, ()):
            self._clock.after(HOP_S, happening)
