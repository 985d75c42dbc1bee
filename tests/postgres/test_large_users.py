"""A large user's index: what it finds is what the exact search finds, whatever was written since."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from conditions import OF_LARGE_USERS, take_out
from openproto_adapters.postgres import Postgres, large_index, large_search
from openproto_adapters.postgres.large_search import Searching
from postgres_tools import Database, stored
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, NotFoundError, ProviderError
from openproto.provider import ReindexProgress
from openproto.requests import SearchQuery

USER = "o'brien {schema} <filters> \\ é"
WORDS = [f"{a}{b}" for a in ("ta", "mo", "ri", "lu", "ke", "sa") for b in ("lor", "nix", "pet", "gar", "vin", "dul")]
chance = random.Random(5)


def text(words: int = 4) -> str:
    return " ".join(min(chance.choices(WORDS, k=2), key=WORDS.index) for _ in range(words))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few hundred memories be many."""
    monkeypatch.setattr(large_index, "LARGE", 200)
    monkeypatch.setattr(large_search, "LOOK_EVERY", -1)
    monkeypatch.setattr(large_index, "_POST", large_index._POST.replace(f"LIMIT {large_index.BATCH}", "LIMIT 20"))
    near, worded = large_search.NEAREST, large_search.WORDED
    fewer = {f"'{near}'": "'100'", f"= {near}": "= 100", f"LIMIT {near}": "LIMIT 100"}
    fewer |= {f"{what} {worded}": f"{what} 200" for what in ("<", "LIMIT")}
    for name in ("_SEARCH", "_NEAR", "_ENOUGH"):
        for more, less in fewer.items():
            monkeypatch.setattr(large_search, name, getattr(large_search, name).replace(more, less))
    large_search.by_index.cache_clear()


async def fill(memory: AsyncMemory, *users: str, count: int = 400) -> list[str]:
    items: list[dict[str, Any]] = [
        {
            # In an English text words stand without their variants, which such a text is found by all the same.
            "content": text() if n % 5 else f"what was the {text()}",
            "user_id": user,
            "scope": f"s/{n % 40}",
            "tags": [f"t{n % 2}"],
            "x-openproto": {"conversation": f"c{n // 20}", "turn": n % 20} if n % 3 else {},
        }
        for user in users
        for n in range(count)
    ]
    items[7]["content"] = " ".join(f"long{n} {word}" for n, word in enumerate(WORDS * 2))
    return [stored(outcome).id for outcome in await memory.add_many(items)]


async def index(options: dict[str, Any], user: str = USER, *, drop: bool = False) -> tuple[float | None, list[Any]]:
    provider, told = Postgres(**options), list[ReindexProgress]()
    try:
        return await provider.index_user(user, told.append, drop=drop), told
    finally:
        await provider.close()


class Both:
    def __init__(self, provider: Postgres) -> None:
        self.provider, self.searching = provider, Searching(provider._fetch)

    async def __call__(self, query: str, user: str = USER, **wanted: Any) -> tuple[Any, Any]:
        asked = SearchQuery(query=query, user_id=user, **wanted)
        indexer = self.provider._index
        indexed = await indexer.index_query(query)
        answers = [await way(asked, indexed, indexer) for way in (self.searching.by_index, self.searching.exact)]
        found, exact = [rows and [(str(row[0]), round(row[-1], 6)) for row in rows] for rows in answers]
        return found, exact

    async def agree(self, **wanted: Any) -> None:
        for _ in range(8):
            found, exact = await self(text(3), **wanted)
            assert found is not None
            assert exact[:5] == found[:5]
            assert len({*found} & {*exact}) >= 9


@pytest.mark.parametrize("embedder", [HashEmbedder(8, center_query=True), "none"], ids=["vectors", "words"])
async def test_the_index_finds_the_same_whatever_is_written_after_it(db: Database, owner: str, embedder: Any) -> None:
    options = db.options(url=owner, embedder=embedder)
    provider = Postgres(**options)
    async with AsyncMemory(provider) as memory:
        ids = await fill(memory, USER, "eve")
        recall, told = await index(options)
        assert (recall or 0) >= 0.9
        assert told[-1] == (len(ids) if provider._index.model else len(ids) // 2, told[-1].total)
        both = Both(provider)
        await both.agree()
        await both.agree(tags=["t1"])
        found, exact = await both(" ".join(WORDS[:8]), scope="s/3", limit=20)
        assert found is None  # which leaves too few candidates, so that the search is an exact one
        results = await memory.search(" ".join(WORDS[:8]), USER, scope="s/3", limit=20)
        assert [(r.memory.id, round(r.score, 6)) for r in results] == exact
        for least in (0.5, 1.0):
            found, exact = await both("talor monix", min_score=least)
            assert found == exact
        for n, id in enumerate(ids[:90]):
            if n % 3 == 0:
                await memory.delete(id)
            elif n % 3 == 1:
                await memory.update(id, content=text())
        await memory.add_many([{"content": text(), "user_id": USER, "supersedes": ids[160:170]}])
        await memory.add("brand new words", user_id=USER)
        await both.agree()
        found, exact = await both("brand new words")
        assert found == exact
        await index(options)  # gathers what was posted since
        await both.agree()
        assert (await both("tea", "eve"))[0] is None


async def test_doctor_proposes_it_until_it_is_made_and_a_dropped_one_leaves_nothing(db: Database) -> None:
    provider = Postgres(**db.options())

    async def said() -> str:
        return (await provider.describe()).get("large users", "")

    async with AsyncMemory(provider) as memory:
        await memory.add("little", user_id="eve")
        assert await said() == ""
        await fill(memory, USER)
        await db.execute(f"ANALYZE {db.schema}.memories")
        assert "400 memories, and each search reads all" in await said()
        assert "`openproto index --user 'o'\"'\"'brien" in await said()
        await index(db.options())
        assert "finds 100%" in await said()
        assert await index(db.options(), drop=True) == (None, [])
        assert "each search reads all" in await said()
    relations = (
        f"pg_class WHERE relname LIKE 'large\\_%' AND relkind = 'i' AND relnamespace = '{db.schema}'::regnamespace"
    )
    for left in (
        f"{db.schema}.postings",
        f"{relations} AND relname <> 'large_users_pkey'",
        f"pg_trigger WHERE tgrelid = '{db.schema}.memories'::regclass AND tgname LIKE 'large%'",
    ):
        assert await db.value(f"SELECT count(*) FROM {left}") == 0
    with pytest.raises(NotFoundError, match="nothing to index"):
        await index(db.options(), "nobody")


async def test_a_stopped_run_goes_on_and_writers_are_counted(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    options = db.options(embedder=HashEmbedder(8))
    provider = Postgres(**options)
    async with AsyncMemory(provider) as memory:
        ids = await fill(memory, USER)
        with monkeypatch.context() as patched:
            patched.setattr(
                large_index, "_NEAR", large_index._NEAR.replace("user_id =", "1 / (revision - 1) > 0 AND user_id =")
            )
            with pytest.raises(ProviderError):
                await index(options)
        broken = f"SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid = '{db.schema}.memories'::regclass"
        assert await db.value(broken) > 0
        writing = asyncio.create_task(fill(memory, USER, count=60))
        making = asyncio.create_task(index(options))
        for id in ids[:300]:
            if making.done():
                break
            await memory.delete(id)
        await writing
        await making
        await Both(provider).agree()
        total = f"SELECT sum(change * count) FROM {db.schema}.postings WHERE place = 0"
        assert await db.value(total) == await db.value(f"SELECT count(*) FROM {db.schema}.memories")
    async with AsyncMemory(Postgres(**options)) as memory:
        assert len(await memory.search(text(), USER)) == 10


async def test_a_condition_that_is_missing_shows_nobody_elses_memories(db: Database, owner: str) -> None:
    options = db.options(url=owner, embedder=HashEmbedder(8))
    provider = Postgres(**options)
    async with AsyncMemory(provider) as memory:
        theirs = {*(await fill(memory, "eve"))}
        await fill(memory, USER)
        for user in ("eve", USER):
            await index(options, user)
        for condition in OF_LARGE_USERS:
            with pytest.MonkeyPatch.context() as patched:
                take_out(patched, *condition[1:])
                large_search.by_index.cache_clear()
                found, _ = await Both(provider)(text())
            assert found, condition
            assert not theirs & {id for id, _ in found}, condition


async def test_re_embedding_renews_it(db: Database) -> None:
    old, new = (db.options(embedder=HashEmbedder(dim)) for dim in (8, 12))
    async with AsyncMemory(Postgres(**old)) as memory:
        await fill(memory, USER)
    await index(old)
    renewed = Postgres(**new)
    try:
        await renewed.reindex(lambda _: None)
    finally:
        await renewed.close()
    provider = Postgres(**new)
    async with AsyncMemory(provider):
        await Both(provider).agree()
    made = f"SELECT indexdef FROM pg_indexes WHERE schemaname = '{db.schema}' AND indexdef LIKE '%hnsw%'"
    assert "halfvec(12)" in await db.value(made)
