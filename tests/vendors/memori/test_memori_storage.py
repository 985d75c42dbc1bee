"""What is in the tables: ours next to Memori's, another program's facts, other processes, and many facts."""

from __future__ import annotations

import asyncio
import copy
import stat
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from openproto_adapters.memori import Memori, store

from openproto import AsyncMemory, ConflictError, NotFoundError, ProviderError

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


async def test_another_programs_fact_is_a_memory(memory: AsyncMemory, memoris_own: Any, sql: Any) -> None:
    mine = await memory.add("my own note", user_id="ann")
    id = memoris_own("ann", "Ann plays the flute")
    record = await memory.get(id, user_id="ann")
    assert (record.content, record.extensions) == ("Ann plays the flute", {"x-memori": {"num_times": 3}})
    assert abs(record.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert {one.id for one in (await memory.list("ann")).items} == {mine.id, id}
    nobodys = memoris_own("openproto:AAAAAAAAAAAAAAAAAAAAAA", "a fact of a user of whom only a token is known")
    for call in (memory.get(id, user_id="bob"), memory.get(nobodys)):
        with pytest.raises(NotFoundError):
            await call
    changed = await memory.update(id, content="Ann plays the oboe", tags=["music"], scope="hobbies/music")
    assert await memory.get(id) == changed
    assert [hit.memory.id for hit in await memory.search("oboe", "ann", scope="hobbies", tag="music")] == [id]
    newer = await memory.add("Ann sings", user_id="ann", supersedes=[id])
    assert newer.id == (await memory.search("what does Ann play", "ann"))[0].memory.id
    await memory.delete(id)
    assert sql("SELECT count(*) FROM openproto_memory") == [(2,)]


async def test_facts_of_one_second_once(memory: AsyncMemory, memoris_own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", 3)
    ids = [memoris_own("ann", f"their note {n}") for n in range(7)]
    ids += [(await memory.add(f"my note {n}", user_id="ann")).id for n in range(7)]
    assert sorted([record.id async for record in memory.iter("ann")]) == sorted(ids)


async def test_what_another_program_deleted_is_gone_and_its_key_is_free(memory: AsyncMemory, sql: Any) -> None:
    first = await memory.add("a note", user_id="ann", idempotency_key="k")
    sql("DELETE FROM memori_entity_fact")  # without foreign keys, as SQLite is when nobody says otherwise
    assert (await memory.list("ann")).items == []
    second = await memory.add("a note", user_id="ann", idempotency_key="k")
    assert second.id != first.id
    assert [record.id for record in (await memory.list("ann")).items] == [second.id]


async def test_a_key_that_another_process_was_faster_with_returns_its_memory(database: Path, models: Path) -> None:
    class Late(Memori):
        looks = 0

        async def find_key(self, user_id: str, key: str) -> Any:
            self.looks += 1
            return None if self.looks == 1 else await super().find_key(user_id, key)

    async with AsyncMemory(Memori(database, models=models)) as other:
        first = await other.add("a note", user_id="ann", idempotency_key="k")
    async with AsyncMemory(late := Late(database, models=models)) as memory:
        assert await memory.add("a note", user_id="ann", idempotency_key="k") == first
        late.looks = 0
        with pytest.raises(ConflictError):
            await memory.add("another note", user_id="ann", idempotency_key="k")
        assert len((await memory.list("ann")).items) == 1


async def test_every_fact_is_ranked_however_many(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 40)
    await memory.add("Our cat sleeps on the sofa", user_id="ann")
    await memory.add_many([{"content": f"the invoice number {n} is paid", "user_id": "ann"} for n in range(110)])
    found = await memory.search("a kitten napping", "ann", limit=3)
    assert found[0].memory.content == "Our cat sleeps on the sofa"


async def test_tables_are_made_once_whoever_opens_them_at_the_same_time(
    database: Path, models: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(n: int) -> None:
        async with AsyncMemory(Memori(database, models=models)) as memory:
            await memory.add(f"note {n}", user_id="ann")

    monkeypatch.setattr(store, "_building", nullcontext())  # which keeps the clients of one process apart
    await asyncio.gather(*(write(n) for n in range(4)))
    assert sql("SELECT count(*) FROM openproto_memory") == [(4,)]
    assert sql("SELECT count(*) FROM memori_schema_version") == [(1,)]
    assert stat.S_IMODE((await asyncio.to_thread(database.stat)).st_mode) == 0o600


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg"])
async def test_a_url_of_postgresql_is_one_of_psycopg(driver: str, server: str, models: Path) -> None:
    async with AsyncMemory(Memori(server.replace("postgresql", driver, 1), models=models)) as memory:
        record = await memory.add("我喜欢咖啡", user_id=f"user of {driver}", tags=["café"])
        assert [hit.memory for hit in await memory.search("咖啡", record.user_id)] == [record]


@pytest.mark.parametrize(
    "url", ["mysql://app:hunter2@db/x", "sqlite://", "sqlite:///:memory:", "postgresql+psycopg2://app:hunter2@db/x"]
)
async def test_a_url_of_no_usable_database_is_refused_without_its_password(url: str, models: Path) -> None:
    with pytest.raises(ValueError) as refused:
        await Memori(url, models=models).open()
    assert "hunter2" not in str(refused.value)


async def test_a_damaged_row_is_a_provider_error_without_its_text(memory: AsyncMemory, sql: Any) -> None:
    record = await memory.add("a secret", user_id="ann")
    sql("""UPDATE openproto_memory SET envelope = '{"secret": 1}'""")
    with pytest.raises(ProviderError, match="damaged") as damaged:
        await memory.get(record.id)
    assert "secret" not in str(damaged.value)
    await memory.add("Bob's own", user_id="bob")
    sql("DELETE FROM memori_entity_fact WHERE entity_id = 1")
    sql("UPDATE memori_entity_fact SET entity_id = 1")
    for read in (memory.list("ann"), memory.search("own", "ann")):
        with pytest.raises(ProviderError, match="another user"):
            await read


ROWS = ('"id": 7', '"id": "TICKET:0"', *(f'"id": "TICKET{end}", "rank_score": 1' for end in (":99", "1:0")))


@pytest.mark.parametrize("answer", ["{", '{"id": 1}', *(f"[{{{row}}}]" for row in ROWS)])
async def test_an_engines_answer_must_be_a_ranking(database: Path, models: Path, answer: str) -> None:
    provider = Memori(database, models=models)
    async with AsyncMemory(provider) as memory:
        await memory.add("a note", user_id="ann")
        engine = copy.copy(provider.backend.engine)
        engine._handle = Mock()
        engine._handle.retrieve = lambda request: answer.replace("TICKET", next(reversed(engine._asked)))
        engine._handle.embed_texts = lambda texts: [[0.1] * 384 for _ in texts]
        provider._backend = provider.backend._replace(engine=engine)
        with pytest.raises(ProviderError, match="Memori's engine answered"):
            await memory.search("note", "ann")
