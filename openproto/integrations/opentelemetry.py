"""Spans and metrics of OpenTelemetry, by the semantic conventions for generative AI's memory operations.

    from openproto.integrations.opentelemetry import trace_calls

    memory = AsyncMemory(observers=[trace_calls()])

https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md#memory has the names,
which are still in development: the span `gen_ai.memory.client` of its registry. (The package of released conventions,
up to 0.66b2, has none for memory.) A span holds neither content, nor a query, nor a user id.
"""

from __future__ import annotations

import time

from openproto import __version__
from openproto.instrumentation import CallEvent, Observer
from openproto.integrations.extras import needs

with needs("opentelemetry"):
    from opentelemetry.metrics import MeterProvider, get_meter
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer

__all__ = ["trace_calls"]

OPERATIONS = {
    "add": "create_memory",
    "put": "upsert_memory",
    "restore": "upsert_memory",
    "update": "update_memory",
    "delete": "delete_memory",
    "search": "search_memory",
    "context": "search_memory",
}
"""The conventions' names; they have none for reading by id, listing, and the log, which keep the verb's."""

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def trace_calls(tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> Observer:
    """Return an observer that records a span and a duration for each call, by default with the global providers."""
    tracer = get_tracer("openproto", __version__, tracer_provider)
    durations = get_meter("openproto", __version__, meter_provider).create_histogram(
        "gen_ai.client.operation.duration",
        unit="s",
        description="Duration of memory operations.",
        explicit_bucket_boundaries_advisory=_BOUNDS,
    )

    def observe(event: CallEvent) -> None:
        operation = OPERATIONS.get(event.verb, event.verb)
        attributes = {"gen_ai.operation.name": operation, "gen_ai.provider.name": event.provider}
        if event.outcome != "ok":
            attributes["error.type"] = event.outcome
        durations.record(event.seconds, attributes)
        told = attributes | {"openproto.request_id": event.request_id}
        if event.memory_id is not None:
            told["gen_ai.memory.record.id"] = event.memory_id
        if operation != event.verb:
            told["openproto.verb"] = event.verb
        end = time.time_ns()
        span = tracer.start_span(
            operation,
            kind=SpanKind.CLIENT,
            start_time=end - int(event.seconds * 1e9),
            attributes=told,
        )
        if event.retries:
            span.set_attribute("openproto.retries", event.retries)
        if event.outcome not in ("ok", "cancelled"):
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    return observe
