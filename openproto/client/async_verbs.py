"""The nine verbs of `AsyncMemory`: each validates its arguments and asks the provider once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from pydantic import JsonValue
from typing_extensions import Unpack

from openproto.client import inputs
from openproto.client.messages import Messages
from openproto.client.session import Session
from openproto.context import TokenCounter
from openproto.errors import InvalidRequestError
from openproto.models import Capabilities, ContextBlock, MemoryPage, MemoryRecord, MemorySource, OnDuplicate, Operation
from openproto.provider import AuditEntries, SearchResults
from openproto.requests import (
    AuditQuery,
    ContextQuery,
    KeyRef,
    ListQuery,
    MemoryChanges,
    MemoryUpdate,
    RecordRef,
    SearchQuery,
    build,
)

SourceFields: TypeAlias = MemorySource | Mapping[str, str]
Tags: TypeAlias = list[str]
TagsWanted: TypeAlias = str | Sequence[str] | None
Ids: TypeAlias = list[str]


class AsyncVerbs:
    """The verbs, over the session of the client that they are part of."""

    _session: Session
    _count_tokens: TokenCounter
    _capabilities: Capabilities | None
    _on_duplicate: OnDuplicate

    async def add(
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
        inputs.check_keywords("add", extensions)
        fields: dict[str, Any] = {
            "content": content,
            "user_id": user_id,
            "scope": scope,
            "tags": tags,
            "source": source,
            "confidence": confidence,
            "valid_from": valid_from,
            "valid_to": valid_to,
            "supersedes": supersedes,
            "key": key,
            "on_duplicate": on_duplicate or self._on_duplicate,
            **extensions,
        }
        keyed = inputs.keyed(fields, idempotency_key)
        return await self._session.call(
            "add",
            lambda p: p.add(keyed.item, idempotency_key=keyed.idempotency_key),
            repeatable=True,
            scope=scope,
            needs=self._session.provider.lacking(keyed.item),
        )

    async def get(self, id: str | None = None, *, user_id: str | None = None, key: str | None = None) -> MemoryRecord:
        """Return the record of that id, or of the user's own `key`; NotFoundError when there is none of `user_id`'s."""
        if key is not None:
            if id is not None:
                raise InvalidRequestError("get takes either an id or key=, and was given both")
            named = build(KeyRef, user_id=user_id, key=key)
            return await self._session.call("get", lambda p: p.get_by_key(named), repeatable=True, needs="key")
        if id is None:
            raise InvalidRequestError("get takes an id, or key= with user_id=, and was given neither")
        ref = inputs.record_ref(id, user_id)
        return await self._session.call("get", lambda p: p.get(ref), repeatable=True, memory_id=ref.id)

    async def update(
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
        inputs.check_keywords("update", [name for name in changes if name not in MemoryChanges.__annotations__])
        ref = build(RecordRef, id=id, user_id=user_id, if_version=if_version)
        update = build(MemoryUpdate, **inputs.wire_names(changes))
        if id in (update.supersedes or ()):
            raise InvalidRequestError("supersedes: a record cannot supersede itself")
        needs: Operation | None = "version" if if_version is not None else None
        return await self._session.call(
            "update", lambda p: p.update(ref, update), repeatable=False, memory_id=ref.id, needs=needs
        )

    async def delete(self, id: str, *, user_id: str | None = None, if_version: str | None = None) -> None:
        """Remove the record for good; NotFoundError when it does not exist or is not `user_id`'s.

        With `if_version`, ConflictError unless that is still the record's `version`.
        """
        ref = build(RecordRef, id=id, user_id=user_id, if_version=if_version)
        needs: Operation | None = "version" if if_version is not None else None
        await self._session.call("delete", lambda p: p.delete(ref), repeatable=False, memory_id=ref.id, needs=needs)

    async def list(
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
        query = build(
            ListQuery,
            user_id=user_id,
            scope=scope,
            tag=tag,
            since=since,
            until=until,
            as_of=as_of,
            limit=limit,
            cursor=cursor,
        )
        return await self._session.call("list", lambda p: p.list(query), repeatable=True, scope=scope)

    async def search(
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
        wanted = build(
            SearchQuery,
            query=query,
            user_id=user_id,
            scope=scope,
            tag=tag,
            as_of=as_of,
            limit=limit,
            min_score=min_score,
            explain=explain,
        )
        return await self._session.call("search", lambda p: p.search(wanted), repeatable=True, scope=scope)

    async def context(
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
        wanted = build(
            ContextQuery,
            query=query,
            user_id=user_id,
            scope=scope,
            tag=tag,
            as_of=as_of,
            token_budget=token_budget,
            relevant_only=relevant_only,
        )
        return await self._session.call(
            "context", lambda p: p.context(wanted, self._count_tokens), repeatable=True, scope=scope
        )

    async def audit(
        self,
        user_id: str,
        *,
        app: str | None = None,
        memory_id: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> AuditEntries:
        """Return at most `limit` (1..1000) recorded calls on the user's memories, newest first."""
        wanted = build(AuditQuery, user_id=user_id, app=app, memory_id=memory_id, since=since, limit=limit)
        return await self._session.call("audit", lambda p: p.audit(wanted), repeatable=True)

    async def capabilities(self) -> Capabilities:
        """Return what the provider declares; asked once per client."""
        if self._capabilities is None:
            self._capabilities = await self._session.call("capabilities", lambda p: p.capabilities(), repeatable=True)
        return self._capabilities
