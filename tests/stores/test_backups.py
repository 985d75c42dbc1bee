"""A whole store in a file and back: every field, every answer, of one moment, however often."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, ConflictError
from openproto.portable.backup import back_up
from openproto.portable.encryption import decrypted
from openproto.portable.restore import Restoration

FUTURE = datetime(2040, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


async def fill(memory: AsyncMemory) -> None:
    """Write everything that a store can hold, in every order that leaves other traces."""
    everything: dict[str, Any] = {
        "scope": "a/b",
        "tags": ["t", "ü"],
        "source": {"app": "notes", "type": "explicit", "ref": "r"},
        "confidence": 0.25,
        "valid_from": datetime(2020, 1, 1, tzinfo=UTC),
        "valid_to": FUTURE,
        "x_app": {"b": [1, 2.5, None, "\u2028"], "a": 10**30},
    }
    for user in ("ada", "bob"):
        one = await memory.add("note one \U0001f642\n", user_id=user, key="k", idempotency_key="once", **everything)
        two = await memory.add("note two", user_id=user)
        three = await memory.add("note three", user_id=user, supersedes=[one.id, two.id])
        four = await memory.add("note four", user_id=user, valid_from=FUTURE, supersedes=[two.id])
        five = await memory.add("note five", user_id=user)
        await memory.update(five.id, supersedes=[four.id], tags=["late"])
        await memory.delete(three.id)
        gone = await memory.add("note six", user_id=user, idempotency_key="gone")
        await memory.delete(gone.id)
        seven = await memory.put("note seven", user_id=user, key="seven")
        await memory.put("note eight", user_id=user, key="seven", supersedes=[five.id])
        released = await memory.add("note nine", user_id=user, supersedes=[seven.id])
        await memory.update(released.id, supersedes=None)
    await memory.add("note", user_id="eve", idempotency_key="gone")
    await memory.delete_all("eve")


async def saved(store: Any, *, vectors: bool = False, users: Sequence[str] = (), embedder: Any = "none") -> BytesIO:
    provider, file = store.provider(embedder), BytesIO()
    async with AsyncMemory(provider) as memory:
        await back_up(memory, provider, file, users=users, vectors=vectors, report=lambda done: None)
    return file


async def restored(
    store: Any, file: BytesIO, *, include_deleted: bool = False, embedder: Any = "none"
) -> dict[str, int]:
    """Restore a package and return the counts of outcomes."""
    provider = store.provider(embedder)
    async with AsyncMemory(provider) as memory:
        work = Restoration(
            memory, provider, users=(), include_deleted=include_deleted, app="test", refuse=lambda line, why: None
        )
        await work.run(file, str, lambda done, total: None)
        assert not work.not_kept
        return dict(work.outcomes)


async def held(store: Any) -> dict[str, Any]:
    """Return all that the store holds: records and handovers, keys, and audit entries, but for records' versions."""
    found: dict[str, Any] = {}
    provider = store.provider("none")
    async with AsyncMemory(provider), provider.snapshot(vectors=False) as snapshot:
        async for user in snapshot.users():
            parts = [part async for part in snapshot.parts(user)]
            found[user] = {
                "records": [each.model_dump(exclude={"record": {"version"}}) for p in parts for each in p.records],
                "keys": [key.model_dump() for part in parts for key in part.keys],
                "audit": [entry.model_dump() for part in parts for entry in part.audit],
            }
    return found


async def answers(store: Any) -> list[Any]:
    """Return what the verbs say at every moment at which anything may change."""
    async with store.client() as memory:
        found: list[Any] = []
        for user in (await memory.users()).items:
            records = [record async for record in memory.iter(user)]
            changes = {at for r in records for at in (r.created_at, r.updated_at, r.valid_from, FUTURE) if at}
            for moment in sorted({near for at in changes for near in (at - TICK, at, at + TICK)}):
                listed = [record.id for record in await memory.list(user, as_of=moment, limit=500)]
                hits = await memory.search("note one five", user, as_of=moment, limit=100)
                found.append([user, moment.isoformat(), listed, sorted(hit.memory.id for hit in hits)])
            found.append([(await memory.get(key=key, user_id=user)).id for key in ("k", "seven")])
            one = await memory.get(key="k", user_id=user)
            names = {"scope", "tags", "confidence", "valid_from", "valid_to", "key"}
            again = one.model_dump(include=names) | {"x_app": one.extensions["x-app"]}
            source = one.source.model_dump() if one.source else None
            repeated = await memory.add(one.content, user_id=user, idempotency_key="once", source=source, **again)
            assert repeated.id == one.id
            with pytest.raises(ConflictError):
                await memory.add("note six", user_id=user, idempotency_key="gone")
        return found


async def test_a_store_is_the_same_after_a_way_through_another_one(stores: list[Any], tmp_path: Path) -> None:
    first, second = stores
    third = type(first)(tmp_path / "third.db")
    async with first.client() as memory:
        await fill(memory)
    before = await held(first)
    for source, target in ((first, second), (second, third)):
        package = await saved(source)
        assert await restored(target, package) == {"restored": 12}
        after = await held(target)
        assert await restored(target, package) == {"exists": 12}
        assert await held(target) == after  # the second run writes nothing
        assert after.keys() == before.keys() == {"ada", "bob", "eve"}
        for user, kept in after.items():
            assert (kept["records"], kept["keys"]) == (before[user]["records"], before[user]["keys"])
            assert [entry for entry in before[user]["audit"] if entry not in kept["audit"]] == []
    assert await answers(first) == await answers(second) == await answers(third)


async def test_what_was_deleted_on_purpose_comes_back_only_when_asked_for(store: Any) -> None:
    async with store.client() as memory:
        await fill(memory)
    before, package = await held(store), await saved(store)
    chosen = random.Random(7).sample([each["record"] for user in before.values() for each in user["records"]], 9)
    async with store.client() as memory:
        for record in chosen:
            await memory.delete(record["id"])
    assert await restored(store, package) == {"exists": 3, "deleted": 9}
    assert await restored(store, package, include_deleted=True) == {"exists": 3, "restored": 9}
    after = await held(store)
    assert [user["records"] for user in after.values()] == [user["records"] for user in before.values()]
    async with store.client() as memory:
        one = chosen[0]
        entries = await memory.audit(one["user_id"], memory_id=one["id"])
        assert [(entry.action, entry.app) for entry in entries][:2] == [("add", "test"), ("delete", None)]
        await memory.delete(one["id"])
    assert await restored(store, package) == {"exists": 11, "deleted": 1}  # the last one of deeds counts
    only = gzip.decompress((await saved(store, users=["bob", "nobody"])).getvalue())
    assert b'"user_id":"ada"' not in only
    assert b'{"user":"nobody"}\n{"user_end":{"records":0,"keys":0,"audit":0}}\n' in only


async def test_a_package_is_of_one_moment_whatever_is_written_meanwhile(store: Any) -> None:
    async with store.client() as memory:
        for n in range(60):
            await memory.add("filler", user_id=f"m{n}")
        wrote = 0

        async def write() -> None:
            nonlocal wrote
            last: list[str] = []
            for wrote in range(10_000):
                last = [(await memory.add(f"n{wrote}", user_id="a", supersedes=last)).id]
                await memory.add(f"n{wrote}", user_id="z")

        writer = asyncio.create_task(write())
        while wrote < 3:
            await asyncio.sleep(0)
        package = await saved(store)
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await writer
    assert wrote > 5
    async with store.client() as memory:
        for user in (await memory.users(limit=500)).items:
            await memory.delete_all(user)
    await restored(store, package, include_deleted=True)
    kept = await held(store)
    written = {user: [r["record"]["content"] for r in kept[user]["records"]] for user in "az"}
    assert len(written["a"]) - len(written["z"]) in (0, 1)
    assert ["superseded_by" not in each["record"] for each in kept["a"]["records"]].count(True) == 1


async def test_vectors_are_taken_along_where_the_model_is_the_same(stores: list[Any]) -> None:
    first, second = stores
    async with first.client(HashEmbedder()) as memory:
        for text in ("tea", "coffee", "rain"):
            await memory.add(text, user_id="ada")
        wanted = [(hit.memory.id, round(hit.score, 3)) for hit in await memory.search("tea", "ada")]
    package = await saved(first, vectors=True, embedder=HashEmbedder())
    for store, embedder in ((second, HashEmbedder()), (first, HashEmbedder())):
        assert await restored(store, package, embedder=embedder) == {"restored" if store is second else "exists": 3}
        assert embedder.texts == []
        async with store.client(HashEmbedder()) as memory:
            assert [(hit.memory.id, round(hit.score, 3)) for hit in await memory.search("tea", "ada")] == wanted


async def test_a_package_of_2026_restores_for_ever(store: Any) -> None:
    kept = Path(__file__).parents[1] / "portable/package-2026"
    package = BytesIO(kept.with_suffix(".openproto").read_bytes())
    assert await restored(store, package) == {"restored": 12}
    assert await answers(store) == json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    encrypted = decrypted(BytesIO(kept.with_suffix(".age").read_bytes()), lambda: "2026")
    assert encrypted.read(2**20) == package.getvalue()
