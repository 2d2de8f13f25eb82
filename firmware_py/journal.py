"""The controller's memory on disk: one small file, replaced as a whole.

What is in it and when it is written is decided elsewhere (`broker/membership`). Here:
a write is in a new file beside the old one, synced, renamed over it, and the folder
synced, so that a power cut leaves the old record or the new one. A checksum tells a
torn file from a good one. A lock beside it keeps a second process away (protocol R10).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from types import TracebackType

import msgspec

from broker.effects import JournalRecord
from broker.messages import Ballot

FILE_NAME = "journal.json"
LOCK_NAME = "lock"
FILE_BYTES_MAX = 4 << 20  # a record with the largest roster and all sources is a tenth of it


class JournalError(Exception):
    """The folder cannot be used; the text says why and what to do."""


class _File(msgspec.Struct, frozen=True):
    schema: int
    sha256: str
    record: msgspec.Raw


class Journal:
    """The journal of one rack in one folder. A context manager: it holds the lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._lock_fd: int | None = None

    def __enter__(self) -> Journal:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise JournalError(
                f"{self._folder}: {error.strerror}; choose a folder that this user may"
                " write to with --state"
            ) from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            raise JournalError(
                f"{self._folder}: another controller runs with this journal; stop it first"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @property
    def path(self) -> Path:
        return self._path

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def load(self) -> tuple[JournalRecord | None, str]:
        """The record, or None and why there is none (protocol R11)."""
        try:
            with self._path.open("rb") as file:
                payload = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None, "there is no journal"
        except OSError as error:
            return None, f"the journal cannot be read: {error.strerror}"
        try:
            outer = msgspec.json.decode(payload, type=_File)
            if outer.schema != 1 or _digest(bytes(outer.record)) != outer.sha256:
                return None, "the journal is torn"
            return msgspec.json.decode(outer.record, type=JournalRecord), ""
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return None, f"the journal is torn: {error}"

    def write(self, record: JournalRecord) -> None:
        """Replace the record, and return when it is on the disk. Raises OSError."""
        body = msgspec.json.encode(record)
        payload = msgspec.json.encode(_File(1, _digest(body), msgspec.Raw(body)))
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            written = 0
            while written < len(payload):
                written += os.write(fd, payload[written:])
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(fresh, self._path)
        self._sync_folder()

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def first_record(roster: Ballot) -> JournalRecord:
    """What `init` writes: a rack that has never promised anything, and may hold what it
    reads for one lease."""
    return JournalRecord(Ballot(0, ""), 0, True, roster, {})


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
