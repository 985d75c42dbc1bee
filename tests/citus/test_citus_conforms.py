"""The suite on a Citus cluster, each class in a schema that is distributed when it is first opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from cluster_tools import coordinator, drop_around, workers
from openproto_adapters.postgres import Postgres
from store_suites import PostgresSuite

from openproto import Provider

pytestmark = pytest.mark.citus


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

    async def lock_table(self) -> list[Any]:
        """Lock the shards, each on its worker."""
        others = []
        shards_of = (
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relnamespace = $1::text::regnamespace "
            "AND relkind = 'r' AND relname ~ '^memories_[0-9]+$'"
        )
        settings = {"citus.override_table_visibility": "off", "citus.enable_manual_changes_to_shards": "on"}
        for url in await workers():
            others.append(await asyncpg.connect(url, server_settings=settings))
            shards = await others[-1].fetchval(shards_of, self.schema)
            await others[-1].execute(f"BEGIN; LOCK TABLE {shards} IN SHARE MODE")
        return others
