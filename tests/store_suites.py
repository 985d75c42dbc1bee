"""The suite on the two stores, for the tests of the stores themselves and of what stands before one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import lasting
import psycopg
from openproto_adapters.postgres import Postgres
from openproto_adapters.sqlite import Sqlite
from openproto_conformance import ProviderSuite

from openproto import Provider


@contextlib.contextmanager
def locked(path: Path, mode: str = "normal") -> Iterator[None]:
    """Hold the write lock of a file, as another process may; with `mode` "exclusive" have it for oneself."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute(f"PRAGMA locking_mode = {mode}")
        other.execute("BEGIN IMMEDIATE")
        yield


class SqliteSuite(ProviderSuite):
    """Text alone, in one file for each class."""

    kind: type[Sqlite] = Sqlite

    @property
    def path(self) -> Path:
        return lasting.folder(type(self).__name__) / "memory.db"

    def provider(self) -> Provider:
        return self.kind(self.path, embedder="none")

    def stalled(self) -> AbstractContextManager[None]:
        return locked(self.path)


class PostgresSuite(ProviderSuite):
    """Text alone, in one database for each class."""

    secrets = ("correct-horse",)

    @property
    def url(self) -> str:
        return lasting.postgres_url(type(self).__name__.lower())

    def provider(self) -> Provider:
        return Postgres(self.url, embedder="none")

    def pooled(self, size: int) -> Provider:
        return Postgres(self.url, embedder="none", pool_max=size)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Lock the table against writers."""
        with psycopg.connect(self.url) as other:
            other.execute("LOCK TABLE openproto.memories IN SHARE MODE")
            yield

    def unreachable(self) -> Provider:
        return Postgres("postgresql://app:correct-horse@127.0.0.1:1/memory", embedder="none", connect_timeout=2.0)
