"""A text on its way to MemorySync, and what becomes of it: facts, or nothing, and then MemorySync says why."""

from __future__ import annotations

from typing import Any, NamedTuple

from openproto.emulation import Stored
from openproto.errors import ConflictError, InvalidRequestError
from openproto_adapters.memorysync.rows import metadata_of, tags_of


class Draft(NamedTuple):
    """A text to store; `ref` is what makes sending it twice the same as sending it once."""

    text: str
    ref: str
    tags: list[str]
    metadata: dict[str, Any]

    @classmethod
    def of(cls, stored: Stored, name: str, mark: str) -> Draft:
        """Return the draft of a memory, whose text ends with a unique mark.

        Without it a text of under ten characters is refused, one of a single word or of no Latin letters skipped as
        worthless, and the second of two equal ones dropped as a duplicate.
        """
        text = f"{stored.record.content}\n[memory {mark}]"
        return cls(text, mark, tags_of(stored.record, name), metadata_of(stored, name))


class Outcome(NamedTuple):
    """What became of a draft: `created`, `skipped`, or `rejected`; `ids` are also those that it was skipped for."""

    status: str
    reason: str
    ids: list[int]

    @property
    def is_repeat(self) -> bool:
        """Whether it was sent before, and stored."""
        return self.reason == "already_ingested" and bool(self.ids)

    def rows(self) -> list[int]:
        """Return the rows that were made of it, or raise what MemorySync's refusal amounts to."""
        if self.status == "created" and self.ids:
            return self.ids
        why = self.reason if self.reason.isidentifier() else "without a reason"  # a sentence could repeat the text
        if self.status == "rejected":
            raise InvalidRequestError(f"MemorySync refuses the text ({why}); write it otherwise")
        if self.ids:
            raise ConflictError(
                f"MemorySync takes the text for one that it has ({why}), and stored nothing; update that one"
            )
        raise InvalidRequestError(
            f"MemorySync finds nothing worth keeping in the text ({why}), and stored nothing; say more"
        )
