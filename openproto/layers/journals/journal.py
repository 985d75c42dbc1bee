"""What an audit journal is: a store of audit entries that several clients may share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from openproto.provider import AuditEntries
from openproto.requests import AuditQuery
from openproto.stores.audit_buffer import AuditRow

RETURNED = "restore"
"""How the journal itself calls an add that brought a memory back: one memory can be added once, and restored often."""

ACTION = f"CASE action WHEN '{RETURNED}' THEN 'add' ELSE action END"


class Journal(ABC):
    """A store of audit entries that several clients may share; what it raises is typed."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the entries are, for an operator; holds no password."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create the table if it is missing."""

    @abstractmethod
    async def append(self, rows: Sequence[AuditRow]) -> None:
        """Write the entries, all or none; an add that was recorded before is passed over."""

    @abstractmethod
    async def entries(self, query: AuditQuery) -> AuditEntries:
        """Return the user's entries that the query selects, newest first."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything, and wait for nothing that hangs; may be called twice."""
