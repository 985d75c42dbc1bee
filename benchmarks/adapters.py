"""What an adapter adds to its vendor's SDK: a call through openproto next to the SDK's own in a thread, in turns.

One function an adapter; each yields the calls to compare, whose two sides ask the same backend for the same.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from statistics import median
from typing import Any, TypeAlias

from benchmarks.corpus import Corpus, ReadyEmbedder
from benchmarks.harness import Bench, Figure, at_most, not_run, spread, take_turns
from openproto import AsyncMemory

MOST, MOST_SEARCH = 1.2, 1.5
MEMORIES = 200

Call: TypeAlias = Callable[[int], Any]
Pairs: TypeAlias = dict[str, tuple[Call, Call]]
Sides: TypeAlias = AbstractAsyncContextManager[Pairs]


async def run(bench: Bench) -> list[Figure]:
    """Measure every adapter whose SDK is installed."""
    return [figure for name, sides in ADAPTERS.items() for figure in await _measured(name, sides, bench)]


async def _measured(name: str, sides: Callable[[], Sides], bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    try:
        async with sides() as pairs:
            for verb, (ours, theirs) in pairs.items():
                rounds = 100 if verb == "get" else 40
                took = await take_turns({"openproto": ours, "SDK": theirs}, rounds, warm=10)
                figures.append(
                    at_most(
                        f"{name}: {verb} through openproto / the SDK's in a thread, p50",
                        median(took["openproto"]) / median(took["SDK"]),
                        MOST_SEARCH if verb == "search" else MOST,
                        "x",
                        openproto_ms=spread(took["openproto"], 1e3),
                        sdk_ms=spread(took["SDK"], 1e3),
                    )
                )
    except ImportError as error:
        return [not_run(f"{name}: calls through openproto next to the SDK's", str(error))]
    return figures


@asynccontextmanager
async def _mem0_library() -> AsyncIterator[Pairs]:
    from openproto_adapters.mem0.shared_library import shared_library

    with tempfile.TemporaryDirectory() as folder:
        embedder = ReadyEmbedder()
        async with AsyncMemory("mem0", path=folder, embedder=embedder) as memory:
            from openproto_adapters.mem0.parts import current_embed

            record = await memory.add("Ann prefers green tea", user_id="ann")
            texts, queries = Corpus(3).texts(MEMORIES), Corpus(5).queries(50)
            await memory.add_many([{"content": text, "user_id": "ann"} for text in texts])
            library = shared_library("qdrant", folder)._memory
            ann = {"user_id": "ann"}

            def call(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
                def bare() -> Any:
                    current_embed.set(lambda text: embedder.vector(text).tolist())
                    return method(*args, **options)

                return asyncio.to_thread(bare)

            yield {
                "get": (lambda turn: memory.get(record.id), lambda turn: call(library.get, record.id)),
                "search": (
                    lambda turn: memory.search(queries[turn % 50], "ann", limit=10),
                    lambda turn: call(library.search, queries[turn % 50], filters=ann, top_k=10),
                ),
                "list": (
                    lambda turn: memory.list("ann", limit=50),
                    lambda turn: call(library.get_all, filters=ann, top_k=50),
                ),
                "add": (
                    lambda turn: memory.add(texts[turn % MEMORIES], user_id="bob"),
                    lambda turn: call(library.add, texts[turn % MEMORIES], user_id="eve", infer=False),
                ),
            }


@asynccontextmanager
async def _mem0_platform() -> AsyncIterator[Pairs]:
    from openproto_adapters.mem0.quiet_import import import_mem0
    from openproto_conformance.emulators.mem0 import Mem0Platform

    with Mem0Platform(lag=0) as platform:
        async with AsyncMemory("mem0", **platform.provider_options()) as memory:
            added = await memory.add("Ann prefers green tea", user_id="ann")
            (record,) = await memory.wait_for_ingest([added.id], "ann")
            client = import_mem0().MemoryClient(api_key=platform.api_key, host=platform.url)
            yield {"get": (lambda turn: memory.get(record.id), lambda turn: asyncio.to_thread(client.get, record.id))}
            client.client.close()


@asynccontextmanager
async def _letta() -> AsyncIterator[Pairs]:
    import letta_client
    from openproto_adapters.letta.ids import PassageId
    from openproto_conformance.emulators.letta import Letta

    with Letta() as emulator:
        async with AsyncMemory("letta", **emulator.provider_options()) as memory:
            record = await memory.add("Ann prefers green tea", user_id="ann")
            at = PassageId.of(record.id).moment
            (archive,) = emulator.archives
            client = letta_client.Letta(base_url=emulator.url, api_key=emulator.api_key)

            def search() -> object:
                return client.passages.search(archive_id=archive, start_date=at, end_date=at, limit=100)

            yield {"get": (lambda turn: memory.get(record.id), lambda turn: asyncio.to_thread(search))}
            client.close()


@asynccontextmanager
async def _memori() -> AsyncIterator[Pairs]:
    from memori.storage._connection import connection_context
    from openproto_conformance.emulators.memori import Memori
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker

    with Memori() as place:
        async with AsyncMemory("memori", **place.provider_options()) as memory:
            record = await memory.add("Ann prefers green tea", user_id="ann")
            engine = create_engine(place.url)

            def get() -> object:
                with connection_context(sessionmaker(engine)) as (_, _, driver):
                    assert driver is not None
                    return driver.entity_fact.get_facts_by_ids([1])

            yield {"get": (lambda turn: memory.get(record.id), lambda turn: asyncio.to_thread(get))}
            engine.dispose()


@asynccontextmanager
async def _memorysync() -> AsyncIterator[Pairs]:
    from memorysync import MemorySyncClient
    from openproto_adapters.memorysync.ids import RowId, end_user
    from openproto_conformance.emulators.memorysync import MemorySync

    with MemorySync() as emulator:
        async with AsyncMemory("memorysync", **emulator.provider_options()) as memory:
            record = await memory.add("Ann prefers green tea", user_id="ann")
            own = RowId.of(record.id)
            with MemorySyncClient(emulator.api_key, emulator.url, end_user_id=end_user(own.token)) as client:
                get = partial(client.get, own.first)
                yield {"get": (lambda turn: memory.get(record.id), lambda turn: asyncio.to_thread(get))}


@asynccontextmanager
async def _memsy() -> AsyncIterator[Pairs]:
    from memsy import MemsyClient
    from openproto_adapters.memsy.ids import EventId
    from openproto_conformance.emulators.memsy import Memsy

    with Memsy(lag=0) as emulator:
        options = emulator.provider_options()
        async with AsyncMemory("memsy", **options) as memory:
            record = await memory.add("Ann prefers green tea", user_id="ann")
            own = EventId.of(record.id)
            with MemsyClient(**options, max_retries=0) as client:
                search = partial(
                    client.search,
                    "what is known",
                    actor_id=own.token,
                    session_id=own.session,
                    limit=100,
                    include_source_events=True,
                )
                yield {"get": (lambda turn: memory.get(record.id), lambda turn: asyncio.to_thread(search))}


@asynccontextmanager
async def _supermemory() -> AsyncIterator[Pairs]:
    import httpx
    import supermemory
    from openproto_adapters.supermemory.ids import DocumentId
    from openproto_conformance.emulators.supermemory import Supermemory

    with Supermemory(lag=0) as emulator, httpx.Client() as http:
        async with AsyncMemory("supermemory", **emulator.provider_options()) as memory:
            added = await memory.add("Ann prefers green tea", user_id="ann")
            (record,) = await memory.wait_for_ingest([added.id], "ann")
            own = DocumentId.of(record.id)
            client = supermemory.Supermemory(base_url=emulator.url, api_key=emulator.api_key, http_client=http)
            get = partial(client.documents.get, own.namespace, own.document)
            yield {"get": (lambda turn: memory.get(record.id), lambda turn: asyncio.to_thread(get))}


ADAPTERS: dict[str, Callable[[], Sides]] = {
    "letta": _letta,
    "mem0, library": _mem0_library,
    "mem0, platform": _mem0_platform,
    "memori": _memori,
    "memorysync": _memorysync,
    "memsy": _memsy,
    "supermemory": _supermemory,
}
