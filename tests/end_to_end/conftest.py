"""The room of the tests of the whole, and a monitor on its MQTT server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated_room import Heard, MakeTap, Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def listen(tap: MakeTap) -> Callable[..., Heard]:
    """listen(server): everything of the site from now on."""
    return lambda server: Heard(tap(server, "wattbroker/#"))
