"""A large user's index: what it finds is what the exact search finds, whatever was written since."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from conditions import OF_LARGE_USERS, take_out
from openproto_adapters.postgres import Postgres, large_index, large_search
from openproto_adapters.postgres import schema as tables
from openproto_adapters.postgres.large_search import Searching
from openproto_adapters.postgres.schema import migrations, schema_script
from postgres_tools import MakeClient, Server, execute, stored, value
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, NotFoundError, ProviderError
from openproto.provider import ReindexProgress
from openproto.requests import SearchQuery

USER = "o'brien {schema} <filters> \\ é"
WORDS = [f"{a}{b}" for a in ("ta", "mo", "ri", "lu", "ke", "sa") for b in ("lor", "nix", "pet", "gar", "vin", "dul")]
chance = random.Random(5)


def text(words: int = 4) -> str:
    return " ".join(min(chance.choices(WORDS, k=2), key=WORDS.index) for _ in range(words))


@pytest.fixture(params=["vectors", "words"])
def embedder(request: pytest.FixtureRequest) -> Any:
    return HashEmbedder(8, center_query=True) if request.param == "vectors" else "none"


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
    turns = [{"x-openproto": {"conversation": f"c{n // 20}", "turn": n % 20}} if n % 3 else {} for n in range(count)]
    # In an English text words stand without their variants, which such a text is found by all the same.
    items = [
        {
            "content": text() if n % 5 else f"what was the {text()}",
            "user_id": user,
            "scope": f"s/{n % 40}",
            "tags": [f"t{n % 2}"],
            **turns[n],
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
    """Searches both ways."""

    def __init__(self, provider: Postgres) -> None:
        self.provider, self.searching = provider, Searching(provider._fetch)

    async def __call__(self, query: str, user: str = USER, **wanted: Any) -> tuple[Any, Any]:
        asked = SearchQuery(query=query, user_id=user, **wanted)
        indexer = self.provider._index
        indexed = await indexer.index_query(query)
        found = await self.searching.by_index(asked, indexed, indexer)
        exact = await self.searching.exact(asked, indexed, indexer)
        return [(str(row[0]), round(row[-1], 6)) for row in found] if found is not None else None, [
            (str(row[0]), round(row[-1], 6)) for row in exact
        ]

    async def agree(self, **wanted: Any) -> None:
        for _ in range(12):
            found, exact = await self(text(3), **wanted)
            assert found is not None
            assert exact[:5] == found[:5]
            assert len({*found} & {*exact}) >= 9


async def test_the_index_finds_the_same_with_the_same_scores_whatever_is_written_after_it(
    owner: str, schema: str, embedder: Any
) -> None:
    options = {"url": owner, "schema": schema, "embedder": embedder}
    provider = Postgres(**options)
    async with AsyncMemory(provider) as memory:
        ids = await fill(memory, USER, "eve")
        recall, told = await index(options)
        assert recall is not None
        assert recall >= 0.9
        assert told[-1] == (len(ids) if provider._index.model else len(ids) // 2, told[-1].total)
        both = Both(provider)
        await both.agree()
        for n, id in enumerate(ids[:150]):
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
        assert await both("tea", "eve") == (None, (await both("tea", "eve"))[1])


async def test_filters_stay_right_and_what_leaves_too_few_candidates_is_searched_exactly(
    owner: str, schema: str, embedder: Any
) -> None:
    options = {"url": owner, "schema": schema, "embedder": embedder}
    provider = Postgres(**options)
    async with AsyncMemory(provider) as memory:
        await fill(memory, USER)
        await index(options)
        both = Both(provider)
        await both.agree(tags=["t1"])
        query = " ".join(WORDS[:3])
        found, exact = await both(query, scope="s/3", limit=20)
        assert found is None
        results = await memory.search(query, USER, scope="s/3", limit=20)
        assert [(r.memory.id, round(r.score, 6)) for r in results] == exact
        for least in (0.5, 1.0):
            found, exact = await both("talor monix", min_score=least)
            assert found == exact


async def test_doctor_proposes_it_until_it_is_made_and_a_dropped_one_leaves_nothing(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str
) -> None:
    provider = Postgres(**options)
    async with AsyncMemory(provider) as memory:
        await memory.add("little", user_id="eve")
        assert "large users" not in await provider.describe()
        await fill(memory, USER)
        await execute(dsn, f"ANALYZE {schema}.memories")
        about = (await provider.describe())["large users"]
        assert "400 memories, and each search reads all" in about
        assert "`openproto index --user 'o'\"'\"'brien" in about
        await index(options)
        assert "finds 100%" in (await provider.describe())["large users"]
        assert await index(options, drop=True) == (None, [])
        assert "each search reads all" in (await provider.describe())["large users"]
    assert await value(dsn, f"SELECT count(*) FROM {schema}.postings") == 0
    named = (
        f"SELECT count(*) FROM pg_class WHERE relname LIKE 'large\\_%' AND relkind = 'i' AND relnamespace = '{schema}'"
    )
    assert await value(dsn, f"{named}::regnamespace AND relname <> 'large_users_pkey'") == 0
    triggers = f"SELECT count(*) FROM pg_trigger WHERE tgrelid = '{schema}.memories'::regclass AND tgname LIKE 'large%'"
    assert await value(dsn, triggers) == 0
    with pytest.raises(NotFoundError, match="nothing to index"):
        await index(options, "nobody")


async def test_a_run_that_was_stopped_goes_on_and_writers_meanwhile_are_counted(
    options: dict[str, Any], dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options |= {"embedder": HashEmbedder(8)}
    provider = Postgres(**options)
    async with AsyncMemory(provider) as memory:
        ids = await fill(memory, USER)
        with monkeypatch.context() as patched:
            patched.setattr(
                large_index, "_NEAR", large_index._NEAR.replace("user_id =", "1 / (revision - 1) > 0 AND user_id =")
            )
            with pytest.raises(ProviderError):
                await index(options)
        assert await value(
            dsn, f"SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid = '{schema}.memories'::regclass"
        )
        writing = asyncio.create_task(fill(memory, USER, count=60))
        making = asyncio.create_task(index(options))
        for id in ids[:300]:
            if making.done():
                break
            await memory.delete(id)
        await writing
        await making
        await Both(provider).agree()
        total = f"SELECT sum(change * count) FROM {schema}.postings WHERE place = 0"
        assert await value(dsn, total) == await value(dsn, f"SELECT count(*) FROM {schema}.memories")
    async with AsyncMemory(Postgres(**options)) as memory:
        assert len(await memory.search(text(), USER)) == 10


async def test_a_condition_that_is_missing_shows_nobody_elses_memories(owner: str, schema: str) -> None:
    options = {"url": owner, "schema": schema, "embedder": HashEmbedder(8)}
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


def embedding(options: dict[str, Any], dim: int) -> dict[str, Any]:
    return {**options, "embedder": HashEmbedder(dim)}


async def test_re_embedding_renews_it(options: dict[str, Any], dsn: str, schema: str) -> None:
    provider = Postgres(**embedding(options, 8))
    async with AsyncMemory(provider) as memory:
        await fill(memory, USER)
    await index(embedding(options, 8))
    renewed = Postgres(**embedding(options, 12))
    try:
        await renewed.reindex(lambda _: None)
    finally:
        await renewed.close()
    provider = Postgres(**embedding(options, 12))
    async with AsyncMemory(provider):
        await Both(provider).agree()
    assert "halfvec(12)" in await value(
        dsn, f"SELECT indexdef FROM pg_indexes WHERE schemaname = '{schema}' AND indexdef LIKE '%hnsw%'"
    )


async def test_tables_of_the_version_before_get_it_with_the_grants_that_they_had(
    server: Server, dsn: str, owner: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = migrations()[:4]
    guest = f"g_{schema}"
    with monkeypatch.context() as patched:
        patched.setattr(tables, "migrations", lambda: before)
        await execute(owner, schema_script(schema, row_security=False))
    try:
        await execute(
            dsn,
            f"CREATE ROLE {guest} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {guest}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {guest}",
        )
        await execute(owner, schema_script(schema))
        async with AsyncMemory("postgres", url=server.dsn(user=guest), schema=schema, embedder="none") as memory:
            await fill(memory, USER)
            await index({"url": owner, "schema": schema, "embedder": "none"})
            await memory.add("brand new words", user_id=USER)
            assert (await memory.search("brand", USER))[0].memory.content == "brand new words"
    finally:
        await execute(dsn, f"DROP OWNED BY {guest}", f"DROP ROLE {guest}")
