"""A client that goes away, and a server that is told to end: what is cancelled, what is finished, and what is kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from server_tools import LONG, Process, Start, connect, read_all

from openproto import AsyncMemory

DELETE = b"DELETE /memories?user_id=ada HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST /memories HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_leaving_in_the_middle_of_a_body_stores_nothing(client: httpx.Client) -> None:
    with connect(client.base_url) as connection:
        connection.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"content": "tea", "user_id": "ada"}')
    assert client.get("/memories", params={"user_id": "ada"}).json() == {"items": []}


@pytest.mark.parametrize(("workers", "sent"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
async def test_no_acknowledged_write_is_lost(start: Start, tmp_path: Path, workers: str, sent: signal.Signals) -> None:
    path = tmp_path / "memory.db"
    server = await asyncio.to_thread(start, "--workers", workers, OPENPROTO_PATH=str(path))
    acknowledged: set[str] = set()

    async def write(client: httpx.AsyncClient, writer: int) -> None:
        for number in range(100_000):
            try:
                answer = await client.post("/memories", json={"content": f"{writer} {number}", "user_id": "ada"})
            except httpx.TransportError:
                return
            if answer.status_code != 201:
                assert answer.status_code == 503, answer.text
                return
            acknowledged.add(answer.json()["id"])

    async with httpx.AsyncClient(base_url=server.url, timeout=LONG) as client:
        writers = [asyncio.create_task(write(client, number)) for number in range(8)]
        while len(acknowledged) < 100:
            assert not any(writer.done() for writer in writers)
            await asyncio.sleep(0.01)
        server.terminate(sent)
        await asyncio.gather(*writers)
    log = await asyncio.to_thread(server.stop)
    assert server.process.returncode == 0
    assert "Traceback" not in log
    async with AsyncMemory("sqlite", path=path, embedder="none") as memory:
        stored = {record.id async for record in memory.iter("ada", page_size=500)}
    assert acknowledged <= stored


@asynccontextmanager
async def hanging(
    start: Start, database: str, schema: str, deadline: str
) -> AsyncIterator[tuple[Process, socket.socket, Any]]:
    """Yield a server, a connection whose request hangs there, and the one that has locked what it waits for."""
    environment = {"OPENPROTO_PROVIDER": "postgres", "OPENPROTO_URL": database, "OPENPROTO_SCHEMA": schema}
    server = await asyncio.to_thread(start, "--shutdown-timeout", deadline, **environment)
    locker = await asyncpg.connect(database)
    await locker.execute(f"BEGIN; LOCK TABLE {schema}.memories")
    with connect(server.url) as connection:
        connection.sendall(DELETE)
        await asyncio.sleep(0.5)
        yield server, connection, locker
    assert "Traceback" not in await asyncio.to_thread(server.stop)
    await locker.close()
    assert server.process.returncode == 0


async def test_a_request_that_runs_is_finished_before_the_end(start: Start, database: str, schema: str) -> None:
    async with hanging(start, database, schema, "10") as (server, connection, locker):
        server.terminate()
        await asyncio.sleep(0.5)
        with pytest.raises(OSError):
            connect(server.url)
        await locker.close()
        assert b'{"deleted":0}' in await asyncio.to_thread(read_all, connection)


@pytest.mark.parametrize("hurried", [False, True], ids=["in time", "before a second Ctrl-C"])
async def test_what_does_not_finish_is_answered(start: Start, database: str, schema: str, hurried: bool) -> None:
    async with hanging(start, database, schema, "600" if hurried else "1") as (server, connection, _):
        server.terminate(signal.SIGINT if hurried else signal.SIGTERM)
        if hurried:
            await asyncio.sleep(0.5)
            os.kill(server.process.pid, signal.SIGINT)
        head, _, body = (await asyncio.to_thread(read_all, connection)).partition(b"\r\n\r\n")
        assert b" 503 " in head.partition(b"\r\n")[0]
        assert json.loads(body)["error"]["code"] == "provider_unavailable"
