"""The two clocks of this machine.

Everything that is decided uses the monotonic one. The wall clock stamps messages and
logs for whoever reads along, and serves a controller that lost its journal (protocol
R11), which asks first whether anybody vouches for it.
"""

from __future__ import annotations

import ctypes
import time

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex is smaller on every Linux


def now_s() -> float:
    return time.monotonic()


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def vouched_wall_ms(*, trusted: bool) -> int | None:
    """The wall clock in ms if it is right; None while nobody says so.

    `trusted`: the operator vouches (site file, `clock = "trusted"`). Otherwise the
    kernel is asked whether a time service has synchronised it.
    """
    return wall_ms() if trusted or _kernel_is_synchronised() else None


def _kernel_is_synchronised() -> bool:
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # modes 0: only reads
    return bool(0 <= state < _TIME_ERROR)
