"""A limiter, and what its hardware would say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from broker.effects import Event
from drivers.reading import Absence, Executed, Missing, Reading
from firmware_py.limiter import (
    Command,
    CommandDone,
    Limiter,
    LimiterEffect,
)
from firmware_py.limiter_kinds import limiter_of
from firmware_py.site_types import Actuator, Outlet

LIMIT = "limit.realpower"
REGISTER = Actuator(
    kind="power-limit", device="cap", settle_s=2.0, effect_delay_s=1.0, ttl_s=15.0, keeps=True,
    base_w=0, outlets=(), stagger_s=0.0,
)  # fmt: skip
# 300 W that are never switched; 1 comes first and goes last, 3 goes first and comes last.
STRIP = replace(
    REGISTER, kind="outlets", device="pdu", base_w=300, stagger_s=1.0,
    outlets=(
        Outlet(number=1, priority=9, peak_w=700, min_off_s=0.0),
        Outlet(number=2, priority=5, peak_w=450, min_off_s=0.0),
        Outlet(number=3, priority=1, peak_w=250, min_off_s=0.0),
    ),
)  # fmt: skip


class Bench:
    """A limiter and what its hardware would say; every door with the time of the test."""

    def __init__(self, actuator: Actuator, *, floor_w: int, ceiling_w: int) -> None:
        self.limiter: Limiter = limiter_of(actuator, floor_w=floor_w, ceiling_w=ceiling_w, now=0.0)
        self.base_w = actuator.base_w

    def read(
        self, *, now: float, asked_at_s: float | None = None, **points: Any
    ) -> list[LimiterEffect]:
        """`limit=2000`, or `o1="on"`; None: no answer."""
        asked_at_s = now if asked_at_s is None else asked_at_s
        named = {point_of(name): value for name, value in points.items()}
        snapshot: Mapping[str, Reading | Missing] = {
            name: Missing(name, Absence.TIMEOUT) if value is None
            else Missing(name, value) if isinstance(value, Absence)
            else Reading(name, value, "", asked_at_s, now)
            for name, value in named.items()
        }  # fmt: skip
        return self.limiter.read(snapshot, now=now, asked_at_s=asked_at_s)

    def limit(self, granted_w: int, *, now: float, may_raise: bool = True) -> list[LimiterEffect]:
        return self.limiter.limit(granted_w, may_raise=may_raise, now=now)

    def floor(self, now: float) -> list[LimiterEffect]:
        return self.limiter.lower_to_floor(now=now)

    def wake(self, now: float) -> list[LimiterEffect]:
        return self.limiter.wake(now=now)

    def done(
        self, effects: Sequence[LimiterEffect], *, now: float, absence: Absence | None = None,
        shows: float | str | None = None,
    ) -> list[LimiterEffect]:  # fmt: skip
        """The driver is done with the only command in `effects`; `shows`: its own read-back."""
        command = only(effects)
        back = None if shows is None else Reading(proof_of(command.name), shows, "", now, now)
        executed = Executed(command.name, command.value, now, now, absence, "", back)
        return self.limiter.done(CommandDone(command.id, executed, now), now=now)

    @property
    def state(self) -> tuple[int, int]:
        """(limit_w, bound_w)"""
        return self.limiter.limit_w, self.limiter.bound_w


def point_of(name: str) -> str:
    return LIMIT if name == "limit" else f"outlet.{name[1:]}.status"


def proof_of(command: str) -> str:
    return command.replace(".load", ".status")


def writes(effects: Sequence[LimiterEffect]) -> list[tuple[str, float | str]]:
    return [(e.name, e.value) for e in effects if isinstance(e, Command)]


def only(effects: Sequence[LimiterEffect]) -> Command:
    commands = [effect for effect in effects if isinstance(effect, Command)]
    assert len(commands) == 1, effects
    return commands[0]


def told(effects: Sequence[LimiterEffect]) -> list[str]:
    return [effect.name for effect in effects if isinstance(effect, Event)]


def register(**changed: Any) -> Bench:
    """A power limit of 500 to 4000 W that was just started."""
    return Bench(replace(REGISTER, **changed), floor_w=500, ceiling_w=4000)


def settled(limit_w: int = 1000, **changed: Any) -> Bench:
    """The same, proven to be at `limit_w` since long before 100 s."""
    bench = register(**changed)
    bench.read(now=50.0, limit=limit_w - bench.base_w)
    return bench


def strip(**changed: Any) -> Bench:
    """Three outlets: steps of 300, 1000, 1450 and 1700 W; the floor is 300."""
    return Bench(replace(STRIP, **changed), floor_w=300, ceiling_w=1700)


def settled_strip(*on: int, **changed: Any) -> Bench:
    bench = strip(**changed)
    bench.read(now=50.0, **shown(*on))
    bench.wake(50.0)
    return bench


def shown(*on: int) -> dict[str, Any]:
    return {f"o{number}": "on" if number in on else "off" for number in (1, 2, 3)}


def load(number: int, word: str) -> tuple[str, str]:
    return f"outlet.{number}.load", word
