"""`profiles list`, `show` and `check` as an operator types them."""

from __future__ import annotations

import json

from served_devices import ROOT, answer, command

from drivers.profile import profile_names

SHIPPED = ROOT / "drivers" / "profiles"


def test_the_list_has_a_line_per_profile_with_what_it_is_for():
    done = command("profiles", "list")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == profile_names()
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["eastron-sdm630"][:2] == ["modbus", "recorded"]
    assert by_name["eastron-sdm630"][2].startswith("Eastron: SDM630")
    assert by_name["hpe-pdu3"][:2] == ["snmp", "untested"]


def test_a_folder_of_ones_own_is_in_the_list_and_its_faults_beside_it(tmp_path):
    text = (SHIPPED / "generic-power-limit.toml").read_text()
    (tmp_path / "mine.toml").write_text(
        text.replace('name = "generic-power-limit"', 'name = "mine"', 1)
    )
    (tmp_path / "broken.toml").write_text("schema = 1\n")
    done = command("profiles", "list", "--profiles", str(tmp_path), "--json")
    assert done.returncode == 2
    listed = {each["name"]: each for each in json.loads(done.stdout)}
    assert listed["mine"]["vendor"] == "wattbroker"
    assert "broken" not in listed
    assert f"{tmp_path}/broken.toml: name is missing" in done.stderr


def test_a_profile_is_shown_with_its_proofs_and_its_rows_in_few_lines():
    done = command("profiles", "show", "apc-rpdu2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert any(line.startswith("points      input.realpower ") for line in lines)
    assert any(line.startswith("outlet.1…48.realpower ") and line.endswith("W") for line in lines)
    assert any(line.startswith("input.L1…3.current ") for line in lines)
    assert any(
        line.endswith("outlet.1…48.load: on, off, cycle; proven by outlet.….status within 3000 ms")
        for line in lines
    )
    assert any("PowerNet-MIB" in line for line in lines)
    assert len(lines) < 80


def test_show_says_the_same_for_programs_and_knows_no_other_name():
    found = answer("profiles", "show", "generic-power-limit")
    assert (found["protocol"], found["status"]) == ("modbus", "recorded")
    assert [point["name"] for point in found["points"]] == [
        "limit.realpower.setting", "limit.realpower", "input.realpower"
    ]  # fmt: skip
    (limit,) = found["commands"]
    assert (limit["name"], limit["range"], limit["proof"]) == (
        "limit.realpower", [0, 65534], "limit.realpower"
    )  # fmt: skip
    done = command("profiles", "show", "nix")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no profile called 'nix'" in done.stderr


def test_check_tells_every_fault_of_every_file_with_row_and_key(tmp_path):
    good = SHIPPED / "eastron-sdm630.toml"
    text = (SHIPPED / "generic-power-limit.toml").read_text()
    (tmp_path / "mine.toml").write_text(
        text.replace('name = "generic-power-limit"', 'name = "mine"', 1)
        .replace('unit = "W"', 'unit = "kW"', 1)
        .replace('address = 0\ntype = "uint32"', 'address = 30053\ntype = "uint32"')
    )
    missing = tmp_path / "not-there.toml"
    done = command("profiles", "check", str(good), str(tmp_path / "mine.toml"), str(missing))
    assert done.returncode == 2
    assert done.stdout == f"{good}: {_counts(good.stem)}: usable\n"
    *faults, count = done.stderr.splitlines()
    assert count == f"{len(faults)} fault(s)"
    assert any('mine.toml: [[point]] number 1 "limit.realpower.setting"' in f for f in faults)
    assert any("30053" in fault for fault in faults)
    assert faults[-1] == f"{missing}: there is no such file"
    said = json.loads(command("profiles", "check", str(missing), "--json").stdout)
    assert said == {"ok": False, "faults": [f"{missing}: there is no such file"]}


def test_check_looks_at_the_file_and_not_at_a_shipped_one_of_its_name(tmp_path):
    own = tmp_path / "eastron-sdm630.toml"
    own.write_text("schema = 1\n")
    done = command("profiles", "check", str(own))
    assert done.returncode == 2
    assert f"{own}: name is missing" in done.stderr


def test_every_shipped_profile_is_usable():
    files = [str(path) for path in sorted(SHIPPED.glob("*.toml"))]
    done = command("profiles", "check", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(files)


def _counts(name: str) -> str:
    found = answer("profiles", "show", name)
    return f"{len(found['points'])} points, {len(found['commands'])} commands"
