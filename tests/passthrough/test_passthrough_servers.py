"""openproto's own server and foreign ones: what passes through, and what is done where a server lacks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from openproto_adapters.sqlite import Sqlite
from raw_server import CAPABILITIES, RECORD, RawServer, Request, always, answer, refusal

from openproto import AsyncMemory, MemoryRecord, errors
from openproto.requests import MemoryInput
from openproto.server import ServerSettings, create_app, running
from openproto.server.keys import new_key

KEY, ENTRY = new_key("test", ["*"])


class MinimalServer:
    """What a server of OMP 0.1 must have, over a dictionary."""

    def __init__(self, missing: int) -> None:
        self.missing = missing
        self.records: dict[str, dict[str, Any]] = {}

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> bytes:
        path, _, query = request.target.partition("?")
        parameters = dict(parse_qsl(query))
        fits = parameters.items() & {("user_id", "ann"), ("scope", "a")}
        found = [record for record in self.records.values() if fits <= record.items()]
        match request.method, path:
            case "POST", "/memories":
                record = {**request.json, "id": request.headers["idempotency-key"].decode()}
                self.records[record["id"]] = {**record, "created_at": "2026-01-31T12:00:00Z"}
                return answer(self.records[record["id"]], 201)
            case "GET", "/memories":
                return answer({"items": found[: int(parameters["limit"])], "next_cursor": None})
            case "GET", "/memories/search":
                hits = [{"memory": record, "score": 1} for record in found if parameters["q"] in record["content"]]
                return answer({"results": hits})
            case "GET", _ if path.startswith("/memories/"):
                return refusal("not_found", 404)
            case "DELETE", _ if self.records.pop(unquote(path.removeprefix("/memories/")), None):
                return b"HTTP/1.1 204 X\r\n\r\n"
        return answer({"detail": "Not Found"}, self.missing)


@pytest.fixture(params=["a plain server", "405 where extensions should be", "404 where extensions should be"])
async def minimal(request: pytest.FixtureRequest) -> AsyncIterator[RawServer]:
    """A plain server says nothing of x-openproto; the others claim it and lack the routes all the same."""
    declared = {"omp_version": "0.1", "provider": "minimal", "verbs": ["add", "search", "get", "list", "delete"]}
    if request.param != "a plain server":
        declared["x-openproto"] = {}
    backend = MinimalServer(405 if "405" in request.param else 404)
    async with RawServer(backend, capabilities=answer(declared)) as server:
        yield server


EXTENSIONS = ("POST /memories/batch", "POST /memories/search", "DELETE /memories")


async def test_a_server_without_extensions_is_served_by_the_protocols_own_routes(minimal: RawServer) -> None:
    items = [{"content": f"tea {n}", "user_id": "ann", "scope": "a" if n < 5 else "b"} for n in range(20)]
    async with minimal.client() as client:
        outcomes = await client.add_many(items)
        assert [record.content for record in outcomes if isinstance(record, MemoryRecord)] == [
            item["content"] for item in items
        ]
        hits = await client.search("tea 1", "ann", explain=True)
        assert [hit.parts for hit in hits] == [None] * 11
        assert await client.delete_all("ann", scope="a") == 5
        assert len((await client.list("ann")).items) == 15
        odd = await client.add("milk", user_id="bob", idempotency_key="a\r\nX-Evil: 1")
        assert odd.id == "a%0D%0AX-Evil%3A%201"
        with pytest.raises(errors.NotFoundError):
            await client.get("none")
        with pytest.raises(errors.PayloadTooLargeError, match="URL"):
            await client.search("tea " * 20_000, "ann")
    assert not any("explain" in request.target for request in minimal.requests)
    tried = [request.route for request in minimal.requests if request.route in EXTENSIONS]
    # A server that claims x-openproto is asked once, and what is not there is never tried again.
    assert tried == (["POST /memories/batch"] if b"x-openproto" in minimal.capabilities else [])


async def test_a_404_on_the_way_takes_nothing_from_what_a_server_declares() -> None:
    lost = [answer({"detail": "Not Found"}, 404)]

    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        if request.route == "POST /memories/search" and lost:
            return lost.pop()
        return answer({"results": []}) if "search" in request.target else answer({**RECORD, "key": "k"})

    declared = answer({**CAPABILITIES, "x-openproto": {"support": {"key": "native", "put": "native"}}})
    async with RawServer(handle, capabilities=declared) as server, server.client() as client:
        for _ in range(2):
            assert await client.search("tea", "ann") == []
        assert (await client.put("tea", user_id="ann", key="k")).key == "k"
    searches = ["POST /memories/search", "GET /memories/search", "POST /memories/search"]
    assert [request.route for request in server.requests] == [*searches, "PUT /memories"]


async def test_keys_apps_and_large_restores_on_a_real_server(tmp_path: Path) -> None:
    bound, entry = new_key("bound", ["ann"])
    app = create_app(AsyncMemory(Sqlite(tmp_path / "memory.db", embedder="none")), ServerSettings(keys=[ENTRY, entry]))
    with running(app) as url:
        for key in ("op_wrong", None):
            memory = AsyncMemory("passthrough", base_url=url, api_key=key)
            assert (await memory.health()).status == "unavailable"
            with pytest.raises(errors.UnauthorizedError, match="API key"):
                await memory.list("ann")
            await memory.aclose()
        async with AsyncMemory("passthrough", base_url=url, api_key=bound) as client:
            assert (await client.health()).status == "ok"
        async with AsyncMemory("passthrough", base_url=url, api_key=KEY, app="Schlüssel 日本") as client:
            assert await client.audit("openproto") == [], "asking whether a key holds leaves no trace"
            record = await client.add("tea", user_id="carl")
            with pytest.raises(errors.NotFoundError) as caught:
                await client.get(record.id, user_id="dora")
            (written,) = [entry for entry in await client.audit("carl") if entry.action == "add"]
            assert (written.app, bool(written.request_id)) == ("Schlüssel 日本", True)
            assert written.request_id != caught.value.request_id
            large = [record.model_copy(update={"id": f"{n}", "content": "x" * 90_000}) for n in range(40)]
            outcomes = await client.restore([record, *large])  # more than one request may hold
            assert [each.outcome for each in outcomes] == ["exists"] + ["restored"] * 40


async def test_a_key_that_no_longer_holds_is_an_error_in_health_and_of_every_item_of_a_batch() -> None:
    holds = True

    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        if request.target == "/healthz":
            return answer({"status": "ok", "provider": "x"})
        return refusal("not_found", 404) if holds else refusal("unauthorized", 401, "no such key")

    async with RawServer(handle, key_check=handle) as server, server.client() as client:
        assert (await client.health()).status == "ok"
        holds = False
        assert ((await client.health()).status, (await client.health()).detail) == ("unavailable", "no such key")
        for outcome in await client.add_many([{"content": "tea", "user_id": "ann"}] * 3):
            assert isinstance(outcome, errors.UnauthorizedError)


async def test_what_else_a_server_says_to_the_question_about_the_key_is_left_to_the_verbs() -> None:
    for status in (200, 400, 403, 404, 422, 429, 500, 503):
        check = always(answer({"detail": "strange"}, status))
        async with RawServer(always(answer(RECORD)), key_check=check) as server, server.client() as client:
            assert (await client.get("1")).content == "tea"


PLAIN = {name: value for name, value in CAPABILITIES.items() if name != "x-openproto"}
OLDER = {**PLAIN, "x-openproto": {"support": {"scopes": "native"}}}
FEW = {**CAPABILITIES, "verbs": ["add", "get", "delete", "search", "capabilities", "dream"]}
BEYOND: tuple[tuple[str, Callable[[AsyncMemory], Awaitable[Any]]], ...] = (
    ("'key'", lambda c: c.add("tea", user_id="ann", key="k")),
    ("'key'", lambda c: c.get(key="k", user_id="ann")),
    ("'put'", lambda c: c.put("tea", user_id="ann", key="k")),
    ("'version'", lambda c: c.update("1", content="x", if_version="v")),
    ("'version'", lambda c: c.delete("1", if_version="v")),
    ("'users'", lambda c: c.users()),
    ("'restore'", lambda c: c.restore([MemoryRecord.model_validate(RECORD)])),
)
UNDECLARED = (
    *((declared, name, call) for declared in (PLAIN, OLDER) for name, call in BEYOND),
    (PLAIN, "several tags", lambda c: c.list("ann", tag=["a", "b"])),
    (FEW, "'raw' does not support 'update'", lambda c: c.update("1", content="x")),
    (FEW, "'raw' does not support 'list'", lambda c: c.list("ann")),
    (FEW, "'raw' does not support 'audit'", lambda c: c.audit("ann")),
)


@pytest.mark.parametrize("opened", [False, True])  # also by the call that opens, when it was not known yet
async def test_what_a_server_does_not_declare_is_refused_and_never_dropped(opened: bool) -> None:
    for declared, name, call in UNDECLARED:
        async with RawServer(always(answer(RECORD, 201)), capabilities=answer(declared)) as server:
            client = server.client()
            if opened:
                assert (await client.capabilities()).verbs == declared["verbs"]
            with pytest.raises(errors.UnsupportedCapabilityError, match=name):
                await call(client)
            (outcome,) = await client.add_many([MemoryInput(content="tea", user_id="ann", key="k")])
            assert isinstance(outcome, errors.UnsupportedCapabilityError)
            assert server.requests == []
            assert (await client.add("tea", user_id="ann")).key is None
            assert set(server.requests[0].json) == {"content", "user_id"}
            await client.close()


async def test_the_context_of_a_server_that_does_not_fill_it_is_filled_here() -> None:
    async def handle(request: Request, writer: object) -> bytes:
        if "search" in request.target:
            return answer({"results": []})
        if request.route == "POST /context":
            return answer({"text": "", "citations": [], "token_count": 0})
        return answer({"items": [RECORD]})

    older = answer({**CAPABILITIES, "x-openproto": {}})
    async with RawServer(handle, capabilities=older) as server, server.client() as client:
        assert [each.memory_id for each in (await client.context("anything", "ann")).citations] == ["1"]
        assert (await client.context("anything", "ann", relevant_only=True)).citations == []
    assert "relevant_only" not in server.requests[-1].json
    assert server.requests[-1].route == "POST /context"


async def test_a_memory_of_another_key_is_not_passed_on() -> None:
    capabilities = answer({**CAPABILITIES, "x-openproto": {"support": {"key": "native"}}})
    async with (
        RawServer(always(answer({**RECORD, "key": "other"})), capabilities=capabilities) as server,
        server.client() as client,
    ):
        with pytest.raises(errors.ProviderError, match="another key"):
            await client.get(key="k", user_id="ann")
