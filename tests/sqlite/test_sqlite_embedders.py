"""A file and its embedder: the file remembers the model, and opens with no other until it was re-embedded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_adapters.sqlite.reindexing import BATCH
from sqlite_tools import Toy, check_consistent, memory, rows
from waiting import until

from openproto import MemoryRecord, PayloadTooLargeError, ProviderError
from openproto.provider import ReindexProgress
from openproto.stores import indexer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


async def fill(path: Path, embedder: Any, count: int = 3) -> list[str]:
    async with memory(path, embedder) as client:
        found = await client.add_many({"content": f"memory {n}", "user_id": "ada"} for n in range(count))
    return [outcome.id for outcome in found if isinstance(outcome, MemoryRecord)]


def store(path: Path) -> tuple[Any, Any, Any]:
    ((model, dim, following),) = rows(path, "SELECT model, dim, next_model FROM store")
    return model, dim, following


# -- opening ----------------------------------------------------------------------------------------------------------

PAIRS = [
    (Toy("one", 4), Toy("two", 4), ["'one' (4 dimensions)", "'two' (4 dimensions)"]),
    (Toy("one", 4), Toy("one", 5), ["'one' (4 dimensions)", "'one' (5 dimensions)"]),
    (Toy("one", 4), "none", ["'one' (4 dimensions)", "text alone"]),
    ("none", Toy("two", 4), ["text alone", "'two' (4 dimensions)"]),
]


@pytest.mark.parametrize(("first", "second", "names"), PAIRS)
async def test_opening_with_another_embedder_names_both_and_the_remedy(
    path: Path, first: Any, second: Any, names: list[str]
) -> None:
    await fill(path, first)
    with pytest.raises(ProviderError) as caught:
        async with memory(path, second):
            pytest.fail("the file was opened")
    assert all(name in caught.value.message for name in [*names, "openproto reindex"])
    assert check_consistent(path) == 3


async def test_an_embedder_that_does_not_fit_is_released(path: Path) -> None:
    await fill(path, Toy("one"))
    other = Toy("two")
    with pytest.raises(ProviderError):
        async with memory(path, other):
            pass
    await until(lambda: other.closed == other.opened == 1)


async def test_the_same_model_opens_the_file_again(path: Path) -> None:
    await fill(path, Toy("one"))
    async with memory(path, Toy("one")) as client:
        assert len(await client.search("memory", "ada")) == 3


async def test_the_first_to_write_a_file_gives_it_its_model(path: Path) -> None:
    async with memory(path, Toy("one", 6)) as client:
        await client.add("tea", user_id="ada")
    assert store(path)[:2] == ("one", 6)


async def test_a_file_that_was_opened_by_text_alone_takes_a_model_while_it_is_empty(path: Path) -> None:
    async with memory(path):
        pass
    await fill(path, Toy("one"))
    assert store(path)[0] == "one"


async def test_the_record_names_the_model_of_its_vector(path: Path) -> None:
    async with memory(path, Toy("one")) as client:
        assert (await client.add("tea", user_id="ada")).embedding_model == "one"


@pytest.mark.parametrize(("embedder", "vectors"), [(Toy(), True), ("none", False), (None, False)])
async def test_capabilities_say_whether_there_are_vectors(path: Path, embedder: Any, vectors: bool) -> None:
    async with memory(path, embedder) as client:
        declared = await client.capabilities()
    assert (declared.features.vector_search, declared.features.keyword_search) == (vectors, True)
    assert declared.x_openproto.support["vector_search"] == ("native" if vectors else "none")
    assert declared.x_openproto.cancellation == "native"


async def test_text_alone_works_without_an_embedder(path: Path) -> None:
    async with memory(path) as client:
        tea = await client.add("Ada drinks green tea", user_id="ada")
        await client.add("Ada has a dog", user_id="ada")
        (hit,) = await client.search("teas", "ada")
        assert (hit.memory.id, hit.memory.embedding_model) == (tea.id, None)
        assert 0 < hit.score <= 1
        assert (await client.context("dog", "ada")).text.startswith("Ada has a dog [")


async def test_a_file_without_vectors_stays_so_when_a_local_embedder_is_installed_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path, "none")
    toy = Toy("local")
    monkeypatch.setattr(indexer, "resolve_embedder", lambda spec: toy)
    async with memory(path, "auto") as client:
        assert (await client.add("memory 3", user_id="ada")).embedding_model is None
        assert len(await client.search("memory", "ada")) == 4
    assert (toy.opened, toy.closed) == (1, 1)


async def test_a_record_with_a_vector_is_found_without_a_word_in_common(path: Path) -> None:
    async with memory(path, Toy()) as client:
        await client.add("alpha", user_id="ada")
        assert [hit.memory.content for hit in await client.search("omega", "ada")] == ["alpha"]


class Picky(Toy):
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if any("bad" in text for text in texts):
            raise PayloadTooLargeError("the embedder refuses this text")
        return super().embed(texts)


async def test_a_text_that_cannot_be_embedded_fails_its_own_item_only(path: Path) -> None:
    async with memory(path, Picky()) as client:
        found = await client.add_many({"content": text, "user_id": "ada"} for text in ("good", "bad", "fine"))
    assert [type(outcome) for outcome in found] == [MemoryRecord, PayloadTooLargeError, MemoryRecord]
    assert check_consistent(path) == 2


async def test_a_memory_that_cannot_be_embedded_is_not_stored(path: Path) -> None:
    async with memory(path, Picky()) as client:
        with pytest.raises(PayloadTooLargeError, match="refuses this text"):
            await client.add("bad", user_id="ada")
        added = await client.add("good", user_id="ada")
        with pytest.raises(PayloadTooLargeError):
            await client.update(added.id, content="bad")
        assert (await client.get(added.id)).content == "good"
    assert check_consistent(path) == 1


class Broken(Toy):
    def open(self) -> None:
        raise ProviderError("the weights are missing")


async def test_an_embedder_that_cannot_be_loaded_fails_the_opening_and_frees_the_file(path: Path) -> None:
    with pytest.raises(ProviderError, match="the weights are missing"):
        async with memory(path, Broken()):
            pass
    await fill(path, Toy())


async def test_an_add_that_is_cancelled_while_it_is_embedded_stores_nothing(path: Path) -> None:
    toy = Toy()
    async with memory(path, toy) as client:
        toy.go.clear()
        adding = asyncio.create_task(client.add("tea", user_id="ada"))
        await until(toy.busy.is_set)
        adding.cancel()
        await asyncio.wait([adding])
        toy.go.set()
        await client.add("milk", user_id="ada")
    assert rows(path, "SELECT content FROM memories") == [("milk",)]


# -- re-embedding -----------------------------------------------------------------------------------------------------


async def reindex(path: Path, embedder: Any) -> list[ReindexProgress]:
    reports: list[ReindexProgress] = []
    provider = Sqlite(path, embedder=embedder, synchronous="normal")
    try:
        await provider.reindex(reports.append)
    finally:
        await provider.close()
    return reports


def directions(path: Path, dim: int = 4) -> set[int]:
    """Return which axis each vector of the file points along, and check that each has `dim` numbers of one kind."""
    import numpy as np

    blobs = [blob for (blob,) in rows(path, "SELECT embedding FROM memories")]
    (length,) = {len(blob) for blob in blobs}
    assert length in (2 * dim, 4 * dim)
    return {int(np.frombuffer(blob, dtype=f"<f{length // dim}").argmax()) for blob in blobs}


async def test_re_embedding_gives_every_memory_the_new_models_vector(path: Path) -> None:
    ids = await fill(path, Toy("one", direction=0))
    reports = await reindex(path, Toy("two", direction=1))
    assert (store(path), directions(path), reports[-1]) == (("two", 4, None), {1}, ReindexProgress(3, 3))
    async with memory(path, Toy("two", direction=1)) as client:
        assert [(await client.get(id)).embedding_model for id in ids] == ["two"] * 3
        assert len(await client.search("memory", "ada")) == 3
    with pytest.raises(ProviderError, match="'two'"):
        async with memory(path, Toy("one")):
            pass


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1])
async def test_any_number_of_memories_can_be_re_embedded(path: Path, count: int) -> None:
    await fill(path, Toy("one"), count)
    toy = Toy("two", 3)
    reports = await reindex(path, toy)
    assert (store(path), len(toy.embedded)) == (("two", 3, None), count)
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert check_consistent(path) == count


async def test_a_text_only_file_can_be_given_vectors(path: Path) -> None:
    await fill(path, "none")
    await reindex(path, Toy("one"))
    async with memory(path, Toy("one")) as client:
        assert len(await client.search("nothing in common", "ada")) == 3


async def test_vectors_can_be_given_up(path: Path) -> None:
    await fill(path, Toy("one"))
    await reindex(path, "none")
    assert store(path) == (None, None, None)
    assert rows(path, "SELECT DISTINCT embedding FROM memories") == [(None,)]
    async with memory(path) as client:
        found = await client.search("memory", "ada")
    assert [hit.memory.embedding_model for hit in found] == [None] * 3


async def stop_after_the_first_batch(path: Path, toy: Toy) -> None:
    """Cancel a re-embedding as soon as it has reported once."""
    reported = asyncio.Event()
    provider = Sqlite(path, embedder=toy, synchronous="normal")

    def report(_: ReindexProgress) -> None:
        toy.go.clear()
        reported.set()

    running = asyncio.create_task(provider.reindex(report))
    async with asyncio.timeout(20):
        await reported.wait()
    running.cancel()
    await asyncio.wait([running])
    toy.go.set()
    await provider.close()


async def test_a_re_embedding_that_was_stopped_leaves_the_file_in_use_as_it_was(path: Path) -> None:
    await fill(path, Toy("one"), BATCH + 10)
    await stop_after_the_first_batch(path, Toy("two"))
    assert store(path) == ("one", 4, "two")
    async with memory(path, Toy("one")) as client:
        assert len(await client.search("memory", "ada", limit=100)) == 100
        await client.add("another", user_id="ada")


async def test_a_re_embedding_that_was_stopped_goes_on_where_it_was(path: Path) -> None:
    await fill(path, Toy("one"), BATCH + 10)
    await stop_after_the_first_batch(path, Toy("two", direction=1))
    again = Toy("two", direction=1)
    await reindex(path, again)
    assert len(again.embedded) == 10
    assert (store(path), directions(path)) == (("two", 4, None), {1})


KILLED = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[2])
from sqlite_tools import Toy
from openproto_adapters.sqlite import Sqlite
toy = Toy("two", direction=1)
def report(progress):
    toy.go.clear()
    print(progress.done, flush=True)
asyncio.run(Sqlite(sys.argv[1], embedder=toy).reindex(report))
"""


async def test_a_re_embedding_that_was_killed_goes_on_where_it_was(start_python: Any, path: Path) -> None:
    await fill(path, Toy("one"), BATCH + 10)
    process = start_python(KILLED, path, Path(__file__).parent)
    assert process.stdout.readline() == f"{BATCH}\n"
    process.kill()
    process.wait()
    again = Toy("two", direction=1)
    await reindex(path, again)
    assert (len(again.embedded), directions(path)) == (10, {1})
    assert check_consistent(path) == BATCH + 10


async def test_vectors_that_were_gathered_for_another_model_are_not_used(path: Path) -> None:
    await fill(path, Toy("one"), BATCH + 10)
    await stop_after_the_first_batch(path, Toy("two", direction=1))
    third = Toy("three", direction=2)
    await reindex(path, third)
    assert (len(third.embedded), directions(path)) == (BATCH + 10, {2})


async def test_vectors_that_were_gathered_in_another_length_are_not_used(path: Path) -> None:
    await fill(path, Toy("one"), BATCH + 10)
    await stop_after_the_first_batch(path, Toy("two", 3))
    await reindex(path, Toy("two", 5))
    assert store(path) == ("two", 5, None)
    assert directions(path, 5) == {0}


async def test_two_re_embeddings_at_once_never_mix_their_vectors(path: Path) -> None:
    await fill(path, Toy("one"), BATCH + 10)
    slow = Toy("two", direction=1)
    provider = Sqlite(path, embedder=slow, synchronous="normal")

    def hold_in_the_second_batch(_: ReindexProgress) -> None:
        slow.go.clear()
        slow.busy.clear()

    running = asyncio.create_task(provider.reindex(hold_in_the_second_batch))
    await until(lambda: len(slow.embedded) == BATCH and slow.busy.is_set() and not slow.go.is_set())
    await stop_after_the_first_batch(path, Toy("three", direction=2))
    slow.go.set()
    await asyncio.wait([running], timeout=20)
    await provider.close()
    assert directions(path) == {{"one": 0, "two": 1, "three": 2}[store(path)[0]]}


class During:
    """A re-embedding that is held in the middle of its first batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.toy = Toy("two", direction=1)

    async def __aenter__(self) -> Self:
        self.toy.go.clear()
        self.running = asyncio.create_task(reindex(self.path, self.toy))
        await until(self.toy.busy.is_set)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.toy.go.set()
        await self.running


async def test_the_file_can_be_used_while_it_is_re_embedded(path: Path) -> None:
    (first, second, third) = await fill(path, Toy("one"))
    async with memory(path, Toy("one")) as client, During(path) as reindexing:
        added = await client.add("added meanwhile", user_id="ada")
        await client.update(first, content="changed meanwhile")
        await client.delete(second)
        assert len(await client.search("memory", "ada")) == 3
    assert (store(path), directions(path)) == (("two", 4, None), {1})
    assert {"added meanwhile", "changed meanwhile"} <= set(reindexing.toy.embedded)
    contents = {row[0] for row in rows(path, "SELECT id FROM memories")}
    assert contents == {first, third, added.id}
    check_consistent(path)


async def test_a_client_of_the_old_model_is_refused_after_the_switch(path: Path) -> None:
    (first, *_) = await fill(path, Toy("one"))
    async with memory(path, Toy("one")) as stale:
        await stale.search("memory", "ada")
        await reindex(path, Toy("two", direction=1))
        for call in (
            stale.add("late", user_id="ada"),
            stale.update(first, content="late"),
            stale.search("memory", "ada"),
            stale.context("memory", "ada"),
        ):
            with pytest.raises(ProviderError, match="'two'"):
                await call
        (outcome,) = await stale.add_many([{"content": "late", "user_id": "ada"}])
        assert isinstance(outcome, ProviderError)
        assert (await stale.get(first)).content == "memory 0"  # reading without vectors goes on
    assert directions(path) == {1}
    assert check_consistent(path) == 3


async def test_an_embedder_that_fails_in_the_middle_leaves_the_file_as_it_was(path: Path) -> None:
    await fill(path, Toy("one"))
    async with memory(path, Toy("one")) as client:
        await client.add("bad", user_id="ada")
    with pytest.raises(PayloadTooLargeError, match="refuses this text"):
        await reindex(path, Picky("two"))
    assert store(path)[0] == "one"
    async with memory(path, Toy("one")) as client:
        assert len(await client.search("memory", "ada")) == 4
