"""A memory as Letta keeps it, and how it is read back, also when a write was cut off half way.

Letta cannot change a passage: a new one is written under the same id and `created_at` with a higher version, and then
the old one is deleted. A reader that meets both takes the newer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from openproto.emulation import Stored, user_token
from openproto.errors import ProviderError
from openproto_adapters.letta.api import Hit, NewPassage, Passage
from openproto_adapters.letta.ids import PassageId

_ENVELOPE = "openproto"
_VERSION = "openproto_version"


class Copies(NamedTuple):
    """The passages that hold one memory, newest first: one, but for writes that were cut off half way."""

    version: int
    ids: tuple[str, ...]

    @classmethod
    def of(cls, stored: Stored) -> Copies:
        """Return what `memories` wrote into the handle."""
        version, *ids = stored.handle.split()
        return cls(int(version), tuple(ids))

    @property
    def handle(self) -> str:
        """The handle of the memory."""
        return " ".join((str(self.version), *self.ids))


def new_passage(stored: Stored, version: int) -> NewPassage:
    """Return the passage that holds the memory."""
    record = stored.record
    return {
        "text": record.content,
        "metadata": {_ENVELOPE: stored.to_text(), _VERSION: version},
        "tags": record.tags,  # for other programs: Letta looks at them only after its limit
        "created_at": record.created_at.isoformat(),
    }


def memories(hits: Iterable[Hit], token: str, owner: str | None) -> list[Stored]:
    """Return the memories of the hits in order, each in its newest version; others' only where `owner` is known."""
    found: dict[str, list[tuple[int, str, Stored]]] = {}
    for passage in (hit.passage for hit in hits):
        if _ENVELOPE in (passage.metadata or {}):
            version, stored = _own(passage, token)
        elif owner is not None:
            version, stored = 0, _foreign(passage, token, owner)
        else:
            continue
        found.setdefault(stored.record.id, []).append((version, passage.id, stored))
    return [_newest(copies) for copies in found.values()]


def _own(passage: Passage, token: str) -> tuple[int, Stored]:
    metadata = passage.metadata or {}
    stored = Stored.from_text(metadata.get(_ENVELOPE), passage.text)
    version = metadata.get(_VERSION)
    if user_token(stored.record.user_id) != token or not isinstance(version, int):
        raise ProviderError("the archive holds a passage that does not belong there, which was dropped; remove it")
    return version, stored


def _foreign(passage: Passage, token: str, user_id: str) -> Stored:
    extensions: dict[str, Any] = {"x-letta": passage.metadata} if passage.metadata else {}
    return Stored.foreign(
        id=PassageId.of_foreign(token, passage.created_at, passage.id).id,
        content=passage.text,
        user_id=user_id,
        created_at=passage.created_at,
        tags=passage.tags or [],
        **extensions,
    )


def _newest(copies: list[tuple[int, str, Stored]]) -> Stored:
    ordered = sorted(copies, key=lambda copy: copy[:2], reverse=True)
    version, _, stored = ordered[0]
    return replace(stored, handle=Copies(version, tuple(id for _, id, _ in ordered)).handle)
