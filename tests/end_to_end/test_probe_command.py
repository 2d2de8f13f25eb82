"""`probe` on emulated devices: the text for people, and the JSON that other tools are built on."""

from __future__ import annotations

import pytest


@pytest.fixture
def pdu_url(room):
    """An rPDU2 with two outlets, the second off."""
    room.outlet_rack("r1", community="hausordnung")
    return f"snmp://hausordnung@127.0.0.1:{room.hardware.pdus['r1'].port}"


def test_an_snmp_device_is_recognised_and_read_as_json(room, pdu_url):
    found = room.probe_json(pdu_url)
    assert list(found) == ["device", "points"]
    assert found["device"] == {
        "profile": "apc-rpdu2",
        "vendor": "APC by Schneider Electric",
        "model": "AP8659",
        "serial": "EMU0000010",
        "url": pdu_url.replace("hausordnung@", ""),
    }
    points = found["points"]
    for name, unit in (
        ("input.realpower", "W"),
        ("input.power", "VA"),
        ("input.energy", "Wh"),
        ("input.L1.voltage", "V"),
        ("input.L1.current", "A"),
        ("input.L1.realpower", "W"),
        ("outlet.1.realpower", "W"),
        ("outlet.1.current", "A"),
        ("outlet.1.status", ""),
        ("outlet.1.name", ""),
    ):
        assert list(points[name]) == ["value", "unit", "age_s"]
        assert points[name]["unit"] == unit
        assert 0 <= points[name]["age_s"] < 5
    # Base load, and an outlet whose server draws 85 % of its 700 W or more.
    assert 291 - 10 + 595 <= points["input.realpower"]["value"] <= 1000
    assert points["input.L1.voltage"]["value"] == 230.0
    assert [points[f"outlet.{n}.status"]["value"] for n in (1, 2)] == ["on", "off"]
    assert points["outlet.2.name"]["value"] == "server 2"
    assert points["outlet.2.realpower"]["value"] == 0.0
    assert points["outlet.3.realpower"] == {"missing": "absent"}
    assert points["device.2.input.realpower"] == {"missing": "absent"}


def test_the_text_has_a_line_per_point_and_one_for_a_run_of_rows_that_are_not_there(room, pdu_url):
    done = room.command("probe", pdu_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hausordnung" not in done.stdout
    head, *rows = done.stdout.splitlines()
    assert head == (
        f"{pdu_url.replace('hausordnung@', '')}  APC by Schneider Electric AP8659 EMU0000010"
        "  (profile apc-rpdu2)"
    )
    words = {row.split()[0]: row.split()[1:] for row in rows}
    assert words["input.L1.voltage"][:2] == ["230", "V"]
    assert words["input.L1.voltage"][3:] == ["s", "ago"]
    assert words["outlet.2.status"][0] == "off"
    assert words["outlet.3.status"] == ["…", "outlet.48.status", "—", "absent"]


def test_a_modbus_device_is_read_by_the_profile_that_is_named(room):
    room.limit_rack("r1", holds_w=1500)
    url = f"modbus://127.0.0.1:{room.hardware.limits['r1'].port}/1"
    found = room.probe_json(url, "--profile", "generic-power-limit")
    assert found["device"] == {
        "profile": "generic-power-limit",
        "vendor": "wattbroker",
        "model": "power limit register map",
        "serial": None,
        "url": url,
    }
    assert {name: (p["value"], p["unit"]) for name, p in found["points"].items()} == {
        "limit.realpower.setting": (1500.0, "W"),
        "limit.realpower": (1500.0, "W"),
        "input.realpower": (1500.0, "W"),
    }
    url = f"modbus://127.0.0.1:{room.hardware.meters['r1'].port}/1"
    points = room.probe_json(url, "--profile", "eastron-sdm630")["points"]
    values = [points[f"input.{name}"]["value"] for name in ("realpower", "L1.realpower")]
    assert values == [1500.0, 500.0]
    assert points["input.frequency"]["value"] == 50.0


def test_a_profile_of_ones_own_is_taken_from_its_folder(room):
    room.limit_rack("r1", holds_w=1500)
    url = f"modbus://127.0.0.1:{room.hardware.limits['r1'].port}/1"
    folder = str(room.folder / "profiles")
    found = room.probe_json(url, "--profile", "quick-limit", "--profiles", folder)
    assert found["device"]["profile"] == "quick-limit"
    assert found["points"]["limit.realpower"]["value"] == 1500.0


def test_a_modbus_device_without_a_profile_is_refused_with_the_names_of_those_there_are(room):
    done = room.command("probe", "modbus://127.0.0.1:1/1")
    assert (done.returncode, done.stdout) == (2, "")
    begin, _, names = done.stderr.strip().rpartition("one of: ")
    assert begin == (
        "modbus://127.0.0.1:1/1: a Modbus device does not say what it is; name its profile with"
        " --profile, "
    )
    assert {"eastron-sdm630", "generic-power-limit"} <= set(names.split(", "))
    assert "apc-rpdu2" not in names  # another protocol's


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["modbus://127.0.0.1:1/1", "--profile", "apc-rpdu2"],
            "modbus://127.0.0.1:1/1: profile apc-rpdu2 is for snmp\n",
        ),
        (
            ["modbus://127.0.0.1:1/1", "--profile", "nix"],
            "no profile called 'nix'; there are: apc-rpdu2, ",
        ),
        (
            ["http://geheim@127.0.0.1"],
            "http://127.0.0.1: not a device URL; expected one of snmp://, snmp1://, snmp3://,"
            " modbus://, for example snmp://public@192.0.2.21 or modbus://192.0.2.31:502/1\n",
        ),
    ],
    ids=["of another protocol", "unknown profile", "no device"],
)
def test_what_cannot_be_probed_is_the_operators_input(room, arguments, said):
    done = room.command("probe", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
