"""The file in which an export gathers what it reads, newest first, so that it can go on after a kill and be turned.

The first line says what is exported; each further line is one record. The finished export is these lines in reverse.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from openproto import MemoryRecord
from openproto.portable.terminal import clean_json


class Spool:
    """Records in the order in which `list` gives them; memory holds eight bytes for each."""

    def __init__(self, file: BinaryIO, header: dict[str, Any]) -> None:
        self._file = file
        self._header = _line(header)
        self._offsets = array("q")
        self.oldest: MemoryRecord | None = None
        """The last record gathered: reading goes on from its moment."""
        self._at_oldest: set[str] = set()
        if not self._recover():
            self.restart()

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def until(self) -> datetime | None:
        """The moment from which to read on."""
        return self.oldest.created_at if self.oldest else None

    def add(self, record: MemoryRecord) -> None:
        """Gather `record`, unless it was gathered before the interruption."""
        if record.created_at == self.until and record.id in self._at_oldest:
            return
        self._note(record, self._file.tell())
        self._file.write(_line(record.to_wire()))

    def restart(self) -> None:
        """Forget everything gathered."""
        self._offsets, self.oldest, self._at_oldest = array("q"), None, set()
        self._file.seek(0)
        self._file.truncate()
        self._file.write(self._header)

    def oldest_first(self) -> Iterator[bytes]:
        """Yield each record's line, in reverse."""
        for offset in reversed(self._offsets):
            self._file.seek(offset)
            yield self._file.readline()

    def _recover(self) -> bool:
        """Take up what an earlier run for the same export gathered; say whether there was any such run."""
        self._file.seek(0)
        if self._file.readline() != self._header:
            return False
        end = self._file.tell()
        while (line := self._file.readline()).endswith(b"\n"):
            self._note(MemoryRecord.model_validate_json(line), end)
            end = self._file.tell()
        self._file.seek(end)  # a kill may have left half a line, which is written over
        return True

    def _note(self, record: MemoryRecord, offset: int) -> None:
        if record.created_at != self.until:
            self._at_oldest = set()
        self._at_oldest.add(record.id)
        self.oldest = record
        self._offsets.append(offset)


def open_private(path: Path | None, *, empty: bool = False) -> BinaryIO:
    """Open a file that only this user can read: `path`, made where missing, or without one a nameless file."""
    if path is None:
        return TemporaryFile()
    flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if empty else 0)
    return os.fdopen(os.open(path, flags, 0o600), "r+b")


@contextmanager
def complete_or_absent(path: Path) -> Iterator[BinaryIO]:
    """Open a file that stands at `path`, and on the disk, once the block has ended well; else nothing of it stays."""
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with open_private(unfinished, empty=True) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # and its name
    finally:
        os.close(folder)


def _line(value: dict[str, Any]) -> bytes:
    return (clean_json(json.dumps(value, ensure_ascii=False)) + "\n").encode()
