"""`python -m hil chaos`: its options, what it prints while it goes on, its exit codes.

Exit: 0 every bound held · 1 one did not · 2 bad arguments · 3 something did not start ·
130 and 143 ended by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from hil import chaos, chaos_report, faults
from hil.chaos_judge import judge
from hil.ended import Ended, until_signal
from hil.mosquitto import MqttServerError
from hil.report import unwritable
from hil.room import Room, design
from hil.scenario import NotStarted

JSON = "chaos.json"
TEXT = "chaos.txt"
STEPS = "steps.csv"


def main(arguments: Sequence[str]) -> int:
    options, room, plan = _parse(arguments)
    stream = sys.stderr if options.json else sys.stdout
    _say_plan(plan, room, stream)

    def say(time_s: float, text: str) -> None:
        print(f"{time_s:6.1f} s  {text}", file=stream, flush=True)

    folder = options.keep.absolute() if options.keep else None
    try:
        recording = asyncio.run(until_signal(chaos.run(room, plan, say=say, folder=folder)))
    except (NotStarted, MqttServerError) as error:
        print(f"not started: {error}", file=sys.stderr)
        return 3
    except Ended as error:
        print(f"ended by {error.signal.name}; every process is stopped", file=sys.stderr)
        return 128 + error.signal
    verdict = judge(
        recording.samples, recording.injected, recording.fell, other_faults=recording.faults
    )
    text = chaos_report.summary(plan, recording, verdict)
    content = chaos_report.as_json(plan, recording, verdict)
    (options.out / TEXT).write_text(text + "\n")
    (options.out / JSON).write_text(content + "\n")
    if folder is not None:
        chaos_report.write_steps(folder / STEPS, recording)
    print(f"{text}\n\n  written: {options.out / TEXT}, {options.out / JSON}", file=stream)
    if options.json:
        print(content)
    return 0 if verdict.ok else 1


def _say_plan(plan: faults.Plan, room: Room, stream: TextIO) -> None:
    print(
        f"seed {plan.seed}: {len(plan.faults)} faults and {len(plan.caps)} changes of the cap"
        f" in {plan.seconds:.0f} s; {len(room.racks)} racks, cap {room.cap_w:,} W",
        file=stream,
    )
    for fault in plan.faults:
        whom = " or ".join(fault.victims[:2]) or "MQTT server"
        print(f"  {fault.at_s:6.1f} s  {fault.kind}, {fault.lasts_s:.1f} s: {whom}", file=stream)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Room, faults.Plan]:
    parser = argparse.ArgumentParser(
        prog="hil chaos", description="Faults on real processes; the plant judges."
    )
    parser.add_argument("--racks", type=int, default=5, metavar="N", help="4 to 12 (default 5)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0, metavar="M", help="default 10")
    length.add_argument("--seconds", type=float, metavar="S", help="instead of minutes")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and loads (default 1)")
    parser.add_argument("--json", action="store_true", help="the report on stdout, too")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help=f"where {JSON} and {TEXT} go (default: here)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep logs and journals in this empty folder"
    )
    options = parser.parse_args(arguments)
    seconds = 60 * options.minutes if options.seconds is None else options.seconds
    if reason := unwritable(options.out):
        parser.error(f"--out {options.out}: {reason}")
    if options.keep and options.keep.is_dir() and any(options.keep.iterdir()):
        parser.error(f"--keep {options.keep}: not empty")
    try:
        room = design(options.racks)
        plan = faults.plan(
            seed=options.seed, seconds=seconds, racks=[rack.name for rack in room.racks]
        )
    except ValueError as error:
        parser.error(str(error))
    return options, room, plan
