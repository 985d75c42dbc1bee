"""How the state of records gets into a mirror: as they are where it restores, otherwise made anew under other ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from openproto.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    UnsupportedCapabilityError,
)
from openproto.fanout import gather_bounded
from openproto.layers.mirroring.calls import bounded, pages
from openproto.layers.mirroring.journal import MirrorJournal
from openproto.layers.mirroring.records import CHANGEABLE, differences, fields_of
from openproto.models import MemoryRecord, Origins
from openproto.provider import Provider
from openproto.requests import KeyRef, MemoryInput, MemoryUpdate, RecordRef, build

FAULTS = (ConflictError, InvalidRequestError, NotFoundError, PayloadTooLargeError, UnsupportedCapabilityError)
"""What a mirror says of one record, and would say again; any other error may pass."""

_AT_ONCE = 8
_MOST_LOOKED_THROUGH = 10_000


class Target(ABC):
    """The mirror, as what writes into it and compares with it needs it; `primary` is the other side's name."""

    def __init__(self, mirror: Provider, journal: MirrorJournal, primary: str) -> None:
        self._mirror = mirror
        self._journal = journal
        self._primary = primary

    @abstractmethod
    async def write(self, records: Sequence[MemoryRecord]) -> dict[str, str]:
        """Make the mirror's records what these are, and return the code of the error for each that it refuses."""

    @abstractmethod
    async def remove(self, id: str, user_id: str | None, *, release: bool) -> None:
        """Make sure that the mirror has no such record; `release` lets what it supersedes be current again."""

    @abstractmethod
    async def named_by(self, id: str, user_id: str | None) -> list[str]:
        """Return which records of the primary the mirror's record of that id supersedes."""

    @abstractmethod
    async def compare(self, record: MemoryRecord) -> list[str]:
        """Return in which fields the mirror's record differs; "missing" where there is none."""

    async def ids(self, user_id: str) -> dict[str, str]:
        """Return the mirror's id of each of the user's records, by the primary's."""
        listed = pages(self._mirror, user_id)
        return {Origins(self._primary).id_of(record): record.id async for record in listed}

    async def bearer(self, record: MemoryRecord) -> str | None:
        """Return the id of another record that bears the record's key at the mirror."""
        if record.key is None:
            return None
        try:
            ref = KeyRef(user_id=record.user_id, key=record.key)
            found = Origins(self._primary).id_of(await bounded("get", self._mirror.get_by_key(ref)))
        except FAULTS:
            return None
        return found if found != record.id else None

    async def _get(self, id: str, user_id: str | None) -> MemoryRecord | None:
        try:
            return await bounded("get", self._mirror.get(RecordRef(id=id, user_id=user_id)))
        except NotFoundError:
            return None

    async def _delete(self, id: str, user_id: str | None, *, release: bool = False) -> None:
        if release and (found := await self._get(id, user_id)) is not None:
            await self._release(found)
        with suppress(NotFoundError):
            await bounded("delete", self._mirror.delete(RecordRef(id=id, user_id=user_id)))

    async def _release(self, record: MemoryRecord) -> None:
        """Let go what the record supersedes: deleting it alone would leave that outdated."""
        if record.supersedes:
            await self._update(record, {"supersedes": None})

    async def _update(self, record: MemoryRecord, fields: dict[str, Any]) -> None:
        changes = build(MemoryUpdate, **fields)
        await bounded("update", self._mirror.update(RecordRef(id=record.id, user_id=record.user_id), changes))


class Restoring(Target):
    """A mirror that takes records as they are: the same ids, moments, and supersession."""

    async def write(self, records: Sequence[MemoryRecord]) -> dict[str, str]:
        """Restore them; what is there and differs is removed and restored."""
        refused, there = await self._restore(records)

        async def clear(record: MemoryRecord) -> MemoryRecord | None:
            found = await self._get(record.id, record.user_id)
            if found is not None:
                if not differences(record, found, self._primary, None):
                    return None
                if set(found.supersedes) - set(record.supersedes):
                    await self._release(found)
                await self._delete(record.id, record.user_id)
            return record

        cleared = await gather_bounded(map(clear, there), limit=_AT_ONCE)
        again = [record for record in cleared if record is not None]
        return refused | (await self._restore(again))[0]

    async def remove(self, id: str, user_id: str | None, *, release: bool) -> None:
        """Delete it."""
        await self._delete(id, user_id, release=release)

    async def named_by(self, id: str, user_id: str | None) -> list[str]:
        """Return what the mirror's record supersedes."""
        found = await self._get(id, user_id)
        return found.supersedes if found else []

    async def compare(self, record: MemoryRecord) -> list[str]:
        """Return in which fields the mirror's record differs."""
        found = await self._get(record.id, record.user_id)
        return ["missing"] if found is None else differences(record, found, self._primary, None)

    async def _restore(self, records: Sequence[MemoryRecord]) -> tuple[dict[str, str], list[MemoryRecord]]:
        """Return the codes of those refused, and those that are there already."""
        if not records:
            return {}, []
        try:
            outcomes = await bounded("add", self._mirror.restore(records))
        except FAULTS as error:
            if len(records) == 1:
                return {records[0].id: error.code}, []
            # One of them is at fault: alone each says so itself.
            alone = [await self._restore([record]) for record in records]
            return {id: code for codes, _ in alone for id, code in codes.items()}, [r for _, t in alone for r in t]
        pairs = list(zip(records, outcomes, strict=True))
        refused = {record.id: "refused" for record, each in pairs if each.outcome not in ("restored", "exists")}
        return refused, [record for record, each in pairs if each.outcome == "exists"]


class Adding(Target):
    """A mirror that gives records ids and moments itself; the journal knows which is which, and so do the records."""

    def __init__(self, mirror: Provider, journal: MirrorJournal, primary: str) -> None:
        super().__init__(mirror, journal, primary)
        self._looked_through: set[str] = set()

    async def write(self, records: Sequence[MemoryRecord]) -> dict[str, str]:
        """Write each user's records in their order, several users at once."""
        by_user: dict[str, list[MemoryRecord]] = {}
        for record in records:
            by_user.setdefault(record.user_id, []).append(record)
        refused: dict[str, str] = {}

        async def write_all(user: Sequence[MemoryRecord]) -> None:
            for record in user:
                try:
                    await self._write(record)
                except FAULTS as error:
                    refused[record.id] = error.code

        await gather_bounded(map(write_all, by_user.values()), limit=_AT_ONCE)
        return refused

    async def remove(self, id: str, user_id: str | None, *, release: bool) -> None:
        """Delete what was made of it."""
        found = await self._known([id], user_id, afresh=True)
        if id in found:
            await self._delete(found[id], user_id, release=release)
            await self._journal.map({id: None})

    async def named_by(self, id: str, user_id: str | None) -> list[str]:
        """Return of which records those were made that what was made of it supersedes."""
        found = await self._known([id], user_id, afresh=True)
        made = await self._get(found[id], user_id) if id in found else None
        earlier = [await self._get(named, user_id) for named in (made.supersedes if made else ())]
        return [Origins(self._primary).id_of(record) for record in earlier if record is not None]

    async def compare(self, record: MemoryRecord) -> list[str]:
        """Return in which fields what was made of the record differs."""
        ids = await self._known([record.id, *record.supersedes], record.user_id, afresh=True)
        found = await self._get(ids[record.id], record.user_id) if record.id in ids else None
        return ["missing"] if found is None else differences(record, found, self._primary, ids)

    async def _write(self, record: MemoryRecord) -> None:
        ids = await self._known([record.id, *record.supersedes], record.user_id)
        found = await self._get(ids[record.id], record.user_id) if record.id in ids else None
        fields = fields_of(record, self._primary, ids)
        if found is None:
            await self._add(record, fields)
            return
        changed = set(differences(record, found, self._primary, ids))
        if not changed:
            return
        if changed <= CHANGEABLE and "update" in self._mirror.verbs:
            if "supersedes" in changed and set(found.supersedes) - set(fields["supersedes"]):
                await self._release(found)
            gone = dict.fromkeys(found.extensions.keys() - record.extensions.keys())
            wanted = {name: fields[name] for name in changed & fields.keys()}
            extensions = {name: value for name, value in fields.items() if name.startswith("x-")}
            await self._update(found, {**wanted, **(gone | extensions if "extensions" in changed else {})})
        else:
            await self._release(found)
            await self._delete(found.id, record.user_id)
            await self._add(record, fields)

    async def _add(self, record: MemoryRecord, fields: dict[str, Any]) -> None:
        item = build(MemoryInput, **fields, user_id=record.user_id)
        try:
            added = await self._add_under(record.id, item)
        except ConflictError:
            # The key was used: for another state of the record, which is there, or was and is not any more.
            there = await self._look_through(record.user_id)
            if record.id in there:
                await self._write(record)
                return
            added = await self._add_under(f"{record.id} {record.version or item.model_dump_json()}", item)
        await self._journal.map({record.id: added.id})

    async def _add_under(self, key: str, item: MemoryInput) -> MemoryRecord:
        digest = blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return await bounded("add", self._mirror.add(item, idempotency_key=f"mirror-{digest}"))

    async def _known(self, ids: Sequence[str], user_id: str | None, *, afresh: bool = False) -> dict[str, str]:
        """Return the mirror's ids of those; what the journal does not know is looked for among the user's records.

        That once, or again with `afresh`: the answer to an add may have been lost, or another client may have added it.
        Adding once more finds that out by itself.
        """
        known = await self._journal.mirror_ids(ids)
        missing = ids[0] not in known if afresh else not known.keys() >= set(ids)
        if user_id is not None and missing and (afresh or user_id not in self._looked_through):
            there = await self._look_through(user_id)
            known |= {id: there[id] for id in ids if id in there}
        return known

    async def _look_through(self, user_id: str) -> Mapping[str, str]:
        there = await self.ids(user_id)
        await self._journal.map({id: found for id, found in there.items() if id != found})
        if len(self._looked_through) >= _MOST_LOOKED_THROUGH:
            self._looked_through.clear()
        self._looked_through.add(user_id)
        return there


async def target(mirror: Provider, journal: MirrorJournal, primary: str) -> Target:
    """Return what writes into a mirror that is open.

    Where restoring is emulated each change of a record would be a deletion and a new memory, under one more key: there
    records are added and updated instead.
    """
    support = (await bounded("capabilities", mirror.capabilities())).x_openproto.support
    kind = Restoring if support.get("restore") == "native" else Adding
    return kind(mirror, journal, primary)
