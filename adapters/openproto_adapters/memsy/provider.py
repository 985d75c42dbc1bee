"""The memsy provider: an event for each memory, over Memsy's own async client.

Memsy derives memories from events, later, and can neither delete nor change one. With a file for the records (`path=`)
that is emulated: the file says which records there are, and Memsy ranks them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from openproto.blocking.imports import import_async_http, large_import
from openproto.emulation import (
    EmulatedProvider,
    Ranked,
    Stored,
    Traits,
    api_key_of,
    check_base_url,
    connect_once,
    deleted_since,
    user_token,
)
from openproto.errors import InvalidRequestError, OpenProtoError, PayloadTooLargeError, UnsupportedCapabilityError
from openproto.fanout import gather_all
from openproto.fields import check_seconds, check_whole
from openproto.models import Cancellation, MemoryRecord, Operation, Verb
from openproto.provider import GeneratedKey, KeyedInput, Outcome, Outcomes
from openproto.requests import MemoryInput, MemoryUpdate, RecordRef, SearchQuery
from openproto_adapters.memsy.api import MOST_RANKED, Api
from openproto_adapters.memsy.errors import VENDOR
from openproto_adapters.memsy.events import MAX_CONTENT, MAX_METADATA, Kept, metadata_of
from openproto_adapters.memsy.file_backed import FileBacked
from openproto_adapters.memsy.ids import EventId
from openproto_adapters.memsy.records import Records
from openproto_adapters.memsy.search_backed import SearchBacked

if TYPE_CHECKING:
    from memsy import AsyncMemsyClient as Client

TIMEOUT = 30.0
_NEED_FILE: frozenset[Verb] = frozenset({"list", "update", "delete"})


class _Backend(NamedTuple):
    server: str
    api: Api
    memories: FileBacked | SearchBacked
    records: Records | None = None


class Memsy(EmulatedProvider[_Backend]):
    """Memories as events at Memsy.

    Args:
        base_url: Where the API is, ending with `/v1`; else MEMSY_BASE_URL.
        api_key: The key; else MEMSY_API_KEY.
        path: A file of this machine in which the records are kept, one for each organization at Memsy. Without one
            there is no `list`, `update`, `delete`, nor supersession, and a memory is what Memsy shows of it.
        wait: How many seconds a write waits at most until Memsy has processed it; 0 returns at once.
        width: How many requests may be under way at once.
    """

    name = "memsy"
    cancellation: Cancellation = "native"
    requires: ClassVar[tuple[str, ...]] = ("memsy", "httpx")
    sdk = "memsy"
    tested_with = "0.3.5"
    traits = Traits(
        native=frozenset({"add", "search", "capabilities", "vector_search", "async_ingestion"}),
        async_ingestion=True,
        keys_outlive="emulated",
        max_content_length=MAX_CONTENT,
        replaces_at_once=False,
        scans_newest_first=True,
        most_ranked=MOST_RANKED,
        mixes_users=True,
        lists_users=True,
        most_created=100,  # Memsy recommends tens to low hundreds
    )

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        path: str | os.PathLike[str] | None = None,
        wait: float = 0.0,
        width: int = 16,
    ) -> None:
        super().__init__()
        check_seconds(wait=wait, or_zero=True)
        check_whole(width=width)
        check_base_url(base_url)
        self._base_url = base_url
        self._api_key = api_key
        self._path = None if path is None else Path(path)
        self._width = width
        self.traits = replace(
            self.traits, processing_seconds=wait, supersession=path is not None, restores=path is not None
        )

    @property
    def verbs(self) -> frozenset[Verb]:
        """Every verb but `audit`; without a file only what Memsy can do."""
        return super().verbs if self._path is not None else super().verbs - _NEED_FILE

    @property
    def operations(self) -> frozenset[Operation]:
        """What the file makes possible; without one, records have a version, which never changes, and scores parts."""
        return super().operations if self._path is not None else frozenset({"version", "explain"})

    async def connect(self) -> _Backend:
        api_key = api_key_of(VENDOR, self._api_key, "MEMSY_API_KEY")
        base_url = self._base_url or os.environ.get("MEMSY_BASE_URL")
        if not base_url:
            raise InvalidRequestError("Memsy needs the URL of its API: base_url=, or MEMSY_BASE_URL")
        check_base_url(base_url)
        api = Api(await connect_once("openproto-memsy-import", _client, base_url, api_key), self._width)
        if self._path is None:
            return _Backend(base_url, api, SearchBacked(api))
        backend = _Backend(base_url, api, FileBacked(api, records := Records(self._path)), records)
        try:
            await records.open()
        except BaseException:
            await self.disconnect(backend)
            raise
        return backend

    async def disconnect(self, backend: _Backend) -> None:
        try:
            await backend.api.close()
        finally:
            if backend.records is not None:
                await backend.records.close()

    async def check(self) -> None:
        await self.backend.api.check()

    async def describe(self) -> dict[str, str]:
        file = {} if self._path is None else {"records": str(self._path)}
        return {"server": self.backend.server, **await super().describe(), **file}

    def store_name(self) -> str:
        """Return the file, which writers share; without one nothing is ever changed."""
        return f"memsy {self._path.absolute() if self._path is not None else self.backend.server}"

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Send the memory, unless it cannot be kept."""
        if (refusal := self._refusal(item)) is not None:
            raise refusal
        return await super().add(item, idempotency_key=idempotency_key)

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        if any(self._refusal(item) is not None for item, _ in items):
            return await self.add_each(items)
        kept = await self._send(items)

        async def outcome(stored: Kept) -> Outcome:
            try:
                return deleted_since() if stored == "deleted" else await self.processed(stored.record)
            except OpenProtoError as error:
                return error

        return await gather_all(*map(outcome, kept))

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Change the record; a new text is a new event."""
        if len(changes.content) > MAX_CONTENT:
            raise _too_long()
        return await super().update(ref, changes)

    async def create(self, item: MemoryInput, key: str) -> Stored:
        (kept,) = await self._send([(item, key)])
        if kept == "deleted":
            raise deleted_since()
        return self._same_input(kept, item)

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        own = EventId.read(id, user_id)
        return None if own is None else await self.backend.memories.get(own)

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        kept = await self.backend.memories.of_key(EventId.of_key(user_id, key))
        if kept == "deleted":
            raise deleted_since()
        return kept

    async def replace(self, old: Stored, new: Stored) -> Stored:
        return await self._file.replace(old, new)

    async def remove(self, stored: Stored) -> bool:
        return await self._file.remove(stored)

    def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        """Yield the records of the file, newest first; without one there is nothing to go through."""
        return self.backend.memories.scan(user_token(user_id), until)

    async def owners(self) -> Sequence[str]:
        return [] if self.backend.records is None else await self.backend.records.owners()

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Search; a memory's score is that of the best that Memsy made of it."""
        api, memories = self.backend.api, self.backend.memories
        actor = user_token(query.user_id)
        hits = await api.search(query.query, actor, count, texts=memories.needs_texts)
        known = await memories.of_hits(actor, hits)
        scores: dict[str, float] = {}
        for hit in hits:
            for source in hit.sources:
                if source.event in known:
                    scores[source.event] = max(hit.score, scores.get(source.event, 0.0))
        # What is found has been processed, even if its status was not asked for since.
        ranked = [(known[event].changed(status="done"), score) for event, score in scores.items()]
        exhausted = len(hits) < count
        return Ranked(ranked, complete=exhausted and isinstance(memories, SearchBacked), exhausted=exhausted)

    @property
    def _file(self) -> FileBacked:
        if not isinstance(self.backend.memories, FileBacked):
            raise self.unsupported("update")
        return self.backend.memories

    def unsupported(self, what: str) -> UnsupportedCapabilityError:
        """Return the error for something that Memsy does not have, and the option with which it is emulated."""
        if self._path is not None or what not in {*super().verbs, *super().operations, "supersedes"}:
            return super().unsupported(what)
        return UnsupportedCapabilityError(
            f"provider {self.name!r} does not support {what!r}: Memsy neither lists, changes, nor deletes memories; "
            "with path= openproto keeps the records in a file, and does",
            provider=self.name,
        )

    def _refusal(self, item: MemoryInput) -> OpenProtoError | None:
        if len(item.content) > MAX_CONTENT:
            return _too_long()
        if self._path is not None:
            return None
        if item.key is not None:
            return self.unsupported("key")
        if item.supersedes:
            return self.unsupported("supersedes")
        if metadata_of(_new(item, "")[1]) is None:
            return UnsupportedCapabilityError(
                f"provider {self.name!r}: the fields other than the content exceed the {MAX_METADATA} characters "
                "that Memsy keeps; shorten them, or give path="
            )
        return None

    async def _send(self, items: Sequence[KeyedInput | tuple[MemoryInput, str]]) -> Sequence[Kept]:
        new = [_new(item, key) for item, key in items]
        events = [(own, stored.record.content, metadata_of(stored)) for own, stored in new]
        ids = await self.backend.api.ingest(events)
        sent = [
            replace(stored.changed(id=replace(own, event=event).id, status="queued"), handle=event)
            for (own, stored), event in zip(new, ids, strict=True)
        ]
        return await self.backend.memories.keep(sent)


@large_import()
def _client(base_url: str, api_key: str) -> Client:
    """Return the SDK's client; in a thread, because the import and the TLS certificates take time."""
    from memsy import AsyncMemsyClient as Client

    from openproto.blocking.unsolicited import discard_out_of_step

    import_async_http()
    client = Client(base_url, api_key, timeout=TIMEOUT, max_retries=0)
    discard_out_of_step(client._client)
    return client


def _new(item: MemoryInput, key: str) -> tuple[EventId, Stored]:
    """Return where the memory is to be, and what; of a key that the client made, only the client needs to know."""
    own = EventId.of_key(item.user_id, key)
    stored = Stored.new(item, key, id=own.id)
    return own, replace(stored, idempotency_key="") if isinstance(key, GeneratedKey) else stored


def _too_long() -> PayloadTooLargeError:
    return PayloadTooLargeError(f"content: Memsy takes at most {MAX_CONTENT} characters")
