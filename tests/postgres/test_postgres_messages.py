"""Databases that are set up otherwise than usual: the error says what stands in the way and how it is mended."""

from __future__ import annotations

import pytest
from postgres_tools import MakeClient, Server, execute, whole_chain

from openproto import AsyncMemory, InvalidRequestError, ProviderError

TEA = "tea \N{TEACUP WITHOUT HANDLE}"


@pytest.fixture
async def latin(server: Server, dsn: str, database: str) -> str:
    """A database whose encoding has neither emoji nor Greek."""
    await execute(dsn, f"DROP DATABASE {database}")
    await execute(dsn, f"CREATE DATABASE {database} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    return server.dsn(database)


async def test_a_character_that_the_encoding_of_the_database_lacks(make: MakeClient, latin: str) -> None:
    async with make(url=latin) as memory:
        record = await memory.add("thé", user_id="ada")
        for call in (
            memory.add(TEA, user_id="ada"),
            memory.update(record.id, content=TEA),
            memory.add("tea", user_id="ada", tags=[TEA]),
        ):
            with pytest.raises(InvalidRequestError, match="encoding UTF8") as caught:
                await call
            assert TEA not in whole_chain(caught.value)
        (outcome,) = await memory.add_many([{"content": TEA, "user_id": "ada"}])
        assert isinstance(outcome, InvalidRequestError)
        assert [item.content for item in (await memory.list("ada")).items] == ["thé"]


async def test_an_empty_search_path(server: Server, dsn: str, database: str) -> None:
    await execute(dsn, f"ALTER DATABASE {database} SET search_path = ''")
    with pytest.raises(ProviderError, match="search_path"):
        async with AsyncMemory("postgres", url=server.dsn(database), embedder="none"):
            pass
