"""The site file: what it resolves to, and the hash that members agree on."""

from __future__ import annotations

import random
import re
import textwrap
from pathlib import Path

import pytest
from site_files import FOLDER, GOOD, edited, read

from firmware_py.runtime import roster_of
from firmware_py.site import load_site, outlet_steps_w, site_hash, site_of, warnings_of
from firmware_py.site_types import Actuator, Outlet

ROOT = Path(__file__).parents[2]

# --- What a good file resolves to --------------------------------------------------------


def test_defaults_of_the_site_are_filled_in() -> None:
    site = read(GOOD)
    assert (site.schema, site.site, site.roster) == (1, "lab", "static")
    mqtt = site.mqtt
    assert (mqtt.host, mqtt.port, mqtt.username, mqtt.tls) == ("192.0.2.10", 1883, None, None)
    timing = site.timing
    assert (timing.tick_s, timing.beat_timeout_s, timing.answer_timeout_s) == (1.0, 2.0, 0.5)
    assert (timing.preempt_after_s, timing.lease_ttl_s, timing.clock) == (30.0, 15.0, None)
    assert (site.market.mechanism, site.market.guard, site.market.auction) == ("exact", 0.01, False)
    assert (site.cap("row1").parent, site.cap("room").parent) == ("room", None)
    assert (site.cap("room").limit_w, site.cap("room").fallback_w) == (20_000, None)


def test_outlets_default_to_their_own_lease_and_to_everything_on() -> None:
    rack = read(GOOD).rack("r1")
    assert (rack.ceiling_w, rack.weight, rack.tier) == (1_450, 1.0, 1)
    actuator = rack.actuator
    assert (actuator.kind, actuator.device, actuator.base_w) == ("outlets", "pdu", 300)
    assert (actuator.effect_delay_s, actuator.settle_s, actuator.ttl_s) == (4.0, 5.0, 300.0)
    assert (actuator.keeps, actuator.stagger_s) == (True, 1.0)
    assert actuator.outlets == (
        Outlet(number=1, priority=9, peak_w=700, min_off_s=60.0),
        Outlet(number=2, priority=1, peak_w=450, min_off_s=60.0),
    )
    assert outlet_steps_w(actuator) == (300, 1_000, 1_450)


def test_a_power_limit_defaults_to_the_shared_lease() -> None:
    actuator = read(GOOD).rack("r2").actuator
    assert (actuator.effect_delay_s, actuator.settle_s, actuator.ttl_s) == (1.0, 2.0, 15.0)
    assert (actuator.base_w, actuator.outlets) == (0, ())


def test_a_rack_without_actuator_table_has_kind_none() -> None:
    actuator = read(GOOD).rack("r3").actuator
    assert (actuator.kind, actuator.device, actuator.settle_s) == ("none", None, 0.0)
    assert (actuator.effect_delay_s, actuator.ttl_s) == (0.0, 15.0)


def test_a_device_that_limits_measures_nothing_beside_a_meter() -> None:
    meter, limit = read(GOOD).rack("r2").devices
    assert (meter.measures, limit.measures) == (("input.realpower",), ())


def test_a_device_that_limits_measures_when_it_is_alone() -> None:
    (pdu,) = read(GOOD).rack("r1").devices
    assert pdu.measures == ("input.realpower",)


def test_a_device_that_limits_measures_when_the_others_say_that_they_do_not() -> None:
    text = edited(('"test-meter"', '"test-meter"\nmeasures = []'))
    meter, limit = read(text).rack("r2").devices
    assert (meter.measures, limit.measures) == ((), ("input.realpower",))


def test_polls_default_to_a_second_or_to_what_the_device_bears() -> None:
    site = read(GOOD)
    (pdu,), (meter, limit) = site.rack("r1").devices, site.rack("r2").devices
    assert (pdu.poll_s, pdu.stale_after_s) == (1.0, 3.0)
    assert (meter.poll_s, meter.stale_after_s) == (2.0, 6.0)
    assert (limit.poll_s, limit.stale_after_s) == (1.0, 3.0)


def test_a_profile_left_out_is_recognised_at_start() -> None:
    (device,) = read(GOOD).rack("r3").devices
    assert (device.profile, device.url) == (None, "snmp://geheim@192.0.2.23")


def test_paths_start_at_the_site_file() -> None:
    text = edited(
        (
            'host = "192.0.2.10"',
            'host = "h"\nusername = "u"\npassword_file = "/etc/pass"\n'
            'tls = { ca = "ca.pem", cert = "c.pem", key = "keys/c.key" }',
        ),
        ("snmp://geheim@192.0.2.21", 'snmp://192.0.2.21"\ncommunity_file = "community'),
    )
    site = read(text)
    assert site.mqtt.password_file == Path("/etc/pass")
    assert site.mqtt.tls is not None
    assert site.mqtt.tls.ca == FOLDER / "ca.pem"
    assert site.mqtt.tls.cert == FOLDER / "c.pem"
    assert site.mqtt.tls.key == FOLDER / "keys/c.key"
    assert site.rack("r1").devices[0].community_file == FOLDER / "community"
    assert site.profiles == FOLDER / "site_profiles"


def test_what_is_written_goes_before_every_default() -> None:
    text = edited(
        ("[timing]", "[timing]\ntick_s = 0.5\nlease_ttl_s = 20"),
        ('profile = "test-pdu"', 'profile = "test-pdu"\npoll_s = 4\nstale_after_s = 5.5'),
        ("base_w = 300", "base_w = 300\nsettle_s = 4.5\nttl_s = 60\nkeeps = false\nstagger_s = 0"),
        ("peak_w = 450", "peak_w = 450, min_off_s = 5"),
        ("floor_w = 500", "floor_w = 500\nweight = 2.5\ntier = 3"),
    )
    site = read(text)
    assert (site.timing.tick_s, site.timing.lease_ttl_s) == (0.5, 20.0)
    assert isinstance(site.timing.lease_ttl_s, float)
    device, actuator = site.rack("r1").devices[0], site.rack("r1").actuator
    assert (device.poll_s, device.stale_after_s) == (4.0, 5.5)
    assert (actuator.settle_s, actuator.ttl_s, actuator.keeps) == (4.5, 60.0, False)
    assert (actuator.stagger_s, actuator.outlets[1].min_off_s) == (0.0, 5.0)
    assert (site.rack("r2").weight, site.rack("r2").tier) == (2.5, 3)
    assert site.rack("r2").actuator.ttl_s == 20.0


def test_a_cap_has_a_brake_only_where_it_is_written() -> None:
    text = edited(("limit_w = 20_000", "limit_w = 20_000\nbrake_after_s = 8"))
    assert [cap.brake_after_s for cap in read(text).caps] == [8.0, None]
    assert [cap.brake_after_s for cap in roster_of(read(text)).caps] == [8.0, None]
    assert site_hash(read(text)) == site_hash(read(edited()))  # each rack brakes for itself


def test_a_cap_with_a_fallback_waits_thirty_seconds_or_as_written() -> None:
    text = edited(("limit_w = 20_000", "limit_w = 20_000\nfallback_w = 9_000"))
    assert (read(text).cap("room").fallback_w, read(text).cap("room").set_ttl_s) == (9_000, 30.0)
    text = text.replace("fallback_w = 9_000", "fallback_w = 9_000\nset_ttl_s = 12")
    assert read(text).cap("room").set_ttl_s == 12.0


def test_a_rack_or_cap_that_is_not_there_is_a_key_error() -> None:
    site = read(GOOD)
    with pytest.raises(KeyError, match="r9"):
        site.rack("r9")
    with pytest.raises(KeyError, match="r1"):
        site.cap("r1")


def test_racks_under_a_cap_are_those_of_every_level() -> None:
    site = read(GOOD)
    assert [rack.name for rack in site.under("room")] == ["r1", "r2", "r3"]
    assert [rack.name for rack in site.under("row1")] == ["r1"]


def test_a_device_prints_without_its_secret() -> None:
    assert "geheim" not in repr(read(GOOD))


def test_of_equal_priorities_the_smaller_number_returns_first() -> None:
    outlets = tuple(
        Outlet(number=number, priority=priority, peak_w=peak_w, min_off_s=60.0)
        for number, priority, peak_w in ((7, 1, 100), (3, 5, 20), (2, 1, 3))
    )
    actuator = Actuator(
        kind="outlets",
        device="pdu",
        settle_s=5.0,
        effect_delay_s=4.0,
        ttl_s=300.0,
        keeps=True,
        base_w=1000,
        outlets=outlets,
        stagger_s=1.0,
    )
    assert outlet_steps_w(actuator) == (1000, 1020, 1023, 1123)


def test_the_example_file_is_good() -> None:
    site = load_site(ROOT / "deploy" / "site.example.toml")
    assert [rack.name for rack in site.racks] == ["r1", "r2", "r3"]
    assert outlet_steps_w(site.rack("r1").actuator) == (300, 1_000, 1_450)
    assert warnings_of(site) == ()


def test_the_smallest_file_of_the_documentation_is_good() -> None:
    page = (ROOT / "docs" / "site-file.md").read_text("utf-8")
    block = page.partition("## The smallest file\n")[2].partition("\n## ")[0]
    assert site_of(textwrap.dedent(block), FOLDER / "site.toml").rack("r1").ceiling_w == 3_000


def test_a_thousand_racks_are_read() -> None:
    rack = '[[rack]]\nname = "x{0}"\nrank = {0}\ncap = "room"\nfloor_w = 1\nceiling_w = 20\n'
    assert len(read(GOOD + "".join(rack.format(n) for n in range(100, 1097))).racks) == 1000


# --- The hash that members must agree on (protocol M4) --------------------------------------


def test_the_hash_is_sixteen_hex_digits_that_stay() -> None:
    """A change of this value would make every running site an alarm."""
    site = site_of(
        """
        schema = 1
        site = "lab"
        mqtt = { host = "h" }
        cap = [ { name = "room", limit_w = 1000 } ]
        rack = [ { name = "r1", rank = 1, cap = "room", floor_w = 100, ceiling_w = 900 } ]
        """,
        Path("site.toml"),
    )
    assert site_hash(site) == "89aa7cef233c4981"


@pytest.mark.parametrize(
    "edits",
    [
        [('site = "lab"', 'site = "other"  # and a comment')],
        [('host = "192.0.2.10"', 'host = "elsewhere"')],
        [("[timing]", "[timing]\npreempt_after_s = 60")],
        [("floor_w = 500", "floor_w = 500\nweight = 9\ntier = 4")],
        [("192.0.2.21", "192.0.2.99")],
        [("limit_w = 20_000", 'limit_w = 20_000\nbreaker = { rating_w = 22_000, curve = "C" }')],
        [("floor_w = 1_000", "floor_w = 1_000\nceiling_w = 1_450")],
    ],
)
def test_the_hash_leaves_out_what_is_no_promise(edits: list[tuple[str, str]]) -> None:
    assert site_hash(read(edited(*edits))) == site_hash(read(GOOD))


@pytest.mark.parametrize(
    "edits",
    [
        [("limit_w = 20_000", "limit_w = 20_001")],
        [('parent = "room"\n', "")],
        [("rank = 10", "rank = 11")],
        [("floor_w = 500", "floor_w = 501")],
        [("ceiling_w = 3_000", "ceiling_w = 3_001")],
        [("peak_w = 450", "peak_w = 451")],
        [('cap = "room"\nfloor_w = 500', 'cap = "row1"\nfloor_w = 500')],
        [('name = "r3"', 'name = "r4"')],
    ],
)  # fmt: skip
def test_the_hash_holds_every_promise(edits: list[tuple[str, str]]) -> None:
    assert site_hash(read(edited(*edits))) != site_hash(read(GOOD))


def test_the_hash_does_not_depend_on_the_order_in_the_file() -> None:
    head, *tables = re.split(r"(?m)^(?=\[\[(?:cap|rack)\]\])", GOOD)
    for seed in range(5):
        random.Random(seed).shuffle(tables)
        assert site_hash(read(head + "\n".join(tables))) == site_hash(read(GOOD))
