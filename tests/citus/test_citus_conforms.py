"""The suite on a Citus cluster, each class in a schema that is distributed when it is first opened."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from cluster_tools import coordinator, drop_around, workers
from openproto_adapters.postgres import Postgres
from store_suites import PostgresSuite

from openproto import Provider

pytestmark = pytest.mark.citus

SHARDS = (
    "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relnamespace = %s::text::regnamespace "
    "AND relkind = 'r' AND relname ~ '^memories_[0-9]+$'"
)


@pytest.fixture(scope="module", autouse=True)
def fresh() -> Iterator[None]:
    for _ in drop_around(TestCitus.schema):
        yield


class TestCitus(PostgresSuite):
    schema = f"conforming_{os.getpid()}"

    def provider(self) -> Provider:
        return Postgres(coordinator(), schema=self.schema, embedder="none")

    def pooled(self, size: int) -> Provider:
        return Postgres(coordinator(), schema=self.schema, embedder="none", pool_max=size)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Lock the shards, each on its worker."""
        options = "-c citus.override_table_visibility=off -c citus.enable_manual_changes_to_shards=on"
        with contextlib.ExitStack() as others, ThreadPoolExecutor(1) as thread:
            for url in thread.submit(asyncio.run, workers()).result():
                other = others.enter_context(psycopg.connect(url, options=options))
                ((shards,),) = other.execute(SHARDS, [self.schema])
                other.execute(f"LOCK TABLE {shards} IN SHARE MODE".encode())
            yield
