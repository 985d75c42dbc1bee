"""Locks by name: one holder at a time, on whatever loop, and none lost to a cancellation."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from openproto.emulation import KeyedLocks

ONE = ("store", "memory", "1")
TWO = ("store", "memory", "2")


async def test_waiters_get_their_turn_in_order_and_two_orders_do_not_wait_for_each_other() -> None:
    locks, order = KeyedLocks(), list[int]()

    async def work(number: int) -> None:
        async with locks.hold([(ONE, TWO), (TWO, ONE), (ONE, ONE)][number % 3]):
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await asyncio.gather(*(work(number) for number in range(99)))
    assert order == list(range(99))


@pytest.mark.parametrize("strike_after", [0, 1, 2, 3])
async def test_a_cancelled_waiter_leaves_the_lock_to_the_next(strike_after: int) -> None:
    locks = KeyedLocks()
    held = []

    async def work(name: str) -> None:
        async with locks.hold([ONE]):
            held.append(name)

    async with locks.hold([ONE]):
        waiters = [asyncio.create_task(work(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
    for _ in range(strike_after):
        await asyncio.sleep(0)
    waiters[0].cancel()
    async with asyncio.timeout(5):
        await asyncio.wait(waiters)
    assert held[-1] == "second"
    async with asyncio.timeout(5), locks.hold([ONE]):
        pass


def test_loops_of_several_threads_exclude_each_other() -> None:
    locks = KeyedLocks()
    inside, most, done = 0, 0, 0
    guard = threading.Lock()

    async def work(seed: int) -> None:
        nonlocal inside, most, done
        chance = random.Random(seed)
        for _ in range(200):
            try:
                async with asyncio.timeout(0.0001 if chance.random() < 0.1 else None), locks.hold([ONE]):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    await asyncio.sleep(0)
                    with guard:
                        inside -= 1
                        done += 1
            except TimeoutError:
                pass

    async def several(seed: int) -> None:
        await asyncio.gather(*(work(seed * 10 + number) for number in range(3)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda seed: asyncio.run(several(seed)), range(4), timeout=30))
    assert most == 1 or inside != 0, "a timeout may strike inside, but never two holders at once"
    assert done > 1000
    assert locks._held == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_a_forked_child_is_not_kept_waiting_by_its_parent() -> None:
    locks = KeyedLocks()
    async with locks.hold([ONE]):
        child = os.fork()
        if child == 0:
            os._exit(0 if not locks._held else 1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
