"""The wall clock of a child process that can be set wrong while it runs.

Python imports a module of this name at every start; so a child whose path begins with
this folder has it, and nobody else. From then on `time.time` and `time.time_ns` go wrong
by as many seconds as the file says that CLOCK_STEP_FILE names. The monotonic clock goes
on undisturbed, as it does when a machine's clock is set; the machine's own is not touched.
"""

from __future__ import annotations

import os
import time

_true_ns = time.time_ns


def _step_ns() -> int:
    try:
        with open(os.environ["CLOCK_STEP_FILE"]) as file:
            return int(file.read()) * 1_000_000_000
    except (KeyError, OSError, ValueError):
        return 0  # no step, or one that is just being written


def _time_ns() -> int:
    return _true_ns() + _step_ns()


def _time() -> float:
    return _time_ns() / 1e9


time.time_ns = _time_ns
time.time = _time
