"""The audit log, where a store's options say what is recorded."""

from __future__ import annotations

from typing import Any

from openproto import AsyncMemory


async def test_reads_can_be_left_out(store: Any) -> None:
    async with store.client(audit_reads=False) as memory:
        added = await memory.add("tea", user_id="ada")
        await memory.get(added.id)
        await memory.list("ada")
        await memory.search("tea", "ada")
        assert [entry.action for entry in await memory.audit("ada")] == ["add"]
    assert await store.rows("SELECT action FROM audit") == [("add",)]


async def test_a_context_is_one_entry(memory: AsyncMemory) -> None:
    await memory.add("note one", user_id="ada")
    assert (await memory.context("nothing of it", "ada")).text.startswith("note one")
    assert [entry.action for entry in await memory.audit("ada")] == ["context", "add"]
