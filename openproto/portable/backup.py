"""Writing a package: everything that a store, or its verbs, give of its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from openproto import AsyncMemory, AuditEntry, Provider, UnsupportedCapabilityError, __version__
from openproto.models import Snapshot, StoredRecord, UserPart
from openproto.portable.package import End, Manifest, Sink, Writer

MOST_ENTRIES = 1000
"""Audit entries that the verb gives of a user."""

_ALL = ("records", "keys", "supersession", "audit entries", "idempotency keys", "moments of handovers")


async def back_up(
    memory: AsyncMemory,
    provider: Provider,
    sink: Sink,
    *,
    users: Sequence[str],
    vectors: bool,
    report: Callable[[int], None],
) -> tuple[Manifest, End]:
    """Write what the open `provider`, which `memory` is a client of, holds of `users`, or of all where none are named.

    From a snapshot where the provider has one; otherwise by the verbs, one page after the other.
    """
    chosen = sorted(set(users))
    async with _source(memory, provider, vectors=vectors) as snapshot:
        lacks = [*snapshot.lacks, *_left_out(snapshot, everybody=not chosen, vectors=vectors)]
        manifest = Manifest(
            made_by=f"openproto {__version__}",
            provider=provider.name,
            made_at=datetime.now(UTC).isoformat(),
            users=chosen or "all",
            consistent=snapshot.consistent,
            holds=[what for what in _ALL if what not in lacks] + (["vectors"] if snapshot.model is not None else []),
            lacks=lacks,
            model=snapshot.model,
        )
        writer = Writer(sink, manifest)
        async for user in _each(chosen) if chosen else _users(snapshot):
            writer.begin(user)
            async for part in snapshot.parts(user):
                writer.add(part)
                report(writer.records)
            if not snapshot.consistent:
                writer.add(UserPart(user, audit=await _entries(memory, user)))
            writer.end()
        return manifest, writer.finish()


def _source(memory: AsyncMemory, provider: Provider, *, vectors: bool) -> AbstractAsyncContextManager[Snapshot]:
    try:
        return provider.snapshot(vectors=vectors)
    except UnsupportedCapabilityError:
        return _listing(memory)


def _left_out(snapshot: Snapshot, *, everybody: bool, vectors: bool) -> list[str]:
    if snapshot.consistent:
        return []
    lacks = [f"audit entries beyond a user's newest {MOST_ENTRIES}"]
    return lacks + (["users without records"] if everybody else []) + (["vectors"] if vectors else [])


@asynccontextmanager
async def _listing(memory: AsyncMemory) -> AsyncIterator[Snapshot]:
    yield _Listed(memory)


class _Listed(Snapshot):
    """What the verbs give, each page as of the moment when it was asked for."""

    def __init__(self, memory: AsyncMemory) -> None:
        self.model: str | None = None
        self.consistent = False
        self.lacks: Sequence[str] = ("idempotency keys", "moments of handovers")
        self._memory = memory

    async def users(self) -> AsyncIterator[str]:
        """Return the users that have records."""
        page = await self._memory.users()
        while True:
            for user in page.items:
                yield user
            if page.next_cursor is None:
                return
            page = await self._memory.users(cursor=page.next_cursor)

    async def records(self, user_id: str) -> AsyncIterator[Sequence[StoredRecord]]:
        """Return the records."""
        async for record in self._memory.iter(user_id, page_size=500):
            yield [StoredRecord(record=record)]

    async def parts(self, user_id: str) -> AsyncIterator[UserPart]:
        """Return the records, and nothing else."""
        async for records in self.records(user_id):
            yield UserPart(user_id, records=records)


async def _users(snapshot: Snapshot) -> AsyncIterator[str]:
    try:
        async for user in snapshot.users():
            yield user
    except UnsupportedCapabilityError as error:
        raise UnsupportedCapabilityError(
            "this provider does not list its users: name each of them with --user ID", provider=error.provider
        ) from None


async def _entries(memory: AsyncMemory, user: str) -> Sequence[AuditEntry]:
    try:
        return (await memory.audit(user, limit=MOST_ENTRIES))[::-1]
    except UnsupportedCapabilityError:
        return []


async def _each(users: Sequence[str]) -> AsyncIterator[str]:
    for user in users:
        yield user
