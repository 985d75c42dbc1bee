"""What a migration has brought: written down before it is done, so that it can be gone on with and undone.

The first line says from where to where. Each further line names records of one user that are about to be written, each
with a digest of what it will be there. What is in the target and bears such a digest was brought, and not changed
since.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from openproto import InvalidRequestError
from openproto.portable.spool import open_private


class Journal:
    """The journal of one migration, next to its report."""

    def __init__(self, file: BinaryIO, header: Mapping[str, Any]) -> None:
        self._file = file
        self.token = os.urandom(8).hex()
        """Makes the idempotency keys of this migration different from those of an earlier one that was undone."""
        self.brought: dict[str, dict[str, tuple[bytes, ...]]] = {}
        """By user and original id, the digests of all that was to be written."""
        first = file.readline()
        if not first.endswith(b"\n"):
            self._write({"migration": {**header, "token": self.token}})
            return
        known = read_header(first)
        if {name: known.get(name) for name in header} != dict(header):
            raise InvalidRequestError(
                "the report belongs to another migration; name another file with --report, or undo that one first"
            )
        self.token = str(known["token"])
        end = file.tell()
        while (line := file.readline()).endswith(b"\n"):
            found = json.loads(line)
            self._take(found["user"], {id: bytes.fromhex(digest) for id, digest in found["brings"].items()})
            end = file.tell()
        file.seek(end)  # a kill may have left half a line, which is written over

    def note(self, brings: Mapping[str, Mapping[str, bytes]]) -> None:
        """Write down, for good, that these records of each user are about to be written."""
        for user, digests in brings.items():
            self._take(user, digests)
        lines = [
            {"user": user, "brings": {id: digest.hex() for id, digest in digests.items()}}
            for user, digests in brings.items()
        ]
        self._write(*lines)

    def has_brought(self, user: str, id: str, digest: bytes) -> bool:
        """Say whether a record of the target is as it was brought."""
        return digest in self.brought.get(user, {}).get(id, ())

    def _take(self, user: str, digests: Mapping[str, bytes]) -> None:
        known = self.brought.setdefault(user, {})
        for id, digest in digests.items():
            known[id] = (*known.get(id, ()), digest)

    def _write(self, *lines: Mapping[str, Any]) -> None:
        self._file.write(b"".join([json.dumps(line).encode() + b"\n" for line in lines]))
        self._file.truncate()
        self._file.flush()
        os.fsync(self._file.fileno())


def journal_path(report: Path) -> Path:
    """Return where the journal of a report is."""
    return report.with_name(report.name + ".journal")


def read_header(line: bytes) -> dict[str, Any]:
    """Return what the first line of a journal says."""
    try:
        return dict(json.loads(line)["migration"])
    except (ValueError, LookupError, TypeError):
        raise InvalidRequestError("the file is not the journal of a migration") from None


def open_journal(report: Path, header: Mapping[str, Any]) -> tuple[BinaryIO, Journal]:
    """Return the open journal of a report, made where it is missing and locked until the caller closes the file."""
    file = open_private(journal_path(report))
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Each would write over the other's lines, and an undo would not know what these had said.
            raise InvalidRequestError(
                "another migration is writing this report now; wait for its end, or name another file with --report"
            ) from None
        return file, Journal(file, header)
    except BaseException:
        file.close()
        raise
