"""What `discover` asks, what it makes of the answers, and what it never writes down."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import ProfileError
from drivers.profile import load_profile
from drivers.reading import Absence, Identity, Missing, Reading
from drivers.secret import Secret
from firmware_py.discovered_site import Found, Unknown, quoted, racks_of, site_text
from firmware_py.discovery import wanted_points
from firmware_py.secrets_named import name_secrets, without_secrets
from firmware_py.shown import shown
from firmware_py.site import site_of, warnings_of
from firmware_py.targets import Host, TargetError, parse_targets, parse_units

PDU, METER = load_profile("apc-rpdu2"), load_profile("eastron-sdm630")
SITE = Path("/nowhere/site.toml")


def readings(**values: float | str) -> dict[str, Reading | Missing]:
    """input__realpower=5.0 is the point input.realpower."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    return {name: Reading(name, value, "", 0.0, 0.0) for name, value in named.items()}


def found(host: str = "192.0.2.21", **changes: Any) -> Found:
    values: dict[str, Any] = {
        "host": host,
        "is_named": False,
        "url": f"snmp://public@{host}",
        "member": "",
        "called": "",
        "profile": PDU,
        "identity": Identity("ACME", "P9", None),
        "points": readings(input__realpower=1000.0),
    }
    return Found(**(values | changes))


def only_rack(each: Found) -> dict[str, Any]:
    racks, _ = racks_of([each])
    rack: dict[str, Any] = tomllib.loads(site_text(racks, [], []))["rack"][0]
    return rack


# ── targets ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("texts", "hosts"),
    [
        (["192.0.2.0/30"], [Host("192.0.2.1"), Host("192.0.2.2")]),
        (["192.0.2.9/30"], [Host("192.0.2.9"), Host("192.0.2.10")]),  # any address of it
        (["192.0.2.4/31"], [Host("192.0.2.4"), Host("192.0.2.5")]),
        (["192.0.2.4/32", "192.0.2.4"], [Host("192.0.2.4")]),  # each once
        (["pdu-1.example", "pdu-1.example:1161"],
         [Host("pdu-1.example"), Host("pdu-1.example", 1161)]),
        (["2001:db8::1", "[2001:db8::2]:1161"],
         [Host("2001:db8::1"), Host("2001:db8::2", 1161)]),
    ],
)  # fmt: skip
def test_targets_are_networks_hosts_and_hosts_with_a_port(texts, hosts) -> None:
    assert list(parse_targets(texts, {}).hosts) == hosts


def test_a_url_is_a_target_of_its_own() -> None:
    parsed = parse_targets(["snmp://public@192.0.2.1", "modbus://192.0.2.2/3"], {})
    assert parsed.hosts == ()
    assert parsed.urls == ("snmp://public@192.0.2.1", "modbus://192.0.2.2/3")


@pytest.mark.parametrize(
    ("texts", "many", "said"),
    [
        (["10.0.0.0/22"], False, None),  # 1024: as many as may be
        (["10.0.0.0/22", "10.1.0.1"], False, "1025 addresses are more than 1024; --yes-many"),
        (["10.0.0.0/22", "10.1.0.1"], True, None),
        (["10.0.0.0/16", "10.1.0.1"], True, "65537 addresses are more than 65536"),
        (["2001:db8::/32"], True, f"{2**96} addresses are more than 65536"),
        (["-rf"], False, "'-rf' is not a network, a host, host:port or a device URL"),
        (["host:0"], False, "'host:0' is not a network"),
        (["192.0.2.1:0"], False, "'192.0.2.1:0': ports are numbers from 1 to 65535"),
        (["224.0.0.1"], False, "224.0.0.1 is not the address of one machine"),
        (["255.255.255.255"], False, "255.255.255.255 is not the address of one machine"),
        (["0.0.0.0/30"], False, "0.0.0.0 is not the address of one machine"),
        (["a/b"], False, "'a/b' is not a network, as 192.0.2.0/28"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_too_many_with_their_number(texts, many, said) -> None:
    if said is None:
        assert parse_targets(texts, {}, many=many).hosts
        return
    with pytest.raises(TargetError) as refused:
        parse_targets(texts, {}, many=many)
    assert said in str(refused.value)


def test_every_faulty_target_is_told_at_once() -> None:
    with pytest.raises(TargetError) as refused:
        parse_targets(["a b", "http://x", "10.0.0.0/40"], {})
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "units"),
    [("1", (1,)), ("1,5, 3", (1, 5, 3)), ("1-3,2-4", (1, 2, 3, 4)), ("255", (255,))],
)
def test_units_are_numbers_and_ranges(text, units) -> None:
    assert parse_units(text) == units


@pytest.mark.parametrize("text", ["", "0", "256", "3-1", "1-", "x", "1;2", "1-64"])
def test_what_is_no_unit_is_refused(text) -> None:
    with pytest.raises(ValueError):
        parse_units(text)


# ── secrets ───────────────────────────────────────────────────────────────────────


def test_every_secret_gets_a_variable_and_public_is_none() -> None:
    urls = [
        "snmp://haus@192.0.2.1",
        "snmp://192.0.2.2",
        "snmp://env:OTHER@192.0.2.3",
        "snmp3://ops@192.0.2.4?auth=SHA&authkey=authauth&priv=AES&privkey=env:PRIV",
    ]
    named = name_secrets(["public", "hof", "haus", "env:ROOM"], urls, {"ROOM": "zimmer"})
    assert named.communities == tuple(map(Secret, ("public", "hof", "haus", "zimmer")))
    assert [without_secrets(url, named.names) for url in urls] == [
        "snmp://env:SNMP_COMMUNITY_2@192.0.2.1",
        "snmp://public@192.0.2.2",
        "snmp://env:OTHER@192.0.2.3",
        "snmp3://ops@192.0.2.4?auth=SHA&authkey=env:SNMP_AUTHKEY&priv=AES&privkey=env:PRIV",
    ]
    assert set(named.variables) == {
        "SNMP_COMMUNITY", "SNMP_COMMUNITY_2", "ROOM", "OTHER", "SNMP_AUTHKEY", "PRIV"
    }  # fmt: skip
    for secret in ("hof", "haus", "zimmer", "authauth"):
        assert secret not in repr(named)


def test_a_variable_that_is_not_there_is_the_operators_fault() -> None:
    with pytest.raises(ProfileError, match="no variable ROOM"):
        name_secrets(["env:ROOM"], [], {})


# ── the site file ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("points", "ceiling_w"),
    [
        ({"input__realpower__rating": 7361.0}, 7370),  # rounded up
        ({"input__power__rating": 5000.0}, 5000),
        ({"input__current__rating": 16.0, "input__L1__voltage": 230.0}, 3680),
        ({"input__current__rating": 16.0, "input__L1__voltage": 230.0,
          "input__L2__voltage": 230.0, "input__L3__voltage": 230.0}, 11040),
        ({"input__current__rating": 16.0, "input__L1__voltage": 230.0,
          "input__L2__voltage": 0.0}, 3680),  # a phase that is not wired
        ({"input__current__rating": 10.0, "input__voltage": 120.0}, 1200),
        ({"input__current__rating": 16.0}, 3680),  # mains
        ({"inlet__1__power__rating": 3000.0, "inlet__2__power__rating": 2000.0}, 5000),
        ({"inlet__1__current__rating": 10.0, "inlet__1__voltage__rating": 200.0}, 2000),
        ({}, 3680),
        ({"input__realpower": 4000.0}, 6000),  # no rating: half as much again
        ({"input__realpower": 4000.0, "input__realpower__rating": 3000.0}, 4000),
    ],
)  # fmt: skip
def test_the_ceiling_is_what_the_device_is_rated_for(points, ceiling_w) -> None:
    assert only_rack(found(points=readings(**points)))["ceiling_w"] == ceiling_w


def test_a_delta_carries_its_current_times_root_three() -> None:
    points = readings(input__current__rating=24.0)
    for pair in ("L1-L2", "L2-L3", "L3-L1"):
        points[f"input.{pair}.voltage"] = Reading("", 208.0, "V", 0.0, 0.0)
    assert only_rack(found(points=points))["ceiling_w"] == 8650  # 24 A · 208 V · √3


def test_a_device_that_lacks_its_watts_counts_for_nothing_and_one_that_was_silent_does() -> None:
    absent = {"input.realpower": Missing("input.realpower", Absence.ABSENT)}
    silent = {"input.realpower": Missing("input.realpower", Absence.TIMEOUT)}
    assert only_rack(found(points=absent))["device"][0]["measures"] == []
    assert "measures" not in only_rack(found(points=silent))["device"][0]


def test_names_are_unique_and_in_the_order_of_the_addresses() -> None:
    each = [found(f"192.0.2.{n}", called="pdu 1") for n in (10, 9, 100)]
    each += [found("192.0.2.9", called="pdu 1", member="B", url="snmp://public@192.0.2.9/B")]
    racks, _ = racks_of(each)
    assert [(rack.name, rack.found.host) for rack in racks] == [
        ("pdu-1", "192.0.2.9"), ("pdu-1-B", "192.0.2.9"), ("pdu-1-2", "192.0.2.10"),
        ("pdu-1-3", "192.0.2.100"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "url", "name"),
    [
        ("192.0.2.6", "modbus://192.0.2.6/7", "192.0.2.6-7"),
        ("192.0.2.6", "modbus+rtutcp://192.0.2.6:4001/7", "192.0.2.6-7"),
        ("/dev/ttyUSB0", "modbus+rtu:///dev/ttyUSB0?unit=7&baud=9600", "dev-ttyUSB0-7"),
        ("2001:db8::6", "modbus://[2001:db8::6]/7", "2001-db8-6-7"),
    ],
)
def test_a_modbus_unit_is_named_by_its_place_and_its_number(host, url, name) -> None:
    assert only_rack(found(host, url=url, profile=METER))["name"] == name


def test_one_address_with_two_protocols_is_one_device_unless_they_were_named() -> None:
    by_modbus = {"profile": METER, "url": "modbus://192.0.2.21/1"}
    racks, left_out = racks_of([found(), found(**by_modbus)])
    assert [rack.found.profile for rack in racks] == [PDU]
    assert [out.found.profile for out in left_out] == [METER]
    racks, left_out = racks_of([found(is_named=True), found(**by_modbus, is_named=True)])
    assert (len(racks), left_out) == (2, [])


def test_a_serial_number_that_occurs_twice_is_remarked() -> None:
    same = Identity("ACME", "P9", "A1")
    racks, _ = racks_of([found("192.0.2.1", identity=same), found("192.0.2.2", identity=same)])
    assert [rack.twin for rack in racks] == ["", "192.0.2.1"]
    assert "# It has the serial number of 192.0.2.1" in site_text(racks, [], [])


def test_what_delivers_power_is_no_rack() -> None:
    inverter = found(profile=load_profile("sunspec-inverter"), url="modbus://192.0.2.9/1")
    racks, left_out = racks_of([inverter])
    assert racks == []
    assert [out.why for out in left_out] == ["it delivers power, and draws none"]


def test_the_cap_has_room_for_every_ceiling_and_the_guard() -> None:
    racks, _ = racks_of([found(f"192.0.2.{n}") for n in range(1, 9)])
    site = site_of(site_text(racks, [], []), SITE)
    ceilings_w = sum(rack.ceiling_w for rack in site.racks)
    assert site.caps[0].limit_w * (1 - site.market.guard) >= ceilings_w
    assert list(warnings_of(site)) == []


def test_an_untested_profile_is_offered_no_actuator() -> None:
    untested = load_profile("hpe-pdu3")
    assert untested.status == "untested"
    points = readings(input__realpower=5.0, outlet__1__status="on")
    text = site_text(racks_of([found(profile=untested, points=points)])[0], [], [])
    assert "kind =" not in text
    text = site_text(racks_of([found(points=points)])[0], [], [])
    assert '#   kind = "outlets"' in text


@pytest.mark.parametrize(
    ("kind", "profile"), [("outlets", "apc-rpdu2"), ("power-limit", "generic-power-limit")]
)
def test_the_actuator_that_is_offered_works_when_its_comment_is_taken_away(kind, profile) -> None:
    points = readings(
        input__realpower=900.0, outlet__1__status="on", outlet__1__realpower=400.0,
        outlet__2__status="off", outlet__2__name='x" }, # y',
    )  # fmt: skip
    scheme = "snmp://public@" if kind == "outlets" else "modbus://"
    each = found(profile=load_profile(profile), points=points, url=f"{scheme}192.0.2.21")
    lines = site_text(racks_of([each])[0], [], []).splitlines()
    lines = [line.replace("  #   ", "  ", 1) for line in lines if line.startswith(("  #  ", "  "))
             or not line.startswith(" ")]  # fmt: skip
    text = "\n".join(line for line in lines if not line.startswith("  # "))
    text = text.replace("floor_w = 1130", "floor_w = 500")  # a step of the outlets
    site = site_of(text, SITE)
    assert site.racks[0].actuator.kind == kind
    assert [outlet.number for outlet in site.racks[0].actuator.outlets] == (
        [1, 2] if kind == "outlets" else []
    )


def test_only_what_a_site_file_needs_is_read() -> None:
    assert set(wanted_points(METER)) == {
        "input.realpower", "input.voltage", "input.L1.voltage", "input.L2.voltage",
        "input.L3.voltage",
    }  # fmt: skip
    names = wanted_points(PDU)
    assert {"input.realpower.rating", "outlet.3.status"} <= set(names)
    assert not any(name.endswith((".energy", ".high.warning")) for name in names)


# ── whatever a device says ────────────────────────────────────────────────────────

ANYTHING = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ['"""', "'''", '"\n[[rack]]\nname = "evil"', "\\", "\0\x1b[2J", "\ud800", "# ]", "\u2028",
     "x = 1\r\ny = 2", '" }, { number = 9', "\u202e"]
)  # fmt: skip
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([-1.0, 0.0, 1e12])


@st.composite
def anything_told(draw: st.DrawFn) -> dict[str, Any]:
    """What `found` is changed by; small, as hypothesis prints it."""
    names = ["input.realpower", "input.realpower.rating", "input.current.rating",
             "input.L1.voltage", "outlet.1.status", "outlet.1.name", "outlet.1.realpower",
             "inlet.1.power.rating"]  # fmt: skip
    points: dict[str, Reading | Missing] = {}
    for name in draw(st.lists(st.sampled_from(names), unique=True)):
        is_text = name.endswith(("status", "name"))
        value = draw(ANYTHING) if is_text else draw(NUMBERS)
        points[name] = Reading(name, value, "", 0.0, 0.0)
    said = st.none() | ANYTHING
    return {
        "host": draw(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "pdu.example"])),
        "url": "snmp://public@192.0.2.1",
        "called": draw(ANYTHING),
        "member": draw(ANYTHING),
        "identity": Identity(draw(said), draw(said), draw(said)),
        "points": points,
    }


@settings(max_examples=200, deadline=None)
@given(
    st.lists(anything_told(), max_size=4),
    st.lists(st.tuples(ANYTHING, ANYTHING, ANYTHING), max_size=3),
)
def test_nothing_that_a_device_says_breaks_the_file_or_adds_to_it(each, unknowns) -> None:
    unknown = [Unknown("snmp://192.0.2.9", {"sysDescr": a, "sysName": b}, c)
               for a, b, c in unknowns]  # fmt: skip
    racks, left_out = racks_of([found(**told) for told in each])
    text = site_text(racks, left_out, unknown, variables=["SNMP_COMMUNITY"], profiles="")
    text.encode("utf-8")
    told = tomllib.loads(text)
    assert set(told) == {"schema", "site", "mqtt", "cap"} | ({"rack"} if racks else set())
    assert len(told.get("rack", [])) == len(each)
    for rack in told.get("rack", []):
        assert set(rack) == {"name", "rank", "cap", "floor_w", "ceiling_w", "device"}
        (device,) = rack["device"]
        assert set(device) - {"measures"} == {"name", "url", "profile"}
    if racks:
        site = site_of(text, SITE)  # and it can be used
        assert [rack.name for rack in site.racks] == [rack.name for rack in racks]


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_a_quoted_text_is_itself_again(text) -> None:
    read = tomllib.loads(f"key = {quoted(text)}")
    assert list(read) == ["key"]
    assert read["key"] == "".join("�" if "\ud800" <= c <= "\udfff" else c for c in text)


@given(st.text(st.characters(codec=None)))
def test_what_is_shown_is_one_line_of_printable_letters(text) -> None:
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= 80
    assert shown("  a\t\nb  ") == "a b"
    assert shown("x" * 81) == "x" * 79 + "…"
