"""The demo's room fulfils the conditions of the demonstration, whatever its size."""

import tomllib

import pytest

from hil.breaker import trip_time_s
from hil.plant import Plant
from hil.room import design, site_toml

SIZES = range(4, 13)


def urls(room):
    return {
        rack.name: {"pdu": f"snmp://{rack.name}@127.0.0.1:1{rack.rank:04d}"}
        if rack.outlets
        else {
            "meter": f"modbus://127.0.0.1:2{rack.rank:04d}/1",
            "limit": f"modbus://127.0.0.1:3{rack.rank:04d}/1",
        }
        for rack in room.racks
    }


@pytest.mark.parametrize("racks", [3, 13, 0, -1])
def test_fewer_than_four_or_more_than_twelve_racks_are_refused_in_words(racks):
    with pytest.raises(ValueError, match="4 to 12 racks"):
        design(racks)


@pytest.mark.parametrize("racks", SIZES)
def test_at_least_two_racks_have_outlets_and_two_a_power_limit(racks):
    room = design(racks)
    assert len(room.racks) == racks
    assert sum(bool(rack.outlets) for rack in room.racks) >= 2
    assert sum(not rack.outlets for rack in room.racks) >= 2


@pytest.mark.parametrize("racks", SIZES)
def test_one_ceiling_and_the_floors_of_all_others_take_at_most_seven_tenths_of_the_cap(racks):
    room = design(racks)
    floors_w = sum(rack.floor_w for rack in room.racks)
    for rack in room.racks:
        assert rack.ceiling_w + floors_w - rack.floor_w <= 0.7 * room.cap_w


@pytest.mark.parametrize("racks", SIZES)
def test_one_ceiling_and_the_floors_of_all_others_fit_under_the_row(racks):
    room = design(racks)
    for row in room.rows:
        members = [rack for rack in room.racks if rack.row == row]
        floors_w = sum(rack.floor_w for rack in members)
        for rack in members:
            assert rack.ceiling_w + floors_w - rack.floor_w <= room.row_cap_w


@pytest.mark.parametrize("racks", SIZES)
def test_floors_of_outlet_racks_are_one_of_their_steps(racks):
    for rack in design(racks).racks:
        if rack.outlets:
            assert rack.floor_w in rack.steps_w
            assert rack.ceiling_w == rack.steps_w[-1]
            assert rack.floor_w == rack.base_w + sum(
                o.peak_w for o in rack.outlets if o.number in rack.outlets_at_floor
            )


def test_the_cap_falls_by_a_fifth_and_everything_is_a_whole_watt():
    room = design(5)
    assert room.cap_after_w == int(0.8 * room.cap_w)
    assert isinstance(room.cap_w, int)
    assert isinstance(room.row_cap_w, int)


@pytest.mark.parametrize(("racks", "seed"), [(4, 1), (5, 1), (5, 2), (5, 99), (12, 3)])
def test_the_racks_always_want_about_one_and_a_half_times_the_cap(racks, seed):
    room = design(racks)
    plant = Plant(room, seed=seed)
    for second in range(1, 600):
        assert 1.4 <= plant.step(float(second)).demand_w / room.cap_w <= 1.6


@pytest.mark.parametrize("racks", SIZES)
def test_racks_that_nobody_holds_back_open_the_breaker_within_minutes(racks):
    room = design(racks)
    assert trip_time_s(1.4 * room.cap_w / room.breaker_rating_w, room.breaker_curve) < 600.0
    assert room.cap_w <= room.breaker_rating_w


@pytest.mark.parametrize("racks", SIZES)
def test_the_hardware_starts_at_its_floors(racks):
    room = design(racks)
    watts = Plant(room, seed=1).step(0.1)
    assert watts.limit_w == {rack.name: rack.floor_w for rack in room.racks}


def test_the_site_file_says_what_was_designed():
    room = design(5)
    site = tomllib.loads(site_toml(room, mqtt_port=1883, urls=urls(room)))
    assert site["schema"] == 1
    assert site["site"] == "demo"
    assert site["profiles"] == "profiles"
    assert site["mqtt"] == {"host": "127.0.0.1", "port": 1883}
    assert site["timing"] == {"tick_s": 1.0, "lease_ttl_s": 15.0}
    assert [(c["name"], c.get("parent"), c["limit_w"]) for c in site["cap"]] == [
        ("room", None, room.cap_w),
        ("row1", "room", room.row_cap_w),
        ("row2", "room", room.row_cap_w),
    ]
    assert [r["rank"] for r in site["rack"]] == [10, 20, 30, 40, 50]
    first, second = site["rack"][:2]
    assert first["floor_w"] == 660
    assert first["ceiling_w"] == 3100
    assert first["device"][0]["url"] == "snmp://r1@127.0.0.1:10010"
    assert first["device"][0]["profile"] == "demo-rpdu"
    assert first["actuator"]["kind"] == "outlets"
    assert first["actuator"]["settle_s"] == 2.0
    assert first["actuator"]["stagger_s"] == 0.3
    assert first["actuator"]["base_w"] == 400
    assert first["actuator"]["outlets"][0] == {"number": 1, "priority": 12, "peak_w": 260}
    assert [d["profile"] for d in second["device"]] == ["eastron-sdm630", "generic-power-limit"]
    assert second["actuator"] == {
        "kind": "power-limit",
        "device": "limit",
        "settle_s": 2.0,
        "keeps": True,
    }


def test_exactly_one_device_of_each_rack_measures_its_draw():
    room = design(12)
    site = tomllib.loads(site_toml(room, mqtt_port=1, urls=urls(room)))
    for rack in site["rack"]:
        assert [d["measures"] for d in rack["device"] if "measures" in d] == [["input.realpower"]]
