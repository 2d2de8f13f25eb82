"""Device URLs: what they mean, what is refused, and what is never printed."""

from __future__ import annotations

import pytest

from drivers.address import ModbusAddress, SnmpAddress, parse_url
from drivers.errors import ProfileError
from drivers.secret import Secret

ENVIRON = {"COMMUNITY": "s3cret", "KEY": "authkey-12", "SHORT": "1234567"}


@pytest.mark.parametrize(
    ("url", "host", "port", "version", "community"),
    [
        ("snmp://192.0.2.21", "192.0.2.21", 161, 2, "public"),
        ("snmp://private@pdu.example:1161", "pdu.example", 1161, 2, "private"),
        ("snmp1://private@192.0.2.21", "192.0.2.21", 161, 1, "private"),
        ("snmp://env:COMMUNITY@192.0.2.21", "192.0.2.21", 161, 2, "s3cret"),
        ("snmp://p%40ss:word@[2001:db8::1]:1161", "2001:db8::1", 1161, 2, "p@ss:word"),
    ],
)
def test_an_snmp_url_says_host_port_version_and_community(
    url: str, host: str, port: int, version: int, community: str
) -> None:
    address = parse_url(url, ENVIRON)
    assert isinstance(address, SnmpAddress)
    assert (address.host, address.port, address.version) == (host, port, version)
    assert address.community.text == community


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("modbus://192.0.2.31", ("192.0.2.31", 502, 1)),
        ("modbus://192.0.2.31:5020/17", ("192.0.2.31", 5020, 17)),
        ("modbus://[::1]/240", ("::1", 502, 240)),
        ("modbus://192.0.2.31/255", ("192.0.2.31", 502, 255)),
    ],
)
@pytest.mark.parametrize(
    ("scheme", "transport"), [("modbus", "tcp"), ("modbus+rtutcp", "rtutcp")]
)  # fmt: skip
def test_a_modbus_url_says_host_port_and_unit(
    url: str, expected: tuple[str, int, int], scheme: str, transport: str
) -> None:
    address = parse_url(url.replace("modbus", scheme), {})
    assert isinstance(address, ModbusAddress)
    assert (address.host, address.port, address.unit) == expected
    assert (address.transport, address.path) == (transport, "")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("modbus+rtu:///dev/ttyUSB0", ("/dev/ttyUSB0", 1, 9600, "N", 1)),
        ("modbus+rtu:///dev/ttyUSB0?unit=255&baud=19200", ("/dev/ttyUSB0", 255, 19_200, "N", 1)),
        ("modbus+rtu:///dev/tty%20A?parity=e&stop=2&data=8", ("/dev/tty A", 1, 9600, "E", 2)),
        (
            "modbus+rtu:///dev/serial/by-id/usb-FTDI_A5-if00-port0?parity=O&unit=7",
            ("/dev/serial/by-id/usb-FTDI_A5-if00-port0", 7, 9600, "O", 1),
        ),
    ],
)
def test_a_serial_url_says_path_unit_and_how_the_port_is_set_up(
    url: str, expected: tuple[str, int, int, str, int]
) -> None:
    address = parse_url(url, {})
    assert isinstance(address, ModbusAddress)
    told = (address.path, address.unit, address.baud, address.parity, address.stop_bits)
    assert told == expected
    assert (address.transport, address.data_bits, address.host) == ("serial", 8, "")


@pytest.mark.parametrize(
    ("url", "member"),
    [
        ("snmp://public@192.0.2.21", ""),
        ("snmp://public@192.0.2.21/", ""),
        ("snmp://public@192.0.2.21:1161/2", "2"),
        ("snmp1://public@192.0.2.21/SN%2D01_a.b", "SN-01_a.b"),
        ("snmp3://ops@192.0.2.21/2?auth=SHA&authkey=env:KEY", "2"),
        ("snmp://public@192.0.2.21/" + "x" * 64, "x" * 64),
    ],
)
def test_an_snmp_url_may_name_one_pdu_of_a_chain(url: str, member: str) -> None:
    address = parse_url(url, ENVIRON)
    assert isinstance(address, SnmpAddress)
    assert address.member == member


def test_an_snmpv3_url_says_user_protocols_and_keys() -> None:
    url = "snmp3://ops@192.0.2.21?auth=SHA256&authkey=env:KEY&priv=AES&privkey=privkey-12"
    address = parse_url(url, ENVIRON)
    assert isinstance(address, SnmpAddress)
    assert (address.version, address.user, address.auth, address.priv) == (
        3,
        "ops",
        "SHA256",
        "AES",
    )
    assert address.auth_key == Secret("authkey-12")
    assert address.priv_key == Secret("privkey-12")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("192.0.2.21", "expected one of snmp://"),
        ("http://192.0.2.21", "expected one of snmp://"),
        ("modbus+ascii:///dev/ttyUSB0", "expected one of snmp://"),
        ("snmp://192.0.2.21/a/b", "no member of a chain"),
        ("snmp://192.0.2.21/" + "x" * 65, "no member of a chain"),
        ("snmp://192.0.2.21/a%20b", "no member of a chain"),
        ("modbus+rtutcp://192.0.2.31/0", "unit '0' is not a number from 1 to 255"),
        ("modbus+rtutcp://192.0.2.31/1?baud=9600", "and no more"),
        ("modbus+rtu://dev/ttyUSB0", "after three slashes"),
        ("modbus+rtu://?unit=1", "after three slashes"),
        ("modbus+rtu:///dev/ttyUSB0?unit=256", "unit '256' is not a number from 1 to 255"),
        ("modbus+rtu:///dev/ttyUSB0?unit=", "unit '' is not a number"),
        ("modbus+rtu:///dev/ttyUSB0?baud=0", "baud=0 is not a number from 300"),
        ("modbus+rtu:///dev/ttyUSB0?baud=fast", "baud=fast is not a number"),
        ("modbus+rtu:///dev/ttyUSB0?parity=M", "parity=M; one of N, E, O"),
        ("modbus+rtu:///dev/ttyUSB0?stop=3", "stop=3; one of 1, 2"),
        ("modbus+rtu:///dev/ttyUSB0?data=7", "data=7; one of 8"),
        ("modbus+rtu:///dev/ttyUSB0?speed=9600", "unknown key speed"),
        ("modbus+rtu:///dev/ttyUSB0?unit=1&unit=2", "a key twice"),
        ("modbus+rtu:///dev/ttyUSB0?unit", "bad query field"),
        ("snmp://public@", "no host"),
        ("snmp://public@192.0.2.21:x", "Port could not be cast"),
        ("snmp://public@192.0.2.21:99999", "out of range"),
        ("modbus://192.0.2.31:0", "port 0"),
        ("modbus://192.0.2.31/0", "unit '0' is not a number from 1 to 255"),
        ("modbus://192.0.2.31/one", "unit 'one' is not a number"),
        ("modbus://me@192.0.2.31/1", "and no more"),
        ("snmp://env:NOWHERE@192.0.2.21", "the environment has no variable NOWHERE"),
        ("snmp://public@192.0.2.21?auth=SHA", "belong to snmp3:// only"),
        ("snmp3://192.0.2.21", "needs a user"),
        ("snmp3://ops@192.0.2.21?auth=SHA1&authkey=env:KEY", "one of MD5, SHA,"),
        ("snmp3://ops@192.0.2.21?auth=SHA", "needs authkey="),
        ("snmp3://ops@192.0.2.21?auth=SHA&authkey=env:SHORT", "shorter than the 8"),
        ("snmp3://ops@192.0.2.21?priv=AES&privkey=env:KEY", "without auth="),
        ("snmp3://ops@192.0.2.21?aut=SHA", "unknown key aut"),
    ],
)
def test_a_bad_url_is_refused_with_the_remedy(url: str, remedy: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_url(url, ENVIRON)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("snmp://s3cret@192.0.2.21", "snmp://192.0.2.21"),
        ("snmp://s3cret@192.0.2.21:1161", "snmp://192.0.2.21:1161"),
        ("snmp3://ops@192.0.2.21?auth=SHA&authkey=s3cret-key", "snmp3://192.0.2.21"),
        ("modbus://[2001:db8::1]:502/1", "modbus://[2001:db8::1]:502/1"),
        ("modbus://192.0.2.31", "modbus://192.0.2.31"),
        ("modbus+rtutcp://192.0.2.31/7", "modbus+rtutcp://192.0.2.31/7"),
        ("modbus+rtu:///dev/ttyS0?unit=7&baud=300", "modbus+rtu:///dev/ttyS0?unit=7&baud=300"),
        ("snmp://s3cret@192.0.2.21:1161/M%2D2", "snmp://192.0.2.21:1161/M-2"),
    ],
)
def test_what_is_printed_holds_no_secret(url: str, printed: str) -> None:
    address = parse_url(url, ENVIRON)
    assert address.printed == printed
    assert "s3cret" not in repr(address)


@pytest.mark.parametrize(
    "url", ["snmp4://s3cret@192.0.2.21", "snmp://s3cret@[::1", "snmp://s3cret@192.0.2.21:x"]
)
def test_a_refused_url_is_shown_without_its_community(url: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_url(url, ENVIRON)
    assert "s3cret" not in str(caught.value)


def test_a_community_from_a_file_replaces_the_urls() -> None:
    address = parse_url("snmp://public@192.0.2.21", {}, Secret("from-file"))
    assert isinstance(address, SnmpAddress)
    assert address.community.text == "from-file"
    assert f"{address.community} {address.community!r}" == "*** ***"
