"""What a memory is at mem0, and how it becomes a record: the same for the library and the platform.

A memory that openproto added has an envelope in its metadata, next to what mem0 can filter by. Of a memory of another
program, mem0's own fields are the record, and its metadata is the extension `x-mem0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from pydantic import AliasChoices, BaseModel, Field

from openproto.emulation import Stored, another_users, damaged, reading, scope_nodes, user_token
from openproto.errors import ProviderError
from openproto.stores.moments import EPOCH

ENVELOPE = "openproto"
KEY = "openproto_key"
SCOPES = "openproto_scopes"
TAGS = "openproto_tags"
MARK = "openproto_mark"

EXTENSION = "x-mem0"
OWN_FIELDS = frozenset(
    "data hash created_at updated_at id text_lemmatized user_id agent_id run_id session_id app_id actor_id role "
    "expiration_date attributed_to linked_memory_ids".split()
)
"""Names that mem0 takes for its own wherever they stand in metadata."""
_APART = OWN_FIELDS - {"session_id", "app_id", "linked_memory_ids"}  # what it answers next to the metadata

Metadata: TypeAlias = dict[str, Any]

_TOKEN = "openproto:"  # noqa: S105 - a prefix of names, no secret
_PLAIN = re.compile(r"(?!openproto:)[A-Za-z0-9._@:+-]+")
_PLAIN_ID = re.compile(r"[A-Za-z0-9._@:+-]+")
_AGENT = re.compile(r"agent/([^/]+)(?:/run/([^/]+))?(?:/.*)?")


class Row(BaseModel, defer_build=True):
    """A memory as mem0 answers it."""

    id: str
    memory: str
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = Field(default=None, validation_alias=AliasChoices("run_id", "session_id"))
    metadata: Metadata | None = None
    created_at: str | None = None
    updated_at: str | None = None
    expiration_date: str | None = None


def answer_of(id: str, payload: Metadata) -> dict[str, Any]:
    """Return what mem0 would answer for a memory that its store holds as `payload`."""
    return {**payload, "id": id, "memory": payload["data"], "metadata": {k: payload[k] for k in {*payload} - _APART}}


def entity(user_id: str) -> str:
    """Return the name of a user at mem0, a token unless mem0 takes the id as it is: it trims ids, and `*` is all."""
    return user_id if _PLAIN.fullmatch(user_id) else _TOKEN + user_token(user_id)


def agent_and_run(scope: str | None) -> dict[str, str]:
    """Return the ids that a scope such as `agent/7/run/1` names, where mem0 takes them as they are."""
    match = _AGENT.fullmatch(scope or "")
    names = zip(("agent_id", "run_id"), match.groups() if match else (), strict=False)
    return {name: id for name, id in names if id and _PLAIN_ID.fullmatch(id)}


def metadata_of(stored: Stored, mark: str = "") -> Metadata:
    """Return a memory's metadata; always the same keys, because an update at mem0 cannot remove any."""
    extension = stored.record.extensions.get(EXTENSION)
    theirs = {
        name: value
        for name, value in (extension.items() if isinstance(extension, dict) else ())
        if isinstance(value, str | int | float | bool) and name not in OWN_FIELDS
    }
    return {
        **theirs,
        ENVELOPE: stored.to_text(),
        KEY: user_token(stored.idempotency_key),
        SCOPES: scope_nodes(stored.record.scope),
        TAGS: stored.record.tags,
        MARK: mark,
    }


def to_stored(answer: Any, name: str | None = None) -> Stored | None:
    """Return the memory in an answer, None without a user; ProviderError for one of another entity than `name`."""
    with reading("mem0"):
        row = Row.model_validate(answer)
    if name is not None and row.user_id != name:
        raise another_users("mem0")
    if row.user_id is None:
        return None
    metadata = row.metadata or {}
    if (envelope := metadata.get(ENVELOPE)) is None:
        return _foreign(row, row.user_id, metadata)
    text = row.memory.removesuffix(str(metadata.get(MARK, "")))
    stored = Stored.from_text(envelope, text, id=row.id, handle=row.created_at or "")
    if entity(stored.record.user_id) != row.user_id:
        raise damaged("names another user than mem0 does")
    return stored


def first_of(key: str, found: Iterable[Stored]) -> Stored | None:
    """Return the first of the memories that were added under an idempotency key: with `infer` there may be several."""
    added = (stored for stored in found if stored.idempotency_key == key)
    return min(added, key=lambda stored: (stored.handle, stored.record.id), default=None)


def nothing_inferred() -> ProviderError:
    """Return the error for a text that mem0's language model stored nothing of; it does not say which of the two."""
    return ProviderError(
        "mem0's language model found nothing new in this text: nothing to remember, or only what the user has already. "
        "Nothing was stored; with infer=False texts are stored as they are"
    )


def _foreign(row: Row, user_id: str, metadata: Metadata) -> Stored:
    expires = _moment(row.expiration_date)
    extensions: dict[str, Any] = {EXTENSION: metadata}
    return Stored.foreign(
        id=row.id,
        content=row.memory,
        user_id=user_id,
        created_at=_moment(row.created_at) or EPOCH,
        updated_at=_moment(row.updated_at),
        scope=f"agent/{row.agent_id}" + (f"/run/{row.run_id}" if row.run_id else "") if row.agent_id else None,
        # mem0 shows a memory until the end of that day, UTC.
        valid_to=expires + timedelta(days=1) if expires else None,
        **extensions,
    )


def _moment(text: str | None) -> datetime | None:
    """Return the moment that a text of any program's making names, in UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
