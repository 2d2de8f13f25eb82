"""The site file: whatever stands in it, no traceback comes out, and no secret."""

from __future__ import annotations

import copy
import tomllib
from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_files import GOOD, edited, faults_of, read

from firmware_py.errors import SiteError

PDU = 'rack[0] "r1".device[0] "pdu"'

# --- Secrets ------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "snmp://S3cret@",
        "snmp://S3cret@h:x",
        "snmp://S3cret@h:99999",
        "snmp//S3cret@h",
        "snmp:S3cret@h",
        "S3cret@h",
        "http://user:S3cret@h",
        "modbus://S3cret@h:502/1",
        "snmp://S3cret@h/x",
        "snmp://S3cret@h?auth=SHA",
        "snmp://a@S3cret@[h",
        "snmp://S3cret@h\u2100t",
        "snmp3://u@h?auth=SHA256&authkey=S3cret",
        "snmp3://u@h?auth=S3cret&authkey=S3cret",
        "snmp3://u@h?priv=AES&privkey=S3cret-and-long",
        "snmp3://u@h?authkey=S3cret",
        "snmp3://u:S3cret@h?key=1",
    ],
)
def test_no_fault_of_a_url_shows_its_secret(url: str) -> None:
    (fault,) = faults_of(edited(("snmp://geheim@192.0.2.21", url)))
    assert fault.key == f"{PDU}.url"
    assert "S3cret" not in str(fault)


def test_no_fault_shows_a_password_that_stands_in_the_wrong_place() -> None:
    text = edited(
        ('"192.0.2.10"', '"user:S3cret@host"\npassword = "S3cret"\nusername = ["S3cret"]')
    )
    faults = faults_of(text)
    assert [fault.key for fault in faults] == ["mqtt.host", "mqtt.password", "mqtt.username"]
    assert "S3cret" not in "".join(str(fault) for fault in faults)


# --- Whatever comes ------------------------------------------------------------

SCALARS = (
    st.text(max_size=12)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.sampled_from([date(2024, 1, 1), datetime(2024, 1, 1), time(1)])
    | st.sampled_from(["room", "r1", "pdu", "outlets", "power-limit", "none", "test-pdu", "open"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """`value` as an inline TOML value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    if isinstance(value, str):
        scalars = (character for character in value if not "\ud800" <= character <= "\udfff")
        return '"' + "".join(f"\\U{ord(character):08x}" for character in scalars) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a document."""
    inner: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value)
    return [path, *(found for key, each in inner for found in places(each, (*path, key)))]


def has(value: Any, step: Any) -> bool:
    """`value` is a table or array with that key or index: it may have been changed before."""
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


PLACES = [path for path in places(tomllib.loads(GOOD)) if path]


def refused_or_good(text: str) -> None:
    try:
        read(text)
    except SiteError as error:
        assert error.faults
        for fault in error.faults:
            assert fault.text and str(fault).isprintable()
            assert fault.line is None or 1 <= fault.line <= text.count("\n") + 1


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_is_refused_without_a_traceback(text: str) -> None:
    refused_or_good(text.encode("utf-8", "replace").decode())


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(["site", "mqtt", "cap", "rack", "timing", "x"]), VALUES))
def test_any_values_are_refused_without_a_traceback(document: dict[str, Any]) -> None:
    refused_or_good("\n".join(f"{key} = {toml(value)}" for key, value in document.items()))


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_a_good_file_with_anything_put_anywhere_is_refused_or_good(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    document = copy.deepcopy(tomllib.loads(GOOD))
    for (*parents, last), value in changes:
        here: Any = document
        for step in parents:
            here = here[step] if has(here, step) else None
        if has(here, last):
            here[last] = value
    refused_or_good("\n".join(f"{key} = {toml(value)}" for key, value in document.items()))
