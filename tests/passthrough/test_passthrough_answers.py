"""What comes back: every refusal typed, every nonsense a ProviderError, and nothing of another user."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from openproto_adapters.passthrough import answers, transport
from raw_server import RECORD, RawServer, Request, always, answer, refusal

from openproto import AsyncMemory, errors

BOB = {**RECORD, "user_id": "bob"}
ENTRY = {"timestamp": "2026-01-31T12:00:00Z", "action": "add", "user_id": "bob"}
Call = Callable[[AsyncMemory], Any]


async def error_of(reply: bytes, call: Call = lambda c: c.get("1"), **options: Any) -> errors.OpenProtoError:
    async with RawServer(always(reply)) as server, server.client(**options) as client:
        with pytest.raises(errors.OpenProtoError) as caught:
            await call(client)
    return caught.value


async def test_an_envelope_is_read_as_far_as_it_goes() -> None:
    for code in errors.ERROR_CODES:
        error = await error_of(refusal(code, 418, "the server's own words", x_request_id="req-1"))
        assert (error.code, error.message) == (code, "the server's own words")
        assert (error.provider, error.request_id) == ("raw", "req-1")
    fault = {"code": "not_found", "message": "x", "type": "not_found", "provider": "inner", "request_id": "inner-1"}
    error = await error_of(answer({"error": fault}, 404, x_request_id="outer-1"))
    assert (type(error), error.provider, error.request_id) == (errors.NotFoundError, "inner", "inner-1")
    error = await error_of(refusal("memory_asleep", 503))
    assert (type(error), error.code) == (errors.ProviderError, "memory_asleep")  # a code of a newer server is kept
    fault = {"code": "rate_limited", "message": "slow", "type": "rate_limited", "x-openproto": {"retry_after": 0.25}}
    assert (await error_of(answer({"error": fault}, 429, retry_after=1))).retry_after == 0.25
    assert len((await error_of(refusal("conflict", 409, "x" * 10**6))).message) == answers.LONGEST_MESSAGE


STATUSES: dict[type[errors.OpenProtoError], tuple[int, ...]] = {
    errors.InvalidRequestError: (400, 422),
    errors.UnauthorizedError: (401,),
    errors.ScopeDeniedError: (403,),
    errors.NotFoundError: (404,),
    errors.ConflictError: (409,),
    errors.PayloadTooLargeError: (413,),
    errors.RateLimitedError: (429,),
    errors.ProviderError: (405, 418, 500, 502),
    errors.ProviderUnavailableError: (503,),
    errors.ProviderTimeoutError: (504,),
}


@pytest.mark.parametrize(
    "body", [b"<html>no</html>", b"", b'{"error": "text"}', b'{"error": {"code": 7}}', b"[" * 9999]
)
async def test_without_an_envelope_the_status_decides(body: bytes) -> None:
    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        return answer(body, int(request.target.rpartition("/")[2]), content_type="text/html", retry_after=7)

    async with RawServer(handle) as server, server.client() as client:
        for status, kind in ((status, kind) for kind, statuses in STATUSES.items() for status in statuses):
            with pytest.raises(errors.OpenProtoError, match=str(status)) as caught:
                await client.get(str(status))
            assert (type(caught.value), caught.value.retry_after) == (kind, 7)


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("https://elsewhere.example/memories/1?user_id=ann", "https://elsewhere.example,"),
        ("http://user:hunter2@elsewhere.example/", "http://elsewhere.example,"),
        ("//other.example/x", "http://other.example,"),
        ("/login", "http://127.0.0.1"),
        ("http://[::1", "an address that is none"),
    ],
)
async def test_a_redirect_is_not_followed_and_says_where_to(location: str, named: str) -> None:
    async with RawServer(always(answer(RECORD))) as elsewhere:
        for status in (301, 302, 307, 308):
            target = location.replace("https://elsewhere.example", elsewhere.url) if status == 308 else location
            error = await error_of(answer(b"", status, location=target), api_key="hunter3")
            assert type(error) is errors.ProviderError
            assert status == 308 or named in error.message
            assert "base_url=" in error.message
            assert "hunter" not in error.message
    assert elsewhere.connections == 0


CALLS: dict[str, tuple[Call, int, Any]] = {
    "add": (lambda c: c.add("tea", user_id="ann"), 201, RECORD),
    "get": (lambda c: c.get("1", user_id="ann"), 200, RECORD),
    "update": (lambda c: c.update("1", user_id="ann", content="x"), 200, RECORD),
    "list": (lambda c: c.list("ann"), 200, {"items": [RECORD]}),
    "search": (lambda c: c.search("tea", "ann"), 200, {"results": [{"memory": RECORD, "score": 0.5}]}),
    "context": (lambda c: c.context("tea", "ann"), 200, {"text": "t", "citations": [], "token_count": 1}),
    "audit": (lambda c: c.audit("ann"), 200, {"entries": [{**ENTRY, "user_id": "ann"}]}),
    "delete": (lambda c: c.delete("1"), 204, b""),
    "delete_all": (lambda c: c.delete_all("ann"), 200, {"deleted": 1}),
}
NONSENSE = {
    "html": b"<!doctype html><html><body>Sign in</body></html>",
    "nothing": b"",
    "truncated": b'{"id": "1", "content": "te',
    "null": b"null",
    "list": b"[]",
    "text": b'"ok"',
    "nested lists": b"[" * 10_000_000,
    "nested extension": b'{"id":"1","x-deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not utf-8": b'{"id": "\xff\xfe"}',
    "wrong types": b'{"id": 1, "content": [], "user_id": {}, "created_at": "yesterday", "items": 1, "results": 1, '
    b'"entries": 1, "deleted": "x", "text": 1, "citations": 1, "token_count": "x"}',
    "wrong members": b'{"items": [1], "results": [{"memory": null, "score": "x"}], "entries": [[]], "deleted": -1, '
    b'"text": null, "citations": [1], "token_count": null}',
    "naive moment": b'{"id": "1", "content": "x", "user_id": "ann", "created_at": "2026-01-31T12:00:00"}',
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_is_a_provider_error_for_every_verb(body: bytes) -> None:
    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        return answer(body, 201 if request.route == "POST /memories" else 200, content_type="text/html")

    async with RawServer(handle) as server, server.client() as client:
        for verb, (call, _, _) in CALLS.items():
            with pytest.raises(errors.ProviderError, match="200" if verb == "delete" else "text/html") as caught:
                await call(client)
            assert type(caught.value) is errors.ProviderError, verb
            assert len(caught.value.message) < 500
        for outcome in await client.add_many([{"content": "tea", "user_id": "ann"}]):
            assert type(outcome) is errors.ProviderError


@pytest.mark.parametrize("verb", CALLS)
async def test_the_right_answer_under_another_status_is_a_provider_error(verb: str) -> None:
    call, success, body = CALLS[verb]
    for status in {200, 201, 202, 203, 206, 207} - {success}:
        error = await error_of(answer(body, status), call)
        assert (type(error), str(status) in error.message) == (errors.ProviderError, True)
    async with RawServer(always(answer(body, success))) as server, server.client() as client:
        await call(client)


async def test_a_row_of_another_user_is_never_passed_on() -> None:
    for verb, body in (
        *((verb, BOB) for verb in ("add", "get", "update")),
        ("list", {"items": [RECORD, BOB]}),
        ("search", {"results": [{"memory": RECORD, "score": 1}, {"memory": BOB, "score": 0.5}]}),
        ("audit", {"entries": [ENTRY]}),
    ):
        call, success, _ = CALLS[verb]
        error = await error_of(answer(body, success), call)
        assert (type(error), "another user" in error.message) == (errors.ProviderError, True), verb
    item = {"content": "tea", "user_id": "ann"}
    for second in ([{"status": 201, "memory": BOB}], [], [{"status": 201}]):
        reply = answer({"outcomes": [{"status": 201, "memory": RECORD}, *second]}, 207)
        async with RawServer(always(reply)) as server, server.client() as client:
            _, outcome = await client.add_many([item, item])
        assert type(outcome) is errors.ProviderError


async def test_a_cursor_that_leads_to_itself_does_not_go_round_for_ever() -> None:
    async def every(client: AsyncMemory) -> None:
        assert [record async for record in client.iter("ann")]

    error = await error_of(answer({"items": [RECORD], "next_cursor": "same"}), every)
    assert (type(error), "no end" in error.message) == (errors.ProviderError, True)


async def test_an_answer_may_be_compressed_but_not_broken() -> None:
    reply = answer(gzip.compress(b'{"items": [], "padding": "%b"}' % (b"x" * 10**6)), content_encoding="gzip")
    async with RawServer(always(reply)) as server, server.client() as client:
        assert (await client.list("ann")).items == []
    assert server.requests[0].headers["accept-encoding"] == b"gzip"
    assert type(await error_of(answer(b"no gzip at all", content_encoding="gzip"))) is errors.ProviderError


async def test_a_204_with_a_body_spoils_nothing_that_comes_after() -> None:
    """HTTP has no such answer: what stands behind the head must not become the start of the next one."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        return answer(RECORD, 204 if request.target == "/memories/odd" else 200)

    async with RawServer(handle) as server, server.client() as client:
        for _ in range(3):
            with pytest.raises(errors.ProviderError):
                await client.get("odd")
            assert (await client.get("1")).id == "1"


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LARGEST_ANSWER", 2**20)
    sent = 0

    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes | None:
        nonlocal sent
        if request.route == "GET /healthz":
            packer = zlib.compressobj(wbits=31)
            return answer(packer.compress(b" " * 2**25) + packer.flush(), content_encoding="gzip")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:
            writer.write(b" " * 2**16)
            await writer.drain()
            sent += 2**16

    async with RawServer(handle) as server, server.client() as client:
        with pytest.raises(errors.ProviderError, match="larger than 1 MiB"):
            await client.get("1")
        assert "larger than 1 MiB" in ((await client.health()).detail or "")
    assert sent < 2**26


@pytest.mark.parametrize(
    "capabilities",
    [b"<html>", b"{}", b'{"verbs": []}', b'{"provider": 1, "verbs": ["add"]}', b'{"provider": "x", "verbs": "add"}'],
)
async def test_what_is_not_an_omp_server_is_named_at_entry(capabilities: bytes) -> None:
    reply = answer(capabilities, content_type="text/html")
    async with RawServer(always(answer(RECORD)), capabilities=reply) as server:
        with pytest.raises(errors.ProviderError, match="is base_url= the root of an OMP server"):
            await server.client().get("1")


@pytest.mark.parametrize(
    ("reply", "status", "detail"),
    [
        (refusal("provider_unavailable", 503, "the disk is full"), "unavailable", "the disk is full"),
        (answer({"status": "ok"}), "ok", ""),
        (answer(b"<html>Welcome</html>"), "unavailable", ""),
    ],
)
async def test_a_server_that_is_unwell_says_so_through_health(reply: bytes, status: str, detail: str) -> None:
    async with RawServer(always(reply)) as server, server.client() as client:
        health = await client.health()
    assert (health.status, detail in (health.detail or "")) == (status, True)


async def test_a_context_is_never_longer_than_the_clients_own_counter_allows() -> None:
    """A server that counts otherwise, or a counter that cannot travel: the block is built here."""
    long = {"text": "much too long " * 100, "citations": [], "token_count": 3}
    found = {"results": [{"memory": {**RECORD, "content": "green tea"}, "score": 0.5}], "items": []}

    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        return answer(long if request.route == "POST /context" else found)

    async with RawServer(handle) as server:
        async with server.client() as client:
            block = await client.context("tea", "ann", token_budget=10)
        assert (block.text, block.token_count) == ("green tea [1]", 4)
        async with server.client(token_counter=len) as client:
            block = await client.context("tea", "ann", token_budget=20)
        assert (block.text, block.token_count) == ("green tea [1]", 13)
    built_here = ["POST /memories/search", "GET /memories"]
    assert [request.route for request in server.requests] == ["POST /context", *built_here, *built_here]
    short = {"text": "green tea [1]", "citations": [{"memory_id": "1", "score": 0.5}], "token_count": 99}
    async with RawServer(always(answer(short))) as server, server.client() as client:
        assert (await client.context("tea", "ann")).token_count == 4  # the client's own count
