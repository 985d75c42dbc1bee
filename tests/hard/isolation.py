"""Statements that have lost a condition on the user, and random calls of one user for what is another's."""

from __future__ import annotations

import random
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from conditions import CONDITIONS, attempts, take_out, take_out_checks, told_by
from openproto_conformance.checks import ensure
from parts import postgres, served

from openproto import AsyncMemory, OpenProtoError


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
                named: dict[str, Any] = {"key": "k", "scope": "s", "tags": ["t"], "idempotency_key": "once"}
                one = await memory.add("note of ada", user_id="ada", **named)
                others = [await memory.add(f"note {n}", user_id="ada", scope="s") for n in range(3)]
                ids = [record.id for record in (one, *others)]
                before = [record async for record in memory.iter("ada")]
                for number in range(calls):
                    way, client = chance.choice([("directly", memory), ("over HTTP", far)])
                    call = chance.choice(attempts(client, "eve", one, chance.choice(others)))
                    try:
                        answer = told_by(await call())
                    except OpenProtoError:
                        answer = ""
                    seen[way, bool(answer)] += 1
                    where = f"{store}, {condition[1]} {condition[2]}, call {number} {way}"
                    ensure('"ada"' not in answer, f"{where}: another user's record came out")
                    if "refused" not in answer:  # a restoration repeats the id that it refuses
                        ensure(not any(f'id":"{id}"' in answer for id in ids), f"{where}: an id came out")
                after = [record async for record in memory.iter("ada")]
                ensure(after == before, f"{condition}: ada's memories changed")
                await memory.delete_all("eve")
