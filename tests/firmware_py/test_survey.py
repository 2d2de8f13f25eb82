"""Whether a polled device can be believed: asked a little at a time, told once."""

from __future__ import annotations

from broker.effects import Event
from drivers.profile import Profile, check_profile, load_profile
from drivers.reading import Absence, Missing, Reading, Snapshot
from firmware_py.survey import (
    NAMES_AT_ONCE,
    OUTLETS_EVERY,
    OUTLETS_MAX,
    SURVEY_S,
    Survey,
    names_to_survey,
    names_with_outlets,
    only_one_member,
)

SDM = load_profile("eastron-sdm630")

PDU = """
schema = 1
name = "pdu"
protocol = "snmp"
[product]
vendor = "V"
[source]
document = "made up for this test"
[match]
one_of = ["1.3.6.1.4.1.9"]
present = ["1.3.6.1.4.1.9.8.1"]
[limits]
effect_delay_ms_max = 100
{more}
[[point]]
name = "input.realpower"
unit = "W"
oid = "1.3.6.1.4.1.9.8.1"
type = "int32"
[[point]]
name = "outlet.{{n}}.realpower"
unit = "W"
each = {{ n = {{ first = 1, count = {outlets} }} }}
oid = "1.3.6.1.4.1.9.6.{{n}}"
type = "int32"
[[point]]
name = "outlet.{{n}}.status"
each = {{ n = {{ first = 1, count = {outlets} }} }}
oid = "1.3.6.1.4.1.9.7.{{n}}"
type = "int32"
enum = {{ off = 2, on = 1 }}
"""

PHASE = """
[[point]]
name = "input.L1.realpower"
unit = "W"
oid = "1.3.6.1.4.1.9.8.2"
type = "int32"
"""


def pdu(outlets: int, more: str = "") -> Profile:
    return check_profile(PDU.format(outlets=outlets, more=more), "pdu.toml")


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


def round_of(survey: Survey, at_s: float, profile: Profile = SDM, **values: float) -> list[Event]:
    """A whole survey; the events of its end."""
    events: list[Event] = []
    while names := survey.names_to_ask(profile, at_s):
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


def test_a_point_that_the_device_lacks_does_not_end_the_survey() -> None:
    survey = Survey("pdu")
    first = survey.names_to_ask(SDM, 0.0)
    absent = {name: Missing(name, Absence.ABSENT) for name in first}
    assert survey.see(Snapshot(0.0, 0.0, absent)) == []
    assert survey.names_to_ask(SDM, 1.0) == names_to_survey(SDM)[NAMES_AT_ONCE:][:NAMES_AT_ONCE]


# ── outlets ───────────────────────────────────────────────────────────────────────

TRUE_OUTLETS = {"outlet_1_realpower": 311.0, "outlet_2_realpower": 480.0}
RIGHT = {"input_realpower": 805.0} | TRUE_OUTLETS
WRONG = {"input_realpower": 1805.0} | TRUE_OUTLETS


def asked_for(survey: Survey, at_s: float, profile: Profile, **values: float) -> set[str]:
    """What one survey asks for in all."""
    asked: set[str] = set()
    while names := survey.names_to_ask(profile, at_s):
        assert len(names) <= NAMES_AT_ONCE
        asked |= set(names)
        survey.see(answers(names, at_s, **values))
    return asked


def test_every_tenth_survey_asks_for_all_outlets_watts_as_well() -> None:
    survey, profile = Survey("pdu"), pdu(48)
    found = [asked_for(survey, n * SURVEY_S, profile) for n in range(2 * OUTLETS_EVERY + 1)]
    watts = {f"outlet.{n}.realpower" for n in range(1, 49)}
    assert [n for n, asked in enumerate(found) if asked] == [0, OUTLETS_EVERY, 2 * OUTLETS_EVERY]
    assert found[0] == found[OUTLETS_EVERY] == {"input.realpower"} | watts


def test_some_outlets_are_not_asked_if_all_of_them_are_too_many() -> None:
    assert len(names_with_outlets(pdu(OUTLETS_MAX))) == OUTLETS_MAX + 1
    assert names_with_outlets(pdu(OUTLETS_MAX + 1)) == ()
    assert names_with_outlets(SDM) == names_to_survey(SDM)


def test_outlets_that_do_not_add_up_are_told_when_they_did_not_twice() -> None:
    survey, profile = Survey("pdu"), pdu(2)
    assert round_of(survey, 0.0, profile, **WRONG) == []
    (event,) = round_of(survey, SURVEY_S, profile, **WRONG)
    assert dict(event.keys)["reason"] == "sum"
    for n in range(2, 2 * OUTLETS_EVERY):
        assert round_of(survey, n * SURVEY_S, profile, **WRONG) == []
    (event,) = round_of(survey, 2 * OUTLETS_EVERY * SURVEY_S, profile, **RIGHT)
    assert event.name == "device can be believed again"


def test_a_load_that_comes_while_the_outlets_are_asked_is_no_contradiction() -> None:
    survey, profile = Survey("pdu"), pdu(2)
    assert round_of(survey, 0.0, profile, **WRONG) == []
    assert round_of(survey, SURVEY_S, profile, **RIGHT) == []
    assert asked_for(survey, 2 * SURVEY_S, profile) == set()


def test_what_an_outlet_showed_is_not_taken_back_by_a_survey_of_the_input() -> None:
    survey, profile = Survey("pdu"), pdu(2, PHASE)
    wrong = WRONG | {"input_L1_realpower": 1805.0}
    assert round_of(survey, 0.0, profile, **wrong) == []
    assert len(round_of(survey, SURVEY_S, profile, **wrong)) == 1
    assert round_of(survey, 2 * SURVEY_S, profile, **wrong) == []
    of_input = {"input.realpower", "input.L1.realpower"}
    assert asked_for(survey, 3 * SURVEY_S, profile, **wrong) == of_input


def test_an_outlet_that_hangs_while_the_others_move_is_told() -> None:
    survey, profile = Survey("pdu"), pdu(6)
    events: list[Event] = []
    for n in range(21 * OUTLETS_EVERY):
        moving = {f"outlet_{k}_realpower": 300.0 + 7 * k + 11 * (n % 17) for k in range(2, 7)}
        total = 311.0 + sum(moving.values())
        values = {"input_realpower": total, "outlet_1_realpower": 311.0} | moving
        events += round_of(survey, n * SURVEY_S, profile, **values)
    (event,) = events
    assert (dict(event.keys)["reason"], dict(event.keys)["points"]) == (
        "stuck", "outlet.1.realpower",
    )  # fmt: skip


def test_a_chain_without_a_named_member_is_told_with_the_remedy() -> None:
    event = only_one_member("pdu", ["1", "2"], "snmp://192.0.2.21")
    assert "only 1 is read; name the one that is meant, as snmp://192.0.2.21/1" in str(event)
