"""Profiles: strict reading, expansion, and what is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import ProfileError
from drivers.points import Condition, Derived, Lookup
from drivers.profile import check_profile, load_profile, profile_names

SNMP = """
schema = 1
name = "x"
protocol = "snmp"
[product]
vendor = "V"
[source]
document = "D"
[match]
one_of = ["1.3.6.1.4.1.9"]
present = ["1.3.6.1.4.1.9.1"]
[limits]
effect_delay_ms_max = 1000
"""
MODBUS = """
schema = 1
name = "x"
protocol = "modbus"
[product]
vendor = "V"
[source]
document = "D"
[limits]
effect_delay_ms_max = 1000
"""
POINT = '[[point]]\nname = "input.realpower"\nunit = "W"\n'
COMMAND = '[[command]]\nname = "limit.realpower"\nunit = "W"\ntable = "holding"\naddress = 0\n'


def faults_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ProfileError) as caught:
        check_profile(text, "x.toml")
    return caught.value.faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("schema = ", "x.toml: not TOML"),
        (SNMP, "x.toml: no [[point]]: nothing could be read"),
        (
            SNMP + POINT + 'oid = "1.3.1"\nscael = 10',
            'x.toml: [[point]] number 1 "input.realpower": unknown key scael (meant scale?)',
        ),
        (SNMP + '[[point]]\nname = "input.realpower"\noid = "1.3.1"', "unit is missing"),
        (SNMP + POINT.replace('"W"', '"kW"') + 'oid = "1.3.1"', "unit = 'kW' is not one of"),
        (SNMP + POINT.replace('"W"', '"VA"') + 'oid = "1.3.1"', "but input.realpower is in W"),
        (SNMP + POINT + 'oid = "1.3.1"\nrange = [5, 1]', "range = [5, 1] is reversed"),
        (SNMP + POINT + 'oid = "1.3.1"\nscale = 0', "scale = 0 loses the value"),
        (SNMP + POINT + 'oid = "sysDescr.0"', "'sysDescr.0' is not an OID in numbers"),
        (SNMP + POINT + 'oid = "1.3.1"\ntype = "float32"', "type = 'float32' is not one of int32"),
        (SNMP + POINT + 'oid = "1.3.{n}"', "{n} is not in each"),
        (SNMP + POINT + 'oid = "1.3.{member}"', "{member} needs [members]"),
        (SNMP + POINT + 'oid = "1.3.{row}"', "{row} is not in each"),
        (SNMP + POINT + 'oid = "1.3.1"\nrow = { "1.3.2" = 1 }', "oid does not contain {row}"),
        (SNMP + POINT + 'oid = "1.3.1"\nsuffix = "W"', "suffix belongs to type = 'decimal'"),
        (SNMP + POINT + 'oid = "1.3.1"\nitem = 2', "item belongs to type = 'text' or"),
        (SNMP + POINT + 'oid = "1.3.1"\nonly_if = { oid = "1.3.2", is = [] }', "is may hold"),
        (SNMP + POINT + 'sum = "input.L1.realpower"', "input.L1.realpower is not a point"),
        (SNMP + POINT + 'sum = ["input.realpower"]', "input.realpower is calculated from itself"),
        (SNMP + POINT + 'product = ["input.voltage"]', "product wants a list of two names"),
        (
            SNMP + POINT + 'sum = ["a.b"]\n[[point.otherwise]]\noid = "1.3.1"',
            "sum and product come last",
        ),
        (
            SNMP.replace("[limits]", "[members]\nat = 0\n[limits]") + POINT + 'oid = "1.3.1"',
            "column is missing: below which object",
        ),
        (
            SNMP.replace('present = ["1.3.6.1.4.1.9.1"]', "") + POINT + 'oid = "1.3.1"',
            "one of present, present_below and positive must name something",
        ),
        (
            MODBUS + POINT + 'table = "holding"\naddress = 0\nscale_factor = 200',
            "201 registers must be read in one piece",
        ),
        (MODBUS + "[match]\nmodels = []\n" + POINT + "model = 203\noffset = 18", "either models"),
        (MODBUS + POINT + "model = 0\noffset = 18", "model = 0 is not a SunSpec model"),
        (SNMP + (POINT + 'oid = "1.3.1"\n') * 2, "number 2 \"input.realpower\": duplicate name"),
        (
            SNMP + POINT + 'oid = "1.3.1"\n' + POINT.replace("input", "output") + 'oid = "1.3.1"',
            "1.3.1 is already read as input.realpower",
        ),
        (
            SNMP + '[[point]]\nname = "o.status"\noid = "1.3.1"\nenum = { on = 1, off = 1 }',
            "enum needs a different whole number for every word",
        ),
        (
            SNMP + POINT + 'oid = "1.3.1"\neach = { n = { first = 1, count = 3 } }',
            "each.n does not occur in the name as {n}",
        ),
        (
            SNMP + '[[point]]\nname = "a.{n}"\nunit = "W"\noid = "1.3.1"\n'
            "each = { n = { first = 1, count = 3 } }",
            "oid does not contain {n}",
        ),
        (SNMP.replace('document = "D"', "") + POINT + 'oid = "1.3.1"', "document is missing"),
        (SNMP.replace("[source]", "[sauce]") + POINT + 'oid = "1.3.1"', "source is missing"),
        (SNMP.replace('"snmp"', '"bacnet"') + POINT + 'oid = "1.3.1"', "protocol = 'bacnet'"),
        (
            SNMP + "registers_per_read_max = 10\n" + POINT + 'oid = "1.3.1"',
            "[limits]: unknown key registers_per_read_max",
        ),
        (MODBUS + POINT + 'table = "input"\naddress = 30053', "Write address = 52"),
        (MODBUS + POINT + 'table = "holding"\naddress = 400001', "Write address = 0"),
        (MODBUS + POINT + 'table = "input"\naddress = 65535\ntype = "uint32"', "not between 0"),
        (MODBUS + POINT + 'table = "coil"\naddress = 1\ntype = "uint16"', "does not fit table"),
        (
            MODBUS + POINT + 'table = "input"\naddress = 0\ntype = "uint32"\n'
            + POINT.replace("input", "output") + 'table = "input"\naddress = 1',
            "input 1 is already read as input.realpower",
        ),
        (
            MODBUS + '[[point]]\nname = "a.{n}"\nunit = "W"\ntable = "input"\naddress = 0\n'
            "each = { n = { first = 1, count = 3 } }",
            "each needs a stride",
        ),
        (MODBUS + COMMAND + "range = [0, 9]", "confirm is missing"),
        (MODBUS + COMMAND + 'range = [0, 9]\nconfirm = "none"', 'confirm = "none" needs a why'),
        (MODBUS + COMMAND + 'confirm = "none"\nwhy = "w"', "range is missing"),
        (
            MODBUS + COMMAND + 'range = [0, 9]\nconfirm = { point = "a.b", within_ms = 5 }',
            "confirm names a.b, which is not a point",
        ),
        (
            MODBUS + COMMAND.replace("holding", "input") + 'confirm = "none"\nwhy = "w"',
            "table = 'input' cannot be written",
        ),
        (
            MODBUS.replace("effect_delay_ms_max = 1000", "")
            + COMMAND + 'range = [0, 9]\nconfirm = "none"\nwhy = "w"',
            "effect_delay_ms_max is missing",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(text: str, fault: str) -> None:
    assert any(fault in told for told in faults_of(text)), faults_of(text)


def test_every_fault_is_told_at_once() -> None:
    text = SNMP + POINT + 'oid = "1.3.x"\nscael = 1\nrange = [2, 1]\n' + (
        '[[point]]\nname = "input.voltage"\noid = "1.3.2"\n'
    )  # fmt: skip
    assert len(faults_of(text)) == 4


def test_a_fault_of_an_expanded_row_is_told_once() -> None:
    row = '[[point]]\nname = "outlet.{n}.current"\noid = "1.3.1.{n}"\n'
    text = SNMP + row + "each = { n = { first = 1, count = 48 } }"
    assert faults_of(text) == ('x.toml: [[point]] number 1 "outlet.{n}.current": unit is missing',)


ROW = '[[point]]\nname = "input.L{phase}.current"\nunit = "A"\n'


def test_each_counts_names_oids_rows_and_conditions() -> None:
    row = ROW + (
        "each = { phase = { first = 1, count = 2 } }\n"
        'oid = "1.3.1.{row}"\nrow = { "1.3.2" = "{phase}", "1.3.3" = "bank" }\n'
        'only_if = { oid = "1.3.4.{phase}", is = ["{phase}", "NA"] }\n'
    )
    points = check_profile(SNMP + row, "x.toml").points
    assert [point.name for point in points] == ["input.L1.current", "input.L2.current"]
    source = points[1].sources[0]
    assert source.oid == "1.3.1.{row}"  # the device says which row
    assert source.row == (Lookup("1.3.2", 2), Lookup("1.3.3", "bank"))
    assert source.conditions == (Condition("1.3.4.2", (2, "NA"), True),)


def test_each_may_call_its_rows_by_words() -> None:
    row = ROW.replace("L{phase}", "{pair}") + (
        'each = { pair = { words = ["L1-L2", "L2-L3", "L3-L1"] } }\noid = "1.3.1.{pair}"\n'
    )
    points = check_profile(SNMP + row, "x.toml").points
    assert [(p.name, p.sources[0].oid) for p in points] == [
        ("input.L1-L2.current", "1.3.1.1"),
        ("input.L2-L3.current", "1.3.1.2"),
        ("input.L3-L1.current", "1.3.1.3"),
    ]


def test_a_sum_says_from_which_rows() -> None:
    row = ROW + "each = { phase = { first = 1, count = 3 } }\noid = \"1.3.1.{phase}\"\n" + (
        '[[point]]\nname = "input.current"\nunit = "A"\nsum = "input.L{phase}.current"\n'
        "over = { phase = { first = 1, count = 3 } }\n"
    )  # fmt: skip
    total = check_profile(SNMP + row, "x.toml").point("input.current")
    names = ("input.L1.current", "input.L2.current", "input.L3.current")
    assert total.sources == (Derived("sum", names),)


def test_the_words_of_a_command_may_go_to_several_places() -> None:
    row = (
        '[[point]]\nname = "outlet.1.status"\noid = "1.3.9"\nenum = { off = 0, on = 1 }\n'
        '[[command]]\nname = "outlet.1.load"\noid = "1.3.1"\nenum = { off = 0 }\n'
        'confirm = { point = "outlet.1.status", within_ms = 3000 }\n'
        'first = [{ oid = "1.3.8", value = 1 }]\n'
        '[[command.otherwise]]\noid = "1.3.2"\nenum = { on = 0 }\n'
    )
    command = check_profile(SNMP + row, "x.toml").command("outlet.1.load")
    assert command.words == ("off", "on")
    assert [target.oid for target in command.targets] == ["1.3.1", "1.3.2"]
    assert [(write.target.oid, write.raw) for write in command.before] == [("1.3.8", 1)]


def test_each_adds_its_stride_to_the_address() -> None:
    profile = load_profile("eastron-sdm630")
    addresses = [profile.point(f"input.L{n}.current").sources[0].address for n in (1, 2, 3)]
    assert addresses == [6, 8, 10]


def test_a_register_number_that_is_meant_can_be_said() -> None:
    text = MODBUS + POINT + 'table = "input"\naddress = 33280\nzero_based = true\n'
    assert check_profile(text, "x.toml").points[0].sources[0].address == 33280


def test_every_shipped_profile_is_sound_and_names_the_devices_delay() -> None:
    profiles = {name: load_profile(name) for name in profile_names()}
    assert len(profiles) >= 70
    assert all(p.limits.effect_delay_ms_max > 0 for p in profiles.values() if p.commands)
    assert profiles["apc-rpdu2"].limits.effect_delay_ms_max == 4000
    assert profiles["generic-power-limit"].limits.effect_delay_ms_max == 1000


def test_every_snmp_profile_must_prove_itself_by_more_than_a_sysobjectid() -> None:
    for name in profile_names():
        profile = load_profile(name)
        if profile.protocol == "snmp":
            match = profile.match
            assert match is not None
            assert match.present or match.present_below or match.positive, name


def test_the_state_and_the_command_of_an_apc_outlet_count_opposite_ways() -> None:
    profile = load_profile("apc-rpdu2")
    assert dict(profile.point("outlet.7.status").sources[0].words) == {1: "off", 2: "on"}
    command = profile.command("outlet.7.load")
    assert dict(command.targets[0].words) == {1: "on", 2: "off", 3: "cycle"}
    assert command.confirm_point == "outlet.7.status"


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(
        ProfileError, match=r"no profile called 'apc'; there are: abb-b23, .*apc-rpdu2, "
    ):
        load_profile("apc")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", "."])
def test_a_profile_is_a_name_and_never_a_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(SNMP + POINT + 'oid = "1.3.1"', encoding="utf-8")
    (tmp_path / "in").mkdir()
    with pytest.raises(ProfileError, match="no profile called"):
        load_profile(name, [tmp_path / "in"])


def test_a_folder_of_the_site_is_searched_first(tmp_path: Path) -> None:
    text = SNMP.replace('"x"', '"apc-rpdu2"') + POINT + 'oid = "1.3.1"'
    (tmp_path / "apc-rpdu2.toml").write_text(text, encoding="utf-8")
    assert load_profile("apc-rpdu2", [tmp_path]).vendor == "V"
    assert "raritan-pdu2" in profile_names([tmp_path])


def test_a_file_must_be_called_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "y.toml").write_text(SNMP + POINT + 'oid = "1.3.1"', encoding="utf-8")
    with pytest.raises(ProfileError, match="name = 'x' is not the name of the file"):
        load_profile("y", [tmp_path])
