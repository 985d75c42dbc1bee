"""Reading a package back into a store: all of it is checked before anything is written."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import BinaryIO

from pydantic import ValidationError

from openproto import AsyncMemory, AuditEntry, MemoryRecord, Provider, UnsupportedCapabilityError, gather_bounded
from openproto.models import RestoreOutcome, StoredRecord, UsedKey, UserPart
from openproto.portable.backup import MOST_ENTRIES
from openproto.portable.encryption import MAGIC, decrypted
from openproto.portable.formats.json_files import numbered
from openproto.portable.histories import restored
from openproto.portable.package import GZIP, Entry, Reader, Source, explain
from openproto.portable.record_line import check_format

MOST_IN_A_BATCH, MOST_BYTES_IN_A_BATCH = 2000, 2**22

_AT_ONCE = 8
_WRITES_AT_ONCE = 2
"""Of different users, so that a backend with several connections is busy while the next batch is prepared."""


def check(source: Source) -> Reader:
    """Read a package to its end and return its reader; PackageError where it is not whole."""
    reader = Reader(source, thorough=True)
    for _ in reader.entries():
        pass
    return reader


class Restoration:
    """Writes files to an open `provider`, which `memory` is a client of; `outcomes` counts what became of records."""

    def __init__(
        self,
        memory: AsyncMemory,
        provider: Provider,
        *,
        users: Collection[str],
        include_deleted: bool,
        app: str,
        refuse: Callable[[int, str], None],
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.not_kept: Counter[str] = Counter()
        """What the provider cannot keep, by kind."""
        self._memory = memory
        self._provider = provider
        self._users = users
        self._include_deleted = include_deleted
        self._app = app
        self._refuse = refuse
        self._unreadable: deque[tuple[int, str]] = deque()
        self._by_verbs = False

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._provider.name

    async def run(self, file: BinaryIO, ask: Callable[[], str], report: Callable[[int, int], None]) -> None:
        """Write what a package or lines of JSON hold; `ask` returns the passphrase of an encrypted one.

        PackageError, and nothing is written, where a package is not whole; of lines each that is wrong is refused.
        """
        ask = cache(ask)
        file.seek(0)
        if not file.read(len(MAGIC)).startswith((MAGIC, GZIP)):
            check_format(file)
            await self._write_all(self._lines(file), None, lambda done: None)
            return
        total = check(decrypted(file, ask)).counts.records
        reader = Reader(decrypted(file, ask))
        await self._write_all(reader.entries(), reader.manifest.model, lambda done: report(done, total))

    def _lines(self, file: BinaryIO) -> Iterator[Entry]:
        for number, raw in numbered(file):
            try:
                record = MemoryRecord.model_validate_json(raw or b"")
            except ValidationError as error:
                self._unreadable.append((number, f"is not an exported memory: {explain(error)}"))
            else:
                yield Entry(number, record.user_id, StoredRecord(record=record), len(raw or b""))

    async def _write_all(self, entries: Iterator[Entry], model: str | None, report: Callable[[int], None]) -> None:
        """Write batch after batch, and read the next one meanwhile; what one user has is written in its order."""
        batches = self._batches(entries)
        writing: deque[tuple[list[Entry], asyncio.Task[Sequence[RestoreOutcome]]]] = deque()

        async def end_first() -> None:
            self._count(writing[0][0], await writing[0][1])
            writing.popleft()
            report(self.outcomes.total())

        try:
            while batch := await asyncio.to_thread(next, batches, None):
                users = {entry.user_id for entry in batch}
                while len(writing) == _WRITES_AT_ONCE or any(
                    e.user_id in users for before, _ in writing for e in before
                ):
                    await end_first()
                writing.append((batch, asyncio.create_task(self._written(_parts(batch), model))))
            while writing:
                await end_first()
            self._count((), ())
        finally:
            for _, task in writing:
                task.cancel()
            await asyncio.gather(*(task for _, task in writing), return_exceptions=True)

    def _batches(self, entries: Iterator[Entry]) -> Iterator[list[Entry]]:
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            if self._users and entry.user_id not in self._users:
                continue
            # Half a batch that ends with a user can be written next to the next one.
            least = 1 if batch and entry.user_id == batch[-1].user_id else 0.5
            if len(batch) >= least * MOST_IN_A_BATCH or size > least * MOST_BYTES_IN_A_BATCH:
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += entry.size
        if batch:
            yield batch

    def _count(self, batch: Sequence[Entry], outcomes: Sequence[RestoreOutcome]) -> None:
        while self._unreadable:
            self.outcomes["refused"] += 1
            self._refuse(*self._unreadable.popleft())
        lines = [entry.line for entry in batch if isinstance(entry.item, StoredRecord)]
        for line, outcome in zip(lines, outcomes, strict=True):
            self.outcomes[outcome.outcome] += 1
            if outcome.error is not None:
                self._refuse(line, outcome.error)

    async def _written(self, parts: Sequence[UserPart], model: str | None) -> Sequence[RestoreOutcome]:
        if not self._by_verbs:
            try:
                return await self._provider.load(
                    parts, model=model, app=self._app, include_deleted=self._include_deleted
                )
            except UnsupportedCapabilityError:
                self._by_verbs = True
        return [outcome for part in parts for outcome in await self._write_by_verbs(part)]

    async def _write_by_verbs(self, part: UserPart) -> Sequence[RestoreOutcome]:
        """Restore what the verb restores: not the keys that were used, and no audit entries."""
        self.not_kept.update({"idempotency key": len(part.keys), "audit entry": len(part.audit)})
        records = [stored.record for stored in part.records]
        gone: set[str] = set()
        if records and not self._include_deleted:
            gone = await _deleted(self._memory, part.user_id, [record.id for record in records])
        kept = [stored for stored in part.records if stored.record.id not in gone]
        outcomes = iter(await restored(self._memory, [UserPart(part.user_id, kept)]))
        return [
            RestoreOutcome(id=record.id, user_id=record.user_id, outcome="deleted")
            if record.id in gone
            else next(outcomes)
            for record in records
        ]


def _parts(batch: Sequence[Entry]) -> Sequence[UserPart]:
    return [_part(user, [*entries]) for user, entries in groupby(batch, key=lambda entry: entry.user_id)]


def _part(user_id: str, entries: Sequence[Entry]) -> UserPart:
    items = [entry.item for entry in entries]
    return UserPart(
        user_id,
        [item for item in items if isinstance(item, StoredRecord)],
        [item for item in items if isinstance(item, UsedKey)],
        [item for item in items if isinstance(item, AuditEntry)],
    )


async def _deleted(memory: AsyncMemory, user_id: str, ids: Sequence[str]) -> set[str]:
    """Return which of the ids the audit log says the user deleted, and nobody brought back since."""
    try:
        entries = await memory.audit(user_id, limit=MOST_ENTRIES)
    except UnsupportedCapabilityError:
        return set()
    if len(entries) == MOST_ENTRIES:
        asked = (memory.audit(user_id, memory_id=id, limit=MOST_ENTRIES) for id in ids)
        entries = [entry for found in await gather_bounded(asked, limit=_AT_ONCE) for entry in found]
    last = {entry.memory_id: entry.action for entry in reversed(entries) if entry.action in ("add", "delete")}
    return {id for id in ids if last.get(id) == "delete"}
