"""The parts of `make check-hard`: each takes a seed and a size, and returns a figure, or raises what it found."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import random
import string
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import linear_regression
from typing import Any

from history import fault_of, history_of
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres
from openproto_conformance.checks import ensure

from openproto import AsyncMemory, MemoryRecord, OpenProtoError, gather_bounded
from openproto.server import ServerSettings, create_app, running

CALL_BOUND = 20.0
"""Seconds that any call may take, faults and a busy machine included."""
SOAK_LIMIT = 0.05
"""Kilobytes an operation by which memory may grow once it is warm; what was found and ended was ten times that."""
SOAK_PACE = 60
"""Operations a second: half an hour is for what grows with time, and other parts want the cores."""


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="openproto-hard-") as made:
        yield Path(made)


@asynccontextmanager
async def postgres() -> AsyncIterator[tuple[Path, str]]:
    """Yield a folder and the URL of a server in it, whose keeper writes there until it has ended."""
    with folder() as home:
        home.chmod(0o755)  # as root the server runs as another user, who must come through
        server = PrivatePostgres(home / "postgres")
        try:
            yield home, await asyncio.to_thread(server.start)
        finally:
            await asyncio.to_thread(server.stop)
            async with asyncio.timeout(3 * CALL_BOUND):
                while (held := keeper.lock(home / "postgres" / "keeper.lock", fcntl.LOCK_EX)) is None:
                    await asyncio.sleep(0.1)
            os.close(held)


@asynccontextmanager
async def meanwhile(*works: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do each work again and again, in a task of its own, until the body has ended."""
    ended = asyncio.Event()

    async def repeat(work: Callable[[], Awaitable[object]]) -> None:
        while not ended.is_set():
            await work()

    tasks = [asyncio.create_task(repeat(work)) for work in works]
    try:
        yield
    finally:
        ended.set()
        await asyncio.wait_for(asyncio.gather(*tasks), CALL_BOUND)


def sqlite(path: Path) -> AsyncMemory:
    return AsyncMemory("sqlite", path=str(path), embedder="none", synchronous="normal")


@contextmanager
def served(memory: AsyncMemory) -> Iterator[str]:
    with running(create_app(memory, ServerSettings())) as url:
        yield url


# -- network faults ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def bad_network(url: str, chance: random.Random) -> AsyncIterator[str]:
    """Yield the URL of a proxy that cuts, delays, garbles, and swallows what passes through it."""
    host, port = url.removeprefix("http://").split(":")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                match chance.randrange(12):
                    case 0:
                        break
                    case 1:
                        data = data[: chance.randrange(len(data))]
                    case 2:
                        data = bytes(byte ^ (chance.random() < 0.02) for byte in data)
                    case 3:
                        await asyncio.sleep(chance.uniform(0, 0.2))
                    case 4:
                        data += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, out = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pipe(reader, out), pipe(inner, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def network(chance: random.Random, calls: int) -> str:
    async def ten_calls(url: str) -> int:
        right = 0
        async with aclosing(AsyncMemory("passthrough", base_url=url, timeout=3.0)) as memory:
            for _ in range(10):
                with suppress(OpenProtoError):
                    async with asyncio.timeout(CALL_BOUND):
                        await _one_call(memory, chance)
                    right += 1
        return right

    with folder() as home, served(sqlite(home / "m.db")) as url:
        async with bad_network(url, chance) as bad:
            answered = sum(await gather_bounded((ten_calls(bad) for _ in range(calls // 10)), limit=64))
    made = calls // 10 * 10
    return f"{made:,} calls, {answered:,} answered, {made - answered:,} typed errors"


async def _one_call(memory: AsyncMemory, chance: random.Random) -> None:
    user = f"u{chance.randrange(20)}"
    match chance.randrange(5):
        case 0:
            # Of few words: the table of words that were met grows by each new one until it is emptied.
            found: list[Any] = [await memory.add(f"likes tea {chance.randrange(1000)}", user_id=user)]
        case 1:
            found = (await memory.list(user, limit=5)).items
        case 2:
            found = [result.memory for result in await memory.search("tea", user, limit=5)]
        case 3:
            await memory.context("tea", user)
            found = []
        case _:
            record = await memory.add("likes milk", user_id=user)
            found = [await memory.update(record.id, user_id=user, content="likes water")]
            await memory.delete(record.id, user_id=user)
    ensure(all(record.user_id == user for record in found), "another user's memory came out")


# -- names and versions -----------------------------------------------------------------------------------------------


async def versions(chance: random.Random, operations: int) -> str:
    told = []
    async with postgres() as (home, url):
        in_a_file = {"path": str(home / "m.db"), "synchronous": "normal"}
        for provider, where in (("sqlite", in_a_file), ("postgres", {"url": url})):
            options = {**where, "embedder": "none"}
            made = await history_of(provider, options, processes=8, operations=operations, chance=chance)
            fault = fault_of(made)
            ensure(fault is None, f"{provider}: {fault}")
            refused = sum(one.outcome == "conflict" for one in made)
            told.append(f"{provider} {len(made):,} calls, {refused:,} refused as stale")
    return "; ".join(told)


# -- storms of cancellations ------------------------------------------------------------------------------------------


async def storm(chance: random.Random, cancellations: int) -> str:
    with folder() as home, served(sqlite(home / "s.db")) as url:
        for memory in (sqlite(home / "m.db"), AsyncMemory("passthrough", base_url=url)):
            before = asyncio.all_tasks()
            async with memory:
                for _ in range(cancellations // 100):
                    calls = [asyncio.create_task(_one_call(memory, chance)) for _ in range(50)]
                    await asyncio.sleep(chance.uniform(0, 0.01))
                    for call in calls:
                        call.cancel()
                    ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), CALL_BOUND)
                    wrong = [e for e in ended if e and not isinstance(e, asyncio.CancelledError | OpenProtoError)]
                    ensure(not wrong, f"a cancelled call ended in {wrong[:1]!r}")
                async with asyncio.timeout(CALL_BOUND):
                    await _one_call(memory, chance)
            ensure(asyncio.all_tasks() <= before, "a task was left behind")
    return f"{cancellations // 100 * 100:,} cancelled calls on two providers"


# -- random probes ----------------------------------------------------------------------------------------------------


def _value(chance: random.Random, depth: int = 0) -> Any:
    texts = ["", " ", "ada", "a/b", "a/*", "\0", "\ud800", "é" * 300, "2026-01-31T12:00Z", "x" * 600]
    kinds: list[Callable[[], Any]] = [
        lambda: chance.choice(texts),
        lambda: "".join(chance.choices(string.printable, k=chance.randrange(20))),
        lambda: chance.choice([None, True, 0, -1, 2**70, 0.5, float("nan"), b"x", object, ...]),
        lambda: datetime(2026, 1, 1, tzinfo=chance.choice([UTC, None])) + timedelta(days=chance.randrange(900)),
        lambda: [_value(chance, depth + 1) for _ in range(chance.randrange(4))],
        lambda: {chance.choice(texts): _value(chance, depth + 1) for _ in range(chance.randrange(4))},
    ]
    return chance.choice(kinds if depth < 3 else kinds[:3])()


PROBES: dict[str, tuple[str, ...]] = {
    "add": ("content", "user_id", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "x_app"),
    "get": ("id", "user_id", "key"),
    "update": ("id", "user_id", "content", "scope", "tags", "confidence", "valid_to", "source", "x_app"),
    "delete": ("id", "user_id"),
    "list": ("user_id", "scope", "tag", "since", "until", "as_of", "limit", "cursor"),
    "search": ("query", "user_id", "scope", "tag", "as_of", "limit", "min_score"),
    "context": ("query", "user_id", "scope", "tag", "as_of", "token_budget"),
    "audit": ("user_id", "app", "memory_id", "since", "limit"),
    "add_many": ("items",),
}


GOOD: dict[str, Any] = {
    "content": "likes tea",
    "scope": "kitchen/shelf",
    "tags": ["hot"],
    "tag": "hot",
    "source": {"app": "notes"},
    "confidence": 0.5,
    "x_app": {"a": [1]},
    "query": "tea",
    "limit": 5,
    "token_budget": 100,
    "as_of": datetime(2026, 12, 1, tzinfo=UTC),
    "items": [{"content": "likes milk", "user_id": "ada"}],
}


async def probes(chance: random.Random, calls: int) -> str:
    right = refused = 0
    with folder() as home:
        async with sqlite(home / "m.db") as memory:
            id = (await memory.add("likes tea", user_id="ada")).id
            for _ in range(calls):
                verb = chance.choice(list(PROBES))
                given = {name: _value(chance) for name in PROBES[verb] if chance.random() < 0.6}
                if chance.random() < 0.7:  # most values are good, and one or two are not
                    odd = chance.choices(PROBES[verb], k=chance.randrange(3))
                    good = {name: GOOD[name] for name in PROBES[verb] if name in GOOD and chance.random() < 0.7}
                    given = good | {name: given[name] for name in odd if name in given}
                    given |= {"id": id} if "id" in PROBES[verb] and "key" not in given else {}
                if "user_id" in PROBES[verb] and chance.random() < 0.8:
                    given["user_id"] = chance.choice(["ada", "bob"])
                try:
                    call: Awaitable[Any] = getattr(memory, verb)(**given)
                    found = await asyncio.wait_for(call, CALL_BOUND)
                    right += 1
                    id = found.id if isinstance(found, MemoryRecord) else id
                    if isinstance(found, MemoryRecord) and given.get("user_id") is not None:
                        ensure(found.user_id == given["user_id"], "another user's memory came out")
                except OpenProtoError as error:
                    refused += 1
                    ensure(error.message.strip(), "an error says nothing")
                except TypeError as error:
                    ensure("argument" in str(error), f"{verb} ended in {error!r}")
                    refused += 1
    return f"{calls:,} calls, {right:,} answered, {refused:,} refused"


# -- soak -------------------------------------------------------------------------------------------------------------


async def soak(chance: random.Random, seconds: int) -> str:
    with folder() as home, served(sqlite(home / "s.db")) as url:
        clients = [sqlite(home / "m.db"), AsyncMemory("passthrough", base_url=url)]
        started, operations, samples = time.monotonic(), 0, []
        while (elapsed := time.monotonic() - started) < seconds:
            for memory in clients:
                for _ in range(100):
                    await _one_call(memory, chance)
                user = f"u{chance.randrange(20)}"
                if len((await memory.list(user, limit=500)).items) > 100:
                    await memory.delete_all(user)  # so that what is stored does not grow either
            operations += 200
            await asyncio.sleep(started + operations / SOAK_PACE - time.monotonic())
            if elapsed > seconds / 3:
                gc.collect()
                samples.append((operations, _resident()))
        for memory in clients:
            await memory.aclose()
    slope = linear_regression(*zip(*samples, strict=True)).slope
    ensure(slope < SOAK_LIMIT, f"memory grows by {slope:.3f} kB an operation")
    return f"{seconds / 60:g} minutes, {operations:,} operations, {slope:+.4f} kB an operation"


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1024
