"""A client's life: made without I/O, opened once, closed once, on one event loop (PROTOCOL section 4)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from fake_provider import FakeProvider, hang
from waiting import until

from openproto import (
    AsyncMemory,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnauthorizedError,
    UnsupportedCapabilityError,
)

CALLS: dict[str, Callable[[AsyncMemory], Any]] = {
    "add": lambda m: m.add("tea", user_id="ada"),
    "get": lambda m: m.get("m1"),
    "update": lambda m: m.update("m1", content="milk"),
    "delete": lambda m: m.delete("m1"),
    "list": lambda m: m.list("ada"),
    "search": lambda m: m.search("tea", "ada"),
    "context": lambda m: m.context("tea", "ada"),
    "audit": lambda m: m.audit("ada"),
    "capabilities": lambda m: m.capabilities(),
    "add_many": lambda m: m.add_many([{"content": "tea", "user_id": "ada"}]),
    "delete_all": lambda m: m.delete_all("ada"),
    "iter": lambda m: anext(m.iter("ada"), None),
    "wait_for_ingest": lambda m: m.wait_for_ingest(["m1"], "ada"),
    "health": lambda m: m.health(),
}
every_verb = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


class Gate:
    """Something to wait for, and a way to know that somebody waits."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.go.wait()


# -- opening ----------------------------------------------------------------------------------------------------------


async def test_making_a_client_opens_nothing() -> None:
    provider = FakeProvider()
    AsyncMemory(provider)
    await asyncio.sleep(0)
    assert (provider.opens, provider.calls) == (0, [])


def test_making_a_client_needs_no_event_loop() -> None:
    assert repr(AsyncMemory(FakeProvider(), max_concurrency=2)) == "<AsyncMemory provider='fake'>"


def test_making_a_client_is_quick() -> None:
    start = time.perf_counter()
    for _ in range(20):
        AsyncMemory(FakeProvider())
    assert (time.perf_counter() - start) / 20 < 0.05


@pytest.mark.promise(21)
@every_verb
async def test_the_first_verb_opens_the_backend(call: Callable[[AsyncMemory], Any]) -> None:
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    await call(memory)
    assert provider.opens == 1
    await memory.aclose()


async def test_later_verbs_do_not_open_it_again() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        for call in CALLS.values():
            await call(memory)
    assert provider.opens == 1


@pytest.mark.promise(82)
@pytest.mark.promise(27)
@pytest.mark.promise(98)
async def test_async_with_opens_at_entry_and_closes_at_exit() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider):
        assert (provider.opens, provider.closes) == (1, 0)
    assert (provider.opens, provider.closes) == (1, 1)


@pytest.mark.promise(82)
@pytest.mark.promise(98)
async def test_the_client_is_closed_when_its_block_raises() -> None:
    provider = FakeProvider()
    with pytest.raises(ZeroDivisionError):
        async with AsyncMemory(provider):
            raise ZeroDivisionError
    assert provider.closes == 1


@pytest.mark.promise(82)
@pytest.mark.promise(28)
async def test_a_client_can_be_closed_by_hand() -> None:
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    await memory.search("tea", "ada")
    await memory.close()
    assert provider.closes == 1


@pytest.mark.promise(110)
async def test_a_bad_backend_fails_at_entry() -> None:
    provider = FakeProvider(opening=[UnauthorizedError("the password is refused")])
    with pytest.raises(UnauthorizedError, match="the password is refused"):
        async with AsyncMemory(provider):
            pytest.fail("the block ran")
    await until(lambda: provider.closes == 1)


async def test_a_client_that_failed_at_entry_is_closed() -> None:
    memory = AsyncMemory(FakeProvider(opening=[UnauthorizedError("no")]))
    with pytest.raises(UnauthorizedError):
        await memory.__aenter__()
    with pytest.raises(RuntimeError, match="AsyncMemory is closed"):
        await memory.get("m1")


async def test_an_entry_that_hangs_is_bounded_by_the_timeout() -> None:
    provider = FakeProvider(opening=[hang])
    with pytest.raises(ProviderTimeoutError, match="opening"):
        async with AsyncMemory(provider, timeout=0.05):
            pytest.fail("the block ran")
    await until(lambda: provider.closes == 1)
    assert provider.cancelled == ["open"]


async def test_an_entry_that_is_cancelled_releases_the_backend() -> None:
    provider = FakeProvider(opening=[hang])
    entering = asyncio.create_task(AsyncMemory(provider).__aenter__())
    await until(lambda: provider.opens == 1)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await until(lambda: provider.closes == 1)
    assert provider.cancelled == ["open"]


@pytest.mark.promise(88)
async def test_concurrent_first_verbs_open_the_backend_once() -> None:
    gate = Gate()
    provider = FakeProvider(opening=[gate])
    memory = AsyncMemory(provider)
    calls = [asyncio.create_task(memory.search("tea", "ada")) for _ in range(10)]
    await gate.reached.wait()
    gate.go.set()
    await asyncio.gather(*calls)
    assert (provider.opens, provider.calls) == (1, ["search"] * 10)
    await memory.aclose()


async def test_a_cancelled_first_caller_does_not_spoil_the_opening_for_the_others() -> None:
    gate = Gate()
    provider = FakeProvider(opening=[gate])
    memory = AsyncMemory(provider)
    first, second = (asyncio.create_task(memory.get(id)) for id in ("m1", "m2"))
    await gate.reached.wait()
    first.cancel()
    await asyncio.wait([first])
    gate.go.set()
    assert (await second).id == "m2"
    assert (first.cancelled(), provider.opens, provider.cancelled) == (True, 1, [])
    await memory.aclose()


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


async def test_a_failed_opening_is_tried_again_by_the_next_verb() -> None:
    provider = FakeProvider(opening=[ProviderError("down")])
    memory = AsyncMemory(provider)
    with pytest.raises(ProviderError, match="down"):
        await memory.get("m1")
    assert (await memory.get("m1")).id == "m1"
    assert provider.opens == 2
    await memory.aclose()


async def test_a_failed_opening_fails_every_caller_that_waited_for_it() -> None:
    gate = Gate()

    async def fail() -> None:
        await gate()
        raise ProviderUnavailableError("down")

    provider = FakeProvider(opening=[fail])
    memory = AsyncMemory(provider, retries=0)
    calls = [asyncio.create_task(memory.get("m1")) for _ in range(3)]
    await gate.reached.wait()
    gate.go.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in found] == [ProviderUnavailableError] * 3
    assert provider.opens == 1
    await memory.aclose()


async def test_a_failed_opening_that_nobody_waits_for_any_more_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()

    async def fail() -> None:
        await gate()
        raise ProviderError("down")

    memory = AsyncMemory(FakeProvider(opening=[fail]))
    call = asyncio.create_task(memory.get("m1"))
    await gate.reached.wait()
    call.cancel()
    await asyncio.wait([call])
    gate.go.set()
    await asyncio.sleep(0.01)
    gc.collect()
    assert caplog.records == []
    await memory.aclose()


class AddOnly(FakeProvider):
    @property
    def verbs(self) -> Any:
        return frozenset({"add", "capabilities"})


@pytest.mark.promise(34)
@pytest.mark.parametrize("verb", ["get", "update", "delete", "list", "search", "context", "audit", "delete_all"])
async def test_an_unsupported_verb_is_refused_before_the_backend_is_opened(verb: str) -> None:
    provider = AddOnly()
    with pytest.raises(UnsupportedCapabilityError) as caught:
        await CALLS[verb](AsyncMemory(provider))
    assert (provider.opens, provider.calls) == (0, [])
    assert f"'{verb.replace('_all', '')}'" in caught.value.message
    assert (caught.value.provider, "'fake'" in caught.value.message) == ("fake", True)


# -- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.promise(2)
async def test_closing_twice_closes_the_backend_once() -> None:
    provider = FakeProvider()
    memory = await AsyncMemory(provider).__aenter__()
    await memory.aclose()
    await memory.aclose()
    assert provider.closes == 1


async def test_closing_from_two_tasks_at_once_closes_the_backend_once() -> None:
    provider = FakeProvider()
    memory = await AsyncMemory(provider).__aenter__()
    await asyncio.gather(memory.aclose(), memory.aclose())
    assert provider.closes == 1


async def test_closing_a_client_that_was_never_used_touches_nothing() -> None:
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    await memory.aclose()
    assert (provider.opens, provider.closes) == (0, 0)
    with pytest.raises(RuntimeError, match=r"^AsyncMemory is closed$"):
        await memory.get("m1")


@pytest.mark.promise(21)
@every_verb
async def test_a_verb_after_closing_is_a_runtime_error_before_any_io(call: Callable[[AsyncMemory], Any]) -> None:
    provider = FakeProvider()
    memory = await AsyncMemory(provider).__aenter__()
    await memory.aclose()
    with pytest.raises(RuntimeError) as caught:
        await call(memory)
    assert str(caught.value) == "AsyncMemory is closed"
    assert (provider.opens, provider.calls) == (1, [])


async def test_a_closed_client_cannot_be_entered_again() -> None:
    memory = AsyncMemory(FakeProvider())
    await memory.aclose()
    with pytest.raises(RuntimeError, match=r"^AsyncMemory is closed$"):
        await memory.__aenter__()


async def test_closing_waits_for_calls_that_run() -> None:
    gate = Gate()
    provider = FakeProvider(acts=[gate])
    memory = AsyncMemory(provider)
    call = asyncio.create_task(memory.get("m1"))
    await gate.reached.wait()
    closing = asyncio.create_task(memory.aclose())
    await asyncio.sleep(0.01)
    assert provider.closes == 0
    gate.go.set()
    await closing
    assert provider.closes == 1
    assert (await call).id == "m1"


async def test_closing_never_waits_longer_than_its_timeout_for_a_stuck_call() -> None:
    provider = FakeProvider(acts=[hang])
    memory = AsyncMemory(provider, timeout=None, close_timeout=0.1)
    call = asyncio.create_task(memory.get("m1"))
    await provider.started.wait()
    async with asyncio.timeout(5):
        await memory.aclose()
    assert provider.closes == 1
    call.cancel()
    await asyncio.wait([call])


async def test_closing_never_waits_longer_than_its_timeout_for_a_stuck_backend() -> None:
    provider = FakeProvider(closing=[hang])
    memory = await AsyncMemory(provider, close_timeout=0.1).__aenter__()
    async with asyncio.timeout(5):
        await memory.aclose()
    assert provider.cancelled == ["close"]


async def test_closing_stops_an_opening_that_hangs() -> None:
    provider = FakeProvider(opening=[hang])
    memory = AsyncMemory(provider)
    call = asyncio.create_task(memory.get("m1"))
    await until(lambda: provider.opens == 1)
    async with asyncio.timeout(5):
        await memory.aclose()
    await asyncio.wait([call], timeout=5)
    assert (provider.cancelled, provider.closes, call.done()) == (["open"], 1, True)


async def test_a_call_that_waits_for_the_opening_when_the_client_closes_is_not_told_it_was_cancelled() -> None:
    provider = FakeProvider(opening=[hang])
    memory = AsyncMemory(provider)
    call = asyncio.create_task(memory.get("m1"))
    await until(lambda: provider.opens == 1)
    await memory.aclose()
    with pytest.raises((RuntimeError, OpenProtoError)):
        await call


async def test_closing_that_is_cancelled_goes_on_in_the_background() -> None:
    gate = Gate()
    provider = FakeProvider(closing=[gate])
    memory = await AsyncMemory(provider).__aenter__()
    closing = asyncio.create_task(memory.aclose())
    await gate.reached.wait()
    closing.cancel()
    await asyncio.wait([closing])
    gate.go.set()
    await asyncio.sleep(0.01)
    assert (closing.cancelled(), provider.cancelled, provider.closes) == (True, [], 1)


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with AsyncMemory(FakeProvider()) as memory:
        await memory.get("m1")
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("open_it", [lambda m: m.__aenter__(), lambda m: m.get("m1")], ids=["entered", "used"])
async def test_a_client_that_is_dropped_while_open_warns(open_it: Callable[[AsyncMemory], Any]) -> None:
    clients = [AsyncMemory(FakeProvider())]
    await open_it(clients[0])
    with pytest.warns(ResourceWarning, match=r"unclosed AsyncMemory on 'fake': call aclose\(\)"):
        drop(clients)


def drop(clients: list[AsyncMemory]) -> None:
    clients.clear()
    gc.collect()


@pytest.mark.parametrize("used", [False, True])
async def test_a_client_that_was_closed_or_never_opened_is_dropped_in_silence(used: bool) -> None:
    memory = AsyncMemory(FakeProvider())
    if used:
        await memory.get("m1")
        await memory.aclose()
    del memory
    gc.collect()  # a warning would be an error


def test_a_client_that_could_not_be_made_is_dropped_in_silence() -> None:
    with contextlib.suppress(ValueError):
        AsyncMemory(FakeProvider(), timeout=-1)
    gc.collect()


# -- loops ------------------------------------------------------------------------------------------------------------

ELSEWHERE = "AsyncMemory is bound to a different event loop"


@pytest.mark.promise(89)
@pytest.mark.promise(24)
@every_verb
def test_a_verb_on_another_loop_is_a_runtime_error_before_any_backend_call(
    call: Callable[[AsyncMemory], Any],
) -> None:
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        home.run(memory.get("m1"))
        with pytest.raises(RuntimeError) as caught:
            elsewhere.run(drive(call(memory)))
        home.run(memory.aclose())
    assert str(caught.value) == ELSEWHERE
    assert provider.calls == ["get"]


async def drive(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.promise(90)
def test_a_client_cannot_be_carried_from_one_asyncio_run_to_the_next() -> None:
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    asyncio.run(drive(memory.get("m1")))
    with pytest.raises(RuntimeError, match=ELSEWHERE):
        asyncio.run(drive(memory.get("m1")))
    assert provider.calls == ["get"]
    discard(memory)


@pytest.mark.promise(90)
def test_a_client_cannot_be_used_by_the_loop_of_another_thread() -> None:
    provider = FakeProvider()
    memory = AsyncMemory(provider)

    async def both() -> None:
        await memory.get("m1")
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            await asyncio.to_thread(asyncio.run, drive(memory.get("m1")))
        await memory.aclose()

    asyncio.run(both())
    assert provider.calls == ["get"]


@pytest.mark.promise(83)
def test_a_client_belongs_to_the_loop_that_it_was_entered_on() -> None:
    memory = AsyncMemory(FakeProvider())
    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        home.run(drive(memory.__aenter__()))
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            elsewhere.run(drive(memory.__aenter__()))
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            elsewhere.run(drive(memory.aclose()))
        home.run(drive(memory.aclose()))


def test_a_client_may_be_made_before_any_loop_and_on_another_than_it_runs_on() -> None:
    async def make() -> AsyncMemory:
        return AsyncMemory(FakeProvider(), max_concurrency=1)

    async def use(memory: AsyncMemory) -> None:
        async with memory:
            await asyncio.gather(memory.get("m1"), memory.get("m2"))

    asyncio.run(use(asyncio.run(make())))


def test_a_dead_loop_is_not_mistaken_for_a_new_one_at_its_address() -> None:
    memory = AsyncMemory(FakeProvider())
    asyncio.run(drive(memory.get("m1")))
    for _ in range(20):  # sooner or later a new loop has the old one's id()
        gc.collect()
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            asyncio.run(drive(memory.get("m1")))
    discard(memory)


def test_a_client_does_not_keep_its_loop_alive() -> None:
    memory = AsyncMemory(FakeProvider())

    async def use() -> weakref.ref[asyncio.AbstractEventLoop]:
        await memory.get("m1")
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use())
    gc.collect()
    alive = loop() is not None
    discard(memory)
    assert not alive


def discard(memory: AsyncMemory) -> None:
    """Drop a client whose loop is gone, and take the warning for it."""
    with pytest.warns(ResourceWarning):
        memory.__del__()
    memory._session._closed = True
