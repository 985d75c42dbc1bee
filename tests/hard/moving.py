"""A whole store to another one and back while others write to it, the command killed again and again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from openproto_conformance.checks import ensure
from parts import meanwhile, postgres

from openproto import AsyncMemory, gather_bounded

Store: TypeAlias = tuple[str, str, str]
"""The provider, and the option that says where the store is, with its value."""

MIGRATE = (sys.executable, "-m", "openproto.cli", "migrate", "--json")
RECORDS_OF_A_USER, RECORDS_OF_A_KILL = 200, 2_000
LONGEST_RUN = 3_600.0
KILL_WITHIN, RECORDS_IN_A_SECOND = 8.0, 6_000
"""A kill comes at any moment of these seconds, and of those in which the command reads and brings that much: rather
soon, for each run goes on where the one before was killed."""
USERS_COMPARED_AT_ONCE = 4


def client(store: Store) -> AsyncMemory:
    provider, option, where = store
    options: dict[str, Any] = {option: where, "embedder": "none"}
    if provider == "sqlite":
        options["synchronous"] = "normal"
    return AsyncMemory(provider, **options)


async def moving(chance: random.Random, records: int) -> str:
    kills = max(1, records // RECORDS_OF_A_KILL)
    users = [f"user{number}" for number in range(max(1, records // RECORDS_OF_A_USER))]
    async with postgres() as (home, url):
        first, last = (("sqlite", "path", str(home / name)) for name in ("first.db", "last.db"))
        middle: Store = ("postgres", "url", url)
        async with client(first) as memory:
            await gather_bounded((_fill(memory, user, chance) for user in users), limit=4)
        written = 0
        for number, (source, target) in enumerate(((first, middle), (middle, last))):
            written += await _move(source, target, home / f"report{number}", users, chance, kills)
        moved = await _compare(middle, last, users)
    return f"{moved:,} records of {len(users)} users, {2 * kills} kills, {written:,} writes meanwhile, all equal"


async def _fill(memory: AsyncMemory, user: str, chance: random.Random) -> None:
    for start in range(0, RECORDS_OF_A_USER, 50):
        items = [
            {"content": f"{user} says {start + n}", "user_id": user, "tags": [f"t{n % 7}"], "scope": f"a/{n % 5}"}
            for n in range(49)
        ]
        made = [record.id for record in await memory.add_many(items) if not isinstance(record, Exception)]
        await memory.add("instead", user_id=user, supersedes=chance.sample(made, 2), key=f"key{start}")
        await memory.update(made[-1], user_id=user, supersedes=[made[0]])  # which holds from this moment on


async def _move(source: Store, target: Store, report: Path, users: list[str], chance: random.Random, kills: int) -> int:
    """Run the command until it ends, once nobody writes any more; return how many writes there were meanwhile."""
    written: list[str] = []
    async with client(source) as memory, meanwhile(lambda: _write(memory, users, chance, written)):
        longest, killed = KILL_WITHIN + kills * RECORDS_OF_A_KILL / RECORDS_IN_A_SECOND, 0
        while killed < kills:
            seconds = chance.triangular(0.5, longest, 0.5)
            if await asyncio.to_thread(_run, source, target, report, seconds) is None:
                killed += 1
            else:
                longest = max(1.0, 0.9 * seconds)  # it ended before
    ended = await asyncio.to_thread(_run, source, target, report, LONGEST_RUN)
    ensure(ended is not None and not ended["faults"], f"the migration tells {ended and ended['faults']}")
    again = await asyncio.to_thread(_run, source, target, report, LONGEST_RUN)
    ensure(again is not None and (again["brought"], again["renewed"]) == (0, 0), "a second run wrote something")
    await _compare(source, target, users)
    return len(written)


def _run(source: Store, target: Store, report: Path, seconds: float) -> dict[str, Any] | None:
    """Run the command and return what it tells; None where it was killed before its end."""
    sides = [
        part
        for which, (provider, option, where) in (("from", source), ("to", target))
        for part in (f"--{which}", provider, f"--{which}-option", f"{option}={where}")
    ]
    options = [f"--{which}-option=embedder=none" for which in ("from", "to")]
    with subprocess.Popen(
        [*MIGRATE, *sides, *options, "--report", str(report)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        try:
            told, complaint = command.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            command.send_signal(signal.SIGKILL)
            command.communicate()
            return None
    # While others write, what was compared may have changed since: that is told, and the next run brings it.
    ensure(command.returncode in (0, 1), f"the command ended with {command.returncode}: {complaint.decode()[-2000:]}")
    return dict(json.loads(told))


async def _write(memory: AsyncMemory, users: list[str], chance: random.Random, written: list[str]) -> None:
    """Write whatever there is to write but deletions, which do not go across."""
    user = chance.choice(users)
    old, other = chance.sample((await memory.list(user, limit=20)).items, 2)
    match chance.randrange(4):
        case 0:
            await memory.update(old.id, user_id=user, content=f"changed {len(written)}", tags=["late"])
        case 1:
            await memory.update(old.id, user_id=user, supersedes=[other.id])
        case 2:
            await memory.add(f"instead {len(written)}", user_id=user, supersedes=[old.id])
        case _:
            await memory.add(f"late {len(written)}", user_id=user)
    written.append(user)
    await asyncio.sleep(0.02)


async def _compare(one: Store, other: Store, users: list[str]) -> int:
    """Compare all that a reader can see of every user, at several moments; return how many records there are."""

    async def compare(user: str) -> int:
        found = [await _shown(each, user) for each in (here, there)]
        ensure(found[0] == found[1], f"{user} has not the same in {one[0]} and {other[0]}")
        return len(found[0][0])

    async with client(one) as here, client(other) as there:
        return sum(await gather_bounded(map(compare, users), limit=USERS_COMPARED_AT_ONCE))


async def _shown(memory: AsyncMemory, user: str) -> tuple[list[dict[str, Any]], list[list[str]]]:
    records = [record async for record in memory.iter(user, page_size=500)]
    changes = sorted(moment for each in records if (moment := each.updated_at) is not None)
    moments = [*changes[:: max(1, len(changes) // 5)], records[len(records) // 2].created_at, datetime.now(UTC)]
    current = [[each.id async for each in memory.iter(user, as_of=moment, page_size=500)] for moment in moments]
    return [each.model_dump(exclude={"version", "embedding_model"}) for each in records], current
