"""What the protocol is asked: frozen pydantic models, strict on write.

Each verb's arguments become one of these before anything is opened or sent; an unknown field, a wrong type, or a
broken limit is an `InvalidRequestError` that names the field and never repeats its value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    Strict,
    ValidationError,
    model_validator,
)
from typing_extensions import TypedDict

from openproto.errors import InvalidRequestError
from openproto.fields import (
    EXACT,
    EXTENSION_KEY,
    LONE_SURROGATE,
    Confidence,
    Content,
    Cursor,
    Key,
    Label,
    Moment,
    RecordId,
    RecordIds,
    ScopeFilter,
    ScopePath,
    TagFilter,
    Tags,
    UserId,
    Version,
    check_json,
    is_absent,
    plain_field,
)
from openproto.fields import (
    MAX_CONTENT_LENGTH as MAX_CONTENT_LENGTH,
)
from openproto.models import MemorySource, OnDuplicate, Operation, Result, SourceType

MAX_LIST_LIMIT = 500
MAX_SEARCH_LIMIT = 100
MAX_AUDIT_LIMIT = 1000


class Request(BaseModel):
    """The base of everything that a caller sends."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, fields: Any) -> Any:
        # An `isinstance` of Mapping takes longer than the rest, and nearly always it is a dict of plain values.
        if type(fields) is dict and EXACT.issuperset(map(type, fields.values())):
            return fields
        if not isinstance(fields, Mapping):
            return fields
        return {name: plain_field(name, value) for name, value in fields.items()}


class SourceInput(Request):
    """A `MemorySource` as callers may write it: no unknown field and no unknown type."""

    app: Label | None = Field(default=None, exclude_if=is_absent)
    type: SourceType | None = Field(default=None, exclude_if=is_absent)
    ref: Label | None = Field(default=None, exclude_if=is_absent)


def _source_fields(source: Any) -> Any:
    return source.model_dump() if isinstance(source, MemorySource) else source


def _is_keep(value: OnDuplicate) -> bool:
    return value == "keep"


class MemoryInput(Request):
    """A memory to add. `x-*` extensions are extra fields under their wire names."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", strict=True, defer_build=True)

    content: Content
    user_id: UserId
    scope: ScopePath | None = Field(default=None, exclude_if=is_absent)
    tags: Tags = Field(default_factory=list, exclude_if=is_absent)
    source: Annotated[Annotated[SourceInput, Strict(False)] | None, BeforeValidator(_source_fields)] = Field(
        default=None, exclude_if=is_absent
    )
    confidence: Confidence | None = Field(default=None, exclude_if=is_absent)
    valid_from: Moment | None = Field(default=None, exclude_if=is_absent)
    valid_to: Moment | None = Field(default=None, exclude_if=is_absent)
    supersedes: RecordIds = Field(default_factory=list, exclude_if=is_absent)
    key: Key | None = Field(default=None, exclude_if=is_absent)
    on_duplicate: OnDuplicate = Field(default="keep", exclude_if=_is_keep)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_validity(self.valid_from, self.valid_to)
        if self.model_extra:
            _check_extensions(self.model_extra)
            for name in [name for name, value in self.model_extra.items() if value is None]:
                del self.model_extra[name]
        return self

    @property
    def extensions(self) -> dict[str, JsonValue]:
        """The input's `x-*` fields, under their wire names."""
        return {**(self.__pydantic_extra__ or {})}  # asking for `model_extra` takes longer

    @property
    def needs(self) -> Iterator[Operation]:
        """What a provider must have beyond `add` to take the input."""
        if self.key is not None:
            yield "key"
        if self.on_duplicate != "keep":
            yield "on_duplicate"

    def superseding(self, ids: Iterable[str]) -> MemoryInput:
        """Return the input to write once its duplicates are known: it supersedes those too.

        Its fingerprint stays that of what was given, by which a repeated `add` is known.
        """
        supersedes = list(dict.fromkeys([*self.supersedes, *ids]))
        fields = {**dict(self), "supersedes": supersedes, "on_duplicate": "keep"}
        made = _SupersedingInput.model_construct(self.model_fields_set | {"supersedes"}, **fields)
        made._given = fingerprint(self)
        return made


class _SupersedingInput(MemoryInput):
    """What `MemoryInput.superseding` returns; apart, because a private attribute costs every input its time."""

    _given: bytes = PrivateAttr()


def _check_extensions(extensions: Mapping[str, Any]) -> None:
    for key, value in extensions.items():
        if not EXTENSION_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a field of a memory")
        try:
            check_json(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def build_models() -> None:
    """Build the validators of all models, which their first use would do: in a thread, for it takes tens of ms."""
    waiting: list[type[BaseModel]] = [Result, Request]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if not model.__pydantic_complete__:
            model.model_rebuild()


def fingerprint(item: MemoryInput) -> bytes:
    """Return 16 bytes that two inputs share only when they are the same."""
    if isinstance(item, _SupersedingInput):
        return item._given
    document = item.model_dump_json()
    if item.model_extra:
        # JSON objects have no order: only extensions can be spelled in several.
        document = json.dumps(json.loads(document), sort_keys=True, ensure_ascii=False)
    return blake2b(document.encode(), digest_size=16).digest()


class MemoryChanges(TypedDict, total=False, extra_items=Any):  # type: ignore[call-arg]  # mypy lacks PEP 728
    """The keywords of `update`: one not passed is left alone, None clears; `x_<provider>=` changes an extension."""

    content: str
    scope: str | None
    tags: list[str] | None
    confidence: float | None
    valid_to: Any
    supersedes: list[str] | None
    source: Any


class MemoryUpdate(Request):
    """Changes to a memory; `model_fields_set` says which fields were named, None among them clears.

    `x-*` extensions are extra fields under their wire names.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", strict=True, defer_build=True)

    content: Content = ""
    scope: ScopePath | None = None
    tags: Tags | None = None
    confidence: Confidence | None = None
    valid_to: Moment | None = None
    supersedes: RecordIds | None = None
    source: Annotated[Annotated[SourceInput, Strict(False)] | None, BeforeValidator(_source_fields)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model_extra:
            _check_extensions(self.model_extra)
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """The fields to change and their new values, without the extensions."""
        return {name: getattr(self, name) for name in self.model_fields_set if name not in (self.model_extra or ())}

    @property
    def extensions(self) -> dict[str, JsonValue]:
        """The `x-*` fields to change, under their wire names; None clears one."""
        return dict(self.model_extra or {})

    def changed_extensions(self, before: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the extensions that a record has after the change."""
        return {name: value for name, value in {**before, **self.extensions}.items() if value is not None}


class Filters(Request):
    """What every reading verb can be narrowed by; `scope` is a node, None for every scope."""

    user_id: UserId
    scope: ScopeFilter | None = None
    tags: TagFilter = Field(default=(), validation_alias=AliasChoices("tag", "tags"))
    """A record must bear all of them; callers name the filter `tag`."""


class ListQuery(Filters):
    """The arguments of `list`."""

    since: Moment | None = None
    until: Moment | None = None
    as_of: Moment | None = None
    limit: int = Field(default=50, ge=1, le=MAX_LIST_LIMIT)
    cursor: Cursor | None = None


class SearchQuery(Filters):
    """The arguments of `search`."""

    query: Content
    as_of: Moment | None = None
    limit: int = Field(default=10, ge=1, le=MAX_SEARCH_LIMIT)
    min_score: Confidence | None = None
    explain: bool = False


class ContextQuery(Filters):
    """The arguments of `context`."""

    query: Content
    as_of: Moment | None = None
    token_budget: int = Field(default=500, ge=1)
    relevant_only: bool = False

    def as_search(self, limit: int) -> SearchQuery:
        """Return the search whose best results fill this context."""
        return SearchQuery(
            query=self.query,
            user_id=self.user_id,
            scope=self.scope,
            tags=self.tags,
            as_of=self.as_of,
            limit=limit,
        )

    def as_listing(self, limit: int, now: datetime | None) -> ListQuery:
        """Return the listing of the newest records, current `now`, that may fill the rest of this context."""
        return ListQuery(
            user_id=self.user_id,
            scope=self.scope,
            tags=self.tags,
            as_of=self.as_of or now,
            limit=limit,
        )


class AuditQuery(Request):
    """The arguments of `audit`."""

    user_id: UserId
    app: Label | None = None
    memory_id: RecordId | None = None
    since: Moment | None = None
    limit: int = Field(default=100, ge=1, le=MAX_AUDIT_LIMIT)


class RecordRef(Request):
    """Which record a verb is about: its id, and where they are given the user and the version it must have."""

    id: RecordId
    user_id: UserId | None = None
    if_version: Version | None = None


class KeyRef(Request):
    """Which record a verb is about, by the name that its user gave it."""

    user_id: UserId
    key: Key


class PutCondition(Request):
    """The version that `put` must find, or "absent" where there must be no record of that key."""

    if_version: Version | None = None


class ScopesQuery(Request):
    """The arguments of `scopes`; `prefix` is a node, and `depth` how many segments a scope is cut to."""

    user_id: UserId
    prefix: ScopeFilter | None = None
    depth: int | None = Field(default=None, ge=1)


class UsersQuery(Request):
    """The arguments of `users`."""

    limit: int = Field(default=100, ge=1, le=MAX_LIST_LIMIT)
    cursor: Cursor | None = None


class IdempotencyKey(Request):
    """A caller's own key for one `add`."""

    idempotency_key: Label


R = TypeVar("R", bound=Request)


def build(model: type[R], /, **fields: Any) -> R:
    """Return `model` made of fields by their wire names.

    Raises InvalidRequestError, which names what is wrong but not its value.
    """
    try:
        # What model_validate does; handing on its seven options that nobody gave takes as long as validating a field.
        made: R = model.__pydantic_validator__.validate_python(fields)
        return made
    except ValidationError as error:
        raise InvalidRequestError(_explain(error)) from None


def check_validity(valid_from: Any, valid_to: Any) -> None:
    """Raise ValueError unless the validity interval, where both ends are given, holds at least a moment."""
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise ValueError("valid_to must be later than valid_from")


def _explain(error: ValidationError) -> str:
    """Say each fault in words; pydantic's own text would repeat the input, which may be memory content."""
    faults: list[str] = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in fault["loc"])
        what = _IN_WORDS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
        faults.append(f"{where}: {what}" if where else what)
    return "; ".join(faults)


_IN_WORDS = {
    "string_unicode": LONE_SURROGATE,
    "missing": "is missing",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be True or False",
    "extra_forbidden": "is not known here",
    "timezone_aware": "must be a moment with an offset, such as datetime.now(UTC)",
}
"""Pydantic's messages for these name its own types, not ours."""
