"""What openproto itself costs: `Memory` over `AsyncMemory`, an observer, the import, and how much is installed."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import threading
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
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, Histogram

from benchmarks.harness import Bench, Figure, Step, at_most, for_information, spread, take_turns
from openproto import AsyncMemory, Memory, MemoryRecord, Provider
from openproto.instrumentation import Observer
from openproto.integrations.opentelemetry import trace_calls
from openproto.integrations.prometheus import count_calls
from openproto.requests import RecordRef

MOST_SYNC, MOST_OBSERVER, MOST_IMPORT, MOST_FIRST = 1.25, 1.5, 2.0, 0.2
MOST_DEPENDENCIES = 5

# What no library with models and a loop can do without.
_LEAST = """
import asyncio, pydantic
class Model(pydantic.BaseModel):
    field: int
"""

_FIRST_CLIENT = """
import sys, time
import openproto
start = time.perf_counter()
openproto.AsyncMemory(sys.argv[1], **{"postgres": {"url": "postgresql://ann@localhost/memories"}}.get(sys.argv[1], {}))
print(time.perf_counter() - start)
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
    """Call the twins in turns from one thread, and a bare hand-over to a loop in another thread.

    Blocking this loop does not matter, because Memory has its own.
    """
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()

    async def nothing() -> None:
        """Cost what a task costs."""

    async with AsyncMemory(Trivial()) as memory:
        twin = Memory(Trivial())
        try:

            async def by_memory(turn: int) -> None:
                twin.get("1", user_id="user")

            async def by_async_memory(turn: int) -> None:
                await memory.get("1", user_id="user")

            async def by_hand_over(turn: int) -> None:
                asyncio.run_coroutine_threadsafe(nothing(), other).result()

            sides = {"Memory": by_memory, "AsyncMemory": by_async_memory, "hand-over": by_hand_over}
            took = await take_turns(sides, 2_000, warm=200)
        finally:
            twin.close()
            other.call_soon_threadsafe(other.stop)
            thread.join()
            other.close()
    return at_most(
        "a call of Memory, p50 / the same of AsyncMemory and a bare hand-over to a loop in a thread",
        median(took["Memory"]) / (median(took["AsyncMemory"]) + median(took["hand-over"])),
        MOST_SYNC,
        "x",
        **{f"{name}_us": spread(seconds, 1e6) for name, seconds in took.items()},
    )


async def _observers(bench: Bench) -> list[Figure]:
    """Call clients with and without an observer in turns, next to what the observer's library needs for the same.

    Spans go to a batch processor, as they do in production.
    """
    tracers, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(BatchSpanProcessor(_Discarding()))
    tracer, durations = tracers.get_tracer("bare"), meters.get_meter("bare").create_histogram("bare", unit="s")
    seconds = Histogram("bare", "Bare.", ("provider", "verb", "outcome"), registry=CollectorRegistry())
    named = {"gen_ai.operation.name": "get", "gen_ai.provider.name": "trivial"}
    observers = {
        "trace_calls": trace_calls(tracers, meters),
        "count_calls": count_calls(CollectorRegistry()),
    }

    async def bare_span(turn: int) -> None:
        end = time.time_ns()
        durations.record(0.001, named)
        attributes = named | {"request": str(turn)}
        tracer.start_span("get", kind=SpanKind.CLIENT, start_time=end - 1_000_000, attributes=attributes).end(end)

    async def bare_histogram(turn: int) -> None:
        seconds.labels("trivial", "get", "ok").observe(0.001)

    async with AsyncExitStack() as stack:

        async def calling(*observers: Observer) -> Step:
            memory = await stack.enter_async_context(AsyncMemory(Trivial(), observers=observers))

            async def call(turn: int) -> None:
                await memory.get("1", user_id="user")

            return call

        sides = {"none": await calling()} | {name: await calling(each) for name, each in observers.items()}
        bare = {"trace_calls": bare_span, "count_calls": bare_histogram}
        sides |= {f"bare {name}": step for name, step in bare.items()}
        took = await take_turns(sides, 2_000, warm=200)
    tracers.shutdown()
    figures: list[Figure] = []
    for name in observers:
        added = median(took[name]) - median(took["none"])
        title = f"{name} adds to a call, p50"
        figures += [
            at_most(
                f"{title} / its library's own calls for the same",
                added / median(took[f"bare {name}"]),
                MOST_OBSERVER,
                "x",
            ),
            for_information(title, added * 1e6, "µs"),
        ]
    return figures


class _Discarding(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _importing(bench: Bench) -> list[Figure]:
    rounds = bench.size(9, 5)
    bare: list[float] = []
    importing: list[float] = []
    dependencies: list[float] = []
    _python("import openproto")  # compiles it where that was not done before
    for _ in range(rounds):
        bare.append(_seconds("pass"))
        importing.append(_seconds("import openproto"))
        dependencies.append(_seconds(_LEAST))
    pydantic = min(dependencies) - min(bare)
    firsts = {name: [float(_python(_FIRST_CLIENT, name)) for _ in range(rounds)] for name in ("sqlite", "postgres")}
    found: dict[str, Any] = json.loads(_python(_IMPORTED))
    return [
        *(
            at_most(
                f"the first client of a process, {name}: holds the loop / import of asyncio and one pydantic model",
                min(seconds) / pydantic,
                MOST_FIRST,
                "x",
                first_ms=spread(seconds, 1e3),
            )
            for name, seconds in firsts.items()
        ),
        at_most(
            "import openproto / import of asyncio and one pydantic model, beyond the bare interpreter, best of several",
            (min(importing) - min(bare)) / pydantic,
            MOST_IMPORT,
            "x",
            interpreter_ms=spread(bare, 1e3),
            openproto_ms=spread(importing, 1e3),
            pydantic_ms=spread(dependencies, 1e3),
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


def _python(program: str, *arguments: str) -> str:
    """Run a program in a separate Python, away from this folder, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
