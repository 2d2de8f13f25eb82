"""Devices that do not answer, refuse, vanish, come back: the controller lives and says so."""

from __future__ import annotations

import socket
import time

from emulated_room import DEADLINE_S

from hil.modbus_device import ModbusDevice
from hil.plant import NO_LIMIT_W


def test_a_wrong_community_leaves_the_draw_unknown_and_the_demand_at_the_ceiling(  # protocol R9
    room, mosquitto, listen, wait_until
):
    rack = room.outlet_rack("r1", community="hausordnung", asked_as="falschwort")
    room.write_site(mosquitto.port, cap_w=1450)
    room.init("r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    wait_until(lambda: controller.logs("device gives no value"), DEADLINE_S, "a word of it")
    port = room.hardware.pdus["r1"].port
    assert controller.logs(
        "WARNING device gives no value device=pdu points=input.realpower, outlet.1.status,"
        f" outlet.2.status reason=timeout detail=snmp://127.0.0.1:{port}: no answer within 1 s;"
        " check address, port, SNMP version, community (a wrong one gets no answer)"
    )
    wait_until(lambda: heard.seq("r1") > 5, DEADLINE_S, "reports")
    report = heard.report("r1")
    assert (report.measured_w, report.demand_w, report.bound_w) == (None, 1450, 1450)
    assert rack.limit_w == 1000  # the outlets as they were
    assert controller.alive
    assert "falschwort" not in controller.log


def test_ports_that_accept_and_never_answer_leave_the_rack_counted_at_its_ceiling(
    room, mosquitto, black_hole, listen, wait_until
):
    url = f"modbus://127.0.0.1:{black_hole.port}"
    room.set_limit_rack("r1", meter=f"{url}/1", limit=f"{url}/2")
    room.write_site(mosquitto.port)
    room.init("r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    said = (
        f"device gives no value device=meter points=input.realpower reason=timeout detail={url}/1:"
        " no answer within 0.3 s"
    )
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    said = f"device=limit points=limit.realpower reason=timeout detail={url}/2: no"
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    wait_until(lambda: heard.seq("r1") > 5, DEADLINE_S, "reports")
    report = heard.report("r1")
    assert (report.measured_w, report.demand_w, report.bound_w) == (None, 3000, 3000)
    assert controller.alive


def test_modbus_exceptions_are_no_values_and_no_end(room, mosquitto, listen, wait_until):
    rack = room.limit_rack("r1", holds_w=1500)
    refuses_reads = ModbusDevice(
        inputs=0x180, holdings=2, refresh_inputs=dict, readable=lambda address, count: False
    )
    refuses_writes = ModbusDevice(
        inputs=2,
        holdings=2,
        refresh_inputs=dict,
        refresh_holdings=lambda: {0: [rack.register_w, rack.in_force_w]},
        write=lambda address, values: False,
    )
    ports = [room.hardware.serve(refuses_reads), room.hardware.serve(refuses_writes)]
    room.set_limit_rack(
        "r1", meter=f"modbus://127.0.0.1:{ports[0]}/1", limit=f"modbus://127.0.0.1:{ports[1]}/1"
    )
    room.write_site(mosquitto.port, cap_w=2000)
    room.init("r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    said = (
        "WARNING device gives no value device=meter points=input.realpower reason=refused"
        " detail=exception 2, illegal data address"
    )
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    said = (
        "WARNING write failed command=limit.realpower reason=refused"
        " detail=exception 2, illegal data address"
    )
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    # A raise that does not show never happened (protocol R5).
    said = "WARNING hardware is below the limit limit_w=1500"
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    report = heard.report("r1")
    assert (report.measured_w, report.demand_w) == (None, 3000)
    assert controller.alive


def test_hardware_that_can_never_be_read_counts_at_its_ceiling_and_is_written_to_its_floor(
    room, mosquitto, listen, wait_until
):  # protocol R7
    rack = room.limit_rack("r1", holds_w=1500)
    only_writes = ModbusDevice(  # the register that tells the limit in force is not there
        inputs=2,
        holdings=1,
        refresh_inputs=dict,
        write=lambda address, values: rack.write_limit(values[0], 0.0) is None,
    )
    meter, limit = room.hardware.meters["r1"].port, room.hardware.serve(only_writes)
    room.set_limit_rack(
        "r1", meter=f"modbus://127.0.0.1:{meter}/1", limit=f"modbus://127.0.0.1:{limit}/1"
    )
    room.write_site(mosquitto.port, cap_w=2000)
    room.init("r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    wait_until(lambda: rack.in_force_w == 500, 5.0, "the floor")
    assert controller.logs("WARNING lease ended: rack goes to its floor w=500")
    wait_until(lambda: heard.limit_w("r1") == 500, 5.0, "a report of it")
    assert heard.report("r1").bound_w == 3000
    assert set(rack.writes_w) == {500}


def test_devices_that_vanish_and_come_back_without_their_setting_are_limited_again(
    room, mosquitto, listen, wait_until
):
    forgets_w = {"r1": 2500, "r2": NO_LIMIT_W}  # a limit of its own, none at all
    racks = {name: room.limit_rack(name, holds_w=1500) for name in forgets_w}
    room.write_site(mosquitto.port, cap_w=4000)
    room.init("r1", "r2")
    heard = listen(mosquitto)
    controllers = {name: room.run(name) for name in racks}
    for name, rack in racks.items():
        wait_until(
            lambda name=name, rack=rack: (
                rack.in_force_w == 1980 and heard.report(name).measured_w == 1980
            ),
            DEADLINE_S,
            f"{name} at its share",
        )
    devices = [*room.hardware.meters.values(), *room.hardware.limits.values()]
    for device in devices:
        room.hardware.call(device.stop())
    for name, rack in racks.items():
        wait_until(lambda name=name: heard.report(name).measured_w is None, DEADLINE_S, "staleness")
        assert heard.report(name).demand_w == 3000
        assert heard.limit_w(name) == 1980
        for device, point in (("meter", "input.realpower"), ("limit", "limit.realpower")):
            said = f"WARNING device gives no value device={device} points={point} reason=timeout"
            assert controllers[name].logs(said)
        rack.preset(forgets_w[name])
    for device in devices:
        room.hardware.call(device.start())
    for name, rack in racks.items():
        wait_until(lambda rack=rack: rack.in_force_w == 1980, DEADLINE_S, "the limit again")
        wait_until(
            lambda name=name: (
                (heard.report(name).bound_w, heard.report(name).measured_w) == (1980, 1980)
            ),
            DEADLINE_S,
            "the promise and the draw of before",
        )
        assert controllers[name].logs("ERROR hardware lets through more than was promised")
        assert controllers[name].logs("INFO device gives all its values again device=meter")
        assert rack.writes_w == [1980, 1980]


def test_a_raise_of_before_that_takes_effect_after_the_restart_is_held_too(  # protocol R7
    room, mosquitto, listen, wait_until
):
    rack = room.limit_rack("r1", holds_w=1500)
    room.write_site(mosquitto.port, cap_w=2000)
    room.init("r1")
    heard = listen(mosquitto)
    controller = room.run("r1")
    wait_until(lambda: controller.logs("hardware read limit_w=1500"), DEADLINE_S)
    rack.preset(1980)
    wait_until(lambda: heard.report("r1") and heard.report("r1").bound_w == 1980, DEADLINE_S)
    assert rack.writes_w == []


def test_probe_of_devices_that_stay_silent_ends_with_3_and_says_what_to_check(room, black_hole):
    room.outlet_rack("r1", community="hausordnung")
    agent = f"127.0.0.1:{room.hardware.pdus['r1'].port}"
    hole = f"modbus://127.0.0.1:{black_hole.port}/1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        silent = f"127.0.0.1:{udp.getsockname()[1]}"
        began_s = time.monotonic()
        wrong = room.begin("probe", f"snmp://falschwort@{agent}")
        nobody = room.begin("probe", f"snmp://falschwort@{silent}", "--profile", "apc-rpdu2")
        black = room.begin("probe", hole, "--profile", "generic-power-limit", "--json")
        assert (wrong.wait(), nobody.wait(), black.wait()) == (3, 3, 3)
    check = (
        "no answer within 2 s; check address, port, SNMP version, community (a wrong one gets"
        " no answer) and the agent's access list\n"
    )
    assert wrong.log == f"snmp://{agent}: {check}"
    assert nobody.log == f"snmp://{silent}: {check}"
    assert black.log == f"{hole}: no answer within 0.4 s; check address, port and unit\n"
    assert time.monotonic() - began_s < 8.0  # one timeout each, not one per request


def test_probe_where_nobody_listens_names_the_ways_it_can_be(room, free_port):
    url = f"modbus://127.0.0.1:{free_port()}/1"
    done = room.command("probe", url, "--profile", "eastron-sdm630")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"{url}: no connection (refused, unreachable, or in use by another master); check"
        " address, port and unit\n"
    )


def test_probe_shows_a_refusal_as_the_reason_of_every_point(room):
    refuses = ModbusDevice(
        inputs=0x180, holdings=2, refresh_inputs=dict, readable=lambda address, count: False
    )
    port = room.hardware.serve(refuses)
    url = f"modbus://127.0.0.1:{port}/1"
    points = room.probe_json(url, "--profile", "eastron-sdm630")["points"]
    assert points["input.realpower"] == {"missing": "refused"}
    assert {tuple(point.items()) for point in points.values()} == {(("missing", "refused"),)}
