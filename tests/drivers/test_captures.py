"""Our own small captures: every SNMP profile has one, and gives what stands beside it.

`testdata/<profile>.snmprec` (and `<profile>.<variant>.snmprec`) holds lines of
`oid|tag|value`, written from the facts of the MIB with invented values. The file
`.expected.toml` of the same name says what must come of it:

    [points]                         # of the device whose URL names no member
    "input.realpower" = 1234.0       # a number, a text or a word
    "outlet.4.realpower" = "absent"  # missing, and why (a word of Absence in reading.py)
    [identity]
    model = "P9-24"                  # needed where the profile says from where
    serial = "ZA1234"
    [member.3]                       # optional: the same where the URL names member 3
    "input.realpower" = 77.0
    [[command]]
    name = "outlet.3.load"
    value = "off"
    member = "3"                     # optional: the member that is commanded
    writes = [["1.3.6.1.…", 2]]      # these objects and values, in this order, and no others
    shows = [["1.3.6.1.…", 1]]       # what the device says from then on
    proof = "off"                    # optional: what the proof then reads, if not the value

Before the first table may stand

    estimate = ["input.realpower"]   # the readings that are estimates; all others are not
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
import tomllib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pysnmp.proto.rfc1902 import OctetString
from served_snmp import Agent, Recorded, read_snmprec, serving

from drivers.codec import encode
from drivers.device import Device, open_device
from drivers.profile import Profile, load_profile, profile_names
from drivers.reading import Absence, Identity, Missing, Reading
from drivers.resolve import resolve_command

TESTDATA = Path(__file__).parent / "testdata"
CAPTURES = sorted(
    path.stem
    for path in TESTDATA.glob("*.snmprec")
    if path.with_name(f"{path.stem}.expected.toml").is_file()
)


@functools.cache
def shipped() -> dict[str, Profile]:
    return {name: load_profile(name) for name in profile_names()}


@dataclass
class Written(Agent):
    """An agent that remembers what was written to it."""

    written: list[tuple[str, int | str]] = field(default_factory=list)

    def _set(self, varbinds: Any) -> tuple[int, int, Any]:
        for oid, value in varbinds:
            is_text = isinstance(value, OctetString)
            self.written.append((str(oid), str(value) if is_text else int(value)))
        return super()._set(varbinds)


def profile_of(name: str) -> str:
    return name.partition(".")[0]


def expected(name: str) -> dict[str, Any]:
    return tomllib.loads((TESTDATA / f"{name}.expected.toml").read_text(encoding="utf-8"))


def with_device(
    name: str, member: str | None, use: Callable[[Device, Written], Coroutine[Any, Any, Any]]
) -> Any:
    async def run() -> Any:
        async with serving(Written(read_snmprec(TESTDATA / f"{name}.snmprec"))) as agent:
            assert isinstance(agent, Written)
            path = f"/{member}" if member else ""
            url = f"snmp://public@127.0.0.1:{agent.port}{path}"
            device = open_device(url, None, clock=time.monotonic)
            try:
                profile = await device.recognise(shipped().values())
                assert profile.name == profile_of(name)
                return await use(device, agent)
            finally:
                await device.close()

    return asyncio.run(run())


def takes_effect(agent: Written, command: dict[str, Any]) -> None:
    """The agent shows what the capture says once the last write of the command is there."""
    oid, raw = command["writes"][-1]
    shown = {place: Recorded(agent.values[place].tag, str(now)) for place, now in command["shows"]}
    agent.switches[oid] = {raw: shown}


def members(told: dict[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    """Every member that the file speaks of, and its points."""
    return [(None, told["points"]), *told.get("member", {}).items()]


def test_every_snmp_profile_has_a_capture() -> None:
    captured = {profile_of(name) for name in CAPTURES}
    assert captured == {p.name for p in shipped().values() if p.protocol == "snmp"}


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_gives_its_expected_points(name: str) -> None:
    async def read(device: Device, agent: Written) -> Any:
        return (await device.read()).points

    for member, points in members(expected(name)):
        assert points, name
        found = with_device(name, member, read)
        shown = {
            point: found[point].absence.value
            if isinstance(found[point], Missing)
            else found[point].value
            for point in points
        }
        numbers = {key: value for key, value in points.items() if not isinstance(value, str)}
        assert {key: shown[key] for key in numbers} == pytest.approx(numbers, rel=1e-6, abs=1e-9)
        words = {key: value for key, value in points.items() if isinstance(value, str)}
        assert {key: shown[key] for key in words} == words


@pytest.mark.parametrize("name", CAPTURES)
def test_only_what_a_device_estimates_is_told_as_an_estimate(name: str) -> None:
    async def read(device: Device, agent: Written) -> Any:
        return (await device.read()).points

    found = with_device(name, None, read).values()
    estimates = {point.name for point in found if isinstance(point, Reading) and point.estimate}
    assert estimates == set(expected(name).get("estimate", []))


@pytest.mark.parametrize("name", CAPTURES)
def test_a_captured_device_says_who_it_is(name: str) -> None:
    async def identify(device: Device, agent: Written) -> Identity:
        return await device.identify()

    identity, profile = with_device(name, None, identify), shipped()[profile_of(name)]
    told = expected(name).get("identity", {})
    assert identity.vendor == profile.vendor
    assert {key: getattr(identity, key) for key in told} == told
    assert "" not in told.values()
    assert "model" in told or not profile.model_from


@pytest.mark.parametrize("name", sorted({profile_of(name) for name in CAPTURES}))
def test_every_kind_of_point_is_seen_in_a_capture(name: str) -> None:
    """One row at least of every `[[point]]` of the profile has a value in the files."""
    told = {
        kind(point)
        for capture in CAPTURES
        if profile_of(capture) == name
        for _, points in members(expected(capture))
        for point, value in points.items()
        if value not in [absence.value for absence in Absence]
    }
    assert {kind(point.name) for point in shipped()[name].points} - told == set()


@pytest.mark.parametrize("name", sorted({profile_of(name) for name in CAPTURES}))
def test_every_word_of_every_kind_of_command_is_given_to_a_capture(name: str) -> None:
    given = {
        (kind(command["name"]), command["value"] if isinstance(command["value"], str) else None)
        for capture in CAPTURES
        if profile_of(capture) == name
        for command in expected(capture).get("command", [])
    }
    assert given == {
        (kind(command.name), word)
        for command in shipped()[name].commands
        for word in command.words or (None,)
    }


@pytest.mark.parametrize("name", CAPTURES)
def test_a_command_writes_exactly_what_is_named_and_reads_its_proof(name: str) -> None:
    profile = shipped()[profile_of(name)]
    for command in expected(name).get("command", []):

        async def execute(device: Device, agent: Written, command: Any = command) -> Any:
            if profile.status != "untested":
                takes_effect(agent, command)
            executed = await device.execute(command["name"], command["value"])
            return executed, agent.written

        executed, writes = with_device(name, command.get("member"), execute)
        if profile.status == "untested":
            assert executed.absence is Absence.REFUSED
            assert writes == []
            continue
        assert executed.absence is None, executed.detail
        assert writes == [tuple(write) for write in command["writes"]]
        assert isinstance(executed.read_back, Reading), (command, executed.read_back)
        assert executed.read_back.name == profile.command(command["name"]).confirm_point
        proof = command.get("proof", command["value"])
        assert executed.read_back.value == (
            proof if isinstance(proof, str) else pytest.approx(proof, rel=1e-9)
        )


@pytest.mark.parametrize(
    "name", [c for c in CAPTURES if shipped()[profile_of(c)].status == "untested"]
)
def test_what_an_untested_profile_would_write_is_right_all_the_same(name: str) -> None:
    profile = shipped()[profile_of(name)]
    for told in expected(name).get("command", []):
        member = profile.members.named(told.get("member", "1")) if profile.members else None
        command = resolve_command(profile.command(told["name"]), member, {}, {})
        main = encode(command, told["value"])
        assert isinstance(main, tuple), main
        fixed = ([(w.target, w.raw) for w in some] for some in (command.before, command.after))
        before, after = fixed
        assert [(target.oid, raw) for target, raw in chain(before, [main], after)] == [
            tuple(write) for write in told["writes"]
        ]


def kind(name: str) -> str:
    """The name without its numbers: outlet.3.current is of the kind outlet.#.current."""
    return re.sub(r"\d+", "#", name)
