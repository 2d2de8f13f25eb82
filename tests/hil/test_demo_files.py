"""What a run leaves when its files cannot be written: its numbers are not lost with them.

The run itself is a recording that is ready at once; all that follows it is the demo's own.
"""

import json

import pytest

from hil import scenario
from hil.__main__ import main
from hil.judge import Sample
from hil.room import design

ROOM = design(4)


@pytest.fixture
def finished(monkeypatch):
    """Let the run be over at once, after `meanwhile()`."""

    def stage(meanwhile=lambda: None):
        async def run(room, **_):
            meanwhile()
            racks = [rack.name for rack in ROOM.racks]
            sample = Sample(
                time_s=0.0,
                cap_w=ROOM.cap_w,
                total_w=2_000.0,
                demand_w=12_000.0,
                draw_w=dict.fromkeys(racks, 500.0),
                limit_w=dict.fromkeys(racks, 600),
                row_share={},
                reserved_w={},
                broker="r1",
                tripped=False,
            )
            return scenario.Recording(samples=[sample])

        monkeypatch.setattr(scenario, "run", run)

    return stage


def demo(out, *options):
    return main(["demo", "--racks", "4", "--headless", "--out", str(out), *options])


def test_a_full_disk_costs_the_file_and_not_the_numbers(finished, tmp_path, capsys):
    finished()
    (tmp_path / "demo.csv").symlink_to("/dev/full")
    assert demo(tmp_path, "--json") == 1  # nothing has happened in this run
    said = capsys.readouterr()
    assert json.loads(said.out)["cap_w"] == ROOM.cap_w
    assert "What the plant saw:" in said.err
    assert f"no whole {tmp_path}/demo.csv (No space left on device)" in said.err
    assert f"written: {tmp_path}/demo.png\n" in said.err
    assert (tmp_path / "demo.png").stat().st_size > 10_000


@pytest.mark.parametrize(("name", "other"), [("demo.csv", "demo.png"), ("demo.png", "demo.csv")])
def test_a_file_that_became_a_folder_during_the_run_is_named(
    finished, tmp_path, capsys, name, other
):
    finished(lambda: (tmp_path / name).mkdir())
    assert demo(tmp_path) == 1
    said = capsys.readouterr()
    assert "What the plant saw:" in said.out
    assert f"no whole {tmp_path}/{name} (Is a directory)" in said.out
    assert f"written: {tmp_path}/{other}\n" in said.out


def test_files_that_were_written_are_named(finished, tmp_path, capsys):
    finished()
    demo(tmp_path)
    said = capsys.readouterr()
    assert f"written: {tmp_path}/demo.csv, {tmp_path}/demo.png\n" in said.out
    assert "no whole" not in said.out
