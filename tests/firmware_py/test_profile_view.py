"""Rows that count on from one to the next share a line."""

from __future__ import annotations

import pytest

from drivers.profile import load_profile, profile_names
from firmware_py.profile_view import compacted, show_json, show_lines


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ([f"outlet.{n}.current" for n in range(1, 49)], ["outlet.1…48.current"]),
        (["input.L1.voltage", "input.L2.voltage", "input.L3.voltage"], ["input.L1…3.voltage"]),
        (["input.realpower", "input.power"], ["input.realpower", "input.power"]),
        (["bank.1.current", "bank.3.current"], ["bank.1.current", "bank.3.current"]),
        ([f"bank.{a}-{b}.current" for a in (1, 2) for b in (1, 2, 3)], ["bank.1…2-1…3.current"]),
        (["bank.1-1.current", "bank.1-2.current", "bank.2-1.current"],
         ["bank.1-1…2.current", "bank.2-1.current"]),
        (["inlet.1.L1.power", "inlet.2.L1.power", "inlet.1.L2.power", "inlet.2.L2.power"],
         ["inlet.1…2.L1…2.power"]),
        (["input.L1-L2.voltage", "input.L2-L3.voltage"],
         ["input.L1-L2.voltage", "input.L2-L3.voltage"]),
        ([], []),
    ],
)  # fmt: skip
def test_neighbours_are_compacted(names, lines) -> None:
    assert [line for line, _ in compacted(names)] == lines
    assert [first for _, first in compacted(names)][:1] == names[:1]


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_can_be_shown(name) -> None:
    profile = load_profile(name)
    lines = show_lines(profile)
    assert len(lines) < 100
    assert all(line.isprintable() for line in lines)
    assert len(show_json(profile)["points"]) == len(profile.points)
