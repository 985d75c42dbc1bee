"""SIGTERM: nothing new is taken, what runs is finished within a deadline, and no acknowledged write is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from server_tools import LONG, Process, connect, read_all

from openproto import AsyncMemory

Start = Callable[..., Process]


@pytest.mark.parametrize(("workers", "sent"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
async def test_no_acknowledged_write_is_lost_when_the_server_is_stopped_under_load(
    start: Start, tmp_path: Path, workers: str, sent: signal.Signals
) -> None:
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
            await asyncio.sleep(0.01)
        server.terminate(sent)
        await asyncio.gather(*writers)
    log = await asyncio.to_thread(server.stop)
    assert server.process.returncode == 0
    assert "Traceback" not in log
    async with AsyncMemory("sqlite", path=path, embedder="none") as memory:
        stored = {record.id async for record in memory.iter("ada", page_size=500)}
    assert acknowledged <= stored


async def test_a_request_that_runs_is_finished_before_the_end(start: Start, database: str, schema: str) -> None:
    server, locker = await _hanging(start, database, schema, "10")
    with connect(server.url) as connection:
        connection.sendall(b"DELETE /memories?user_id=ada HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.5)
        server.terminate()
        await asyncio.sleep(0.5)
        with pytest.raises(OSError):
            connect(server.url)
        await locker.close()
        assert b'{"deleted":0}' in await asyncio.to_thread(read_all, connection)
    await asyncio.to_thread(server.stop)
    assert server.process.returncode == 0


async def test_what_does_not_finish_by_the_deadline_is_cancelled_and_answered(
    start: Start, database: str, schema: str
) -> None:
    server, locker = await _hanging(start, database, schema, "1")
    with connect(server.url) as connection:
        connection.sendall(b"DELETE /memories?user_id=ada HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.5)
        server.terminate()
        answer = await asyncio.to_thread(read_all, connection)
    assert b" 503 " in answer.partition(b"\r\n")[0]
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "provider_unavailable"
    await asyncio.to_thread(server.stop)
    await locker.close()
    assert server.process.returncode == 0


async def test_a_second_ctrl_c_ends_at_once(start: Start, database: str, schema: str) -> None:
    server, locker = await _hanging(start, database, schema, "600")
    with connect(server.url) as connection:
        connection.sendall(b"DELETE /memories?user_id=ada HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.5)
        for _ in range(2):
            os.kill(server.process.pid, signal.SIGINT)
            await asyncio.sleep(0.5)
        assert b" 503 " in (await asyncio.to_thread(read_all, connection)).partition(b"\r\n")[0]
    log = await asyncio.to_thread(server.process.communicate, timeout=LONG)
    await locker.close()
    assert "Traceback" not in log[1]
    assert server.process.returncode == 0


async def _hanging(start: Start, database: str, schema: str, deadline: str) -> tuple[Process, Any]:
    """Return a server whose every statement hangs until the returned connection is closed."""
    environment = {"OPENPROTO_PROVIDER": "postgres", "OPENPROTO_URL": database, "OPENPROTO_SCHEMA": schema}
    server = await asyncio.to_thread(start, "--shutdown-timeout", deadline, **environment)
    locker = await asyncpg.connect(database)
    await locker.execute(f"BEGIN; LOCK TABLE {schema}.memories")
    return server, locker
