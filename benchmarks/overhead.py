"""What openproto itself costs: `Memory` over `AsyncMemory`, an observer, the import, and how much is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import requires
from statistics import median
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from benchmarks.harness import Bench, Figure, Step, at_most, spread, take_turns
from openproto import AsyncMemory, Memory, MemoryRecord, Provider
from openproto.instrumentation import Observer
from openproto.integrations.opentelemetry import trace_calls
from openproto.integrations.prometheus import count_calls
from openproto.requests import RecordRef

MOST_MICROSECONDS = 200
MOST_OBSERVER_MICROSECONDS = 30
MOST_IMPORT_MS = 150
MOST_DEPENDENCIES = 5

# What no library with models and a loop can do without.
_LEAST = """
import asyncio, pydantic
class Model(pydantic.BaseModel):
    field: int
"""

# Reports threads that Python or C started, and sockets, whether still open or closed again.
_IMPORTED = """
import json, os, sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
import openproto
threads = [event for event in seen if event == "_thread.start_new_thread"]
sockets = [event for event in seen if event.startswith("socket.")]
running = len(os.listdir("/proc/self/task")) - 1 if os.path.isdir("/proc/self/task") else 0
if os.path.isdir("/proc/self/fd"):
    for number in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{number}"
        if os.path.islink(path) and os.readlink(path).startswith("socket:") and int(number) > 2:
            sockets.append(path)
print(json.dumps({"threads": max(len(threads), running), "sockets": sockets}))
"""


class Trivial(Provider):
    """A backend that answers at once."""

    name = "trivial"
    record = MemoryRecord(id="1", content="nothing", user_id="user", created_at=datetime.now(UTC))

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the one record."""
        return self.record


async def run(bench: Bench) -> list[Figure]:
    """Measure each cost."""
    return [await _sync_over_async(bench), *await _observers(bench), *_importing(bench), _dependencies()]


async def _sync_over_async(bench: Bench) -> Figure:
    """Call the twins in turns from one thread; blocking this loop does not matter, because Memory has its own."""
    async with AsyncMemory(Trivial()) as memory:
        twin = Memory(Trivial())
        try:

            async def by_memory(turn: int) -> None:
                twin.get("1", user_id="user")

            async def by_async_memory(turn: int) -> None:
                await memory.get("1", user_id="user")

            took = await take_turns(
                {"Memory": by_memory, "AsyncMemory": by_async_memory}, bench.size(10_000, 2_000), warm=200
            )
        finally:
            twin.close()
    return at_most(
        "Memory adds to an AsyncMemory call, p50",
        (median(took["Memory"]) - median(took["AsyncMemory"])) * 1e6,
        MOST_MICROSECONDS,
        "µs",
        memory_us=spread(took["Memory"], 1e6),
        async_memory_us=spread(took["AsyncMemory"], 1e6),
    )


async def _observers(bench: Bench) -> list[Figure]:
    """Call clients with and without an observer in turns; spans go to a batch processor, as they do in production."""
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(_Discarding()))
    observers = {
        "trace_calls": trace_calls(tracers, MeterProvider([InMemoryMetricReader()])),
        "count_calls": count_calls(CollectorRegistry()),
    }
    async with AsyncExitStack() as stack:

        async def calling(*observers: Observer) -> Step:
            memory = await stack.enter_async_context(AsyncMemory(Trivial(), observers=observers))

            async def call(turn: int) -> None:
                await memory.get("1", user_id="user")

            return call

        sides = {"none": await calling()} | {name: await calling(each) for name, each in observers.items()}
        took = await take_turns(sides, bench.size(10_000, 2_000), warm=200)
    tracers.shutdown()
    return [
        at_most(
            f"{name} adds to a call, p50",
            (median(took[name]) - median(took["none"])) * 1e6,
            MOST_OBSERVER_MICROSECONDS,
            "µs",
            with_it_us=spread(took[name], 1e6),
            without_us=spread(took["none"], 1e6),
        )
        for name in observers
    ]


class _Discarding(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _importing(bench: Bench) -> list[Figure]:
    rounds = bench.size(15, 5)
    bare: list[float] = []
    importing: list[float] = []
    dependencies: list[float] = []
    _python("import openproto")  # compiles it where that was not done before
    for _ in range(rounds):
        bare.append(_seconds("pass"))
        importing.append(_seconds("import openproto"))
        dependencies.append(_seconds(_LEAST))
    found: dict[str, Any] = json.loads(_python(_IMPORTED))
    return [
        at_most(
            "import openproto, beyond the bare interpreter, best of several",
            (min(importing) - min(bare)) * 1e3,
            MOST_IMPORT_MS,
            "ms",
            interpreter_ms=spread(bare, 1e3),
            with_import_ms=spread(importing, 1e3),
            asyncio_and_one_pydantic_model_alone_ms=round((min(dependencies) - min(bare)) * 1e3, 1),
        ),
        at_most("threads started by import openproto", found["threads"], 0),
        at_most("sockets opened by import openproto", len(found["sockets"]), 0, seen=found["sockets"]),
    ]


def _dependencies() -> Figure:
    lines = [line for line in requires("openproto") or [] if not re.search(r"\bextra\s*==", line)]
    names = [re.split(r"[\s\[<>=!~;(]", line, maxsplit=1)[0] for line in lines]
    return at_most("direct dependencies of the base install", len(names), MOST_DEPENDENCIES, names=names)


def _seconds(program: str) -> float:
    start = time.perf_counter()
    _python(program)
    return time.perf_counter() - start


def _python(program: str) -> str:
    """Run a program in a separate Python, away from this folder, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=tempfile.gettempdir(), capture_output=True, text=True, check=True
    ).stdout
