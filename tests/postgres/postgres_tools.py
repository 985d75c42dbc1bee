"""What the tests of the postgres provider share: servers, SQL next to the client, a proxy that loses answers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

import asyncpg
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres

from openproto import AsyncMemory, MemoryRecord, OpenProtoError

MakeClient: TypeAlias = Callable[..., AsyncMemory]

LONG = 30

CLIENTS = "application_name = 'openproto' AND usename NOT LIKE 'bouncer%'"
"""Which rows of pg_stat_activity are connections of clients; those that PgBouncer keeps are not."""

# No test pulls the plug, only kills; a small server is started and stopped faster.
QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "60"}


class Server:
    """A private PostgreSQL in a new directory under /tmp, which its user may enter when root runs the tests."""

    def __init__(self, **settings: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="op-pg-", dir="/tmp")).resolve()
        self.home.chmod(0o755)
        self.place = keeper.Place(self.home)
        self._private = PrivatePostgres(self.home, settings={**QUICK, **settings})

    def start(self) -> None:
        self._private.start()

    def stop(self) -> None:
        """Leave the server and wait until it has ended."""
        self._private.stop()
        deadline = time.monotonic() + LONG
        while self.place.accepting() or self.place.socket.exists():
            assert time.monotonic() < deadline, "the server did not stop"
            time.sleep(0.05)

    def remove(self) -> None:
        self.stop()
        deadline = time.monotonic() + LONG
        while self.home.exists() and time.monotonic() < deadline:
            shutil.rmtree(self.home, ignore_errors=True)  # the keeper is still tidying up

    def dsn(self, database: str = "postgres", *, user: str = "postgres", password: str | None = None) -> str:
        secret = "" if password is None else f":{quote(password, safe='')}"
        host = quote(str(self.place.sockets))
        return f"postgresql://{user}{secret}@/{database}?host={host}&port={keeper.PORT}"


def stored(outcome: MemoryRecord | OpenProtoError) -> MemoryRecord:
    """Return the record of an outcome of `add_many` that must have one."""
    assert isinstance(outcome, MemoryRecord), outcome
    return outcome


async def execute(dsn: str, *scripts: str) -> None:
    """Run scripts, each as one transaction."""
    connection = await asyncpg.connect(dsn, timeout=LONG, server_settings={"application_name": "test"})
    try:
        for script in scripts:
            await connection.execute(script)
    finally:
        await connection.close()


async def sql(dsn: str, statement: str) -> list[asyncpg.Record]:
    """Return the rows of one statement."""
    connection = await asyncpg.connect(dsn, timeout=LONG, server_settings={"application_name": "test"})
    try:
        rows: list[asyncpg.Record] = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()


async def value(dsn: str, statement: str) -> Any:
    """Return the first value of a statement's first row."""
    return (await sql(dsn, statement))[0][0]


@contextlib.asynccontextmanager
async def stuck(dsn: str, schema: str) -> AsyncIterator[None]:
    """Let every statement on the memories run without end in the server until the block is left."""
    connection = await asyncpg.connect(dsn, timeout=LONG)
    try:
        await connection.execute(f"BEGIN; LOCK TABLE {schema}.memories")
        yield
    finally:
        await connection.close()


async def running(dsn: str, count: int) -> None:
    """Wait until so many statements of clients, or open transactions, are in the server."""

    async def as_many() -> bool:
        return await value(dsn, f"SELECT count(*) FROM pg_stat_activity WHERE {CLIENTS} AND state <> 'idle'") == count

    await until(as_many, f"{count} statements in the server", 5)


async def connections(dsn: str) -> int:
    """Return how many connections of clients the server has."""
    found: int = await value(dsn, f"SELECT count(*) FROM pg_stat_activity WHERE {CLIENTS}")
    return found


async def until(seen: Callable[[], Awaitable[bool]], what: str, seconds: float = LONG) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not await seen():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.02)


def tasks() -> set[asyncio.Task[Any]]:
    """The other tasks of this loop."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def whole_chain(error: BaseException | None) -> str:
    """Return everything that a log of the error could show, causes and contexts included."""
    shown: list[str] = []
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


class LossyProxy:
    """Stands between a client and the server, and can lose a question, or the answer to one that was carried out."""

    def __init__(self, server: str, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._before_losing: Callable[[], Awaitable[object]] | None = None
        self._loses_question = False
        self.lost = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Yield the DSN to connect to instead."""
        parts = dict(pair.split("=") for pair in self._server.rpartition("?")[2].split("&"))
        behind = Path(unquote(parts["host"])) / f".s.PGSQL.{parts['port']}"

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from_server, to_server = await asyncio.open_unix_connection(str(behind))
            ways = (self._pass_on(reader, to_server), self._answer(from_server, writer))
            await asyncio.wait([asyncio.create_task(way) for way in ways], return_when=asyncio.FIRST_COMPLETED)
            for end in (writer, to_server):
                end.close()

        async with await asyncio.start_unix_server(relay, str(self._folder / behind.name)):
            yield self._server.replace(parts["host"], quote(str(self._folder)))

    def lose_next_answer(self, then: Callable[[], Awaitable[object]] | None = None) -> None:
        """Lose the next answer, and do `then` before the client notices."""
        self._before_losing = then or _nothing

    def lose_next_question(self) -> None:
        """Cut the connection in the place of passing on what the client sends next."""
        self._loses_question = True

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if self._before_losing is not None:
                before, self._before_losing = self._before_losing, None
                self.lost += 1
                await before()
                return
            writer.write(data)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if self._loses_question:
                self._loses_question = False
                self.lost += 1
                return
            writer.write(data)


async def _nothing() -> None: ...
