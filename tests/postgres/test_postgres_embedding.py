"""A store and its model: adopted once, remembered, and never mixed with another's vectors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from postgres_tools import HashEmbedder, MakeClient, Server, execute, sql, stored, value

from openproto import MemoryRecord, OpenProtoError, ProviderError


async def test_a_store_remembers_its_model_and_dimension(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(embedder=HashEmbedder(16, "first")) as memory:
        record = await memory.add("likes tea", user_id="ada")
        assert record.embedding_model == "first"
        assert (await memory.capabilities()).features.vector_search is True
    assert tuple((await sql(dsn, f"SELECT model, dim FROM {schema}.store"))[0]) == ("first", 16)
    async with make(embedder=HashEmbedder(16, "first")) as memory:
        assert (await memory.get(record.id)).embedding_model == "first"


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (HashEmbedder(16, "second"), ("'first'", "16", "'second'")),
        (HashEmbedder(8, "first"), ("'first'", "16", "8 dimensions")),
        ("none", ("'first'", "16", "text alone")),
    ],
    ids=["model", "dimension", "none"],
)
async def test_opening_with_another_model_names_both_and_how_to_re_embed(
    make: MakeClient, other: Any, names: tuple[str, ...]
) -> None:
    async with make(embedder=HashEmbedder(16, "first")) as memory:
        await memory.add("likes tea", user_id="ada")
    with pytest.raises(ProviderError, match="openproto reindex") as caught:
        async with make(embedder=other):
            pass
    assert all(name in caught.value.message for name in names)
    assert "tea" not in caught.value.message


async def test_an_empty_store_of_one_model_is_not_opened_with_another(make: MakeClient) -> None:
    async with make(embedder=HashEmbedder(16, "first")):
        pass
    with pytest.raises(ProviderError, match="openproto reindex"):
        async with make(embedder=HashEmbedder(16, "second")):
            pass


async def test_a_store_without_memories_adopts_the_first_model_it_meets(make: MakeClient) -> None:
    async with make(embedder="none") as memory:
        gone = await memory.add("gone", user_id="ada")
        await memory.delete(gone.id)
    async with make(embedder=HashEmbedder()) as memory:
        await memory.add("drinks black tea", user_id="ada")
        assert (await memory.search("tea", "ada"))[0].memory.embedding_model == "hash-16"


async def test_of_clients_with_different_models_at_once_one_wins(make: MakeClient) -> None:
    async def open_and_add(n: int) -> str:
        try:
            async with make(embedder=HashEmbedder(16, f"model {n}")) as memory:
                await memory.add("hello", user_id="ada")
                return "added"
        except ProviderError as error:
            return error.message

    async with make(embedder="none"):
        pass  # makes the tables, so that the race is for the model alone
    outcomes = await asyncio.gather(*(open_and_add(n) for n in range(6)))
    assert outcomes.count("added") == 1
    assert all("openproto reindex" in outcome for outcome in outcomes if outcome != "added")


async def test_auto_leaves_a_store_of_texts_as_it_is(make: MakeClient) -> None:
    async with make(embedder="none") as memory:
        await memory.add("drinks black tea", user_id="ada")
    async with make(embedder="auto") as memory:
        assert (await memory.capabilities()).features.vector_search is False
        await memory.add("drinks green tea", user_id="ada")
        found = await memory.search("tea", "ada")
        assert {result.memory.embedding_model for result in found} == {None}
        assert len(found) == 2


async def test_by_text_alone_only_what_shares_a_word_is_found(make: MakeClient) -> None:
    async with make(embedder="none") as memory:
        tea = await memory.add("drinks black tea", user_id="ada")
        await memory.add("walks the dog", user_id="ada")
        (only,) = await memory.search("which tea?", "ada")
        assert only.memory.id == tea.id
        assert only.score == pytest.approx(1.0)
        assert await memory.search("bicycle", "ada") == []
        assert await memory.search("?!", "ada") == []


async def switched(dsn: str, schema: str, model: str, dim: int) -> None:
    """What a finished re-embedding by another process leaves behind."""
    vector = "[" + ",".join(["0"] * (dim - 1) + ["1"]) + "]"
    await execute(
        dsn,
        f"UPDATE {schema}.memories SET embedding = '{vector}'::halfvec; "
        f"UPDATE {schema}.store SET model = '{model}', dim = {dim}",
    )


@pytest.mark.parametrize("dim", [16, 8], ids=["same dimension", "other dimension"])
async def test_a_client_of_the_model_before_a_switch_is_refused_and_writes_nothing(
    make: MakeClient, dsn: str, schema: str, dim: int
) -> None:
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        record = await memory.add("likes tea", user_id="ada")
        await switched(dsn, schema, "new", dim)

        def check(error: BaseException) -> None:
            assert isinstance(error, ProviderError)
            for part in ("'old'", "'new'", f"{dim} dimensions", "openproto reindex"):
                assert part in str(error), str(error)

        for call in (
            lambda: memory.add("likes coffee", user_id="ada"),
            lambda: memory.update(record.id, content="likes coffee"),
            lambda: memory.search("tea", "ada"),
            lambda: memory.context("tea", "ada"),
        ):
            with pytest.raises(OpenProtoError) as caught:
                await call()
            check(caught.value)
        (outcome,) = await memory.add_many([{"content": "likes coffee", "user_id": "ada"}])
        assert isinstance(outcome, OpenProtoError)
        check(outcome)
        assert [kept.content async for kept in memory.iter("ada")] == ["likes tea"]
    async with make(embedder=HashEmbedder(dim, "new")) as memory:
        assert isinstance(await memory.add("likes coffee", user_id="ada"), MemoryRecord)


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


async def test_opening_a_store_of_long_vectors_again_rebuilds_nothing(make: MakeClient, dsn: str, schema: str) -> None:
    indexes = f"SELECT indexrelid::int FROM pg_index WHERE indrelid = '{schema}.memories'::regclass ORDER BY 1"
    async with make(embedder=HashEmbedder(1024)) as memory:
        await memory.add("tea", user_id="ada")
    before = await sql(dsn, indexes)
    async with make(embedder=HashEmbedder(1024)) as memory:
        await memory.add("tea", user_id="ada")
    assert await sql(dsn, indexes) == before


async def test_processes_that_open_an_empty_store_of_long_vectors_at_once_all_work(make: MakeClient) -> None:
    async def work(n: int) -> None:
        async with make(embedder=HashEmbedder(1024)) as memory:
            await memory.add(f"fact {n}", user_id="ada")

    await asyncio.gather(*(work(n) for n in range(6)))


async def test_a_role_without_the_right_to_create_may_use_a_store_of_long_vectors(
    server: Server, make: MakeClient, dsn: str, schema: str
) -> None:
    async with make(embedder=HashEmbedder(1024)) as memory:
        await memory.add("tea", user_id="ada")
    role = f"r_{schema}"
    await execute(
        dsn,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
    )
    try:
        async with make(url=server.dsn(user=role), embedder=HashEmbedder(1024)) as memory:
            await memory.add("coffee", user_id="ada")
            assert len(await memory.search("tea", "ada")) == 2
    finally:
        await execute(dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_no_index_over_the_vectors_of_all_users_exists(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(embedder=HashEmbedder()):
        pass
    methods = (
        "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam "
        f"WHERE indrelid = '{schema}.memories'::regclass AND amname <> 'btree'"
    )
    assert await value(dsn, methods) == 0
