"""A whole store in a file and back, moved to another, or kept from an earlier version: all it held, of one moment."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import lasting
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.sqlite import Sqlite
from toy_embedders import HashEmbedder
from waiting import cancelled

from openproto import AsyncMemory, ConflictError, MemoryRecord, Provider
from openproto.portable.backup import back_up
from openproto.portable.bringing import Result
from openproto.portable.encryption import decrypted
from openproto.portable.journal import open_journal
from openproto.portable.matching import Matching
from openproto.portable.migrate import Migration, undo
from openproto.portable.restore import Restoration
from openproto.portable.surveying import HISTORY, survey, users_of
from openproto.server import ServerSettings, create_app, running

FUTURE = datetime(2040, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


async def fill(memory: AsyncMemory) -> None:
    """Write everything that a store can hold, in every order that leaves other traces."""
    everything: dict[str, Any] = {
        "scope": "a/b",
        "tags": ["t", "ü"],
        "source": {"app": "notes", "type": "explicit", "ref": "r"},
        "confidence": 0.0,
        "valid_from": datetime(2020, 1, 1, tzinfo=UTC),
        "valid_to": FUTURE,
        "x_app": {"b": [1, 2.5, None, "\u2028"], "a": 10**30},
    }
    for user in ("ada", "bob"):
        one = await memory.add("note one \U0001f642\n", user_id=user, key="k", idempotency_key="once", **everything)
        two = await memory.add("note two", user_id=user)
        await asyncio.sleep(0.002)  # of a successor that is gone, its id says when it was made, to the millisecond
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
    assert [user["records"] for user in (await held(store)).values()] == [user["records"] for user in before.values()]
    async with store.client() as memory:
        one = chosen[0]
        entries = await memory.audit(one["user_id"], memory_id=one["id"])
        assert [(entry.action, entry.app) for entry in entries][:2] == [("add", "test"), ("delete", None)]
        await memory.delete(one["id"])
    assert await restored(store, package) == {"exists": 11, "deleted": 1}  # the last one of deeds counts
    only = gzip.decompress((await saved(store, users=["bob", "nobody"])).getvalue())
    assert b'"user_id":"ada"' not in only
    assert b'{"user":"nobody"}\n{"user_end":{"records":0,"keys":0,"audit":0}}\n' in only


@pytest.mark.parametrize("next_one", ["ada", "bob"])
async def test_an_id_that_one_record_cannot_have_the_next_one_may(store: Any, next_one: str) -> None:
    async with store.client() as memory:
        await memory.put("tea", user_id="ada", key="k")
        record = await memory.add("coffee", user_id=next_one)
        await memory.delete(record.id)
        others = {"user_id": "ada", "key": "k"}, {"supersedes": [record.id]}
        outcomes = await memory.restore([*[record.model_copy(update=other) for other in others], record])
        assert [outcome.outcome for outcome in outcomes] == ["refused", "refused", "restored"]
        assert [str(outcome.error).partition(":")[0] for outcome in outcomes[:2]] == ["key", "supersedes"]
        there = await memory.get(record.id)
        assert (there.user_id, there.version == record.version) == (next_one, False)


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
        assert await cancelled(writer)
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
    assert decrypted(BytesIO(kept.with_suffix(".age").read_bytes()), lambda: "2026").read(2**20) == package.getvalue()


USERS = ("ada", "bob")
PAST, FAR = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
async def here(stores: list[Any]) -> AsyncIterator[AsyncMemory]:
    async with stores[0].client() as client:
        yield client


@pytest.fixture
async def there(stores: list[Any]) -> AsyncIterator[AsyncMemory]:
    async with stores[1].client() as client:
        yield client


def quiet(done: int, total: int | None) -> None:
    pass


async def moved(source: AsyncMemory, target: AsyncMemory, report: Path) -> Result:
    plan = await survey(source, target, await users_of(source), quiet)
    assert not plan.cannot_keep
    file, journal = open_journal(report, {})
    with file:
        return await Migration(source, target, plan, journal, Matching("here")).run(quiet)


async def shown(memory: AsyncMemory) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for user in await users_of(memory):
        records = [record async for record in memory.iter(user)]
        moments = [PAST, *(record.created_at for record in records[-9:]), datetime.now(UTC), FAR]
        found[user] = (
            [record.model_dump(exclude={"version"}) for record in records],
            [[record.id async for record in memory.iter(user, as_of=moment)] for moment in moments],
        )
    return found


async def test_what_went_there_and_back_is_what_it_was(here: AsyncMemory, there: AsyncMemory, tmp_path: Path) -> None:
    async with AsyncMemory("sqlite", path=tmp_path / "last.db", embedder="none") as back:
        await fill(here)
        before = await shown(here)
        first = await moved(here, there, tmp_path / "there")
        assert (first.brought, first.equal, dict(first.faults), first.ids) == (12, 12, {}, {})
        assert await shown(there) == before
        assert not (await moved(there, back, tmp_path / "back")).faults
        assert await shown(back) == before
        again = await moved(here, there, tmp_path / "there")
        assert (again.brought, again.renewed, again.equal) == (0, 0, 12)
        assert again.counts["ada"] == {"a/b": 1, "": 5}
        assert again.searches["same best hit"] == again.searches["asked"] > 0


def test_a_journal_is_read_by_every_later_version() -> None:
    made = {"id": "i", "content": "note \U0001f642\n", "user_id": "ada", "created_at": FUTURE, "scope": "a/b"}
    more = {"tags": ["t", "ü"], "source": {"app": "notes"}, "confidence": 0.25, "valid_from": FUTURE + TICK, "key": "k"}
    record = MemoryRecord.model_validate({**made, **more, "x-app": {"b": [1, 2.5, None], "a": 10**30}})
    assert Matching("here").own(record).hex() == "f35b2e6adf04b9c4d1604baeb75dadfb"
    bare = record.model_copy(update={"source": None, "valid_from": None})
    assert Matching("here", ["key"]).own(bare).hex() == "01ffd57127c5a3586ca2dbdf642f92bc"


async def test_what_only_json_tells_apart_is_different(here: AsyncMemory, there: AsyncMemory, tmp_path: Path) -> None:
    one = await here.add("tea", user_id="ada", x_app=1)
    await there.restore([one.model_copy(update={"x-app": True})])
    assert [each["fields"] for each in (await moved(here, there, tmp_path / "r")).listed] == [["extensions"]]


async def test_a_second_pass_brings_later_writes(here: AsyncMemory, there: AsyncMemory, tmp_path: Path) -> None:
    await fill(here)
    rum = await here.add("rum", user_id="bob")
    await moved(here, there, tmp_path / "r")
    changed = (await here.list("ada")).items[0]
    await here.update(changed.id, content="said anew")
    new = await here.add("Bergen", user_id="bob", supersedes=[(await here.get(user_id="bob", key="k")).id])
    kept = (await there.list("bob")).items[1]
    await there.update(kept.id, content="changed there")
    gin = await there.add("gin", user_id="bob", supersedes=[rum.id])
    await there.delete(gin.id)
    second = await moved(here, there, tmp_path / "r")
    assert (second.brought, second.renewed, dict(second.faults)) == (1, 2, {"different": 2})
    assert {each["id"]: each["fields"] for each in second.listed} == {
        kept.id: ["content", "updated_at"],
        rum.id: ["superseded_by", HISTORY],
    }
    assert (await there.get(rum.id)).superseded_by == gin.id
    assert (await there.get(changed.id)).content == "said anew"
    assert (await there.get(user_id="bob", key="k")).superseded_by == new.id


async def test_what_is_changed_there_when_it_is_to_be_renewed_stays(
    here: AsyncMemory, there: AsyncMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tea, rum = [await here.add(text, user_id="ada") for text in ("tea", "rum")]
    await moved(here, there, tmp_path / "r")
    for each in (tea, rum):
        await here.update(each.id, content=f"more {each.content}")
    delete, meanwhile = (
        there.delete,
        {
            tea.id: lambda: there.update(tea.id, content="changed there"),
            rum.id: lambda: there.add("gin", user_id="ada", supersedes=[rum.id]),  # which itself stays as it was
        },
    )

    async def late(id: str, **options: Any) -> None:
        if id in meanwhile:
            await meanwhile.pop(id)()
        await delete(id, **options)

    monkeypatch.setattr(there, "delete", late)
    assert (await moved(here, there, tmp_path / "r")).renewed == 1
    assert [(await there.get(each.id)).content for each in (tea, rum)] == ["changed there", "more rum"]


async def test_a_second_pass_brings_mere_moments(here: AsyncMemory, there: AsyncMemory, tmp_path: Path) -> None:
    tea = await here.add("tea", user_id="ada", scope="a")
    rum = await here.add("rum", user_id="ada")
    gin = await here.add("gin", user_id="ada", supersedes=[rum.id])
    await here.update(gin.id, content="more gin")
    await moved(here, there, tmp_path / "r")
    await here.update(tea.id, scope="a")
    await here.update(gin.id, supersedes=None)
    await here.update(gin.id, supersedes=[rum.id])  # from this moment on
    second = await moved(here, there, tmp_path / "r")
    assert (second.brought, second.renewed, dict(second.faults)) == (0, 3, {})
    assert await shown(there) == await shown(here)
    moment = gin.created_at + timedelta(microseconds=1)
    assert {record.id async for record in there.iter("ada", as_of=moment)} == {tea.id, rum.id}
    assert not (await moved(here, there, tmp_path / "r")).renewed


async def test_moments_that_do_not_go_over_http_are_counted_before_anything_is_written(tmp_path: Path) -> None:
    store = AsyncMemory("sqlite", path=tmp_path / "here.db", embedder="none")
    there = AsyncMemory("sqlite", path=tmp_path / "there.db", embedder="none")
    with running(create_app(store, ServerSettings())) as url:
        async with AsyncMemory("passthrough", base_url=url) as here, there:
            tea, rum = [await here.add(text, user_id="ada") for text in ("tea", "rum")]
            await here.add("ale", user_id="ada", supersedes=[tea.id])  # holds from when it was made
            for direction in ((here, there), (there, here)):
                assert not (await survey(*direction, ["ada"], quiet)).cannot_keep
            late = await here.add("gin", user_id="ada")
            await here.update(late.id, supersedes=[tea.id])  # holds from a moment that no verb returns
            gone = await here.add("oil", user_id="ada", supersedes=[rum.id])
            await here.delete(gone.id)  # nobody knows any more from when on it held
            assert (await survey(here, there, ["ada"], quiet)).cannot_keep == {HISTORY: 2}
            async with AsyncMemory("sqlite", path=tmp_path / "here.db", embedder="none") as beneath:
                assert (await survey(beneath, here, ["ada"], quiet)).cannot_keep == {HISTORY: 2}
                assert not (await survey(beneath, there, ["ada"], quiet)).cannot_keep


async def test_undoing_leaves_what_was_there_or_changed(here: AsyncMemory, there: AsyncMemory, tmp_path: Path) -> None:
    mine = await there.add("mine", user_id="ada")
    await here.restore([mine])
    await fill(here)
    successor = await here.add("yours", user_id="ada", supersedes=[mine.id])
    assert (await moved(here, there, tmp_path / "r")).brought == 13
    changed = (await there.list("bob")).items[0]
    await there.update(changed.id, content="changed there")
    file, journal = open_journal(tmp_path / "r", {})
    with file:
        result = await undo(there, journal, Matching("here"), quiet)
    assert (result.removed, result.changed) == (12, [{"user_id": "bob", "id": changed.id}])
    assert [record.content for user in USERS for record in await there.list(user)] == ["mine", "changed there"]
    current = [record.id async for record in there.iter("ada", as_of=datetime.now(UTC))]
    assert current == [mine.id]
    assert successor.id not in current


STORED = sorted(Path(__file__).with_name("stored").glob("*.gz"))


async def unpacked(stored: Path, data: bytes, folder: Path) -> Provider:
    if stored.name.startswith("sqlite"):
        file = folder / "memory.db"
        file.write_bytes(data)
        return Sqlite(file, embedder="none")
    url = lasting.postgres_url(f"stored_{stored.stem.partition('.')[0]}")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector; DROP SCHEMA IF EXISTS openproto CASCADE")
        await connection.execute(data.decode())
    finally:
        await connection.close()
    return Postgres(url, embedder="none")


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored.name.partition(".")[0])
async def test_a_store_of_an_earlier_version_is_upgraded_and_keeps_what_it_held(stored: Path, tmp_path: Path) -> None:
    data = gzip.decompress(stored.read_bytes())  # noqa: ASYNC240 - three kilobytes
    async with AsyncMemory(await unpacked(stored, data, tmp_path)) as memory:
        assert len(await memory.audit("ada")) >= 5
        found = {record.content: record async for record in memory.iter("ada")}
        assert list(found) == ["has a cat", "lives in Kiel", "lives in Ulm", "likes tea"]
        tea, ulm, kiel = found["likes tea"], found["lives in Ulm"], found["lives in Kiel"]
        assert (tea.scope, tea.tags, tea.source and tea.source.app) == ("drinks/hot", ["t", "u"], "notes")
        assert (tea.confidence, tea.extensions) == (0.5, {"x-app": {"k": [1]}})
        assert (ulm.superseded_by, kiel.supersedes) == (kiel.id, [ulm.id])
        for moment, home in ((kiel.created_at - TICK, ulm), (kiel.created_at, kiel)):
            current = {record.content async for record in memory.iter("ada", as_of=moment)}
            assert current & {ulm.content, kiel.content} == {home.content}
        if "_1" not in stored.name:  # before there were keys
            assert (await memory.get(key="pet", user_id="ada")).content == "has a cat"
        assert [hit.memory.content for hit in await memory.search("tea", "ada")] == ["likes tea"]
        again = await memory.add(
            "likes tea", user_id="ada", scope="drinks/hot", tags=["t", "u"], source={"app": "notes"}, confidence=0.5,
            x_app={"k": [1]}, idempotency_key="once",
        )  # fmt: skip
        assert again == tea
        assert [record.content async for record in memory.iter("bob")] == ["likes milk"]


def test_each_earlier_schema_is_stored() -> None:
    names = [file.name.partition(".")[0] for file in STORED]  # that of the first sqlite schema is in tests/sqlite
    assert names == ["postgres_1", "postgres_3", "sqlite_2", "sqlite_3", "sqlite_5"]
