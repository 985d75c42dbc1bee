"""What a server answers, read with suspicion: the model that was expected, or the typed error it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

from pydantic import Field, ValidationError

from openproto.errors import (
    ConflictError,
    IngestionTimeoutError,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
    UnsupportedCapabilityError,
)
from openproto.http_status import read_retry_after
from openproto.models import AuditEntry, MemoryRecord, RestoreOutcome, Result, ScopeCount, SearchResult

LONGEST_MESSAGE = 500

_BY_CODE: dict[str, type[OpenProtoError]] = {
    error.code: error
    for error in (
        UnauthorizedError,
        ScopeDeniedError,
        NotFoundError,
        InvalidRequestError,
        UnsupportedCapabilityError,
        ConflictError,
        PayloadTooLargeError,
        RateLimitedError,
        ProviderError,
        ProviderUnavailableError,
        ProviderTimeoutError,
        IngestionTimeoutError,
    )
}
_BY_STATUS: dict[int, type[OpenProtoError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    403: ScopeDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    413: PayloadTooLargeError,
    422: InvalidRequestError,
    429: RateLimitedError,
    503: ProviderUnavailableError,
    504: ProviderTimeoutError,
}


class Reply(NamedTuple):
    """An answer over HTTP: the body is whole, and decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class FaultDetails(Result):
    """openproto's own part of an error: what the Retry-After header rounds, in seconds."""

    retry_after: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Fault(Result):
    """What stands in an error envelope."""

    code: str
    message: str = ""
    provider: str | None = None
    request_id: str | None = None
    x_openproto: FaultDetails | None = Field(default=None, alias="x-openproto")


class Envelope(Result):
    """The answer of every call that failed."""

    error: Fault


class Found(Result):
    """The answer of a search."""

    results: list[SearchResult]


class Entries(Result):
    """The answer of an audit."""

    entries: list[AuditEntry]


class Outcome(Result):
    """What became of one item of a batch: its record, or else its error."""

    memory: MemoryRecord | None = None
    error: Fault | None = None


class BatchOutcomes(Result):
    """The answer to a batch, in the order of its items."""

    outcomes: list[Outcome]


class Scopes(Result):
    """The answer with the scopes in use."""

    scopes: list[ScopeCount]


class RestoreResults(Result):
    """The answer to a restoration, in the order of its records."""

    outcomes: list[RestoreOutcome]


class Alive(Result):
    """The answer of a server that is well."""


class Deleted(Result):
    """The answer of deleting by filter."""

    deleted: int = Field(ge=0)


R = TypeVar("R", bound=Result)


def parse(model: type[R], reply: Reply) -> R:
    """Return the answer as `model`, or raise ProviderError; what stands in it is never repeated."""
    try:
        return model.model_validate_json(reply.body)
    except ValidationError as error:
        kind = reply.headers.get("content-type", "no content type")[:100]
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        where = ".".join(str(part) for part in faults[0]["loc"])[:100]
        raise ProviderError(
            f"the server's answer ({reply.status}, {kind}) is not the protocol's {model.__name__}"
            + (f", at {where!r}" if where else "")
            + ": is base_url= the root of an OMP server?"
        ) from None


def refusal(reply: Reply, url: str, secret: str | None) -> OpenProtoError:
    """Return the error that a reply other than the expected one amounts to."""
    request_id = reply.headers.get("x-request-id", "")[:64] or None
    if 300 <= reply.status < 400:
        return ProviderError(_redirected(reply, url), request_id=request_id)
    if reply.status < 400:
        return ProviderError(
            f"the server answered with the unexpected status {reply.status}: is base_url= right?", request_id=request_id
        )
    retry_after = read_retry_after(reply.headers.get("retry-after", ""))
    try:
        fault = Envelope.model_validate_json(reply.body).error
    except ValidationError:
        kind = _BY_STATUS.get(reply.status, ProviderError)
        text = f"the server answered with status {reply.status} and no word why"
        return kind(text, request_id=request_id, retry_after=retry_after)
    return from_fault(fault, secret, request_id=request_id, retry_after=retry_after)


def from_fault(
    fault: Fault, secret: str | None, *, request_id: str | None = None, retry_after: float | None = None
) -> OpenProtoError:
    """Return the error of an envelope: the class of its code, in the server's words, without the secret."""
    words = fault.message.replace(secret, "***") if secret else fault.message
    code = fault.code[:100]
    details: dict[str, Any] = {
        "provider": fault.provider,
        "request_id": (fault.request_id or "")[:64] or request_id,
        "retry_after": (fault.x_openproto and fault.x_openproto.retry_after) or retry_after,
    }
    text = words[:LONGEST_MESSAGE] or f"the server refuses with {code!r}"
    kind = _BY_CODE.get(code)
    return kind(text, **details) if kind else ProviderError.unknown(code, text, **details)


def foreign() -> ProviderError:
    """Return the error for a record of a user who was not asked for."""
    return ProviderError("the server answered with a memory of another user, which was dropped; report it")


def own(record: MemoryRecord, user_id: str | None) -> MemoryRecord:
    """Return the record where it is the user's, or no user was given."""
    if user_id is not None and record.user_id != user_id:
        raise foreign()
    return record


def _redirected(reply: Reply, url: str) -> str:
    try:
        target = urlsplit(urljoin(url, reply.headers.get("location", "")))
        where = f"{target.scheme}://{target.netloc.rpartition('@')[2]}"[:200]
    except ValueError:
        where = "an address that is none"
    return f"the server redirects to {where}, which is not followed: if that is the server, set base_url= to it"
