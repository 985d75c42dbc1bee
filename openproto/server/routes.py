"""The routes of PROTOCOL §5: each translates HTTP to one call of the client and back, and decides nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query
from pydantic import BaseModel
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from openproto import (
    AsyncMemory,
    Capabilities,
    ContextBlock,
    InvalidRequestError,
    MemoryPage,
    MemoryRecord,
    OpenProtoError,
    ProviderUnavailableError,
)
from openproto.models import UserPage
from openproto.provider import current_origin
from openproto.requests import build
from openproto.server.access import Caller
from openproto.server.http_errors import ErrorBody, envelope
from openproto.server.key_ring import KeyRing
from openproto.server.openapi import answers
from openproto.server.preconditions import etag_of, precondition, put_condition, wanted_version
from openproto.server.route import SERVICES, ProtocolRoute, Services
from openproto.server.wire import (
    AuditEntryList,
    AuditParams,
    Batch,
    BatchMemory,
    BatchOutcomes,
    Changes,
    ContextBody,
    Deleted,
    DeleteParams,
    KeyParams,
    ListParams,
    NewMemory,
    Outcome,
    Owner,
    PutMemory,
    Restoration,
    RestoreOutcomes,
    ScopeCounts,
    ScopesParams,
    SearchBody,
    SearchParams,
    SearchResults,
    ServerHealth,
    UsersParams,
    add_arguments,
    arguments,
)

HEALTH_TIMEOUT = 3.0
"""Seconds that a backend gets to say that it is well."""


class _RecordIdConvertor(Convertor[str]):
    """Ids are opaque and may hold slashes; the words that are routes are not ids."""

    regex = r"(?!(?:search|batch|by-key|restore)$)(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("record_id", _RecordIdConvertor())


async def _reader(request: Request) -> Caller:
    services: Services = request.scope[SERVICES]
    return await services.gate.admit(request)


async def _writer(request: Request) -> Caller:
    caller = await _reader(request)
    caller.require_write()
    return caller


async def _operator(request: Request) -> Caller:
    caller = await _reader(request)
    caller.require_all_users()
    return caller


def _memory(request: Request) -> AsyncMemory:
    services: Services = request.scope[SERVICES]
    return services.memory


def _keys(request: Request) -> KeyRing:
    services: Services = request.scope[SERVICES]
    return services.keys


Reader = Annotated[Caller, Depends(_reader)]
Writer = Annotated[Caller, Depends(_writer)]
Operator = Annotated[Caller, Depends(_operator)]
Memory = Annotated[AsyncMemory, Depends(_memory)]
Keys = Annotated[KeyRing, Depends(_keys)]
RecordId = Annotated[str, Path()]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
IfMatch = Annotated[str | None, Header(alias="If-Match")]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match")]

routes = APIRouter(route_class=ProtocolRoute)


# First, since the router asks one route after the other, and this is the one asked for most.
@routes.get("/memories/{id:record_id}", responses=answers(200, MemoryRecord, 404, etag=True))
async def get_memory(id: RecordId, caller: Reader, memory: Memory, owner: Annotated[Owner, Query()]) -> Response:
    """Return a memory; with `user_id`, only if it is that user's."""
    return _record(await caller.on_record(owner.user_id, lambda user_id: memory.get(id, user_id=user_id)))


@routes.post(
    "/memories",
    status_code=201,
    responses=answers(200, MemoryRecord, 404, 409, 413, 415, etag=True)
    | {201: answers(201, MemoryRecord, etag=True)[201]},
)
async def add_memory(
    caller: Writer, memory: Memory, item: Annotated[NewMemory, Body()], idempotency_key: IdempotencyKey = None
) -> Response:
    """Store a memory. The same `Idempotency-Key` again returns the first record and stores nothing new.

    With `on_duplicate`, 200 where nothing was stored, for the record that came back says the same already.
    """
    caller.require(item.user_id)
    record = await memory.add(**add_arguments(item), idempotency_key=idempotency_key)
    return _record(record, 201 if record.duplicate_of is None else 200)


@routes.put(
    "/memories",
    responses=answers(200, MemoryRecord, 404, 409, 412, 413, 415, etag=True)
    | {201: answers(201, MemoryRecord, etag=True)[201]},
)
async def put_memory(
    caller: Writer,
    memory: Memory,
    item: Annotated[PutMemory, Body()],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Write the memory of that `key`: a new one, or new values for all fields of the one there is.

    With `If-Match`, only if that is its version; with `If-None-Match: *`, only if there is none.
    """
    caller.require(item.user_id)
    version = put_condition(if_match, if_none_match)
    with precondition(version):
        record = await memory.put(**item.model_dump(exclude={"on_duplicate"}), if_version=version)
    return _record(record, 201 if record.updated_at is None else 200)


@routes.get("/memories/by-key", responses=answers(200, MemoryRecord, 404, etag=True))
async def get_memory_by_key(caller: Reader, memory: Memory, params: Annotated[KeyParams, Query()]) -> Response:
    """Return the user's memory of that key."""
    found = await caller.on_record(params.user_id, lambda user_id: memory.get(user_id=user_id, key=params.key))
    return _record(found)


@routes.post("/memories/restore", responses=answers(200, RestoreOutcomes, 413, 415))
async def restore_memories(caller: Operator, memory: Memory, body: Annotated[Restoration, Body()]) -> Response:
    """Write up to 500 memories as they are, with their ids, moments, supersession, and keys; for keys of all users."""
    caller.require_write()
    outcomes = await memory.restore(body.records)
    return _json(RestoreOutcomes.model_construct(outcomes=outcomes))


@routes.post("/memories/batch", status_code=207, responses=answers(207, BatchOutcomes, 413, 415))
async def add_memories(caller: Writer, memory: Memory, batch: Annotated[Batch, Body()]) -> Response:
    """Store up to 500 memories; each has its outcome, in order."""
    checked = [_checked(item, caller) for item in batch.items]
    stored = iter(await memory.add_many([item for item in checked if isinstance(item, dict)]))
    outcomes = [item if isinstance(item, OpenProtoError) else next(stored) for item in checked]
    return _json(BatchOutcomes.model_construct(outcomes=[_outcome(each) for each in outcomes]), 207)


@routes.get("/memories", responses=answers(200, MemoryPage))
async def list_memories(caller: Reader, memory: Memory, params: Annotated[ListParams, Query()]) -> Response:
    """Return a page of a user's memories, newest first."""
    caller.require(params.user_id)
    return _json(await memory.list(**arguments(params)))


@routes.delete("/memories", responses=answers(200, Deleted))
async def delete_memories(caller: Writer, memory: Memory, params: Annotated[DeleteParams, Query()]) -> Response:
    """Remove every memory of a user that the filters select."""
    caller.require(params.user_id)
    return _json(Deleted(deleted=await memory.delete_all(**arguments(params))))


@routes.get("/memories/search", responses=answers(200, SearchResults))
async def search_memories(caller: Reader, memory: Memory, params: Annotated[SearchParams, Query()]) -> Response:
    """Return a user's current memories that answer the query, best first."""
    return await _search(caller, memory, params)


@routes.post("/memories/search", responses=answers(200, SearchResults, 413, 415))
async def search_memories_privately(caller: Reader, memory: Memory, body: Annotated[SearchBody, Body()]) -> Response:
    """Search as `GET` does, with a query that stands in no URL and so in no log."""
    return await _search(caller, memory, body)


@routes.patch("/memories/{id:record_id}", responses=answers(200, MemoryRecord, 404, 409, 412, 413, 415, etag=True))
async def update_memory(
    id: RecordId,
    caller: Writer,
    memory: Memory,
    owner: Annotated[Owner, Query()],
    changes: Annotated[Changes, Body()],
    if_match: IfMatch = None,
) -> Response:
    """Change the members that the body names; null clears one. With `If-Match`, only if that is still its version."""
    named: dict[str, Any] = {**changes.changes, **changes.extensions}
    version = wanted_version(if_match)
    with precondition(version):
        record = await caller.on_record(
            owner.user_id, lambda user_id: memory.update(id, user_id=user_id, if_version=version, **named)
        )
    return _record(record)


@routes.delete("/memories/{id:record_id}", status_code=204, responses=answers(204, None, 404, 412))
async def delete_memory(
    id: RecordId,
    caller: Writer,
    memory: Memory,
    owner: Annotated[Owner, Query()],
    if_match: IfMatch = None,
) -> Response:
    """Remove a memory for good. With `If-Match`, only if that is still its version."""
    version = wanted_version(if_match)
    with precondition(version):
        await caller.on_record(owner.user_id, lambda user_id: memory.delete(id, user_id=user_id, if_version=version))
    return Response(status_code=204)


@routes.get("/scopes", responses=answers(200, ScopeCounts))
async def list_scopes(caller: Reader, memory: Memory, params: Annotated[ScopesParams, Query()]) -> Response:
    """Return the scopes that a user's memories are in, each with how many."""
    caller.require(params.user_id)
    return _json(ScopeCounts.model_construct(scopes=await memory.scopes(**params.model_dump())))


@routes.get("/users", responses=answers(200, UserPage))
async def list_users(caller: Operator, memory: Memory, params: Annotated[UsersParams, Query()]) -> Response:
    """Return a page of the ids of users that have memories; for keys of all users."""
    return _json(await memory.users(**params.model_dump()))


@routes.post("/context", responses=answers(200, ContextBlock, 413, 415))
async def build_context(caller: Reader, memory: Memory, body: Annotated[ContextBody, Body()]) -> Response:
    """Return the best memories as text for a prompt, at most `token_budget` tokens by the server's counter."""
    caller.require(body.user_id)
    return _json(await memory.context(**arguments(body)))


@routes.get("/audit", responses=answers(200, AuditEntryList))
async def list_audit(caller: Reader, memory: Memory, params: Annotated[AuditParams, Query()]) -> Response:
    """Return who did what to a user's memories, newest first."""
    caller.require(params.user_id)
    return _json(AuditEntryList.model_construct(entries=await memory.audit(**params.model_dump())))


@routes.get("/capabilities", responses=answers(200, Capabilities, open=True))
async def show_capabilities(memory: Memory) -> Response:
    """Return what the backend can do."""
    return _json(await memory.capabilities())


@routes.get("/healthz", responses=answers(200, ServerHealth, open=True))
async def show_health(memory: Memory, keys: Keys) -> Response:
    """Ask the backend whether it answers; 503 when it does not, or not soon. "degraded" where the server needs care."""
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT):
            health = await memory.health()
    except TimeoutError:
        raise ProviderUnavailableError(
            f"the backend did not answer within {HEALTH_TIMEOUT:g} s; try again soon"
        ) from None
    if health.status != "ok":
        raise ProviderUnavailableError(health.detail or "the backend does not answer", provider=health.provider)
    if keys.problem is not None:
        return _json(ServerHealth(status="degraded", provider=health.provider, detail="the file of API keys is broken"))
    return _json(ServerHealth(status="ok", provider=health.provider))


ROUTES: Sequence[ProtocolRoute] = [route for route in routes.routes if isinstance(route, ProtocolRoute)]


async def _search(caller: Caller, memory: AsyncMemory, wanted: SearchBody) -> Response:
    caller.require(wanted.user_id)
    return _json(SearchResults.model_construct(results=await memory.search(**arguments(wanted))))


def _checked(item: Any, caller: Caller) -> dict[str, Any] | OpenProtoError:
    """Return the arguments of `add` for an item of a batch, or what is wrong with it."""
    try:
        if not isinstance(item, dict):
            raise InvalidRequestError("an item of a batch must be a JSON object")
        checked = build(BatchMemory, **({"user_id": caller.only_user} if caller.only_user else {}) | item)
        caller.require(checked.user_id)
    except OpenProtoError as error:
        return error
    return add_arguments(checked)


def _outcome(outcome: MemoryRecord | OpenProtoError) -> Outcome:
    if isinstance(outcome, MemoryRecord):
        return Outcome.model_construct(status=201 if outcome.duplicate_of is None else 200, memory=outcome)
    origin = current_origin.get()
    outcome.request_id = origin and origin.request_id
    return Outcome(status=outcome.http_status, error=ErrorBody.model_validate(envelope(outcome)["error"]))


def _record(record: MemoryRecord, status: int = 200) -> Response:
    return Response(record.model_dump_json(), status, etag_of(record), "application/json")


def _json(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")
