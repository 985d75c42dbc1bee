"""The idempotency keys that callers choose, as separate passages in the user's archive.

Their moment is a hash of the key, in years before any memory: one request finds them, and no search for memories does.
A key is written before its memory and names the memory's id; before the memory is removed, a second passage says
`deleted`. An add that was cut off is thus completed under the same id, and an old request never brings its memory back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from openproto.emulation import user_token
from openproto.stores.moments import MICROSECOND
from openproto_adapters.letta.api import Metadata
from openproto_adapters.letta.archives import Archives
from openproto_adapters.letta.ids import PassageId

_TEXT = "An idempotency key of openproto. It keeps a request that is sent twice from being stored twice."
_KEY, _MEMORY = "openproto_key", "openproto_memory"
_FINGERPRINT, _DELETED = "openproto_fingerprint", "openproto_deleted"
_FIRST = datetime(1950, 1, 1, tzinfo=UTC)


class Claim(NamedTuple):
    """Which memory a key stands for: its id, the fingerprint of its input, and whether it was deleted."""

    created_at: datetime
    memory_id: str
    fingerprint: str
    deleted: bool = False


class Keys:
    """The callers' keys in `archives`."""

    def __init__(self, archives: Archives) -> None:
        self._archives = archives

    async def find(self, user_id: str, key: str) -> Claim | None:
        """Return what the key stands for, or None; of several claims that processes made at once, the earliest."""
        moment, digest = _moment_of(key)
        hits = await self._archives.search(user_token(user_id), start=moment, end=moment)
        claims = [claim for hit in hits if (claim := _claim(hit.passage.metadata or {}, digest)) is not None]
        if not claims:
            return None
        first = min(claims)
        return first._replace(deleted=first._replace(deleted=True) in claims)

    async def claim(self, user_id: str, key: str, claim: Claim) -> Claim:
        """Let the key stand for a memory, unless it stands for another by now; return what it stands for."""
        await self._write(user_id, key, claim)
        return await self.find(user_id, key) or claim

    async def bury(self, user_id: str, key: str, claim: Claim) -> None:
        """Say that the memory is about to be deleted."""
        await self._write(user_id, key, claim._replace(deleted=True))

    async def _write(self, user_id: str, key: str, claim: Claim) -> None:
        moment, digest = _moment_of(key)
        kept: Metadata = {
            _KEY: digest,
            _MEMORY: claim.memory_id,
            _FINGERPRINT: claim.fingerprint,
            _DELETED: claim.deleted,
        }
        await self._archives.write(
            user_id, {"text": _TEXT, "metadata": kept, "tags": [], "created_at": moment.isoformat()}
        )


def _moment_of(key: str) -> tuple[datetime, str]:
    digest = blake2b(key.encode(), digest_size=16).digest()
    return _FIRST + int.from_bytes(digest[:6]) * MICROSECOND, digest.hex()


def _claim(metadata: Metadata, digest: str) -> Claim | None:
    id = PassageId.read(str(metadata.get(_MEMORY))) if metadata.get(_KEY) == digest else None
    if id is None or (created_at := id.moment) is None:
        return None
    return Claim(created_at, str(metadata[_MEMORY]), str(metadata.get(_FINGERPRINT)), metadata.get(_DELETED) is True)
