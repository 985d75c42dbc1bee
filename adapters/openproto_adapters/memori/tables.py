"""Memori's tables, as far as they are used here, and the table `openproto_memory` next to them.

Memori knows a fact's text, its vector, and whose it is; the rest of a record is in `openproto_memory`, under the fact's
uuid, because numbers may be used again. A fact without such a row was written by another program.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

_metadata = sa.MetaData()

# SQLite counts rows in its INTEGER alone, and a key that refers to one is best of the same type.
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

ENTITY = sa.Table(
    "memori_entity",
    _metadata,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("uuid", sa.String(36), nullable=False),
    sa.Column("external_id", sa.String(100), nullable=False),
)

FACT = sa.Table(
    "memori_entity_fact",
    _metadata,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("uuid", sa.String(36), nullable=False),
    sa.Column("entity_id", _Number, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("content_embedding", sa.LargeBinary, nullable=False),
    sa.Column("num_times", sa.BigInteger, nullable=False),
    sa.Column("date_last_time", sa.DateTime, nullable=False),
    sa.Column("date_created", sa.DateTime, nullable=False),
    sa.Column("date_updated", sa.DateTime),
    sa.Column("uniq", sa.String(64), nullable=False),
)

MEMORY = sa.Table(
    "openproto_memory",
    _metadata,
    sa.Column("uuid", sa.String(36), sa.ForeignKey(FACT.c.uuid, ondelete="CASCADE"), primary_key=True),
    sa.Column("entity_id", _Number, nullable=False),
    sa.Column("key", sa.String(22), nullable=False, comment="a token of the idempotency key"),
    sa.Column("created", sa.BigInteger, nullable=False, comment="microseconds since 1970, as all moments here"),
    sa.Column("scope", sa.Text),
    sa.Column("tags", sa.Text, nullable=False, comment="a JSON list"),
    sa.Column("valid_from", sa.BigInteger),
    sa.Column("valid_to", sa.BigInteger),
    sa.Column("superseded", sa.BigInteger, comment="since when"),
    sa.Column("envelope", sa.Text, nullable=False, comment="the record, but for its content, as JSON"),
    sa.UniqueConstraint("entity_id", "key", name="uk_openproto_memory_key"),
)

CREATED = sa.func.coalesce(
    MEMORY.c.created, sa.cast(sa.extract("epoch", FACT.c.date_created) * 1_000_000, sa.BigInteger), 0
)
"""When a fact was stored, to the second where another program wrote it."""

FACTS = FACT.join(ENTITY, ENTITY.c.id == FACT.c.entity_id).outerjoin(MEMORY, MEMORY.c.uuid == FACT.c.uuid)

ROWS: sa.Select[*tuple[Any, ...]] = sa.select(
    FACT.c.id,
    FACT.c.uuid,
    FACT.c.content,
    FACT.c.num_times,
    CREATED.label("created"),
    ENTITY.c.external_id,
    MEMORY.c.envelope,
).select_from(FACTS)
