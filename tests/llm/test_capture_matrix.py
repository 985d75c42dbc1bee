"""The capture matrix: every shape of call, with the real SDKs, is answered as without memory, and captured."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
import shapes
from anthropic import Anthropic, AsyncAnthropic
from fake_llm import MEMORIES, FakeLLM
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from remembering_shelf import KNOWN, Shelf
from shapes import ANTHROPIC, OPENAI, Shape, got

from openproto import AsyncMemory, Memory
from openproto.integrations.llm import CaptureQueue, wrap

# Reading the machine's certificates takes most of a client's making, and a loopback server needs none.
CLIENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "OpenAI": (OpenAI, openai.DefaultHttpxClient),
    "AsyncOpenAI": (AsyncOpenAI, openai.DefaultAsyncHttpxClient),
    "Anthropic": (Anthropic, anthropic.DefaultHttpxClient),
    "AsyncAnthropic": (AsyncAnthropic, anthropic.DefaultAsyncHttpxClient),
}
MATRIX = [(name, each) for name in CLIENTS for each in (OPENAI if "OpenAI" in name else ANTHROPIC)]
PLAIN = [(name, each) for name, each in MATRIX if each.name.endswith(("create", "blocks", "helper"))]


def plain(value: Any) -> Any:
    """Return models as what they hold, classes included."""
    if isinstance(value, BaseModel):
        return type(value).__name__, {name: plain(field) for name, field in value}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def without_memories(body: bytes) -> Any:
    """Return the request without a block of memories, and with a system prompt in blocks."""
    request = json.loads(body)
    if isinstance(request.get("system"), str):
        request["system"] = [{"type": "text", "text": request["system"]}]
    for place in ("messages", "system"):
        if place in request:
            request[place] = [m for m in request[place] if not MEMORIES.search(str(m))]
    if instructions := request.get("instructions"):
        request["instructions"] = MEMORIES.sub("", instructions).removesuffix("\n\n")
    return {name: value for name, value in request.items() if value or name not in ("system", "instructions")}


async def run(name: str, each: Shape, around: Callable[[Any], Any] = lambda client: client) -> tuple[Any, FakeLLM]:
    sdk, http = CLIENTS[name]
    with FakeLLM() as llm:
        base_url = llm.openai_url if "OpenAI" in name else llm.url
        client = sdk(base_url=base_url, api_key="k", http_client=http(verify=False))
        result = plain(await each.run(around(client)))
        await got(client.close())
    return result, llm


@pytest.mark.promise(43, 46, 48, 52, 56)
@pytest.mark.parametrize(("name", "each"), MATRIX, ids=lambda value: getattr(value, "name", value))
async def test_each_shape_is_answered_as_without_memory_and_captured(name: str, each: Shape) -> None:
    expected, bare = await run(name, each)
    given = copy.deepcopy([getattr(shapes, name) for name in ("CHAT", "RESPONSE", "MESSAGE", "CACHED")])

    shelf = Shelf(KNOWN)
    queue = CaptureQueue(memory := (AsyncMemory if "Async" in name else Memory)(shelf), keep="both")
    result, llm = await run(name, each, lambda client: wrap(client, queue, user_id="ada"))
    assert await queue.flush(5)
    stats = queue.stats()
    await got(memory.close())

    assert result == expected
    assert given == [shapes.CHAT, shapes.RESPONSE, shapes.MESSAGE, shapes.CACHED], "the caller's arguments are its own"
    assert [without_memories(r.body) for r in llm.requests] == [without_memories(r.body) for r in bare.requests]
    recalls = each.name != "responses_tool_result"  # where the user's words stand in an earlier request
    assert [len(r.memories) for r in llm.requests] == [int(recalls)]
    assert not recalls or KNOWN[1] in llm.requests[0].memories[0]
    assert shelf.contents("ada") == [text for text in (each.user, each.reply) if text]
    replies = [record for record in shelf.kept.values() if "assistant" in record.tags]
    assert [("partial" in record.tags) for record in replies] == [each.partial] * bool(each.reply)
    assert stats.last_error is None


@pytest.mark.parametrize(("name", "each"), PLAIN, ids=lambda value: getattr(value, "name", value))
async def test_without_recall_the_very_same_bytes_are_sent(name: str, each: Shape) -> None:
    _, bare = await run(name, each)
    memory = (AsyncMemory if "Async" in name else Memory)(Shelf(KNOWN))
    _, llm = await run(name, each, lambda client: wrap(client, memory, user_id="ada", recall=False))
    await got(memory.close())
    assert [(r.path, r.body) for r in llm.requests] == [(r.path, r.body) for r in bare.requests]
