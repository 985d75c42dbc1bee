"""A client's life: made without I/O, opened and closed once, on one loop or from any thread, through interrupts."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from fake_provider import FakeProvider, Gate, hang, record
from waiting import cancelled, until

from openproto import AsyncMemory, Memory, MemoryPage, ProviderTimeoutError, ProviderUnavailableError, UnauthorizedError

CLOSED = r"^AsyncMemory is closed$"
ELSEWHERE = r"^AsyncMemory is bound to a different event loop$"


@pytest.mark.parametrize(
    ("act", "timeout", "error"),
    [
        (UnauthorizedError("the password is refused"), 30, UnauthorizedError),
        (hang, 0.05, ProviderTimeoutError),
        (hang, 30, asyncio.CancelledError),
    ],
)
async def test_an_entry_that_fails_or_hangs_closes_the_client(act: Any, timeout: float, error: Any) -> None:
    provider = FakeProvider(opening=[act])
    memory = AsyncMemory(provider, timeout=timeout)
    entering = asyncio.create_task(memory.__aenter__())
    await until(lambda: provider.opens == 1)
    if error is asyncio.CancelledError:
        entering.cancel()
    with pytest.raises(error, match={UnauthorizedError: "refused", ProviderTimeoutError: "opening"}.get(error)):
        await entering
    for use in (memory.get("m1"), memory.__aenter__()):
        with pytest.raises(RuntimeError, match=CLOSED):
            await use
    await until(lambda: provider.closes == 1)
    assert provider.cancelled == (["open"] if act is hang else [])


async def test_a_failed_opening_fails_all_who_wait_and_the_next_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()

    async def fail() -> None:
        await gate()
        raise ProviderUnavailableError("down")

    provider = FakeProvider(opening=[fail, fail])
    memory = AsyncMemory(provider, retries=0)
    calls = [asyncio.create_task(memory.get("m1")) for _ in range(3)]
    await gate.reached.wait()
    gate.go.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in found] == [ProviderUnavailableError] * 3
    assert provider.opens == 1
    gate.go.clear()
    given_up = asyncio.create_task(memory.get("m1"))  # nobody waits for the second failure
    await until(lambda: provider.opens == 2)
    assert await cancelled(given_up)
    gate.go.set()
    await until(lambda: memory._session._opening is None)
    await asyncio.sleep(0)
    gc.collect()
    assert (await memory.get("m1")).id == "m1"
    assert (provider.opens, caplog.records) == (3, [])
    await memory.aclose()


async def test_closing_waits_for_calls_that_run_in_the_background_when_it_is_cancelled() -> None:
    call_gate, close_gate = Gate(), Gate()
    provider = FakeProvider(acts=[call_gate], closing=[close_gate])
    memory = AsyncMemory(provider)
    call = asyncio.create_task(memory.get("m1"))
    await call_gate.reached.wait()
    closing = asyncio.create_task(memory.aclose())
    await asyncio.sleep(0.01)
    assert provider.closes == 0
    call_gate.go.set()
    assert (await call).id == "m1"
    await close_gate.reached.wait()
    assert await cancelled(closing)
    close_gate.go.set()
    await asyncio.sleep(0.01)
    assert (provider.cancelled, provider.closes) == ([], 1)


async def test_a_call_that_outlives_its_client_still_has_its_deadline() -> None:
    provider = FakeProvider(acts=[hang], closing=[hang])
    memory = AsyncMemory(provider, timeout=0.3, close_timeout=0.1)
    call = asyncio.create_task(memory.get("m1"))
    await provider.started.wait()
    async with asyncio.timeout(5):
        await memory.aclose()
        with pytest.raises(ProviderTimeoutError):
            await call
    assert provider.cancelled[0] == "close"


async def test_closing_stops_an_opening_that_hangs_and_its_caller_learns_that_the_client_is_closed() -> None:
    provider = FakeProvider(opening=[hang])
    memory = AsyncMemory(provider)
    call = asyncio.create_task(memory.get("m1"))
    await until(lambda: provider.opens == 1)
    async with asyncio.timeout(5):
        await memory.aclose()
        with pytest.raises(RuntimeError, match=CLOSED):
            await call
    assert (provider.cancelled, provider.closes) == (["open"], 1)


def test_a_client_cannot_be_carried_to_another_run_and_does_not_keep_its_loop_alive() -> None:
    memory = AsyncMemory(FakeProvider())

    async def use() -> weakref.ref[asyncio.AbstractEventLoop]:
        await memory.get("m1")
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use())
    gc.collect()
    alive = loop() is not None
    for _ in range(3):  # sooner or later a new loop has the old one's id()
        for verb in (memory.get("m1"), memory.__aenter__(), memory.aclose()):
            with pytest.raises(RuntimeError, match=ELSEWHERE):
                asyncio.run(verb)
    with pytest.warns(ResourceWarning):
        memory.__del__()
    memory._session._closed = True
    assert not alive


WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


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
