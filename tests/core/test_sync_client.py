"""`Memory`: the same verbs for code without an event loop, from any thread, through forks and interrupts."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from fake_provider import FakeProvider, record

from openproto import Memory, MemoryPage

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


@pytest.mark.promise(90)
def test_all_clients_and_threads_share_one_daemon_thread() -> None:
    provider = FakeProvider(acts=[lambda: asyncio.sleep(0.01)] * 64)
    with Memory(provider) as memory, Memory(FakeProvider()) as other, ThreadPoolExecutor(16) as pool:
        other.get("m1")
        found = list(pool.map(lambda n: memory.get(f"m{n}").id, range(64)))
        threads = [thread for thread in threading.enumerate() if thread.name == "openproto-loop"]
    assert found == [f"m{n}" for n in range(64)]
    assert provider.opens == 1
    assert provider.most_running > 1
    assert [thread.daemon for thread in threads] == [True]


@pytest.mark.promise(12, 65)
async def test_it_can_be_used_where_another_loop_runs_but_not_on_its_own_and_sees_the_callers_context() -> None:
    other, seen = Memory(FakeProvider()), []

    async def nested() -> None:
        seen.append(WHO.get())
        other.get("m1")  # which would wait for itself for ever

    WHO.set("ada")
    with Memory(FakeProvider(acts=[nested])) as memory:
        with pytest.raises(RuntimeError, match="own background loop"):
            memory.get("m1")
        assert memory.get("m1").id == "m1"
    assert seen == ["ada"]


def test_iter_yields_from_every_page_in_the_callers_thread_and_may_be_left_early() -> None:
    threads = set()

    def two_pages() -> FakeProvider:
        provider = FakeProvider()
        pages = (["a", "b"], "c1"), (["c"], None)
        provider.pages = [MemoryPage(items=[*map(record, ids)], next_cursor=cursor) for ids, cursor in pages]
        return provider

    def items(memory: Memory) -> Any:
        for found in memory.iter("ada", page_size=2):
            threads.add(threading.current_thread())
            yield {"content": found.id, "user_id": found.user_id}

    source, left, target = two_pages(), two_pages(), FakeProvider()
    with Memory(source) as old, Memory(left) as other, Memory(target) as new:
        new.add_many(items(old))
        assert next(other.iter("ada")).id == "a"
        gc.collect()
    assert [item.content for item in target.inputs] == ["a", "b", "c"]
    assert [(request.cursor, request.limit) for request in source.requests] == [(None, 2), ("c1", 2)]
    assert left.calls == ["list"]
    assert threads == {threading.current_thread()}


def test_nothing_starts_before_the_first_call_and_a_program_that_forgets_to_close_ends(run_python: Any) -> None:
    ended = run_python(
        "import threading, time, openproto, fake_provider\n"
        "memory = openproto.Memory(fake_provider.FakeProvider())\n"
        "print(threading.active_count()); memory.get('m1')\n"
        "while threading.active_count() > 2: time.sleep(0.01)\n"  # the thread that built pydantic's models ends
        "print(threading.active_count())"
    )
    assert (ended.stdout.split(), ended.returncode) == (["1", "2"], 0), ended.stderr


INTERRUPTED = """
import sys, time, fake_provider, openproto
async def hang():
    print("hanging", flush=True)
    await fake_provider.hang()
provider = fake_provider.FakeProvider(acts=[hang])
memory = openproto.Memory(provider)
try:
    memory.get("m1")
except KeyboardInterrupt:
    for _ in range(500):
        if provider.cancelled:
            break
        time.sleep(0.01)
    print("cancelled", provider.cancelled, "and then", memory.get("m2").id)
memory.close()
"""


def test_an_interrupt_cancels_the_call_and_leaves_the_client_usable(start_python: Any) -> None:
    process = start_python(INTERRUPTED)
    assert process.stdout.readline() == "hanging\n"
    time.sleep(0.1)  # the call is under way; let the main thread reach its wait
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == "cancelled ['get'] and then m2\n", err
