"""What the tests of the postgres provider share: servers, SQL next to the client, and waiting for what must come."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres
from waiting import until

from openproto import AsyncMemory, MemoryRecord, OpenProtoError

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


class At:
    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    async def execute(self, *scripts: str) -> None:
        async with connected(self.dsn) as connection:
            for script in scripts:
                await connection.execute(script)

    async def sql(self, statement: str) -> list[asyncpg.Record]:
        async with connected(self.dsn) as connection:
            return list(await connection.fetch(statement))

    async def value(self, statement: str) -> Any:
        return (await self.sql(statement))[0][0]

    async def becomes(self, statement: str, value: object, seconds: float) -> None:
        """Wait until the statement's value is that one."""

        async def is_so() -> bool:
            return bool(await self.value(statement) == value)

        await until(is_so, seconds)


class Database(At):
    """A schema that does not exist yet, clients of it, and a look at the database next to them."""

    def __init__(self, server: Server, schema: str, name: str = "postgres") -> None:
        super().__init__(server.dsn(name))
        self.server, self.schema, self.name = server, schema, name

    def options(self, **overrides: Any) -> dict[str, Any]:
        """Return what a client of the schema is made with; by text alone unless the test says otherwise."""
        return {"url": self.dsn, "schema": self.schema, "embedder": "none", **overrides}

    def client(self, **overrides: Any) -> AsyncMemory:
        return AsyncMemory("postgres", **self.options(**overrides))

    def grants(self, role: str) -> str:
        """Return the script that lets a role use the tables, and no more."""
        rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA"
        return f"GRANT USAGE ON SCHEMA {self.schema} TO {role}; GRANT {rights} {self.schema} TO {role}"

    @contextlib.asynccontextmanager
    async def stuck(self) -> AsyncIterator[None]:
        """Let every statement on the memories run without end in the server until the block is left."""
        async with connected(self.dsn) as connection:
            await connection.execute(f"BEGIN; LOCK TABLE {self.schema}.memories")
            yield

    async def connections(self, which: str = "true") -> int:
        return int(await self.value(f"SELECT count(*) FROM pg_stat_activity WHERE {CLIENTS} AND {which}"))

    async def running(self, count: int) -> None:
        """Wait until so many statements of clients, or open transactions, are in the server."""
        await self.becomes(f"SELECT count(*) FROM pg_stat_activity WHERE {CLIENTS} AND state <> 'idle'", count, 5)


def stored(outcome: MemoryRecord | OpenProtoError) -> MemoryRecord:
    """Return the record of an outcome of `add_many` that must have one."""
    assert isinstance(outcome, MemoryRecord), outcome
    return outcome


def calls_of(memory: AsyncMemory, id: str, content: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return a call of each verb that reads or writes Ada's memories."""
    return {
        "add": lambda: memory.add(content, user_id="ada"),
        "add_many": lambda: memory.add_many([{"content": content, "user_id": "ada"}]),
        "search": lambda: memory.search(content, "ada"),
        "context": lambda: memory.context(content, "ada"),
        "update": lambda: memory.update(id, content=content),
        "delete": lambda: memory.delete(id),
        "list": lambda: memory.list("ada"),
        "get": lambda: memory.get(id),
        "delete_all": lambda: memory.delete_all("ada"),
    }


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    settings = {"application_name": "test"}
    connection = await asyncpg.connect(dsn, timeout=LONG, server_settings=settings, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


class Door:
    """A TCP port in front of the server's socket; it loses the next question, or answer, when `loses` names it."""

    loses = ""
    lost = 0
    then: Callable[[], Awaitable[object]] | None = None
    """What is done before the client notices."""

    @contextlib.asynccontextmanager
    async def open(self, server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Open it, with TLS where a context is given; yields its address."""
        opened: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                if tls is not None:
                    await reader.readexactly(8)  # the request for TLS
                    writer.write(b"S")
                    await writer.start_tls(tls)
                inner, out = await asyncio.open_unix_connection(server.place.socket)
                opened.update({writer, out})
                ways = (self._pass_on("question", reader, out), self._pass_on("answer", inner, writer))
                await asyncio.gather(*ways)
            except (OSError, asyncio.IncompleteReadError):
                writer.close()

        listener = await asyncio.start_server(serve, "127.0.0.2", 0)
        yield f"127.0.0.2:{listener.sockets[0].getsockname()[1]}"
        listener.close()
        for writer in opened:
            writer.close()
        await listener.wait_closed()

    async def _pass_on(self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.loses == what:
                    self.loses = ""
                    self.lost += 1
                    if self.then is not None:
                        await self.then()
                    break
                writer.write(data)
        writer.close()


def through(address: str, options: str = "sslmode=disable") -> str:
    return f"postgresql://postgres:hunter2@{address}/postgres?{options}"


def tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def whole_chain(error: BaseException | None) -> str:
    """Return everything that a log of the error could show, causes and contexts included."""
    shown: list[str] = []
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)
