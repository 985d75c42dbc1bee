"""A client's life: made without I/O, opened once, closed once, on one event loop (PROTOCOL section 4)."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from fake_provider import FakeProvider, Gate, hang
from waiting import until

from openproto import AsyncMemory, ProviderTimeoutError, ProviderUnavailableError, UnauthorizedError

CLOSED = r"^AsyncMemory is closed$"
ELSEWHERE = r"^AsyncMemory is bound to a different event loop$"


async def drive(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.promise(110)
@pytest.mark.parametrize(
    ("act", "timeout", "error"),
    [
        (UnauthorizedError("the password is refused"), 30, UnauthorizedError),
        (hang, 0.05, ProviderTimeoutError),
        (hang, 30, asyncio.CancelledError),
    ],
)
async def test_an_entry_that_fails_or_hangs_closes_the_client(act: Any, timeout: float, error: Any) -> None:
    provider = FakeProvider(opening=[act])
    memory = AsyncMemory(provider, timeout=timeout)
    entering = asyncio.create_task(memory.__aenter__())
    await until(lambda: provider.opens == 1)
    if error is asyncio.CancelledError:
        entering.cancel()
    with pytest.raises(error, match={UnauthorizedError: "refused", ProviderTimeoutError: "opening"}.get(error)):
        await entering
    for use in (memory.get("m1"), memory.__aenter__()):
        with pytest.raises(RuntimeError, match=CLOSED):
            await use
    await until(lambda: provider.closes == 1)
    assert provider.cancelled == (["open"] if act is hang else [])


async def test_a_first_caller_that_runs_out_of_time_leaves_the_opening_to_the_next() -> None:
    gate = Gate()
    provider = FakeProvider(opening=[gate])
    memory = AsyncMemory(provider, timeout=0.05)
    with pytest.raises(ProviderTimeoutError):
        await memory.get("m1")
    gate.go.set()
    await memory.get("m1")
    assert provider.opens == 1
    await memory.aclose()


async def test_a_failed_opening_fails_all_who_wait_and_the_next_verb_tries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()

    async def fail() -> None:
        await gate()
        raise ProviderUnavailableError("down")

    provider = FakeProvider(opening=[fail, fail])
    memory = AsyncMemory(provider, retries=0)
    calls = [asyncio.create_task(memory.get("m1")) for _ in range(3)]
    await gate.reached.wait()
    gate.go.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in found] == [ProviderUnavailableError] * 3
    assert provider.opens == 1
    gate.go.clear()
    given_up = asyncio.create_task(memory.get("m1"))  # nobody waits for the second failure
    await until(lambda: provider.opens == 2)
    given_up.cancel()
    await asyncio.wait([given_up])
    gate.go.set()
    await until(lambda: memory._session._opening is None)
    await asyncio.sleep(0)
    gc.collect()
    assert (await memory.get("m1")).id == "m1"
    assert (provider.opens, caplog.records) == (3, [])
    await memory.aclose()


async def test_closing_waits_for_calls_that_run_in_the_background_when_it_is_cancelled() -> None:
    call_gate, close_gate = Gate(), Gate()
    provider = FakeProvider(acts=[call_gate], closing=[close_gate])
    memory = AsyncMemory(provider)
    call = asyncio.create_task(memory.get("m1"))
    await call_gate.reached.wait()
    closing = asyncio.create_task(memory.aclose())
    await asyncio.sleep(0.01)
    assert provider.closes == 0
    call_gate.go.set()
    assert (await call).id == "m1"
    await close_gate.reached.wait()
    closing.cancel()
    await asyncio.wait([closing])
    close_gate.go.set()
    await asyncio.sleep(0.01)
    assert (closing.cancelled(), provider.cancelled, provider.closes) == (True, [], 1)


async def test_closing_stops_an_opening_that_hangs_and_its_caller_learns_that_the_client_is_closed() -> None:
    provider = FakeProvider(opening=[hang])
    memory = AsyncMemory(provider)
    call = asyncio.create_task(memory.get("m1"))
    await until(lambda: provider.opens == 1)
    async with asyncio.timeout(5):
        await memory.aclose()
        with pytest.raises(RuntimeError, match=CLOSED):
            await call
    assert (provider.cancelled, provider.closes) == (["open"], 1)


@pytest.mark.promise(83, 90)
def test_a_client_cannot_be_carried_to_another_run_and_does_not_keep_its_loop_alive() -> None:
    memory = AsyncMemory(FakeProvider())

    async def use() -> weakref.ref[asyncio.AbstractEventLoop]:
        await memory.get("m1")
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use())
    gc.collect()
    alive = loop() is not None
    for _ in range(3):  # sooner or later a new loop has the old one's id()
        for verb in (memory.get("m1"), memory.__aenter__(), memory.aclose()):
            with pytest.raises(RuntimeError, match=ELSEWHERE):
                asyncio.run(drive(verb))
    with pytest.warns(ResourceWarning):
        memory.__del__()
    memory._session._closed = True
    assert not alive
