"""The writes of the sqlite provider, where the file can be looked at: full disks, words, refused items."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlite_tools import check_consistent, memory, rows

from openproto import AsyncMemory, MemoryRecord, ProviderUnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


async def fill_the_disk(client: AsyncMemory, *, spare: int = 0) -> None:
    """Let the file grow by `spare` pages and no more: SQLite then fails exactly as on a full disk."""
    database = client._session.provider._database  # type: ignore[attr-defined]

    def limit(db: Any) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + spare}")

    await database.write(limit)


async def free_the_disk(client: AsyncMemory) -> None:
    database = client._session.provider._database  # type: ignore[attr-defined]
    await database.write(lambda db: db.execute("PRAGMA max_page_count = 1000000"))


@pytest.mark.parametrize("spare", [0, 1, 2, 5, 10, 20])
async def test_a_full_disk_is_a_typed_error_with_nothing_half_written(path: Path, spare: int) -> None:
    async with memory(path, audit_reads=False) as client:
        old = await client.add("old", user_id="ada")
        await fill_the_disk(client, spare=spare)
        stored = 0

        async def add_until_full() -> None:
            nonlocal stored
            for n in range(50):
                await client.add(f"{n} " + "many words " * 2_000, user_id="ada", supersedes=[old.id])
                stored += 1

        with pytest.raises(ProviderUnavailableError, match="full"):
            await add_until_full()
        assert check_consistent(path) == stored + 1
        await free_the_disk(client)
        await client.add("new", user_id="ada")
    assert check_consistent(path) == stored + 2


async def test_on_a_full_disk_a_batch_is_stored_whole_or_not_at_all(path: Path) -> None:
    async with memory(path, audit_reads=False) as client:
        await client.add("old", user_id="ada")
        await fill_the_disk(client, spare=10)
        found = await client.add_many({"content": f"{n} " + "y" * 20_000, "user_id": "ada"} for n in range(20))
        assert [type(outcome) for outcome in found] == [ProviderUnavailableError] * 20
        assert check_consistent(path) == 1
        await free_the_disk(client)
        again = await client.add_many({"content": str(n), "user_id": "ada"} for n in range(20))
    assert all(isinstance(outcome, MemoryRecord) for outcome in again)


async def test_an_update_on_a_full_disk_leaves_the_memory_as_it_was_and_readable(path: Path) -> None:
    async with memory(path, audit_reads=False) as client:
        added = await client.add("green tea", user_id="ada")
        await fill_the_disk(client)
        with pytest.raises(ProviderUnavailableError):
            await client.update(added.id, content="z" * 100_000)
        assert await client.get(added.id) == added
        assert len(await client.search("tea", "ada")) == 1
    check_consistent(path)


async def test_a_full_disk_is_retried_with_the_same_key(path: Path) -> None:
    async with memory(path, client={"retries": 3}, audit_reads=False) as client:
        await client.add("old", user_id="ada")
        await fill_the_disk(client)
        adding = asyncio.create_task(client.add("x" * 50_000, user_id="ada"))
        await asyncio.sleep(0.02)
        await free_the_disk(client)
        await adding
    assert check_consistent(path) == 2


async def test_deleting_leaves_no_words_behind_and_the_words_of_two_users_are_distinct(path: Path) -> None:
    async with memory(path) as client:
        for user in ("ada", "bob"):
            added = await client.add("green tea", user_id=user)
        (ada,), (bob,) = rows(path, "SELECT terms FROM words")
        assert not set(ada.split()) & set(bob.split())
        await client.delete(added.id)
        await client.delete_all("ada")
    assert rows(path, "SELECT rowid FROM words") == rows(path, "SELECT * FROM memories") == []
