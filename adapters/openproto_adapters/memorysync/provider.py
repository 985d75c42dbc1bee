"""The memorysync provider: an end user for each user, over MemorySync's own asynchronous SDK.

MemorySync stores facts that its model finds in a text, reworded, and searches those. The memory as it was given stands
in their metadata, and that is what is read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from openproto.blocking.imports import import_async_http, large_import
from openproto.emulation import (
    EmulatedProvider,
    Ranked,
    Recent,
    Stored,
    Traits,
    api_key_of,
    connect_once,
    deleted_since,
    no_such_memory,
    user_token,
    without_credentials,
)
from openproto.errors import ConflictError, InvalidRequestError, OpenProtoError, RateLimitedError
from openproto.fanout import gather_all
from openproto.fields import check_seconds, check_whole
from openproto.models import Cancellation
from openproto.provider import KeyedInput, Outcomes
from openproto.requests import MemoryInput, SearchQuery
from openproto_adapters.memorysync import rows
from openproto_adapters.memorysync.drafts import Draft, Outcome
from openproto_adapters.memorysync.ids import VENDOR, RowId, name_of

if TYPE_CHECKING:
    from openproto_adapters.memorysync.api import Api
    from openproto_adapters.memorysync.connection import Connection

HOSTED = "https://api.memorysync.io"
MOST_MOVED = 10_000


class _Backend(NamedTuple):
    address: str
    connection: Connection
    api: Api


class MemorySync(EmulatedProvider[_Backend]):
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
    sdk = "memorysync"
    tested_with = "1.10.1"
    traits = Traits(replaces_at_once=False, keys_outlive="native", most_ranked=100, most_created=50, removes_all=True)

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
        _check_header("api_key", api_key)
        _check_header("project_id", project_id)
        check_seconds(timeout=timeout)
        check_whole(max_connections=max_connections)
        self._api_key = api_key
        self._base_url = base_url
        self._project_id = project_id
        self._timeout = timeout
        self._max_connections = max_connections
        self._is_over_plan = False
        self._moved: Recent[str, int] = Recent(MOST_MOVED)

    async def connect(self) -> _Backend:
        api_key = api_key_of(VENDOR, self._api_key, "MEMORYSYNC_API_KEY")
        _check_header("MEMORYSYNC_API_KEY", api_key)
        address = (self._base_url or os.environ.get("MEMORYSYNC_BASE_URL") or HOSTED).rstrip("/")
        options = (api_key, address, self._project_id, self._timeout, self._max_connections)
        return await connect_once("openproto-memorysync", _connect, address, options)

    async def disconnect(self, backend: _Backend) -> None:
        await backend.connection.close()

    async def check(self) -> None:
        """Ask for a missing memory, which needs an accepted key, and once for the tenant."""
        await gather_all(self.backend.api.find_tenant(), self.backend.api.get("health", 1))

    async def describe(self) -> dict[str, str]:
        return {"server": without_credentials(self.backend.address), **await super().describe()}

    def store_name(self) -> str:
        return f"memorysync {self.backend.address} {self._project_id}"

    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Store the memory's text; MemorySync recognizes the key, whichever process sent it first."""
        (created,) = await self._store([KeyedInput(item, key)])
        if isinstance(created, OpenProtoError):
            raise created
        return created

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        created = await self._store(items)
        return [one if isinstance(one, OpenProtoError) else one.record for one in created]

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        """Return the memory: one request, unless its content was changed elsewhere or it is not there."""
        own = RowId.read(id, user_id)
        if own is None:
            return None
        row = await self.backend.api.get(own.token, self._moved.get(id) or own.first)
        found = rows.newest([row], own.token).get(own.name) if row is not None else None
        if row is None or (found is not None and found.is_replaced):
            found = await self._look_up(own.token, own.name)
        return found.stored if found is not None and found.stored.record.id == id else None

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        """Return what a search finds of it; where that is nothing, MemorySync itself knows keys again."""
        token, name = user_token(user_id), name_of(user_id, key)
        found = (await self._tagged(token, name)).get(name)
        if found is not None and found.is_replaced:
            found = await self._look_up(token, name)
        return found.stored if found is not None else None

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Edit the rows; where the content differs, write others and forget these, which say so from before on."""
        if new.record.content == old.record.content:
            await self._edit(new)
            return new
        own = RowId.of(old.record.id)
        await self._edit(old, is_replaced=True)
        try:
            draft = Draft.of(replace(new, handle=""), own.name, _mark(new))
            (outcome,) = await self._send(own.token, [draft])
            ids = outcome.ids if outcome.is_repeat else outcome.rows()
        except (ConflictError, InvalidRequestError, RateLimitedError):
            await self._edit(old)  # nothing was written, and there is nothing to look for
            raise
        written = await self._merged(replace(new, handle=rows.handle_of(ids)))
        await self.backend.api.forget(own.token, rows.numbers_of(old))
        self._moved.put(old.record.id, rows.numbers_of(written)[0])
        return written

    async def remove(self, stored: Stored) -> bool:
        """Forget every row that has the memory's tag, and the rows that are known in any case."""
        own = RowId.of(stored.record.id)
        deleted = await self.backend.api.forget_tagged(own.token, rows.name_tag(own.name))
        if left := set(rows.numbers_of(stored)) - deleted:
            deleted |= await self.backend.api.forget(own.token, left)
        return bool(deleted)

    async def remove_all(self, user_id: str) -> int:
        """Forget everything of the user in one request."""
        token = user_token(user_id)
        memories = [one.stored for one in (await self._everything(token)).values()]
        async with self._locked(*(stored.record.id for stored in memories)):
            deleted = await self.backend.api.forget_everything(token)
        return sum(not deleted.isdisjoint(rows.numbers_of(stored)) for stored in memories)

    async def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        """Yield the memories, in no particular order: of each only all rows together show the newest version."""
        token = user_token(user_id)
        for found in (await self._everything(token)).values():
            yield found.stored

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Return what MemorySync finds, with its scores: of nearness, age, importance, and use."""
        token = user_token(query.user_id)
        hits = await self.backend.api.query(token, query.query, count, rows.wanted_tags(query))
        self._is_over_plan = self._is_over_plan and hits.is_bare  # or else the plan has been raised
        if self._is_over_plan:
            raise _over_plan()
        ranked: list[tuple[Stored, float]] = []
        for name, hit in rows.newest(hits.rows, token).items():
            found = await self._look_up(token, name) if hit.is_replaced else hit
            if found is not None:
                ranked.append((found.stored, hit.score))
        # An account over its plan is answered as if it had nothing. The listing says whether it has.
        return Ranked(ranked, complete=len(hits.rows) < count and not hits.is_bare)

    async def _store(self, items: Sequence[KeyedInput]) -> list[Stored | OpenProtoError]:
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
                placed = stored.changed(id=RowId(token, str(ids[0]), name).id)
                return await self._merged(replace(placed, handle=rows.handle_of(ids)))
            except OpenProtoError as error:
                return error

        done = zip(items, news, names, outcomes, strict=True)
        return await gather_all(*(settled(keyed.item, stored, name, outcome) for keyed, stored, name, outcome in done))

    async def _send(self, token: str, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        outcomes = await self.backend.api.add(token, drafts)
        self._is_over_plan = outcomes is None
        if outcomes is None:
            raise _over_plan()
        return outcomes

    async def _ingested(self, token: str, name: str, ids: Sequence[int]) -> Stored:
        """Return the memory that an earlier attempt has written, which may have been cut off before its end."""
        found = await self.find(RowId(token, str(ids[0]), name).id, None)
        if found is None:
            raise deleted_since()
        is_cut_off = rows.numbers_of(found) == [ids[0]] and len(ids) > 1
        return await self._merged(replace(found, handle=rows.handle_of(ids))) if is_cut_off else found

    async def _merged(self, stored: Stored) -> Stored:
        """Tell rows of one memory of each other, where MemorySync has made several of it."""
        if len(rows.numbers_of(stored)) > 1:
            await self._edit(stored)
        return stored

    async def _edit(self, stored: Stored, *, is_replaced: bool = False) -> None:
        own = RowId.of(stored.record.id)
        tags, metadata = (
            rows.tags_of(stored.record, own.name),
            rows.metadata_of(stored, own.name, is_replaced=is_replaced),
        )
        if not await self.backend.api.edit(own.token, rows.numbers_of(stored), tags, metadata):
            raise no_such_memory()

    async def _look_up(self, token: str, name: str) -> rows.Version | None:
        """Return the newest version by the memory's name: as the index has it, or else out of all there is."""
        found = (await self._tagged(token, name)).get(name)
        if found is None or found.is_replaced:
            found = (await self._everything(token)).get(name)
        if found is not None:
            self._moved.put(found.stored.record.id, rows.numbers_of(found.stored)[0])
        return found

    async def _everything(self, token: str) -> dict[str, rows.Version]:
        found: dict[str, rows.Version] = {}
        async with aclosing(self.backend.api.pages(token)) as pages:
            async for page in pages:
                rows.merge_newest(found, page, token)
                await asyncio.sleep(0)  # reading a page takes a few milliseconds
        return found

    async def _tagged(self, token: str, name: str) -> dict[str, rows.Version]:
        tag = rows.name_tag(name)
        return rows.newest((await self.backend.api.query(token, tag, self.traits.most_ranked, [tag])).rows, token)


@large_import()
def _connect(address: str, options: tuple[str, str, str | None, float, int]) -> _Backend:
    # The SDK takes a while to import, and the authorities for TLS a while to read.
    from openproto_adapters.memorysync.api import Api
    from openproto_adapters.memorysync.connection import Connection, Options

    import_async_http()
    connection = Connection(Options(*options))
    return _Backend(address, connection, Api(connection))


def _over_plan() -> RateLimitedError:
    """Return the error for what MemorySync passes over in silence, with answers as if all were well."""
    return RateLimitedError(
        "the MemorySync account is over its plan's limit, and stores and finds nothing: raise the limit"
    )


def _mark(stored: Stored) -> str:
    """Return the mark of a memory's new content, which is another with each change."""
    return name_of(stored.record.user_id, f"{stored.record.id} {stored.record.updated_at}")


def _check_header(name: str, value: str | None) -> None:
    """Raise InvalidRequestError for a value that no header can carry."""
    if value is not None and not (value.isascii() and value.isprintable() and value.split() == [value]):
        raise InvalidRequestError(f"{name} must be visible ASCII characters, without spaces or line breaks")
