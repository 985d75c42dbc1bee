"""Running one coroutine in a thread and a loop of its own, and being done with it whatever it does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from openproto_conformance.checks import Violation
from openproto_conformance.conduct import under_way
from openproto_conformance.loops import sync_loop

LOOP_ENDED = "the provider raised SystemExit, as sys.exit does, and ended the loop of every Memory with it"
LOOK_EVERY = 0.2
GRACE = 2.0
"""Seconds that cancelled work gets to end, and again that a blocked loop gets to come back."""


@dataclass(slots=True)
class Ended:
    """How it ended: the error if any, whether it had to be given up, and what the loop had left."""

    error: BaseException | None = None
    hung: bool = False
    leaks: list[str] = field(default_factory=list)
    under_way: str = ""
    """Of what had to be given up: the verbs whose calls had not ended."""


def run_bounded(main: Callable[[], Awaitable[None]], seconds: float) -> Ended:
    """Run `main()` for at most `seconds`; a task that cannot be stopped, and a blocked loop, are left behind."""
    ended = Ended()
    thread = threading.Thread(target=_run, args=(main, seconds, ended), name="openproto-case", daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds + 5 * GRACE
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(LOOK_EVERY)
        if not sync_loop().is_running():
            return Ended(Violation(LOOP_ENDED), hung=True)
    if thread.is_alive():
        return Ended(Violation(f"the event loop was blocked: nothing ran on it for {seconds:g} s"), hung=True)
    return ended


def _run(main: Callable[[], Awaitable[None]], seconds: float, ended: Ended) -> None:
    runner = asyncio.Runner()
    loop = runner.get_loop()
    loop.set_exception_handler(lambda _, context: ended.leaks.append(_complaint(context)))
    try:
        stuck = runner.run(_supervise(main, seconds, ended))
    except BaseException as error:  # it belongs to the case, in the other thread
        ended.error = ended.error or error
        stuck = False
    if stuck:
        # Runner.close() would wait for ever for tasks that do not end.
        loop.set_exception_handler(lambda _, __: None)
        loop.close()
    else:
        runner.close()


async def _supervise(main: Callable[[], Awaitable[None]], seconds: float, ended: Ended) -> bool:
    """Run `main()` as a task, note how it ended and which tasks it left; return whether any cannot be stopped."""
    task = asyncio.ensure_future(main())
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        ended.hung = True
        ended.under_way = under_way(asyncio.get_running_loop(), sync_loop())
        ended.error = Violation(f"did not end within {seconds:g} s")
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE)
        if not task.done():
            ended.error = Violation(f"did not end within {seconds:g} s, nor within {GRACE:g} s of being cancelled")
    elif task.cancelled():
        ended.error = Violation("ended in a CancelledError that nobody asked for")
    else:
        ended.error = task.exception()
    left = await _left_over(0.0 if ended.hung else GRACE)
    ended.leaks += [f"{count} x task {name}" for name, count in sorted(Counter(map(_name, left)).items())]
    for other in left:
        other.cancel()
    if left:
        await asyncio.wait(left, timeout=GRACE)
    return any(not other.done() for other in left)


async def _left_over(grace: float) -> set[asyncio.Task[Any]]:
    """Return the tasks of this loop that are still there after at most `grace` seconds."""
    own = asyncio.current_task()
    deadline = asyncio.get_running_loop().time() + grace
    while left := asyncio.all_tasks() - {own}:
        if asyncio.get_running_loop().time() >= deadline:
            return left
        await asyncio.sleep(0.01)
    return set()


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", "?")


def _complaint(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"the event loop was told: {context['message']}" + (f" ({type(error).__name__})" if error else "")
