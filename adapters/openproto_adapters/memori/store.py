"""The database: Memori's tables through SQLAlchemy, one short transaction for each method.

Every method blocks; the provider calls them in its threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateTable

from openproto.blocking.imports import large_import
from openproto.blocking.sqlite import make_private_file
from openproto.emulation import Stored, no_such_memory, owner_in, user_token
from openproto.errors import ConflictError, ProviderError
from openproto.requests import Filters
from openproto.stores.moments import to_micros
from openproto_adapters.memori.errors import typed_errors
from openproto_adapters.memori.rows import columns, entity, tag_text, to_stored, uniq
from openproto_adapters.memori.tables import CREATED, ENTITY, FACT, FACTS, MEMORY, ROWS

PAGE = 200
CHUNK = 2_000
"""How many facts are ranked at once: beyond, a chunk after the other, so that none is out of reach."""

_WAIT = 10.0
"""Seconds for a connection to be made or to become free, and for a lock on a SQLite file."""

_building = threading.Lock()
_MOST_IDS = 500

# What Memori's own clean-up leaves of a memory on SQLite must not hold its key.
_ORPHAN = sa.delete(MEMORY).where(
    MEMORY.c.entity_id == sa.bindparam("owner"),
    MEMORY.c.key == sa.bindparam("token"),
    ~sa.select(FACT.c.id).where(FACT.c.uuid == MEMORY.c.uuid).exists(),
)


class Mark(NamedTuple):
    """How far a listing has come."""

    created: int
    uuid: str


class Store:
    """Memories in the database at `url`, for at most `threads` threads, with a connection for each."""

    def __init__(self, url: sa.URL, threads: int) -> None:
        self._url = url
        self._engine = sa.create_engine(
            url,
            poolclass=QueuePool,
            pool_size=threads,
            max_overflow=0,
            pool_timeout=_WAIT,
            pool_pre_ping=True,
            hide_parameters=True,  # or errors and logs would show memories
            connect_args=_connect_args(url),
        )
        if url.get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", _prepare)
        self._is_closed = False

    def open(self) -> None:
        """Make the tables that are missing, Memori's by Memori itself."""
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            try:
                make_private_file(Path(self._url.database))
            except OSError as error:
                raise ProviderError(f"the file in url= cannot be created: {error.strerror}") from error
        with typed_errors(), _building:
            for wait in (0.1, 0.2, 0.4, 0.8):
                try:
                    self._build()
                    return
                except (IntegrityError, ProgrammingError):  # another process makes the same tables
                    time.sleep(wait)
            self._build()

    def close(self) -> None:
        """Close the connections; one that is in use when its call ends. May be called twice."""
        self._is_closed = True
        self._engine.dispose()

    def ping(self) -> None:
        """Ask the database for nothing."""
        with self._transaction() as connection:
            connection.execute(sa.select(1))

    def insert(self, new: Sequence[Stored], vectors: Sequence[bytes]) -> bool:
        """Write new memories; False where one's user has another under the same key, and nothing was written."""
        try:
            with self._transaction() as connection:
                names = {entity(stored.record.user_id) for stored in new}
                owners = {name: self._owner(connection, name) for name in sorted(names)}  # in one order, everywhere
                facts: list[dict[str, Any]] = []
                memories: list[dict[str, Any]] = []
                for stored, vector in zip(new, vectors, strict=True):
                    id, content = stored.record.id, stored.record.content
                    place = {"uuid": id, "entity_id": owners[entity(stored.record.user_id)]}
                    facts.append({**place, "content": content, "content_embedding": vector, "uniq": uniq(id, content)})
                    mine = {"key": user_token(stored.idempotency_key), "created": to_micros(stored.record.created_at)}
                    memories.append({**place, **mine, **columns(stored)})
                connection.execute(_ORPHAN, [{"owner": row["entity_id"], "token": row["key"]} for row in memories])
                connection.execute(
                    sa.insert(FACT).values(num_times=1, date_last_time=sa.func.current_timestamp()), facts
                )
                connection.execute(sa.insert(MEMORY), memories)
        except ConflictError:
            return False
        return True

    def get(self, uuid: str) -> Stored | None:
        """Return the memory of that id, whosever it is."""
        return self._one(ROWS.where(FACT.c.uuid == uuid))

    def get_key(self, user_id: str, key: str) -> Stored | None:
        """Return the user's memory under that key."""
        name = entity(user_id)
        return self._one(ROWS.where(ENTITY.c.external_id == name, MEMORY.c.key == user_token(key)), name)

    def replace(self, new: Stored, vector: bytes | None) -> None:
        """Write the memory anew; `vector` is None where the text stays as it was. NotFoundError where it is gone."""
        id = new.record.id
        with self._transaction() as connection:
            text: dict[str, Any] = {"date_updated": sa.func.current_timestamp()}
            if vector is not None:
                content = new.record.content
                text |= {"content": content, "content_embedding": vector, "uniq": uniq(id, content)}
            owner = connection.execute(
                sa.update(FACT).where(FACT.c.uuid == id).values(**text).returning(FACT.c.entity_id)
            ).scalar_one_or_none()
            if owner is None:
                raise no_such_memory()
            kept = columns(new)
            if connection.execute(sa.update(MEMORY).where(MEMORY.c.uuid == id).values(**kept)).rowcount == 0:
                # Another program's memory becomes one of ours. It has no key, so its id stands for one.
                mine = {"uuid": id, "entity_id": owner, "key": user_token(id)}
                connection.execute(sa.insert(MEMORY).values(**mine, created=to_micros(new.record.created_at), **kept))

    def remove(self, uuid: str) -> bool:
        """Remove the memory; False where it was gone."""
        with self._transaction() as connection:
            return connection.execute(sa.delete(FACT).where(FACT.c.uuid == uuid)).rowcount > 0

    def remove_all(self, user_id: str) -> int:
        """Remove every memory of the user and return how many there were."""
        mine = sa.select(ENTITY.c.id).where(ENTITY.c.external_id == entity(user_id)).scalar_subquery()
        with self._transaction() as connection:
            return connection.execute(sa.delete(FACT).where(FACT.c.entity_id == mine)).rowcount

    def owners(self) -> list[str]:
        """Return the users that have memories."""
        wanted = sa.select(ENTITY.c.external_id, sa.func.min(MEMORY.c.envelope)).select_from(FACTS)
        with self._transaction() as connection:
            rows = connection.execute(wanted.group_by(ENTITY.c.external_id)).all()
        return [owner_in(envelope) if envelope is not None else name for name, envelope in rows]

    def page(self, user_id: str, after: Mark | None, until: datetime | None) -> tuple[list[Stored], Mark | None]:
        """Return the user's next memories, newest first, and the mark to go on from; None after the last."""
        name = entity(user_id)
        wanted = ROWS.where(ENTITY.c.external_id == name)
        if after is not None:
            wanted = wanted.where(sa.tuple_(CREATED, FACT.c.uuid) < sa.tuple_(*after))
        elif until is not None:
            wanted = wanted.where(CREATED <= to_micros(until))  # noqa: SIM300 - an expression, no constant
        with self._transaction() as connection:
            rows = connection.execute(wanted.order_by(CREATED.desc(), FACT.c.uuid.desc()).limit(PAGE)).all()
        found = [stored for row in rows if (stored := to_stored(row, name))]
        return found, Mark(rows[-1].created, rows[-1].uuid) if len(rows) == PAGE else None

    def vectors(self, filters: Filters, at: datetime) -> Iterator[list[tuple[int, bytes]]]:
        """Yield the facts that may pass the filters and be current, in chunks."""
        wanted = _narrowed(filters, to_micros(at))
        last: int | None = None
        while True:
            chunk = wanted if last is None else wanted.where(FACT.c.id < last)
            with self._transaction() as connection:
                rows = [(number, bytes(vector or b"")) for number, vector in connection.execute(chunk.limit(CHUNK))]
            if rows:
                yield rows
            if len(rows) < CHUNK:
                return
            last = rows[-1][0]

    def texts(self, numbers: Sequence[int]) -> Mapping[int, str]:
        """Return the texts of facts by their numbers."""
        return {row.id: row.content for row in self._numbered(sa.select(FACT.c.id, FACT.c.content), numbers)}

    def memories(self, user_id: str, numbers: Sequence[int]) -> Mapping[int, Stored]:
        """Return the user's memories by the numbers of their facts."""
        name = entity(user_id)
        rows = self._numbered(ROWS, numbers)
        return {row.id: stored for row in rows if (stored := to_stored(row, name))}

    def _numbered(self, wanted: sa.Select[*tuple[Any, ...]], numbers: Sequence[int]) -> list[Any]:
        rows: list[Any] = []
        with self._transaction() as connection:
            for start in range(0, len(numbers), _MOST_IDS):
                rows += connection.execute(wanted.where(FACT.c.id.in_(numbers[start : start + _MOST_IDS])))
        return rows

    def _one(self, wanted: sa.Select[*tuple[Any, ...]], name: str | None = None) -> Stored | None:
        with self._transaction() as connection:
            row = connection.execute(wanted).one_or_none()
        return to_stored(row, name) if row else None

    def _owner(self, connection: sa.Connection, name: str) -> int:
        known = sa.select(ENTITY.c.id).where(ENTITY.c.external_id == name)
        number: int | None = connection.scalar(known)
        if number is not None:
            return number
        dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        new = dialect.insert(ENTITY).values(uuid=str(uuid4()), external_id=name)
        connection.execute(new.on_conflict_do_nothing(index_elements=["external_id"]))
        made: int = connection.execute(known).scalar_one()
        return made

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with typed_errors(), self._connection() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            try:
                yield connection
            finally:
                if self._is_closed:
                    connection.invalidate()  # what goes back to the pool now would stay open

    @large_import()
    def _build(self) -> None:
        from memori._config import Config
        from memori.storage import Manager
        from memori.storage._builder import Builder

        with self._connection() as connection:
            config: Any = Config()  # type: ignore[no-untyped-call]  # Memori's own says no types
            storage: Any = Manager(config).start(sessionmaker(connection))
            config.storage = storage
            try:
                builder: Any = Builder(config)
                builder.cli = _Silence()
                builder.execute()
            finally:
                storage.adapter.close()  # Memori would keep its session for life
            # A role that may not create tables may not even ask for one that is there.
            if not sa.inspect(connection).has_table(MEMORY.name):
                connection.execute(CreateTable(MEMORY, if_not_exists=True))
            connection.commit()


class _Silence:
    """Memori's command line, as far as it talks while it makes tables, without a word on standard output."""

    def banner(self) -> None: ...

    def newline(self) -> None: ...

    def notice(self, message: str, ident: int = 0, end: str | None = None) -> None: ...


def _narrowed(filters: Filters, at: int) -> sa.Select[*tuple[Any, ...]]:
    """Return the facts that may pass, newest first; another program's have neither scope, nor tags, nor an end."""
    kept = MEMORY.c
    wanted = (
        sa.select(FACT.c.id, FACT.c.content_embedding)
        .select_from(FACTS)
        .where(
            ENTITY.c.external_id == entity(filters.user_id),
            sa.or_(kept.valid_from.is_(None), kept.valid_from <= at),
            sa.or_(kept.valid_to.is_(None), kept.valid_to > at),
            sa.or_(kept.superseded.is_(None), kept.superseded > at),
        )
    )
    if filters.scope is not None:
        beneath = kept.scope.startswith(filters.scope + "/", autoescape=True)
        wanted = wanted.where(sa.or_(kept.scope == filters.scope, beneath))
    for tag in filters.tags:
        wanted = wanted.where(kept.tags.contains(tag_text(tag), autoescape=True))
    return wanted.order_by(FACT.c.id.desc())


def _connect_args(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        # A transaction that writes takes its lock at once: one that began by reading could not wait for it.
        return {"timeout": _WAIT, "isolation_level": "IMMEDIATE"}
    return {"connect_timeout": round(_WAIT), "tcp_user_timeout": round(3_000 * _WAIT)}


def _prepare(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # So that readers and the writer do not wait for each other; another mode works, too, while the file is busy.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = wal")
