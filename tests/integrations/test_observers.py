"""Spans and metrics say what happened, by the conventions' names, and nothing of whom or what."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from openproto import AsyncMemory, NotFoundError
from openproto.integrations.opentelemetry import OPERATIONS as OPERATIONS_OF_VERBS
from openproto.integrations.opentelemetry import trace_calls

# What the registry of the conventions (schema gen-ai-dev/1.42.0-dev) says of the span gen_ai.memory.client.
OPERATIONS = {"create_memory", "update_memory", "upsert_memory", "search_memory", "delete_memory"}
ATTRIBUTES = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.memory.record.id", "error.type"}

SECRETS = ("ada-secret-user", "her secret coffee", "secret query")


async def some_calls(memory: AsyncMemory) -> None:
    async with memory:
        record = await memory.add(SECRETS[1], user_id=SECRETS[0], scope="food")
        await memory.search(SECRETS[2], SECRETS[0])
        await memory.update(record.id, user_id=SECRETS[0], confidence=1.0)
        with pytest.raises(NotFoundError):
            await memory.get("nothing", user_id=SECRETS[0])
        await memory.delete(record.id, user_id=SECRETS[0])


async def test_spans_and_durations(tmp_path: Path) -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observer = trace_calls(tracers, MeterProvider([reader]))
    with tracers.get_tracer("test").start_as_current_span("request") as request:
        await some_calls(AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder=None, observers=[observer]))
        await asyncio.sleep(0)
    *spans, parent = exporter.get_finished_spans()
    assert parent.name == "request"
    names = [span.name for span in spans]
    assert {*OPERATIONS_OF_VERBS.values()} == OPERATIONS
    assert names == ["create_memory", "search_memory", "update_memory", "get", "delete_memory"]
    for span in spans:
        assert span.kind is SpanKind.CLIENT
        assert span.attributes is not None
        assert span.attributes["gen_ai.operation.name"] == span.name
        assert span.attributes["gen_ai.provider.name"] == "sqlite"
        assert {name for name in span.attributes if not name.startswith("openproto.")} <= ATTRIBUTES
        assert span.name in OPERATIONS | {"get"}  # reading by id has no name there
        named = span.name in ("update_memory", "get", "delete_memory")
        assert ("gen_ai.memory.record.id" in span.attributes) == named
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert 0 < (span.start_time or 0) <= (span.end_time or 0)
    failed = spans[3]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "not_found"
    written = "".join(span.to_json() for span in spans) + str(reader.get_metrics_data())
    assert not any(secret in written for secret in SECRETS)
    assert "gen_ai.client.operation.duration" in written
