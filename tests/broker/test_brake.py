"""The brake: readings above a cap for too long bring racks down one after the other."""

from __future__ import annotations

from typing import Any

import pytest
from protocol_values import cap, events, rack, roster

from broker.brake import Brake, Braked, place_in
from broker.messages import CapMeasured, Roster

TIERS = (rack("r1", tier=2), rack("r2", tier=1), rack("r3", tier=1))
BRAKED = "brake: a cap is exceeded, rack goes to its floor"


def site(*racks: Any, after_s: float | None = 5.0) -> Roster:
    return roster(*(racks or TIERS), caps=(cap("room", 9000, brake_after_s=after_s),))


class Row:
    """The brakes of all racks, which hear the same meter."""

    def __init__(self, of: Roster) -> None:
        self.brakes = {each.rack: Brake(each.rack, of, tick_s=1.0) for each in of.racks}
        self.told: list[str] = []

    def hear(self, power_w: float, now: float, age_s: float = 0.0, **more: Any) -> list[str]:
        """Who is braked then."""
        more = {"cap_w": 9000, "live": True} | more
        for brake in self.brakes.values():
            said = brake.hear("room", CapMeasured(power_w=power_w, age_s=age_s), now=now, **more)
            self.told += events(said)
        return self.down

    @property
    def down(self) -> list[str]:
        return [name for name, brake in self.brakes.items() if brake.braked]

    def each_second(self, power_w: float, start: int, end: int) -> list[list[str]]:
        return [self.hear(power_w, float(second)) for second in range(start, end)]


def test_the_lowest_tier_goes_first_then_the_lowest_rank_one_tick_apart() -> None:
    row = Row(site())
    assert row.each_second(9001, 0, 6) == [[]] * 6
    assert row.hear(9001, 6.0) == ["r2"]
    assert row.hear(9001, 7.0) == ["r2", "r3"]
    assert row.hear(9001, 8.0) == ["r1", "r2", "r3"]
    assert row.told == [BRAKED] * 3


def test_a_cap_that_is_just_kept_brakes_nobody() -> None:
    assert Row(site()).each_second(9000, 0, 60)[-1] == []


def test_only_readings_that_span_more_than_brake_after_s_brake() -> None:
    row = Row(site())
    row.each_second(9001, 0, 5)
    assert row.hear(9001, 5.0) == []  # five seconds are not more than five
    assert row.hear(9001, 5.5) == ["r2"]


def test_who_is_enough_leaves_the_others_up() -> None:
    row = Row(site())
    row.each_second(9500, 0, 7)
    assert row.each_second(8900, 7, 20)[-1] == ["r2"]


def test_a_reading_within_the_cap_starts_the_count_anew() -> None:
    row = Row(site())
    row.each_second(9500, 0, 5)
    row.hear(9000, 5.0)
    assert row.each_second(9500, 6, 12) == [[]] * 6
    assert row.hear(9500, 12.0) == ["r2"]


def test_a_single_spike_that_is_said_again_and_again_never_brakes() -> None:
    row = Row(site(after_s=2.0))
    for second in range(60):  # taken at 0 s, and getting older
        row.hear(9500, float(second), age_s=float(second))
    assert row.down == []


def test_absent_readings_never_brake() -> None:
    row = Row(site())
    row.each_second(9500, 0, 5)
    assert row.hear(9500, 600.0) == []  # nobody knows what was in between
    assert row.hear(9500, 603.0) == []


@pytest.mark.parametrize(("age_s", "down"), [(5.0, ["r2"]), (5.1, [])])
def test_readings_older_than_five_ticks_never_brake(age_s: float, down: list[str]) -> None:
    row = Row(site())
    for second in range(7):
        row.hear(9500, float(second), age_s=age_s)
    assert row.down == down


def test_what_the_server_kept_from_earlier_never_brakes() -> None:
    row = Row(site())
    for second in range(30):
        row.hear(9500, float(second), live=False)
    assert row.down == []


def test_each_step_needs_a_reading_taken_after_the_step_before() -> None:
    row = Row(site())
    downs = [row.hear(9500, float(second), age_s=2.0) for second in range(13)]
    assert downs[5:] == [[], *[["r2"]] * 3, *[["r2", "r3"]] * 3, ["r1", "r2", "r3"]]


def test_a_meter_that_speaks_often_brakes_no_faster_than_one_a_tick() -> None:
    row = Row(site())
    assert row.hear(9500, 0.0) == []
    for tenth in range(1, 51):
        row.hear(9500, tenth / 10)
    assert row.hear(9500, 5.1) == ["r2"]
    assert row.hear(9500, 5.8) == ["r2"]
    assert row.hear(9500, 5.9) == ["r2", "r3"]


def test_the_cap_in_force_counts_and_not_the_files() -> None:
    row = Row(site())
    for second in range(7):
        row.hear(5000, float(second), cap_w=4000)
    assert row.brakes["r2"].braked == Braked("room", 4000, 3800)


def test_the_room_comes_back_from_the_other_end_one_for_every_thirty_calm_seconds() -> None:
    row = Row(site())
    row.each_second(9500, 0, 9)
    downs = row.each_second(8550, 9, 100)  # 95 % of 9000
    assert downs[29] == ["r1", "r2", "r3"]
    assert downs[30] == ["r2", "r3"]  # 39 s
    assert downs[60] == ["r2"]
    assert downs[90] == []
    assert row.told[3:] == ["brake released"] * 3


def test_between_the_marks_nobody_is_let_go_and_nobody_more_is_braked() -> None:
    row = Row(site())
    row.each_second(9500, 0, 7)
    assert row.each_second(8551, 7, 300)[-1] == ["r2"]


def test_silence_lets_nobody_go() -> None:
    row = Row(site())
    row.each_second(9500, 0, 7)
    row.hear(8000, 7.0)
    assert row.hear(8000, 3600.0) == ["r2"]  # the calm starts here
    assert row.each_second(8000, 3601, 3630)[-1] == ["r2"]
    assert row.hear(8000, 3630.0) == []


def test_who_is_let_go_too_early_is_braked_again() -> None:
    row = Row(site())
    row.each_second(9500, 0, 8)
    assert row.each_second(8000, 8, 39)[-1] == ["r2"]
    assert row.each_second(9500, 39, 46)[-1] == ["r2", "r3"]


def test_while_it_is_not_calm_what_the_braked_gave_up_is_not_for_the_others() -> None:
    row = Row(site())
    r1 = row.brakes["r1"]
    row.each_second(9500, 0, 7)
    assert (row.down, r1.allows_raise(6.0)) == (["r2"], False)
    row.hear(8600, 7.0)
    assert not r1.allows_raise(7.0)
    assert not r1.allows_raise(3600.0)  # silence changes nothing
    row.hear(8550, 8.0)
    assert r1.allows_raise(8.0)
    assert not row.brakes["r2"].allows_raise(8.0)


def test_while_a_fresh_reading_is_above_the_cap_nobody_is_raised_braked_or_not() -> None:
    row = Row(site())
    r1 = row.brakes["r1"]
    row.hear(9000, 0.0)
    assert r1.allows_raise(0.0)
    row.hear(9001, 1.0)
    assert (row.down, r1.allows_raise(1.0), r1.allows_raise(6.0)) == ([], False, False)
    assert r1.allows_raise(6.1)  # the meter has fallen silent, and nobody is braked
    row.hear(9000, 7.0)
    assert r1.allows_raise(7.0)


def test_a_cap_without_brake_after_s_and_a_cap_of_others_brake_nobody() -> None:
    assert Row(site(after_s=None)).each_second(9500, 0, 60)[-1] == []
    caps = (cap("room", 9000), cap("row", 900, "room", brake_after_s=1.0))
    other = Brake("r1", roster(rack("r1"), rack("r2", cap="row"), caps=caps), tick_s=1.0)
    for second in range(60):
        other.hear("row", CapMeasured(power_w=950, age_s=0), cap_w=900, live=True, now=second)
    assert other.braked is None


def test_a_cap_further_up_brakes_all_that_are_below_it() -> None:
    caps = (cap("room", 9000, brake_after_s=1.0), cap("row", 9000, "room"))
    row = Row(roster(rack("r1", cap="row"), rack("r2"), caps=caps))
    assert row.each_second(9500, 0, 4)[-1] == ["r1", "r2"]


def test_a_long_row_is_through_within_twenty_steps_and_tiers_keep_their_order() -> None:
    racks = [rack(f"r{n:02}", rank=n, tier=1 + n // 30) for n in range(45)]
    places = [place_in(site(*racks), "room", each.rack) for each in racks]
    assert {steps for _, steps in places} == {15}
    order = [place for place, _ in places]
    assert order == sorted(order)
    assert max(order.count(place) for place in order) == 3


def test_another_roster_changes_the_row_and_keeps_what_the_meter_has_shown() -> None:
    brake = Brake("r1", site(), tick_s=1.0)
    for second in range(8):
        brake.hear("room", CapMeasured(power_w=9500, age_s=0), cap_w=9000, live=True, now=second)
    assert brake.braked is None  # the third in the row
    brake.count(site(TIERS[0], TIERS[1]))
    assert brake.braked == Braked("room", 9000, 8550)  # the second, and two are braked
    brake.count(site(TIERS[1]))
    assert brake.braked is None  # it is counted nowhere


def test_a_cap_that_nobody_knows_is_nothing() -> None:
    brake = Brake("r1", site(), tick_s=1.0)
    assert brake.hear("x", CapMeasured(power_w=9, age_s=0), cap_w=1, live=True, now=1.0) == []
