"""Processes that use a client and end, one for each line of JSON on stdin; how each ended is printed on stdout.

Each is a fork of this process, which has imported what takes long, but not openproto: a handler may be registered
before that is imported. What a process prints is part of that.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import sys
import tempfile
import time
from typing import Any, BinaryIO, TypeAlias

import aiohttp  # noqa: F401  imported for the children
import asyncpg  # noqa: F401
import httpx  # noqa: F401
import memsy  # noqa: F401
import numpy as np  # noqa: F401
import pydantic  # noqa: F401

AT_ONCE = 3
LONGEST = 60.0

Cell: TypeAlias = dict[str, Any]
Running: TypeAlias = dict[int, tuple[Cell, BinaryIO, float]]


def next_cell() -> Cell:
    """Return, in a child, what it is to do; in this process, when every child has ended, leave."""
    running: Running = {}
    for line in sys.stdin:
        while len(running) >= AT_ONCE:
            reap(running)
        cell: Cell = json.loads(line)
        output = tempfile.TemporaryFile()  # noqa: SIM115  read when the child has ended
        if (pid := os.fork()) == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            return cell
        running[pid] = (cell, output, time.monotonic() + LONGEST)
    while running:
        reap(running)
    os._exit(0)


def reap(running: Running) -> None:
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        cell, output, _ = running.pop(pid)
        output.seek(0)
        ended = {"name": cell["name"], "code": os.waitstatus_to_exitcode(status), "output": output.read().decode()}
        say(json.dumps(ended))
        return
    for pid, (_, _, ends_at) in running.items():
        if time.monotonic() > ends_at:
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.01)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def handler(where: str, *, closes: bool) -> None:
    """What a program does at its exit: one more call, and perhaps closing."""
    try:
        if cell["face"] == "sync":
            memory.add(f"at the end, {where}", user_id=cell["user"])
        else:
            asyncio.run(once(f"at the end, {where}"))
        say(f"{where} works")
    except (RuntimeError, openproto.OpenProtoError) as error:
        say(f"{where} {type(error).__name__}")
    if closes and cell["face"] == "sync":
        memory.close()
        say(f"{where} closed")


class Holder:
    def __del__(self) -> None:
        handler("finalizer", closes=True)


async def once(content: str) -> None:
    async with openproto.AsyncMemory(cell["provider"], **cell["options"]) as client:
        await client.add(content, user_id=cell["user"])


async def use_and_end() -> None:
    client = openproto.AsyncMemory(cell["provider"], **cell["options"])
    await client.add("tea", user_id=cell["user"])
    await client.list(cell["user"])
    end()
    await asyncio.sleep(30 if cell["end"] in ("term", "kill", "int") else 0)


def end() -> None:
    say("used")
    match cell["end"]:
        case "exception":
            raise ZeroDivisionError
        case "exit":
            sys.exit(7)
        case "term" | "kill":
            os.kill(os.getpid(), signal.SIGTERM)
        case "int":
            os.kill(os.getpid(), signal.SIGINT)


cell = next_cell()
if cell["end"] == "term":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
atexit.register(handler, "before import", closes=True)
sys.path[:0] = cell["path"]
import openproto  # noqa: E402

atexit.register(handler, "after import", closes=cell["closes"] == "after import")
if cell["face"] == "sync":
    memory = openproto.Memory(cell["provider"], **cell["options"])
    memory.add("tea", user_id=cell["user"])
    memory.list(cell["user"])
    atexit.register(handler, "after open", closes=cell["closes"] == "after open")
    holder = Holder()
    if cell["fork"] and (child := os.fork()):
        # What the parent does after the fork is what it would have done without one; the child does the same.
        os.waitpid(child, 0)
    memory.list(cell["user"])
    end()
else:
    if cell["fork"] and (child := os.fork()):
        os.waitpid(child, 0)
    asyncio.run(use_and_end())
