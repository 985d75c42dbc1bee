"""What lasts as long as a test run: a PostgreSQL that all its processes share, folders, and emulators."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres
from openproto_conformance.emulators.registry import emulator_class

_HOME = "TESTS_OF_THIS_RUN"
"""The environment variable with the folder of the run's PostgreSQL; the first process of a run sets it."""

_IN_MEMORY = Path("/dev/shm")

_DUPLICATES = (psycopg.errors.DuplicateDatabase, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation)
"""What another process that makes the same first leaves to this one."""


def begin_run() -> Path:
    """Choose and return the folder of PostgreSQL: in /tmp, where the user that runs the server may enter it."""
    home = Path(tempfile.mkdtemp(prefix="op-tests-", dir="/tmp")).resolve()
    home.chmod(0o755)
    os.environ[_HOME] = str(home)
    return home


def end_run() -> None:
    """Remove the folder of PostgreSQL when the server has ended, which it does after its last client has left."""
    leave_postgres()
    home = Path(os.environ.pop(_HOME))
    deadline = time.monotonic() + 30
    while home.exists() and time.monotonic() < deadline:
        if not keeper.Place(home).socket.exists():
            shutil.rmtree(home, ignore_errors=True)  # the keeper may still be tidying up
        time.sleep(0.05)


@cache
def _server(home: Path) -> PrivatePostgres:
    settings = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "150"}
    private = PrivatePostgres(home, settings=settings)
    private.start()
    return private


def leave_postgres() -> None:
    """Let PostgreSQL end, as far as this process is concerned."""
    if _server.cache_info().currsize:
        _server(Path(os.environ[_HOME])).stop()


@cache
def postgres_url(database: str) -> str:
    """Return the URL of a database that only the tests naming it use; it and its server are made on demand.

    Its owner is an ordinary role, so that row-level security holds as it does for users.
    """
    home = Path(os.environ[_HOME])
    _server(home)
    server = f"postgresql://%s@/%s?host={quote(str(keeper.Place(home).sockets))}&port={keeper.PORT}"
    for at, statement in (
        ("postgres", "CREATE ROLE ordinary LOGIN CREATEROLE"),
        ("postgres", f"CREATE DATABASE {database} OWNER ordinary"),
        (database, "CREATE EXTENSION vector"),
    ):
        another_process_was_first = contextlib.suppress(*_DUPLICATES)
        with another_process_was_first, psycopg.connect(server % ("postgres", at), autocommit=True) as connection:
            connection.execute(statement.encode())
    return server % ("ordinary", database)


@cache
def folder(name: str) -> Path:
    """Return a folder, in memory where there is such a place, because stores wait for the disk at every commit."""
    made = tempfile.TemporaryDirectory(
        prefix=f"openproto-{name}-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None, ignore_cleanup_errors=True
    )
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def emulator(name: str) -> Any:
    started = emulator_class(name)().start()
    atexit.register(started.stop)
    return started
