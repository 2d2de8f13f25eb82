"""The site file: what may be run but is warned of, breakers' trip edges, the schema."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import pytest
from site_files import GOOD, edited, read

from firmware_py.breakers import FAST_EDGE, Curve, fast_trip_s
from firmware_py.site import SCHEMA_FILE, json_schema, warnings_of, write_schema

# The edits of the good file, and every warning that they make.
WARNED: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "nothing": ([], []),
    "a rack whose ceiling just fits": ([("limit_w = 20_000", "limit_w = 4_000")], []),
    "a rack whose ceiling does not fit beside the floors": (
        [("limit_w = 20_000", "limit_w = 3_999")],
        ['cap "room", rack "r2": ceiling_w 3000 + floors of the others 1000 = 4000 W is above'
         " limit_w 3999: if r2's Pi is down when the broker changes, all others under room fall to"
         " their floors"],
    ),
    "a rack under an inner cap": (
        [("limit_w = 12_000", "limit_w = 1_449")],
        ['cap "row1", rack "r1": ceiling_w 1450 + floors of the others 0 = 1450 W is above'
         " limit_w 1449: if r1's Pi is down when the broker changes, all others under row1 fall to"
         " their floors"],
    ),
    "racks that nothing limits": (
        [("limit_w = 20_000", "limit_w = 5_000"), ("floor_w = 0\nceiling_w = 800",
          "floor_w = 0\nceiling_w = 3_501")],
        ['cap "room", rack "r3": ceiling_w 3501 + floors of the others 1500 = 5001 W is above'
         " limit_w 5000: if r3's Pi is down when the broker changes, all others under room fall to"
         " their floors",
         'cap "room": cannot be promised: ceilings of the racks without actuator (r3) + floors of'
         " the others = 5001 W is above limit_w 5000"],
    ),
    "racks that nothing limits and that just fit": ([("limit_w = 20_000", "limit_w = 5_000"),
        ("floor_w = 0\nceiling_w = 800", "floor_w = 0\nceiling_w = 3_500")], []),
    # Σ ceiling_w 5250: 5250 / 5000 = 1.05 < 1.13, nothing ever trips
    "a breaker that bears everything": ([("limit_w = 20_000",
        'limit_w = 5_000\nbreaker = { rating_w = 5_000, curve = "C" }')], []),
    # 5250 / 2625 = 2.0: log-log between 1.13 (3600 s) and 2.55 (1 s) is 11.5 s
    "a breaker that is faster than the leases": (
        [("limit_w = 12_000", 'limit_w = 1_450\nbreaker = { rating_w = 725, curve = "B" }')],
        ['cap "row1": limit_w 1450 is above its breaker\'s rating_w 725',
         'cap "row1": if limit_w falls while racks are cut off, r1 takes up to 305 s (ttl_s 300 +'
         " settle_s 5), but at Σ ceiling_w 1450 W = 2.00 x rating_w 725 a breaker of curve B may"
         " trip after 11.5 s (1 of 1 racks are slower than that)"],
    ),
    "a fallback below the floors": (
        [("limit_w = 20_000", "limit_w = 20_000\nfallback_w = 1_499")],
        ['cap "room": fallback_w 1499 is below the floors\' 1500 W: when its sources are silent all'
         " are at their floors and it is exceeded"],
    ),
    "a fallback that the floors fit under": (
        [("limit_w = 20_000", "limit_w = 20_000\nfallback_w = 1_500")], []),
    "a brake that is faster than a falling cap is obeyed": (  # r1 settles in 5 s
        [("limit_w = 12_000", "limit_w = 12_000\nbrake_after_s = 6.0")],
        ['cap "row1": brake_after_s 6 is not longer than a tick and the settle_s of r1, 6 s in'
         " all: racks may brake each time that the cap falls"],
    ),
    "a brake that is slower": ([("limit_w = 12_000", "limit_w = 12_000\nbrake_after_s = 6.1")], []),
    "a rack that nothing measures": (
        [('"test-pdu"', '"test-pdu"\nmeasures = []')],
        ['rack "r1": nothing measures it: it counts as wanting its ceiling_w 1450 all the time'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", WARNED.values(), ids=WARNED)
def test_is_warned_of(row: tuple[list[tuple[str, str]], list[str]]) -> None:
    edits, expected = row
    assert [str(warning) for warning in warnings_of(read(edited(*edits)))] == expected


def test_secrets_that_everyone_can_read_are_warned_of(tmp_path: Path) -> None:
    password, key, community, closed = (tmp_path / name for name in "pkcx")
    for path, mode in ((password, 0o644), (key, 0o604), (community, 0o666), (closed, 0o640)):
        path.touch()
        path.chmod(mode)
    tls = f'tls = {{ ca = "ca", cert = "c", key = "{key}" }}'
    site = read(
        edited(
            ("[timing]", f'username = "u"\npassword_file = "{password}"\n{tls}\n[timing]'),
            ("geheim@192.0.2.21", f'192.0.2.21"\ncommunity_file = "{community}'),
            ("geheim@192.0.2.23", f'192.0.2.23"\ncommunity_file = "{closed}'),
        )
    )
    assert [str(warning) for warning in warnings_of(site)] == [
        f"mqtt.password_file: {password} can be read by everyone on this machine; chmod o= it",
        f"mqtt.tls.key: {key} can be read by everyone on this machine; chmod o= it",
        f'rack "r1".device "pdu".community_file: {community} can be read by everyone on this'
        " machine; chmod o= it",
    ]


# --- Trip edges (IEC 60898-1) -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "multiple", "seconds"),
    [
        ("C", 0.5, math.inf),
        ("C", 1.12, math.inf),
        ("C", 1.13, 3600.0),
        ("C", 2.0, 11.523),
        ("B", 2.55, 1.0),
        ("C", 2.55, 1.0),
        ("D", 2.55, 1.0),
        ("B", 3.0, 0.1),
        ("C", 5.0, 0.1),
        ("D", 10.0, 0.1),
        ("B", 3.01, 0.0),
        ("C", 5.01, 0.0),
        ("D", 10.01, 0.0),
        ("C", 3.570714, 0.31623),  # the middle of 2.55 and 5 in log: the middle of 1 and 0.1
    ],
)
def test_the_fast_edge_of_a_breaker(curve: Curve, multiple: float, seconds: float) -> None:
    assert fast_trip_s(curve, multiple) == pytest.approx(seconds, rel=1e-3)


@pytest.mark.parametrize("curve", FAST_EDGE)
def test_more_current_never_trips_later(curve: Curve) -> None:
    times = [fast_trip_s(curve, 1.0 + n / 50) for n in range(600)]
    assert times == sorted(times, reverse=True)


# --- The JSON Schema for editors -----------------------------------------------------------------


def test_the_schema_in_the_documentation_is_the_one_of_the_types(tmp_path: Path) -> None:
    """Regenerate it with `python -m firmware_py.site`."""
    write_schema(tmp_path / "schema.json")
    assert SCHEMA_FILE.read_text("utf-8") == (tmp_path / "schema.json").read_text("utf-8")


def test_the_schema_has_every_key_of_the_good_file_and_no_null() -> None:
    schema = json_schema()
    assert "null" not in json.dumps(schema)
    assert schema["$ref"] == "#/$defs/SiteTable"
    tables = schema["$defs"]
    document = tomllib.loads(GOOD)
    assert set(document) <= set(tables["SiteTable"]["properties"])
    assert set(document["rack"][0]) <= set(tables["RackTable"]["properties"])
    assert set(document["rack"][0]["actuator"]) <= set(tables["ActuatorTable"]["properties"])
    assert tables["RackTable"]["additionalProperties"] is False
    assert tables["RackTable"]["required"] == ["name", "rank", "cap", "floor_w"]
    assert tables["RackTable"]["properties"]["actuator"] == {"$ref": "#/$defs/ActuatorTable"}
    assert tables["ActuatorTable"]["properties"]["kind"]["enum"] == [
        "none",
        "outlets",
        "power-limit",
    ]
    ceiling = tables["RackTable"]["properties"]["ceiling_w"]
    assert (ceiling["type"], ceiling["exclusiveMinimum"]) == ("integer", 0)


def test_the_schema_has_no_key_that_is_refused_as_not_supported() -> None:
    tables = json_schema()["$defs"]
    assert "shares" not in tables["RackTable"]["properties"]
    assert "discover" not in tables["MqttTable"]["properties"]
    assert not {"supply", "feed", "source", "battery"} & set(tables["SiteTable"]["properties"])
    assert tables["SiteTable"]["properties"]["roster"]["enum"] == ["open", "static"]
    assert tables["Market"]["properties"]["mechanism"]["enum"] == ["exact"]
