"""Broken providers whose faults lie in what they write: batches, updates, JSON, values with a look, and keys."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from openproto_adapters.sqlite import Sqlite
from saboteurs import Fault, Inbound, break_verb, caught_by, changed, spoil, with_extensions

from openproto import ConflictError, MemoryInput, MemoryRecord, NotFoundError
from openproto.provider import GeneratedKey, KeyedInput, Outcomes
from openproto.requests import MemoryUpdate, RecordRef

ADDS = ("histories_of_adds",)
BATCHES = ("histories_of_batches",)
UPDATES = ("histories_of_updates",)
KEYS = ("histories_of_idempotency",)


class Batches(Sqlite):
    """Spoils what comes in a batch, and only that."""

    def spoil_item(self, item: MemoryInput) -> MemoryInput:
        return item

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        return await super().add_many([KeyedInput(self.spoil_item(k.item), k.idempotency_key) for k in items])


spoil(
    Batches,
    "spoil_item",
    *BATCHES,
    BatchLosesTheSource=lambda item: changed(item, source=None),
    BatchLosesTheConfidence=lambda item: changed(item, confidence=None),
    BatchStripsContent=lambda item: changed(item, content=item.content.strip()),
    BatchLosesMicroseconds=lambda item: changed(item, valid_to=item.valid_to and item.valid_to.replace(microsecond=0)),
)


@caught_by(*KEYS, *BATCHES)
class BatchComparesOnlyTheContentOfAKey(Sqlite):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first: dict[tuple[str, str], MemoryInput] = {}

    def under_key(self, keyed: KeyedInput) -> MemoryInput:
        first = self.first.setdefault((keyed.item.user_id, keyed.idempotency_key), keyed.item)
        return first if first.content == keyed.item.content else keyed.item

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        self.under_key(KeyedInput(item, idempotency_key))
        return await super().add(item, idempotency_key=idempotency_key)

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        return await super().add_many([KeyedInput(self.under_key(k), k.idempotency_key) for k in items])


@caught_by("histories_of_users", *BATCHES)
class BatchSupersedesAnothersMemory(Sqlite):
    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        mine: list[KeyedInput] = []
        for keyed in items:
            kept = []
            for old in keyed.item.supersedes:
                try:
                    owner = (await super().get(RecordRef(id=old))).user_id
                except NotFoundError:
                    owner = keyed.item.user_id
                if owner == keyed.item.user_id:
                    kept.append(old)
                else:
                    taken = MemoryInput(content=keyed.item.content, user_id=owner, supersedes=[old])
                    await super().add(taken, idempotency_key=f"taken {keyed.idempotency_key}")
            mine.append(KeyedInput(changed(keyed.item, supersedes=kept), keyed.idempotency_key))
        return await super().add_many(mine)


class Updates(Sqlite):
    """Spoils new content on its way in."""

    def spoil_content(self, content: str) -> str:
        return content

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        if changes.content:
            changes = changed(changes, content=self.spoil_content(changes.content))
        return await super().update(ref, changes)


spoil(
    Updates,
    "spoil_content",
    *UPDATES,
    UpdateStripsContent=str.strip,
    UpdateNormalisesContent=lambda content: unicodedata.normalize("NFC", content),
    UpdateCutsContent=lambda content: content[:8_000],
)
break_verb(
    "update",
    *UPDATES,
    at=1,
    UpdateSortsTags=Fault(lambda changes: changed(changes, tags=sorted(changes.tags)) if changes.tags else changes),
)


@caught_by("histories_of_supersession")
class UpdateDropsWhatItSuperseded(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        record = await super().update(ref, changes)
        if "supersedes" in changes.changes or not record.supersedes:
            return record
        return await super().update(RecordRef(id=record.id), MemoryUpdate(supersedes=None))


@caught_by("histories_of_supersession")
class UpdateBringsBackToLife(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        record = await super().update(ref, changes)
        if record.superseded_by is not None:
            try:
                await super().update(RecordRef(id=record.superseded_by), MemoryUpdate(supersedes=None))
            except NotFoundError:
                return record
        return await super().get(RecordRef(id=record.id))


class Json(Inbound):
    """Spoils the JSON of extensions on its way in."""

    def json(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.json(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.json(part) for part in value]
        return value

    def spoil(self, item: MemoryInput) -> MemoryInput:
        item = super().spoil(item)
        return changed(item, **{name: self.json(value) for name, value in item.extensions.items()})


spoil(
    Json,
    "json",
    *ADDS,
    TrueBecomesOne=lambda value: int(value) if isinstance(value, bool) else value,
    IntegersBecomeFloats=lambda value: float(value) if type(value) is int else value,
    NullsInObjectsVanish=lambda value: (
        {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    ),
    TextsInExtensionsAreCut=lambda value: value[:255] if isinstance(value, str) else value,
)
spoil(
    Inbound,
    "spoil",
    *(*ADDS, "histories_of_users"),
    TheEleventhExtensionIsDropped=lambda item: with_extensions(item, 10),
    NumericTagsLoseTheirZeros=lambda item: changed(
        item, tags=[str(int(tag)) if tag.isascii() and tag.isdigit() else tag for tag in item.tags]
    ),
    RepeatedTagsAreDropped=lambda item: changed(item, tags=list(dict.fromkeys(item.tags))),
    UserIdsAreCut=lambda item: changed(item, user_id=item.user_id[:191]),
)


@caught_by(*ADDS)
class JsonContentIsWrittenAnew(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        item = super().spoil(item)
        try:
            value = json.loads(item.content)
        except ValueError:
            return item
        return changed(item, content=json.dumps(value)) if isinstance(value, dict | list) else item


@caught_by(*ADDS)
class TheSourcesRefIsCut(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        item = super().spoil(item)
        ref = item.source and item.source.ref
        return changed(item, source=changed(item.source, ref=ref[:128])) if ref else item


class Keys(Sqlite):
    """Spoils idempotency keys, but for those that the client makes itself."""

    def spoil_key(self, key: str) -> str:
        return key

    def _spoilt(self, key: str) -> str:
        return key if isinstance(key, GeneratedKey) else self.spoil_key(key)

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return await super().add(item, idempotency_key=self._spoilt(idempotency_key))

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        return await super().add_many([KeyedInput(k.item, self._spoilt(k.idempotency_key)) for k in items])


spoil(Keys, "spoil_key", *KEYS, KeysHaveNoCase=str.casefold, KeysAreCut=lambda key: key[:64])


@caught_by(*KEYS)
class KeysAreForgottenWithTheClient(Keys):
    def spoil_key(self, key: str) -> str:
        key = super().spoil_key(key)
        return f"{id(self)} {key}"


@caught_by(*KEYS)
class KeysIgnoreWhatIsSuperseded(Sqlite):
    first: ClassVar[dict[tuple[str, str], MemoryInput]] = {}

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        first = self.first.setdefault((item.user_id, idempotency_key), item)
        if changed(first, supersedes=[]) == changed(item, supersedes=[]):
            try:
                return await super().add(item, idempotency_key=idempotency_key)
            except ConflictError:
                item = first
        return await super().add(item, idempotency_key=idempotency_key)


@caught_by("histories_of_supersession", "histories_of_validity")
class ASupersessionIsDatedBack(Inbound):
    """The successor is taken to have been valid for ever."""

    def spoil(self, item: MemoryInput) -> MemoryInput:
        item = super().spoil(item)
        if not item.supersedes or item.valid_from is not None:
            return item
        return changed(item, valid_from=datetime(1900, 1, 1, tzinfo=UTC))
