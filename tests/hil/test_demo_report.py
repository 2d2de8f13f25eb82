"""The files and the words that a run leaves."""

import csv
import json

from hil.judge import Events, Sample, Verdict, judge
from hil.report import json_line, summary, write_csv, write_picture
from hil.room import design

ROOM = design(4)


def verdict(**changed):
    values = {
        "peak_share": 0.99,
        "row_peak_share": 0.8,
        "under_new_cap_s": 1.5,
        "no_broker_s": 2.71239,
        "use": 0.87654,
        "use_or_reserved": None,
        "breaker": "closed",
        "fell_to_floor": (),
        "faults": (),
    }
    return Verdict(**{**values, **changed})


def samples():
    racks = [rack.name for rack in ROOM.racks]
    return [
        Sample(
            time_s=t / 10,
            cap_w=ROOM.cap_w,
            total_w=4 * 500.04,
            demand_w=12_000.0,
            draw_w=dict.fromkeys(racks, 500.04),
            limit_w=dict.fromkeys(racks, 600),
            row_share={"row1": 0.2, "row2": 0.2},
            reserved_w={},
            broker="r4" if t else None,
            tripped=False,
        )
        for t in range(20)
    ]


def test_the_json_line_has_exactly_the_keys_of_the_contract_in_their_order():
    line = json_line(ROOM, verdict())
    assert "\n" not in line
    assert list(json.loads(line).items()) == [
        ("ok", True),
        ("cap_w", ROOM.cap_w),
        ("cap_after_w", ROOM.cap_after_w),
        ("peak_share", 0.99),
        ("under_new_cap_s", 1.5),
        ("no_broker_s", 2.7124),
        ("use", 0.8765),
        ("use_or_reserved", None),
        ("breaker", "closed"),
    ]


def test_a_peak_just_above_the_cap_is_never_rounded_to_it():
    assert json.loads(json_line(ROOM, verdict(peak_share=1.0000001)))["peak_share"] == 1.0001


def test_the_summary_says_whether_the_cap_held_and_why_not():
    assert "THE CAP HELD" in summary(ROOM, verdict())
    broken = summary(ROOM, verdict(faults=("the racks drew 101 % of the cap",)))
    assert "THE CAP DID NOT HOLD" in broken
    assert "the racks drew 101 %" in broken


def test_the_summary_says_what_the_two_numbers_should_be_that_do_not_decide():
    lines = summary(ROOM, verdict(no_broker_s=7.0, use_or_reserved=0.5)).splitlines()
    assert "THE CAP HELD" in lines
    (broker,) = (line for line in lines if "without a broker for" in line)
    assert broker.split(maxsplit=4)[4].startswith("7.0 s ")
    assert broker.endswith("; should be within 5 s")
    (use,) = (line for line in lines if "cap used or reserved" in line)
    assert " 50.0% " in use
    assert use.endswith("; should be at least 90 %")


def test_the_summary_of_a_run_without_events_can_be_read():
    text = summary(ROOM, judge(samples(), Events(), {}))
    assert "not every event happened: the cap's fall" in text


def test_the_csv_has_a_row_for_each_step_and_two_columns_for_each_rack(tmp_path):
    write_csv(tmp_path / "demo.csv", samples())
    with (tmp_path / "demo.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert rows[3] == {
        "time_s": "0.3",
        "cap_w": str(ROOM.cap_w),
        "total_w": "2000.2",
        **{f"r{n}_draw_w": "500.0" for n in range(1, 5)},
        **{f"r{n}_limit_w": "600" for n in range(1, 5)},
        "broker": "r4",
    }
    assert rows[0]["broker"] == ""


def test_the_picture_is_a_png(tmp_path):
    write_picture(tmp_path / "demo.png", ROOM, samples(), [(0.0, "start"), (1.0, "the cap falls")])
    png = (tmp_path / "demo.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) > 10_000
