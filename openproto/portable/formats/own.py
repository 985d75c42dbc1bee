"""openproto's own JSON Lines, and JSON of any other making whose objects have `content`, or are texts."""

from __future__ import annotations

from collections.abc import Iterable

from openproto import MemoryInput
from openproto.portable.formats.format import Fields, Item, JsonFormat, exported, memory


def _read_own(item: Item) -> Iterable[Fields]:
    yield exported(item) if item.get("id") is not None else {**item, "id": None}


def _read_any(item: Item) -> Iterable[Fields]:
    ours = {name: item[name] for name in item if name in MemoryInput.model_fields or name.startswith("x-")}
    content = ours.pop("content", None)
    rest = {name: value for name, value in item.items() if name not in ours and name != "content"}
    fields = memory("import", rest, content, **ours, id=item.get("id"))
    yield {**fields, "source": item["source"]} if item.get("source") else fields


OWN = JsonFormat(
    "openproto",
    "openproto's own JSON Lines",
    "each line is an object with content",
    lambda item: "content" in item,
    _read_own,
)
JSON = JsonFormat(
    "json",
    "JSON",
    "its items are texts, or objects with content",
    lambda item: isinstance(item.get("content"), str),
    _read_any,
)
