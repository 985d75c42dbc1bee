"""The conformance suite on a backend that has no audit log, with a journal in SQLite and in PostgreSQL beside it."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from journals import Plain, postgres_url
from openproto_conformance import ProviderSuite

from openproto import Provider
from openproto.layers.audit import Audited


@cache
def folder(name: str) -> Path:
    """Return a folder that lasts as long as the test run."""
    return Path(tempfile.mkdtemp(prefix=f"openproto-{name}-"))


class TestSqliteJournal(ProviderSuite):
    @property
    def path(self) -> Path:
        return folder(type(self).__name__) / "memory.db"

    @property
    def journal(self) -> str:
        return f"sqlite:///{folder(type(self).__name__)}/audit.db"

    def provider(self) -> Provider:
        return Audited(Plain(self.path), self.journal)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Take the write lock of the backend's file, as another process may."""
        other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()

    def unreachable(self) -> Provider:
        return Audited(Plain(self.path), "sqlite:////dev/null/audit.db")


class TestPostgresJournal(TestSqliteJournal):
    secrets = ("correct-horse",)

    @property
    def journal(self) -> str:
        return f"{postgres_url()}&schema=journal"

    def unreachable(self) -> Provider:
        return Audited(Plain(self.path), "postgresql://app:correct-horse@127.0.0.1:1/audit")
