"""The queue behind the calls: bounded, honest about every turn, drained when things end; and recalls in a burst."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLLM, say
from openai import AsyncOpenAI, OpenAI
from remembering_shelf import Shelf
from waiting import cancelled

from openproto import AsyncMemory, Memory, MemoryInput, ProviderError
from openproto.client.loop import background_loop, run
from openproto.integrations.llm import CaptureQueue, Turn, capture, recall, wrap
from openproto.integrations.llm.identity import Owner


def turns(count: int) -> Iterator[Turn]:
    return (Turn("ada", f"turn {n}", None) for n in range(count))


@pytest.fixture
def silent(shelf: Shelf) -> Shelf:
    """A backend that answers nobody until it is released."""
    shelf.released.clear()
    return shelf


def release(shelf: Shelf) -> None:
    background_loop().call_soon_threadsafe(shelf.released.set)


def test_a_full_queue_drops_and_keeps_bounds(shelf: Shelf, memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    shelf.add_seconds = 0.02
    with CaptureQueue(memory, maxsize=100, max_workers=12, batch_size=5) as queue:
        taken = Counter(queue.put(turn) for turn in turns(300))
        during = queue.stats()
        assert not queue.wait(10), "not everything was stored, and wait says so"
        stats = queue.stats()
    assert (stats.stored, stats.dropped) == (taken[True], taken[False])
    assert stats.dropped >= 100
    assert len(shelf.kept) == stats.stored
    assert during.waiting <= 100
    assert during.in_flight <= 12 * 5
    assert (shelf.most_in_flight, max(shelf.batches)) == (12, 5)
    assert (stats.waiting, stats.in_flight) == (0, 0)
    assert caplog.messages == ["memory: a captured turn was dropped because the queue is full"]


def test_turns_meanwhile_are_the_next_batch(silent: Shelf, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(count: int) -> None:
        for turn in turns(count):
            queue.put(turn)
            run(asyncio.sleep(0))  # the queue sees each before the next comes

    monkeypatch.setattr(capture, "TOGETHER_SECONDS", 60)
    queue = CaptureQueue(memory, batch_size=5)
    put(1)
    put(5)
    while silent.in_flight < 2:
        time.sleep(0.001)
    put(3)
    release(silent)
    assert queue.wait(10)
    assert silent.batches == [1, 5, 3]
    silent.released.clear()
    monkeypatch.setattr(capture, "TOGETHER_SECONDS", 0.01)
    queue = CaptureQueue(memory)
    put(2)
    while silent.in_flight < 2:
        time.sleep(0.001)
    release(silent)
    assert queue.close()


async def test_a_turn_without_room_waits_until_its_time_or_its_caller_ends(silent: Shelf, memory: Memory) -> None:
    one, two, three, four = turns(4)
    queue = CaptureQueue(memory, maxsize=1, max_workers=1, batch_size=1, policy="wait", wait_timeout=0.1)
    assert await queue.aput(one)
    while queue.stats().in_flight < 1:
        await asyncio.sleep(0.001)
    assert await queue.aput(two)
    assert not await asyncio.to_thread(queue.put, three)
    assert not await queue.aput(three)
    waiting = asyncio.create_task(queue.aput(four))
    await asyncio.sleep(0.01)
    assert await cancelled(waiting)
    release(silent)
    assert not await queue.flush(5)
    assert (queue.stats().stored, queue.stats().dropped) == (2, 3)


async def test_flush_and_wait_return_whether_everything_was_stored(silent: Shelf) -> None:
    async with AsyncMemory(silent, retries=0) as memory:
        queue = CaptureQueue(memory, retries=0)
        assert await queue.flush()
        await queue.aput(Turn("ada", "one", None))
        assert not await queue.flush(0.05), "time was not enough"
        with pytest.raises(RuntimeError, match="flush"):
            queue.wait(1)
        silent.released.set()
        assert await queue.flush()
        assert await asyncio.to_thread(queue.wait, 5)
        assert silent.contents("ada") == ["one"]
        silent.failing = [ProviderError("lost")]
        await queue.aput(Turn("ada", "two", None))
        assert not await queue.flush(5)
        assert (queue.stats().stored, queue.stats().failed) == (1, 1)


@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
async def test_closing_the_memory_stores_the_rest(kind: Any, async_gpt: AsyncOpenAI, shelf: Shelf) -> None:
    shelf.add_seconds = 0.05
    memory = kind(shelf)
    await say(wrap(async_gpt, memory, user_id="ada", recall=False), "remember me")
    await (memory.close() or asyncio.sleep(0))
    assert shelf.contents("ada") == ["remember me"]
    assert CaptureQueue.of(memory).stats().stored == 0, "the closed one is not used again"


async def test_closing_is_bounded_when_the_backend_hangs(silent: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    memory = AsyncMemory(silent, close_timeout=0.2)
    queue = CaptureQueue(memory, max_workers=1, batch_size=1)
    for turn in turns(3):
        await queue.aput(turn)
    async with asyncio.timeout(5):
        await memory.aclose()
        await asyncio.sleep(0.01)
    stats = queue.stats()
    assert (stats.stored, stats.failed, stats.dropped) == (0, 1, 2)
    assert len(caplog.records) == 2, "one line for what was cut off and one for what was dropped"


def test_a_closed_queue_takes_nothing_and_the_calls_go_on(gpt: OpenAI, memory: Memory) -> None:
    queue = CaptureQueue(memory)
    client = wrap(gpt, queue, user_id="ada")
    assert queue.close()
    assert queue.close()
    assert say(client, "hello").choices[0].message.content == "You said: hello"
    assert queue.stats().dropped == 1
    assert CaptureQueue.of(memory) is not queue
    assert CaptureQueue.of(memory) is CaptureQueue.of(memory)


LEAVE = """
import sys, openproto
from openproto.integrations.llm import CaptureQueue, Turn
memory = openproto.Memory("sqlite", path=sys.argv[1], embedder=None)
CaptureQueue(memory).put(Turn("ada", "do not forget me", None))
"""


def test_a_program_that_just_ends_loses_nothing(tmp_path: Path, run_python: Any) -> None:
    ran = run_python(LEAVE, tmp_path / "memory.db")
    assert ran.returncode == 0, ran.stderr
    with Memory("sqlite", path=str(tmp_path / "memory.db"), embedder=None) as memory:
        assert [record.content for record in memory.iter("ada")] == ["do not forget me"]


ENDED_LOOP = """
import asyncio, logging, sys
sys.path.insert(0, sys.argv[1])
from remembering_shelf import Shelf
from openproto import AsyncMemory
from openproto.integrations.llm import CaptureQueue, Turn
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
shelf = Shelf()
shelf.released.clear()
async def main():
    global queue
    queue = CaptureQueue(AsyncMemory(shelf), max_workers=1, batch_size=1)
    for n in range(3):
        await queue.aput(Turn("ada", str(n), None))
    await asyncio.sleep(0.01)
asyncio.run(main())
queue.put_nowait(Turn("ada", "late", None))
"""


def test_turns_whose_loop_has_ended_are_reported_at_exit(run_python: Any) -> None:
    ran = run_python(ENDED_LOOP, Path(__file__).parent)
    assert ran.returncode == 0, ran.stderr
    assert "memory: captured turns were cut off while they were being stored" in ran.stdout
    assert "memory: a captured turn was dropped because" in ran.stdout
    assert "never awaited" not in ran.stderr, "a loop that ends is given no new work"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is POSIX")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_has_another_queue(shelf: Shelf, memory: Memory) -> None:
    queue = CaptureQueue(memory)
    queue.put(Turn("ada", "parent", None))
    assert queue.wait(5)
    shelf.released.clear()
    queue.put(Turn("ada", "parent's business", None))
    child = os.fork()
    if child == 0:
        shelf.released.set()
        queue.put(Turn("ada", "child", None))
        stored = queue.wait(5) and queue.stats().stored == 1 and "parent's business" not in shelf.contents("ada")
        os._exit(0 if stored else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    release(shelf)
    assert queue.wait(5)
    assert queue.stats().stored == 2


def test_an_extractor_in_a_thread_makes_the_memories(shelf: Shelf, memory: Memory) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    threads: set[tuple[str, str]] = set()
    three = threading.Barrier(3, timeout=10)  # so fewer at once would fail, and of more some would wait in vain

    def facts(turn: Turn) -> Iterator[str | dict[str, Any] | MemoryInput]:
        threads.add((threading.current_thread().name, request.get()))
        three.wait()
        if turn.user == "turn 0":
            return
        yield f"fact of {turn.user}"
        yield {"content": f"tagged of {turn.user}", "tags": ["fact"], "scope": "facts"}
        yield MemoryInput(content=f"input of {turn.user}", user_id=turn.user_id)

    with CaptureQueue(memory, extract=facts, max_workers=3) as queue:
        request.set("somebody's")
        for turn in turns(12):
            queue.put(turn)
        assert queue.wait(10)
        stats = queue.stats()
    assert (stats.stored, stats.skipped, len(shelf.kept)) == (11, 1, 33)
    assert len(threads) == 3
    assert all("openproto-extract" in name for name, _ in threads)
    assert {context for _, context in threads} == {"none"}, "a worker outlives the request that started it"
    assert {record.scope for record in shelf.kept.values() if record.tags == ["fact"]} == {"facts"}


async def test_an_extractor_that_fails_stores_nothing(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    async def facts(turn: Turn) -> list[Any]:
        await asyncio.sleep(0)
        if turn.user == "turn 1":
            raise KeyError("secret content")
        return [{"content": f"fact of {turn.user}", "user_id": "bob" if turn.user == "turn 2" else "ada"}]

    async with AsyncMemory(shelf) as memory:
        queue = CaptureQueue(memory, extract=facts)
        for turn in turns(4):
            await queue.aput(turn)
        assert not await queue.flush(5)
        assert (queue.stats().stored, queue.stats().failed) == (2, 2)
    assert sorted(shelf.contents("ada")) == ["fact of turn 0", "fact of turn 3"]
    assert shelf.contents("bob") == [], "an extractor makes memories for nobody but who spoke"
    assert caplog.messages == ["memory: the extractor failed (KeyError)"]


def test_a_finalizer_may_capture_while_the_queue_is_locked(shelf: Shelf, memory: Memory) -> None:
    queue = CaptureQueue(memory)
    for count in range(1, 51):
        with queue._backlog._lock:
            queue.put_nowait(Turn("ada", "from a finalizer", None))
            while not queue._left.empty():
                time.sleep(0.0001)
        assert queue.wait(5)
        assert len(shelf.contents("ada")) == count, "not even while it is taken in is a turn overlooked"


def test_an_idle_queue_and_its_memory_are_collected_together() -> None:
    memory = Memory(Shelf())
    seen = weakref.ref(CaptureQueue(memory))
    del memory
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(
    "settings",
    [{"policy": "x"}, {"keep": "x"}, {"on_duplicate": "x"}, {"keep": "user", "extract": list}, {"max_workers": 0}],
)
def test_settings_that_could_never_work_are_refused(memory: Memory, settings: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|leave keep= out"):
        CaptureQueue(memory, **settings)


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


async def test_recalls_whose_callers_have_left_leave_room_for_the_next(shelf: Shelf) -> None:
    shelf.search_seconds = 0.002
    async with AsyncMemory(shelf) as memory:
        asked = recall.Recall(CaptureQueue(memory), timeout=0.3, token_budget=100)
        for turn in range(20):
            owners = [Owner(user_id=f"user {n}") for n in range(100)]
            asking = [asyncio.create_task(asked.ablock(owner, "coffee")) for owner in owners]
            await asyncio.sleep(0.005 + turn / 2000)
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
        assert "black" in (await asked.ablock(Owner(user_id="ada"), "coffee") or "")


@pytest.mark.parametrize(("seconds", "at_once"), [(60.0, 2), (0.0, recall.AT_ONCE)])
async def test_few_recalls_begin_at_once_and_those_that_take_long_make_room(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, seconds: float, at_once: int
) -> None:
    monkeypatch.setattr(recall, "_BEGINNING", seconds)
    shelf.search_seconds = 0.1
    async with AsyncMemory(shelf) as memory:
        asked = recall.Recall(CaptureQueue(memory), timeout=30.0, token_budget=100)
        await asyncio.gather(*(asked.ablock(Owner(user_id=f"user {n}"), "coffee") for n in range(10)))
    assert shelf.most_searching == at_once


async def test_time_in_which_the_callers_loop_is_busy_does_not_count(async_gpt: AsyncOpenAI, shelf: Shelf) -> None:
    shelf.search_seconds = 0.05
    async with AsyncMemory(shelf) as memory:
        asking = asyncio.create_task(say(wrap(async_gpt, memory, user_id="ada", recall_timeout=0.3), "coffee"))
        for _ in range(4):
            await asyncio.sleep(0)
            time.sleep(0.15)  # noqa: ASYNC251  # a loop that is busy is what this is about
        await asking
        assert CaptureQueue.of(memory).stats().recalled == 1


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


async def test_calls_are_sent_one_a_turn(async_gpt: AsyncOpenAI, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
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
