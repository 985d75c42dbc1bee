"""The store does what the harness's own stores do, command by command, and an agent remembers through it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai_harness.memory import (
    InMemoryStore,
    MemoryConflictError,
    MemoryOperation,
    MemoryOperationConflictError,
    MemoryStore,
    MetadataMemoryStore,
    SearchableMemoryStore,
)
from pydantic_ai_harness.memory import Memory as MemoryCapability

from openproto import AsyncMemory
from openproto.integrations.pydantic_ai import OpenProtoMemoryStore

PATHS = ["a/MEMORY.md", "a/coffee.md", "a/b/MEMORY.md", "ab.md", "a/../b", "a/./b", "a//b", "/a", "a b", "x" * 201]


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder=None) as memory:
        yield memory


async def told(call: Any) -> Any:
    """Return what a call returns, without the versions, which are opaque, or the class of what it raises."""
    try:
        result = await call
    except (ValueError, MemoryConflictError, MemoryOperationConflictError) as error:
        return type(error)
    if result is None or isinstance(result, list):
        return result
    return {name: bool(value) if name == "version" else value for name, value in vars(result).items()}


@pytest.mark.parametrize("seed", range(3))
async def test_commands_end_as_in_the_harness_s_own_store(memory: AsyncMemory, seed: int) -> None:
    chance = random.Random(seed)
    stores: list[Any] = [OpenProtoMemoryStore(memory, user_id="ada"), InMemoryStore()]
    assert isinstance(stores[0], MemoryStore)
    assert isinstance(stores[0], SearchableMemoryStore)
    assert isinstance(stores[0], MetadataMemoryStore)
    for _ in range(150):
        path = chance.choice(PATHS if chance.random() < 0.2 else PATHS[:4])
        text = chance.choice(["", " \n", "coffee", "a\r\nb\n", "é" * 300])
        operation = MemoryOperation(str(chance.randrange(40)), f"{path} {text}") if chance.random() < 0.5 else None
        command = chance.choice(["read", "write", "describe", "describe", "delete", "list", "done"])
        metadata, stale = chance.choice([None, {}, {"by": "Ada", "über": "é\n"}]), chance.random() < 0.2
        prefix, outcomes = chance.choice(["", "a/", "a", "a/b/", "nothing/"]), []
        for store in stores:
            current = None if path in PATHS[4:] else await store.read(path, max_chars=1)
            version = "stale" if stale else current and current.version
            match command:
                case "read":
                    call = store.read(path, max_chars=3)
                case "write":
                    call = store.write(path, text, expected_version=version, operation=operation)
                case "describe":
                    call = store.write_with_metadata(
                        path, text, expected_version=version, metadata=metadata, operation=operation
                    )
                case "delete":
                    call = store.delete(path, expected_version=version, operation=operation)
                case "list":
                    call = store.list_paths(prefix, limit=2)
                case _:
                    call = store.get_operation(operation or MemoryOperation("none", ""))
            outcomes.append(await told(call))
        assert outcomes[0] == outcomes[1], (command, path, text, operation, stale, prefix, metadata)


async def test_an_interrupted_write_is_not_repeated(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    store, operation = OpenProtoMemoryStore(memory, user_id="ada"), MemoryOperation("1", "f")

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


async def test_of_many_writers_at_once_one_wins(memory: AsyncMemory) -> None:
    store = OpenProtoMemoryStore(memory, user_id="ada")
    first = await store.write("a/MEMORY.md", "0", expected_version=None)
    ended = await asyncio.gather(
        *(store.write("a/MEMORY.md", str(number), expected_version=first.version) for number in range(20)),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, BaseException) for one in ended) == 1
    assert sum(isinstance(one, MemoryConflictError) for one in ended) == 19


async def test_an_agent_remembers_and_searches_its_own_files(memory: AsyncMemory) -> None:
    async def run(user_id: str, tool: str, **arguments: str) -> Any:
        def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            if len(messages) > 1:
                return ModelResponse([TextPart("done")])
            return ModelResponse([ToolCallPart(tool, arguments)])

        store = OpenProtoMemoryStore(memory, user_id=user_id)
        capability = MemoryCapability[object](store=store, write_metadata={"by": user_id})
        agent = Agent(FunctionModel(model), capabilities=[capability])
        return (await agent.run("go on")).all_messages()

    await run("ada", "write_memory", content="Ada takes her coffee black", file="drinks.md")
    await run("ada", "write_memory", content="Ada lives in London")
    assert "Ada lives in London" in str(await run("ada", "read_memory", file="MEMORY.md"))
    file = await OpenProtoMemoryStore(memory, user_id="ada").read("main/MEMORY.md", max_chars=10)
    assert file is not None
    assert file.metadata == {"by": "ada"}
    found = str(await run("ada", "search_memory", query="coffee"))
    assert "Ada takes her coffee black" in found
    assert "'file': 'drinks.md'" in found
    assert "coffee black" not in str(await run("bob", "search_memory", query="coffee"))
    assert {str(record.key) for record in (await memory.list("ada", scope="pydantic-ai")).items} == {
        "pydantic-ai/main/MEMORY.md",
        "pydantic-ai/main/drinks.md",
    }
