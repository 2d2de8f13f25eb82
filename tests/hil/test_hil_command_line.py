"""The demo as a command: its refusals, its exit codes, and that nothing is left behind.

Stand-ins for the controllers, a few lines each, take the product's place where the
product's own behaviour is not what is tested.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REFUSES = "import sys; print('no such rack in this file', file=sys.stderr); sys.exit(2)"
NEVER_REPORTS = """
import os, pathlib, sys, time
if sys.argv[1] == "run":
    pathlib.Path(os.environ["PIDS"], str(os.getpid())).touch()
    time.sleep(600)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + NEVER_REPORTS


@pytest.fixture
def demo(tmp_path):
    """Start `python -m hil demo …` with a stand-in for the controllers; ended by its id."""
    started = []

    def start(controller, *options):
        if controller is not None:  # None: the product's own
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
            [sys.executable, "-m", "hil", "demo", "--racks", "4", *options],
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


def hil(*arguments):
    """A command that is over at once; one that is not ends what it started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hil", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--racks", "3"), "needs 4 to 12 racks"),
        (("demo", "--racks", "13"), "needs 4 to 12 racks"),
        (("demo", "--seconds", "5"), "at least 20"),
        (("demo", "--seconds", "nan"), "at least 20"),
        (("demo", "--mqtt-server", "none"), "invalid choice"),
        (("demo", "--out", "/dev/null/here"), "--out /dev/null/here"),
        ((), "required"),
    ],
)
def test_bad_arguments_end_with_2_and_a_sentence(arguments, words):
    done = hil(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_controllers_that_refuse_end_the_demo_with_3_and_the_end_of_a_log(demo, tmp_path):
    process = demo(REFUSES, "--json")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert out == ""
    assert "refused `init`" in err
    assert "no such rack in this file" in err
    assert "Traceback" not in err
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("controller", "which", "code"),
    [(NEVER_REPORTS, signal.SIGINT, 130), (STUBBORN, signal.SIGTERM, 143)],
)
def test_a_signal_ends_every_process_and_removes_the_folder(
    demo, tmp_path, controller, which, code
):
    process = demo(controller, "--mqtt-server", "embedded")
    deadline_s = time.monotonic() + 20
    while len(list((tmp_path / "pids").iterdir())) < 4:
        assert time.monotonic() < deadline_s, "the controllers do not start"
        time.sleep(0.02)
    process.send_signal(which)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert which.name in err
    assert not any(alive(int(file.name)) for file in (tmp_path / "pids").iterdir())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_controllers_that_are_ended_on_a_signal_are_no_fault_of_the_run(demo):
    process = demo(None, "--headless", "--mqtt-server", "embedded")
    seen = []
    for line in process.stdout:  # ends with the process, at the latest
        seen.append(line)
        if "every rack has reported" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert "every rack has reported" in seen[-1], "".join(seen) + err
    assert process.returncode == 143
    assert "ended by itself" not in out
    assert "ended by SIGTERM; every process is stopped" in err


def test_the_help_and_the_errors_are_those_of_the_command_that_a_user_types():
    assert hil("demo", "-h").stdout.startswith("usage: wattbroker demo [-h]")
    assert "\nwattbroker demo: error: " in hil("demo", "--racks", "3").stderr


@pytest.mark.parametrize("name", ["demo.csv", "demo.png"])
def test_a_folder_where_a_file_is_to_go_is_refused_at_the_start(tmp_path, name):
    (tmp_path / name).mkdir()
    done = hil("demo", "--out", str(tmp_path))
    assert done.returncode == 2
    assert f"--out {tmp_path}: {name} is a folder" in done.stderr


def test_a_folder_that_takes_no_file_is_refused_at_the_start():
    done = hil("demo", "--out", "/proc/self")  # not even root may write there
    assert done.returncode == 2
    assert "wattbroker demo: error: --out /proc/self: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_check_of_the_folder_leaves_nothing_in_it_and_keeps_the_last_run(tmp_path):
    (tmp_path / "demo.csv").write_text("of the last run")
    hil("demo", "--out", str(tmp_path), "--seconds", "1")
    assert [file.name for file in tmp_path.iterdir()] == ["demo.csv"]
    assert (tmp_path / "demo.csv").read_text() == "of the last run"
