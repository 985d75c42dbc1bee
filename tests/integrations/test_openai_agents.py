"""The session keeps what the Agents SDK gives it: exactly, in order, however large, each conversation for itself."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, Runner, SessionSettings
from agents.testing import ScriptedModel, assistant_message

from openproto import AsyncMemory, Memory
from openproto.integrations.openai_agents import OpenProtoSession

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
