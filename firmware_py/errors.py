"""Errors of the controller, by whose fault they are.

`SiteError` is the operator's: a site file that cannot be used. It is raised at
start, once, with every fault that was found, each with its place and its remedy.
A fault never carries a secret: texts name keys and quote names, never passwords,
communities or the part of a URL that may hold one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a site file.

    `key` is the path of the key (`rack[2] "r3".device[0].url`; elements count from
    0), empty for the file as a whole. `line` counts from 1; None where it is not
    known for certain. `text` says what is wrong, and after a semicolon the remedy.
    """

    file: str
    key: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class SiteError(Exception):
    """A site file that cannot be used; `faults` holds every fault, in the file's order."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        assert faults, "a SiteError without a fault says nothing"
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Warning_:
    """A site that may be run, and what the operator should know before doing so."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"
