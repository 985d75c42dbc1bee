"""What the protocol returns: frozen pydantic models, lenient on read.

Unknown fields and unknown enum values are kept, so a newer server never breaks an older client. Optional fields that
are absent are None, or an empty list, in Python, and are left out of JSON. Datetimes are aware and in UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeAlias, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue

from openproto.fields import EXTENSION_KEY, Moment, is_absent, names_of, of_valid

OMP_VERSION = "0.1"
_LONGEST_CELL = 300
"""Characters in a cell of the tables that notebooks show."""

ReprArgs: TypeAlias = Iterable[tuple[str | None, Any]]

Verb: TypeAlias = Literal["add", "search", "context", "get", "list", "update", "delete", "audit", "capabilities"]
VERBS: tuple[Verb, ...] = get_args(Verb)

OnDuplicate: TypeAlias = Literal["keep", "skip", "supersede"]
Status: TypeAlias = Literal["queued", "indexing", "done", "failed"]
SourceType: TypeAlias = Literal["extracted", "explicit", "imported"]
Operation: TypeAlias = Literal["key", "version", "put", "scopes", "users", "restore", "on_duplicate", "explain"]
"""What a provider may have beyond its verbs."""

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

Support: TypeAlias = Literal["native", "emulated", "none"]
Restored: TypeAlias = Literal["restored", "exists", "refused", "deleted"]
"""What became of a record: "deleted" is only `Provider.load`'s, for one that its user deleted since."""
ScopeSupport: TypeAlias = Literal["native", "tags", "none"]
Cancellation: TypeAlias = Literal["native", "aborting", "detached"]


class Result(BaseModel):
    """The base of everything that a backend answers."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="allow",
        defer_build=True,
        serialize_by_alias=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    @classmethod
    def of_valid(cls, fields: dict[str, Any], extra: dict[str, Any]) -> Self:
        """Return what validating would, of all the model's fields, in order, whose values are known to be valid."""
        return of_valid(cls, fields, extra, {*fields, *extra} if extra else names_of(cls))

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form as Python objects, absent fields left out."""
        return self.model_dump(mode="json")


class MemorySource(Result):
    """Where a memory came from: the `app`, how it got it, and the app's own reference."""

    app: str | None = Field(default=None, exclude_if=is_absent)
    type: SourceType | str | None = Field(default=None, exclude_if=is_absent)
    ref: str | None = Field(default=None, exclude_if=is_absent)


class MemoryRecord(Result):
    """One stored memory."""

    id: str
    content: str
    user_id: str
    created_at: Moment
    scope: str | None = Field(default=None, exclude_if=is_absent)
    tags: list[str] = Field(default_factory=list, exclude_if=is_absent)
    source: MemorySource | None = Field(default=None, exclude_if=is_absent)
    confidence: float | None = Field(default=None, strict=True, exclude_if=is_absent)
    valid_from: Moment | None = Field(default=None, exclude_if=is_absent)
    valid_to: Moment | None = Field(default=None, exclude_if=is_absent)
    supersedes: list[str] = Field(default_factory=list, exclude_if=is_absent)
    superseded_by: str | None = Field(default=None, exclude_if=is_absent)
    embedding_model: str | None = Field(default=None, exclude_if=is_absent)
    updated_at: Moment | None = Field(default=None, exclude_if=is_absent)
    status: Status | str | None = Field(default=None, exclude_if=is_absent)
    key: str | None = Field(default=None, exclude_if=is_absent)
    version: str | None = Field(default=None, exclude_if=is_absent)
    duplicate_of: str | None = Field(default=None, exclude_if=is_absent)
    """Only in what an `add` returns that was skipped: the id of the record that says the same, which is this one."""

    @property
    def extensions(self) -> dict[str, JsonValue]:
        """The record's `x-*` fields, under their wire names."""
        return {key: value for key, value in (self.model_extra or {}).items() if EXTENSION_KEY.fullmatch(key)}

    def __repr_args__(self) -> ReprArgs:
        # Without the content, which logs and tracebacks would otherwise carry off.
        named = ("id", "user_id", "scope", "key")
        return [(name, value) for name in named if (value := getattr(self, name)) is not None]

    def _repr_html_(self) -> str:
        return _table(("field", "value"), self.to_wire().items())


class MemoryPage(Result):
    """One page of `list`, a sequence of records; `next_cursor` is None on the last page."""

    items: list[MemoryRecord]
    next_cursor: str | None = Field(default=None, exclude_if=is_absent)

    def __iter__(self) -> Iterator[MemoryRecord]:  # type: ignore[override]  # pydantic's yields names and values
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return True  # a page is there, also where nothing is on it

    def __getitem__(self, index: int) -> MemoryRecord:
        return self.items[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the records as dictionaries with Python values, for a data frame."""
        return [record.model_dump() for record in self.items]

    def __repr_args__(self) -> ReprArgs:
        return [("records", len(self.items)), ("next_cursor", self.next_cursor)]

    def _repr_html_(self) -> str:
        rows = [(each.created_at, each.content, each.scope, each.tags, each.id) for each in self.items]
        note = "there are more, under next_cursor" if self.next_cursor is not None else ""
        return _table(("created_at", "content", "scope", "tags", "id"), rows, note)


class UserPage(Result):
    """One page of `users`; `next_cursor` is None on the last page."""

    items: list[str]
    next_cursor: str | None = Field(default=None, exclude_if=is_absent)


class ScopeCount(Result):
    """A scope in use, and how many records stand in it."""

    scope: str
    records: int


class PutResult(Result):
    """The record that `put` wrote, and whether it is new."""

    record: MemoryRecord
    created: bool


class RestoreOutcome(Result):
    """What became of one record of `restore`; `error` says why it was refused."""

    id: str
    user_id: str
    outcome: Restored | str
    error: str | None = Field(default=None, exclude_if=is_absent)


class SearchResult(Result):
    """A memory and how well it answers the query: in [0, 1], comparable within one query."""

    memory: MemoryRecord
    score: float
    parts: dict[str, float] | None = Field(default=None, exclude_if=is_absent)
    """With `explain`: what adds how much to the score. None where that was not asked, or the backend does not say."""

    def __repr_args__(self) -> ReprArgs:
        return [("score", round(self.score, 4)), ("memory", self.memory)]

    def _repr_html_(self) -> str:
        parts = [f"{name} {value:.4f}" for name, value in (self.parts or {}).items()]
        return _table(("score", "parts", "content"), [(f"{self.score:.4f}", parts, self.memory.content)])


class Citation(Result):
    """A memory that stands in a context block."""

    memory_id: str
    score: float


class ContextBlock(Result):
    """Text for a prompt: one memory a line, each ending with its marker `[<memory id>]`."""

    text: str
    citations: list[Citation]
    token_count: int

    def __repr_args__(self) -> ReprArgs:
        return [("token_count", self.token_count), ("citations", len(self.citations))]

    def _repr_html_(self) -> str:
        cited = ", ".join(each.memory_id for each in self.citations)
        return _table(("tokens", "text", "cites"), [(self.token_count, self.text, cited)])


class AuditEntry(Result):
    """One recorded call; holds no content."""

    timestamp: Moment
    action: Verb | str
    user_id: str
    app: str | None = Field(default=None, exclude_if=is_absent)
    memory_id: str | None = Field(default=None, exclude_if=is_absent)
    scope: str | None = Field(default=None, exclude_if=is_absent)
    request_id: str | None = Field(default=None, exclude_if=is_absent)


@dataclass(frozen=True)
class Origins:
    """Where records came from that could not keep their ids: their extension `x-migrated` says which they were."""

    EXTENSION: ClassVar[str] = "x-migrated"
    source: str
    """The provider that they came from; what names another one is an extension like any other."""

    def id_of(self, record: MemoryRecord) -> str:
        """Return the id that a record has at the source."""
        made_of = self._made_of(record)
        return str(made_of["id"]) if made_of is not None else record.id

    def extensions_of(self, record: MemoryRecord) -> dict[str, JsonValue]:
        """Return the extensions that a record has at the source."""
        made_of = self._made_of(record)
        if made_of is None:
            return record.extensions
        others = {name: value for name, value in record.extensions.items() if name != self.EXTENSION}
        return {**others, self.EXTENSION: made_of["earlier"]} if "earlier" in made_of else others

    def note(self, record: MemoryRecord) -> dict[str, Any]:
        """Return what the extension says of a record of the source that gets another id."""
        kept = {name: value for name, value in record.to_wire().items() if name in ("id", "created_at", "updated_at")}
        earlier = record.extensions.get(self.EXTENSION)
        return {"from": self.source, **kept, **({} if earlier is None else {"earlier": earlier})}

    def _made_of(self, record: MemoryRecord) -> dict[str, Any] | None:
        made_of = record.extensions.get(self.EXTENSION)
        return made_of if isinstance(made_of, dict) and made_of.get("from") == self.source and "id" in made_of else None


class StoredRecord(Result):
    """A record with what a store keeps of it and no verb returns, for a backup."""

    model_config: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    record: MemoryRecord
    begins: Moment | None = Field(default=None, exclude_if=is_absent)
    """From when on it holds, where that is the moment of its first handover and not `valid_from`."""
    handovers: list[tuple[str, Moment]] | None = Field(default=None, exclude_if=lambda value: value is None)
    """The id of each successor and the moment of its handover, in order; None where that is not known."""
    vector: bytes | None = Field(default=None, exclude_if=is_absent)
    """Numbers in half precision, the lowest byte first."""


class UsedKey(Result):
    """An idempotency key that was used: for which record, and with which input."""

    idempotency_key: str
    record_id: str
    fingerprint: str = Field(pattern="^[0-9a-f]{32}$")
    """What two inputs share only when they are the same."""


class UserPart(NamedTuple):
    """A part of what a store holds of one user."""

    user_id: str
    records: Sequence[StoredRecord] = ()
    keys: Sequence[UsedKey] = ()
    audit: Sequence[AuditEntry] = ()


class Snapshot(Protocol):
    """All that a store holds: one unchanging state of it where it is `consistent`, whatever others write meanwhile."""

    model: str | None  # of its vectors
    consistent: bool
    lacks: Sequence[str]  # what it does not give of the store, in words

    def users(self) -> AsyncIterator[str]:
        """Return the ids of all users of whom the store holds anything, in order."""
        ...

    async def counts(self, user_id: str) -> Mapping[str | None, int]:
        """Return how many records a user has in each scope, and in none; a store that can count need not read them."""
        return Counter([stored.record.scope async for records in self.records(user_id) for stored in records])

    def records(self, user_id: str) -> AsyncIterator[Sequence[StoredRecord]]:
        """Return the records of a user, oldest first, some at a time."""
        ...

    def parts(self, user_id: str) -> AsyncIterator[UserPart]:
        """Return all that the store holds of a user, in parts: records and audit entries oldest first."""
        ...


class Features(Result):
    """What a provider can do beyond its verbs; an absent feature is false."""

    vector_search: bool = False
    keyword_search: bool = False
    graph_queries: bool = False
    temporal: bool = False
    scopes: ScopeSupport | str = "none"
    max_content_length: int | None = Field(default=None, exclude_if=is_absent)
    supports_e2e: bool = False
    supports_audit: bool = False
    supports_supersession: bool = False
    async_ingestion: bool = False


class Limits(Result):
    """What a provider bounds; None where it does not."""

    rate_limit_per_minute: int | None = Field(default=None, exclude_if=is_absent)
    max_search_results: int | None = Field(default=None, exclude_if=is_absent)


class SupportDetails(Result):
    """openproto's own part of the capabilities: how each verb and feature is done, and the cancellation tier."""

    support: dict[str, Support | str] = Field(default_factory=dict)
    cancellation: Cancellation | str = "detached"


class Capabilities(Result):
    """What a provider declares; the conformance suite holds it to every word."""

    omp_version: str = OMP_VERSION
    provider: str
    verbs: list[Verb | str]
    features: Features = Field(default_factory=Features)
    limits: Limits = Field(default_factory=Limits)
    x_openproto: SupportDetails = Field(
        default_factory=SupportDetails,
        validation_alias=AliasChoices("x-openproto", "x_openproto"),
        serialization_alias="x-openproto",
    )


class Health(Result):
    """Whether the backend answers now; `detail` says in words what is wrong when it does not."""

    status: Literal["ok", "unavailable"]
    provider: str
    detail: str | None = Field(default=None, exclude_if=is_absent)


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return an HTML table for notebooks; text is escaped, a long cell is cut, and None is an empty cell."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: object) -> str:
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return escape(text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…")


MOST_TURNS = 1_000_000_000
MOST_BESIDE = 2
"""How far two turns may be from each other to stand side by side: what was said between them may not have been kept."""


class Place(NamedTuple):
    """Where in a conversation a memory was said; facts have no place."""

    conversation: str
    turn: int

    def beside(self, side: Literal[-1, 1]) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return the places before (-1) or after (1), the nearer first: one side of the talk may not have been kept."""
        return (self[0], self[1] + side), (self[0], self[1] + MOST_BESIDE * side)  # tuples are made much faster


def place_of(extensions: Mapping[str, object]) -> Place | None:
    """Return the place that the extension `x-openproto` gives."""
    told = extensions.get("x-openproto")
    if not isinstance(told, Mapping):
        return None
    conversation, turn = told.get("conversation"), told.get("turn")
    if not isinstance(conversation, str) or type(turn) is not int or not 0 <= turn < MOST_TURNS:
        return None
    return Place(conversation, turn)
