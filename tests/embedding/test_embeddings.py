"""Many callers of one embedder: what goes into a batch, whose error is whose, what ends, and unit vectors."""

from __future__ import annotations

import asyncio
import gc
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from waiting import cancelled, until

from openproto.embedding import Embedder, Embeddings
from openproto.embedding.vectors import unit_vectors
from openproto.errors import InvalidRequestError, ProviderError, ProviderUnavailableError, RateLimitedError

USER: ContextVar[str] = ContextVar("USER", default="nobody")


class Plain:
    """A blocking embedder that records its batches and can be held and broken."""

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
    """An async embedder that can be held; by default it answers at once."""

    model = "async-2"
    dim = 2
    text_weight = 0.7
    max_batch = 3

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.users: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.calls: list[str] = []
        self.cancelled = 0

    async def open(self) -> None:
        self.calls.append("open")

    async def close(self) -> None:
        self.calls.append("close")

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


async def start(*calls: Any) -> list[asyncio.Task[Any]]:
    """Let the calls run up to their first wait, one after the other."""
    tasks = []
    for call in calls:
        tasks.append(asyncio.create_task(call))
        await asyncio.sleep(0)
    return tasks


async def hold(plain: Plain, embeddings: Embeddings) -> asyncio.Task[Any]:
    """Start a call that keeps the embedder busy until `plain.go` is set."""
    plain.go.clear()
    (first,) = await start(embeddings.embed_one("first"))
    await until(lambda: plain.batches)
    return first


async def test_a_plain_embedder_runs_in_its_own_thread_while_open_and_vectors_are_normalised() -> None:
    plain = Plain()
    async with running(plain) as embeddings:
        await embeddings.open()  # which opens nothing again
        assert (embeddings.model, embeddings.dim, embeddings.text_weight) == ("plain-2", 2, 0.2)
        vector = await embeddings.embed_one("four")
        (thread,) = plain.threads
        assert thread.is_alive()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert (vector.dtype, vector.tolist()) == ("float32", [1.0, 0.0])
    assert thread is not threading.main_thread()
    assert plain.calls == ["open", "close"]
    await until(lambda: not thread.is_alive())


async def test_calls_made_while_busy_form_the_next_batches_and_a_long_list_holds_up_no_single_call() -> None:
    plain = Plain()
    async with running(plain, max_batch=50) as embeddings:
        first = await hold(plain, embeddings)
        long = await start(embeddings.embed_many([f"{n}" for n in range(500)]))
        rest = await start(*(embeddings.embed_one(f"text {n}") for n in range(30)))
        plain.go.set()
        await asyncio.gather(first, *long, *rest)
        assert [len(batch) for batch in plain.batches[:2]] == [1, 50]
        assert next(n for n, batch in enumerate(plain.batches) if "text 29" in batch) <= 2
        plain.batches.clear()
        await embeddings.embed_many(["x" * 100_000] * 4)
    assert [len(batch) for batch in plain.batches] == [2, 2]


async def test_many_keeps_the_order_and_blank_texts_are_zeros_without_a_call() -> None:
    plain = Plain()
    plain.vector = lambda text: [1.0, 0.0] if text == "a" else [0.0, 1.0]
    async with running(plain, max_batch=2) as embeddings:
        vectors = await embeddings.embed_many(["b", "", "a", " \n", "b"])
        assert [vector.tolist() for vector in vectors] == [[0, 1], [0, 0], [1, 0], [0, 0], [0, 1]]
        assert await embeddings.embed_many([]) == []
    assert plain.batches == [["b", "a"], ["b"]]


async def test_an_async_embedder_has_several_batches_under_way_in_nobodys_context_but_not_any_number() -> None:
    embedder = Async()
    async with running(embedder) as embeddings:
        assert embeddings.text_weight == 0.7
        USER.set("ann")
        embedder.go.clear()
        calls: list[asyncio.Task[Any]] = []
        for n in range(10):
            calls += await start(embeddings.embed_one(f"{n}"))
            await asyncio.sleep(0.005)
        assert embedder.batches == [["0"], ["1"], ["2"], ["3"]]
        embedder.go.set()
        await asyncio.gather(*calls)
    assert sorted(map(len, embedder.batches)) == [1, 1, 1, 1, 3, 3]
    assert embedder.users[-2:] == ["nobody"] * 2, "a batch of several callers runs in the context of none"
    assert embedder.calls == ["open", "close"]


async def test_a_cancelled_caller_disturbs_nobody_and_its_waiting_text_is_dropped() -> None:
    plain = Plain()
    async with running(plain) as embeddings:
        first = await hold(plain, embeddings)
        keep, drop, also = await start(*map(embeddings.embed_one, ("keep", "drop", "also")))
        assert await cancelled(drop, first)
        plain.go.set()
        assert (await keep).tolist() == (await also).tolist() == [1.0, 0.0]
    assert plain.batches == [["first"], ["keep", "also"]]


async def test_an_async_batch_is_cancelled_only_when_its_last_caller_is() -> None:
    embedder = Async()
    async with running(embedder) as embeddings:
        embedder.go.clear()
        alone, one, other = (asyncio.create_task(embeddings.embed_one(text)) for text in ("x", "a", "b"))
        await until(lambda: len(embedder.batches) == 2)
        assert (await cancelled(one), embedder.cancelled) == (True, 0)
        assert (await cancelled(alone), embedder.cancelled) == (True, 1)
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
        assert (await embeddings.embed_one("after")).tolist() == [1.0, 0.0]
    gc.collect()
    assert not caplog.records, "the other text's error is reported as lost"


BAD_VECTOR = None
REFUSALS = [InvalidRequestError("no"), ValueError("no"), UnicodeError("no"), IndexError(), BAD_VECTOR]


@pytest.mark.parametrize("error", REFUSALS)
async def test_one_bad_text_or_vector_does_not_sink_the_others(error: Exception | None) -> None:
    plain = Plain()
    plain.error, plain.fails_at = error, 2 if error else 0
    plain.vector = lambda text: [float("nan") if text == "bad" else 1.0, 0.0]
    async with running(plain) as embeddings:
        texts = ["first", *(f"text {n}" for n in range(63)), "bad"]
        outcomes = await asyncio.gather(*map(embeddings.embed_one, texts), return_exceptions=True)
    assert isinstance(outcomes.pop(), InvalidRequestError if isinstance(error, InvalidRequestError) else ProviderError)
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(plain.batches) == (14 if error else 2), "the first alone, then 1 + 2 for each of 6 halvings"


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


async def test_close_fails_everyone_who_waits_also_for_a_stuck_thread_and_leaves_no_task() -> None:
    embedder, stuck = Async(), Plain()
    embeddings, plain = Embeddings(embedder), Embeddings(stuck)
    await embeddings.open()
    await plain.open()
    embedder.go.clear()
    calls = [*await start(embeddings.embed_one("running")), await hold(stuck, plain)]
    await until(lambda: embedder.batches)
    calls += await start(embeddings.embed_many([f"{n}" for n in range(30)]))
    closing = asyncio.gather(embeddings.aclose(), plain.aclose())
    for call in calls:
        with pytest.raises(RuntimeError, match="stopped before this text"):
            await asyncio.wait_for(call, 5)
    assert stuck.calls == ["open"]
    stuck.go.set()  # in whose thread the embedder is closed
    await closing
    assert stuck.calls == ["open", "close"]
    assert embedder.cancelled >= 1
    assert embedder.calls == ["open", "close"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    "row",
    [
        *([3, 4], (3.0, 4.0), array("f", [3, 4]), np.array([3, 4], np.float32), np.array([3, 4], np.float16)),
        *([3e300, 4e300], [3e-300, 4e-300]),  # beyond and below what a float32 holds
    ],
)
def test_any_row_of_numbers_becomes_float32_of_unit_length(row: object) -> None:
    vector, zeros = unit_vectors([row, [0, 0]], count=2, model="m", dim=2)
    assert isinstance(vector, np.ndarray)
    assert vector.dtype == np.float32
    assert vector.tolist() == pytest.approx([0.6, 0.8])
    assert isinstance(zeros, np.ndarray)
    assert zeros.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([1, 2, 3], "3 dimensions instead of 2"),
        ([], "0 dimensions instead of 2"),
        ([1, nan], "NaN or infinity among 2 dimensions (2 expected)"),
        ([inf, 1], "NaN or infinity"),
        (None, "vector of 2 numbers"),
        (["secret", "words"], "vector of 2 numbers"),
        ("zz", "vector of 2 numbers"),
    ],
)
def test_a_bad_row_is_that_rows_error_and_names_the_model(row: object, text: str) -> None:
    good, bad = unit_vectors([[3, 4], row], count=2, model="acme-1", dim=2)
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, ProviderError)
    assert "acme-1" in str(bad)
    assert text in str(bad)
    assert "secret" not in str(bad)


@pytest.mark.parametrize("rows", [[], [[1, 0]], [[1, 0]] * 3])
def test_a_wrong_count_fails_the_batch(rows: list[list[float]]) -> None:
    with pytest.raises(ProviderError, match=f"'acme-1' .*gave {len(rows)} vectors for 2 texts"):
        unit_vectors(rows, count=2, model="acme-1", dim=2)
