"""Search in the file: exact over every current record that the filters select."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from heapq import nlargest

from openproto.embedding import Vector
from openproto.models import MOST_TURNS, MemoryRecord, Place, SearchResult
from openproto.requests import SearchQuery
from openproto.stores.indexer import IndexedQuery
from openproto.stores.ranking import CENTERING_HALF_LIFE, CENTERING_SAMPLE, ScoreWeights, coverage, fuse, lend
from openproto_adapters.sqlite.database import Connection
from openproto_adapters.sqlite.records import COLUMNS, pack_embedding, to_record
from openproto_adapters.sqlite.selection import foreign, own, selection

# Most memories are no turns, and their extensions are not looked into.
_PLACE = """CASE WHEN extensions LIKE '%"x-openproto"%' AND json_type(extensions, '$."x-openproto".{name}') = '{type}'
    THEN extensions ->> '$."x-openproto".{name}' END"""
_CONVERSATION, _TURN = _PLACE.format(name="conversation", type="text"), _PLACE.format(name="turn", type="integer")
ELIGIBLE = f"SELECT number, embedding, {_CONVERSATION}, {_TURN} FROM memories WHERE {{where}}"
COUNT = "SELECT count(*) FROM memories WHERE user_id = :user_id"
POSTINGS = "SELECT rowid FROM words WHERE words MATCH :term"
FOUND = f"SELECT {COLUMNS} FROM memories WHERE number = :number AND user_id = :user_id"
RECENT = """SELECT embedding FROM memories WHERE user_id = :user_id AND embedding IS NOT NULL
    ORDER BY created_at DESC, id DESC LIMIT :most"""


def search(
    db: Connection, query: SearchQuery, indexed: IndexedQuery, weights: ScoreWeights, now: datetime
) -> list[SearchResult]:
    """Score every current record that the filters select (openproto.stores.ranking has the formula)."""
    db.act_for(query.user_id)
    where, parameters = selection(query, query.as_of or now)
    rows = db.execute(ELIGIBLE.format(where=where), parameters).fetchall()
    eligible = {number: embedding for number, embedding, *_ in rows}
    turns = ((n, told, turn) for n, _, told, turn in rows if None not in (told, turn) and 0 <= turn < MOST_TURNS)
    places = {number: Place(told, turn) for number, told, turn in sorted(turns, reverse=True)}
    (count,) = db.execute(COUNT, {"user_id": query.user_id}).fetchone()
    wanted = indexed.terms
    postings, variants = (
        [_posting(db, query.user_id, term) for term in part] for part in (wanted.terms, wanted.variants)
    )
    shares = coverage(count, postings, variants, wanted.of)
    covered = {number: share for number, share in shares.items() if number in eligible}
    recent = _recent_embeddings(db, query.user_id) if weights.center_query else []
    cosines = _cosines(eligible, indexed.vector, recent)
    # Words alone are the whole score where there are no vectors to weigh them against.
    scores = fuse(cosines, covered, weights.text_weight) if indexed.vector is not None else covered
    if places:
        scores = {number: scores.get(number, 0.0) for number in sorted(eligible, reverse=True)}
        scores = lend(scores, places)
    best = nlargest(query.limit, scores, key=lambda number: (scores[number], number))
    return [
        SearchResult(memory=_found(db, number, query.user_id), score=scores[number])
        for number in best
        if scores[number] >= (query.min_score or 0.0) and scores[number] > 0
    ]


def _found(db: Connection, number: int, user_id: str) -> MemoryRecord:
    row = db.execute(FOUND, {"number": number, "user_id": user_id}).fetchone()
    if row is None:
        raise foreign()
    return own(to_record(row), user_id)


def _posting(db: Connection, user_id: str, term: int) -> list[int]:
    """Return the numbers of the user's memories that have the term."""
    found = db.execute(POSTINGS, {"term": tokens(user_id, [term])})
    return [number for (number,) in found]


def _recent_embeddings(db: Connection, user_id: str) -> list[bytes]:
    return [blob for (blob,) in db.execute(RECENT, {"user_id": user_id, "most": CENTERING_SAMPLE})]


def _cosines(embeddings: dict[int, bytes | None], vector: Vector | None, recent: Sequence[bytes]) -> dict[int, float]:
    """Return the cosine of each embedding with the query's vector, moved away from the mean of `recent`."""
    present = {number: blob for number, blob in embeddings.items() if blob is not None}
    if vector is None or not present:
        return {}
    import numpy as np  # only stores with vectors need it

    def matrix(blobs: Collection[bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.frombuffer(b"".join(blobs), dtype="<f2").astype(np.float32).reshape(len(blobs), len(vector))

    query = matrix([pack_embedding(vector)])[0]
    if recent:
        share = np.float32(len(recent) / (len(recent) + CENTERING_HALF_LIFE))
        query = query - matrix(recent).mean(axis=0) * share
        query = query / (np.linalg.norm(query) or 1.0)
        query = query.astype(np.float16).astype(np.float32)
    return dict(zip(present, (matrix(present.values()) @ query).tolist(), strict=True))


def tokens(user_id: str, terms: Iterable[int]) -> str:
    """Spell terms for FTS5, each as 16 hexadecimal digits, mixed with the user's own hash.

    So one user's words stand apart from everybody else's, and a look-up reads that user's entries alone.
    """
    own = int.from_bytes(blake2b(user_id.encode(), digest_size=8).digest())
    return " ".join(f"{term ^ own:016x}" for term in terms)
