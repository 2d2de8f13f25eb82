"""An MQTT server and the net around it: retained messages, wills, sessions, and everything
that can happen to a message between two machines.

Messages pass as the product's own values; topics likewise. A message that has left its
sender may arrive any time later, whatever has become of the sender since. Two processes of
one name are two clients at one cable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from sim_timeline import Timeline
from sim_weather import Weather

from broker.messages import Message, Presence
from broker.topics import Kind, Topic

KEEPALIVE_S = 6.0  # silence after which either side takes the connection for dead
SNAPSHOT_EVERY_S = 20.0  # how often the server saves what it keeps
_BASE = {Kind.BEAT, Kind.ELECTION, Kind.ROSTER, Kind.ONLINE, Kind.CAP_SET}
_OWN = {Kind.GRANT, Kind.REPORT, Kind.JOIN_ANSWER}
_DESK = {Kind.JOIN, Kind.LEAVE}  # heard with the reports
_HEARD = _BASE | _OWN | _DESK  # the rest is for monitors: nobody here listens


class Client(Protocol):
    name: str  # the rack's: what it is told, and whose cable it hangs on
    client_id: str

    def deliver(self, session: int, topic: Topic, message: Message, retained: bool) -> None: ...

    def connected(self, session: int) -> None: ...

    def disconnected(self, session: int) -> None: ...


@dataclass(slots=True)
class Cut:
    """A rack's own cable: what it sends, what it hears."""

    up: bool = False
    down: bool = False
    held: list[Callable[[], None]] | None = None  # a list: delivered when the cut ends
    since_s: float = 0.0


@dataclass(slots=True)
class Session:
    number: int
    client: Client
    reports: bool = False
    asked: int = 0  # subscriptions of one connection arrive in their order


@dataclass(slots=True)
class Server:
    timeline: Timeline
    weather: Weather
    rng: Random
    up: bool = True
    retained: dict[Topic, Message] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)  # by client id
    cuts: dict[str, Cut] = field(default_factory=dict)  # by rack
    counts: Counter[str] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)  # in this second
    busiest: int = 0  # messages of one client in one second
    _numbers: int = 0
    _second: int = 0
    _saved: dict[Topic, Message] = field(default_factory=dict)

    # ---- what clients do -------------------------------------------------------

    def connect(self, client: Client) -> bool:
        """A session with the base subscriptions; False where nobody answers."""
        cut = self.cuts[client.name]
        if not self.up or cut.up or cut.down:
            return False
        self._end(client.client_id, will=True)
        self._numbers += 1
        session = Session(self._numbers, client)
        self.sessions[client.client_id] = session
        client.connected(session.number)
        self._replay(session, lambda topic: self._is_base(session, topic))
        self._arrive(Topic(Kind.ONLINE, client.name), Presence.ONLINE, True)
        return True

    def listen(self, client: Client, number: int, *, on: bool) -> None:
        self._numbers += 1
        asked = self._numbers

        def heard() -> None:
            session = self.sessions.get(client.client_id)
            if session is None or session.number != number or asked < session.asked:
                return
            session.reports, session.asked = on, asked
            if on:
                self._replay(session, lambda topic: topic.kind is Kind.REPORT)

        self._surely_up(client, number, heard)

    def publish(self, name: str, topic: Topic, message: Message, retain: bool) -> None:
        second = int(self.timeline.now)
        if second != self._second:
            self._second = second
            self.published.clear()
        self.published[name] += 1
        self.busiest = max(self.busiest, self.published[name])
        if topic.kind in _HEARD:
            self._send_up(name, lambda: self._arrive(topic, message, retain))

    def drop(self, client: Client, *, will: bool) -> None:
        """The client closed its connection, or died: sooner or later the server knows."""
        session = self.sessions.get(client.client_id)
        if session is None:
            return
        number = session.number

        def noticed() -> None:
            now = self.sessions.get(client.client_id)
            if now is not None and now.number == number:
                self._end(client.client_id, will=will)

        if not self.cuts[client.name].up:
            self.timeline.after(self.rng.uniform(0.001, 1.0), noticed)

    def say(self, topic: Topic, message: Message) -> None:
        """A message of nobody's, to everybody."""
        self._arrive(topic, message, False)

    # ---- what happens to it ----------------------------------------------------

    def save(self) -> None:
        """What it would come back with if it lost its power now."""
        self._saved = dict(self.retained)
        self.timeline.after(SNAPSHOT_EVERY_S, self.save)

    def restart(self, away_s: float, memory: str) -> None:
        """Gone, and back with nothing (`none`), everything (`all`) or what it saved (`old`)."""
        self.up = False
        if memory != "all":
            self.retained.clear()
        if memory == "old":
            self.retained.update(self._saved)
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            self.timeline.after(
                self.rng.uniform(0.0, 0.2),
                lambda s=session: s.client.disconnected(s.number),
            )
        self.timeline.after(away_s, self._come_back)

    def _come_back(self) -> None:
        self.up = True

    def cut(self, name: str, *, up: bool, down: bool, held: bool, for_s: float) -> None:
        cut = self.cuts[name] = Cut(up, down, [] if held else None, self.timeline.now)
        self.timeline.after(for_s, lambda: self._mend(name, cut))
        if for_s > KEEPALIVE_S:
            self.timeline.after(KEEPALIVE_S, lambda: self._give_up(name, cut))

    def _mend(self, name: str, cut: Cut) -> None:
        if self.cuts[name] is cut:
            self.cuts[name] = Cut()
        for deliver in cut.held or []:
            self.timeline.after(self.rng.uniform(0.0, 0.3), deliver)

    def _give_up(self, name: str, cut: Cut) -> None:
        if self.cuts[name] is not cut:
            return
        for client_id, session in list(self.sessions.items()):
            if session.client.name != name:
                continue
            if cut.up:
                self._end(client_id, will=True)
            session.client.disconnected(session.number)

    # ---- leaves ----------------------------------------------------------------

    def _end(self, client_id: str, *, will: bool) -> None:
        session = self.sessions.pop(client_id, None)
        if session is not None and will:
            self._arrive(Topic(Kind.ONLINE, session.client.name), Presence.OFFLINE, True)

    def _arrive(self, topic: Topic, message: Message, retain: bool) -> None:
        if not self.up:
            return
        if retain:
            self.retained[topic] = message
        own_kind, to_all = topic.kind in _OWN, topic.kind in _BASE
        reports = topic.kind is Kind.REPORT or topic.kind in _DESK
        for session in list(self.sessions.values()):
            mine = own_kind and topic.name == session.client.name
            if to_all or mine or (reports and session.reports):
                self._send_down(session, topic, message, retained=False)

    def _is_base(self, session: Session, topic: Topic) -> bool:
        mine = topic.kind in _OWN and topic.name == session.client.name
        return mine or topic.kind in _BASE

    def _replay(self, session: Session, wanted: Callable[[Topic], bool]) -> None:
        for topic, message in list(self.retained.items()):
            if wanted(topic):
                self._send_down(session, topic, message, retained=True)

    def _send_down(
        self, session: Session, topic: Topic, message: Message, *, retained: bool
    ) -> None:
        cut = self.cuts[session.client.name]
        self._travel(
            cut.down,
            cut,
            lambda: session.client.deliver(session.number, topic, message, retained),
        )

    def _send_up(self, name: str, happening: Callable[[], None]) -> None:
        cut = self.cuts[name]
        self._travel(cut.up, cut, happening)

    def _surely_up(self, client: Client, number: int, happening: Callable[[], None]) -> None:
        """Subscriptions are acknowledged: as long as the connection lives they get there."""

        def attempt() -> None:
            session = self.sessions.get(client.client_id)
            if not self.cuts[client.name].up:
                happening()
            elif session is not None and session.number == number:
                self.timeline.after(0.5, attempt)

        self.timeline.after(self.rng.uniform(0.0005, 0.01), attempt)

    def _travel(self, is_cut: bool, cut: Cut, happening: Callable[[], None]) -> None:
        if is_cut:
            if cut.held is not None:
                cut.held.append(happening)
            return
        random, weather, after = self.rng.random, self.weather, self.timeline.after
        twice = random() < weather.message_twice
        if twice:
            self.counts["message twice"] += 1
        for _ in range(2 if twice else 1):
            if random() < weather.message_lost:
                self.counts["message lost"] += 1
            elif random() < weather.message_late:
                self.counts["message late"] += 1
                after(random() * weather.late_s_max, self._unless_calm(happening))
            else:
                after(0.0005 + 0.0095 * random(), happening)

    def _unless_calm(self, happening: Callable[[], None]) -> Callable[[], None]:
        """What is late beyond the end of the faults would be one more fault."""

        def arrive() -> None:
            if self.weather.message_late > 0:
                happening()

        return arrive
