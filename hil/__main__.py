"""`python -m hil demo`: the command line of the emulated room (`chaos`: chaos_command).

Exit: 0 the cap held · 1 it did not, or the run is not complete · 2 bad arguments ·
3 something did not start · 130 and 143 ended by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

from hil import chaos_command, report, scenario
from hil.ended import Ended, until_signal
from hil.judge import Sample, Verdict, judge
from hil.mosquitto import SERVERS, MqttServerError
from hil.room import Room, design
from hil.wiretap import Heard

SECONDS_MIN = 20.0  # below, the events run into each other
LINE_EVERY_S = 5.0
FRAME_EVERY_S = 0.5


class Lines:
    """The headless view: a line for each event, and one every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0

    def event(self, time_s: float, text: str) -> None:
        print(f"{time_s:6.1f} s  * {text}", file=self._stream, flush=True)

    def step(self, sample: Sample, heard: Heard, dead: frozenset[str], coming: str) -> None:
        if sample.time_s < self._next_s:
            return
        self._next_s += LINE_EVERY_S
        draws = "  ".join(f"{rack} {draw_w:,.0f}" for rack, draw_w in sample.draw_w.items())
        print(
            f"{sample.time_s:6.1f} s  {sample.total_w:7,.0f} of {sample.cap_w:,} W "
            f"({sample.total_w / sample.cap_w:6.1%})  broker {sample.broker or '-':<4} {draws}",
            file=self._stream,
            flush=True,
        )


class Pictures:
    """The live table on a terminal."""

    def __init__(self, room: Room) -> None:
        from hil.table import Screen  # rich is an extra, and headless runs need none

        self.screen = Screen(room)
        self._latest = "starting"
        self._next_s = 0.0

    def event(self, time_s: float, text: str) -> None:
        self._latest = f"{text} ({time_s:.0f} s)"

    def step(self, sample: Sample, heard: Heard, dead: frozenset[str], coming: str) -> None:
        if sample.time_s < self._next_s:
            return
        from hil.table import Frame

        self._next_s += FRAME_EVERY_S
        self.screen.draw(Frame(sample, heard, dead, self._latest, coming))


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["chaos"]:
        return chaos_command.main(words[1:])
    options, room = _parse(words)
    stream = sys.stderr if options.json else sys.stdout
    try:
        recording = asyncio.run(until_signal(_run(options, room, stream)))
    except (scenario.NotStarted, MqttServerError) as error:
        print(f"not started: {error}", file=sys.stderr)
        return 3
    except Ended as error:
        print(f"ended by {error.signal.name}; every process is stopped", file=sys.stderr)
        return 128 + error.signal
    return _conclude(options, room, recording, stream)


def _conclude(
    options: argparse.Namespace, room: Room, recording: scenario.Recording, stream: TextIO
) -> int:
    verdict: Verdict = judge(
        recording.samples,
        recording.events,
        {rack.name: rack.floor_w for rack in room.racks},
        other_faults=recording.faults,
    )
    print(report.summary(room, verdict), file=stream, flush=True)
    written, remarks = report.write_files(options.out, room, recording.samples, recording.marks)
    print("\n  written: " + (", ".join(written) or "nothing"), file=stream)
    for remark in remarks:
        print(f"  {remark}", file=stream)
    stream.flush()
    if options.json:
        print(report.json_line(room, verdict), flush=True)
    return 0 if verdict.ok else 1


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Room]:
    parser = argparse.ArgumentParser(
        prog="hil", description="An emulated machine room: real protocols, no hardware."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("chaos", help="faults on real processes; has options of its own")
    demo = commands.add_parser(
        "demo",
        prog="wattbroker demo",  # what users type; it becomes this command
        help="racks hold a cap while it falls, and while the broker dies",
    )
    demo.add_argument("--racks", type=int, default=5, metavar="N", help="4 to 12 (default 5)")
    demo.add_argument("--seconds", type=float, default=60.0, metavar="S", help="default 60")
    demo.add_argument("--headless", action="store_true", help="lines instead of the live table")
    demo.add_argument("--json", action="store_true", help="the result as one line on stdout")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where demo.csv and demo.png go (default: here)",
    )
    demo.add_argument("--seed", type=int, default=1, help="of the loads (default 1)")
    demo.add_argument(
        "--mqtt-server",
        choices=SERVERS,
        default="auto",
        help="auto: mosquitto where it is installed, else the embedded one",
    )
    options = parser.parse_args(arguments)
    try:
        room = design(options.racks)
    except ValueError as error:
        demo.error(str(error))
    if not SECONDS_MIN <= options.seconds < float("inf"):
        demo.error(
            f"--seconds {options.seconds:g}: at least {SECONDS_MIN:.0f}, "
            "or the events run into each other"
        )
    if reason := report.unwritable(options.out):
        demo.error(f"--out {options.out}: {reason}")
    return options, room


async def _run(options: argparse.Namespace, room: Room, stream: TextIO) -> scenario.Recording:
    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    viewer: Lines | Pictures = Lines(stream)
    if not (options.headless or options.json) and sys.stdout.isatty():
        try:
            viewer = Pictures(room)
        except ImportError:
            say("lines instead of the live table: it needs rich (pip install 'wattbroker[demo]')")
    with viewer.screen if isinstance(viewer, Pictures) else nullcontext():
        return await scenario.run(
            room,
            seconds=options.seconds,
            seed=options.seed,
            mqtt_server=options.mqtt_server,
            viewer=viewer,
            say=say,
        )


if __name__ == "__main__":
    sys.exit(main())
