"""Moving a store: a survey before anything is written, a copy that any interruption only delays, and a comparison.

A record goes across as it is where the target restores. Elsewhere it is added anew, oldest first, under an idempotency
key, and what it supersedes is named by the new ids; the extension `x-migrated` then says of what it was made.

Of a store, each statement, each snapshot, and each wait for the disk are for several users: those of one turn.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from openproto import AsyncMemory, ConflictError, MemoryRecord, NotFoundError, gather_bounded
from openproto.models import StoredRecord
from openproto.portable.bringing import FAULTS, Found, Result, UserAndId, Way, Writer
from openproto.portable.histories import Histories, histories
from openproto.portable.journal import Journal
from openproto.portable.matching import Marks, Matching
from openproto.portable.surveying import HISTORY, PAGE, Show, Survey, has_versions

_IN_A_TURN = 1000
"""Records of a turn's users, but for the last one's."""
_TURNS_AT_ONCE, _USERS_AT_ONCE = 3, 4
_OBJECTS_BETWEEN_COLLECTIONS = 100_000

_REMOVALS_AT_ONCE = 8

_MOST_SEARCHES = 20
_LONGEST_QUERY = 200
_TOP = 5


_Held: TypeAlias = tuple[str, Mapping[str, str], Sequence[StoredRecord]]
"""A user, the ids at the source of what has others at the target, and some of the user's records."""


class _Wanted(NamedTuple):
    """What has to be known of a record of the source after it was brought."""

    marks: Marks
    scope: str | None


class Migration:
    """One run: it brings what is missing, compares, and may be run any number of times.

    With `anew`, a record that the target refuses to take as it is is added with another id.
    """

    def __init__(
        self,
        source: AsyncMemory,
        target: AsyncMemory,
        plan: Survey,
        journal: Journal,
        matching: Matching,
        *,
        anew: bool = False,
    ) -> None:
        self._source = source
        self._target = target
        self._plan = plan
        self._journal = journal
        self._matching = matching
        self.result = Result()
        self._done = 0
        is_anew = anew or not plan.restores
        self._way = Way(target, journal, matching, plan.restores, plan.unkept, is_anew, self.result)

    async def run(self, show: Show) -> Result:
        """Bring and compare every user's records."""
        native = (await self._target.capabilities()).x_openproto.support.get("restore") == "native"
        # A vendor takes one user after the other: there is nothing to be had together.
        most, at_once = (_IN_A_TURN, _TURNS_AT_ONCE) if native else (1, _USERS_AT_ONCE)
        with _collecting_rarely():
            await gather_bounded((self._move(users, show) for users in self._turns(most)), limit=at_once)
        return self.result

    def _turns(self, most: int) -> Iterator[Sequence[str]]:
        users: list[str] = []
        records = 0
        for user, scopes in self._plan.users.items():
            users.append(user)
            records += max(1, scopes.total())
            if records >= most:
                yield users
                users, records = [], 0
        if users:
            yield users

    async def _move(self, users: Sequence[str], show: Show) -> None:
        there = await self._there(users)
        writer = Writer(self._way, {(user, id): found.id for user in users for id, found in there[user].items()})
        unequal: dict[str, dict[str, _Wanted]] = {}
        queries: list[tuple[str, str]] = []
        async with histories(self._source, vectors=True, oldest_first=self._way.anew) as source:
            for user in users:
                unequal[user] = await self._bring_all(source, user, there[user], writer, queries, show)
        await writer.end()
        await self._verify({user: its for user, its in unequal.items() if its}, writer.refused)
        await gather_bounded((self._compare_search(*query) for query in queries), limit=_USERS_AT_ONCE)

    async def _bring_all(
        self,
        source: Histories,
        user: str,
        there: Mapping[str, Found],
        writer: Writer,
        queries: list[tuple[str, str]],
        show: Show,
    ) -> dict[str, _Wanted]:
        """Bring what the target lacks of a user's, and return all that is not there as it is to be."""
        stride = max(1, self._plan.records // _MOST_SEARCHES)
        unequal: dict[str, _Wanted] = {}
        async for records in source.records(user):
            for stored in records:
                record = stored.record
                wanted = _Wanted(self._matching.marks(stored, {}), record.scope)
                found = there.get(record.id)
                if found is None:
                    unequal[record.id] = wanted
                    if writer.must_flush_for(record):
                        await writer.flush()
                    writer.add(stored)
                elif not self._is_equal(user, record.id, wanted, found):
                    unequal[record.id] = wanted
                    await self._renew(stored, wanted.marks, found, writer)
                if self._done % stride == 0:
                    queries.append((user, record.content[:_LONGEST_QUERY]))
                self._done += 1
            show(self._done, self._plan.records)
        return unequal

    async def _held(self, users: Iterable[str]) -> AsyncGenerator[_Held, None]:
        """Yield what the target has of each user."""
        origins: dict[str, dict[str, str]] = {user: {} for user in users}
        if self._way.anew:  # first, because what a record supersedes may be listed after it
            for user, its in origins.items():
                async for record in self._target.iter(user, page_size=PAGE):
                    if (origin := self._matching.origins.id_of(record)) != record.id:
                        its[record.id] = origin
        async with histories(self._target, vectors=False, oldest_first=False) as target:
            for user, its in origins.items():
                async for records in target.records(user):
                    yield user, its, records

    async def _there(self, users: Sequence[str]) -> dict[str, dict[str, Found]]:
        """Return what the target has of each user, by the ids of the source."""
        there: dict[str, dict[str, Found]] = {user: {} for user in users}
        async with aclosing(self._held(users)) as held:
            async for user, origins, records in held:
                for stored in records:
                    id = stored.record.id
                    marks, own = self._matching.marks(stored, origins), self._matching.own(stored.record)
                    version = stored.record.version if self._plan.has_versions else None
                    there[user][origins.get(id, id)] = Found(id, marks, own, version)
        return there

    async def _verify(self, unequal: Mapping[str, dict[str, _Wanted]], refused: Collection[UserAndId]) -> None:
        """Read back what was not there before, and tell what is not as it is to be."""
        left: dict[UserAndId, tuple[Found, Mapping[str, str]]] = {}
        async with aclosing(self._held(unequal)) as held:
            async for user, origins, records in held:
                for stored in records:
                    id = origins.get(stored.record.id, stored.record.id)
                    if (wanted := unequal[user].get(id)) is not None:
                        found = Found(stored.record.id, self._matching.marks(stored, origins))
                        if self._is_equal(user, id, wanted, found):
                            del unequal[user][id]
                        else:
                            left[user, id] = found, origins
        for user, others in unequal.items():
            for id, wanted in others.items():
                if (user, id) not in refused:
                    await self._tell(user, id, wanted.marks, *left.get((user, id), (None, {})))

    def _is_equal(self, user: str, id: str, wanted: _Wanted, found: Found | None) -> bool:
        """Say whether the target has the record as it is to be, and count it where it does."""
        if found is None or not wanted.marks.says_the_same(found.marks, anew=found.id != id):
            return False
        self._count(user, wanted.scope)
        if found.id != id:
            self.result.ids.setdefault(user, {})[id] = found.id
        return True

    async def _renew(self, stored: StoredRecord, wanted: Marks, found: Found, writer: Writer) -> None:
        """Write what an earlier run brought and the source has changed since."""
        record = stored.record
        if wanted[:2] == found.marks[:2] and not self._way.restores:
            return  # added anew, what others say of it follows from them
        if found.id != record.id and wanted.own == found.marks.own:
            writer.link_later(record)  # an earlier run was interrupted before it could
        elif self._journal.has_brought(record.user_id, record.id, found.own):
            # What took over from it at the target, where that was not brought, is a change made there.
            brought = self._journal.brought[record.user_id].keys()
            if found.marks.successors() <= wanted.successors() | brought:
                await writer.renew(stored, found)

    async def _tell(self, user: str, id: str, wanted: Marks, found: Found | None, origins: Mapping[str, str]) -> None:
        """Say how a record differs; its marks only say that it does."""
        try:
            here = await self._source.get(id, user_id=user)
            there = await self._target.get(found.id, user_id=user) if found else None
        except NotFoundError:
            return  # removed meanwhile
        if found is None or there is None:
            self.result.fault("missing", user, id)
            return
        fields = self._matching.different(here, there, origins)
        if found.id == id and not wanted.has_history_of(found.marks):
            fields.append(HISTORY)
        if fields:
            self.result.fault("different", user, id, fields=fields)
        else:
            self._count(user, here.scope)

    def _count(self, user: str, scope: str | None) -> None:
        self.result.equal += 1
        self.result.counts[user][scope or ""] += 1

    async def _compare_search(self, user: str, query: str) -> None:
        try:
            searches = (memory.search(query, user, limit=_TOP) for memory in (self._source, self._target))
            found, hits = await gather_bounded(searches, limit=2)
        except FAULTS:
            return
        here = [hit.memory.id for hit in found]
        across = [self._matching.origins.id_of(hit.memory) for hit in hits]
        self.result.searches["asked"] += 1
        self.result.searches["same best hit"] += here[:1] == across[:1]
        self.result.searches["same hits"] += set(here) == set(across)


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Let Python look for cycles less often: each look goes through all records under way, and finds none."""
    often, *rest = gc.get_threshold()
    gc.set_threshold(often and max(often, _OBJECTS_BETWEEN_COLLECTIONS), *rest)
    try:
        yield
    finally:
        gc.set_threshold(often, *rest)


@dataclass(slots=True)
class Undone:
    """What an undo removed, and what it left because it is not as it was brought."""

    removed: int = 0
    changed: list[dict[str, str]] = field(default_factory=list)


async def undo(target: AsyncMemory, journal: Journal, matching: Matching, show: Show) -> Undone:
    """Remove what the migration brought and nobody has changed since."""
    versions = has_versions(await target.capabilities())
    result = Undone()
    total = sum(len(each) for each in journal.brought.values())

    async def take(id: str, user: str) -> None:
        try:
            record = await target.get(id, user_id=user)
            is_as_brought = journal.has_brought(user, matching.origins.id_of(record), matching.own(record))
            if is_as_brought:
                await _remove(target, record, versions)
        except NotFoundError:
            return  # somebody else was faster
        except ConflictError:
            is_as_brought = False
        if is_as_brought:
            result.removed += 1
        else:
            result.changed.append({"user_id": user, "id": id})
        show(result.removed, total)

    for user, brought in journal.brought.items():
        listed = target.iter(user, page_size=PAGE)
        there = [(record.id, record.supersedes) async for record in listed if matching.origins.id_of(record) in brought]
        # What supersedes changes others when it goes: those first, the newest before the older.
        for id in [id for id, supersedes in there if supersedes]:
            await take(id, user)
        await gather_bounded((take(id, user) for id, supersedes in there if not supersedes), limit=_REMOVALS_AT_ONCE)
    return result


async def _remove(target: AsyncMemory, record: MemoryRecord, versions: bool) -> None:
    version = record.version if versions else None
    if record.supersedes:
        # What it superseded and was there before is current again; deleting alone would leave that outdated.
        record = await target.update(record.id, user_id=record.user_id, if_version=version, supersedes=None)
        version = record.version if versions else None
    await target.delete(record.id, user_id=record.user_id, if_version=version)
