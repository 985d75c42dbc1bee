"""Both clients send the same bytes, and neither needs anything of its caller to be gentle with the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from raw_server import RECORD, RawServer, Request, answer
from waiting import until

from openproto import AsyncMemory, Memory

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FILTERS: dict[str, Any] = {"scope": "kitchen", "tag": "drink", "as_of": NOON}

CALLS: dict[str, Callable[[Any], Any]] = {
    "add": lambda m: m.add("tea", user_id="ann", scope="kitchen", tags=["a"], x_raw={"n": 1}, idempotency_key="k"),
    "get": lambda m: m.get("1", user_id="ann"),
    "update": lambda m: m.update("1", user_id="ann", content="milk", scope=None),
    "delete": lambda m: m.delete("1", user_id="ann"),
    "list": lambda m: m.list("ann", since=NOON, limit=7, **FILTERS),
    "search": lambda m: m.search("tea", "ann", limit=7, min_score=0.25, **FILTERS),
    "context": lambda m: m.context("tea", "ann", token_budget=7, **FILTERS),
    "audit": lambda m: m.audit("ann", app="notes", memory_id="1", since=NOON, limit=7),
    "add_many": lambda m: m.add_many([{"content": "tea", "user_id": "ann", "idempotency_key": "k"}]),
    "delete_all": lambda m: m.delete_all("ann", scope="kitchen", tag="drink"),
    "health": lambda m: m.health(),
}
ANSWERS = {
    "POST /memories": answer(RECORD, 201),
    "GET /memories/1": answer(RECORD),
    "PATCH /memories/1": answer(RECORD),
    "DELETE /memories/1": answer(b"", 204),
    "GET /memories": answer({"items": [RECORD]}),
    "POST /memories/search": answer({"results": [{"memory": RECORD, "score": 0.5}]}),
    "POST /context": answer({"text": "", "citations": [], "token_count": 0}),
    "GET /audit": answer({"entries": []}),
    "POST /memories/batch": answer({"outcomes": [{"status": 201, "memory": RECORD}]}, 207),
    "DELETE /memories": answer({"deleted": 1}),
    "GET /healthz": answer({"status": "ok"}),
}


def sent(request: Request) -> tuple[str, str, dict[str, bytes], bytes]:
    """The whole request but for its id and the port that the server happened to get."""
    headers = {name: value for name, value in request.headers.items() if name not in ("x-request-id", "host")}
    return request.method, request.target, headers, request.body


@pytest.mark.promise(1)
@pytest.mark.promise(26)
@pytest.mark.parametrize("name", CALLS)
async def test_both_clients_send_the_same_bytes_and_return_the_same(name: str) -> None:
    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        return ANSWERS[request.route]

    def synchronously(url: str) -> Any:
        with Memory("passthrough", base_url=url, retries=0) as memory:
            return CALLS[name](memory)

    async with RawServer(handle) as server:
        async with AsyncMemory("passthrough", base_url=server.url, retries=0) as memory:
            one = await CALLS[name](memory)
        two = await asyncio.to_thread(synchronously, server.url)
        first, second = server.requests
    assert sent(first) == sent(second)
    assert one == two


class Counting:
    """A backend that takes its time and knows how many calls it was working on at once."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.go = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
            await asyncio.sleep(0.001)
        finally:
            self.running -= 1
        return answer({**RECORD, "content": request.json["content"]}, 201)


@pytest.mark.promise(6)
@pytest.mark.promise(120)
async def test_max_concurrency_bounds_what_the_backend_works_on_whatever_its_pool_would_allow() -> None:
    backend = Counting()
    async with RawServer(backend) as server, server.client(max_concurrency=8, max_connections=50) as client:
        adds = [asyncio.create_task(client.add(f"note {n}", user_id="ann")) for n in range(100)]
        await until(lambda: backend.running == 8)
        backend.go.set()
        assert [record.content for record in await asyncio.gather(*adds)] == [f"note {n}" for n in range(100)]
    assert backend.most == 8


@pytest.mark.promise(3)
@pytest.mark.promise(7)
@pytest.mark.promise(25)
async def test_250_tasks_without_a_semaphore_all_end_well_on_few_sockets_and_without_a_thread() -> None:
    backend = Counting()
    async with RawServer(backend) as server, server.client() as client:
        assert (await client.capabilities()).x_openproto.cancellation == "native"
        threads = threading.active_count()
        adds = [asyncio.create_task(client.add(f"note {n}", user_id="ann")) for n in range(250)]
        await until(lambda: backend.running == 16)
        assert threading.active_count() <= threads
        backend.go.set()
        assert [record.content for record in await asyncio.gather(*adds)] == [f"note {n}" for n in range(250)]
        assert threading.active_count() <= threads
    assert (backend.most, server.most) == (16, 16)
