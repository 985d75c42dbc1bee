"""Records written as they were, on vendors that give each memory an id of their own.

The id that a record had is kept with it, and callers know it by that one. It is found again by an idempotency key that
is made of the id; where a key outlives its memory, restoring once more takes the next key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from openproto.emulation.answers import DeletedSinceError, no_such_memory
from openproto.emulation.locks import Name
from openproto.emulation.recent import Recent
from openproto.emulation.stored import RestoredInput, Stored
from openproto.emulation.vendor import B, Vendor
from openproto.errors import ConflictError, InvalidRequestError, OpenProtoError, PayloadTooLargeError
from openproto.fanout import gather_all, gather_bounded
from openproto.models import (
    MemoryRecord,
    Operation,
    RestoreOutcome,
    Snapshot,
    StoredRecord,
    UsedKey,
    UserPage,
    UserPart,
)
from openproto.provider import KeyedInput, RestoreOutcomes
from openproto.requests import MemoryInput, UsersQuery
from openproto.stores.restoring import as_stored, input_of, is_generated, outcome_of, refused, settled

_MOST_REMEMBERED = 10_000

_MOST_RETURNS = 1000
"""How often one record can be deleted and restored where keys outlive their memories."""

_ANY = "restored"
"""The fingerprint of every restored memory: under its key there is no other."""

_places: Recent[tuple[str, str], tuple[str, str]] = Recent(_MOST_REMEMBERED)
"""Of restored memories, by store and id, the user and the vendor's id."""


_rests: Recent[tuple[str, str], list[str]] = Recent(16, within=60.0)
"""Of listings of users, by store and cursor, what was not on a page yet: a vendor may be asked for each user."""


class Restoring(Vendor[B]):
    """A vendor on which records are restored, and found by the ids that they had."""

    @property
    def operations(self) -> frozenset[Operation]:
        """All but what the vendor has no place for."""
        lacks: set[Operation] = set()
        if not self.traits.restores:
            lacks.add("restore")
        if not self.traits.lists_users:
            lacks.add("users")
        return super().operations - lacks

    async def users(self, query: UsersQuery) -> UserPage:
        """Return the page out of all users that the vendor names."""
        rest = _rests.get((self.store_name(), query.cursor or ""))
        if rest is None or query.cursor is None:
            rest = sorted(user for user in await self.owners() if user > (query.cursor or ""))
        page, rest = rest[: query.limit], rest[query.limit :]
        if not rest:
            return UserPage(items=page)
        _rests.put((self.store_name(), page[-1]), rest)
        return UserPage(items=page, next_cursor=page[-1])

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Write the records, each in a request of its own, after one look through what their user has."""
        return await self._restore(as_stored(records))

    async def load(
        self, parts: Sequence[UserPart], *, model: str | None, app: str | None, include_deleted: bool
    ) -> RestoreOutcomes:
        """Write records with the moments of their handovers; a vendor keeps neither other keys nor an audit log."""
        if not (self.traits.restores and include_deleted) or any(part.keys or part.audit for part in parts):
            raise self.unsupported("load")
        return await self._restore([stored for part in parts for stored in part.records])

    def snapshot(self, *, vectors: bool) -> AbstractAsyncContextManager[Snapshot]:
        """Return what the vendor holds, page by page, with what no verb returns of it."""
        return nullcontext(_Shown(self))

    async def everything(self, user_id: str) -> list[Stored]:
        """Return all memories of the user, oldest first."""
        async with aclosing(self.scan(user_id)) as memories:
            found = [self._owned(stored, user_id) async for stored in memories]
        return sorted(found, key=lambda stored: (stored.record.created_at, stored.id))

    async def known(self, id: str, user_id: str | None) -> Stored | None:
        """Return the memory that callers know by that id; without a user whoever's it is."""
        found = await self.find(id, user_id)
        if found is not None and not found.origin:
            return found
        if not self.traits.restores:
            return None
        owner, place = _places.get((self.store_name(), id)) or (None, "")
        if owner is not None and user_id in (None, owner):
            found = await self.find(place, owner)
            if found is not None and found.origin == id:
                return found
        of_all = self.traits.lists_users and not self.traits.asks_of_each_user
        for user in [user_id] if user_id is not None else await self.owners() if of_all else ():
            if (found := await self._returned(user, id)) is not None:
                return found
        return None

    async def _existing(self, id: str, user_id: str | None) -> Stored:
        found = await self.known(id, user_id)
        if found is None or (user_id is not None and found.record.user_id != user_id):
            raise no_such_memory()
        return found

    async def _returned(self, user_id: str, id: str) -> Stored | None:
        """Return the user's memory that was restored with that id."""
        for key in _keys(id):
            try:
                found = await self.find_key(user_id, key)
            except DeletedSinceError:
                continue
            if found is None:
                break
            return self._remembered(found)
        if self.traits.keys_outlive != "native":
            return None
        # Such a vendor does not say of a key that its memory was deleted, and there may be a later one.
        async with aclosing(self.scan(user_id)) as memories:
            async for stored in memories:
                if self._owned(stored, user_id).origin == id:
                    return self._remembered(stored)
        return None

    def _remembered(self, stored: Stored) -> Stored:
        _places.put((self.store_name(), stored.id), (stored.record.user_id, stored.record.id))
        return stored

    async def _restore(self, records: Sequence[StoredRecord]) -> RestoreOutcomes:
        by_user: dict[str, list[int]] = {}
        for number, stored in enumerate(records):
            by_user.setdefault(stored.record.user_id, []).append(number)
        outcomes: dict[int, RestoreOutcome] = {}
        for user, numbers in by_user.items():
            restoring = self._restore_user(user, [records[number] for number in numbers])
            outcomes.update(zip(numbers, await self._finish_despite_cancellation(restoring), strict=True))
        return [outcomes[number] for number in range(len(records))]

    async def _restore_user(self, user: str, records: Sequence[StoredRecord]) -> RestoreOutcomes:
        locks: list[Name] = [("memory", stored.record.id) for stored in records]
        locks += [name_of(user, stored.record.key) for stored in records if stored.record.key is not None]
        async with self._locked_by(locks):
            there = _There()
            async with aclosing(self.scan(user)) as memories:
                async for found in memories:
                    there.take(self._owned(found, user))
            owners = await gather_bounded(
                (self._owner(stored.record.id, there) for stored in records), limit=self.traits.most_writes
            )
            decided = [self._decide(stored, owner, there) for stored, owner in zip(records, owners, strict=True)]
            waiting = [each for each in decided if isinstance(each, _Plan)]
            written = iter(
                await gather_bounded(
                    (self._restore_one(plan, there) for plan in waiting), limit=self.traits.most_writes
                )
            )
            outcomes = [next(written) if isinstance(each, _Plan) else each for each in decided]
        await gather_all(*(self._hand_over(id, user, there) for id in there.unmarked(records)))
        return outcomes

    async def _owner(self, id: str, there: _There) -> str | None:
        """Return who has a record of that id, as far as the vendor's own id or this process says so."""
        if id in there.ids:
            return None
        found = await self.find(id, None)
        if (found is None or found.origin) and (place := _places.get((self.store_name(), id))) is not None:
            found = await self.known(id, place[0])
        return None if found is None or found.id != id else found.record.user_id

    def _decide(self, stored: StoredRecord, owner: str | None, there: _There) -> _Plan | RestoreOutcome:
        """Return what is to be written of a record, or what became of it without that."""
        record = stored.record
        checked = input_of(record)
        if isinstance(checked, OpenProtoError):
            return refused(record, checked)
        if owner not in (None, record.user_id):
            return refused(record, ConflictError("id: a record of another user has it; add() makes a new one"))
        if record.id in there.ids or owner is not None:  # a listing may not show it yet
            return outcome_of(record, "exists")
        if record.key is not None and record.key in there.keys:
            return refused(record, ConflictError("key: another record of this user bears it; delete that one first"))
        if (error := self._unfit(record, there)) is not None:
            return refused(record, error)
        there.expect(stored)
        return _Plan(checked, stored)

    def _unfit(self, record: MemoryRecord, there: _There) -> OpenProtoError | None:
        traits = self.traits
        if len(record.content) > traits.max_content_length:
            return PayloadTooLargeError(f"content: {self.name} takes at most {traits.max_content_length} characters")
        if traits.oldest is not None and record.created_at < traits.oldest:
            return InvalidRequestError(f"created_at: {self.name} keeps nothing older than {traits.oldest:%Y-%m-%d}")
        if traits.most_of_one_moment and there.moments[record.created_at] >= traits.most_of_one_moment:
            return InvalidRequestError(
                f"created_at: {self.name} lists at most {traits.most_of_one_moment} memories of one moment; "
                "give some of them another one"
            )
        if record.supersedes and not traits.supersession:
            return self.unsupported("supersedes")
        return None

    async def _restore_one(self, plan: _Plan, there: _There) -> RestoreOutcome:
        record = plan.stored.record
        begins = plan.stored.begins or (record.created_at if record.supersedes and not record.valid_from else None)
        kept = Stored.new(plan.checked.item, "", id="", created_at=record.created_at)
        marks = settled(plan.stored.handovers or [], there.successors(record.id), there.new, plan.stored)
        kept = replace(
            kept.changed(updated_at=record.updated_at, superseded_by=marks[-1][0] if marks else None),
            fingerprint=_ANY,
            superseded=tuple(marks),
            holds_from=begins,
            origin=record.id,
        )
        try:
            is_new = await self._create_returned(RestoredInput.of(plan.checked.item, kept), record.id)
        except (ConflictError, InvalidRequestError, PayloadTooLargeError) as error:
            return refused(record, error)
        return outcome_of(record, "restored" if is_new else "exists")

    async def _create_returned(self, item: MemoryInput, id: str) -> bool:
        """Write the memory under the first key that is free; say whether it was not there."""
        for key in _keys(id):
            try:
                if await self.find_key(item.user_id, key) is not None:
                    return False
                self._remembered(self._noted(await self.create(item, key)))
                return True
            except DeletedSinceError:
                continue
        raise ConflictError("id: was deleted and restored too often here; add() makes a new record")

    async def _hand_over(self, id: str, user: str, there: _There) -> None:
        """Mark a record that was there before with successors that came after it."""
        async with self._locked(id):
            old = await self.known(id, user)
            if old is None:
                return
            marks = settled([*old.superseded], there.successors(id), there.new, None)
            if tuple(marks) != old.superseded:
                await self.replace(old, old.marked(tuple(marks)))


class _Shown(Snapshot):
    """What a vendor holds, with the handovers of records, and the idempotency keys of those that are there."""

    def __init__(self, vendor: Restoring[Any]) -> None:
        self.model: str | None = None
        self.consistent = False
        self.lacks: Sequence[str] = ("idempotency keys of deleted memories",)
        self._vendor = vendor

    async def users(self) -> AsyncIterator[str]:
        """Return the users that have memories."""
        if not self._vendor.traits.lists_users:
            raise self._vendor.unsupported("users")
        for user in sorted(await self._vendor.owners()):
            yield user

    async def records(self, user_id: str) -> AsyncIterator[Sequence[StoredRecord]]:
        """Return the user's records."""
        yield [_history(stored) for stored in await self._vendor.everything(user_id)]

    async def parts(self, user_id: str) -> AsyncIterator[UserPart]:
        """Return the user's records, and then their keys."""
        found = await self._vendor.everything(user_id)
        for stored in found:
            yield UserPart(user_id, records=[_history(stored)])
        yield UserPart(
            user_id,
            keys=[
                UsedKey(idempotency_key=stored.idempotency_key, record_id=stored.id, fingerprint=stored.fingerprint)
                for stored in found
                if stored.idempotency_key and not stored.origin and not is_generated(stored.idempotency_key)
            ],
        )


def _history(stored: Stored) -> StoredRecord:
    return StoredRecord(record=stored.shown, begins=stored.holds_from, handovers=[*stored.superseded])


@dataclass(frozen=True, slots=True)
class _Plan:
    """A record that is to be written, and what `add` would have made it of."""

    checked: KeyedInput
    stored: StoredRecord


@dataclass(slots=True)
class _There:
    """What a user has, and is about to have."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    """Of each record, those that are marked as its successors."""
    keys: set[str] = field(default_factory=set)
    moments: Counter[datetime] = field(default_factory=Counter)
    new: dict[str, StoredRecord] = field(default_factory=dict)
    _naming: list[tuple[datetime, str, datetime, Sequence[str]]] = field(default_factory=list)
    """When each successor was made, its id, from when on it holds, and what it names."""

    def take(self, stored: Stored) -> None:
        """Note what is there."""
        record = stored.record
        self._note(stored.id, record, record.valid_from or stored.holds_from)
        self.ids[stored.id] = {by for by, _ in stored.superseded}

    def expect(self, stored: StoredRecord) -> None:
        """Note what is about to be there."""
        record = stored.record
        self._note(record.id, record, record.valid_from or stored.begins)
        self.ids[record.id] = set()
        self.new[record.id] = stored

    def _note(self, id: str, record: MemoryRecord, begins: datetime | None) -> None:
        self.moments[record.created_at] += 1
        if record.key is not None:
            self.keys.add(record.key)
        if record.supersedes:
            self._naming.append((record.created_at, id, begins or record.created_at, record.supersedes))

    def successors(self, id: str) -> dict[str, datetime]:
        """Return the records that name one, oldest first, and from when on each holds."""
        return {by: moment for _, by, moment, named in sorted(self._naming) if id in named}

    def unmarked(self, records: Sequence[StoredRecord]) -> list[str]:
        """Return what was there before and is named by one of the records, but for what knows that one already."""
        named = {(id, each.record.id) for each in records for id in each.record.supersedes}
        before = {(id, by) for id, by in named if id in self.ids and id not in self.new}
        return sorted({id for id, by in before if by in self.new or by not in self.ids[id]})


def name_of(user_id: str, key: str) -> Name:
    """Return the lock of a user's key; it sorts before those of memories, which `put` takes while it holds this."""
    return ("a name", user_id, key)


def _keys(id: str) -> Iterator[str]:
    return (f"openproto-restored:{number}:{id}" for number in range(_MOST_RETURNS))
