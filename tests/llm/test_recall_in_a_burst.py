"""Many calls at once on one loop: the clock of a recall runs only while it can be answered, and all get theirs."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

import pytest
from fake_llm import FakeLLM, say
from openai import AsyncOpenAI, OpenAI
from remembering_shelf import Shelf

from openproto import AsyncMemory, Memory
from openproto.integrations.llm import CaptureQueue, wrap


@pytest.mark.promise(47, 58, 68)
async def test_a_hundred_users_at_once_get_their_own_and_lose_nothing(llm: FakeLLM, async_gpt: AsyncOpenAI) -> None:
    who, where, names = ContextVar[str]("who"), ContextVar[str]("where"), [f"u{n}" for n in range(100)]
    shelf = Shelf(*((name, f"{name} keeps bees") for name in names))
    shelf.search_seconds = 0.05  # of which eight at once are worked on: most wait for longer than they have
    async with AsyncMemory(shelf) as memory:
        queue = CaptureQueue(memory, maxsize=5, max_workers=2, batch_size=4, policy="wait")
        client = wrap(async_gpt, queue, user_id=who, scope=where)

        async def talk(name: str) -> None:
            who.set(name)
            where.set(f"agent/{name}")
            stream = await say(client, f"I am {name}, who has bees", stream=True)
            who.set("somebody else")
            async for _ in stream:
                pass

        await asyncio.gather(*map(talk, names))
        assert await queue.flush(30)
        stats = queue.stats()
    assert (stats.recalled, stats.stored, stats.dropped) == (100, 100, 0)
    assert {(each.user_id, each.scope, each.content) for each in shelf.kept.values()} == {
        (name, f"agent/{name}", f"I am {name}, who has bees") for name in names
    }
    assert {(query.user_id, query.scope) for query in shelf.queries} == {(name, f"agent/{name}") for name in names}
    for request in llm.requests:
        said = request.json["messages"][-1]["content"]
        assert f"{said[5:].partition(',')[0]} keeps bees" in request.memories[0]


async def test_time_in_which_the_callers_loop_is_busy_does_not_count(async_gpt: AsyncOpenAI, shelf: Shelf) -> None:
    shelf.search_seconds = 0.05
    async with AsyncMemory(shelf) as memory:
        asking = asyncio.create_task(say(wrap(async_gpt, memory, user_id="ada", recall_timeout=0.3), "coffee"))
        for _ in range(4):
            await asyncio.sleep(0)
            time.sleep(0.15)  # noqa: ASYNC251  # a loop that is busy is what this is about
        await asking
        assert CaptureQueue.of(memory).stats().recalled == 1


@pytest.mark.promise(76)
@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
async def test_a_backend_that_does_not_answer_holds_up_neither_the_calls_nor_the_loop(
    llm: FakeLLM, gpt: OpenAI, async_gpt: AsyncOpenAI, kind: type[Memory | AsyncMemory], shelf: Shelf
) -> None:
    shelf.search_seconds = 60.0
    memory = kind(shelf, close_timeout=0.1)
    client = wrap(async_gpt, memory, user_id="ada", capture=False, recall_timeout=0.1)
    async with asyncio.timeout(20):
        await asyncio.gather(*(say(client, f"coffee {n}") for n in range(20)))
        if isinstance(memory, Memory):
            await asyncio.to_thread(say, wrap(gpt, memory, user_id="ada", capture=False, recall_timeout=0.1), "coffee")
    assert shelf.most_searching > 1, "a recall has held up the loop"
    assert CaptureQueue.of(memory).stats().recall_failed == 20 + (kind is Memory)
    assert not any(request.memories for request in llm.requests)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await say(wrap(async_gpt, memory, user_id="ada", capture=False, recall_timeout=30), "coffee")
    closing = memory.close()
    if closing is not None:
        await closing


async def test_equal_questions_at_once_are_asked_once(async_gpt: AsyncOpenAI, shelf: Shelf) -> None:
    shelf.search_seconds = 0.05
    async with AsyncMemory(shelf) as memory:
        client = wrap(async_gpt, memory, user_id="ada", capture=False)
        cancelled, *asking = [asyncio.create_task(say(client, "coffee")) for _ in range(6)]
        await asyncio.sleep(0.02)
        cancelled.cancel()
        await asyncio.gather(*asking)
        assert CaptureQueue.of(memory).stats().recalled == 5
    assert len(shelf.queries) == 1


async def test_calls_at_once_are_sent_in_different_turns_of_the_loop(
    async_gpt: AsyncOpenAI, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.search_seconds = 0.05  # so that recalls end together
    turn, sent_in = 0, list[int]()

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def create(*_: object, **__: object) -> None:
        sent_in.append(turn)

    monkeypatch.setattr(async_gpt.chat.completions, "create", create)
    async with AsyncMemory(shelf) as memory:
        client = wrap(async_gpt, memory, user_id="ada", capture=False)
        counting = asyncio.create_task(count())
        await asyncio.gather(*(say(client, f"coffee {n}") for n in range(20)))
        counting.cancel()
    assert len(sent_in) == len(set(sent_in)) == 20
