"""The capture matrix: every shape of call, with the real SDKs, is answered as without memory, and captured."""

from __future__ import annotations

import copy
import gc
import inspect
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import anthropic
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from fake_llm import MEMORIES, FakeLLM, Received
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from remembering_shelf import KNOWN, Shelf

from openproto import AsyncMemory, Memory
from openproto.integrations.llm import CaptureQueue, wrap

SAID = "I live in Oslo"
REPLY = "You said: I live in Oslo"
JSON_REPLY = '{"answer": "I live in Oslo"}'

Call: TypeAlias = Callable[[Any], Any]
"""Calls a client; what it returns may have to be awaited."""
Use: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Uses what a call returned, and returns what is to be the same with memory and without."""

HELD: list[Any] = []
"""The last stream of a block: it is captured because it is left, and not because it is forgotten."""


class Answer(BaseModel):
    answer: str


async def got(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class Shape(NamedTuple):
    """A call, and what is to be captured of it: the user's words, the reply, and whether it was cut off."""

    name: str
    call: Call
    use: Use = got
    in_block: bool = False
    user: str | None = SAID
    reply: str | None = REPLY
    partial: bool = False

    async def run(self, client: Any) -> Any:
        if not self.in_block:
            return await self.use(await got(self.call(client)))
        manager = await got(self.call(client))
        async with AsyncExitStack() as stack:
            is_async = hasattr(manager, "__aenter__")
            stream = await stack.enter_async_context(manager) if is_async else stack.enter_context(manager)
            HELD[:] = [stream]
            return await self.use(stream)


def block(name: str, call: Call, use: Use, **captured: Any) -> Shape:
    """Return the shape of a call whose result is used in a `with` block."""
    return Shape(name, call, use, in_block=True, **captured)


def call(path: str, given: dict[str, Any], **others: Any) -> Call:
    """Return a call of a client's method: with `given`, or with other arguments in their place."""
    return lambda client: attrgetter(path)(client)(**{**given, **others})


async def read(stream: Any) -> list[Any]:
    return [item async for item in stream] if hasattr(stream, "__aiter__") else list(stream)


async def following(stream: Any) -> Any:
    return await anext(stream) if hasattr(stream, "__anext__") else next(stream)


def first(count: int) -> Use:
    """Return what takes the first events of a stream and leaves the others."""

    async def take(stream: Any) -> list[Any]:
        return [await following(stream) for _ in range(count)]

    return take


async def closed(stream: Any) -> Any:
    events = await first(2)(stream)
    await got(stream.close())
    return events


async def parsed(response: Any) -> Any:
    return await got(response.parse())


async def parsed_and_read(response: Any) -> Any:
    return response.status_code, await read(await parsed(response))


async def until_done(stream: Any) -> Any:
    assert await got(stream.until_done()) is stream
    return stream.current_completion_snapshot


def final(what: str) -> Use:
    return lambda stream: got(getattr(stream, f"get_final_{what}")())


async def forgotten(stream: Any) -> Any:
    events = await first(2)(stream)
    await got(stream.response.aclose() if hasattr(stream, "__anext__") else stream.response.close())
    del stream  # the last that knows of it
    gc.collect()
    return events


SYSTEM, DEVELOPER = ({"role": role, "content": "Be brief."} for role in ("system", "developer"))
USER = {"role": "user", "content": SAID}
CHAT: dict[str, Any] = {"model": "m", "messages": [SYSTEM, USER]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
RESULT = [
    {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]
PARTS = [{"type": "text", "text": SAID}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
USAGE = {"include_usage": True}

RESPONSE: dict[str, Any] = {"model": "m", "instructions": "Be brief.", "input": SAID}
RESPONSE_TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
OUTPUT: dict[str, Any] = {
    "previous_response_id": "resp_0",
    "input": [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}],
}
ITEM = {"role": "user", "content": [{"type": "input_text", "text": SAID}]}

MESSAGE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [USER]}
CACHED = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
MESSAGE_TOOLS = [{"name": "weather", "input_schema": {"type": "object"}}]
USED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
RAIN = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
AFTER_TOOL = [
    USER,
    {"role": "assistant", "content": [USED]},
    {"role": "user", "content": [RAIN, {"type": "text", "text": SAID}]},
]
BEGUN = {"role": "assistant", "content": "Well,"}

LEFT: dict[str, Any] = {"reply": "You ", "partial": True}
JSON: dict[str, Any] = {"reply": JSON_REPLY}
CALLED: dict[str, Any] = {"reply": None}

chat, helper = (partial(call, f"chat.completions.{name}", CHAT) for name in ("create", "stream"))
respond, stream_response = (partial(call, f"responses.{name}", RESPONSE) for name in ("create", "stream"))
message, stream_message = (partial(call, f"messages.{name}", MESSAGE) for name in ("create", "stream"))
raw_chat = partial(call, "chat.completions.with_raw_response.create", CHAT)
raw_message = partial(call, "messages.with_raw_response.create", MESSAGE)
ANSWER = {**CHAT, "response_format": Answer}

OPENAI = [
    Shape("chat_create", chat()),
    Shape("chat_create_with_parts", chat(messages=[{"role": "user", "content": PARTS}])),
    Shape("chat_create_from_an_iterator", lambda c: chat(messages=iter([SYSTEM, USER]))(c)),
    Shape("chat_create_with_a_developer_message", chat(messages=[DEVELOPER, USER])),
    Shape("chat_stream", chat(stream=True), read),
    Shape("chat_stream_with_usage", chat(stream=True, stream_options=USAGE), read),
    block("chat_stream_in_a_block", chat(stream=True), read),
    block("chat_stream_left_early", chat(stream=True), first(2), **LEFT),
    Shape("chat_stream_closed", chat(stream=True), closed, **LEFT),
    Shape("chat_stream_forgotten", chat(stream=True), forgotten, **LEFT),
    Shape("chat_parse", call("chat.completions.parse", ANSWER), **JSON),
    Shape("chat_beta_parse", call("beta.chat.completions.parse", ANSWER), **JSON),
    block("chat_helper", helper(), read),
    block("chat_helper_final", helper(), final("completion")),
    block("chat_helper_until_done", helper(), until_done),
    block("chat_helper_left_early", helper(), following, reply="", partial=True),
    Shape("chat_tool_call", chat(tools=TOOLS), **CALLED),
    Shape("chat_tool_call_stream", chat(tools=TOOLS, stream=True), read, **CALLED),
    Shape("chat_tool_result", chat(messages=[SYSTEM, USER, *RESULT], tools=TOOLS), user=None),
    Shape("chat_with_options", lambda c: chat()(c.with_options(timeout=9))),
    Shape("chat_copied_twice", lambda c: chat()(c.copy().with_options(max_retries=0))),
    Shape("chat_raw", raw_chat(), parsed),
    Shape("chat_raw_client", call("with_raw_response.chat.completions.create", CHAT), parsed),
    Shape("chat_raw_parse", call("chat.completions.with_raw_response.parse", ANSWER), parsed, **JSON),
    Shape("chat_raw_stream", raw_chat(stream=True), parsed_and_read),
    Shape("responses_create", respond()),
    Shape("responses_create_with_items", respond(input=[ITEM])),
    Shape("responses_stream", respond(stream=True), read),
    block("responses_stream_left_early", respond(stream=True), first(4), **LEFT),
    Shape("responses_parse", call("responses.parse", RESPONSE, text_format=Answer), **JSON),
    block("responses_helper", stream_response(), read),
    block("responses_helper_final", stream_response(), final("response")),
    Shape("responses_tool_call", respond(tools=RESPONSE_TOOLS), **CALLED),
    Shape("responses_tool_result", respond(**OUTPUT), user=None, reply="You said: "),
    Shape("responses_raw", call("responses.with_raw_response.create", RESPONSE), parsed),
    Shape("responses_beta", call("beta.responses.create", RESPONSE)),
]

ANTHROPIC = [
    Shape("messages_create", message()),
    Shape("messages_create_with_a_system_text", message(system="Be brief.")),
    Shape("messages_create_with_system_blocks", message(system=[CACHED])),
    Shape("messages_create_with_a_begun_reply", message(messages=[USER, BEGUN])),
    Shape("messages_stream", message(stream=True), read),
    block("messages_stream_left_early", message(stream=True), first(3), **LEFT),
    block("messages_helper", stream_message(system=[CACHED]), read),
    block("messages_helper_texts", stream_message(), lambda stream: read(stream.text_stream)),
    block("messages_helper_texts_left_early", stream_message(), lambda s: following(s.text_stream), **LEFT),
    block("messages_helper_final", stream_message(), final("message")),
    block("messages_helper_final_text", stream_message(), final("text")),
    Shape("messages_tool_use", message(tools=MESSAGE_TOOLS), **CALLED),
    block("messages_tool_use_helper", stream_message(tools=MESSAGE_TOOLS), final("message"), **CALLED),
    Shape("messages_tool_result", message(messages=AFTER_TOOL, tools=MESSAGE_TOOLS), user=None),
    Shape("messages_parse", call("messages.parse", MESSAGE, output_format=Answer), **JSON),
    Shape("messages_raw", raw_message(), parsed),
    Shape("messages_raw_stream", raw_message(stream=True), parsed_and_read),
    Shape("messages_beta", call("beta.messages.create", MESSAGE)),
    block("messages_beta_helper", call("beta.messages.stream", MESSAGE), final("message")),
    Shape("messages_with_options", lambda c: message()(c.with_options(timeout=9))),
]


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


async def run(
    llm: FakeLLM, name: str, each: Shape, around: Callable[[Any], Any] = lambda client: client
) -> tuple[Any, list[Received]]:
    """Return what the call gave, and what the model was asked, which answers as if it were the first time."""
    llm.ids, llm.requests = itertools.count(1), []
    sdk, http = CLIENTS[name]
    base_url = llm.openai_url if "OpenAI" in name else llm.url
    client = sdk(base_url=base_url, api_key="k", http_client=http(verify=False))
    result = plain(await each.run(around(client)))
    await got(client.close())
    return result, llm.requests


@pytest.mark.parametrize(("name", "each"), MATRIX, ids=lambda value: getattr(value, "name", value))
async def test_each_shape_is_answered_as_without_memory_and_captured(llm: FakeLLM, name: str, each: Shape) -> None:
    expected, bare = await run(llm, name, each)
    given = copy.deepcopy([CHAT, RESPONSE, MESSAGE, CACHED])

    shelf = Shelf(KNOWN)
    queue = CaptureQueue(memory := (AsyncMemory if "Async" in name else Memory)(shelf), keep="both")
    result, asked = await run(llm, name, each, lambda client: wrap(client, queue, user_id="ada"))
    assert await queue.flush(5)
    stats = queue.stats()
    await got(memory.close())

    assert result == expected
    assert given == [CHAT, RESPONSE, MESSAGE, CACHED], "the caller's arguments are its own"
    assert [without_memories(r.body) for r in asked] == [without_memories(r.body) for r in bare]
    recalls = each.name != "responses_tool_result"  # where the user's words stand in an earlier request
    assert [len(r.memories) for r in asked] == [int(recalls)]
    assert not recalls or KNOWN[1] in asked[0].memories[0]
    assert shelf.contents("ada") == [text for text in (each.user, each.reply) if text]
    replies = [record for record in shelf.kept.values() if "assistant" in record.tags]
    assert [("partial" in record.tags) for record in replies] == [each.partial] * bool(each.reply)
    assert stats.last_error is None


@pytest.mark.parametrize(("name", "each"), PLAIN, ids=lambda value: getattr(value, "name", value))
async def test_without_recall_the_very_same_bytes_are_sent(llm: FakeLLM, name: str, each: Shape) -> None:
    _, bare = await run(llm, name, each)
    memory = (AsyncMemory if "Async" in name else Memory)(Shelf(KNOWN))
    _, asked = await run(llm, name, each, lambda client: wrap(client, memory, user_id="ada", recall=False))
    await got(memory.close())
    assert asked == bare
