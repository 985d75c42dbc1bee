"""A turn of a conversation, and the memories that are made of it."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from openproto import MemoryInput
from openproto.integrations.llm.sifting import Keep, adds_nothing, statements

if TYPE_CHECKING:
    from openproto import AsyncMemory


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user said and what the model answered, of one call.

    `user` is None in the middle of a tool loop, where nobody said anything new; `reply` is None when the model only
    called tools. `partial` says that the reply was cut off: the stream was left or broke before its end.
    """

    user_id: str
    user: str | None
    reply: str | None
    scope: str | None = None
    response_id: str | None = None
    partial: bool = False
    recalled: str | None = None
    """The memories that stood in the prompt."""
    conversation: str | None = None
    """The conversation that it is a turn of; what was said in one is found together."""
    position: int = 0
    """Where in it the user spoke, counted in what either side said."""
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False, compare=False)
    """What distinguishes this turn from every other; response ids do not, because some servers repeat one."""


Extracted: TypeAlias = Iterable[str | Mapping[str, Any] | MemoryInput]


class Extraction(NamedTuple):
    """What an extractor made of a batch of turns: memories to add, and the ids of those that are no longer true."""

    items: Sequence[Mapping[str, Any]]
    ended: Sequence[str]
    error: Exception | None = None
    """Why it failed, where it did; `items` are then what is kept all the same."""


class BatchExtractor(ABC):
    """An extractor that takes several turns of one user and scope together, and sees the memory."""

    @abstractmethod
    async def extract(self, turns: Sequence[Turn], memory: AsyncMemory) -> Extraction:
        """Return what is to be done; runs on the memory's loop."""

    @abstractmethod
    def close(self) -> None:
        """Release what it holds; may be called twice."""


Extractor: TypeAlias = Callable[[Turn], Extracted] | Callable[[Turn], Awaitable[Extracted]] | BatchExtractor


def kept_of(turn: Turn, keep: Keep) -> Iterator[Mapping[str, Any]]:
    """Return a memory of what the user said and one of the reply, as far as `keep` keeps them.

    "user" keeps what the user stated, "both" all that either side said; a function says yes or no to each text. A
    reply that repeats what was recalled for it is kept by none of them.
    """
    source = {"type": "extracted", **({"ref": turn.response_id[:256]} if turn.response_id else {})}
    user = statements(turn.user) if turn.user and keep == "user" else turn.user
    if user and (not callable(keep) or keep("user", user)):
        yield {"content": user, "tags": ["user"], "source": source, **_placed(turn, 0)}
    reply = None if keep == "user" else turn.reply
    if reply and turn.recalled and adds_nothing(reply, f"{turn.recalled} {turn.user or ''}"):
        reply = None
    if reply and (not callable(keep) or keep("assistant", reply)):
        tags = ["assistant", "partial"] if turn.partial else ["assistant"]
        yield {"content": reply, "tags": tags, "source": source, **_placed(turn, 1)}


def _placed(turn: Turn, after: int) -> dict[str, Any]:
    if turn.conversation is None:
        return {}
    return {"x_openproto": {"conversation": turn.conversation, "turn": turn.position + after}}


def memory_fields(turn: Turn, position: int, item: str | Mapping[str, Any] | MemoryInput) -> dict[str, Any]:
    """Return the keywords of `add` for the item that an extractor made of `turn` at `position`.

    The memory is always the turn's user's; the idempotency key is the same however often the item is sent.
    """
    if isinstance(item, MemoryInput):
        item = item.model_dump(exclude_unset=True)
    fields: dict[str, Any] = {"content": item} if isinstance(item, str) else dict(item)
    if fields.setdefault("user_id", turn.user_id) != turn.user_id:
        raise ValueError("an extractor must not make a memory for another user than the one who spoke")
    if fields.get("scope") is None:
        fields["scope"] = turn.scope
    fields.setdefault("idempotency_key", f"{turn.nonce}-{position}")
    return fields
