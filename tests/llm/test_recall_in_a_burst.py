"""Many calls at once on one loop: the clock of a recall runs only while it can be answered, and all get theirs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from fake_llm import FakeLLM, said
from openai import AsyncOpenAI, OpenAI
from remembering_shelf import Shelf

from openproto import AsyncMemory, Memory
from openproto.integrations.llm import CaptureQueue, wrap


async def ask(client: AsyncOpenAI, text: str) -> None:
    await client.chat.completions.create(**said(text))


async def test_a_hundred_calls_at_once_each_get_their_recall(
    llm: FakeLLM, async_gpt: AsyncOpenAI, tmp_path: Path
) -> None:
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder="none") as memory:
        await memory.add_many([{"content": f"I keep {n} bees", "user_id": f"u{n}"} for n in range(100)])
        clients = [wrap(async_gpt, memory, user_id=f"u{n}", capture=False) for n in range(100)]
        await asyncio.gather(*(ask(client, "How many bees?") for client in clients))
        stats = CaptureQueue.of(memory).stats()
    assert (stats.recalled, stats.recall_failed) == (100, 0)
    assert all(request.memories for request in llm.requests)


async def test_time_in_which_the_callers_loop_is_busy_does_not_count(llm: FakeLLM, async_gpt: AsyncOpenAI) -> None:
    shelf = Shelf(("ada", "Ada takes her coffee black"))
    shelf.search_seconds = 0.05
    async with AsyncMemory(shelf) as memory:
        asking = asyncio.create_task(ask(wrap(async_gpt, memory, user_id="ada", recall_timeout=0.3), "coffee"))
        for _ in range(4):
            await asyncio.sleep(0)
            time.sleep(0.15)  # noqa: ASYNC251  # a loop that is busy is what this is about
        await asking
        assert CaptureQueue.of(memory).stats().recalled == 1


@pytest.mark.promise(76)
@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
async def test_a_backend_that_does_not_answer_holds_up_neither_the_calls_nor_the_loop(
    llm: FakeLLM, gpt: OpenAI, async_gpt: AsyncOpenAI, kind: type[Memory | AsyncMemory]
) -> None:
    shelf = Shelf(("ada", "Ada takes her coffee black"))
    shelf.search_seconds = 60.0
    memory = kind(shelf, close_timeout=0.1)
    client = wrap(async_gpt, memory, user_id="ada", capture=False, recall_timeout=0.1)
    async with asyncio.timeout(20):
        await asyncio.gather(*(ask(client, f"coffee {n}") for n in range(20)))
        if isinstance(memory, Memory):
            blocking = wrap(gpt, memory, user_id="ada", capture=False, recall_timeout=0.1)
            await asyncio.to_thread(blocking.chat.completions.create, **said("coffee"))
    assert shelf.most_searching > 1, "a recall has held up the loop"
    assert CaptureQueue.of(memory).stats().recall_failed == 20 + (kind is Memory)
    assert not any(request.memories for request in llm.requests)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ask(wrap(async_gpt, memory, user_id="ada", capture=False, recall_timeout=30), "coffee")
    closing = memory.close()
    if closing is not None:
        await closing


async def test_equal_questions_at_once_are_asked_once(llm: FakeLLM, async_gpt: AsyncOpenAI) -> None:
    shelf = Shelf(("ada", "Ada takes her coffee black"))
    shelf.search_seconds = 0.05
    async with AsyncMemory(shelf) as memory:
        client = wrap(async_gpt, memory, user_id="ada", capture=False)
        cancelled = asyncio.create_task(ask(client, "coffee"))
        asking = [asyncio.create_task(ask(client, "coffee")) for _ in range(5)]
        await asyncio.sleep(0.02)
        cancelled.cancel()
        await asyncio.gather(*asking)
        assert CaptureQueue.of(memory).stats().recalled == 5
    assert len(shelf.queries) == 1
