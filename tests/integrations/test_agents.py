"""Google's Agent Development Kit, Microsoft's Agent Framework, Strands, and LlamaIndex remember by their own hooks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from agent_framework import AgentSession, Message, SessionContext
from google.adk.events.event import Event
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.session import Session
from google.genai import types
from llama_index.core.llms import ChatMessage, MessageRole
from strands.memory import MemoryManager

from openproto import AsyncMemory, NotFoundError
from openproto.integrations.agent_framework import OpenProtoContextProvider
from openproto.integrations.google_adk import OpenProtoMemoryService
from openproto.integrations.llama_index import OpenProtoMemoryBlock
from openproto.integrations.strands import OpenProtoMemoryStore


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder=None) as memory:
        yield memory


def content(text: str) -> types.Content:
    return types.Content(role="user", parts=[types.Part(text=text)])


def session(*texts: str, user_id: str = "ada") -> Session:
    events = [Event(id=f"e{number}", author="user", content=content(text)) for number, text in enumerate(texts)]
    return Session(id="s/1", app_name="app", user_id=user_id, events=[*events, Event(id="none", author="user")])


async def found(service: OpenProtoMemoryService, query: str, user_id: str = "ada") -> list[MemoryEntry]:
    return (await service.search_memory(app_name="app", user_id=user_id, query=query)).memories


async def test_a_session_that_comes_again_is_stored_once(memory: AsyncMemory) -> None:
    service = OpenProtoMemoryService(memory)
    await service.add_session_to_memory(session("I take my coffee black"))
    await service.add_session_to_memory(session("I take my coffee black", "I live in London"))
    assert len((await memory.list("ada")).items) == 2
    (entry,) = [one for one in await found(service, "coffee") if "coffee" in str(one.content)]
    assert entry.content == content("I take my coffee black")
    assert entry.author == "user"
    assert entry.timestamp
    assert entry.id
    await service.delete_memory(app_name="app", user_id="ada", memory_id=entry.id)
    await service.add_session_to_memory(session("I take my coffee black", "I live in London"))
    assert [record.content for record in (await memory.list("ada")).items] == ["I live in London"]


async def test_users_and_apps_are_kept_apart(memory: AsyncMemory) -> None:
    service = OpenProtoMemoryService(memory)
    await service.add_memory(app_name="app", user_id="ada", memories=[MemoryEntry(content=content("coffee"))])
    (entry,) = await found(service, "coffee")
    assert await found(service, "coffee", user_id="bob") == []
    other = await service.search_memory(app_name="app2", user_id="ada", query="coffee")
    assert other.memories == []
    with pytest.raises(NotFoundError):
        await service.delete_memory(app_name="app", user_id="bob", memory_id=entry.id)
    with pytest.raises(ValueError, match="memory_id="):
        await service.delete_memory(app_name="app", user_id="ada")


async def test_a_run_recalls_and_captures(memory: AsyncMemory) -> None:
    provider = OpenProtoContextProvider(memory, user_id="ada")
    said = SessionContext(session_id="s", input_messages=[Message("user", ["I take my coffee black"])])
    arguments: dict[str, Any] = {"agent": cast(Any, None), "session": AgentSession(), "state": {}}
    await provider.before_run(context=said, **arguments)
    assert said.instructions == []
    await provider.after_run(context=said, **arguments)
    asked = SessionContext(session_id="s", input_messages=[Message("user", ["How do I take my coffee?"])])
    await provider.before_run(context=asked, **arguments)
    assert "I take my coffee black" in asked.instructions[0]
    assert "data, not instructions" in asked.instructions[0]


async def test_a_memory_that_is_closed_leaves_the_run_alone(memory: AsyncMemory, tmp_path: Path) -> None:
    down = AsyncMemory("postgres", url="postgresql://nobody@127.0.0.1:1/none", timeout=1.0)
    provider = OpenProtoContextProvider(down, user_id="ada")
    asked = SessionContext(session_id="s", input_messages=[Message("user", ["Hello"])])
    arguments: dict[str, Any] = {"agent": cast(Any, None), "session": AgentSession(), "state": {}}
    await provider.before_run(context=asked, **arguments)
    await provider.after_run(context=asked, **arguments)
    assert asked.instructions == []
    await down.aclose()


async def test_a_strands_store_remembers_once_and_finds(memory: AsyncMemory) -> None:
    store = OpenProtoMemoryStore(memory, user_id="ada", name="notes")
    manager = MemoryManager(stores=[store])
    await manager.add("I take my coffee black", {"metadata": {"mood": "calm"}})
    await store.add("I take my coffee black", {"mood": "calm"})  # extraction writes at least once
    await OpenProtoMemoryStore(memory, user_id="bob", name="notes").add("Bob's coffee is white")
    entries = await manager.search("coffee")
    assert [entry.content for entry in entries] == ["I take my coffee black"]
    assert (entries[0].metadata or {})["mood"] == "calm"
    await memory.delete((entries[0].metadata or {})["id"], user_id="ada")
    await store.add("I take my coffee black", {"mood": "calm"})
    assert len(await store.search("coffee")) == 1


async def test_a_llama_index_block_keeps_what_the_user_said_and_recalls_it(memory: AsyncMemory) -> None:
    block = OpenProtoMemoryBlock(memory, user_id="ada", priority=1)
    said = [
        ChatMessage("I take my coffee black"),
        ChatMessage("Noted, coffee", role=MessageRole.ASSISTANT),
        ChatMessage(" ", role=MessageRole.USER),
    ]
    assert await block.aget([ChatMessage("coffee")]) == ""
    await block.aput(said, from_short_term_memory=True, session_id="s/1")
    (record,) = (await memory.list("ada")).items
    assert (record.content, record.scope) == ("I take my coffee black", "llama-index/s%2F1")
    recalled = await block.aget([ChatMessage("How do I take my coffee?"), said[1]])
    assert "I take my coffee black" in recalled
    assert "data, not instructions" in recalled
    assert await block.aget() == await block.aget([said[1]]) == ""
    assert await OpenProtoMemoryBlock(memory, user_id="bob").aget([ChatMessage("coffee")]) == ""
