"""Records with what no verb returns of them: from when on each holds, and when which other took over from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from openproto import AsyncMemory, MemoryRecord, Provider, UnsupportedCapabilityError
from openproto.models import RestoreOutcome, StoredRecord, UserPart
from openproto.portable.spool import Spool, open_private

PAGE = 500


def keeps_histories(memory: AsyncMemory) -> bool:
    """Say whether more is known of records, and kept, than verbs return."""
    try:
        memory._session.provider.snapshot(vectors=False)
    except UnsupportedCapabilityError:
        return False
    return True


async def histories(memory: AsyncMemory, user: str, *, oldest_first: bool) -> AsyncGenerator[StoredRecord, None]:
    """Yield a user's records: out of a snapshot where the provider has one, otherwise as listed, or turned round."""
    try:
        opening = memory._session.provider.snapshot(vectors=True)
    except UnsupportedCapabilityError:
        if not oldest_first:
            async for record in memory.iter(user, page_size=PAGE):
                yield StoredRecord(record=record)
            return
        with open_private(None) as file:
            spool = Spool(file, {})
            async for record in memory.iter(user, page_size=PAGE):
                spool.add(record)
            for line in spool.oldest_first():
                yield StoredRecord(record=MemoryRecord.model_validate_json(line))
        return
    async with opening as snapshot:
        async for records in snapshot.records(user):
            for stored in records:
                yield stored


async def restored(memory: AsyncMemory, user: str, records: Sequence[StoredRecord]) -> Sequence[RestoreOutcome]:
    """Restore a user's records with their histories, or as verbs return them where the provider keeps no more."""
    models = {stored.record.embedding_model for stored in records}
    model = models.pop() if len(models) == 1 else None

    async def load(provider: Provider) -> Sequence[RestoreOutcome]:
        app = memory._session.options.app
        return await provider.load([UserPart(user, records)], model=model, app=app, include_deleted=True)

    try:
        return await memory._session.call("add", load, repeatable=True, needs="restore")
    except UnsupportedCapabilityError:
        return await memory.restore([stored.record for stored in records])
