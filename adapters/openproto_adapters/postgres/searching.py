"""The statement of a search, which is the score of `openproto.stores.ranking` in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from openproto.stores.ranking import (
    CENTERING_HALF_LIFE,
    CENTERING_SAMPLE,
    FLOOR,
    LENDERS,
    LENT,
    VARIANT_WEIGHT,
    parts_of,
)
from openproto_adapters.postgres.queries import RECORD, STORE_FITS

# Over every memory of the user: exact, for an approximate index over everybody's vectors finds almost none of one
# user's (measured: 4 of 10 at 10,000 rows, none at a million). One scan of the covering index gives each memory's
# cosine and its words. The words of the query carry the weights 1, 2, 4, ... so that one inner product says which of
# them the memory holds, as a mask; rarity and coverage are worked out per mask, of which there are few, and not per
# memory. $6 says which bits of a mask stand for each word, and each variant behind the $11 words. The best lend to the
# turns at a distance of one or else two. Parameters stand in subqueries so that a generic plan converts them once.
#
# The planner takes a user of whom it knows little for one row, and would go over all memories for each memory. It can
# only hash a FULL JOIN (which coalesce keeps one), and looks up what OFFSET 0 fences by the condition inside.
NEARNESS = f"{FLOOR} + greatest({1 - FLOOR} * least(cosine, 1), {FLOOR} * cosine)"
HAS_TURNS = "(SELECT found FROM turns)"
"""Whether the user has anything to lend to: sorting all memories for it, and joining them, take a third of a search."""
CENTERED = f"""recent AS (
    SELECT m.embedding FROM {{schema}}.memories m WHERE m.user_id = $2 AND $7
    ORDER BY m.created_at DESC, m.id DESC LIMIT {CENTERING_SAMPLE}
), center AS (
    SELECT {{vector}}.avg(embedding::{{vector}}.vector) AS mean,
        (count(embedding) / (count(embedding) + {CENTERING_HALF_LIFE}.0))::real AS share FROM recent
), query AS MATERIALIZED (
    SELECT CASE WHEN mean IS NULL THEN $3::{{vector}}.halfvec
        -- OPERATOR() knows no precedence: the parentheses are needed.
        ELSE {{vector}}.l2_normalize($3::{{vector}}.halfvec::{{vector}}.vector OPERATOR({{vector}}.-) (
            mean OPERATOR({{vector}}.*) array_fill(share, ARRAY[{{vector}}.vector_dims(mean)])::{{vector}}.vector)
        )::{{vector}}.halfvec END AS vector
    FROM center
)"""
_SEARCH = f"""
WITH {CENTERED}, rest AS MATERIALIZED (
    SELECT m.id, {{mask:m.more_words}} AS mask
    FROM {{schema}}.memories m WHERE m.user_id = $2 AND m.more_words IS NOT NULL
), mine AS MATERIALIZED (
    SELECT m.id, -(m.embedding OPERATOR({{vector}}.<#>) (SELECT vector FROM query)) AS cosine,
        {{mask:m.words}} | coalesce(rest.mask, 0) AS mask, <filters> AS eligible
    FROM {{schema}}.memories m LEFT JOIN rest USING (id) WHERE m.user_id = $2
), mask AS MATERIALIZED (
    SELECT mask, count(*) AS memories FROM mine GROUP BY mask
), rarity AS MATERIALIZED (
    SELECT bits, ln(1 + (total - having_it + 0.5) / (having_it + 0.5)) * CASE
            WHEN place <= $11 THEN 1 WHEN having_it > 0 THEN {VARIANT_WEIGHT} ELSE 0 END AS idf
    FROM (
        SELECT place, bits, sum(memories)::double precision AS total,
            coalesce(sum(memories) FILTER (WHERE mask & bits <> 0), 0)::double precision AS having_it
        FROM unnest($6::bigint[]) WITH ORDINALITY AS term (bits, place) CROSS JOIN mask GROUP BY place, bits
    ) AS counted
), covered AS MATERIALIZED (
    SELECT mask, sum(idf) FILTER (WHERE mask & bits <> 0) / sum(idf) AS coverage
    FROM mask CROSS JOIN rarity GROUP BY mask
), scored AS (
    SELECT id, CASE WHEN $3::{{vector}}.halfvec IS NULL THEN coalesce(coverage, 0)
        ELSE (coalesce({NEARNESS}, 0) + $8 * coalesce(coverage, 0)) / (1 + $8) END AS score<parts>
    FROM mine FULL JOIN covered USING (mask) WHERE coalesce(eligible, false)
), turns AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM {{schema}}.memories m WHERE m.user_id = $2 AND m.conversation IS NOT NULL) AS found
), lender AS MATERIALIZED (
    SELECT best.id, best.score, m.conversation, m.turn
    FROM (SELECT id, score FROM scored WHERE score > 0 AND {HAS_TURNS} ORDER BY score DESC, id DESC LIMIT {LENDERS})
    AS best CROSS JOIN LATERAL (
        SELECT m.user_id, m.conversation, m.turn FROM {{schema}}.memories m WHERE m.id = best.id OFFSET 0
    ) AS m WHERE m.user_id = $2 AND m.conversation IS NOT NULL
), beside AS (
    SELECT DISTINCT ON (lender.id, near.turn > lender.turn) near.id, lender.score
    FROM lender CROSS JOIN LATERAL (
        SELECT m.id, m.turn FROM {{schema}}.memories m
        WHERE m.user_id = $2 AND m.conversation = lender.conversation
          AND m.turn BETWEEN lender.turn - 2 AND lender.turn + 2 AND m.turn <> lender.turn AND <filters> OFFSET 0
    ) AS near
    ORDER BY lender.id, near.turn > lender.turn, abs(near.turn - lender.turn), near.id DESC
), lent AS MATERIALIZED (
    SELECT id, sum({LENT} * score) AS lent FROM beside GROUP BY id
), best AS (
    SELECT id, score<told> FROM (
        SELECT id, score<told> FROM scored WHERE NOT {HAS_TURNS}
        UNION ALL
        SELECT id, coalesce(score, 0) + coalesce(lent, 0) * (1 - coalesce(score, 0)) AS score<told>
        FROM scored FULL JOIN lent USING (id) WHERE {HAS_TURNS}
    ) AS together
    WHERE score > 0 AND score >= $9 AND {STORE_FITS}
    ORDER BY score DESC, id DESC LIMIT $10
)
SELECT {RECORD}, score<told><counted> FROM best JOIN {{schema}}.memories m ON m.id = best.id AND m.user_id = $2
ORDER BY score DESC, m.id DESC
"""
# How many records there are to find, as far as it takes to know whether there are more than the limit.
_COUNTED = ", (SELECT count(*) FROM (SELECT FROM mine WHERE eligible LIMIT $10 + 1) AS counted)"


@cache
def exact(*, explained: bool, counted: bool = False) -> str:
    """Return the statement of an exact search, with one more column that `counted` asks for."""
    return explaining(_SEARCH.replace("<counted>", _COUNTED if counted else ""), explained=explained)


def explaining(statement: str, *, explained: bool) -> str:
    """Return the statement, which adds the nearness, null without vectors, and the coverage where they are wanted."""
    if not explained:
        return statement.replace("<parts>", "").replace("<told>", "")
    parts = f""", CASE WHEN $3::{{vector}}.halfvec IS NOT NULL THEN coalesce({NEARNESS}, 0) END AS near,
        coalesce(coverage, 0) AS coverage"""
    return statement.replace("<told>", ", near, coverage").replace("<parts>", parts)


def hits(
    rows: Sequence[Any], text_weight: float, *, explained: bool
) -> Iterator[tuple[Sequence[Any], float, dict[str, float] | None]]:
    """Yield of each row the columns of the record, the score, and its parts."""
    for row in rows:
        if explained:
            *columns, score, near, covered = row
            yield columns, score, parts_of(score, near, covered, text_weight)
        else:
            *columns, score = row
            yield columns, score, None
