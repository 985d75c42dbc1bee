"""`gather_bounded`: everything, in order, a few at a time; `gather_all`: all at once, and the first error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from openproto import gather_bounded
from openproto.fanout import gather_all


class Gauge:
    def __init__(self) -> None:
        self.running = self.most = self.started = 0

    async def call(self, value: int, *, fail: bool = False, hang: bool = False) -> int:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.001 * (value % 3))
            if hang:
                await asyncio.Event().wait()
            if fail:
                raise ValueError(f"number {value}")
            return value
        finally:
            self.running -= 1


async def test_results_come_in_order_and_at_most_the_limit_run_at_once() -> None:
    gauge, drawn = Gauge(), 0

    def calls() -> Iterator[asyncio.Future[int]]:
        nonlocal drawn
        for number in range(40):
            drawn += 1
            assert drawn <= gauge.started + 7, "a generator is drawn from only as turns come"
            yield gauge.call(number)  # type: ignore[misc]  # a coroutine is as good

    assert await gather_bounded(calls(), limit=7) == list(range(40))
    assert gauge.most == 7
    assert await gather_bounded([]) == []


async def test_the_first_failure_stops_the_others_and_is_raised() -> None:
    gauge = Gauge()
    with pytest.raises(ValueError, match="number 5"):
        await gather_bounded([gauge.call(number, fail=number == 5) for number in range(1000)], limit=4)
    assert gauge.running == 0
    assert gauge.started < 20


async def test_with_return_exceptions_a_failure_takes_its_place_among_the_results() -> None:
    gauge = Gauge()
    calls = (gauge.call(number, fail=number == 2) for number in range(5))
    first, second, third, *rest = await gather_bounded(calls, limit=2, return_exceptions=True)
    assert (first, second, rest) == (0, 1, [3, 4])
    assert isinstance(third, ValueError)


async def test_cancelling_the_gathering_cancels_the_calls() -> None:
    gauge = Gauge()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await gather_bounded([gauge.call(0, hang=True) for _ in range(10)], limit=3)
    assert (gauge.started, gauge.running) == (3, 0)


async def test_gather_all_raises_the_first_of_several_errors_once_all_calls_have_ended() -> None:
    assert await gather_all(asyncio.sleep(0.01, "slow"), asyncio.sleep(0, "quick")) == ["slow", "quick"]
    first_has_failed, ended = asyncio.Event(), asyncio.Event()

    async def fails_later() -> None:
        await first_has_failed.wait()
        raise KeyError("second")

    async def fails() -> None:
        first_has_failed.set()
        raise KeyError("first")

    async def goes_on() -> None:
        await asyncio.sleep(0.01)
        ended.set()

    with pytest.raises(KeyError, match="first"):
        await gather_all(fails_later(), fails(), goes_on())
    assert ended.is_set()


@pytest.mark.parametrize("limit", [0, True, 2.5, float("nan"), float("inf"), -1, [1]])
async def test_a_limit_is_a_whole_number(limit: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="limit"):
        await gather_bounded([], limit=limit)
