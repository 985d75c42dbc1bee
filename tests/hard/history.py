"""Histories of names and versions: many processes write the same few keys, and one order must explain all answers.

As a program it is one of those processes: `history.py PROVIDER OPTIONS SEED OPERATIONS` prints its calls as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from openproto import AsyncMemory, ConflictError, NotFoundError

KEYS = [f"key/{number}" for number in range(6)]

State: TypeAlias = "tuple[str, str] | None"
"""Id and version of the record under a key."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A call that has ended: what it demanded, what came of it, and between which moments it happened."""

    key: str
    verb: str
    id: str | None
    if_version: str | None
    content: str | None
    outcome: str
    started: int
    ended: int
    version: str | None = None

    def after(self, state: State) -> State | bool:
        """Return the state that this call leaves; False where it cannot have ended so in `state`."""
        met = state if self.verb in ("put", "get") or (state and state[0] == self.id) else None
        if self.outcome == "not_found":
            return state if met is None else False
        version = "absent" if met is None else met[1]
        if self.outcome == "conflict":
            return state if self.if_version not in (None, version) else False
        if self.if_version not in (None, version) or (self.verb != "put" and met is None):
            return False
        assert self.id is not None
        if met is not None and met[0] != self.id:
            return False
        match self.verb:
            case "get":
                return state if version == self.version else False
            case "delete":
                return None
            case _:
                assert self.version is not None
                return (self.id, self.version)


async def take_part(memory: AsyncMemory, chance: random.Random, operations: int) -> list[Operation]:
    """Call `operations` times, mostly with versions that this process has just seen, and return what happened."""
    seen: dict[str, tuple[str, str]] = {}
    made = []
    async with memory:
        for number in range(operations):
            key = chance.choice(KEYS)
            id, version = seen.get(key, (None, None))
            content = f"{chance.getrandbits(64):x} {number}"
            verb = chance.choices(["put", "update", "delete", "get"], [4, 4, 1, 3])[0]
            if id is None and verb in ("update", "delete"):
                verb = "get"
            wanted: str | None = None
            if verb != "get" and chance.random() < 0.8:
                wanted = version or "absent"
                if verb == "put" and chance.random() < 0.2:
                    wanted = "absent"
            started = time.monotonic_ns()
            record = None
            try:
                match verb:
                    case "put":
                        record = await memory.put(content, user_id="ada", key=key, if_version=wanted)
                    case "update":
                        record = await memory.update(str(id), user_id="ada", content=content, if_version=wanted)
                    case "delete":
                        await memory.delete(str(id), user_id="ada", if_version=wanted)
                    case _:
                        record = await memory.get(user_id="ada", key=key)
                outcome = "ok"
            except (ConflictError, NotFoundError) as error:
                outcome = error.code
            ended = time.monotonic_ns()
            seen.pop(key, None)
            if record is not None:
                id, version, content = record.id, record.version, record.content
                seen[key] = record.id, str(record.version)
            made.append(Operation(key, verb, id, wanted, content, outcome, started, ended, version if record else None))
    return made


async def history_of(
    provider: str, options: dict[str, Any], *, processes: int, operations: int, chance: random.Random
) -> list[Operation]:
    """Let that many processes write at once, and return all their calls."""
    each = [sys.executable, __file__, provider, json.dumps(options)]
    writers = [
        await asyncio.create_subprocess_exec(
            *each, str(chance.getrandbits(32)), str(operations // processes), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(processes)
    ]
    printed = await asyncio.gather(*(writer.communicate() for writer in writers))
    if any(writer.returncode for writer in writers):
        raise RuntimeError("a writer ended in an error that is neither a conflict nor a missing record")
    return [Operation(**line) for out, _ in printed for line in json.loads(out)]


def fault_of(history: Iterable[Operation]) -> str | None:
    """Return why no order of the calls explains their answers; None where one does."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in sorted(history, key=lambda one: one.started):
        by_key[operation.key].append(operation)
    for key, operations in by_key.items():
        written = [one for one in operations if one.outcome == "ok" and one.verb in ("put", "update")]
        contents = {one.version: one.content for one in written}
        if len(contents) < len(written):
            return f"{key}: two writes were given one version"
        if any(one.content != contents.get(one.version) for one in operations if one.verb == "get" and one.version):
            return f"{key}: a version was read with another content than it was written with"
        if (explained := _explained(operations)) < len(operations):
            return f"{key}: nothing explains {operations[explained]}"
    return None


def _explained(operations: list[Operation]) -> int:
    """Return how many calls, in the order of their starts, some sequence explains that keeps what ended before what.

    A search over which calls have happened (all before `first`, and those of the bits after it) and the state that
    they leave; only calls that overlap can change places, so there is little to search.
    """
    waiting: list[tuple[int, int, State]] = [(0, 0, None)]
    seen: set[tuple[int, int, State]] = {*waiting}
    furthest = 0
    while waiting:
        first, happened, state = waiting.pop()
        furthest = max(furthest, first)
        if first == len(operations):
            break
        earliest_end, place = operations[first].ended, first
        while place < len(operations) and operations[place].started <= earliest_end:
            bit = 1 << (place - first)
            if not happened & bit:
                earliest_end = min(earliest_end, operations[place].ended)
                after = operations[place].after(state)
                if not isinstance(after, bool):
                    follower = _advanced(first, happened | bit, after)
                    if follower not in seen:
                        seen.add(follower)
                        waiting.append(follower)
            place += 1
    return furthest


def _advanced(first: int, happened: int, state: State) -> tuple[int, int, State]:
    while happened & 1:
        first, happened = first + 1, happened >> 1
    return first, happened, state


if __name__ == "__main__":
    provider, options, seed, operations = sys.argv[1:]
    memory = AsyncMemory(provider, **json.loads(options))
    made = asyncio.run(take_part(memory, random.Random(int(seed)), int(operations)))
    sys.stdout.write(json.dumps([asdict(one) for one in made]))
