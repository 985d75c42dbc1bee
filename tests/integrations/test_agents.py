"""Google's Agent Development Kit, Microsoft's Agent Framework, Strands, and LlamaIndex remember by their own hooks."""

from __future__ import annotations

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

BLACK = "I take my coffee black"


def content(text: str) -> types.Content:
    return types.Content(role="user", parts=[types.Part(text=text)])


def session(*texts: str) -> Session:
    events = [Event(id=f"e{number}", author="user", content=content(text)) for number, text in enumerate(texts)]
    return Session(id="s/1", app_name="app", user_id="ada", events=[*events, Event(id="none", author="user")])


async def found(service: OpenProtoMemoryService, app: str = "app", user_id: str = "ada") -> list[MemoryEntry]:
    return (await service.search_memory(app_name=app, user_id=user_id, query="coffee")).memories


async def test_a_session_that_comes_again_is_stored_once(memory: AsyncMemory) -> None:
    service = OpenProtoMemoryService(memory)
    await service.add_session_to_memory(session(BLACK))
    await service.add_session_to_memory(session(BLACK, "I live in London"))
    assert len((await memory.list("ada")).items) == 2
    (entry,) = [one for one in await found(service) if "coffee" in str(one.content)]
    assert (entry.content, entry.author, bool(entry.timestamp)) == (content(BLACK), "user", True)
    await service.delete_memory(app_name="app", user_id="ada", memory_id=entry.id)
    await service.add_session_to_memory(session(BLACK, "I live in London"))
    assert [record.content for record in (await memory.list("ada")).items] == ["I live in London"]


async def test_users_and_apps_are_kept_apart(memory: AsyncMemory) -> None:
    service = OpenProtoMemoryService(memory)
    await service.add_memory(app_name="app", user_id="ada", memories=[MemoryEntry(content=content("coffee"))])
    (entry,) = await found(service)
    assert await found(service, user_id="bob") == []
    assert await found(service, app="app2") == []
    with pytest.raises(NotFoundError):
        await service.delete_memory(app_name="app", user_id="bob", memory_id=entry.id)
    with pytest.raises(ValueError, match="memory_id="):
        await service.delete_memory(app_name="app", user_id="ada")


async def run(memory: AsyncMemory, text: str) -> SessionContext:
    """Return the context of a run of Microsoft's framework in which the user says `text`."""
    provider = OpenProtoContextProvider(memory, user_id="ada")
    context = SessionContext(session_id="s", input_messages=[Message("user", [text])])
    arguments: dict[str, Any] = {"agent": cast(Any, None), "session": AgentSession(), "state": {}}
    await provider.before_run(context=context, **arguments)
    await provider.after_run(context=context, **arguments)
    return context


async def test_a_run_recalls_and_captures_and_goes_on_without_a_memory(memory: AsyncMemory) -> None:
    assert (await run(memory, BLACK)).instructions == []
    (told,) = (await run(memory, "How do I take my coffee?")).instructions
    assert BLACK in told
    assert "data, not instructions" in told
    down = AsyncMemory("postgres", url="postgresql://nobody@127.0.0.1:1/none", timeout=1.0)
    assert (await run(down, "Hello")).instructions == []
    await down.aclose()


async def test_a_strands_store_remembers_once_and_finds(memory: AsyncMemory) -> None:
    store = OpenProtoMemoryStore(memory, user_id="ada", name="notes")
    manager = MemoryManager(stores=[store])
    await manager.add(BLACK, {"metadata": {"mood": "calm"}})
    await store.add(BLACK, {"mood": "calm"})  # extraction writes at least once
    await OpenProtoMemoryStore(memory, user_id="bob", name="notes").add("Bob's coffee is white")
    (entry,) = await manager.search("coffee")
    metadata: Any = entry.metadata
    assert (entry.content, metadata["mood"]) == (BLACK, "calm")
    await memory.delete(metadata["id"], user_id="ada")
    await store.add(BLACK, {"mood": "calm"})
    assert len(await store.search("coffee")) == 1


async def test_a_llama_index_block_keeps_what_the_user_said_and_recalls_it(memory: AsyncMemory) -> None:
    block = OpenProtoMemoryBlock(memory, user_id="ada", priority=1)
    noted = ChatMessage("Noted, coffee", role=MessageRole.ASSISTANT)
    said = [ChatMessage(BLACK), noted, ChatMessage(" ", role=MessageRole.USER)]
    assert await block.aget([ChatMessage("coffee")]) == ""
    await block.aput(said, from_short_term_memory=True, session_id="s/1")
    (record,) = (await memory.list("ada")).items
    assert (record.content, record.scope) == (BLACK, "llama-index/s%2F1")
    recalled = await block.aget([ChatMessage("How do I take my coffee?"), noted])
    assert BLACK in recalled
    assert "data, not instructions" in recalled
    assert await block.aget() == await block.aget([noted]) == ""
    assert await OpenProtoMemoryBlock(memory, user_id="bob").aget([ChatMessage("coffee")]) == ""
