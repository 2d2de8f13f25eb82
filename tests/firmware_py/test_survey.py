"""Whether a polled device can be believed: asked a little at a time, told once."""

from __future__ import annotations

from broker.effects import Event
from drivers.profile import load_profile
from drivers.reading import Absence, Missing, Reading, Snapshot
from firmware_py.survey import NAMES_AT_ONCE, SURVEY_S, Survey, names_to_survey, only_one_member

SDM = load_profile("eastron-sdm630")


def answers(names: tuple[str, ...], at_s: float, **values: float) -> Snapshot:
    """What was asked; what `values` does not have is absent."""
    points: dict[str, Reading | Missing] = {}
    for name in names:
        key = name.replace(".", "_")
        if key in values:
            points[name] = Reading(name, values[key], "", at_s, at_s)
        else:
            points[name] = Missing(name, Absence.ABSENT)
    return Snapshot(at_s, at_s, points)


def round_of(survey: Survey, at_s: float, **values: float) -> list[Event]:
    """A whole survey; the events of its end."""
    events: list[Event] = []
    while names := survey.names_to_ask(SDM, at_s):
        assert events == []
        events += survey.see(answers(names, at_s, **values))
    return events


TRUE = {"input_L1_voltage": 230.0, "input_L1_current": 10.0, "input_L1_realpower": 2251.3,
        "input_L1_power": 2300.0, "input_realpower": 2251.3, "input_power": 2300.0}  # fmt: skip
TEN_TIMES = TRUE | {"input_L1_realpower": 22513.0, "input_realpower": 22513.0}


def test_a_survey_asks_what_can_contradict_itself_a_few_points_at_a_time() -> None:
    names = names_to_survey(SDM)
    assert {"input.realpower", "input.L1.voltage", "input.L3.current"} <= set(names)
    assert "input.energy" not in names
    survey = Survey("pdu")
    assert survey.names_to_ask(SDM, 0.0) == names[:NAMES_AT_ONCE]


def test_a_contradiction_is_told_when_it_comes_and_not_again() -> None:
    survey = Survey("pdu")
    assert round_of(survey, 0.0, **TRUE) == []
    assert survey.names_to_ask(SDM, SURVEY_S - 1) == ()
    events = round_of(survey, SURVEY_S, **TEN_TIMES)
    assert {event.name for event in events} == {"device contradicts itself"}
    assert ("reason", "scale") in events[0].keys
    assert round_of(survey, 2 * SURVEY_S, **TEN_TIMES) == []
    assert [e.name for e in round_of(survey, 3 * SURVEY_S, **TRUE)] == [
        "device can be believed again"
    ]


def test_half_a_round_says_nothing() -> None:
    survey = Survey("pdu")
    first = survey.names_to_ask(SDM, 0.0)
    silent = {name: Missing(name, Absence.TIMEOUT) for name in first}
    assert survey.see(Snapshot(0.0, 0.0, silent)) == []
    assert survey.names_to_ask(SDM, 1.0) == ()


def test_a_chain_without_a_named_member_is_told_with_the_remedy() -> None:
    event = only_one_member("pdu", ["1", "2"], "snmp://192.0.2.21")
    assert "only 1 is read; name the one that is meant, as snmp://192.0.2.21/1" in str(event)
