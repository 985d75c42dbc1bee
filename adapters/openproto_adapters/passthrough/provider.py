"""The passthrough provider: every verb is a request to an OMP server, and no answer is believed unchecked.

What the server does not declare is refused here, before any I/O. openproto's own routes, such as the one for batches,
are used where the server's capabilities carry `x-openproto`; with any other server the protocol's own do the work.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

from openproto.blocking.threads import Threads
from openproto.context import TokenCounter, estimate_tokens
from openproto.errors import (
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderUnavailableError,
    UnauthorizedError,
)
from openproto.fields import check_whole
from openproto.models import (
    OPERATIONS,
    VERBS,
    Cancellation,
    Capabilities,
    ContextBlock,
    MemoryPage,
    MemoryRecord,
    Operation,
    PutResult,
    Result,
    UserPage,
    Verb,
)
from openproto.provider import (
    AuditEntries,
    KeyedInput,
    Outcomes,
    Provider,
    RestoreOutcomes,
    ScopeCounts,
    SearchResults,
    current_call,
)
from openproto.requests import (
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
from openproto_adapters.passthrough import answers, wire
from openproto_adapters.passthrough.answers import Reply

if TYPE_CHECKING:
    from openproto_adapters.passthrough.transport import Http

R = TypeVar("R", bound=Result)

LARGE_ANSWER = 2**18
"""Bytes from which an answer is read in a thread: it would hold the loop up for milliseconds."""


class Passthrough(Provider):
    """The memories of an OMP server: openproto's own, or any other that speaks version 0.1.

    Args:
        base_url: Where the server is, such as `https://memory.example.com`; a path before the routes may be part of it.
        api_key: Sent as `Authorization: Bearer`, to this server alone: a redirect is an error and never followed.
        max_connections: Connections open at once; further calls wait their turn.

    Once open it bears the name of the provider behind the server, as its capabilities, errors, and warnings do.
    """

    name = "passthrough"
    cancellation: Cancellation = "native"
    requires: ClassVar[tuple[str, ...]] = ("httpx", "aiohttp", "httpx_aiohttp")

    def __init__(self, base_url: str, *, api_key: str | None = None, max_connections: int = 16) -> None:
        self._base_url = wire.checked_url(base_url)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.split() == [api_key]):
            raise ValueError("api_key must be visible ASCII characters, without spaces or line breaks")
        check_whole(max_connections=max_connections)
        self._api_key = api_key
        self._max_connections = max_connections
        self._headers = {
            b"accept": b"application/json",
            b"accept-encoding": b"gzip",
        }
        if api_key is not None:
            self._headers[b"authorization"] = f"Bearer {api_key}".encode()
        self._threads: Threads | None = None
        self._live_http: Http | None = None
        self._declared: Capabilities | None = None
        self._extended = False

    async def open(self) -> None:
        """Ask the server what it can do, and whether it accepts the key."""
        try:
            # The libraries take a tenth of a second to import, and the certificate authorities a while to read.
            self._threads = threads = Threads(1, "openproto-passthrough")
            transport = await threads(importlib.import_module, "openproto_adapters.passthrough.transport")
            tls = await threads(transport.tls_context, needed=self._base_url.startswith("https:"))
            self._headers[b"user-agent"] = transport.USER_AGENT
            self._live_http = transport.Http(self._base_url, tls, self._max_connections)
            self._declare(await self._parse(Capabilities, await self._send(wire.capabilities())))
            await self._check_key()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connections."""
        http, self._live_http = self._live_http, None
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.close()
        if http is not None:
            await http.close()

    @property
    def verbs(self) -> frozenset[Verb]:
        """What the server declares; every verb while it was not asked yet, and then the verb itself looks again."""
        if self._declared is None:
            return frozenset(VERBS)
        return frozenset(verb for verb in VERBS if verb in self._declared.verbs or verb == "capabilities")

    @property
    def operations(self) -> frozenset[Operation]:
        """What the server declares beyond its verbs; everything while it was not asked yet, as with `verbs`."""
        if self._declared is None:
            return frozenset(OPERATIONS)
        support = self._declared.x_openproto.support if self._knows_operations else {}
        counted = "list" in self.verbs  # scopes can be counted here
        return frozenset(
            operation
            for operation in OPERATIONS
            if support.get(operation, "none") != "none" or (operation == "scopes" and counted)
        )

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store the memory; a key that no header can hold travels in a batch of one."""
        self._check_declared("add", needs=self.lacking(item))
        if self._extended and not wire.in_header(idempotency_key):
            return await self.add_as_batch(item, idempotency_key)
        reply = await self._send(wire.add(item, idempotency_key))
        return answers.own(await self._parse(MemoryRecord, reply), item.user_id)

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Store up to 500 items a request; a request that is refused is the outcome of its own items alone."""
        self._check_declared("add")
        lacking = [self.lacking(item) for item, _ in items]
        if any(lacking):
            able = [keyed for keyed, lacks in zip(items, lacking, strict=True) if lacks is None]
            stored = iter(await self.add_many(able))
            return [next(stored) if lacks is None else self.unsupported(lacks) for lacks in lacking]
        outcomes: Outcomes = []
        for part, request in wire.batches(items):
            try:
                reply = await self._send_extension(request)
                outcomes += await (super().add_many(part) if reply is None else self._outcomes(part, reply))
            except OpenProtoError as error:
                if error.retryable:
                    raise
                outcomes += [error] * len(part)
        return outcomes

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record."""
        self._check_declared("get")
        reply = await self._send(wire.get(ref))
        return answers.own(await self._parse(MemoryRecord, reply), ref.user_id)

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Send the fields that were named, None as null."""
        self._check_declared("update", needs="version" if ref.if_version is not None else None)
        reply = await self._send(wire.update(ref, changes))
        return answers.own(await self._parse(MemoryRecord, reply), ref.user_id)

    async def delete(self, ref: RecordRef) -> None:
        """Remove the record."""
        self._check_declared("delete", needs="version" if ref.if_version is not None else None)
        await self._send(wire.delete(ref))

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the record of that key."""
        self._check_declared("get", needs="key")
        record = answers.own(await self._parse(MemoryRecord, await self._send(wire.get_by_key(ref))), ref.user_id)
        if record.key != ref.key:
            raise ProviderError("the server answered with a memory of another key, which was dropped; report it")
        return record

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Write the record of the key; the status says whether it is new."""
        self._check_declared("add", needs="put")
        reply = await self._send(wire.put(item, if_version))
        record = answers.own(await self._parse(MemoryRecord, reply), item.user_id)
        return PutResult(record=record, created=reply.status == wire.CREATED)

    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        """Return the server's counts, or count what it lists."""
        self._check_declared("list", needs="scopes")
        if not self._knows_operations:
            return await super().scopes(query)
        return (await self._parse(answers.Scopes, await self._send(wire.scopes(query)))).scopes

    async def users(self, query: UsersQuery) -> UserPage:
        """Return a page of the server's users."""
        self._check_declared("list", needs="users")
        return await self._parse(UserPage, await self._send(wire.users(query)))

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Restore as many records a request as a server takes."""
        self._check_declared("add", needs="restore")
        outcomes: RestoreOutcomes = []
        for part, request in wire.restorations(records):
            part_outcomes = (await self._parse(answers.RestoreResults, await self._send(request))).outcomes
            if [(each.id, each.user_id) for each in part_outcomes] != [(record.id, record.user_id) for record in part]:
                raise ProviderError("the server answered with outcomes of other records than were sent; report it")
            outcomes += part_outcomes
        return outcomes

    async def delete_all(self, filters: Filters) -> int:
        """Remove what the filters select: in one request, or record by record."""
        self._check_declared("delete")
        reply = await self._send_extension(wire.delete_all(filters))
        if reply is None:
            return await super().delete_all(filters)
        return (await self._parse(answers.Deleted, reply)).deleted

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return a page."""
        self._check_declared("list", tags=query.tags)
        page = await self._parse(MemoryPage, await self._send(wire.list_page(query)))
        for record in page.items:
            answers.own(record, query.user_id)
        if page.next_cursor is not None and page.next_cursor == query.cursor:
            raise ProviderError("the server answers a cursor with the same cursor, so that there is no end; report it")
        return page

    async def search(self, query: SearchQuery) -> SearchResults:
        """Search; the query stands in the URL only where the server takes it nowhere else."""
        self._check_declared("search", tags=query.tags)
        query = query if "explain" in self.operations else query.model_copy(update={"explain": False})
        reply = await self._send_extension(wire.search(query, in_body=True))
        if reply is None:
            reply = await self._send(wire.search(query, in_body=False))
        found = await self._parse(answers.Found, reply)
        for result in found.results:
            answers.own(result.memory, query.user_id)
        return found.results

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Let the server build the block; here where it must be counted or filled as only this client can."""
        self._check_declared("context", tags=query.tags)
        # Servers that know operations fill what the budget leaves; others return only what is relevant, and do not
        # know the word for it.
        fills = self._knows_operations
        if count_tokens is estimate_tokens and (fills or query.relevant_only):
            sent = query if fills else query.model_copy(update={"relevant_only": False})
            block = await self._parse(ContextBlock, await self._send(wire.context(sent)))
            if (count := count_tokens(block.text)) <= query.token_budget:
                return block.model_copy(update={"token_count": count})
        return await super().context(query, count_tokens)

    async def audit(self, query: AuditQuery) -> AuditEntries:
        """Return the server's entries."""
        self._check_declared("audit")
        entries = (await self._parse(answers.Entries, await self._send(wire.audit(query)))).entries
        if any(entry.user_id != query.user_id for entry in entries):
            raise answers.foreign()
        return entries

    async def capabilities(self) -> Capabilities:
        """Return what the server declared when the client opened."""
        if self._declared is None:
            raise self.closed_meanwhile()
        return self._declared

    async def health(self) -> None:
        """Ask the server, which asks its backend, and whether it still accepts the key."""
        await self._parse(answers.Alive, await self._send(wire.health()))
        await self._check_key()

    async def describe(self) -> dict[str, str]:
        """Return the server's address and the protocol's version there."""
        return {"server": self._base_url, "OMP": (await self.capabilities()).omp_version}

    async def _check_key(self) -> None:
        """Raise UnauthorizedError where the server refuses the key; every other refusal is left to the verbs.

        Capabilities and health are open to everybody. A record that does not exist is the cheapest thing that is not:
        a good key gets "not found", also one that is bound to users, and no store has a read to record.
        """
        if "get" in self.verbs:
            reply = await self._exchange(wire.no_record())
            if isinstance(error := self._refusal(reply), UnauthorizedError):
                raise error

    def _declare(self, declared: Capabilities) -> None:
        self._extended = "x_openproto" in declared.model_fields_set
        details = declared.x_openproto.model_copy(update={"cancellation": self.cancellation})
        self._declared = declared.model_copy(update={"x_openproto": details})
        self.name = declared.provider  # the class's until the server has given its own

    def _check_declared(self, verb: Verb, *, needs: Operation | None = None, tags: Sequence[str] = ()) -> None:
        """The client looks at `verbs` and `operations` before it opens, which is before the server was asked."""
        if verb not in self.verbs:
            raise self.unsupported(verb)
        if needs is not None and needs not in self.operations:
            raise self.unsupported(needs)
        if len(tags) > 1 and not self._extended:
            raise self.unsupported("several tags in one filter")

    @property
    def _knows_operations(self) -> bool:
        """Whether the server says of each operation how it stands; older ones of openproto's say nothing of keys."""
        declared = self._declared
        return self._extended and declared is not None and "key" in declared.x_openproto.support

    async def _send(self, request: wire.Request) -> Reply:
        """Return the answer to a request that succeeded, or raise what it was refused with."""
        return self._successful(request, await self._exchange(request))

    async def _send_extension(self, request: wire.Request) -> Reply | None:
        """Do the same on a route of openproto's own; None where the server has no such route."""
        if not self._extended:
            return None
        reply = await self._exchange(request)
        if reply.status in (404, 405):
            # A server that says of its operations how they stand has the route: the 404 is of something on the way.
            self._extended = self._knows_operations
            return None
        return self._successful(request, reply)

    def _successful(self, request: wire.Request, reply: Reply) -> Reply:
        if reply.status not in (request.success, request.also_success):
            raise self._refusal(reply)
        return reply

    def _refusal(self, reply: Reply) -> OpenProtoError:
        return answers.refusal(reply, self._base_url, self._api_key)

    async def _exchange(self, request: wire.Request) -> Reply:
        url, headers = self._base_url + request.path, {**self._headers, **request.headers}
        if len(url) > wire.LONGEST_URL:
            raise PayloadTooLargeError(
                "the request does not fit into a URL, and this server takes it in no other place"
            )
        if request.body is not None:
            if len(request.body) > wire.LARGEST_BODY:
                raise PayloadTooLargeError(
                    f"the request is larger than {wire.LARGEST_BODY >> 20} MiB: send less at a time"
                )
            headers[b"content-type"] = b"application/json"
        if call := current_call.get(None):
            headers[b"x-request-id"] = call.request_id.encode()
            if call.app is not None:
                headers[b"x-omp-app"] = wire.header_value(call.app)
        try:
            return await self._http.send(request.method, url, headers, request.body)
        except ProviderUnavailableError as error:
            if self._live_http is None:
                raise self.closed_meanwhile() from error
            raise

    async def _parse(self, model: type[R], reply: Reply) -> R:
        if len(reply.body) < LARGE_ANSWER or self._threads is None:
            return answers.parse(model, reply)
        return await self._threads(answers.parse, model, reply)

    async def _outcomes(self, part: Sequence[KeyedInput], reply: Reply) -> Outcomes:
        given = (await self._parse(answers.BatchOutcomes, reply)).outcomes
        if len(given) != len(part):
            raise ProviderError(f"the server answered with {len(given)} outcomes to {len(part)} items; add them again")
        outcomes: Outcomes = []
        for keyed, outcome in zip(part, given, strict=True):
            if outcome.memory is not None:
                outcomes.append(answers.own(outcome.memory, keyed.item.user_id))
            elif outcome.error is not None:
                outcomes.append(answers.from_fault(outcome.error, self._api_key))
            else:
                outcomes.append(ProviderError("the server does not say what became of this item; add it again"))
        return outcomes

    @property
    def _http(self) -> Http:
        if self._live_http is None:
            raise self.closed_meanwhile()
        return self._live_http
