"""LangGraph: the items of a store, each under a key in a namespace."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from openproto.portable.formats.format import Fields, Item, JsonFormat, memory, segment

_TEXTS = ("content", "text", "memory", "data", "fact", "value")
"""Where in a value its text stands, as LangMem and LangGraph's own guides write it."""


def _read(item: Item) -> Iterable[Fields]:
    namespace = [segment(label) for label in item["namespace"]]
    key = str(item["key"])
    yield memory(
        "langgraph",
        item,
        _text(item.get("value")),
        taken=["namespace", "score"],
        id="/".join([*namespace, key]),
        user_id=item.get("user_id"),
        scope="/".join(namespace) or None,
        key=key,
    )


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        for name in _TEXTS:
            if isinstance(found := value.get(name), str):
                return found
            if isinstance(found, dict) and isinstance(found.get("content"), str):  # LangMem's {"kind", "content"}
                return found["content"]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


LANGGRAPH = JsonFormat(
    "langgraph",
    "items of a LangGraph store",
    "its items have namespace, key, and value",
    lambda item: isinstance(item.get("namespace"), list) and {"key", "value"} <= item.keys(),
    _read,
)
