"""Memory ids that say where their memory is at Supermemory: whose namespace, which document.

An id is the user's token, a dot, and the document's id: `k` or `g` (a key of the caller or of the client) and a hash of
the key, so that a write that is sent twice is the same document. Nothing else becomes part of a path, because the SDK
escapes nothing: `me/../you` reads the namespace `you`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Self

from openproto.emulation import TOKEN, OwnedId, user_token
from openproto.provider import GeneratedKey


@dataclass(frozen=True, slots=True)
class DocumentId(OwnedId):
    """Whose document it is, and its id there."""

    pattern: ClassVar[re.Pattern[str]] = re.compile(TOKEN + r"\.(?P<document>[gk][0-9a-f]{32})")

    document: str

    @classmethod
    def of_key(cls, user_id: str, key: str) -> Self:
        """Return the id of the memory that the user adds under this idempotency key."""
        token = user_token(user_id)
        kind = "g" if isinstance(key, GeneratedKey) else "k"
        return cls(token, kind + blake2b(f"{token}.{key}".encode(), digest_size=16).hexdigest())

    @property
    def has_key(self) -> bool:
        """Whether a caller may repeat the write of the memory, also when that is deleted."""
        return self.document.startswith("k")

    @property
    def namespace(self) -> str:
        """The namespace that holds the user's memories and nothing else."""
        return namespace_of(self.token)

    @property
    def grave(self) -> tuple[str, str]:
        """The namespace and the id of the document that says that the key's memory was deleted."""
        return graves_of(self.token), f"deleted-{self.document}"


def namespace_of(token: str) -> str:
    """Return the namespace of a user's memories."""
    return f"openproto:{token}"


def graves_of(token: str) -> str:
    """Return the namespace that keeps which of the user's idempotency keys are used up."""
    return f"openproto:{token}:keys"
