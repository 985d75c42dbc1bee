"""Memori's tables, as far as they are used here, and the table `openproto_memory` next to them.

Memori knows a fact's text, its vector, and whose it is; the rest of a record is in `openproto_memory`, under the fact's
uuid, because numbers may be used again. A fact without such a row was written by another program.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    cast,
    extract,
    func,
    select,
)

_metadata = MetaData()

# SQLite counts rows in its INTEGER alone, and a key that refers to one is best of the same type.
_Number = BigInteger().with_variant(Integer(), "sqlite")

ENTITY = Table(
    "memori_entity",
    _metadata,
    Column("id", _Number, primary_key=True),
    Column("uuid", String(36), nullable=False),
    Column("external_id", String(100), nullable=False),
)

FACT = Table(
    "memori_entity_fact",
    _metadata,
    Column("id", _Number, primary_key=True),
    Column("uuid", String(36), nullable=False),
    Column("entity_id", _Number, nullable=False),
    Column("content", Text, nullable=False),
    Column("content_embedding", LargeBinary, nullable=False),
    Column("num_times", BigInteger, nullable=False),
    Column("date_last_time", DateTime, nullable=False),
    Column("date_created", DateTime, nullable=False),
    Column("date_updated", DateTime),
    Column("uniq", String(64), nullable=False),
)

MEMORY = Table(
    "openproto_memory",
    _metadata,
    Column("uuid", String(36), ForeignKey(FACT.c.uuid, ondelete="CASCADE"), primary_key=True),
    Column("entity_id", _Number, nullable=False),
    Column("key", String(22), nullable=False, comment="a token of the idempotency key"),
    Column("created", BigInteger, nullable=False, comment="microseconds since 1970, as all moments here"),
    Column("scope", Text),
    Column("tags", Text, nullable=False, comment="a JSON list"),
    Column("valid_from", BigInteger),
    Column("valid_to", BigInteger),
    Column("superseded", BigInteger, comment="since when"),
    Column("envelope", Text, nullable=False, comment="the record, but for its content, as JSON"),
    UniqueConstraint("entity_id", "key", name="uk_openproto_memory_key"),
)

CREATED = func.coalesce(MEMORY.c.created, cast(extract("epoch", FACT.c.date_created) * 1_000_000, BigInteger), 0)
"""When a fact was stored, to the second where another program wrote it."""

FACTS = FACT.join(ENTITY, ENTITY.c.id == FACT.c.entity_id).outerjoin(MEMORY, MEMORY.c.uuid == FACT.c.uuid)

ROWS: Select[*tuple[Any, ...]] = select(
    FACT.c.id,
    FACT.c.uuid,
    FACT.c.content,
    FACT.c.num_times,
    CREATED.label("created"),
    ENTITY.c.external_id,
    MEMORY.c.envelope,
).select_from(FACTS)
