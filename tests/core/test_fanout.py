"""`gather_bounded`: everything, in order, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from openproto import gather_bounded


class Gauge:
    def __init__(self) -> None:
        self.running = self.most = self.started = 0

    async def call(self, value: int, *, fail: bool = False) -> int:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.001 * (value % 3))
            if fail:
                raise ValueError(f"number {value}")
            return value
        finally:
            self.running -= 1


@pytest.mark.promise(13)
async def test_results_come_in_order_and_at_most_the_limit_run_at_once() -> None:
    gauge = Gauge()
    results = await gather_bounded((gauge.call(number) for number in range(40)), limit=7)
    assert results == list(range(40))
    assert gauge.most == 7


async def test_a_generator_is_drawn_from_only_as_turns_come() -> None:
    gauge, drawn = Gauge(), 0

    def calls() -> Iterator[asyncio.Future[int]]:
        nonlocal drawn
        for number in range(20):
            drawn += 1
            assert drawn <= gauge.started + 3
            yield gauge.call(number)  # type: ignore[misc]  # a coroutine is as good

    assert len(await gather_bounded(calls(), limit=3)) == 20


async def test_the_first_failure_stops_the_others_and_is_raised() -> None:
    gauge = Gauge()
    with pytest.raises(ValueError, match="number 5"):
        await gather_bounded([gauge.call(number, fail=number == 5) for number in range(1000)], limit=4)
    assert gauge.running == 0
    assert gauge.started < 20


@pytest.mark.promise(99)
async def test_with_return_exceptions_a_failure_stands_in_its_place() -> None:
    gauge = Gauge()
    calls = (gauge.call(number, fail=number == 2) for number in range(5))
    first, second, third, *rest = await gather_bounded(calls, limit=2, return_exceptions=True)
    assert (first, second, rest) == (0, 1, [3, 4])
    assert isinstance(third, ValueError)


async def test_cancelling_the_gathering_cancels_the_calls() -> None:
    gauge = Gauge()

    async def hang() -> int:
        return await gauge.call(0) + await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await gather_bounded([hang() for _ in range(10)], limit=3)
    assert gauge.started == 3
    assert gauge.running == 0


async def test_nothing_to_do_is_an_empty_list() -> None:
    assert await gather_bounded([]) == []


async def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        await gather_bounded([], limit=0)
