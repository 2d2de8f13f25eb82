"""`wattbroker explain`: why a rack's limit is what it is, and what would change it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from firmware_py.exits import NO_ANSWER, OPERATOR, fail


@click.command()
@click.argument("rack_name", metavar="RACK")
@click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path),
    default=Path("site.toml"),
    show_default=True,
    help="The site file.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for programs.")
def explain(rack_name: str, site_path: Path, as_json: bool) -> None:
    """Say RACK's limit in force: who set it, from which cap, since when, until when.

    Exit code 3: the rack does not speak. What it said last is printed all the same.
    """
    from msgspec import to_builtins

    from firmware_py import clock
    from firmware_py.errors import SiteError
    from firmware_py.explaining import ask, sentences
    from firmware_py.operations import NoServer
    from firmware_py.runtime import in_words
    from firmware_py.site import load_site

    try:
        site = load_site(site_path)
    except SiteError as error:
        fail(str(error), OPERATOR)
    known = [rack.name for rack in site.racks]
    if rack_name not in known and site.roster == "static":
        fail(f"no rack is called {rack_name}; the site file has: {', '.join(known)}", OPERATOR)
    try:
        answer = ask(site, rack_name)
    except NoServer as error:
        fail(str(error), NO_ANSWER)
    except (OSError, ValueError) as error:
        fail(in_words(error), OPERATOR)
    if answer.record is None:
        fail(f"{rack_name} has never said anything; is its controller running?", NO_ANSWER)
    if as_json:
        said = {"rack": rack_name, "live": answer.live, "online": answer.online}
        click.echo(json.dumps(said | to_builtins(answer.record)))
    else:
        click.echo("\n".join(sentences(rack_name, answer, wall_ms=clock.wall_ms())))
    if not answer.live:
        raise SystemExit(NO_ANSWER)
