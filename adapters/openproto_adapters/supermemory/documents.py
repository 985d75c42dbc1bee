"""A memory as a document: its text, and everything else in flat metadata.

One string holds the record, next to the fields that Supermemory filters by. A short text is in the metadata too, so
that listings and searches need no second request, and Supermemory, which processes texts, cannot change it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from hashlib import blake2b

from openproto.emulation import Stored, another_users, damaged, scope_nodes, user_token
from openproto.models import Status
from openproto.requests import SearchQuery
from openproto.stores.moments import to_micros
from openproto_adapters.supermemory.api import Document, Filter, Metadata, NewDocument, System
from openproto_adapters.supermemory.errors import VENDOR
from openproto_adapters.supermemory.ids import DocumentId

CREATED = "openproto_created"
KEPT_WHOLE = 2000
"""Characters up to which a text stands in the metadata, which Supermemory copies to all that comes of a document."""

_ENVELOPE, _TEXT, _DIGEST = "openproto", "openproto_text", "openproto_digest"
_FROM, _UNTIL = "openproto_from", "openproto_until"
_SCOPES, _TAGS = "openproto_scopes", "openproto_tags"

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://|www\.)\S+")
_LATEST = 2**53 - 1
"""In the year 2255: the last integer that every reader of JSON takes for what it is."""
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

_STATUS: dict[str, Status] = {"unknown": "queued", "queued": "queued", "done": "done", "failed": "failed"}


def sent(content: str) -> str:
    """Return the text to send: an address alone would have Supermemory fetch the page and keep that instead."""
    return f"The address {content}" if _ADDRESS.fullmatch(content.strip()) else content


def new_document(stored: Stored) -> NewDocument:
    """Return the document that holds the memory."""
    record = stored.record
    return {"id": DocumentId.of(record.id).document, "content": sent(record.content), "metadata": metadata_of(stored)}


def metadata_of(stored: Stored) -> Metadata:
    """Return a memory's metadata: always the same keys, whether an update of Supermemory's replaces or merges."""
    record = stored.record
    content = record.content
    is_kept = len(content) <= KEPT_WHOLE or sent(content).strip() != content
    ends = [end for end in (record.valid_to, stored.superseded_at) if end is not None]
    return {
        _ENVELOPE: stored.to_text(),
        _TEXT: content if is_kept else "",
        _DIGEST: _digest(content),
        CREATED: created(record.created_at),
        # Seconds, wide enough to never leave out a memory that is current: the base filters again.
        _FROM: math.floor((record.valid_from or stored.holds_from or _FIRST).timestamp()),
        _UNTIL: math.ceil(min(ends, default=_LAST).timestamp()),
        _SCOPES: [*scope_nodes(record.scope)],
        _TAGS: [*record.tags],
    }


def created(moment: datetime) -> int:
    """Return the moment in microseconds of Unix time, by which listings are cut."""
    return min(to_micros(moment), _LATEST)


def created_between(start: int | None, end: int | None) -> Filter:
    """Return the filter for memories of these microseconds, both included; other programs' documents have none."""
    bounds = (("gte", start), ("lte", _LATEST if end is None else end))
    return _all([_is(CREATED, operator, bound) for operator, bound in bounds if bound is not None])


def current_and_matching(query: SearchQuery, at: datetime) -> Filter:
    """Return the filter for what a search asks for: current at that moment, in the scope, with the tag."""
    operands = [_is(_FROM, "lte", math.floor(at.timestamp())), _is(_UNTIL, "gte", math.floor(at.timestamp()))]
    if query.scope is not None:
        operands.append(_is(_SCOPES, "arrayContains", query.scope))
    operands += [_is(_TAGS, "arrayContains", tag) for tag in query.tags]
    return _all(operands)


def text_of(metadata: Metadata, *candidates: str | None) -> str | None:
    """Return the memory's text: as it was kept, or the candidate that is the same; None where there is none."""
    kept = metadata.get(_TEXT)
    if isinstance(kept, str) and kept:
        return kept
    return next((text for text in candidates if text is not None and _digest(text) == metadata.get(_DIGEST)), None)


def to_stored(own: DocumentId, metadata: Metadata, text: str, status: Status) -> Stored:
    """Return the memory of that id; ProviderError where that is another user's, or damaged."""
    stored = Stored.from_text(metadata[_ENVELOPE], text, id=own.id, status=status)
    if user_token(stored.record.user_id) != own.token:
        raise another_users(VENDOR)
    return stored


def is_ours(metadata: Metadata) -> bool:
    """Return whether a document is a memory; other programs may have added others."""
    return _ENVELOPE in metadata


def status_of(system: System) -> Status:
    """Return the state of a document of which memories may form: done when they have."""
    return "indexing" if system.status == "done" and system.dreaming != "done" else accepted_status(system.status)


def accepted_status(status: str) -> Status:
    """Return the protocol's word for a state; a state that is new to this adapter is taken for one on the way."""
    return _STATUS.get(status, "indexing")


def created_of(document: Document) -> int:
    """Return by what the document is cut into listings."""
    value = document.metadata.get(CREATED)
    if not isinstance(value, int | float):
        raise damaged()
    return int(value)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _is(field: str, operator: str, value: object) -> Filter:
    return {"field": field, "operator": operator, "value": value}


def _all(operands: list[Filter]) -> Filter:
    return {"operator": "and", "operands": operands}
