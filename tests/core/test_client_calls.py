"""What a client does around each call: deadlines, retries, slots, outcomes, events, and running figures."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from fake_provider import CALLS, FakeProvider, Gate, answering, hang, record
from waiting import cancelled, until

from openproto import AsyncMemory, ConflictError, InvalidRequestError, MemoryInput, MemoryRecord
from openproto.client import retry
from openproto.errors import IngestionTimeoutError, NotFoundError, ProviderError, ProviderTimeoutError, RateLimitedError
from openproto.errors import ProviderUnavailableError as Down
from openproto.instrumentation import CallEvent, log_calls
from openproto.requests import build_models

build_models()  # else by the first opening, which takes longer on a busy machine than the deadlines here

TEA = {"content": "tea", "user_id": "ada"}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)


@pytest.mark.parametrize("verb", CALLS)
async def test_a_verb_that_hangs_raises_provider_timeout_and_says_whether_it_may_have_written(verb: str) -> None:
    provider = FakeProvider(acts=[hang])
    async with AsyncMemory(provider, timeout=0.1) as memory:
        with pytest.raises(ProviderTimeoutError, match=r"0\.1 s") as caught:
            await CALLS[verb](memory)
        assert len(provider.cancelled) == 1
        is_write = verb in ("add", "update", "delete", "delete_all")
        assert ("may or may not have happened" in caught.value.message) == is_write
        await memory.get("m1")


async def test_each_of_the_calls_that_run_at_once_has_its_own_deadline() -> None:
    provider = FakeProvider(acts=[hang, None, hang, Gate()])
    async with AsyncMemory(provider, timeout=0.1) as memory, asyncio.timeout(30):
        first = asyncio.create_task(memory.get("m1"))
        await provider.started.wait()
        await memory.get("m2")  # which ends before it is late
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(memory.get(id)) for id in ("m3", "m4")]
        await until(lambda: len(provider.calls) == 4)
        others[1].cancel()
        await asyncio.wait([first, *others])
        assert others[1].cancelled()
        assert [type(call.exception()) for call in (first, others[0])] == [ProviderTimeoutError] * 2
        assert (first.cancelling(), others[0].cancelling()) == (0, 0)
        provider.script["verb"] = [hang]
        with pytest.raises(ProviderTimeoutError):  # long after the others
            await memory.get("m5")


async def test_of_the_providers_timeouts_its_own_error_passes_and_a_plain_one_becomes_a_provider_error() -> None:
    plain, typed = TimeoutError("socket"), ProviderTimeoutError("the server gave up")
    async with AsyncMemory(FakeProvider(acts=[plain, typed])) as memory:
        with pytest.raises(ProviderError) as first:
            await memory.get("m1")
        with pytest.raises(ProviderTimeoutError) as second:
            await memory.get("m1")
    assert not isinstance(first.value, ProviderTimeoutError)
    assert (first.value.__cause__, second.value) == (plain, typed)


@pytest.mark.parametrize("error", [Down, RateLimitedError])
@pytest.mark.parametrize("verb", ["add", "get", "list", "search", "context", "audit"])
async def test_what_is_safe_to_repeat_is_repeated_with_the_same_key(verb: str, error: type[Down]) -> None:
    provider = FakeProvider(acts=[error("busy"), error("busy")])
    async with AsyncMemory(provider) as memory:
        await CALLS[verb](memory)
        assert [call.is_retry for call in provider.contexts[:3]] == [False, True, True]
        await memory.get("m1")
    assert len([call for call in provider.calls if (verb, call) != ("context", "list")]) == 4
    assert not provider.contexts[-1].is_retry
    assert (len(provider.keys), len(set(provider.keys))) == ((3, 1) if verb == "add" else (0, 0))


@pytest.mark.parametrize(
    ("verb", "retries", "errors"),
    [
        *((verb, 2, [Down("writes are not safe to repeat")]) for verb in ("update", "delete", "delete_all")),
        *(
            ("get", 2, [kind("it would come again")])
            for kind in (NotFoundError, ConflictError, ProviderError, ProviderTimeoutError, KeyError)
        ),
        *(("get", retries, [Down("busy") for _ in range(retries + 1)]) for retries in (0, 1, 4)),
        ("get", 5, [Down("busy"), NotFoundError("gone")]),
    ],
)
async def test_the_last_error_is_raised_in_the_end(verb: str, retries: int, errors: list[Exception]) -> None:
    provider = FakeProvider(acts=[*errors, Down("one too many")])
    async with AsyncMemory(provider, retries=retries) as memory:
        with pytest.raises(type(errors[-1])) as caught:
            await CALLS[verb](memory)
    assert (caught.value, len(provider.calls)) == (errors[-1], len(errors))


async def test_waits_double_with_jitter_and_are_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(retry, "uniform", lambda *bounds: drawn.append(bounds) or 0.0)
    busy = [Down("busy")] * 6
    async with AsyncMemory(FakeProvider(acts=[*busy, RateLimitedError("", retry_after=0.1)]), retries=7) as memory:
        start = time.monotonic()
        await memory.get("m1")
        assert time.monotonic() - start >= 0.1
    assert drawn == [(0, bound) for bound in (0.001, 0.002, 0.004, 0.008, 0.016, 0.02, 0.02)]


async def test_a_wait_between_attempts_ends_with_the_timeout_and_can_be_cancelled() -> None:
    provider = FakeProvider(acts=[RateLimitedError("slow down", retry_after=60)] * 2)
    async with AsyncMemory(provider, timeout=0.1) as memory, asyncio.timeout(30):
        with pytest.raises(ProviderTimeoutError):
            await memory.get("m1")
        call = asyncio.create_task(memory.get("m1"))
        await until(lambda: len(provider.calls) == 2)
        assert await cancelled(call)
    assert provider.calls == ["get", "get"]


@pytest.mark.parametrize(("limit", "most"), [(None, 50), (3, 3)])
async def test_as_many_calls_are_in_flight_as_allowed_and_no_more(limit: int | None, most: int) -> None:
    gate = Gate()
    provider = FakeProvider(acts=[gate] * 50)
    async with AsyncMemory(provider, max_concurrency=limit) as memory:
        calls = [asyncio.create_task(memory.search("tea", "ada")) for _ in range(50)]
        await until(lambda: provider.running == most)
        await asyncio.sleep(0.01)
        gate.go.set()
        assert all(len(found) == 1 for found in await asyncio.gather(*calls))
    assert (provider.most_running, len(provider.calls)) == (most, 50)


async def test_a_call_that_waits_for_a_slot_is_bounded_by_the_timeout_and_never_runs() -> None:
    gate = Gate()

    async def cling() -> None:
        try:
            await hang()
        finally:
            await gate.go.wait()  # keeps its slot though its own time is up

    provider = FakeProvider(acts=[cling])
    async with AsyncMemory(provider, max_concurrency=1, timeout=0.1) as memory:
        first = asyncio.create_task(memory.get("m1"))
        await provider.started.wait()
        with pytest.raises(ProviderTimeoutError):
            await memory.get("m2")
        gate.go.set()
        await asyncio.wait([first])
        assert isinstance(first.exception(), ProviderTimeoutError)
        assert provider.calls == ["get"]
        await memory.get("m3")


class Batching(FakeProvider):
    add_many = answering("add_many", lambda self, items: [record(content=keyed.item.content) for keyed in items])


async def test_a_long_list_is_written_in_batches_which_fail_alone_and_are_repeated() -> None:
    provider = Batching(acts=[None, ProviderError("broken"), Down("busy"), None])
    items: list[Any] = [{**TEA, "content": f"n{n}" if n else ""} for n in range(2_500)]
    items[1] |= {"idempotency_key": "k1", "x_mem0": 1}
    items[2] |= {"idempotency_key": None, "x-mem0": 2}
    items[3] = MemoryInput(content="n3", user_id="ada", scope="s")
    async with AsyncMemory(provider) as memory:
        found = await memory.add_many(item for item in items)
    batches = provider.requests
    assert [len(batch) for batch in batches] == [999, 1000, 500, 500]
    assert batches[2] == batches[3]
    one, two, three = batches[0][:3]
    extensions = [keyed.item.extensions for keyed in (one, two, three)]
    assert (extensions, three.item.scope) == ([{"x-mem0": 1}, {"x-mem0": 2}, {}], "s")
    assert (one.idempotency_key, len({keyed.idempotency_key for keyed in batches[0]})) == ("k1", 999)
    kinds = [InvalidRequestError, *[MemoryRecord] * 999, *[ProviderError] * 1000, *[MemoryRecord] * 500]
    assert [type(outcome) for outcome in found] == kinds
    stored = [*range(1, 1000), *range(2000, 2500)]
    assert [o.content for o in found if isinstance(o, MemoryRecord)] == [f"n{n}" for n in stored]


async def test_one_query_for_many_users_answers_each_once_in_order_and_bounds_the_searches() -> None:
    provider = FakeProvider()
    users = [f"user{number}" for number in range(30)]
    async with AsyncMemory(provider) as memory:
        found = await memory.search_many([*users, users[0]], "tea", scope="work", limit=3, concurrency=4)
    assert list(found) == users
    assert all(results[0].memory.content == "likes tea" for results in found.values())
    assert provider.most_running <= 4
    asked = {(request.user_id, request.scope, request.limit) for request in provider.requests}
    assert asked == {(user, "work", 3) for user in users}


async def test_waiting_for_ingest_asks_until_every_memory_is_done_and_not_for_one_that_failed() -> None:
    provider = FakeProvider()
    provider.statuses = ["queued", "indexing", "done", "done", "queued", "failed"]
    async with AsyncMemory(provider) as memory:
        found = await memory.wait_for_ingest(["a", "b"], "ada")
        with pytest.raises(ProviderError, match="failed to index"):
            await memory.wait_for_ingest(["a"], "ada")
    assert [(r.id, r.status) for r in found] == [("a", "done"), ("b", "done")]
    assert len(provider.calls) == 6


@pytest.mark.parametrize(("client", "call"), [({}, {"timeout": 0.1}), ({"timeout": 0.1}, {})])
async def test_waiting_for_ingest_ends_in_an_ingestion_timeout(client: Any, call: Any) -> None:
    provider = FakeProvider()
    provider.statuses = ["queued"] * 1000
    async with AsyncMemory(provider, **client) as memory:
        with pytest.raises(IngestionTimeoutError, match=r"0\.1 s"):
            await memory.wait_for_ingest(["a"], "ada", **call)


class Ill(FakeProvider):
    async def health(self) -> None:
        await self._act("verb", "health")


@pytest.mark.parametrize(
    ("provider", "detail"),
    [
        (Ill(), None),
        (Ill(acts=[Down("the server is away"), None]), "the server is away"),  # and it is not asked again
        (Ill(acts=[ProviderError("the server is away")]), "the server is away"),
        (Ill(opening=[Down("no route")]), "no route"),
        (Ill(acts=[hang]), "did not finish within 0.05 s"),
    ],
)
async def test_health_says_ok_or_why_not_in_bounded_time(provider: FakeProvider, detail: str | None) -> None:
    memory = AsyncMemory(provider, timeout=0.05)
    health = await memory.health()
    assert (health.status, health.provider) == ("unavailable" if detail else "ok", "fake")
    assert (detail or "") in (health.detail or "")
    assert set(health.to_wire()) == {"status", "provider", *(["detail"] if detail else [])}
    await memory.aclose()


async def test_an_observer_gets_an_event_for_every_call_and_harms_none(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: CallEvent) -> None:
        raise RuntimeError("the dashboard is down")

    caplog.set_level(logging.INFO, "openproto.calls")
    events: list[CallEvent] = []
    provider = FakeProvider(acts=[None, NotFoundError("gone")])
    async with AsyncMemory(provider, app="notes", observers=[broken, events.append, log_calls()]) as m:
        await m.add("a secret", user_id="ada", scope="work")
        with pytest.raises(NotFoundError) as raised:
            await m.get("m1")
    added, got = events
    assert (added.verb, added.provider, added.outcome, added.app, added.scope) == ("add", "fake", "ok", "notes", "work")
    assert (got.verb, got.outcome, got.request_id) == ("get", "not_found", raised.value.request_id)
    assert 0 <= added.seconds < 5
    assert caplog.text.count("an observer failed") == 1
    assert "secret" not in repr(events) + caplog.text
    fine, failed = [line for line in caplog.records if line.name == "openproto.calls"]
    assert (fine.levelno, failed.levelno) == (logging.INFO, logging.WARNING)
    assert fine.getMessage().startswith("add on fake: ok in ")
    assert f"(request {got.request_id})" in failed.getMessage()


async def test_stats_count_calls_retries_errors_cancellations_and_what_is_in_flight() -> None:
    events: list[CallEvent] = []
    passing = [Down("down"), RateLimitedError("slow down", retry_after=0.01), None]
    provider = FakeProvider(acts=[None, *passing, NotFoundError("gone"), ValueError("a bug"), hang])
    async with AsyncMemory(provider, observers=[events.append]) as memory:
        assert memory.stats().calls == 0
        await memory.search("tea", "ada")
        await memory.get("m1")
        with pytest.raises(NotFoundError):
            await memory.get("m1")
        with pytest.raises(ValueError, match="a bug"):
            await memory.get("m1")
        hanging = asyncio.create_task(memory.list("ada"))
        await until(lambda: provider.calls[-1] == "list")
        assert memory.stats().in_flight == 1
        assert await cancelled(hanging)
        stats = memory.stats()
    assert (stats.calls, stats.errors, stats.cancelled, stats.in_flight, stats.retries) == (5, 2, 1, 0, 2)
    assert [event.retries for event in events] == [0, 2, 0, 0, 0]
    got = stats.verbs["get"]
    assert (stats.verbs["search"].calls, got.errors, got.retries) == (1, 2, 2)
    assert 0 <= got.p50 <= got.p95 <= got.longest
