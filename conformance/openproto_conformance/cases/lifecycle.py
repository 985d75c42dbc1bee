"""Lifecycle: opened once, bound to one loop, closed for good, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from openproto import AsyncMemory, Memory
from openproto_conformance.bench import CLOSE_WITHIN, Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import Violation, ensure, equal, raises
from openproto_conformance.faces import AwaitableMemory
from openproto_conformance.spy import spy_on

area = Area("lifecycle")

CONSTRUCTED_WITHIN_MS = 5.0
FORK_SECONDS = 20.0


@area.case(hint="`__init__`: it stores its options and nothing else; imports and connections belong in open()")
async def constructing_does_nothing_yet(bench: Bench) -> None:
    """Constructing a client opens nothing and takes less than 5 ms."""
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        provider = bench.backend.provider()
        best = min(best, (time.perf_counter() - started) * 1000)
        calls = spy_on(provider)
        started = time.perf_counter()
        bench.build(provider)
        best = min(best, best + (time.perf_counter() - started) * 1000)
        equal(calls, [], "what the provider was asked for by constructing a client")
    bench.measure("construct_ms", best)
    ensure(best < CONSTRUCTED_WITHIN_MS, f"constructing took {best:.1f} ms")


@area.case("add", hint="`open()`: called once, by entering or by the first verb, also when many verbs come at once")
async def a_client_opens_once(bench: Bench) -> None:
    """Entering opens the backend; without entering, the first verb does, and many first verbs open it once."""
    entered = bench.backend.provider()
    calls = spy_on(entered)
    await bench.open(entered)
    equal(calls, ["open"], "the calls made by entering")
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = bench.build(provider)
    await asyncio.gather(*(client.add(f"note {n}", user_id=bench.user()) for n in range(20)))
    equal(calls.count("open"), 1, "how often 20 first verbs opened the provider")


@area.case(hint="`close()`: idempotent, and closed is closed, before anything reaches the provider")
async def a_closed_client_refuses(bench: Bench) -> None:
    """Closing twice is closing once; then every verb is RuntimeError before any I/O, also on a client never opened."""
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = await bench.open(provider)
    await client.close()
    await client.close()
    equal(calls.count("close"), 1, "how often the provider was closed")
    calls.clear()
    unopened = bench.build()
    await unopened.close()
    for closed in (client, unopened):
        for name, verb in _verbs(closed, bench.user()).items():
            error = await raises(RuntimeError, verb)
            equal(str(error), f"{_class_name(bench)} is closed", f"the message of {name} on a closed client")
    equal(calls, [], "what reached the provider after it was closed")


@area.case("add", "get", hint="`close()` and a new provider: what was acknowledged is in the store", level="should")
async def a_new_client_reads_what_a_closed_one_wrote(bench: Bench) -> None:
    """What one client wrote before it was closed, a new client reads."""
    client = await bench.open()
    record = await client.add("tea", user_id=bench.user(), tags=["a"])
    await client.close()
    equal(
        (await bench.client.get(record.id)).model_dump(exclude={"status"}), record.model_dump(exclude={"status"}), "it"
    )


@area.case(hint="Provider.close(): safe on a provider that never opened, and safe to repeat")
async def a_provider_closes_at_any_time(bench: Bench) -> None:
    """A provider may be closed before it was opened, and twice, and opened again by nobody's harm."""
    provider = bench.backend.provider()
    await bench.release(provider)
    await bench.release(provider)
    client = await bench.open()
    closed = bench.provider_of(client)
    await client.close()
    await bench.release(closed)


@area.case("add", hint="`close()` while a call hangs: bounded by close_timeout, and the call ends")
async def closing_does_not_wait_for_ever(bench: Bench) -> None:
    """Closing ends within close_timeout, whatever is still running, and the running calls end too."""
    client = await bench.open(close_timeout=1.0)
    with bench.backend_stalled():
        calls = [asyncio.ensure_future(client.add(f"note {n}", user_id=bench.user())) for n in range(3)]
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        await client.close()
        took = time.perf_counter() - started
        bench.measure("close_ms", took * 1000)
        ensure(took < 1.5, f"closing took {took:.1f} s, with close_timeout=1")
    _, pending = await asyncio.wait(calls, timeout=CLOSE_WITHIN)
    for call in pending:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    ensure(not pending, f"{len(pending)} calls were still running after the client was closed")


@area.case(faces=("async",), hint="the loop a client is bound to: compared before anything else is done")
async def another_loop_is_refused(bench: Bench) -> None:
    """A client belongs to the loop that it first ran on; every verb on another raises before any backend call."""
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = await bench.open(provider)
    calls.clear()

    def elsewhere(verb: Callable[[], Awaitable[Any]]) -> str:
        async def run() -> str:
            return str(await raises(RuntimeError, verb))

        with asyncio.Runner() as runner:
            return runner.run(run())

    for name, verb in _verbs(client, bench.user()).items():
        told = await asyncio.to_thread(elsewhere, verb)
        equal(told, "AsyncMemory is bound to a different event loop", f"the message of {name} on another loop")
    equal(calls, [], "what reached the provider")
    equal((await client.health()).status, "ok", "the health on the client's own loop afterwards")


@area.case(hint="a client that is collected while open: a ResourceWarning that names the provider")
async def a_forgotten_client_warns(bench: Bench) -> None:
    """A client that is garbage-collected while open emits a ResourceWarning."""
    client = await bench.open()
    name = bench.capabilities.provider
    provider = bench.forget(client)
    await asyncio.sleep(0.05)  # the step that resumed this case, or the sync face's thread, still holds its result
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
    await bench.release(provider)
    told = [
        str(w.message)
        for w in caught
        if issubclass(w.category, ResourceWarning) and _class_name(bench) in str(w.message)
    ]
    equal(len(told), 1, "the number of ResourceWarnings about the client")
    ensure(name in told[0], "the warning does not name the provider")


@area.case("add", hint="leaving `async with` by an error: closed all the same, and the error unchanged")
async def an_error_inside_still_closes(bench: Bench) -> None:
    """A client left by an exception is closed, and the exception comes out unchanged."""
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = bench.build(provider)
    wanted = LookupError("the caller's own")

    async def use() -> None:
        if isinstance(client, AwaitableMemory):
            with client.memory:
                raise wanted
        async with client:
            raise wanted

    ensure(await raises(LookupError, use) is wanted, "another exception came out")
    equal((calls[0], calls[-1]), ("open", "close"), "the first and the last call of the provider")


@area.case(
    "add",
    "get",
    "list",
    faces=("sync",),
    hint="state of the parent's process: loops, threads, sockets; a child opens anew",
)
async def a_forked_child_has_a_backend_of_its_own(bench: Bench) -> None:
    """After a fork, a child may use the same `Memory`, or is told that it cannot; the parent's goes on working."""
    view = await bench.open()
    ensure(isinstance(view, AwaitableMemory), "the sync face has no Memory")
    memory: Memory = view.memory  # type: ignore[attr-defined]
    record = memory.add("from the parent", user_id=bench.user())
    told = await asyncio.to_thread(_in_child, lambda: _use_in_child(memory, record.id, bench.user()))
    wanted = {"from the parent", "from the child"}
    if told.startswith("UnsupportedCapabilityError"):  # of a backend whose threads no fork survives
        wanted.remove("from the child")
    else:
        equal(told, "ok", "what the child said")
    contents = {r.content for r in memory.list(bench.user()).items}
    equal(contents, wanted, "what the parent reads afterwards")
    equal(memory.add("after the fork", user_id=bench.user()).content, "after the fork", "the parent's next add")


@area.case(
    "add", "list", faces=("sync",), hint="a Memory shared by threads: no thread-bound connection, no unguarded state"
)
async def threads_share_a_memory(bench: Bench) -> None:
    """One `Memory` serves many threads at once."""
    view = await bench.open()
    ensure(isinstance(view, AwaitableMemory), "the sync face has no Memory")
    memory: Memory = view.memory  # type: ignore[attr-defined]
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            user = bench.user(f"thread {n}")
            records = [memory.add(f"note {m}", user_id=user) for m in range(10)]
            equal([r.id for r in reversed(memory.list(user).items)], [r.id for r in records], "a thread's records")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 20.0)
    if failures:
        raise failures[0]


def _verbs(client: AsyncMemory, user: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "add": lambda: client.add("tea", user_id=user),
        "get": lambda: client.get("i"),
        "update": lambda: client.update("i", content="x"),
        "delete": lambda: client.delete("i"),
        "list": lambda: client.list(user),
        "search": lambda: client.search("tea", user),
        "context": lambda: client.context("tea", user),
        "audit": lambda: client.audit(user),
        "capabilities": client.capabilities,
        "add_many": lambda: client.add_many([{"content": "tea", "user_id": user}]),
        "delete_all": lambda: client.delete_all(user),
        "wait_for_ingest": lambda: client.wait_for_ingest(["i"], user),
        "health": client.health,
    }


def _class_name(bench: Bench) -> str:
    return "AsyncMemory" if bench.face == "async" else "Memory"


def _use_in_child(memory: Memory, id: str, user: str) -> None:
    equal(memory.get(id).content, "from the parent", "what the child reads")
    memory.add("from the child", user_id=user)
    memory.close()


def _in_child(function: Callable[[], None]) -> str:
    """Run `function` in a forked child and return "ok", or what it raised; a child that hangs is ended."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 3.12 warns of forks beside threads, which is what is tried
        child = os.fork()
    if child == 0:
        told = "ok"
        try:
            function()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, told.encode())
            os._exit(0)
    os.close(writing)
    try:
        deadline = time.monotonic() + FORK_SECONDS
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                raise Violation(f"the child did not end within {FORK_SECONDS:g} s")
            time.sleep(0.01)
        return os.read(reading, 4096).decode()
    finally:
        with contextlib.suppress(OSError):
            os.close(reading)
