"""The chat as server-sent events. Whoever leaves early stops the model too, and what was said so far is remembered."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anthropic import AsyncAnthropic
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from openproto import AsyncMemory
from openproto.integrations.llm import CaptureQueue, wrap


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncMemory.from_env() as memory, AsyncAnthropic() as client:
        app.state.memory, app.state.client = memory, client
        app.state.queue = CaptureQueue(memory, keep="both")
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/chat/{user_id}")
async def chat(user_id: str, message: str) -> StreamingResponse:
    llm = wrap(app.state.client, app.state.queue, user_id=user_id)

    async def events() -> AsyncIterator[str]:
        async with llm.messages.stream(
            model="claude-opus-4-6", max_tokens=500, messages=[{"role": "user", "content": message}]
        ) as stream:
            async for text in stream.text_stream:
                yield f"data: {json.dumps(text)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/memories/{user_id}")
async def memories(user_id: str) -> list[dict[str, object]]:
    return [{"text": record.content, "tags": record.tags} async for record in app.state.memory.iter(user_id)]
