"""Cancelling a verb at its first, second, third ... suspension, in each way that programs cancel.

`Probe` drives a coroutine by hand and strikes as it suspends for the k-th time, which reaches every await of the run;
sleeping and hoping does not. Where it strikes is exact; what a server or a thread does meanwhile is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from openproto_conformance.checks import Violation, ensure
from openproto_conformance.pauses import ThreadClock

try:
    import anyio
except ModuleNotFoundError as error:
    raise ImportError(
        "the conformance suite needs anyio: pip install 'openproto[conformance]'", name="anyio"
    ) from error

T = TypeVar("T")

_Make: TypeAlias = Callable[[], Awaitable[Any]]
Strike: TypeAlias = Literal["task.cancel", "asyncio.timeout", "anyio scope"]
STRIKES: tuple[Strike, ...] = get_args(Strike)

PROMPT = 0.050
"""PROTOCOL 4.4: how soon CancelledError reaches the awaiter."""

REACHED_WITHIN = 10.0
"""Seconds for a call to come to a suspension: threads of a backend's own may wait for a processor that long."""
ENDED_WITHIN = 2.0
"""Seconds for it to end once it is cancelled."""
ATTEMPTS = 5
MOST_SUSPENSIONS = 200


class Probe(Generic[T]):
    """An awaitable around another one that calls `strike` as it suspends for the `at`-th time, and sets `struck`."""

    def __init__(self, inner: Awaitable[T], at: int, strike: Callable[[], object], struck: asyncio.Event) -> None:
        self._inner = inner
        self._at = at
        self._strike = strike
        self._struck = struck
        self.suspensions = 0
        self.struck_at: float | None = None
        self.ended_at = 0.0

    def __await__(self) -> Generator[Any, Any, T]:
        """Pass everything between the loop and the inner awaitable, counting."""
        with ThreadClock() as clock:
            return (yield from self._steps(clock))

    def _steps(self, clock: ThreadClock) -> Generator[Any, Any, T]:
        steps = self._inner.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                self.ended_at = clock.now()
                result: T = end.value
                return result
            except BaseException:
                self.ended_at = clock.now()
                raise
            self.suspensions += 1
            if self.suspensions == self._at:
                self.struck_at = clock.now()
                self._strike()
                self._struck.set()
            value = error = None
            try:
                value = yield waits_for
            except BaseException as raised:  # a cancellation is passed on, which is the point
                error = raised


@dataclass(frozen=True, slots=True)
class Struck:
    """What came of one strike: whether the verb got as far, and how long it took to end."""

    happened: bool
    seconds: float


async def strike_once(make: _Make, at: int, how: Strike, patience: float = 1.0) -> Struck:
    """Cancel `make()` at its `at`-th suspension; fail where it goes on, ends otherwise, or never ends.

    Coming to that suspension may take it `patience` times longer than usual; ending then may not.
    """
    where = f"{how} at suspension {at}"
    struck = asyncio.Event()
    task = asyncio.ensure_future(_STRIKERS[how](make, at, struck))
    striking = asyncio.ensure_future(struck.wait())
    within = REACHED_WITHIN * patience
    await asyncio.wait({task, striking}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    striking.cancel()
    if struck.is_set():
        await asyncio.wait({task}, timeout=ENDED_WITHIN)
    if not task.done():
        task.cancel()
        late = f"it did not end in {ENDED_WITHIN:g} s: it swallowed the cancellation"
        if not struck.is_set():
            late = f"the verb did not come so far in {within:g} s"
        raise Violation(f"{where}: {late}, or waits for what an earlier one lost")
    if task.cancelled():
        raise Violation(f"{where}: CancelledError came out of a scope that should have caught it")
    probe, cancelled = task.result()
    if probe.struck_at is None:
        return Struck(False, 0.0)
    finished_anyway = how == "anyio scope" and probe.suspensions == at
    ensure(cancelled or finished_anyway, f"{where}: the verb returned as if nothing had happened")
    return Struck(True, probe.ended_at - probe.struck_at)


async def _by_task(make: _Make, at: int, struck: asyncio.Event) -> tuple[Probe[Any], bool]:
    probe: Probe[Any] = Probe(make(), at, lambda: inner.cancel(), struck)

    async def run() -> None:
        await probe

    inner = asyncio.ensure_future(run())
    await asyncio.wait({inner})
    if not inner.cancelled() and (error := inner.exception()) is not None:
        raise error
    return probe, inner.cancelled()


async def _by_timeout(make: _Make, at: int, struck: asyncio.Event) -> tuple[Probe[Any], bool]:
    deadline = asyncio.timeout(None)
    now = asyncio.get_running_loop().time
    probe: Probe[Any] = Probe(make(), at, lambda: deadline.reschedule(now()), struck)
    try:
        async with deadline:
            await probe
    except TimeoutError:
        if not deadline.expired():
            raise
        return probe, True
    return probe, False


async def _by_scope(make: _Make, at: int, struck: asyncio.Event) -> tuple[Probe[Any], bool]:
    scope = anyio.CancelScope()
    probe: Probe[Any] = Probe(make(), at, scope.cancel, struck)
    with scope:
        await probe
    return probe, scope.cancelled_caught


_STRIKERS: dict[Strike, Callable[[_Make, int, asyncio.Event], Awaitable[tuple[Probe[Any], bool]]]] = {
    "task.cancel": _by_task,
    "asyncio.timeout": _by_timeout,
    "anyio scope": _by_scope,
}


async def strike_everywhere(
    make: _Make, after: Callable[[], Awaitable[None]], measure: Callable[[float], None], patience: float = 1.0
) -> None:
    """Strike `make()` at every suspension in every way, run `after()` each time, and fail where ending took too long.

    A strike that was slow is tried again: slow every time is the verb's fault.
    """
    for how in STRIKES:
        for at in range(1, MOST_SUSPENSIONS + 1):
            for _ in range(ATTEMPTS):
                struck = await strike_once(make, at, how, patience)
                await after()
                if struck.seconds <= PROMPT:
                    break
            else:
                raise Violation(
                    f"{how} at suspension {at}: CancelledError took longer than {PROMPT * 1000:g} ms each time"
                )
            if not struck.happened:
                break
            measure(struck.seconds * 1000)
