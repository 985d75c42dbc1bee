"""`Memory`: the synchronous twin of `AsyncMemory` over the process's background loop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import JsonValue

from openproto.client import inputs, loop
from openproto.client.async_memory import ADD_MANY_BATCH, RESTORE_BATCH, AsyncMemory, Records
from openproto.client.async_verbs import Ids, SourceFields, Tags, TagsWanted
from openproto.client.layering import Second
from openproto.client.messages import Messages
from openproto.client.signature import WithProviderOptions
from openproto.client.sync_verbs import SyncVerbs
from openproto.context import TokenCounter, estimate_tokens
from openproto.fields import texts
from openproto.instrumentation import Observer, Stats
from openproto.layers.rerank import Reranker
from openproto.models import Health, MemoryRecord, OnDuplicate, UserPage
from openproto.provider import Outcomes, Provider, RestoreOutcomes, ScopeCounts, SearchResults
from openproto.requests import MemoryInput


class _Core(AsyncMemory):
    _owner: ClassVar[str] = "Memory"


class _Pages:
    """The pages of a listing. No generator: an interrupt that meets one while it closes is printed and lost."""

    def __init__(self, memory: Memory, user_id: str, **filters: Any) -> None:
        self._turn = partial(memory.list, user_id, **filters)
        self._cursor: str | None = None
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Records:
        if self._ended:
            raise StopIteration
        page = self._turn(cursor=self._cursor)
        self._cursor = page.next_cursor
        self._ended = page.next_cursor is None
        return page.items


class Memory(SyncVerbs):
    """A memory client for code without an event loop, over the backend that `provider` names.

    `provider` is a registered name (`"sqlite"`, `"postgres"`, ...) with that backend's own options as further keywords,
    or a `Provider` object. Constructing does no I/O; `with`, or the first verb, opens the backend. One client serves
    any number of threads, and a child process after a fork opens the backend anew.

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
        self._memory = _Core(
            provider,
            timeout=timeout,
            retries=retries,
            close_timeout=close_timeout,
            max_concurrency=max_concurrency,
            token_counter=token_counter,
            app=app,
            audit=audit,
            mirror=mirror,
            fallback=fallback,
            rerank=rerank,
            on_duplicate=on_duplicate,
            observers=observers,
            **options,
        )
        self._pid = os.getpid()

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """Return a client configured by `OPENPROTO_PROVIDER`, `OPENPROTO_URL`, `OPENPROTO_API_KEY`, and the like."""
        # Imported here: reading the environment is the only part that needs the settings library.
        from openproto.client.settings import options_from_env

        return cls(**options_from_env(overrides))

    def search_many(
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
        return loop.run(
            self._async.search_many(
                texts("user_ids", user_ids),
                query,
                scope=scope,
                tag=tag,
                as_of=as_of,
                limit=limit,
                min_score=min_score,
                concurrency=concurrency,
            )
        )

    def add_many(self, items: Iterable[MemoryInput | Mapping[str, Any]]) -> Outcomes:
        """Store many memories and return, in order, each one's record or the error that kept it out.

        An item is a mapping of `add`'s keywords, `content` and `user_id` among them, or a `MemoryInput`. Nothing that
        the backend says of an item or a batch is raised: look at each outcome.
        """
        # The items are read here, in the caller's thread: reading them may well use this client.
        remaining = inputs.each(items)
        batches = iter(lambda: list(islice(remaining, ADD_MANY_BATCH)), [])
        return [outcome for batch in batches for outcome in loop.run(self._async.add_many(batch))]

    def put(
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
        return loop.run(
            self._async.put(
                content,
                user_id=user_id,
                key=key,
                if_version=if_version,
                scope=scope,
                tags=tags,
                source=source,
                confidence=confidence,
                valid_from=valid_from,
                valid_to=valid_to,
                supersedes=supersedes,
                **extensions,
            )
        )

    def scopes(self, user_id: str, *, prefix: str | None = None, depth: int | None = None) -> ScopeCounts:
        """Return the scopes in use, in order, each with its number of records.

        Only those at or beneath `prefix`; with `depth`, a deeper scope counts towards its ancestor of that many
        segments.
        """
        return loop.run(self._async.scopes(user_id, prefix=prefix, depth=depth))

    def users(self, *, limit: int = 100, cursor: str | None = None) -> UserPage:
        """Return a page of at most `limit` (1..500) ids of the users that have records, in order; for operators."""
        return loop.run(self._async.users(limit=limit, cursor=cursor))

    def restore(self, records: Iterable[MemoryRecord]) -> RestoreOutcomes:
        """Write records as they are: ids, moments, supersession, and keys kept; return what became of each, in order.

        An id that the user has already is left alone ("exists"); one of another user is "refused".
        """
        # The records are read here, in the caller's thread: reading them may well use this client.
        remaining = iter(records)
        batches = iter(lambda: list(islice(remaining, RESTORE_BATCH)), [])
        return [outcome for batch in batches for outcome in loop.run(self._async.restore(batch))]

    def delete_all(self, user_id: str, *, scope: str | None = None, tag: TagsWanted = None) -> int:
        """Remove every record of the user that the filters select and return how many there were."""
        return loop.run(self._async.delete_all(user_id, scope=scope, tag=tag))

    def iter(
        self,
        user_id: str,
        *,
        scope: str | None = None,
        tag: TagsWanted = None,
        since: datetime | None = None,
        until: datetime | None = None,
        as_of: datetime | None = None,
        page_size: int = 100,
    ) -> Iterator[MemoryRecord]:
        """Yield every record that `list` would return, page by page."""
        pages = _Pages(self, user_id, scope=scope, tag=tag, since=since, until=until, as_of=as_of, limit=page_size)
        return chain.from_iterable(pages)

    def wait_for_ingest(self, ids: Sequence[str], user_id: str, *, timeout: float | None = None) -> Records:
        """Wait until the backend has indexed every id and return the records in order.

        Raises IngestionTimeoutError after `timeout` seconds (default: the client's own), ProviderError when an
        ingestion failed.
        """
        return loop.run(self._async.wait_for_ingest(ids, user_id, timeout=timeout))

    def health(self) -> Health:
        """Return whether the backend answers now, and in words why not; never raises a provider's error."""
        return loop.run(self._async.health())

    def stats(self) -> Stats:
        """Return what this client has done so far: calls, errors, retries, latencies, and calls in flight."""
        return self._async.stats()

    def close(self) -> None:
        """Close the client: running calls get half of `close_timeout` to end, releasing the backend the rest."""
        memory = self._async
        if not memory._session.closed_unused():
            loop.finish(memory.aclose(), memory._session.bound)

    def __enter__(self) -> Self:
        loop.run(self._async.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Memory provider={self._memory._session.provider.name!r}>"

    @property
    def _async(self) -> AsyncMemory:
        if self._pid != os.getpid():
            self._memory._session = self._memory._session.after_fork()
            self._pid = os.getpid()
        return self._memory
