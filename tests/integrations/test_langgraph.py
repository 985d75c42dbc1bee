"""The store does what LangGraph's own in-memory store does, whatever is asked of both; and what only a real one has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import GetOp, IndexConfig, ListNamespacesOp, MatchCondition, Op, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from openproto import AsyncMemory, Memory
from openproto.integrations.langgraph import IndexEmbedder, OpenProtoStore
from openproto.integrations.langgraph import store as store_module

LABELS = ["a", "b", "a/b", "%", "*", "ü", "a%2Fb", " "]
KEYS = ["k", "k/l", "k'\"", "../k", "K", "x" * 600]
NESTED = {"nested": {"deep": {"n": 3}}, "none": None, "flag": True}
VALUES: list[Any] = [{"n": 1}, {"n": 2.5, "color": "red"}, {"color": "blue", "tags": ["x", "y"]}, NESTED, {}]
DEEP = {"nested": {"deep": {"n": {"$eq": 3}}}}
FILTERS: list[Any] = [None, {"color": "red"}, {"color": {"$ne": "red"}}, DEEP, {"tags": ["x", "y"]}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenProtoStore]:
    with OpenProtoStore(Memory("sqlite", path=tmp_path / "memory.db", embedder=None)) as store:
        yield store


def some_namespace(chance: random.Random, least: int = 1) -> tuple[str, ...]:
    return tuple(chance.choice(LABELS) for _ in range(chance.randint(least, 3)))


def some_op(chance: random.Random, *, deletes: bool) -> Op:
    # The store in memory lists namespaces whose last item was deleted, or that were only asked for: where namespaces
    # are listed, nothing is deleted or asked for by its key.
    kind = chance.choice(range(8) if deletes else (0, 1, 2, 3, 6, 7, 8, 9))
    if kind < 4:
        value = chance.choice([*VALUES, None] if deletes else VALUES)
        return PutOp(some_namespace(chance), chance.choice(KEYS), value)
    if kind < 6:
        return GetOp(some_namespace(chance), chance.choice(KEYS))
    if kind < 8:
        return SearchOp(some_namespace(chance, 0), chance.choice(FILTERS), limit=100)
    paths = tuple(chance.choice([*LABELS, "*"]) for _ in range(chance.randint(1, 2)))
    conditions = [None, (MatchCondition("prefix", paths),), (MatchCondition("suffix", paths),)]
    return ListNamespacesOp(chance.choice(conditions), chance.choice([None, 1, 2]), limit=chance.choice([2, 100]))


def plain(results: Sequence[Any]) -> list[Any]:
    def one(result: Any) -> Any:
        if isinstance(result, list):
            return sorted(map(repr, map(one, result)))
        if hasattr(result, "namespace"):
            return (result.namespace, result.key, repr(result.value))
        return result

    return [one(result) for result in results]


@pytest.mark.parametrize("seed", range(6))
def test_random_batches_end_as_in_memory(seed: int, store: OpenProtoStore) -> None:
    chance, theirs = random.Random(seed), InMemoryStore()
    for number in range(40):
        ops = [some_op(chance, deletes=seed % 2 == 0) for _ in range(chance.randint(1, 5))]
        assert plain(store.batch(ops)) == plain(theirs.batch(ops)), (number, ops)


def test_numbers_are_compared_and_what_is_none_is_left_out(store: OpenProtoStore) -> None:
    for key, value in (("one", {"n": 1}), ("two", {"n": 2.5}), ("none", {}), ("text", {"n": "x"})):
        store.put(("a",), key, value)
    found = store.search(("a",), filter={"n": {"$gte": 1, "$lt": 2.5}})
    assert [item.key for item in found] == ["one"]
    assert {item.key for item in store.search(("a",), filter={"n": {"$gt": 1}})} == {"two"}
    store.put(("a",), "nested", {"user": {"access-level": "x"}, "user.name": "dotted"})
    for wanted in ({"user.access-level": "x"}, {"user.name": "dotted"}, {"user": {"access-level": "x"}}):
        assert [item.key for item in store.search(("a",), filter=wanted)] == ["nested"]


def test_an_item_keeps_its_creation_and_shows_its_change(store: OpenProtoStore) -> None:
    found: list[Any] = []
    for n in (1, 2):
        store.put(("a",), "k", {"n": n})
        found.append(store.get(("a",), "k"))
    first, second = found
    assert (second.created_at, second.value) == (first.created_at, {"n": 2})
    assert second.updated_at > first.updated_at


async def test_calls_of_one_moment_run_together_and_fail_alone(tmp_path: Path) -> None:
    async with OpenProtoStore(AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder=None)) as store:
        await asyncio.gather(*(store.aput(("a",), f"k{n}", {"n": n}) for n in range(50)))
        bad = store.asearch(("a",), filter={"n": {"$like": 1}})
        getting = [store.aget(("a",), f"k{n}") for n in range(50)]
        found: list[Any] = await asyncio.gather(*getting, bad, return_exceptions=True)
        error = found.pop()
        assert [item.value["n"] for item in found] == list(range(50))
        assert isinstance(error, ValueError)
        assert "$like" in str(error)
        with pytest.raises(asyncio.InvalidStateError, match="Memory"):
            store.get(("a",), "k1")
        assert (await asyncio.to_thread(store.get, ("a",), "k1")).value == {"n": 1}  # type: ignore[union-attr]


def letters(texts: Sequence[str]) -> list[list[float]]:
    """Embed each text as the numbers of its letters."""
    return [[float(text.count(chr(letter))) for letter in range(97, 123)] for text in texts]


def test_fields_are_found_each_for_itself(tmp_path: Path) -> None:
    index: IndexConfig = {"dims": 26, "embed": letters, "fields": ["title", "parts[*].text"]}
    memory = Memory("sqlite", path=tmp_path / "memory.db", embedder=IndexEmbedder(index))
    with OpenProtoStore(memory, index=index) as store:
        store.put(("a",), "one", {"title": "xxx", "parts": [{"text": "yyy"}, {"text": "zzz"}], "other": "www"})
        store.put(("a",), "two", {"title": "zzz"})
        store.put(("a",), "hidden", {"title": "zzz"}, index=False)
        assert next(item.key for item in store.search(("a",), query="yyy")) == "one"
        both = store.search(("a",), query="zzz")
        assert {item.key for item in both} == {"one", "two"}
        assert all(item.score is not None and item.score > 0.9 for item in both)
        store.put(("a",), "one", {"title": "qqq"})
        assert [item.key for item in store.search(("a",), query="zzz") if (item.score or 0) > 0.9] == ["two"]
        assert {item.key for item in store.search(("a",))} == {"one", "two", "hidden"}
        store.delete(("a",), "one")
        assert {item.key for item in store.search(("a",))} == {"two", "hidden"}
    with Memory("sqlite", path=tmp_path / "memory.db", embedder=IndexEmbedder(index)) as left:
        assert len(left.list("langgraph").items) == 2  # of an item with several texts nothing stays behind


def test_reading_gives_an_item_more_time(store: OpenProtoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return now

    monkeypatch.setattr(store_module, "datetime", Clock)
    store.put(("a",), "short", {"n": 1}, ttl=1)
    store.put(("a",), "read", {"n": 2}, ttl=1)
    store.put(("a",), "kept", {"n": 3})
    now += timedelta(seconds=50)
    assert store.get(("a",), "read") is not None
    assert store.get(("a",), "short", refresh_ttl=False) is not None
    now += timedelta(seconds=20)
    assert store.get(("a",), "short") is None
    assert {item.key for item in store.search(("a",), refresh_ttl=False)} == {"read", "kept"}
    assert store.sweep_ttl() == 1
    assert store.sweep_ttl() == 0
    assert store.get(("a",), "read") is not None
