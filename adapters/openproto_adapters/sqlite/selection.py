"""Which rows a statement is about: the user's own, under filters, current at a moment; and the check that they are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

from openproto.errors import ProviderError
from openproto.models import MemoryRecord
from openproto.requests import Filters
from openproto_adapters.sqlite.records import to_micros

Parameters: TypeAlias = dict[str, Any]

OWN = "user_id = :user_id"

# Compared as text, never as a pattern: `_` and `%` are ordinary characters of a scope.
WITHIN = " AND (scope = :scope OR substr(scope, 1, length(:scope) + 1) = :scope || '/')"

CURRENT = """ AND (valid_from IS NULL OR valid_from <= :as_of) AND (valid_to IS NULL OR valid_to > :as_of)
    AND (superseded_at IS NULL OR superseded_at > :as_of)"""

# Most memories are no turns, and their extensions are not looked into. The index of turns has the same expressions.
IS_TURN = """extensions LIKE '%"x-openproto"%'"""
_PLACE = """CASE WHEN extensions LIKE '%"x-openproto"%' AND json_type(extensions, '$."x-openproto".{name}') = '{type}'
    THEN extensions ->> '$."x-openproto".{name}' END"""
CONVERSATION, TURN = _PLACE.format(name="conversation", type="text"), _PLACE.format(name="turn", type="integer")


def selection(filters: Filters, as_of: datetime | None) -> tuple[str, Parameters]:
    """Return the WHERE clause, and its parameters, for the filters and, where given, the moment of validity."""
    where = OWN
    parameters: Parameters = {"user_id": filters.user_id}
    if filters.scope is not None:
        where += WITHIN
        parameters["scope"] = filters.scope
    for number, tag in enumerate(filters.tags):
        where += f" AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag{number})"
        parameters[f"tag{number}"] = tag
    if as_of is not None:
        where += CURRENT
        parameters["as_of"] = to_micros(as_of)
    return where, parameters


def check_owner(owner: str, user_id: str | None) -> None:
    """Raise ProviderError unless the row is the user's.

    The second line of defence, for every row that is read or changed: a wrong condition ends in an error, which takes
    the transaction back, and never in a leak.
    """
    if user_id is not None and owner != user_id:
        raise foreign()


def foreign() -> ProviderError:
    """Return the error for a row of another user."""
    return ProviderError(
        "the database answered with another user's memory, which was withheld; nothing was changed; report it"
    )


def own(record: MemoryRecord, user_id: str | None) -> MemoryRecord:
    """Return the record if it is the user's."""
    check_owner(record.user_id, user_id)
    return record
