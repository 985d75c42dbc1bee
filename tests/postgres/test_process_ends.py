"""However a process ends, in whatever order its handlers run: calls work or fail at once, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from openproto_conformance.emulators.memsy import Memsy
from postgres_tools import Server

from openproto import AsyncMemory, Memory
from openproto.server import ServerSettings, create_app, running

SAMPLES: dict[str, tuple[int, ...]] = {"sqlite": (0, 1), "postgres": (3,), "passthrough": (5,), "memsy": (7,)}
"""Which combinations each provider has every day, by their number modulo 11."""
CODES = {"normal": 0, "exception": 1, "exit": 7, "term": 7, "kill": -15, "int": -2}
LISTS = {("sync", False): 2, ("sync", True): 3, ("async", False): 1, ("async", True): 2}
OURS = ("used", "before import", "after import", "after open", "finalizer")
TRACEBACK = ("Traceback (most", "During handling", "ZeroDivisionError", "KeyboardInterrupt", "asyncio.exceptions.Canc")
CLOSERS = ("before import", "after import", "after open")

PROGRAM = """
import asyncio, atexit, json, os, signal, sys, warnings
warnings.simplefilter("ignore", ResourceWarning)  # of a client that nobody closes
provider, options, user, face, fork, end, closes = json.loads(sys.argv[1])

def handler(where, closing):  # one more call, and perhaps closing
    try:
        if face == "sync":
            memory.add(f"at the end, {where}", user_id=user)
        else:
            asyncio.run(once(f"at the end, {where}"))
        print(where, "works", flush=True)
    except (RuntimeError, openproto.OpenProtoError) as error:
        print(where, type(error).__name__, flush=True)
    if closing and face == "sync":
        memory.close()
        print(where, "closed", flush=True)

class Holder:
    def __del__(self):
        handler("finalizer", True)

async def once(content):
    async with openproto.AsyncMemory(provider, **options) as client:
        await client.add(content, user_id=user)

async def use_and_end():
    client = openproto.AsyncMemory(provider, **options)
    await client.add("tea", user_id=user)
    await client.list(user)
    finish()
    await asyncio.sleep(0 if end in ("normal", "exception", "exit") else 30)

def finish():
    print("used", flush=True)
    if end == "exception":
        raise ZeroDivisionError
    if end == "exit":
        sys.exit(7)
    if end != "normal":
        os.kill(os.getpid(), signal.SIGINT if end == "int" else signal.SIGTERM)

if end == "term":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
atexit.register(handler, "before import", True)
import openproto
atexit.register(handler, "after import", closes == "after import")
if face == "sync":
    memory = openproto.Memory(provider, **options)
    memory.add("tea", user_id=user)
    memory.list(user)
    atexit.register(handler, "after open", closes == "after open")
    holder = Holder()
if fork and (child := os.fork()):
    os.waitpid(child, 0)  # the child does the same as the parent does afterwards
if face == "sync":
    memory.list(user)
    finish()
else:
    asyncio.run(use_and_end())
"""


@pytest.fixture(scope="module")
def options(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ends")
    stored: dict[str, Any] = {"path": str(folder / "served.db"), "embedder": "none"}
    with Memsy() as emulator, running(create_app(AsyncMemory("sqlite", **stored), ServerSettings())) as url:
        yield {
            "sqlite": {"path": str(folder / "m.db"), "embedder": "none"},
            "postgres": {"url": server.dsn(), "schema": "ends", "embedder": "none"},
            "passthrough": {"base_url": url},
            "memsy": {**emulator.provider_options(), "path": str(folder / "memsy.db")},
        }


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.full)], ids=["some", "every"])
@pytest.mark.parametrize("provider", SAMPLES)
def test_processes_end_in_silence_in_time_and_without_loss(
    provider: str, every: bool, options: Any, run_python: Any
) -> None:
    for number, (closes, face, fork, end) in enumerate(product(CLOSERS, ("sync", "async"), (False, True), CODES)):
        if face == "async" and closes != CLOSERS[0]:  # `asyncio.run` closes it before any handler runs
            continue
        if not every and number % 11 not in SAMPLES[provider]:
            continue
        user = f"{face}-{'forked' if fork else 'alone'}-{end}-closed {closes}-{every}"
        done = run_python(PROGRAM, json.dumps([provider, options[provider], user, face, fork, end, closes]))
        lines = (done.stdout + done.stderr).splitlines()
        printed = [line for line in lines if line and not line.startswith(OURS)]
        if end in ("exception", "int"):  # what Python itself prints of it
            printed = [line for line in printed if not line.startswith((" ", *TRACEBACK))]
        assert (done.returncode, printed) == (CODES[end], []), (user, lines)
        if end == "kill":
            continue
        if face == "sync":
            assert {f"{closes} closed", "after open works"} <= {*lines}, (user, lines)
        if provider in ("sqlite", "postgres"):
            with Memory(provider, **options[provider]) as memory:
                listed = [entry for entry in memory.audit(user, limit=1000) if entry.action == "list"]
            assert len(listed) == LISTS[face, fork], user
