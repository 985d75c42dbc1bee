"""The memorysync provider: an end user for each user, over MemorySync's own asynchronous SDK.

MemorySync keeps facts that its model finds in a text, in words of its own; the memory as it was given stands in their
metadata, and that is what is read. The texts it keeps are what it searches.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from openproto.blocking.imports import large_import
from openproto.blocking.threads import Threads
from openproto.emulation import EmulatedProvider, Ranked, Stored, user_token
from openproto.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    RateLimitedError,
    UnauthorizedError,
)
from openproto.fanout import gather_all
from openproto.models import Cancellation
from openproto.provider import KeyedInput, Outcomes
from openproto.requests import Filters, MemoryInput, SearchQuery
from openproto_adapters.memorysync.drafts import Draft, Outcome
from openproto_adapters.memorysync.places import Place, name_of
from openproto_adapters.memorysync.rows import (
    Version,
    handle_of,
    metadata_of,
    name_tag,
    newest,
    rows_of,
    tags_of,
    take,
    wanted_tags,
)

if TYPE_CHECKING:
    from openproto_adapters.memorysync.api import Api
    from openproto_adapters.memorysync.connection import Connection

HOSTED = "https://api.memorysync.io"
MOST_MOVED = 10_000


class MemorySync(EmulatedProvider):
    """Memories in MemorySync.

    Args:
        api_key: The key; else MEMORYSYNC_API_KEY.
        base_url: Where the API is; else MEMORYSYNC_BASE_URL, else the hosted one.
        project_id: The project, where the key is good for several.
        timeout: Seconds that one request may take, from its first byte to the last of its answer.
        max_connections: Requests under way at once; further ones wait their turn.
    """

    name = "memorysync"
    cancellation: Cancellation = "native"
    requires: ClassVar[tuple[str, ...]] = ("memorysync", "httpx")
    replaces_at_once: ClassVar[bool] = False
    most_ranked: ClassVar[int] = 100
    created_together = 50

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        project_id: str | None = None,
        timeout: float = 30.0,
        max_connections: int = 32,
    ) -> None:
        super().__init__()
        for option, value in (("api_key", api_key), ("project_id", project_id)):
            if value is not None and not _fits_header(value):
                raise ValueError(f"{option} must be visible ASCII characters, without spaces or line breaks")
        if timeout <= 0 or max_connections < 1:
            raise ValueError("timeout must be more than 0 and max_connections 1 or more")
        self._api_key = api_key
        self._base_url = base_url
        self._project_id = project_id
        self._timeout = timeout
        self._max_connections = max_connections
        self._address = ""
        self._connection: Connection | None = None
        self._live: Api | None = None
        self._is_over_plan = False
        self._moved: dict[str, int] = {}

    async def open(self) -> None:
        """Import the SDK, learn the tenant, and see that the key is accepted."""
        api_key = self._api_key or os.environ.get("MEMORYSYNC_API_KEY", "")
        if not _fits_header(api_key):
            raise UnauthorizedError("MemorySync needs an API key: set api_key= or MEMORYSYNC_API_KEY")
        self._address = (self._base_url or os.environ.get("MEMORYSYNC_BASE_URL") or HOSTED).rstrip("/")
        threads = Threads(1, "openproto-memorysync")
        try:
            # The SDK takes a while to import, and the authorities for TLS a while to read.
            with large_import():
                connection = await threads(importlib.import_module, "openproto_adapters.memorysync.connection")
                api = await threads(importlib.import_module, "openproto_adapters.memorysync.api")
            options = connection.Options(api_key, self._address, self._project_id, self._timeout, self._max_connections)
            self._connection = await threads(connection.Connection, options)
            self._live = api.Api(self._connection)
            await super().open()
            await gather_all(self._api.find_tenant(), self.health())
        except BaseException:
            await self.close()
            raise
        finally:
            threads.close()

    async def close(self) -> None:
        """Stop what is under way and close the connections."""
        await super().close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def health(self) -> None:
        """Ask for a memory that nobody has, which needs an accepted key."""
        await self._api.get("health", 1)

    async def describe(self) -> dict[str, str]:
        """Return where the API is and the SDK's version."""
        parts = urlsplit(self._address)
        server = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return {"server": server, "memorysync": version("memorysync")}

    def store_name(self) -> str:
        """Return the API's address and the project."""
        return f"memorysync {self._address} {self._project_id}"

    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Store the memory's text; MemorySync knows the key again, whoever sent it first."""
        (created,) = await self._create([KeyedInput(item, key)])
        if isinstance(created, OpenProtoError):
            raise created
        return created

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Store the memories in one request, each with its outcome."""
        try:
            created = await self._create(items)
        except OpenProtoError as error:
            if error.retryable:
                raise
            return [error] * len(items)
        return [one if isinstance(one, OpenProtoError) else one.record for one in created]

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        """Return the memory: one request, unless its content was changed elsewhere or it is not there."""
        place = Place.of_id(id)
        if place is None or (user_id is not None and user_token(user_id) != place.token):
            return None
        row = await self._api.get(place.token, self._moved.get(id, place.first))
        found = newest([row], place.token).get(place.name) if row is not None else None
        if row is None or (found is not None and found.moving):
            found = await self._look_up(place.token, place.name)
        return found.stored if found is not None and found.stored.record.id == id else None

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        """Return what a search finds of it; where that is nothing, MemorySync itself knows keys again."""
        token, name = user_token(user_id), name_of(user_id, key)
        found = (await self._tagged(token, name)).get(name)
        if found is not None and found.moving:
            found = await self._look_up(token, name)
        return found.stored if found is not None else None

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Edit the rows; where the content differs, write others and forget these, which say so from before on."""
        if new.record.content == old.record.content:
            await self._edit(new)
            return new
        place = _place(old)
        await self._edit(old, moving=True)
        try:
            draft = Draft.of(replace(new, handle=""), place.name, _mark(new))
            (outcome,) = await self._send(place.token, [draft])
            ids = outcome.ids if outcome.is_repeat else outcome.rows()
        except (ConflictError, InvalidRequestError, RateLimitedError):
            await self._edit(old)  # nothing was written, and there is nothing to look for
            raise
        written = await self._merged(replace(new, handle=handle_of(ids)))
        await self._api.forget(place.token, rows_of(old))
        self._note_moved(written)
        return written

    async def remove(self, stored: Stored) -> bool:
        """Forget every row that has the memory's tag, and the rows that are known in any case."""
        place = _place(stored)
        deleted = await self._api.forget_tagged(place.token, name_tag(place.name))
        if left := set(rows_of(stored)) - deleted:
            deleted |= await self._api.forget(place.token, left)
        return bool(deleted)

    async def delete_all(self, filters: Filters) -> int:
        """Forget everything of the user in one request, or what the filters select one by one."""
        if filters.scope is not None or filters.tag is not None:
            return await super().delete_all(filters)
        token = user_token(filters.user_id)
        memories = [one.stored for one in (await self._everything(token)).values()]
        async with self._held(*(stored.record.id for stored in memories)):
            deleted = await self._api.forget_everything(token)
        return sum(not deleted.isdisjoint(rows_of(stored)) for stored in memories)

    async def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        """Yield the memories, in no particular order: of each only all rows together show the newest version."""
        token = user_token(user_id)
        for found in (await self._everything(token)).values():
            yield found.stored

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Return what MemorySync finds, with its scores: of nearness, age, importance, and use."""
        token = user_token(query.user_id)
        hits = await self._api.query(token, query.query, count, wanted_tags(query))
        if not hits.rows and self._is_over_plan:
            raise _over_plan()
        ranked: list[tuple[Stored, float]] = []
        for name, hit in newest(hits.rows, token).items():
            found = await self._look_up(token, name) if hit.moving else hit
            if found is not None:
                ranked.append((found.stored, hit.score))
        # An account over its plan is answered as if it had nothing. Whether it has, the listing tells.
        return Ranked(ranked, complete=len(hits.rows) < count and not hits.is_bare)

    @property
    def _api(self) -> Api:
        if self._live is None:
            raise RuntimeError("the memorysync provider is not open")
        return self._live

    async def _create(self, items: Sequence[KeyedInput]) -> list[Stored | OpenProtoError]:
        """Store memories of one user in one request."""
        names = [name_of(item.user_id, key) for item, key in items]
        news = [Stored.new(item, key, id="") for item, key in items]
        token = user_token(items[0].item.user_id)
        drafts = [Draft.of(stored, name, name) for stored, name in zip(news, names, strict=True)]
        outcomes = await self._send(token, drafts)

        async def settled(item: MemoryInput, stored: Stored, name: str, outcome: Outcome) -> Stored | OpenProtoError:
            try:
                if outcome.is_repeat:
                    return self._same_input(await self._ingested(token, name, outcome.ids), item)
                ids = outcome.rows()
                placed = stored.changed(id=Place(token, ids[0], name).id)
                return await self._merged(replace(placed, handle=handle_of(ids)))
            except OpenProtoError as error:
                return error

        done = zip(items, news, names, outcomes, strict=True)
        return await gather_all(*(settled(keyed.item, stored, name, outcome) for keyed, stored, name, outcome in done))

    async def _send(self, token: str, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        outcomes = await self._api.add(token, drafts)
        self._is_over_plan = outcomes is None
        if outcomes is None:
            raise _over_plan()
        return outcomes

    async def _ingested(self, token: str, name: str, ids: Sequence[int]) -> Stored:
        """Return the memory that an earlier attempt has written, which may have been cut off before its end."""
        found = await self.find(Place(token, ids[0], name).id, None)
        if found is None:
            raise ConflictError("idempotency_key: belongs to a memory that was deleted since; use a new key")
        is_cut_off = rows_of(found) == [ids[0]] and len(ids) > 1
        return await self._merged(replace(found, handle=handle_of(ids))) if is_cut_off else found

    async def _merged(self, stored: Stored) -> Stored:
        """Tell rows of one memory of each other, where MemorySync has made several of it."""
        if len(rows_of(stored)) > 1:
            await self._edit(stored)
        return stored

    async def _edit(self, stored: Stored, *, moving: bool = False) -> None:
        place = _place(stored)
        tags, metadata = tags_of(stored.record, place.name), metadata_of(stored, place.name, moving=moving)
        if not await self._api.edit(place.token, rows_of(stored), tags, metadata):
            raise NotFoundError("no such memory")

    async def _look_up(self, token: str, name: str) -> Version | None:
        """Return the newest version by the memory's name: as the index has it, or else out of all there is."""
        found = (await self._tagged(token, name)).get(name)
        if found is None or found.moving:
            found = (await self._everything(token)).get(name)
        if found is not None:
            self._note_moved(found.stored)
        return found

    async def _everything(self, token: str) -> dict[str, Version]:
        found: dict[str, Version] = {}
        async with aclosing(self._api.pages(token)) as pages:
            async for rows in pages:
                take(found, rows, token)
                await asyncio.sleep(0)  # reading a page takes a few milliseconds
        return found

    async def _tagged(self, token: str, name: str) -> dict[str, Version]:
        tag = name_tag(name)
        return newest((await self._api.query(token, tag, self.most_ranked, [tag])).rows, token)

    def _note_moved(self, stored: Stored) -> None:
        """Remember where a memory is now, so that it is found at the first attempt."""
        self._moved.pop(stored.record.id, None)
        self._moved[stored.record.id] = rows_of(stored)[0]
        if len(self._moved) > MOST_MOVED:
            del self._moved[next(iter(self._moved))]


def _place(stored: Stored) -> Place:
    place = Place.of_id(stored.record.id)
    assert place is not None  # noqa: S101 - of a memory that was found here; this tells the type checkers
    return place


def _over_plan() -> RateLimitedError:
    """Return the error for what MemorySync passes over in silence, with answers as if all were well."""
    return RateLimitedError(
        "the MemorySync account is over its plan's limit, and stores and finds nothing: raise the limit"
    )


def _mark(stored: Stored) -> str:
    """Return the mark of a memory's new content, which is another with each change."""
    return name_of(stored.record.user_id, f"{stored.record.id} {stored.record.updated_at}")


def _fits_header(value: str) -> bool:
    return value.isascii() and value.isprintable() and value.split() == [value]
