"""The commands for devices: `probe` and `discover`.

They only read, except for the file that `discover --out` writes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from firmware_py.exits import DID_NOT_HOLD, NO_ANSWER, OPERATOR, fail

if TYPE_CHECKING:
    from firmware_py.discovery import Harvest
    from firmware_py.knocking import Wishes
    from firmware_py.probing import Probe, Told

PLAUSIBLE_S = 9.0  # a probe of an unknown Modbus device, all together

_profiles = click.option(
    "--profiles",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with profiles of your own.",
)
_json = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")


# ── probe ─────────────────────────────────────────────────────────────────────────


@click.command()
@click.argument("url")
@click.option("--profile", "profile_name", help="What the device is, if it does not say so.")
@_profiles
@click.option(
    "--watch",
    "period",
    is_flag=False,
    flag_value="auto",
    metavar="[SECONDS]",
    help="Read again and again: every SECONDS, or as often as the profile allows.",
)
@click.option("--count", type=click.IntRange(min=1), help="With --watch: so many rounds.")
@_json
def probe(
    url: str,
    profile_name: str | None,
    folder: Path | None,
    period: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Read one device, in SI units: snmp://public@host or modbus://host:502/1."""
    from drivers.errors import DeviceError, ProfileError
    from drivers.profile import load_profile
    from firmware_py import clock
    from firmware_py.probing import Probe, Unanswered, Unrecognised

    begun_s = clock.now_s()
    _keep_libraries_quiet()
    if count is not None and period is None:
        fail("--count belongs to --watch", OPERATOR)
    period_s = _period_s(period)
    folders = [folder] if folder else []
    try:
        profile = load_profile(profile_name, folders) if profile_name else None
        asked = Probe(url, profile, folders)
        if period is not None:
            sys.exit(asyncio.run(_watch(asked, period_s, count, as_json)))
        told = asyncio.run(_once(asked))
    except ProfileError as error:
        fail(str(error), OPERATOR)
    except Unrecognised as error:
        _show_plausible(url, str(error), folders, begun_s + PLAUSIBLE_S, as_json)
    except (DeviceError, Unanswered) as error:
        fail(str(error), NO_ANSWER)
    except KeyboardInterrupt:
        sys.exit(0 if period is not None else 128 + signal.SIGINT)
    _show(told, as_json)


def _period_s(period: str | None) -> float | None:
    """Seconds between two rounds; None: as the profile allows."""
    if period is None or period == "auto":
        return None
    try:
        seconds = float(period)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 86_400.0:
        fail(f"--watch {period}: a number of seconds from 1 to 86400, or nothing", OPERATOR)
    return seconds


async def _once(asked: Probe) -> list[Told]:
    try:
        return await asked.read()
    finally:
        await asked.close()


async def _watch(asked: Probe, period_s: float | None, count: int | None, as_json: bool) -> int:
    """Shows every round; the exit code: whether any was answered."""
    from firmware_py.probing import aged

    last: list[Told] = []
    try:
        async for told in asked.rounds(period_s, count):
            if not as_json:
                click.clear()  # on a terminal only
                click.echo(time.strftime("%H:%M:%S"))
            if isinstance(told, list):
                last = told
                _show(told, as_json)
            elif as_json:
                click.echo(json.dumps({"url": asked.printed, "error": told}))
            else:
                click.echo(f"no answer: {told}")
                if last:  # with the age that they have now
                    _show([aged(each) for each in last], as_json)
            if not as_json:
                click.echo()
            sys.stdout.flush()
    finally:
        await asked.close()
    return 0 if last else NO_ANSWER


def _show(told: list[Told], as_json: bool) -> None:
    from firmware_py.probe_table import tables, warnings
    from firmware_py.probing import round_json

    found = round_json(told)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(tables(found))
    for line in warnings(found):
        click.echo(line, err=True)


def _show_plausible(
    url: str, reason: str, folders: list[Path], until_s: float, as_json: bool
) -> NoReturn:
    """What an unknown Modbus device could be; the operator decides."""
    from drivers.address import ModbusAddress, parse_url
    from drivers.profile import load_profile, profile_names
    from firmware_py import clock
    from firmware_py.plausible import plausible_profiles
    from firmware_py.probe_table import plausible_lines

    address = parse_url(url, os.environ)
    assert isinstance(address, ModbusAddress)
    profiles = [load_profile(name, folders) for name in profile_names(folders)]
    guesses = asyncio.run(plausible_profiles(address, profiles, clock.now_s, until_s=until_s))
    if as_json:
        listed = [each.json() for each in guesses.plausible]
        said = {"error": reason, "plausible": listed, "untried": list(guesses.untried)}
        click.echo(json.dumps(said))
    fail("\n".join([reason, *plausible_lines(guesses)]), OPERATOR)


# ── discover ──────────────────────────────────────────────────────────────────────


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="CIDR|HOST|HOST:PORT|URL…")
@click.option(
    "--community",
    "communities",
    multiple=True,
    metavar="TEXT",
    help="SNMP community, or env:NAME; may be given several times.  [default: public]",
)
@click.option("--snmp1", is_flag=True, help="Ask with SNMPv1 where v2c is not answered.")
@click.option("--snmp-port", type=click.IntRange(1, 65535), default=161, show_default=True)
@click.option("--modbus-port", type=click.IntRange(1, 65535), default=502, show_default=True)
@click.option("--units", default="1", show_default=True, help="Modbus units: 1,2 or 1-16.")
@click.option(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(min=0.1, max=1000.0),
    default=20.0,
    show_default=True,
    help="Requests a second, at most.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.05, max=60.0),
    default=1.0,
    show_default=True,
    help="Seconds to wait for an answer.",
)
@click.option("--yes-many", is_flag=True, help="More than 1024 addresses are meant.")
@_profiles
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the site file there; it must not exist yet.",
)
@_json
def discover(
    targets: tuple[str, ...],
    communities: tuple[str, ...],
    snmp1: bool,
    snmp_port: int,
    modbus_port: int,
    units: str,
    rate_per_s: float,
    timeout_s: float,
    yes_many: bool,
    folder: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find PDUs and meters where you say, and print a site file for them."""
    from drivers.errors import ProfileError
    from firmware_py.discovery import Harvest
    from firmware_py.knocking import Wishes
    from firmware_py.secrets_named import name_secrets
    from firmware_py.targets import TargetError, parse_targets, parse_units

    _keep_libraries_quiet()
    if out is not None and (out.exists() or not out.absolute().parent.is_dir()):
        why = "is there already" if out.exists() else "its folder does not exist"
        fail(f"{out}: {why}; nothing was asked", OPERATOR)
    try:
        parsed = parse_targets(targets, os.environ, many=yes_many)
        secrets = name_secrets(communities or ("public",), parsed.urls, os.environ)
        wishes = Wishes(
            targets=parsed, secrets=secrets, snmp1=snmp1,
            snmp_port=snmp_port, modbus_port=modbus_port, units=parse_units(units),
            rate_per_s=rate_per_s, timeout_s=timeout_s, folders=(folder,) if folder else (),
        )  # fmt: skip
        harvest = Harvest()
        asyncio.run(_discover(wishes, harvest))
    except (TargetError, ProfileError, ValueError) as error:
        fail(str(error), OPERATOR)
    _report(harvest, list(secrets.variables), folder, out, as_json)
    sys.exit(0 if harvest.found else DID_NOT_HOLD)


async def _discover(wishes: Wishes, harvest: Harvest) -> None:
    """Until everything is asked, or Ctrl-C; what was found by then is in `harvest`."""
    from firmware_py.discovery import discover as search

    def tell(text: str) -> None:
        click.echo(text, err=True)

    hosts, urls = len(wishes.targets.hosts), len(wishes.targets.urls)
    tell(
        f"asking {hosts} addresses (udp {wishes.snmp_port}, tcp {wishes.modbus_port}) and {urls}"
        f" URLs, at most {wishes.rate_per_s:g} requests a second"
    )
    searching = asyncio.create_task(search(wishes, harvest, tell))
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, searching.cancel)
    try:
        await searching
    except asyncio.CancelledError:
        harvest.interrupt()
        tell("interrupted: this is what was found so far")


def _report(
    harvest: Harvest, variables: list[str], folder: Path | None, out: Path | None, as_json: bool
) -> None:
    from firmware_py.discovered_site import racks_of, remarks, site_text

    racks, left_out = racks_of(harvest.found)
    own = str(folder.absolute()) if folder else ""
    text = site_text(racks, left_out, harvest.unknown, variables=variables, profiles=own)
    click.echo(
        f"{len(harvest.found)} found, {len(harvest.unknown)} not known,"
        f" {harvest.asked} addresses and URLs asked",
        err=True,
    )
    if out is not None and racks:
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            fail(f"{out}: {error.strerror or error}", OPERATOR)
        click.echo(f"{out}: {len(racks)} racks; next: wattbroker check {out}", err=True)
    if as_json:
        click.echo(json.dumps(harvest.json()))
    elif not racks:
        for line in remarks(left_out, harvest.unknown):
            click.echo(line)
    elif out is None:
        click.echo(text, nl=False)


def _keep_libraries_quiet() -> None:
    """What a device does not answer is a reading's reason, not a library's log line."""
    logging.getLogger().addHandler(logging.NullHandler())
    for library in ("pymodbus", "pysnmp"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
