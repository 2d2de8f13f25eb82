"""A transcript on paper: a head of comments, then commands and what they led to.

    # What it shows, and by which rules.

    start r1 r2
    run 3
    ----
      0.00 r1       starts: ...

    crash r1
    ----

Everything between a line of dashes and the next empty line is what the product did;
`rewritten` puts there what it does now, and nothing else changes.
"""

from __future__ import annotations

from script_commands import Script

DASHES = "----"


def rewritten(text: str) -> str:
    """The same transcript with the trace that its commands lead to now."""
    script = Script()
    out: list[str] = []
    trace: list[str] = []
    in_trace = False
    for line in text.splitlines():
        if in_trace:
            in_trace = bool(line.strip())
            if not in_trace:
                out.append(line)
            continue
        out.append(line)
        if line.strip() == DASHES:
            out += trace
            trace = []
            in_trace = True
        elif line.strip() and not line.startswith("#"):
            trace += script.carry_out(line)
    if trace:
        out += [DASHES, *trace]  # a script that was not yet performed
    return "\n".join(out) + "\n"
