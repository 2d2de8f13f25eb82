"""Who is counted, and that somebody is no more: the operator's side (protocol M1, M3).

A rack is taken out by a word that is repeated each tick until the roster lacks it. The
word names the broker's ballot and the newest report of the rack that this machine has
heard, so that one which arrives late takes nobody out who has come back meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker import topics, wire
from broker.errors import WireError
from broker.messages import Beat, Leave, Message, Report, Roster
from broker.mqtt_values import Disconnected, Event, Received
from broker.topics import Kind, Topic
from firmware_py import clock
from firmware_py.operations import RETAINED_S, connect, linked, next_event
from firmware_py.site_types import Site

REMOVE_S_MAX = 20.0  # two ballots, with a site that waits for one of its racks
LIVE_TICKS = 3.0  # a report is one of now for so long


@dataclass(slots=True)
class Heard:
    """What the MQTT server keeps, and what was said since."""

    beat: Beat | None = None
    roster: Roster | None = None
    reports: dict[str, Report] = field(default_factory=dict)
    spoke_at_s: dict[str, float] = field(default_factory=dict)  # live reports

    @property
    def counted(self) -> Roster | None:
        """The roster that the broker's beat names."""
        if self.roster is None or self.beat is None or self.roster.name != self.beat.roster:
            return None
        return self.roster

    def take(self, topic: Topic, message: Message, *, live: bool, now: float) -> None:
        match message:
            case Beat() if self.beat is None or message.ballot >= self.beat.ballot:
                self.beat = message
            case Roster() if self._replaces(message):
                self.roster = message
            case Report():
                self.reports[topic.name] = message
                if live:
                    self.spoke_at_s[topic.name] = now

    def _replaces(self, roster: Roster) -> bool:
        named = self.beat is not None and roster.name == self.beat.roster
        return named or self.roster is None or roster.name > self.roster.name


@dataclass(frozen=True, slots=True)
class RemoveOutcome:
    """`removed`: the roster lacks the rack. Else why not, and whether the operator must act."""

    removed: bool
    reason: str = ""
    refused: bool = False


def who_is_counted(site: Site) -> Heard:
    """The roster, the broker's beat and the racks' last reports."""
    heard = Heard()
    deadline_s = clock.now_s() + RETAINED_S + 2 * site.timing.tick_s
    with linked(site, *_paths(site)) as (_, events):
        connect(events)
        while (left_s := deadline_s - clock.now_s()) > 0:
            _note(heard, next_event(events, left_s), site)
    return heard


def remove_rack(site: Site, rack: str) -> RemoveOutcome:
    """Say that the rack's hardware is at 0 until it is counted no more, or 20 s are over."""
    heard = Heard()
    leave_path = Topic(Kind.LEAVE).path(site.site)
    start_s = clock.now_s()
    speak_at_s = start_s + RETAINED_S  # what is retained comes before that
    reason = f"no broker has answered; is a controller of {site.site} running?"
    with linked(site, *_paths(site)) as (link, events):
        connect(events)
        while (now := clock.now_s()) < start_s + REMOVE_S_MAX:
            roster = heard.counted
            if now >= speak_at_s and roster is not None and heard.beat is not None:
                if rack not in {member.rack for member in roster.racks}:
                    return RemoveOutcome(True)
                alive = _is_alive(heard, rack, site, now)
                if alive and heard.reports[rack].bound_w > 0:
                    may_w = heard.reports[rack].bound_w
                    return RemoveOutcome(
                        False,
                        f"its controller runs and says that it may draw {may_w} W; switch it"
                        " off first",
                        refused=True,
                    )
                link.publish(leave_path, wire.encode(_word(rack, heard)))
                speak_at_s = now + site.timing.tick_s
                silent = ", ".join(name for name in heard.beat.silent if name != rack)
                reason = f"the broker waits until {silent or 'the others'} can be heard"
            event = next_event(events, max(0.01, min(speak_at_s - now, site.timing.tick_s)))
            if isinstance(event, Disconnected):
                reason = event.reason
            _note(heard, event, site)
    return RemoveOutcome(False, reason)


def _word(rack: str, heard: Heard) -> Leave:
    assert heard.beat is not None
    report = heard.reports.get(rack)
    return Leave(
        rack=rack,
        by="operator",
        ballot=heard.beat.ballot,
        boot=report.boot if report else None,
        seq=report.seq if report else None,
    )


def _is_alive(heard: Heard, rack: str, site: Site, now: float) -> bool:
    spoke_at_s = heard.spoke_at_s.get(rack)
    return spoke_at_s is not None and now - spoke_at_s <= LIVE_TICKS * site.timing.tick_s


def _paths(site: Site) -> tuple[str, ...]:
    name = site.site
    kept = (Topic(Kind.BEAT).path(name), Topic(Kind.ROSTER).path(name))
    return (*kept, *topics.of_broker(name))


def _note(heard: Heard, event: Event | None, site: Site) -> None:
    if not isinstance(event, Received):
        return
    topic = topics.parse(event.topic, site.site)
    if topic is None:
        return
    try:
        message = wire.decode(topic.kind, event.payload)
    except WireError:
        return
    heard.take(topic, message, live=not event.retained, now=clock.now_s())
