"""Whether a memory is one that a query asks for: scope, tag, and time, where the backend cannot filter."""

from __future__ import annotations

from datetime import datetime

from openproto.emulation.stored import Stored
from openproto.requests import Filters, ListQuery


def scope_nodes(scope: str | None) -> list[str]:
    """Return the scope and every node above it: what a backend needs to filter by a node with equality alone."""
    if scope is None:
        return []
    segments = scope.split("/")
    return ["/".join(segments[:length]) for length in range(1, len(segments) + 1)]


def is_current(stored: Stored, at: datetime) -> bool:
    """Return whether the memory is valid and not superseded at that moment."""
    begin = stored.record.valid_from or stored.holds_from
    return (begin is None or begin <= at) and not has_ended(stored, at)


def has_ended(stored: Stored, at: datetime) -> bool:
    """Return whether the memory is valid no longer at that moment, or superseded."""
    return any(end is not None and end <= at for end in (stored.record.valid_to, stored.superseded_at))


def matches(stored: Stored, filters: Filters) -> bool:
    """Return whether the memory is the user's and passes every filter; `as_of` where the query has one."""
    record = stored.record
    if record.user_id != filters.user_id:
        return False
    if filters.scope is not None and filters.scope not in scope_nodes(record.scope):
        return False
    if not set(filters.tags) <= set(record.tags):
        return False
    if not isinstance(filters, ListQuery):
        return True
    return (
        (filters.since is None or record.created_at >= filters.since)
        and (filters.until is None or record.created_at <= filters.until)
        and (filters.as_of is None or is_current(stored, filters.as_of))
    )
