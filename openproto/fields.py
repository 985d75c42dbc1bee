"""The kinds of value that the protocol's models are made of, each with the rule it must keep.

Every rule here is PROTOCOL "Limits checked before any I/O": the same check guards Python keywords, HTTP bodies, and
files, because all of them build the models of `requests.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, JsonValue, StringConstraints

MAX_CONTENT_LENGTH = 100_000
MAX_EXTENSION_DEPTH = 100
EXTENSION_KEY = r"^x-[A-Za-z0-9][A-Za-z0-9._-]{0,126}$"


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return text


def _not_blank(text: str) -> str:
    if not text or text.isspace():
        raise ValueError("must not be blank")
    return text


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999 in UTC") from None


def _path(scope: str) -> str:
    if "*" in scope:
        raise ValueError("must not contain '*', which only a filter may end with")
    if not all(segment.strip() for segment in scope.split("/")):
        raise ValueError("must be a path such as 'coding/preferences', with no blank or empty segment")
    return scope


def _filter(scope: str) -> str | None:
    """Reduce the three spellings of a node to the node itself, and `*` to None, which selects everything."""
    if scope == "*":
        return None
    return _path(scope.removesuffix("/*").removesuffix("/"))


def _extension(value: JsonValue) -> JsonValue:
    """Refuse what JSON or a database cannot hold, without recursion: the value may be as deep as an attacker likes."""
    todo: list[tuple[JsonValue, int]] = [(value, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_EXTENSION_DEPTH:
            raise ValueError(f"must not be nested more than {MAX_EXTENSION_DEPTH} deep")
        if isinstance(node, str):
            _storable(node)
        elif isinstance(node, float) and (node != node or node in (float("inf"), float("-inf"))):
            raise ValueError("must not hold NaN or infinity, which JSON cannot spell")
        elif isinstance(node, dict):
            for key, item in node.items():
                _storable(key)
                todo.append((item, depth + 1))
        elif isinstance(node, list):
            todo.extend((item, depth + 1) for item in node)
    return value


Text = Annotated[str, AfterValidator(_storable), AfterValidator(_not_blank)]
Content = Annotated[Text, StringConstraints(max_length=MAX_CONTENT_LENGTH)]
UserId = Annotated[Text, StringConstraints(max_length=256)]
RecordId = Annotated[Text, StringConstraints(max_length=512)]
Tag = Annotated[Text, StringConstraints(max_length=128)]
Tags = Annotated[list[Tag], Field(max_length=64)]
Label = Annotated[Text, StringConstraints(max_length=256)]
ScopePath = Annotated[Text, StringConstraints(max_length=512), AfterValidator(_path)]
ScopeFilter = Annotated[Text, StringConstraints(max_length=514), AfterValidator(_filter)]
Cursor = Annotated[Text, StringConstraints(max_length=256)]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Extension = Annotated[JsonValue, AfterValidator(_extension)]


def is_absent(value: Any) -> bool:
    """Say whether an optional field is absent: None, or a list with nothing in it."""
    return value is None or value == []
