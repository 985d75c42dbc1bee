"""`Bench`: what a case works at, on one face: opened clients, invented users, and measurements."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

from openproto import AsyncMemory, Capabilities, Memory, MemoryRecord, OpenProtoError, Provider
from openproto_conformance import outside
from openproto_conformance.backend import Backend
from openproto_conformance.checks import Violation, ensure
from openproto_conformance.faces import AwaitableMemory, Face
from openproto_conformance.loops import sync_loop

Records: TypeAlias = list[MemoryRecord]

SYNC_CALLERS = 32
USER_ID_BYTES = 10
RETURN_WITHIN = 0.5  # PROTOCOL 4.4: when a connection must be back in its pool
CALL_WITHIN = 20.0
_INGESTED_WITHIN = 60.0  # thousands of memories, each asked for; a case has a deadline of its own
CLOSE_WITHIN = 2.0


class Bench:
    """Everything that one case on one face uses; it closes all of it."""

    def __init__(self, backend: Backend, case: str, face: Face, *, quick: bool, seed: int = 0) -> None:
        self.backend = backend
        self.face: Face = face
        self.quick = quick
        self.seed = seed
        self.random = random.Random(f"{seed} {case} {face}")  # noqa: S311 - repeatable on purpose, and no secret
        self.measures: dict[str, float] = {}
        self.lacking: set[str] = set()
        """The hooks that the case would have used, and that neither the suite has nor anything outside replaces."""
        self._users: dict[str, str] = {}
        self._opened: list[tuple[AsyncMemory, Provider]] = []
        self._threads = ThreadPoolExecutor(SYNC_CALLERS, thread_name_prefix="openproto-caller")

    async def __aenter__(self) -> Self:
        try:
            self.client = await self.open()
            self.capabilities: Capabilities = await self.client.capabilities()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._check_connections()
        finally:
            await self._close()

    def user(self, name: str = "ann") -> str:
        """Return a user id that nobody else has; the same name gives the same user within a case.

        The id says nothing about the case or the name: a provider must not be able to behave while it is watched.
        """
        return self._users.setdefault(name, secrets.token_hex(USER_ID_BYTES))

    def supported(self, **fields: Any) -> dict[str, Any]:
        """Return `fields` without the scope, where the provider does not declare scopes."""
        if self.capabilities.features.scopes == "none":
            fields.pop("scope", None)
        return fields

    def size(self, full: int, quick: int) -> int:
        """Return how much of something to use."""
        return quick if self.quick else full

    def measure(self, name: str, value: float) -> None:
        """Report a figure; of several, the largest."""
        self.measures[name] = round(max(value, self.measures.get(name, value)), 3)

    def build(self, provider: Provider | None = None, **options: Any) -> AsyncMemory:
        """Return an unopened client of this face on a new provider, or on `provider`."""
        options = {"timeout": CALL_WITHIN * self.backend.patience, "close_timeout": CLOSE_WITHIN} | options
        provider = provider or self.backend.provider()
        if self.face == "async":
            client = AsyncMemory(provider, **options)
        else:
            client = cast(AsyncMemory, AwaitableMemory(Memory(provider, **options), self._threads))
        self._opened.append((client, provider))
        return client

    async def open(self, provider: Provider | None = None, **options: Any) -> AsyncMemory:
        """Return an opened client of this face; the bench closes it."""
        client = self.build(provider, **options)
        if isinstance(client, AwaitableMemory):
            await client._run(client.memory.__enter__)
        else:
            await client.__aenter__()
        return client

    def provider_of(self, client: AsyncMemory) -> Provider:
        """Return the provider that `client` was built on."""
        return next(provider for known, provider in self._opened if known is client)

    def forget(self, client: AsyncMemory) -> Provider:
        """Leave `client` unclosed and return its provider, which the case must `release`."""
        entry = next(entry for entry in self._opened if entry[0] is client)
        self._opened.remove(entry)
        return entry[1]

    async def release(self, provider: Provider) -> None:
        """Close a provider whose client is gone, on the loop that it lived on."""
        if self.face == "async":
            await provider.close()
        else:
            closing = asyncio.run_coroutine_threadsafe(provider.close(), sync_loop())
            await asyncio.wrap_future(closing)

    async def add(self, content: str, *, user_id: str, **fields: Any) -> MemoryRecord:
        """Add a memory and wait until the backend has indexed it."""
        return await self.indexed(await self.client.add(content, user_id=user_id, **fields))

    async def add_many(self, items: Sequence[Mapping[str, Any]]) -> Records:
        """Add memories of one user, each of which must be stored, and wait until they are indexed."""
        records: Records = []
        for outcome in await self.client.add_many(items):
            if isinstance(outcome, OpenProtoError):
                raise Violation(f"add_many refused a valid item: {outcome.code}: {outcome}") from outcome
            records.append(outcome)
        if any(record.status in ("queued", "indexing") for record in records):
            ids = [record.id for record in records]
            patience = _INGESTED_WITHIN * self.backend.patience
            return await self.client.wait_for_ingest(ids, records[0].user_id, timeout=patience)
        return records

    async def indexed(self, record: MemoryRecord, client: AsyncMemory | None = None) -> MemoryRecord:
        """Return the record once it can be searched, by the client given."""
        if record.status not in ("queued", "indexing"):
            return record
        (record,) = await (client or self.client).wait_for_ingest([record.id], record.user_id)
        return record

    async def inventory(self, user_id: str, **filters: Any) -> Records:
        """Return everything that `list` holds for the user."""
        return [record async for record in self.client.iter(user_id, page_size=500, **filters)]

    async def found(self, query: str, user_id: str, **options: Any) -> list[str]:
        """Return the ids that `search` answers with."""
        return [hit.memory.id for hit in await self.client.search(query, user_id, **{"limit": 100, **options})]

    @contextlib.contextmanager
    def backend_stalled(self) -> Iterator[bool]:
        """Hold the backend up inside, where the suite's author gave a way to; yield whether it is held up."""
        stalled = self.backend.stalled() or outside.stalled(self.provider_of(self.client))
        if stalled is None:
            self.lacking.add("stalled")
        with stalled if stalled is not None else contextlib.nullcontext():
            yield stalled is not None

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Return whether `condition()` comes to hold within `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    async def comes_to_hold(self, check: Callable[[], Awaitable[None]]) -> None:
        """Run `check` until it passes: what a cancellation stops in the backend may take half a second to end."""
        deadline = asyncio.get_running_loop().time() + RETURN_WITHIN
        while True:
            try:
                return await check()
            except Violation:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(0.02)

    async def unreachable(self) -> Callable[[], Provider] | None:
        """Return what makes providers whose backend cannot be reached; None where there is no way to."""
        if (known := self.backend.unreachable()) is not None:
            return lambda: self.backend.unreachable() or known
        if (made := outside.unreachable(self.backend.provider())) is not None:
            try:
                await self.build(made, timeout=CALL_WITHIN, retries=0).capabilities()
            except Exception:  # that it fails is wanted; how, the case that asks for it judges
                return lambda: outside.unreachable(self.backend.provider()) or made
        self.lacking.add("unreachable")
        return None

    @property
    def calls_ended(self) -> int:
        """How many calls of this bench's clients have ended."""
        faces = (client.memory if isinstance(client, AwaitableMemory) else client for client, _ in self._opened)
        return sum(client.stats().calls for client in faces)

    async def _check_connections(self) -> None:
        for _, provider in self._opened:
            back = await self.until(lambda provider=provider: not self.backend.busy(provider), RETURN_WITHIN)  # type: ignore[misc]
            ensure(back, f"{self.backend.busy(provider)} connections are still in use after the last call ended")

    async def _close(self) -> None:
        try:
            for client, _ in reversed(self._opened):
                with contextlib.suppress(RuntimeError):  # a case may have bound a client to another loop
                    await client.close()
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
