"""The wire: msgspec beside pydantic, in one run.

Both decode and check the same report and encode it again; a fresh process each tells
what importing the library and building the types costs in time and memory. The
ratios are what counts: absolute times are the machine's.

    python benchmarks/wire.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import timeit
from statistics import median

REPORT = {
    "instance": "93502e0e36290d0c",
    "boot": 1,
    "seq": 8,
    "ballot": [1, "r5"],
    "roster": [0, "6e515e23851032c7"],
    "site_hash": "6e515e23851032c7",
    "caps": {"room": {"plant": [1795249367541, 9810]}},
    "seen": [1, "r5", 19],
    "bound_w": 2900,
    "limit_w": 2900,
    "next_w": 3100,
    "floor_w": 660,
    "ceiling_w": 3100,
    "ttl_s": 300.0,
    "settle_s": 2.0,
    "demand_w": 3100,
    "measured_w": 1976,
    "measured_age_s": 0.441,
    "weight": 1.0,
    "actuator": "outlets",
    "starting": False,
    "time_ms": 1795249368034,
}

FOOTPRINT = """
import time
from pathlib import Path
def rss(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
before, start = rss(), time.perf_counter()
{imports}
print(rss() - before, time.perf_counter() - start)
"""
MSGSPEC = "import broker.wire"
PYDANTIC = """
import sys
sys.path.insert(0, "benchmarks")
from wire import pydantic_report
pydantic_report()
"""


def pydantic_report():  # type: ignore[no-untyped-def]
    """The report's type for pydantic, with the same bounds."""
    from typing import Annotated

    from pydantic import BaseModel, ConfigDict, Field

    watts = Annotated[int, Field(ge=0, le=10**9)]
    number = Annotated[int, Field(ge=0, le=2**53 - 1)]
    seconds = Annotated[float, Field(ge=0, le=1e9)]

    class Report(BaseModel):
        model_config = ConfigDict(frozen=True)
        instance: Annotated[str, Field(min_length=1, max_length=32)]
        boot: number
        seq: number
        ballot: tuple[number, str]
        roster: tuple[number, str]
        site_hash: str
        caps: dict[str, dict[str, tuple[number, watts | None]]]
        seen: tuple[number, str, number] | None
        bound_w: watts
        limit_w: watts
        next_w: watts
        floor_w: watts
        ceiling_w: watts
        ttl_s: seconds
        settle_s: seconds
        demand_w: watts
        measured_w: watts | None
        measured_age_s: seconds | None
        weight: Annotated[float, Field(gt=0)]
        actuator: str
        starting: bool
        time_ms: number

    Report.model_rebuild(_types_namespace=locals())
    return Report


def footprint(imports: str) -> tuple[float, float]:
    """Median MB and seconds of importing, in fresh processes."""
    rows = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", FOOTPRINT.format(imports=imports)],
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append([float(word) for word in done.stdout.split()])
    return median(row[0] for row in rows), median(row[1] for row in rows)


def each_us(call) -> float:  # type: ignore[no-untyped-def]
    timer = timeit.Timer(call)
    loops, _ = timer.autorange()
    return min(timer.repeat(5, loops)) / loops * 1e6


def main() -> None:
    from broker import wire
    from broker.topics import Kind

    payload = json.dumps(REPORT).encode()
    ours = wire.decode(Kind.REPORT, payload)
    model = pydantic_report()
    theirs = model.model_validate_json(payload)
    rows = {
        "decode and check": (
            each_us(lambda: wire.decode(Kind.REPORT, payload)),
            each_us(lambda: model.model_validate_json(payload)),
            "us",
        ),
        "encode": (
            each_us(lambda: wire.encode(ours)),
            each_us(lambda: theirs.model_dump_json()),
            "us",
        ),
    }
    (mb_a, s_a), (mb_b, s_b) = footprint(MSGSPEC), footprint(PYDANTIC)
    rows["memory of import and types"] = (mb_a, mb_b, "MB")
    rows["time of import and types"] = (s_a * 1e3, s_b * 1e3, "ms")
    print(f"one report of {len(payload)} bytes {'msgspec':>13} {'pydantic':>11} {'ratio':>7}")
    for what, (a, b, unit) in rows.items():
        print(f"  {what:<28} {a:>8.2f} {unit} {b:>8.2f} {unit} {b / a:>6.1f}x")


if __name__ == "__main__":
    main()
