"""Records with what no verb returns of them: from when on each holds, and when which other took over from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from openproto import AsyncMemory, MemoryRecord, Provider, UnsupportedCapabilityError
from openproto.models import RestoreOutcome, StoredRecord, UserPart
from openproto.portable.spool import Spool, open_private

PAGE = 500
USERS_AT_ONCE = 4
_STORE_LOADS = 2


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


class Loader:
    """Restores what several users have ready at the same moment together: a store waits for the disk once for all."""

    def __init__(self, target: AsyncMemory) -> None:
        self._target = target
        self._slots: asyncio.Semaphore | None = None
        self._waiting: list[tuple[UserPart, asyncio.Future[Sequence[RestoreOutcome]]]] = []

    async def load(self, part: UserPart) -> Sequence[RestoreOutcome]:
        """Restore the records and return what became of each."""
        if self._slots is None:
            native = (await self._target.capabilities()).x_openproto.support.get("restore") == "native"
            # A vendor takes one user after the other: there is nothing to be had together.
            self._slots = self._slots or asyncio.Semaphore(_STORE_LOADS if native else USERS_AT_ONCE)
        mine: asyncio.Future[Sequence[RestoreOutcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((part, mine))
        async with self._slots:
            batch, self._waiting = self._waiting, []
            if batch:
                await self._load(batch)
        return await mine

    async def _load(self, batch: Sequence[tuple[UserPart, asyncio.Future[Sequence[RestoreOutcome]]]]) -> None:
        waiting = [(part, future) for part, future in batch if not future.done()]
        try:
            outcomes = iter(await restored(self._target, [part for part, _ in waiting]))
        except BaseException as error:
            for _, future in waiting:
                if isinstance(error, Exception) and not future.done():
                    future.set_exception(error)
                else:
                    future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for part, future in waiting:
            found = [next(outcomes) for _ in part.records]
            if not future.done():
                future.set_result(found)
