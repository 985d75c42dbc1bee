"""The supermemory provider: one namespace for each user, one document for each memory, over Supermemory's own SDK.

"Supermemory" is the hosted API of version 5. Self-hosted servers are known to speak its predecessors only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from openproto.blocking.imports import large_import
from openproto.blocking.threads import Threads
from openproto.emulation import (
    NATIVE,
    EmulatedProvider,
    Ranked,
    Stored,
    Traits,
    api_key_of,
    check_base_url,
    connect_in,
    deleted_since,
    first_owners,
    no_such_memory,
    user_token,
)
from openproto.fields import check_whole
from openproto.models import Cancellation
from openproto.provider import KeyedInput, Outcomes
from openproto.requests import MemoryInput, RecordRef, SearchQuery
from openproto_adapters.supermemory.api import PAGE, Api, Filter
from openproto_adapters.supermemory.errors import VENDOR
from openproto_adapters.supermemory.ids import DocumentId
from openproto_adapters.supermemory.memories import Memories

TaskType: TypeAlias = Literal["superrag", "memory"]
Dreaming: TypeAlias = Literal["dynamic", "instant"]
Wait: TypeAlias = Literal["none", "indexed"]

TIMEOUT = 60.0
CONNECT_TIMEOUT = 5.0
INDEXED_WITHIN = 60.0
"""Seconds that a write waits at most to be indexed, with `wait="indexed"`."""


class _Backend(NamedTuple):
    server: str
    threads: Threads
    api: Api
    memories: Memories


@large_import()
def _connect(threads: Threads, api_key: str, base_url: str | None, writing: Filter) -> _Backend:
    """Return what an open provider works with; in a thread, because the import takes seconds."""
    import httpx
    from supermemory import Supermemory as Client

    timeout = httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT)
    http = threads.http_client(timeout=timeout)
    client = Client(api_key=api_key, base_url=base_url, http_client=http, timeout=timeout, max_retries=0)
    server = str(client.base_url)
    check_base_url(server)  # it may be that of the environment
    api = Api(threads, client, writing)
    # A hash, because two accounts are two stores, and nothing may show the key.
    return _Backend(server, threads, api, Memories(f"supermemory {user_token(f'{server} {api_key}')}", api))


class Supermemory(EmulatedProvider[_Backend]):
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
    sdk = "supermemory"
    tested_with = "5.0.1"
    traits = Traits(
        native=NATIVE | {"update", "async_ingestion"},
        async_ingestion=True,
        keys_outlive="emulated",
        scans_newest_first=True,
        most_created=100,  # Supermemory takes up to 600 in one request, which may be long ones
        most_ranked=PAGE,
        removes_all=True,
        most_removed=PAGE,
        lists_users=True,
        asks_of_each_user=True,
    )

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
        check_whole(width=width)
        check_base_url(base_url)
        self._api_key = api_key
        self._base_url = base_url
        self._writing: Filter = {"task_type": task_type} | ({"dreaming": dreaming} if dreaming else {})
        if wait != "none":
            # One by one: each write waits until it is indexed.
            self.traits = replace(self.traits, processing_seconds=INDEXED_WITHIN, most_created=1)
        self._width = width

    async def connect(self) -> _Backend:
        api_key = api_key_of(VENDOR, self._api_key, "SUPERMEMORY_API_KEY")
        threads = Threads(self._width, "openproto-supermemory")
        return await connect_in(threads, _connect, threads, api_key, self._base_url, self._writing)

    async def disconnect(self, backend: _Backend) -> None:
        backend.threads.close()

    async def check(self) -> None:
        """Ask for the namespaces, which needs an accepted key."""
        await self.backend.api.namespaces(1, 1)

    async def describe(self) -> dict[str, str]:
        return {"server": self.backend.server, **await super().describe()}

    def store_name(self) -> str:
        return self.backend.memories.name

    async def create(self, item: MemoryInput, key: str) -> Stored:
        return await self.backend.memories.write(_new(item, key))

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Write the documents in one batch, made in a thread: hashing a hundred long texts takes its time."""
        batch = await self.backend.threads(lambda: [_new(item, key) for item, key in items])
        return await self.backend.memories.write_together(batch)

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        own = DocumentId.read(id, user_id)
        return None if own is None else await self.backend.memories.find(own)

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        own = DocumentId.of_key(user_id, key)
        found = await self.backend.memories.find(own)
        if found is None and own.has_key and await self.backend.memories.is_buried(own):
            raise deleted_since()
        return found

    async def replace(self, old: Stored, new: Stored) -> Stored:
        changed = await self.backend.memories.change(old, new)
        if changed is None:
            raise no_such_memory()
        return changed

    async def remove(self, stored: Stored) -> bool:
        return await self.backend.memories.remove(DocumentId.of(stored.record.id))

    async def delete(self, ref: RecordRef) -> None:
        """Delete the document; without reading it first where its id says all that needs to be known."""
        own = DocumentId.read(ref.id, ref.user_id)
        if own is not None and not own.has_key and ref.if_version is None:  # it had no key that is to be remembered
            async with self._locked(ref.id):
                if await self.backend.memories.remove(own):
                    return
        await super().delete(ref)

    async def remove_all(self, user_id: str) -> int:
        """Delete the namespace and the keys."""
        return await self.backend.memories.remove_all(user_token(user_id))

    async def remove_many(self, chosen: Sequence[Stored]) -> int:
        return await self.backend.memories.remove_together([DocumentId.of(stored.record.id) for stored in chosen])

    def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        return self.backend.memories.all(user_token(user_id), until)

    async def owners(self) -> Collection[str]:
        memories = self.backend.memories
        return await first_owners(memories.all(token, None) for token in await memories.tokens())

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        return await self.backend.memories.search(query, count)


def _new(item: MemoryInput, key: str) -> Stored:
    return Stored.new(item, key, id=DocumentId.of_key(item.user_id, key).id)
