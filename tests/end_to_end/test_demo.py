"""The demo as its users start it: it holds the cap, and says so to programs too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEYS = [
    "ok",
    "cap_w",
    "cap_after_w",
    "peak_share",
    "under_new_cap_s",
    "no_broker_s",
    "use",
    "use_or_reserved",
    "breaker",
]


def demo(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON of the last line of stdout, and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "firmware_py", "demo", "--headless", "--json", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout + done.stderr
    return done.returncode, json.loads(lines[0]), done.stderr


def test_the_cap_holds_through_a_fall_a_killed_broker_and_a_forgetful_server(
    tmp_path: Path,
) -> None:
    code, said, log = demo(tmp_path, "--seconds", "60")
    assert (code, said["ok"]) == (0, True), log
    assert list(said) == KEYS
    assert said["cap_after_w"] == pytest.approx(0.8 * said["cap_w"], abs=1)
    assert said["peak_share"] <= 1.0
    assert said["under_new_cap_s"] <= 3.0
    assert said["no_broker_s"] <= 5.0
    assert said["use_or_reserved"] >= 0.9
    assert 0.0 < said["use"] <= 1.0
    assert said["breaker"] == "closed"
    assert (tmp_path / "demo.csv").stat().st_size > 10_000
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_embedded_mqtt_server_serves_as_well(tmp_path: Path) -> None:
    code, said, log = demo(tmp_path, "--seconds", "24", "--mqtt-server", "embedded")
    assert (code, said["ok"]) == (0, True), log
    assert "MQTT server: embedded" in log


def test_too_few_racks_are_refused_before_anything_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "firmware_py", "demo", "--racks", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "racks" in done.stderr
    assert "Traceback" not in done.stderr
