"""The requests to Supermemory that the adapter makes: typed answers and errors, each in a thread that can be cut off.

Answers are read from the bytes: the SDK's models take a 200 of any shape, and their fields are then None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypeAlias, TypedDict, TypeVar

from pydantic import AliasPath, BaseModel, Field, JsonValue

from openproto.blocking.threads import Threads
from openproto.emulation import reader, reading
from openproto.errors import NotFoundError
from openproto.http_status import unexpected_response
from openproto_adapters.supermemory.errors import VENDOR, as_protocol_error

if TYPE_CHECKING:
    from supermemory import Supermemory as Client

T = TypeVar("T", bound=BaseModel)
Request: TypeAlias = Callable[..., Any]
Metadata: TypeAlias = dict[str, JsonValue]
Filter: TypeAlias = dict[str, Any]

PAGE = 100
"""The most documents of a listing, results of a search, and ids of a deletion."""


class _Answer(BaseModel, defer_build=True):
    """Built when the first answer is read, in a thread."""


class NewDocument(TypedDict):
    """A document to write."""

    id: str
    content: str
    metadata: NotRequired[Metadata]


class Accepted(_Answer):
    """What Supermemory says to a write: how far it is with the document."""

    id: str
    status: str
    error: str | None = None


class System(_Answer):
    """How far Supermemory is with a document, and with the memories that form out of it."""

    status: str
    dreaming: str = Field(alias="dreamingStatus")


class Document(_Answer):
    """A document as it is got and listed; in a listing its content is what was published last, if anything was."""

    id: str
    content: str | None = None
    metadata: Metadata
    system: System


class Source(_Answer):
    """A document as it is included with what a search has found of it."""

    id: str
    metadata: Metadata


class Hit(_Answer):
    """A passage, or a memory that has formed; the document that it came from is included where there is one."""

    similarity: Annotated[float, Field(allow_inf_nan=False)]
    chunk: str | None = None
    document: Source | None = Field(default=None, validation_alias=AliasPath("included", "document"))


class _Documents(_Answer):
    documents: list[Document]


class _Hits(_Answer):
    results: list[Hit]


class _Batch(_Answer):
    results: list[Accepted]


class _Failure(_Answer):
    id: str


class _Deleted(_Answer):
    count: int
    errors: list[_Failure]


class _DeletedNamespace(_Answer):
    documents: int = Field(alias="deletedDocumentsCount")


class _Namespace(_Answer):
    namespace: str


class _Namespaces(_Answer):
    namespaces: list[_Namespace]


class Api:
    """Supermemory over an SDK client of `threads`; the adapter makes all ids, because they enter paths unescaped."""

    def __init__(self, threads: Threads, client: Client, writing: Filter) -> None:
        self._threads = threads
        self._api_key = client.api_key
        self._writing = writing
        # Looked up once: the SDK wraps a method anew, and inspects its signature, whenever it is asked for.
        self._add: Request = client.with_raw_response.add
        self._search: Request = client.with_raw_response.search
        self._list: Request = client.with_raw_response.list
        documents, namespaces = client.documents.with_raw_response, client.namespaces.with_raw_response
        self._get: Request = documents.get
        self._update: Request = documents.update
        self._batch_add: Request = documents.batch_add
        self._delete: Request = documents.delete
        self._namespaces: Request = namespaces.list
        self._delete_namespace: Request = namespaces.delete

    async def add(self, namespace: str, document: Callable[[], NewDocument]) -> Accepted:
        """Write a document, made in the thread, because hashing takes time; of one that is there, only the metadata."""
        return await self._threads(
            lambda: _answered(self._api_key, Accepted, self._add, namespace, **document(), **self._writing)
        )

    async def batch_add(self, namespace: str, documents: Callable[[], Sequence[NewDocument]]) -> list[Accepted]:
        """Write documents, which are made in the thread, each with its own answer, in no particular order."""

        def add() -> list[Accepted]:
            given = {"documents": documents(), **self._writing}
            return _answered(self._api_key, _Batch, self._batch_add, namespace, **given).results

        return await self._threads(add)

    async def update(self, namespace: str, id: str, content: str | None, metadata: Metadata) -> Accepted | None:
        """Give a document other metadata and, unless None, other content; None where it is not there."""
        changed: Filter = {"metadata": metadata} if content is None else {"metadata": metadata, "content": content}
        try:
            return await self._call(Accepted, self._update, namespace, id, **changed, **self._writing)
        except NotFoundError:
            return None

    async def get(self, namespace: str, id: str) -> Document | None:
        """Return the document, or None."""
        try:
            document = await self._call(Document, self._get, namespace, id)
        except NotFoundError:
            return None
        if document.id != id:
            raise unexpected_response(VENDOR)
        return document

    async def listing(self, namespace: str, filter: Filter, page: int, order: str) -> list[Document]:
        """Return a page of the documents, by Supermemory's own clock; the last page is shorter than the others."""
        found = await self._call(
            _Documents,
            self._list,
            namespace,
            "documents",
            page=page,
            limit=PAGE,
            sort="createdAt",
            order=order,
            filter=filter,
            include={"content": True, "memory_count": False},
        )
        return found.documents

    async def search(self, namespace: str, query: str, filter: Filter, limit: int) -> list[Hit]:
        """Return the best passages and memories, however weak: left to itself, Supermemory drops those below 0.3."""
        found = await self._call(
            _Hits,
            self._search,
            namespace,
            query=query,
            filter=filter,
            limit=limit,
            threshold=0.0,
            search_mode="hybrid",
            include={"documents": True},
        )
        return found.results

    async def delete(self, namespace: str, ids: Sequence[str]) -> set[str]:
        """Delete documents and return those of `ids` that Supermemory has not deleted, which is no error to it."""
        answer = await self._call(_Deleted, self._delete, namespace, ids=ids)
        refused = {failure.id for failure in answer.errors}
        if answer.count != len(ids) - len(refused):
            raise unexpected_response(VENDOR)
        return refused

    async def delete_namespace(self, namespace: str) -> int:
        """Delete a namespace with everything in it, and return how many documents that were."""
        try:
            return (await self._call(_DeletedNamespace, self._delete_namespace, namespace)).documents
        except NotFoundError:
            return 0

    async def namespaces(self, page: int, limit: int) -> list[str]:
        """Return a page of the namespaces, which needs a key that is accepted."""
        found = await self._call(_Namespaces, self._namespaces, page=page, limit=limit)
        return [entry.namespace for entry in found.namespaces]

    async def _call(self, answer: type[T], request: Request, *path: str, **asked: Any) -> T:
        return await self._threads(_answered, self._api_key, answer, request, *path, **asked)


def _answered(api_key: str, answer: type[T], request: Request, /, *path: str, **asked: Any) -> T:
    try:
        content = request(*path, **asked).http_response.content
    except Exception as error:
        raise as_protocol_error(error, api_key) from error
    with reading(VENDOR):
        return reader(answer).validate_json(content)
