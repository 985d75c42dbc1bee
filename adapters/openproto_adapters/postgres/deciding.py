"""Adding what must not be there twice: the decision and the write are one transaction, behind a lock of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from openproto.models import MemoryRecord
from openproto.provider import KeyedInput, current_call
from openproto.stores.duplicates import decide, plain
from openproto.stores.indexer import IndexedInput
from openproto_adapters.postgres.batches import Batch, Entry, Fetch, pack_batch
from openproto_adapters.postgres.queries import RECORD
from openproto_adapters.postgres.records import check_owner, to_record
from openproto_adapters.postgres.row_security import acting_for
from openproto_adapters.postgres.vectors import PackedWords

MOST_DECIDED = 100
"""Items in one transaction; they are packed on the event loop."""

# A statement of its own, for what comes after it must see what others wrote while this one waited.
LOCK = """
SELECT pg_advisory_xact_lock(key)::text FROM (
    SELECT DISTINCT hashtextextended('{schema} ' || user_id, 0) AS key FROM unnest($1::text[]) AS user_id ORDER BY key
) AS keys
"""

# Texts that are the same have the same words; whether they are is decided by the texts. An item whose key is known is
# an attempt that is repeated: what it wrote the first time is no duplicate of it.
CANDIDATES = f"""
SELECT item.position, {RECORD}
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::{{vector}}.sparsevec[]) WITH ORDINALITY
    AS item (user_id, idempotency_key, id, scope, words, position)
JOIN {{schema}}.memories m ON m.user_id = item.user_id AND m.words OPERATOR({{vector}}.=) item.words
    AND m.scope IS NOT DISTINCT FROM item.scope AND m.id <> item.id
CROSS JOIN (SELECT clock_timestamp() AS now) AS moment
WHERE (m.valid_from IS NULL OR m.valid_from <= now) AND (m.valid_to IS NULL OR m.valid_to > now)
  AND (m.superseded_at IS NULL OR m.superseded_at > now)
  AND NOT EXISTS (
    SELECT FROM {{schema}}.keys WHERE keys.user_id = item.user_id AND keys.idempotency_key = item.idempotency_key)
ORDER BY item.position, m.created_at DESC, m.id DESC
"""


def decides(items: Sequence[KeyedInput]) -> bool:
    """Say whether any item asks for a decision."""
    return any(item.on_duplicate != "keep" for item, _ in items)


def repeats(items: Sequence[KeyedInput]) -> bool:
    """Say whether an item must be written after an earlier one: it has its words or its idempotency key, or may have
    the words of what that one supersedes."""
    if len(items) > 1 and any(item.supersedes for item, _ in items):
        return True
    said = {(item.user_id, item.scope, plain(item.content)) for item, _ in items}
    keys = {(item.user_id, key) for item, key in items}
    return min(len(said), len(keys)) < len(items)


async def decided(fetch: Fetch, batch: Batch) -> Batch:
    """Return the batch as it is to be written, inside a transaction that keeps others from writing the same."""
    asking = [n for n, new in enumerate(batch.entries) if _asks(new)]
    news = [new for n in asking if isinstance(new := batch.entries[n], IndexedInput)]
    if not news:
        return batch
    users = [new.item.user_id for new in news]
    acting = acting_for(*set(users))
    await fetch(acting, LOCK, users)
    rows = await fetch(
        acting,
        CANDIDATES,
        users,
        [new.idempotency_key for new in news],
        [new.id for new in news],
        [new.item.scope for new in news],
        [new.words.first for new in news],
    )
    candidates: list[list[MemoryRecord]] = [[] for _ in news]
    for position, *columns in rows:
        record = to_record(columns)
        check_owner([record.user_id], users[position - 1])
        candidates[position - 1].append(record)
    entries = [*batch.entries]
    for n, new, found in zip(asking, news, candidates, strict=True):
        answer = decide(new.item, found)
        entries[n] = answer if isinstance(answer, MemoryRecord) else new._replace(item=answer)
    return pack_batch(entries, repeat(current_call.get()))


def _asks(new: Entry[PackedWords]) -> bool:
    return isinstance(new, IndexedInput) and new.item.on_duplicate != "keep"
