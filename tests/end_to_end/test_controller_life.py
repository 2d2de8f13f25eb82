"""A rack's controller from its start to its end, on real devices and a real MQTT server."""

from __future__ import annotations

from emulated_room import DEADLINE_S

from broker.messages import Ballot

SETTLED_REPORTS = 6  # more than a second: every write has settled by then


def wait_for_reports(heard, wait_until, *racks):
    """Until more reports of each have come: whatever was under way has happened."""
    for rack, seq in {rack: heard.seq(rack) + SETTLED_REPORTS for rack in racks}.items():
        wait_until(
            lambda rack=rack, seq=seq: heard.seq(rack) >= seq, DEADLINE_S, f"reports of {rack}"
        )


def shares_of(racks):
    return [rack.in_force_w for rack in racks.values()]


def test_a_lone_rack_becomes_broker_raises_itself_to_its_cap_and_leaves_the_hardware_so(
    room, mosquitto, listen, wait_until
):
    rack = room.limit_rack("r1", holds_w=500)
    room.write_site(mosquitto.port, cap_w=2000)
    room.init("r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    # 2000 W less the guard of 1 %
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the rack at its cap")
    wait_until(lambda: heard.report("r1").bound_w == 1980, DEADLINE_S, "the promise")
    assert heard.beat().ballot == Ballot(1, "r1")
    assert heard.explain("r1").set_by == "broker r1, term 1"
    assert heard.explain("r1").cap == "room"
    assert heard.presence("r1") == "online"
    assert controller.logs("INFO this rack is broker now ballot=1/r1")
    written = list(rack.writes_w)
    assert written == sorted(set(written)), "a raise is written once  # protocol R5"
    assert room.hardware.peak_w == 1980
    assert controller.terminate() == 0
    assert controller.logs("INFO controller ends: told to stop")
    late = listen(mosquitto)
    wait_until(lambda: late.presence("r1") == "offline", DEADLINE_S, "the retained goodbye")
    assert (rack.writes_w, rack.in_force_w) == (written, 1980)


def test_two_racks_share_a_cap_and_whatever_is_said_can_be_decoded(
    room, mosquitto, listen, wait_until
):
    r1, r2 = room.limit_rack("r1"), room.limit_rack("r2")
    room.write_site(mosquitto.port, cap_w=4000)
    room.init("r1", "r2")
    heard = listen(mosquitto)
    room.run("r1")
    room.run("r2")
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (1980, 1980), DEADLINE_S, "equal shares")
    wait_for_reports(heard, wait_until, "r1")
    assert (r1.in_force_w, r2.in_force_w) == (1980, 1980)
    assert room.hardware.peak_w <= 4000
    assert heard.undecodable() == []
    assert heard.topics() == {
        "wattbroker/lab/broker",
        "wattbroker/lab/caps/room",
        "wattbroker/lab/election",
        "wattbroker/lab/market",
        "wattbroker/lab/roster",
        "wattbroker/lab/racks/r1/explain",
        "wattbroker/lab/racks/r1/grant",
        "wattbroker/lab/racks/r1/online",
        "wattbroker/lab/racks/r1/report",
        "wattbroker/lab/racks/r2/explain",
        "wattbroker/lab/racks/r2/grant",
        "wattbroker/lab/racks/r2/online",
        "wattbroker/lab/racks/r2/report",
    }


def test_the_other_leads_after_the_broker_was_killed_and_nobody_falls_to_its_floor(
    room, mosquitto, listen, wait_until
):
    racks = {name: room.limit_rack(name, holds_w=1500) for name in ("r1", "r2")}
    room.write_site(mosquitto.port, cap_w=4000)
    room.init(*racks)
    heard = listen(mosquitto)
    controllers = {name: room.run(name) for name in racks}
    wait_until(lambda: shares_of(racks) == [1980, 1980], DEADLINE_S, "equal shares")
    dead, other = ("r1", "r2") if heard.leader() == "r1" else ("r2", "r1")
    controllers[dead].kill()
    wait_until(lambda: heard.leader() == other, DEADLINE_S, "the new broker")
    assert heard.presence(dead) == "offline"
    # The dead rack counts at its ceiling, and its hardware keeps what it had.
    wait_until(lambda: racks[other].in_force_w == 960, DEADLINE_S, "what a dead rack leaves")
    wait_for_reports(heard, wait_until, other)
    assert racks[dead].in_force_w == 1980
    assert min(racks[other].writes_w) == 960
    assert controllers[other].alive
    room.run(dead)
    wait_until(lambda: shares_of(racks) == [1980, 1980], DEADLINE_S, "equal shares again")
    assert room.hardware.peak_w <= 4000


def test_floor_on_exit_lowers_the_rack_before_it_says_goodbye(room, mosquitto, wait_until):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port, cap_w=2000)
    room.init("r1")
    controller = room.run("r1", "--floor-on-exit")
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the rack at its cap")
    assert controller.terminate() == 0
    assert rack.in_force_w == 500
    assert controller.logs("rack lowered: promises 500 W")


def test_a_restart_after_sigkill_writes_nothing_higher_and_nothing_lower(  # protocol R7
    room, mosquitto, listen, wait_until
):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port, cap_w=2000)
    room.init("r1")
    heard = listen(mosquitto)
    killed = room.run("r1")
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the rack at its cap")
    killed.kill()
    wait_until(lambda: heard.presence("r1") == "offline", DEADLINE_S, "the will")
    again = room.run("r1")
    wait_until(lambda: heard.first_report("r1", boot=2), DEADLINE_S, "the second boot")
    first = heard.first_report("r1", boot=2)
    assert (first.bound_w, first.starting) == (3000, True)
    wait_until(lambda: heard.report("r1").bound_w == 1980, DEADLINE_S, "the promise of before")
    wait_for_reports(heard, wait_until, "r1")
    assert heard.limit_w("r1") == 1980
    assert rack.writes_w == [1980]
    assert again.logs("INFO hardware read limit_w=1980")
    assert heard.beat().ballot == Ballot(2, "r1")


def test_without_an_mqtt_server_everybody_says_where_it_looked_and_the_controller_goes_on(
    room, free_port, mosquitto_factory, wait_until
):
    port = free_port()
    rack = room.limit_rack("r1", holds_w=1500)
    room.limit_rack("r2")
    room.write_site(port, cap_w=2000)
    room.init("r1")
    controller = room.run("r1")
    init, cap = room.begin("init", "--rack", "r2"), room.begin("cap", "room", "1900")
    looked = (
        f"nothing listens at 127.0.0.1:{port}: is the MQTT server running? check [mqtt] host and"
        " port"
    )
    said = f"WARNING MQTT server reason={looked}"
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    wait_until(lambda: controller.logs("hardware read limit_w=1500"), DEADLINE_S)
    assert rack.writes_w == []
    wait_until(lambda: rack.in_force_w == 500, DEADLINE_S, "the floor  # protocol R6")
    assert controller.logs("WARNING lease ended: rack goes to its floor w=500")
    assert rack.writes_w == [500]
    assert (init.wait(), cap.wait()) == (3, 3)
    assert init.log == f"{looked}. Where there is no MQTT server yet, use --offline\n"
    assert cap.log == f"{looked}\n"
    assert not (room.state("r2") / "journal.json").exists()
    assert controller.alive
    mosquitto_factory(port=port)
    wait_until(lambda: controller.logs("INFO connected to the MQTT server, MQTT 5"), DEADLINE_S)
    wait_until(lambda: controller.logs("INFO this rack is broker now"), DEADLINE_S)


def test_everybody_comes_back_after_the_mqtt_server_has_lost_its_memory(
    room, mosquitto, listen, wait_until
):
    r1, r2 = room.limit_rack("r1", holds_w=1500), room.limit_rack("r2", holds_w=1500)
    room.write_site(mosquitto.port, cap_w=4000)
    room.init("r1", "r2")
    one, two = room.run("r1"), room.run("r2")
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (1980, 1980), DEADLINE_S, "equal shares")
    written = (list(r1.writes_w), list(r2.writes_w))
    mosquitto.restart()
    heard = listen(mosquitto)
    for rack in ("r1", "r2"):
        wait_until(lambda rack=rack: heard.grant(rack) is not None, DEADLINE_S, f"grants of {rack}")
    wait_for_reports(heard, wait_until, "r1", "r2")
    assert heard.beat().ballot.term >= 2  # protocol B6
    assert (r1.writes_w, r2.writes_w) == written, "nobody fell, nobody rose"
    for controller in (one, two):
        assert controller.alive
        assert controller.logs(f"lost the MQTT server at 127.0.0.1:{mosquitto.port}")


def test_a_rack_without_a_journal_is_counted_at_its_ceiling_until_it_is_heard(  # protocol R11
    room, mosquitto, listen, wait_until
):
    r1, r2 = room.limit_rack("r1"), room.limit_rack("r2")
    room.write_site(mosquitto.port, cap_w=4000, timing='clock = "trusted"')
    room.init("r2")
    heard = listen(mosquitto)
    room.run("r2")
    wait_until(lambda: r2.in_force_w == 960, DEADLINE_S, "what is left beside a ceiling")
    forgetful = room.run("r1")
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (1980, 1980), DEADLINE_S, "equal shares")
    assert forgetful.logs("ERROR there is no journal: this rack counts at its ceiling")
    assert forgetful.logs("ERROR journal lost: term and boot taken from the clock boot=")
    assert heard.beat().ballot.rack == "r2"
    assert heard.beat().ballot.term > 1_700_000_000_000  # above the clock's term
    assert room.hardware.peak_w <= 4000


def test_a_lone_rack_without_a_journal_rests_at_its_floor_and_leads_nobody(  # protocol R11
    room, mosquitto, listen, wait_until
):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port, cap_w=2000, timing='clock = "trusted"')
    heard = listen(mosquitto)
    controller = room.run("r1")
    wait_until(lambda: rack.in_force_w == 500, DEADLINE_S, "the floor")
    wait_for_reports(heard, wait_until, "r1")
    assert heard.beat() is None
    assert rack.writes_w == [500]
    assert controller.alive
    assert controller.logs("init --all-new")
