"""The protocol's requests as HTTP spells them: numbers that came as text in a query string.

Each is the model of `openproto.requests` with the same limits and the same errors; only the spelling differs.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from openproto import AuditEntry, MemoryInput, MemoryRecord, SearchResult
from openproto.fields import EXTENSION_KEY, Confidence, Content, Key, Label, Moment, TagFilter, UserId, is_absent
from openproto.models import RestoreOutcome, Result, ScopeCount
from openproto.requests import (
    MAX_AUDIT_LIMIT,
    MAX_LIST_LIMIT,
    MAX_SEARCH_LIMIT,
    AuditQuery,
    ContextQuery,
    Filters,
    KeyRef,
    ListQuery,
    MemoryUpdate,
    Request,
    ScopesQuery,
    SearchQuery,
    UsersQuery,
)
from openproto.server.http_errors import ErrorBody

MAX_BATCH = 500

_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def _integer(text: object) -> object:
    return int(text) if isinstance(text, str) and _INTEGER.fullmatch(text) else text


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(text: object) -> object:
    return float(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else text


WireInteger = Annotated[int, BeforeValidator(_whole)]
"""JSON has one kind of number: to its schemas 5.0 is the integer 5, and some languages write it so."""

QueryFlag = Annotated[bool, BeforeValidator({"true": True, "false": False}.get)]
QueryInteger = Annotated[int, BeforeValidator(_integer)]
QueryNumber = Annotated[Confidence, BeforeValidator(_number)]


# Built at once: FastAPI makes adapters of the models it declares, and wants them finished.
class NewMemory(
    MemoryInput,
    defer_build=False,
    json_schema_extra={"additionalProperties": False, "patternProperties": {f"^{EXTENSION_KEY.pattern}$": {}}},
):
    """A memory to store. `x-<provider>` members are extensions, kept and returned unchanged."""

    valid_from: Moment | None = Field(default=None, exclude_if=is_absent)
    valid_to: Moment | None = Field(default=None, exclude_if=is_absent)


class PutMemory(NewMemory):
    """A memory to write under its key."""

    key: Key = Field(...)  # pyright: ignore[reportIncompatibleVariableOverride]  # what `add` leaves open is required
    on_duplicate: Literal["keep"] = "keep"  # pyright: ignore[reportIncompatibleVariableOverride]  # it has its key


class BatchMemory(NewMemory):
    """A memory of a batch, which may carry its own idempotency key."""

    idempotency_key: Label | None = Field(default=None, exclude_if=is_absent)


class Batch(Request, defer_build=False):
    """Up to 500 memories, each stored or refused on its own; an item has the members of `BatchMemory`."""

    items: list[JsonValue] = Field(max_length=MAX_BATCH)


class Restoration(Request, defer_build=False):
    """Up to 500 memories to write as they are."""

    records: list[MemoryRecord] = Field(max_length=MAX_BATCH)


class Changes(
    MemoryUpdate,
    defer_build=False,
    json_schema_extra={"additionalProperties": False, "patternProperties": {f"^{EXTENSION_KEY.pattern}$": {}}},
):
    """Changes to a memory: what is absent is left alone, null clears."""

    valid_to: Moment | None = None


class Owner(Request, defer_build=False):
    """Whose record it must be."""

    user_id: UserId | None = None


class KeyParams(KeyRef, defer_build=False):
    """The query string of `GET /memories/by-key`."""


class ScopesParams(ScopesQuery, defer_build=False):
    """The query string of `GET /scopes`."""

    depth: QueryInteger | None = Field(default=None, ge=1)


class UsersParams(UsersQuery, defer_build=False):
    """The query string of `GET /users`."""

    limit: QueryInteger = Field(default=100, ge=1, le=MAX_LIST_LIMIT)


class ListParams(ListQuery, defer_build=False):
    """The query string of `GET /memories`."""

    tags: TagFilter = Field(default=(), alias="tag")
    since: Moment | None = None
    until: Moment | None = None
    as_of: Moment | None = None
    limit: QueryInteger = Field(default=50, ge=1, le=MAX_LIST_LIMIT)


class DeleteParams(Filters, defer_build=False):
    """The query string of `DELETE /memories`."""

    tags: TagFilter = Field(default=(), alias="tag")


class SearchBody(SearchQuery, defer_build=False):
    """The body of `POST /memories/search`."""

    query: Content = Field(alias="q")
    tags: TagFilter = Field(default=(), alias="tag")
    as_of: Moment | None = None
    limit: WireInteger = Field(default=10, ge=1, le=MAX_SEARCH_LIMIT)


class SearchParams(SearchBody):
    """The query string of `GET /memories/search`."""

    limit: QueryInteger = Field(default=10, ge=1, le=MAX_SEARCH_LIMIT)
    min_score: QueryNumber | None = None
    explain: QueryFlag = False


class ContextBody(ContextQuery, defer_build=False):
    """The body of `POST /context`."""

    tags: TagFilter = Field(default=(), alias="tag")
    as_of: Moment | None = None
    token_budget: WireInteger = Field(default=500, ge=1)


class AuditParams(AuditQuery, defer_build=False):
    """The query string of `GET /audit`."""

    since: Moment | None = None
    limit: QueryInteger = Field(default=100, ge=1, le=MAX_AUDIT_LIMIT)


def add_arguments(item: NewMemory) -> dict[str, Any]:
    """Return the memory as `add`'s keywords: what is to be done with a duplicate is the request's to say."""
    return {**item.model_dump(), "on_duplicate": item.on_duplicate}


def arguments(params: Filters) -> dict[str, Any]:
    """Return the parameters as the client's keywords."""
    given = params.model_dump()
    given["tag"] = given.pop("tags")
    return given


class ServerHealth(Result):
    """Whether the server can do its work; `detail` says what needs care where it is "degraded"."""

    status: Literal["ok", "degraded"]
    provider: str
    detail: str | None = Field(default=None, exclude_if=is_absent)


class SearchResults(Result):
    """What a search found, best first."""

    results: list[SearchResult]


class ScopeCounts(Result):
    """The scopes in use, in order."""

    scopes: list[ScopeCount]


class RestoreOutcomes(Result):
    """What became of each memory of a restoration, in order."""

    outcomes: list[RestoreOutcome]


class AuditEntryList(Result):
    """Recorded calls, newest first."""

    entries: list[AuditEntry]


class Deleted(Result):
    """How many memories were removed."""

    deleted: int


class Outcome(Result):
    """What became of one memory of a batch: `memory` where it was stored, else `error`."""

    status: int
    memory: MemoryRecord | None = Field(default=None, exclude_if=is_absent)
    error: ErrorBody | None = Field(default=None, exclude_if=is_absent)


class BatchOutcomes(Result):
    """The outcome of every memory of a batch, in order."""

    outcomes: list[Outcome]
