"""The site file: everything that is refused, each with its place and its remedy."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from site_files import FOLDER, GOOD, edited, faults_of, read

from firmware_py.errors import SiteError
from firmware_py.site import FILE_BYTES_MAX, load_site
from firmware_py.site_lines import lines_of

# --- Ten faults ------------------------------------------------------------------------------

TEN = """\
schema = 1
site = "lab"
profiles = "site_profiles"
rooster = "static"

[mqtt]
host = "192.0.2.10"
port = "1883"

[timing]
lease_ttl_s = 5.0

[[cap]]
name = "room"
limit_w = 1_500

[[cap]]
name = "row1"
parent = "rom"
limit_w = 12_000

[[rack]]
name = "r1"
rank = 10
cap = "row1"
floor_w = 900

  [[rack.device]]
  name = "pdu"
  url = "snpm://geheim@192.0.2.21"
  profile = "test-pdu"

  [rack.actuator]
  kind = "outlets"
  device = "pdu"
  settle_s = 2
  base_w = 300
  outlets = [
    { number = 1, priority = 9, peak_w = 700 },
    { number = 2, priority = 1, peak_w = 450 },
  ]

[[rack]]
name = "r2"
rank = 10
cap = "room"
floor_w = 1_600
ceiling_w = 2_000

  [[rack.device]]
  name = "meter"
  url = "modbus://192.0.2.31"
  profile = "test-metre"
"""


def test_ten_faults_are_reported_at_once_with_place_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "site_profiles").symlink_to(FOLDER / "site_profiles")
    path = tmp_path / "ten.toml"
    path.write_text(TEN)
    with pytest.raises(SiteError) as refused:
        load_site(path)
    assert str(refused.value).replace(str(path), "ten.toml").splitlines() == [
        "ten.toml:4: rooster: unknown key; did you mean roster?",
        "ten.toml:8: mqtt.port: is a text; write a whole number",
        "ten.toml:11: timing.lease_ttl_s: 5 s less settle_s 0 s leave 5 s, but a change of broker"
        " takes 7.5 s (beat_timeout_s + answer_timeout_s + 5 ticks) and would drop the rack to its"
        " floor; give at least 7.5",
        'ten.toml:15: cap[0] "room".limit_w: the floor_w of the racks below adds up to 1600 W,'
        " above the cap's 1500 W (the largest: r2 1600); lower floors by 100 W, or raise the cap if"
        " its breaker allows",
        'ten.toml:19: cap[1] "row1".parent: there is no cap "rom"; did you mean room?',
        'ten.toml:26: rack[0] "r1".floor_w: 900 W is none of the steps that the outlets add up to'
        " (300, 1000, 1450); the nearest are 300 and 1000",
        'ten.toml:30: rack[0] "r1".device[0] "pdu".url: snpm://192.0.2.21: not a device URL;'
        " expected one of snmp://, snmp1://, snmp3://, modbus://, modbus+rtutcp://,"
        " modbus+rtu://, for example snmp://public@192.0.2.21 or modbus://192.0.2.31:502/1",
        'ten.toml:36: rack[0] "r1".actuator.settle_s: 2 s is shorter than the 4 s within which'
        " profile test-pdu takes effect; give more, or leave it out",
        'ten.toml:45: rack[1] "r2".rank: rank 10 is already that of rack[0]; give each its own',
        'ten.toml:53: rack[1] "r2".device[0] "meter".profile: there is no profile "test-metre";'
        " did you mean test-meter?",
    ]


# --- Every refusal, one row each ------------------------------------------------------------

R1, R2, R3 = 'rack[0] "r1"', 'rack[1] "r2"', 'rack[2] "r3"'
PDU, METER, LIMIT = f'{R1}.device[0] "pdu"', f'{R2}.device[0] "meter"', f'{R2}.device[1] "limit"'
NOT_YET = "not supported by this version; "

# The edits of the good file, the key of the fault, a part of its text.
Row = tuple[list[tuple[str, str]], str, str]
REFUSED: dict[str, Row] = {
    # words that mean nothing
    "unknown table": ([("[market]", "[markets]")], "markets", "did you mean market?"),
    "unknown key": ([("[timing]", "[timing]\nfoo = 1")], "timing.foo", "known here: tick_s,"),
    "unknown key of a cap": ([("limit_w = 20_000", "limit_w = 20_000\nlimits = 1")],
        'cap[0] "room".limits', "did you mean limit_w?"),
    "unknown key in an inline table": ([("peak_w = 450", "peak_w = 450, peek = 1")],
        f"{R1}.actuator.outlets[1].peek", "did you mean peak_w?"),
    "key that is no bare word": ([("[timing]", '[timing]\n"a b" = 1')], 'timing."a b"', "unknown"),
    "one PDU of a chain, where there is none": (
        [("snmp://geheim@192.0.2.21", "snmp://geheim@192.0.2.21/2")],
        f"{PDU}.url", "profile test-pdu knows of one PDU only"),
    "a rack joins a static site": ([('name = "r2"', 'name = "r2"\njoins = true')], f"{R2}.joins",
        'nobody can join a static site; write roster = "open" at the top'),
    # words of the design that this version does not have
    "mqtt.discover": ([('host = "192.0.2.10"', 'discover = "mdns"')], "mqtt.discover",
        NOT_YET + 'name the MQTT server: host = "192.0.2.10"'),
    "price loop": ([("[market]", '[market]\nmechanism = "price-loop"')], "market.mechanism",
        NOT_YET + 'write mechanism = "exact"'),
    "consensus": ([("[market]", '[market]\nmechanism = "consensus"')], "market.mechanism", NOT_YET),
    "auction": ([("[market]", "[market]\nauction = true")], "market.auction",
        NOT_YET + "write auction = false, or leave it out"),
    "shares": ([('cap = "row1"', "shares = { row1 = 1.0 }"), ('parent = "room"\n', ""),
        ('cap = "room"\nfloor_w = 500', 'cap = "row1"\nfloor_w = 500')], f"{R1}.shares",
        NOT_YET + 'name one cap: cap = "room"'),
    "partner": ([('parent = "room"', 'parent = "room"\npartner = "room"')],
        'cap[1] "row1".partner', NOT_YET),
    "a brake at once": ([('parent = "room"', 'parent = "room"\nbrake_after_s = 0.0')],
        'cap[1] "row1".brake_after_s', "0.0"),
    "supply": ([("[market]", "[market]\n[supply]\nmargin = 0.02")], "supply", NOT_YET),
    "feed": ([("[market]", '[market]\n[[feed]]\nname = "grid"')], "feed", NOT_YET),
    "source": ([("[market]", '[market]\n[[source]]\nname = "roof"')], "source", NOT_YET),
    "battery": ([("[market]", '[market]\n[[battery]]\nname = "b"')], "battery", NOT_YET),
    # values of the wrong kind or size
    "missing schema": ([("schema = 1\n", "")], "schema", "missing; add for example schema = 1"),
    "another schema": ([("schema = 1", "schema = 2")], "schema", "2 is not known; known here: 1"),
    "schema true": ([("schema = 1", "schema = true")], "schema",
        "is true or false; write one of 1"),
    "missing site": ([('site = "lab"\n', "")], "site", 'add for example site = "lab"'),
    "missing mqtt": ([('[mqtt]\nhost = "192.0.2.10"', "")], "mqtt", "missing; add [mqtt]"),
    "missing host": ([('host = "192.0.2.10"\n', "")], "mqtt.host",
        'missing; add for example host = "192.0.2.10"'),
    "missing rank": ([("rank = 10\n", "")], f"{R1}.rank", "missing; add for example rank = 10"),
    "missing url": ([('  url = "modbus://192.0.2.31:502/1"\n', "")], f"{METER}.url",
        "missing; add for example url ="),
    "missing kind": ([('  kind = "outlets"\n', "")], f"{R1}.actuator.kind", "missing; add"),
    "true is not a number": ([("rank = 10", "rank = true")], f"{R1}.rank",
        "is true or false; write a whole number"),
    "watts with a point": ([("ceiling_w = 3_000", "ceiling_w = 3000.0")], f"{R2}.ceiling_w",
        "3000.0 is not a whole number; give a whole number above 0 up to 100000000"),
    "watts as a text": ([("ceiling_w = 3_000", 'ceiling_w = "3 kW"')], f"{R2}.ceiling_w",
        "is a text; write a whole number"),
    "negative floor": ([("floor_w = 500", "floor_w = -1")], f"{R2}.floor_w", "-1 is out of range"),
    "zero cap": ([("limit_w = 20_000", "limit_w = 0")], 'cap[0] "room".limit_w',
        "0 is out of range; give a whole number above 0"),
    "zero peak": ([("peak_w = 450", "peak_w = 0")], f"{R1}.actuator.outlets[1].peak_w", "range"),
    "zero weight": ([("floor_w = 500", "floor_w = 500\nweight = 0")], f"{R2}.weight", "range"),
    "an endless tick": ([("[timing]", "[timing]\ntick_s = inf")], "timing.tick_s",
        "inf is no quantity; give a number above 0 up to 86400"),
    "no number": ([("[timing]", "[timing]\ntick_s = nan")], "timing.tick_s", "nan is no quantity"),
    "zero poll": ([('"test-pdu"', '"test-pdu"\npoll_s = 0')], f"{PDU}.poll_s", "0 is out of range"),
    "a number of 5000 digits": ([("rank = 10", "rank = 0x1" + "0" * 5000)], f"{R1}.rank",
        "a number that large is out of range"),
    "guard": ([("[market]", "[market]\nguard = 0.5")], "market.guard",
        "0.5 is out of range; give a number from 0 below 0.5"),
    "port 0": ([('"192.0.2.10"', '"192.0.2.10"\nport = 0')], "mqtt.port",
        "0 is out of range; give a whole number from 1 up to 65535"),
    "table for an array": ([("[[cap]]\nname = \"row1\"", "[cap.sub]\nname = \"row1\""),
        ("[[cap]]", "[cap]"), ('"row1"\nfloor', '"room"\nfloor')], "cap",
        "is a table; write an array; write [[cap]]"),
    "array for a table": ([("[timing]", "[[timing]]")], "timing", "is an array; write a table"),
    "element that is no table": ([("outlets = [ {", "outlets = [ 7, {")],
        f"{R1}.actuator.outlets[0]", "is a whole number; write a table"),
    "a date": ([("[timing]", "[timing]\ntick_s = 2024-01-01")], "timing.tick_s", "a date or time"),
    "unknown kind": ([('"power-limit"', '"power_limit"')], f"{R2}.actuator.kind",
        '"power_limit" is not known; did you mean power-limit?'),
    "unknown curve": ([("limit_w = 20_000", 'limit_w = 20_000\nbreaker = {rating_w=1, curve="K"}')],
        'cap[0] "room".breaker.curve', "known here: B, C, D"),
    "unknown clock": ([("[timing]", '[timing]\nclock = "ntp"')], "timing.clock",
        "known here: trusted"),
    "empty text": ([('host = "192.0.2.10"', 'host = ""')], "mqtt.host", "is empty"),
    "control character": ([('host = "192.0.2.10"', 'host = "a\\nb"')], "mqtt.host", "control"),
    "name for a topic": ([('name = "r3"', 'name = "r/3"')], "rack[2].name",
        '"r/3" cannot be a name; use 1 to 64 letters, digits, - _ or .'),
    "site name for a topic": ([('site = "lab"', 'site = "#"')], "site", "cannot be a name"),
    "name that ends in a newline": ([('name = "r3"', 'name = "r3\\n"')], "rack[2].name",
        '"r3\\n" cannot be a name'),
    "name of 65": ([('name = "r3"', f'name = "{"n" * 65}"')], "rack[2].name", "1 to 64 letters"),
    # counts
    "17 devices": ([('  [[rack.device]]\n  name = "any"', "".join(
        f'[[rack.device]]\nname = "d{n}"\nurl = "snmp://h"\n' for n in range(16))
        + '[[rack.device]]\nname = "any"')], f"{R3}.device",
        "17 of them; at most 16 are supported"),
    "no racks": ([(GOOD[GOOD.index("[[rack]]"):], ""), ("[mqtt]", "rack = []\n[mqtt]")], "rack",
        "empty; give at least one"),
    # caps
    "Σ floors above a root": ([("limit_w = 20_000", "limit_w = 1_499")], 'cap[0] "room".limit_w',
        "adds up to 1500 W, above the cap's 1499 W (the largest: r1 1000, r2 500, r3 0);"
        " lower floors by 1 W"),
    "Σ floors above an inner cap": ([("limit_w = 12_000", "limit_w = 999")],
        'cap[1] "row1".limit_w',
        "adds up to 1000 W, above the cap's 999 W (the largest: r1 1000)"),
    "unknown parent": ([('parent = "room"', 'parent = "hall"')], 'cap[1] "row1".parent',
        'there is no cap "hall"; known here: room, row1'),
    "own parent": ([('parent = "room"', 'parent = "row1"')], 'cap[1] "row1".parent',
        "a cycle: row1 → row1; one of them must have no parent"),
    "cycle of two": ([("limit_w = 20_000", 'limit_w = 20_000\nparent = "row1"')],
        'cap[0] "room".parent', "a cycle: room → row1 → room"),
    "cap without racks": ([('cap = "row1"', 'cap = "room"')], 'cap[1] "row1".name',
        'no rack hangs from it; let a [[rack]] say cap = "row1"'),
    "two caps of one name": ([("[mqtt]", "[mqtt]"), ("limit_w = 12_000",
        'limit_w = 12_000\n[[cap]]\nname = "row1"\nlimit_w = 5_000')], 'cap[2] "row1".name',
        "name row1 is already that of cap[1]; give each its own"),
    "rack under no cap": ([('cap = "row1"', 'cap = "row2"'), ("[[cap]]\nname = \"row1\"\n"
        "parent = \"room\"\nlimit_w = 12_000\n", "")], f"{R1}.cap",
        'there is no cap "row2"; known here: room'),
    "fallback above the cap": ([("limit_w = 20_000", "limit_w = 20_000\nfallback_w = 20_001")],
        'cap[0] "room".fallback_w', "20001 W is above limit_w 20000 W"),
    "set_ttl_s alone": ([("limit_w = 20_000", "limit_w = 20_000\nset_ttl_s = 9")],
        'cap[0] "room".set_ttl_s', "means nothing without fallback_w"),
    # racks
    "two racks of one name": ([('name = "r3"', 'name = "r1"')], 'rack[2] "r1".name',
        "name r1 is already that of rack[0]"),
    "two racks of one rank": ([("rank = 5", "rank = 20")], f"{R3}.rank",
        "rank 20 is already that of rack[1]"),
    "two devices of one name": ([('name = "limit"', 'name = "meter"'),
        ('device = "limit"', 'device = "meter"'), ('kind = "power-limit"', 'kind = "none"'),
        ('device = "meter"', "")], f'{R2}.device[1] "meter".name',
        "name meter is already that of device[0]"),
    "two outlets of one number": ([("number = 2", "number = 1")],
        f"{R1}.actuator.outlets[1].number", "number 1 is already that of outlets[0]"),
    "floor above ceiling": ([("ceiling_w = 3_000", "ceiling_w = 499")], f"{R2}.floor_w",
        "500 W is above the rack's ceiling of 499 W"),
    "floor between steps": ([("floor_w = 1_000", "floor_w = 999")], f"{R1}.floor_w",
        "999 W is none of the steps that the outlets add up to (300, 1000, 1450);"
        " the nearest are 300 and 1000"),
    "floor below base_w": ([('device = "limit"', 'device = "limit"\nbase_w = 501')],
        f"{R2}.floor_w",
        "500 W is below base_w 501 W"),
    "no ceiling with a limit": ([("ceiling_w = 3_000\n", "")], f"{R2}.ceiling_w", "missing; add"),
    "no ceiling with nothing": ([("ceiling_w = 800\n", "")], f"{R3}.ceiling_w", "missing; add"),
    # devices
    "no url": ([("snmp://geheim@192.0.2.21", "192.0.2.21")], f"{PDU}.url", "not a device URL"),
    "no host": ([("modbus://192.0.2.31:502/1", "modbus://:502/1")], f"{METER}.url", "no host"),
    "port that is none": ([("192.0.2.31:502/1", "192.0.2.31:99999/1")], f"{METER}.url",
        "out of range"),
    "unit that is none": ([("192.0.2.31:502/1", "192.0.2.31:502/x")], f"{METER}.url", "unit"),
    "unknown profile": ([('"test-pdu"', '"test-pud"')], f"{PDU}.profile",
        'there is no profile "test-pud"; did you mean test-pdu?'),
    "broken profile": ([('"test-meter"', '"test-broken"')], f"{METER}.profile",
        "profile test-broken cannot be used: "),
    "no folder of profiles": ([('"site_profiles"', '"nowhere"')], "profiles",
        "no such folder; create it beside this file, or leave it out"),
    "profile of the other protocol": ([("modbus://192.0.2.31:502/1", "snmp://192.0.2.31")],
        f"{METER}.profile", "test-meter is a profile for modbus, the url is one for snmp"),
    "unknown measure": ([('"test-pdu"', '"test-pdu"\nmeasures = ["input.realpowr"]')],
        f"{PDU}.measures", 'no point "input.realpowr"; did you mean input.realpower?'),
    "measure that is not watts": ([('"test-pdu"', '"test-pdu"\nmeasures = ["input.current"]')],
        f"{PDU}.measures", "input.current is not in W"),
    "measure twice": ([('"test-pdu"',
        '"test-pdu"\nmeasures = ["input.realpower", "input.realpower"]')],
        f"{PDU}.measures", "input.realpower stands here 2 times"),
    "poll too often": ([('"test-meter"', '"test-meter"\npoll_s = 1.9')], f"{METER}.poll_s",
        "1.9 s is more often than profile test-meter bears; give at least 2"),
    "stale before the next poll": ([('"test-meter"', '"test-meter"\nstale_after_s = 1.9')],
        f"{METER}.stale_after_s", "1.9 s is shorter than poll_s 2 s"),
    "community of Modbus": ([('"test-meter"', '"test-meter"\ncommunity_file = "c"')],
        f"{METER}.community_file", "only snmp:// and snmp1:// have a community"),
    "community twice": ([('"test-pdu"', '"test-pdu"\ncommunity_file = "c"')],
        f"{PDU}.community_file", "the url names a community too"),
    # actuators
    "no device": ([('  device = "pdu"\n', "")], f"{R1}.actuator.device",
        "missing; name one of this rack's devices (pdu)"),
    "unknown device": ([('device = "limit"', 'device = "limits"')], f"{R2}.actuator.device",
        'this rack has no device "limits"; did you mean limit?'),
    "device without profile": ([('  profile = "test-limit"\n', "")], f"{R2}.actuator.device",
        "device limit has no profile"),
    "untested device": ([('"test-limit"', '"test-draft"')], f"{R2}.actuator.device",
        "profile test-draft is untested: it can be read, never commanded"),
    "device that cannot be limited": ([('device = "limit"', 'device = "meter"')],
        f"{R2}.actuator.kind", "profile test-meter has no command limit.realpower"),
    "outlet that is not there": ([("number = 2", "number = 9")],
        f"{R1}.actuator.outlets[1].number",
        "profile test-pdu cannot switch outlet 9; it knows 1 to 8"),
    "device without outlets": ([('kind = "power-limit"', 'kind = "outlets"\n  outlets = '
        "[ { number = 1, priority = 1, peak_w = 500 } ]")], f"{R2}.actuator.outlets[0].number",
        "it has no outlets that can be switched"),
    "outlets without any": ([(GOOD[GOOD.index("  outlets ="):GOOD.index('[[rack]]\nname = "r2"')],
        "")], f"{R1}.actuator.outlets", "none are listed; add those that may be switched off"),
    "outlets of a limit": ([('device = "limit"', 'device = "limit"\n  outlets = '
        "[ { number = 1, priority = 1, peak_w = 500 } ]")], f"{R2}.actuator.outlets",
        'belong to kind = "outlets", not to "power-limit"'),
    "device of none": ([('kind = "power-limit"', 'kind = "none"')], f"{R2}.actuator.device",
        'kind = "none" commands nothing'),
    "settles before it takes effect": ([("base_w = 300", "base_w = 300\nsettle_s = 3.9")],
        f"{R1}.actuator.settle_s", "3.9 s is shorter than the 4 s within which profile test-pdu"),
    # leases and times
    "shared lease": ([("[timing]", "[timing]\nlease_ttl_s = 9.4")], "timing.lease_ttl_s",
        "9.4 s less settle_s 2 s leave 7.4 s, but a change of broker takes 7.5 s (beat_timeout_s"
        " + answer_timeout_s + 5 ticks) and would drop the rack to its floor; give at least 9.5"
        " (rack r2)"),
    "own lease": ([("base_w = 300", "base_w = 300\nttl_s = 12")], f"{R1}.actuator.ttl_s",
        "12 s less settle_s 5 s leave 7 s, but a change of broker takes 7.5 s"),
    "beat within a tick": ([("[timing]", "[timing]\nbeat_timeout_s = 1.0")],
        "timing.beat_timeout_s",
        "1 s is not longer than a tick of 1 s"),
    "answer after the beat": ([("[timing]", "[timing]\nanswer_timeout_s = 2")],
        "timing.answer_timeout_s", "2 s is not shorter than beat_timeout_s 2 s"),
    "takes over too early": ([("[timing]", "[timing]\npreempt_after_s = 1")],
        "timing.preempt_after_s", "1 s is shorter than beat_timeout_s 2 s"),
    # the MQTT server
    "a URL for a host": ([('"192.0.2.10"', '"mqtt://192.0.2.10"')], "mqtt.host", "not a host"),
    "password without user": ([('"192.0.2.10"',
        '"192.0.2.10"\npassword_file = "p"')], "mqtt.password_file", "add username ="),
    "certificate without key": ([('"192.0.2.10"', '"192.0.2.10"\ntls = {ca="a", cert="b"}')],
        "mqtt.tls.cert", "cert without key; give both or neither"),
    "key without certificate": ([('"192.0.2.10"', '"192.0.2.10"\ntls = {ca="a", key="b"}')],
        "mqtt.tls.key", "key without cert; give both or neither"),
    "TLS without a CA": ([('"192.0.2.10"', '"192.0.2.10"\ntls = {}')], "mqtt.tls.ca",
        'missing; add for example ca = "ca.pem"'),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_is_refused_alone_with_place_and_remedy(row: Row) -> None:
    edits, key, part = row
    (fault,) = faults_of(edited(*edits))
    assert fault.key == key
    assert part in fault.text
    assert ";" in fault.text or ":" in fault.text, "a fault names its remedy"


@pytest.mark.parametrize(
    "edit",
    [
        ("[timing]", "[timing]\nlease_ttl_s = 9.5"),  # 2 + 0.5 + 5 · 1 + settle 2
        ("[timing]", "[timing]\ntick_s = 0.1\nlease_ttl_s = 5"),  # 2 + 0.5 + 5 · 0.1 + settle 2
        ("[timing]", "[timing]\npreempt_after_s = 2"),
        ("base_w = 300", "base_w = 300\nttl_s = 12.5"),
        ("base_w = 300", "base_w = 300\nsettle_s = 4"),
        ("limit_w = 12_000", "limit_w = 1_000"),
        ("limit_w = 20_000", "limit_w = 1_500"),
        ("limit_w = 20_000", "limit_w = 20_000\nfallback_w = 20_000"),
        ('"test-meter"', '"test-meter"\npoll_s = 2\nstale_after_s = 2'),
        ('device = "limit"', 'device = "limit"\nbase_w = 500'),
        ("ceiling_w = 3_000", "ceiling_w = 500"),
    ],
)
def test_what_just_holds_is_good(edit: tuple[str, str]) -> None:
    assert read(edited(edit)).site == "lab"


def test_a_lease_counts_ticks_as_long_as_they_are() -> None:
    text = edited(("[timing]", "[timing]\ntick_s = 2\nbeat_timeout_s = 4\nlease_ttl_s = 16.4"))
    (fault,) = faults_of(text)
    assert fault.key == "timing.lease_ttl_s"
    assert fault.text.endswith("give at least 16.5 (rack r2)")


@pytest.mark.parametrize(
    ("floor_w", "near"), [(100, "300 and 1000"), (1_200, "1000 and 1450"), (1_900, "1000 and 1450")]
)
def test_a_floor_that_is_no_step_is_told_the_two_around_it(floor_w: int, near: str) -> None:
    text = edited(("floor_w = 1_000", f"floor_w = {floor_w}\nceiling_w = 2_000"))
    (fault,) = faults_of(text)
    assert fault.text.endswith(f"; the nearest are {near}")


def test_every_step_is_a_good_floor_also_all_off_and_all_on() -> None:
    for floor_w in (300, 1_000, 1_450):
        text = edited(("floor_w = 1_000", f"floor_w = {floor_w}"))
        assert read(text).rack("r1").floor_w == floor_w


def test_one_slip_is_one_fault_and_not_its_consequences_too() -> None:
    for edit in (
        ('name = "room"', 'name = "the room"'),
        ("limit_w = 20_000", "limit_w = false"),
        ('cap = "row1"', "cap = 1"),
        ("peak_w = 700", "peak_w = 7e2"),
        ('name = "pdu"', "name = {}"),
        ('kind = "power-limit"', 'kind = "limit"'),
        ('parent = "room"', "parent = 5"),
        ("ceiling_w = 3_000", "ceiling_w = 3e3"),
        ('device = "pdu"', "device = 1"),
        ('profile = "test-limit"', "profile = 1"),
        ('profiles = "site_profiles"', "profiles = 1"),
        ('profiles = "site_profiles"', 'profiles = "nowhere"'),
        ("host =", "hosst ="),
    ):
        assert len(faults_of(edited(edit))) == 1, edit


def test_a_broken_rack_does_not_hide_the_faults_of_the_others() -> None:
    text = edited(("floor_w = 1_000", "floor_w = 999"), ('name = "r2"\nrank = 20', 'rank = "x"'))
    assert [fault.key for fault in faults_of(text)] == [
        f"{R1}.floor_w",
        "rack[1].name",
        "rack[1].rank",
    ]


def test_faults_beyond_two_hundred_are_counted() -> None:
    faults = faults_of("".join(f"k{n} = 1\n" for n in range(5000)))
    assert len(faults) == 201
    # 5000 unknown keys and five missing ones
    assert faults[-1].text == "and 4805 more faults; mend these first"


def test_more_outlets_than_sixty_four_are_refused() -> None:
    more = ", ".join(f"{{ number = {n}, priority = 0, peak_w = 1 }}" for n in range(100, 163))
    faults = faults_of(edited(("outlets = [ ", f"outlets = [ {more}, ")))
    assert (faults[0].key, faults[0].text) == (
        f"{R1}.actuator.outlets",
        "65 of them; at most 64 are supported",
    )


# --- Where it stands ----------------------------------------------------------------------------


def test_a_fault_names_the_line_of_its_key() -> None:
    text = edited(("rank = 20", 'rank = "x"'))
    (fault,) = faults_of(text)
    assert fault.line == text[: text.index('rank = "x"')].count("\n") + 1
    assert str(fault) == f"{FOLDER / 'site.toml'}:{fault.line}: {R2}.rank: {fault.text}"


def test_a_fault_of_a_missing_key_names_the_line_of_its_table() -> None:
    text = edited(("rank = 5\n", ""))
    (fault,) = faults_of(text)
    assert text.splitlines()[(fault.line or 0) - 1] == "[[rack]]"
    assert text.splitlines()[fault.line or 0] == 'name = "r3"'


def test_lines_are_counted_through_strings_comments_and_arrays() -> None:
    text = '''\
# [x]
a = """
b = 1
[c]
"""
d = [ 1, # ]
  "]", ']',
  { e = 1 },
]
  f.g = \'\'\'
h = 1 \'\'\' # "
"q" = 1
[ i . j ]
k = "\\"#["
[[l]]
[[l]]
[l.m]
n = 1
[["o"]]
p = 1
[[l.r]]
s = 2024-01-01T00:00:00Z'''
    tomllib.loads(text)
    assert lines_of(text) == {
        ("a",): 2,
        ("d",): 6,
        ("f", "g"): 10,
        ("i", "j"): 13,
        ("i", "j", "k"): 14,
        ("l", 0): 15,
        ("l", 1): 16,
        ("l", 1, "m"): 17,
        ("l", 1, "m", "n"): 18,
        ("l", 1, "r", 0): 21,
        ("l", 1, "r", 0, "s"): 22,
    }


# --- Files that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "part", "line"),
    [
        (b"schema = 1\nsite =\n", "not TOML: ", 2),
        (b"[a]\n[a]\n", "not TOML: ", 2),
        (b"a = " + b"[" * 100_000, "nested too deeply", None),
        (b"a = " + b"1" * 5000, "too many digits", None),
        (b"schema = 1\nsite = '\xe9'\n", "not UTF-8; save it as UTF-8", 2),
        ("schema = 1".encode("utf-16"), "byte order mark", None),
        (b"\xef\xbb\xbfschema = 1", "byte order mark", None),
        (b"#" * (FILE_BYTES_MAX + 1), "larger than 1048576 bytes", None),
        (b"\x00", "not TOML: ", 1),
    ],
)  # fmt: skip
def test_a_file_that_is_no_toml_is_one_clear_fault(
    tmp_path: Path, raw: bytes, part: str, line: int | None
) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(raw)
    with pytest.raises(SiteError) as refused:
        load_site(path)
    (fault,) = refused.value.faults
    assert (fault.file, fault.key, fault.line) == (str(path), "", line)
    assert part in fault.text


def test_a_file_that_is_not_there_is_one_clear_fault(tmp_path: Path) -> None:
    for path, part in (
        (tmp_path / "none.toml", "cannot be read: No such file or directory; check the path"),
        (tmp_path, "cannot be read: Is a directory; check the path"),
        (Path("a\0b"), "cannot be read: not a path; check the path"),
    ):
        with pytest.raises(SiteError) as refused:
            load_site(path)
        (fault,) = refused.value.faults
        assert part in fault.text


def test_windows_line_ends_are_good_and_count_once(tmp_path: Path) -> None:
    (tmp_path / "site_profiles").symlink_to(FOLDER / "site_profiles")
    path = tmp_path / "site.toml"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert load_site(path).site == "lab"
    path.write_bytes(edited(("rank = 10", "rank = 0.5")).replace("\n", "\r\n").encode())
    with pytest.raises(SiteError) as refused:
        load_site(path)
    assert refused.value.faults[0].line == GOOD[: GOOD.index("rank = 10")].count("\n") + 1
