"""kill -9 at any moment: of clients, of servers, and of PostgreSQL's backends and postmaster."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
from openproto_conformance.checks import ensure
from parts import folder, meanwhile, sqlite
from postgres_tools import CLIENTS, Server  # pyright: ignore[reportMissingImports]  __main__ adds its folder
from server_tools import Process  # pyright: ignore[reportMissingImports]  __main__ adds its folder

from openproto import AsyncMemory, OpenProtoError

WRITERS = 4
WRITER = """
import sys
from openproto import Memory
memory = Memory("sqlite", path=sys.argv[1], embedder="none")
number = 0
while True:
    key = f"{sys.argv[2]}-{number}"
    memory.add(key, user_id="ada", idempotency_key=key)
    print(key, flush=True)
    number += 1
"""


async def kills(chance: random.Random, rounds: int) -> str:
    acknowledged: set[str] = set()
    with folder() as home:
        server = Server()
        try:
            await asyncio.to_thread(server.start)
            url = server.dsn()
            async with AsyncMemory("postgres", url=url, embedder="none", retries=0, pool_max=WRITERS) as memory:
                for number in range(rounds):
                    match number % 4:
                        case 0:
                            acknowledged |= _client(home / "client.db", chance, number)
                        case 1:
                            acknowledged |= await _server(home / "server.db", chance, number)
                        case _:
                            acknowledged |= await _postgres(memory, server, chance, number)
                stored = [record.content async for record in memory.iter("ada", page_size=500)]
        finally:
            await asyncio.to_thread(server.remove)
        for name in ("client.db", "server.db"):
            async with sqlite(home / name) as memory:
                stored += [record.content async for record in memory.iter("ada", page_size=500)]
    ensure(len(stored) == len(set(stored)), "a memory was stored twice")
    ensure(acknowledged <= set(stored), f"{len(acknowledged - set(stored))} acknowledged memories were lost")
    return f"{rounds} kills, {len(acknowledged):,} acknowledged adds, none lost or doubled"


def _client(path: Path, chance: random.Random, number: int) -> set[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = {writer.stdout.readline().strip() for _ in range(chance.randint(1, 40))}
        writer.send_signal(signal.SIGKILL)
        # What it wrote to the pipe before it died was acknowledged as well.
        return told | {line.strip() for line in writer.stdout if line.endswith("\n")}


async def _server(path: Path, chance: random.Random, number: int) -> set[str]:
    process = await asyncio.to_thread(Process, OPENPROTO_PATH=str(path))
    try:
        memory = AsyncMemory("passthrough", base_url=process.url, retries=0, close_timeout=1)
        async with memory, _writing(memory, number) as acknowledged:
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            process.process.kill()
    finally:
        process.kill()
    return acknowledged


async def _postgres(memory: AsyncMemory, server: Server, chance: random.Random, number: int) -> set[str]:
    async with _writing(memory, number) as acknowledged:
        await asyncio.sleep(chance.uniform(0.05, 0.5))
        if number % 4 == 2:
            with psycopg.connect(server.dsn()) as connection:
                found = connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {CLIENTS}".encode()).fetchall()
            victim = chance.choice(found)[0]
        else:
            victim = int((server.place.data / "postmaster.pid").read_text().split()[0])
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(0.2)
    return acknowledged


@asynccontextmanager
async def _writing(memory: AsyncMemory, number: int) -> AsyncIterator[set[str]]:
    """Add memories meanwhile, each under its key until it is acknowledged; yield the keys of those that were."""
    acknowledged: list[set[str]] = [set() for _ in range(WRITERS)]

    async def write(writer: int) -> None:
        key = f"{number}-{writer}-{len(acknowledged[writer])}"
        try:
            await memory.add(key, user_id="ada", idempotency_key=key)
        except OpenProtoError:
            await asyncio.sleep(0.02)
        else:
            acknowledged[writer].add(key)

    told: set[str] = set()
    async with meanwhile(*(partial(write, writer) for writer in range(WRITERS))):
        yield told
    told |= set().union(*acknowledged)
