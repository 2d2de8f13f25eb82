"""A rack joins a running site, is granted its share, and is taken out by the operator."""

from __future__ import annotations

import json
import subprocess
import sys

from emulated_room import DEADLINE_S, Room

from broker.messages import Roster
from broker.topics import Kind, Topic

COMMAND = "from firmware_py.cli_roster import roster; roster()"


def roster_command(room: Room, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "--site", str(room.site), *arguments],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        env=room.environment,
        cwd=room.folder,
    )


def open_site(room: Room, port: int, *, cap_w: int) -> None:
    room.write_site(port, cap_w=cap_w)
    room.site.write_text(
        room.site.read_text().replace("schema = 1\n", 'schema = 1\nroster = "open"\n')
    )


def newcomers_file(room: Room, port: int, name: str) -> None:
    """The newcomer's own site file, beside the others'; from now on the one in use."""
    others = dict(room._racks)
    room._racks = {name: others[name].replace("cap =", "joins = true\ncap =", 1)}
    room.site = room.folder / "newcomer.toml"
    open_site(room, port, cap_w=4000)
    room._racks = others


def members(heard) -> set[str]:
    roster = heard.last(Topic(Kind.ROSTER))
    return {rack.rack for rack in roster.racks} if isinstance(roster, Roster) else set()


def test_a_rack_joins_an_open_site_gets_its_share_and_leaves_by_the_operators_word(
    room, mosquitto, listen, wait_until
):
    r1, r2 = room.limit_rack("r1"), room.limit_rack("r2")
    open_site(room, mosquitto.port, cap_w=4000)
    site = room.site
    room.init("r1", "r2")
    heard = listen(mosquitto)
    room.run("r1")
    room.run("r2")
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (1980, 1980), DEADLINE_S, "equal shares")

    r3 = room.limit_rack("r3", holds_w=0)
    newcomers_file(room, mosquitto.port, "r3")
    room.init("r3")
    newcomer = room.run("r3")
    wait_until(
        lambda: {rack.in_force_w for rack in (r1, r2, r3)} == {1320}, DEADLINE_S, "three shares"
    )
    assert members(heard) == {"r1", "r2", "r3"}
    assert newcomer.logs("this rack is counted now")
    assert room.hardware.peak_w <= 4000  # protocol M2
    shown = json.loads(roster_command(room, "--json").stdout)
    assert [(rack["rack"], rack["silent"]) for rack in shown["racks"]] == [
        ("r1", False),
        ("r2", False),
        ("r3", False),
    ]

    refused = roster_command(room, "remove", "r3")
    assert refused.returncode == 2
    assert "its controller runs and says that it may draw 1320 W" in refused.stderr
    assert members(heard) == {"r1", "r2", "r3"}

    newcomer.kill()
    r3.preset(0)
    removed = roster_command(room, "remove", "r3")
    assert (removed.returncode, removed.stdout) == (0, "r3: counted no more\n"), removed.stderr
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (1980, 1980), DEADLINE_S, "two shares")
    assert members(heard) == {"r1", "r2"}

    again = room.run("r3")  # with the journal that says it was a member  # protocol M3
    wait_until(lambda: members(heard) == {"r1", "r2", "r3"}, DEADLINE_S, "it asked again")
    wait_until(lambda: r3.in_force_w == 1320, DEADLINE_S, "its share again")
    assert again.logs("counted no more") or again.logs("not counted yet")
    assert room.hardware.peak_w <= 4000
    assert site.exists()


def test_a_newcomer_that_does_not_fit_is_told_why(room, mosquitto, listen, wait_until):
    r1 = room.limit_rack("r1")
    open_site(room, mosquitto.port, cap_w=900)
    room.init("r1")
    listen(mosquitto)
    room.run("r1")
    wait_until(lambda: r1.in_force_w == 891, DEADLINE_S, "the rack at its cap")
    r3 = room.limit_rack("r3", holds_w=0)
    newcomers_file(room, mosquitto.port, "r3")
    room.init("r3")
    newcomer = room.run("r3")
    wait_until(lambda: newcomer.logs("no room under room"), DEADLINE_S, "the answer")
    assert (r3.in_force_w, r3.writes_w) == (0, [])
