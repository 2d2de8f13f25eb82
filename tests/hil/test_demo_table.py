"""The live table, as rich prints it."""

import io

from rich.console import Console

from hil.judge import Sample
from hil.room import design
from hil.table import Frame, bar, render
from hil.wiretap import Heard, Report


def test_the_table_shows_every_rack_the_broker_the_dead_and_what_comes_next():
    room = design(4)
    sample = Sample(
        time_s=31.0,
        cap_w=8000,
        total_w=6000.0,
        demand_w=12_000.0,
        draw_w={"r1": 1234.0, "r2": 1500.0, "r3": 1600.0, "r4": 1666.0},
        limit_w={},
        row_share={},
        reserved_w={},
        broker="r3",
        tripped=False,
    )
    heard = Heard(reports={"r2": Report(1500.0, 1501.0, 2900.0)}, price=0.25)
    frame = Frame(sample, heard, frozenset({"r4"}), "r4 is killed", "the end, in 29 s")
    out = io.StringIO()
    Console(file=out, width=100).print(render(room, frame))
    text = out.getvalue()
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│ r")}
    assert list(rows) == ["r1", "r2", "r3", "r4"]
    assert "1,234" in rows["r1"]
    assert "12 outlets (SNMP)" in rows["r1"]
    assert "2,900" in rows["r2"]
    assert "1,501" in rows["r2"]
    assert "broker" in rows["r3"]
    assert "dead" in rows["r4"]
    assert "6,000 of 8,000 W (75.0%)" in text
    assert "price 0.250 per kWh" in text
    assert "the end, in 29 s" in text


def test_the_bar_is_full_at_the_cap_and_red_above_it():
    assert bar(8000, 8000).plain.count("█") == 44
    assert "green" in str(bar(8000, 8000).spans)
    assert bar(9000, 8000).plain.count("█") == 44
    assert "red" in str(bar(9000, 8000).spans)
    assert bar(4000, 8000).plain.count("█") == 22
