"""The task that brings the state of changed records from the primary to the mirror, and compares what was read.

It reads what a record is now rather than repeat what was done to it: any number of changes become one write, and doing
that again changes nothing. After each write it reads the primary once more, so that of several tasks, on several
machines, the last to write has written what the primary holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from random import uniform

from openproto.errors import (
    NotFoundError,
    OpenProtoError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)
from openproto.fanout import gather_bounded
from openproto.layers.mirroring.calls import bounded, pages
from openproto.layers.mirroring.journal import Entry, MirrorJournal, Reference
from openproto.layers.mirroring.targets import Target, target
from openproto.models import MemoryRecord
from openproto.provider import Provider
from openproto.requests import KeyRef, RecordRef

_log = logging.getLogger(__name__)

FIRST_WAIT = 0.2
LONGEST_WAIT = 30.0
LINGER = 0.05
"""How long entries are gathered before they are applied: one batch delays the primary's calls less than many."""

BATCH = 100
ATTEMPTS = 5
"""How often a record is tried on which the mirror fails without saying why; then it counts as refused."""

_PERHAPS_SOON = ("refused", "conflict")
"""What is said of a key that another record bears, which another client's journal may be about to remove."""

_TICK = 1.0
_TAKE_OVER_SECONDS = 30.0
_READS_AT_ONCE = 8
_MOST_SAMPLES = 32

_OUTAGES = (
    ProviderUnavailableError,
    ProviderTimeoutError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)
"""What is wrong with the mirror, or the primary, and not with one record."""


class Applier:
    """Applies one client's journal, from `start` to `close`."""

    def __init__(self, primary: Provider, mirror: Provider, journal: MirrorJournal) -> None:
        self._primary = primary
        self._mirror = mirror
        self._journal = journal
        self._target: Target | None = None
        self._samples: deque[MemoryRecord] = deque(maxlen=_MOST_SAMPLES)
        self._attempts: Counter[str] = Counter()
        self._failures = 0
        self._size = BATCH
        """How many entries are taken at once: fewer after a failure, so that a shaky mirror takes some of them."""
        self._resting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the mirror is opened by the task too, since its faults are no fault of the client."""
        self._task = asyncio.create_task(self._run(), name="openproto-mirror")

    async def close(self, seconds: float) -> None:
        """Wait for the backlog while the mirror takes it, but for no longer than that; then end, and close the mirror.

        What is left is in the journal, and goes on when it is opened again.
        """
        task, self._task = self._task, None
        if task is None:
            return
        try:
            if not self._failures:
                self._resting.clear()
                self._journal.changed.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._resting.wait()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
            if self._journal.backlog:
                text = "mirror: %d entries are left in the journal, and go on when it is opened again"
                _log.warning(text, self._journal.backlog)
            await self._mirror.close()

    def sample(self, record: MemoryRecord) -> None:
        """Compare a record that was read, unless the mirror is behind."""
        if not self._journal.backlog:
            self._samples.append(record)
            self._journal.changed.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        take_over_at = loop.time()
        while True:
            self._journal.changed.clear()
            wait = _TICK
            try:
                if loop.time() >= take_over_at:
                    await self._journal.take_over()
                    take_over_at = loop.time() + _TAKE_OVER_SECONDS
                await self._apply_all()
                await self._compare_all()
                self._recovered()
            except OpenProtoError as error:
                wait = self._failed(error.code, error.provider or self._mirror.name, error.retry_after)
            except Exception as error:
                _log.exception("mirror: an unexpected error; the journal is tried again")
                wait = self._failed(type(error).__name__, self._mirror.name, None)
            if self._failures or not self._journal.changed.is_set():
                self._resting.set()
            if self._failures:
                with suppress(OpenProtoError):  # the journal itself may be what failed
                    await self._journal.commit()
                await asyncio.sleep(wait)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._journal.changed.wait()
                        await asyncio.sleep(LINGER)

    def _failed(self, code: str, provider: str, retry_after: float | None) -> float:
        """Tell of the failure and return the seconds to wait."""
        self._failures += 1
        self._size = max(1, self._size // 2)
        if self._failures == 1:
            _log.warning("mirror: %s failed with %s; entries wait in the journal and are tried again", provider, code)
        self._journal.tell("error", code)
        self._journal.tell("error_of", provider)
        self._journal.tell("error_at", datetime.now(UTC).isoformat())
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self._failures, 16))
        return max(uniform(longest / 2, longest), retry_after or 0.0)  # noqa: S311  # jitter need not be secret

    def _recovered(self) -> None:
        if self._failures:
            self._failures = 0
            self._journal.tell("error", None)
            _log.warning("mirror: %s takes entries again", self._mirror.name)

    async def _open(self) -> Target:
        if self._target is None:
            await bounded("capabilities", self._mirror.open())
            self._target = await target(self._mirror, self._journal, self._primary.name)
        return self._target

    async def _apply_all(self) -> None:
        target = await self._open()
        while entries := await self._journal.batch(self._size):
            await self._apply(target, entries)
            self._journal.remove([entry.seq for entry in entries])
            self._recovered()
            self._size = min(BATCH, self._size * 2)

    async def _apply(self, target: Target, entries: Sequence[Entry]) -> None:
        ids: dict[str, str | None] = {}
        users: dict[str, None] = {}
        for entry in entries:
            user = entry.user_id
            if entry.kind == "user" or (found := await self._id(entry)) is None:
                users[user or ""] = None
            else:
                if user is not None and ids.get(found) not in (None, user):
                    # It was deleted, and restored for another user, whom the mirror would refuse it before.
                    await self._transfer(target, {found: ids.pop(found)})
                ids[found] = user or ids.get(found)
        await self._transfer(target, ids)
        for user in users:
            await self._match(target, user)

    async def _id(self, entry: Entry) -> str | None:
        """Return the id of the record that an entry is about; None where any of the user's may be."""
        if entry.kind == "record":
            return entry.ref
        user = entry.user_id or ""
        try:
            if entry.kind == "key":
                return (await bounded("get", self._primary.get_by_key(KeyRef(user_id=user, key=entry.ref)))).id
            # A key that the client made is the record's id, where the store has ids of its own.
            return (await bounded("get", self._primary.get(RecordRef(id=entry.ref, user_id=user)))).id
        except NotFoundError:
            return None

    async def _match(self, target: Target, user: str) -> None:
        """Bring what the mirror lacks of the user's records, and remove there what the primary does not have."""
        here = {record.id async for record in pages(self._primary, user)}
        there = await target.ids(user)
        wrong = sorted(here ^ there.keys())
        for start in range(0, len(wrong), BATCH):
            await self._transfer(target, dict.fromkeys(wrong[start : start + BATCH], user))

    async def _transfer(self, target: Target, ids: dict[str, str | None]) -> None:
        states = await self._read(ids)
        for record in [record for record in states.values() if record is not None]:
            for id in record.supersedes:  # which the record changed too
                if id not in states:
                    ids[id] = record.user_id
        states |= await self._read({id: user for id, user in ids.items() if id not in states})
        while states:
            await self._write(target, states, ids)
            now = await self._read({id: ids[id] for id in states})
            states = {id: state for id, state in now.items() if state != states[id]}

    async def _write(self, target: Target, states: dict[str, MemoryRecord | None], ids: dict[str, str | None]) -> None:
        gone = [id for id, state in states.items() if state is None]
        # First: a key is free only when the record that bore it is gone.
        for id in gone:
            await self._remove(target, id, ids[id])
        there = [record for record in states.values() if record is not None]
        try:
            refused = await target.write(there) if there else {}
        except _OUTAGES:
            raise
        except OpenProtoError as error:
            if len(there) > 1:
                for record in there:  # one of them is at fault
                    await self._write(target, {record.id: record}, ids)
                there, refused = [], {}
            elif self._may_try_again(there[0]):
                raise
            else:
                refused = {there[0].id: error.code}
        for record in there:
            if (code := refused.get(record.id)) is None:
                self._attempts.pop(record.id, None)
            elif code in _PERHAPS_SOON and self._may_try_again(record):
                bearer = await target.bearer(record)  # which may have been changed or removed without an entry here
                self._journal.append([Reference("record", record.user_id, bearer)] if bearer else [])
                self._journal.postpone(Reference("record", record.user_id, record.id))
            else:
                _log.warning("mirror: %s refuses a record (%s); id %s", self._mirror.name, code, record.id)
                self._journal.refuse(record.id, record.user_id, code)
        done = [record.id for record in there if record.id not in refused]
        self._journal.accept([*done, *gone])
        self._journal.count("applied", len(done) + len(gone))

    async def _remove(self, target: Target, id: str, user: str | None) -> None:
        """Remove a record at the mirror; what it had released before it was deleted becomes current there too."""
        named = await target.named_by(id, user)
        states = (await self._read(dict.fromkeys(named, user))).values()
        there = [state for state in states if state is not None]
        await target.remove(id, user, release=all(state.superseded_by != id for state in there))
        self._journal.append(Reference("record", state.user_id, state.id) for state in there)

    def _may_try_again(self, record: MemoryRecord) -> bool:
        self._attempts[record.id] += 1
        if self._attempts[record.id] < ATTEMPTS:
            return True
        del self._attempts[record.id]
        return False

    async def _read(self, ids: dict[str, str | None]) -> dict[str, MemoryRecord | None]:
        async def read(id: str) -> MemoryRecord | None:
            try:
                return await bounded("get", self._primary.get(RecordRef(id=id, user_id=ids[id])))
            except NotFoundError:
                return None

        return dict(zip(ids, await gather_bounded(map(read, ids), limit=_READS_AT_ONCE), strict=True))

    async def _compare_all(self) -> None:
        while self._samples and not self._journal.backlog:
            record = self._samples.popleft()
            now = (await self._read({record.id: record.user_id}))[record.id]
            fields = await (await self._open()).compare(now) if now is not None else []
            again = (await self._read({record.id: record.user_id}))[record.id]
            if now is None or again != now or self._journal.backlog:
                continue  # it was changed meanwhile
            self._journal.count("samples")
            if fields:
                self._journal.count("differences")
                names = ", ".join(fields)
                _log.warning("mirror: %s differs in %s; id %s", self._mirror.name, names, record.id)
        self._samples.clear()
        await self._journal.commit()
