"""Files for the memory of Pydantic AI's harness, over any provider that keeps keys and versions.

    from pydantic_ai_harness.memory import Memory
    from openproto.integrations.pydantic_ai import OpenProtoMemoryStore

    agent = Agent(model, capabilities=[Memory(store=OpenProtoMemoryStore(AsyncMemory(), user_id="ada"))])

A file is a record with its path as key, and its version is the record's, so that a write which somebody else's came
before is refused by the provider itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from openproto import AsyncMemory, ConflictError, Memory, MemoryRecord, NotFoundError
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.extras import needs

with needs("pydantic-ai"):
    from pydantic_ai_harness.memory import (
        MemoryConflictError,
        MemoryFile,
        MemoryMutation,
        MemoryOperation,
        MemoryOperationConflictError,
        MemorySearchMatch,
        MemorySearchResult,
    )

__all__ = ["OpenProtoMemoryStore"]

_FIELD = "x-pydantic-ai"
_FILES, _OPERATIONS = "pydantic-ai", "pydantic-ai-operations"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_SEGMENT = re.compile(r"(?!.*\.\.)(?!\.$)[A-Za-z0-9_.-]{1,200}")


class OpenProtoMemoryStore:
    """Files of one user under the scope `pydantic-ai/<directory>`.

    What a change with an operation did is kept under the scope `pydantic-ai-operations`, where no search finds it.

    Args:
        memory: Where the files are kept. A `Memory` serves every event loop, an `AsyncMemory` the one that first used
            it.
        user_id: Whose files they are.
    """

    def __init__(self, memory: AsyncMemory | Memory, *, user_id: str) -> None:
        self._bound = BoundClient(memory)
        self._memory = self._bound.client
        self._user_id = user_id

    async def read(self, path: str, *, max_chars: int) -> MemoryFile | None:
        """Return the first `max_chars` characters of a file, or None where there is none."""
        record = await self._record(_key(path))
        if record is None:
            return None
        text, kept = _text(record), _kept(record)
        truncated = len(text) > max_chars
        return MemoryFile(text[:max_chars], str(record.version), kept.get("operation"), truncated, kept.get("metadata"))

    async def get_operation(self, operation: MemoryOperation) -> MemoryMutation | None:
        """Return what the operation did, or None where it has not happened.

        Raises MemoryOperationConflictError where it was another one of the same id.
        """
        record = await self._record(f"{_OPERATIONS}/{operation.id}")
        if record is None:
            return None
        kept = _kept(record)
        if kept["fingerprint"] != operation.fingerprint:
            raise MemoryOperationConflictError(
                f"operation id {operation.id!r} belongs to other arguments; use a new one"
            )
        return MemoryMutation(kept["version"], replayed=True, existed=kept["existed"])

    async def write(
        self, path: str, content: str, *, expected_version: str | None, operation: MemoryOperation | None = None
    ) -> MemoryMutation:
        """Write a file if `expected_version` is its version, or None and there is no file; else MemoryConflictError."""
        return await self.write_with_metadata(
            path, content, expected_version=expected_version, metadata=None, operation=operation
        )

    async def write_with_metadata(
        self,
        path: str,
        content: str,
        *,
        expected_version: str | None,
        metadata: Mapping[str, str] | None,
        operation: MemoryOperation | None = None,
    ) -> MemoryMutation:
        """Write a file as `write` does, with what is to be known of this very write, such as who made it."""
        key, existed = _key(path), expected_version is not None
        if operation is not None:
            if (done := await self.get_operation(operation)) is not None:
                return done
            current = await self._record(key)
            if current is not None and _kept(current).get("operation") == operation.id:
                # Written, and then interrupted before the operation was noted.
                return await self._note(operation, current.version, existed=_kept(current)["existed"])
        kept: dict[str, Any] = {"operation": operation and operation.id, "existed": existed}
        if metadata:
            kept["metadata"] = dict(metadata)
        text = content if content.strip() else "(no text)"
        fields: dict[str, Any] = {"x_pydantic_ai": kept if text == content else {**kept, "text": content}}
        put = self._memory.put(
            text, user_id=self._user_id, key=key, scope=_scope(path), if_version=expected_version or "absent", **fields
        )
        try:
            record = await self._bound.call(put)
        except (ConflictError, NotFoundError) as error:
            raise MemoryConflictError(f"memory path {path!r} has changed meanwhile; read it again") from error
        return await self._note(operation, record.version, existed=existed)

    async def delete(
        self, path: str, *, expected_version: str | None, operation: MemoryOperation | None = None
    ) -> MemoryMutation:
        """Delete a file if `expected_version` is its version; else MemoryConflictError."""
        key = _key(path)
        if operation is not None and (done := await self.get_operation(operation)) is not None:
            return done
        record = await self._record(key)
        try:
            if (record and record.version) != expected_version:
                raise ConflictError("the file has another version; read it again")
            if record is not None:
                await self._bound.call(
                    self._memory.delete(record.id, user_id=self._user_id, if_version=expected_version)
                )
        except (ConflictError, NotFoundError) as error:
            raise MemoryConflictError(f"memory path {path!r} has changed meanwhile; read it again") from error
        return await self._note(operation, None, existed=record is not None)

    async def list_paths(self, prefix: str = "", *, limit: int) -> list[str]:
        """Return the first `limit` paths that start with `prefix`, sorted."""

        async def all_paths() -> list[str]:
            return [_path(record) async for record in self._memory.iter(self._user_id, scope=_scope(prefix))]

        paths = await self._bound.call(all_paths())
        return sorted(path for path in paths if path and path.startswith(prefix))[:limit]

    async def search(
        self, prefix: str, query: str, *, limit: int, max_files: int, max_chars: int, max_file_chars: int
    ) -> MemorySearchResult:
        """Return the files directly below `prefix` that answer the query, best first, as the provider ranks them."""
        found = await self._bound.call(
            self._memory.search(query, self._user_id, scope=_scope(prefix), limit=min(max_files, 100))
        )
        hits = [(_path(hit.memory), hit) for hit in found]
        # Its own files only: those of an agent whose namespace is further down are not this one's to see.
        inside = [
            (path, hit) for path, hit in hits if path and path.startswith(prefix) and "/" not in path[len(prefix) :]
        ]
        most = max_chars // max(1, min(limit, len(inside)))
        matches = [
            MemorySearchMatch(path, _snippet(_text(hit.memory)[:max_file_chars], query, most - len(path)), hit.score)
            for path, hit in inside[:limit]
        ]
        return MemorySearchResult(matches, scanned=len(found), truncated=len(inside) > limit)

    async def _record(self, key: str) -> MemoryRecord | None:
        try:
            return await self._bound.call(self._memory.get(user_id=self._user_id, key=key))
        except NotFoundError:
            return None

    async def _note(self, operation: MemoryOperation | None, version: str | None, *, existed: bool) -> MemoryMutation:
        if operation is not None:
            kept = {"fingerprint": operation.fingerprint, "version": version, "existed": existed}
            fields: dict[str, Any] = {"valid_to": _NEVER, "x_pydantic_ai": kept}
            key = f"{_OPERATIONS}/{operation.id}"
            await self._bound.call(
                self._memory.put("a change of a file", user_id=self._user_id, key=key, scope=_OPERATIONS, **fields)
            )
        return MemoryMutation(version, replayed=False, existed=existed)


def _key(path: str) -> str:
    if not all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        raise ValueError(f"{path!r} is not a path: its segments must be letters, digits, and `_.-`, without `..`")
    return f"{_FILES}/{path}"


def _path(record: MemoryRecord) -> str:
    """Return the path of a file, or nothing for what another program put into the scope."""
    before, _, path = (record.key or "").partition("/")
    return path if before == _FILES else ""


def _scope(path_or_prefix: str) -> str:
    return f"{_FILES}/{path_or_prefix.rpartition('/')[0]}".rstrip("/")


def _kept(record: MemoryRecord) -> dict[str, Any]:
    return cast("dict[str, Any]", record.extensions.get(_FIELD) or {})


def _text(record: MemoryRecord) -> str:
    return str(_kept(record).get("text", record.content))


def _snippet(text: str, query: str, most: int) -> str:
    """Return the part of the text round the first word of the query that stands there."""
    places = (text.lower().find(word) for word in query.lower().split())
    start = max(0, min((place for place in places if place >= 0), default=0) - most // 3)
    return text[start : start + max(most, 0)]
