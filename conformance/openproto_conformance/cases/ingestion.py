"""Ingestion: when a memory can be found, and how a caller waits for that."""

from __future__ import annotations

import time

from openproto import NotFoundError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal, raises

area = Area("ingestion")


@area.case("add", "get", hint="`status`: done at once in a synchronous store, done in the end in any other")
async def every_memory_is_done_in_the_end(bench: Bench) -> None:
    """`wait_for_ingest` returns the records in order, each of them done."""
    added = [await bench.client.add(f"note {n}", user_id=bench.user()) for n in range(5)]
    records = await bench.client.wait_for_ingest([record.id for record in added], bench.user())
    equal([record.id for record in records], [record.id for record in added], "the ids, in order")
    equal({record.status for record in records}, {"done"}, "the states")
    equal(await bench.client.wait_for_ingest([], bench.user()), [], "the records of no ids")


@area.case("get", "add", hint="`wait_for_ingest`: ids are looked up for this user")
async def waiting_for_the_unknown_is_not_found(bench: Bench) -> None:
    """Waiting for an unknown or foreign id is NotFoundError, at once."""
    record = await bench.add("tea", user_id=bench.user())
    await raises(NotFoundError, bench.client.wait_for_ingest, ["no-such-id"], bench.user(), timeout=5.0)
    await raises(NotFoundError, bench.client.wait_for_ingest, [record.id], bench.user("bob"), timeout=5.0)


@area.case(
    "add",
    "search",
    hint="the time between `add` and the first search that finds it; async_ingestion says whether there is any",
)
async def what_was_added_is_found(bench: Bench) -> None:
    """A synchronous store finds a memory as soon as `add` returns; any other once `wait_for_ingest` does."""
    user = bench.user()
    for n in range(5):
        record = await bench.client.add(f"the zeppelin number {n}", user_id=user)
        started = time.perf_counter()
        if bench.capabilities.features.async_ingestion:
            await bench.client.wait_for_ingest([record.id], user)
        ensure(record.id in await bench.found("zeppelin", user), "the memory is not found")
        bench.measure("ingestion_lag_ms", (time.perf_counter() - started) * 1000)
