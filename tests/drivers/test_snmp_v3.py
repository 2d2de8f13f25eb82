"""SNMPv3 against net-snmp's snmpd: every protocol, wrong keys, and agents that restart."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_snmpd import SNMPD, Snmpd, running

from drivers.address import SnmpAddress, parse_url
from drivers.errors import ProfileError
from drivers.reading import Absence, Answer, NoAnswer
from drivers.snmp import SnmpAgent, Temper

HAS_CRYPTOGRAPHY = importlib.util.find_spec("cryptography") is not None

needs_snmpd = pytest.mark.skipif(
    SNMPD is None, reason="NOT TESTED: snmpd is not installed (Debian package snmpd)"
)
needs_cryptography = pytest.mark.skipif(
    not HAS_CRYPTOGRAPHY, reason="NOT TESTED: privacy needs the Python package cryptography"
)

NAME = "1.3.6.1.2.1.1.1.0"
CONTACT = "1.3.6.1.2.1.1.4.0"
TEMPER = Temper(timeout_s=1.0, read_s_max=5.0, oids_per_get_max=10, repetitions_max=10)

# (auth, priv), and as snmpd.conf names them.
LEVELS = [
    ("", ""), ("MD5", ""), ("SHA", ""), ("SHA224", ""), ("SHA256", ""), ("SHA384", ""),
    ("SHA512", ""), ("MD5", "DES"), ("SHA", "DES"), ("SHA", "AES"), ("SHA256", "AES"),
    ("SHA512", "AES"), ("SHA512", "AES256"), ("SHA", "AES256"),
]  # fmt: skip


def user(auth: str, priv: str) -> str:
    return f"u{auth}{priv}"


def lines() -> str:
    told = []
    for auth, priv in LEVELS:
        name = user(auth, priv)
        spelled = auth.replace("SHA", "SHA-") if auth not in ("SHA", "MD5") else auth
        keys = f"{spelled} authkey-{auth}" if auth else ""
        keys += f" {priv} privkey-{priv}" if priv else ""
        level = "priv" if priv else "auth" if auth else "noauth"
        told += [f"createUser {name} {keys}", f"rwuser {name} {level}"]
    return "\n".join(told)


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    with running(tmp_path_factory.mktemp("snmpd"), lines()) as served:
        yield served


@pytest.fixture
def own_snmpd(tmp_path: Path) -> Iterator[Snmpd]:
    """One that may be stopped."""
    with running(tmp_path, lines()) as served:
        yield served


def agent_of(
    snmpd: Snmpd,
    auth: str,
    priv: str,
    *,
    name: str = "",
    authkey: str = "",
    privkey: str = "",
) -> SnmpAgent:
    url = f"snmp3://{name or user(auth, priv)}@127.0.0.1:{snmpd.port}?"
    url += f"auth={auth}&authkey={authkey or 'authkey-' + auth}" if auth else ""
    url += f"&priv={priv}&privkey={privkey or 'privkey-' + priv}" if priv else ""
    address = parse_url(url, {})
    assert isinstance(address, SnmpAddress)
    return SnmpAgent(address, time.monotonic)


def asked(agent: SnmpAgent, temper: Temper = TEMPER) -> Answer:
    async def run() -> Answer:
        answers = await agent.fetch([NAME], temper=temper)
        await agent.close()
        return answers[NAME]

    return asyncio.run(run())


@needs_snmpd
@pytest.mark.parametrize(("auth", "priv"), LEVELS)
def test_every_level_and_protocol_is_read(snmpd: Snmpd, auth: str, priv: str) -> None:
    if priv and not HAS_CRYPTOGRAPHY:
        pytest.skip("NOT TESTED: privacy needs the Python package cryptography")
    assert asked(agent_of(snmpd, auth, priv)).raw == b"a test"


@needs_snmpd
@needs_cryptography
def test_a_table_is_walked_and_an_object_is_set(snmpd: Snmpd) -> None:
    async def run() -> list[object]:
        agent = agent_of(snmpd, "SHA256", "AES")
        written = await agent.write(CONTACT, b"operator", "text", timeout_s=1.0)
        found = await agent.fetch([CONTACT, f"{CONTACT}.9"], temper=TEMPER)
        walked = await agent.walk("1.3.6.1.2.1.1.9.1.2", temper=TEMPER)
        below = await agent.below(["1.3.6.1.2.1.1.9.1.2"], temper=TEMPER)
        await agent.close()
        first = below["1.3.6.1.2.1.1.9.1.2"]
        assert isinstance(first, tuple)
        return [written, found[CONTACT].raw, found[f"{CONTACT}.9"].raw,
                walked.gap, len(walked.answers) > 4, first[0]]  # fmt: skip

    written, contact, lacking, gap, is_many, first = asyncio.run(run())
    assert (written, contact, gap, is_many) == (None, b"operator", None, True)
    assert isinstance(lacking, NoAnswer)
    assert lacking.absence is Absence.ABSENT
    assert first == "1.3.6.1.2.1.1.9.1.2.1"


@needs_snmpd
@pytest.mark.parametrize(
    ("auth", "keys", "text"),
    [
        ("SHA", {"name": "eve"}, "the agent does not know the user; check the user and its keys"),
        ("SHA", {"authkey": "another-key"}, "wrong authentication key or protocol"),
        ("MD5", {"name": "uSHA", "authkey": "authkey-SHA"}, "wrong authentication key or protocol"),
        ("", {"name": "uSHA"}, "authorizationError"),
    ],
)
def test_who_is_refused_is_told_why_and_at_once(
    snmpd: Snmpd, auth: str, keys: dict[str, str], text: str
) -> None:
    started_s = time.monotonic()
    raw = asked(agent_of(snmpd, auth, "", **keys)).raw
    assert isinstance(raw, NoAnswer)
    assert raw.absence is Absence.REFUSED
    assert text in raw.detail
    assert time.monotonic() - started_s < 0.9  # not a timeout


@needs_snmpd
@needs_cryptography
def test_a_wrong_privacy_key_gets_no_answer_and_the_text_says_that_it_may(snmpd: Snmpd) -> None:
    agent = agent_of(snmpd, "SHA", "AES", privkey="another-key")
    raw = asked(agent, Temper(0.3, 5.0, 10, 10)).raw
    assert isinstance(raw, NoAnswer)
    assert raw.absence is Absence.TIMEOUT
    assert "privacy key (many agents do not answer a wrong one)" in raw.detail
    assert "another-key" not in raw.detail


@needs_snmpd
def test_a_user_with_other_keys_on_another_agent_is_another_user(
    snmpd: Snmpd, tmp_path: Path
) -> None:
    async def run(other: Snmpd) -> list[object]:
        agents = [
            agent_of(snmpd, "SHA", ""),
            agent_of(other, "MD5", "", name="uSHA", authkey="authkey-other"),
        ]
        found = []
        for _ in range(2):
            told = await asyncio.gather(*(agent.fetch([NAME], temper=TEMPER) for agent in agents))
            found += [answers[NAME].raw for answers in told]
        for agent in agents:
            await agent.close()
        return found

    users = "createUser uSHA MD5 authkey-other\nrwuser uSHA auth"
    with running(tmp_path, users) as other:
        assert asyncio.run(run(other)) == [b"a test"] * 4


@needs_snmpd
@pytest.mark.parametrize("is_forgetful", [False, True])
def test_a_restarted_agent_is_recovered_within_the_same_read(
    own_snmpd: Snmpd, is_forgetful: bool
) -> None:
    """Its clock begins anew; its count of starts goes on, or is lost as well."""

    async def run() -> list[object]:
        agent = agent_of(own_snmpd, "SHA", "")
        found = [(await agent.fetch([NAME], temper=TEMPER))[NAME].raw]
        for _ in range(2):  # so that the count that is lost is not the first one
            own_snmpd.stop()
            own_snmpd.start()
        found.append((await agent.fetch([NAME], temper=TEMPER))[NAME].raw)
        own_snmpd.stop()
        if is_forgetful:
            own_snmpd.forget()
        own_snmpd.start()
        found.append((await agent.fetch([NAME], temper=TEMPER))[NAME].raw)
        await agent.close()
        return found

    assert asyncio.run(run()) == [b"a test"] * 3


@needs_snmpd
def test_a_command_to_a_restarted_agent_is_carried_out(own_snmpd: Snmpd) -> None:
    async def run() -> list[object]:
        agent = agent_of(own_snmpd, "SHA", "")
        await agent.fetch([NAME], temper=TEMPER)
        own_snmpd.stop()
        own_snmpd.start()
        written = await agent.write(CONTACT, b"operator", "text", timeout_s=1.0)
        found = await agent.fetch([CONTACT], temper=TEMPER)
        await agent.close()
        return [written, found[CONTACT].raw]

    assert asyncio.run(run()) == [None, b"operator"]


@needs_snmpd
def test_an_agent_that_was_replaced_is_recovered_at_the_next_read(own_snmpd: Snmpd) -> None:
    """Another engine at the same address: what it says to the old one's requests is not heard."""
    temper = Temper(1.0, 5.0, 10, 10)

    async def run() -> list[object]:
        agent = agent_of(own_snmpd, "SHA", "")
        found: list[object] = [(await agent.fetch([NAME], temper=temper))[NAME].raw]
        own_snmpd.stop()
        own_snmpd.engine = "80000000010203040506"
        own_snmpd.start()
        first = (await agent.fetch([NAME], temper=temper))[NAME].raw
        assert first == b"a test" or (
            isinstance(first, NoAnswer) and first.absence is Absence.TIMEOUT
        )
        found.append((await agent.fetch([NAME], temper=temper))[NAME].raw)
        await agent.close()
        return found

    assert asyncio.run(run()) == [b"a test"] * 2


@needs_snmpd
def test_an_agent_that_was_down_is_read_again(own_snmpd: Snmpd) -> None:
    temper = Temper(1.0, 5.0, 10, 10)

    async def run() -> list[object]:
        agent = agent_of(own_snmpd, "SHA", "")
        found = [(await agent.fetch([NAME], temper=temper))[NAME].raw]
        own_snmpd.stop()
        for _ in range(3):
            raw = (await agent.fetch([NAME], temper=temper))[NAME].raw
            assert isinstance(raw, NoAnswer)
            assert raw.absence is Absence.TIMEOUT
        own_snmpd.start()
        found.append((await agent.fetch([NAME], temper=temper))[NAME].raw)
        await agent.close()
        return found

    assert asyncio.run(run()) == [b"a test"] * 2


class Forger(asyncio.DatagramProtocol):
    """Stands between; changes one octet of the digest of every answer, if it is told to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_forging = False
        self.forged = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport
        self.asker: tuple[str, int] = ("", 0)

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        if sender[1] != self.port:
            self.asker = sender
            self.transport.sendto(data, ("127.0.0.1", self.port))
            return
        at = data.find(b"uSHA") + len(b"uSHA") + 2
        if self.is_forging and at > 6:
            data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            self.forged += 1
        self.transport.sendto(data, self.asker)


@needs_snmpd
def test_a_forged_answer_is_silence(snmpd: Snmpd) -> None:
    async def run() -> list[object]:
        loop = asyncio.get_running_loop()
        transport, forger = await loop.create_datagram_endpoint(
            lambda: Forger(snmpd.port), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        address = parse_url(f"snmp3://uSHA@127.0.0.1:{port}?auth=SHA&authkey=authkey-SHA", {})
        assert isinstance(address, SnmpAddress)
        agent = SnmpAgent(address, time.monotonic)
        temper = Temper(0.3, 5.0, 10, 10)
        found: list[object] = [(await agent.fetch([NAME], temper=temper))[NAME].raw]
        forger.is_forging = True
        raw = (await agent.fetch([NAME], temper=temper))[NAME].raw
        assert isinstance(raw, NoAnswer)
        found += [raw.absence, forger.forged > 0]
        await agent.close()
        transport.close()
        return found

    assert asyncio.run(run()) == [b"a test", Absence.TIMEOUT, True]


def test_privacy_without_its_library_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "cryptography" else find_spec(name),
    )
    url = "snmp3://ops@192.0.2.1?auth=SHA&authkey=authkey-12&priv=AES&privkey=privkey-12"
    address = parse_url(url, {})
    assert isinstance(address, SnmpAddress)
    with pytest.raises(ProfileError, match="needs the Python package cryptography"):
        SnmpAgent(address, time.monotonic)
