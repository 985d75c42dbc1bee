"""What a client does around each call: deadlines, retries, slots, outcomes, and what errors know."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest
from fake_provider import FakeProvider, hang, record
from test_client_lifecycle import CALLS, Gate, until

from openproto import (
    AsyncMemory,
    ConflictError,
    IngestionTimeoutError,
    InvalidRequestError,
    MemoryInput,
    MemoryPage,
    MemoryRecord,
    NotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    UnsupportedCapabilityError,
)
from openproto.client import retry
from openproto.provider import KeyedInput

DOWN = ProviderUnavailableError


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)


# -- cancellation and deadlines ---------------------------------------------------------------------------------------


@pytest.mark.promise(85)
@pytest.mark.parametrize("verb", ["add", "get", "update", "delete", "list", "search", "context", "audit"])
async def test_cancelling_a_verb_cancels_the_providers_coroutine_at_once(verb: str) -> None:
    provider = FakeProvider(acts=[hang])
    async with AsyncMemory(provider) as memory:
        call = asyncio.create_task(CALLS[verb](memory))
        await provider.started.wait()
        call.cancel()
        await asyncio.wait([call], timeout=20)
        assert call.cancelled()
        assert len(provider.cancelled) == 1
        await memory.get("m1")  # the client is as usable as before


async def test_an_anyio_scope_cancels_as_a_task_does() -> None:
    provider = FakeProvider(acts=[hang])
    async with AsyncMemory(provider) as memory:
        with anyio.move_on_after(0.02) as scope:
            await memory.search("tea", "ada")
        assert scope.cancelled_caught
        assert provider.cancelled == ["search"]
        await memory.get("m1")


@pytest.mark.promise(15)
async def test_a_deadline_of_the_callers_own_stays_the_callers_own() -> None:
    provider = FakeProvider(acts=[hang])
    async with AsyncMemory(provider) as memory:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.02):
                await memory.search("tea", "ada")
    assert type(caught.value) is TimeoutError
    assert provider.cancelled == ["search"]


@pytest.mark.promise(15)
@pytest.mark.parametrize("verb", ["add", "get", "update", "delete", "list", "search", "context", "audit", "delete_all"])
async def test_a_verb_that_hangs_ends_in_a_provider_timeout(verb: str) -> None:
    provider = FakeProvider(acts=[hang])
    async with AsyncMemory(provider, timeout=0.05) as memory:
        with pytest.raises(ProviderTimeoutError) as caught:
            await CALLS[verb](memory)
        assert len(provider.cancelled) == 1
        assert (caught.value.provider, "0.05 s" in caught.value.message) == ("fake", True)
        await memory.get("m1")


async def test_the_opening_counts_towards_the_deadline() -> None:
    memory = AsyncMemory(FakeProvider(opening=[hang]), timeout=0.05)
    with pytest.raises(ProviderTimeoutError):
        await memory.get("m1")
    await memory.aclose()


async def test_without_a_timeout_a_slow_verb_is_waited_for() -> None:
    gate = Gate()
    async with AsyncMemory(FakeProvider(acts=[gate]), timeout=None) as memory:
        call = asyncio.create_task(memory.get("m1"))
        await gate.reached.wait()
        gate.go.set()
        assert (await call).id == "m1"


async def test_a_timeout_error_of_the_providers_own_becomes_an_error_of_the_protocol() -> None:
    error = TimeoutError("socket")
    async with AsyncMemory(FakeProvider(acts=[error])) as memory:
        with pytest.raises(ProviderError) as caught:
            await memory.get("m1")
    assert not isinstance(caught.value, ProviderTimeoutError)
    assert caught.value.__cause__ is error


async def test_a_provider_timeout_from_the_provider_passes_unchanged() -> None:
    error = ProviderTimeoutError("the server gave up")
    async with AsyncMemory(FakeProvider(acts=[error])) as memory:
        with pytest.raises(ProviderTimeoutError) as caught:
            await memory.get("m1")
    assert caught.value is error


# -- retries ----------------------------------------------------------------------------------------------------------

REPEATABLE = ["add", "get", "list", "search", "context", "audit"]
NOT_REPEATABLE = ["update", "delete", "delete_all"]


@pytest.mark.parametrize("error", [DOWN, RateLimitedError])
@pytest.mark.parametrize("verb", REPEATABLE)
async def test_what_is_safe_to_repeat_is_repeated(verb: str, error: type[ProviderUnavailableError]) -> None:
    provider = FakeProvider(acts=[error("busy"), error("busy")])
    async with AsyncMemory(provider) as memory:
        await CALLS[verb](memory)
    assert len([call for call in provider.calls if (verb, call) != ("context", "list")]) == 3


@pytest.mark.parametrize("verb", NOT_REPEATABLE)
async def test_what_is_not_safe_to_repeat_is_not(verb: str) -> None:
    provider = FakeProvider(acts=[DOWN("busy")])
    async with AsyncMemory(provider) as memory:
        with pytest.raises(DOWN):
            await CALLS[verb](memory)
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    "error", [NotFoundError("x"), ConflictError("x"), ProviderError("x"), ProviderTimeoutError("x"), KeyError("x")]
)
async def test_an_error_that_would_come_again_is_not_retried(error: Exception) -> None:
    provider = FakeProvider(acts=[error])
    async with AsyncMemory(provider) as memory:
        with pytest.raises(type(error)) as caught:
            await memory.get("m1")
    assert (caught.value, provider.calls) == (error, ["get"])


@pytest.mark.promise(100)
@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_the_number_of_attempts_is_bounded(retries: int) -> None:
    provider = FakeProvider(acts=[DOWN(f"attempt {i}") for i in range(10)])
    async with AsyncMemory(provider, retries=retries) as memory:
        with pytest.raises(DOWN, match=f"attempt {retries}"):
            await memory.get("m1")
    assert len(provider.calls) == retries + 1


async def test_a_retry_that_meets_another_kind_of_error_stops() -> None:
    provider = FakeProvider(acts=[DOWN("busy"), NotFoundError("gone"), DOWN("busy")])
    async with AsyncMemory(provider, retries=5) as memory:
        with pytest.raises(NotFoundError):
            await memory.get("m1")
    assert len(provider.calls) == 2


async def test_every_attempt_has_the_same_idempotency_key() -> None:
    provider = FakeProvider(acts=[DOWN("busy"), DOWN("busy")])
    async with AsyncMemory(provider) as memory:
        await memory.add("tea", user_id="ada")
    assert len(provider.keys) == 3
    assert len(set(provider.keys)) == 1


async def test_every_attempt_but_the_first_is_known_as_a_retry() -> None:
    provider = FakeProvider(acts=[DOWN("busy"), DOWN("busy")])
    async with AsyncMemory(provider) as memory:
        await memory.get("m1")
        await memory.get("m1")
    assert [call.is_retry for call in provider.contexts] == [False, True, True, False]


async def test_two_adds_never_share_a_key_of_the_clients_making() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await asyncio.gather(*(memory.add("tea", user_id="ada") for _ in range(20)))
    assert len(set(provider.keys)) == 20


async def test_the_callers_key_is_passed_on() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await memory.add("tea", user_id="ada", idempotency_key="mine")
    assert provider.keys == ["mine"]


@pytest.mark.promise(100)
async def test_the_wait_is_never_shorter_than_the_backend_asks() -> None:
    provider = FakeProvider(acts=[RateLimitedError("slow down", retry_after=0.2)])
    async with AsyncMemory(provider) as memory:
        start = time.monotonic()
        await memory.get("m1")
    assert time.monotonic() - start >= 0.19


@pytest.mark.promise(100)
async def test_the_waits_double_with_full_jitter_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[list[float]] = [[] for _ in range(7)]
    pause = asyncio.sleep

    async def take_down(seconds: float, *_: object) -> None:
        waits[len(provider.calls) - 1].append(seconds)
        await pause(0)

    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(asyncio, "sleep", take_down)
    for _ in range(60):
        provider = FakeProvider(acts=[DOWN("busy")] * 8)
        async with AsyncMemory(provider, retries=7) as memory:
            with pytest.raises(DOWN):
                await memory.get("m1")
    bounds = [0.001, 0.002, 0.004, 0.008, 0.016, 0.02, 0.02]
    assert [len(after) for after in waits] == [60] * 7
    # Full jitter is uniform between nothing and the bound, so 60 of them come near both ends.
    assert all(bound / 2 < max(after) <= bound for after, bound in zip(waits, bounds, strict=True))
    assert all(min(after) < bound / 2 for after, bound in zip(waits, bounds, strict=True))


@pytest.mark.promise(17)
@pytest.mark.promise(100)
async def test_retries_stay_inside_the_timeout() -> None:
    provider = FakeProvider(acts=[RateLimitedError("slow down", retry_after=60)])
    async with AsyncMemory(provider, timeout=0.1) as memory:
        async with asyncio.timeout(30):  # half of what the backend asks for
            with pytest.raises(ProviderTimeoutError):
                await memory.get("m1")
    assert provider.calls == ["get"]


@pytest.mark.promise(17)
async def test_a_wait_between_attempts_can_be_cancelled() -> None:
    provider = FakeProvider(acts=[RateLimitedError("slow down", retry_after=60)])
    async with AsyncMemory(provider) as memory:
        call = asyncio.create_task(memory.get("m1"))
        await provider.started.wait()
        await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call], timeout=5)
        assert call.cancelled()


async def test_a_cancellation_is_never_retried() -> None:
    provider = FakeProvider(acts=[DOWN("busy"), hang])
    async with AsyncMemory(provider, retries=5) as memory:
        call = asyncio.create_task(memory.get("m1"))
        await until(lambda: len(provider.calls) == 2)
        call.cancel()
        await asyncio.wait([call])
    assert (call.cancelled(), len(provider.calls)) == (True, 2)


# -- slots ------------------------------------------------------------------------------------------------------------


@pytest.mark.promise(88)
async def test_one_client_serves_many_tasks_at_once() -> None:
    gate = Gate()
    provider = FakeProvider(acts=[gate] * 50)
    async with AsyncMemory(provider) as memory:
        calls = [asyncio.create_task(memory.search("tea", "ada")) for _ in range(50)]
        await until(lambda: provider.running == 50)
        gate.go.set()
        assert all(len(found) == 1 for found in await asyncio.gather(*calls))


@pytest.mark.promise(6)
@pytest.mark.promise(120)
async def test_no_more_calls_are_in_flight_than_allowed() -> None:
    gate = Gate()
    provider = FakeProvider(acts=[gate] * 10)
    async with AsyncMemory(provider, max_concurrency=3) as memory:
        calls = [asyncio.create_task(memory.get("m1")) for _ in range(10)]
        await until(lambda: provider.running == 3)
        await asyncio.sleep(0.01)
        assert provider.running == 3
        gate.go.set()
        await asyncio.gather(*calls)
    assert (provider.most_running, len(provider.calls)) == (3, 10)


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


async def test_cancelled_calls_give_their_slots_back() -> None:
    provider = FakeProvider(acts=[hang] * 5)
    async with AsyncMemory(provider, max_concurrency=1) as memory:
        for n in range(5):
            call = asyncio.create_task(memory.get("m1"))
            await until(lambda n=n: len(provider.calls) == n + 1)  # type: ignore[misc]
            call.cancel()
            await asyncio.wait([call])
        async with asyncio.timeout(5):
            await memory.get("m1")


# -- what errors and calls know ---------------------------------------------------------------------------------------


@pytest.mark.promise(121)
async def test_an_error_names_the_provider_and_the_request() -> None:
    provider = FakeProvider(acts=[NotFoundError("gone")])
    async with AsyncMemory(provider) as memory:
        with pytest.raises(NotFoundError) as caught:
            await memory.get("m1")
    assert caught.value.provider == "fake"
    assert caught.value.request_id == provider.contexts[0].request_id


async def test_an_error_keeps_what_the_provider_said_of_itself() -> None:
    provider = FakeProvider(acts=[NotFoundError("gone", provider="inner", request_id="theirs")])
    async with AsyncMemory(provider) as memory:
        with pytest.raises(NotFoundError) as caught:
            await memory.get("m1")
    assert (caught.value.provider, caught.value.request_id) == ("inner", "theirs")


async def test_an_opening_that_fails_at_entry_names_the_provider() -> None:
    with pytest.raises(ProviderError) as caught:
        async with AsyncMemory(FakeProvider(opening=[ProviderError("down")])):
            pass
    assert caught.value.provider == "fake"


@pytest.mark.parametrize("verb", ["add", "get", "update", "delete", "list", "search", "audit"])
async def test_the_provider_can_see_which_verb_it_serves_and_for_which_app(verb: str) -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider, app="notes") as memory:
        await CALLS[verb](memory)
    assert (provider.contexts[0].verb, provider.contexts[0].app) == (verb, "notes")


async def test_a_context_and_its_search_are_one_call_named_context() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await memory.context("tea", "ada")
    assert provider.calls == ["search", "list"]
    assert [call.verb for call in provider.contexts] == ["context", "context"]
    assert len({call.request_id for call in provider.contexts}) == 1


async def test_every_call_has_a_request_id_of_its_own() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await asyncio.gather(*(memory.get("m1") for _ in range(20)))
    assert len({call.request_id for call in provider.contexts}) == 20


async def test_capabilities_are_asked_for_once_per_client() -> None:
    asked = 0

    class Counting(FakeProvider):
        async def capabilities(self) -> Any:
            nonlocal asked
            asked += 1
            return await super().capabilities()

    async with AsyncMemory(Counting()) as memory:
        assert await memory.capabilities() is await memory.capabilities()
    assert asked == 1


async def test_a_provider_declares_the_verbs_that_it_overrides_and_context_with_search() -> None:
    async with AsyncMemory(FakeProvider()) as memory:
        declared = await memory.capabilities()
    assert declared.verbs == [
        "add", "search", "context", "get", "list", "update", "delete", "audit", "capabilities",
    ]  # fmt: skip
    assert (declared.provider, declared.x_openproto.cancellation) == ("fake", "native")


# -- add_many ---------------------------------------------------------------------------------------------------------


def tea(**fields: Any) -> dict[str, Any]:
    return {"content": "tea", "user_id": "ada", **fields}


@pytest.mark.promise(31)
async def test_each_item_has_its_own_outcome_in_order() -> None:
    provider = FakeProvider(acts=[None, ConflictError("taken"), None])
    async with AsyncMemory(provider) as memory:
        found = await memory.add_many([tea(content="a"), tea(), tea(content=""), tea(content="c")])
    assert [type(outcome) for outcome in found] == [MemoryRecord, ConflictError, InvalidRequestError, MemoryRecord]
    assert [o.content for o in found if isinstance(o, MemoryRecord)] == ["a", "c"]


async def test_an_item_may_be_a_memory_input() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await memory.add_many([MemoryInput(content="tea", user_id="ada", scope="a")])
    assert provider.inputs[0].scope == "a"


async def test_items_may_bring_their_idempotency_keys() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        items = [tea(idempotency_key="k1"), tea(), tea(idempotency_key=""), tea(idempotency_key=None)]
        outcomes = await memory.add_many(items)
    assert [isinstance(outcome, InvalidRequestError) for outcome in outcomes] == [False, False, True, False]
    assert provider.keys[0] == "k1"
    assert len(set(provider.keys)) == 3


@pytest.mark.parametrize("key", ["x_mem0", "x-mem0"])
async def test_an_item_may_have_extensions_in_either_spelling(key: str) -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        (outcome,) = await memory.add_many([tea(**{key: 1})])
    assert not isinstance(outcome, Exception)
    assert provider.inputs[0].extensions == {"x-mem0": 1}


async def test_an_unknown_field_of_an_item_is_that_items_error() -> None:
    async with AsyncMemory(FakeProvider()) as memory:
        bad, good = await memory.add_many([tea(colour="red"), tea()])
    assert isinstance(bad, InvalidRequestError)
    assert isinstance(good, MemoryRecord)


async def test_any_iterable_of_items_is_taken() -> None:
    async with AsyncMemory(FakeProvider()) as memory:
        assert len(await memory.add_many(tea(content=str(n)) for n in range(3))) == 3


async def test_no_items_have_no_outcomes() -> None:
    async with AsyncMemory(FakeProvider()) as memory:
        assert await memory.add_many([]) == []


async def test_items_that_are_all_invalid_never_reach_the_backend() -> None:
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    (outcome,) = await memory.add_many([tea(content="")])
    await memory.aclose()
    assert isinstance(outcome, InvalidRequestError)
    assert provider.opens == 0


class Batching(FakeProvider):
    """Takes a batch whole."""

    async def add_many(self, items: Any) -> Any:
        self.batches = [*getattr(self, "batches", []), list(items)]
        await self._verb("add", None)
        return [record(content=keyed.item.content) for keyed in items]


async def test_a_long_list_is_given_to_the_backend_in_batches() -> None:
    provider = Batching()
    async with AsyncMemory(provider) as memory:
        found = await memory.add_many(tea(content=f"n{n}") for n in range(2_500))
    assert [o.content for o in found if isinstance(o, MemoryRecord)] == [f"n{n}" for n in range(2_500)]
    assert [len(batch) for batch in provider.batches] == [1000, 1000, 500]


async def test_a_batch_that_fails_whole_is_the_outcome_of_each_of_its_items() -> None:
    provider = Batching(acts=[ProviderError("down"), None])
    async with AsyncMemory(provider) as memory:
        found = await memory.add_many([tea(content=""), *(tea() for _ in range(1_200))])
    kinds = [type(outcome) for outcome in found]
    assert kinds == [InvalidRequestError, *[ProviderError] * 999, *[MemoryRecord] * 201]


async def test_a_batch_is_repeated_with_the_same_keys() -> None:
    provider = Batching(acts=[DOWN("busy")])
    async with AsyncMemory(provider) as memory:
        await memory.add_many([tea(), tea()])
    first, again = (batch for batch in provider.batches)
    assert all(isinstance(keyed, KeyedInput) for keyed in first)
    assert first == again


async def test_adding_many_where_nothing_can_be_added_is_refused() -> None:
    class Mute(FakeProvider):
        @property
        def verbs(self) -> Any:
            return frozenset({"search"})

    with pytest.raises(UnsupportedCapabilityError):
        await AsyncMemory(Mute()).add_many([tea()])


# -- the other helpers ------------------------------------------------------------------------------------------------


def page(*ids: str, cursor: str | None = None) -> MemoryPage:
    return MemoryPage(items=[record(id) for id in ids], next_cursor=cursor)


async def test_iter_follows_the_cursors_to_the_end() -> None:
    provider = FakeProvider()
    provider.pages = [page("a", "b", cursor="c1"), page(cursor="c2"), page("c")]
    async with AsyncMemory(provider) as memory:
        found = [r.id async for r in memory.iter("ada", scope="s", page_size=2)]
    assert found == ["a", "b", "c"]
    assert [(r.cursor, r.limit, r.scope) for r in provider.requests] == [
        (None, 2, "s"), ("c1", 2, "s"), ("c2", 2, "s"),
    ]  # fmt: skip


async def test_iter_asks_for_a_page_only_when_it_is_needed() -> None:
    provider = FakeProvider()
    provider.pages = [page("a", "b", cursor="c1"), page("c")]
    async with AsyncMemory(provider) as memory:
        records = memory.iter("ada")
        assert [(await anext(records)).id for _ in range(2)] == ["a", "b"]
        assert provider.calls == ["list"]
        await records.aclose()  # type: ignore[attr-defined]


async def test_delete_all_without_a_statement_of_its_own_deletes_page_by_page() -> None:
    provider = FakeProvider()
    provider.pages = [page("a", "b"), page("c"), page()]
    async with AsyncMemory(provider) as memory:
        assert await memory.delete_all("ada", scope="s/*", tag="t") == 3
    assert provider.calls.count("delete") == 3
    assert (provider.requests[0].scope, provider.requests[0].tags) == ("s", ("t",))


@pytest.mark.promise(33)
async def test_waiting_for_ingest_asks_until_every_memory_is_done() -> None:
    provider = FakeProvider()
    provider.statuses = ["queued", "indexing", "done", "done"]
    async with AsyncMemory(provider) as memory:
        found = await memory.wait_for_ingest(["a", "b"], "ada")
    assert [(r.id, r.status) for r in found] == [("a", "done"), ("b", "done")]
    assert len(provider.calls) == 4


@pytest.mark.promise(33)
async def test_waiting_for_ingest_ends_in_an_ingestion_timeout() -> None:
    provider = FakeProvider()
    provider.statuses = ["queued"] * 1000
    async with AsyncMemory(provider) as memory:
        with pytest.raises(IngestionTimeoutError, match=r"0\.1 s") as caught:
            await memory.wait_for_ingest(["a"], "ada", timeout=0.1)
    assert caught.value.provider == "fake"


async def test_waiting_for_ingest_is_bounded_by_the_clients_timeout_by_default() -> None:
    provider = FakeProvider()
    provider.statuses = ["queued"] * 1000
    async with AsyncMemory(provider, timeout=0.1) as memory:
        with pytest.raises(IngestionTimeoutError):
            await memory.wait_for_ingest(["a"], "ada")


async def test_an_ingestion_that_failed_is_a_provider_error() -> None:
    provider = FakeProvider()
    provider.statuses = ["queued", "failed"]
    async with AsyncMemory(provider) as memory:
        with pytest.raises(ProviderError, match="failed to index"):
            await memory.wait_for_ingest(["a"], "ada")


async def test_a_memory_that_is_gone_is_not_waited_for() -> None:
    async with AsyncMemory(FakeProvider(acts=[NotFoundError("gone")])) as memory:
        with pytest.raises(NotFoundError):
            await memory.wait_for_ingest(["a"], "ada")


class Ill(FakeProvider):
    async def health(self) -> None:
        await self._act("verb", "health")


@pytest.mark.promise(30)
async def test_a_healthy_backend_says_so() -> None:
    async with AsyncMemory(FakeProvider()) as memory:
        assert (await memory.health()).to_wire() == {"status": "ok", "provider": "fake"}


@pytest.mark.promise(30)
@pytest.mark.parametrize("error", [DOWN("the server is away"), ProviderError("the server is away")])
async def test_an_ill_backend_says_why(error: ProviderError) -> None:
    async with AsyncMemory(Ill(acts=[error])) as memory:
        health = await memory.health()
    assert health.to_wire() == {"status": "unavailable", "provider": "fake", "detail": "the server is away"}


async def test_a_backend_that_cannot_be_opened_is_unavailable() -> None:
    memory = AsyncMemory(FakeProvider(opening=[DOWN("no route")]))
    assert (await memory.health()).status == "unavailable"
    await memory.aclose()


async def test_a_backend_that_hangs_is_unavailable_in_bounded_time() -> None:
    async with AsyncMemory(Ill(acts=[hang]), timeout=0.05) as memory:
        assert (await memory.health()).status == "unavailable"


async def test_health_is_not_retried() -> None:
    provider = Ill(acts=[DOWN("away"), None])
    async with AsyncMemory(provider) as memory:
        assert (await memory.health()).status == "unavailable"
