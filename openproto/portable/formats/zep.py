"""Zep and Graphiti: the facts of a graph's edges, each with the time in which it holds."""

from __future__ import annotations

from collections.abc import Iterable

from openproto.portable.formats.format import Fields, Item, JsonFormat, memory, texts


def _read(item: Item) -> Iterable[Fields]:
    # `expired_at` is when the graph was told that the fact had ended, where it does not know when it did.
    yield memory(
        "zep",
        item,
        item.get("fact"),
        taken=["fact", "valid_at", "invalid_at", "fact_embedding"],
        id=item.get("uuid") or item.get("uuid_"),
        user_id=item.get("user_id") or item.get("group_id"),
        valid_from=item.get("valid_at"),
        valid_to=item.get("invalid_at") or item.get("expired_at"),
        tags=texts(item.get("name")),
    )


ZEP = JsonFormat(
    "zep", "facts of Zep or Graphiti", "its items have fact", lambda item: isinstance(item.get("fact"), str), _read
)
