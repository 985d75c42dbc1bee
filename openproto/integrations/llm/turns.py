"""A turn of a conversation, and the memories that are made of it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from openproto.requests import MemoryInput


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user said and what the model answered, of one call.

    `user` is None in the middle of a tool loop, where nobody said anything new; `reply` is None when the model only
    called tools. `partial` tells that the reply was cut off: the stream was left or broke before its end.
    """

    user_id: str
    user: str | None
    reply: str | None
    scope: str | None = None
    response_id: str | None = None
    partial: bool = False


Extracted: TypeAlias = Iterable[str | Mapping[str, Any] | MemoryInput]
Extractor: TypeAlias = Callable[[Turn], Extracted] | Callable[[Turn], Awaitable[Extracted]]


def whole_turn(turn: Turn) -> Iterator[Mapping[str, Any]]:
    """Return a memory of what the user said and one of the reply; used when no other extractor is given."""
    source = {"type": "extracted", **({"ref": turn.response_id[:256]} if turn.response_id else {})}
    if turn.user:
        yield {"content": turn.user, "tags": ["user"], "source": source}
    if turn.reply:
        yield {
            "content": turn.reply,
            "tags": ["assistant", "partial"] if turn.partial else ["assistant"],
            "source": source,
        }


def memory_fields(turn: Turn, position: int, item: str | Mapping[str, Any] | MemoryInput) -> dict[str, Any]:
    """Return the keywords of `add` for the item that an extractor made of `turn` at `position`.

    The memory is always the turn's user's; the idempotency key is the same for the same item of the same response.
    """
    fields: dict[str, Any] = {"content": item} if isinstance(item, str) else dict(item)
    if fields.setdefault("user_id", turn.user_id) != turn.user_id:
        raise ValueError("an extractor made a memory for another user than the one who spoke")
    if fields.get("scope") is None:
        fields["scope"] = turn.scope
    fields.setdefault("idempotency_key", _key(turn, position, str(fields.get("content"))))
    return fields


def _key(turn: Turn, position: int, content: str) -> str:
    # Without an id of the response the same words may well be said twice, and both times count.
    parts = (turn.user_id, turn.scope or "", turn.response_id or secrets.token_hex(16), str(position), content)
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
