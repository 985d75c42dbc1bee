"""Cancellation: prompt, whole or absent, and usable afterwards, wherever it strikes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from openproto import AsyncMemory, MemoryRecord, ProviderTimeoutError
from openproto_conformance.bench import RETURN_WITHIN, Bench
from openproto_conformance.cancelled_writes import CancelledWrite, cancelled_writes, check_audited
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal, raises
from openproto_conformance.faces import Face
from openproto_conformance.leaks import open_files
from openproto_conformance.pauses import ThreadClock
from openproto_conformance.probe import ATTEMPTS, PROMPT, strike_everywhere, strike_once

area = Area("cancellation")

ASYNC: tuple[Face, ...] = ("async",)
FIELDS: dict[str, Any] = {"scope": "kitchen", "tags": ["a", "b"], "confidence": 0.5, "x-note": {"n": 1}}
WATCHED = 1.0
STRUCK_AT_ONCE = 6
MOST_OPEN = 40
HINT_WHOLE = "one verb, one statement: look for an await, or a commit, between the parts of the write"
HINT_PROMPT = "what the verb awaits once it is cancelled: a finally, an except that goes on, a thread that is joined"


@area.case("add", "get", "list", faces=ASYNC, seconds=120, hint=HINT_WHOLE)
async def each_cancelled_write_is_whole_or_absent(bench: Bench) -> None:
    """Every writing verb struck at any await has happened whole, audit entry included, or not at all, nor later."""
    await asyncio.gather(*(_strike(bench, write) for write in cancelled_writes(bench)))


async def _strike(bench: Bench, write: CancelledWrite) -> None:
    async def after() -> None:
        await write.prepare()

    await write.prepare()
    await strike_everywhere(write.make, after, _measure(bench), bench.backend.patience)
    write.subjects.pop()  # nobody struck the last one
    # What happens later to those above may have happened by now; these are all struck at this moment.
    makes = [partial(write.make, await write.prepare()) for _ in range(STRUCK_AT_ONCE)]
    patience = bench.backend.patience
    await asyncio.gather(*(strike_once(make, at, "task.cancel", patience) for at, make in enumerate(makes, 1)))
    await asyncio.sleep(RETURN_WITHIN)
    states = await write.states()
    await asyncio.sleep(WATCHED)
    equal(await write.states(), states, f"which cancelled calls of {write.verb} have happened, a second later")
    await check_audited(write, states)


@area.case(
    "add", "list", "delete", faces=ASYNC, hint="reads and batches: prompt, and nothing kept from one call to the next"
)
async def every_other_verb_can_be_cancelled(bench: Bench) -> None:
    """Reads, `add_many`, and `delete_all` struck at any await end promptly, and the next call works."""
    user = bench.user()
    record = await bench.add("the wombat is grey", user_id=user)
    for make in _others(bench, bench.client, user, record.id):

        async def check() -> None:
            equal(await bench.client.get(record.id), record, "the record read after a strike")
            for batch in await bench.inventory(bench.user("batch")):
                equal(batch.tags, ["whole"], "the tags of what a cancelled add_many stored")

        await strike_everywhere(make, check, _measure(bench), bench.backend.patience)


@area.case(
    "add",
    faces=ASYNC,
    hint="open(): what was acquired before the cancellation must be released, and opening must work again",
)
async def opening_can_be_cancelled(bench: Bench) -> None:
    """A first verb struck while the backend opens leaves a client that works."""
    made: list[AsyncMemory] = []

    def make() -> Awaitable[object]:
        made.append(bench.build())
        return made[-1].add("tea", user_id=bench.user())

    async def check() -> None:
        record = await made[-1].add("coffee", user_id=bench.user())
        equal(record.content, "coffee", "the next add")
        await made[-1].close()

    await strike_everywhere(make, check, _measure(bench), bench.backend.patience)


@area.case(
    "add",
    faces=ASYNC,
    hint="open(): each thing acquired must be released when a later step is cancelled, by open() or by close()",
)
async def an_opening_provider_can_be_cancelled(bench: Bench) -> None:
    """A provider whose `open()` is cancelled at any await, and that is then closed, keeps nothing."""
    for at in itertools.count(1):
        provider = bench.backend.provider()
        struck = await strike_once(provider.open, at, "task.cancel", bench.backend.patience)
        await provider.close()
        if not struck.happened:
            return


@area.case("add", faces=ASYNC, hint="entering `async with` and being cancelled: open() must give back what it took")
async def entering_can_be_cancelled(bench: Bench) -> None:
    """Entering struck at any await leaves nothing open, and the next client opens."""
    made: list[AsyncMemory] = []

    def make() -> Awaitable[object]:
        made.append(bench.build())
        return made[-1].__aenter__()

    async def check() -> None:
        await made[-1].close()
        client = await bench.open()
        equal((await client.add("tea", user_id=bench.user())).content, "tea", "the next client's add")
        await client.close()

    await strike_everywhere(make, check, _measure(bench), bench.backend.patience)


@area.case("add", "list", faces=ASYNC, hint=HINT_PROMPT)
async def a_stuck_call_is_cancelled_promptly(bench: Bench) -> None:
    """While the backend does not answer, CancelledError reaches the awaiter within 50 ms."""
    user = bench.user()
    slowest = float("inf")
    for _ in range(ATTEMPTS):
        with bench.backend_stalled():
            calls = [asyncio.ensure_future(bench.client.add(f"note {n}", user_id=user)) for n in range(20)]
            await asyncio.sleep(0.1)
            slowest = await _cancel(calls)
        if slowest <= PROMPT:
            break
    bench.measure("cancel_ms", slowest * 1000)
    ensure(slowest <= PROMPT, f"CancelledError took {slowest * 1000:.0f} ms in the last of {ATTEMPTS} attempts")
    equal((await bench.client.add("next", user_id=user)).content, "next", "the next add")


@area.case(
    "add",
    "list",
    faces=ASYNC,
    hint="the tier: native and aborting stop the backend's work, so that a cancelled write stays undone",
)
async def a_cancelled_write_stops_in_the_backend(bench: Bench) -> None:
    """Writes cancelled while the backend is held up do not happen later; if detached, no more than it has threads."""
    user = bench.user()
    detached = bench.capabilities.x_openproto.cancellation == "detached"
    number = 20 + (bench.backend.threads if detached else 0)
    with bench.backend_stalled() as stalled:
        calls = [asyncio.ensure_future(bench.client.add(f"note {n}", user_id=user)) for n in range(number)]
        await asyncio.sleep(0.2 if stalled else 0.0)
        finished = sum(call.done() for call in calls)
        await _cancel(calls)
        if stalled:
            equal(finished, 0, "the number of writes that ended while the backend was held up")
        await asyncio.sleep(RETURN_WITHIN)
        before = len(await bench.inventory(user))
    await asyncio.sleep(WATCHED)
    late = len(await bench.inventory(user)) - before
    allowed = bench.backend.threads if detached else 0
    ensure(
        late <= allowed, f"{late} cancelled writes happened later than {RETURN_WITHIN:g} s after they were cancelled"
    )
    equal((await bench.client.add("next", user_id=user)).content, "next", "the next add")


@area.case(
    "add", "get", faces=ASYNC, hint="what a cancelled call still holds: its connection, a lock, a slot of the pool"
)
async def the_pool_is_back_after_cancellations(bench: Bench) -> None:
    """After a hundred calls were cancelled, the next read is served within half a second."""
    user = bench.user()
    record = await bench.add("tea", user_id=user)
    fastest = float("inf")
    for _ in range(ATTEMPTS):
        with bench.backend_stalled():
            writes = [bench.client.add(f"note {n}", user_id=user) for n in range(50)]
            reads = [bench.client.get(record.id) for _ in range(50)]
            calls = [asyncio.ensure_future(call) for call in (*writes, *reads)]
            await asyncio.sleep(0.05)
            await _cancel(calls)
            if bench.capabilities.x_openproto.cancellation != "detached":
                started = time.perf_counter()
                await bench.client.get(record.id)
                fastest = min(fastest, time.perf_counter() - started)
        equal((await bench.client.add("next", user_id=user)).content, "next", "the next add")
        if fastest <= RETURN_WITHIN:
            break
    if bench.capabilities.x_openproto.cancellation != "detached":
        bench.measure("pool_back_ms", fastest * 1000)
        ensure(fastest <= RETURN_WITHIN, f"the next read took {fastest:.2f} s in the best of {ATTEMPTS} attempts")
    if bench.backend.busy(bench.provider_of(bench.client)) is None:
        bench.lacking.add("busy")


@area.case("add", "get", faces=ASYNC, hint="the connection or file of a cancelled read: back in the pool, or closed")
async def cancelled_reads_keep_nothing_open(bench: Bench) -> None:
    """However many reads are cancelled, the process's open connections and files stay bounded."""
    record = await bench.add("tea", user_id=bench.user())
    before = len(open_files())
    for at in range(2 * MOST_OPEN):
        reading = asyncio.ensure_future(bench.client.get(record.id))
        await asyncio.sleep(at % 4 * 0.0005)
        reading.cancel()
        await asyncio.wait({reading})
    more = len(open_files()) - before
    for _ in range(int(RETURN_WITHIN / 0.05)):
        if more <= MOST_OPEN:
            break
        await asyncio.sleep(0.05)
        more = len(open_files()) - before
    ensure(more <= MOST_OPEN, f"{2 * MOST_OPEN} cancelled reads left {more} connections or files open")


@area.case(
    "add", "list", faces=ASYNC, hint="the client's timeout=: it cancels the provider's call just as a caller does"
)
async def a_timeout_cancels_too(bench: Bench) -> None:
    """A verb that exceeds the client's `timeout` is ProviderTimeoutError, and the client works on."""
    client = await bench.open(timeout=0.3)
    with bench.backend_stalled() as stalled:
        if stalled:
            started = time.perf_counter()
            error = await raises(ProviderTimeoutError, client.add, "tea", user_id=bench.user())
            took = time.perf_counter() - started
            ensure(isinstance(error, TimeoutError) and error.code == "provider_timeout", "it is no TimeoutError")
            ensure(0.25 < took < 1.0, f"a timeout of 0.3 s took {took:.2f} s")
    record = await client.add("next", user_id=bench.user())
    equal(record.content, "next", "the next add")
    heavy = [{"content": f"note {n} " * 20, "user_id": bench.user("heavy")} for n in range(900)]
    hurried = bench.build(timeout=0.001, retries=0)
    await hurried.add_many(heavy)
    for stored in await bench.inventory(bench.user("heavy")):
        ensure(stored.content.startswith("note "), "what a timed-out add_many stored is not whole")


@area.case("add", "list", faces=ASYNC, hint=HINT_WHOLE)
async def random_strikes_leave_whole_records(bench: Bench) -> None:
    """Struck at random moments of the clock, single writes, updates, and batches leave only whole records."""
    user = bench.user()
    for n in range(bench.size(300, 60)):
        call = asyncio.ensure_future(_some_write(bench, user, n))
        await asyncio.sleep(bench.random.random() * 0.004)
        call.cancel()
        await asyncio.wait({call}, timeout=2.0)
        ensure(call.done(), "a write was still running 2 s after it was cancelled")
        if not call.cancelled() and (error := call.exception()) is not None:
            raise error
    for record in await bench.inventory(user):
        number = record.content.rpartition(" ")[2]
        equal(record.tags, [f"tag {number}"], "the tags, beside the content")
        equal(record.extensions, {"x-note": {"n": 1}}, "the extensions")


def _others(bench: Bench, client: AsyncMemory, user: str, id: str) -> Iterable[Callable[[], Awaitable[Any]]]:
    batch = [{"content": f"batch {n}", "user_id": bench.user("batch"), "tags": ["whole"]} for n in range(20)]
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "get": lambda: client.get(id),
        "list": lambda: client.list(user),
        "search": lambda: client.search("wombat", user),
        "context": lambda: client.context("wombat", user),
        "audit": lambda: client.audit(user),
        "add": lambda: client.add_many(batch),
        "delete": lambda: client.delete_all(bench.user("batch")),
        "capabilities": client.health,
    }
    return [call for verb, call in calls.items() if verb in bench.capabilities.verbs]


async def _some_write(bench: Bench, user: str, n: int) -> None:
    item: dict[str, Any] = {"content": f"note {n}", "user_id": user, "tags": [f"tag {n}"], "x-note": {"n": 1}}
    if n % 3 == 0:
        await bench.client.add_many([item, {**item}, {**item}])
    record = await bench.client.add(**item)
    if n % 3 == 1 and "update" in bench.capabilities.verbs:
        await bench.client.update(record.id, content=f"changed {n + 1}", tags=[f"tag {n + 1}"])


async def _cancel(calls: Sequence[asyncio.Future[MemoryRecord]]) -> float:
    """Cancel the calls and return how long the slowest took to end; fail where one does not end."""
    with ThreadClock() as clock:
        started = clock.now()
        for call in calls:
            call.cancel()
        _, pending = await asyncio.wait(calls, timeout=2.0)
        slowest = clock.now() - started
    ensure(not pending, f"{len(pending)} calls were still running 2 s after they were cancelled")
    for call in calls:
        if not call.cancelled() and (error := call.exception()) is not None:
            raise error
    return slowest


def _measure(bench: Bench) -> Callable[[float], None]:
    return lambda ms: bench.measure("cancel_ms", ms)
