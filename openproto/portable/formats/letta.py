"""Letta: passages, archives with their passages, results of a passage search, and the blocks of an agent file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from openproto.portable.formats.format import Fields, Item, JsonFormat, agent_scope, memory, texts

_VECTORS = ["embedding", "embedding_config"]
"""Made by a model of Letta's, and of no use to another store."""


def _read(item: Item) -> Iterable[Fields]:
    if isinstance(passages := item.get("passages"), list):
        for passage in passages:
            yield from _read({**passage, "archive": item.get("name"), "archive_id": item.get("id")})
        return
    if isinstance(passage := item.get("passage"), dict):
        item = passage
    content = item.get("text", item.get("value"))
    yield memory(
        "letta",
        item,
        content,
        taken=["text", "value", *_VECTORS],
        id=item.get("id"),
        user_id=item.get("user_id"),
        scope=agent_scope(item.get("agent_id")),
        tags=texts(item.get("tags"), item.get("label")),
    )


def _is_item(item: Item) -> bool:
    return (
        ("text" in item and bool({"archive_id", "source_id", "embedding_config", "organization_id"} & item.keys()))
        or isinstance(item.get("passage"), dict)
        or isinstance(item.get("passages"), list)
        or {"label", "value"} <= item.keys()
    )


def _blocks(document: Item) -> Sequence[Any] | None:
    blocks = document.get("blocks")
    return blocks if isinstance(blocks, list) and "agents" in document else None


LETTA = JsonFormat("letta", "passages of Letta", "its items have text and archive_id", _is_item, _read, _blocks)
