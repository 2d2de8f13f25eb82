"""What can go wrong now, and how often. Chances are per message, write, poll or fsync."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random


@dataclass(slots=True)
class Weather:
    """All zero: a good day. `…_every_s` are mean seconds between faults of a kind, 0 never."""

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
    crash_every_s: float = 0.0
    down_s_max: float = 12.0
    cut_every_s: float = 0.0
    cut_s_max: float = 25.0
    server_restart_every_s: float = 0.0
    cap_change_every_s: float = 0.0
    stall_every_s: float = 0.0
    stall_s_max: float = 4.0
    slow_hardware: bool = False  # effects come at the end of what was promised
    hardware_reorders: bool = False
    names: tuple[str, ...] = field(default=())

    def calm(self) -> None:
        """Everything works from now on."""
        for name in _FAULTS:
            setattr(self, name, 0.0)

    @property
    def is_rough(self) -> bool:
        """True where more happens than caps that change."""
        return any(getattr(self, name) for name in _FAULTS if name != "cap_change_every_s")


_FAULTS = (
    "message_lost", "message_twice", "message_late", "answer_lost", "write_lost",
    "write_refused", "poll_lost", "point_lost", "journal_slow", "journal_refused",
    "crash_every_s", "cut_every_s", "server_restart_every_s", "cap_change_every_s",
    "stall_every_s",
)  # fmt: skip


_FRONTS: dict[str, dict[str, float]] = {
    "lossy": {"message_lost": 0.12, "message_twice": 0.05},
    "late": {"message_late": 0.08, "message_twice": 0.05},
    "very late": {"message_late": 0.05, "late_s_max": 40.0, "message_twice": 0.1},
    "crashes": {"crash_every_s": 10.0},
    "cuts": {"cut_every_s": 12.0},
    "server": {"server_restart_every_s": 25.0},
    "journals": {"journal_slow": 0.2, "journal_refused": 0.15},
    "devices": {"answer_lost": 0.15, "write_lost": 0.08, "write_refused": 0.03,
                "poll_lost": 0.1, "point_lost": 0.1},
    "caps": {"cap_change_every_s": 12.0},
    "stalls": {"stall_every_s": 12.0},
}  # fmt: skip


def weather_of(rng: Random) -> Weather:
    """One to five kinds of fault; every eighth day is fine but for the caps."""
    weather = Weather(slow_hardware=rng.random() < 0.5, hardware_reorders=rng.random() < 0.4)
    fine = rng.random() < 0.125
    names = ["caps"] if fine else rng.sample(sorted(_FRONTS), rng.randint(1, 5))
    for name in names:
        for key, value in _FRONTS[name].items():
            setattr(weather, key, value * rng.uniform(0.5, 1.5))
    weather.names = tuple(names)
    return weather
