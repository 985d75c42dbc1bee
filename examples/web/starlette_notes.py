"""Notes in Starlette: the same as `fastapi_notes.py` without a framework for dependencies.

pip install 'openproto[local,sqlite]' starlette uvicorn
uvicorn starlette_notes:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from openproto import AsyncMemory, OpenProtoError


class State(TypedDict):
    memory: AsyncMemory


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    async with AsyncMemory.from_env(app="notes") as memory:
        yield {"memory": memory}


async def add(request: Request) -> Response:
    memory: AsyncMemory = request.state.memory
    record = await memory.add((await request.body()).decode(), user_id=request.path_params["user_id"])
    return JSONResponse(record.to_wire(), 201)


async def search(request: Request) -> Response:
    memory: AsyncMemory = request.state.memory
    found = await memory.search(request.query_params["q"], request.path_params["user_id"])
    return JSONResponse([hit.memory.content for hit in found])


async def visit(request: Request) -> Response:
    memory: AsyncMemory = request.state.memory
    page, user_id = request.query_params["page"], request.path_params["user_id"]
    return Response(status_code=202, background=BackgroundTask(memory.add, f"visited {page}", user_id=user_id))


async def export(request: Request) -> Response:
    """Stream everything, page by page; a reader that leaves cancels the page that is being read."""
    memory: AsyncMemory = request.state.memory

    async def lines() -> AsyncIterator[str]:
        async for record in memory.iter(request.path_params["user_id"], page_size=10):
            yield record.model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/jsonl")


async def refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, OpenProtoError)
    return JSONResponse(error.to_envelope(), error.http_status)


app = Starlette(
    routes=[
        Route("/{user_id}/notes", add, methods=["POST"]),
        Route("/{user_id}/notes", search, methods=["GET"]),
        Route("/{user_id}/visits", visit, methods=["POST"]),
        Route("/{user_id}/export", export, methods=["GET"]),
    ],
    exception_handlers={OpenProtoError: refuse},
    lifespan=lifespan,
)
