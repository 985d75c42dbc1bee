"""Statements that have lost a condition on the user, and random calls of one user for what is another's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, TypeAlias

import pytest
from conditions import CONDITIONS, take_out, take_out_checks
from openproto_conformance.checks import ensure
from parts import postgres, served

from openproto import AsyncMemory, MemoryInput, MemoryRecord, OpenProtoError

Call: TypeAlias = Callable[[], Awaitable[Any]]

WORDS = ("tea", "milk", "rain", "lamp", "boat")


async def isolation(chance: random.Random, calls: int) -> str:
    """Take each condition out in turn, and the checks of rows as well: what is left is the database's own defence.

    Half of the calls go through a server, by its routes.
    """
    told: list[str] = []
    async with postgres() as (home, url):
        for store in ("sqlite", "postgres"):
            conditions = [found[1:] for found in CONDITIONS if found[0] == store]
            seen: Counter[tuple[str, bool]] = Counter()
            for number, condition in enumerate(conditions):
                options = {"path": str(home / f"{number}.db"), "synchronous": "normal"}
                if store == "postgres":
                    options = {"url": url, "schema": f"s_{number}"}
                await _without(condition, store, options, chance, calls // 2 // len(conditions), seen)
            ways = []
            for way in ("directly", "over HTTP"):
                refused, answered = (seen[way, is_answered] for is_answered in (False, True))
                ensure(answered > refused / 3, f"{store}: hardly a call was answered {way}")
                ways.append(f"{refused + answered:,} calls {way}")
            told.append(f"{store} {', '.join(ways)}, {len(conditions)} conditions, 0 leaks")
    return "; ".join(told)


async def _without(
    condition: tuple[ModuleType, str, int],
    store: str,
    options: dict[str, Any],
    chance: random.Random,
    calls: int,
    seen: Counter[tuple[str, bool]],
) -> None:
    direct, behind = (AsyncMemory(store, embedder="none", audit_reads=False, retries=0, **options) for _ in range(2))
    with pytest.MonkeyPatch.context() as patched:
        take_out(patched, *condition)
        take_out_checks(patched)
        with served(behind) as url:
            async with direct as memory, AsyncMemory("passthrough", base_url=url, retries=0) as far:
                texts = [" ".join(chance.sample(WORDS, 2)) for _ in range(4)]
                adds = [
                    memory.add(text, user_id="ada", key=f"k{n}", scope="s", tags=["t"]) for n, text in enumerate(texts)
                ]
                theirs = [await add for add in adds]
                before = [record async for record in memory.iter("ada")]
                for _ in range(calls):
                    way, client = chance.choice([("directly", memory), ("over HTTP", far)])
                    verb, call = chance.choice([*_calls(client, chance, theirs).items()])
                    try:
                        answer = repr(await call())
                    except OpenProtoError:
                        answer = ""
                    seen[way, bool(answer)] += 1
                    where = f"{store}, {condition[1]} {condition[2]}, {verb} {way}"
                    ensure("'ada'" not in answer, f"{where}: another user's record came out")
                    if verb != "restore":  # which repeats the id that it refuses
                        ensure(not any(f"id='{record.id}'" in answer for record in theirs), f"{where}: an id came out")
                ensure(
                    [record async for record in memory.iter("ada")] == before, f"{condition}: ada's memories changed"
                )
                await memory.delete_all("eve")


def _calls(memory: AsyncMemory, chance: random.Random, theirs: list[MemoryRecord]) -> dict[str, Call]:
    """Return what Eve may try, with Ada's ids and keys where one can be named."""
    id, other = (record.id for record in chance.sample(theirs, 2))
    text, key = " ".join(chance.sample(WORDS, 2)), f"k{chance.randrange(6)}"
    wanted: dict[str, Any] = {"scope": chance.choice(["s", None]), "tag": chance.choice(["t", None])}
    new: dict[str, Any] = {"user_id": "eve", "supersedes": chance.choice([[], [id]])}
    as_of = chance.choice([None, datetime(2040, 1, 1, tzinfo=UTC)])
    return {
        "get": lambda: memory.get(id, user_id="eve"),
        "get by key": lambda: memory.get(key=key, user_id="eve"),
        "update": lambda: memory.update(id, user_id="eve", content=text, supersedes=chance.choice([None, [other]])),
        "delete": lambda: memory.delete(id, user_id="eve"),
        "add": lambda: memory.add(text, idempotency_key=chance.choice([None, key]), **new),
        "add unless there": lambda: memory.add(text, on_duplicate=chance.choice(["skip", "supersede"]), **new),
        "add_many": lambda: memory.add_many([MemoryInput(content=text, **new)] * 2),
        "put": lambda: memory.put(text, key=key, **new),
        "restore": lambda: memory.restore(
            [chance.choice(theirs).model_copy(update={"user_id": "eve", "supersedes": [id], "key": None})]
        ),
        "list": lambda: memory.list("eve", as_of=as_of, **wanted),
        "search": lambda: memory.search(text, "eve", as_of=as_of, **wanted),
        "context": lambda: memory.context(text, "eve", **wanted),
        "scopes": lambda: memory.scopes("eve"),
        "audit": lambda: memory.audit("eve", limit=20),
        "delete_all": lambda: memory.delete_all("eve", **wanted),
    }
