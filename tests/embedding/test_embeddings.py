from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from waiting import until

from openproto.embedding import Embedder, Embeddings
from openproto.errors import (
    InvalidRequestError,
    OpenProtoError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
)

USER: ContextVar[str] = ContextVar("USER", default="nobody")


class Plain:
    model = "plain-2"
    dim = 2

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: list[threading.Thread] = []
        self.go = threading.Event()
        self.go.set()
        self.error: BaseException | None = None
        self.fails_at = 1
        self.calls: list[str] = []
        self.vector: Callable[[str], list[float]] = lambda text: [len(text), 0.0]

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.batches.append(list(texts))
        self.threads.append(threading.current_thread())
        assert self.go.wait(10)
        if self.error is not None and (len(self.batches) == self.fails_at or "bad" in texts):
            raise self.error
        return [self.vector(text) for text in texts]


class Async:
    model = "async-2"
    dim = 2
    text_weight = 0.7
    max_batch = 3

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.users: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.opened = self.closed = False
        self.cancelled = 0

    async def open(self) -> None:
        self.opened = True

    async def close(self) -> None:
        self.closed = True

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.batches.append(list(texts))
        self.users.append(USER.get())
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [[0.0, 1.0] for _ in texts]


@asynccontextmanager
async def running(embedder: Embedder, **options: Any) -> AsyncIterator[Embeddings]:
    embeddings = Embeddings(embedder, **options)
    await embeddings.open()
    try:
        yield embeddings
    finally:
        await embeddings.aclose()


async def hold(plain: Plain, embeddings: Embeddings) -> asyncio.Task[Any]:
    plain.go.clear()
    first = asyncio.create_task(embeddings.embed_one("first"))
    await until(lambda: plain.batches)
    return first


async def test_a_plain_embedder_runs_in_its_own_thread_while_open_and_vectors_are_normalised() -> None:
    plain = Plain()
    async with running(plain) as embeddings:
        await embeddings.open()  # which opens nothing again
        assert (embeddings.model, embeddings.dim, embeddings.text_weight) == ("plain-2", 2, 0.2)
        vector = await embeddings.embed_one("four")
        assert plain.threads[0].is_alive()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert vector.dtype == "float32"
    assert vector.tolist() == [1.0, 0.0]
    assert plain.threads[0] is not threading.main_thread()
    assert plain.threads[0].name.startswith("openproto-embedder")
    assert plain.calls == ["open", "close"]
    await until(lambda: not plain.threads[0].is_alive())


async def test_calls_made_while_busy_form_the_next_batch() -> None:
    plain = Plain()
    async with running(plain) as embeddings:
        first = await hold(plain, embeddings)
        rest = [asyncio.create_task(embeddings.embed_one(f"text {n}")) for n in range(100)]
        await asyncio.sleep(0)
        plain.go.set()
        await asyncio.gather(first, *rest)
    assert plain.batches == [["first"], [f"text {n}" for n in range(100)]]


async def test_batches_are_bounded_by_texts_and_by_characters() -> None:
    plain = Plain()
    async with running(plain, max_batch=4) as embeddings:
        await embeddings.embed_many([f"{n}" for n in range(10)])
        assert [len(batch) for batch in plain.batches] == [4, 4, 2]
        plain.batches.clear()
        await embeddings.embed_many(["x" * 100_000] * 4)
    assert [len(batch) for batch in plain.batches] == [2, 2]


async def test_a_long_list_does_not_hold_up_a_single_call() -> None:
    plain = Plain()
    async with running(plain, max_batch=2) as embeddings:
        first = await hold(plain, embeddings)
        long = asyncio.create_task(embeddings.embed_many([f"{n}" for n in range(20)]))
        await asyncio.sleep(0)
        single = asyncio.create_task(embeddings.embed_one("single"))
        await asyncio.sleep(0)
        plain.go.set()
        await asyncio.gather(first, long, single)
    position = next(n for n, batch in enumerate(plain.batches) if "single" in batch)
    assert position <= 2


async def test_many_keeps_the_order_and_blank_texts_are_zeros_without_a_call() -> None:
    plain = Plain()
    plain.vector = lambda text: [1.0, 0.0] if text == "a" else [0.0, 1.0]
    async with running(plain, max_batch=2) as embeddings:
        vectors = await embeddings.embed_many(["b", "", "a", " \n", "b"])
        assert [vector.tolist() for vector in vectors] == [[0, 1], [0, 0], [1, 0], [0, 0], [0, 1]]
        assert plain.batches == [["b", "a"], ["b"]]
        assert await embeddings.embed_many([]) == []
    assert len(plain.batches) == 2


async def test_an_async_embedder_has_several_batches_under_way_but_not_any_number() -> None:
    embedder = Async()
    async with running(embedder) as embeddings:
        assert (embedder.opened, embeddings.text_weight) == (True, 0.7)
        embedder.go.clear()
        calls = []
        for n in range(10):
            calls.append(asyncio.create_task(embeddings.embed_one(f"{n}")))
            await asyncio.sleep(0.005)
        assert embedder.batches == [["0"], ["1"], ["2"], ["3"]]
        embedder.go.set()
        await asyncio.gather(*calls)
    assert sorted(map(len, embedder.batches)) == [1, 1, 1, 1, 3, 3]
    assert embedder.closed


async def test_a_cancelled_caller_disturbs_nobody_and_its_waiting_text_is_dropped() -> None:
    plain = Plain()
    async with running(plain) as embeddings:
        first = await hold(plain, embeddings)
        waiting = [asyncio.create_task(embeddings.embed_one(text)) for text in ("keep", "drop", "also")]
        await asyncio.sleep(0)
        waiting[1].cancel()
        first.cancel()
        await asyncio.wait([waiting[1], first])
        assert waiting[1].cancelled()
        assert first.cancelled()
        plain.go.set()
        assert (await waiting[0]).tolist() == (await waiting[2]).tolist() == [1.0, 0.0]
    assert plain.batches == [["first"], ["keep", "also"]]


async def test_an_async_batch_is_cancelled_only_when_its_last_caller_is() -> None:
    embedder = Async()
    async with running(embedder) as embeddings:
        embedder.go.clear()
        alone, one, other = (asyncio.create_task(embeddings.embed_one(text)) for text in ("x", "a", "b"))
        await until(lambda: len(embedder.batches) == 2)
        one.cancel()
        await asyncio.wait([one])
        assert embedder.cancelled == 0
        alone.cancel()
        await asyncio.wait([alone])
        assert (alone.cancelled(), embedder.cancelled) == (True, 1)
        embedder.go.set()
        assert (await other).tolist() == (await embeddings.embed_one("y")).tolist() == [0.0, 1.0]
    assert embedder.batches == [["x"], ["a", "b"], ["y"]]


async def test_each_caller_gets_its_own_error_with_the_original_as_cause() -> None:
    plain = Plain()
    plain.error, plain.fails_at = RateLimitedError("slow down", provider="acme", request_id="r1", retry_after=3.0), 2
    async with running(plain) as embeddings:
        calls = [embeddings.embed_one(f"{n}") for n in range(4)]
        _, *errors = await asyncio.gather(*calls, return_exceptions=True)
    assert len(plain.batches) == 2, "an error that is about no text must not be repeated for each"
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, RateLimitedError)
        assert error.__cause__ is plain.error
        told = (error.message, error.retry_after, error.provider, error.request_id)
        assert told == ("slow down", 3.0, "acme", "r1")


async def test_a_foreign_error_is_a_provider_error_that_quotes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    plain = Plain()
    plain.error = ConnectionError("cannot embed 'my secret'")
    async with running(plain) as embeddings:
        with pytest.raises(ProviderError) as raised:
            await embeddings.embed_many(["my secret", "other"])
        assert str(raised.value) == "embedder 'plain-2' failed with ConnectionError: look at its options"
        assert raised.value.__cause__ is plain.error
        assert len(plain.batches) == 1
        assert (await embeddings.embed_one("after")).tolist() == [1.0, 0.0]
    gc.collect()
    assert not caplog.records, "the other text's error is reported as lost"


@pytest.mark.parametrize("error", [InvalidRequestError("no"), ValueError("no"), UnicodeError("no"), IndexError()])
async def test_one_bad_text_does_not_sink_the_others(error: Exception) -> None:
    plain = Plain()
    plain.error, plain.fails_at = error, 2
    async with running(plain) as embeddings:
        texts = ["first", *(f"text {n}" for n in range(63)), "bad"]
        outcomes = await asyncio.gather(*map(embeddings.embed_one, texts), return_exceptions=True)
    assert isinstance(outcomes.pop(), OpenProtoError)
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(plain.batches) == 14, "the first alone, then 1 + 2 for each of 6 halvings"


async def test_one_bad_vector_fails_its_own_caller_only() -> None:
    plain = Plain()
    plain.vector = lambda text: [float("nan") if text == "bad" else 1.0, 0.0]
    async with running(plain) as embeddings:
        calls = [embeddings.embed_one(text) for text in ("first", "good", "bad")]
        _, good, bad = await asyncio.gather(*calls, return_exceptions=True)
    assert not isinstance(good, BaseException)
    assert isinstance(bad, ProviderError)
    assert plain.batches == [["first"], ["good", "bad"]]


@pytest.mark.parametrize("dim", [0, -1, 2])
async def test_an_embedder_that_fails_to_open_or_has_no_dimension_is_closed_again(dim: int) -> None:
    class Unreachable(Plain):
        def open(self) -> None:
            super().open()
            if dim > 0:
                raise ProviderUnavailableError("down")

    plain = Unreachable()
    plain.dim = dim
    embeddings = Embeddings(plain)
    with pytest.raises(ProviderError, match="down" if dim > 0 else "plain-2") as raised:
        await embeddings.open()
    assert isinstance(raised.value, ProviderUnavailableError) == (dim > 0)
    await embeddings.aclose()
    assert plain.calls == ["open", "close"]


async def test_use_before_open_and_after_close_is_a_runtime_error() -> None:
    plain = Plain()
    embeddings = Embeddings(plain)
    with pytest.raises(RuntimeError, match="not open"):
        await embeddings.embed_one("x")
    await embeddings.aclose()
    await embeddings.aclose()
    assert plain.calls == [], "what was never opened is not closed"
    for use in (embeddings.embed_one("x"), embeddings.open()):
        with pytest.raises(RuntimeError, match="closed"):
            await use


async def test_close_fails_everyone_who_waits_and_leaves_no_task() -> None:
    embedder = Async()
    embeddings = Embeddings(embedder)
    await embeddings.open()
    embedder.go.clear()
    running_call = asyncio.create_task(embeddings.embed_one("running"))
    await until(lambda: embedder.batches)
    many = asyncio.create_task(embeddings.embed_many([f"{n}" for n in range(30)]))
    await asyncio.sleep(0)
    await embeddings.aclose()
    for call in (running_call, many):
        with pytest.raises(RuntimeError, match="stopped before this text"):
            await asyncio.wait_for(call, 5)  # type: ignore[arg-type]
    assert embedder.cancelled >= 1
    assert embedder.closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_close_does_not_wait_for_a_stuck_thread() -> None:
    plain = Plain()
    embeddings = Embeddings(plain)
    await embeddings.open()
    call = await hold(plain, embeddings)
    await embeddings.aclose()
    assert not plain.go.is_set()
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(call, 5)
    plain.go.set()


async def test_a_batch_does_not_run_in_the_context_of_one_of_its_callers() -> None:
    embedder = Async()
    async with running(embedder) as embeddings:
        USER.set("ann")
        embedder.go.clear()
        calls = [asyncio.create_task(embeddings.embed_one(text)) for text in "xyz"]
        await until(lambda: len(embedder.batches) == 2)
        embedder.go.set()
        await asyncio.gather(*calls)
    assert embedder.batches == [["x"], ["y", "z"]]
    assert embedder.users == ["ann", "nobody"]


async def test_an_embedder_that_cancels_itself_hangs_nobody() -> None:
    class Cancels(Async):
        async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
            self.batches.append(list(texts))
            if len(self.batches) <= 4:
                raise asyncio.CancelledError
            return [[1.0, 0.0] for _ in texts]

    embedder = Cancels()
    async with asyncio.timeout(5), running(embedder, max_batch=1) as embeddings:
        calls = [embeddings.embed_one(f"{n}") for n in range(6)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["RuntimeError"] * 4 + ["ndarray"] * 2
