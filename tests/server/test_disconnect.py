"""A client that goes away cancels its request, down to the database's query; real uvicorn, real TCP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest
from server_tools import LONG, Serve, connect, scripted_app

from openproto import AsyncMemory
from openproto.server import ServerSettings, create_app

RUNNING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'openproto' AND state <> 'idle'"
)

REQUESTS = {
    "GET": b"GET /memories/01a1fcb2-db6a-80a5-874a-ae1815131932?user_id=ada HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST": b"POST /memories/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 28\r\n\r\n{"q": "tea","user_id":"ada"}',
    "DELETE": b"DELETE /memories?user_id=ada HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.promise(14)
@pytest.mark.parametrize("method", REQUESTS)
async def test_closing_the_connection_ends_the_query_in_the_database(
    serve: Serve, database: str, schema: str, method: str
) -> None:
    memory = AsyncMemory("postgres", url=database, schema=schema, embedder="none")
    client = await asyncio.to_thread(serve, create_app(memory, ServerSettings()))
    watcher, locker = [await asyncpg.connect(database) for _ in range(2)]
    try:
        await locker.execute(f"BEGIN; LOCK TABLE {schema}.memories")
        connection = connect(client.base_url)
        connection.sendall(REQUESTS[method])
        await _until(watcher, lambda count: count == 1)
        await asyncio.sleep(0.2)  # it runs, and goes on running
        assert await watcher.fetchval(RUNNING) == 1
        connection.close()
        await _until(watcher, lambda count: count == 0)
        await locker.execute("ROLLBACK")
        answer = await asyncio.to_thread(client.get, "/memories", params={"user_id": "ada"})
        assert answer.json() == {"items": []}
    finally:
        await watcher.close()
        await locker.close()


async def _until(watcher: Any, seen: Callable[[int], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not seen(count := await watcher.fetchval(RUNNING)):
        assert time.monotonic() < deadline, f"{count} queries run"
        await asyncio.sleep(0.01)


def test_a_client_that_stays_is_not_cancelled(serve: Serve) -> None:
    provider, app = scripted_app()
    with connect(serve(app).base_url) as connection:
        connection.sendall(REQUESTS["GET"])
        assert provider.asked.wait(LONG)
        assert not provider.cancelled.wait(0.5)
    assert provider.cancelled.wait(LONG)


def test_leaving_in_the_middle_of_a_body_stores_nothing(client: httpx.Client) -> None:
    with connect(client.base_url) as connection:
        connection.sendall(
            b"POST /memories HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n"
            b'{"content": "tea", "user_id": "ada"}'
        )
    assert client.get("/memories", params={"user_id": "ada"}).json() == {"items": []}
