"""The arguments of `add_many`: a whole batch, packed for one statement."""

from __future__ import annotations

from typing import NamedTuple

from openproto.errors import NotFoundError, OpenProtoError
from openproto.ids import parse_id
from openproto.indexing import IndexedBatch, IndexedInput
from openproto_adapters.postgres.records import to_json
from openproto_adapters.postgres.vectors import pack_halfvec, pack_words


class Batch(NamedTuple):
    """A batch on its way: each item ready to be written or refused, and the arguments of `queries.ADD_MANY`.

    Those are a JSON document of the items, their words, their other words, and their vectors.
    """

    entries: IndexedBatch
    arguments: tuple[str, list[bytes], list[bytes | None], list[bytes | None]]


def pack_batch(batch: IndexedBatch) -> Batch:
    """Return the batch, packed for the wire."""
    entries = [_writable(new) for new in batch]
    rows: list[str] = []
    words: list[bytes] = []
    more_words: list[bytes | None] = []
    vectors: list[bytes | None] = []
    for new in entries:
        if isinstance(new, OpenProtoError):
            continue
        extensions = f'"extensions":{to_json(new.item.extensions)},' if new.item.model_extra else ""
        # The input's own JSON continues the object that is begun here.
        rows.append(
            f'{{"id":"{new.id}","fingerprint":"{new.fingerprint.hex()}",'
            f'"idempotency_key":{to_json(new.idempotency_key)},{extensions}{new.document[1:]}'
        )
        first, others = pack_words(new.terms)
        words.append(first)
        more_words.append(others)
        vectors.append(pack_halfvec(new.vector) if new.vector is not None else None)
    return Batch(entries, (f"[{','.join(rows)}]", words, more_words, vectors))


def _writable(new: IndexedInput | OpenProtoError) -> IndexedInput | OpenProtoError:
    """Return `new`, or the error of an item that supersedes what cannot exist."""
    if isinstance(new, IndexedInput) and any(parse_id(id) is None for id in new.item.supersedes):
        return NotFoundError("supersedes: no such memory")
    return new
