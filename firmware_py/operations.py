"""What an operator does over MQTT from a command: set a cap, ask for a rack's traces.

Each opens a link of its own, says or hears what it must, and leaves. Nothing here
decides about power: a cap that is set is a source like any other (protocol C1).
"""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from broker import wire
from broker.errors import WireError
from broker.messages import NUMBER_MAX, Beat, CapSet, CapValue
from broker.mqtt import MqttLink
from broker.mqtt_values import Connected, Disconnected, Event, Received
from broker.topics import Kind, Topic
from firmware_py import clock
from firmware_py.runtime import mqtt_settings
from firmware_py.site_types import Site

CAP_SET_S_MAX = 10.0
CONNECT_S_MAX = 5.0
RETAINED_S = 1.0  # a server delivers what it kept right after the subscription


class NoServer(Exception):
    """The MQTT server did not let us in; the text says why."""


@dataclass(frozen=True, slots=True)
class CapOutcome:
    """`in_force_w`: the smallest of all sources, as the broker's beat has them."""

    seen: bool
    in_force_w: int | None
    reason: str
    unknown_source: bool = False  # nothing to withdraw: nobody has spoken as `by`


def set_cap(site: Site, cap: str, limit_w: int | None, by: str) -> CapOutcome:
    """Say a cap's value each tick until the broker's beat shows it, or 10 s are over."""
    beat_topic = Topic(Kind.BEAT).path(site.site)
    set_topic = Topic(Kind.CAP_SET, cap).path(site.site)
    deadline_s = clock.now_s() + CAP_SET_S_MAX
    said: CapSet | None = None
    repeat_at_s = 0.0
    highest = 0
    heard_beat, shown = False, None
    reason = (
        f"no broker has confirmed it within {CAP_SET_S_MAX:g} s; is a controller of"
        f" {site.site} running?"
    )
    with linked(site, beat_topic) as (link, events):
        connect(events)
        ready_s = clock.now_s() + site.timing.tick_s  # a retained beat comes before that
        while (now := clock.now_s()) < deadline_s:
            if now >= ready_s and now >= repeat_at_s:
                if said is None and limit_w is None and heard_beat and shown is None:
                    return CapOutcome(False, None, f"no source is called {by}", True)
                if said is None and highest >= NUMBER_MAX:
                    return CapOutcome(False, None, f"{cap}: a source has used up all numbers")
                if said is None:
                    number = max(clock.wall_ms(), highest + 1)
                    said = CapSet(limit_w=limit_w, number=number, by=by)
                link.publish(set_topic, wire.encode(said))
                repeat_at_s = now + site.timing.tick_s
            heard = next_event(events, min(deadline_s, repeat_at_s or ready_s) - now)
            if isinstance(heard, Disconnected):
                reason = heard.reason
            beat = _beat(heard, beat_topic)
            if beat is None:
                continue
            ready_s = min(ready_s, clock.now_s())
            sources = beat.caps.get(cap, {})
            highest = max([highest, *(value.number for value in sources.values())])
            shown = sources.get(by)
            heard_beat = True
            if said is not None and shown == CapValue(said.number, said.limit_w):
                return CapOutcome(True, _in_force_w(site, cap, sources), "")
            if said is not None and shown is not None and shown.number > said.number:
                said = None  # somebody else speaks as this source, with a later number
    return CapOutcome(False, None, reason)


def knows_rack(site: Site, rack: str) -> bool:
    """True where the MQTT server keeps a report of the rack: it has run before."""
    path = Topic(Kind.REPORT, rack).path(site.site)
    with linked(site, path) as (_, events):
        connect(events)
        deadline_s = clock.now_s() + RETAINED_S
        while (left_s := deadline_s - clock.now_s()) > 0:
            if isinstance(next_event(events, left_s), Received):
                return True
    return False


@contextmanager
def linked(site: Site, *subscriptions: str) -> Iterator[tuple[MqttLink, queue.Queue[Event]]]:
    events: queue.Queue[Event] = queue.Queue(1000)

    def put(event: Event) -> None:
        if not events.full():  # a flood: the next beat says it again
            events.put_nowait(event)

    settings = mqtt_settings(site, f"wb{secrets.token_hex(8)}", subscriptions=subscriptions)
    link = MqttLink(settings, put)
    link.start()
    try:
        yield link, events
    finally:
        link.stop(goodbye=False)


def connect(events: queue.Queue[Event]) -> None:
    deadline_s = time.monotonic() + CONNECT_S_MAX
    reason = "the MQTT server did not answer"
    while (left_s := deadline_s - time.monotonic()) > 0:
        heard = next_event(events, left_s)
        if isinstance(heard, Connected):
            return
        if isinstance(heard, Disconnected):
            reason = heard.reason
            if heard.fatal:  # waiting does not help
                break
    raise NoServer(reason)


def next_event(events: queue.Queue[Event], wait_s: float) -> Event | None:
    try:
        return events.get(timeout=max(0.001, wait_s))
    except queue.Empty:
        return None


def _beat(heard: Event | None, topic: str) -> Beat | None:
    if not isinstance(heard, Received) or heard.topic != topic:
        return None
    try:
        message = wire.decode(Kind.BEAT, heard.payload)
    except WireError:
        return None
    return message if isinstance(message, Beat) else None


def _in_force_w(site: Site, cap: str, sources: dict[str, CapValue]) -> int:
    said_w = [value.limit_w for value in sources.values() if value.limit_w is not None]
    return min([site.cap(cap).limit_w, *said_w])
