"""Where entries stand before they are in the journal: a small file that is mapped into memory.

Writing there is copying a few bytes: no call waits for it, and the system has them although the process is killed. The
journal's thread puts the entries into its database, and the pad is wiped.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

Row: TypeAlias = Sequence[Any]

SIZE = 2**20

_HEAD = struct.Struct("<II")
"""How long an entry is, and its checksum: a copy that was cut off by the end of the process is none."""


class Pad:
    """The pad of one open journal."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            blank = memoryview(bytes(SIZE))  # so that no later write has to find room on the disk
            while blank:  # a disk that is nearly full takes a part, and refuses the rest
                blank = blank[os.write(descriptor, blank) :]
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._end = 0

    def write(self, rows: Sequence[Row]) -> bool:
        """Write entries, all or none; False where there is no room for them."""
        data = b"".join(_HEAD.pack(len(text), crc32(text)) + text for text in (json.dumps(r).encode() for r in rows))
        end = self._end + len(data)
        if end > SIZE - _HEAD.size:
            return False
        self._map[self._end : end] = data
        self._end = end
        return True

    def wipe(self) -> None:
        """Overwrite what was written."""
        self._map[: self._end] = bytes(self._end)
        self._end = 0

    def close(self) -> None:
        """Release the file."""
        self._map.close()


def read(path: Path) -> list[Row]:
    """Return the entries on a pad, oldest first; none where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    place = 0
    while place + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, place)
        text = data[place + _HEAD.size : place + _HEAD.size + length]
        if not length or crc32(text) != checksum:
            break
        rows.append(json.loads(text))
        place += _HEAD.size + length
    return rows


def pad_of(journal: Path) -> Path:
    """Return where the pad of a journal is."""
    return journal.with_name(journal.name + ".pad")
