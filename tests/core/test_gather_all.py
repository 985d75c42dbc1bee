"""`gather_all`: the calls' results, the first error once all have ended, and nothing left running."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import pytest

from openproto.fanout import gather_all


async def test_the_results_come_in_order() -> None:
    async def slow() -> str:
        await asyncio.sleep(0.01)
        return "slow"

    assert await gather_all(slow(), asyncio.sleep(0, "quick")) == ["slow", "quick"]


async def test_an_error_is_raised_as_it_is_once_the_others_have_ended() -> None:
    ended = asyncio.Event()

    async def fails() -> None:
        raise KeyError("first")

    async def goes_on() -> None:
        await asyncio.sleep(0.01)
        ended.set()

    with pytest.raises(KeyError, match="first"):
        await gather_all(fails(), goes_on())
    assert ended.is_set()


async def test_of_several_errors_the_first_is_raised() -> None:
    first_has_failed = asyncio.Event()

    async def fails_later() -> None:
        await first_has_failed.wait()
        raise KeyError("second")

    async def fails() -> None:
        first_has_failed.set()
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await gather_all(fails_later(), fails())


@pytest.mark.parametrize("by_scope", [False, True])
async def test_cancelling_ends_them_all(by_scope: bool) -> None:
    cancelled: list[int] = []

    async def hangs(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(number)

    async def outlives() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    if by_scope:
        with anyio.move_on_after(0.01) as scope:
            await gather_all(hangs(1), asyncio.sleep(0), hangs(2), outlives())
        assert scope.cancelled_caught
    else:
        call = asyncio.create_task(gather_all(hangs(1), asyncio.sleep(0), hangs(2), outlives()))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert sorted(cancelled) == [1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}
