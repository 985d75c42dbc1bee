"""Whether two stores have the same: which record was made of which, and in what fields the two differ.

A record is known by its id. One that could not keep its id names it in the extension `x-migrated`, with the provider
that it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from openproto import MemoryRecord

MIGRATED = "x-migrated"

FIELDS = (
    "content",
    "scope",
    "tags",
    "source",
    "confidence",
    "valid_from",
    "valid_to",
    "key",
    "extensions",
    "supersedes",
    "superseded_by",
    "created_at",
    "updated_at",
)
"""What is compared; `embedding_model`, `status`, and `version` are each store's own."""

_MARK = 8
_OWN = FIELDS.index("supersedes") * _MARK
"""Where in the marks of a record its own fields end, and those begin that other records and the store change too."""


class Matching:
    """Compares the records of a target with those of a source, which is named by its provider."""

    def __init__(self, source: str) -> None:
        self._source = source

    def origin_of(self, record: MemoryRecord) -> str:
        """Return the id that a record of the target has at the source."""
        made_of = self._made_of(record)
        return str(made_of["id"]) if made_of is not None else record.id

    def made_of(self, record: MemoryRecord) -> dict[str, Any]:
        """Return what `x-migrated` says of a record of the source that gets another id at the target."""
        kept = {name: value for name, value in record.to_wire().items() if name in ("id", "created_at", "updated_at")}
        earlier = record.extensions.get(MIGRATED)
        return {"from": self._source, **kept, **({} if earlier is None else {"earlier": earlier})}

    def marks(self, record: MemoryRecord, origins: Mapping[str, str]) -> bytes:
        """Return eight bytes for each of `FIELDS`, which differ where the fields do.

        `origins` has the ids at the source of the target's records that have others.
        """
        wire = record.to_wire()
        extensions = dict(record.extensions)
        made_of = self._made_of(record)
        if made_of is not None and (earlier := made_of.get("earlier")) is not None:
            extensions[MIGRATED] = earlier
        elif made_of is not None:
            del extensions[MIGRATED]
        wire["extensions"] = extensions
        wire["supersedes"] = sorted(origins.get(id, id) for id in record.supersedes)
        wire["superseded_by"] = origins.get(record.superseded_by or "", record.superseded_by)
        return b"".join(_mark(wire.get(name)) for name in FIELDS)

    def _made_of(self, record: MemoryRecord) -> dict[str, Any] | None:
        made_of = record.extensions.get(MIGRATED)
        if isinstance(made_of, dict) and made_of.get("from") == self._source and "id" in made_of:
            return made_of
        return None


def own(marks: bytes) -> bytes:
    """Return the digest of what only a change of the record itself changes."""
    return blake2b(marks[:_OWN], digest_size=_MARK).digest()


def different(one: bytes, other: bytes, ignored: Iterable[str] = ()) -> list[str]:
    """Return the names of the fields in which two records differ."""
    return [
        name
        for at, name in enumerate(FIELDS)
        if name not in ignored and one[at * _MARK : (at + 1) * _MARK] != other[at * _MARK : (at + 1) * _MARK]
    ]


def _mark(value: Any) -> bytes:
    text = json.dumps(value or None, sort_keys=True)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=_MARK).digest()
