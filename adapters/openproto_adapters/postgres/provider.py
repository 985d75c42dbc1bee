"""The postgres provider: one verb, one statement, over asyncpg."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any
from uuid import UUID

from openproto.context import TokenCounter, fill_context
from openproto.errors import ConflictError, InvalidRequestError, NotFoundError, OpenProtoError
from openproto.models import (
    ContextBlock,
    MemoryPage,
    MemoryRecord,
    PutResult,
    SearchResult,
    UserPage,
    UserPart,
)
from openproto.provider import (
    AuditEntries,
    KeyedInput,
    Outcomes,
    RestoreOutcomes,
    ScopeCounts,
    SearchResults,
    count_scopes,
    current_call,
    generated_key,
    new_request_id,
)
from openproto.requests import (
    AuditQuery,
    ContextQuery,
    Filters,
    KeyRef,
    ListQuery,
    MemoryInput,
    MemoryUpdate,
    RecordRef,
    ScopesQuery,
    SearchQuery,
    UsersQuery,
)
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.cursors import decode_cursor, encode_cursor
from openproto.stores.indexer import IndexedInput
from openproto.stores.restoring import as_stored, index_records
from openproto_adapters.postgres import deciding, queries
from openproto_adapters.postgres.batches import Batch, Fetch, Written, insert, pack_batch
from openproto_adapters.postgres.changes import (
    BY_ID,
    BY_KEY,
    BY_KEY_ALONE,
    COUNT_OWN,
    DELETE,
    assign_all,
    assign_changes,
    assign_content,
    changing,
)
from openproto_adapters.postgres.queries import Arguments
from openproto_adapters.postgres.records import (
    check_owner,
    key_hash,
    own_record,
    to_uuid,
)
from openproto_adapters.postgres.restoring import load, restore
from openproto_adapters.postgres.row_security import EVERYBODY, acting_for, acting_for_owner
from openproto_adapters.postgres.searching import hits
from openproto_adapters.postgres.store import Store
from openproto_adapters.postgres.together import Change
from openproto_adapters.postgres.vectors import PackedWords


class Postgres(Store):
    """Memories in PostgreSQL with pgvector.

    Args:
        url: A `postgresql://` URL; by default `OPENPROTO_URL`, else a private server in the user's data directory
            where `openproto[embedded]` is installed.
        schema: The schema that holds openproto's tables; made where missing.
        embedder: "auto" (the local embedder where it is installed), "local", "openai/<model>", "none", or an object.
        audit_reads: Whether reads are recorded in the audit log too.
        pool_min: Connections that are kept open.
        pool_max: Connections at most; more calls wait.
        acquire_timeout: Seconds that a call waits for a connection.
        connect_timeout: Seconds that making a connection may take.
        statement_cache_size: Prepared statements that a connection keeps; 0 behind a PgBouncer older than 1.21.
        row_security: Whether the policies that keep users apart in the database are turned on where this role owns the
            tables. What is on stays on.
        read_url: A streaming replica, which then serves search, list, and context.
        read_lag: Seconds that the replica may be behind; beyond, these raise ProviderUnavailableError.
    """

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store the memory; its audit entry and what it supersedes are part of the same statement."""
        if item.on_duplicate != "keep":
            return await self.add_as_batch(item, idempotency_key)
        entry = await self._together.add(await self._index.index(KeyedInput(item, idempotency_key)))
        return await self._added_before(entry) if isinstance(entry, IndexedInput) else entry

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Store the batch in one statement; an item that is refused leaves the others alone."""
        if self._shards is not None and len({item.user_id for item, _ in items}) > 1:
            return await self._shards.each_user(self.add_many, items, lambda keyed: keyed.item.user_id)
        asks = deciding.decides(items)
        if asks and len(items) > deciding.MOST_DECIDED:
            parts = [items[n : n + deciding.MOST_DECIDED] for n in range(0, len(items), deciding.MOST_DECIDED)]
            return [outcome for part in parts for outcome in await self.add_many(part)]
        if asks and deciding.repeats(items):
            return await super().add_many(items)
        batch = await self._index.index_many(items, lambda batch: pack_batch(batch, repeat(current_call.get())))
        try:
            written = await (
                self._pool.use(partial(self._decided, batch)) if asks else self._insert(batch, self._fetch)
            )
        except ConflictError as error:  # a key that another record bears refuses its own item, not the batch
            return [error] if len(items) == 1 else [(await self.add_many([item]))[0] for item in items]
        outcomes: Outcomes = []
        for entry in written:
            outcomes.append(await self._outcome(entry) if isinstance(entry, IndexedInput) else entry)
            if isinstance(entry, MemoryRecord) and entry.duplicate_of is not None:
                self._record_read(entry.user_id, memory_id=entry.id)
        return outcomes

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record."""
        record = await self._gets(ref)
        self._record_read(record.user_id, memory_id=record.id)
        return record

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the record."""
        record = own_record(await self._by_key(ref.user_id, ref.key), ref.user_id)
        self._record_read(record.user_id, memory_id=record.id)
        return record

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Apply the changes; new content is embedded and indexed."""
        ref = await self._with_user(ref)
        values = changes.changes
        supersedes = values.get("supersedes") or ()
        clears = "supersedes" in values and values["supersedes"] is None
        where = self._changing(to_uuid(ref.id), ref.user_id, supersedes, ref.if_version)
        assign_changes(where, changes, supersedes, clears=clears)
        if "content" in values:
            assign_content(where, values["content"], await self._index.index_content(values["content"]))
        if ref.user_id is None or supersedes or clears or changes.extensions:
            record = await self._changed(where, changing(BY_ID, names=bool(supersedes), releases=clears), ref.user_id)
        else:
            record = await self._together.change(Change(BY_ID, (to_uuid(ref.id),), ref.user_id, where))
        if record is None:
            await self._check_model()
            self._check_version(await self._gets(ref), ref.if_version)
            raise NotFoundError("supersedes: no such memory")
        return record

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Replace the record of that key or create it: whichever statement finds its case does all of it."""
        content = await self._index.index_content(item.content)
        is_alone = not item.supersedes  # which most are; that the record there is too is found out
        while True:
            if if_version != "absent":
                app = item.source.app if item.source else None
                where = self._changing(None, item.user_id, item.supersedes, if_version, app)
                assign_all(where, item, content)
                if is_alone:
                    target = (key_hash(item.key), item.key)
                    record = await self._together.change(Change(BY_KEY_ALONE, target, item.user_id, where))
                else:
                    statement = changing(BY_KEY, names=bool(item.supersedes), releases=True)
                    record = await self._changed(where, statement, item.user_id)
                if record is not None:
                    return PutResult(record=record, created=False)
                is_alone = False
            if await self._is_absent(item, if_version):
                try:
                    key = generated_key(item.user_id)
                    return PutResult(record=await self.add(item, idempotency_key=key), created=True)
                except ConflictError:
                    if if_version == "absent":
                        raise
            # Another put was faster: its record is there now, or is gone again. Or it supersedes others.

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Write the records as they are, in one transaction, with new vectors."""
        stored = as_stored(records)
        batch = await index_records(self._index, stored)
        call = current_call.get()
        return await self._restoring(restore, stored, batch, self._index.model, (call.app, call.request_id))

    async def load(
        self, parts: Sequence[UserPart], *, model: str | None, app: str | None, include_deleted: bool
    ) -> RestoreOutcomes:
        """Write the parts in one transaction."""
        batch = await index_records(self._index, [stored for part in parts for stored in part.records], model)
        caller = (app, new_request_id())
        return await self._restoring(load, parts, batch, self._index.model, caller, include_deleted=include_deleted)

    async def delete(self, ref: RecordRef) -> None:
        """Remove the record; only its idempotency key is remembered."""
        ref = await self._with_user(ref)
        if not await self._together.delete(to_uuid(ref.id), ref.user_id, ref.if_version):
            if ref.if_version is not None:
                self._check_version(await self._gets(ref), ref.if_version)
            raise NotFoundError("no such memory")

    async def delete_all(self, filters: Filters) -> int:
        """Remove every record that the filters select, in one statement."""
        where = self._deleting()
        where.add_filters(filters)
        return await self._delete(where, filters.user_id)

    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        """Return the scopes in use, each with its number of records."""
        where = Arguments()
        where.add_filters(Filters(user_id=query.user_id, scope=query.prefix))
        rows = await self._fetch(acting_for(query.user_id), where.fill(queries.SCOPES), *where.values)
        check_owner([row[0] for row in rows], query.user_id)
        self._record_read(query.user_id, scope=query.prefix)
        return count_scopes(((scope, records) for _, scope, records in rows), query.depth)

    async def users(self, query: UsersQuery) -> UserPage:
        """Return a page of the users that have records."""
        rows = await self._fetch(EVERYBODY, queries.USERS, query.cursor or "", query.limit + 1)
        users = [row[0] for row in rows]
        more = len(users) > query.limit
        return UserPage(items=users[: query.limit], next_cursor=users[query.limit - 1] if more else None)

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return a page, newest first, by keyset."""
        page = await self._list(query)
        self._record_read(query.user_id, scope=query.scope)
        return page

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the best current records: exact over all of the user's memories."""
        found, _ = await self._search(query)
        self._record_read(query.user_id, scope=query.scope)
        return found

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Return the block; the search and the listing behind it are one entry in the audit log.

        Of a user with few memories the search finds all, and nothing is left to be listed.
        """
        is_all = False

        async def search(wanted: SearchQuery) -> SearchResults:
            nonlocal is_all
            found, is_all = await self._search(wanted, counted=True)
            return found

        async def newest(wanted: ListQuery) -> MemoryPage:
            return MemoryPage(items=[]) if is_all else await self._list(wanted)

        block = await fill_context(query, count_tokens, search, newest)
        self._record_read(query.user_id, scope=query.scope)
        return block

    async def audit(self, query: AuditQuery) -> AuditEntries:
        """Return the user's audit entries; reads that wait to be written are written first."""
        if self._audit_buffer is not None:
            await self._audit_buffer.flush()
        wanted = (query.user_id, query.app, query.memory_id, query.since, query.limit)
        rows = await self._fetch(acting_for(query.user_id), queries.AUDIT, *wanted)
        check_owner([row["user_id"] for row in rows], query.user_id)
        self._record_read(query.user_id, memory_id=query.memory_id)
        return [AuditRow(*row).entry() for row in rows]

    async def _decided(self, batch: Batch, connection: Any) -> Written:
        fetch = partial(self._fetch_on, connection)
        async with connection.transaction(isolation="read_committed"):
            return await self._insert(await deciding.decided(fetch, batch), fetch)

    async def _insert(self, batch: Batch, fetch: Fetch) -> Written:
        return await insert(fetch, batch, self._index.model, is_retry=current_call.get().is_retry)

    async def _list(self, query: ListQuery) -> MemoryPage:
        where = Arguments(query.limit + 1)
        where.add_filters(query)
        if position := decode_cursor(query):
            where.add("(m.created_at, m.id) < ({}, {})", position[0], to_uuid(position[1]))
        if query.since is not None:
            where.add("m.created_at >= {}", query.since)
        if query.until is not None:
            where.add("m.created_at <= {}", query.until)
        if query.as_of is not None:
            where.add_current(query.as_of)
        rows = await self._read(acting_for(query.user_id), where.fill(queries.LIST), *where.values)
        items = [own_record([row], query.user_id) for row in rows[: query.limit]]
        more = len(rows) > query.limit
        cursor = encode_cursor(query, items[-1].created_at, items[-1].id) if more else None
        return MemoryPage(items=items, next_cursor=cursor)

    async def _search(self, query: SearchQuery, *, counted: bool = False) -> tuple[SearchResults, bool]:
        rows, is_all = await self._searching.best(query, self._index, counted=counted)
        if not rows:
            await self._check_model()
        return [
            SearchResult(memory=own_record([columns], query.user_id), score=min(score, 1.0), parts=parts)
            for columns, score, parts in hits(rows, self._index.weights.text_weight, explained=query.explain)
        ], is_all

    async def _added_before(self, new: IndexedInput[PackedWords]) -> MemoryRecord:
        """Return what the key wrote before, or raise why nothing was written."""
        user_id = new.item.user_id
        rows = await self._fetch(acting_for(user_id), queries.EXPLAIN_ADD, user_id, new.idempotency_key, new.id)
        model, dim, fingerprint, *columns = rows[0]
        self._index.check(model, dim)
        if fingerprint is not None and fingerprint != new.fingerprint:
            await self._check_predecessors(new.item)  # without them it was refused before the key was used
            raise ConflictError("idempotency_key: was used before with another input; use a new key")
        if columns[0] is not None:
            return own_record([columns], new.item.user_id)
        if fingerprint is None and new.item.supersedes:
            raise NotFoundError("supersedes: no such memory")
        raise ConflictError("idempotency_key: belongs to a memory that was deleted since; use a new key")

    async def _outcome(self, new: IndexedInput[PackedWords]) -> MemoryRecord | OpenProtoError:
        try:
            return await self._added_before(new)
        except OpenProtoError as error:
            return error

    def _changing(
        self,
        id: UUID | None,
        user_id: str | None,
        supersedes: Iterable[str],
        if_version: str | None,
        app: str | None = None,
    ) -> Arguments:
        call, old = current_call.get(), [to_uuid(id) for id in supersedes]
        return Arguments(self._index.model, id, user_id, old, app or call.app, call.request_id, if_version)

    async def _is_absent(self, item: MemoryInput, if_version: str | None) -> bool:
        """Return whether there is no record of the item's key, or raise why it cannot be replaced."""
        rows = await self._by_key(item.user_id, item.key)
        if not rows:
            if if_version not in (None, "absent"):
                raise _stale()
            return True
        record = own_record(rows, item.user_id)
        await self._check_model()
        self._check_version(record, if_version)
        if record.id in item.supersedes:
            raise InvalidRequestError("supersedes: a record cannot supersede itself")
        await self._check_predecessors(item)
        return False

    async def _check_predecessors(self, item: MemoryInput) -> None:
        ids = [to_uuid(id) for id in item.supersedes]
        if ids and (await self._fetch(acting_for(item.user_id), COUNT_OWN, item.user_id, ids))[0][0] < len(ids):
            raise NotFoundError("supersedes: no such memory")

    def _check_version(self, record: MemoryRecord, if_version: str | None) -> None:
        if if_version is not None and record.version != if_version:
            raise _stale()

    async def _changed(self, where: Arguments, statement: str, user_id: str | None) -> MemoryRecord | None:
        """Return the record that the statement changed, or None where it found none to change."""
        rows = await self._fetch(acting_for_owner(user_id), where.fill(statement), *where.values)
        if not rows:
            return None
        owners, *columns = rows[0]
        record = own_record([columns], user_id)
        check_owner(owners, record.user_id)
        return record

    def _deleting(self) -> Arguments:
        call = current_call.get()
        return Arguments(call.app, call.request_id)

    async def _delete(self, where: Arguments, user_id: str | None) -> int:
        ((count, owners),) = await self._fetch(acting_for_owner(user_id), where.fill(DELETE), *where.values)
        check_owner(owners, user_id)
        return int(count)

    async def _by_key(self, user_id: str, key: str | None) -> Sequence[Any]:
        return await self._fetch(acting_for(user_id), queries.GET_BY_KEY, user_id, key_hash(key), key)


def _stale() -> ConflictError:
    return ConflictError("if_version: is not the version of the record there is; read it again and decide anew")
