"""The nine verbs of `Memory`, one line each over the background loop."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime

from pydantic import JsonValue
from typing_extensions import Unpack

from openproto.client import loop
from openproto.client.async_verbs import AsyncVerbs, Ids, SourceFields, Tags, TagsWanted
from openproto.client.messages import Messages
from openproto.models import Capabilities, ContextBlock, MemoryPage, MemoryRecord, OnDuplicate
from openproto.provider import AuditEntries, SearchResults
from openproto.requests import MemoryChanges


class SyncVerbs:
    """The verbs, over the asynchronous client that `_async` returns."""

    @property
    @abstractmethod
    def _async(self) -> AsyncVerbs:
        """Return the client of this process."""

    def add(
        self,
        content: str | Messages,
        *,
        user_id: str,
        scope: str | None = None,
        tags: Tags | None = None,
        source: SourceFields | None = None,
        confidence: float | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        supersedes: Ids | None = None,
        key: str | None = None,
        on_duplicate: OnDuplicate | None = None,
        idempotency_key: str | None = None,
        **extensions: JsonValue,
    ) -> MemoryRecord:
        """Store a memory and return its record.

        `content` is a text, or chat messages `[{"role": ..., "content": ...}, ...]`, which become one line each.
        `x_<provider>=` keywords are stored as `x-<provider>` extensions. A `key` is the caller's own name for the
        record; one that another record of the user bears is a ConflictError. The same `idempotency_key` again returns
        the first record; with another input it is a ConflictError.

        `on_duplicate` says what becomes of a memory that a current one of the user, in the same scope, says already,
        but for case, blanks, and the full stop: "keep" stores it too, "skip" returns that record, its `duplicate_of`
        set, "supersede" lets the new one take its place. The default is the client's.
        """
        return loop.run(
            self._async.add(
                content,
                user_id=user_id,
                scope=scope,
                tags=tags,
                source=source,
                confidence=confidence,
                valid_from=valid_from,
                valid_to=valid_to,
                supersedes=supersedes,
                key=key,
                on_duplicate=on_duplicate,
                idempotency_key=idempotency_key,
                **extensions,
            )
        )

    def get(self, id: str | None = None, *, user_id: str | None = None, key: str | None = None) -> MemoryRecord:
        """Return the record of that id, or of the user's own `key`; NotFoundError when there is none of `user_id`'s."""
        return loop.run(self._async.get(id, user_id=user_id, key=key))

    def update(
        self,
        id: str,
        *,
        user_id: str | None = None,
        if_version: str | None = None,
        **changes: Unpack[MemoryChanges],
    ) -> MemoryRecord:
        """Change the named fields and return the record; None clears a field, one not named is left alone.

        With `if_version`, ConflictError unless that is still the record's `version`.
        """
        return loop.run(self._async.update(id, user_id=user_id, if_version=if_version, **changes))

    def delete(self, id: str, *, user_id: str | None = None, if_version: str | None = None) -> None:
        """Remove the record for good; NotFoundError when it does not exist or is not `user_id`'s.

        With `if_version`, ConflictError unless that is still the record's `version`.
        """
        return loop.run(self._async.delete(id, user_id=user_id, if_version=if_version))

    def list(
        self,
        user_id: str,
        *,
        scope: str | None = None,
        tag: TagsWanted = None,
        since: datetime | None = None,
        until: datetime | None = None,
        as_of: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> MemoryPage:
        """Return a page of at most `limit` (1..500) records, newest first; `next_cursor` leads to the next one."""
        return loop.run(
            self._async.list(
                user_id, scope=scope, tag=tag, since=since, until=until, as_of=as_of, limit=limit, cursor=cursor
            )
        )

    def search(
        self,
        query: str,
        user_id: str,
        *,
        scope: str | None = None,
        tag: TagsWanted = None,
        as_of: datetime | None = None,
        limit: int = 10,
        min_score: float | None = None,
        explain: bool = False,
    ) -> SearchResults:
        """Return at most `limit` (1..100) records that are current now, or at `as_of`, best first.

        With `explain` each result says in `parts` what adds how much to its score, where the provider can tell.
        """
        return loop.run(
            self._async.search(
                query,
                user_id,
                scope=scope,
                tag=tag,
                as_of=as_of,
                limit=limit,
                min_score=min_score,
                explain=explain,
            )
        )

    def context(
        self,
        query: str,
        user_id: str,
        *,
        scope: str | None = None,
        tag: TagsWanted = None,
        as_of: datetime | None = None,
        token_budget: int = 500,
        relevant_only: bool = False,
    ) -> ContextBlock:
        """Return the best memories as text for a prompt, at most `token_budget` tokens by the client's counter.

        While the budget lasts, the user's newest current records follow what the query found; not so with
        `relevant_only`.
        """
        return loop.run(
            self._async.context(
                query,
                user_id,
                scope=scope,
                tag=tag,
                as_of=as_of,
                token_budget=token_budget,
                relevant_only=relevant_only,
            )
        )

    def audit(
        self,
        user_id: str,
        *,
        app: str | None = None,
        memory_id: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> AuditEntries:
        """Return at most `limit` (1..1000) recorded calls on the user's memories, newest first."""
        return loop.run(self._async.audit(user_id, app=app, memory_id=memory_id, since=since, limit=limit))

    def capabilities(self) -> Capabilities:
        """Return what the provider declares; asked once per client."""
        return loop.run(self._async.capabilities())
