"""Moving a store: a survey before anything is written, a copy that any interruption only delays, and a comparison.

A record goes across as it is where the target restores. Elsewhere it is added anew, oldest first, under an idempotency
key, and what it supersedes is named by the new ids; the extension `x-migrated` then says of what it was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

from openproto import AsyncMemory, ConflictError, MemoryRecord, NotFoundError, gather_bounded
from openproto.models import StoredRecord
from openproto.portable.bringing import BATCH, FAULTS, Found, Result, Way, Writer
from openproto.portable.histories import USERS_AT_ONCE, Loader, histories
from openproto.portable.journal import Journal
from openproto.portable.matching import Marks, Matching
from openproto.portable.surveying import HISTORY, PAGE, Show, Survey

_REMOVALS_AT_ONCE = 8

_MOST_SEARCHES = 20
_LONGEST_QUERY = 200
_TOP = 5


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
        self._way = Way(target, Loader(target), journal, matching, plan.restores, plan.unkept, is_anew, self.result)

    async def run(self, show: Show) -> Result:
        """Bring and compare every user's records, those of a few users at once."""
        await gather_bounded((self._move(user, show) for user in self._plan.users), limit=USERS_AT_ONCE)
        return self.result

    async def _move(self, user: str, show: Show) -> None:
        stride = max(1, self._plan.records // _MOST_SEARCHES)
        unequal: dict[str, _Wanted] = {}
        queries: list[str] = []
        there, origins = await self._there(user)
        writer = Writer(self._way, user, there)
        async with aclosing(histories(self._source, user, oldest_first=self._way.anew)) as found:
            async for stored in found:
                record = stored.record
                wanted = _Wanted(self._matching.marks(stored, {}), record.scope)
                if not self._is_equal(user, record.id, wanted, there):
                    unequal[record.id] = wanted
                    await self._bring(stored, wanted.marks, there, writer)
                if self._done % stride == 0:
                    queries.append(record.content[:_LONGEST_QUERY])
                self._done += 1
                if self._done % BATCH == 0:
                    show(self._done, self._plan.records)
        if await writer.end():
            there, origins = await self._there(user)
        for id, wanted in unequal.items():
            if not self._is_equal(user, id, wanted, there) and id not in writer.refused:
                await self._tell(user, id, wanted.marks, there.get(id), origins)
        await gather_bounded((self._compare_search(user, query) for query in queries), limit=USERS_AT_ONCE)

    async def _there(self, user: str) -> tuple[dict[str, Found], dict[str, str]]:
        """Return what the target has of the user by the ids of the source, and which of these are not its own."""
        origins: dict[str, str] = {}
        if self._way.anew:  # first, because what a record supersedes may be listed after it
            async for record in self._target.iter(user, page_size=PAGE):
                if (origin := self._matching.origins.id_of(record)) != record.id:
                    origins[record.id] = origin
        there: dict[str, Found] = {}
        async with aclosing(histories(self._target, user, oldest_first=False)) as held:
            async for stored in held:
                id = stored.record.id
                there[origins.get(id, id)] = Found(id, self._matching.marks(stored, origins))
        return there, origins

    def _is_equal(self, user: str, id: str, wanted: _Wanted, there: Mapping[str, Found]) -> bool:
        """Say whether the target has the record as it is to be, and count it where it does."""
        found = there.get(id)
        if found is None or not wanted.marks.says_the_same(found.marks, anew=found.id != id):
            return False
        self._count(user, wanted.scope)
        if found.id != id:
            self.result.ids.setdefault(user, {})[id] = found.id
        return True

    async def _bring(self, stored: StoredRecord, wanted: Marks, there: Mapping[str, Found], writer: Writer) -> None:
        """Write what the target lacks, and what an earlier run brought and the source has changed since."""
        record = stored.record
        found = there.get(record.id)
        if found is None:
            await writer.add(stored, wanted.own)
        elif wanted[:2] == found.marks[:2] and not self._way.restores:
            return  # added anew, what others say of it follows from them
        elif found.id != record.id and wanted.own == found.marks.own:
            writer.link_later(record)  # an earlier run was interrupted before it could
        elif self._journal.has_brought(record.user_id, record.id, found.marks.own):
            await writer.renew(stored, wanted.own, found)

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
        self.result.counts.setdefault(user, Counter())[scope or ""] += 1

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


@dataclass(slots=True)
class Undone:
    """What an undo removed, and what it left because it is not as it was brought."""

    removed: int = 0
    changed: list[dict[str, str]] = field(default_factory=list)


async def undo(target: AsyncMemory, journal: Journal, matching: Matching, show: Show) -> Undone:
    """Remove what the migration brought and nobody has changed since."""
    support = (await target.capabilities()).x_openproto.support
    has_versions = support.get("version", "none") != "none"
    result = Undone()
    total = sum(len(each) for each in journal.brought.values())

    async def take(id: str, user: str) -> None:
        try:
            record = await target.get(id, user_id=user)
            is_as_brought = journal.has_brought(user, matching.origins.id_of(record), matching.own(record))
            if is_as_brought:
                await _remove(target, record, has_versions)
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


async def _remove(target: AsyncMemory, record: MemoryRecord, has_versions: bool) -> None:
    version = record.version if has_versions else None
    if record.supersedes:
        # What it superseded and was there before is current again; deleting alone would leave that outdated.
        record = await target.update(record.id, user_id=record.user_id, if_version=version, supersedes=None)
        version = record.version if has_versions else None
    await target.delete(record.id, user_id=record.user_id, if_version=version)
