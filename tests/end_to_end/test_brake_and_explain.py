"""A feed's meter brakes racks without a broker, and a rack's limit is explained as it is."""

from __future__ import annotations

import asyncio
import json

from click.testing import CliRunner, Result
from emulated_room import DEADLINE_S, SITE, Room

from broker import topics
from broker.messages import Explain
from broker.topics import Kind, Topic
from broker.wire import decode
from firmware_py import cli_explain

MEASURED = Topic(Kind.CAP_MEASURED, "room")


def explain(room: Room, *arguments: str) -> Result:
    return CliRunner().invoke(cli_explain.explain, [*arguments, "--site", str(room.site)])


def lines_of(done: Result) -> dict[str, str]:
    """The lines by their first word."""
    lines = [line.strip().split(None, 1) for line in done.output.splitlines()]
    return {line[0]: line[1] for line in lines}


def edit(room: Room, *edits: tuple[str, str]) -> None:
    text = room.site.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    room.site.write_text(text)


def told(heard, kind, kind_of_topic) -> list[tuple[str, object]]:
    """Every message of a kind, by rack, in order."""
    found = []
    for message in list(heard.tap.messages):
        *_, rack, last = message.topic.split("/")
        if last == kind_of_topic.value:
            found.append((rack, decode(kind_of_topic, message.payload)))
    assert all(isinstance(message, kind) for _, message in found)
    return found


def braked_at(controller) -> str:
    """When its log says that it brakes; all are of one machine."""
    lines = [line for line in controller.log.splitlines() if "brake: a cap is exceeded" in line]
    assert len(lines) == 1, controller.log
    return lines[0].split(" ERROR ")[0]


def lowered_first(messages) -> list[str]:
    """For each rack who said 500 W first: a renewal says it after the rack, a cause before."""
    first = {}
    for message in messages:
        topic = topics.parse(message.topic, SITE)
        if topic is not None and topic.kind in (Kind.REPORT, Kind.GRANT):
            said = decode(topic.kind, message.payload)
            if said.limit_w == 500:
                who = "the rack itself" if topic.kind is Kind.REPORT else "a broker"
                first.setdefault(topic.name, who)
    return list(first.values())


class Wire:
    """A way to the MQTT server that can be cut."""

    def __init__(self, room: Room, port: int) -> None:
        self._room = room
        self._to_port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._server = room.hardware.call(asyncio.start_server(self._pass, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        self._room.hardware.call(self._end())

    def mend(self) -> None:
        self._cut = False

    async def _end(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        onward = await asyncio.open_connection("127.0.0.1", self._to_port)
        ways = ((reader, onward[1]), (onward[0], writer))
        self._open |= {writer, onward[1]}
        await asyncio.gather(*(self._one_way(*way) for way in ways), return_exceptions=True)
        writer.transport.abort()
        onward[1].transport.abort()
        self._open -= {writer, onward[1]}

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        raise ConnectionError


def test_a_meter_above_the_cap_brings_racks_down_the_lowest_tier_first_without_a_grant(
    room, mosquitto, listen, wait_until
):
    racks = {name: room.limit_rack(name, holds_w=1980) for name in ("r1", "r2", "r3")}
    # A cap with room for all: what a market does with scarcity is not what is tested.
    room.write_site(mosquitto.port, cap_w=20_000)
    edit(room, ("limit_w = 20000", "limit_w = 20000\nbrake_after_s = 0.7"),
         ("rank = 10\n", "rank = 10\ntier = 2\n"))  # fmt: skip
    room.init(*racks)
    heard = listen(mosquitto)
    controllers = [room.run(name) for name in racks]
    wait_until(lambda: heard.grant("r1"), DEADLINE_S, "the first grants")
    wait_until(
        lambda: all((heard.limit_w(name) or 0) >= 1980 for name in racks), DEADLINE_S, "shares"
    )

    before = len(heard.tap.messages)

    def down():
        heard.say(MEASURED, b'{"power_w": 20100, "age_s": 0.0}')
        return [rack.in_force_w for rack in racks.values()] == [500, 500, 500]

    wait_until(down, DEADLINE_S, "all racks at their floors")
    at = {name: braked_at(process) for name, process in zip(racks, controllers, strict=True)}
    assert sorted(at, key=at.__getitem__) == ["r2", "r3", "r1"]  # tier 1 by rank, then tier 2
    assert set(lowered_first(heard.tap.messages[before:])) == {"the rack itself"}
    said = explain(room, "r2")
    assert said.exit_code == 0
    assert lines_of(said)["set"] == (
        "by   brake of room: caps/room/measured was above 20000 W for too long"
    )
    assert lines_of(said)["up"].startswith("caps/room/measured at or below 19000 W for 30 s")


def test_explain_tells_the_truth_after_a_cap_drop_a_broker_change_and_a_cut_off(
    room, mosquitto, listen, wait_until
):
    racks = {name: room.limit_rack(name, holds_w=1500) for name in ("r1", "r2")}
    wire = Wire(room, mosquitto.port)
    room.write_site(mosquitto.port, cap_w=4000)
    room.init(*racks)
    heard = listen(mosquitto)
    r2 = room.run("r2")
    wait_until(lambda: heard.leader() == "r2", DEADLINE_S, "the first broker")
    room.write_site(wire.port, cap_w=4000)
    r1 = room.run("r1")
    wait_until(lambda: heard.report("r1"), DEADLINE_S, "it has read the site file")
    room.write_site(mosquitto.port, cap_w=4000)

    def limits_are(*limits_w: int) -> None:
        wait_until(
            lambda: [heard.limit_w(name) for name in racks] == list(limits_w),
            DEADLINE_S,
            f"limits of {limits_w}",
        )

    limits_are(1980, 1980)
    wait_until(lambda: heard.explain("r1").cap == "room", DEADLINE_S, "the cap is what holds it")
    beat = heard.beat()
    assert beat.ballot.rack == "r2"
    said = lines_of(explain(room, "r1"))
    assert said["r1:"].startswith("limit 1980 W (floor 500 W, ceiling 3000 W), promises 1980 W")
    assert said["set"].startswith(f"by   broker r2, term {beat.ballot.term}: ")
    assert said["cap"].startswith("room is 4000 W by site")
    assert said["until"].endswith("s without a newer grant, then 500 W")

    # the cap drops
    assert room.command("cap", "room", "3000").returncode == 0
    limits_are(1485, 1485)
    wait_until(lambda: heard.explain("r1").cap == "room", DEADLINE_S, "the cap is what holds it")
    said = lines_of(explain(room, "r1"))
    assert said["cap"].startswith("room is 3000 W by operator")
    assert said["up"] == "more room under room (3000 W by operator), by a broker's grant"

    # another broker
    r2.kill()
    wait_until(lambda: heard.leader() == "r1", DEADLINE_S, "the new broker")
    term = heard.beat().ballot.term
    wait_until(
        lambda: heard.explain("r1").set_by == f"broker r1, term {term}", DEADLINE_S, "its grant"
    )
    done = explain(room, "r1", "--json")
    record = json.loads(done.output)
    assert (done.exit_code, record["live"], record["online"]) == (0, True, True)
    assert record["set_by"] == f"broker r1, term {term}"
    dead = explain(room, "r2")
    assert dead.exit_code == 3
    assert dead.output.startswith("r2 is offline; its last word is ")
    assert "by now: at most 1485 W if its controller died" in dead.output

    # cut off
    wait_until(lambda: heard.limit_w("r1") == 500, DEADLINE_S, "the dead count at their ceiling")
    room.run("r2")
    limits_are(1485, 1485)
    wait_until(lambda: racks["r1"].in_force_w == 1485, DEADLINE_S, "the raise")
    wire.cut()
    wait_until(lambda: racks["r1"].in_force_w == 500, DEADLINE_S, "the floor of a cut-off rack")
    wait_until(lambda: heard.presence("r1") == "offline", DEADLINE_S, "the will")
    cut_off = explain(room, "r1")
    assert cut_off.exit_code == 3
    assert "its floor of 500 W if it lives and is cut off" in cut_off.output
    assert r1.alive

    def of_r1():
        return [said for rack, said in told(heard, Explain, Kind.EXPLAIN) if rack == "r1"]

    before = len(of_r1())
    wire.mend()
    wait_until(lambda: len(of_r1()) > before, DEADLINE_S, "it speaks again")
    first = of_r1()[before]
    assert (first.set_by, first.limit_w, first.cap) == ("end of the lease", 500, None)


def test_explain_says_who_was_never_heard_and_who_is_not_in_the_file(room, mosquitto):
    room.limit_rack("r1")
    room.write_site(mosquitto.port)
    never = explain(room, "r1")
    assert (never.exit_code, never.output) == (
        3, "r1 has never said anything; is its controller running?\n",
    )  # fmt: skip
    unknown = explain(room, "r7")
    assert unknown.exit_code == 2
    assert unknown.output == "no rack is called r7; the site file has: r1\n"


def test_without_an_mqtt_server_explain_says_where_it_looked(room, free_port):
    room.limit_rack("r1")
    port = free_port()
    room.write_site(port)
    done = explain(room, "r1")
    assert done.exit_code == 3
    assert f"nothing listens at 127.0.0.1:{port}" in done.output


def test_readings_without_sense_brake_nobody(room, mosquitto, listen, wait_until):
    rack = room.limit_rack("r1", holds_w=1980)
    room.write_site(mosquitto.port, cap_w=2000)
    edit(room, ("limit_w = 2000", "limit_w = 2000\nbrake_after_s = 0.3"))
    room.init("r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    wait_until(lambda: heard.seq("r1") > 3, DEADLINE_S, "reports")

    def later():
        for payload in (b'{"power_w": 1e99, "age_s": 0}', b'{"power_w": 6100}', b"6100"):
            heard.say(MEASURED, payload)
        return heard.seq("r1") > 9

    wait_until(later, DEADLINE_S, "a second")
    assert rack.in_force_w == 1980
    assert controller.logs("message refused topic=wattbroker/lab/caps/room/measured")
