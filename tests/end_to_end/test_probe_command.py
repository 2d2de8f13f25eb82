"""`probe` as an operator types it: the text for people, the JSON that tools are built on,
and what it says when it cannot."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from pyasn1.type import univ
from served_devices import DEADLINE_S, Devices, answer, begin, command, commands

CHAIN = "apc-rpdu2"  # three PDUs behind one agent: the second half metered, the third not
METER = "eastron-sdm630"
START_UP_S = 5.0  # of three processes, on a busy machine
SNMP_CHECK = "check address, port, SNMP version, community"
MODBUS_CHECK = "check address, port and unit"
READ_INPUT = 4

TEN_TIMES = """\
schema = 1
name = "ten-times"
protocol = "modbus"
[product]
vendor = "Somebody"
models = ["One"]
[source]
document = "a manual with a misprint"
[limits]
timeout_ms = 500
[[point]]
name = "input.L1.voltage"
unit = "V"
table = "input"
address = 0
[[point]]
name = "input.L1.current"
unit = "A"
table = "input"
address = 1
scale = 0.1
[[point]]
name = "input.L1.realpower"
unit = "W"
table = "input"
address = 2
scale = 10
"""


@pytest.fixture
def devices():
    with Devices() as served:
        yield served


@pytest.fixture
def chain(devices):
    return devices.agent(CHAIN, community="hausordnung")


def url_of(agent, member=""):
    return f"snmp://hausordnung@127.0.0.1:{agent.port}{member}"


def printed(agent, member=""):
    return url_of(agent, member).replace("hausordnung@", "")


# ── one reading ───────────────────────────────────────────────────────────────────


def test_an_snmp_device_is_recognised_and_read_as_json(chain):
    found = answer("probe", url_of(chain, "/1"))
    assert list(found) == ["device", "points"]
    assert found["device"] == {
        "profile": "apc-rpdu2",
        "vendor": "APC by Schneider Electric",
        "model": "APDU9953",
        "serial": "TEST00000001",
        "url": printed(chain, "/1"),
    }
    points = found["points"]
    for name, value, unit in (
        ("input.realpower", 4310.0, "W"),
        ("input.power", 4450.0, "VA"),
        ("input.energy", 12345600.0, "Wh"),
        ("input.L1.voltage", 230.0, "V"),
        ("input.L1.current", 6.3, "A"),
        ("outlet.1.realpower", 207.0, "W"),
        ("outlet.1.status", "on", ""),
        ("outlet.2.status", "off", ""),
        ("outlet.1.name", "web 1", ""),
    ):
        assert list(points[name]) == ["value", "unit", "age_s"]
        assert (points[name]["value"], points[name]["unit"]) == (value, unit)
        assert 0 <= points[name]["age_s"] < 5
    assert points["outlet.3.status"] == {"missing": "absent"}


def test_the_text_has_a_line_per_point_and_one_for_a_run_of_rows_that_are_not_there(chain):
    done = command("probe", url_of(chain, "/1"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "hausordnung" not in done.stdout
    head, *rows = done.stdout.splitlines()
    assert head == (
        f"{printed(chain, '/1')}  APC by Schneider Electric APDU9953 TEST00000001"
        "  (profile apc-rpdu2)"
    )
    words = {row.split()[0]: row.split()[1:] for row in rows}
    assert words["input.L1.voltage"][:2] == ["230", "V"]
    assert words["input.L1.voltage"][3:] == ["s", "ago"]
    assert words["outlet.2.status"][0] == "off"
    assert words["outlet.3.status"] == ["…", "outlet.48.status", "—", "absent"]


def test_every_pdu_of_a_chain_is_shown_and_the_first_stands_at_the_top_level(chain):
    told, done = commands(["probe", url_of(chain), "--json"], ["probe", url_of(chain)])
    found = json.loads(told.stdout)
    members = found.pop("members")
    assert found == members[0]
    assert [each["device"]["url"] for each in members] == [
        printed(chain, f"/{n}") for n in (1, 2, 3)
    ]
    watts = [each["points"]["input.realpower"].get("value") for each in members]
    assert watts == [4310.0, 870.0, None]
    heads = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert [head.split()[0] for head in heads] == [printed(chain, f"/{n}") for n in (1, 2, 3)]


def test_a_pdu_of_a_chain_that_falls_silent_is_shown_as_missing(devices):
    breaker_of_2 = "1.3.6.1.4.1.232.165.2.3.2.1.2.2.1"  # breakerVoltage
    agent = devices.agent("hpe-pdu-module", dies_of=breaker_of_2)
    done = command("probe", f"snmp://127.0.0.1:{agent.port}", "--json")
    assert done.returncode == 0
    first, second = json.loads(done.stdout)["members"]
    assert first["points"]["input.realpower"]["value"] == 1610.0
    assert second["device"]["url"] == f"snmp://127.0.0.1:{agent.port}/2"
    assert {json.dumps(point) for point in second["points"].values()} == {'{"missing": "timeout"}'}


def test_one_pdu_of_a_chain_is_read_alone_where_the_url_names_it(chain):
    found = answer("probe", url_of(chain, "/2"))
    assert "members" not in found
    assert found["device"]["url"] == printed(chain, "/2")
    assert found["points"]["input.realpower"]["value"] == 870.0


def test_an_estimate_is_called_one(devices):
    agent = devices.agent("apc-rpdu")
    done = command("probe", f"snmp://127.0.0.1:{agent.port}")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert rows["input.realpower"].split()[1:3] == ["851", "W"]
    assert rows["input.realpower"].endswith("s ago  estimate")
    assert rows["input.L1.current"].endswith("s ago")


def test_a_product_without_a_meter_has_an_unknown_power_and_not_zero(devices):
    agents = [devices.agent(capture) for capture in ("apc-masterswitch", "gude-epc.switch")]
    for done in commands(*(["probe", f"snmp://127.0.0.1:{agent.port}"] for agent in agents)):
        assert done.returncode == 0
        assert done.stdout.splitlines()[1] == "  no meter: its power is unknown"
        assert not re.search(r"realpower .* W ", done.stdout)


def test_values_that_contradict_each_other_are_warned_of(devices, tmp_path):
    (tmp_path / "ten-times.toml").write_text(TEN_TIMES)
    unit = devices.unit({"input": {0: 230, 1: 100, 2: 2300}})  # 230 V, 10 A, and 2300 W × 10
    arguments = (f"modbus://127.0.0.1:{unit.port}/1", "--profile", "ten-times",
                 "--profiles", str(tmp_path))  # fmt: skip
    told, done = commands(["probe", *arguments, "--json"], ["probe", *arguments])
    found = json.loads(told.stdout)
    assert found["points"]["input.L1.realpower"]["value"] == 23000.0  # told as it was read
    (warning,) = found["warnings"]
    assert warning["kind"] == "scale"
    assert "input.L1.realpower" in warning["points"]
    assert (told.returncode, done.returncode) == (0, 0)
    assert done.stderr == f"warning: {warning['text']}\n"


def test_what_a_device_is_called_cannot_steer_the_operators_terminal(devices):
    agent = devices.agent(CHAIN)
    name = "1.3.6.1.4.1.318.1.1.26.9.2.3.1.3.1"
    agent.values = agent.values | {name: univ.OctetString(b"\x1b[2J\x1b]0;x\x07web\r\nfake 9 W")}
    done = command("probe", f"snmp://127.0.0.1:{agent.port}/1")
    assert done.returncode == 0
    assert [letter for letter in done.stdout if not letter.isprintable() and letter != "\n"] == []
    assert not any(line.startswith("fake") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("capture", "watts"),
    [("eastron-sdm630", 6050.42), ("generic-power-limit", 1733.0)],
)
def test_a_modbus_device_is_read_by_the_profile_that_is_named(devices, capture, watts):
    unit = devices.unit(capture)
    url = f"modbus://127.0.0.1:{unit.port}/{unit.number}"
    found = answer("probe", url, "--profile", capture)
    assert (found["device"]["profile"], found["device"]["url"]) == (capture, url)
    assert round(found["points"]["input.realpower"]["value"], 2) == watts


def test_a_modbus_device_that_says_what_it_is_needs_no_profile(devices):
    unit = devices.unit("sunspec-meter")
    found = answer("probe", f"modbus://127.0.0.1:{unit.port}/{unit.number}")
    assert found["device"]["profile"] == "sunspec-meter"


# ── a Modbus device that says nothing of itself ───────────────────────────────────


def test_an_unknown_modbus_device_is_never_chosen_for_but_told_what_it_could_be(devices):
    unit = devices.unit(METER)
    url = f"modbus://127.0.0.1:{unit.port}/1"
    begun_s = time.monotonic()
    done = command("probe", url, "--json")
    assert time.monotonic() - begun_s < 10.0
    assert done.returncode == 2
    reason, *lines = done.stderr.splitlines()
    assert reason.startswith(f"{url}: a Modbus device that does not say what it is")
    rows = [line.split() for line in lines if line.startswith("  ")]
    assert rows[0][0] == METER  # all three phases fit
    assert "realpower 6,050 W" in lines[1]
    assert "L2.voltage 231.1 V" in lines[1]

    said = json.loads(done.stdout)
    assert (said["error"], said["untried"]) == (reason, [])
    best = said["plausible"][0]
    assert best["profile"] == METER
    assert best["points"]["input.frequency"] == {"value": pytest.approx(49.98), "unit": "Hz"}
    assert {each["profile"] for each in said["plausible"]} <= {"eastron-sdm120", METER}

    # It was asked politely: nothing written, nothing read twice, one after the other.
    assert {function for function, _, _ in unit.heard} <= {1, 2, 3, 4, 43}
    reads = [request for request in unit.heard if request[0] != 43]
    recognition = [(3, base, 2) for base in (40000, 50000, 0)]
    others = reads[len(recognition) :]
    assert reads[: len(recognition)] == recognition
    assert len(others) == len(set(others))
    gaps_s = [b - a for a, b in pairwise(unit.heard_at_s)]
    assert sorted(gaps_s)[len(gaps_s) // 2] >= 0.02


def test_a_profile_of_ones_own_is_tried_on_an_unknown_modbus_device_too(devices, tmp_path):
    text = TEN_TIMES.replace("ten-times", "own-meter").replace("scale = 10\n", "")
    (tmp_path / "own-meter.toml").write_text(text.replace("L1.realpower", "realpower"))
    unit = devices.unit({"input": {0: 230, 1: 100, 2: 2300}})
    url = f"modbus://127.0.0.1:{unit.port}/1"
    said = json.loads(command("probe", url, "--profiles", str(tmp_path), "--json").stdout)
    assert [each["profile"] for each in said["plausible"]] == ["own-meter"]


# ── nobody there, nothing usable ──────────────────────────────────────────────────


def test_a_dead_address_ends_within_its_timeout_and_says_what_to_check(chain, black_hole):
    wrong = url_of(chain).replace("hausordnung", "falsch")
    nobody = f"modbus://127.0.0.1:{black_hole.port}/1"
    begun_s = time.monotonic()
    ended = commands(["probe", wrong], ["probe", nobody], ["probe", nobody, "--profile", METER])
    took_s = time.monotonic() - begun_s
    for done, check in zip(ended, (SNMP_CHECK, MODBUS_CHECK, MODBUS_CHECK), strict=True):
        assert (done.returncode, done.stdout) == (3, "")
        assert check in done.stderr
        assert "falsch" not in done.stderr
    within_s = [float(re.search(r"within ([\d.]+) s", done.stderr)[1]) for done in ended]
    assert within_s == [2.0, 2.0, 1.0]
    assert took_s < max(within_s) + START_UP_S


def test_what_cannot_be_probed_is_the_operators_input():
    rows = [
        (
            ["modbus://127.0.0.1:1/1", "--profile", "apc-rpdu2"],
            "modbus://127.0.0.1:1/1: profile apc-rpdu2 is for snmp\n",
        ),
        (["modbus://127.0.0.1:1/1", "--profile", "nix"], "no profile called 'nix'; there are: "),
        (["http://geheim@127.0.0.1"], "http://127.0.0.1: not a device URL; expected one of "),
        (["snmp://127.0.0.1", "--count", "3"], "--count belongs to --watch\n"),
        (["snmp://127.0.0.1", "--watch", "0.2"], "--watch 0.2: a number of seconds from 1 to "),
    ]
    ended = commands(*(["probe", *arguments] for arguments, _ in rows))
    for done, (_, said) in zip(ended, rows, strict=True):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
        assert "geheim" not in done.stderr


# ── again and again ───────────────────────────────────────────────────────────────


def test_watching_goes_on_over_a_round_without_an_answer(devices):
    agent = devices.agent("tripplite-pdu")
    url = f"snmp://127.0.0.1:{agent.port}"
    process = begin("probe", url, "--watch", "1", "--json", "--profile", "tripplite-pdu")
    try:
        first = json.loads(process.stdout.readline())
        agent.silent = True
        lines = [json.loads(process.stdout.readline())]
        agent.silent = False
        while "error" in lines[-1]:
            assert len(lines) < DEADLINE_S
            lines.append(json.loads(process.stdout.readline()))
        assert first["points"]["input.realpower"]["value"] > 0
        assert lines[0]["url"] == url
        assert lines[0]["error"].startswith(f"{url}/1: no answer within 3 s")
        assert lines[-1]["points"]["input.realpower"] == first["points"]["input.realpower"]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_watching_for_so_many_rounds_ends_and_keeps_its_period(devices):
    unit = devices.unit(METER)
    url = f"modbus://127.0.0.1:{unit.port}/1"
    begun_s = time.monotonic()
    done = command("probe", url, "--profile", METER, "--watch", "--count", "3")
    assert time.monotonic() - begun_s >= 2.0  # the least period is a second
    assert done.returncode == 0
    assert len(re.findall(r"^\d\d:\d\d:\d\d$", done.stdout, re.MULTILINE)) == 3
    assert done.stdout.count("  input.realpower ") == 3
    assert done.stdout.count(" s ago") >= 3


def test_the_last_values_are_shown_with_their_age_while_the_device_is_silent(devices):
    unit = devices.unit(METER)
    url = f"modbus://127.0.0.1:{unit.port}/1"
    process = begin("probe", url, "--profile", METER, "--watch", "--count", "3")
    try:
        while "input.realpower" not in process.stdout.readline():
            pass
        unit.silent = True
        rest = process.stdout.read()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.communicate()
    assert rest.count(f"no answer: {url}: no answer within 1 s") == 2
    *_, ages = re.findall(r"  input\.realpower .* W +([\d.]+) s ago", rest)
    assert float(ages) >= 2.0


def test_watching_nobody_ends_with_no_answer(black_hole):
    url = f"modbus://127.0.0.1:{black_hole.port}/1"
    done = command("probe", url, "--profile", METER, "--watch", "--count", "1")
    assert done.returncode == 3
    assert "no answer within" in done.stdout


def test_the_help_loads_no_driver():
    script = (
        "import sys, firmware_py.cli;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('drivers', 'pysnmp', 'gufo', 'pymodbus', 'serial', 'numpy', 'msgspec')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
