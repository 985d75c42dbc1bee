"""mem0: what `get_all` of its library, or a page or an export of its platform, holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openproto.portable.formats.format import Fields, Item, JsonFormat, agent_scope, memory, texts


def _read(item: Item) -> Iterable[Fields]:
    if "relationship" in item:  # of the library's graph
        named = (item.get(name) for name in ("source", "relationship", "target", "destination"))
        content = " ".join(str(part) for part in named if part)
        yield memory("mem0", item, content, taken=["source"], user_id=item.get("user_id"), tags=["relation"])
        return
    run = item.get("run_id") or item.get("session_id")
    metadata = item.get("metadata") if isinstance(item.get("metadata"), dict) else {}
    yield memory(
        "mem0",
        item,
        item.get("memory"),
        taken=["memory", "agent_id", "run_id", "session_id", "categories", "expiration_date"],
        id=item.get("id"),
        user_id=item.get("user_id"),
        scope=agent_scope(item.get("agent_id"), run),
        tags=texts(item.get("categories"), (metadata or {}).get("category"), (metadata or {}).get("categories")),
        valid_to=_until(item.get("expiration_date")),
    )


def _until(day: Any) -> str | None:
    # mem0 shows a memory until its day has ended, in UTC.
    return f"{day}T23:59:59.999999Z" if isinstance(day, str) and len(day) == len("2026-01-31") else day


MEM0 = JsonFormat(
    "mem0",
    "memories of mem0",
    "its items have memory",
    lambda item: isinstance(item.get("memory"), str) or "relationship" in item,
    _read,
)
