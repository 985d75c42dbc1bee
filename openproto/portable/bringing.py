"""Writing the records of a few users to where they are moved to, and what became of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

from openproto import (
    AsyncMemory,
    ConflictError,
    InvalidRequestError,
    MemoryRecord,
    NotFoundError,
    OpenProtoError,
    PayloadTooLargeError,
    UnsupportedCapabilityError,
)
from openproto.models import Origins, StoredRecord, UserPart
from openproto.portable.histories import restored
from openproto.portable.journal import Journal
from openproto.portable.matching import Marks, Matching

UserAndId: TypeAlias = tuple[str, str]
"""Two users' records may have the same id."""

_BATCH = 1000

FAULTS = (ConflictError, InvalidRequestError, NotFoundError, PayloadTooLargeError, UnsupportedCapabilityError)
"""What may be wrong with one record; any other error is the backend's, and the next record would meet it too."""

_COPIED = ("content", "user_id", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")

_MOST_LISTED = 1000
"""Of records that were refused, are missing, or differ; all are counted."""


class Found(NamedTuple):
    """What the comparison has to know of a record of the target."""

    id: str
    marks: Marks
    own: bytes = b""
    """What a journal keeps of it."""
    version: str | None = None


@dataclass(slots=True)
class Result:
    """What became of the records."""

    brought: int = 0
    renewed: int = 0
    """Brought by an earlier run, and brought again because they had changed at the source."""
    equal: int = 0
    """How many records the target has, equal in every field."""
    ids: dict[str, dict[str, str]] = field(default_factory=dict)
    """By user, the new id of each record that could not keep its own."""
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By user and scope, how many these are."""
    faults: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, Any]] = field(default_factory=list)
    """What was refused, is missing, or differs."""
    searches: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, user: str, id: str, **details: Any) -> None:
        """Count something that is not as it should be, and list it while the list is short."""
        self.faults[kind] += 1
        if len(self.listed) < _MOST_LISTED:
            self.listed.append({"what": kind, "user_id": user, "id": id, **details})


@dataclass(frozen=True, slots=True)
class Way:
    """Where records are brought, and how."""

    target: AsyncMemory
    journal: Journal
    matching: Matching
    restores: bool
    """Whether the target takes records as they are."""
    unkept: Collection[str]
    anew: bool
    """Whether a record may be added with another id."""
    result: Result


class Writer:
    """Writes records of users, in batches, each noted in the journal before; `ids` are those of what is there."""

    def __init__(self, way: Way, ids: dict[UserAndId, str]) -> None:
        self._way = way
        self._ids = ids
        self._batch: dict[UserAndId, tuple[StoredRecord, bytes]] = {}
        self._unlinked: list[MemoryRecord] = []
        self._renewed: set[UserAndId] = set()
        self.refused: set[UserAndId] = set()

    def must_flush_for(self, record: MemoryRecord) -> bool:
        """Say whether what waits must be written before the record is added."""
        is_named = not self._way.restores and any((record.user_id, id) in self._batch for id in record.supersedes)
        return len(self._batch) >= _BATCH or is_named

    def add(self, stored: StoredRecord) -> None:
        """Write the record with others, when they are flushed."""
        record = stored.record
        self._batch[record.user_id, record.id] = stored, self._way.matching.own(record)

    async def renew(self, stored: StoredRecord, found: Found) -> None:
        """Write the record in place of what an earlier run brought."""
        record = stored.record
        self._way.journal.note({record.user_id: {record.id: self._way.matching.own(record)}})
        with suppress(NotFoundError):
            if not await self._removed(record.user_id, found):
                return
        self._renewed.add((record.user_id, record.id))
        if self.must_flush_for(record):
            await self.flush()
        self.add(stored)

    def link_later(self, record: MemoryRecord) -> None:
        """Name what the record supersedes when all of it is there."""
        self._unlinked.append(record)

    async def end(self) -> None:
        """Write what is left."""
        await self.flush()
        for record in self._unlinked:
            id, named = self._ids.get((record.user_id, record.id)), self._named(record)
            if named and id is not None:
                with suppress(*FAULTS):  # the comparison tells it
                    await self._way.target.update(id, user_id=record.user_id, supersedes=named)

    async def flush(self) -> None:
        """Write what waits."""
        batch, self._batch = self._batch, {}
        if not batch:
            return
        parts: dict[str, list[StoredRecord]] = {}
        brings: dict[str, dict[str, bytes]] = {}
        for (user, id), (stored, digest) in batch.items():
            parts.setdefault(user, []).append(stored)
            brings.setdefault(user, {})[id] = digest
        self._way.journal.note(brings)
        records = [stored.record for part in parts.values() for stored in part]
        if self._way.restores:
            outcomes = await restored(self._way.target, [UserPart(user, part) for user, part in parts.items()])
            refusals = {n: outcome.error or "" for n, outcome in enumerate(outcomes) if outcome.outcome == "refused"}
            for number, record in enumerate(records):
                if number not in refusals:
                    self._has_brought(record, record.id)
                elif not self._way.anew:
                    self._refuse(record, refusals[number])
            records = [records[number] for number in refusals if self._way.anew]
        items = [self._item(record, brings[record.user_id][record.id]) for record in records]
        for record, added in zip(records, await self._way.target.add_many(items), strict=True):
            if isinstance(added, FAULTS):
                self._refuse(record, added.message)
            elif isinstance(added, OpenProtoError):
                raise added
            else:
                self._has_brought(record, added.id)

    async def _removed(self, user: str, found: Found) -> bool:
        """Remove a record that is as it was found, but for what others say of it; False where somebody changed it."""
        target, version = self._way.target, found.version
        while True:
            try:
                await target.delete(found.id, user_id=user, if_version=version)
                return True
            except ConflictError:
                record = await target.get(found.id, user_id=user)
                if self._way.matching.own(record) != found.own:
                    return False
                version = record.version

    def _has_brought(self, record: MemoryRecord, id: str) -> None:
        self._ids[record.user_id, record.id] = id
        if (record.user_id, record.id) in self._renewed:
            self._way.result.renewed += 1
        else:
            self._way.result.brought += 1

    def _refuse(self, record: MemoryRecord, why: str) -> None:
        self.refused.add((record.user_id, record.id))
        self._way.result.fault("refused", record.user_id, record.id, error=why)

    def _named(self, record: MemoryRecord) -> list[str]:
        return [self._ids[record.user_id, id] for id in record.supersedes if (record.user_id, id) in self._ids]

    def _item(self, record: MemoryRecord, digest: bytes) -> dict[str, Any]:
        way, named = self._way, self._named(record)
        if len(named) < len(record.supersedes):
            self._unlinked.append(record)
        key = blake2b(f"{record.id}:{digest.hex()}".encode(), digest_size=16).hexdigest()
        return {
            **{name: getattr(record, name) for name in _COPIED if name not in way.unkept},
            **record.extensions,
            "supersedes": named if "supersedes" not in way.unkept else [],
            "idempotency_key": f"migrate:{way.journal.token}:{key}",
            Origins.EXTENSION: way.matching.origins.note(record),
        }
