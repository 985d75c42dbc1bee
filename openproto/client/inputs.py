"""From what a caller passes to `add` and `add_many` to valid inputs, each under an idempotency key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from openproto.client.messages import as_content
from openproto.errors import InvalidRequestError, OpenProtoError
from openproto.fields import MAX_CONTENT_LENGTH, MAX_ID_LENGTH, MAX_LABEL_LENGTH, is_label, is_text, of_valid
from openproto.models import OnDuplicate
from openproto.provider import KeyedInput, generated_key
from openproto.requests import IdempotencyKey, MemoryInput, RecordRef, build

_PLAIN = frozenset(MemoryInput.model_fields)
_NAMES = _PLAIN | {"idempotency_key"}
_BARE = {"content", "user_id", "on_duplicate"}
_REF = {"id", "user_id"}
_OPTIONAL = _PLAIN - {"content", "user_id"}
_AT_ONCE = 250  # validated without giving way: a few milliseconds of the loop's time


def check_keywords(method: str, keywords: Iterable[str]) -> None:
    """Raise TypeError for a keyword that is not an extension, as a plain function would."""
    for keyword in keywords:
        if not keyword.startswith(("x_", "x-")):
            hint = "; data of your own goes into an extension, such as x_app={...}"
            raise TypeError(f"{method}() got an unexpected keyword argument {keyword!r}{hint}")


def wire_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with extensions under their wire names: `x_mem0` is `x-mem0`."""
    return {name.replace("_", "-") if name.startswith("x_") else name: value for name, value in fields.items()}


def keyed(fields: Mapping[str, Any], idempotency_key: str | None = None) -> KeyedInput:
    """Validate an input and give it the caller's idempotency key, or one of our own so that it can be retried."""
    if not _PLAIN.issuperset(fields):
        fields = wire_names(fields)
    if "content" in fields and not isinstance(content := fields["content"], str):
        fields = {**fields, "content": as_content(content)}
    if idempotency_key is not None:
        build(IdempotencyKey, idempotency_key=idempotency_key)
    # What is absent need not be validated.
    given = {name: value for name, value in fields.items() if value is not None or name not in _OPTIONAL}
    item = _bare(given) or build(MemoryInput, **given)
    return KeyedInput(item, idempotency_key or generated_key(item.user_id))


def record_ref(id: str, user_id: str | None) -> RecordRef:
    """Validate which record is meant."""
    if not is_text(id, MAX_ID_LENGTH) or not (user_id is None or (type(user_id) is str and is_label(user_id))):
        return build(RecordRef, id=id, user_id=user_id)
    return of_valid(RecordRef, {"id": id, "user_id": user_id, "if_version": None}, None, _REF)  # as in `_bare`


async def validated(
    items: Iterator[MemoryInput | Mapping[str, Any]], most: int, on_duplicate: OnDuplicate
) -> list[KeyedInput | OpenProtoError]:
    """Take at most `most` items and return each ready to be added, or its error; gives way to other tasks."""
    batch: list[KeyedInput | OpenProtoError] = []
    while len(batch) < most and (part := list(islice(items, min(_AT_ONCE, most - len(batch))))):
        batch.extend(_keyed_or_error(item, on_duplicate) for item in part)
        await asyncio.sleep(0)
    return batch


def each(items: Iterable[MemoryInput | Mapping[str, Any]]) -> Iterator[MemoryInput | Mapping[str, Any]]:
    """Return an iterator over memories; raise InvalidRequestError for anything but an iterable of them."""
    if isinstance(items, str | bytes | Mapping | MemoryInput) or not isinstance(items, Iterable):
        raise InvalidRequestError(f"items: must be an iterable of memories, and is a {type(items).__name__}")
    return iter(items)


def _bare(given: Mapping[str, Any]) -> MemoryInput | None:
    """Return the input that has a content and a user alone, as those of large batches do; None where it is another.

    Pydantic, which says what is wrong with it, takes several times as long.
    """
    if given.keys() != _BARE or given["on_duplicate"] != "keep":
        return None
    content, user_id = given["content"], given["user_id"]
    if not (is_text(content, MAX_CONTENT_LENGTH) and is_text(user_id, MAX_LABEL_LENGTH)):
        return None
    fields = {
        "content": content,
        "user_id": user_id,
        "scope": None,
        "tags": [],
        "source": None,
        "confidence": None,
        "valid_from": None,
        "valid_to": None,
        "supersedes": [],
        "key": None,
        "on_duplicate": "keep",
    }
    return of_valid(MemoryInput, fields, {}, _BARE)


def _keyed_or_error(item: MemoryInput | Mapping[str, Any], on_duplicate: OnDuplicate) -> KeyedInput | OpenProtoError:
    if isinstance(item, MemoryInput):
        if item.on_duplicate != on_duplicate and "on_duplicate" not in item.model_fields_set:
            item = item.model_copy(update={"on_duplicate": on_duplicate})
        return KeyedInput(item, generated_key(item.user_id))
    if not isinstance(item, Mapping) or not (_NAMES.issuperset(item) or all(isinstance(name, str) for name in item)):
        return InvalidRequestError(f"must be a mapping of add's keywords or a MemoryInput, and is a {_kind(item)}")
    fields = dict(item)
    key = fields.pop("idempotency_key", None)
    if fields.get("on_duplicate") is None:
        fields["on_duplicate"] = on_duplicate
    try:
        return keyed(fields, key)
    except InvalidRequestError as error:
        return error


def _kind(item: object) -> str:
    return "mapping with keys that are not strings" if isinstance(item, Mapping) else type(item).__name__
