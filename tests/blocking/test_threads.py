from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

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
    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self) -> str:
        self.started.release()
        self.release.wait(10)
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


async def test_cancelled_callers_return_at_once(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gate = Gate()
    callers = [asyncio.create_task(threads(gate)) for _ in range(20)]
    await gate.wait_started(2)
    for caller in callers:
        caller.cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert not [record for record in caplog.records if "test-pool" in record.getMessage()]
    gate.release.set()
    assert await threads(lambda: "usable") == "usable"
    assert not gate.started.acquire(blocking=False), "a third call has run: too many at once, or a cancelled one"
    await until(lambda: len(caplog.records) >= 2)
    await threads(int)
    assert [record.levelno for record in caplog.records if "test-pool" in record.getMessage()] == [logging.DEBUG] * 2


STUCK = """
import asyncio, sys, time
from openproto.blocking.threads import Threads

async def main():
    threads = Threads(2, "stuck")
    calls = [asyncio.create_task(threads(time.sleep, 60)) for _ in range(3)]
    await asyncio.sleep(0.1)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    threads.close()

asyncio.run(main())
print("httpx" in sys.modules, flush=True)
"""


def test_a_stuck_thread_does_not_keep_the_interpreter_from_exiting_nor_import_httpx(run_python: Any) -> None:
    ended = run_python(STUCK)  # which waits for half as long as the threads sleep
    assert (ended.stdout, ended.stderr, ended.returncode) == ("False\n", "", 0)


async def test_close_does_not_wait_and_refuses_what_waits_and_what_comes(threads: Threads) -> None:
    gate = Gate()
    busy = [asyncio.create_task(threads(gate)) for _ in range(2)]
    await gate.wait_started(2)
    queued = asyncio.create_task(threads(int))
    await asyncio.sleep(0)
    threads.close()
    threads.close()
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await asyncio.wait_for(queued, 5)
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await threads(int)
    gate.release.set()
    assert await asyncio.gather(*busy) == ["passed", "passed"]
