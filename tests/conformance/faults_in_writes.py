"""Broken providers whose faults lie in what they write: batches, updates, JSON, values with a look, and keys."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from saboteurs import Fault, Spoil, break_verb, breaks, broken, changed, each, inbound, kept, spoil, with_extensions

from openproto import ConflictError, MemoryInput, NotFoundError
from openproto.provider import GeneratedKey, KeyedInput
from openproto.requests import MemoryUpdate, RecordRef

break_verb(
    "add_many: histories_of_batches",
    BatchLosesTheSource=each(lambda item: changed(item, source=None)),
    BatchLosesTheConfidence=each(lambda item: changed(item, confidence=None)),
    BatchStripsContent=each(lambda item: changed(item, content=item.content.strip())),
    BatchLosesMicroseconds=each(
        lambda item: changed(item, valid_to=item.valid_to and item.valid_to.replace(microsecond=0))
    ),
)


def under_key(real: Any, item: MemoryInput, key: str) -> MemoryInput:
    """Return what was written first under a key, where it has the same content."""
    first: MemoryInput = kept(real, "first", {}).setdefault((item.user_id, key), item)
    return first if first.content == item.content else item


async def noting_keys(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
    under_key(real, item, idempotency_key)
    return await real(item, idempotency_key=idempotency_key)


async def comparing_contents(real: Any, items: Sequence[KeyedInput]) -> Any:
    return await real([KeyedInput(under_key(real, *keyed), keyed.idempotency_key) for keyed in items])


broken(
    "BatchComparesOnlyTheContentOfAKey: histories_of_idempotency, histories_of_batches",
    add=noting_keys,
    add_many=comparing_contents,
)


@breaks("add_many: histories_of_users, histories_of_batches")
async def batch_supersedes_anothers_memory(real: Any, items: Sequence[KeyedInput]) -> Any:
    mine: list[KeyedInput] = []
    for item, key in items:
        own = []
        for old in item.supersedes:
            owner = item.user_id
            with contextlib.suppress(NotFoundError):
                owner = (await real.__self__.get(RecordRef(id=old))).user_id
            if owner == item.user_id:
                own.append(old)
            else:
                taken = MemoryInput(content=item.content, user_id=owner, supersedes=[old])
                await real.__self__.add(taken, idempotency_key=f"taken {key}")
        mine.append(KeyedInput(changed(item, supersedes=own), key))
    return await real(mine)


@breaks("update: histories_of_supersession")
async def update_drops_what_it_superseded(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    record = await real(ref, changes)
    if "supersedes" in changes.changes or not record.supersedes:
        return record
    return await real(RecordRef(id=record.id), MemoryUpdate(supersedes=None))


@breaks("update: histories_of_supersession")
async def update_brings_back_to_life(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    record = await real(ref, changes)
    if record.superseded_by is not None:
        with contextlib.suppress(NotFoundError):
            await real(RecordRef(id=record.superseded_by), MemoryUpdate(supersedes=None))
    return await real.__self__.get(RecordRef(id=record.id))


def with_content(spoilt: Callable[[str], str]) -> Fault:
    return Fault(lambda new: changed(new, content=spoilt(new.content)) if new.content else new)


break_verb(
    "update: histories_of_updates",
    UpdateStripsContent=with_content(str.strip),
    UpdateNormalisesContent=with_content(lambda content: unicodedata.normalize("NFC", content)),
    UpdateCutsContent=with_content(lambda content: content[:8_000]),
    UpdateSortsTags=Fault(lambda changes: changed(changes, tags=sorted(changes.tags)) if changes.tags else changes),
)


def in_json(spoilt: Spoil) -> Spoil:
    """Spoil every part of the JSON of extensions."""

    def anew(value: Any) -> Any:
        value = spoilt(value)
        if isinstance(value, dict):
            return {key: anew(part) for key, part in value.items()}
        return [anew(part) for part in value] if isinstance(value, list) else value

    return lambda item: changed(item, **{name: anew(value) for name, value in item.extensions.items()})


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


spoil(
    inbound,
    "histories_of_adds",
    TrueBecomesOne=in_json(lambda value: int(value) if isinstance(value, bool) else value),
    IntegersBecomeFloats=in_json(lambda value: float(value) if type(value) is int else value),
    NullsInObjectsVanish=in_json(
        lambda value: {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    ),
    TextsInExtensionsAreCut=in_json(lambda value: value[:255] if isinstance(value, str) else value),
    JsonContentIsWrittenAnew=written_anew,
    TheSourcesRefIsCut=with_a_short_ref,
)
spoil(
    inbound,
    "histories_of_adds, histories_of_users",
    TheEleventhExtensionIsDropped=lambda item: with_extensions(item, 10),
    NumericTagsLoseTheirZeros=lambda item: changed(
        item, tags=[str(int(tag)) if tag.isascii() and tag.isdigit() else tag for tag in item.tags]
    ),
    RepeatedTagsAreDropped=lambda item: changed(item, tags=list(dict.fromkeys(item.tags))),
    UserIdsAreCut=lambda item: changed(item, user_id=item.user_id[:191]),
)
spoil(inbound, "histories_of_supersession, histories_of_validity", ASupersessionIsDatedBack=dated_back)


def keyed(spoilt: Spoil) -> dict[str, Any]:
    """Spoil idempotency keys, but for those that the client makes itself."""

    def anew(real: Any, key: str) -> str:
        return key if isinstance(key, GeneratedKey) else spoilt(key, real.__self__)

    async def add(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
        return await real(item, idempotency_key=anew(real, idempotency_key))

    async def add_many(real: Any, items: Sequence[KeyedInput]) -> Any:
        return await real([KeyedInput(item, anew(real, key)) for item, key in items])

    return {"add": add, "add_many": add_many}


spoil(
    keyed,
    "histories_of_idempotency",
    KeysHaveNoCase=lambda key, _: key.casefold(),
    KeysAreCut=lambda key, _: key[:64],
    KeysAreForgottenWithTheClient=lambda key, provider: f"{id(provider)} {key}",
)
FIRST: dict[tuple[str, str], MemoryInput] = {}


@breaks("add: histories_of_idempotency")
async def keys_ignore_what_is_superseded(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
    first = FIRST.setdefault((item.user_id, idempotency_key), item)
    if changed(first, supersedes=[]) == changed(item, supersedes=[]):
        try:
            return await real(item, idempotency_key=idempotency_key)
        except ConflictError:
            item = first
    return await real(item, idempotency_key=idempotency_key)
