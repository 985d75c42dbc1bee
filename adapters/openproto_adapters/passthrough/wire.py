"""The protocol's requests as HTTP spells them: paths and headers out of which no value can break, and JSON bodies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic_core import to_json

from openproto.errors import ConflictError, NotFoundError
from openproto.models import MemoryRecord
from openproto.provider import KeyedInput
from openproto.requests import (
    AuditQuery,
    ContextQuery,
    Filters,
    KeyRef,
    ListQuery,
    MemoryInput,
    MemoryUpdate,
    RecordRef,
    ScopesQuery,
    SearchQuery,
    UsersQuery,
)

T = TypeVar("T")

MOST_ITEMS = 500
"""Items that a server takes in one batch."""

LARGEST_BODY = 2**20
"""Bytes; the protocol's limit."""

LONGEST_URL = 2**16
"""Characters; httpx takes none that are longer, and few servers do."""

CREATED = 201

# URLs cannot spell them as ids: `.` and `..` are steps in a path however they are escaped, the others are routes.
_NO_IDS = frozenset({".", "..", "search", "batch", "by-key", "restore"})


class Request(NamedTuple):
    """A request but for what all requests share, and the status that means success."""

    method: str
    path: str
    success: int = 200
    body: bytes | None = None
    headers: Mapping[bytes, bytes] = {}
    also_success: int | None = None


def checked_url(url: str) -> str:
    """Return the URL without a slash at its end; the errors never repeat it, for it may hold a password."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        raise ValueError("base_url is not a URL, such as 'https://memory.example.com'") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid or not url.isprintable():
        raise ValueError("base_url must be http:// or https:// and a host, such as 'https://memory.example.com'")
    if "@" in parts.netloc:
        raise ValueError("base_url must not hold a user or password; pass api_key=")
    if "?" in url or "#" in url or " " in url:
        raise ValueError("base_url must end with its path: no query, no fragment, no spaces")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def add(item: MemoryInput, idempotency_key: str) -> Request:
    """Return `POST /memories`."""
    headers = {b"idempotency-key": header_value(idempotency_key)}
    skipped = 200 if item.on_duplicate == "skip" else None
    return Request("POST", "/memories", CREATED, to_json(item), headers, skipped)


def batches(items: Sequence[KeyedInput]) -> Iterator[tuple[Sequence[KeyedInput], Request]]:
    """Yield `POST /memories/batch` for as many items at a time as a server takes, and those items."""
    texts = (to_json({**keyed.item.model_dump(), "idempotency_key": keyed.idempotency_key}) for keyed in items)
    for part, body in _parts(items, texts, b'{"items":[%b]}'):
        yield part, Request("POST", "/memories/batch", 207, body)


def get(ref: RecordRef) -> Request:
    """Return `GET /memories/{id}`."""
    return Request("GET", _record(ref))


def update(ref: RecordRef, changes: MemoryUpdate) -> Request:
    """Return `PATCH /memories/{id}`: a null clears."""
    body = to_json({**changes.changes, **changes.extensions})
    return Request("PATCH", _record(ref), body=body, headers=_if_match(ref.if_version))


def delete(ref: RecordRef) -> Request:
    """Return `DELETE /memories/{id}`."""
    return Request("DELETE", _record(ref), 204, headers=_if_match(ref.if_version))


def get_by_key(ref: KeyRef) -> Request:
    """Return `GET /memories/by-key`."""
    return Request("GET", _query("/memories/by-key", ref.model_dump()))


def put(item: MemoryInput, if_version: str | None) -> Request:
    """Return `PUT /memories`: 201 for a new record, 200 for one that was there."""
    headers = {b"if-none-match": b"*"} if if_version == "absent" else _if_match(if_version)
    return Request("PUT", "/memories", body=to_json(item), headers=headers, also_success=CREATED)


def scopes(query: ScopesQuery) -> Request:
    """Return `GET /scopes`."""
    return Request("GET", _query("/scopes", query.model_dump()))


def users(query: UsersQuery) -> Request:
    """Return `GET /users`."""
    return Request("GET", _query("/users", query.model_dump()))


def restorations(records: Sequence[MemoryRecord]) -> Iterator[tuple[Sequence[MemoryRecord], Request]]:
    """Yield `POST /memories/restore` for as many records at a time as a server takes, and those records."""
    for part, body in _parts(records, map(to_json, records), b'{"records":[%b]}'):
        yield part, Request("POST", "/memories/restore", body=body)


def delete_all(filters: Filters) -> Request:
    """Return `DELETE /memories`."""
    return Request("DELETE", _query("/memories", _filters(filters)))


def list_page(query: ListQuery) -> Request:
    """Return `GET /memories`."""
    return Request("GET", _query("/memories", _filters(query)))


def search(query: SearchQuery, *, in_body: bool) -> Request:
    """Return `POST /memories/search`, or `GET` with the query in the URL, where logs and proxies can see it."""
    parameters = {"q": query.query, **_filters(query)}
    del parameters["query"]
    if in_body:
        return Request("POST", "/memories/search", body=to_json(parameters))
    return Request("GET", _query("/memories/search", parameters))


def context(query: ContextQuery) -> Request:
    """Return `POST /context`."""
    return Request("POST", "/context", body=to_json(_filters(query)))


def audit(query: AuditQuery) -> Request:
    """Return `GET /audit`."""
    return Request("GET", _query("/audit", query.model_dump()))


def in_header(text: str) -> bool:
    """Say whether a header can hold the text exactly."""
    return text.isprintable() and text == text.strip()


def capabilities() -> Request:
    """Return `GET /capabilities`."""
    return Request("GET", "/capabilities")


def no_record() -> Request:
    """Return `GET /memories/{id}` of a record that does not exist."""
    return get(RecordRef(id="openproto-asks-for-nothing", user_id="openproto"))


def health() -> Request:
    """Return `GET /healthz`."""
    return Request("GET", "/healthz")


def header_value(text: str) -> bytes:
    """Return the text as a header holds it: as UTF-8, or percent-encoded where it would break out of its line."""
    return (text if in_header(text) else quote(text, safe="")).encode()


def _record(ref: RecordRef) -> str:
    if ref.id in _NO_IDS:
        raise NotFoundError("no such memory")
    return _query(f"/memories/{quote(ref.id, safe='')}", {"user_id": ref.user_id})


def _query(path: str, parameters: Mapping[str, Any]) -> str:
    given = {
        name: value.isoformat() if isinstance(value, datetime) else "true" if value is True else value
        for name, value in parameters.items()
        if value is not None
    }
    return f"{path}?{urlencode(given, doseq=True, quote_via=quote, safe='')}" if given else path


def _filters(filters: Filters) -> dict[str, Any]:
    """Return the members that are given, the tags under the name that they have on the wire."""
    parameters = filters.model_dump(exclude_none=True)
    tags = parameters.pop("tags")
    if tags:
        # One tag is a plain text, which older servers know.
        parameters["tag"] = tags[0] if len(tags) == 1 else list(tags)
    for flag in ("relevant_only", "explain"):  # what is false goes without saying, and older servers do not know it
        if not parameters.get(flag, True):
            del parameters[flag]
    return parameters


def _if_match(version: str | None) -> dict[bytes, bytes]:
    if version is None:
        return {}
    if not (version.isascii() and version.isprintable() and '"' not in version and " " not in version):
        raise ConflictError("the record does not have this version, and no server sends one like it; read it again")
    return {b"if-match": b'"%b"' % version.encode()}


def _parts(things: Sequence[T], texts: Iterable[bytes], around: bytes) -> Iterator[tuple[Sequence[T], bytes]]:
    """Yield the things in parts, and the body of each: as many as fit into one request, made when it is its turn."""
    start, size = 0, len(around)
    part: list[bytes] = []
    for text in texts:
        if part and (len(part) == MOST_ITEMS or size + len(text) > LARGEST_BODY):
            yield things[start : start + len(part)], around % b",".join(part)
            start, size, part = start + len(part), len(around), []
        part.append(text)
        size += len(text) + 1
    if part:
        yield things[start:], around % b",".join(part)
