"""Two controllers under one rack's name: one of them ends and says why (protocol R10)."""

from __future__ import annotations

from emulated_room import DEADLINE_S


def test_a_second_controller_with_the_same_journal_ends_at_once(room, mosquitto, wait_until):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port)
    room.init("r1")
    first = room.run("r1")
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the first at work")
    second = room.run("r1")
    assert second.wait() == 2
    assert second.log == (
        f"{room.state('r1')}: another controller runs with this journal; stop it first\n"
    )
    assert first.alive
    assert rack.writes_w == [1980]


def test_of_two_journals_the_younger_boot_ends_and_the_other_goes_on_after_its_ttl(
    room, mosquitto, listen, wait_until
):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port)
    room.init("r1", boot=6)
    room.init("r1", boot=1, state=room.state("cloned"))
    heard = listen(mosquitto)
    real = room.run("r1")
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the real one at work")
    clone = room.run("r1", state=room.state("cloned"))
    assert clone.wait() == 2
    assert clone.logs("ERROR controller ends: another controller runs as r1 (boot 7)")
    # The clone may have ended before it said anything; if it was heard, the real one obeys
    # nobody for its ttl, and R6 goes on meanwhile.
    wait_until(lambda: heard.report("r1").boot == 7, DEADLINE_S, "the real one is heard")
    seq = heard.report("r1").seq
    wait_until(lambda: heard.report("r1").seq >= seq + 3, DEADLINE_S, "three more reports")
    disturbed = real.logs(
        "ERROR another controller runs under this rack's name rack=r1 boot=2 instance="
    )
    if disturbed:
        wait_until(lambda: 500 in rack.writes_w, DEADLINE_S, "the end of the lease")
    wait_until(lambda: rack.writes_w[-1] == 1980, DEADLINE_S, "the limit of before")
    assert real.alive
    assert heard.report("r1").boot == 7
    assert heard.presence("r1") == "online", "the clone's goodbye is not the last word"
    lowered = [500, *rack.writes_w[2:-1], 1980] if disturbed else []
    assert rack.writes_w == [1980, *lowered]


def test_of_two_journals_an_older_boot_that_was_first_ends_too(room, mosquitto, wait_until):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port)
    room.init("r1", boot=1, state=room.state("cloned"))
    room.init("r1", boot=6)
    clone = room.run("r1", state=room.state("cloned"))
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the clone at work")
    real = room.run("r1")
    assert clone.wait() == 2
    assert clone.logs("ERROR controller ends: another controller runs as r1 (boot 7)")
    wait_until(lambda: real.logs("this rack is broker now"), DEADLINE_S, "the real one leads")
    assert real.alive
