"""Many calls awaited at once, a bounded number at a time or all of them; and one that its caller may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar, overload

T = TypeVar("T")


@overload
async def gather_bounded(
    calls: Iterable[Awaitable[T]], *, limit: int = 8, return_exceptions: Literal[False] = False
) -> list[T]: ...


@overload
async def gather_bounded(
    calls: Iterable[Awaitable[T]], *, limit: int = 8, return_exceptions: Literal[True]
) -> list[T | Exception]: ...


async def gather_bounded(
    calls: Iterable[Awaitable[T]], *, limit: int = 8, return_exceptions: bool = False
) -> list[T] | list[T | Exception]:
    """Await every call, at most `limit` at once, and return their results in order.

    `calls` may be a generator, `(memory.add(text, user_id=user) for text in texts)`: each is made when its turn comes.
    The first failure cancels the others and is raised; with `return_exceptions` it stands in the place of its result.
    Cancelling the gathering cancels every call.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be a whole number, and is a {type(limit).__name__}")
    if limit < 1:
        raise ValueError("limit must be 1 or more")
    remaining = enumerate(calls)
    results: dict[int, T | Exception] = {}

    async def work() -> None:
        for number, call in remaining:
            try:
                results[number] = await call
            except Exception as error:
                if not return_exceptions:
                    raise
                results[number] = error

    workers = [asyncio.create_task(work()) for _ in range(limit)]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for worker in workers:
            worker.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(workers)
        if isinstance(calls, Sequence):
            for call in calls:
                if asyncio.iscoroutine(call):
                    call.close()  # one that was never awaited would warn of it
        raise
    return [results[number] for number in range(len(results))]


async def gather_all(*calls: Awaitable[Any]) -> list[Any]:
    """Return what the calls return, or raise the first error once every call has ended; cancelling cancels them all.

    Unlike `asyncio.gather` no call goes on unattended after another's error, and a cancellation comes out as it went
    in, which is how a cancel scope knows its own. Unlike a TaskGroup's the error is raised as it is, and the other
    calls, which may be writing, are let finish.
    """
    errors: list[Exception] = []

    async def ended(call: Awaitable[Any]) -> Any:
        try:
            return await call
        except Exception as error:
            errors.append(error)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ended(call)) for call in calls]
    if errors:
        raise errors[0]
    return [task.result() for task in tasks]


async def shielded(work: Awaitable[T]) -> T:
    """Return what `work` returns, or raise its error; cancelling the caller leaves it running.

    Unlike `asyncio.shield` from Python 3.14 on, it logs nothing when `work` fails after its caller was cancelled.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_mark_as_seen)
    try:
        await asyncio.wait([task])
        return task.result()
    finally:
        del task  # an error's traceback holds this frame, and the task the error


def _mark_as_seen(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
