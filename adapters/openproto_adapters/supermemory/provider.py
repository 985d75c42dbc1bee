"""The supermemory provider: one namespace for each user, one document for each memory, over Supermemory's own SDK.

"Supermemory" is the hosted API of version 5. Self-hosted servers are known to speak its predecessors only.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from importlib.metadata import version
from typing import ClassVar, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from openproto.blocking.imports import large_import
from openproto.blocking.threads import Threads
from openproto.emulation import EmulatedProvider, Ranked, Stored, matches, user_token
from openproto.errors import ConflictError, NotFoundError, UnauthorizedError
from openproto.models import Cancellation, MemoryRecord
from openproto.provider import KeyedInput, Outcomes
from openproto.requests import Filters, ListQuery, MemoryInput, MemoryUpdate, RecordRef, SearchQuery
from openproto_adapters.supermemory.api import PAGE, Api, Filter
from openproto_adapters.supermemory.ids import Place
from openproto_adapters.supermemory.memories import LOOK_AGAIN, Memories

TaskType: TypeAlias = Literal["superrag", "memory"]
Dreaming: TypeAlias = Literal["dynamic", "instant"]
Wait: TypeAlias = Literal["none", "indexed"]

TIMEOUT = 60.0
CONNECT_TIMEOUT = 5.0
INDEXED_WITHIN = 60.0
"""Seconds that a write waits at most for being indexed, where it is told to."""


class Supermemory(EmulatedProvider):
    """Memories as documents in Supermemory, stored word for word.

    Args:
        api_key: The key of the account; else SUPERMEMORY_API_KEY.
        base_url: Where the API is; else SUPERMEMORY_BASE_URL, else https://api.supermemory.ai.
        task_type: `superrag` indexes the texts; `memory` has Supermemory learn memories from them too, with a language
            model, which searches then match as well.
        dreaming: With `memory`, `dynamic` (Supermemory's default) or `instant`, which is sooner and billed extra.
        wait: `indexed` lets a write return when searches can find it, or after a minute; `none` at once.
        width: How many requests may be under way at once.
    """

    name = "supermemory"
    cancellation: Cancellation = "aborting"
    requires: ClassVar[tuple[str, ...]] = ("supermemory", "httpx")
    native: ClassVar[frozenset[str]] = EmulatedProvider.native | {"update", "async_ingestion"}
    async_ingestion: ClassVar[bool] = True
    scans_newest_first: ClassVar[bool] = True
    created_together = 100
    """Supermemory takes up to 600 in one request, which may be long ones."""
    most_ranked: ClassVar[int] = PAGE

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        task_type: TaskType = "superrag",
        dreaming: Dreaming | None = None,
        wait: Wait = "none",
        width: int = 8,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("task_type", task_type, ("superrag", "memory")),
            ("dreaming", dreaming, (None, "dynamic", "instant")),
            ("wait", wait, ("none", "indexed")),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}")
        if dreaming is not None and task_type != "memory":
            raise ValueError("dreaming is how memories form, which needs task_type='memory'")
        if width < 1:
            raise ValueError("width must be 1 or more")
        _check_url(base_url)
        self._api_key = api_key
        self._base_url = base_url
        self._writing: Filter = {"task_type": task_type} | ({"dreaming": dreaming} if dreaming else {})
        self._wait = wait
        if wait != "none":
            self.created_together = 1  # each write then waits for its own indexing
        self._width = width
        self._threads: Threads | None = None
        self._live: _Vendor | None = None

    async def open(self) -> None:
        """Import the SDK, and ask Supermemory whether it accepts the key."""
        api_key = self._api_key or os.environ.get("SUPERMEMORY_API_KEY")
        if not api_key:
            raise UnauthorizedError("Supermemory needs an API key: api_key=, or SUPERMEMORY_API_KEY")
        self._threads = threads = Threads(self._width, "openproto-supermemory")
        try:
            self._live = await threads(_connect, threads, api_key, self._base_url, self._writing)
            await self.health()
        except BaseException:
            await self.close()
            raise
        await super().open()

    async def close(self) -> None:
        """Cut what is under way and close the connections."""
        await super().close()
        if self._threads is not None:
            self._threads.close()

    async def health(self) -> None:
        """Ask for the namespaces, which needs an accepted key."""
        await self._vendor.api.ping()

    async def describe(self) -> dict[str, str]:
        """Return where the API is and the SDK's version."""
        return {"server": self._vendor.server, "supermemory": version("supermemory")}

    def store_name(self) -> str:
        """Return a name for the account."""
        return self._vendor.memories.name

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store the memory, and wait for it to be indexed where that is wanted."""
        return await self._indexed(await super().add(item, idempotency_key=idempotency_key))

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Change the memory, and wait for it to be indexed where that is wanted."""
        return await self._indexed(await super().update(ref, changes))

    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Write the document whose id is the key's."""
        return await self._vendor.memories.write(_new(item, key))

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Write the documents in one batch, made in a thread: hashing a hundred long texts takes its time."""
        batch = await self._vendor.threads(lambda: [_new(item, key) for item, key in items])
        return await self._vendor.memories.write_together(batch)

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        """Return the memory; an id that was never made here, or is another user's, is asked of nobody."""
        place = _place(id, user_id)
        return None if place is None else await self._vendor.memories.find(place)

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        """Return the memory of the key; ConflictError where that was deleted."""
        place = Place.of_key(user_id, key)
        found = await self._vendor.memories.find(place)
        if found is None and place.has_key and await self._vendor.memories.is_buried(place):
            raise ConflictError("idempotency_key: belongs to a memory that was deleted since; use a new key")
        return found

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Update the document in one request."""
        changed = await self._vendor.memories.change(old, new)
        if changed is None:
            raise NotFoundError("no such memory")
        return changed

    async def remove(self, stored: Stored) -> bool:
        """Delete the document."""
        return await self._vendor.memories.remove(Place.of(stored.record.id))

    async def delete(self, ref: RecordRef) -> None:
        """Delete the document; without reading it first where its id says all that needs to be known."""
        place = _place(ref.id, ref.user_id)
        if place is None:
            raise NotFoundError("no such memory")
        if place.has_key:  # nothing is to be remembered of a key that never had a memory
            await super().delete(ref)
            return
        async with self._held(ref.id):
            if not await self._vendor.memories.remove(place):
                raise NotFoundError("no such memory")

    async def delete_all(self, filters: Filters) -> int:
        """Delete the namespace and the keys, or, where only a part is to go, as many documents at once as can be."""
        memories = self._vendor.memories
        if filters.scope is None and filters.tag is None:
            return await memories.remove_all(user_token(filters.user_id))
        query = ListQuery(user_id=filters.user_id, scope=filters.scope, tag=filters.tag)
        async with aclosing(self.scan(filters.user_id)) as found:
            chosen = [stored async for stored in found if matches(stored, query)]
        deleted = 0
        for start in range(0, len(chosen), PAGE):
            part = chosen[start : start + PAGE]
            async with self._held(*(stored.record.id for stored in part)):
                deleted += await memories.remove_together([Place.of(stored.record.id) for stored in part])
        return deleted

    def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        """Yield the memories, newest first."""
        return self._vendor.memories.all(user_token(user_id), until)

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Search by meaning, among what is current and passes the filters."""
        return await self._vendor.memories.search(query, count)

    @property
    def _vendor(self) -> _Vendor:
        if self._live is None:
            raise RuntimeError("the supermemory provider is not open")
        return self._live

    async def _indexed(self, record: MemoryRecord) -> MemoryRecord:
        """Return the record when it is indexed, or has failed, or after a minute, where writes wait for that."""
        deadline = time.monotonic() + INDEXED_WITHIN
        while self._wait == "indexed" and record.status in ("queued", "indexing") and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_AGAIN)
            record = await self.get(RecordRef(id=record.id, user_id=record.user_id))
        return record


class _Vendor(NamedTuple):
    """What an open provider works with."""

    server: str
    threads: Threads
    api: Api
    memories: Memories


@large_import()
def _connect(threads: Threads, api_key: str, base_url: str | None, writing: Filter) -> _Vendor:
    """Return what an open provider works with; in a thread, for the SDK is imported part by part."""
    import httpx
    from supermemory import Supermemory as Client

    timeout = httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT)
    http = threads.http_client(timeout=timeout)
    client = Client(api_key=api_key, base_url=base_url, http_client=http, timeout=timeout, max_retries=0)
    server = str(client.base_url)
    _check_url(server)  # it may be that of the environment
    api = Api(threads, client, writing)
    # A hash, for two accounts are two stores and nothing may show the key.
    return _Vendor(server, threads, api, Memories(f"supermemory {user_token(f'{server} {api_key}')}", api))


def _new(item: MemoryInput, key: str) -> Stored:
    """Return the memory to write, under the key's id."""
    return Stored.new(item, key, id=Place.of_key(item.user_id, key).id)


def _place(id: str, user_id: str | None) -> Place | None:
    """Return where a memory is, unless the id was never made here, or is of another user than the one given."""
    place = Place.of_id(id)
    return None if place is None or (user_id is not None and user_token(user_id) != place.token) else place


def _check_url(url: str | None) -> None:
    """Raise ValueError for a URL with a user or a password, which would show in logs, and take the key's place."""
    if url is not None and "@" in urlsplit(url).netloc:
        raise ValueError("base_url must not hold a user or a password: the key is api_key=")
