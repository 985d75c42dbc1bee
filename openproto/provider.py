"""What a backend implements: an async class with the verbs it has.

A provider is constructed cheaply (it stores its options and nothing else), opened by the client before the first verb,
and closed once. Its verbs receive validated requests and answer with the protocol's models. Three sentences hold for
every verb, and the conformance suite tries them:

*Prompt* — a cancelled verb ends in CancelledError, and soon.
*Whole or absent* — a cancelled write is applied entirely or not at all; repeating it under its idempotency key is safe.
*Usable* — the next call works, and nothing is left running but an SDK call that cannot be stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from openproto.context import TokenCounter, fill_context
from openproto.errors import NotFoundError, OpenProtoError, ProviderUnavailableError, UnsupportedCapabilityError
from openproto.fanout import gather_bounded
from openproto.ids import new_id, unique_token
from openproto.models import (
    OPERATIONS,
    VERBS,
    AuditEntry,
    Cancellation,
    Capabilities,
    ContextBlock,
    MemoryPage,
    MemoryRecord,
    Operation,
    PutResult,
    RestoreOutcome,
    ScopeCount,
    SearchResult,
    Snapshot,
    SupportDetails,
    UserPage,
    UserPart,
    Verb,
)
from openproto.requests import (
    MAX_LIST_LIMIT,
    AuditQuery,
    ContextQuery,
    Filters,
    KeyRef,
    ListQuery,
    MemoryInput,
    MemoryUpdate,
    RecordRef,
    ScopesQuery,
    SearchQuery,
    UsersQuery,
)

Outcome: TypeAlias = MemoryRecord | OpenProtoError
SearchResults: TypeAlias = list[SearchResult]
AuditEntries: TypeAlias = list[AuditEntry]
Outcomes: TypeAlias = list[Outcome]
ScopeCounts: TypeAlias = list[ScopeCount]
RestoreOutcomes: TypeAlias = list[RestoreOutcome]
_Verbs: TypeAlias = list[Verb | str]


_WRITES_AT_ONCE = 16


class Call(NamedTuple):
    """The call in progress, for audit entries and logs: which verb the caller used, for which app, under which id."""

    verb: Verb
    request_id: str
    app: str | None = None
    is_retry: bool = False
    """Whether the provider has been asked the very same before, and may have done it although it failed to say so."""


current_call: ContextVar[Call] = ContextVar("openproto_call")


class Origin(NamedTuple):
    """The request that a server is answering: its id, and the app that sent it where that is known."""

    request_id: str
    app: str | None = None


current_origin: ContextVar[Origin | None] = ContextVar("openproto_origin", default=None)
"""Set by a server, so that the calls made while it answers are recorded under the request's own id and app."""


def new_request_id() -> str:
    """Return a name for a request, unlike any other."""
    return unique_token(64)


def begin_call(verb: Verb, app: str | None) -> Call:
    """Return the call that a client begins, under the id and the app of the request that a server is answering."""
    origin = current_origin.get()
    return Call(verb, new_request_id(), app) if origin is None else Call(verb, origin.request_id, origin.app or app)


class GeneratedKey(str):
    """An idempotency key that the client made itself: only a retry of the very same call repeats it.

    It is a fresh id of the user's as `openproto.ids` makes them. A store that takes it for the record's own needs no
    other note of it: that no two records have one id makes repeating the write safe.
    """

    __slots__ = ()


def generated_key(user_id: str) -> GeneratedKey:
    """Return a key for an `add` to which its caller gave none."""
    return GeneratedKey(new_id(user_id))


def is_fresh(key: str, call: Call | None = None) -> bool:
    """Say whether nothing can be written under `key` yet: the client made it, for a call that is not a retry."""
    call = call or current_call.get(None)
    return isinstance(key, GeneratedKey) and call is not None and not call.is_retry


def count_scopes(found: Iterable[tuple[str, int]], depth: int | None) -> ScopeCounts:
    """Return each scope, cut to `depth` segments where that is given, with the sum of its records, in order."""
    counts: Counter[str] = Counter()
    for scope, records in found:
        counts["/".join(scope.split("/")[:depth])] += records
    return [ScopeCount(scope=scope, records=counts[scope]) for scope in sorted(counts)]


class KeyedInput(NamedTuple):
    """A memory to add and the idempotency key that makes adding it twice the same as once."""

    item: MemoryInput
    idempotency_key: str


class ReindexProgress(NamedTuple):
    """How far a re-embedding is: `done` of `total` records carry the new model's vectors."""

    done: int
    total: int


class Provider:
    """The base of every backend: verbs refuse, helpers are built from verbs; override what the backend has.

    A verb that is overridden is declared; one that is not raises `UnsupportedCapabilityError` before any I/O.
    """

    name: str = "provider"
    cancellation: Cancellation = "detached"
    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that the provider imports when it opens; the registry checks that they are installed."""

    on_duplicate: ClassVar[bool] = False
    """Whether `add` and `add_many` do what an input's `on_duplicate` asks for (`openproto.stores.duplicates`)."""

    explain: ClassVar[bool] = False
    """Whether `search` says what each score is made of, where the query asks for it (`SearchResult.parts`)."""

    _own_verbs: ClassVar[frozenset[Verb]] = frozenset({"capabilities"})
    _own_operations: ClassVar[frozenset[Operation]] = frozenset()
    _made_of: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Return the provider, which remembers its options for `fresh`."""
        made = super().__new__(cls)
        made._made_of = (args, options)
        return made

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        verbs: set[Verb] = {verb for verb in VERBS if getattr(cls, verb) is not getattr(Provider, verb)}
        verbs.add("capabilities")
        if "search" in verbs:
            verbs.add("context")
        cls._own_verbs = frozenset(verbs)
        methods: dict[Operation, str] = {"key": "get_by_key", "version": "put"}
        cls._own_operations = frozenset(
            operation
            for operation in OPERATIONS
            if getattr(cls, methods.get(operation, operation))
            is not getattr(Provider, methods.get(operation, operation))
            or (operation == "scopes" and "list" in verbs)
        )

    async def open(self) -> None:
        """Acquire what the verbs need; raise a typed error that says in words why it cannot be had."""

    async def close(self) -> None:
        """Release everything; calls still running may fail. May be called twice, and after a failed open."""

    def fresh(self) -> Self:
        """Return an unopened provider with the same options, which a forked child opens in place of its parent's."""
        args, options = self._made_of
        return type(self)(*args, **options)

    @property
    def verbs(self) -> frozenset[Verb]:
        """The verbs that this provider has."""
        return self._own_verbs

    @property
    def operations(self) -> frozenset[Operation]:
        """What this provider has beyond its verbs; the client refuses what is not among them before it opens.

        A provider that overrides `get_by_key` has keys, and one that overrides `put` has versions.
        """
        return self._own_operations

    def lacking(self, item: MemoryInput) -> Operation | None:
        """Return what the input needs and this provider does not have."""
        return next((operation for operation in item.needs if operation not in self.operations), None)

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store `item`; the same key and item again return the first record, another item is a ConflictError."""
        raise self.unsupported("add")

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record, or raise NotFoundError."""
        raise self.unsupported("get")

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Apply `changes` and return the record as it is then, or raise NotFoundError.

        With `ref.if_version`, raise ConflictError unless that is the record's version; compared with the change itself.
        """
        raise self.unsupported("update")

    async def delete(self, ref: RecordRef) -> None:
        """Remove the record for good, or raise NotFoundError; ConflictError where `ref.if_version` is stale."""
        raise self.unsupported("delete")

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return a page of the user's records, newest first."""
        raise self.unsupported("list")

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the user's current records that answer the query, best first."""
        raise self.unsupported("search")

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Return a context block of the best memories; built on `search` and `list` unless the backend has its own."""
        if "list" not in self.verbs:
            return await fill_context(query, count_tokens, self.search, None)
        # Without validity and supersession every record is current, and no moment can be asked for.
        temporal = (await self.capabilities()).features.temporal
        return await fill_context(query, count_tokens, self.search, self.list, temporal=temporal)

    async def audit(self, query: AuditQuery) -> AuditEntries:
        """Return who did what to the user's memories, newest first."""
        raise self.unsupported("audit")

    async def capabilities(self) -> Capabilities:
        """Return what this provider declares."""
        verbs: _Verbs = [verb for verb in VERBS if verb in self.verbs]
        return Capabilities(provider=self.name, verbs=verbs, x_openproto=SupportDetails(cancellation=self.cancellation))

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Store each item on its own, several at once, and return the outcomes in order; or in one round trip."""
        decides = any(item.on_duplicate != "keep" for item, _ in items)
        keys = Counter(key for item, key in items) + Counter(item.key for item, _ in items if item.key is not None)
        outcomes: dict[int, Outcome] = {}

        async def add_in_turn(numbers: Sequence[int]) -> None:
            for number in numbers:
                try:
                    outcomes[number] = await self.add(items[number].item, idempotency_key=items[number].idempotency_key)
                except OpenProtoError as error:
                    outcomes[number] = error

        # Those that share a key with another one, of either kind, or supersede, in their order: the first one wins.
        # Which of them say the same is not known here.
        groups: list[list[int]] = [[]]
        for number, (item, key) in enumerate(items):
            if decides or item.supersedes or keys[key] > 1 or (item.key is not None and keys[item.key] > 1):
                groups[0].append(number)
            else:
                groups.append([number])
        await gather_bounded(map(add_in_turn, groups), limit=_WRITES_AT_ONCE)
        return [outcomes[number] for number in range(len(items))]

    async def add_as_batch(self, item: MemoryInput, idempotency_key: str) -> MemoryRecord:
        """Add one item by `add_many`: for `add` to call where that is the better way."""
        (outcome,) = await self.add_many([KeyedInput(item, idempotency_key)])
        if isinstance(outcome, OpenProtoError):
            raise outcome
        return outcome

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the user's record of that key, or raise NotFoundError."""
        raise self.unsupported("key")

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Write the record of `item.key`: create it, or replace all its fields and keep its id and `created_at`.

        One atomic step. ConflictError where `if_version` is neither its version nor, where there is none, "absent".
        """
        raise self.unsupported("put")

    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        """Return the scopes in use at or beneath the prefix, in order, each with its number of records."""
        listing = ListQuery(user_id=query.user_id, scope=query.prefix, limit=MAX_LIST_LIMIT)
        found: list[tuple[str, int]] = []
        more = True
        while more:
            page = await self.list(listing)
            found += [(record.scope, 1) for record in page.items if record.scope is not None]
            listing = listing.model_copy(update={"cursor": page.next_cursor})
            more = page.next_cursor is not None
        return count_scopes(found, query.depth)

    async def users(self, query: UsersQuery) -> UserPage:
        """Return a page of the ids of the users that have records, in order."""
        raise self.unsupported("users")

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Write the records as they are and return what became of each, in order.

        Ids, moments, supersession, and keys are kept. An id that the user has already is left alone ("exists"); one
        of another user, a key in use, and what the store cannot keep are "refused".
        """
        raise self.unsupported("restore")

    def snapshot(self, *, vectors: bool) -> AbstractAsyncContextManager[Snapshot]:
        """Return all that the store holds, for a backup, with the records' vectors if they are wanted."""
        raise self.unsupported("snapshot")

    async def load(
        self, parts: Sequence[UserPart], *, model: str | None, app: str | None, include_deleted: bool
    ) -> RestoreOutcomes:
        """Write parts of a snapshot, whole or not at all, and return what became of each record, in order.

        What is there already stays. A record that its user deleted here is left out unless `include_deleted` brings it
        back. Vectors are taken over where they are of the store's own model, and made anew otherwise.
        """
        raise self.unsupported("load")

    async def delete_all(self, filters: Filters) -> int:
        """Remove every record that the filters select and return how many there were."""
        deleted = 0
        query = ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=MAX_LIST_LIMIT)
        while (page := await self.list(query)).items:
            deleted += sum(await gather_bounded(map(self._has_deleted, page.items), limit=_WRITES_AT_ONCE))
        return deleted

    async def _has_deleted(self, record: MemoryRecord) -> bool:
        try:
            await self.delete(RecordRef(id=record.id, user_id=record.user_id))
        except NotFoundError:  # somebody else was faster
            return False
        return True

    async def health(self) -> None:
        """Return if the backend answers now; raise the typed error that says why not otherwise."""
        await self.capabilities()

    async def describe(self) -> dict[str, str]:
        """Return, of an open provider, what an operator wants to know of it by name: where it is, which versions."""
        return {}

    async def reindex(self, report: Callable[[ReindexProgress], None]) -> None:
        """Give every record the vectors of the provider's configured embedder, online and resumable."""
        raise self.unsupported("reindex")

    async def index_user(self, user_id: str, report: Callable[[ReindexProgress], None], *, drop: bool) -> float | None:
        """Make or drop an index for one user's searches, online; return its recall, measured on the user's own data."""
        raise self.unsupported("index_user")

    def schema_script(self, *, distribute: bool = False) -> str:
        """Return the SQL that makes the provider's tables, for a database owner to run.

        With `distribute` it also spreads them over the servers of a cluster.
        """
        raise self.unsupported("schema_script")

    def closed_meanwhile(self) -> ProviderUnavailableError:
        """Return the error for a call that was running when the client was closed."""
        return ProviderUnavailableError(
            "the client was closed while this call was running; use an open one", provider=self.name
        )

    def not_open(self) -> RuntimeError:
        """Return the error for a verb of a provider that was never opened."""
        return RuntimeError(
            f"the {self.name} provider is not open: await its open() before the first verb, or use it through a client"
        )

    def unsupported(self, what: str) -> UnsupportedCapabilityError:
        """Return the error for something this provider does not have."""
        return UnsupportedCapabilityError(
            f"provider {self.name!r} does not support {what!r}; capabilities() lists what it has",
            provider=self.name,
        )
