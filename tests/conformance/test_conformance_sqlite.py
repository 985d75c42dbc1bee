"""The suite on the sqlite provider: text alone, and with vectors."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance import ProviderSuite

from openproto import Provider


@cache
def folder(name: str) -> Path:
    """Return a folder that lasts as long as the test run."""
    return Path(tempfile.mkdtemp(prefix=f"openproto-{name}-"))


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestSqlite(ProviderSuite):
    embedder = "none"

    @property
    def path(self) -> Path:
        return folder(self.embedder) / "memory.db"

    def provider(self) -> Provider:
        return Sqlite(self.path, embedder=self.embedder)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Take the write lock of the file, as another process may."""
        other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()

    def unreachable(self) -> Provider:
        return Sqlite("/dev/null/memory.db", embedder="none")
