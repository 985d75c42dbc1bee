"""Writing a package: everything that a store, or its verbs, give of its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from openproto import AsyncMemory, Provider, UnsupportedCapabilityError, __version__
from openproto.models import Snapshot, StoredRecord, UserPart
from openproto.portable.package import End, Manifest, Sink, Writer

MOST_ENTRIES = 1000
"""Audit entries that the verb gives of a user."""

_ALWAYS = ["records", "keys", "supersession", "audit entries"]


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
    holding, manifest = _source(memory, provider, users=sorted(set(users)), vectors=vectors)
    async with holding as snapshot:
        manifest = manifest.model_copy(update={"model": snapshot.model})
        if snapshot.model is not None:
            manifest.holds.append("vectors")
        writer = Writer(sink, manifest)
        async for user in _each(manifest.users) if manifest.users != "all" else snapshot.users():
            writer.begin(user)
            async for part in snapshot.parts(user):
                writer.add(part)
                report(writer.records)
            writer.end()
        return manifest, writer.finish()


def _source(
    memory: AsyncMemory, provider: Provider, *, users: list[str], vectors: bool
) -> tuple[AbstractAsyncContextManager[Snapshot], Manifest]:
    about = Manifest(
        made_by=f"openproto {__version__}",
        provider=provider.name,
        made_at=datetime.now(UTC).isoformat(),
        users=users or "all",
        consistent=True,
        holds=[*_ALWAYS, "idempotency keys", "moments of handovers"],
        lacks=[],
        model=None,
    )
    try:
        return provider.snapshot(vectors=vectors), about
    except UnsupportedCapabilityError:
        lacks = ["idempotency keys", "moments of handovers", f"audit entries beyond a user's newest {MOST_ENTRIES}"]
        lacks += ["users without records"] if not users else []
        lacks += ["vectors"] if vectors else []
        return _listing(memory), about.model_copy(update={"consistent": False, "holds": [*_ALWAYS], "lacks": lacks})


@asynccontextmanager
async def _listing(memory: AsyncMemory) -> AsyncIterator[Snapshot]:
    yield _Listed(memory)


class _Listed:
    """What the verbs give, each page as of the moment when it was asked for."""

    def __init__(self, memory: AsyncMemory) -> None:
        self.model: str | None = None
        self._memory = memory

    async def users(self) -> AsyncIterator[str]:
        """Return the users that have records."""
        try:
            page = await self._memory.users()
        except UnsupportedCapabilityError as error:
            raise UnsupportedCapabilityError(
                "this provider does not list its users: name each of them with --user ID", provider=error.provider
            ) from None
        while True:
            for user in page.items:
                yield user
            if page.next_cursor is None:
                return
            page = await self._memory.users(cursor=page.next_cursor)

    async def parts(self, user_id: str) -> AsyncIterator[UserPart]:
        """Return the records and the newest audit entries."""
        try:
            entries = await self._memory.audit(user_id, limit=MOST_ENTRIES)
        except UnsupportedCapabilityError:
            entries = []
        async for record in self._memory.iter(user_id, page_size=500):
            yield UserPart(user_id, records=[StoredRecord(record=record)])
        yield UserPart(user_id, audit=entries[::-1])


async def _each(users: Sequence[str]) -> AsyncIterator[str]:
    for user in users:
        yield user
