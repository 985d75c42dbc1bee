"""The audit log of the sqlite provider: writes with their change, reads soon after, never content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlite_tools import memory, rows

from openproto import NotFoundError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


def actions(path: Path) -> list[str]:
    return [action for (action,) in rows(path, "SELECT action FROM audit ORDER BY number")]


async def test_a_write_is_recorded_in_the_transaction_of_its_change(path: Path) -> None:
    async with memory(path) as client:
        added = await client.add("tea", user_id="ada")
        assert actions(path) == ["add"]
        await client.update(added.id, scope="a")
        assert actions(path) == ["add", "update"]
        await client.delete(added.id)
        assert actions(path) == ["add", "update", "delete"]


async def test_audit_writes_the_reads_before_it_answers(path: Path) -> None:
    async with memory(path) as client:
        added = await client.add("tea", user_id="ada")
        await client.get(added.id)
        await client.search("tea", "ada")
        found = await client.audit("ada")
    assert [entry.action for entry in found] == ["search", "get", "add"]


async def test_reads_can_be_left_out(path: Path) -> None:
    async with memory(path, audit_reads=False) as client:
        added = await client.add("tea", user_id="ada")
        await client.get(added.id)
        await client.list("ada")
        await client.search("tea", "ada")
        assert [entry.action for entry in await client.audit("ada")] == ["add"]
    assert actions(path) == ["add"]


async def test_a_read_that_found_nothing_of_the_users_is_not_recorded_under_another(path: Path) -> None:
    async with memory(path) as client:
        theirs = await client.add("tea", user_id="bob")
        with pytest.raises(NotFoundError):
            await client.get(theirs.id, user_id="ada")
        assert [entry.action for entry in await client.audit("bob")] == ["add"]
        assert await client.audit("ada") == []


async def test_deleting_many_is_recorded_memory_by_memory(path: Path) -> None:
    async with memory(path) as client:
        ids = {(await client.add(str(n), user_id="ada", scope="a")).id for n in range(3)}
        await client.add("kept", user_id="ada")
        assert await client.delete_all("ada", scope="a") == 3
        deleted = [entry for entry in await client.audit("ada") if entry.action == "delete"]
    assert {entry.memory_id for entry in deleted} == ids


async def test_an_entry_names_the_app_the_memory_the_scope_and_the_request(path: Path) -> None:
    async with memory(path, client={"app": "notes"}) as client:
        added = await client.add("tea", user_id="ada", scope="a/b")
        (entry,) = await client.audit("ada")
    assert (entry.app, entry.memory_id, entry.scope, entry.user_id) == ("notes", added.id, "a/b", "ada")
    assert entry.request_id


async def test_a_memory_that_names_its_own_app_is_recorded_under_it(path: Path) -> None:
    async with memory(path, client={"app": "notes"}) as client:
        await client.add("tea", user_id="ada", source={"app": "mail"})
        await client.add("tea", user_id="ada")
        assert [entry.app for entry in await client.audit("ada")] == ["notes", "mail"]
        assert len(await client.audit("ada", app="mail")) == 1


async def test_looking_into_the_log_is_recorded_itself(path: Path) -> None:
    async with memory(path) as client:
        await client.add("tea", user_id="ada")
        await client.audit("ada")
        assert [entry.action for entry in await client.audit("ada")] == ["audit", "add"]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_since_is_inclusive(path: Path, number: int) -> None:
    async with memory(path, audit_reads=False) as client:
        for n in range(3):
            await client.add(str(n), user_id="ada")
        newest_first = await client.audit("ada")
        found: Any = await client.audit("ada", since=newest_first[number].timestamp)
    assert found == newest_first[: number + 1]
