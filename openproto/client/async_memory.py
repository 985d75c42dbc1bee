"""`AsyncMemory`: the client over any provider. `Memory` (in `memory.py`) is its twin for code without a loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Self, TypeAlias, get_args

from pydantic import JsonValue

from openproto.client import inputs
from openproto.client.async_verbs import AsyncVerbs, Ids, SourceFields, Tags, TagsWanted
from openproto.client.layering import Second, layered
from openproto.client.messages import Messages
from openproto.client.session import Options, Session
from openproto.client.signature import WithProviderOptions
from openproto.context import TokenCounter, estimate_tokens
from openproto.errors import (
    IngestionTimeoutError,
    InvalidRequestError,
    OpenProtoError,
    ProviderError,
    UnsupportedCapabilityError,
)
from openproto.fanout import gather_bounded
from openproto.fields import texts
from openproto.instrumentation import Observer, Stats
from openproto.layers.rerank import Reranker
from openproto.models import Capabilities, Health, MemoryPage, MemoryRecord, OnDuplicate, UserPage
from openproto.provider import KeyedInput, Outcomes, Provider, RestoreOutcomes, ScopeCounts, SearchResults
from openproto.registry import CLIENT_OPTIONS, make_provider
from openproto.requests import Filters, MemoryInput, PutCondition, ScopesQuery, UsersQuery, build

ADD_MANY_BATCH = 1000
"""Items that go to the provider at once; each batch has the client's whole `timeout`."""

RESTORE_BATCH = 500
"""Records that go to the provider at once."""

Records: TypeAlias = list[MemoryRecord]
Batch: TypeAlias = list[KeyedInput]

_POLL_FIRST, _POLL_LONGEST = 0.02, 1.0
_POLLS_AT_ONCE = 16


class AsyncMemory(AsyncVerbs):
    """A memory client for asyncio, over the backend that `provider` names.

    `provider` is a registered name (`"sqlite"`, `"postgres"`, ...) with that backend's own options as further keywords,
    or a `Provider` object. Constructing does no I/O; `async with`, or the first verb, opens the backend. One client
    serves any number of tasks of one event loop.

    A process's first client of a provider imports its adapter: make it before the loop runs, or in a thread,
    `await asyncio.to_thread(AsyncMemory, "sqlite")`. Whatever else is large is imported in a thread when it opens.

    Args:
        provider: The backend's name, or an unopened provider.
        timeout: Seconds that any verb may take, retries included; None for no bound.
        retries: How often a call that is safe to repeat is repeated when the backend is unavailable or rate limits.
        close_timeout: Seconds that closing may take, whatever hangs.
        max_concurrency: Calls in flight at once; more wait their turn. None leaves it to the backend's own pool.
        token_counter: Counts tokens for `context`; the default estimates four bytes a token.
        app: Names this program in audit entries.
        audit: Where to keep an audit journal for a provider that has no audit log: `"sqlite:///audit.db"` or a
            PostgreSQL URL. With `audit_reads=False` only writes are recorded.
        mirror: A second provider that every write reaches too, in the background: `{"provider": "mem0", ...}` with its
            options, or a `Provider` object.
        fallback: A second provider that answers reads while the first one is unavailable, likewise.
        rerank: An object with `rerank(query, texts)` that reorders the first hits of a search; see
            `openproto.layers.rerank`.
        on_duplicate: What `add` and `add_many` do with a memory that says what another one says already, where the call
            does not say it: "keep", "skip", or "supersede".
        observers: Called with a `CallEvent` when a call has ended (`openproto.instrumentation`).
        options: The provider's own options, such as `url=` or `path=`.

    Raises:
        UnknownProviderError: No installed distribution has a provider of that name.
        ImportError: The provider's packages are missing; the text holds the `pip install` line.
        TypeError: The provider takes no such option.
        ValueError: `audit` is given for a provider that keeps an audit log, or an option's value makes no sense.
    """

    _owner: ClassVar[str] = "AsyncMemory"
    __signature__ = WithProviderOptions()

    def __init__(
        self,
        provider: str | Provider = "sqlite",
        *,
        timeout: float | None = 30.0,
        retries: int = 2,
        close_timeout: float = 5.0,
        max_concurrency: int | None = None,
        token_counter: TokenCounter = estimate_tokens,
        app: str | None = None,
        audit: str | None = None,
        mirror: Second | None = None,
        fallback: Second | None = None,
        rerank: Reranker | None = None,
        on_duplicate: OnDuplicate = "keep",
        observers: Sequence[Observer] = (),
        **options: Any,
    ) -> None:
        bounds = Options(timeout, retries, close_timeout, max_concurrency, app, tuple(observers))
        if on_duplicate not in get_args(OnDuplicate):
            raise ValueError(f"on_duplicate must be one of {get_args(OnDuplicate)}")
        audit_reads = audit is None or options.pop("audit_reads", True)
        if isinstance(provider, str):
            provider = make_provider(provider, options, CLIENT_OPTIONS)
        elif options:
            raise TypeError(f"options {sorted(options)} belong in the provider object's own constructor")
        provider = layered(
            provider,
            timeout=timeout,
            mirror=mirror,
            fallback=fallback,
            audit=audit,
            audit_reads=audit_reads,
            rerank=rerank,
        )
        self._session = Session(provider, self._owner, bounds)
        self._count_tokens = token_counter
        self._capabilities: Capabilities | None = None
        self._on_duplicate: OnDuplicate = on_duplicate

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """Return a client configured by `OPENPROTO_PROVIDER`, `OPENPROTO_URL`, `OPENPROTO_API_KEY`, and the like."""
        # Imported here: reading the environment is the only part that needs the settings library.
        from openproto.client.settings import options_from_env

        return cls(**options_from_env(overrides))

    async def search_many(
        self,
        user_ids: Iterable[str],
        query: str,
        *,
        scope: str | None = None,
        tag: TagsWanted = None,
        as_of: datetime | None = None,
        limit: int = 10,
        min_score: float | None = None,
        concurrency: int = 8,
    ) -> dict[str, SearchResults]:
        """Return the results of one query for each user, at most `concurrency` searches under way at once."""
        users = list(dict.fromkeys(texts("user_ids", user_ids)))
        searches = (
            self.search(query, user_id, scope=scope, tag=tag, as_of=as_of, limit=limit, min_score=min_score)
            for user_id in users
        )
        return dict(zip(users, await gather_bounded(searches, limit=concurrency), strict=True))

    async def add_many(self, items: Iterable[MemoryInput | Mapping[str, Any]]) -> Outcomes:
        """Store many memories and return, in order, each one's record or the error that kept it out.

        An item is a mapping of `add`'s keywords, `content` and `user_id` among them, or a `MemoryInput`. Nothing that
        the backend says of an item or a batch is raised: look at each outcome.
        """
        self._session.check_usable()
        outcomes: Outcomes = []
        remaining = inputs.each(items)
        while batch := await inputs.validated(remaining, ADD_MANY_BATCH, self._on_duplicate):
            batch = [self._refused(entry) if isinstance(entry, KeyedInput) else entry for entry in batch]
            valid = [keyed for keyed in batch if isinstance(keyed, KeyedInput)]
            stored = iter(await self._add_batch(valid))
            outcomes.extend(next(stored) if isinstance(entry, KeyedInput) else entry for entry in batch)
        return outcomes

    async def put(
        self,
        content: str | Messages,
        *,
        user_id: str,
        key: str,
        if_version: str | None = None,
        scope: str | None = None,
        tags: Tags | None = None,
        source: SourceFields | None = None,
        confidence: float | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        supersedes: Ids | None = None,
        **extensions: JsonValue,
    ) -> MemoryRecord:
        """Write the user's record of that `key` in one atomic step and return it.

        Where there is one, all its fields are replaced, and its id and `created_at` stay; a new one has no
        `updated_at`. With `if_version`, ConflictError unless that is its version; "absent" demands that there is none.
        """
        inputs.check_keywords("put", extensions)
        condition = build(PutCondition, if_version=if_version)
        fields: dict[str, Any] = {
            "content": content,
            "user_id": user_id,
            "key": key,
            "scope": scope,
            "tags": tags,
            "source": source,
            "confidence": confidence,
            "valid_from": valid_from,
            "valid_to": valid_to,
            "supersedes": supersedes,
            **extensions,
        }
        item = inputs.keyed(fields).item
        if item.key is None:
            raise InvalidRequestError("key: put needs the record's key")
        # Not repeated: a second attempt could find the version that the first one wrote.
        written = await self._session.call(
            "add",
            lambda p: p.put(item, if_version=condition.if_version),
            repeatable=False,
            scope=scope,
            needs="put",
        )
        return written.record

    async def scopes(self, user_id: str, *, prefix: str | None = None, depth: int | None = None) -> ScopeCounts:
        """Return the scopes in use, in order, each with its number of records.

        Only those at or beneath `prefix`; with `depth`, a deeper scope counts towards its ancestor of that many
        segments.
        """
        query = build(ScopesQuery, user_id=user_id, prefix=prefix, depth=depth)
        return await self._session.call(
            "list", lambda p: p.scopes(query), repeatable=True, scope=prefix, needs="scopes"
        )

    async def users(self, *, limit: int = 100, cursor: str | None = None) -> UserPage:
        """Return a page of at most `limit` (1..500) ids of the users that have records, in order; for operators."""
        query = build(UsersQuery, limit=limit, cursor=cursor)
        return await self._session.call("list", lambda p: p.users(query), repeatable=True, needs="users")

    async def restore(self, records: Iterable[MemoryRecord]) -> RestoreOutcomes:
        """Write records as they are: ids, moments, supersession, and keys kept; return what became of each, in order.

        An id that the user has already is left alone ("exists"); one of another user is "refused".
        """
        self._session.check_usable()
        outcomes: RestoreOutcomes = []
        remaining = iter(records)
        while batch := list(islice(remaining, RESTORE_BATCH)):
            outcomes += await self._restore_batch(batch)
        return outcomes

    async def delete_all(self, user_id: str, *, scope: str | None = None, tag: TagsWanted = None) -> int:
        """Remove every record of the user that the filters select and return how many there were."""
        filters = build(Filters, user_id=user_id, scope=scope, tag=tag)
        return await self._session.call("delete", lambda p: p.delete_all(filters), repeatable=False, scope=scope)

    async def iter(
        self,
        user_id: str,
        *,
        scope: str | None = None,
        tag: TagsWanted = None,
        since: datetime | None = None,
        until: datetime | None = None,
        as_of: datetime | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[MemoryRecord]:
        """Yield every record that `list` would return, page by page."""
        async for page in self._pages(
            user_id, scope=scope, tag=tag, since=since, until=until, as_of=as_of, limit=page_size
        ):
            for record in page.items:
                yield record

    async def wait_for_ingest(self, ids: Sequence[str], user_id: str, *, timeout: float | None = None) -> Records:
        """Wait until the backend has indexed every id and return the records in order.

        Raises IngestionTimeoutError after `timeout` seconds (default: the client's own), ProviderError when an
        ingestion failed.
        """
        ids = texts("ids", ids)
        seconds = timeout if timeout is not None else self._session.options.timeout
        try:
            async with asyncio.timeout(seconds):
                return await gather_bounded([self._ingested(id, user_id) for id in ids], limit=_POLLS_AT_ONCE)
        except TimeoutError as error:
            if isinstance(error, OpenProtoError):
                raise
            raise IngestionTimeoutError(
                f"not every memory was indexed within {seconds:g} s; they are stored, ask again later",
                provider=self._session.provider.name,
            ) from error

    async def health(self) -> Health:
        """Return whether the backend answers now, and in words why not; never raises a provider's error."""
        name = self._session.provider.name
        try:
            await self._session.call("capabilities", lambda p: p.health(), repeatable=False)
        except OpenProtoError as error:
            return Health(status="unavailable", provider=name, detail=error.message)
        return Health(status="ok", provider=name)

    def stats(self) -> Stats:
        """Return what this client has done so far: calls, errors, retries, latencies, and calls in flight."""
        return self._session.stats()

    async def aclose(self) -> None:
        """Close the client: running calls get half of `close_timeout` to end, releasing the backend the rest."""
        await self._session.close()

    close = aclose

    async def __aenter__(self) -> Self:
        await self._session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncMemory provider={self._session.provider.name!r}>"

    def __del__(self) -> None:
        if "_session" in self.__dict__:
            self._session.abandon(self)

    async def _pages(self, user_id: str, **filters: Any) -> AsyncIterator[MemoryPage]:
        page = await self.list(user_id, **filters)
        yield page
        while page.next_cursor is not None:
            page = await self.list(user_id, **filters, cursor=page.next_cursor)
            yield page

    async def _add_batch(self, batch: Batch) -> Outcomes:
        if not batch:
            return []
        try:
            return await self._session.call("add", lambda p: p.add_many(batch), repeatable=True)
        except UnsupportedCapabilityError:
            raise
        except OpenProtoError as error:
            return [error] * len(batch)

    def _refused(self, entry: KeyedInput) -> KeyedInput | OpenProtoError:
        lacking = self._session.provider.lacking(entry.item)
        return entry if lacking is None else self._session.provider.unsupported(lacking)

    async def _restore_batch(self, batch: Records) -> RestoreOutcomes:
        return await self._session.call("add", lambda p: p.restore(batch), repeatable=True, needs="restore")

    async def _ingested(self, id: str, user_id: str) -> MemoryRecord:
        pause = _POLL_FIRST
        while (record := await self.get(id, user_id=user_id)).status in ("queued", "indexing"):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _POLL_LONGEST)
        if record.status == "failed":
            raise ProviderError("the backend accepted the memory and failed to index it; add it again")
        return record
