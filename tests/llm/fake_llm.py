"""A stand-in for a language model: OpenAI's and Anthropic's HTTP, whole and streamed, with predictable replies.

It repeats what the user said, calls the first tool it is offered until it has a result, lists the memories in the
prompt when asked what it remembers, and answers extractors by `extract`. Ids count up from 1, so that two
fresh servers answer the same calls alike.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

Json = dict[str, Any]
Events = tuple[Json, list[tuple[str | None, Any]]]
"""A whole answer, and the same as named events."""

ARGUMENTS = '{"city": "Oslo"}'
MEMORIES = re.compile(r"<recalled_memories>.*</recalled_memories>", re.DOTALL)


def say(client: Any, text: str, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **options)


class Received(NamedTuple):
    path: str
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def memories(self) -> list[str]:
        """The blocks of recalled memories in the request."""
        return MEMORIES.findall(json.dumps(self.json, ensure_ascii=False).replace("\\n", "\n"))


class FakeLLM(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.openai_url = f"{self.url}/v1"
        self.requests: list[Received] = []
        self.disconnected = threading.Event()
        self.pause_between_chunks = 0.0
        self.fail_next = 0
        self.extract: Callable[[Json], Json] | None = None
        self.ids = itertools.count(1)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeLLM  # pyright: ignore[reportIncompatibleVariableOverride]  # only this server uses this handler

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        llm = self.server
        received = Received(self.path, self.rfile.read(int(self.headers["Content-Length"])))
        llm.requests.append(received)
        if llm.fail_next:
            llm.fail_next -= 1
            self._answer({"error": {"type": "invalid_request_error", "message": "told to fail"}}, status=400)
            return
        body = received.json
        kind = {"/v1/chat/completions": _chat, "/v1/responses": _responses, "/v1/messages": _messages}
        whole, events = kind[self.path.partition("?")[0]](body, next(llm.ids))
        if llm.extract is not None and b"You keep the notes" in received.body:
            self._answer(_extracted(whole, llm.extract(json.loads(body["messages"][-1]["content"]))))
        elif not body.get("stream"):
            self._answer(whole)
        elif "chat" in self.path:
            usage = [(None, {**events[-1][1], "choices": []})] if body.get("stream_options") else []
            self._stream([*events, *usage, (None, "[DONE]")])
        else:
            self._stream(events)

    def _answer(self, value: Json, status: int = 200) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, events: list[tuple[str | None, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for name, event in events:
                data = event if isinstance(event, str) else json.dumps(event)
                raw = f"{f'event: {name}' + chr(10) if name else ''}data: {data}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
                time.sleep(self.server.pause_between_chunks)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.disconnected.set()
            self.close_connection = True


def _texts(content: Any) -> str:
    blocks = [content] if isinstance(content, str) else content or []
    texts = (block if isinstance(block, str) else str(block.get("text", "")) for block in blocks)
    return "\n".join(text for text in texts if text)


def _reply(messages: list[Json], *, prompt: str, json_wanted: Any) -> str:
    said = next((_texts(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
    if json_wanted:
        return json.dumps({"answer": said})
    if "remember" in said:
        notes = "; ".join(line for line in prompt.splitlines() if line.endswith("]"))
        return f"I remember: {notes}" if notes else "I remember nothing."
    return f"You said: {said}"


def _extracted(whole: Json, answer: Json) -> Json:
    """Put what an extractor was asked for into the answer: as text, or as the input of Anthropic's tool."""
    if "choices" in whole:
        whole["choices"][0]["message"] = {"role": "assistant", "content": json.dumps(answer)}
    else:
        whole["content"] = [{"type": "tool_use", "id": "toolu_1", "name": "keep", "input": answer}]
    return whole


def _words(text: str) -> Iterator[str]:
    return (part for part in re.split(r"(?<= )", text) if part)


def _chat(body: Json, number: int) -> Events:
    messages = body["messages"]
    head = {"id": f"chatcmpl-{number}", "created": 1, "model": body["model"]}
    if body.get("tools") and messages[-1]["role"] != "tool":
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
        message: Json = {"content": None, "tool_calls": [call]}
        deltas: list[Json] = [{"content": None}, {"tool_calls": [{"index": 0, **call}]}]
    else:
        prompt = "\n".join(_texts(m.get("content")) for m in messages if m["role"] in ("system", "developer"))
        message = {"content": _reply(messages, prompt=prompt, json_wanted="response_format" in body)}
        deltas = [{"content": ""}, *({"content": word} for word in _words(message["content"]))]
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choices: list[Json] = [{"delta": delta, "finish_reason": None} for delta in deltas]
    choices[0]["delta"]["role"] = "assistant"
    choices.append({"delta": {}, "finish_reason": reason})
    chunk = {**head, "object": "chat.completion.chunk"}
    events: list[tuple[str | None, Any]] = [(None, {**chunk, "choices": [{"index": 0, **each}]}) for each in choices]
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}, events


def _responses(body: Json, number: int) -> Events:
    given = body.get("input") or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    tools = body.get("tools", [])
    head = {"id": f"resp_{number}", "object": "response", "created_at": 1, "model": body["model"], "tools": tools}
    head |= {"parallel_tool_calls": True, "tool_choice": "auto"}
    at = {"item_id": "item_1", "output_index": 0, "content_index": 0}
    item: Json = {"id": "item_1", "status": "completed"}
    if tools and items[-1].get("type") != "function_call_output":
        item |= {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": ARGUMENTS}
        return {**head, "status": "completed", "output": [item]}, []
    text = _reply(items, prompt=body.get("instructions") or "", json_wanted="format" in body.get("text", {}))
    part = {"type": "output_text", "text": text, "annotations": []}
    item |= {"type": "message", "role": "assistant", "content": [part]}
    whole = {**head, "status": "completed", "output": [item]}
    events: list[Json] = [
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": word, "logprobs": []} for word in _words(text)),
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return whole, [(event["type"], {**event, "sequence_number": n}) for n, event in enumerate(events)]


def _messages(body: Json, number: int) -> Events:
    messages = body["messages"]
    content = messages[-1]["content"]
    has_result = not isinstance(content, str) and any(block["type"] == "tool_result" for block in content)
    head = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"]}
    head |= {"stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    if body.get("tools") and not has_result:
        reason, start = "tool_use", {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
        whole: Json = {**start, "input": json.loads(ARGUMENTS)}
        deltas: list[Json] = [{"type": "input_json_delta", "partial_json": ARGUMENTS}]
    else:
        wants_json = (body.get("output_config") or {}).get("format")
        text = _reply(messages, prompt=_texts(body.get("system")), json_wanted=wants_json)
        reason, start = "end_turn", {"type": "text", "text": ""}
        whole = {**start, "text": text}
        deltas = [{"type": "text_delta", "text": word} for word in _words(text)]
    end = {"stop_reason": reason, "stop_sequence": None}
    events: list[Json] = [
        {"type": "message_start", "message": {**head, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": head["usage"]},
        {"type": "message_stop"},
    ]
    return {**head, "content": [whole], "stop_reason": reason}, [(event["type"], event) for event in events]


def main() -> None:
    """Serve until killed: print the address, and pause for `sys.argv[1]` seconds after each chunk of a stream."""
    with FakeLLM() as llm:
        llm.pause_between_chunks = float(sys.argv[1]) if sys.argv[1:] else 0.0
        sys.stdout.write(f"{llm.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
