"""The command `wattbroker`.

A watt's straight way starts here with `run`: the runtime (`firmware_py/runtime`) takes
readings from its pollers (`fetch`, `decode`, `poll`), the controller estimates and
reports (`estimate`, `report`, `publish`), the elected broker clears and reserves
(`clear`, `reserve`), and back on the rack a grant is admitted and becomes hardware
(`admit`, `limit`, `execute`).

Exit codes: 0 done · 1 what was asked did not hold · 2 the operator's input · 3 the
device or the server did not answer. Heavy modules are imported by the command that
needs them: start-up time and memory count on a Pi.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from firmware_py.cli_devices import discover, probe
from firmware_py.cli_explain import explain
from firmware_py.cli_profiles import profiles
from firmware_py.cli_roster import roster
from firmware_py.exits import NO_ANSWER, OPERATOR, fail

if TYPE_CHECKING:
    from firmware_py.site_types import Rack, Site

STATE_ROOT = Path("/var/lib/wattbroker")

_site = click.option(
    "--site",
    "site_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The site file, the same on every machine.",
)
_rack = click.option("--rack", "rack_name", required=True, help="Which rack of it this is.")
_state = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the journal; by default /var/lib/wattbroker/<site>/<rack>.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One line of JSON for programs.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wattbroker")
def main() -> None:
    """Keeps a machine room under its power caps."""


for command in (probe, discover, profiles, explain, roster):
    main.add_command(command)


@main.command()
@_site
@_rack
@_state
@click.option("--floor-on-exit", is_flag=True, help="Lower the rack to its floor at SIGTERM.")
@click.option("--verbose", is_flag=True, help="Log what happens in between, too.")
def run(
    site_path: Path, rack_name: str, state: Path | None, floor_on_exit: bool, verbose: bool
) -> None:
    """Run the controller of one rack until it is told to stop."""
    from firmware_py.journal import Journal, JournalError
    from firmware_py.runtime import RunOptions, Runtime, StartError

    _log(verbose)
    site, rack = _load(site_path, rack_name)
    try:
        with Journal(_folder(site, rack, state)) as journal:
            runtime = Runtime(site, rack, journal, RunOptions(floor_on_exit=floor_on_exit))
            code = asyncio.run(runtime.run())
    except (JournalError, StartError) as error:
        fail(str(error), OPERATOR)
    sys.exit(code)


@main.command()
@_site
@_rack
@_state
@click.option("--offline", is_flag=True, help="There is no MQTT server yet: do not ask it.")
@click.option(
    "--all-new",
    is_flag=True,
    help="No rack of the site has a journal any more, and all hardware is at its floor.",
)
def init(site_path: Path, rack_name: str, state: Path | None, offline: bool, all_new: bool) -> None:
    """Write the first journal of a rack that has never run; once."""
    from broker.messages import Ballot
    from firmware_py.journal import Journal, JournalError, first_record
    from firmware_py.operations import NoServer, knows_rack
    from firmware_py.runtime import in_words
    from firmware_py.site import site_hash

    site, rack = _load(site_path, rack_name)
    try:
        with Journal(_folder(site, rack, state)) as journal:
            if journal.exists:
                fail(
                    f"{journal.path}: there is a journal already: a rack is initialised once",
                    OPERATOR,
                )
            if not (offline or all_new) and knows_rack(site, rack.name):
                fail(
                    f"the MQTT server knows a report of {rack.name}: it has run before."
                    " Without its journal it needs no init, just start it; where no rack"
                    " of the site has one any more, use --all-new with all hardware at"
                    " its floor",
                    OPERATOR,
                )
            try:
                journal.write(first_record(Ballot(0, site_hash(site))))
            except OSError as error:
                fail(f"{journal.path}: {error.strerror or error}", OPERATOR)
    except NoServer as error:
        fail(f"{error}. Where there is no MQTT server yet, use --offline", NO_ANSWER)
    except (JournalError, OSError, ValueError) as error:
        fail(in_words(error), OPERATOR)
    click.echo(f"{rack.name}: ready to run")


@main.command()
@click.argument("site_path", metavar="SITE.TOML", type=click.Path(path_type=Path))
@_json
def check(site_path: Path, as_json: bool) -> None:
    """Say everything that is wrong with a site file, at once."""
    from firmware_py.errors import SiteError
    from firmware_py.site import load_site, warnings_of

    try:
        site = load_site(site_path)
    except SiteError as error:
        if as_json:
            faults = [{"key": f.key, "line": f.line, "text": f.text} for f in error.faults]
            click.echo(json.dumps({"ok": False, "faults": faults, "warnings": []}))
        else:
            click.echo(f"{error}\n{len(error.faults)} fault(s)", err=True)
        sys.exit(OPERATOR)
    warnings = warnings_of(site)
    if as_json:
        listed = [{"key": w.key, "text": w.text} for w in warnings]
        click.echo(json.dumps({"ok": True, "faults": [], "warnings": listed}))
        return
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{site_path}: {len(site.racks)} racks under {len(site.caps)} caps: usable")


@main.command()
@click.argument("cap_name", metavar="CAP")
@click.argument("limit_w", required=False, type=click.IntRange(min=0, max=10**9))
@click.option("--clear", "clear_by", metavar="BY", help="Withdraw what source BY has said.")
@click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path),
    default=Path("site.toml"),
    show_default=True,
    help="The site file.",
)
@_json
def cap(
    cap_name: str, limit_w: int | None, clear_by: str | None, site_path: Path, as_json: bool
) -> None:
    """Set CAP to LIMIT_W watts, and wait until it is in force."""
    from firmware_py.operations import NoServer, set_cap
    from firmware_py.runtime import in_words
    from firmware_py.site_keys import NAME_PATTERN

    if (limit_w is None) == (clear_by is None):
        fail("say either a limit in watts or --clear BY", OPERATOR)
    if clear_by is not None and not re.fullmatch(NAME_PATTERN, clear_by):
        fail("a source's name is 1 to 64 letters, digits, or any of - _ .", OPERATOR)
    site = _load_site(site_path)
    if cap_name not in {known.name for known in site.caps}:
        names = ", ".join(known.name for known in site.caps)
        fail(f"no cap is called {cap_name}; the site file has: {names}", OPERATOR)
    try:
        outcome = set_cap(site, cap_name, limit_w, clear_by or "operator")
    except NoServer as error:
        fail(str(error), NO_ANSWER)
    except (OSError, ValueError) as error:
        fail(in_words(error), OPERATOR)
    if outcome.unknown_source:
        fail(f"{cap_name}: {outcome.reason}", OPERATOR)
    if not outcome.seen:
        fail(f"{cap_name} is not confirmed: {outcome.reason}", NO_ANSWER)
    floors_w = sum(rack.floor_w for rack in site.under(cap_name))
    assert outcome.in_force_w is not None
    short_w = max(0, floors_w - outcome.in_force_w)
    spec = site.cap(cap_name)
    lapses = spec.fallback_w is not None and spec.fallback_w < outcome.in_force_w
    if as_json:
        said = {
            "cap": cap_name,
            "in_force_w": outcome.in_force_w,
            "short_w": short_w,
            "fallback_w": spec.fallback_w,
        }
        click.echo(json.dumps(said))
        return
    click.echo(f"{cap_name}: {outcome.in_force_w} W in force")
    if short_w:
        click.echo(
            f"warning: the floors under {cap_name} need {short_w} W more; all racks go to"
            " their floors, and no further",
            err=True,
        )
    if lapses:
        click.echo(
            f"warning: {cap_name} falls back to {spec.fallback_w} W when no source repeats"
            f" its value for {spec.set_ttl_s:g} s",
            err=True,
        )


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Hold a cap with five emulated racks while the broker is killed; -h for options."""
    # hil imports nothing of the product; in this process' place, so that whoever ends
    # the command ends the demo, which ends its children.
    os.execv(sys.executable, [sys.executable, "-m", "hil", "demo", *arguments])


def _load(site_path: Path, rack_name: str) -> tuple[Site, Rack]:
    site = _load_site(site_path)
    try:
        return site, site.rack(rack_name)
    except KeyError:
        names = ", ".join(rack.name for rack in site.racks)
        fail(f"no rack is called {rack_name}; {site_path} has: {names}", OPERATOR)


def _load_site(site_path: Path) -> Site:
    from firmware_py.errors import SiteError
    from firmware_py.site import load_site

    try:
        return load_site(site_path)
    except SiteError as error:
        fail(str(error), OPERATOR)


def _folder(site: Site, rack: Rack, state: Path | None) -> Path:
    return state if state is not None else STATE_ROOT / site.site / rack.name


def _log(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("wattbroker").setLevel(logging.DEBUG if verbose else logging.INFO)
    # What a device does not answer is a reading's reason, not a library's log line.
    for library in ("pymodbus", "pysnmp"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
