"""The hardware of a rack: it keeps its last setting, and obeys when it pleases.

A write that reaches it takes effect within `effect_delay_s`; in some worlds two writes
may take effect in the other order. It outlives every controller. It may reset itself:
to everything on or to nothing, and what was on its way in it is lost then. Its meter may
stop, show little, or hang.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import Protocol

from sim_timeline import Timeline
from sim_weather import Weather

from firmware_py.site_types import Rack

EFFECT_SHARE_MAX = 0.99  # of the promised delay: a process' clock may run fast


class Changed(Protocol):
    def __call__(self, before_w: float, by_itself: bool = False) -> None: ...


def _nobody_looks(before_w: float, by_itself: bool = False) -> None:
    return


class Meter(StrEnum):
    GOOD = "good"
    STOPS = "stops"
    LOW = "shows little"
    HANGS = "hangs"


class Hardware(ABC):
    def __init__(self, rack: Rack, timeline: Timeline, rng: Random) -> None:
        self.rack = rack
        self.load_w = float(rack.ceiling_w)  # what the servers would draw if let
        self.changed: Changed = _nobody_looks
        self.meter = Meter.GOOD
        self._timeline = timeline
        self._rng = rng
        self._pending: dict[int, tuple[str, float | str]] = {}
        self._count = 0
        self._last_effect_s = 0.0
        self._hung_w: float | None = None

    def write(self, name: str, value: float | str, weather: Weather) -> None:
        """A write has arrived; it takes effect some time within the promised delay."""
        self._count += 1
        number = self._count
        self._pending[number] = (name, value)
        share = self._rng.choice((0.02, 0.5, 0.97, self._rng.random()))
        delay_s = self.rack.actuator.effect_delay_s * min(
            EFFECT_SHARE_MAX, max(share, 0.6) if weather.slow_hardware else share
        )
        at_s = self._timeline.now + delay_s
        if not weather.hardware_reorders:
            at_s = self._last_effect_s = max(at_s, self._last_effect_s)
        self._timeline.at(at_s, lambda: self._take_effect(number))

    def reset(self, *, full: bool) -> None:
        """It starts anew, with its default: everything, or nothing."""
        before_w = self.lets_through_w
        self._pending.clear()
        self._set_default(full)
        self.changed(before_w, by_itself=True)

    def _take_effect(self, number: int) -> None:
        written = self._pending.pop(number, None)
        if written is None:  # it has started anew since
            return
        before_w = self.lets_through_w
        self._set(*written)
        self.changed(before_w)

    @property
    def draw_w(self) -> float:
        return min(self.load_w, self.lets_through_w)

    def show(self, meter: Meter) -> None:
        self.meter = meter
        self._hung_w = self.draw_w if meter is Meter.HANGS else None

    @property
    def shown_draw_w(self) -> float | None:
        """What the meter says; None where it says nothing."""
        match self.meter:
            case Meter.STOPS:
                return None
            case Meter.LOW:
                return 0.05 * self.draw_w
            case Meter.HANGS:
                return self._hung_w
        return self.draw_w

    @property
    @abstractmethod
    def lets_through_w(self) -> int:
        """What the setting lets through now."""

    @property
    @abstractmethod
    def worst_w(self) -> int:
        """The most it could let through when all that was written has taken effect."""

    @abstractmethod
    def settings(self) -> dict[str, float | str]:
        """The points that show the setting."""

    @abstractmethod
    def _set(self, name: str, value: float | str) -> None: ...

    @abstractmethod
    def _set_default(self, full: bool) -> None: ...


class LimitHardware(Hardware):
    def __init__(self, rack: Rack, timeline: Timeline, rng: Random) -> None:
        super().__init__(rack, timeline, rng)
        self._register_w = float(rack.floor_w - rack.actuator.base_w)

    @property
    def lets_through_w(self) -> int:
        return self._through_w(self._register_w)

    @property
    def worst_w(self) -> int:
        if not self._pending:
            return self._through_w(self._register_w)
        written_w = [self._through_w(float(value)) for _, value in self._pending.values()]
        return max([self.lets_through_w, *written_w])

    def _through_w(self, register_w: float) -> int:
        return min(int(register_w) + self.rack.actuator.base_w, self.rack.ceiling_w)

    def settings(self) -> dict[str, float | str]:
        return {"limit.realpower": self._register_w}

    def _set(self, name: str, value: float | str) -> None:
        self._register_w = float(value)

    def _set_default(self, full: bool) -> None:
        self._register_w = float(self.rack.ceiling_w) if full else 0.0


class OutletHardware(Hardware):
    def __init__(self, rack: Rack, timeline: Timeline, rng: Random) -> None:
        super().__init__(rack, timeline, rng)
        self._peak_w = {outlet.number: outlet.peak_w for outlet in rack.actuator.outlets}
        spare_w = rack.floor_w - rack.actuator.base_w
        self._on: dict[int, bool] = {}
        for outlet in sorted(rack.actuator.outlets, key=lambda o: -o.priority):
            self._on[outlet.number] = spare_w >= outlet.peak_w
            spare_w -= outlet.peak_w
        self._now_w = self._through_w({number for number, on in self._on.items() if on})

    @property
    def lets_through_w(self) -> int:
        return self._now_w

    @property
    def worst_w(self) -> int:
        if not self._pending:
            return self._now_w
        on = {number for number, on in self._on.items() if on}
        coming = {int(n.split(".")[1]) for n, value in self._pending.values() if value == "on"}
        return self._through_w(on | coming)

    def _through_w(self, numbers: set[int]) -> int:
        total_w = self.rack.actuator.base_w + sum(self._peak_w[number] for number in numbers)
        return min(total_w, self.rack.ceiling_w)

    def settings(self) -> dict[str, float | str]:
        return {f"outlet.{n}.status": "on" if on else "off" for n, on in self._on.items()}

    def _set(self, name: str, value: float | str) -> None:
        self._on[int(name.split(".")[1])] = value == "on"
        self._now_w = self._through_w({number for number, on in self._on.items() if on})

    def _set_default(self, full: bool) -> None:
        for number in self._on:
            self._set(f"outlet.{number}.load", "on" if full else "off")


class OpenHardware(Hardware):
    """Nothing holds this rack; it has a meter."""

    @property
    def lets_through_w(self) -> int:
        return self.rack.ceiling_w

    @property
    def worst_w(self) -> int:
        return self.rack.ceiling_w

    def settings(self) -> dict[str, float | str]:
        return {}

    def _set(self, name: str, value: float | str) -> None:
        raise AssertionError(f"{self.rack.name} has no actuator, and {name} is written")

    def _set_default(self, full: bool) -> None:
        return


_KINDS: dict[str, Callable[[Rack, Timeline, Random], Hardware]] = {
    "power-limit": LimitHardware,
    "outlets": OutletHardware,
    "none": OpenHardware,
}


def hardware_of(rack: Rack, timeline: Timeline, rng: Random) -> Hardware:
    return _KINDS[rack.actuator.kind](rack, timeline, rng)
