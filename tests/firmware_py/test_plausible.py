"""Which values of an unknown Modbus device can be true together."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.address import ModbusAddress, parse_url
from drivers.profile import load_profile, profile_names
from drivers.reading import Absence, Missing, Reading
from firmware_py.plausible import FIRST, REST, plausible_profiles, rank_of


def told(**values: float | str | Absence) -> dict[str, Reading | Missing]:
    """realpower=5.0 is input.realpower, L1__voltage is input.L1.voltage."""
    names = {name: f"input.{name.replace('__', '.')}" for name in values}
    return {
        names[name]: Missing(names[name], value)
        if isinstance(value, Absence)
        else Reading(names[name], value, "", 0.0, 0.0)
        for name, value in values.items()
    }


THREE = {"L1__voltage": 230.0, "L2__voltage": 231.0, "L3__voltage": 229.0,
         "L1__current": 10.0, "L2__current": 5.0, "L3__current": 8.0}  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"realpower": 2200.0, "voltage": 230.0, "current": 10.0, "powerfactor": 0.96},
        {"realpower": -2200.0, "voltage": 230.0, "current": 10.0, "powerfactor": -0.96},
        {"realpower": 5000.0, **THREE},
        {"realpower": 5000.0, **THREE, "frequency": 49.9, "powerfactor": 0.95},
        {"realpower": 0.0, "voltage": 230.0, "current": 0.0, "frequency": 50.0},  # idle
        {"realpower": 2300.0, "L1__voltage": 230.0, "L1__current": 10.0, "L2__voltage": 0.0,
         "L2__current": 0.0},  # a phase that is not wired
        {"realpower": 2300.0, "frequency": Absence.ABSENT, "voltage": 230.0},
        {"realpower": 903.0, "frequency": 60.0},
    ],
)  # fmt: skip
def test_what_can_be_true_together_is_plausible(values) -> None:
    assert rank_of(told(**values)) is not None


@pytest.mark.parametrize(
    "values",
    [
        {"realpower": 2200.0},  # one quantity alone is any number
        {"realpower": 2200.0, "L1__realpower": 2200.0},
        {"realpower": 0.0, "current": 0.0},  # nothing but zeros
        {"realpower": 2200.0, "voltage": 23.0, "current": 10.0},
        {"realpower": 2200.0, "voltage": 0.0, "current": 10.0},
        {"realpower": 2200.0, "L1__voltage": 0.0, "L2__voltage": 230.0},
        {"realpower": 2200.0, "voltage": 530.0},
        {"realpower": 2200.0, "frequency": 40.0},
        {"realpower": 2200.0, "frequency": 230.0, "voltage": 230.0},
        {"realpower": 2200.0, "voltage": 230.0, "powerfactor": 1.5},
        {"realpower": 22.0, "voltage": 230.0, "current": 10.0},  # kW taken for W
        {"realpower": 22000.0, "voltage": 230.0, "current": 10.0},
        {"realpower": 2200.0, "voltage": 230.0, "current": 10.0, "powerfactor": 0.5},
        {"realpower": 1e-20, "voltage": 230.0},  # a float in the wrong order
        {"realpower": Absence.RANGE, "voltage": 230.0, "frequency": 50.0},
        {"realpower": 2200.0, "voltage": 230.0, "frequency": Absence.REFUSED},
        {},
    ],
)
def test_what_cannot_be_true_is_not(values) -> None:
    assert rank_of(told(**values)) is None


def test_the_best_explains_the_most() -> None:
    whole = rank_of(told(realpower=5000.0, **THREE, frequency=50.0))
    one_phase = rank_of(told(realpower=2250.0, voltage=230.0, current=10.0, frequency=50.0))
    unproven = rank_of(told(realpower=2250.0, voltage=230.0, frequency=50.0))
    assert whole is not None and one_phase is not None and unproven is not None
    assert whole < one_phase < unproven


def test_a_device_that_falls_silent_is_not_asked_on_and_on(black_hole) -> None:
    profiles = [load_profile(name) for name in profile_names()]
    address = parse_url(f"modbus://127.0.0.1:{black_hole.port}/1", {})
    assert isinstance(address, ModbusAddress)
    begun_s = time.monotonic()
    guesses = asyncio.run(
        plausible_profiles(address, profiles, time.monotonic, until_s=begun_s + 1.0)
    )
    assert time.monotonic() - begun_s < 2.0
    assert guesses.plausible == ()
    assert len(guesses.untried) > 20


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from((*FIRST, *REST)),
        st.floats() | st.text(max_size=3) | st.sampled_from(list(Absence)),
    )
)
def test_whatever_is_read_it_is_judged(values) -> None:
    points = {
        name: Missing(name, value) if isinstance(value, Absence) else Reading(name, value, "", 0, 0)
        for name, value in values.items()
    }
    rank = rank_of(points)
    assert rank is None or len(rank) == 3
