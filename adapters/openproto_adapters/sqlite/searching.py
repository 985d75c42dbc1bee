"""Search in the file: exact over every current record that the filters select."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from heapq import nlargest
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from openproto.embedding import Vector
from openproto.models import MOST_TURNS, Place, SearchResult
from openproto.requests import SearchQuery
from openproto.stores.indexer import IndexedQuery
from openproto.stores.ranking import LENDERS, ScoreWeights, coverage, lend, parts_of
from openproto_adapters.sqlite import word_index
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import COLUMNS, to_record
from openproto_adapters.sqlite.selection import CONVERSATION, IS_TURN, TURN, Parameters, foreign, own, selection

if TYPE_CHECKING:
    from openproto_adapters.sqlite.user_rows import UserRows

RowsOf: TypeAlias = "Callable[[Connection, str], UserRows]"

COUNT = "SELECT count(*) FROM memories WHERE user_id = :user_id"
# By the numbers: the index by user would be read from its beginning.
_NUMBERED = "(SELECT value FROM json_each(:numbers)) CROSS JOIN memories ON number = value"
ELIGIBLE = f"SELECT group_concat(number) FROM {_NUMBERED} WHERE {{where}}"
PLACES = f"SELECT number, {CONVERSATION}, {TURN} FROM {_NUMBERED} WHERE user_id = :user_id"
SAID_IN = f"""SELECT place.key, number FROM json_each(:places) AS place CROSS JOIN memories ON {IS_TURN}
    AND {CONVERSATION} = place.value ->> 0 AND {TURN} = place.value ->> 1 WHERE {{where}}"""
FOUND = f"SELECT number, {COLUMNS} FROM {_NUMBERED} WHERE user_id = :user_id"


class _Hit(NamedTuple):
    number: int
    score: float
    parts: dict[str, float] | None = None


def search(
    db: Connection, query: SearchQuery, indexed: IndexedQuery, weights: ScoreWeights, now: datetime, rows_of: RowsOf
) -> list[SearchResult]:
    """Score every current record that the filters select (openproto.stores.ranking has the formula)."""
    db.act_for(query.user_id)
    if indexed.vector is None:
        best = _best_by_words(db, query, indexed, query.as_of or now)
    else:
        rows = rows_of(db, query.user_id)
        best = _best_by_vectors(db, query, indexed, indexed.vector, weights, query.as_of or now, rows)
    least = query.min_score or 0.0
    return _results(db, query, [hit for hit in best if hit.score >= least and hit.score > 0])


def _best_by_vectors(
    db: Connection,
    query: SearchQuery,
    indexed: IndexedQuery,
    vector: Vector,
    weights: ScoreWeights,
    as_of: datetime,
    rows: UserRows,
) -> list[_Hit]:
    from openproto.stores import ranking_arrays as arrays  # only stores with vectors need NumPy

    eligible = rows.eligible(query, as_of)
    terms, variants, of = indexed.terms
    postings = rows.each_positions(word_index.postings(db, query.user_id, [*terms, *variants]))
    covered = arrays.coverage(rows.count, len(rows.rows), postings[: len(terms)], postings[len(terms) :], of)
    asked = vector.astype("float16").astype("float32")
    cosines = rows.cosines(db, rows.centred(asked) if weights.center_query else asked)
    has_vector = rows.rows["has_vector"]
    scores = arrays.fuse(cosines, has_vector, covered, weights.text_weight)
    scores[~eligible] = -1.0
    rows.turns.lend(scores)
    best = arrays.best(scores, query.limit)
    hits = [_Hit(n, score) for n, score in zip(rows.numbers[best].tolist(), scores[best].tolist(), strict=True)]
    if not query.explain:
        return hits
    near = arrays.near(cosines[best], has_vector[best]).tolist()
    return [
        hit._replace(parts=parts_of(hit.score, its, share, weights.text_weight))
        for hit, its, share in zip(hits, near, covered[best].tolist(), strict=True)
    ]


def _best_by_words(db: Connection, query: SearchQuery, indexed: IndexedQuery, as_of: datetime) -> list[_Hit]:
    """Words alone are the whole score where there are no vectors to weigh them against."""
    where, parameters = selection(query, as_of)
    (count,) = db.execute(COUNT, {"user_id": query.user_id}).fetchone()
    terms, variants, of = indexed.terms
    texts = word_index.postings(db, query.user_id, [*terms, *variants])
    postings = [json.loads(f"[{text}]") for text in texts]
    shares = coverage(count, postings[: len(terms)], postings[len(terms) :], of)
    # What lending may not raise among the best need not be looked at: as many as lend, or are wanted, stand before it.
    most = max(query.limit, LENDERS)
    ranked = nlargest(2 * most, zip(shares.values(), shares, strict=True))
    scores = _eligible(db, {number: share for share, number in ranked}, where, parameters)
    if len(scores) < most and len(ranked) < len(shares):
        scores = _eligible(db, shares, where, parameters)
    scores |= _lent(db, scores, shares, where, parameters)
    best = [number for _, number in nlargest(query.limit, zip(scores.values(), scores, strict=True))]
    if not query.explain:
        return [_Hit(number, scores[number]) for number in best]
    return [_Hit(n, scores[n], parts_of(scores[n], None, shares.get(n, 0.0), 0.0)) for n in best]


def _results(db: Connection, query: SearchQuery, hits: Sequence[_Hit]) -> list[SearchResult]:
    wanted = [hit.number for hit in hits]
    rows = db.execute(FOUND, {"numbers": json.dumps(wanted), "user_id": query.user_id}).fetchall()
    found = {number: own(to_record(tuple(columns)), query.user_id) for number, *columns in rows}
    if found.keys() != {*wanted}:
        raise foreign()
    return [SearchResult(memory=found[hit.number], score=hit.score, parts=hit.parts) for hit in hits]


def _eligible(db: Connection, scores: Mapping[int, float], where: str, parameters: Parameters) -> dict[int, float]:
    asked = parameters | {"numbers": json.dumps([*scores])}
    return {number: scores[number] for number in _numbers(db, ELIGIBLE.format(where=where), asked)}


def _lent(
    db: Connection, scores: Mapping[int, float], shares: Mapping[int, float], where: str, parameters: Parameters
) -> dict[int, float]:
    """Return the scores of the best, and of the turns next to them that fit as well, after the best have lent."""
    lenders = [number for _, number in nlargest(LENDERS, zip(scores.values(), scores, strict=True))]
    rows = db.execute(PLACES, {"numbers": json.dumps(lenders), "user_id": parameters["user_id"]})
    places = {n: Place(told, turn) for n, told, turn in rows if None not in (told, turn) and 0 <= turn < MOST_TURNS}
    sides = [place.beside(side) for place in places.values() for side in (-1, 1)]
    for distance in (0, 1):
        # What is farther is looked for only where nothing is nearer.
        told = {*places.values()} if distance else ()
        asked = [*{side[distance] for side in sides if side[0] not in told and side[distance][1] >= 0}]
        if asked:
            found = db.execute(SAID_IN.format(where=where), parameters | {"places": json.dumps(asked)})
            places |= {number: Place(*asked[key]) for key, number in found}
    among = sorted({*lenders, *places}, reverse=True)
    return lend({number: shares.get(number, 0.0) for number in among}, {n: places[n] for n in among if n in places})


def _numbers(db: Connection, statement: str, parameters: Parameters) -> list[int]:
    """Return the numbers that the statement puts into one text, which is faster than a row for each."""
    (text,) = db.execute(statement, parameters).fetchone()
    found: list[int] = json.loads(f"[{text or ''}]")
    return found
