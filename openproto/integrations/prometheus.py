"""Metrics for Prometheus: calls, errors, retries, and durations of each verb.

    from openproto.integrations.prometheus import count_calls

    memory = AsyncMemory(observers=[count_calls()])

`prometheus_client.start_http_server` shows them to Prometheus. Labels hold verbs, providers, and outcomes, and nothing
of users.
"""

from __future__ import annotations

from openproto.instrumentation import CallEvent, Observer
from openproto.integrations.extras import needs

with needs("prometheus"):
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

__all__ = ["count_calls"]

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def count_calls(registry: CollectorRegistry = REGISTRY) -> Observer:
    """Return an observer whose metrics are registered in `registry`, where they can be once."""
    durations = Histogram(
        "openproto_call_duration_seconds",
        "Duration of calls.",
        ("provider", "verb", "outcome"),
        buckets=_BOUNDS,
        registry=registry,
    )
    retries = Counter("openproto_call_retries", "Repetitions of calls.", ("provider", "verb"), registry=registry)

    def observe(event: CallEvent) -> None:
        durations.labels(event.provider, event.verb, event.outcome).observe(event.seconds)
        if event.retries:
            retries.labels(event.provider, event.verb).inc(event.retries)

    return observe
