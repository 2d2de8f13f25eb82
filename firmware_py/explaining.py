"""What a rack says of its limit, asked for over MQTT and put into sentences.

A controller that lives says it every tick; its live word is waited for. What the MQTT
server has kept is only the last word of one that is silent: it says what was, and what
must have become of it since follows from the protocol (R6: a controller that lives is
at its floor once its lease has ended; R7: one that died leaves the hardware as it was).
"""

from __future__ import annotations

from dataclasses import dataclass

from broker import topics, wire
from broker.errors import WireError
from broker.messages import Explain, Presence
from broker.mqtt_values import Event, Received
from broker.topics import Kind, Topic
from firmware_py import clock
from firmware_py.operations import connect, linked, next_event
from firmware_py.site_types import Site

WAIT_TICKS = 3.0  # a live word comes every tick
WAIT_S_MIN = 1.0  # what the server has kept comes right after the subscription


@dataclass(frozen=True, slots=True)
class Answer:
    """`record` None: nobody has ever heard of the rack. `live`: it has just said so."""

    record: Explain | None
    live: bool
    online: bool | None  # what the MQTT server says of it; None: nothing


def ask(site: Site, rack: str) -> Answer:
    """The rack's own word, live if it comes in time. NoServer where nobody lets us in."""
    said, online = Topic(Kind.EXPLAIN, rack), Topic(Kind.ONLINE, rack)
    answer = Answer(None, False, None)
    with linked(site, said.path(site.site), online.path(site.site)) as (_, events):
        connect(events)
        deadline_s = clock.now_s() + max(WAIT_S_MIN, WAIT_TICKS * site.timing.tick_s)
        while not answer.live and (left_s := deadline_s - clock.now_s()) > 0:
            answer = _with(answer, next_event(events, left_s), site.site)
    return answer


def _with(answer: Answer, heard: Event | None, site: str) -> Answer:
    if not isinstance(heard, Received) or (topic := topics.parse(heard.topic, site)) is None:
        return answer
    try:
        message = wire.decode(topic.kind, heard.payload)
    except WireError:
        return answer
    match message:
        case Explain():
            return Answer(message, not heard.retained, answer.online)
        case Presence():
            return Answer(answer.record, answer.live, message is Presence.ONLINE)
    return answer


# ---- in words ------------------------------------------------------------------------


def sentences(rack: str, answer: Answer, *, wall_ms: int) -> list[str]:
    """The answer for people, a line each."""
    record = answer.record
    assert record is not None
    lines = [
        f"{rack}: limit {record.limit_w} W (floor {record.floor_w} W, ceiling"
        f" {record.ceiling_w} W), promises {record.bound_w} W"
    ]
    lines.append(f"  set by   {record.set_by}" + (f": {record.why}" if record.why else ""))
    if record.cap is not None:
        value = f" is {record.cap_limit_w} W by {record.cap_by}" if record.cap_by else ""
        price = f", price {record.price:g}" if record.price is not None else ""
        lines.append(f"  cap      {record.cap}{value}{price}")
    lines.append(f"  since    {_duration(record.since_s)}")
    if record.granted_w is not None and record.granted_w != record.limit_w:
        lines.append(f"  granted  {record.granted_w} W")
    lines.append(f"  until    {_until(record)}")
    lines += [f"  {_change(text)}" for text in record.changes]
    return lines if answer.live else [*_silent(rack, answer, wall_ms), *lines]


def _until(record: Explain) -> str:
    if record.floor_in_s is None:
        return "something changes it"
    if record.floor_in_s == 0:
        return "its lease has ended: it goes to its floor"
    return f"{record.floor_in_s:.0f} s without a newer grant, then {record.floor_w} W"


def _change(text: str) -> str:
    way, _, what = text.partition(": ")
    return f"{way:<8} {what}" if what else text


def _silent(rack: str, answer: Answer, wall_ms: int) -> list[str]:
    """What became of a rack that does not speak any more."""
    record = answer.record
    assert record is not None
    ago_s = max(0.0, (wall_ms - record.time_ms) / 1000)
    state = {True: "does not speak", False: "is offline", None: "is unknown to the server"}
    head = f"{rack} {state[answer.online]}; its last word is {_duration(ago_s)} old, and said:"
    now = f"by now: at most {record.bound_w} W if its controller died"
    if record.floor_in_s is None:
        return [head, f"  {now}, as it was if it lives"]
    if ago_s < record.floor_in_s:
        return [head, f"  {now}; its lease still runs if it lives"]
    return [head, f"  {now}, its floor of {record.floor_w} W if it lives and is cut off"]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
