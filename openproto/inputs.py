"""From what a caller passes to `add` and `add_many` to valid inputs, each under an idempotency key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from openproto.errors import InvalidRequestError, OpenProtoError
from openproto.ids import unique_token
from openproto.messages import as_content
from openproto.provider import GeneratedKey, KeyedInput
from openproto.requests import IdempotencyKey, MemoryInput, build

_AT_ONCE = 100  # validated without giving way: a few milliseconds of the loop's time


def keyed(fields: Mapping[str, Any], idempotency_key: str | None) -> KeyedInput:
    """Validate an input and give it the caller's idempotency key, or one of our own so that it can be retried."""
    if idempotency_key is None:
        idempotency_key = GeneratedKey(unique_token(128))
    else:
        build(IdempotencyKey, {"idempotency_key": idempotency_key})
    spelled = {name.replace("_", "-") if name.startswith("x_") else name: value for name, value in fields.items()}
    if not isinstance(spelled.get("content"), str):
        spelled["content"] = as_content(spelled.get("content"))
    return KeyedInput(build(MemoryInput, spelled), idempotency_key)


async def validated(items: Iterator[MemoryInput | Mapping[str, Any]], most: int) -> list[KeyedInput | OpenProtoError]:
    """Take at most `most` items and return each ready to be added, or its error; gives way to other tasks."""
    batch: list[KeyedInput | OpenProtoError] = []
    while len(batch) < most and (part := list(islice(items, min(_AT_ONCE, most - len(batch))))):
        batch.extend(map(_keyed_or_error, part))
        await asyncio.sleep(0)
    return batch


def _keyed_or_error(item: MemoryInput | Mapping[str, Any]) -> KeyedInput | OpenProtoError:
    if isinstance(item, MemoryInput):
        return KeyedInput(item, GeneratedKey(unique_token(128)))
    fields = dict(item)
    key = fields.pop("idempotency_key", None)
    try:
        return keyed(fields, key)
    except InvalidRequestError as error:
        return error
