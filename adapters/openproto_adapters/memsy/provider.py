"""The memsy provider: an event for each memory, over Memsy's own async client.

Memsy makes memories of its own out of events, in its own time, and cannot be told to forget or to change one. With a
file for the records (`path=`) those are emulated: the file says what there is, and Memsy what answers a query.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from urllib.parse import urlsplit

from openproto.blocking.imports import large_import
from openproto.blocking.threads import Threads
from openproto.emulation import EmulatedProvider, Ranked, Stored, user_token
from openproto.errors import (
    ConflictError,
    InvalidRequestError,
    OpenProtoError,
    PayloadTooLargeError,
    UnauthorizedError,
    UnsupportedCapabilityError,
)
from openproto.fanout import gather_all
from openproto.models import Cancellation, Capabilities, MemoryPage, MemoryRecord, Verb
from openproto.provider import GeneratedKey, KeyedInput, Outcome, Outcomes
from openproto.requests import Filters, ListQuery, MemoryInput, MemoryUpdate, RecordRef, SearchQuery
from openproto_adapters.memsy.api import MOST_RANKED, Api
from openproto_adapters.memsy.events import MAX_CONTENT, MAX_METADATA, metadata_of
from openproto_adapters.memsy.filed import Filed
from openproto_adapters.memsy.ids import Place
from openproto_adapters.memsy.records import Kept, Records
from openproto_adapters.memsy.shown import Shown

if TYPE_CHECKING:
    from memsy import AsyncMemsyClient as Client

TIMEOUT = 30.0
TOGETHER = 100
"""How many memories one request adds; Memsy recommends tens to low hundreds."""

_FIRST_LOOK, _MOST_BETWEEN_LOOKS = 0.05, 1.0
_NEED_FILE: frozenset[Verb] = frozenset({"list", "update", "delete"})


class Memsy(EmulatedProvider):
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
    native: ClassVar[frozenset[str]] = frozenset({"add", "search", "capabilities", "vector_search", "async_ingestion"})
    async_ingestion: ClassVar[bool] = True
    max_content_length: ClassVar[int] = MAX_CONTENT
    replaces_at_once: ClassVar[bool] = False
    scans_newest_first: ClassVar[bool] = True
    most_ranked: ClassVar[int] = MOST_RANKED

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
        if wait < 0:
            raise ValueError("wait must be 0 seconds or more")
        if width < 1:
            raise ValueError("width must be 1 or more")
        _check_url(base_url)
        self._base_url = base_url
        self._api_key = api_key
        self._path = None if path is None else Path(path)
        self._wait = wait
        self._width = width
        self._live: _Vendor | None = None

    @property
    def verbs(self) -> frozenset[Verb]:
        """Every verb but `audit`; without a file only what Memsy can do."""
        return super().verbs if self._path is not None else super().verbs - _NEED_FILE

    async def open(self) -> None:
        """Import the SDK, open the file, and ask Memsy whether it works and accepts the key."""
        api_key = self._api_key or os.environ.get("MEMSY_API_KEY")
        if not api_key:
            raise UnauthorizedError("Memsy needs an API key: api_key=, or MEMSY_API_KEY")
        base_url = self._base_url or os.environ.get("MEMSY_BASE_URL")
        if not base_url:
            raise InvalidRequestError("Memsy needs the URL of its API: base_url=, or MEMSY_BASE_URL")
        _check_url(base_url)
        threads = Threads(1, "openproto-memsy-import")
        try:
            client = await threads(_connect, base_url, api_key)
        finally:
            threads.close()
        api = Api(client, self._width)
        memories = Shown(api) if self._path is None else Filed(api, Records(self._path))
        self._live = _Vendor(base_url, api, memories)
        try:
            await memories.open()
            await api.check()
        except BaseException:
            await self.close()
            raise
        await super().open()

    async def close(self) -> None:
        """Cut what is under way, and close the connections and the file."""
        await super().close()
        live, self._live = self._live, None
        if live is None:
            return
        try:
            await live.api.close()
        finally:
            await live.memories.close()

    async def health(self) -> None:
        """Ask Memsy whether it works, and whether it accepts the key."""
        await self._vendor.api.check()

    async def describe(self) -> dict[str, str]:
        """Return where the API and the file are, and the SDK's version."""
        file = {} if self._path is None else {"records": str(self._path)}
        return {"server": self._vendor.server, "memsy": version("memsy"), **file}

    def store_name(self) -> str:
        """Return the file, for that is what writers share; without one nothing is ever changed."""
        return f"memsy {self._path.absolute() if self._path is not None else self._vendor.server}"

    async def capabilities(self) -> Capabilities:
        """Return what Memsy has and what the file adds."""
        declared = await super().capabilities()
        if self._path is not None:
            return declared
        details = declared.x_openproto
        support = {**details.support, "supports_supersession": "none"}
        return declared.model_copy(
            update={
                "features": declared.features.model_copy(update={"supports_supersession": False}),
                "x_openproto": details.model_copy(update={"support": support}),
            }
        )

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Send the memory, and wait for Memsy to process it where that is wanted."""
        if (refusal := self._refusal(item)) is not None:
            raise refusal
        return await self._processed(await super().add(item, idempotency_key=idempotency_key))

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Send what needs no look-up in batches, and the rest one by one."""
        alone: list[int] = []
        simple: list[int] = []
        for number, (item, key) in enumerate(items):
            is_simple = isinstance(key, GeneratedKey) and not item.supersedes and self._refusal(item) is None
            (simple if is_simple else alone).append(number)
        outcomes = dict(zip(alone, await super().add_many([items[number] for number in alone]), strict=True))
        for start in range(0, len(simple), TOGETHER):
            batch = simple[start : start + TOGETHER]
            outcomes.update(zip(batch, await self._add_together([items[number] for number in batch]), strict=True))
        return [outcomes[number] for number in range(len(items))]

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Change the record; a new text is a new event."""
        self._require_file("update")
        if len(changes.content) > MAX_CONTENT:
            raise _too_long()
        return await self._processed(await super().update(ref, changes))

    async def delete(self, ref: RecordRef) -> None:
        """Remove the record from the file; what Memsy learned from it stays there, and is never shown again."""
        self._require_file("delete")
        await super().delete(ref)

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return the page, from the file."""
        self._require_file("list")
        return await super().list(query)

    async def delete_all(self, filters: Filters) -> int:
        """Remove what the filters select from the file."""
        self._require_file("delete")
        return await super().delete_all(filters)

    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Send one event, and keep the record."""
        (kept,) = await self._send([(item, key)])
        if kept == "deleted":
            raise _key_of_deleted()
        return self._same_input(kept, item)

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        """Return the memory, which the id says where to look for; an id that was never made here is asked of nobody."""
        place = Place.of_id(id)
        if place is None or (user_id is not None and user_token(user_id) != place.actor):
            return None
        return await self._vendor.memories.get(place)

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        """Return the memory of the key; ConflictError where that was deleted."""
        kept = await self._vendor.memories.of_key(Place.of_key(user_id, key))
        if kept == "deleted":
            raise _key_of_deleted()
        return kept

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Change the record in the file, and send a new text."""
        return await self._filed.replace(old, new)

    async def remove(self, stored: Stored) -> bool:
        """Remove the record from the file."""
        return await self._filed.remove(stored)

    def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        """Yield the records of the file, newest first; without one there is nothing to go through."""
        return self._vendor.memories.scan(user_token(user_id), until)

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Search; a memory's score is that of the best that Memsy made of it."""
        api, memories = self._vendor.api, self._vendor.memories
        actor = user_token(query.user_id)
        hits = await api.search(query.query, actor, count, texts=memories.needs_texts)
        known = await memories.of_hits(actor, hits)
        scores: dict[str, float] = {}
        for hit in hits:
            for source in hit.sources:
                if source.event in known:
                    scores[source.event] = max(hit.score, scores.get(source.event, 0.0))
        # What is found has been processed, though nobody may have asked for its status since.
        ranked = [(known[event].changed(status="done"), score) for event, score in scores.items()]
        exhausted = len(hits) < count
        return Ranked(ranked, complete=exhausted and isinstance(memories, Shown), exhausted=exhausted)

    @property
    def _vendor(self) -> _Vendor:
        if self._live is None:
            if self._is_closed:
                raise self.closed_meanwhile()
            raise RuntimeError("the memsy provider is not open")
        return self._live

    @property
    def _filed(self) -> Filed:
        if not isinstance(self._vendor.memories, Filed):
            raise self.unsupported("update")
        return self._vendor.memories

    def _require_file(self, verb: Verb) -> None:
        if self._path is None:
            raise UnsupportedCapabilityError(
                f"provider {self.name!r} does not support {verb!r}: Memsy has no such thing. "
                "With path= openproto keeps the records in a file, and has it"
            )

    def _refusal(self, item: MemoryInput) -> OpenProtoError | None:
        """Return why the memory cannot be kept, or None."""
        if len(item.content) > MAX_CONTENT:
            return _too_long()
        if self._path is not None:
            return None
        if item.supersedes:
            return UnsupportedCapabilityError(
                f"provider {self.name!r} does not support 'supersedes' without path=: Memsy changes no memory"
            )
        if metadata_of(_new(item, "")[1]) is None:
            return UnsupportedCapabilityError(
                f"provider {self.name!r}: the fields beside the content are more than the {MAX_METADATA} characters "
                "that Memsy keeps; shorten them, or give path="
            )
        return None

    async def _add_together(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Send memories with one request, each with an outcome of its own."""
        try:
            kept = await self._send(items)
        except OpenProtoError as error:
            return [error] * len(items)

        async def outcome(stored: Kept) -> Outcome:
            try:
                return _key_of_deleted() if stored == "deleted" else await self._processed(stored.record)
            except OpenProtoError as error:
                return error

        return await gather_all(*map(outcome, kept))

    async def _send(self, items: Sequence[KeyedInput | tuple[MemoryInput, str]]) -> Sequence[Kept]:
        """Send events with one request, and return what is kept of them."""
        new = [_new(item, key) for item, key in items]
        events = [(place, stored.record.content, metadata_of(stored)) for place, stored in new]
        ids = await self._vendor.api.ingest(events)
        sent = [
            replace(stored.changed(id=place._replace(event=event).id, status="queued"), handle=event)
            for (place, stored), event in zip(new, ids, strict=True)
        ]
        return await self._vendor.memories.take(sent)

    async def _processed(self, record: MemoryRecord) -> MemoryRecord:
        """Return the record once Memsy has processed it, or after `wait` seconds."""
        deadline, pause = time.monotonic() + self._wait, _FIRST_LOOK
        while record.status == "queued" and (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(1.6 * pause, _MOST_BETWEEN_LOOKS)
            record = await self.get(RecordRef(id=record.id, user_id=record.user_id))
        return record


class _Vendor(NamedTuple):
    """What an open provider works with."""

    server: str
    api: Api
    memories: Filed | Shown


@large_import()
def _connect(base_url: str, api_key: str) -> Client:
    """Return the SDK's client; in a thread, for the import and the TLS certificates take their time."""
    from memsy import AsyncMemsyClient as Client

    return Client(base_url, api_key, timeout=TIMEOUT, max_retries=0)


def _new(item: MemoryInput, key: str) -> tuple[Place, Stored]:
    """Return where the memory is to be, and what; of a key that the client made, only the client needs to know."""
    place = Place.of_key(item.user_id, key)
    stored = Stored.new(item, key, id=place.id)
    return place, replace(stored, key="") if isinstance(key, GeneratedKey) else stored


def _key_of_deleted() -> ConflictError:
    return ConflictError("idempotency_key: belongs to a memory that was deleted since; use a new key")


def _too_long() -> PayloadTooLargeError:
    return PayloadTooLargeError(f"content: Memsy takes at most {MAX_CONTENT} characters")


def _check_url(url: str | None) -> None:
    """Raise ValueError for a URL with a user or a password, which would show in logs, and take the key's place."""
    if url is not None and "@" in urlsplit(url).netloc:
        raise ValueError("base_url must not hold a user or a password: the key is api_key=")
