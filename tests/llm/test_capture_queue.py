"""The queue behind the calls: bounded, honest about what became of every turn, and drained when things end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from fake_llm import FakeLLM, said
from openai import AsyncOpenAI, OpenAI
from remembering_shelf import Shelf

from openproto import AsyncMemory, Memory, MemoryInput, ProviderError
from openproto.client.loop import background_loop
from openproto.integrations.llm import CaptureQueue, Turn, wrap


def turns(count: int) -> Iterator[Turn]:
    return (Turn("ada", f"turn {n}", None, response_id=f"r{n}") for n in range(count))


def release(shelf: Shelf) -> None:
    """Let the backend, which runs on the background loop, answer."""
    background_loop().call_soon_threadsafe(shelf.released.set)


@pytest.mark.promise(61, 74)
def test_a_full_queue_drops_and_counts_and_never_more_than_max_workers_are_in_flight(
    shelf: Shelf, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.add_seconds = 0.02
    with CaptureQueue(memory, maxsize=100, max_workers=8, batch_size=5) as queue:
        taken = Counter(queue.put(turn) for turn in turns(300))
        during = queue.stats()
        assert not queue.wait(10), "not everything was stored, and wait says so"
        stats = queue.stats()
    assert stats.stored + stats.dropped == 300
    assert (stats.stored, stats.dropped) == (taken[True], taken[False])
    assert stats.dropped >= 100
    assert len(shelf.kept) == stats.stored
    assert during.waiting <= 100
    assert during.in_flight <= 8 * 5
    assert shelf.most_in_flight == 8
    assert (stats.waiting, stats.in_flight) == (0, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "memory: a captured turn was dropped because the queue is full"
    ]


@pytest.mark.promise(68)
async def test_a_hundred_users_at_once_through_one_client_and_a_queue_that_waits_lose_nothing(llm: FakeLLM) -> None:
    shelf, user = Shelf(), ContextVar[str]("user")
    shelf.add_seconds = 0.01
    async with AsyncMemory(shelf) as memory, AsyncOpenAI(base_url=llm.openai_url, api_key="k") as gpt:
        queue = CaptureQueue(memory, maxsize=5, max_workers=2, batch_size=4, policy="wait")
        client = wrap(gpt, queue, user_id=user, recall_timeout=5)

        async def talk(name: str) -> None:
            user.set(name)
            for n in range(3):
                await client.chat.completions.create(**said(f"{name} says {n}"))

        await asyncio.gather(*(talk(f"user{n}") for n in range(100)))
        assert await queue.flush(30)
        stats = queue.stats()
    assert (stats.stored, stats.dropped, stats.recalled) == (300, 0, 300)
    for n in range(100):
        kept = sorted(text for text in shelf.contents(f"user{n}") if not text.startswith("You said"))
        assert kept == [f"user{n} says {k}" for k in range(3)]


@pytest.mark.promise(62, 73)
def test_max_workers_and_batch_size_take_effect_at_the_backend(shelf: Shelf, memory: Memory) -> None:
    shelf.released.clear()
    with CaptureQueue(memory, max_workers=100, batch_size=200, maxsize=30_000) as queue:
        deadline = time.monotonic() + 20
        # As long as the backend answers nobody, each turn that comes alone finds, and occupies, one more worker.
        for turn in turns(100):
            occupied = queue.stats().in_flight
            queue.put(turn)
            while queue.stats().in_flight <= occupied:
                assert time.monotonic() < deadline
                time.sleep(0.0005)
        for n in range(2_000):
            queue.put(Turn("ada", f"later {n}", None))
        stats = queue.stats()
        assert (stats.in_flight, stats.waiting) == (100, 2_000)
        release(shelf)
        assert queue.wait(20)
    assert shelf.most_in_flight == 100
    assert max(shelf.batches) == 200
    assert queue.stats().stored == 2_100


def test_a_turn_that_waits_for_room_is_dropped_in_the_end(shelf: Shelf, memory: Memory) -> None:
    shelf.released.clear()
    with CaptureQueue(memory, maxsize=1, max_workers=1, batch_size=1, policy="wait", wait_timeout=0.1) as queue:
        first, *_ = (queue.put(turn) for turn in turns(1))
        while queue.stats().in_flight < 1:
            time.sleep(0.001)
        assert (first, queue.put(Turn("ada", "waits", None))) == (True, True)
        assert not queue.put(Turn("ada", "no room", None))
        release(shelf)
        assert not queue.wait(5)
        assert (queue.stats().stored, queue.stats().dropped) == (2, 1)


async def test_a_cancelled_caller_gives_its_place_up(shelf: Shelf) -> None:
    shelf.released.clear()
    async with AsyncMemory(shelf) as memory:
        queue = CaptureQueue(memory, maxsize=1, max_workers=1, batch_size=1, policy="wait")
        await queue.aput(Turn("ada", "one", None))
        await asyncio.sleep(0.01)
        await queue.aput(Turn("ada", "two", None))
        waiting = asyncio.create_task(queue.aput(Turn("ada", "three", None)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        shelf.released.set()
        assert not await queue.flush(5)
        assert (queue.stats().stored, queue.stats().dropped) == (2, 1)


@pytest.mark.promise(49, 71)
async def test_flush_and_wait_return_whether_everything_was_stored(shelf: Shelf) -> None:
    async with AsyncMemory(shelf, retries=0) as memory:
        queue = CaptureQueue(memory, retries=0)
        assert await queue.flush()
        shelf.released.clear()
        await queue.aput(Turn("ada", "one", None))
        assert not await queue.flush(0.05), "time was not enough"
        with pytest.raises(RuntimeError, match="flush"):
            queue.wait(1)
        shelf.released.set()
        assert await queue.flush()
        assert await asyncio.to_thread(queue.wait, 5)
        assert shelf.contents("ada") == ["one"]
        shelf.failing = [ProviderError("lost")]
        await queue.aput(Turn("ada", "two", None))
        assert not await queue.flush(5)
        assert (queue.stats().stored, queue.stats().failed) == (1, 1)


@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
async def test_closing_the_memory_first_stores_what_was_captured(
    kind: type[Memory | AsyncMemory], llm: FakeLLM, async_gpt: AsyncOpenAI
) -> None:
    shelf = Shelf()
    shelf.add_seconds = 0.05
    memory = kind(shelf)
    client = wrap(async_gpt, memory, user_id="ada", recall=False)
    await client.chat.completions.create(**said("remember me"))
    closing = memory.close()
    if closing is not None:
        await closing
    assert shelf.contents("ada") == ["remember me"]
    assert CaptureQueue.of(memory).stats().stored == 0, "the closed one is not used again"


async def test_closing_is_bounded_when_the_backend_hangs(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    shelf.released.clear()
    memory = AsyncMemory(shelf, close_timeout=0.2)
    queue = CaptureQueue(memory, max_workers=1, batch_size=1)
    for turn in turns(3):
        await queue.aput(turn)
    async with asyncio.timeout(5):
        await memory.aclose()
        await asyncio.sleep(0.01)
    stats = queue.stats()
    assert (stats.stored, stats.failed, stats.dropped) == (0, 1, 2)
    assert len(caplog.records) == 2, "one line for what was cut off and one for what was dropped"


def test_a_closed_queue_takes_nothing_and_the_calls_go_on(llm: FakeLLM, gpt: OpenAI, memory: Memory) -> None:
    queue = CaptureQueue(memory)
    client = wrap(gpt, queue, user_id="ada")
    assert queue.close()
    assert queue.close()
    reply = client.chat.completions.create(**said("hello"))
    assert reply.choices[0].message.content == "You said: hello"
    assert queue.stats().dropped == 1
    assert CaptureQueue.of(memory) is not queue
    assert CaptureQueue.of(memory) is CaptureQueue.of(memory)


RunPython = Callable[..., CompletedProcess[str]]

LEAVE = """
import sys, openproto
from openai import OpenAI
from openproto.integrations.llm import wrap
memory = openproto.Memory("sqlite", path=sys.argv[2], embedder=None)
client = wrap(OpenAI(base_url=sys.argv[1], api_key="k"), memory, user_id="ada")
client.chat.completions.create(model="m", messages=[{"role": "user", "content": "do not forget me"}])
"""


def test_a_program_that_just_ends_loses_nothing(llm: FakeLLM, tmp_path: Path, run_python: RunPython) -> None:
    ran = run_python(LEAVE, llm.openai_url, tmp_path / "memory.db")
    assert ran.returncode == 0, ran.stderr
    with Memory("sqlite", path=str(tmp_path / "memory.db"), embedder=None) as memory:
        kept = sorted(record.content for record in memory.list("ada").items)
    assert kept == ["do not forget me"]


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


def test_turns_whose_loop_has_ended_are_reported_at_exit(run_python: RunPython) -> None:
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


@pytest.mark.promise(60, 63, 66)
def test_an_extractor_in_a_thread_makes_the_memories(shelf: Shelf, memory: Memory) -> None:
    threads: set[str] = set()
    three = threading.Barrier(3, timeout=10)  # so fewer at once would fail, and of more some would wait in vain

    def facts(turn: Turn) -> Iterator[str | dict[str, Any] | MemoryInput]:
        threads.add(threading.current_thread().name)
        three.wait()
        if turn.user == "turn 0":
            return
        yield f"fact of {turn.user}"
        yield {"content": f"tagged of {turn.user}", "tags": ["fact"], "scope": "facts"}
        yield MemoryInput(content=f"input of {turn.user}", user_id=turn.user_id)

    with CaptureQueue(memory, extract=facts, max_workers=3) as queue:
        for turn in turns(12):
            queue.put(turn)
        assert queue.wait(10)
        stats = queue.stats()
    assert (stats.stored, stats.skipped) == (11, 1)
    assert len(shelf.kept) == 33
    assert len(threads) == 3
    assert all("openproto-extract" in name for name in threads)
    assert {record.scope for record in shelf.kept.values() if record.tags == ["fact"]} == {"facts"}


async def test_an_extractor_may_be_a_coroutine_and_its_failure_stores_nothing(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    async def facts(turn: Turn) -> list[Any]:
        await asyncio.sleep(0)
        if turn.user == "turn 1":
            raise KeyError("secret content")
        return (
            [{"content": "for somebody else", "user_id": "bob"}] if turn.user == "turn 2" else [f"fact of {turn.user}"]
        )

    async with AsyncMemory(shelf) as memory:
        queue = CaptureQueue(memory, extract=facts)
        for turn in turns(4):
            await queue.aput(turn)
        assert not await queue.flush(5)
        assert (queue.stats().stored, queue.stats().failed) == (2, 2)
    assert sorted(shelf.contents("ada")) == ["fact of turn 0", "fact of turn 3"]
    assert shelf.contents("bob") == []
    assert "secret content" not in caplog.text
    assert caplog.messages == ["memory: the extractor failed (KeyError)"]


def test_a_worker_does_not_work_in_the_context_of_the_request_that_started_it(shelf: Shelf, memory: Memory) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    def facts(turn: Turn) -> list[str]:
        seen.append(request.get())
        return []

    with CaptureQueue(memory, extract=facts) as queue:
        request.set("somebody's")
        queue.put(Turn("ada", "hello", None))
        assert queue.wait(5)
    assert seen == ["none"]


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
    import weakref

    memory = Memory(Shelf())
    seen = weakref.ref(CaptureQueue(memory))
    del memory
    gc.collect()
    assert seen() is None


def test_settings_that_could_never_work_are_refused(memory: Memory) -> None:
    with pytest.raises(ValueError, match="must be"):
        CaptureQueue(memory, policy="x")  # type: ignore[arg-type]
