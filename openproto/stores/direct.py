"""What an adapter that implements each verb itself would otherwise write anew.

Filters as conditions, a page and its cursor, the changes of an update, whether a repeated add is the same one, and
batches. Marks of supersession are those of `openproto.emulation.Stored`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from openproto.errors import ConflictError, InvalidRequestError
from openproto.models import MemoryPage, MemoryRecord
from openproto.requests import Filters, ListQuery, MemoryInput, MemoryUpdate, SearchQuery, check_validity, fingerprint
from openproto.stores.cursors import decode_cursor, encode_cursor

T = TypeVar("T")

Kind: TypeAlias = Literal["user", "scope", "tag", "since", "until", "as_of", "after"]


class Condition(NamedTuple):
    """One thing that a record must fulfil, for an adapter to say in its backend's own language.

    | kind | values | it holds where |
    |---|---|---|
    | `user` | the id | the record is the user's |
    | `scope` | the path | the record's scope is the path, or begins with it and a slash |
    | `tag` | the tag | the record bears it |
    | `since`, `until` | the moment | `created_at` is not before, or not after it |
    | `as_of` | the moment | the record was current then |
    | `after` | moment and id | `(created_at, id)` is less: the page goes on there |
    """

    kind: Kind
    values: tuple[Any, ...]


def conditions(query: Filters, *, now: datetime | None = None) -> list[Condition]:
    """Return what a record must fulfil to be an answer; without an `as_of` in the query it must be current `now`."""
    found = [Condition("user", (query.user_id,))]
    if query.scope is not None:
        found.append(Condition("scope", (query.scope,)))
    found += [Condition("tag", (tag,)) for tag in query.tags]
    as_of = now
    if isinstance(query, ListQuery | SearchQuery) and query.as_of is not None:
        as_of = query.as_of
    if as_of is not None:
        found.append(Condition("as_of", (as_of,)))
    if isinstance(query, ListQuery):
        moments: tuple[tuple[Kind, datetime | None], ...] = (("since", query.since), ("until", query.until))
        found += [Condition(kind, (moment,)) for kind, moment in moments if moment is not None]
        if (after := decode_cursor(query)) is not None:
            found.append(Condition("after", after))
    return found


def page_of(query: ListQuery, records: Sequence[MemoryRecord]) -> MemoryPage:
    """Return the page that begins with `records`, newest first; one more than the limit says that there is another."""
    items = list(records[: query.limit])
    if len(records) <= query.limit:
        return MemoryPage(items=items)
    return MemoryPage(items=items, next_cursor=encode_cursor(query, items[-1].created_at, items[-1].id))


def changed(record: MemoryRecord, changes: MemoryUpdate, at: datetime) -> MemoryRecord:
    """Return the record as it is after an update at that moment; what it supersedes now must have been looked at."""
    fields = changes.changes
    try:
        check_validity(record.valid_from, fields.get("valid_to"))
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    if "tags" in fields:
        fields["tags"] = fields["tags"] or []
    if "supersedes" in fields:
        more = fields["supersedes"]
        fields["supersedes"] = [] if more is None else list(dict.fromkeys([*record.supersedes, *more]))
    wire = record.model_dump(exclude=set(record.model_extra or ()))
    return MemoryRecord.model_validate(
        {**wire, **fields, **changes.changed_extensions(record.extensions), "updated_at": at}
    )


def check_same_input(item: MemoryInput, kept: bytes) -> None:
    """Raise ConflictError unless `kept` is the `fingerprint` of an input that was this one."""
    if fingerprint(item) != kept:
        raise ConflictError("idempotency_key: was used before, for another memory; use a new key")


def batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """Yield the items in order, in lists of at most `most`."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, most)):
        yield batch
