"""Keys, versions, and operations beyond the verbs: through a server that has them, and towards servers that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from raw_server import CAPABILITIES, RECORD, RawServer, Request, always, answer
from shelf import Shelf

from openproto import AsyncMemory, MemoryRecord
from openproto.errors import ConflictError, NotFoundError, ProviderError, UnsupportedCapabilityError
from openproto.requests import MemoryInput
from openproto.server import ServerSettings, create_app, running

Handle = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def memory() -> AsyncIterator[AsyncMemory]:
    """A client of a server over a provider that has every operation."""
    app = create_app(AsyncMemory(Shelf()), ServerSettings())
    with running(app) as url:
        async with AsyncMemory("passthrough", base_url=url, retries=0) as client:
            yield client


async def test_keys_and_versions_go_through(memory: AsyncMemory) -> None:
    made = await memory.put("green tea", user_id="ada", key="drinks/ö", if_version="absent", x_note=1)
    assert (made.key, made.updated_at) == ("drinks/ö", None)
    with pytest.raises(ConflictError):
        await memory.put("black tea", user_id="ada", key="drinks/ö", if_version="absent")
    put = await memory.put("black tea", user_id="ada", key="drinks/ö", if_version=made.version)
    assert (put.id, put.created_at, put.version != made.version) == (made.id, made.created_at, True)
    assert await memory.get(key="drinks/ö", user_id="ada") == put
    with pytest.raises(NotFoundError):
        await memory.get(key="drinks/ö", user_id="eve")
    with pytest.raises(ConflictError):
        await memory.update(made.id, content="x", if_version=made.version)
    with pytest.raises(ConflictError):
        await memory.delete(made.id, if_version='not "a" version')
    changed = await memory.update(made.id, source={"app": "a"}, x_note=None, x_more=2, if_version=put.version)
    assert changed.source is not None
    assert (changed.source.app, changed.extensions.get("x-note"), changed.extensions["x-more"]) == ("a", None, 2)
    await memory.delete(made.id, if_version=changed.version)
    outcomes = await memory.add_many([{"content": "a", "user_id": "ada", "key": "k"}] * 2)
    assert isinstance(outcomes[0], MemoryRecord)
    assert isinstance(outcomes[1], ConflictError)


async def test_scopes_users_tags_and_restore_go_through(memory: AsyncMemory) -> None:
    for user, tags in (("ada", ["a", "b"]), ("ada", ["a"]), ("bob", [])):
        await memory.add(f"tea {tags}", user_id=user, scope="food/tea", tags=tags)
    assert [(count.scope, count.records) for count in await memory.scopes("ada", depth=1)] == [("food", 2)]
    page = await memory.users(limit=1)
    assert (page.items, (await memory.users(cursor=page.next_cursor)).items) == (["ada"], ["bob"])
    assert len((await memory.list("ada", tag=["a", "b"])).items) == 1
    assert len(await memory.search("tea", "ada", tag=["a", "b"])) == 1
    assert len((await memory.context("nothing", "ada")).citations) == 2
    assert (await memory.context("nothing", "ada", relevant_only=True)).citations == []
    records = (await memory.list("ada")).items
    large = [
        record.model_copy(update={"id": f"r{n}", "content": "x" * 90_000}) for n, record in enumerate(records * 20)
    ]
    await memory.delete(records[0].id)
    outcomes = await memory.restore([*records, *large])
    assert [each.outcome for each in outcomes] == ["restored", "exists"] + ["restored"] * 40
    assert await memory.get(records[0].id) == records[0]


@pytest.mark.parametrize(
    "extension", [{}, {"x-openproto": {"support": {"scopes": "native"}}}], ids=["foreign", "older"]
)
async def test_what_a_server_does_not_declare_is_refused_and_never_dropped(extension: dict[str, Any]) -> None:
    plain = {name: value for name, value in CAPABILITIES.items() if name != "x-openproto"}
    async with (
        RawServer(always(answer(RECORD, 201)), capabilities=answer({**plain, **extension})) as server,
        server.client() as client,
    ):
        assert (await client.add("tea", user_id="ann")).key is None
        assert set(server.requests[0].json) == {"content", "user_id"}
        calls: list[tuple[str, Awaitable[Any]]] = [
            ("key", client.add("tea", user_id="ann", key="k")),
            ("key", client.get(key="k", user_id="ann")),
            ("put", client.put("tea", user_id="ann", key="k")),
            ("version", client.update("1", content="x", if_version="v")),
            ("version", client.delete("1", if_version="v")),
            ("users", client.users()),
            ("restore", client.restore([MemoryRecord.model_validate(RECORD)])),
        ]
        for name, call in calls:
            with pytest.raises(UnsupportedCapabilityError, match=f"'{name}'"):
                await call
        if not extension:
            with pytest.raises(UnsupportedCapabilityError, match="several tags"):
                await client.list("ann", tag=["a", "b"])
        (outcome,) = await client.add_many([MemoryInput(content="tea", user_id="ann", key="k")])
        assert isinstance(outcome, UnsupportedCapabilityError)
    assert len(server.requests) == 1


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
        with pytest.raises(ProviderError, match="another key"):
            await client.get(key="k", user_id="ann")
