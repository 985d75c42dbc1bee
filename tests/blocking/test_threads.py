from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
from waiting import until

from openproto.blocking.threads import Threads
from openproto.errors import ProviderUnavailableError

USER: ContextVar[str] = ContextVar("USER", default="nobody")


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads(2, "test-pool")
    yield pool
    pool.close()


class Gate:
    """A blocking call that counts where it runs and returns when it is released."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.started = threading.Semaphore(0)
        self.release = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.started.release()
        self.release.wait(10)
        with self._lock:
            self.running -= 1
        return "passed"

    async def wait_started(self, count: int) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self.started.acquire, timeout=10)


async def test_a_call_runs_off_the_loop_with_its_arguments_and_a_copy_of_the_context(threads: Threads) -> None:
    def call(a: int, *, b: int) -> tuple[int, str, str]:
        return a + b, USER.get(), threading.current_thread().name

    USER.set("ann")
    total, user, name = await threads(call, 1, b=2)
    assert (total, user) == (3, "ann")
    assert name.startswith("test-pool")
    await threads(USER.set, "worker")
    assert USER.get() == "ann"


async def test_errors_reach_the_caller_and_stop_iteration_does_not_hang_it(threads: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        await threads(divmod, 1, 0)
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads(next, iter(()))


@pytest.mark.promise(86)
async def test_cancelled_callers_return_at_once_and_width_bounds_what_runs(threads: Threads) -> None:
    gate = Gate()
    callers = [asyncio.create_task(threads(gate)) for _ in range(20)]
    await gate.wait_started(2)
    for caller in callers:
        caller.cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert gate.running == 2, "the running ones are detached, not killed"
    gate.release.set()
    assert await threads(lambda: "usable") == "usable"
    assert gate.most == 2
    assert not gate.started.acquire(blocking=False), "a cancelled call that was still queued has run"


async def test_a_detached_call_is_logged_once_when_it_ends(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "openproto.blocking.threads")
    gate = Gate()
    caller = asyncio.create_task(threads(gate))
    await gate.wait_started(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not caplog.records
    gate.release.set()
    await until(lambda: caplog.records)
    await threads(int)
    [record] = caplog.records
    assert record.levelno == logging.DEBUG
    assert "test-pool" in record.getMessage()


async def test_a_call_cancelled_in_the_queue_is_not_logged(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "openproto.blocking.threads")
    gate = Gate()
    busy = [asyncio.create_task(threads(gate)) for _ in range(2)]
    await gate.wait_started(2)
    queued = asyncio.create_task(threads(int))
    await asyncio.sleep(0)
    queued.cancel()
    await asyncio.wait([queued])
    gate.release.set()
    assert await asyncio.gather(*busy) == ["passed", "passed"]
    assert not caplog.records


async def test_close_does_not_wait_and_refuses_what_waits_and_what_comes(threads: Threads) -> None:
    gate = Gate()
    busy = [asyncio.create_task(threads(gate)) for _ in range(2)]
    await gate.wait_started(2)
    queued = asyncio.create_task(threads(int))
    await asyncio.sleep(0)
    threads.close()
    threads.close()
    assert gate.running == 2
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await asyncio.wait_for(queued, 5)
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await threads(int)
    gate.release.set()
    assert await asyncio.gather(*busy) == ["passed", "passed"]
