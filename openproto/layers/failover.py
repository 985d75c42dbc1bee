"""Failover: reads go to a second provider while the first one is unavailable; writes never do.

What comes from the fallback says so: every record, page, context block, and count bears `x-fallback` with the
provider's name. An answer of the primary is an answer, "no such memory" included; only an outage, or no answer within
`after` seconds, leads to the fallback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, TypeAlias, TypeVar

from openproto.context import TokenCounter
from openproto.errors import OpenProtoError, ProviderTimeoutError, ProviderUnavailableError
from openproto.fanout import shielded
from openproto.layers.layer import Layer
from openproto.models import (
    ContextBlock,
    MemoryPage,
    MemoryRecord,
    Operation,
    Result,
    UserPage,
    Verb,
)
from openproto.provider import AuditEntries, Provider, ScopeCounts, SearchResults
from openproto.requests import (
    AuditQuery,
    ContextQuery,
    KeyRef,
    ListQuery,
    RecordRef,
    ScopesQuery,
    SearchQuery,
    UsersQuery,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R", bound=Result)
P = TypeVar("P", MemoryPage, UserPage)
Q = TypeVar("Q", ListQuery, UsersQuery)

_Answers: TypeAlias = list[R]
"""The class below has a verb of the builtin's name."""

FALLBACK = "x-fallback"
AFTER = 5.0
"""Seconds that the primary gets for a read."""

FAILURES = 3
"""How many reads in a row must find the primary unavailable before the next ones no longer ask it."""

PROBE_SECONDS = 5.0
"""How long the primary is left alone; then one read tries it again."""

_OUTAGES = (ProviderUnavailableError, ProviderTimeoutError)
_CURSOR = "fallback:"
"""Begins the cursors of pages that came from the fallback, since neither side could read the other's."""


class Breaker:
    """A circuit breaker: closed it lets calls through, open it does not, half open it lets one at a time.

    Written here because those on PyPI count a cancelled call as a failure or as a success; here it is neither.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are not let through."""
        return self._failures >= FAILURES

    def admits(self) -> bool:
        """Say whether a call may be made; whoever is told so says how it ended."""
        if not self.is_open:
            return True
        if self._is_probing or self._clock() < self._probe_at:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        """Close: the provider answers."""
        self._failures, self._is_probing = 0, False

    def failed(self) -> None:
        """Count an outage; the last of several opens the circuit, and one of a probe keeps it open."""
        self._failures += 1
        self._is_probing = False
        self._probe_at = self._clock() + PROBE_SECONDS

    def cancelled(self) -> None:
        """Let the next call probe, where this one did."""
        self._is_probing = False


class _Side:
    """A provider that may be opened late, by whichever call needs it first; all that need it share one opening."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.is_open = False
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if not self.is_open:
            await shielded(self.start())

    def start(self) -> asyncio.Task[None]:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="openproto-failover-open")
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._opening

    async def close(self) -> None:
        opening, self._opening, self.is_open = self._opening, None, False
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        await self.provider.close()

    async def _open(self) -> None:
        await self.provider.open()
        self.is_open = True


class FailingOver(Layer):
    """`inner`, whose reads `fallback` answers while it is unavailable."""

    def __init__(self, inner: Provider, fallback: Provider, /, *, after: float = AFTER) -> None:
        self._primary = _Side(inner)
        self._fallback = _Side(fallback)
        self._breaker: Breaker | None = None
        self._reopening: asyncio.Task[None] | None = None
        super().__init__(inner)
        if not after > 0:
            raise ValueError("after in fallback= is a number of seconds, and must be larger than 0")
        self._after = after

    @property
    def inner(self) -> Provider:
        """The primary; ProviderUnavailableError while it could not be opened yet, which is what a write then gets."""
        if self._reopening is not None:
            raise self._unavailable("could not be opened yet, and nothing was written or asked; try again soon")
        return self._primary.provider

    @inner.setter
    def inner(self, inner: Provider) -> None:
        pass  # it is the primary's already

    def fresh(self) -> Self:
        """Return an unopened layer around fresh providers."""
        (inner, fallback), options = self._made_of
        return type(self)(inner.fresh(), fallback.fresh(), **options)

    @property
    def verbs(self) -> frozenset[Verb]:
        """The primary's verbs."""
        return self._primary.provider.verbs

    @property
    def operations(self) -> frozenset[Operation]:
        """What the primary has beyond its verbs."""
        return self._primary.provider.operations

    async def open(self) -> None:
        """Open the primary; where it is unavailable the fallback is enough to begin with."""
        self._breaker = Breaker(asyncio.get_running_loop().time)
        try:
            try:
                async with asyncio.timeout(self._after):
                    await self._primary.open()
                self._fallback.start()
            except (*_OUTAGES, TimeoutError):
                await self._fallback.open()
                self._reopening = asyncio.create_task(self._reopen(), name="openproto-failover")
                _log.warning("failover: %s cannot be opened; %s answers reads", self.name, self._fallback.provider.name)
            self.name = self._primary.provider.name
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close both."""
        reopening, self._reopening, self._breaker = self._reopening, None, None
        if reopening is not None:
            reopening.cancel()
            await asyncio.wait([reopening])
        try:
            await self._fallback.close()
        finally:
            await self._primary.close()

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record."""
        return await self._read("get", lambda p: p.get(ref), self._marked)

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the record of that key."""
        return await self._read("key", lambda p: p.get_by_key(ref), self._marked)

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return the page; later pages come from where the first one came from."""
        return await self._page("list", query, lambda p, q: p.list(q))

    async def users(self, query: UsersQuery) -> UserPage:
        """Return the page, likewise."""
        return await self._page("users", query, lambda p, q: p.users(q))

    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        """Return the counts."""
        return await self._read("scopes", lambda p: p.scopes(query), self._all_marked)

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the results."""

        def marked(found: SearchResults) -> SearchResults:
            return [hit.model_copy(update={"memory": self._marked(hit.memory)}) for hit in found]

        return await self._read("search", lambda p: p.search(query), marked)

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Return the context block."""
        return await self._read("context", lambda p: p.context(query, count_tokens), self._marked)

    async def audit(self, query: AuditQuery) -> AuditEntries:
        """Return the entries, which are those of the provider that answers."""
        return await self._read("audit", lambda p: p.audit(query), self._all_marked)

    async def _page(self, needs: Verb | Operation, query: Q, ask: Callable[[Provider, Q], Awaitable[P]]) -> P:
        cursor = query.cursor

        def marked(page: P) -> P:
            changes: dict[str, object] = {}
            if page.next_cursor is not None:
                changes["next_cursor"] = _CURSOR + page.next_cursor
            if isinstance(page, MemoryPage):
                changes["items"] = self._all_marked(page.items)
            return self._marked(page.model_copy(update=changes))

        if cursor is not None and cursor.startswith(_CURSOR):
            later = query.model_copy(update={"cursor": cursor.removeprefix(_CURSOR)})
            return marked(await self._ask_fallback(needs, lambda p: ask(p, later), None))
        return await self._read(needs, lambda p: ask(p, query), None if cursor is not None else marked)

    async def _read(
        self, needs: Verb | Operation, ask: Callable[[Provider], Awaitable[T]], marked: Callable[[T], T] | None
    ) -> T:
        """Return the primary's answer, or where it is unavailable the fallback's; without `marked`, nobody else's."""
        breaker = self._breaker
        if breaker is None:
            raise self.closed_meanwhile()
        outage: Exception | None = None
        if self._reopening is None and breaker.admits():
            was_open = breaker.is_open
            try:
                async with asyncio.timeout(self._after):
                    answer = await ask(self._primary.provider)
            except (*_OUTAGES, TimeoutError) as error:
                breaker.failed()
                outage = error
                if breaker.is_open and not was_open:
                    _log.warning("failover: %s is unavailable; %s answers", self.name, self._fallback.provider.name)
            except OpenProtoError:
                breaker.succeeded()  # a refusal is an answer too
                raise
            except BaseException:
                breaker.cancelled()
                raise
            else:
                breaker.succeeded()
                if was_open:
                    _log.warning("failover: %s answers again", self.name)
                return answer
        if marked is None:
            raise self._unavailable(
                "did not answer, and only it can go on with this listing; try again soon"
            ) from outage
        return marked(await self._ask_fallback(needs, ask, outage))

    async def _ask_fallback(
        self, needs: Verb | Operation, ask: Callable[[Provider], Awaitable[T]], outage: Exception | None
    ) -> T:
        fallback = self._fallback.provider
        if needs not in fallback.verbs | fallback.operations:
            raise self._unavailable(f"did not answer, and {fallback.name} has no {needs!r}; try again soon") from outage
        try:
            await self._fallback.open()
            return await ask(fallback)
        except (*_OUTAGES, TimeoutError) as error:
            raise self._unavailable(f"did not answer, and neither did {fallback.name}; try again soon") from error
        except OpenProtoError as error:
            error.provider = error.provider or fallback.name  # an error says whose it is, as an answer does
            raise

    async def _reopen(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                async with asyncio.timeout(self._after):
                    await self._primary.open()
            except Exception as error:
                _log.debug("failover: %s cannot be opened (%s)", self.name, type(error).__name__)
                continue
            self._reopening = None
            _log.warning("failover: %s answers again", self.name)
            return

    def _marked(self, answer: R) -> R:
        return answer.model_copy(update={FALLBACK: self._fallback.provider.name})

    def _all_marked(self, answers: Sequence[R]) -> _Answers[R]:
        return [self._marked(answer) for answer in answers]

    def _unavailable(self, what: str) -> ProviderUnavailableError:
        return ProviderUnavailableError(f"{self.name} {what}", provider=self.name)
