"""Writes: batches, writers at once, the largest that is allowed, and answers that are lost on their way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from postgres_tools import Database, Door, stored, through
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, ConflictError


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
async def memory(db: Database, door: Door) -> AsyncIterator[AsyncMemory]:
    async with door.open(db.server) as address, db.client(url=through(address), pool_max=1) as memory:
        yield memory


async def prepare(memory: AsyncMemory) -> None:
    """Let the connection prepare both statements: what is lost next is the answer to one that was carried out."""
    await memory.add("first", user_id="bob")
    await memory.add_many([{"content": "first", "user_id": "bob"}])


@pytest.mark.parametrize("loses", ["question", "answer"])
async def test_what_is_asked_for_again_is_stored_once(memory: AsyncMemory, door: Door, loses: str) -> None:
    items: list[dict[str, Any]] = [{"content": f"tea {n}", "user_id": "ada", "tags": ["t"]} for n in range(20)]
    items[-1]["idempotency_key"] = "k"
    await prepare(memory)
    await memory.add_many([{**item, "user_id": "bob"} for item in items])
    door.loses = loses
    outcomes = await memory.add_many(items)
    await prepare(memory)
    door.loses = loses
    record = await memory.add("tea", user_id="ada", tags=["t"], x_mem0={"n": 1})
    assert door.lost == memory.stats().retries == 2
    assert (await memory.list("ada")).items == [record, *(stored(outcome) for outcome in reversed(outcomes))]
    assert [entry.action for entry in await memory.audit("ada")].count("add") == 21


async def test_what_was_deleted_meanwhile_does_not_come_back(db: Database, memory: AsyncMemory, door: Door) -> None:
    door.then = lambda: db.execute(f"DELETE FROM {db.schema}.memories WHERE content = 'gone'")
    await prepare(memory)
    door.loses = "answer"
    kept, outcome = await memory.add_many([{"content": text, "user_id": "ada"} for text in ("kept", "gone")])
    assert isinstance(outcome, ConflictError)
    assert door.lost == 1
    assert (await memory.list("ada")).items == [stored(kept)]


async def test_a_batch_is_one_statement(db: Database, memory: AsyncMemory) -> None:
    assert await memory.add_many([]) == []
    await memory.add_many([{"content": f"fact {n}", "user_id": "ada"} for n in range(50)])
    assert await db.value(f"SELECT count(DISTINCT xmin::text) FROM {db.schema}.memories") == 1


async def test_a_context_is_one_statement_where_the_search_finds_all(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def counting(self: asyncpg.Connection, sql: str, *args: Any) -> Any:
        asked.extend([sql] if "INSERT" not in sql else ())
        return await fetch(self, sql, *args)

    async with db.client(token_counter=lambda text: len(text.split())) as memory:

        async def lines(query: str) -> tuple[int, int]:
            """Return how many lines the context has, for which ten candidates are looked at, and the statements."""
            asked.clear()
            return len((await memory.context(query, "ada", token_budget=100)).citations), len(asked)

        await memory.add_many([{"content": f"red {n}", "user_id": "ada"} for n in range(9)])
        await memory.context("red", "ada")  # looks for the users that have an index
        monkeypatch.setattr(asyncpg.Connection, "fetch", counting)
        assert await lines("red") == (9, 1)
        await memory.add("blue", user_id="ada")
        assert await lines("red") == (10, 2), "what is no hit is listed"
        assert await lines("blue red") == (10, 1)
        await memory.add("blue red", user_id="ada")
        assert await lines("blue red") == (11, 3), "there are more hits than were asked for, and two pages"


async def test_writers_that_supersede_the_same_records_in_opposite_order_do_not_deadlock(db: Database) -> None:
    async with db.client(pool_max=8, retries=0) as memory:
        ids = [(await memory.add(f"old {n}", user_id="ada")).id for n in range(20)]
        heir = await memory.add("heir", user_id="ada")
        for n in range(8):
            await asyncio.gather(
                *(memory.add("new", user_id="ada", supersedes=ids if n % 2 else ids[::-1]) for n in range(8)),
                memory.add_many([{"content": "b", "user_id": "ada", "supersedes": [id]} for id in ids]),
                memory.add_many([{"content": "b", "user_id": "ada", "supersedes": [id]} for id in ids[::-1]]),
                *(memory.update(heir.id, supersedes=[id]) for id in ids[n::8]),
            )
        assert sorted((await memory.get(heir.id)).supersedes) == sorted(ids)
        outcomes = await memory.add_many([{"content": "b", "user_id": "ada", "supersedes": ids}])
        assert stored(outcomes[0]).supersedes == ids


def vocabulary(count: int) -> list[str]:
    """Distinct words that no stemmer folds into each other and no compression shortens much."""
    rng = random.Random(count)
    words = ("".join(rng.choices("bcdfghklmnpqrtvwxz0123456789", k=5)) for _ in range(count + 500))
    return list(dict.fromkeys(words))[:count]


@pytest.mark.parametrize("dim", [512, 513, 2001])
async def test_the_widest_record_of_the_widest_user_is_stored_found_and_deleted(db: Database, dim: int) -> None:
    rng = random.Random(dim)
    user = "".join(chr(rng.randrange(0x10000, 0x20000)) for _ in range(256))
    everything: dict[str, Any] = {
        "scope": "/".join(["ÿ" * 51] * 9),
        "tags": [f"{n}" + "\U0001f9e0" * 120 for n in range(64)],
        "source": {"app": "\U0001f9e0" * 256, "type": "imported", "ref": "\U0001f9e0" * 256},
        "confidence": 1.0,
    }
    words = vocabulary(80)
    async with db.client(embedder=HashEmbedder(dim)) as memory:
        key = "\U0001f511" * 256
        record = await memory.add(" ".join(words), user_id=user, idempotency_key=key, **everything)
        (batched,) = await memory.add_many([{"content": " ".join(words[::-1]), "user_id": user, **everything}])
        changed = await memory.update(record.id, content=" ".join(words[:70]))
        assert changed.tags == everything["tags"]
        assert (await memory.search(words[75], user))[0].memory.id == stored(batched).id
        found = await memory.search(words[69], user, scope=everything["scope"], tag=everything["tags"][63])
        assert {result.memory.id for result in found} == {record.id, stored(batched).id}
        assert (await memory.audit(user))[-1].app == everything["source"]["app"]
        await memory.delete(record.id, user_id=user)


async def test_a_text_of_the_longest_length_is_found_by_any_of_its_first_words(db: Database) -> None:
    words = vocabulary(16_600)
    content = " ".join(words)
    content += "." * (100_000 - len(content))
    async with db.client() as memory:
        record = await memory.add(content, user_id="ada")
        stored((await memory.add_many([{"content": content, "user_id": "bob"}]))[0])
        assert (await memory.get(record.id)).content == content
        for user in ("ada", "bob"):
            for place in (0, 59, 60, 61, 5_000, 15_999):
                (found,) = await memory.search(words[place], user)
                assert found.score == pytest.approx(1.0)
            assert len(await memory.search(" ".join(words[:5_000]), user)) == 1
        assert await memory.search("absentword", "ada") == []
        await memory.update(record.id, content="short now")
        assert await memory.search(words[5_000], "ada") == []
        assert len(await memory.search("short", "ada")) == 1
