"""`wattbroker roster`: who is counted, and the operator's word that a rack is no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from firmware_py.exits import NO_ANSWER, OPERATOR, fail

if TYPE_CHECKING:
    from broker.messages import Roster
    from firmware_py.roster_operations import Heard
    from firmware_py.site_types import Site

_site = click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path),
    default=Path("site.toml"),
    show_default=True,
    help="The site file.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One line of JSON for programs.")


@click.group(invoke_without_command=True)
@_site
@_json
@click.pass_context
def roster(context: click.Context, site_path: Path, as_json: bool) -> None:
    """Say who is counted, since when, and who is silent."""
    context.obj = site_path
    if context.invoked_subcommand is not None:
        return
    from firmware_py.operations import NoServer
    from firmware_py.roster_operations import who_is_counted
    from firmware_py.runtime import in_words

    site = _load(site_path)
    try:
        heard = who_is_counted(site)
    except NoServer as error:
        fail(str(error), NO_ANSWER)
    except (OSError, ValueError) as error:
        fail(in_words(error), OPERATOR)
    counted = heard.counted
    if counted is None:
        fail(f"nobody leads {site.site}; is a controller running?", NO_ANSWER)
    rows = _rows(counted, heard)
    if as_json:
        click.echo(json.dumps({"roster": [counted.name.term, counted.name.rack], "racks": rows}))
        return
    click.echo(f"roster {counted.name}, {len(rows)} racks")
    for row in rows:
        state = "leaving" if row["leaving"] else "silent" if row["silent"] else "heard"
        since = "" if row["since"] is None else f", since the ballot {row['since']}"
        click.echo(
            f"{row['rack']}: rank {row['rank']}, {row['floor_w']} to {row['ceiling_w']} W"
            f" under {row['cap']}, {state}{since}"
        )


@roster.command()
@click.argument("rack_name", metavar="RACK")
@_site
@click.pass_context
def remove(context: click.Context, rack_name: str, site_path: Path) -> None:
    """Count RACK no more: its hardware is at 0 W or unplugged.

    Only you can know that. Whoever is taken out while it draws is missing in every sum.
    """
    from firmware_py.operations import NoServer
    from firmware_py.roster_operations import remove_rack
    from firmware_py.runtime import in_words

    named = context.get_parameter_source("site_path") is not click.core.ParameterSource.DEFAULT
    site = _load(site_path if named else context.obj)
    try:
        outcome = remove_rack(site, rack_name)
    except NoServer as error:
        fail(str(error), NO_ANSWER)
    except (OSError, ValueError) as error:
        fail(in_words(error), OPERATOR)
    if outcome.refused:
        fail(f"{rack_name} stays counted: {outcome.reason}", OPERATOR)
    if not outcome.removed:
        fail(f"{rack_name} is still counted: {outcome.reason}", NO_ANSWER)
    click.echo(f"{rack_name}: counted no more")


def _load(site_path: Path) -> Site:
    from firmware_py.errors import SiteError
    from firmware_py.site import load_site

    try:
        return load_site(site_path)
    except SiteError as error:
        fail(str(error), OPERATOR)


def _rows(counted: Roster, heard: Heard) -> list[dict[str, object]]:
    silent = heard.beat.silent if heard.beat is not None else ()
    return [
        {
            "rack": rack.rack,
            "rank": rack.rank,
            "cap": rack.cap,
            "floor_w": rack.floor_w,
            "ceiling_w": rack.ceiling_w,
            "since": None if rack.joined is None else str(rack.joined),
            "leaving": rack.leaving,
            "silent": rack.rack in silent,
        }
        for rack in counted.racks
    ]
