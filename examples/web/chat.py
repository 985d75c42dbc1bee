"""A chat that knows its users: `uvicorn chat:app`, then `curl -d '{"message": "I live in Oslo"}' .../chat/ada`.

Memories go into a SQLite file of your own (OPENPROTO_PATH), or wherever OPENPROTO_PROVIDER says; the model is the one
that OPENAI_BASE_URL and OPENAI_API_KEY lead to. One client of each serves every request.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import asdict

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

from openproto import AsyncMemory
from openproto.integrations.llm import CaptureQueue, wrap

user: ContextVar[str] = ContextVar("user")


class Message(BaseModel):
    message: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncMemory.from_env() as memory, AsyncOpenAI() as client:
        app.state.queue = CaptureQueue(memory, policy="wait")
        app.state.llm = wrap(client, app.state.queue, user_id=user)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/chat/{user_id}")
async def chat(user_id: str, message: Message) -> str:
    user.set(user_id)
    answer = await app.state.llm.chat.completions.create(
        model="gpt-5-mini", messages=[{"role": "user", "content": message.message}]
    )
    return str(answer.choices[0].message.content)


@app.get("/stats")
async def stats() -> dict[str, int]:
    counts = asdict(app.state.queue.stats())
    return {name: count for name, count in counts.items() if isinstance(count, int)}
