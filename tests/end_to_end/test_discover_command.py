"""`discover` as an operator types it: it finds what is there, asks politely and nobody else,
prints a site file that works, and no secret."""

from __future__ import annotations

import json
import signal
import tomllib
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path

import pytest
from pyasn1.type import univ
from served_devices import DEADLINE_S, Devices, begin, command, commands

from broker import topics, wire
from broker.messages import Report
from firmware_py.site import load_site, warnings_of

SYS_DESCR, SYS_OBJECT_ID, SYS_NAME = (f"1.3.6.1.2.1.1.{n}.0" for n in (1, 2, 5))
METER = "eastron-sdm630"
NET = "127.0.13"
RATE = 200
LINUX = {
    SYS_DESCR: univ.OctetString(b'Linux "box"\n[[rack]]\nname = "evil"'),
    SYS_OBJECT_ID: univ.ObjectIdentifier("1.3.6.1.4.1.8072.3.2.10"),
    SYS_NAME: univ.OctetString(b"box"),
}


@pytest.fixture
def devices():
    with Devices() as served:
        yield served


def named(agent, name):
    agent.values = agent.values | {SYS_NAME: univ.OctetString(name.encode())}
    return agent


class Street:
    """A network of a few devices, and two neighbours outside of it."""

    def __init__(self, devices: Devices) -> None:
        self.chain = named(devices.agent("apc-rpdu2", f"{NET}.2"), "row1.example/pdu")
        self.port = port = self.chain.port
        self.locked = devices.agent("wti-vmr", f"{NET}.3", port, community="hausordnung")
        self.stranger = devices.agent(LINUX, f"{NET}.4", port)
        self.slow = named(
            devices.agent("raritan-dominion-px", f"{NET}.5", port, delay_s=0.03), "row1"
        )
        self.sunspec = devices.unit("sunspec-meter", f"{NET}.6")
        self.modbus_port = self.sunspec.port
        self.meter = devices.unit(METER, f"{NET}.7", self.modbus_port)
        self.twin = devices.unit("sunspec-meter", f"{NET}.5", self.modbus_port)
        self.agents = (self.chain, self.locked, self.stranger, self.slow)
        self.units = (self.sunspec, self.meter, self.twin)
        self.outside = (
            devices.agent("wti-vmr", f"{NET}.16", port),
            devices.agent("wti-vmr", "127.0.12.2", port),
        )
        self.outside_unit = devices.unit("sunspec-meter", f"{NET}.16", self.modbus_port)

    @property
    def arguments(self) -> tuple[str, ...]:
        return (f"{NET}.0/28", "--snmp-port", str(self.port), "--modbus-port",
                str(self.modbus_port), "--timeout", "0.2", "--rate", str(RATE), "--units",
                str(self.sunspec.number) if self.sunspec.number == 1 else
                f"1,{self.sunspec.number}")  # fmt: skip


@pytest.fixture
def street(devices):
    return Street(devices)


def racks(text):
    return {rack["name"]: rack for rack in tomllib.loads(text)["rack"]}


# ── what it finds ─────────────────────────────────────────────────────────────────


def test_a_network_becomes_a_site_file_that_works(street, tmp_path, mosquitto, tap, wait_until):
    site = tmp_path / "site.toml"
    communities = ("--community", "public", "--community", "hausordnung")
    done = command("discover", *street.arguments, *communities, "--out", str(site))
    assert (done.returncode, done.stdout) == (0, "")
    text = site.read_text()
    assert "hausordnung" not in text + done.stderr

    found = racks(text)
    urls = {name: rack["device"][0]["url"] for name, rack in found.items()}
    port, modbus_port = street.port, street.modbus_port
    assert urls == {
        "row1.example-pdu-1": f"snmp://public@{NET}.2:{port}/1",
        "row1.example-pdu-2": f"snmp://public@{NET}.2:{port}/2",
        "row1.example-pdu-3": f"snmp://public@{NET}.2:{port}/3",
        f"{NET}.3": f"snmp://env:SNMP_COMMUNITY@{NET}.3:{port}",
        "row1": f"snmp://public@{NET}.5:{port}",
        f"{NET}.6-{street.sunspec.number}": (
            f"modbus://{NET}.6:{modbus_port}/{street.sunspec.number}"
        ),
    }
    assert len({rack["rank"] for rack in found.values()}) == len(found)
    assert found["row1.example-pdu-1"]["ceiling_w"] == 11000  # as the device is rated
    assert "# APC by Schneider Electric APDU9953 serial TEST00000001: 4,310 W now" in text
    assert found["row1.example-pdu-3"]["device"][0]["measures"] == []  # without a meter
    # What answered and is not known, or is known already, is there as a comment.
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any('sysDescr: Linux "box" [[rack]] name = "evil"' in line for line in comments)
    assert any(f"modbus://{NET}.7:{modbus_port}/1" in line for line in comments)
    assert any(f"wattbroker probe modbus://{NET}.7" in line for line in comments)
    assert any("two protocols" in line for line in comments)
    assert any(f"modbus://{NET}.5:{modbus_port}/" in line for line in comments)
    # Nothing is commanded, but how it could be stands there.
    assert "actuator" not in found["row1.example-pdu-1"]
    assert '#   kind = "outlets"' in text
    assert "#     { number = 1, priority = 1, peak_w = 260 },  # web 1, on, 207 W now" in text

    checked = command("check", str(site))
    assert (checked.returncode, checked.stdout) == (
        0,
        f"{site}: {len(found)} racks under 1 caps: usable\n",
    )
    warned = [str(warning) for warning in warnings_of(load_site(site))]
    assert all("nothing measures it" in warning for warning in warned), warned

    # And a controller runs with it.
    host = f'host = "{mosquitto.host}"\nport = {mosquitto.port}  '
    site.write_text(text.replace('host = "127.0.0.1"  ', host))
    where = ("--site", str(site), "--rack", "row1", "--state", str(tmp_path / "state"))
    assert command("init", *where, "--offline").returncode == 0
    heard = tap(mosquitto, "wattbroker/discovered/racks/row1/report")
    process = begin("run", *where, SNMP_COMMUNITY="hausordnung")
    try:
        wait_until(lambda: any(_is_measured(m) for m in list(heard.messages)), DEADLINE_S)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.communicate()


def _is_measured(message) -> bool:
    topic = topics.parse(message.topic, "discovered")
    report = wire.decode(topic.kind, message.payload)
    return isinstance(report, Report) and report.measured_w is not None


def test_it_asks_only_whom_it_was_given_and_not_too_often(street):
    done = command("discover", *street.arguments, "--json")
    assert done.returncode == 0
    assert [agent.heard for agent in street.outside] == [[], []]
    assert street.outside_unit.connections == 0
    # Never more requests in a second than it may send.
    served = (*street.agents, *street.units)
    at_s = sorted(instant for each in served for instant in each.heard_at_s)
    assert len(at_s) > 60
    per_s = max(index - bisect_left(at_s, t - 1.0) + 1 for index, t in enumerate(at_s))
    assert per_s <= RATE * 1.1 + 1
    # At one host a request only after the answer to the last one.
    answered = street.slow.heard_at_s
    assert min(b - a for a, b in pairwise(answered)) >= street.slow.delay_s
    # Who does not answer is asked once more, and that is all.
    assert len(street.locked.heard_at_s) == 2
    # Nothing is written, and nobody guesses at a Modbus device.
    assert {kind for agent in street.agents for kind, _ in agent.heard} <= {"get", "next", "bulk"}
    assert {function for unit in street.units for function, _, _ in unit.heard} <= {3, 4, 43}
    assert {request for request in street.meter.heard if request[0] != 43} == {
        (3, 40000, 2), (3, 50000, 2), (3, 0, 2)
    }  # fmt: skip
    # And for programs it says what it found.
    said = json.loads(done.stdout)
    assert said["asked"] == 14
    by_url = {each["url"]: each for each in said["found"]}
    chain = by_url[f"snmp://public@{NET}.2:{street.port}/1"]
    assert chain["profile"] == "apc-rpdu2"
    assert chain["realpower_w"] == 4310.0
    assert (chain["model"], chain["serial"]) == ("APDU9953", "TEST00000001")
    said_by = {each["url"]: each["said"] for each in said["unknown"]}
    assert said_by[f"snmp://{NET}.4:{street.port}"]["sysObjectID"] == "1.3.6.1.4.1.8072.3.2.10"


def test_an_agent_of_version_1_is_found_only_where_that_is_asked_for(devices):
    agent = devices.agent("wti-vmr", knows_v2c=False)
    target = (f"127.0.0.1:{agent.port}", "--timeout", "0.1", "--rate", "500")
    assert command("discover", *target).returncode == 1
    done = command("discover", *target, "--snmp1")
    assert done.returncode == 0
    (rack,) = racks(done.stdout).values()
    assert rack["device"][0]["url"] == f"snmp1://public@127.0.0.1:{agent.port}"


def test_whole_urls_may_be_given_and_keep_their_secrets_to_themselves(devices):
    agent = devices.agent("wti-vmr", community="hausordnung")
    unit = devices.unit("eastron-sdm630")
    dead = (
        "snmp3://ops@127.0.0.1:9?auth=SHA&authkey=geheimnis1&priv=AES&privkey=env:PRIV"
    )  # fmt: skip
    done = command(
        "discover",
        f"snmp://hausordnung@127.0.0.1:{agent.port}",
        f"modbus://127.0.0.1:{unit.port}/1",
        dead,
        "--timeout", "0.3", "--rate", "200",
        PRIV="geheimnis2",
    )  # fmt: skip
    assert done.returncode == 0
    for secret in ("hausordnung", "geheimnis"):
        assert secret not in done.stdout + done.stderr
    (rack,) = racks(done.stdout).values()
    assert rack["device"][0]["url"] == f"snmp://env:SNMP_COMMUNITY@127.0.0.1:{agent.port}"
    assert "SNMP_COMMUNITY" in done.stdout.partition("schema")[0]  # said at the top
    assert f"#   modbus://127.0.0.1:{unit.port}/1" in done.stdout
    assert "no answer within" in done.stderr


def test_a_community_may_come_from_the_environment(devices):
    agent = devices.agent("wti-vmr", community="hausordnung")
    target = (f"127.0.0.1:{agent.port}", "--rate", "500", "--community", "env:ROOM")
    done = command("discover", *target, ROOM="hausordnung")
    (rack,) = racks(done.stdout).values()
    assert rack["device"][0]["url"] == f"snmp://env:ROOM@127.0.0.1:{agent.port}"
    assert "hausordnung" not in done.stdout + done.stderr
    done = command("discover", *target)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the environment has no variable ROOM" in done.stderr


# ── what it does not do ───────────────────────────────────────────────────────────


def test_where_nobody_is_nothing_is_found(black_hole):
    done = command("discover", f"127.0.0.1:{black_hole.port}", "--timeout", "0.2", "--rate", "100")
    assert done.returncode == 1
    assert f"modbus://127.0.0.1:{black_hole.port}" in done.stdout  # a comment: a port, no unit
    assert "no unit answers (asked: 1)" in done.stdout
    assert all(line.startswith("#") for line in done.stdout.splitlines())


def test_what_it_cannot_ask_is_the_operators_input_and_nobody_is_asked():
    rows = [
        (["10.0.0.0/16"], "65536 addresses are more than 1024; --yes-many if all of them are"),
        (["127.0.0.1", "--units", "0-3"], "0-3: units are numbers from 1 to 255"),
        (["http://geheim@127.0.0.1"], "http://127.0.0.1: not a device URL"),
        (["127.0.0.1", "--out", "/"], "/"),
    ]
    ended = commands(*(["discover", *arguments] for arguments, _ in rows))
    for done, (_, said) in zip(ended, rows, strict=True):
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "asking" not in done.stderr
        assert "geheim" not in done.stderr


def test_a_file_that_is_there_is_not_written_over(devices, tmp_path):
    agent = devices.agent("wti-vmr")
    site = tmp_path / "site.toml"
    site.write_text("mine")
    done = command("discover", f"127.0.0.1:{agent.port}", "--out", str(site))
    assert done.returncode == 2
    assert site.read_text() == "mine"
    assert agent.heard_at_s == []


def test_interrupted_it_prints_what_was_found_so_far(devices):
    first = devices.agent("wti-vmr", f"{NET}.2")
    hosts = [f"{NET}.{n}" for n in range(3, 13)]
    for host in hosts:
        devices.agent({}, host, first.port, silent=True)
    urls = [f"snmp://{host}:{first.port}" for host in (f"{NET}.2", *hosts)]
    process = begin("discover", *urls, "--rate", "200", "--timeout", "20")
    try:
        while "wti-vmr" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "interrupted: this is what was found so far" in err
    (rack,) = racks(out).values()
    assert rack["device"][0]["profile"] == "wti-vmr"
    assert "there was no time to ask what it is" in out


def test_profiles_of_ones_own_are_recognised_and_named_in_the_file(devices, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    shipped = Path(__file__).parents[2] / "drivers" / "profiles" / "wti-vmr.toml"
    text = shipped.read_text().replace('name = "wti-vmr"', 'name = "my-vmr"')
    (own / "my-vmr.toml").write_text(text)
    (own / "wti-vmr.toml").write_text(text.replace("my-vmr", "wti-vmr").replace(
        "[match]", '[match]\nlacking = ["1.3.6.1.2.1.1.2.0"]'))  # fmt: skip
    agent = devices.agent("wti-vmr")
    target = (f"127.0.0.1:{agent.port}", "--timeout", "0.3", "--rate", "100")
    site = tmp_path / "site.toml"
    assert answer_code(*target, "--profiles", str(own), "--out", str(site)) == 0
    assert tomllib.loads(site.read_text())["profiles"] == str(own)
    (rack,) = racks(site.read_text()).values()
    assert rack["device"][0]["profile"] == "my-vmr"
    assert command("check", str(site)).returncode == 0


def answer_code(*arguments):
    return command("discover", *arguments).returncode
