"""Readable scenarios with the full trace expected: who said what, what the hardware let through.

A transcript is a text file beside this one. A change of the product that changes what
happens shows as a difference; `pytest tests/transcripts --regenerate` rewrites the
files, and the difference is then reviewed like any other change.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from script_commands import ScriptError
from transcript_text import rewritten

from broker.ledger import Ledger

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_product_still_tells_the_same_story(path: Path, regenerate: bool) -> None:
    expected = path.read_text("utf-8")
    told = rewritten(expected)
    if regenerate:
        path.write_text(told, "utf-8")
    elif told != expected:
        changes = difflib.unified_diff(
            expected.splitlines(), told.splitlines(), "expected", "now", lineterm="", n=2
        )
        pytest.fail("\n".join(changes), pytrace=False)


def test_a_dozen_scenarios_are_told() -> None:
    assert len(FILES) >= 14
    for path in FILES:
        head, *lines = path.read_text("utf-8").splitlines()
        assert head.startswith("# ") and any("----" in line for line in lines), path.name


def test_a_difference_of_one_number_is_a_difference() -> None:
    expected = FILES[0].read_text("utf-8")
    changed = expected.replace("1000 -> 750 W", "1000 -> 751 W", 1)
    assert changed != expected
    assert rewritten(changed) == expected


def test_a_word_that_is_no_command_is_refused() -> None:
    with pytest.raises(ScriptError, match="no such command: fly r1"):
        rewritten("fly r1\n----\n")


def test_a_broker_that_gives_more_than_there_is_cannot_be_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regenerating must not turn a broken rule (here B2) into the expected trace."""

    def generous(self: Ledger, rack: str, wanted_w: int, **_: object) -> int:
        return self.accounts[rack].rack.ceiling_w

    monkeypatch.setattr(Ledger, "reserve", generous)
    with pytest.raises(AssertionError, match="was raised above room"):
        rewritten(FILES[0].read_text("utf-8"))
