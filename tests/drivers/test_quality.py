"""What a device says is compared with what else it says, and with what it said before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_snmp_recordings import PROFILES, RECORDINGS, probe

from drivers.quality import Watch, check_snapshot
from drivers.reading import Absence, Missing, Reading, Snapshot

UNITS = {"realpower": "W", "power": "VA", "voltage": "V", "current": "A", "energy": "Wh",
         "powerfactor": "1", "apparentenergy": "VAh"}  # fmt: skip

Values = Mapping[str, float | str | Missing]


def told(values: Values, *, at_s: float = 0.0) -> dict[str, Reading | Missing]:
    return {
        name: value
        if isinstance(value, Missing)
        else Reading(name, value, UNITS.get(name.rpartition(".")[2], ""), at_s, at_s)
        for name, value in values.items()
    }


def kinds(values: Values) -> list[str]:
    return [finding.kind for finding in check_snapshot(told(values))]


def absent(name: str) -> Missing:
    return Missing(name, Absence.ABSENT)


def silent(name: str) -> Missing:
    return Missing(name, Absence.TIMEOUT)


# ── one round of readings ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("a PDU in steps of 10 W", {"input.L1.realpower": 270.0, "input.L1.voltage": 232.0,
                                    "input.L1.current": 1.3}),
        ("6 W where 0.0 A are shown", {"outlet.1.realpower": 6.0, "outlet.1.voltage": 231.0,
                                       "outlet.1.current": 0.0}),
        ("whole amperes", {"outlet.1.realpower": 310.0, "outlet.1.voltage": 208.0,
                           "outlet.1.current": 1.0}),
        ("an idle power supply", {"outlet.1.realpower": 4.1, "outlet.1.voltage": 230.4,
                                  "outlet.1.current": 0.21}),
        ("a power factor of 1.00 at no load", {"outlet.1.realpower": 0.0, "outlet.1.power": 0.0,
                                               "outlet.1.powerfactor": 1.0}),
        ("a leading power factor", {"input.realpower": 466.0, "input.power": 544.0,
                                    "input.powerfactor": -0.86}),
        ("cos φ beside a distorted current", {"input.realpower": 900.0, "input.power": 1000.0,
                                              "input.powerfactor": 0.97}),
        ("direct current", {"input.realpower": 9.2, "input.voltage": 46.0,
                            "input.current": 0.2}),
        ("power that flows back", {"input.realpower": -4210.0, "input.power": 4300.0,
                                   "input.powerfactor": -0.98}),
        ("volts between lines under the name of a line",
         {"input.L1.realpower": 1050.0, "input.L1.voltage": 400.0, "input.L1.current": 4.73}),
        ("lines of a delta whose pairs are loaded unevenly",
         {"input.L1.realpower": 521.0, "input.L1.voltage": 208.0, "input.L1.current": 2.6,
          "input.L1.powerfactor": 0.97, "input.L3.realpower": 0.0, "input.L3.voltage": 209.0,
          "input.L3.current": 3.12, "input.L3.powerfactor": 1.0}),
        ("outlets that are not all metered",
         {"input.realpower": 1200.0, "outlet.1.realpower": 100.0, "outlet.1.status": "on",
          "outlet.2.realpower": absent("outlet.2.realpower"), "outlet.2.status": "on"}),
        ("the PDU's own use", {"input.realpower": 126.0, "outlet.1.realpower": 62.0,
                               "outlet.2.realpower": 41.0}),
        ("an outlet that did not answer", {"input.realpower": 900.0, "outlet.1.realpower": 62.0,
                                           "outlet.2.realpower": silent("outlet.2.realpower")}),
        ("a phase that the unit has not",
         {"input.realpower": 1140.0, "input.L1.realpower": 1140.0,
          "input.L2.realpower": absent("input.L2.realpower")}),
        ("a line whose current did not come",
         {"input.realpower": 3010.0, "input.L1.voltage": 230.1, "input.L1.current": 4.4,
          "input.L2.voltage": 230.3, "input.L2.current": 4.5,
          "input.L3.voltage": 229.7, "input.L3.current": silent("input.L3.current")}),
    ],
)  # fmt: skip
def test_readings_that_can_be_true_together_are_not_warned_of(what: str, values: Values) -> None:
    assert kinds(values) == [], what


@pytest.mark.parametrize(
    ("watts", "says"),
    [
        (4100.0, "10 times too large"),
        (41_000.0, "100 times too large"),
        (410_000.0, "1000 times too large"),
        (41.0, "10 times too small"),
        (4.1, "100 times too small"),
        (0.41, "1000 times too small"),
    ],
)
def test_a_power_of_another_scale_is_named_with_its_factor(watts: float, says: str) -> None:
    values = {"bank.2.realpower": watts, "bank.2.voltage": 230.4, "bank.2.current": 1.93}
    (finding,) = check_snapshot(told(values))
    assert finding.kind == "scale"
    assert finding.names == ("bank.2.realpower", "bank.2.voltage", "bank.2.current")
    assert says in finding.text


def test_a_tenth_of_the_power_is_believed_where_the_power_factor_says_so() -> None:
    values = {"input.realpower": 41.0, "input.voltage": 230.4, "input.current": 1.93}
    assert kinds({**values, "input.powerfactor": 0.09}) == []
    assert kinds({**values, "input.powerfactor": 0.92}) == ["scale"]


def test_volt_amperes_of_another_scale_are_named_too() -> None:
    values = {"input.power": 4447.0, "input.voltage": 230.4, "input.current": 1.93}
    assert kinds(values) == ["scale"]
    assert kinds({**values, "input.power": 444.7}) == []


def test_the_total_of_a_wye_is_compared_with_all_its_lines() -> None:
    lines = {
        "input.L1.voltage": 230.1, "input.L1.current": 4.41, "input.L2.voltage": 229.7,
        "input.L2.current": 4.52, "input.L3.voltage": 230.6, "input.L3.current": 3.98,
    }  # fmt: skip
    assert kinds({**lines, "input.realpower": 2790.0}) == []
    assert kinds({**lines, "input.realpower": 27_900.0}) == ["scale"]


def test_the_total_of_a_delta_is_compared_with_line_currents_by_the_root_of_three() -> None:
    lines = {"input.L1-L2.voltage": 208.3, "input.L1.current": 17.3, "input.L2-L3.voltage": 207.9,
             "input.L2.current": 17.3, "input.L3-L1.voltage": 208.1,
             "input.L3.current": 17.3}  # 10 A in every pair   # fmt: skip
    assert kinds({**lines, "input.realpower": 6100.0}) == []
    assert kinds({**lines, "input.realpower": 8000.0}) == ["powerfactor"]
    pairs = {"input.L1-L2.current": 10.0, "input.L1-L2.realpower": 2040.0}
    assert kinds({**lines, **pairs}) == []
    assert kinds({**lines, **pairs, "input.L1-L2.realpower": 3600.0}) == ["powerfactor"]


@pytest.mark.parametrize(
    "values",
    [
        {"input.realpower": 530.0, "input.power": 444.0},
        {"input.realpower": 530.0, "input.voltage": 230.4, "input.current": 1.93},
        {"input.realpower": 420.0, "input.power": 444.0, "input.powerfactor": 0.61},
        {"outlet.1.realpower": 420.0, "outlet.1.voltage": 230.4, "outlet.1.current": 1.93,
         "outlet.1.powerfactor": 0.61},
    ],
)  # fmt: skip
def test_more_watts_than_volt_amperes_and_another_power_factor_are_told(values: Values) -> None:
    assert kinds(values) == ["powerfactor"]


def test_outlets_and_phases_that_do_not_add_up_are_told() -> None:
    outlets = {"outlet.1.realpower": 612.0, "outlet.2.realpower": 401.0}
    assert kinds({**outlets, "input.realpower": 1040.0}) == []
    (finding,) = check_snapshot(told({**outlets, "input.realpower": 540.0}))
    assert finding.kind == "sum"
    assert finding.names == ("input.realpower", "outlet.1.realpower", "outlet.2.realpower")
    assert kinds({**outlets, "input.realpower": 1900.0}) == ["sum"]
    phases = {"input.L1.realpower": 1041.0, "input.L2.realpower": 1240.0}
    assert kinds({**phases, "input.realpower": 2281.0}) == []
    assert kinds({**phases, "input.realpower": 3322.0}) == ["sum"]


def test_what_the_device_only_estimates_is_not_compared() -> None:
    values = {"input.voltage": 120.0, "input.current": 2.6}
    estimate = Reading("input.realpower", 3120.0, "W", 0.0, 0.0, estimate=True)
    assert check_snapshot({**told(values), "input.realpower": estimate}) == []


@pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason=f"NO RECORDINGS at {RECORDINGS}: set WATTBROKER_RECORDINGS"
)
@pytest.mark.parametrize("name", PROFILES)
def test_no_recorded_device_is_warned_of(name: str) -> None:
    for unit, probed in probe(name, "pysnmp").items():
        assert check_snapshot(probed.points) == [], unit


# ── any device ────────────────────────────────────────────────────────────────────

WATT_STEPS = st.sampled_from([0.1, 1.0, 10.0])
AMPERE_STEPS = st.sampled_from([0.001, 0.01, 0.1])


@st.composite
def devices(draw: st.DrawFn) -> dict[str, float]:
    """A PDU that says the truth, rounded: some lines, their total, and outlets of line 1."""
    watt_step, ampere_step = draw(WATT_STEPS), draw(AMPERE_STEPS)
    truth: dict[str, float] = {}
    total = 0.0

    def rounded(number: float, step: float) -> float:
        return float(f"{round(number / step) * step:.9g}")

    lines = draw(st.sampled_from([1, 3]))
    for line in range(1, lines + 1):
        volts, amperes = draw(st.floats(100, 420)), draw(st.floats(2, 32))
        factor = draw(st.floats(0.5, 1))
        total += volts * amperes * factor
        truth[f"input.L{line}.voltage"] = rounded(volts, 0.1)
        truth[f"input.L{line}.current"] = rounded(amperes, ampere_step)
        truth[f"input.L{line}.powerfactor"] = rounded(factor, 0.01)
        truth[f"input.L{line}.power"] = rounded(volts * amperes, watt_step)
        truth[f"input.L{line}.realpower"] = rounded(volts * amperes * factor, watt_step)
    truth["input.realpower"] = rounded(total, watt_step)
    shares = draw(st.lists(st.floats(0.1, 1), min_size=2, max_size=12))
    for outlet, share in enumerate(shares, start=1):
        watts = total * share / sum(shares)
        truth[f"outlet.{outlet}.realpower"] = rounded(watts, watt_step)
    return truth


@given(devices())
def test_no_true_device_is_warned_of(truth: dict[str, float]) -> None:
    assert kinds(truth) == []


@given(devices(), st.sampled_from([10, 100, 1000]))
def test_a_device_whose_watts_have_another_scale_is_told_exactly_that(
    truth: dict[str, float], times: int
) -> None:
    wrong = {
        name: value * times if name.endswith(".realpower") else value
        for name, value in truth.items()
    }
    assert set(kinds(wrong)) == {"scale"}


ANY_NAME = st.builds(
    ".".join,
    st.lists(
        st.sampled_from(["input", "outlet", "L1", "L2", "L1-L2", "1", "7", "realpower", "power",
                         "voltage", "current", "powerfactor", "energy", "status", ""]),
        min_size=1, max_size=4,
    ),
)  # fmt: skip
ANY_VALUE = st.one_of(
    st.floats(), st.just("off"), st.text(max_size=3), st.integers(-3, 3).map(float)
)


@given(st.lists(st.dictionaries(ANY_NAME, ANY_VALUE, max_size=20), max_size=4))
def test_whatever_is_read_nothing_raises(rounds: list[dict[str, float | str]]) -> None:
    watch = Watch()
    for number, values in enumerate(rounds):
        points = told(values)
        check_snapshot(points)
        watch, _ = watch.see(Snapshot(number * 500.0, number * 500.0, points))


# ── over time ─────────────────────────────────────────────────────────────────────


def watched(rounds: int, values_at: Mapping[str, object], *, every_s: float = 30.0) -> set[str]:
    """Every point that was reported as stuck within so many rounds."""
    watch, stuck = Watch(), set()
    for number in range(rounds):
        values = {
            name: value(number) if callable(value) else value for name, value in values_at.items()
        }
        now_s = number * every_s
        watch, findings = watch.see(Snapshot(now_s, now_s, told(values, at_s=now_s)))
        assert all(finding.kind == "stuck" for finding in findings)
        stuck |= {name for finding in findings for name in finding.names}
    return stuck


def swinging(middle: float, step: float, *, by: float = 0.05) -> object:
    return lambda n: round(middle * (1 + by * math.sin(1.7 * n)) / step) * step


def test_a_power_that_stays_while_its_current_moves_is_stuck() -> None:
    row = {"outlet.3.realpower": 512.0, "outlet.3.current": swinging(2.3, 0.01)}
    assert watched(40, row) == {"outlet.3.realpower"}


def test_a_voltage_that_stays_while_the_others_move_is_stuck() -> None:
    rows = {"input.L1.voltage": 230.1, "input.L2.voltage": swinging(229.4, 0.1, by=0.005),
            "input.L3.voltage": swinging(231.2, 0.1, by=0.005)}  # fmt: skip
    assert watched(40, rows) == {"input.L1.voltage"}


def test_a_total_that_stays_while_its_phases_move_is_stuck() -> None:
    rows = {"input.realpower": 3004.0, "input.L1.realpower": swinging(1000.0, 1.0),
            "input.L2.realpower": swinging(1004.0, 1.0)}  # fmt: skip
    assert watched(40, rows) == {"input.realpower"}


def test_a_counter_that_stands_while_power_flows_is_stuck() -> None:
    row = {"outlet.1.energy": 71_230.0, "outlet.1.realpower": 250.0}
    assert watched(40, row) == {"outlet.1.energy"}  # 81 Wh in steps of 10 Wh


def test_nothing_is_stuck_before_it_was_watched_for_long_enough() -> None:
    row = {"outlet.3.realpower": 512.0, "outlet.3.current": swinging(2.3, 0.01)}
    assert watched(20, row) == set()  # 570 s
    assert watched(19, row, every_s=100.0) == set()  # 19 readings


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("a steady load beside others that move",
         {"outlet.1.realpower": 512.0, "outlet.1.current": 2.31,
          "outlet.2.realpower": swinging(300.0, 1.0), "outlet.3.realpower": 118.0}),
        ("whole amperes", {"input.L1.current": 3.0, "input.L1.realpower": swinging(700.0, 1.0)}),
        ("many whole amperes",
         {"input.L1.current": 320.0, "input.L1.realpower": swinging(7e4, 1.0, by=0.02)}),
        ("whole volts", {"input.L1.voltage": 230.0, "input.L2.voltage": swinging(231.0, 1.0),
                         "input.L3.voltage": swinging(229.0, 1.0)}),
        ("an idle outlet", {"outlet.1.realpower": 0.0, "outlet.1.current": swinging(0.3, 0.01),
                            "outlet.1.energy": 71_230.0}),
        ("an outlet that is off",
         {"outlet.1.status": "off", "outlet.1.voltage": 230.1, "outlet.1.energy": 71_230.0,
          "outlet.2.voltage": swinging(230.1, 0.1), "outlet.3.voltage": swinging(230.1, 0.1)}),
        ("a counter in steps of 1 kWh", {"input.energy": 2_641_000.0, "input.realpower": 900.0}),
        ("steps of 10 W", {"input.realpower": 1210.0, "input.current": swinging(5.3, 0.1)}),
        ("a device that is all quiet", {"input.L1.voltage": 230.1, "input.L2.voltage": 230.4,
                                        "input.L3.voltage": 229.9}),
    ],
)  # fmt: skip
def test_what_may_stay_is_not_called_stuck(what: str, rows: dict[str, object]) -> None:
    assert watched(60, rows) == set(), what


def test_a_value_that_moves_again_is_stuck_no_more() -> None:
    watch = Watch()
    for number in range(60):
        watts = 512.0 if number < 40 else 500.0 + number
        amperes = 2.31 + 0.12 * (number % 3)
        now_s = number * 30.0
        points = told({"outlet.3.realpower": watts, "outlet.3.current": round(amperes, 2)})
        watch, findings = watch.see(Snapshot(now_s, now_s, points))
        assert bool(findings) == (20 <= number < 40)


def test_the_module_knows_no_clock_and_no_device() -> None:
    text = (Path(__file__).parents[2] / "drivers" / "quality.py").read_text(encoding="utf-8")
    assert not any(f"import {name}" in text for name in ("time", "asyncio", "datetime"))
