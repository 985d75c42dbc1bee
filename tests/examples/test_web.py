"""The web examples, under a real server on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from openproto.server import running

EXAMPLES = Path(__file__).parents[2] / "examples" / "web"


def load(name: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile((EXAMPLES / f"{name}.py").read_text(), name, "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture(params=["fastapi_notes", "starlette_notes"])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for option, value in (("PROVIDER", "sqlite"), ("PATH", str(tmp_path / "memory.db")), ("EMBEDDER", "none")):
        monkeypatch.setenv(f"OPENPROTO_{option}", value)
    found: str = request.param
    return found


@pytest.fixture
def app(name: str) -> Any:
    return load(name).app


@pytest.fixture
async def http(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    with running(app) as url:
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            yield client


async def add(http: httpx.AsyncClient, name: str, user: str, text: str) -> httpx.Response:
    if name == "fastapi_notes":
        return await http.post(f"/{user}/notes", json={"text": text})
    return await http.post(f"/{user}/notes", content=text)


@pytest.mark.promise(18, 36, 38, 95, 40, 20, 122, 88)
async def test_one_client_serves_many_requests_at_once(http: httpx.AsyncClient, name: str) -> None:
    added = await asyncio.gather(*(add(http, name, f"user{number % 5}", f"note {number}") for number in range(50)))
    assert {response.status_code for response in added} == {201}
    searches = (http.get(f"/user{user}/notes", params={"q": "note"}) for user in range(5))
    for user, found in enumerate(await asyncio.gather(*searches)):
        assert sorted(found.json()) == sorted(f"note {number}" for number in range(user, 50, 5))


@pytest.mark.promise(112)
async def test_a_background_task_remembers_and_an_error_has_its_status(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.post("/ada/visits", params={"page": "prices"})).status_code == 202
    async with asyncio.timeout(5):
        while not (found := (await http.get("/ada/notes", params={"q": "prices"})).json()):
            await asyncio.sleep(0.02)
    assert found == ["visited prices"]
    refused = await add(http, name, "ada", " ")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("name", ["fastapi_notes"], indirect=True)
async def test_a_reader_that_leaves_ends_its_stream(http: httpx.AsyncClient, app: Any, name: str) -> None:
    memory = app.state.memory
    async with http.stream("GET", "/ada/follow") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "following"
        await add(http, name, "ada", "fresh news")
        assert await anext(lines) == "fresh news"
    await asyncio.sleep(0.3)
    before = memory.stats().verbs["list"].calls
    await asyncio.sleep(0.5)
    assert memory.stats().verbs["list"].calls == before
    assert memory.stats().in_flight == 0


@pytest.mark.parametrize("name", ["starlette_notes"], indirect=True)
async def test_an_export_streams_every_page(http: httpx.AsyncClient, name: str) -> None:
    for number in range(25):
        await add(http, name, "ada", f"note {number}")
    async with http.stream("GET", "/ada/export") as stream:
        contents = [json.loads(line)["content"] async for line in stream.aiter_lines()]
    assert contents == [f"note {number}" for number in range(24, -1, -1)]


@pytest.mark.promise(39, 20)
def test_closing_the_application_closes_its_client(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(name)
    made: list[Any] = []

    class Watched(module.AsyncMemory):  # type: ignore[misc,name-defined]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(module, "AsyncMemory", Watched)
    with running(module.app) as url:
        httpx.get(f"{url}/ada/notes", params={"q": "tea"})
    (memory,) = made
    assert memory._session._closed
