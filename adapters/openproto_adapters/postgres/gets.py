"""Records that are asked for at the same time, in one statement for all that name their users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openproto.errors import OpenProtoError
from openproto.ids import is_uuid
from openproto.models import MemoryRecord
from openproto.requests import RecordRef
from openproto_adapters.postgres import queries
from openproto_adapters.postgres.queries import RECORD
from openproto_adapters.postgres.records import own_record
from openproto_adapters.postgres.restoring import Fetch
from openproto_adapters.postgres.row_security import EVERYBODY, acting_for, acting_for_owner

# What is not there has no row.
GET_MANY = f"""
SELECT item.position, {RECORD} FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS item (id, user_id, position)
JOIN {{schema}}.memories m ON m.id = item.id AND m.user_id = item.user_id
"""

GET_MANY_OF_ANYBODY = f"""
SELECT item.position, {RECORD} FROM unnest($1::uuid[]) WITH ORDINALITY AS item (id, position)
JOIN {{schema}}.memories m ON m.id = item.id
"""


async def get_alone(fetch: Fetch, ref: RecordRef) -> MemoryRecord:
    """Return the record."""
    user_id = ref.user_id
    asked = (queries.GET, ref.id) if user_id is None else (queries.GET_OF_USER, ref.id, user_id)
    rows = await fetch(acting_for_owner(user_id), *asked) if is_uuid(ref.id) else ()
    return own_record(rows, user_id)


async def get_together(fetch: Fetch, refs: Sequence[RecordRef]) -> Sequence[MemoryRecord | Exception]:
    """Return the record of each, or why there is none."""
    found: dict[int, Sequence[Any]] = {}
    for is_anybody in (False, True):  # who names no user must not let the others act for everybody
        wanted = [(n, ref) for n, ref in enumerate(refs) if (ref.user_id is None) is is_anybody and is_uuid(ref.id)]
        ids = [ref.id for _, ref in wanted]
        users = [ref.user_id or "" for _, ref in wanted]
        if not ids:
            continue
        if is_anybody:
            rows = await fetch(EVERYBODY, GET_MANY_OF_ANYBODY, ids)
        else:
            rows = await fetch(acting_for(*{*users}), GET_MANY, ids, users)
        for position, *columns in rows:
            found[wanted[position - 1][0]] = columns
    outcomes: list[MemoryRecord | Exception] = []
    for n, ref in enumerate(refs):
        try:
            outcomes.append(own_record([found[n]] if n in found else (), ref.user_id))
        except OpenProtoError as error:
            outcomes.append(error)
    return outcomes
