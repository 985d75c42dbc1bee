"""Keys, versions, and puts, which vendors have not and the base emulates in their metadata."""

from __future__ import annotations

from typing import Any

import pytest
from hosted import Hosted

from openproto import AsyncMemory, ConflictError, UnsupportedCapabilityError


async def test_a_put_creates_and_then_replaces_and_a_stale_version_changes_nothing(memory: AsyncMemory) -> None:
    old = await memory.add("home", user_id="ann")
    first = await memory.put("tea", user_id="ann", key="drink", tags=["a"], confidence=0.5, if_version="absent")
    second = await memory.put("coffee", user_id="ann", key="drink", tags=["b", "c"], supersedes=[old.id])
    assert (second.id, second.created_at, second.key) == (first.id, first.created_at, "drink")
    assert (second.content, second.tags, second.confidence) == ("coffee", ["b", "c"], None)
    assert (await memory.get(old.id)).superseded_by == second.id
    got = await memory.get(key="drink", user_id="ann")
    assert (got.id, got.version) == (second.id, second.version)
    assert second.version not in (first.version, None)
    for call in (
        memory.put("water", user_id="ann", key="drink", if_version="absent"),
        memory.put("water", user_id="ann", key="drink", if_version=first.version),
        memory.update(first.id, content="water", if_version=first.version),
        memory.delete(first.id, if_version=first.version),
        memory.add("water", user_id="ann", key="drink"),
    ):
        with pytest.raises(ConflictError):
            await call
    assert (await memory.get(first.id)).content == "coffee"
    assert [one.id for one in (await memory.list("ann", tag=["c", "b"])).items] == [first.id]
    assert (await memory.list("ann", tag=["a", "b"])).items == []
    changed = await memory.update(first.id, if_version=second.version, source={"app": "notes"}, x_note=[1])
    assert changed.source is not None
    assert (changed.source.app, changed.extensions) == ("notes", {"x-note": [1]})
    await memory.delete(first.id, if_version=changed.version)
    assert (await memory.add("water", user_id="ann", key="drink")).id != first.id


async def test_what_a_vendor_cannot_keep_is_refused_by_name(hosted: Hosted, memory: AsyncMemory) -> None:
    support: dict[str, Any] = (await memory.capabilities()).x_openproto.support
    assert [support[name] for name in ("key", "version", "put", "scopes")] == ["emulated"] * 4
    assert (support["users"], support["restore"]) == ("none", "none")
    record = await memory.add("tea", user_id="ann", scope="kitchen/drinks", idempotency_key="once")
    assert [(one.scope, one.records) for one in await memory.scopes("ann", depth=1)] == [("kitchen", 1)]
    for call in (memory.users(), memory.restore([record])):
        with pytest.raises(UnsupportedCapabilityError, match=r"users|restore"):
            await call
    await memory.delete(record.id)
    if support["keys_outlive"] == "none":
        assert (await memory.add("tea", user_id="ann", idempotency_key="once")).id != record.id
    else:
        with pytest.raises(ConflictError):
            await memory.add("tea", user_id="ann", scope="kitchen/drinks", idempotency_key="once")
