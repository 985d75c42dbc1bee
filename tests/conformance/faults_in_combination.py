"""Broken providers whose faults show where two things come together: a version and no user, a key and a successor."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from openproto_adapters.sqlite import statements
from saboteurs import Fault, Real, break_verb, breaks, changed

from openproto import ConflictError, MemoryInput, NotFoundError
from openproto.models import PutResult
from openproto.provider import KeyedInput
from openproto.requests import Filters, KeyRef, ListQuery, MemoryUpdate, RecordRef, SearchQuery

break_verb(
    "delete: histories_of_keys, histories_of_updates",
    AStaleVersionCountsOnlyBesideAUser=Fault(lambda ref: ref if ref.user_id else changed(ref, if_version=None)),
)


@breaks("get: histories_of_users")
async def user_ids_have_no_case_beside_an_id(real: Any, ref: RecordRef) -> Any:
    record = await real(changed(ref, user_id=None))
    if ref.user_id is not None and record.user_id.casefold() != ref.user_id.casefold():
        raise NotFoundError("no such memory")
    return record


@breaks("get_by_key: histories_of_supersession")
async def a_key_leads_to_no_superseded_record(real: Real, ref: KeyRef) -> Any:
    record = await real(ref)
    if record.superseded_by is not None:
        raise NotFoundError("no such memory")
    return record


@breaks("put: histories_of_keys")
async def the_same_content_is_not_put_again(real: Any, item: MemoryInput, *, if_version: str | None) -> Any:
    with contextlib.suppress(NotFoundError):
        record = await real.__self__.get_by_key(KeyRef(user_id=item.user_id, key=item.key or ""))
        if record.content == item.content and if_version is None:
            return PutResult(record=record, created=False)
    return await real(item, if_version=if_version)


@breaks("put: histories_of_keys")
async def a_put_of_a_version_is_a_new_record(real: Any, item: MemoryInput, *, if_version: str | None) -> Any:
    put = await real(item, if_version=if_version)
    moment = put.record.updated_at or put.record.created_at
    return changed(put, record=changed(put.record, created_at=moment)) if if_version else put


@breaks("update: histories_of_updates")
async def objects_are_merged(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    before = (await real.__self__.get(changed(ref, if_version=None))).extensions
    both = {
        name: {**before[name], **value}
        for name, value in changes.extensions.items()
        if isinstance(value, dict) and isinstance(before.get(name), dict)
    }
    return await real(ref, changed(changes, **both))


@breaks("delete_all: histories_of_supersession")
async def what_deleted_successors_replaced_is_current_again(real: Any, filters: Filters) -> Any:
    query = ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=500)
    for record in (await real.__self__.list(query)).items:
        if record.supersedes:
            with contextlib.suppress(ConflictError, NotFoundError):
                await real.__self__.update(RecordRef(id=record.id), MemoryUpdate(supersedes=None))
    return await real(filters)


@breaks("search: histories_of_filters")
async def the_second_tag_comes_after_the_limit(real: Real, query: SearchQuery) -> Any:
    hits = await real(changed(query, tags=query.tags[:1]))
    return [hit for hit in hits if set(query.tags) <= set(hit.memory.tags)]


@breaks("delete_all: histories_of_deletes, histories_of_filters")
async def any_of_the_tags_is_enough_in_a_scope(real: Real, filters: Filters) -> Any:
    if filters.scope is None or not filters.tags:
        return await real(filters)
    return sum([await real(changed(filters, tags=(tag,))) for tag in filters.tags])


@breaks("delete: histories_of_deletes")
async def another_users_version_is_compared(real: Any, ref: RecordRef) -> None:
    record = await real.__self__._db.get(statements.get_each, RecordRef(id=ref.id))  # which leaves no entry
    if ref.if_version not in (None, record.version):
        raise ConflictError("if_version: the record has another one")
    await real(ref)


@breaks("update: histories_of_updates")
async def clearing_an_extension_clears_what_begins_alike(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    before = (await real.__self__._db.get(statements.get_each, ref)).extensions
    cleared = tuple(name for name, value in changes.extensions.items() if value is None)
    alike = {name: None for name in before if name.startswith(cleared)} if cleared else {}
    return await real(ref, changed(changes, **(alike | changes.extensions)))


@breaks("add_many: histories_of_duplicates")
async def a_batch_does_not_see_itself(real: Real, items: Sequence[KeyedInput]) -> Any:
    said: set[tuple[str, str | None, str]] = set()
    asked: list[KeyedInput] = []
    for item, key in items:
        says = (item.user_id, item.scope, item.content)
        asked.append(KeyedInput(changed(item, on_duplicate="keep") if says in said else item, key))
        said.add(says)
    return await real(asked)
