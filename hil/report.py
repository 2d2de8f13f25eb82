"""What is left of a run: the CSV, the picture, the summary, and one line of JSON.

The JSON line is a contract: ok, cap_w, cap_after_w, peak_share, under_new_cap_s,
no_broker_s, use, use_or_reserved, breaker, in this order, nothing else.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hil.breaker import trip_time_s
from hil.judge import Sample, Verdict
from hil.room import Room

CSV = "demo.csv"
PICTURE = "demo.png"

Mark = tuple[float, str]  # seconds after time 0, and what happened


def json_line(room: Room, verdict: Verdict) -> str:
    """The last line on standard output with --json."""
    return json.dumps(
        {
            "ok": verdict.ok,
            "cap_w": room.cap_w,
            "cap_after_w": room.cap_after_w,
            "peak_share": _rounded(verdict.peak_share, up=True),
            "under_new_cap_s": _rounded(verdict.under_new_cap_s, up=True),
            "no_broker_s": _rounded(verdict.no_broker_s, up=True),
            "use": _rounded(verdict.use, up=False),
            "use_or_reserved": _rounded(verdict.use_or_reserved, up=False),
            "breaker": verdict.breaker,
        }
    )


def _rounded(value: float | None, *, up: bool) -> float | None:
    """Four places, against ourselves: a peak above 1 never reads 1."""
    if value is None:
        return None
    scaled = value * 10_000
    return (-int(-scaled // 1) if up else int(scaled // 1)) / 10_000


def summary(room: Room, verdict: Verdict) -> str:
    """For a person: what was promised, what was seen, and the files."""
    wanted_w = sum(rack.demand_w for rack in room.racks)
    held = "THE CAP HELD" if verdict.ok else "THE CAP DID NOT HOLD, OR THE RUN IS NOT COMPLETE"
    share = verdict.use_or_reserved
    lines = [
        "",
        held,
        "",
        f"  {len(room.racks)} racks wanted about {wanted_w:,} W; the cap was {room.cap_w:,} W, "
        f"then {room.cap_after_w:,} W.",
        f"  Left alone they could have opened the breaker after "
        f"{trip_time_s(wanted_w / room.breaker_rating_w, room.breaker_curve):.0f} s.",
        "",
        "  What the plant saw:",
        _row(
            "highest total",
            f"{verdict.peak_share:.1%} of the cap",
            "outside 3 s after it fell; must not pass 100 %",
        ),
        _row("under the new cap after", _seconds(verdict.under_new_cap_s), "must be within 3 s"),
        _row(
            "without a broker for",
            _seconds(verdict.no_broker_s),
            "after its process was killed; should be within 5 s",
        ),
        _row(
            "living racks at the floor",
            ", ".join(verdict.fell_to_floor) or "none",
            "because of the kill or the restart",
        ),
        _row("cap used", _share(verdict.use), "mean, from the first second"),
        _row(
            "cap used or reserved",
            _share(share) if share is not None else "-",
            "10 s after events left out; should be at least 90 %",
        ),
        _row("breaker", verdict.breaker, ""),
    ]
    lines += ["", *(f"  ! {fault}" for fault in verdict.faults)] if verdict.faults else []
    return "\n".join(lines)


def _row(name: str, value: str, remark: str) -> str:
    return f"    {name:<27}{value:<20}{remark}".rstrip()


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def unwritable(out: Path) -> str | None:
    """Why the files of a run could not be written to `out`, before the run; None: they can."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass  # says what no permission bit says: read-only mounts, no folder at all
    except OSError as error:
        return error.strerror or str(error)
    for path in (out / CSV, out / PICTURE):
        if path.is_dir():
            return f"{path.name} is a folder"
        if path.exists() and not os.access(path, os.W_OK):
            return f"{path.name} is there and may not be written"
    return None


def write_files(
    out: Path, room: Room, samples: Sequence[Sample], marks: Sequence[Mark]
) -> tuple[list[str], list[str]]:
    """The files that were written, and a remark on each that was not. Never an OSError:
    the run is over, and its numbers must not be lost with a file."""
    written: list[str] = []
    remarks: list[str] = []
    for path, write in (
        (out / CSV, lambda path: write_csv(path, samples)),
        (out / PICTURE, lambda path: write_picture(path, room, samples, marks)),
    ):
        try:
            write(path)
        except ImportError:
            remarks.append(f"no {path} (it needs matplotlib: pip install 'wattbroker[demo]')")
        except OSError as error:
            remarks.append(f"no whole {path} ({error.strerror or error})")
        else:
            written.append(str(path))
    return written, remarks


def write_csv(path: Path, samples: Sequence[Sample]) -> None:
    """Every step of the plant: time, cap, total, each rack's draw and limit, the broker."""
    racks = list(samples[0].draw_w) if samples else []
    columns = ["time_s", "cap_w", "total_w"]
    columns += [f"{rack}_{what}_w" for rack in racks for what in ("draw", "limit")]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*columns, "broker"])
        for s in samples:
            row: list[object] = [f"{s.time_s:.1f}", s.cap_w, f"{s.total_w:.1f}"]
            for rack in racks:
                row += [f"{s.draw_w[rack]:.1f}", s.limit_w[rack]]
            out.writerow([*row, s.broker or ""])


def write_picture(path: Path, room: Room, samples: Sequence[Sample], marks: Sequence[Mark]) -> None:
    """Total against cap above, each rack below, the events as lines. ImportError: no matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    times_s = [s.time_s for s in samples]
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(11, 8), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    above.fill_between(times_s, [s.total_w for s in samples], color="#4c8bbf", alpha=0.35)
    above.plot(times_s, [s.total_w for s in samples], color="#1f5f8f", label="drawn")
    above.plot(times_s, [s.demand_w for s in samples], color="#999999", lw=1, label="wanted")
    above.step(times_s, [s.cap_w for s in samples], color="#c0392b", where="post", label="cap")
    above.set_ylabel("W, all racks")
    above.set_ylim(0, 1.25 * max(s.demand_w for s in samples))
    for rack in room.racks:
        kind = "outlets" if rack.outlets else "limit"
        below.plot(
            times_s, [s.draw_w[rack.name] for s in samples], lw=1.2, label=f"{rack.name} ({kind})"
        )
    below.set_ylabel("W, each rack")
    below.set_ylim(0)
    below.set_xlabel("s after all racks had reported")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.legend(loc="lower right", ncols=4, fontsize=8)
        for at_s, _text in marks:
            axes.axvline(at_s, color="#444444", lw=0.8, ls=":")
    for at_s, text in marks:
        above.annotate(
            text,
            (at_s, 1.0),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="right",
            fontsize=7,
            color="#444444",
        )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
