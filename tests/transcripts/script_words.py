"""What a trace says of each message, in the words of the protocol page.

Everything is repeated every tick, and a trace that repeated it could not be read. So a
message has two forms here: the line, and what of it must have changed for the line to
be worth saying again. Numbers that rise with every repetition (seq, beat, grant) are
not part of the second. The cap values that beats and reports carry (C1) are said with
every beat, and with a report where they have changed.
"""

from __future__ import annotations

from broker.effects import Event, JournalRecord
from broker.messages import (
    Ballot,
    Beat,
    CapSet,
    CapState,
    CapValues,
    ElectionMessage,
    Grant,
    Join,
    JoinAnswer,
    Leave,
    Message,
    Presence,
    Report,
    Roster,
)
from broker.topics import Topic


def line_of(topic: Topic, message: Message) -> tuple[str, object] | None:
    """The line for a message and what it repeats; None for what is for monitors only."""
    match message:
        case Beat():
            return _beat(message)
        case Report():
            return _report(message)
        case Grant():
            return _grant(topic.name, message)
        case ElectionMessage():
            to = f" to {message.to}" if message.to else ""
            text = f"election: {message.kind}{to}, ballot {_ballot(message.ballot)}"
            return text, None
        case Presence():
            return f"says {message}", None
        case CapState():
            return _cap_state(topic.name, message)
        case Roster():
            return _roster(message)
        case Join():
            text = f"asks to be counted, with {message.bound_w} W on"
            return text, text
        case JoinAnswer():
            text = f"answers {topic.name}: {message.why}"
            return text, text
        case Leave():
            text = f"says that {message.rack} is gone"
            return text, text
    return None


def _beat(beat: Beat) -> tuple[str, object]:
    silent = f", silent: {' '.join(beat.silent)}" if beat.silent else ""
    text = f"beats in {_ballot(beat.ballot)}{silent}"
    return text, text


def _report(report: Report) -> tuple[str, object]:
    step = "" if report.next_w == report.limit_w + 1 else f" next {report.next_w}"
    starting = ", starting" if report.starting else ""
    text = f"reports in {_ballot(report.ballot)}: limit {report.limit_w} bound {report.bound_w}"
    text += f"{step}{starting}"
    return text, text


def _grant(rack: str, grant: Grant) -> tuple[str, object]:
    """`[1/r2#9 to 1.8]`: the key, and the boot and seq of the report that it answers."""
    up = "raise to" if grant.may_raise else "at most"
    why = f" ({grant.why})" if grant.why else ""
    key = f"{_ballot(grant.key.ballot)}#{grant.key.number} to {grant.boot}.{grant.seq}"
    repeats = (grant.limit_w, grant.may_raise, grant.why, grant.key.ballot)
    return f"grants {rack} {up} {grant.limit_w} W{why} [{key}]", repeats


def raise_of(grant: Grant) -> object:
    """What the grant would repeat, had it been allowed to raise."""
    return (grant.limit_w, True, grant.why, grant.key.ballot)


def _cap_state(cap: str, state: CapState) -> tuple[str, object]:
    short = f", {state.short_w} W short of the floors" if state.short_w else ""
    text = f"cap {cap}: {state.limit_w} W by {state.by}{short}"
    return text, text


def reserves_of(cap: str, state: CapState) -> str:
    """What the broker counts under a cap, rack by rack (protocol B1)."""
    racks = " + ".join(f"{rack} {watts}" for rack, watts in sorted(state.reserve_w.items()))
    return f"counts under {cap}: {racks} = {state.reserved_w} of {state.limit_w} W"


def _roster(roster: Roster) -> tuple[str, object]:
    racks = " ".join(rack.rack + " (leaving)" * rack.leaving for rack in roster.racks)
    text = f"roster {roster.name} in {roster.ballot}: {racks}"
    return text, text


def cap_set(cap: str, said: CapSet) -> str:
    value = "withdraws its value" if said.limit_w is None else f"{said.limit_w} W"
    return f"cap {cap}: {value}"


def caps_words(values: CapValues) -> str:
    said = [
        f"{cap} {'withdrawn' if value.limit_w is None else value.limit_w} by {by}"
        for cap, sources in sorted(values.items())
        for by, value in sorted(sources.items())
    ]
    return f", caps: {', '.join(said)}" if said else ""


def journal_words(record: JournalRecord | None) -> str:
    return f"{_ballot(record.ballot)}, boot {record.boot}" if record else "none"


def _ballot(ballot: Ballot) -> str:
    return str(ballot) if ballot.rack else "no ballot"


def event_words(event: Event) -> str:
    """The event with its keys; "" for one that a message beside it tells as well."""
    if event.name == "election started" and ("preempting", False) in event.keys:
        return ""
    shown = [f"{key}={value}" for key, value in event.keys if key not in ("remedy", "device")]
    return " ".join([f"! {event.name}", *shown])
