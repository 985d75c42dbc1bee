"""Searching the memories of a user who has an index for it: candidates by vector and by words, then the exact score.

Nothing here looks at all of the user's memories. An index finds the nearest vectors, postings those that hold the
rarest of the query's words, and what either of them found is scored as an exact search would score it, with the true
number of memories that have each word. `is_enough` says whether the candidates can be relied on; where they cannot be,
because a filter leaves too few of them or the index is not there, the exact search answers instead.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from openproto.requests import SearchQuery
from openproto.stores.indexer import IndexedQuery, Indexer
from openproto.stores.ranking import LENDERS, LENT, VARIANT_WEIGHT
from openproto_adapters.postgres.queries import MASK_BITS, RECORD, STORE_FITS, Arguments
from openproto_adapters.postgres.row_security import EVERYBODY, acting_for
from openproto_adapters.postgres.searching import CENTERED, NEARNESS, exact, explaining
from openproto_adapters.postgres.vectors import PackedWords, pack_halfvec, pack_query

Read: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]

NEAREST = 400
"""How many candidates the vectors give."""

WORDED = 600
"""How many candidates the words give."""

MOST_POSTINGS = 20_000
"""How many postings are looked at: those of the rarest words. Four times as many where there are no vectors."""

MOST_COMPARED = 10_000
"""Up to how many postings of a word and its variant are compared to count the memories that have either."""

LOOK_EVERY = 30.0
"""Seconds after which a user's new index is used at the latest."""

READY = "SELECT user_id FROM {schema}.large_users WHERE ready_at IS NOT NULL"

_FOUND = """m.id, -(m.embedding OPERATOR({vector}.<#>) (SELECT vector FROM query)) AS cosine,
        {mask:m.words} | CASE WHEN m.more_words IS NULL THEN 0 ELSE {mask:m.more_words} END AS mask"""

# The settings are those of this transaction alone, and the scan reads them when it asks for the query's vector.
_EFFORT = f"""WITH effort AS MATERIALIZED (
    SELECT set_config('hnsw.ef_search', '{NEAREST}', true), set_config('hnsw.iterative_scan', 'relaxed_order', true)
), """
_NEAR = f"""
    SELECT {_FOUND} FROM {{schema}}.memories m WHERE m.user_id = <user> AND <filters>
    ORDER BY m.embedding::{{vector}}.halfvec(<dim>) OPERATOR({{vector}}.<#>) (
        SELECT vector::{{vector}}.halfvec(<dim>) FROM query)
    LIMIT {NEAREST}"""
_NONE_NEAR = "SELECT NULL::uuid AS id, NULL::double precision AS cosine, 0::bigint AS mask WHERE false"

# As `searching.exact`, from the words on; $12 are the places of the words and variants in `words`.
_SEARCH = f"""{_EFFORT}{CENTERED.replace("FROM center", "FROM center, effort")}, term AS MATERIALIZED (
    SELECT place, bits, word, coalesce((
        SELECT sum(p.change * p.count) FROM {{schema}}.postings p WHERE p.user_id = $2 AND p.place = word
    ), 0)::double precision AS own FROM unnest($6::bigint[], $12::integer[]) WITH ORDINALITY AS term (bits, word, place)
), memories AS MATERIALIZED (
    SELECT sum(p.change * p.count)::double precision AS total
    FROM {{schema}}.postings p WHERE p.user_id = $2 AND p.place = 0
), held AS MATERIALIZED (
    -- What has a word has its variants as well.
    SELECT term.*, CASE WHEN term.own = 0 OR coalesce(main.own, 0) = 0 THEN term.own + coalesce(main.own, 0)
        WHEN term.own + main.own > {MOST_COMPARED} THEN least(total, term.own + main.own)
        ELSE (SELECT count(*) FROM (
            SELECT FROM {{schema}}.postings p CROSS JOIN unnest(p.memories) AS m (id)
            WHERE p.user_id = $2 AND p.place IN (term.word, main.word) GROUP BY m.id
            HAVING sum(change) FILTER (WHERE p.place = term.word) > 0
                OR sum(change) FILTER (WHERE p.place = main.word) > 0
        ) AS either) END AS having_it
    FROM memories CROSS JOIN term LEFT JOIN term AS main
        ON term.place > $11 AND main.place <= $11 AND term.bits & main.bits <> 0
), rarity AS MATERIALIZED (
    SELECT place, bits, word, own, ln(1 + (total - having_it + 0.5) / (having_it + 0.5)) * CASE
        WHEN place <= $11 THEN 1 WHEN having_it > 0 THEN {VARIANT_WEIGHT} ELSE 0 END AS idf
    FROM held CROSS JOIN memories
), rare AS MATERIALIZED (
    SELECT * FROM (
        SELECT word, idf, sum(own) OVER (ORDER BY own, place) AS postings FROM rarity WHERE own > 0
    ) AS rising WHERE postings <= <postings>
), wordy AS MATERIALIZED (
    SELECT m.id FROM rare JOIN {{schema}}.postings p ON p.user_id = $2 AND p.place = rare.word
        CROSS JOIN unnest(p.memories) AS m (id)
    GROUP BY m.id ORDER BY sum(idf * change) DESC, m.id DESC LIMIT {WORDED}
), near AS MATERIALIZED (<near>
), worded AS MATERIALIZED (
    SELECT {_FOUND}, m.id IN (SELECT id FROM near) AS is_near
    FROM wordy JOIN {{schema}}.memories m ON m.id = wordy.id AND m.user_id = $2 WHERE <filters>
), candidate AS MATERIALIZED (
    SELECT * FROM near UNION ALL SELECT id, cosine, mask FROM worded WHERE NOT is_near
), few_words AS (
    SELECT (SELECT count(*) FROM wordy) < {WORDED} OR (SELECT count(*) FROM worded) >= {LENDERS} AS enough
), <scored:first:candidate>, lender AS MATERIALIZED (
    SELECT m.id, best.score, m.conversation, m.turn
    FROM (SELECT id, score FROM first WHERE score > 0 ORDER BY score DESC, id DESC LIMIT {LENDERS}) AS best
    JOIN {{schema}}.memories m ON m.id = best.id AND m.user_id = $2 WHERE m.conversation IS NOT NULL
), beside AS MATERIALIZED (
    SELECT DISTINCT ON (lender.id, near.turn > lender.turn) near.id, near.cosine, near.mask, lender.score
    FROM lender CROSS JOIN LATERAL (
        SELECT m.turn, {_FOUND} FROM {{schema}}.memories m
        WHERE m.user_id = $2 AND m.conversation = lender.conversation
          AND m.turn BETWEEN lender.turn - 2 AND lender.turn + 2 AND m.turn <> lender.turn AND <filters> OFFSET 0
    ) AS near
    ORDER BY lender.id, near.turn > lender.turn, abs(near.turn - lender.turn), near.id DESC
), lent AS MATERIALIZED (
    SELECT id, cosine, mask, sum({LENT} * score) AS lent FROM beside GROUP BY id, cosine, mask
), other AS MATERIALIZED (
    SELECT id, cosine, mask FROM lent WHERE id NOT IN (SELECT id FROM candidate)
), <scored:second:other>, best AS (
    SELECT id, score<told> FROM (
        SELECT id, score + coalesce(lent, 0) * (1 - score) AS score<told>
        FROM (SELECT * FROM first UNION ALL SELECT * FROM second) AS scored LEFT JOIN lent USING (id)
    ) AS together
    WHERE score > 0 AND score >= $9 ORDER BY score DESC, id DESC LIMIT $10
), state AS (
    SELECT {STORE_FITS} AND <enough> AND EXISTS (
        SELECT 1 FROM {{schema}}.large_users u WHERE u.user_id = $2 AND u.ready_at IS NOT NULL) AS is_enough
)
SELECT is_enough, {RECORD}, score<told> FROM state LEFT JOIN best ON is_enough
LEFT JOIN {{schema}}.memories m ON m.id = best.id AND m.user_id = $2
ORDER BY score DESC, m.id DESC
"""
_SCORED = f"""<name>_covered AS MATERIALIZED (
    SELECT mask, sum(idf) FILTER (WHERE mask & bits <> 0) / sum(idf) AS coverage
    FROM (SELECT DISTINCT mask FROM <source>) AS mask CROSS JOIN rarity GROUP BY mask
), <name> AS MATERIALIZED (
    SELECT id, CASE WHEN $3::{{vector}}.halfvec IS NULL THEN coalesce(coverage, 0)
        ELSE (coalesce({NEARNESS}, 0) + $8 * coalesce(coverage, 0)) / (1 + $8) END AS score<parts>
    FROM <source> LEFT JOIN <name>_covered USING (mask)
)"""
_ENOUGH = f"(SELECT count(*) FROM near) = {NEAREST} AND (SELECT enough FROM few_words)"
# Without vectors the words must have found all that there is to find.
_ENOUGH_WORDS = (
    "(SELECT enough FROM few_words) AND (SELECT count(*) FROM rare) = (SELECT count(*) FROM term WHERE own > 0)"
)


def literal(text: str) -> str:
    """Return a text as SQL that any setting reads alike, and in which no name of a template can occur.

    The index of a user is used for statements that name the user in their own text.
    """
    return "E'" + re.sub(r"[^A-Za-z0-9_-]", lambda found: f"\\U{ord(found[0]):08X}", text) + "'"


@lru_cache(maxsize=256)
def by_index(user_id: str, dim: int | None, *, explained: bool) -> str:
    """Return the statement that searches by the index of a user; filters go into it as into `searching.exact`."""
    statement = _SEARCH.replace("<near>", _NONE_NEAR if dim is None else _NEAR)
    for name, source in (("first", "candidate"), ("second", "other")):
        scored = _SCORED.replace("<name>", name).replace("<source>", source)
        statement = statement.replace(f"<scored:{name}:{source}>", scored)
    statement = statement.replace("<enough>", _ENOUGH_WORDS if dim is None else _ENOUGH)
    statement = statement.replace("<postings>", str(MOST_POSTINGS * (4 if dim is None else 1)))
    statement = explaining(statement, explained=explained)
    return statement.replace("<dim>", str(dim)).replace("<user>", literal(user_id))


class Searching:
    """The searches of one open store.

    Args:
        read: Runs a statement for those whom it acts for.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._large: frozenset[str] = frozenset()
        self._looked = float("-inf")

    async def best(
        self, query: SearchQuery, indexer: Indexer[PackedWords], *, counted: bool = False
    ) -> tuple[Sequence[Sequence[Any]], bool]:
        """Return rows of the best records, as `searching.hits` takes them, and whether they are known to be all.

        They never are unless they were `counted`.
        """
        indexed = await indexer.index_query(query.query)
        if await self._is_large(query.user_id):
            found = await self.by_index(query, indexed, indexer)
            if found is not None:
                return found, False
        rows = await self.exact(query, indexed, indexer, counted=counted)
        if not (counted and rows):
            return rows, False
        return [columns for *columns, _ in rows], rows[0][-1] == len(rows)

    async def exact(
        self, query: SearchQuery, indexed: IndexedQuery, indexer: Indexer[PackedWords], *, counted: bool = False
    ) -> Sequence[Sequence[Any]]:
        """Return the best of all of the user's memories."""
        where, _ = _arguments(query, indexed, indexer)
        where.add_filters(query, user=False)
        where.add_current(query.as_of)
        statement = where.fill(exact(explained=query.explain, counted=counted))
        return await self._read(acting_for(query.user_id), statement, *where.values)

    async def by_index(
        self, query: SearchQuery, indexed: IndexedQuery, indexer: Indexer[PackedWords]
    ) -> Sequence[Sequence[Any]] | None:
        """Return the best of what the user's index finds, or None where that cannot be relied on."""
        where, places = _arguments(query, indexed, indexer)
        where.parameter(places)
        where.add_filters(query, user=False)
        where.add_current(query.as_of)
        statement = by_index(query.user_id, indexer.dim, explained=query.explain)
        rows = await self._read(acting_for(query.user_id), where.fill(statement), *where.values)
        return [columns for _, *columns in rows if columns[0] is not None] if rows[0][0] else None

    async def _is_large(self, user_id: str) -> bool:
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            self._large = frozenset(row[0] for row in await self._read(EVERYBODY, READY))
        return user_id in self._large


def _arguments(query: SearchQuery, indexed: IndexedQuery, indexer: Indexer[PackedWords]) -> tuple[Arguments, list[int]]:
    """Return what both statements take, and the places of the query's words and variants."""
    packed = pack_query(indexed.terms, MASK_BITS)
    weights = indexer.weights
    return Arguments(
        indexer.model,
        query.user_id,
        pack_halfvec(indexed.vector) if indexed.vector is not None else None,
        packed.first,
        packed.others,
        packed.bits,
        weights.center_query,
        weights.text_weight,
        query.min_score or 0.0,
        query.limit,
        packed.words,
    ), packed.places
