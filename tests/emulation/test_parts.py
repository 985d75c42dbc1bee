"""The small parts that adapters share: locks, what is forgotten, and an answer of another shape."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from openproto import ProviderError
from openproto.emulation import KeyedLocks, Recent, reading
from openproto.http_status import error_of, read_retry_after


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert recent.items() == [("a", 1), ("c", 3)]
    recent.pop("c", 4)
    recent.pop("a")
    assert [recent.get(key) for key in "abc"] == [None, None, 3]


@pytest.mark.parametrize("fault", [AttributeError, KeyError, TypeError, ValueError])
def test_an_answer_of_another_shape_is_a_provider_error_that_repeats_nothing(fault: type[Exception]) -> None:
    with pytest.raises(ProviderError, match="unexpected response from Acme") as caught, reading("Acme"):
        raise fault("the secret of the mountain")
    assert caught.value.__cause__ is None
    assert "mountain" not in str(caught.value)


def test_every_status_is_an_error_that_names_the_vendor() -> None:
    for status in range(200, 600):
        error = error_of(status, vendor="Acme", key="ACME_API_KEY", retry_after=2.0)
        assert "Acme" in error.message
        assert ("ACME_API_KEY" in error.message) == (status == 401)
        assert error.retryable == (status in (402, 429, 502, 503, 504))
        assert (error.retry_after == 2.0) == (status in (429, 502, 503, 504))


def test_retry_after_is_seconds_or_a_date_or_passed_over() -> None:
    def date(hours: float) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)

    for header, seconds in (("7", 7.0), ("1.5", 1.5), ("-3", 0.0), (date(-1), 0.0), (date(1), 3600.0)):
        assert read_retry_after(header) == pytest.approx(seconds, abs=60 if seconds == 3600 else 0)
    for header in ("soon", "nan", "inf", "", "Thu, 99 Foo 2026", "9" * 500):
        assert read_retry_after(header) is None


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

    async def work(seed: int) -> None:
        nonlocal inside, most, done
        chance = random.Random(seed)
        for _ in range(200):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0001 if chance.random() < 0.1 else None), locks.hold([ONE]):
                    inside += 1
                    most, done = max(most, inside), done + 1
                    try:
                        await asyncio.sleep(0)
                    finally:
                        inside -= 1

    async def several(seed: int) -> None:
        await asyncio.gather(*(work(seed * 10 + number) for number in range(3)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda seed: asyncio.run(several(seed)), range(4), timeout=30))
    assert most == 1
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
