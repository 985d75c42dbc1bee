"""Broken providers whose faults lie in what they write: batches, updates, JSON, values with a look, and keys."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from openproto_adapters.sqlite import Sqlite
from saboteurs import Fault, Inbound, Real, break_verb, caught_by, changed, spoil, with_extensions

from openproto import ConflictError, MemoryInput, MemoryRecord, NotFoundError
from openproto.provider import GeneratedKey, KeyedInput, Outcomes
from openproto.requests import MemoryUpdate, RecordRef

ADDS = ("histories_of_adds",)
BATCHES = ("histories_of_batches",)
UPDATES = ("histories_of_updates",)
KEYS = ("histories_of_idempotency",)


def each(spoilt: Callable[[Any], Any]) -> Fault:
    return Fault(lambda items: [KeyedInput(spoilt(keyed.item), keyed.idempotency_key) for keyed in items])


break_verb(
    "add_many",
    *BATCHES,
    BatchLosesTheSource=each(lambda item: changed(item, source=None)),
    BatchLosesTheConfidence=each(lambda item: changed(item, confidence=None)),
    BatchStripsContent=each(lambda item: changed(item, content=item.content.strip())),
    BatchLosesMicroseconds=each(
        lambda item: changed(item, valid_to=item.valid_to and item.valid_to.replace(microsecond=0))
    ),
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


async def superseding_anothers(real: Any, items: Sequence[KeyedInput]) -> Any:
    mine: list[KeyedInput] = []
    for item, key in items:
        kept = []
        for old in item.supersedes:
            owner = item.user_id
            with contextlib.suppress(NotFoundError):
                owner = (await real.__self__.get(RecordRef(id=old))).user_id
            if owner == item.user_id:
                kept.append(old)
            else:
                taken = MemoryInput(content=item.content, user_id=owner, supersedes=[old])
                await real.__self__.add(taken, idempotency_key=f"taken {key}")
        mine.append(KeyedInput(changed(item, supersedes=kept), key))
    return await real(mine)


break_verb("add_many", "histories_of_users", *BATCHES, BatchSupersedesAnothersMemory=superseding_anothers)


def with_content(spoilt: Callable[[str], str]) -> Fault:
    return Fault(lambda new: changed(new, content=spoilt(new.content)) if new.content else new)


async def dropping(real: Real, ref: RecordRef, changes: MemoryUpdate) -> Any:
    record = await real(ref, changes)
    if "supersedes" in changes.changes or not record.supersedes:
        return record
    return await real(RecordRef(id=record.id), MemoryUpdate(supersedes=None))


async def bringing_back(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    record = await real(ref, changes)
    if record.superseded_by is not None:
        with contextlib.suppress(NotFoundError):
            await real(RecordRef(id=record.superseded_by), MemoryUpdate(supersedes=None))
    return await real.__self__.get(RecordRef(id=record.id))


break_verb(
    "update",
    *UPDATES,
    UpdateStripsContent=with_content(str.strip),
    UpdateNormalisesContent=with_content(lambda content: unicodedata.normalize("NFC", content)),
    UpdateCutsContent=with_content(lambda content: content[:8_000]),
    UpdateSortsTags=Fault(lambda changes: changed(changes, tags=sorted(changes.tags)) if changes.tags else changes),
)
break_verb(
    "update", "histories_of_supersession", UpdateDropsWhatItSuperseded=dropping, UpdateBringsBackToLife=bringing_back
)


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


def written_anew(item: MemoryInput) -> Any:
    try:
        value = json.loads(item.content)
    except ValueError:
        return item
    return changed(item, content=json.dumps(value)) if isinstance(value, dict | list) else item


def with_a_short_ref(item: MemoryInput) -> Any:
    ref = item.source and item.source.ref
    return changed(item, source=changed(item.source, ref=ref[:128])) if ref else item


def dated_back(item: MemoryInput) -> Any:
    """The successor is taken to have been valid for ever."""
    forever = bool(item.supersedes) and item.valid_from is None
    return changed(item, valid_from=datetime(1900, 1, 1, tzinfo=UTC)) if forever else item


spoil(Inbound, "spoil", *ADDS, JsonContentIsWrittenAnew=written_anew, TheSourcesRefIsCut=with_a_short_ref)
spoil(Inbound, "spoil", "histories_of_supersession", "histories_of_validity", ASupersessionIsDatedBack=dated_back)


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
        return f"{id(self)} {super().spoil_key(key)}"


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
