"""Both clients send the same bytes, and few of them at once, without any help of their caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl

import pytest
from raw_server import RECORD, RawServer, Request, always, answer
from waiting import until

from openproto import AsyncMemory, Memory

MOMENT = datetime(2026, 1, 31, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
TIME = "2026-01-31T12:00:00.123456"
FILTERS: dict[str, Any] = {"scope": "x/+ y", "tag": "50%", "as_of": MOMENT}
WHOLE: dict[str, Any] = {"content": "tea 🍵\n", "user_id": "a&b", "scope": "kitchen/shelf", "tags": ["a", "b"]}
WHOLE |= {"source": {"app": "notebook", "type": "explicit"}, "confidence": 0.1, "supersedes": ["0"]}
ANN = {"user_id": "a&b"}
DEEP = {"deep": [{"n": 2**60}]}
MINE: dict[str, Any] = {**RECORD, "user_id": "a&b"}

CALLS: dict[str, tuple[Callable[[Any], Any], str, dict[str, Any], bytes]] = {
    "add": (
        lambda m: m.add(**WHOLE, valid_from=MOMENT, x_note=DEEP, idempotency_key="ключ 日本 100%"),
        "POST /memories",
        {**WHOLE, "valid_from": f"{TIME}Z", "x-note": DEEP},
        answer(MINE, 201),
    ),
    "get": (lambda m: m.get("1", user_id="a&b"), "GET /memories/1", ANN, answer(MINE)),
    "update": (
        lambda m: m.update("1", user_id="a&b", scope=None, tags=[], valid_to=MOMENT),
        "PATCH /memories/1",
        {**ANN, "scope": None, "tags": [], "valid_to": f"{TIME}Z"},
        answer(MINE),
    ),
    "delete": (lambda m: m.delete("1", user_id="a&b"), "DELETE /memories/1", ANN, answer(b"", 204)),
    "list": (
        lambda m: m.list("a&b", since=MOMENT, until=MOMENT, limit=7, cursor="c=", **FILTERS),
        "GET /memories",
        {**ANN, **FILTERS, "limit": "7", "cursor": "c=", **dict.fromkeys(("since", "until", "as_of"), f"{TIME}+00:00")},
        answer({"items": [MINE], "next_cursor": None}),
    ),
    "list everything": (
        lambda m: m.list("a&b", scope="*"),
        "GET /memories",
        {**ANN, "limit": "50"},
        answer({"items": []}),
    ),
    "search": (
        lambda m: m.search("my diagnosis", "a&b", limit=3, min_score=0.25, **FILTERS),
        "POST /memories/search",
        {**ANN, **FILTERS, "q": "my diagnosis", "limit": 3, "min_score": 0.25, "as_of": f"{TIME}Z"},
        answer({"results": [{"memory": MINE, "score": 0.5}]}),
    ),
    "context": (
        lambda m: m.context("tea", "a&b", token_budget=7, **FILTERS),
        "POST /context",
        {**ANN, **FILTERS, "query": "tea", "token_budget": 7, "as_of": f"{TIME}Z"},
        answer({"text": "", "citations": [], "token_count": 0}),
    ),
    "audit": (
        lambda m: m.audit("a&b", app="notes", memory_id="1", since=MOMENT, limit=9),
        "GET /audit",
        {**ANN, "app": "notes", "memory_id": "1", "since": f"{TIME}+00:00", "limit": "9"},
        answer({"entries": []}),
    ),
    "add_many": (
        lambda m: m.add_many([{"content": "tea", "user_id": "a&b", "idempotency_key": "k"}]),
        "POST /memories/batch",
        {"items": [{"content": "tea", "user_id": "a&b", "idempotency_key": "k"}]},
        answer({"outcomes": [{"status": 201, "memory": MINE}]}, 207),
    ),
    "delete_all": (
        lambda m: m.delete_all("a&b", scope="x/+ y", tag="50%"),
        "DELETE /memories",
        {**ANN, "scope": "x/+ y", "tag": "50%"},
        answer({"deleted": 3}),
    ),
    "health": (lambda m: m.health(), "GET /healthz", {}, answer({"status": "ok"})),
}
"""What is called, the route and what arrives with it, and the answer."""


def sent(request: Request) -> tuple[str, str, dict[str, bytes], bytes]:
    """The whole request but for its id and the port that the server happened to get."""
    headers = {name: value for name, value in request.headers.items() if name not in ("x-request-id", "host")}
    return request.method, request.target, headers, request.body


@pytest.mark.promise(1, 26)
@pytest.mark.parametrize("name", CALLS)
async def test_both_clients_send_the_same_request_as_it_was_given_and_return_the_same(name: str) -> None:
    call, route, arriving, reply = CALLS[name]

    def synchronously(url: str) -> Any:
        with Memory("passthrough", base_url=url, retries=0) as memory:
            return call(memory)

    async with RawServer(always(reply)) as server:
        async with AsyncMemory("passthrough", base_url=server.url, retries=0) as memory:
            one = await call(memory)
        two = await asyncio.to_thread(synchronously, server.url)
        first, second = server.requests
    assert sent(first) == sent(second)
    assert one == two
    method, query = first.method, first.target.partition("?")[2]
    assert (first.route, {**dict(parse_qsl(query)), **(first.json if first.body else {})}) == (route, arriving)
    assert (bool(first.body), bool(query and method == "POST")) == (method in ("POST", "PATCH"), False)
    key = first.headers.get("idempotency-key", b"").decode()
    assert key == ("ключ 日本 100%" if name == "add" else "")


@pytest.mark.promise(3, 4, 7, 25, 37)
@pytest.mark.parametrize(("options", "sockets", "count"), [({}, 16, 250), ({"max_connections": 5}, 5, 1000)])
async def test_hundreds_of_tasks_without_a_semaphore_all_end_well_on_few_sockets_and_without_a_thread(
    options: dict[str, int], sockets: int, count: int
) -> None:
    """Whose backend takes its time, and counts how many calls it was working on at once."""
    running = most = 0
    go = asyncio.Event()

    async def backend(request: Request, writer: asyncio.StreamWriter) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        await asyncio.sleep(0.001)
        running -= 1
        return answer({**RECORD, "content": request.json["content"]}, 201)

    async with RawServer(backend) as server, server.client(**options) as client:
        assert (await client.capabilities()).x_openproto.cancellation == "native"
        threads = threading.active_count()
        adds = [asyncio.create_task(client.add(f"note {n}", user_id="ann")) for n in range(count)]
        await until(lambda: running == sockets)
        assert threading.active_count() <= threads
        go.set()
        assert [record.content for record in await asyncio.gather(*adds)] == [f"note {n}" for n in range(count)]
        assert threading.active_count() <= threads
    assert (most, server.most, server.connections) == (sockets, sockets, sockets)
