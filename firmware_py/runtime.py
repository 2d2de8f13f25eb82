"""The shell of one controller: one loop, one inbox.

It takes from the inbox until the machine's next deadline, calls the door that fits,
and carries the effects out in order. The MQTT thread, the pollers and the journal's
thread only ever put into the inbox. No rule of the protocol stands here.

Limits: messages beyond `INBOX_MAX` are dropped and counted, in the link's own thread, so
that nothing piles up behind a loop that is busy (every message is repeated by its
sender). Facts of this machine are never dropped, there are few of them: one per answer
of a device and per write. A message that is too large to be sent is not, and says so.

systemd is fed at the end of each turn (`watchdog`), as long as the link's thread lives.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import secrets
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from broker import topics, wire
from broker.coordinator import MarketTerms
from broker.effects import (
    Event,
    Exit,
    JournalRecord,
    JournalWritten,
    Level,
    LinkDown,
    LinkUp,
    ListenToReports,
    Persist,
    Publish,
    Reconnect,
)
from broker.election import ElectionTiming
from broker.errors import WireError
from broker.identity import ClockRead, Identity
from broker.messages import Actuation, Ballot, Presence, Roster, RosterCap, RosterRack
from broker.mqtt import MqttLink
from broker.mqtt_values import (
    Connected,
    Disconnected,
    MqttSettings,
    Received,
    Secret,
    SubscriptionRefused,
    TlsSettings,
)
from broker.mqtt_values import Event as LinkEvent
from broker.topics import Kind, Topic
from drivers.device import open_device
from drivers.errors import ProfileError
from drivers.profile import Candidate, candidates, load_profile
from drivers.secret import Secret as DeviceSecret
from firmware_py import clock
from firmware_py.controller import Controller, ControllerEffect, Execute, Fact, PollNow
from firmware_py.journal import Journal
from firmware_py.limiter_kinds import LIMIT_POINT
from firmware_py.poller import Poller
from firmware_py.site import site_hash
from firmware_py.site_types import DeviceSpec, Rack, Site
from firmware_py.watchdog import Watchdog

INBOX_MAX = 4096
DRAINED_MAX = 64  # messages between two looks at the deadlines
EVENTS_KNOWN_MAX = 1000  # of the log; then it forgets what it has said
CLOCK_PERIOD_S = 60.0
CLOCK_PERIOD_FORGETFUL_S = 1.0
SAME_EVENT_S = 10.0  # the same line is logged at most this often
ROWS_SETTLE_S = 15.0  # a device that starts with us may not show all its rows at once

log = logging.getLogger("wattbroker")


class StartError(Exception):
    """What the site file names cannot be used here: a file, a variable, a profile."""


def in_words(error: Exception) -> str:
    """An error of the operator's without the system's numbers."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@dataclass(frozen=True, slots=True)
class RunOptions:
    floor_on_exit: bool = False


def roster_of(site: Site) -> Roster:
    """The first roster: the site file, named by its hash (protocol M1)."""
    return Roster(
        name=Ballot(0, site_hash(site)),
        racks=tuple(_member_of(rack) for rack in site.racks if not rack.joins),
        caps=tuple(
            RosterCap(
                cap=cap.name,
                limit_w=cap.limit_w,
                parent=cap.parent,
                fallback_w=cap.fallback_w,
                set_ttl_s=cap.set_ttl_s,
                brake_after_s=cap.brake_after_s,
            )
            for cap in site.caps
        ),
    )


def _member_of(rack: Rack) -> RosterRack:
    return RosterRack(
        rack=rack.name,
        rank=rack.rank,
        floor_w=rack.floor_w,
        ceiling_w=rack.ceiling_w,
        cap=rack.cap,
        weight=rack.weight,
        tier=rack.tier,
    )


def identity_of(site: Site, rack: Rack, instance: str) -> Identity:
    timing = site.timing
    return Identity(
        rack=rack.name,
        instance=instance,
        site_hash=site_hash(site),
        roster=roster_of(site),
        actuator=Actuation(rack.actuator.kind),
        ttl_s=rack.actuator.ttl_s,
        settle_s=rack.actuator.settle_s,
        timing=ElectionTiming(
            tick_s=timing.tick_s,
            beat_timeout_s=timing.beat_timeout_s,
            answer_timeout_s=timing.answer_timeout_s,
            preempt_after_s=timing.preempt_after_s,
        ),
        terms=MarketTerms(guard=site.market.guard),
        joins=_member_of(rack) if rack.joins else None,
        is_open=site.roster == "open",
    )


def mqtt_settings(site: Site, client_id: str, **more: object) -> MqttSettings:
    """The link's settings from the site file. OSError: the password file cannot be read."""
    mqtt = site.mqtt
    password = None
    if mqtt.password_file is not None:
        password = Secret(mqtt.password_file.read_text("utf-8").strip())
    tls = None
    if mqtt.tls is not None:
        for path in (mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key):
            if path is not None:
                path.open("rb").close()  # now, with its name, rather than at each connect
        tls = TlsSettings(ca=mqtt.tls.ca, cert=mqtt.tls.cert, key=mqtt.tls.key)
    return MqttSettings(
        host=mqtt.host,
        port=mqtt.port,
        client_id=client_id,
        username=mqtt.username,
        password=password,
        tls=tls,
        payload_bytes_max=wire.ROSTER_BYTES_MAX,
        **more,  # type: ignore[arg-type]
    )


class Runtime:
    """One controller process, from its start to its exit code."""

    def __init__(
        self, site: Site, rack: Rack, journal: Journal, options: RunOptions | None = None
    ) -> None:
        self._site = site
        self._rack = rack
        self._journal = journal
        self._options = options or RunOptions()
        self._instance = secrets.token_hex(8)
        loaded, why = journal.load()
        if loaded is None:
            log.error(
                "%s: this rack counts at its ceiling until a synchronised clock (a time service,"
                ' or clock = "trusted" in the site file) gives it a term and a boot again;'
                " a rack that has never run wants `wattbroker init` first; where no rack of the"
                " site has a journal any more, lower all hardware to its floor and run"
                " `wattbroker init --all-new` for each",
                why,
            )
        self._forgetful = loaded is None
        self._loaded = loaded
        self._messages: deque[LinkEvent] = deque()
        self._facts: deque[Fact] = deque()
        self._called = asyncio.Event()
        self._dropped = self._dropped_told = 0
        self._call_waits = False  # the loop was called and has not come yet
        self._exit: Exit | None = None
        self._session: int | None = None
        self._pollers: dict[str, Poller] = {}
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._log = EventLog()
        self._watchdog = Watchdog()

    async def run(self) -> int:
        """Until SIGTERM or SIGINT, or until the controller must end. The exit code.

        StartError: nothing was started, because the operator has to act first.
        """
        faulthandler.enable()  # systemd's watchdog kills with SIGABRT: say where it hung
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, Exit(0, "told to stop"))
        me = identity_of(self._site, self._rack, self._instance)
        self._controller = Controller(me, self._rack, self._loaded, now=clock.now_s())
        async with AsyncExitStack() as stack:
            try:
                self._link = MqttLink(self._settings(), self._from_link)
                await self._start_pollers(stack)
            except (OSError, ValueError, ProfileError) as error:
                raise StartError(in_words(error)) from error
            stack.callback(self._disk.shutdown)
            self._link.start()
            stack.callback(lambda: self._link.stop(goodbye=True))
            self._read_clock()
            stack.callback(self._watchdog.close)
            self._watchdog.ready()
            await self._serve()
            assert self._exit is not None
            self._watchdog.stopping(self._exit.reason)
            if self._options.floor_on_exit:
                await self._floor()
        if self._dropped:
            log.warning("%d messages were dropped by a full inbox", self._dropped)
        assert self._exit is not None
        level = logging.ERROR if self._exit.code else logging.INFO
        log.log(level, "controller ends: %s", self._exit.reason)
        return self._exit.code

    # ---- the loop --------------------------------------------------------------

    async def _serve(self) -> None:
        while self._exit is None:
            await self._wait()
            self._drain()
            now = clock.now_s()
            at_s = self._controller.next_wake()
            if at_s is not None and now >= at_s:
                self._carry(self._controller.wake(now=now))
            self._show_life()

    def _show_life(self) -> None:
        """A turn is over. A link whose thread has died never comes back: end, to be restarted."""
        if not self._link.alive:
            self._stop(Exit(70, "the link to the MQTT server has failed"))
            return
        self._watchdog.feed(self._controller.status, now=clock.now_s())

    async def _wait(self) -> None:
        at_s = self._controller.next_wake()
        feed_s = self._watchdog.feed_every_s
        if feed_s is not None:
            soon_s = clock.now_s() + feed_s
            at_s = soon_s if at_s is None else min(at_s, soon_s)
        if self._messages or self._facts or self._exit is not None:
            await asyncio.sleep(0)  # a flood must not starve the pollers
            return
        self._called.clear()
        try:
            async with asyncio.timeout(None if at_s is None else max(0.0, at_s - clock.now_s())):
                await self._called.wait()
        except TimeoutError:
            return

    def _drain(self) -> None:
        while self._facts:
            self._carry(self._controller.read(self._facts.popleft(), now=clock.now_s()))
        if self._dropped > self._dropped_told:
            self._dropped_told = self._dropped
            self._log.say(Event(Level.WARNING, "inbox full: messages are dropped"))
        for _ in range(min(len(self._messages), DRAINED_MAX)):
            self._take(self._messages.popleft())

    def _take(self, heard: LinkEvent) -> None:
        match heard:
            case Received():
                self._receive(heard)
            case Connected():
                self._session = heard.session
                log.info("connected to the MQTT server, MQTT %s", heard.protocol)
                self._carry(self._controller.read(LinkUp(), now=clock.now_s()))
            case Disconnected():
                was_up = self._session is not None
                self._session = None
                level = Level.ERROR if heard.fatal else Level.WARNING
                self._log.say(Event(level, "MQTT server", (("reason", heard.reason),)))
                if was_up:
                    fact = LinkDown(heard.reason)
                    self._carry(self._controller.read(fact, now=clock.now_s()))
            case SubscriptionRefused():
                keys = (("topic", heard.topic), ("reason", heard.reason))
                self._log.say(Event(Level.ERROR, "MQTT server refuses a subscription", keys))

    def _receive(self, heard: Received) -> None:
        if heard.session != self._session:
            return  # from before a disconnect
        topic = topics.parse(heard.topic, self._site.site)
        if topic is None:
            return
        try:
            message = wire.decode(topic.kind, heard.payload)
        except WireError as error:
            keys = (("topic", heard.topic), ("reason", str(error)))
            self._log.say(Event(Level.WARNING, "message refused", keys))
            return
        self._carry(
            self._controller.receive(topic, message, retained=heard.retained, now=clock.now_s())
        )

    # ---- effects ---------------------------------------------------------------

    def _carry(self, effects: list[ControllerEffect]) -> None:
        for effect in effects:
            match effect:
                case Publish():
                    self._publish(effect)
                case Persist():
                    self._persist(effect.record)
                case Execute():
                    self._pollers[effect.device].submit(effect.command)
                case PollNow():
                    self._pollers[effect.device].poll_now()
                case ListenToReports():
                    self._listen(effect.on)
                case Reconnect():
                    log.warning("reconnecting: %s", effect.reason)
                    self._link.reconnect(effect.reason)
                case Event():
                    self._log.say(effect)
                case Exit():
                    self._stop(effect)

    def _publish(self, effect: Publish) -> None:
        payload = wire.encode(effect.message, time_ms=clock.wall_ms())
        path = effect.topic.path(self._site.site)
        if len(payload) > wire.bytes_max(effect.topic.kind):  # nobody would read it
            keys = (("topic", path), ("bytes", len(payload)))
            self._log.say(Event(Level.ERROR, "message too large to be sent", keys))
            return
        self._link.publish(path, payload, effect.retain, session=self._session)

    def _persist(self, record: JournalRecord) -> None:
        """In a thread of its own: a sync on an SD card may take its time."""

        def write() -> JournalWritten:
            try:
                self._journal.write(record)
            except OSError as error:
                reason = f"{self._journal.path}: {error.strerror or error}"
                return JournalWritten(record, False, reason)
            return JournalWritten(record, True)

        future = self._disk.submit(write)
        future.add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._put_fact, done.result())
        )

    def _listen(self, on: bool) -> None:
        site = self._site.site
        paths = (*topics.of_broker(site), *topics.of_roster_desk(site))
        if on:
            self._link.subscribe(*paths)
        else:
            self._link.unsubscribe(*paths)

    # ---- the inbox -------------------------------------------------------------

    def _from_link(self, heard: LinkEvent) -> None:
        """Called from the link's thread: into the inbox, and one call for many messages."""
        if isinstance(heard, Received) and len(self._messages) >= INBOX_MAX:
            self._dropped += 1
            return
        self._messages.append(heard)
        if not self._call_waits:
            self._call_waits = True
            self._loop.call_soon_threadsafe(self._answer_call)

    def _answer_call(self) -> None:
        self._call_waits = False  # before the inbox is looked at: nothing is overlooked
        self._called.set()

    def _put_fact(self, fact: Fact) -> None:
        self._facts.append(fact)
        self._called.set()

    def _stop(self, reason: Exit) -> None:
        if self._exit is None:
            self._exit = reason
        self._called.set()

    # ---- start and end ---------------------------------------------------------

    def _settings(self) -> MqttSettings:
        online = Topic(Kind.ONLINE, self._rack.name).path(self._site.site)
        return mqtt_settings(
            self._site,
            f"wb{self._instance}",
            will_topic=online,
            will_payload=wire.encode(Presence.OFFLINE),
            birth=(online, wire.encode(Presence.ONLINE)),
            goodbye=wire.encode(Presence.OFFLINE),
            subscriptions=(
                *topics.of_controller(self._site.site, self._rack.name),
                *topics.of_newcomer(self._site.site, self._rack.name),
            ),
        )

    async def _start_pollers(self, stack: AsyncExitStack) -> None:
        for spec in self._rack.devices:
            poller = self._poller(spec, stack)
            self._pollers[spec.name] = poller
            task = asyncio.create_task(poller.run(), name=f"poll {spec.name}")
            task.add_done_callback(self._poller_ended)
            stack.push_async_callback(_cancel, task)

    def _poller(self, spec: DeviceSpec, stack: AsyncExitStack) -> Poller:
        folders = self._folders
        profile = load_profile(spec.profile, folders) if spec.profile else None
        community = None
        if spec.community_file is not None:
            community = DeviceSecret(spec.community_file.read_text("utf-8").strip())
        device = open_device(
            spec.url, profile, clock=clock.now_s, community=community, settle_s=ROWS_SETTLE_S
        )
        stack.push_async_callback(device.close)
        return Poller(
            spec.name,
            device,
            points_of(self._rack, spec),
            poll_s=spec.poll_s,
            candidates=self._candidates,
            clock=clock.now_s,
            put=self._put_fact,
            say=self._log.say,
        )

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self._site.profiles,) if self._site.profiles else ()

    def _candidates(self) -> list[Candidate]:
        return candidates(self._folders)

    def _poller_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # A mistake of ours: stop, let the supervisor restart us; the hardware holds (R7).
            log.error("%s failed", task.get_name(), exc_info=error)
            self._stop(Exit(70, f"{task.get_name()} failed: {error!r}"))

    def _read_clock(self) -> None:
        wall_ms = clock.vouched_wall_ms(trusted=self._site.timing.clock == "trusted")
        self._put_fact(ClockRead(wall_ms))
        waits = self._forgetful and wall_ms is None
        period_s = CLOCK_PERIOD_FORGETFUL_S if waits else CLOCK_PERIOD_S
        self._loop.call_later(period_s, self._read_clock)

    async def _floor(self) -> None:
        """`--floor-on-exit`: written, and given the time to be read back."""
        self._carry(self._controller.floor(now=clock.now_s()))
        deadline_s = clock.now_s() + self._rack.actuator.settle_s
        while clock.now_s() < deadline_s and self._controller.promise_w > self._rack.floor_w:
            self._called.clear()
            try:
                async with asyncio.timeout(0.2):
                    await self._called.wait()
            except TimeoutError:
                pass
            while self._facts:
                self._carry(self._controller.read(self._facts.popleft(), now=clock.now_s()))
        self._carry(self._controller.report(now=clock.now_s()))
        log.info("rack lowered: promises %d W", self._controller.promise_w)


class EventLog:
    """Events as lines; the same line at most once in `SAME_EVENT_S`."""

    def __init__(self) -> None:
        self._said_at_s: dict[tuple[object, ...], float] = {}

    def say(self, event: Event) -> None:
        now = clock.now_s()
        known = (event.name, event.keys)
        if now - self._said_at_s.get(known, float("-inf")) < SAME_EVENT_S:
            return
        if len(self._said_at_s) >= EVENTS_KNOWN_MAX:
            self._said_at_s.clear()
        self._said_at_s[known] = now
        text = " ".join([event.name, *(f"{key}={value}" for key, value in event.keys)])
        log.log(_LEVELS[event.level], "%s", text)


_LEVELS = {
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}


def points_of(rack: Rack, spec: DeviceSpec) -> tuple[str, ...]:
    """The points that the controller needs of a device: no more are asked for."""
    names = list(spec.measures)
    if spec.name == rack.actuator.device:
        if rack.actuator.kind == "power-limit":
            names.append(LIMIT_POINT)
        names += [f"outlet.{outlet.number}.status" for outlet in rack.actuator.outlets]
    return tuple(dict.fromkeys(names))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
