"""What `add_many` sends: one JSON document of the items, and their words and vectors beside it."""

from __future__ import annotations

from collections.abc import Sequence

from openproto.errors import NotFoundError, OpenProtoError
from openproto.ids import parse_id
from openproto.indexing import IndexedInput
from openproto_adapters.postgres.records import to_json
from openproto_adapters.postgres.vectors import pack_halfvec, pack_words


def writable(new: IndexedInput | OpenProtoError) -> IndexedInput | OpenProtoError:
    """Return `new`, or the error of an item that supersedes what cannot exist."""
    if isinstance(new, IndexedInput) and any(parse_id(id) is None for id in new.item.supersedes):
        return NotFoundError("supersedes: no such memory")
    return new


def add_many_arguments(
    batch: Sequence[IndexedInput],
) -> tuple[str, list[bytes], list[bytes | None], list[bytes | None]]:
    """Return the batch as `queries.ADD_MANY` takes it: a JSON document, words, more words, vectors."""
    rows: list[str] = []
    words: list[bytes] = []
    more_words: list[bytes | None] = []
    vectors: list[bytes | None] = []
    for new in batch:
        app = new.item.source.app if new.item.source else None
        # The input's own JSON continues the object that is begun here.
        rows.append(
            f'{{"id":"{new.id}","fingerprint":"{new.fingerprint.hex()}","app":{to_json(app)},'
            f'"idempotency_key":{to_json(new.idempotency_key)},'
            f'"extensions":{to_json(new.item.extensions or None)},{new.document[1:]}'
        )
        first, others = pack_words(new.terms)
        words.append(first)
        more_words.append(others)
        vectors.append(pack_halfvec(new.vector) if new.vector is not None else None)
    return f"[{','.join(rows)}]", words, more_words, vectors
