"""The suite through HTTP: passthrough, a real socket, the real server, and each store behind it."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from functools import cache

import pytest
from openproto_adapters.passthrough import Passthrough
from store_suites import PostgresSuite, SqliteSuite

from openproto import Provider
from openproto.server.keys import new_key

KEY, ENTRY = new_key("conformance", ["*"])

# In another process, so that what the server opens and starts is not taken for the client's.
SERVE = """
import json, sys
from openproto import AsyncMemory
from openproto.server import ServerSettings, create_app, running

options, key = map(json.loads, sys.argv[1:])
with running(create_app(AsyncMemory(**options), ServerSettings(keys=[key]))) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@cache
def serve(**options: str) -> str:
    """Serve the store that the options name, until the tests end, and return the server's URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, json.dumps(options), ENTRY.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.everyday(
    *("audit", "basics", "cancellation", "errors", "every verb", "fidelity", "filters", "idempotency", "lifecycle"),
    "ten_thousand_records_come_once_each",
    faces=("async",),
    sync=("lifecycle",),
)
class TestPassthroughToSqlite(SqliteSuite):
    def provider(self) -> Provider:
        return self.pooled(16)

    def pooled(self, size: int) -> Provider:
        url = serve(provider="sqlite", path=str(self.path), embedder="none")
        return Passthrough(url, api_key=KEY, max_connections=size)


@pytest.mark.everyday("cancellation", "errors", faces=("async",))
class TestPassthroughToPostgres(PostgresSuite):
    def provider(self) -> Provider:
        return self.pooled(16)

    def pooled(self, size: int) -> Provider:
        url = serve(provider="postgres", url=self.url, embedder="none")
        return Passthrough(url, api_key=KEY, max_connections=size)
