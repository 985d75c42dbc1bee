"""Notes in FastAPI: one memory client for all requests, opened and closed with the application.

    pip install 'openproto[local,sqlite]' fastapi uvicorn
    uvicorn fastapi_notes:app

`OPENPROTO_PROVIDER` and the other variables choose the backend.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import BackgroundTasks, Body, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from openproto import AsyncMemory, MemoryRecord, OpenProtoError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncMemory.from_env(app="notes") as memory:  # a wrong setting fails here, not at the first request
        app.state.memory = memory
        yield


def shared_memory(request: Request) -> AsyncMemory:
    """Return the application's client: it serves any number of requests at once."""
    memory: AsyncMemory = request.app.state.memory
    return memory


SharedMemory = Annotated[AsyncMemory, Depends(shared_memory)]
app = FastAPI(lifespan=lifespan)


@app.exception_handler(OpenProtoError)
async def refuse(_: Request, error: OpenProtoError) -> JSONResponse:
    """Answer with the error's own status: a missing memory is 404, a blank text 400, a backend that is down 503."""
    return JSONResponse(error.to_envelope(), error.http_status)


@app.post("/{user_id}/notes", status_code=201)
async def add(user_id: str, text: Annotated[str, Body(embed=True)], memory: SharedMemory) -> MemoryRecord:
    return await memory.add(text, user_id=user_id)


@app.post("/{user_id}/visits", status_code=202)
async def visit(user_id: str, page: str, memory: SharedMemory, background: BackgroundTasks) -> None:
    """Remember the visit after the answer has gone out."""
    background.add_task(memory.add, f"visited {page}", user_id=user_id, tags=["visit"])


@app.get("/{user_id}/notes")
async def search(user_id: str, q: str, memory: SharedMemory) -> list[str]:
    return [hit.memory.content for hit in await memory.search(q, user_id)]


@app.get("/{user_id}/follow")
async def follow(user_id: str, memory: SharedMemory) -> StreamingResponse:
    """Stream every memory from now on, one a line; when the reader leaves, the loop is cancelled where it waits."""

    async def lines() -> AsyncIterator[str]:
        seen: set[str] = set()
        since = datetime.now(UTC)
        yield "following\n"
        while True:
            async for record in memory.iter(user_id, since=since):
                if record.id not in seen:
                    seen.add(record.id)
                    yield f"{record.content}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/plain")
