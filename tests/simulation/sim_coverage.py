"""Every kind of thing that has to happen in the fixed seeds: what never happens proves nothing.

Counted where it happens: faults by who makes them (`sim_fates`, `sim_server`, `sim_device`,
`sim_rack`), what the product did by its own events.
"""

from __future__ import annotations

FAULTS = (
    "crash",
    "crash midway",
    "stall",
    "twin",
    "clock jump",
    "journal lost",
    "journal slow",
    "journal refused",
    "cut both ways",
    "cut up",
    "cut down",
    "message lost",
    "message late",
    "message twice",
    "server back with its memory: all",
    "server back with its memory: none",
    "server back with its memory: old",
    "forced election",
    "answer lost",
    "write lost",
    "write refused",
    "poll lost",
    "reset to full",
    "reset to nothing",
    "meter stops",
    "meter shows little",
    "meter hangs",
    "cap changed",
    "cap falls",
    "cap rises",
    "source silent",
)

ANSWERS = (
    "election started",
    "this rack is broker now",
    "this rack is broker no more",
    "split: two brokers at a time",
    "grant refused: another process",
    "grant refused: lower ballot",
    "grant refused: old key",
    "grant refused: too late",
    "lease ended: rack goes to its floor",
    "journal lost: waiting for a synchronised clock",
    "journal lost: term and boot taken from the clock",
    "journal accepts writes again",
    "another controller runs under this rack's name",
    "exit for a twin",
    "hardware lets through more than was promised",
    "hardware is below the limit",
    "reconnect: own reports do not come back",
    "write failed",
)

EVERY_KIND = FAULTS + ANSWERS
