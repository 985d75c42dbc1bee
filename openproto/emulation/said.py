"""What users have said, by digests: looking for a duplicate lists a user's memories once, and not for each new one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from openproto.emulation.recent import Recent
from openproto.models import MemoryRecord
from openproto.requests import MemoryInput
from openproto.stores.duplicates import plain


class Said:
    """Which of one user's memories say what, as this process has read and written them.

    What it names may have been changed or deleted since, and must be looked at.
    """

    def __init__(self) -> None:
        self.is_whole = False
        """Whether all that there was has been read."""
        self._ids: dict[bytes, dict[str, None]] = {}

    def note(self, record: MemoryRecord) -> None:
        """Take in what a memory says now."""
        self._ids.setdefault(_digest(record), {})[record.id] = None

    def ids(self, item: MemoryInput) -> Sequence[str]:
        """Return the ids of the memories that said the same in the same scope."""
        return (*self._ids.get(_digest(item), ()),)

    def forget(self, item: MemoryInput, ids: Iterable[str]) -> None:
        """Leave out memories that said the same, and are gone or outdated: a change notes them anew."""
        same = self._ids.get(_digest(item), {})
        for id in ids:
            same.pop(id, None)


# Of a whole process, as the locks are; what others wrote meanwhile is read when the time is over.
said: Recent[tuple[str, str], Said] = Recent(128, within=300)


def _digest(said: MemoryRecord | MemoryInput) -> bytes:
    return blake2b(f"{said.scope or ''}\n{plain(said.content)}".encode(), digest_size=12).digest()
