"""Moving a store: a survey before anything is written, a copy that any interruption only delays, and a comparison.

A record goes across as it is where the target restores. Elsewhere it is added anew, oldest first, under an idempotency
key, and what it supersedes is named by the new ids; the extension `x-migrated` then says of what it was made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from openproto import AsyncMemory, ConflictError, MemoryRecord, NotFoundError, gather_bounded
from openproto.portable.bringing import BATCH, FAULTS, Found, Result, Way, Writer
from openproto.portable.journal import Journal
from openproto.portable.matching import Matching, different, own
from openproto.portable.spool import Spool, open_private
from openproto.portable.surveying import ANEW, PAGE, Show, Survey

_NOT_OWN = {"superseded_by", "created_at", "updated_at"}
"""In what a record may differ without having been changed itself."""

_REMOVALS_AT_ONCE = 8

_MOST_SEARCHES = 20
_LONGEST_QUERY = 200
_TOP = 5


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
        self._way = Way(target, journal, matching, plan.restores, anew or not plan.restores, self.result)

    async def run(self, show: Show) -> Result:
        """Bring and compare every user's records."""
        done = 0
        for user in self._plan.users:
            with open_private(None) as file:
                spool = Spool(file, {})
                async for record in self._source.iter(user, page_size=PAGE):
                    spool.add(record)
                there = await self._there(user)
                writer = Writer(self._way, user, there)
                for line in spool.oldest_first():
                    await self._bring(MemoryRecord.model_validate_json(line), there, writer)
                    done += 1
                    if done % BATCH == 0:
                        show(done, self._plan.records)
                if await writer.end():
                    there = await self._there(user)
                await self._compare(user, spool, there, writer.refused)
            show(done, self._plan.records)
        return self.result

    async def _there(self, user: str) -> dict[str, Found]:
        """Return what the target has of the user, by the ids of the source."""
        origins: dict[str, str] = {}
        if self._way.anew:  # first, because what a record supersedes may be listed after it
            async for record in self._target.iter(user, page_size=PAGE):
                if (origin := self._matching.origin_of(record)) != record.id:
                    origins[record.id] = origin
        return {
            origins.get(record.id, record.id): Found(record.id, self._matching.marks(record, origins))
            async for record in self._target.iter(user, page_size=PAGE)
        }

    async def _bring(self, record: MemoryRecord, there: Mapping[str, Found], writer: Writer) -> None:
        """Write what the target lacks, and what an earlier run brought and the source has changed since."""
        found = there.get(record.id)
        wanted = self._matching.marks(record, {})
        if found is None:
            await writer.add(record, own(wanted))
            return
        changes = set(different(wanted, found.marks)) - _NOT_OWN
        if changes == {"supersedes"} and found.id != record.id:
            writer.link_later(record)  # an earlier run was interrupted before it could
        elif changes and self._journal.has_brought(record.user_id, record.id, own(found.marks)):
            await writer.renew(record, own(wanted), found)
        else:
            self.result.there += 1

    async def _compare(self, user: str, spool: Spool, there: Mapping[str, Found], refused: Collection[str]) -> None:
        result = self.result
        counts = result.counts.setdefault(user, {})
        stride = max(1, len(spool) * len(self._plan.users) // _MOST_SEARCHES)
        for number, line in enumerate(spool.oldest_first()):
            record = MemoryRecord.model_validate_json(line)
            both = counts.setdefault(record.scope or "", [0, 0])
            both[0] += 1
            if (found := there.get(record.id)) is None:
                if record.id not in refused:
                    result.fault("missing", record)
                continue
            result.compared += 1
            ignored = {*self._plan.cannot_keep, *(ANEW if found.id != record.id else ())}
            fields = different(self._matching.marks(record, {}), found.marks, ignored)
            both[1] += "scope" not in fields
            if fields:
                result.fault("different", record, fields=fields)
            if found.id != record.id:
                result.ids.setdefault(user, {})[record.id] = found.id
            if number % stride == 0 and result.searches["asked"] < _MOST_SEARCHES:
                await self._compare_search(user, record)

    async def _compare_search(self, user: str, record: MemoryRecord) -> None:
        query = record.content[:_LONGEST_QUERY]
        try:
            here = [hit.memory.id for hit in await self._source.search(query, user, limit=_TOP)]
            hits = await self._target.search(query, user, limit=_TOP)
        except FAULTS:
            return
        across = [self._matching.origin_of(hit.memory) for hit in hits]
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
            is_as_brought = journal.has_brought(user, matching.origin_of(record), own(matching.marks(record, {})))
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
        there = [(record.id, record.supersedes) async for record in listed if matching.origin_of(record) in brought]
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
