"""Mirroring: every write to the primary reaches a second provider too, by a journal and in the background.

- An entry is in the journal before the write goes to the primary, so that not even kill -9 between the two loses one;
  an entry whose write never happened changes nothing at the mirror.
- Calls never wait for the mirror. Their entries are copied into mapped memory, which survives the process (not a power
  failure); only where there is no room do they wait for the journal's file, for a quarter of a second at most.
- Reads come from the primary. Of some, when the mirror has caught up, one record is compared with the mirror's.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from openproto.errors import OpenProtoError, ProviderError
from openproto.layers.layer import Layer
from openproto.layers.mirroring.applier import Applier
from openproto.layers.mirroring.calls import APP
from openproto.layers.mirroring.journal import MirrorJournal, Reference
from openproto.models import MemoryPage, MemoryRecord, PutResult, UserPart
from openproto.provider import (
    Call,
    GeneratedKey,
    KeyedInput,
    Outcomes,
    Provider,
    RestoreOutcomes,
    SearchResults,
    current_call,
    new_request_id,
)
from openproto.requests import (
    Filters,
    KeyRef,
    ListQuery,
    MemoryInput,
    MemoryUpdate,
    RecordRef,
    SearchQuery,
)

SAMPLE = 0.01
"""The share of reads of which a record is compared."""

CLOSING_SECONDS = 1.0
"""How long closing waits for the backlog, while the mirror takes it."""


class Mirrored(Layer):
    """`inner`, the primary, with `mirror` next to it, and the file of the journal between the two."""

    def __init__(self, inner: Provider, mirror: Provider, /, journal: Path, *, sample: float = SAMPLE) -> None:
        super().__init__(inner)
        if not 0 <= sample <= 1:
            raise ValueError("sample in mirror= is a share of the reads, and must be from 0 to 1")
        if not {"add", "get", "list", "delete"} <= mirror.verbs:
            raise ValueError(f"provider {mirror.name!r} cannot be a mirror: it needs add, get, list, and delete")
        self._mirror = mirror
        self._sample = sample
        self._journal = MirrorJournal(journal, f"{inner.name} {mirror.name}")
        self._applier: Applier | None = None

    def fresh(self) -> Self:
        """Return an unopened layer around fresh providers."""
        (inner, mirror, *args), options = self._made_of
        return type(self)(inner.fresh(), mirror.fresh(), *args, **options)

    async def open(self) -> None:
        """Open the primary and the journal; the mirror is opened in the background."""
        try:
            await super().open()
            await self._journal.open()
        except BaseException:
            await self.close()
            raise
        self._applier = Applier(self.inner, self._mirror, self._journal)
        self._applier.start()

    async def close(self) -> None:
        """Give the mirror a moment to catch up, and close everything; what is left stays in the journal."""
        applier, self._applier = self._applier, None
        try:
            if applier is not None:
                await applier.close(CLOSING_SECONDS)
        finally:
            try:
                await self._journal.close()
            finally:
                await super().close()

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Add through the primary."""
        async with self._noted([_of_add(item, idempotency_key)]) as note:
            return note.made(await self.inner.add(item, idempotency_key=idempotency_key))

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Add the batch through the primary."""
        async with self._noted([_of_add(*keyed) for keyed in items]) as note:
            outcomes = await self.inner.add_many(items)
            note.made_many(outcomes)
        return outcomes

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Update through the primary."""
        changed = [ref.id, *(changes.supersedes or ())]
        async with self._noted([Reference("record", ref.user_id, id) for id in changed]):
            return await self.inner.update(ref, changes)

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Put through the primary."""
        others = [Reference("record", item.user_id, id) for id in item.supersedes]
        async with self._noted([Reference("key", item.user_id, item.key or ""), *others]) as note:
            result = await self.inner.put(item, if_version=if_version)
            note.made(result.record)
        return result

    async def delete(self, ref: RecordRef) -> None:
        """Delete through the primary; a record without its user is looked up, since another may have the id next."""
        owner = ref.user_id or await self._owner(ref)
        async with self._noted([Reference("record", owner, ref.id)]):
            await self.inner.delete(ref)

    async def delete_all(self, filters: Filters) -> int:
        """Delete through the primary."""
        async with self._noted([Reference("user", filters.user_id)]):
            return await self.inner.delete_all(filters)

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Restore through the primary."""
        async with self._noted([Reference("record", record.user_id, record.id) for record in records]):
            return await self.inner.restore(records)

    async def load(
        self, parts: Sequence[UserPart], *, model: str | None, app: str | None, include_deleted: bool
    ) -> RestoreOutcomes:
        """Load into the primary."""
        records = [stored.record for part in parts for stored in part.records]
        async with self._noted([Reference("record", record.user_id, record.id) for record in records]):
            return await self.inner.load(parts, model=model, app=app, include_deleted=include_deleted)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the primary's record."""
        record = await self.inner.get(ref)
        self._perhaps_compare([record])
        return record

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the primary's record."""
        record = await self.inner.get_by_key(ref)
        self._perhaps_compare([record])
        return record

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return the primary's page."""
        page = await self.inner.list(query)
        self._perhaps_compare(page.items)
        return page

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the primary's results."""
        found = await self.inner.search(query)
        self._perhaps_compare([hit.memory for hit in found])
        return found

    async def describe(self) -> dict[str, str]:
        """Return what the primary says of itself, and what there is of the mirror."""
        mirror = {"mirror": self._mirror.name, "mirror journal": str(self._journal.path)}
        return {**await self.inner.describe(), **mirror, "mirror backlog": str(self._journal.backlog)}

    async def _owner(self, ref: RecordRef) -> str:
        # Under a call of the mirror's own, or the audit log would name the caller's verb twice.
        token = current_call.set(Call("get", new_request_id(), APP))
        try:
            return (await self.inner.get(ref)).user_id
        finally:
            current_call.reset(token)

    def _perhaps_compare(self, records: Sequence[MemoryRecord]) -> None:
        if records and self._applier is not None and random.random() < self._sample:  # noqa: S311 - a sample
            self._applier.sample(random.choice(records))  # noqa: S311 - likewise

    @asynccontextmanager
    async def _noted(self, references: Iterable[Reference]) -> AsyncIterator[_Note]:
        """Keep entries in the journal while their write is under way, and let them be applied when it has ended."""
        if self._applier is None:
            raise self.closed_meanwhile()
        note = _Note(self._journal, await self._journal.note(references))
        try:
            yield note
        except OpenProtoError as error:
            if isinstance(error, ProviderError) or error.retryable:
                self._journal.release_later(note.seqs)
            else:
                self._journal.remove(note.seqs)  # the primary said no, and changed nothing
            raise
        except BaseException:
            self._journal.release_later(note.seqs)
            raise
        self._journal.release(note.seqs)


class _Note:
    """The entries of a write under way."""

    def __init__(self, journal: MirrorJournal, seqs: list[int]) -> None:
        self._journal = journal
        self.seqs = seqs

    def made(self, record: MemoryRecord) -> MemoryRecord:
        """Say which record the first entry is about."""
        self._journal.resolve(self.seqs[0], record.id)
        self._journal.append(Reference("record", record.user_id, id) for id in record.supersedes)
        return record

    def made_many(self, outcomes: Outcomes) -> None:
        """Say which record each entry is about, and forget those of what was refused."""
        for seq, outcome in zip(list(self.seqs), outcomes, strict=True):
            if isinstance(outcome, MemoryRecord):
                self._journal.resolve(seq, outcome.id)
                self._journal.append(Reference("record", outcome.user_id, id) for id in outcome.supersedes)
            elif not isinstance(outcome, ProviderError) and not outcome.retryable:
                self._journal.remove([seq])
                self.seqs.remove(seq)


def _of_add(item: MemoryInput, key: str) -> Reference:
    # A key that the client made may be the record's id. One that its caller chose may be another record's.
    return Reference("add", item.user_id, key) if isinstance(key, GeneratedKey) else Reference("user", item.user_id)
