"""An item of LangGraph as records: one with its value, and one more for each further text that it is found by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, cast

from langgraph.store.base import Item, PutOp, SearchItem, get_text_at_path, tokenize_path

from openproto import MemoryRecord
from openproto.fields import MAX_CONTENT_LENGTH
from openproto.integrations.scope_names import scope_segment, segment_name

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The end of validity of what must not be found by a query."""

FIELD = "x-langgraph"
_MOST_KEY = 512


def scope_of(namespace: tuple[str, ...]) -> str | None:
    """Return the scope of a namespace; no two namespaces share one."""
    return "/".join(scope_segment(label) for label in namespace) or None


def namespace_of(scope: str) -> tuple[str, ...]:
    """Return the namespace that `scope_of` made `scope` of."""
    return tuple(segment_name(segment) for segment in scope.split("/"))


def record_key(namespace: tuple[str, ...], key: str, part: int = 0) -> str:
    """Return the key of the record that holds text number `part` of an item."""
    name = f"{scope_of(namespace)}:{key}"
    if len(name) > _MOST_KEY - 8:
        # As long as a key may be at LangGraph, which has no limit: the item holds its own key anyway.
        name = f"blake2b:{blake2b(name.encode()).hexdigest()}"
    return f"{name}#{part}"


@dataclass(frozen=True, slots=True)
class StoredItem:
    """What a record says of an item."""

    record: MemoryRecord
    key: str
    part: int
    parts: int
    """How many records the item has."""
    value: dict[str, Any]
    """Empty on every part but the first."""
    ttl: float | None
    """Minutes."""
    expires_at: datetime | None
    is_indexed: bool

    @classmethod
    def of(cls, record: MemoryRecord) -> StoredItem | None:
        """Return what the record says, or None for a record that does not hold an item."""
        kept = cast("dict[str, Any] | None", record.extensions.get(FIELD))
        if kept is None or record.scope is None:
            return None
        expires = kept.get("expires_at")
        return cls(
            record,
            kept["key"],
            kept["part"],
            kept["parts"],
            kept.get("value", {}),
            kept.get("ttl"),
            datetime.fromisoformat(expires) if expires else None,
            kept["indexed"],
        )

    @property
    def namespace(self) -> tuple[str, ...]:
        """The item's namespace."""
        return namespace_of(self.record.scope or "")

    def is_expired(self, now: datetime) -> bool:
        """Return whether the item's time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def item(self) -> Item:
        """Return the item as LangGraph has it."""
        changed = self.record.updated_at or self.record.created_at
        return Item(
            value=self.value,
            key=self.key,
            namespace=self.namespace,
            created_at=self.record.created_at,
            updated_at=changed,
        )

    def search_item(self, score: float | None) -> SearchItem:
        """Return the item as a result of a search."""
        item = self.item()
        return SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at, score)

    def refreshed(self, now: datetime) -> dict[str, Any]:
        """Return the changes that give the item its full time again."""
        assert self.ttl is not None  # noqa: S101 - only items with a time to live are refreshed
        until = now + timedelta(minutes=self.ttl)
        kept = cast("dict[str, Any]", self.record.extensions[FIELD])
        changes: dict[str, Any] = {"x_langgraph": {**kept, "expires_at": until.isoformat()}}
        return changes | ({"valid_to": until} if self.is_indexed else {})


def records_of(op: PutOp, fields: list[str], now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the arguments of `put`, but for the user, for each record of the item; `op` has a value.

    Raises TypeError where the value is not JSON.
    """
    value = op.value
    texts = [] if op.index is False else list(_texts(value, fields if op.index is None else op.index))
    is_indexed = bool(texts)
    until = now + timedelta(minutes=op.ttl) if op.ttl is not None else None
    contents = texts or [json.dumps(value, ensure_ascii=False)]
    for part, content in enumerate(contents):
        kept: dict[str, Any] = {"key": op.key, "part": part, "parts": len(contents), "indexed": is_indexed}
        if part == 0:
            kept["value"] = value
        if until is not None and part == 0:
            kept |= {"ttl": op.ttl, "expires_at": until.isoformat()}
        yield {
            "content": content[:MAX_CONTENT_LENGTH],
            "key": record_key(op.namespace, op.key, part),
            "scope": scope_of(op.namespace),
            # The first record says how long an item lives: the others are not found without it.
            "valid_to": NEVER if not is_indexed else until if part == 0 else None,
            "x_langgraph": kept,
        }


def _texts(value: Any, fields: list[str]) -> Iterator[str]:
    for path in fields:
        # LangGraph knows the whole value by the bare path alone.
        for text in get_text_at_path(value, "$" if path == "$" else tokenize_path(path)):
            if text.strip():
                yield text
