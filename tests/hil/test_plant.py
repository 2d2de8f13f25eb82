"""The plant's physics: delays, booting, limits, conservation, and the breaker."""

import pytest

from hil.plant import NO_LIMIT_W, Plant
from hil.room import design


def running(plant, until_s, dt_s=0.1):
    """Step to `until_s`, yielding what was seen."""
    while plant.now_s < until_s - 1e-9:
        yield plant.step(min(plant.now_s + dt_s, until_s))


def last(plant, until_s):
    return list(running(plant, until_s))[-1]


def test_an_outlet_goes_dark_within_a_second_of_its_command_but_not_at_once():
    plant = Plant(design(5), seed=1)
    last(plant, 1.0)
    rack = plant.outlet_racks["r1"]
    assert rack.outlet_w[1] > 200
    rack.switch(1, False, plant.now_s)
    last(plant, 1.1)
    assert rack.relays[1].on
    last(plant, 1.75)
    assert not rack.relays[1].on
    assert rack.outlet_w[1] == 0
    assert rack.limit_w == 400


def test_an_outlet_returns_within_three_seconds_and_never_above_its_peak():
    plant = Plant(design(5), seed=1)
    rack = plant.outlet_racks["r1"]
    last(plant, 10.0)
    rack.switch(5, True, plant.now_s)
    for _ in running(plant, 13.0):
        assert rack.outlet_w[5] <= 230
    assert rack.outlet_w[5] == pytest.approx(rack.relays[5].wanted_w(13.0))
    assert rack.limit_w == 660 + 230


def test_servers_draw_between_85_and_100_percent_of_their_peak():
    plant = Plant(design(5), seed=3)
    shares = []
    for _ in running(plant, 300.0, dt_s=1.0):
        for rack in plant.outlet_racks.values():
            shares += [r.wanted_w(plant.now_s) / r.outlet.peak_w for r in rack.relays.values()]
    assert 0.85 <= min(shares) < 0.9
    assert 0.99 < max(shares) <= 1.0


def test_a_limit_is_in_force_within_a_second_and_the_register_shows_it_at_once():
    plant = Plant(design(5), seed=1)
    rack = plant.limit_racks["r2"]
    last(plant, 5.0)
    rack.write_limit(1700, plant.now_s)
    assert (rack.register_w, rack.in_force_w) == (1700, 500)
    assert last(plant, 5.1).draw_w["r2"] == 500
    assert last(plant, 5.8).draw_w["r2"] == 1700


def test_without_a_limit_a_rack_draws_what_it_wants_and_never_more_than_its_ceiling():
    room = design(5)
    plant = Plant(room, seed=1)
    rack = plant.limit_racks["r2"]
    rack.write_limit(NO_LIMIT_W, 0.0)
    last(plant, 1.0)
    assert rack.limit_w == rack.plan.ceiling_w
    for _ in running(plant, 60.0):
        assert rack.draw_w == rack.demand_w <= rack.plan.ceiling_w


def test_commands_act_in_the_order_in_which_they_came():
    for seed in range(20):
        plant = Plant(design(4), seed=seed)
        rack = plant.limit_racks["r2"]
        for limit_w in (2000, 900, 1500):
            rack.write_limit(limit_w, 0.0)
        last(plant, 0.8)
        assert rack.in_force_w == 1500


def test_the_total_is_the_sum_of_the_racks_and_no_rack_draws_more_than_its_hardware_lets():
    plant = Plant(design(12), seed=2)
    for number in range(1, 13):
        plant.outlet_racks["r1"].switch(number, number % 2 == 0, 0.0)
    for watts in running(plant, 30.0):
        assert watts.total_w == pytest.approx(sum(watts.draw_w.values()))
        for name, draw_w in watts.draw_w.items():
            assert draw_w <= watts.limit_w[name]


def test_energy_is_power_over_time():
    plant = Plant(design(5), seed=1)
    rack = plant.limit_racks["r2"]
    last(plant, 36.0)
    assert rack.energy_wh == pytest.approx(500 * 36 / 3600)


def test_the_same_seed_gives_the_same_watts_whatever_the_step():
    fine, coarse, other = (Plant(design(5), seed=s) for s in (7, 7, 8))
    seen = last(fine, 20.0)
    assert coarse.step(20.0).draw_w == pytest.approx(seen.draw_w)
    assert other.step(20.0).draw_w != pytest.approx(seen.draw_w)


def test_full_demand_opens_the_breaker_and_everything_is_dark_with_its_settings_kept():
    plant = Plant(design(5), seed=1)
    for rack in plant.outlet_racks.values():
        for number in rack.relays:
            rack.switch(number, True, 0.0)
    for limited in plant.limit_racks.values():
        limited.write_limit(NO_LIMIT_W, 0.0)
    seen = list(running(plant, 300.0, dt_s=0.5))
    assert not seen[100].tripped
    assert seen[100].total_w > 1.3 * plant.breaker.rating_w
    assert seen[-1].tripped
    assert seen[-1].total_w == 0
    assert plant.limit_racks["r2"].in_force_w == NO_LIMIT_W
    assert seen[-1].demand_w > 10_000


def test_time_does_not_run_backwards():
    plant = Plant(design(5), seed=1)
    plant.step(2.0)
    with pytest.raises(AssertionError):
        plant.step(1.0)
