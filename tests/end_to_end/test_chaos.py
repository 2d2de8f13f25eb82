"""A minute of chaos on real processes: every bound holds, and faults of many kinds were there.

`make chaos MINUTES=10` runs more of it, with any seed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SEED = 2  # its minute has a fall of the cap, connections stalled both ways, and a long calm


def chaos(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hil", "chaos", "--out", str(folder), *options],
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_minute_of_chaos_breaks_no_bound(tmp_path: Path) -> None:
    done = chaos(tmp_path, "--seconds", "60", "--seed", str(SEED), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "chaos.json").read_text())
    assert (said["ok"], said["broken"]) == (True, [])
    assert said["faults"] >= 6
    assert len(said["faults_by_kind"]) >= 5
    assert said["cap_falls"] >= 1
    assert (said["over_cap_s"], said["let_over_cap_s"]) == (0.0, 0.0)
    assert said["no_broker_s"] <= 6.0
    assert said["use"] >= 0.85
    assert said["use_or_reserved"] >= 0.95
    assert said["fell_by_a_brokers_death_alone"] == []
    assert "EVERY BOUND HELD" in (tmp_path / "chaos.txt").read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--seconds", "20"), "one round takes 60 s"),
        (("--minutes", "1", "--racks", "3"), "4 to 12 racks"),
        (("--minutes", "1", "--out", __file__), "test_chaos.py"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(
    tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    done = chaos(tmp_path, *options)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
