"""A journal that cannot be written: nothing is adopted, nobody is led, everybody is told.

The disk that is full is /dev/full, which says so to every write: the file beside the
journal, in which the next record is written before it takes the old one's place, is a
link to it. The path is the journal's own, so is the error.
"""

from __future__ import annotations

import json

from emulated_room import DEADLINE_S

from broker.topics import Kind, Topic


def fill_disk(room, rack):
    state = room.state(rack)
    state.mkdir(parents=True, exist_ok=True)
    (state / "journal.new").symlink_to("/dev/full")


def make_room_on_disk(room, rack):
    (room.state(rack) / "journal.new").unlink()


def test_a_broker_whose_disk_is_full_leads_no_more_and_follows_when_there_is_room(
    room, mosquitto, listen, wait_until
):
    racks = {name: room.limit_rack(name, holds_w=1500) for name in ("r1", "r2")}
    room.write_site(mosquitto.port, cap_w=4000)
    room.init(*racks)
    heard = listen(mosquitto)
    controllers = {name: room.run(name) for name in racks}

    def shares():
        return [rack.in_force_w for rack in racks.values()]

    wait_until(lambda: shares() == [1980, 1980], DEADLINE_S, "equal shares")
    in_office = heard.beat().ballot
    full, other = ("r1", "r2") if in_office.rack == "r1" else ("r2", "r1")
    fill_disk(room, full)
    fall = {"limit_w": 3000, "number": 1, "by": "tester"}
    heard.say(Topic(Kind.CAP_SET, "room"), json.dumps(fall).encode())
    said = f"ERROR journal refused reason={room.state(full)}/journal.json: No space left on device"
    wait_until(lambda: controllers[full].logs(said), DEADLINE_S, said)
    wait_until(lambda: heard.presence(full) == "offline", DEADLINE_S, "the word to the others")
    assert controllers[full].logs("INFO this rack is broker no more")
    wait_until(lambda: heard.leader() == other, DEADLINE_S, "the new broker")
    wait_until(lambda: sum(shares()) <= 3000, DEADLINE_S, "a fall is obeyed all the same")
    wait_until(lambda: racks[full].in_force_w == 500, DEADLINE_S, "the end of its lease")
    assert heard.report(full).ballot == in_office, "what is not on the disk is not adopted"
    assert controllers[full].alive
    make_room_on_disk(room, full)
    wait_until(lambda: controllers[full].logs("INFO journal accepts writes again"), DEADLINE_S)
    wait_until(lambda: heard.presence(full) == "online", DEADLINE_S, "the word to the others")
    wait_until(lambda: heard.report(full).ballot.rack == other, DEADLINE_S, "the new ballot")
    # 3000 W less the guard of 1 %
    wait_until(lambda: shares() == [1485, 1485], DEADLINE_S, "equal shares")


def test_a_start_with_a_full_disk_says_nothing_to_anybody_and_holds_until_the_lease_ends(
    room, mosquitto, listen, wait_until
):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port)
    room.init("r1")
    fill_disk(room, "r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    said = f"ERROR journal refused reason={room.state('r1')}/journal.json: No space left on device"
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    wait_until(lambda: rack.in_force_w == 500, DEADLINE_S, "the floor")
    assert (heard.report("r1"), heard.beat()) == (None, None), "a boot is on disk before it is said"
    assert controller.alive


def test_init_on_a_full_disk_names_the_file_and_leaves_no_journal(room):
    room.limit_rack("r1")
    room.write_site(1)
    fill_disk(room, "r1")
    done = room.command("init", "--rack", "r1", "--offline")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{room.state('r1')}/journal.json: No space left on device\n"
    assert not (room.state("r1") / "journal.json").exists()
