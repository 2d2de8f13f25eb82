"""The live view on a terminal; only this module knows rich.

A row per rack, the total as a bar against the cap, and what comes next. It draws when
it is told to, a few times a second, and keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hil.judge import Sample
from hil.room import Room
from hil.wiretap import Heard

BAR_WIDTH = 44


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything one picture shows."""

    sample: Sample
    heard: Heard
    dead: frozenset[str]
    latest: str
    coming: str


class Screen:
    """A context: the table is on the terminal while it is open."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._live = Live(auto_refresh=False, transient=False)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def draw(self, frame: Frame) -> None:
        self._live.update(render(self._room, frame), refresh=True)


def render(room: Room, frame: Frame) -> Group:
    """One frame, for rich to print."""
    sample, heard = frame.sample, frame.heard
    table = Table(title=f"wattbroker demo   t = {sample.time_s:.0f} s", title_justify="left")
    table.add_column("rack")
    table.add_column("actuator")
    for heading in ("floor W", "wants W", "granted W", "draws W"):
        table.add_column(heading, justify="right")
    table.add_column("", min_width=6)
    for rack in room.racks:
        report = heard.reports.get(rack.name)
        role = "dead" if rack.name in frame.dead else "broker" * (rack.name == sample.broker)
        table.add_row(
            rack.name,
            f"{len(rack.outlets)} outlets (SNMP)" if rack.outlets else "limit (Modbus)",
            f"{rack.floor_w:,}",
            _watts(report.demand_w if report else None),
            _watts(report.limit_w if report else None),
            f"{sample.draw_w[rack.name]:,.0f}",
            Text(role, style="bold red" if role == "dead" else "bold green"),
        )
    price = "-" if heard.price is None else f"{heard.price:.3f} per kWh"
    return Group(
        table,
        bar(sample.total_w, sample.cap_w),
        Text(f"price {price}     breaker {'TRIPPED' if sample.tripped else 'closed'}"),
        Text(f"latest: {frame.latest}"),
        Text(f"next:   {frame.coming}"),
    )


def bar(total_w: float, cap_w: int) -> Text:
    """The total as a part of the cap; whole width is the cap."""
    share = total_w / cap_w
    filled = min(BAR_WIDTH, round(share * BAR_WIDTH))
    style = "green" if share <= 1 else "bold red"
    text = Text().append("█" * filled, style=style)
    text.append("░" * (BAR_WIDTH - filled), style="dim")
    return text.append(f"  {total_w:,.0f} of {cap_w:,} W ({share:.1%})")


def _watts(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
