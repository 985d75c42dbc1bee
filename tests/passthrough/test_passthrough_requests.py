"""What arrives at the server: paths and headers that no value breaks out of, batches, and nothing undeclared.

Both clients send the same bytes, and few of them at once, without any help of their caller.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from openproto_adapters.passthrough import Passthrough
from raw_server import CAPABILITIES, RECORD, RawServer, Request, always, answer
from waiting import until

from openproto import AsyncMemory, Memory, NotFoundError, OpenProtoError, PayloadTooLargeError

KEY = "ключ 日本 100%"
NASTY = [
    *"../capabilities ../../etc/passwd a/b a?user_id=bob a#b %2F %2e%2e a&b=c+d ünï/日本 a\\b a;b a:b@c ... //".split(),
    *("a b", " a ", "a\r\nX-Evil: 1", "'\"<>|^`{}[]", "\x7f"),
]


async def test_an_id_stays_one_segment_of_the_path() -> None:
    for id in NASTY:
        async with RawServer(always(answer({**RECORD, "user_id": id}))) as server, server.client() as client:
            await client.get(id)
            await client.get(id, user_id=id)
        without, with_user = server.requests
        path, _, query = with_user.target.partition("?")
        assert (unquote(path.removeprefix("/memories/")), path.count("/"), without.target) == (id, 2, path)
        assert parse_qsl(query, keep_blank_values=True) == [("user_id", id)]
        assert "#" not in with_user.target
        assert "x-evil" not in with_user.headers


async def test_an_id_that_no_url_can_name_is_not_found_and_not_sent() -> None:
    """However it is escaped, `..` is a step up: a DELETE of it would reach the route above, and delete everything."""
    async with RawServer(always(answer({"deleted": 1}))) as server, server.client() as client:
        for id in (".", "..", "search", "batch", "by-key", "restore"):
            for call in (client.get(id), client.update(id, content="x"), client.delete(id, user_id="ann")):
                with pytest.raises(NotFoundError):
                    await call
    assert server.requests == []


async def test_a_base_url_may_have_a_path() -> None:
    async with RawServer(always(answer(RECORD))) as server:
        # The hand-made server knows /capabilities at the root alone, so what is asked for shows in the refusal.
        with pytest.raises(OpenProtoError):
            await AsyncMemory(Passthrough(f"{server.url}/omp/v1/"), retries=0).get("1")
    assert [request.target for request in server.requests] == ["/omp/v1/capabilities"]


async def test_the_app_and_the_request_id_travel() -> None:
    async with RawServer(always(answer(RECORD))) as server:
        for app in ("editor", "Schlüssel 日本", "a\r\nX-Evil: 1", " blank ", None):
            async with server.client(app=app) as client:
                await client.get("1")
        provider = Passthrough(server.url)  # one without a client has no request id to send
        await provider.open()
        await provider.health()
        await provider.close()
    *requests, health = server.requests
    assert (health.target, "x-request-id" in health.headers) == ("/healthz", False)
    apps = [request.headers.get("x-omp-app") for request in requests]
    assert apps == [b"editor", "Schlüssel 日本".encode(), b"a%0D%0AX-Evil%3A%201", b"%20blank%20", None]
    assert not any("x-evil" in request.headers for request in server.requests)
    ids = {request.headers["x-request-id"] for request in requests}
    assert (len(ids), {len(id) for id in ids}) == (len(requests), {16})


async def test_a_key_that_no_header_can_hold_goes_into_a_batch_of_one() -> None:
    outcome = {"outcomes": [{"status": 201, "memory": RECORD}]}
    async with RawServer(always(answer(outcome, 207))) as server, server.client() as client:
        for key in ("a\nb", "a\r\nX-Evil: 1", " a ", "\u200b"):
            assert (await client.add("tea", user_id="ann", idempotency_key=key)).id == "1"
            assert server.requests[-1].route == "POST /memories/batch"
            assert server.requests[-1].json["items"][0]["idempotency_key"] == key


async def echo(request: Request, writer: asyncio.StreamWriter) -> bytes:
    """Store each item of a batch under its own content."""
    if request.route != "POST /memories/batch":
        return answer({**RECORD, **request.json, "id": request.json["content"]}, 201)
    stored = [{**RECORD, "user_id": item["user_id"], "id": item["content"]} for item in request.json["items"]]
    return answer({"outcomes": [{"status": 201, "memory": memory} for memory in stored]}, 207)


async def test_batches_stay_below_the_servers_limit_and_only_what_is_too_large_alone_is_refused() -> None:
    long = "日" * 100_000
    items: list[dict[str, Any]] = [{"content": f"{n}", "user_id": "ann", "x-page": long} for n in range(8)]
    items.insert(3, {"content": "huge", "user_id": "ann", "x-page": long * 4})
    async with RawServer(echo) as server, server.client() as client:
        outcomes = await client.add_many(items)
    assert max(len(request.body) for request in server.requests) <= 2**20
    assert len(server.requests) <= 4
    assert isinstance(outcomes.pop(3), PayloadTooLargeError)
    assert [getattr(outcome, "id", outcome) for outcome in outcomes] == [f"{n}" for n in range(8)]


async def test_the_capabilities_are_the_servers_asked_for_once() -> None:
    declared = {**CAPABILITIES, "features": {"temporal": True}, "limits": {"max_search_results": 20}, "motto": "x"}
    declared |= {"x-openproto": {"support": {"add": "native"}, "cancellation": "detached"}, "omp_version": "0.7"}
    async with RawServer(always(answer(RECORD)), capabilities=answer(declared)) as server, server.client() as client:
        server.capabilities = answer({"nonsense": True})
        found = await client.capabilities()
        await client.get("1")
        assert await client._session.provider.describe() == {"server": server.url, "OMP": "0.7"}
    assert (found.provider, found.features.temporal, found.limits.max_search_results) == ("raw", True, 20)
    assert (found.x_openproto.support, found.x_openproto.cancellation) == ({"add": "native"}, "native")
    assert found.to_wire()["motto"] == "x"


MOMENT = datetime(2026, 1, 31, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
FILTERS: dict[str, Any] = {"scope": "x/+ y", "tag": "50%", "as_of": MOMENT}
WHOLE: dict[str, Any] = {"content": "tea 🍵\n", "user_id": "a&b", "scope": "kitchen/shelf", "tags": ["a", "b"]}
WHOLE |= {"source": {"app": "notebook", "type": "explicit"}, "confidence": 0.1, "valid_from": MOMENT}

CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "POST /memories": (
        lambda m: m.add(**WHOLE, supersedes=["0"], x_note={"n": 2**60}, idempotency_key=KEY),
        "content user_id scope tags source confidence valid_from supersedes x-note",
    ),
    "GET /memories/1": (lambda m: m.get("1", user_id="a&b"), "user_id"),
    "PATCH /memories/1": (
        lambda m: m.update("1", user_id="a&b", scope=None, tags=[], valid_to=MOMENT),
        "user_id scope tags valid_to",
    ),
    "DELETE /memories/1": (lambda m: m.delete("1", user_id="a&b"), "user_id"),
    "GET /memories": (
        lambda m: m.list("a&b", since=MOMENT, until=MOMENT, limit=7, cursor="c=", **FILTERS),
        "user_id scope tag as_of since until limit cursor",
    ),
    "POST /memories/search": (
        lambda m: m.search("my diagnosis", "a&b", limit=3, min_score=0.25, **FILTERS),
        "user_id scope tag as_of q limit min_score",
    ),
    "POST /context": (
        lambda m: m.context("tea", "a&b", token_budget=7, **FILTERS),
        "user_id scope tag as_of query token_budget",
    ),
    "DELETE /memories": (lambda m: m.delete_all("a&b", scope="x/+ y", tag="50%"), "user_id scope tag"),
    "GET /healthz": (lambda m: m.health(), ""),
}
"""The route, what is called, and the names of what arrives: of each way to make a request, one."""


async def succeed(request: Request, writer: asyncio.StreamWriter) -> bytes:
    """Answer any request with what all answers have in them."""
    found = {"items": [], "results": [], "deleted": 3, "status": "ok", "text": "", "citations": [], "token_count": 0}
    status = {"POST /memories": 201, "DELETE /memories/1": 204}.get(request.route, 200)
    return answer(b"" if status == 204 else {**RECORD, "user_id": "a&b", **found}, status)


def sent(request: Request) -> tuple[str, str, dict[str, bytes], bytes]:
    """The whole request but for its id and the port that the server happened to get."""
    headers = {name: value for name, value in request.headers.items() if name not in ("x-request-id", "host")}
    return request.method, request.target, headers, request.body


@pytest.mark.parametrize("route", CALLS)
async def test_both_clients_send_the_same_request_as_it_was_given_and_return_the_same(route: str) -> None:
    """What a server makes of the values, the suite says in tests/conformance."""
    call, names = CALLS[route]

    def synchronously(url: str) -> Any:
        with Memory("passthrough", base_url=url, retries=0) as memory:
            return call(memory)

    async with RawServer(succeed) as server:
        async with AsyncMemory("passthrough", base_url=server.url, retries=0) as memory:
            one = await call(memory)
        two = await asyncio.to_thread(synchronously, server.url)
        first, second = server.requests
    assert sent(first) == sent(second)
    assert one == two
    query = first.target.partition("?")[2]
    arriving = {**dict(parse_qsl(query)), **(first.json if first.body else {})}
    assert (first.route, {*arriving}) == (route, {*names.split()})
    assert (bool(first.body), bool(query and first.method == "POST")) == (route[0] == "P", False)
    key = first.headers.get("idempotency-key", b"").decode()
    assert key == (KEY if route == "POST /memories" else "")


@pytest.mark.parametrize(("options", "sockets", "count"), [({}, 16, 250), ({"max_connections": 5}, 5, 1000)])
async def test_hundreds_of_tasks_share_few_sockets(options: dict[str, int], sockets: int, count: int) -> None:
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
