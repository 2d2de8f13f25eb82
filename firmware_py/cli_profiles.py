"""The commands for profiles: `profiles list`, `show` and `check`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from firmware_py.exits import OPERATOR, fail

if TYPE_CHECKING:
    from drivers.profile import Profile

_profiles = click.option(
    "--profiles",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with profiles of your own.",
)
_json = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")


@click.group()
def profiles() -> None:
    """What is known of products: list it, show it, check your own."""


@profiles.command("list")
@_profiles
@_json
def list_(folder: Path | None, as_json: bool) -> None:
    """Every profile there is."""
    from firmware_py.profile_view import list_json, list_lines

    known, faults = _every_profile(folder)
    if as_json:
        click.echo(json.dumps([list_json(profile) for profile in known]))
    else:
        click.echo("\n".join(list_lines(known)))
    if faults:
        fail("\n".join(faults), OPERATOR)


@profiles.command()
@click.argument("name")
@_profiles
@_json
def show(name: str, folder: Path | None, as_json: bool) -> None:
    """One profile: how it is recognised, what can be read and commanded."""
    from drivers.errors import ProfileError
    from drivers.profile import load_profile
    from firmware_py.profile_view import show_json, show_lines

    try:
        profile = load_profile(name, [folder] if folder else [])
    except ProfileError as error:
        fail(str(error), OPERATOR)
    click.echo(json.dumps(show_json(profile)) if as_json else "\n".join(show_lines(profile)))


@profiles.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@_json
def check(paths: tuple[Path, ...], as_json: bool) -> None:
    """Say everything that is wrong with profiles of your own, at once."""
    from drivers.errors import ProfileError

    faults: list[str] = []
    for path in paths:
        try:
            profile = _read(path)
        except ProfileError as error:
            faults.extend(error.faults)
        else:
            told = f"{len(profile.points)} points, {len(profile.commands)} commands"
            if not as_json:
                click.echo(f"{path}: {told}: usable")
    if as_json:
        click.echo(json.dumps({"ok": not faults, "faults": faults}))
        sys.exit(OPERATOR if faults else 0)
    if faults:
        fail("\n".join([*faults, f"{len(faults)} fault(s)"]), OPERATOR)


def _read(path: Path) -> Profile:
    """The profile in this file, and in no other of the same name."""
    from drivers.errors import ProfileError
    from drivers.profile import load_profile

    if path.suffix != ".toml":
        raise ProfileError(f"{path}: a profile is a file whose name ends in .toml")
    if not path.is_file():
        raise ProfileError(f"{path}: there is no such file")
    return load_profile(path.stem, [path.parent])


def _every_profile(folder: Path | None) -> tuple[list[Profile], list[str]]:
    """All that can be used, and the faults of the others."""
    from drivers.errors import ProfileError
    from drivers.profile import load_profile, profile_names

    folders = [folder] if folder else []
    known: list[Profile] = []
    faults: list[str] = []
    for name in profile_names(folders):
        try:
            known.append(load_profile(name, folders))
        except ProfileError as error:
            faults.extend(error.faults)
    return known, faults
