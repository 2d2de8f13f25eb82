"""The libraries through which an SNMP agent is tested."""

from __future__ import annotations

import pytest
from asking_snmp import HAS_GUFO


@pytest.fixture(
    params=[
        "pysnmp",
        pytest.param(
            "gufo",
            marks=pytest.mark.skipif(not HAS_GUFO, reason="NOT TESTED WITH GUFO_SNMP: extra fast"),
        ),
    ]
)
def home(request: pytest.FixtureRequest) -> str:
    return str(request.param)
