"""What an operator types: check, init, probe, cap. Text, JSON and exit codes are contracts."""

from __future__ import annotations

import json

from emulated_room import DEADLINE_S, SITE

from broker.topics import Kind, Topic

TEN_FAULTS = """\
schema = 1
site = "lab"
colour = "green"

[mqtt]
host = "127.0.0.1"
port = 70_000

[timing]
tick_s = 1.0
beat_timeout_s = 0.8

[[cap]]
name = "room"
limit_w = 1_000

[[cap]]
name = "row1"
parent = "hall"
limit_w = 5_000

[[rack]]
name = "r1"
rank = 10
cap = "room"
floor_w = 900
ceiling_w = 800

  [[rack.device]]
  name = "limit"
  url = "modbus://127.0.0.1:5020/1"
  profile = "generic-power-limits"

[[rack]]
name = "r2"
rank = 10
cap = "room"
floor_w = "much"
ceiling_w = 3_000

  [[rack.device]]
  name = "pdu"
  url = "snmp://geheimwort@127.0.0.1:0"
  profile = "apc-rpdu2"
"""


def test_check_says_all_ten_faults_at_once_and_no_secret(room):
    room.site.write_text(TEN_FAULTS)
    done = room.command("check", str(room.site))
    assert (done.returncode, done.stdout) == (2, "")
    *faults, last = done.stderr.splitlines()
    assert last == "10 fault(s)"
    places = [fault.removeprefix(f"{room.site}:").split(": ")[:2] for fault in faults]
    assert places == [
        ["3", "colour"],
        ["7", "mqtt.port"],
        ["11", "timing.beat_timeout_s"],
        ["18", 'cap[1] "row1".name'],
        ["19", 'cap[1] "row1".parent'],
        ["26", 'rack[0] "r1".floor_w'],
        ["32", 'rack[0] "r1".device[0] "limit".profile'],
        ["36", 'rack[1] "r2".rank'],
        ["38", 'rack[1] "r2".floor_w'],
        ["43", 'rack[1] "r2".device[0] "pdu".url'],
    ]
    assert "geheimwort" not in done.stderr
    as_json = room.command("check", str(room.site), "--json")
    assert (as_json.returncode, as_json.stderr) == (2, "")
    said = json.loads(as_json.stdout)
    assert (said["ok"], len(said["faults"]), said["warnings"]) == (False, 10, [])
    assert [set(fault) for fault in said["faults"]] == [{"key", "line", "text"}] * 10
    assert as_json.stdout.count("\n") == 1
    run = room.run("r1")
    assert run.wait() == 2
    assert run.log.splitlines() == faults


def test_check_of_a_usable_file_is_0_and_of_none_is_2(room):
    room.limit_rack("r1")
    room.write_site(1)
    done = room.command("check", str(room.site))
    assert (done.returncode, done.stdout) == (0, f"{room.site}: 1 racks under 1 caps: usable\n")
    done = room.command("check", str(room.folder / "none.toml"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{room.folder / 'none.toml'}: ")
    assert "Traceback" not in done.stderr


def test_a_rack_that_is_not_in_the_file_is_named_with_those_that_are(room):
    room.limit_rack("r1")
    room.limit_rack("r2")
    room.write_site(1)
    controller = room.run("r9")
    assert controller.wait() == 2
    assert controller.log == f"no rack is called r9; {room.site} has: r1, r2\n"


def test_init_is_for_once(room):
    room.limit_rack("r1")
    room.write_site(1)
    done = room.command("init", "--rack", "r1", "--offline")
    assert (done.returncode, done.stdout, done.stderr) == (0, "r1: ready to run\n", "")
    done = room.command("init", "--rack", "r1", "--offline")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{room.state('r1')}/journal.json: there is a journal already: a rack is initialised once\n"
    )


def test_init_refuses_a_rack_that_the_server_knows_unless_all_are_new(room, mosquitto, tap):
    room.limit_rack("r1")
    room.write_site(mosquitto.port)
    path = Topic(Kind.REPORT, "r1").path(SITE)
    tap(mosquitto, "nothing/of/interest").publish(path, b"whatever it once said", True)
    done = room.command("init", "--rack", "r1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "the MQTT server knows a report of r1: it has run before. Without its journal it needs"
        " no init, just start it; where no rack of the site has one any more, use --all-new with"
        " all hardware at its floor\n"
    )
    done = room.command("init", "--rack", "r1", "--all-new")
    assert (done.returncode, done.stdout) == (0, "r1: ready to run\n")


def test_init_asks_a_server_that_knows_nothing_and_succeeds(room, mosquitto):
    room.limit_rack("r1")
    room.write_site(mosquitto.port)
    done = room.command("init", "--rack", "r1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "r1: ready to run\n", "")


def test_a_cap_is_in_force_when_the_command_ends_and_withdrawn_by_clear(
    room, mosquitto, listen, wait_until
):
    r1, r2 = room.limit_rack("r1", holds_w=2900), room.limit_rack("r2", holds_w=2900)
    room.write_site(mosquitto.port, cap_w=6500)
    room.init("r1", "r2")
    heard = listen(mosquitto)
    room.run("r1")
    room.run("r2")
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (3000, 3000), DEADLINE_S, "all they want")
    done = room.command("cap", "room", "5000")
    assert (done.returncode, done.stdout, done.stderr) == (0, "room: 5000 W in force\n", "")
    wait_until(lambda: r1.in_force_w + r2.in_force_w <= 5000, 3.0, "the registers below the cap")
    done = room.command("cap", "room", "900", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "cap": "room",
        "in_force_w": 900,
        "short_w": 100,
        "fallback_w": None,
    }
    done = room.command("cap", "room", "--clear", "nobody")
    assert (done.returncode, done.stderr) == (2, "room: no source is called nobody\n")
    wait_until(lambda: (r1.in_force_w, r2.in_force_w) == (500, 500), 3.0, "no lower than floors")
    done = room.command("cap", "room", "--clear", "operator")
    assert (done.returncode, done.stdout) == (0, "room: 6500 W in force\n")
    wait_until(lambda: r1.in_force_w + r2.in_force_w > 5000, DEADLINE_S, "the room of before")
    state = heard.last(Topic(Kind.CAP_STATE, "room"))
    assert (state.limit_w, state.by, state.short_w) == (6500, "site", 0)


def test_a_cap_that_is_none_of_the_sites_or_no_number_is_refused(room):
    room.limit_rack("r1")
    room.write_site(1)
    done = room.command("cap", "rum", "5000")
    assert (done.returncode, done.stderr) == (2, "no cap is called rum; the site file has: room\n")
    for arguments in (["room"], ["room", "5000", "--clear", "operator"]):
        done = room.command("cap", *arguments)
        assert (done.returncode, done.stderr) == (
            2,
            "say either a limit in watts or --clear BY\n",
        )
    assert room.command("cap", "room", "much").returncode == 2
    done = room.command("cap", "room", "--clear", "")
    assert (done.returncode, done.stderr) == (
        2,
        "a source's name is 1 to 64 letters, digits, or any of - _ .\n",
    )
