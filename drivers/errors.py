"""Errors of the drivers, by whose fault they are.

`ProfileError` is the operator's (a profile or a URL that cannot be used) and is
raised at start with every fault at once. `DeviceError` is the world's (a device
that does not answer, refuses or does not do as told) and carries the reason in the
words of `drivers.reading.Absence`, so that a caller turns it into `Missing`.
"""

from __future__ import annotations

from drivers.reading import Absence


class ProfileError(Exception):
    """A profile, device URL or point name that cannot be used; `faults` holds every one."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class DeviceError(Exception):
    """The device did not do what it was asked; `absence` says in which way."""

    def __init__(self, absence: Absence, text: str) -> None:
        super().__init__(text)
        self.absence = absence
