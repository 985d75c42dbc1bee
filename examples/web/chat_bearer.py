"""The chat behind bearer tokens, by dependency injection: who you are comes from the token, never from the request.

Wrapping costs next to nothing, so each request gets a client that is its user's own; they share one memory and queue.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from openai import AsyncOpenAI
from pydantic import BaseModel

from openproto import AsyncMemory
from openproto.integrations.llm import wrap

USERS = {"token-of-ada": "ada", "token-of-bob": "bob"}  # your session store goes here


class Message(BaseModel):
    message: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncMemory.from_env() as memory, AsyncOpenAI() as client:
        app.state.memory, app.state.client = memory, client
        yield


app = FastAPI(lifespan=lifespan)


def current_user(token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    if token.credentials not in USERS:
        raise HTTPException(401, "unknown token")
    return USERS[token.credentials]


def current_llm(request: Request, user: Annotated[str, Depends(current_user)]) -> AsyncOpenAI:
    return wrap(request.app.state.client, request.app.state.memory, user_id=user)


@app.post("/chat")
async def chat(message: Message, llm: Annotated[AsyncOpenAI, Depends(current_llm)]) -> str:
    response = await llm.responses.create(model="gpt-5-mini", input=message.message)
    return response.output_text


@app.get("/memories")
async def memories(request: Request, user: Annotated[str, Depends(current_user)]) -> list[str]:
    return [record.content async for record in request.app.state.memory.iter(user)]
