"""The largest that the protocol allows fits into rows, indexes, and statements, and so do vectors of any length."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from postgres_tools import MakeClient, sql, stored, value
from toy_embedders import HashEmbedder

from openproto import MemoryRecord

WIDE_KEY = "\U0001f511" * 256


def vocabulary(count: int) -> list[str]:
    """Distinct words that no stemmer folds into each other and no compression shortens much."""
    rng = random.Random(count)
    words = ("".join(rng.choices("bcdfghklmnpqrtvwxz0123456789", k=5)) for _ in range(count + 500))
    return list(dict.fromkeys(words))[:count]


@pytest.mark.parametrize("dim", [256, 512, 513])
async def test_the_widest_record_of_the_widest_user_is_stored_found_and_deleted(make: MakeClient, dim: int) -> None:
    rng = random.Random(dim)
    user = "".join(chr(rng.randrange(0x10000, 0x20000)) for _ in range(256))
    everything: dict[str, Any] = {
        "scope": "/".join(["ÿ" * 51] * 9),
        "tags": [f"{n}" + "\U0001f9e0" * 120 for n in range(64)],
        "source": {"app": "\U0001f9e0" * 256, "type": "imported", "ref": "\U0001f9e0" * 256},
        "confidence": 1.0,
    }
    words = vocabulary(80)
    async with make(embedder=HashEmbedder(dim)) as memory:
        record = await memory.add(" ".join(words), user_id=user, idempotency_key=WIDE_KEY, **everything)
        (batched,) = await memory.add_many([{"content": " ".join(words[::-1]), "user_id": user, **everything}])
        assert isinstance(batched, MemoryRecord)
        changed = await memory.update(record.id, content=" ".join(words[:70]))
        assert changed.tags == everything["tags"]
        assert (await memory.search(words[75], user))[0].memory.id == batched.id
        found = await memory.search(words[69], user, scope=everything["scope"], tag=everything["tags"][63])
        assert {result.memory.id for result in found[:2]} == {record.id, batched.id}
        assert len((await memory.list(user, scope="ÿ" * 51, tag=everything["tags"][0])).items) == 2
        assert (await memory.audit(user))[-1].app == everything["source"]["app"]
        await memory.delete(record.id, user_id=user)


async def test_a_text_of_the_longest_length_is_found_by_any_of_its_first_words(make: MakeClient) -> None:
    words = vocabulary(17_500)
    content = " ".join(words)[:100_000].rsplit(" ", 1)[0]
    content += "." * (100_000 - len(content))
    kept = [word for word in content.rstrip(".").split(" ") if word]
    assert len(kept) > 16_060
    async with make() as memory:
        record = await memory.add(content, user_id="ada")
        (batched,) = await memory.add_many([{"content": content, "user_id": "bob"}])
        assert isinstance(batched, MemoryRecord)
        assert (await memory.get(record.id)).content == content
        for user in ("ada", "bob"):
            for place in (0, 59, 60, 61, 5_000, 15_999):
                (found,) = await memory.search(kept[place], user)
                assert found.score == pytest.approx(1.0)
        assert await memory.search("absentword", "ada") == []
        await memory.update(record.id, content="short now")
        assert await memory.search(kept[5_000], "ada") == []
        assert len(await memory.search("short", "ada")) == 1


@pytest.mark.parametrize("count", [40, 41, 5_000])
async def test_a_query_of_many_words_is_answered(make: MakeClient, count: int) -> None:
    words = vocabulary(count)
    async with make() as memory:
        right = await memory.add(" ".join(words), user_id="ada")
        half = await memory.add(" ".join(words[::2]), user_id="ada")
        await memory.add("something else", user_id="ada")
        found = await memory.search(" ".join(words), "ada")
        assert [result.memory.id for result in found] == [right.id, half.id]
        assert found[0].score == pytest.approx(1.0)
        assert 0.2 < found[1].score < 0.8


async def test_the_longest_query_and_content_without_a_word_are_harmless(make: MakeClient) -> None:
    async with make(embedder="local") as memory:
        await memory.add("drinks tea", user_id="ada")
        for content in ("?", "。", "\U0001f9e0", "a", "\t.\n", "I am"):
            await memory.add(content, user_id="ada")
            await memory.add_many([{"content": content, "user_id": "ada"}])
            await memory.search(content, "ada")
        assert (await memory.search("tea " * 24_999, "ada"))[0].memory.content == "drinks tea"


@pytest.mark.parametrize("dim", [3, 256, 512, 513, 1024, 1536, 4000])
async def test_vectors_of_any_common_length_are_stored_and_compared(
    make: MakeClient, dsn: str, schema: str, dim: int
) -> None:
    async with make(embedder=HashEmbedder(dim, text_weight=0.0)) as memory:
        tea = await memory.add("black tea", user_id="ada")
        outcomes = await memory.add_many([{"content": f"other matter {n}", "user_id": "ada"} for n in range(20)])
        assert all(isinstance(outcome, MemoryRecord) for outcome in outcomes)
        await memory.update(stored(outcomes[0]).id, content="something else")
        best = (await memory.search("tea black", "ada"))[0]
        assert best.memory.id == tea.id
        assert best.score == pytest.approx(1.0, abs=2e-3)
    async with make(embedder=HashEmbedder(dim)) as memory:
        assert (await memory.search("tea black", "ada"))[0].memory.id == tea.id


async def test_clients_that_open_a_store_of_long_vectors_at_once_all_work_and_later_ones_rebuild_nothing(
    make: MakeClient, dsn: str, schema: str
) -> None:
    indexes = f"SELECT indexrelid::int FROM pg_index WHERE indrelid = '{schema}.memories'::regclass ORDER BY 1"

    async def work(n: int) -> None:
        async with make(embedder=HashEmbedder(1024)) as memory:
            await memory.add(f"fact {n}", user_id="ada")

    await asyncio.gather(*(work(n) for n in range(6)))
    before = await sql(dsn, indexes)
    await work(7)
    assert await sql(dsn, indexes) == before


async def test_there_is_no_index_over_the_vectors_of_all_users(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(embedder=HashEmbedder()):
        pass
    methods = (
        "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam "
        f"WHERE indrelid = '{schema}.memories'::regclass AND amname <> 'btree'"
    )
    assert await value(dsn, methods) == 0
