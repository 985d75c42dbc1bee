"""No id, filter, cursor, or key of one user ever reaches what belongs to another."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from postgres_tools import HashEmbedder, MakeClient

from openproto import AsyncMemory, InvalidRequestError, MemoryRecord, NotFoundError, OpenProtoError

# Names that trick patterns, prefixes, quoting, folding, and arrays.
USERS = [
    "ada", "Ada", "ada ", "ad", "ada%", "a_a", "ada/", "*", "ada*", "'ada'", '"ada"', "ada' OR true --", "{ada}",
    "ada\\", "\u0430da", "äda", "a\u0308da", "null", "$1", "{schema}", "{vector}", "<filters>", "%s", "\U0001f9e0",
]  # fmt: skip
SECRETS = "tea coffee water juice milk".split()


@pytest.fixture
async def crowd(make: MakeClient):
    """A client, and three records of each user, all of them much alike."""
    async with make(embedder=HashEmbedder()) as memory:
        records: dict[str, list[MemoryRecord]] = {}
        for user in USERS:
            records[user] = [
                await memory.add(
                    f"drinks {drink} at noon", user_id=user, scope="s/t", tags=["t"], idempotency_key=f"key {n}"
                )
                for n, drink in enumerate(SECRETS[:3])
            ]
        yield memory, records


Crowd = tuple[AsyncMemory, dict[str, list[MemoryRecord]]]


async def test_reads_never_return_another_users_record(crowd: Crowd) -> None:
    memory, records = crowd
    rng = random.Random(2)
    for _ in range(300):
        user = rng.choice(USERS)
        scope = rng.choice([None, "s", "s/*", "s/t", "*"])
        tag = rng.choice([None, "t"])
        verb = rng.choice(["list", "search", "context", "iter"])
        limit = rng.choice([1, 2, 100])
        query = rng.choice(["drinks tea", "noon", user, "coffee water"])
        if verb == "list":
            found = (await memory.list(user, scope=scope, tag=tag, limit=limit)).items
        elif verb == "iter":
            found = [record async for record in memory.iter(user, scope=scope, tag=tag, page_size=limit)]
            assert len(found) == 3
        elif verb == "search":
            results = await memory.search(query, user, scope=scope, tag=tag, limit=limit)
            found = [result.memory for result in results]
        else:
            block = await memory.context(query, user, scope=scope, tag=tag)
            mine = {record.id for record in records[user]}
            assert {citation.memory_id for citation in block.citations} <= mine
            continue
        assert all(record in records[user] for record in found), (verb, user)


async def test_another_users_id_is_as_unknown_as_one_that_never_was(crowd: Crowd) -> None:
    memory, records = crowd
    rng = random.Random(3)
    verbs: list[Callable[[str, str], Awaitable[Any]]] = [
        lambda its, user: memory.get(its, user_id=user),
        lambda its, user: memory.update(its, user_id=user, content="taken"),
        lambda its, user: memory.update(its, user_id=user, supersedes=None),
        lambda its, user: memory.delete(its, user_id=user),
        lambda its, user: memory.add("mine", user_id=user, supersedes=[its]),
        lambda its, user: memory.update(records[user][0].id, user_id=user, supersedes=[its]),
        lambda its, user: memory.wait_for_ingest([its], user),
    ]
    unknown = "01930000-0000-8000-8000-000000000000"
    for _ in range(200):
        thief, victim = rng.sample(USERS, 2)
        verb = rng.choice(verbs)
        said: list[str] = []
        for id in (rng.choice(records[victim]).id, unknown):
            with pytest.raises(NotFoundError) as caught:
                await verb(id, thief)
            said.append(caught.value.message)
        assert said[0] == said[1]
        (outcome,) = await memory.add_many(
            [{"content": "mine", "user_id": thief, "supersedes": [rng.choice(records[victim]).id]}]
        )
        assert isinstance(outcome, NotFoundError)
    for user in USERS:
        assert [record async for record in memory.iter(user)] == records[user][::-1]


async def test_another_users_cursor_is_refused(crowd: Crowd) -> None:
    memory, _ = crowd
    cursors = {user: (await memory.list(user, limit=1)).next_cursor for user in USERS}
    for thief in USERS:
        for victim in USERS:
            if thief != victim:
                with pytest.raises(InvalidRequestError, match="cursor"):
                    await memory.list(thief, cursor=cursors[victim])


async def test_another_users_key_is_free(crowd: Crowd) -> None:
    memory, records = crowd
    for user in USERS:
        again = await memory.add(
            records[user][0].content, user_id=user, scope="s/t", tags=["t"], idempotency_key="key 0"
        )
        assert again == records[user][0]


async def test_deleting_all_of_one_user_leaves_the_others(crowd: Crowd) -> None:
    memory, records = crowd
    for user in USERS[::2]:
        assert await memory.delete_all(user, scope="s") == 3
    for n, user in enumerate(USERS):
        kept = [record async for record in memory.iter(user)]
        assert kept == (records[user][::-1] if n % 2 else [])


async def test_the_audit_of_one_user_shows_nobody_elses_calls(crowd: Crowd) -> None:
    memory, records = crowd
    for user in USERS:
        await memory.get(records[user][0].id)
    for user in USERS:
        entries = await memory.audit(user, limit=1000)
        mine = {record.id for record in records[user]}
        assert {entry.user_id for entry in entries} == {user}
        assert {entry.memory_id for entry in entries if entry.memory_id} <= mine
        other = records[USERS[0] if user != USERS[0] else USERS[1]][0].id
        assert await memory.audit(user, memory_id=other) == []


@pytest.mark.parametrize("scope", ["S", "s_t", "s%", "%", "_", "s/_", "s\\", "t", "s/t/u", "s?", "[s]"])
async def test_a_scope_filter_is_no_pattern(crowd: Crowd, scope: str) -> None:
    memory, _ = crowd
    assert (await memory.list("ada", scope=scope)).items == []
    assert await memory.search("drinks", "ada", scope=scope) == []
    assert await memory.delete_all("ada", scope=scope) == 0


@pytest.mark.parametrize("user", ["", " ", "\0", "a\0b", "\ud800", "x" * 257])
async def test_a_user_id_that_could_mean_everybody_is_refused(crowd: Crowd, user: str) -> None:
    memory, _ = crowd
    for call in (
        lambda: memory.list(user),
        lambda: memory.search("tea", user),
        lambda: memory.delete_all(user),
        lambda: memory.audit(user),
        lambda: memory.add("a", user_id=user),
    ):
        with pytest.raises(OpenProtoError) as caught:
            await call()
        assert isinstance(caught.value, InvalidRequestError)
