"""Broken providers whose faults show where two things come together: a version and no user, a key and a successor."""

from __future__ import annotations

import contextlib
from typing import Any

from saboteurs import Fault, Real, break_verb, breaks, changed

from openproto import ConflictError, MemoryInput, NotFoundError
from openproto.models import PutResult
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
        record = await real.__self__.get_by_key(KeyRef(user_id=item.user_id, key=item.key))
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
