"""The letta provider: one archive for each user, one passage for each memory, over Letta's own SDK.

"Letta" is Letta's hosted API, or a self-hosted server up to version 0.16.8. Newer `letta` packages do not serve this
API.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from openproto.blocking.imports import large_import
from openproto.blocking.threads import Threads
from openproto.emulation import (
    NATIVE,
    EmulatedProvider,
    Ranked,
    Recent,
    Stored,
    Traits,
    connect_in,
    deleted_since,
    first_owners,
    made_at,
    no_such_memory,
    user_token,
    without_credentials,
)
from openproto.errors import ConflictError, InvalidRequestError, PayloadTooLargeError
from openproto.fields import check_whole
from openproto.models import Cancellation
from openproto.provider import GeneratedKey, KeyedInput, Outcomes
from openproto.requests import MemoryInput, SearchQuery
from openproto.stores.moments import from_micros
from openproto_adapters.letta.api import PAGE, Api, Hit
from openproto_adapters.letta.archives import Archives
from openproto_adapters.letta.ids import Clock, PassageId
from openproto_adapters.letta.keys import Claim, Keys
from openproto_adapters.letta.passages import Copies, memories, new_passage
from openproto_adapters.letta.windows import FIRST, newest_first

Environment: TypeAlias = Literal["cloud", "local"]

THREADS = "openproto-letta"
DRAFTS = 10_000
FEW = 10
ATTEMPTS = 3
"""How often a deletion tries again that comes upon new versions of the memory."""

TIMEOUT = 60.0
CONNECT_TIMEOUT = 5.0


class _Backend(NamedTuple):
    server: str
    threads: Threads
    api: Api
    archives: Archives
    keys: Keys

    @classmethod
    @large_import()
    def connect(cls, threads: Threads, options: Mapping[str, Any], embedding: str | None) -> _Backend:
        """Make the SDK's client; in a thread, because importing it takes seconds."""
        import httpx
        from letta_client import Letta as Client

        logging.getLogger("letta_client._base_client").addFilter(_without_contents)
        http = threads.http_client(timeout=httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT))
        client = Client(http_client=http, max_retries=0, **options)
        api = Api(threads, client)
        archives = Archives(api, embedding)
        return cls(without_credentials(str(client.base_url)), threads, api, archives, Keys(archives))

    async def memories(self, hits: Sequence[Hit], token: str, owner: str | None) -> list[Stored]:
        """Return the memories that the hits hold; in a thread for many, because each takes a tenth of a millisecond."""
        if len(hits) <= FEW:
            return memories(hits, token, owner)
        return await self.threads(memories, hits, token, owner)


class Letta(EmulatedProvider[_Backend]):
    """Memories in Letta's archives.

    Args:
        api_key: The key of the hosted API, or the password of a secured server; else LETTA_API_KEY, else none.
        base_url: Where the server is; else LETTA_BASE_URL, else the hosted API.
        environment: `cloud` or `local` (http://localhost:8283) instead of a URL.
        embedding: The embedding model of archives that are created, such as `openai/text-embedding-3-small`; else the
            server's default. A self-hosted server may have none, and then finds substrings only.
        width: How many requests may be under way at once.
    """

    name = "letta"
    cancellation: Cancellation = "aborting"
    requires: ClassVar[tuple[str, ...]] = ("letta_client", "httpx")
    sdk = "letta-client"
    tested_with = "1.12.1"
    traits = Traits(
        native=NATIVE - {"list"},
        replaces_at_once=False,
        scans_newest_first=True,
        most_ranked=PAGE,
        keys_outlive="emulated",
        most_created=10,
        removes_all=True,
        oldest=FIRST,
        most_of_one_moment=PAGE // 2,
        lists_users=True,
        asks_of_each_user=True,
    )

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        environment: Environment | None = None,
        embedding: str | None = None,
        width: int = 8,
    ) -> None:
        super().__init__()
        if base_url is not None and environment is not None:
            raise ValueError("give base_url or environment, not both")
        check_whole(width=width)
        self._options: dict[str, Any] = {"api_key": api_key}
        if environment is not None:
            self._options |= {"base_url": None, "environment": environment}
        elif base_url is not None:
            self._options["base_url"] = base_url
        self._embedding = embedding
        self._width = width
        self._clock = Clock()
        self._drafts: Recent[str, datetime] = Recent(DRAFTS)

    async def connect(self) -> _Backend:
        threads = Threads(self._width, THREADS)
        return await connect_in(threads, _Backend.connect, threads, self._options, self._embedding)

    async def disconnect(self, backend: _Backend) -> None:
        backend.threads.close()

    async def check(self) -> None:
        """Ask for an archive, which needs an accepted key and a server with its database."""
        await self.backend.api.find_archives(None, 1)

    async def describe(self) -> dict[str, str]:
        return {"server": self.backend.server, **await super().describe()}

    def store_name(self) -> str:
        return f"letta {self.backend.server}"

    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Write a passage under an id that a repeated attempt computes again."""
        stored = self._new(item, key)
        if isinstance(key, GeneratedKey):
            self._drafts.put(key, stored.record.created_at)
        else:
            claim = await self.backend.keys.claim(item.user_id, key, _claim(stored))
            if claim.fingerprint != stored.fingerprint:
                raise ConflictError("idempotency_key: was used before with another input; use a new key")
            if claim.deleted:
                raise deleted_since()
            if claim.memory_id != stored.record.id:  # another process was faster, or an earlier attempt was cut off
                if (before := await self.find(claim.memory_id, item.user_id)) is not None:
                    return before
                stored = Stored.new(item, key, id=claim.memory_id, created_at=claim.created_at)
        written = await self._write(stored, self._clock.tick())
        self._drafts.pop(key)
        return written

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Write memories of one user in one request; where that is refused, find out which one is at fault."""
        news = [self._new(item, key) for item, key in items]
        passages = [new_passage(stored, self._clock.tick()) for stored in news]
        try:
            await self.backend.archives.write(items[0].item.user_id, *passages)
        except (InvalidRequestError, PayloadTooLargeError):
            return await self.add_each(items)
        return [stored.record for stored in news]

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        own = PassageId.read(id, user_id)
        if own is None or own.moment is None:
            return None
        hits = await self.backend.archives.search(own.token, start=own.moment, end=own.moment)
        if not hits:
            return None
        owner = user_id or await self.backend.archives.owner(own.token)
        found = await self.backend.memories(hits, own.token, owner)
        return next((stored for stored in found if stored.record.id == id), None)

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        """Return what was added under the key; ConflictError where that was deleted since."""
        if isinstance(key, GeneratedKey):
            created_at = self._drafts.get(key)
            return await self.find(PassageId.of_key(user_id, key, created_at).id, user_id) if created_at else None
        claim = await self.backend.keys.find(user_id, key)
        if claim is None:
            return None
        found = await self.find(claim.memory_id, user_id)
        if found is None and claim.deleted:
            raise deleted_since()
        return found

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Write the new version, then delete the old one; NotFoundError where that was deleted meanwhile."""
        copies = Copies.of(old)
        written = await self._write(new, max(self._clock.tick(), copies.version + 1))
        if not await self._delete(old, copies.ids):
            left = await self.find(old.record.id, old.record.user_id)
            is_alone = left is not None and left.handle == written.handle
            if left is not None:  # with another process's new version the newest stays, and else none
                await self._delete(left, Copies.of(left).ids[0 if is_alone else 1 :])
            if is_alone:
                raise no_such_memory()
        return written

    async def remove(self, stored: Stored) -> bool:
        """Delete every passage of the memory, and remember of its key that it is used up."""
        if stored.idempotency_key:
            await self.backend.keys.bury(stored.record.user_id, stored.idempotency_key, _claim(stored))
        found: Stored | None = stored
        for _ in range(ATTEMPTS):
            if found is None:
                break
            if await self._delete(found, Copies.of(found).ids):
                return True
            # Somebody was faster: with a deletion, or with a new version.
            found = await self.find(stored.record.id, stored.record.user_id)
        return False

    async def remove_all(self, user_id: str) -> int:
        count = len(await self.everything(user_id))
        await self.backend.archives.remove_all(user_token(user_id))
        return count

    def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        return self._all(user_token(user_id), user_id, until)

    async def owners(self) -> Collection[str]:
        return await first_owners(self._all(token, None, None) for token in await self.backend.archives.tokens())

    async def _all(self, token: str, owner: str | None, until: datetime | None) -> AsyncGenerator[Stored, None]:
        owner = owner or await self.backend.archives.owner(token)
        fetch = partial(self.backend.archives.search, token)
        async with aclosing(newest_first(fetch, until)) as windows:
            async for hits in windows:
                for stored in await self.backend.memories(hits, token, owner):
                    yield stored

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Return the nearest passages, with Letta's scores where it has any, and otherwise with those of the order."""
        token = user_token(query.user_id)
        hits = await self.backend.archives.search(token, query=query.query, start=FIRST, limit=count)
        scored = any(hit.score > 0 for hit in hits)
        # An order says who comes first, and not how near: it never makes a score that vouches for a memory.
        scores = {hit.passage.id: hit.score if scored else 0.5 - place / 2 / PAGE for place, hit in enumerate(hits)}
        ranked = [
            (stored, max(scores[id] for id in Copies.of(stored).ids))
            for stored in await self.backend.memories(hits, token, query.user_id)
        ]
        return Ranked(ranked, complete=len(hits) < count)

    def _new(self, item: MemoryInput, key: str) -> Stored:
        """Return the memory to write; a key that the client generated is not repeated once it has been written."""
        created_at = self._drafts.get(key) or made_at(item) or from_micros(self._clock.tick())
        stored = Stored.new(item, key, id=PassageId.of_key(item.user_id, key, created_at).id, created_at=created_at)
        return replace(stored, idempotency_key="") if isinstance(key, GeneratedKey) else stored

    async def _write(self, stored: Stored, version: int) -> Stored:
        ids = await self.backend.archives.write(stored.record.user_id, new_passage(stored, version))
        return replace(stored, handle=Copies(version, tuple(ids)).handle)

    async def _delete(self, stored: Stored, ids: Sequence[str]) -> bool:
        """Delete the passages, newest last, so that no older version shows meanwhile; False where that one is gone."""
        token = user_token(stored.record.user_id)
        deleted = False
        for id in reversed(ids):
            deleted = await self.backend.archives.remove(token, id)
        return deleted


def _without_contents(record: logging.LogRecord) -> bool:
    """Keep out of the log what the SDK says of our requests when it debugs: whole bodies."""
    return record.levelno > logging.DEBUG or not (record.threadName or "").startswith(THREADS)


def _claim(stored: Stored) -> Claim:
    return Claim(stored.record.created_at, stored.record.id, stored.fingerprint)
