"""A server with the inspector over a file, on a real socket, and a browser that looks at it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chromium import LONG, OpenPage, Page, chromium
from inspecting import Show, add
from openproto_adapters.sqlite import Sqlite

from openproto import AsyncMemory
from openproto.server import ServerSettings, create_app, running
from openproto.server.keys import ApiKey, ApiKeys


@pytest.fixture(scope="session")
def browser() -> Iterator[OpenPage]:
    with chromium() as open_page:
        yield open_page


@pytest.fixture
def page(browser: OpenPage) -> Iterator[Page]:
    """A tab in which nothing may go wrong; a test takes out of `faults` what it brought about."""
    with browser() as tab:
        tab.look()
        yield tab
        assert tab.faults == []


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Show]:
    """Serve a file with the inspector until the end of the test, and return a client with the first of the keys."""
    with contextlib.ExitStack() as stack:

        def start(*keys: tuple[str, ApiKey]) -> httpx.Client:
            memory = AsyncMemory(Sqlite(str(tmp_path / "memory.db"), embedder="none", synchronous="normal"))
            path = tmp_path / "keys.json"
            path.write_bytes(ApiKeys.dump_json([entry for _, entry in keys]))
            app: Any = create_app(memory, ServerSettings(ui=True, keys_file=path if keys else None))
            url = stack.enter_context(running(app))
            headers = {"X-API-Key": keys[0][0]} if keys else {}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=LONG))

        yield start


@pytest.fixture
def server(show: Show) -> httpx.Client:
    """A server without keys, on which ada has some memories, two of which say the same."""
    client = show()
    porto = add(client, "Ada lives in Porto", scope="life/places", valid_from="2024-01-01T00:00:00Z")
    add(client, "Ada lives in Lisbon", scope="life/places", supersedes=[porto["id"]], valid_from="2025-06-01T00:00:00Z")
    add(client, "Ada takes her coffee black", scope="food/drinks", tags=["coffee", "taste"], x={"x-app": {"n": 1}})
    add(client, "ada takes  her coffee black.", scope="food", tags=["coffee"])
    add(client, "أدا تحب القهوة", scope="food/drinks")
    add(client, "Ben likes tea", user_id="ben")
    return client
