"""The journal on disk: the old record or the new one, never a torn one taken for good."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from broker.effects import JournalRecord
from broker.messages import Ballot, CapValue
from firmware_py.journal import FILE_NAME, LOCK_NAME, Journal, JournalError, first_record

ROOT = Path(__file__).parent.parent.parent
OLD = JournalRecord(Ballot(4, "r3"), 7, True, Ballot(0, "h"), {})
NEW = JournalRecord(
    Ballot(5, "r1"), 8, False, Ballot(0, "h"), {"room": {"operator": CapValue(9, None)}}
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "state" / "r1") as made:
        yield made


def file_of(journal: Journal) -> Path:
    return journal._path


def test_what_was_written_is_read_again_by_the_next_process(tmp_path: Path) -> None:
    for record in (OLD, NEW):
        with Journal(tmp_path) as journal:
            journal.write(record)
        with Journal(tmp_path) as journal:
            assert journal.load() == (record, "")
            assert journal.exists


def test_a_missing_journal_is_no_record_and_says_so(journal: Journal) -> None:  # protocol R11
    assert journal.load() == (None, "there is no journal")
    assert not journal.exists


def test_the_first_record_has_promised_nothing_and_holds_what_it_reads() -> None:  # protocol R11
    record = first_record(Ballot(0, "h"))
    assert record == JournalRecord(Ballot(0, ""), 0, True, Ballot(0, "h"), {})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_a_torn_file_is_no_record(journal: Journal, share: float) -> None:  # protocol R11
    journal.write(OLD)
    whole = file_of(journal).read_bytes()
    file_of(journal).write_bytes(whole[: int(len(whole) * share)])
    record, why = journal.load()
    assert record is None
    assert "torn" in why


def test_a_flipped_digit_is_found_by_the_checksum(journal: Journal) -> None:  # protocol R11
    journal.write(OLD)
    spoilt = file_of(journal).read_bytes().replace(b'"boot":7', b'"boot":6')
    assert spoilt != file_of(journal).read_bytes()
    file_of(journal).write_bytes(spoilt)
    assert journal.load() == (None, "the journal is torn")


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_anywhere_gives_another_record(journal: Journal, bit: int) -> None:
    journal.write(NEW)  # protocol R11
    whole = file_of(journal).read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << bit
        file_of(journal).write_bytes(spoilt)
        record, why = journal.load()
        assert record in (None, NEW), place
        assert (record is None) == bool(why), place


@pytest.mark.parametrize("tail", [b"\x00" * 512, b"}", b"[]", b'{"schema":1}'])
def test_a_whole_record_with_something_behind_it_is_torn(journal: Journal, tail: bytes) -> None:
    journal.write(OLD)
    with file_of(journal).open("ab") as file:
        file.write(tail)
    assert journal.load()[0] is None


def test_a_record_of_an_older_version_or_a_later_one_is_none(journal: Journal) -> None:
    for version in (0, 2, 99, "1", 1.5, None):  # protocol R11
        journal.write(OLD)
        whole = json.loads(file_of(journal).read_bytes())
        file_of(journal).write_text(json.dumps(whole | {"schema": version}, separators=(",", ":")))
        record, why = journal.load()
        assert record is None, version
        assert why.startswith("the journal is torn"), version


def test_a_record_that_lacks_what_must_not_be_forgotten_is_none(journal: Journal) -> None:
    journal.write(OLD)  # protocol R11
    record = json.loads(file_of(journal).read_bytes())["record"]
    for key in ("ballot", "boot", "granted", "roster", "caps"):
        body = json.dumps({k: v for k, v in record.items() if k != key}, separators=(",", ":"))
        digest = hashlib.sha256(body.encode()).hexdigest()
        whole = f'{{"schema":1,"sha256":"{digest}","record":{body}}}'
        file_of(journal).write_text(whole)
        assert journal.load()[0] is None, key


def test_a_wrong_checksum_or_another_schema_is_no_record(journal: Journal) -> None:  # protocol R11
    journal.write(OLD)
    whole = json.loads(file_of(journal).read_bytes())
    for part, value in (("sha256", "0" * 64), ("schema", 2)):
        payload = json.dumps(whole | {part: value}, separators=(",", ":"))
        file_of(journal).write_text(payload)
        assert journal.load()[0] is None, part


def test_a_file_that_grew_without_end_is_not_read_into_memory(journal: Journal) -> None:
    journal.write(OLD)
    os.truncate(file_of(journal), 1 << 28)  # zeros, which take no room on the disk
    tracemalloc.start()
    try:
        assert journal.load()[0] is None
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opening", [b'{"more":' + b"[" * 200_000, b"[" * 200_000])
def test_deep_nesting_is_no_record(journal: Journal, opening: bytes) -> None:  # protocol R11
    file_of(journal).write_bytes(opening)
    record, why = journal.load()
    assert record is None
    assert "torn" in why


@given(payload=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_no_record(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes
) -> None:  # protocol R11
    folder = tmp_path_factory.getbasetemp() / "any-bytes"
    with Journal(folder) as journal:
        file_of(journal).write_bytes(payload)
        assert journal.load()[0] is None


def test_a_journal_that_cannot_be_read_is_told_apart_from_none(journal: Journal) -> None:
    file_of(journal).mkdir()
    record, why = journal.load()
    assert record is None
    assert why.startswith("the journal cannot be read")


# ---- writing ---------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_record(journal: Journal, mocker: MockerFixture) -> None:
    journal.write(OLD)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for call in ("os.write", "os.fsync"):
        patched = mocker.patch(f"firmware_py.journal.{call}", side_effect=full)
        with pytest.raises(OSError, match="No space left"):
            journal.write(NEW)
        mocker.stop(patched)
        assert journal.load() == (OLD, ""), call


@pytest.mark.parametrize("call", ["os.open", "os.replace"])
def test_a_folder_that_became_read_only_leaves_the_old_record_and_no_open_file(
    journal: Journal, mocker: MockerFixture, call: str
) -> None:
    journal.write(OLD)
    before = len(os.listdir("/proc/self/fd"))
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS))
    patched = mocker.patch(f"firmware_py.journal.{call}", side_effect=refused)
    with pytest.raises(OSError, match="Read-only file system"):
        journal.write(NEW)
    mocker.stop(patched)
    assert journal.load() == (OLD, "")
    assert len(os.listdir("/proc/self/fd")) == before
    journal.write(NEW)
    assert journal.load() == (NEW, "")


def test_where_only_the_folder_cannot_be_synced_the_write_is_refused_and_can_be_repeated(
    journal: Journal, mocker: MockerFixture
) -> None:
    """The file has its name then, and may lose it in a power cut: nobody may build on it."""
    journal.write(OLD)
    fsync = os.fsync

    def sync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    patched = mocker.patch("firmware_py.journal.os.fsync", side_effect=sync)
    with pytest.raises(OSError, match="Input/output error"):
        journal.write(NEW)
    mocker.stop(patched)
    assert journal.load()[0] in (OLD, NEW)
    journal.write(NEW)
    assert journal.load() == (NEW, "")


KILLED_AT_EACH_STEP = """
import os, sys
from pathlib import Path
from broker.effects import JournalRecord
from broker.messages import Ballot
from firmware_py.journal import Journal

OLD = JournalRecord(Ballot(4, "r3"), 7, True, Ballot(0, "h"), {})
NEW = JournalRecord(Ballot(5, "r1"), 8, False, Ballot(0, "h"), {})
calls = 0

def dying(call, step):
    def stepped(*arguments):
        global calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), 9)
        return call(*arguments)
    return stepped

with Journal(Path(sys.argv[1])) as journal:
    for step in range(1, 12):
        journal.write(OLD)
        child = os.fork()
        if not child:
            for name in ("open", "write", "fsync", "replace", "close"):
                setattr(os, name, dying(getattr(os, name), step))
            journal.write(NEW)
            os._exit(0)
        killed = os.waitpid(child, 0)[1] == 9
        found = journal.load()[0]
        known = "old" if found == OLD else "new" if found == NEW else found
        print("killed" if killed else "done", known)
"""


def test_a_process_killed_at_any_step_of_a_write_leaves_the_old_record_or_the_new_one(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EACH_STEP, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        *["killed old"] * 5,  # opening, writing, syncing, closing, renaming
        *["killed new"] * 3,  # opening, syncing, closing the folder
        *["done new"] * 3,
    ], done.stderr


def test_after_a_full_disk_the_next_write_succeeds(journal: Journal, mocker: MockerFixture) -> None:
    journal.write(OLD)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    patched = mocker.patch("firmware_py.journal.os.fsync", side_effect=full)
    with pytest.raises(OSError, match="No space left"):
        journal.write(NEW)
    mocker.stop(patched)
    journal.write(NEW)
    assert journal.load() == (NEW, "")


def test_no_file_is_left_open_by_writes_that_fail(journal: Journal, mocker: MockerFixture) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    before = len(os.listdir("/proc/self/fd"))
    mocker.patch("firmware_py.journal.os.fsync", side_effect=full)
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            journal.write(NEW)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_write_in_pieces_is_written_whole(journal: Journal, mocker: MockerFixture) -> None:
    write = os.write
    mocker.patch("firmware_py.journal.os.write", side_effect=lambda fd, part: write(fd, part[:7]))
    journal.write(NEW)
    assert journal.load() == (NEW, "")


def test_the_file_is_synced_before_it_takes_the_name_and_the_folder_after(
    journal: Journal, mocker: MockerFixture
) -> None:
    journal.write(OLD)
    done: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_sync(fd: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def note_rename(source: Path, target: Path) -> None:
        assert json.loads(Path(source).read_bytes())["record"]["boot"] == NEW.boot
        assert json.loads(Path(target).read_bytes())["record"]["boot"] == OLD.boot
        done.append("rename")
        rename(source, target)

    mocker.patch("firmware_py.journal.os.fsync", side_effect=note_sync)
    mocker.patch("firmware_py.journal.os.replace", side_effect=note_rename)
    journal.write(NEW)
    assert done == ["file", "rename", "folder"]


def test_what_a_crash_left_half_written_beside_it_is_never_read(journal: Journal) -> None:
    journal.write(OLD)
    file_of(journal).with_suffix(".new").write_bytes(b'{"schema":1' * 500)
    assert journal.load() == (OLD, "")
    journal.write(NEW)
    assert journal.load() == (NEW, "")


def test_a_folder_has_the_journal_and_the_lock_and_nothing_else(tmp_path: Path) -> None:
    with Journal(tmp_path / "r1") as journal:
        journal.write(OLD)
        journal.write(replace(OLD, boot=8))
    assert {path.name for path in (tmp_path / "r1").iterdir()} == {FILE_NAME, LOCK_NAME}


# ---- the lock ----------------------------------------------------------------------------


HOLD = """
import sys
from pathlib import Path
from firmware_py.journal import Journal
with Journal(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_kept_away_until_the_first_has_ended(tmp_path: Path) -> None:
    holder = subprocess.Popen(  # protocol R10
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JournalError, match="another controller runs with this journal"):
            Journal(tmp_path).__enter__()
    finally:
        holder.kill()  # as a crash would: no clean end is needed
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    with Journal(tmp_path) as journal:
        journal.write(OLD)


def test_the_lock_is_free_after_the_journal_was_closed(tmp_path: Path) -> None:
    for _ in range(3):
        with Journal(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="--state"):
        Journal(tmp_path / "file" / "r1").__enter__()
