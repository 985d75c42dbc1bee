"""Writes that wait at the same moment, in one statement.

What is new touches no other row, so that the adds of all users go together. What changes or removes a record goes with
what else the same user asks for: the statement acts for that user alone, and waits for locks on no other user's
records. A call that waits with nobody goes by the statement for one, which costs the server less.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from openproto.models import MemoryRecord
from openproto.provider import Call, current_call
from openproto.stores.gathering import Gatherers
from openproto.stores.indexer import IndexedInput
from openproto_adapters.postgres import queries
from openproto_adapters.postgres.batches import Added, Entry, Fetch, add_one, insert, needs_no_note, pack_batch
from openproto_adapters.postgres.changes import BY_ID, BY_KEY_ALONE, DELETE, VERSION, changing
from openproto_adapters.postgres.queries import RECORD, STORE_FITS, Arguments
from openproto_adapters.postgres.records import check_owner, own_record
from openproto_adapters.postgres.row_security import acting_for, acting_for_owner, array_of
from openproto_adapters.postgres.vectors import PackedWords

A = TypeVar("A")
T = TypeVar("T", bound="Change | Deletion")

AT_ONCE = 2
"""How many gatherings are under way: while the server works at one, the next is made ready."""

_LONG = 4_000
"""Characters of a content from which on a call goes alone: sending many long texts would hold up the event loop."""

# $1 the model, $2 the user; then of each item the version that the record must have, the app and the request of the
# call, what finds the record, and the values of its columns.
CHANGE_MANY = f"""
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), item AS MATERIALIZED (
    SELECT * FROM unnest($3::text[], $4::text[], $5::text[]<values>)
        WITH ORDINALITY AS item (version, app, request_id<names>, position)
), target AS MATERIALIZED (
    SELECT m.id, item.* FROM item JOIN {{schema}}.memories m ON <which> WHERE m.user_id = $2
    ORDER BY m.id FOR UPDATE OF m
), changed AS (
    UPDATE {{schema}}.memories m
    SET updated_at = (SELECT now FROM moment), revision = m.revision + 1<changes> FROM target
    WHERE m.user_id = $2 AND m.id = target.id AND {STORE_FITS} AND (version IS NULL OR {VERSION} = version)
    RETURNING m.*, position, app, request_id
), audited AS (
    INSERT INTO {{schema}}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, updated_at, app, 'update', id::text, scope, request_id FROM changed
)
SELECT position, {RECORD} FROM changed m
"""

DELETE_MANY = f"""
WITH item AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::uuid[])
        WITH ORDINALITY AS item (version, app, request_id, wanted, position)
), target AS MATERIALIZED (
    SELECT m.id, item.* FROM item JOIN {{schema}}.memories m ON m.id = wanted WHERE m.user_id = $1
    ORDER BY m.id FOR UPDATE OF m
), gone AS (
    DELETE FROM {{schema}}.memories m USING target
    WHERE m.user_id = $1 AND m.id = target.id AND (version IS NULL OR {VERSION} = version)
    RETURNING m.id, m.user_id, m.scope, position, app, request_id
), audited AS (
    INSERT INTO {{schema}}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, clock_timestamp(), app, 'delete', id::text, scope, request_id FROM gone
)
SELECT position, user_id FROM gone
"""


class Addition(NamedTuple):
    """A memory to write."""

    new: IndexedInput[PackedWords]
    call: Call


class Change(NamedTuple):
    """New values for a record whose supersession stays as it is."""

    which: str
    """The condition by which the statement for one finds the record, a key of `_FOUND_BY`."""
    target: tuple[Any, ...]
    """What that condition compares with."""
    user_id: str
    arguments: Arguments
    """Those of the statement for one."""

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The name and the SQL type of each column that is assigned."""
        return tuple((name, kind) for name, (kind, _) in self.arguments.assigned.items())


class Deletion(NamedTuple):
    """A record that is to go, if it has the version."""

    target: UUID
    user_id: str | None
    version: str | None
    call: Call


class Together:
    """Sends each write with those of its kind that wait at the same moment.

    Args:
        fetch: Runs a statement.
        model: Returns the store's model.
    """

    def __init__(self, fetch: Fetch, model: Callable[[], str | None]) -> None:
        self._fetch = fetch
        self._model = model
        self.gathers = True
        """Whether calls go together; where users are on several servers, each goes alone."""
        self._adds: Gatherers[Addition, Added[PackedWords]] = Gatherers(self._add_many, self._add, AT_ONCE)
        self._adds_of_what_is_new = self._adds.of(None)
        self._changes: Gatherers[Change, MemoryRecord | None] = Gatherers(
            partial(_each_once, self._change_many), self._change, AT_ONCE
        )
        self._deletions: Gatherers[Deletion, bool] = Gatherers(
            partial(_each_once, self._delete_many), self._delete, AT_ONCE
        )

    async def add(self, new: IndexedInput[PackedWords]) -> Added[PackedWords]:
        """Return the record; what was not written, because its key was used before, comes back itself."""
        addition = Addition(new, current_call.get())
        if not self.gathers or len(new.item.content) > _LONG:
            return await self._add(addition)
        if needs_no_note(new):
            return await self._adds_of_what_is_new(addition)
        # What names another record may wait for a lock on it, and goes with what else its user adds.
        return await self._adds.of(new.item.user_id)(addition)

    async def change(self, change: Change) -> MemoryRecord | None:
        """Return the changed record, or None where there is none to change."""
        _, content = change.arguments.assigned.get("content", ("text", ""))
        if not self.gathers or len(content) > _LONG:
            return await self._change(change)
        return await self._changes.of((change.user_id, change.which, change.columns))(change)

    async def delete(self, target: UUID, user_id: str | None, version: str | None) -> bool:
        """Return whether there was such a record, which is gone now."""
        deletion = Deletion(target, user_id, version, current_call.get())
        if user_id is None or not self.gathers:
            return await self._delete(deletion)
        return await self._deletions.of(user_id)(deletion)

    def _add(self, addition: Addition) -> Awaitable[Added[PackedWords]]:
        return add_one(self._fetch, addition.new, self._model(), addition.call)

    async def _add_many(self, additions: Sequence[Addition]) -> Sequence[Entry[PackedWords]]:
        if len(additions) == 1:
            return [await self._add(additions[0])]
        news, calls = zip(*additions, strict=True)
        is_retry = any(call.is_retry for call in calls)
        return await insert(self._fetch, pack_batch(news, calls), self._model(), is_retry=is_retry)

    async def _change(self, change: Change) -> MemoryRecord | None:
        statement = change.arguments.fill(changing(change.which, names=False, releases=False))
        rows = await self._fetch(acting_for(change.user_id), statement, *change.arguments.values)
        return own_record([rows[0][1:]], change.user_id) if rows else None

    async def _change_many(self, changes: Sequence[Change]) -> Sequence[MemoryRecord | None]:
        if len(changes) == 1:
            return [await self._change(changes[0])]
        first = changes[0]
        arguments = [change.arguments for change in changes]
        versions, apps, requests = ([each.values[number] for each in arguments] for number in (6, 4, 5))
        wanted = map(list, zip(*(change.target for change in changes), strict=True))
        values = (
            [array_of(value) if kind.endswith("[]") else value for _, value in column]
            for (_, kind), column in zip(
                first.columns, zip(*(a.assigned.values() for a in arguments), strict=True), strict=True
            )
        )
        rows = await self._fetch(
            acting_for(first.user_id),
            _changing(first.which, first.columns),
            self._model(),
            first.user_id,
            versions,
            apps,
            requests,
            *wanted,
            *values,
        )
        found = {position: own_record([columns], first.user_id) for position, *columns in rows}
        return [found.get(position) for position in range(1, len(changes) + 1)]

    async def _delete(self, deletion: Deletion) -> bool:
        user_id = deletion.user_id
        ((count, owners),) = await self._fetch(acting_for_owner(user_id), *_deleting(deletion))
        check_owner(owners, user_id)
        return bool(count)

    async def _delete_many(self, deletions: Sequence[Deletion]) -> Sequence[bool]:
        if len(deletions) == 1:
            return [await self._delete(deletions[0])]
        user_id = deletions[0].user_id
        targets, _, versions, calls = zip(*deletions, strict=True)
        apps, requests = [call.app for call in calls], [call.request_id for call in calls]
        rows = await self._fetch(acting_for_owner(user_id), DELETE_MANY, user_id, versions, apps, requests, targets)
        check_owner([row[1] for row in rows], user_id)
        gone = {row[0] for row in rows}
        return [position in gone for position in range(1, len(deletions) + 1)]


async def _each_once(
    send: Callable[[Sequence[T]], Awaitable[Sequence[A]]], calls: Sequence[T]
) -> Sequence[A | Exception]:
    """Send the first call for each record together; a statement changes a record once, so the others follow alone."""
    first: dict[Any, int] = {}
    outcomes: dict[int, A | Exception] = {}
    for number, call in enumerate(calls):
        first.setdefault(call.target, number)
    numbers = [*first.values()]
    outcomes.update(zip(numbers, await send([calls[number] for number in numbers]), strict=True))
    for number in range(len(calls)):
        if number not in outcomes:
            try:
                (outcomes[number],) = await send([calls[number]])
            except Exception as error:  # what was written before stays
                outcomes[number] = error
    return [outcomes[number] for number in range(len(calls))]


def _deleting(deletion: Deletion) -> Sequence[Any]:
    """Return the statement for one, and its arguments."""
    where = Arguments(deletion.call.app, deletion.call.request_id)
    where.add("m.id = {}", deletion.target)
    if deletion.user_id is not None:
        where.add(queries.OWN, deletion.user_id)
    if deletion.version is not None:
        where.add(VERSION + " = {}", deletion.version)
    return where.fill(DELETE), *where.values


_FOUND_BY = {
    BY_ID: ("m.id = wanted", ("uuid",)),
    BY_KEY_ALONE: ("m.key_hash = wanted AND m.key = wanted_key AND m.supersedes = '{}'", ("bytea", "text")),
}
"""For each condition of the statement for one that of the statement for many, and what it compares with."""


@lru_cache
def _changing(which: str, columns: Sequence[tuple[str, str]]) -> str:
    """Return the statement that assigns these columns of many records."""
    condition, wanted = _FOUND_BY[which]
    names = ["wanted", "wanted_key"][: len(wanted)]
    kinds = [*wanted]
    changes: list[str] = []
    for name, kind in columns:
        names.append(f"new_{name}")
        kinds.append("text" if kind.endswith("[]") else kind)
        changes.append(f", {name} = new_{name}::{kind}")
        if name == "embedding":
            changes.append(", next_embedding = NULL")
    values = "".join(f", ${number}::{kind}[]" for number, kind in enumerate(kinds, 6))
    parts = {"<which>": condition, "<values>": values, "<names>": "".join(f", {name}" for name in names)}
    statement = CHANGE_MANY.replace("<changes>", "".join(changes))
    for part, text in parts.items():
        statement = statement.replace(part, text)
    return statement
