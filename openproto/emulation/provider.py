"""`EmulatedProvider`: the verbs of the protocol, made of the few things that every memory vendor can do.

An adapter implements `create`, `find`, `find_key`, `replace`, `remove`, `scan`, and `rank`. What a vendor does better
than this class (a native delete of everything, a listing in order) the adapter overrides.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime

from openproto.emulation.answers import no_such_memory, stale_version
from openproto.emulation.lending import hit_of, with_lent
from openproto.emulation.locks import Name
from openproto.emulation.matching import is_current, matches
from openproto.emulation.restoring import Restoring, name_of
from openproto.emulation.stored import Stored, fingerprint_of, new_version
from openproto.emulation.vendor import B
from openproto.emulation.waiting import look_until
from openproto.errors import ConflictError, InvalidRequestError, NotFoundError, OpenProtoError
from openproto.fanout import gather_all, gather_bounded
from openproto.models import (
    OPERATIONS,
    VERBS,
    Capabilities,
    Features,
    Limits,
    MemoryPage,
    MemoryRecord,
    PutResult,
    Support,
    SupportDetails,
)
from openproto.provider import GeneratedKey, KeyedInput, Outcomes, SearchResults, generated_key, is_fresh
from openproto.requests import (
    MAX_SEARCH_LIMIT,
    Filters,
    KeyRef,
    ListQuery,
    MemoryInput,
    MemoryUpdate,
    RecordRef,
    SearchQuery,
    check_validity,
)
from openproto.stores.cursors import decode_cursor, encode_cursor
from openproto.stores.duplicates import decide, plain
from openproto.stores.ranking import shares
from openproto.stores.words import query_terms, term_set


class EmulatedProvider(Restoring[B]):
    """A provider over a vendor that stores texts with metadata; its `traits` say what the vendor has itself."""

    on_duplicate = explain = True

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store the memory; then mark what it supersedes, all of which was there before anything was written."""
        adding = self._add(item, idempotency_key)
        several = bool(item.supersedes) or item.on_duplicate == "supersede"
        return await self.processed(await (self._finish_despite_cancellation(adding) if several else adding))

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Store the items, several at once, each with an outcome of its own; what needs no look-up goes together."""
        simple: dict[str, list[int]] = {}
        others: dict[tuple[str, str], list[int]] = {}
        deciding = {item.user_id for item, _ in items if item.on_duplicate != "keep"}
        for number, (item, key) in enumerate(items):
            alone = isinstance(key, GeneratedKey) and not (item.supersedes or item.key or item.user_id in deciding)
            if self.traits.most_created > 1 and alone:
                simple.setdefault("" if self.traits.mixes_users else item.user_id, []).append(number)
            else:
                # What may share a key or a predecessor is written in its order: the first is the one that is stored.
                others.setdefault((item.user_id, key if alone else ""), []).append(number)
        outcomes: dict[int, MemoryRecord | OpenProtoError] = {}
        slots = asyncio.Semaphore(self.traits.most_writes)

        async def write(part: Sequence[int], together: bool) -> None:
            async with slots:
                batch = [items[number] for number in part]
                try:
                    written = await (self.create_many(batch) if together else self.add_each(batch))
                except OpenProtoError as error:
                    if error.retryable and self.traits.keys_outlive == "native":
                        raise  # a vendor that knows the keys again may be sent the whole batch again
                    written = [error] * len(batch)
                outcomes.update(zip(part, map(self._noted, written), strict=True))

        parts = [write(numbers, False) for numbers in others.values()]
        for numbers in simple.values():
            for start in range(0, len(numbers), self.traits.most_created):
                part = numbers[start : start + self.traits.most_created]
                parts.append(write(part, len(part) > 1))
        await gather_all(*parts)
        return [outcomes[number] for number in range(len(items))]

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record."""
        return (await self._existing(ref.id, ref.user_id)).shown

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the record that bears the key."""
        found = await self.find_named(ref.user_id, ref.key)
        if found is None:
            raise no_such_memory()
        return await self.get(RecordRef(id=found.id, user_id=ref.user_id))

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Create the record of the key or write it anew; whoever else writes a record of that key waits."""
        return await self._finish_despite_cancellation(self._write_named(item, if_version))

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Write the memory anew with the changes; whoever else updates it waits."""
        updating = self._update(ref, changes)
        at_once = self.traits.replaces_at_once and "supersedes" not in changes.model_fields_set
        stored = await (updating if at_once else self._finish_despite_cancellation(updating))
        return await self.processed(stored.shown)

    async def delete(self, ref: RecordRef) -> None:
        """Remove the memory."""
        async with self._locked(ref.id):
            if not await self.remove(await self._expected(ref)):
                raise no_such_memory()

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return the page; without an order at the vendor, out of all of the user's memories."""
        after = decode_cursor(query)
        until = min((moment for moment in (query.until, after and after[0]) if moment), default=None)
        wanted = query.limit + 1
        found: list[MemoryRecord] = []
        async with aclosing(self.scan(query.user_id, until)) as memories:
            async for stored in memories:
                record = self._owned(stored, query.user_id).shown
                # Of records made in one moment the vendor's order says nothing: all of them must be seen.
                full = len(found) >= wanted and record.created_at < found[-1].created_at
                if self.traits.scans_newest_first and (full or (query.since and record.created_at < query.since)):
                    break
                if matches(stored, query) and (after is None or _position(record) < after):
                    found.append(record)
        page = heapq.nlargest(wanted, found, key=_position)
        items = page[: query.limit]
        more = len(page) > query.limit
        last = items[-1] if more else None
        return MemoryPage(items=items, next_cursor=encode_cursor(query, last.created_at, last.id) if last else None)

    async def search(self, query: SearchQuery) -> SearchResults:
        """Ask for more hits until enough pass the filters; beyond the vendor's limit, look through all memories."""
        at = query.as_of or datetime.now(UTC)
        narrowed = query.scope is not None or bool(query.tags)
        count = min(self.traits.most_ranked, query.limit * 4 if narrowed else query.limit + 5)
        while True:
            ranked = await self.rank(query, count)
            hits = [
                hit_of(query, stored.shown, "backend", min(1.0, max(0.0, score)))
                for stored, score in ranked.hits
                if matches(self._owned(stored, query.user_id), query) and is_current(stored, at)
            ]
            if len(hits) >= query.limit or ranked.complete or ranked.exhausted or count >= self.traits.most_ranked:
                break
            count = min(self.traits.most_ranked, count * 4)
        if len(hits) < query.limit and not ranked.complete:
            seen = {stored.id for stored, _ in ranked.hits}
            hits += await self._by_words(query, at, seen, below=min((hit.score for hit in hits), default=1.0))
        hits = with_lent(hits)
        hits.sort(key=lambda hit: hit.score, reverse=True)
        return [hit for hit in hits[: query.limit] if hit.score >= (query.min_score or 0.0)]

    async def delete_all(self, filters: Filters) -> int:
        """Remove what the filters select: everything as the vendor can, otherwise several at once."""
        if filters.scope is None and not filters.tags and self.traits.removes_all:
            return await self.remove_all(filters.user_id)
        query = ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags)
        async with aclosing(self.scan(filters.user_id)) as memories:
            chosen = [stored async for stored in memories if matches(self._owned(stored, filters.user_id), query)]

        async def remove(part: Sequence[Stored]) -> int:
            async with self._locked(*(stored.id for stored in part)):
                return await self.remove_many(part)

        most = self.traits.most_removed
        parts = (chosen[start : start + most] for start in range(0, len(chosen), most))
        return sum(await gather_bounded(map(remove, parts), limit=self.traits.most_writes))

    async def capabilities(self) -> Capabilities:
        """Return what the vendor has and what is emulated here."""
        features = Features(
            vector_search=self.traits.vector_search,
            keyword_search=self.traits.keyword_search,
            temporal=True,
            scopes="tags",
            max_content_length=self.traits.max_content_length,
            supports_supersession=self.traits.supersession,
            async_ingestion=self.traits.async_ingestion,
        )
        verbs = [verb for verb in VERBS if verb in self.verbs]
        names = [*VERBS, *features.model_dump(exclude={"max_content_length"})]
        support: dict[str, Support | str] = {}
        for name in names:
            has = name in verbs or getattr(features, name, None) not in (None, False, "none")
            support[name] = "none" if not has else "native" if name in self.traits.native else "emulated"
        for operation in OPERATIONS:
            has = operation in self.operations
            support[operation] = "none" if not has else "native" if operation in self.traits.native else "emulated"
        support["keys_outlive"] = self.traits.keys_outlive
        return Capabilities(
            provider=self.name,
            verbs=list(verbs),
            features=features,
            limits=Limits(max_search_results=MAX_SEARCH_LIMIT),
            x_openproto=SupportDetails(support=support, cancellation=self.cancellation),
        )

    async def processed(self, record: MemoryRecord) -> MemoryRecord:
        """Return the record once the vendor has processed it, or after the seconds that a write may wait for that."""
        with suppress(NotFoundError):  # written it was, whoever deletes it meanwhile
            return await look_until(
                lambda shown: shown.status not in ("queued", "indexing"),
                lambda: self.get(RecordRef(id=record.id, user_id=record.user_id)),
                record,
                within=self.traits.processing_seconds,
            )
        return record

    # The parts of a write.

    async def _add(self, item: MemoryInput, key: str) -> MemoryRecord:
        if item.on_duplicate == "keep":
            return (await self._add_decided(item, key)).shown
        # Whoever says the same waits; sorts before the locks that writing takes.
        async with self._locked_by([("a duplicate", item.user_id, plain(item.content))]):
            before = None if is_fresh(key) else await self.find_key(item.user_id, key)
            if before is not None:
                return (await self._add_decided(item.superseding(before.record.supersedes), key)).shown
            decided = decide(item, await self._may_say(item))
            return decided if isinstance(decided, MemoryRecord) else (await self._add_decided(decided, key)).shown

    async def _add_decided(self, item: MemoryInput, key: str) -> Stored:
        locks: list[Name] = [("key", item.user_id, key), *(("memory", id) for id in item.supersedes)]
        if item.key is not None:
            locks.append(name_of(item.user_id, item.key))
        async with self._locked_by(locks):
            if not is_fresh(key):
                before = await self.find_key(item.user_id, key)
                if before is not None:
                    return await self._completed(self._same_input(before, item), item.supersedes)
            if item.key is not None and await self.find_named(item.user_id, item.key) is not None:
                raise ConflictError("key: another record of this user bears it; use put to replace that one")
            return await self._create(item, key)

    async def _create(self, item: MemoryInput, key: str) -> Stored:
        """Write a memory whose locks are held."""
        old = [await self._existing(id, item.user_id) for id in item.supersedes]
        return await self._mark(self._noted(await self.create(item, key)), old)

    async def _write_named(self, item: MemoryInput, if_version: str | None) -> PutResult:
        user_id, key = item.user_id, item.key or ""
        async with self._locked_by([name_of(user_id, key)]):
            while True:
                found = await self.find_named(user_id, key)
                touched = [found.id, *found.record.supersedes] if found else []
                async with self._locked(*touched, *item.supersedes):
                    old = await self.find(found.record.id, user_id) if found else None
                    if found and old and old.record.supersedes != found.record.supersedes:
                        continue  # changed before its locks were held
                    _check_version(old, if_version)
                    if old is None:
                        return PutResult(record=(await self._create(item, generated_key(user_id))).shown, created=True)
                    return PutResult(record=(await self._write_over(old, item)).shown, created=False)

    async def _write_over(self, old: Stored, item: MemoryInput) -> Stored:
        """Write `item` in place of `old`, of which the id, the moment, the idempotency key, and the marks stay."""
        before = old.record
        if old.id in item.supersedes:
            raise InvalidRequestError("supersedes: a record cannot supersede itself")
        superseded = [await self._existing(id, item.user_id) for id in item.supersedes]
        now = datetime.now(UTC)
        new = Stored.new(item, old.idempotency_key, id=before.id, created_at=before.created_at)
        new = replace(
            new.changed(updated_at=now, superseded_by=before.superseded_by),
            fingerprint=old.fingerprint,
            superseded=old.superseded,
            holds_from=now if item.supersedes else None,
            handle=old.handle,
            origin=old.origin,
        )
        written = self._noted(await self.replace(old, new))
        await self._release(old, [id for id in before.supersedes if id not in item.supersedes])
        return await self._mark(written, superseded)

    async def add_each(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Add one item after the other: what `create_many` falls back on to learn which of them is at fault."""
        outcomes: Outcomes = []
        for item, key in items:
            try:
                outcomes.append(await self.add(item, idempotency_key=key))
            except OpenProtoError as error:
                outcomes.append(error)
        return outcomes

    async def _completed(self, before: Stored, supersedes: Sequence[str]) -> Stored:
        """Return the memory of an earlier attempt, with the marks that the attempt may not have come to make."""
        unmarked = [
            old
            for id in supersedes
            if (old := await self.known(id, before.record.user_id)) is not None
            and before.id not in (by for by, _ in old.superseded)
            and id in before.record.supersedes
        ]
        return await self._mark(before, unmarked)

    async def _update(self, ref: RecordRef, changes: MemoryUpdate) -> Stored:
        fields = changes.changes
        named: list[str] = fields.get("supersedes") or []
        before = (await self._existing(ref.id, ref.user_id)).record
        cleared = "supersedes" in fields and fields["supersedes"] is None
        async with self._locked(ref.id, *named, *(before.supersedes if cleared else ())):
            old = await self._expected(ref)
            more = [id for id in named if id not in old.record.supersedes]
            try:
                check_validity(old.record.valid_from, fields.get("valid_to"))
            except ValueError as error:
                raise InvalidRequestError(str(error)) from None
            added = [await self._existing(id, before.user_id) for id in more]
            if "supersedes" in fields:
                fields["supersedes"] = [] if cleared else list(dict.fromkeys([*old.record.supersedes, *more]))
            if "tags" in fields:
                fields["tags"] = fields["tags"] or []
            now = datetime.now(UTC)
            changed = replace(
                old.changed(**fields, updated_at=now, version=new_version()).extended(changes.extensions),
                holds_from=None if cleared else old.holds_from or (now if more else None),
            )
            new = self._noted(await self.replace(old, changed))
            if cleared:
                await self._release(old, old.record.supersedes)
            return await self._mark(new, added)

    async def _expected(self, ref: RecordRef) -> Stored:
        """Return the memory, of the version that the caller has read where one is given."""
        found = await self._existing(ref.id, ref.user_id)
        if ref.if_version is not None:
            _check_version(found, ref.if_version)
        return found

    async def _release(self, successor: Stored, ids: Sequence[str]) -> None:
        """Take the successor's mark from memories that it no longer supersedes."""
        for id in ids:
            released = await self.known(id, successor.record.user_id)
            if released is not None:
                self._noted(await self.replace(released, released.released_by(successor.id)))

    async def _mark(self, new: Stored, old: Sequence[Stored]) -> Stored:
        if old:
            record = new.record
            since = record.valid_from or record.updated_at or record.created_at
            for superseded in old:
                with suppress(NotFoundError):  # deleted by another process since it was read
                    await self.replace(superseded, superseded.superseded_by(new.id, since))
        return new

    def _same_input(self, before: Stored, item: MemoryInput) -> Stored:
        if before.fingerprint != fingerprint_of(item):
            raise ConflictError("this idempotency key was used for another memory; use a new key for a new memory")
        return before

    # Helpers.

    async def _by_words(self, query: SearchQuery, at: datetime, seen: set[str], below: float) -> SearchResults:
        """Return what the vendor's search could not reach, by the share of the query's words it holds."""
        records: list[MemoryRecord] = []
        found: list[frozenset[int]] = []
        wanted = query_terms(query.query)
        known = {*wanted.terms, *wanted.variants}
        async with aclosing(self.scan(query.user_id)) as memories:
            async for stored in memories:
                record = self._owned(stored, query.user_id).shown
                if record.id in seen or not matches(stored, query) or not is_current(stored, at):
                    continue
                records.append(record)
                found.append(term_set(record.content).intersection(known))
                await asyncio.sleep(0)  # splitting a long text takes a while
        scores = shares(wanted, found)
        return [hit_of(query, records[number], "words", share * below) for number, share in scores.items()]


def _check_version(found: Stored | None, if_version: str | None) -> None:
    if if_version is not None and if_version != (found.record.version if found else "absent"):
        raise stale_version()


def _position(record: MemoryRecord) -> tuple[datetime, str]:
    return (record.created_at, record.id)
