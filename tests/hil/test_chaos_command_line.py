"""Chaos as a command: what it refuses, its exit codes, and that nothing is left behind.

Stand-ins for the controllers, a few lines each, take the product's place.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hil import chaos_command

ROOT = Path(__file__).parents[2]
REFUSES = "import sys; print('no such rack in this file', file=sys.stderr); sys.exit(2)"
STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1] == "run":
    pathlib.Path(os.environ["PIDS"], str(os.getpid())).touch()
    time.sleep(600)
"""


@pytest.fixture
def chaos(tmp_path):
    """Start `python -m hil chaos` with a stand-in for the controllers; ended by its id."""
    started = []

    def start(controller):
        package = tmp_path / "firmware_py"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(controller)
        for folder in ("tmp", "pids", "out"):
            (tmp_path / folder).mkdir()
        environment = os.environ | {
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
            "TMPDIR": str(tmp_path / "tmp"),
            "PIDS": str(tmp_path / "pids"),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "hil", "chaos", "--seconds", "60", "--json"],
            cwd=tmp_path / "out",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_controllers_that_refuse_end_it_with_3_and_the_end_of_a_log(chaos, tmp_path):
    process = chaos(REFUSES)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert out == ""
    assert "seed 1: 8 faults" in err, "the plan is said before anything starts"
    assert "refused `init`" in err
    assert "no such rack in this file" in err
    assert "Traceback" not in err
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_signal_ends_every_process_the_stopped_ones_too_and_removes_the_folder(chaos, tmp_path):
    process = chaos(STUBBORN)
    deadline_s = time.monotonic() + 20
    while len(list((tmp_path / "pids").iterdir())) < 5:
        assert time.monotonic() < deadline_s, "the controllers do not start"
        time.sleep(0.02)
    pids = [int(file.name) for file in (tmp_path / "pids").iterdir()]
    os.kill(pids[0], signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "SIGTERM" in err
    assert not any(alive(pid) for pid in pids)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seconds", "nan"], "one round takes 60 s"),
        (["--minutes", "0"], "one round takes 60 s"),
        (["--seconds", "60", "--minutes", "1"], "not allowed with"),
        (["--keep", str(ROOT)], "not empty"),
        (["--racks", "13"], "4 to 12 racks"),
    ],
)
def test_bad_arguments_end_with_2_and_a_sentence(capsys, options, words):
    with pytest.raises(SystemExit) as ended:
        chaos_command.main(options)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
