"""The kits for agents remember by their own hooks, and spans and metrics tell nothing of whom or what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from agent_framework import AgentSession, Message, SessionContext
from agents import Agent, Runner, SessionSettings
from agents.testing import ScriptedModel, assistant_message
from google.adk.events.event import Event
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.session import Session
from google.genai import types
from llama_index.core.llms import ChatMessage, MessageRole
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from strands.memory import MemoryManager

from openproto import AsyncMemory, Memory, NotFoundError
from openproto.integrations.agent_framework import OpenProtoContextProvider
from openproto.integrations.google_adk import OpenProtoMemoryService
from openproto.integrations.llama_index import OpenProtoMemoryBlock
from openproto.integrations.openai_agents import OpenProtoSession
from openproto.integrations.opentelemetry import OPERATIONS as OPERATIONS_OF_VERBS
from openproto.integrations.opentelemetry import trace_calls
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


ITEMS: list[Any] = [
    {"role": "user", "content": "Hello"},
    {"role": "user", "content": "Hello"},
    {"type": "function_call_output", "call_id": "1", "output": "a NUL \0, half a pair \ud800, \u200f right to left"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "é" * 150_000, "annotations": []}]},
    {"role": "user", "content": None, "number": 2**60, "nested": [{"deep": True}, 1.0, None]},
]


def spoken(*numbers: int) -> list[Any]:
    return [{"role": "user", "content": str(number)} for number in numbers]


async def test_items_come_back_as_they_were(memory: AsyncMemory) -> None:
    session = OpenProtoSession("one/two", memory, user_id="ada")
    await session.add_items(ITEMS[:2])
    await session.add_items(ITEMS[2:])
    assert repr(await session.get_items()) == repr(ITEMS)
    assert await session.get_items(limit=2) == ITEMS[-2:]
    assert await session.get_items(limit=0) == []
    assert [await session.pop_item() for _ in range(6)] == [*reversed(ITEMS), None]


async def test_conversations_and_users_do_not_mix(memory: AsyncMemory) -> None:
    names = (("a/b", "ada"), ("a", "ada"), ("a/b", "bob"), ("a%2Fb", "ada"))
    sessions = [OpenProtoSession(name, memory, user_id=user_id) for name, user_id in names]
    for number, session in enumerate(sessions):
        await session.add_items(spoken(number))
    assert [await session.get_items() for session in sessions] == [spoken(number) for number in range(4)]
    await sessions[1].clear_session()
    assert [len(await session.get_items()) for session in sessions] == [1, 0, 1, 1]


async def test_each_item_is_popped_once(memory: AsyncMemory) -> None:
    session = OpenProtoSession("s", memory, user_id="ada")
    await session.add_items(spoken(*range(10)))
    popped: list[Any] = await asyncio.gather(*(session.pop_item() for _ in range(12)))
    assert sorted(filter(None, popped), key=lambda item: item["content"]) == spoken(*range(10))


async def test_the_history_is_not_found_as_memories(memory: AsyncMemory) -> None:
    await OpenProtoSession("s", memory, user_id="ada").add_items([{"role": "user", "content": "coffee"}])
    assert await memory.search("an item of the conversation", "ada") == []
    assert (await memory.context("coffee", "ada")).text == ""


def test_an_agent_remembers_on_any_loop(blocking: Memory) -> None:
    async def run(words: str, answer: str) -> list[Any]:
        model = ScriptedModel([[assistant_message(answer)]])
        session = OpenProtoSession("s", blocking, user_id="ada", session_settings=SessionSettings(limit=10))
        await Runner.run(Agent(name="agent", model=model), words, session=session)
        return await session.get_items()

    asyncio.run(run("I am Ada", "Hello Ada"))
    items = asyncio.run(run("Who am I?", "Ada"))
    assert [item["role"] for item in items] == ["user", "assistant", "user", "assistant"]


async def test_what_is_no_item_is_passed_over(memory: AsyncMemory) -> None:
    session = OpenProtoSession("s", memory, user_id="ada")
    await session.add_items(ITEMS[:1])
    scope = "openai-agents/s"
    await memory.add("another program's", user_id="ada", scope=scope)
    broken = {"item": "1", "part": 0, "parts": 1, "json": "{"}
    await memory.add("broken", user_id="ada", scope=scope, x_openai_agents=broken)
    assert await session.get_items(limit=1) == ITEMS[:1]
    assert [await session.pop_item() for _ in range(2)] == [ITEMS[0], None]


# What the registry of the conventions (schema gen-ai-dev/1.42.0-dev) says of the span gen_ai.memory.client.
OPERATIONS = {"create_memory", "update_memory", "upsert_memory", "search_memory", "delete_memory"}
ATTRIBUTES = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.memory.record.id", "error.type"}

SECRETS = ("ada-secret-user", "her secret coffee", "secret query")


async def some_calls(memory: AsyncMemory) -> None:
    async with memory:
        record = await memory.add(SECRETS[1], user_id=SECRETS[0], scope="food")
        await memory.search(SECRETS[2], SECRETS[0])
        await memory.update(record.id, user_id=SECRETS[0], confidence=1.0)
        with pytest.raises(NotFoundError):
            await memory.get("nothing", user_id=SECRETS[0])
        await memory.delete(record.id, user_id=SECRETS[0])


async def test_spans_and_durations(tmp_path: Path) -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observer = trace_calls(tracers, MeterProvider([reader]))
    with tracers.get_tracer("test").start_as_current_span("request") as request:
        await some_calls(AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder=None, observers=[observer]))
        await asyncio.sleep(0)
    *spans, parent = exporter.get_finished_spans()
    assert parent.name == "request"
    names = [span.name for span in spans]
    assert {*OPERATIONS_OF_VERBS.values()} == OPERATIONS
    assert names == ["create_memory", "search_memory", "update_memory", "get", "delete_memory"]
    for span in spans:
        assert span.kind is SpanKind.CLIENT
        assert span.attributes is not None
        assert span.attributes["gen_ai.operation.name"] == span.name
        assert span.attributes["gen_ai.provider.name"] == "sqlite"
        assert {name for name in span.attributes if not name.startswith("openproto.")} <= ATTRIBUTES
        assert span.name in OPERATIONS | {"get"}  # reading by id has no name there
        named = span.name in ("update_memory", "get", "delete_memory")
        assert ("gen_ai.memory.record.id" in span.attributes) == named
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert 0 < (span.start_time or 0) <= (span.end_time or 0)
    failed = spans[3]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "not_found"
    written = "".join(span.to_json() for span in spans) + str(reader.get_metrics_data())
    assert not any(secret in written for secret in SECRETS)
    assert "gen_ai.client.operation.duration" in written
