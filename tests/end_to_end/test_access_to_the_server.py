"""A server that does not let the controller in: it says why, tries again, keeps secrets."""

from __future__ import annotations

from emulated_room import DEADLINE_S

WRONG_WORD = "Mondlicht-17"


def test_a_wrong_password_is_named_tried_again_and_never_printed(
    room, mosquitto_factory, wait_until
):
    server = mosquitto_factory(users={"r1": "Sonnenschein-3"})
    rack = room.limit_rack("r1", holds_w=1500)
    (room.folder / "mqtt.pass").write_text(f"{WRONG_WORD}\n")
    mqtt = 'username = "r1"\npassword_file = "mqtt.pass"'
    room.write_site(server.port, mqtt=mqtt)
    room.init("r1")
    controller = room.run("r1", "--verbose")
    said = (
        f"ERROR MQTT server reason=the MQTT server at 127.0.0.1:{server.port} lets nobody in"
        " as 'r1' with this password: check [mqtt] username and password_file"
    )
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    attempts = server.log().count("not authorised")
    wait_until(lambda: server.log().count("not authorised") > attempts, DEADLINE_S, "a retry")
    done = room.command("cap", "room", "1500")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"{said.removeprefix('ERROR MQTT server reason=')}\n"
    assert controller.alive
    server.stop()
    # The operator sets the word on the server right: nobody has to restart the controller.
    mosquitto_factory(users={"r1": WRONG_WORD}, port=server.port)
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the rack at its cap")
    assert controller.terminate() == 0
    assert WRONG_WORD not in controller.log


def test_a_server_of_another_ca_is_refused_until_the_right_ca_is_there(
    room, mosquitto_factory, certificates, wait_until
):
    server = mosquitto_factory(tls=True)
    rack = room.limit_rack("r1", holds_w=1500)
    ca = room.folder / "ca.pem"
    ca.write_bytes(certificates.other_ca.read_bytes())
    room.write_site(server.port, mqtt='tls = { ca = "ca.pem" }')
    room.init("r1")
    controller = room.run("r1")
    said = (
        f"ERROR MQTT server reason=the certificate of 127.0.0.1:{server.port} is not trusted by"
        f" {ca} ("
    )
    wait_until(lambda: controller.logs(said), DEADLINE_S, said)
    assert controller.logs("check [mqtt] tls.ca and the server's certificate")
    assert controller.alive
    assert server.log().count("Client connected") == 0
    ca.write_bytes(certificates.ca.read_bytes())
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the rack at its cap")


def test_a_client_certificate_lets_the_controller_in(
    room, mosquitto_factory, certificates, wait_until
):
    server = mosquitto_factory(client_certificates=True)
    rack = room.limit_rack("r1", holds_w=1500)
    tls = (
        f'tls = {{ ca = "{certificates.ca}", cert = "{certificates.client_cert}",'
        f' key = "{certificates.client_key}" }}'
    )
    room.write_site(server.port, mqtt=tls)
    room.init("r1")
    room.run("r1")
    wait_until(lambda: rack.in_force_w == 1980, DEADLINE_S, "the rack at its cap")


def test_files_and_variables_that_the_site_file_names_must_be_there(room):
    room.limit_rack("r1")
    room.write_site(1, mqtt='username = "r1"\npassword_file = "no-such.pass"')
    room.init("r1")
    controller = room.run("r1")
    assert controller.wait() == 2
    assert controller.log == f"{room.folder / 'no-such.pass'}: No such file or directory\n"
    room.set_limit_rack("r1", meter="snmp://env:NO_SUCH@127.0.0.1", limit="modbus://127.0.0.1/1")
    room.write_site(1)
    site = room.site.read_text().replace('"quick-meter"', '"apc-rpdu2"').replace("0.2\n", "2.0\n")
    room.site.write_text(
        site.replace("stale_after_s = 1.0", "").replace("tick_s = 2.0", "tick_s = 0.2")
    )
    controller = room.run("r1")
    assert controller.wait() == 2
    assert controller.log == "snmp://127.0.0.1: the environment has no variable NO_SUCH\n"
