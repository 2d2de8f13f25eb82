"""Profiles: strict reading, expansion, and what is shipped."""

from __future__ import annotations

import time
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
ROWS_OF_WORDS = SNMP + (
    '[[point]]\nname = "input.{n}.current"\nunit = "A"\noid = "1.3.1.{n}"\n'
    'each = { n = { words = ["%s"] } }'
)


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
        (SNMP + POINT + 'sum = ["a.b", "a.b"]', "sum counts a.b more than once"),
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


OVER = "over = { a = { count = 256 }, b = { count = 256 }, c = { count = 64 } }\n"
DEEP = "[" * 3000 + "]" * 3000
LONG = "1" * 3000
STATUS = '[[point]]\nname = "o.status"\n'
LOAD = '[[command]]\nname = "o.load"\nconfirm = "none"\nwhy = "w"\ntable = "holding"\naddress = 0\n'
METER = MODBUS + POINT + 'table = "input"\naddress = 100\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"a = {DEEP}", "x.toml: a line is longer than 4096 characters"),
        ("a = " + DEEP.replace("[", "[\n"), "x.toml: not TOML: nested too deep"),
        (f"a.{'a.' * 99}b = 1", "is nested more than 16 deep"),
        (SNMP + POINT + f'oid = "1.3.1"\nscale = {LONG}\n', "point.1.scale is a number of more"),
        (SNMP + POINT + f"oid = 0x{'f' * 4000}", "point.1.oid is a number of more than 64 bits"),
        (SNMP + POINT + 'oid = "1.3.1"\nabsent = [18446744073709551616]', "absent.1 is a number"),
        (SNMP + POINT + f'oid = "1.3.1"\n# {LONG * 2}', "a line is longer"),
        (SNMP + "#\n" * 140_000, "longer than 262144 characters"),
        (SNMP + POINT + f"sum = \"a.{{a}}-{{b}}-{{c}}\"\n{OVER}", "over makes more than 256 rows"),
        (
            SNMP + "[[point]]\nname = \"a.{n}\"\nunit = \"W\"\neach = { n = { count = 256 } }\n"
            'oid = "1.3.{n}"\nabsent = [' + "1,\n" * 1000 + "]",
            "its rows say more than 200000 things",
        ),
        (
            SNMP + POINT + "over = { n = { count = 256 } }\nsum = [" + '"a.{n}",\n' * 1000 + "]",
            "its rows say more than 200000 things",
        ),
        (SNMP + STATUS + 'oid = "1.3.1"\ntype = "text"\nitem = "{row}"', "item = '{row}' is"),
        (SNMP + STATUS + 'oid = "1.3.1"\ntype = "text"\nitem = "{n}"', "item = '{n}' is not in"),
        (
            SNMP.replace("[limits]", '[members]\ncolumn = "1.3.5"\n[limits]') + STATUS
            + 'oid = "1.3.1"\ntype = "text"\nitem = "{member}"',
            "item = '{member}' is not in each",
        ),
        (
            SNMP.replace("[limits]", '[members]\ncolumn = "1.3.5"\n[limits]')
            + '[identity]\nmodel = [{ oid = "1.3.1", item = "{member}" }]\n'
            + POINT + 'oid = "1.3.1"',
            "item = '{member}' is not in each",
        ),
        (
            SNMP + '[[point]]\nname = "o.{n}.name"\noid = "1.3.1"\ntype = "text"\nitem = "{n}"\n'
            "each = { n = { first = 0, count = 3 } }",
            "item counts from 1, and {n} from 0",
        ),
        (METER + "counter_bits = 1", "counter_bits = 1 is not between 8 and 64"),
        (METER + 'type = "float32"\ncounter_bits = 32', "type = 'float32' does not wrap"),
        (
            METER + '[[point.otherwise]]\ntable = "input"\naddress = 1\ncounter_bits = 32',
            "rounds are counted in a point's first place only",
        ),
        (METER + "scale_factor = -1", "scale_factor = -1 is not between 0 and 65535"),
        (
            MODBUS + '[[point]]\nname = "a.{n}"\nunit = "W"\ntable = "input"\naddress = 0\n'
            "scale_factor = 2\neach = { n = { count = 3, stride = 100 } }",
            "199 registers must be read in one piece",
        ),
        (
            MODBUS + '[[point]]\nname = "a.{n}"\nunit = "W"\nmodel = 7\noffset = 15000\n'
            "each = { n = { count = 3, stride = 400 } }",
            "the last register would be 15800",
        ),
        (MODBUS + POINT + "model = 7\noffset = 15536", "15536 is not between 0 and 15535"),
        (METER + "scale = 1e-300", "scale = 1e-300 is not between 1e-09 and 1e+09"),
        (METER + "range = [0, 1e300]", "goes beyond 1e+18"),
        (MODBUS + LOAD + "enum = { on = 65536 }", "'on' = 65536 does not fit type = 'uint16'"),
        (MODBUS + LOAD + "enum = { on = 1 }\nfirst = [{ address = 1, table = \"holding\","
         " value = -1 }]", "value = -1 does not fit type = 'uint16'"),
        (MODBUS + LOAD + "enum = { on = 1 }\nthen = [{ address = 1, table = \"coil\", value = 2 }]",
         "value = 2 does not fit type = 'bit'"),
        (MODBUS + LOAD + "enum = { on = 1 }\nfirst = [{ address = 1, table = \"holding\","
         " type = \"text\", value = 1 }]", "a command writes a number"),
        (MODBUS + LOAD + "enum = { on = 1 }\nfirst = [{ address = 1, table = \"input\","
         " value = 1 }]", "table = 'input' cannot be written"),
        (MODBUS + LOAD + "enum = { on = 1 }\nthen = [{ address = 1, table = \"discrete\","
         " value = 1 }]", "table = 'discrete' cannot be written"),
        (SNMP + POINT + 'oid = "1.99.1"', "'1.99.1' is not an OID"),
        (SNMP + POINT + 'oid = "3.1.1"', "'3.1.1' is not an OID"),
        (SNMP + POINT + 'oid = "1.3.4294967296"', "'1.3.4294967296' is not an OID"),
        (SNMP + POINT + 'oid = "1.3.1{n}"', "'1.3.1{n}' is not an OID"),
        (SNMP + POINT + f'oid = "1.3{".1" * 127}"', "is not an OID"),
        (SNMP.replace("9.1", "9.{n}") + POINT + 'oid = "1.3.1"', "9.{n}' is not an OID"),
        (ROWS_OF_WORDS % "L 1", "'L 1' cannot stand in a name"),
        (ROWS_OF_WORDS % "L.1", "'L.1' cannot stand in a name"),
        (ROWS_OF_WORDS % "{L}", "'{L}' cannot stand in a name"),
        (MODBUS + "[match]\nmodels = [true]\n" + POINT + "model = 7\noffset = 1", "models only"),
        (
            SNMP + '[[point]]\nname = "a.{}"\nunit = "W"\noid = "1.3.{}"\neach = { "" = {} }',
            "'' is not a word of letters and digits",
        ),
        (SNMP.replace('"x"', '"{}"') + POINT + 'oid = "1.3.1"', "name = '{}' is not letters"),
        (
            SNMP.replace("[limits]", '[members]\ncolumn = "1.3.5"\nfirst = "x"\n[limits]')
            + POINT + 'oid = "1.3.1"',
            "first = 'x' cannot be a member",
        ),
        (METER + 'only_if = { address = 1, is = ["on"] }', "is compared with numbers only"),
        (METER + "valid_if = { address = 1, is = [-1] }", "is = -1 is not between 0 and 65535"),
        (METER + "unless = { address = 1, is = [65536] }", "is = 65536 is not between 0 and 65535"),
        (METER + 'unless = { table = "coil", address = 1, is = [2] }', "is not between 0 and 1"),
        (
            SNMP + POINT + 'oid = "1.3.{row}"\nrow = { "1.3.2" = 1 }\n'
            'only_if = { oid = "1.3.4", is = ["{row}"] }',
            '"{row}" never',
        ),
        (MODBUS + POINT + 'table = "input"\naddress = 1\ntype = "text"\nscale_factor = 9',
         "a text is not multiplied"),
        (
            MODBUS + '[identity]\nmodel = [{ table = "input", address = 9, type = "uint16" }]\n'
            + POINT + 'table = "input"\naddress = 1',
            "type = 'uint16' is not one of text",
        ),
    ],
)  # fmt: skip
def test_what_no_device_could_have_is_a_fault(text: str, fault: str) -> None:
    assert any(fault in told for told in faults_of(text)), faults_of(text)


def test_a_fault_shows_no_more_of_a_value_than_can_be_read() -> None:
    names = ", ".join(f'"a{n}"' for n in range(500))
    assert all(len(fault) < 300 for fault in faults_of(SNMP + POINT + f"scale = [{names}]"))


def test_sums_of_sums_go_so_deep_and_no_deeper() -> None:
    def chain(length: int) -> str:
        rows = [f'[[point]]\nname = "a.n{n}"\nunit = "W"\nsum = "a.n{n - 1}"\n'
                for n in range(1, length + 1)]  # fmt: skip
        return SNMP + '[[point]]\nname = "a.n0"\nunit = "W"\noid = "1.3.1"\n' + "".join(rows)

    assert len(check_profile(chain(8), "x.toml").points) == 9
    assert faults_of(chain(9)) == ("x.toml: calculated from each other over 9 points in a row",)


RINGS = ("xy", "yx", "zx", "vw", "wv", "uu")  # z is on none of them


def test_points_that_are_calculated_from_each_other_are_told_each() -> None:
    rows = [f'[[point]]\nname = "a.{a}"\nunit = "W"\nsum = "a.{b}"\n' for a, b in RINGS]
    assert faults_of(SNMP + "".join(rows)) == (
        'x.toml: [[point]] number 1 "a.x": a.x is calculated from itself',
        'x.toml: [[point]] number 2 "a.y": a.y is calculated from itself',
        'x.toml: [[point]] number 4 "a.v": a.v is calculated from itself',
        'x.toml: [[point]] number 5 "a.w": a.w is calculated from itself',
        'x.toml: [[point]] number 6 "a.u": a.u is calculated from itself',
    )


def test_what_is_expanded_stays_within_bounds() -> None:
    rows = "".join(f'[[point]]\nname = "a.{{n}}.w{n}"\nunit = "W"\noid = "1.3.{n}.{{n}}"\n'
                   "each = { n = { count = 256 } }\n" for n in range(2000))  # fmt: skip
    before_s = time.process_time()
    assert faults_of(SNMP + rows) == (
        "x.toml: its rows say more than 200000 things: too much for a device",
    )
    assert time.process_time() - before_s < 5.0


def test_a_word_of_a_sum_may_be_several_parts_of_a_name() -> None:
    point = POINT.replace("input", "input.L1")
    text = SNMP + point + 'oid = "1.3.1"\n' + POINT + (
        'sum = "{of}.realpower"\nover = { of = { words = ["input.L1"] } }\n'
    )  # fmt: skip
    assert check_profile(text, "x.toml").point("input.realpower").sources == (
        Derived("sum", ("input.L1.realpower",)),
    )


def test_a_number_beyond_everything_is_no_reading_where_no_range_is_told() -> None:
    point = check_profile(SNMP + POINT + 'oid = "1.3.1"', "x.toml").points[0]
    assert (point.low, point.high) == (-1e18, 1e18)


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
    assert profiles["apc-rpdu2"].limits.effect_delay_ms_max == 10_000
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
