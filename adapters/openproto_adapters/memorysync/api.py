"""The requests to MemorySync that the adapter makes: typed answers, typed errors; imported when a provider opens.

The SDK passes most of an answer on unchecked, so it is checked here. Users are tokens and ids are numbers by then, for
deleting an account is one path away from deleting a memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from memorysync import AsyncMemorySyncClient, BulkAddItem, BulkAddResponse, Memory
from pydantic import BaseModel, Field, TypeAdapter

from openproto.emulation import reading
from openproto.errors import NotFoundError
from openproto.fanout import gather_all
from openproto.http_status import unexpected_response
from openproto_adapters.memorysync.connection import Connection
from openproto_adapters.memorysync.drafts import Draft, Outcome
from openproto_adapters.memorysync.errors import of_status
from openproto_adapters.memorysync.ids import VENDOR, end_user
from openproto_adapters.memorysync.rows import Row

PAGE = 500
"""Rows of one listing."""


class _Project(BaseModel, defer_build=True):
    tenant_id: Annotated[str, Field(min_length=1)]


_PROJECTS = TypeAdapter(list[_Project], config={"defer_build": True})
_FAR = "9999-12-31T00:00:00+00:00"
_NUMBER = re.compile(r"(?:m_)?([1-9][0-9]{0,17})")


class Hits(NamedTuple):
    """What a search found; `is_bare`: nothing, in the words that also mean that the account is over its plan."""

    rows: list[Row]
    is_bare: bool


class Api:
    """MemorySync over the SDK's clients; `tenant` is set when it is known."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tenant: str | None = None
        self._knows_tenant = False

    async def find_tenant(self) -> None:
        """Learn once whose the listings are; a key may not be allowed to ask, and listings are then exports."""
        if self._knows_tenant:
            return
        answer = await self._connection.fetch("/org/projects")
        if answer.status_code in (401, 403):
            self._knows_tenant = True
            return
        if answer.status_code >= 400:
            raise of_status(answer.status_code)
        with reading(VENDOR):
            projects = _PROJECTS.validate_json(answer.content)
        self._knows_tenant = True
        self._tenant = projects[0].tenant_id if projects else None

    async def add(self, token: str, drafts: Sequence[Draft]) -> list[Outcome] | None:
        """Store up to fifty texts; None where the account is over its plan, and nothing was stored."""
        items = [
            BulkAddItem(draft.text, "openproto", None, draft.tags, draft.metadata, None, None, draft.ref)
            for draft in drafts
        ]

        async def send(client: AsyncMemorySyncClient) -> list[Outcome] | None:
            # Not `add`: of several facts it returns the first alone.
            answer: BulkAddResponse = await client.bulk_add(items, deduplicate=False)
            if answer.unreported:
                return None
            by_index = {one.index: Outcome(one.status, str(one.reason), _ids(one.memory_ids)) for one in answer.results}
            return [by_index[index] for index in range(len(drafts))]

        return await self._connection.call(end_user(token), send)

    async def get(self, token: str, id: int) -> Row | None:
        """Return the row, or None."""

        async def send(client: AsyncMemorySyncClient) -> Row:
            row = _row(await client.get(id))
            if row.id != id:
                raise unexpected_response(VENDOR)
            return row

        try:
            return await self._connection.call(end_user(token), send)
        except NotFoundError:
            return None

    async def edit(self, token: str, ids: Sequence[int], tags: Sequence[str], metadata: dict[str, Any]) -> bool:
        """Give the rows tags and metadata, all in one transaction; False where none of them is there."""
        items = [{"memory_id": id, "tags": [*tags], "metadata": metadata} for id in ids]

        async def send(client: AsyncMemorySyncClient) -> bool:
            answer = await client.batch_update(items)
            if {result.memory_id for result in answer.results} != set(ids):
                raise unexpected_response(VENDOR)
            return any(result.status == "updated" for result in answer.results)

        return await self._connection.call(end_user(token), send)

    async def forget(self, token: str, ids: Collection[int]) -> set[int]:
        """Delete rows, and return which of them were there."""
        return await self._forget(token, memory_ids=[*ids])

    async def forget_tagged(self, token: str, tag: str) -> set[int]:
        """Delete the rows with the tag, and return them."""
        return await self._forget(token, filters={"tags": [tag]})

    async def forget_everything(self, token: str) -> set[int]:
        """Delete all rows of the end user, also those that MemorySync derived by itself, and return them."""
        return await self._forget(token, filters={"before": _FAR})

    async def _forget(self, token: str, **which: Any) -> set[int]:
        async def send(client: AsyncMemorySyncClient) -> set[int]:
            return set(_ids(await client.forget(**which)))

        try:
            return await self._connection.call(end_user(token), send)
        except NotFoundError:
            return set()

    async def query(self, token: str, query: str, count: int, tags: Sequence[str]) -> Hits:
        """Return the best rows, best first; where tags are given, each of those that has one of them."""
        filters = {"tags": [*tags]} if tags else None

        async def send(client: AsyncMemorySyncClient) -> Hits:
            answer = await client.query(query, k=count, filters=filters)
            is_bare = not answer.memories and answer.context is None and answer.latency_ms is None
            return Hits([_row(memory) for memory in answer.memories], is_bare)

        return await self._connection.call(end_user(token), send)

    async def pages(self, token: str) -> AsyncGenerator[list[Row], None]:
        """Yield every row of the end user, at most `PAGE` at a time, in no particular order."""
        if self._tenant is None:
            everything = await self._connection.call(end_user(token), _export)
            for start in range(0, len(everything), PAGE):
                yield everything[start : start + PAGE]
            return
        seen, offset = set[int](), 0
        while True:
            page = await self._page(self._tenant, token, offset)
            if offset and not any(id in seen for id, _ in page[:1]):
                # It should begin with the last row of the page before: something was deleted, and rows moved up.
                offset = max(0, offset - PAGE)
                continue
            news = {id: row for id, row in page if id not in seen}
            if not news and len(page) < 2:
                return  # not where a page is short, for the server may have a lower limit, nor where rows moved down
            if offset > len(seen) + 10 * PAGE:
                raise unexpected_response(VENDOR)  # it knows no offset, and what is left cannot be listed
            # A listing may show ids and texts alone.
            fetched = await gather_all(*(self.get(token, id) for id, row in news.items() if row is None))
            yield [row for row in (*news.values(), *fetched) if row is not None]
            seen.update(news)
            offset += len(page) - 1

    async def _page(self, tenant: str, token: str, offset: int) -> list[tuple[int, Row | None]]:
        async def send(client: AsyncMemorySyncClient) -> list[tuple[int, Row | None]]:
            names = {"tenant_id": quote(tenant, safe=""), "user_id": quote(end_user(token), safe="")}
            answer = await client.list_memories(**names, limit=PAGE, offset=offset)
            return [_listed(entry) for entry in answer["memories"]]

        return await self._connection.call(end_user(token), send)


async def _export(client: AsyncMemorySyncClient) -> list[Row]:
    return [_row(Memory.from_dict(entry)) for entry in (await client.export_all()).memories]


def _row(memory: Memory) -> Row:
    score = memory.score if memory.score is not None else 0.0
    metadata = memory.metadata if memory.metadata is not None else {}
    if not (isinstance(metadata, dict) and isinstance(score, int | float) and math.isfinite(score)):
        raise unexpected_response(VENDOR)
    return Row(memory.id, metadata, score)


def _listed(entry: dict[str, Any]) -> tuple[int, Row | None]:
    match = _NUMBER.fullmatch(str(entry["memory_id"]))
    if match is None:
        raise unexpected_response(VENDOR)
    id = int(match[1])
    metadata = entry.get("metadata", {})
    if "metadata" in entry and not isinstance(metadata, dict | None):
        raise unexpected_response(VENDOR)
    return id, Row(id, metadata or {}) if "metadata" in entry else None


def _ids(answer: Iterable[Any]) -> list[int]:
    ids = [*answer]
    if not all(isinstance(id, int) and not isinstance(id, bool) for id in ids):
        raise unexpected_response(VENDOR)
    return ids
