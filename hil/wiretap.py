"""What hil hears and says over MQTT; only this module knows paho.

It listens to everything under the site's topics as any monitor may, keeps the last
message of each kind that the judge and the table need, and repeats `caps/room/set` as
the source `plant`. MQTT 3.1.1, clean sessions, QoS 0: both servers speak it, and
everything is repeated anyhow.

Unknown or missing keys are passed over: this is an outside observer, which must not
fall over a message that has grown a key.

paho's own thread calls `_heard`; everything it writes is guarded by one lock, and
what leaves is a copy.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

PREFIX = "wattbroker/demo"


@dataclass(frozen=True, slots=True)
class Report:
    """The keys of a rack's report that are looked at; None where one was missing."""

    bound_w: float | None = None
    limit_w: float | None = None
    demand_w: float | None = None


@dataclass(frozen=True, slots=True)
class Explain:
    """What a rack says of the limit in force; empty where a key was missing."""

    set_by: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest of everything, at one instant (monotonic seconds)."""

    reports: dict[str, Report] = field(default_factory=dict)
    broker: str | None = None  # of the last live beat
    broker_at_s: float = 0.0
    ballot: tuple[int, str] = (0, "")  # the highest of all live beats
    office_at_s: float = 0.0  # of the last live beat in that ballot
    report_at_s: dict[str, float] = field(default_factory=dict)  # of live reports
    explains: dict[str, Explain] = field(default_factory=dict)
    price: float | None = None
    reserve_w: dict[str, float] = field(default_factory=dict)
    connected: bool = False


class Wiretap:
    """One MQTT client. `start` returns at once; it reconnects by itself until `stop`."""

    def __init__(
        self,
        port: int,
        *,
        cap: str = "room",
        reconnect_s: float = 1.0,
        trace: TextIO | None = None,  # every message as a line, with its monotonic second
    ) -> None:
        self._lock = threading.Lock()
        self._heard_so_far = Heard()
        self._cap = cap
        self._number = 0
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="hil-wiretap", protocol=mqtt.MQTTv311
        )
        # paho says whole seconds and only ever adds and compares them.
        self._client.reconnect_delay_set(reconnect_s, reconnect_s)  # type: ignore[arg-type]
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._message
        self._port = port
        self._trace = trace

    def start(self) -> None:
        self._client.connect_async("127.0.0.1", self._port, keepalive=10)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def heard(self) -> Heard:
        """A copy of what is known now."""
        with self._lock:
            heard = self._heard_so_far
            return replace(
                heard,
                reports=dict(heard.reports),
                reserve_w=dict(heard.reserve_w),
                report_at_s=dict(heard.report_at_s),
                explains=dict(heard.explains),
            )

    def set_cap(self, limit_w: int) -> None:
        """Say the cap's value as its source; the number only ever rises (protocol C1)."""
        self._number = max(time.time_ns() // 1_000_000, self._number + 1)
        if not self.heard().connected:
            return  # a message kept for later would say an old value then
        payload = json.dumps({"limit_w": limit_w, "number": self._number, "by": "plant"})
        self._client.publish(f"{PREFIX}/caps/{self._cap}/set", payload, qos=0)

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(f"{PREFIX}/#", qos=0)
        with self._lock:
            self._heard_so_far = replace(self._heard_so_far, connected=True)

    def _disconnected(self, *_: Any) -> None:
        with self._lock:
            self._heard_so_far = replace(self._heard_so_far, connected=False)

    def _message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        topic = message.topic.removeprefix(PREFIX + "/")
        if self._trace is not None:
            kept = " retained" if message.retain else ""
            words = message.payload.decode(errors="replace")
            print(f"{time.monotonic():.3f}{kept} {topic} {words}", file=self._trace)
        try:
            content = json.loads(message.payload)
        except ValueError:
            return  # `online` and `offline` are words, and so is whatever is not ours
        if isinstance(content, dict):
            with self._lock:
                self._heard_so_far = after(
                    self._heard_so_far,
                    topic,
                    content,
                    cap=self._cap,
                    retained=message.retain,
                    now_s=time.monotonic(),
                )


def after(
    heard: Heard, topic: str, content: dict[str, Any], *, cap: str, retained: bool, now_s: float
) -> Heard:
    """What is known once this message is, too. Pure."""
    match topic.split("/"):
        case ["racks", rack, "report"]:
            report = Report(*(_number(content, k) for k in ("bound_w", "limit_w", "demand_w")))
            live = {} if retained else {rack: now_s}
            return replace(
                heard,
                reports={**heard.reports, rack: report},
                report_at_s={**heard.report_at_s, **live},
            )
        case ["racks", rack, "explain"]:
            said = Explain(*(str(content.get(key, "")) for key in ("set_by", "why")))
            return replace(heard, explains={**heard.explains, rack: said})
        case ["broker"] if not retained:  # a retained beat may be a dead broker's
            match content.get("ballot"):
                case [term, str(rack)]:
                    heard = replace(heard, broker=rack, broker_at_s=now_s)
                    return _in_office(heard, term, rack, now_s)
        case ["market"]:
            prices = content.get("price")
            price = _number(prices, cap) if isinstance(prices, dict) else None
            return replace(heard, price=price)
        case ["caps", name] if name == cap:
            reserve_w = content.get("reserve_w")
            if isinstance(reserve_w, dict):
                numbers = {rack: _number(reserve_w, rack) for rack in reserve_w}
                known = {rack: w for rack, w in numbers.items() if w is not None}
                return replace(heard, reserve_w=known)
    return heard


def _in_office(heard: Heard, term: object, rack: str, now_s: float) -> Heard:
    """A beat of a lower ballot than the highest is a deposed broker's."""
    if not isinstance(term, int) or (term, rack) < heard.ballot:
        return heard
    return replace(heard, ballot=(term, rack), office_at_s=now_s)


def _number(content: dict[str, Any], key: str) -> float | None:
    value = content.get(key)
    return float(value) if isinstance(value, int | float) else None
