"""Records with what no verb returns of them: from when on each holds, and when which other took over from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from openproto import AsyncMemory, MemoryRecord, Provider, UnsupportedCapabilityError
from openproto.models import MemoryPage, RestoreOutcome, StoredRecord, UserPart
from openproto.portable.spool import Spool, open_private

PAGE = 500


class Histories(Protocol):
    """What a store holds of each user."""

    def records(self, user_id: str) -> AsyncIterator[Sequence[StoredRecord]]:
        """Return the records of a user, some at a time."""
        ...


def keeps_histories(memory: AsyncMemory) -> bool:
    """Say whether more is known of records, and kept, than verbs return."""
    try:
        memory._session.provider.snapshot(vectors=False)
    except UnsupportedCapabilityError:
        return False
    return True


@asynccontextmanager
async def histories(memory: AsyncMemory, *, vectors: bool, oldest_first: bool) -> AsyncIterator[Histories]:
    """Return what reads a snapshot where the provider has one, otherwise what is listed, or that turned round."""
    try:
        opening = memory._session.provider.snapshot(vectors=vectors)
    except UnsupportedCapabilityError:
        yield _Listed(memory, oldest_first=oldest_first)
        return
    async with opening as snapshot:
        yield snapshot


async def restored(memory: AsyncMemory, parts: Sequence[UserPart]) -> Sequence[RestoreOutcome]:
    """Restore records with their histories, or as verbs return them where the provider keeps no more."""
    models = {stored.record.embedding_model for part in parts for stored in part.records}
    model = models.pop() if len(models) == 1 else None

    async def load(provider: Provider) -> Sequence[RestoreOutcome]:
        app = memory._session.options.app
        return await provider.load(parts, model=model, app=app, include_deleted=True)

    try:
        return await memory._session.call("add", load, repeatable=True, needs="restore")
    except UnsupportedCapabilityError:
        records = [[stored.record for stored in part.records] for part in parts]
        return [outcome for each in records for outcome in await memory.restore(each)]


class _Listed:
    """What verbs return."""

    def __init__(self, memory: AsyncMemory, *, oldest_first: bool) -> None:
        self._memory = memory
        self._oldest_first = oldest_first

    async def records(self, user_id: str) -> AsyncIterator[Sequence[StoredRecord]]:
        if not self._oldest_first:
            async for page in self._pages(user_id):
                yield [StoredRecord(record=record) for record in page.items]
            return
        with open_private(None) as file:
            spool = Spool(file, {})
            async for page in self._pages(user_id):
                for record in page.items:
                    spool.add(record)
            for line in spool.oldest_first():
                yield [StoredRecord(record=MemoryRecord.model_validate_json(line))]

    def _pages(self, user_id: str) -> AsyncIterator[MemoryPage]:
        return self._memory._pages(user_id, limit=PAGE)
