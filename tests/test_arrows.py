"""Who may import whom, read from the code's own imports.

Imports inside functions count too: what is loaded late is still known.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("firmware_py", "drivers", "broker", "hil")
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))

# What decides: no waiting, no clock, no chance, no log, no I/O.
PURE = (
    "broker/belonging.py",
    "broker/brake.py",
    "broker/caps.py",
    "broker/coordinator.py",
    "broker/effects.py",
    "broker/election.py",
    "broker/errors.py",
    "broker/explain.py",
    "broker/identity.py",
    "broker/lease.py",
    "broker/ledger.py",
    "broker/market.py",
    "broker/membership.py",
    "broker/messages.py",
    "broker/node.py",
    "broker/roster.py",
    "broker/topics.py",
    "broker/wire.py",
    "drivers/codec.py",
    "drivers/counter.py",
    "drivers/errors.py",
    "drivers/indices.py",
    "drivers/modbus_frames.py",
    "drivers/modbus_order.py",
    "drivers/place_rows.py",
    "drivers/plan.py",
    "drivers/point_rows.py",
    "drivers/points.py",
    "drivers/quality.py",
    "drivers/reading.py",
    "drivers/resolve.py",
    "drivers/rows.py",
    "drivers/snmp_bearing.py",
    "drivers/snmp_ber.py",
    "drivers/snmp_plan.py",
    "drivers/sunspec.py",
    "firmware_py/breakers.py",
    "firmware_py/controller.py",
    "firmware_py/demand.py",
    "firmware_py/errors.py",
    "firmware_py/limiter.py",
    "firmware_py/limiter_kinds.py",
    "firmware_py/site_defaults.py",
    "firmware_py/site_rack_rules.py",
    "firmware_py/site_rules.py",
    "firmware_py/site_types.py",
    "firmware_py/site_warnings.py",
)
IMPURE = {
    "asyncio", "socket", "select", "ssl", "threading", "multiprocessing", "concurrent", "queue",
    "time", "datetime", "random", "secrets", "uuid", "logging", "os", "io", "subprocess", "signal",
    "shutil", "tempfile", "fcntl", "sys",
}  # fmt: skip
SHELL_OF_BROKER = {"broker.mqtt", "broker.mqtt_retry", "broker.mqtt_socket"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, with what is taken from it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


def importers(package: str) -> set[str]:
    return {name_of(path) for path in FILES if package in packages(path)}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("firmware_py", {"firmware_py", "drivers", "broker"}),
        ("drivers", {"drivers"}),
        ("broker", {"broker"}),
        ("hil", {"hil"}),
    ],
)
def test_our_packages_import_inwards_only(package: str, allowed: set[str]) -> None:
    found = {
        (name_of(path), other)
        for path in FILES
        if path.relative_to(ROOT).parts[0] == package
        for other in packages(path) & set(OURS) - allowed
    }
    assert found == set()


@pytest.mark.parametrize(
    ("library", "homes", "in_hil"),
    [
        ("pymodbus", {"drivers/modbus_frames.py"}, True),
        ("serial", {"drivers/modbus_wire.py"}, False),
        ("pysnmp", {"drivers/snmp_pysnmp.py"}, True),
        ("pyasn1", {"drivers/snmp_pysnmp.py"}, True),
        ("gufo", {"drivers/snmp_gufo.py"}, False),
        ("paho", {"broker/mqtt.py"}, True),
        (
            "click",
            {
                "firmware_py/cli.py",
                "firmware_py/cli_devices.py",
                "firmware_py/cli_explain.py",
                "firmware_py/cli_profiles.py",
                "firmware_py/cli_roster.py",
            },
            False,
        ),
        ("numpy", {"broker/market.py"}, False),
        ("amqtt", set(), True),
        ("matplotlib", set(), True),
        ("rich", set(), True),
        ("pydantic", set(), False),
    ],
)
def test_a_library_has_one_home(library: str, homes: set[str], in_hil: bool) -> None:
    found = importers(library)
    assert {name for name in found if not name.startswith("hil/")} == homes
    assert any(name.startswith("hil/") for name in found) <= in_hil


def test_only_the_demo_needs_what_is_in_its_extra() -> None:
    wanted = importers("amqtt") | importers("matplotlib") | importers("rich")
    assert wanted, "the extra has no content"
    assert all(name.startswith("hil/") for name in wanted)


@pytest.mark.parametrize("name", PURE)
def test_what_decides_does_no_io_and_knows_neither_clock_nor_chance(name: str) -> None:
    path = ROOT / name
    assert packages(path) & IMPURE == set()
    tree = ast.parse(path.read_text("utf-8"))
    waits = [n for n in ast.walk(tree) if isinstance(n, (ast.Await, ast.AsyncFunctionDef))]
    assert waits == []
    called = {n.func.id for n in ast.walk(tree)
              if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
    assert called & {"open", "print", "input", "exec", "eval"} == set()


@pytest.mark.parametrize("name", PURE)
def test_what_decides_imports_of_ours_only_what_decides(name: str) -> None:
    mine = {module for module in imports(ROOT / name) if module.split(".")[0] in OURS}
    files = {file for module in mine if (file := file_of(module)) is not None}
    # Tables of the site file's keys and addresses: values, read by pure rules.
    values = {
        "firmware_py/site_keys.py", "firmware_py/site_tables.py", "firmware_py/site_lines.py",
        "drivers/address.py", "drivers/secret.py", "drivers/snmp_home.py",
    }  # fmt: skip
    assert files - set(PURE) - values == set()


def file_of(module: str) -> str | None:
    """The file that `package.module.name` or `package.module` stands in."""
    package, name = module.split(".")[:2]
    path = f"{package}/{name}.py"
    return path if (ROOT / path).exists() else None


def test_every_module_of_the_broker_is_pure_or_the_link() -> None:
    modules = {f"broker.{path.stem}" for path in (ROOT / "broker").glob("*.py")}
    pure = {name.removesuffix(".py").replace("/", ".") for name in PURE}
    assert modules - pure - {"broker.__init__"} == SHELL_OF_BROKER | {"broker.mqtt_values"}


def test_a_running_controller_loads_nothing_of_the_demo() -> None:
    script = (
        "import sys; import firmware_py.runtime, firmware_py.cli;"
        "print([m for m in ('matplotlib','rich','amqtt','hil','pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
