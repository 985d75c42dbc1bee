"""Writing one user's records to where they are moved to, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

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
from openproto.portable.histories import Loader
from openproto.portable.journal import Journal
from openproto.portable.matching import Marks, Matching

BATCH = 250

FAULTS = (ConflictError, InvalidRequestError, NotFoundError, PayloadTooLargeError, UnsupportedCapabilityError)
"""What may be wrong with one record; any other error is the backend's, and the next record would meet it too."""

_COPIED = ("content", "user_id", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")

_MOST_LISTED = 1000
"""Of records that were refused, are missing, or differ; all are counted."""


class Found(NamedTuple):
    """What the comparison has to know of a record of the target."""

    id: str
    marks: Marks


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
    counts: dict[str, Counter[str]] = field(default_factory=dict)
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
    loader: Loader
    journal: Journal
    matching: Matching
    restores: bool
    """Whether the target takes records as they are."""
    unkept: Collection[str]
    anew: bool
    """Whether a record may be added with another id."""
    result: Result


class Writer:
    """Writes one user's records, in batches, each noted in the journal before."""

    def __init__(self, way: Way, user: str, there: Mapping[str, Found]) -> None:
        self._target = way.target
        self._loader = way.loader
        self._journal = way.journal
        self._matching = way.matching
        self._restores = way.restores
        self._unkept = way.unkept
        self._anew = way.anew
        self._result = way.result
        self._user = user
        self._ids = {origin: found.id for origin, found in there.items()}
        self._batch: dict[str, tuple[StoredRecord, bytes]] = {}
        self._unlinked: list[MemoryRecord] = []
        self._renewed: set[str] = set()
        self._has_written = False
        self.refused: set[str] = set()

    async def add(self, stored: StoredRecord, digest: bytes) -> None:
        """Write the record, now or with others."""
        record = stored.record
        if len(self._batch) >= BATCH or (not self._restores and self._batch.keys() & set(record.supersedes)):
            await self._flush()
        self._batch[record.id] = stored, digest

    async def renew(self, stored: StoredRecord, digest: bytes, found: Found) -> None:
        """Write the record in place of what an earlier run brought."""
        record = stored.record
        self._journal.note(self._user, {record.id: digest})
        with suppress(NotFoundError):
            await self._target.delete(found.id, user_id=self._user)
        self._renewed.add(record.id)
        await self.add(stored, digest)

    def link_later(self, record: MemoryRecord) -> None:
        """Name what the record supersedes when all of it is there."""
        self._unlinked.append(record)

    async def end(self) -> bool:
        """Write what is left and return whether anything was written."""
        await self._flush()
        for record in self._unlinked:
            ids = [self._ids[id] for id in record.supersedes if id in self._ids]
            if ids and record.id in self._ids:
                self._has_written = True
                with suppress(*FAULTS):  # the comparison tells it
                    await self._target.update(self._ids[record.id], user_id=self._user, supersedes=ids)
        return self._has_written

    async def _flush(self) -> None:
        batch, self._batch = self._batch, {}
        if not batch:
            return
        self._has_written = True
        self._journal.note(self._user, {id: digest for id, (_, digest) in batch.items()})
        histories = [stored for stored, _ in batch.values()]
        records = [stored.record for stored in histories]
        if self._restores:
            outcomes = await self._loader.load(UserPart(self._user, histories))
            refusals = {record.id: each.error for record, each in zip(records, outcomes, strict=True) if each.error}
            for record in records:
                if record.id not in refusals:
                    self._has_brought(record, record.id)
                elif not self._anew:
                    self._refuse(record, refusals[record.id] or "")
            records = [record for record in records if record.id in refusals and self._anew]
        items = [self._item(record, batch[record.id][1]) for record in records]
        for record, added in zip(records, await self._target.add_many(items), strict=True):
            if isinstance(added, FAULTS):
                self._refuse(record, added.message)
            elif isinstance(added, OpenProtoError):
                raise added
            else:
                self._has_brought(record, added.id)

    def _has_brought(self, record: MemoryRecord, id: str) -> None:
        self._ids[record.id] = id
        if record.id in self._renewed:
            self._result.renewed += 1
        else:
            self._result.brought += 1

    def _refuse(self, record: MemoryRecord, why: str) -> None:
        self.refused.add(record.id)
        self._result.fault("refused", self._user, record.id, error=why)

    def _item(self, record: MemoryRecord, digest: bytes) -> dict[str, Any]:
        ids = [self._ids[id] for id in record.supersedes if id in self._ids]
        if len(ids) < len(record.supersedes):
            self._unlinked.append(record)
        key = blake2b(f"{record.id}:{digest.hex()}".encode(), digest_size=16).hexdigest()
        return {
            **{name: getattr(record, name) for name in _COPIED if name not in self._unkept},
            **record.extensions,
            "supersedes": ids if "supersedes" not in self._unkept else [],
            "idempotency_key": f"migrate:{self._journal.token}:{key}",
            Origins.EXTENSION: self._matching.origins.note(record),
        }
