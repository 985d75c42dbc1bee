"""The suite on Memori's engine and tables, on SQLite and on PostgreSQL, with the audit journal: Memori keeps no log.

The embedding model is a stand-in made of the local embedder's vectors, since the real one is a download.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from openproto_adapters.memori import Memori
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres
from openproto_conformance import ProviderSuite
from openproto_conformance.emulators.memori import Memori as Emulated

from openproto import Provider
from openproto.layers.audit import Audited


@cache
def emulator() -> Emulated:
    """Return the model and a SQLite file that last as long as the test run."""
    started = Emulated().start()
    atexit.register(started.stop)
    return started


@cache
def server() -> str:
    """Start PostgreSQL, to be stopped when the tests end, and return its URL."""
    home = Path(tempfile.mkdtemp(prefix="op-memori-", dir="/tmp")).resolve()
    home.chmod(0o755)
    private = PrivatePostgres(home, settings={"fsync": "off", "max_connections": "60"})
    private.start()

    def stop() -> None:
        private.stop()
        deadline = time.monotonic() + 30
        while home.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
            if not keeper.Place(home).socket.exists():
                shutil.rmtree(home, ignore_errors=True)  # the keeper may still be tidying up

    atexit.register(stop)
    return f"postgresql://postgres@/postgres?host={quote(str(keeper.Place(home).sockets))}&port={keeper.PORT}"


class _Memori(ProviderSuite):
    quick = True
    secrets = ("correct-horse",)

    @cached_property
    def journal(self) -> str:
        """A journal for each case."""
        return f"sqlite:///{emulator().models.parent}/{uuid4().hex}.db"

    def memori(self, width: int = 8) -> Provider:
        raise NotImplementedError

    def provider(self) -> Provider:
        return Audited(self.memori(), self.journal)

    def pooled(self, size: int) -> Provider:
        return Audited(self.memori(size), self.journal)


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestMemoriOnSqlite(_Memori):
    def memori(self, width: int = 8) -> Provider:
        return Memori(**emulator().provider_options(), width=width)

    def stalled(self) -> AbstractContextManager[object]:
        return emulator().stalled()

    def unreachable(self) -> Provider:
        return Memori("/dev/null/memori.db", models=emulator().models)


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestMemoriOnPostgres(_Memori):
    def memori(self, width: int = 8) -> Provider:
        return Memori(server(), models=emulator().models, width=width)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Lock the facts against writers."""
        with psycopg.connect(server()) as other:
            other.execute("LOCK TABLE memori_entity_fact IN SHARE MODE")
            yield
            other.rollback()

    def unreachable(self) -> Provider:
        return Memori("postgresql://app:correct-horse@127.0.0.1:1/memory", models=emulator().models)
