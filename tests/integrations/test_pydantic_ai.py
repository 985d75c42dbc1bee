"""The store does what the harness's own stores do, command by command, and an agent remembers through it."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import pytest
from pydantic_ai_harness import memory as harness

from openproto import AsyncMemory
from openproto.integrations.pydantic_ai import OpenProtoMemoryStore

PATHS = ["a/MEMORY.md", "a/coffee.md", "a/b/MEMORY.md", "ab.md", "a/../b", "a/./b", "a//b", "/a", "a b", "x" * 201]


async def told(call: Any) -> Any:
    """Return what a call returns, without the versions, which are opaque, or the class of what it raises."""
    try:
        result = await call
    except (ValueError, harness.MemoryConflictError, harness.MemoryOperationConflictError) as error:
        return type(error)
    if result is None or isinstance(result, list):
        return result
    return {name: bool(value) if name == "version" else value for name, value in vars(result).items()}


@pytest.mark.parametrize("seed", range(3))
async def test_commands_end_as_in_the_harness_s_own_store(memory: AsyncMemory, seed: int) -> None:
    chance = random.Random(seed)
    stores: list[Any] = [OpenProtoMemoryStore(memory, user_id="ada"), harness.InMemoryStore()]
    assert isinstance(stores[0], harness.MemoryStore)
    assert isinstance(stores[0], harness.SearchableMemoryStore)
    assert isinstance(stores[0], harness.MetadataMemoryStore)
    for _ in range(150):
        path = chance.choice(PATHS if chance.random() < 0.2 else PATHS[:4])
        text = chance.choice(["", " \n", "coffee", "a\r\nb\n", "é" * 300])
        operation = (
            harness.MemoryOperation(str(chance.randrange(40)), f"{path} {text}") if chance.random() < 0.5 else None
        )
        command = chance.choice(["read", "write", "describe", "describe", "delete", "list", "done"])
        metadata, stale = chance.choice([None, {}, {"by": "Ada", "über": "é\n"}]), chance.random() < 0.2
        prefix, outcomes = chance.choice(["", "a/", "a", "a/b/", "nothing/"]), []
        for store in stores:
            current = None if path in PATHS[4:] else await store.read(path, max_chars=1)
            version = "stale" if stale else current and current.version
            change: dict[str, Any] = {"expected_version": version, "operation": operation}
            call = {
                "read": partial(store.read, path, max_chars=3),
                "write": partial(store.write, path, text, **change),
                "describe": partial(store.write_with_metadata, path, text, metadata=metadata, **change),
                "delete": partial(store.delete, path, **change),
                "list": partial(store.list_paths, prefix, limit=2),
                "done": partial(store.get_operation, operation or harness.MemoryOperation("none", "")),
            }[command]
            outcomes.append(await told(call()))
        assert outcomes[0] == outcomes[1], (command, path, text, operation, stale, prefix, metadata)


async def test_an_interrupted_write_is_not_repeated(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    store, operation = OpenProtoMemoryStore(memory, user_id="ada"), harness.MemoryOperation("1", "f")

    async def interrupted(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(store, "_note", interrupted)
        with pytest.raises(asyncio.CancelledError):
            await store.write("a/MEMORY.md", "one", expected_version=None, operation=operation)
    written = await store.read("a/MEMORY.md", max_chars=10)
    assert written is not None
    again = await store.write("a/MEMORY.md", "one one", expected_version=written.version, operation=operation)
    assert (again.version, again.existed) == (written.version, False)
    assert (await store.read("a/MEMORY.md", max_chars=10) or written).content == "one"


async def test_a_search_finds_what_lies_directly_below_a_prefix_of_one_user(memory: AsyncMemory) -> None:
    for user_id, path in (("ada", "a/drinks.md"), ("ada", "a/b/drinks.md"), ("bob", "a/bobs.md")):
        store = OpenProtoMemoryStore(memory, user_id=user_id)
        await store.write(path, f"Her coffee is black, says {user_id}", expected_version=None)
    bounds: dict[str, int] = {"limit": 5, "max_files": 9, "max_chars": 99, "max_file_chars": 99}
    found = await OpenProtoMemoryStore(memory, user_id="ada").search("a/", "coffee", **bounds)
    assert [(match.path, "coffee is black" in match.snippet) for match in found.matches] == [("a/drinks.md", True)]
    keys = {record.key for record in (await memory.list("ada", scope="pydantic-ai")).items}
    assert keys == {"pydantic-ai/a/drinks.md", "pydantic-ai/a/b/drinks.md"}
