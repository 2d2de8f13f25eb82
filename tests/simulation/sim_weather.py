"""What can go wrong now, and how often. Chances are per message, write, poll or fsync."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from random import Random


@dataclass(slots=True)
class Weather:
    """All zero: a good day. `…_every_s` are mean seconds between faults of a kind, 0 never.

    `…_max` and the two kinds of hardware say how bad a fault is, not whether there is one.
    """

    message_lost: float = 0.0
    message_twice: float = 0.0
    message_late: float = 0.0  # by up to `late_s_max`, out of order
    late_s_max: float = 3.0
    answer_lost: float = 0.0  # of a write that takes effect all the same
    write_lost: float = 0.0
    write_refused: float = 0.0
    poll_lost: float = 0.0
    point_lost: float = 0.0  # one point of a poll or a read-back
    journal_slow: float = 0.0
    journal_refused: float = 0.0
    journal_lost: float = 0.0  # at a crash
    clock_unknown: float = 0.0  # at a start: nobody vouches for the wall clock yet
    clock_jump_every_s: float = 0.0
    crash_every_s: float = 0.0
    crash_midway: float = 0.0  # between two effects of one decision
    down_s_max: float = 12.0
    cut_every_s: float = 0.0
    cut_s_max: float = 25.0
    server_restart_every_s: float = 0.0
    election_every_s: float = 0.0  # that nobody asked for
    cap_change_every_s: float = 0.0
    silence_every_s: float = 0.0  # of a cap's source
    stall_every_s: float = 0.0
    stall_s_max: float = 4.0
    twin_every_s: float = 0.0
    reset_every_s: float = 0.0
    meter_every_s: float = 0.0
    slow_hardware: bool = False  # effects come at the end of what was promised
    hardware_reorders: bool = False
    names: tuple[str, ...] = field(default=())

    def calm(self) -> None:
        """Everything works from now on."""
        for name in FAULTS:
            setattr(self, name, 0.0)

    @property
    def is_always_rough(self) -> bool:
        """True where faults do not come one by one, but any time."""
        return any(getattr(self, name) for name in _ANY_TIME)


_KINDS = [f.name for f in fields(Weather) if isinstance(f.default, float)]
FAULTS = tuple(name for name in _KINDS if not name.endswith("_max"))
_ANY_TIME = tuple(
    name for name in FAULTS if not name.endswith(("_every_s", "journal_lost", "clock_unknown"))
)

FRONTS: dict[str, dict[str, float]] = {
    "lossy": {"message_lost": 0.12, "message_twice": 0.05},
    "late": {"message_late": 0.08, "message_twice": 0.05},
    "very late": {"message_late": 0.05, "late_s_max": 120.0, "message_twice": 0.1},
    "crashes": {"crash_every_s": 10.0, "crash_midway": 0.0003},
    "cuts": {"cut_every_s": 12.0},
    "server": {"server_restart_every_s": 25.0},
    "journals": {"journal_slow": 0.2, "journal_refused": 0.15},
    "lost journals": {"crash_every_s": 15.0, "journal_lost": 0.4, "clock_unknown": 0.4,
                      "clock_jump_every_s": 30.0},
    "devices": {"answer_lost": 0.15, "write_lost": 0.08, "write_refused": 0.03,
                "poll_lost": 0.1, "point_lost": 0.1},
    "resets": {"reset_every_s": 12.0},
    "meters": {"meter_every_s": 8.0},
    "caps": {"cap_change_every_s": 12.0},
    "silence": {"cap_change_every_s": 20.0, "silence_every_s": 12.0},
    "stalls": {"stall_every_s": 12.0},
    "twins": {"twin_every_s": 25.0},
    "elections": {"election_every_s": 8.0},
}  # fmt: skip


# Faults of the net and of processes, without those after which a rack has forgotten who it is.
PLAIN = ("lossy", "late", "very late", "crashes", "cuts", "server", "journals", "devices",
         "caps", "stalls")  # fmt: skip


def weather_of(rng: Random, fronts: tuple[str, ...] = tuple(FRONTS)) -> Weather:
    """One to five kinds of fault; every eighth day is fine but for the caps."""
    fine = rng.random() < 0.125
    names = ["caps"] if fine else rng.sample(sorted(fronts), rng.randint(1, 5))
    return mixed(names, rng)


def mixed(names: list[str], rng: Random) -> Weather:
    weather = Weather(slow_hardware=rng.random() < 0.5, hardware_reorders=rng.random() < 0.4)
    for name in names:
        for key, value in FRONTS[name].items():
            setattr(weather, key, value * rng.uniform(0.5, 1.5))
    weather.names = tuple(names)
    return weather
