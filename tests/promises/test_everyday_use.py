"""What the vendors' guides do with a client all day, done with a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openproto import AsyncMemory, ProviderError
from openproto.instrumentation import CallEvent


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder="none") as client:
        yield client


@pytest.mark.promise(116)
async def test_health_is_reported_while_a_shared_client_is_busy(memory: AsyncMemory) -> None:
    busy = [asyncio.create_task(memory.add(f"note {n}", user_id="ada")) for n in range(200)]
    health = await asyncio.gather(*(memory.health() for _ in range(20)))
    assert {one.status for one in health} == {"ok"}
    assert len(await asyncio.gather(*busy)) == 200


@pytest.mark.promise(22, 118)
@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("add", {"content": "tea", "user_id": "ada"}),
        ("search", {"query": "tea", "user_id": "ada"}),
        ("update", {"id": "m1"}),
        ("delete", {"id": "m1"}),
        ("aclose", {}),
    ],
)
async def test_a_forgotten_await_is_named(memory: AsyncMemory, verb: str, arguments: dict[str, Any]) -> None:
    name = getattr(AsyncMemory, verb).__qualname__  # AsyncVerbs.add: the class that the verb stands in
    with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
        getattr(memory, verb)(**arguments)
    assert (await memory.list("ada")).items == []


@pytest.mark.promise(121)
async def test_a_failed_call_names_its_verb_provider_scope_and_request(tmp_path: Path) -> None:
    events: list[CallEvent] = []
    nowhere = tmp_path / "memory.db"
    nowhere.mkdir()
    client = AsyncMemory("sqlite", path=nowhere, embedder="none", observers=[events.append], retries=0)
    with pytest.raises(ProviderError) as raised:
        await client.search("a secret", "ada", scope="agent/7/run/1")
    await client.aclose()
    (event,) = events
    assert (event.verb, event.provider, event.scope) == ("search", "sqlite", "agent/7/run/1")
    error = raised.value
    assert (error.code, error.provider, error.request_id) == (event.outcome, "sqlite", event.request_id)
    assert "secret" not in f"{event} {error}"
