"""The cluster that the tests are given, and its servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit, urlunsplit

import asyncpg


def coordinator() -> str:
    url = os.environ.get("OPENPROTO_TEST_CITUS_URL")
    assert url, (
        "OPENPROTO_TEST_CITUS_URL must name the coordinator of a Citus cluster, as a role that owns its database"
    )
    return url


async def workers() -> Sequence[str]:
    connection = await asyncpg.connect(coordinator())
    try:
        rows = await connection.fetch(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards AND isactive ORDER BY nodeid"
        )
    finally:
        await connection.close()
    parts = urlsplit(coordinator())
    login = parts.netloc.rpartition("@")[0]
    return [urlunsplit(parts._replace(netloc=f"{login}@{host}:{port}")) for host, port in rows]


async def execute(*scripts: str, url: str | None = None) -> None:
    connection = await asyncpg.connect(url or coordinator())
    try:
        for script in scripts:
            await connection.execute(script)
    finally:
        await connection.close()


def drop_around(schema: str) -> Iterator[None]:
    drop = f"DROP SCHEMA IF EXISTS {schema} CASCADE"
    asyncio.run(execute(drop))
    yield
    asyncio.run(execute(drop))
