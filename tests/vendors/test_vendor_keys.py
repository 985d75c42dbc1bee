"""What each vendor's metadata and requests carry of keys and batches, and what is refused because they cannot."""

from __future__ import annotations

from typing import Any

import pytest
from hosted import Hosted

from openproto import AsyncMemory, ConflictError, MemoryRecord
from openproto.emulation import Recent


@pytest.mark.parametrize("everything", [False, True])
async def test_a_key_is_one_memory_for_all_processes(
    memory: AsyncMemory, other: AsyncMemory, emulator: Any, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    monkeypatch.setattr("openproto_adapters.supermemory.memories._recent", Recent(0))  # which its clients share
    emulator.lag = 0.0
    first = await memory.add("tea", user_id="ann", tags=["x"], idempotency_key="key-1")
    again = await other.add("tea", user_id="ann", tags=["x"], idempotency_key="key-1")
    assert (again.id, again.created_at) == (first.id, first.created_at)
    with pytest.raises(ConflictError):
        await other.add("coffee", user_id="ann", tags=["x"], idempotency_key="key-1")
    await memory.update(first.id, content="green tea")
    assert (await other.add("tea", user_id="ann", tags=["x"], idempotency_key="key-1")).content == "green tea"
    deleting = memory.delete_all("ann", tag="x") if everything else memory.delete(first.id)
    await deleting
    if (await memory.capabilities()).x_openproto.support["keys_outlive"] == "none":
        assert (await other.add("tea", user_id="ann", tags=["x"], idempotency_key="key-1")).content == "tea"
    else:
        with pytest.raises(ConflictError, match="deleted"):
            await other.add("tea", user_id="ann", tags=["x"], idempotency_key="key-1")


@pytest.mark.promise(31)
async def test_a_batch_is_few_requests_in_order(hosted: Hosted, memory: AsyncMemory, emulator: Any) -> None:
    route, first, second = hosted.batch
    items = [{"content": f"note {n}", "user_id": user} for user in ("ann", "bob") for n in range(60)]
    outcomes = await memory.add_many(items)
    written = [(one.content, one.user_id) for one in outcomes if isinstance(one, MemoryRecord)]
    assert written == [(item["content"], item["user_id"]) for item in items]
    if route:
        assert emulator.counters.by_route[route] == first + second
        assert emulator.counters.by_route[hosted.adds] in (0, first + second)
