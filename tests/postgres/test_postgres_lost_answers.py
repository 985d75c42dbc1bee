"""A write whose answer is lost is asked for again: it is stored once, and a deletion in between is final."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from postgres_tools import LossyProxy, MakeClient, execute, stored

from openproto import AsyncMemory, ConflictError


@pytest.fixture
async def proxy(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> LossyProxy:
    return LossyProxy(dsn, tmp_path_factory.mktemp("p"))


@pytest.fixture
async def memory(proxy: LossyProxy, make: MakeClient) -> AsyncIterator[AsyncMemory]:
    """A client of one connection, on which both statements were prepared: what is lost next is an answer."""
    async with proxy.running() as url, make(url=url, pool_max=1) as memory:
        await memory.add("first", user_id="bob")
        await memory.add_many([{"content": "first", "user_id": "bob"}])
        yield memory


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_batch_is_stored_once(memory: AsyncMemory, proxy: LossyProxy, key: str | None) -> None:
    items: list[dict[str, Any]] = [{"content": f"tea {n}", "user_id": "ada", "tags": ["t"]} for n in range(20)]
    items[-1]["idempotency_key"] = key
    await memory.add_many([{**item, "user_id": "bob"} for item in items])
    proxy.lose_next_answer()
    outcomes = await memory.add_many(items)
    assert proxy.lost == memory.stats().retries == 1
    assert (await memory.list("ada")).items == [stored(outcome) for outcome in reversed(outcomes)]
    assert [entry.action for entry in await memory.audit("ada")].count("add") == 20


async def test_an_add_is_stored_once(memory: AsyncMemory, proxy: LossyProxy) -> None:
    proxy.lose_next_answer()
    record = await memory.add("tea", user_id="ada", tags=["t"], x_mem0={"n": 1})
    assert proxy.lost == memory.stats().retries == 1
    assert (await memory.list("ada")).items == [record]
    assert [entry.action for entry in await memory.audit("ada")].count("add") == 1


async def test_an_attempt_that_never_arrived_is_made_up_for(memory: AsyncMemory, proxy: LossyProxy) -> None:
    proxy.lose_next_question()
    record = await memory.add("tea", user_id="ada")
    proxy.lose_next_question()
    (outcome,) = await memory.add_many([{"content": "milk", "user_id": "ada"}])
    assert proxy.lost == memory.stats().retries == 2
    assert (await memory.list("ada")).items == [stored(outcome), record]


@pytest.mark.parametrize("verb", ["add", "add_many"])
async def test_what_was_deleted_before_the_second_attempt_does_not_come_back(
    memory: AsyncMemory, proxy: LossyProxy, dsn: str, schema: str, verb: str
) -> None:
    proxy.lose_next_answer(lambda: execute(dsn, f"DELETE FROM {schema}.memories WHERE content = 'gone'"))
    outcome: Any
    if verb == "add":
        with pytest.raises(ConflictError, match="deleted"):
            await memory.add("gone", user_id="ada")
    else:
        kept, outcome = await memory.add_many([{"content": text, "user_id": "ada"} for text in ("kept", "gone")])
        assert stored(kept).content == "kept"
        assert isinstance(outcome, ConflictError)
    assert proxy.lost == 1
    assert [record.content async for record in memory.iter("ada")] == (["kept"] if verb == "add_many" else [])
