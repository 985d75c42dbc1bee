"""The statements that change a record: its fields, whom it supersedes, and its end.

One statement holds the change, its audit entry, the comparison of the version, and every handover. `<...>` are fixed
fragments; `Arguments.fill` and `changing` put them in.
"""

from __future__ import annotations

from collections.abc import Sequence

from openproto.requests import MemoryInput, MemoryUpdate
from openproto.stores.compact_json import to_json
from openproto.stores.indexer import IndexedText
from openproto_adapters.postgres.queries import RECORD, STORE_FITS, Arguments
from openproto_adapters.postgres.records import key_hash
from openproto_adapters.postgres.vectors import PackedWords, pack_halfvec

VERSION = "(right(m.id::text, 12) || '-' || m.revision)"
"""What `records.version_of` makes of the same."""

BY_ID = "m.id = $2 AND m.user_id = coalesce($3, m.user_id)"
BY_KEY_ALONE = "m.user_id = $3 AND m.key_hash = $8 AND m.key = $9 AND $2::uuid IS NULL AND m.supersedes = '{}'"
"""The record of a key, if it supersedes none."""
BY_KEY = "m.user_id = $3 AND m.key_hash = $8 AND m.key = $9 AND $2::uuid IS NULL"

# $4 is what the record supersedes from now on as well, $7 the version that it must have.
_CHANGE = f"""
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), target AS (
    SELECT m.id, m.user_id, m.supersedes FROM {{schema}}.memories m
    WHERE <which> AND m.id <> ALL ($4::uuid[]) FOR UPDATE
)<locked>, changed AS (
    UPDATE {{schema}}.memories m
    SET updated_at = (SELECT now FROM moment), revision = m.revision + 1<changes> FROM target
    WHERE m.id = target.id AND m.user_id = target.user_id AND {STORE_FITS}
      AND ($7::text IS NULL OR {VERSION} = $7)<all found>
    RETURNING m.*
)<handed over>, audited AS (
    INSERT INTO {{schema}}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, updated_at, $5, 'update', id::text, scope, $6 FROM changed
)
SELECT <owners> AS owners, {RECORD} FROM changed m
"""

# In the order of ids: writers that hand over the same records in another order would deadlock.
_LOCKED = """, old AS (
    SELECT m.id, m.user_id, m.successors, m.handovers FROM {schema}.memories m JOIN target USING (user_id)
    WHERE m.id = ANY ($4::uuid[]) OR m.id = ANY (<released>) ORDER BY m.id FOR UPDATE OF m
)"""
_ALL_FOUND = """
      AND (SELECT count(*) FROM old WHERE old.id = ANY ($4::uuid[])) = cardinality($4::uuid[])"""

# Handovers to the changed record are taken back from those in <released>, and made to those of $4 that lack one.
_HANDED_OVER = """, handed AS (
    SELECT old.id, old.user_id, marks.successors, marks.moments FROM old, changed, target, LATERAL (
        SELECT array_agg(successor ORDER BY place) AS successors, array_agg(moment ORDER BY place) AS moments FROM (
            SELECT successor, moment, place
            FROM unnest(old.successors, old.handovers) WITH ORDINALITY AS kept (successor, moment, place)
            WHERE NOT (successor = changed.id AND old.id = ANY (<released>))
            UNION ALL SELECT changed.id,
                CASE WHEN changed.starts_by_handover THEN changed.updated_at ELSE changed.valid_from END, 9999999
            WHERE old.id = ANY ($4::uuid[])
              AND (old.id = ANY (<released>) OR changed.id <> ALL (coalesce(old.successors, '{}')))
        ) AS mark
    ) AS marks
), superseded AS (
    UPDATE {schema}.memories m
    SET successors = handed.successors, handovers = handed.moments, revision = m.revision + 1,
        superseded_by = handed.successors[cardinality(handed.successors)],
        superseded_at = (SELECT min(at) FROM unnest(handed.moments) AS at)
    FROM handed WHERE m.user_id = handed.user_id AND m.id = handed.id AND (
        m.successors IS DISTINCT FROM handed.successors OR m.handovers IS DISTINCT FROM handed.moments)
    RETURNING m.user_id
)"""


def changing(which: str, *, names: bool, releases: bool) -> str:
    """Return the statement that changes the record, which names others as superseded, or releases those it named."""
    statement = _CHANGE.replace("<which>", which)
    if not (names or releases):
        for part in ("<locked>", "<all found>", "<handed over>"):
            statement = statement.replace(part, "")
        return statement.replace("<owners>", "NULL::text[]")
    released = "(SELECT supersedes FROM target)::uuid[]" if releases else "'{}'::uuid[]"
    statement = statement.replace("<locked>", _LOCKED).replace("<all found>", _ALL_FOUND)
    statement = statement.replace("<handed over>", _HANDED_OVER).replace("<released>", released)
    return statement.replace("<owners>", "(SELECT array_agg(DISTINCT user_id) FROM superseded)")


_PLAIN_CHANGES = {"scope": "text", "confidence": "double precision", "valid_to": "timestamptz"}

# Appending to `supersedes`: each id once, in order.
_APPEND = """m.supersedes || ARRAY(
    SELECT id FROM unnest($4::uuid[]) WITH ORDINALITY AS wanted (id, place)
    WHERE id <> ALL (m.supersedes) ORDER BY place
)"""

# A successor without a valid_from holds from the first write that named a predecessor.
_STARTS = {
    "valid_from": "coalesce(m.valid_from, (SELECT now FROM moment))",
    "starts_by_handover": "m.valid_from IS NULL OR m.starts_by_handover",
}
_STARTS_NO_MORE = {
    "valid_from": "CASE WHEN m.starts_by_handover THEN NULL ELSE m.valid_from END",
    "starts_by_handover": "false",
}

# Changing extensions: <changed> and <added> are the names of all that change, and the new values.
_EXTEND = """(SELECT json_object_agg(key, value) FROM (
    SELECT key, value FROM json_each(m.extensions) WHERE key <> ALL (<changed>::text[])
    UNION ALL SELECT key, value FROM json_each(<added>::json)
) AS kept)"""

DELETE = """
WITH gone AS (
    DELETE FROM {schema}.memories m WHERE <filters> RETURNING id, user_id, scope
), audited AS (
    INSERT INTO {schema}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, clock_timestamp(), $1, 'delete', id::text, scope, $2 FROM gone
)
SELECT count(*), array_agg(DISTINCT user_id) FROM gone
"""

COUNT_OWN = "SELECT count(*) FROM {schema}.memories m WHERE m.user_id = $1 AND m.id = ANY ($2::uuid[])"


def assign_content(arguments: Arguments, content: str, new: IndexedText[PackedWords]) -> None:
    """Let the words and the vector follow the content."""
    words, more_words = new.words
    arguments.assign("content", "text", content)
    arguments.assign("words", "{vector}.sparsevec", words)
    arguments.assign("more_words", "{vector}.sparsevec", more_words)
    arguments.assign("embedding", "{vector}.halfvec", pack_halfvec(new.vector) if new.vector is not None else None)
    arguments.assign_expression("next_embedding", "NULL")


def assign_changes(arguments: Arguments, changes: MemoryUpdate, supersedes: Sequence[str], *, clears: bool) -> None:
    """Assign what an update names, but for the content."""
    values = changes.changes
    for column, kind in _PLAIN_CHANGES.items():
        if column in values:
            arguments.assign(column, kind, values[column])
    if "tags" in values:
        arguments.assign("tags", "text[]", values["tags"] or [])
    if "source" in values:
        arguments.assign("source", "json", to_json(values["source"].model_dump()) if values["source"] else None)
    if extensions := changes.extensions:
        added = {name: value for name, value in extensions.items() if value is not None}
        expression = _EXTEND.replace("<changed>", arguments.parameter([*extensions]))
        arguments.assign_expression("extensions", expression.replace("<added>", arguments.parameter(to_json(added))))
    if supersedes or clears:
        arguments.assign_expression("supersedes", _APPEND if supersedes else "'{}'")
        for column, start in (_STARTS if supersedes else _STARTS_NO_MORE).items():
            arguments.assign_expression(column, start)


def assign_all(arguments: Arguments, item: MemoryInput, content: IndexedText[PackedWords]) -> None:
    """Assign every field of the record of the item's key, which `BY_KEY` finds."""
    arguments.parameter(key_hash(item.key))
    arguments.parameter(item.key)
    assign_content(arguments, item.content, content)
    arguments.assign("scope", "text", item.scope)
    arguments.assign("tags", "text[]", item.tags)
    arguments.assign("source", "json", to_json(item.source.model_dump()) if item.source else None)
    arguments.assign("confidence", "double precision", item.confidence)
    arguments.assign("valid_to", "timestamptz", item.valid_to)
    arguments.assign("extensions", "json", to_json(item.extensions) if item.model_extra else None)
    arguments.assign_expression("supersedes", "$4::uuid[]")
    starts_by_handover = item.valid_from is None and bool(item.supersedes)
    arguments.assign("starts_by_handover", "boolean", starts_by_handover)
    if starts_by_handover:
        arguments.assign_expression("valid_from", "(SELECT now FROM moment)")
    else:
        arguments.assign("valid_from", "timestamptz", item.valid_from)
