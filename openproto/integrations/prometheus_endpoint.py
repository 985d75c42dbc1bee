"""The figures of `openproto serve --metrics`, on a listener next to the protocol's.

Prometheus asks there without a key: it need not hold one that opens memories, and a key to some memories does not show
how much the others are used.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from openproto.integrations.extras import needs
from openproto.server.running import binding
from openproto.server.settings import Address

with needs("prometheus"):
    from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector


@contextmanager
def showing_metrics(address: Address, *, workers: int) -> Iterator[str]:
    """Answer Prometheus until the block is left, with the sums of all workers, and yield the URL.

    To be entered before the workers are started. Raises OSError where the address cannot be bound.
    """
    with tempfile.TemporaryDirectory(prefix="openproto-metrics-") as shared:
        registry = REGISTRY
        if workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared  # where prometheus_client in each worker keeps its counts
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=shared)  # type: ignore[no-untyped-call]
        with binding(address):
            server, thread = start_http_server(address.port, address.host, registry)
        try:
            yield f"http://{Address(address.host, server.server_port)}/metrics"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
