"""Checks that a Raspberry Pi compiles nothing: every dependency has a wheel for it.

Asks pip itself, with `--platform` and `--only-binary`, for each supported version of
Python on 64-bit ARM Linux. Exit 0 if all resolve, 1 with pip's words if one does not.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
ROOT = Path(__file__).parent.parent


def wanted(extra: str | None) -> list[str]:
    """The requirements of the controller, or of one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return [line for line in found if not line.startswith("wattbroker[")]


def resolve(requirements: list[str], python: str) -> str:
    """pip's complaint, or "" where wheels for everything exist."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--target", "unused"]
    command += ["--python-version", python, "--implementation", "cp"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def main() -> int:
    failed = False
    for extra in (None, "demo", "fast", "privacy"):
        for python in PYTHONS:
            complaint = resolve(wanted(extra), python)
            name = f"wattbroker[{extra}]" if extra else "wattbroker"
            print(f"{name:<18} CPython {python} aarch64: {'no wheels' if complaint else 'wheels'}")
            if complaint:
                failed = True
                print(complaint, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
