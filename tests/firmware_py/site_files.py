"""A good site file, and what the tests of the site file do with it.

The profiles are the tests' own (`site_profiles/`), so that the numbers in the
expectations do not move with a product's profile.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_py.errors import Fault, SiteError
from firmware_py.site import site_of
from firmware_py.site_types import Site

FOLDER = Path(__file__).parent  # relative paths of a site file start here

GOOD = """\
schema = 1
site = "lab"
profiles = "site_profiles"

[mqtt]
host = "192.0.2.10"

[timing]

[market]

[[cap]]
name = "room"
limit_w = 20_000

[[cap]]
name = "row1"
parent = "room"
limit_w = 12_000

[[rack]]
name = "r1"
rank = 10
cap = "row1"
floor_w = 1_000

  [[rack.device]]
  name = "pdu"
  url = "snmp://geheim@192.0.2.21"
  profile = "test-pdu"

  [rack.actuator]
  kind = "outlets"
  device = "pdu"
  base_w = 300
  outlets = [ { number = 1, priority = 9, peak_w = 700 },
              { number = 2, priority = 1, peak_w = 450 } ]

[[rack]]
name = "r2"
rank = 20
cap = "room"
floor_w = 500
ceiling_w = 3_000

  [[rack.device]]
  name = "meter"
  url = "modbus://192.0.2.31:502/1"
  profile = "test-meter"

  [[rack.device]]
  name = "limit"
  url = "modbus://192.0.2.32:502/1"
  profile = "test-limit"

  [rack.actuator]
  kind = "power-limit"
  device = "limit"

[[rack]]
name = "r3"
rank = 5
cap = "room"
floor_w = 0
ceiling_w = 800

  [[rack.device]]
  name = "any"
  url = "snmp://geheim@192.0.2.23"
"""


def edited(*edits: tuple[str, str]) -> str:
    """GOOD with each first text replaced by the second, once."""
    text = GOOD
    for old, new in edits:
        assert old in text, f"{old!r} is not in the good file"
        text = text.replace(old, new, 1)
    return text


def read(text: str) -> Site:
    """The site in `text`, as if it stood in a file beside the tests."""
    return site_of(text, FOLDER / "site.toml")


def faults_of(text: str) -> tuple[Fault, ...]:
    """Why `text` is refused."""
    with pytest.raises(SiteError) as refused:
        read(text)
    return refused.value.faults
