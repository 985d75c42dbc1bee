"""The requests to Letta that the adapter makes: typed answers, typed errors, each in a thread that can be cut off.

Answers are read from the bytes: each passage carries 4096 numbers, of which the SDK's models would make objects for
longer than an event loop may wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict, TypeVar, Unpack

from pydantic import BaseModel, Field, JsonValue, StringConstraints

from openproto.blocking.threads import Threads
from openproto.emulation import reader, reading
from openproto.errors import InvalidRequestError, NotFoundError, ProviderError
from openproto.fields import Moment
from openproto.http_status import unexpected_response
from openproto_adapters.letta.errors import VENDOR, as_protocol_error

if TYPE_CHECKING:
    from letta_client import APIResponse, Letta

T = TypeVar("T")
Request: TypeAlias = "Callable[..., APIResponse[Any]]"

PAGE = 100
"""The most passages that one search answers."""

_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
Metadata: TypeAlias = dict[str, JsonValue]
ArchiveId = Annotated[str, StringConstraints(pattern=f"^archive-{_UUID}$")]
PassageId = Annotated[str, StringConstraints(pattern=f"^passage-{_UUID}$")]


class _Answer(BaseModel, defer_build=True):
    """Built when the first answer is read, in a thread."""


class Archive(_Answer):
    """A collection of passages; the description is the user's id."""

    id: ArchiveId
    name: str
    description: str | None = None
    embedding_config: Metadata | None = None


class Created(_Answer):
    """What matters of a passage that was just written."""

    id: PassageId


class NewPassage(TypedDict):
    """A passage to write."""

    text: str
    metadata: Metadata
    tags: list[str]
    created_at: str


class Passage(_Answer):
    """A text with metadata."""

    id: PassageId
    archive_id: ArchiveId
    text: str
    created_at: Moment
    metadata: Metadata | None = None
    tags: list[str] | None = None


class Wanted(TypedDict, total=False):
    """Which passages of an archive: the nearest to a query, or the oldest, from `start` to `end`, both included."""

    query: str
    start: datetime
    end: datetime | None
    limit: int


class Hit(_Answer):
    """A passage that a search found, and how well it fits: 0 for all of them on a self-hosted server."""

    passage: Passage
    score: float = Field(allow_inf_nan=False)


_reading = threading.Lock()
"""Nothing else runs in the ten milliseconds of a large answer; one at a time, or they would add up for the loop."""


class Api:
    """Letta over an SDK client whose HTTP client is of `threads`."""

    def __init__(self, threads: Threads, client: Letta) -> None:
        self._threads = threads
        self._archives = client.archives.with_raw_response
        self._passages = client.archives.passages.with_raw_response
        self._searches = client.passages.with_raw_response

    async def find_archives(self, name: str | None, limit: int, after: str | None = None) -> list[Archive]:
        """Return the archives of that name, oldest first; of any name where it is None."""
        asked = {name: value for name, value in (("name", name), ("after", after)) if value is not None}
        found = await self._call(list[Archive], self._archives.list, order="asc", limit=limit, **asked)
        return [archive for archive in found if name in (None, archive.name)]

    async def create_archive(self, name: str, description: str, embedding: str | None) -> Archive:
        """Create an archive, whether or not there is another of that name: Letta does not care."""
        chosen = {} if embedding is None else {"embedding": embedding}
        return await self._call(Archive, self._archives.create, name=name, description=description, **chosen)

    async def delete_archive(self, archive_id: str) -> None:
        """Delete the archive with all its passages, unless it is gone already."""
        with contextlib.suppress(NotFoundError):
            await self._threads(_sent, self._archives.delete, archive_id)

    async def create_passages(self, archive: Archive, passages: Sequence[NewPassage]) -> list[str]:
        """Write passages and return their ids; several in one request unless the archive has no embedding model."""
        if len(passages) == 1 or archive.embedding_config is None:
            one_by_one = [await self._call(Created, self._passages.create, archive.id, **one) for one in passages]
            return [created.id for created in one_by_one]
        together = await self._call(list[Created], self._passages.create_many, archive.id, passages=passages)
        if len(together) != len(passages):
            raise ProviderError(f"Letta says that it wrote {len(together)} passages of {len(passages)}; try again")
        return [created.id for created in together]

    async def delete_passage(self, archive_id: str, passage_id: str) -> bool:
        """Delete the passage; False where it is gone, or in another archive."""
        try:
            await self._threads(_sent, self._passages.delete, passage_id, archive_id=archive_id)
        except (NotFoundError, InvalidRequestError):
            return False
        return True

    async def search(self, archive_id: str, **wanted: Unpack[Wanted]) -> list[Hit]:
        """Return the archive's passages; of one that is gone there are none."""
        start, end, limit = wanted.get("start"), wanted.get("end"), wanted.get("limit", PAGE)
        asked = {"query": wanted.get("query"), "start_date": start, "end_date": end}
        given = {name: value for name, value in asked.items() if value is not None}
        try:
            hits = await self._call(list[Hit], self._searches.search, archive_id=archive_id, limit=limit, **given)
        except NotFoundError:
            return []
        if any(hit.passage.archive_id != archive_id for hit in hits):
            raise ProviderError("Letta answered with a passage of another archive, which was dropped; report it")
        moments = [hit.passage.created_at for hit in hits]
        if any((start and moment < start) or (end and moment > end) for moment in moments):
            raise unexpected_response(VENDOR)  # the answer to another search
        return hits

    async def _call(self, answer: type[T], request: Request, *path: str, **asked: Any) -> T:
        return await self._threads(_answered, answer, request, *path, **asked)


def _answered(answer: type[T], request: Request, /, *path: str, **asked: Any) -> T:
    content = _sent(request, *path, **asked)
    with reading(VENDOR), _reading:
        return reader(answer).validate_json(content)


def _sent(request: Request, /, *path: str, **asked: Any) -> bytes:
    from letta_client import APIError

    try:
        return request(*path, **asked).http_response.content
    except APIError as error:
        raise as_protocol_error(error) from error
