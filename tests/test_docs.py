"""What the documentation shows is what the program says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker import topics, wire
from broker.topics import Kind

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(r"^```(?:json|text) (wattbroker/\S+)\n(.+?)\n```$", re.M | re.S)
EXAMPLES = EXAMPLE.findall((ROOT / "docs" / "mqtt.md").read_text("utf-8"))


@pytest.mark.parametrize(("path", "payload"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_every_example_payload_is_a_message_with_all_its_keys(path: str, payload: str) -> None:
    topic = topics.parse(path, "demo")
    assert topic is not None
    assert wire.encode(wire.decode(topic.kind, payload.encode())).decode() == payload


def test_every_topic_has_an_example() -> None:
    shown = {topic.kind for path, _ in EXAMPLES if (topic := topics.parse(path, "demo"))}
    assert shown == set(Kind)


def test_every_file_that_the_documentation_points_to_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
        if not link.startswith("http")
    ]
    assert [(p.name, link) for p, link in links if not (p.parent / link).exists()] == []


def test_the_readme_names_every_shipped_profile() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    shipped = {path.stem for path in (ROOT / "drivers" / "profiles").glob("*.toml")}
    assert {name for name in shipped if f"`{name}`" not in readme} == set()
