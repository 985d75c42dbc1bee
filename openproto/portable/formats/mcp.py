"""MCP's reference memory server: a graph of entities with observations, and of relations between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from openproto.portable.formats.format import Fields, Item, JsonFormat, memory, texts


def _read(item: Item) -> Iterable[Fields]:
    if item.get("type") == "relation":
        content = f"{item['from']} {item['relationType']} {item['to']}"
        yield memory("mcp", item, content, taken=["type"], tags=["relation"])
        return
    # An observation alone does not say what it was observed of.
    name, kept = item["name"], {"entity": item["name"], "entityType": item.get("entityType")}
    for observation in item.get("observations") or [None]:
        content = name if observation is None else f"{name}: {observation}"
        yield memory("mcp", kept, content, tags=texts(item.get("entityType")))


def _is_item(item: Item) -> bool:
    return (item.get("type") == "entity" and "observations" in item) or (
        item.get("type") == "relation" and "relationType" in item
    )


def _graph(document: Item) -> Sequence[Any] | None:
    entities, relations = document.get("entities"), document.get("relations")
    if not (isinstance(entities, list) and isinstance(relations, list)):
        return None
    return [*({"type": "entity", **each} for each in entities), *({"type": "relation", **each} for each in relations)]


MCP = JsonFormat(
    "mcp", "the graph of MCP's memory server", "its items are entities and relations", _is_item, _read, _graph
)
