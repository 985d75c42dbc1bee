"""From what a caller passes to `add` and `add_many` to valid inputs, each under an idempotency key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from openproto.errors import InvalidRequestError, OpenProtoError
from openproto.messages import as_content
from openproto.provider import KeyedInput, generated_key
from openproto.requests import IdempotencyKey, MemoryInput, build

_AT_ONCE = 100  # validated without giving way: a few milliseconds of the loop's time


def keyed(fields: Mapping[str, Any]) -> KeyedInput:
    """Validate `add`'s keywords; without an idempotency key they get one of our own, so that they can be retried."""
    spelled = {
        name.replace("_", "-") if name.startswith("x_") else name: value
        for name, value in fields.items()
        if value is not None
    }
    key = spelled.pop("idempotency_key", None)
    if key is not None:
        build(IdempotencyKey, {"idempotency_key": key})
    if not isinstance(spelled.get("content"), str):
        spelled["content"] = as_content(spelled.get("content"))
    item = build(MemoryInput, spelled)
    return KeyedInput(item, key or generated_key(item.user_id))


async def validated(items: Iterator[MemoryInput | Mapping[str, Any]], most: int) -> list[KeyedInput | OpenProtoError]:
    """Take at most `most` items and return each ready to be added, or its error; gives way to other tasks."""
    batch: list[KeyedInput | OpenProtoError] = []
    while len(batch) < most and (part := list(islice(items, min(_AT_ONCE, most - len(batch))))):
        batch.extend(map(_keyed_or_error, part))
        await asyncio.sleep(0)
    return batch


def _keyed_or_error(item: MemoryInput | Mapping[str, Any]) -> KeyedInput | OpenProtoError:
    if isinstance(item, MemoryInput):
        return KeyedInput(item, generated_key(item.user_id))
    try:
        return keyed(item)
    except InvalidRequestError as error:
        return error
