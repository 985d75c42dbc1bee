"""A statement that has lost its condition on the user shows and changes nothing foreign.

Two defences stand behind each condition, and each is tried without the other: the database, which shows a statement
only the rows of its user, and the check of every row that comes out.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest
from conditions import CONDITIONS, attempts, take_out, take_out_checks, told_by
from openproto_adapters.postgres import gets, provider, queries, together
from openproto_adapters.sqlite import lanes, selection, statements

from openproto import AsyncMemory, MemoryRecord, OpenProtoError, ProviderError
from openproto.models import StoredRecord, UserPart
from openproto.provider import RestoreOutcomes


@pytest.fixture(autouse=True)
def statements_are_made_anew() -> Iterator[None]:
    """Keep no statement of many changes that was made with a condition, nor without one."""
    together._changing.cache_clear()
    yield
    together._changing.cache_clear()


async def held_of(memory: AsyncMemory, user_id: str) -> list[UserPart]:
    async with memory._session.provider.snapshot(vectors=False) as snapshot:
        parts = [part async for part in snapshot.parts(user_id)]
        assert sum((await snapshot.counts(user_id)).values()) == sum(len(part.records) for part in parts)
        return parts


async def load(memory: AsyncMemory, record: MemoryRecord) -> RestoreOutcomes:
    parts = [UserPart(record.user_id, [StoredRecord(record=record)])]
    return await memory._session.provider.load(parts, model=None, app=None, include_deleted=False)


async def probe(memory: AsyncMemory, victim: str = "ada", eve: str = "eve") -> int:
    """Try every verb as Eve on a victim's records; return how many calls were withheld, checking what came out."""
    ada = await memory.add("note of ada", user_id=victim, key="k", scope="s", tags=["t"], idempotency_key="once")
    other = await memory.add("note one", user_id=victim, supersedes=[])
    await memory.add("note of eve", user_id=eve, scope="s", tags=["t"])
    before = [record async for record in memory.iter(victim)]
    taken = before[0].model_copy(update={"user_id": eve, "key": None})
    both, withheld = (ada.id, other.id), 0
    calls = [lambda: held_of(memory, eve), lambda: load(memory, taken), *attempts(memory, eve, ada, other)]
    for call in calls:
        try:
            answer = told_by(await call())
        except OpenProtoError as error:
            withheld += isinstance(error, ProviderError)
            continue
        withheld += "withheld" in answer
        # Eve's own words may come out, never Ada's record, key, or entries.
        assert "refused" in answer or not any(f'id":"{id}"' in answer for id in both), answer
        assert f'"user_id":"{victim}"' not in answer
    if withheld == 0:
        assert [record async for record in memory.iter(victim)] == before
    return withheld


def test_the_conditions_are_found() -> None:
    stores = [store for store, *_ in CONDITIONS]
    assert (stores.count("sqlite") >= 12, stores.count("postgres") >= 20) == (True, True)


@contextlib.asynccontextmanager
async def without_policies(store: Any) -> AsyncIterator[AsyncMemory]:
    """A client of a store whose database shows every statement every row."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lanes, "secure_rows", lambda _: None)
        async with store.client(**({} if store.name == "sqlite" else {"row_security": False})) as memory:
            yield memory


@pytest.mark.parametrize(
    ("store", "module", "name", "number"),
    CONDITIONS,
    indirect=["store"],
    ids=lambda part: getattr(part, "__name__", part),
)
async def test_without_a_condition_nothing_foreign_comes_out(
    store: Any, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, number: int
) -> None:
    take_out(monkeypatch, module, name, number)
    async with without_policies(store) as memory:
        with contextlib.suppress(ProviderError):  # even the look at what there is may be withheld
            await probe(memory)
    take_out_checks(monkeypatch)
    async with store.client() as memory:
        assert await probe(memory, "bob", "mallory") == 0


@pytest.mark.parametrize(
    ("store", "module", "name"),
    [
        ("sqlite", selection, "OWN"),
        ("sqlite", statements, "LIST_AUDIT"),
        ("postgres", queries, "OWN"),
        ("postgres", queries, "AUDIT"),
        ("postgres", queries, "GET_BY_KEY"),
    ],
    indirect=["store"],
)
async def test_the_probe_sees_leaks(store: Any, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    take_out(monkeypatch, module, name, 0)
    take_out_checks(monkeypatch)
    async with without_policies(store) as memory:
        with pytest.raises(AssertionError):
            assert await probe(memory) == 0


async def test_what_acts_for_nobody_alone_is_withheld(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await probe(memory) == 0
    added = await memory.add("note", user_id="ada")
    with monkeypatch.context() as patched:
        patched.setattr(lanes.Connection, "act_for", lambda *_: None)
        for name in ("acting_for", "acting_for_owner"):
            for module in (gets, provider):
                patched.setattr(module, name, lambda *_: "")
        for call in (memory.get(added.id, user_id="ada"), memory.list("ada"), memory.delete_all("ada")):
            with pytest.raises(ProviderError):
                await call
    assert (await memory.get(added.id, user_id="ada")).content == "note"
