"""What documents, chunks, memories, and namespaces look like on the wire."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from openproto_conformance.emulators.messages import Request
from openproto_conformance.emulators.supermemory.store import Document, Memory, Namespace, moment

LIMIT = 10

Item = TypeVar("Item")
Json: TypeAlias = dict[str, Any]


class Hit(NamedTuple):
    """A memory, or the chunk at a position, that a search has found."""

    similarity: float
    text: str
    document: Document
    piece: Memory | int


def document(found: Document, now: float) -> Json:
    """Return what every form of a document has. Assumed: plain text has no title and no summary."""
    system = {
        "status": found.status(now),
        "dreamingStatus": found.dreaming_status(now),
        "createdAt": moment(found.created_at),
        "updatedAt": moment(found.updated_at),
    }
    return {
        "id": found.id,
        "title": None,
        "type": "text",
        "summary": None,
        "metadata": found.metadata,
        "system": system,
    }


def source(found: Document) -> Json:
    """Return a document as it is included with what came from it."""
    times = {"createdAt": moment(found.created_at), "updatedAt": moment(found.updated_at)}
    return {"id": found.id, "title": None, "type": "text", "summary": None, "metadata": found.metadata, "system": times}


def chunk(of: Document, position: int, text: str) -> Json:
    """Return a source passage. Assumed: its metadata is its document's."""
    return {
        "id": chunk_id(of, position),
        "position": position,
        "content": text,
        "type": "text",
        "metadata": of.metadata,
        "system": {"createdAt": moment(of.updated_at)},
    }


def chunk_id(of: Document, position: int) -> str:
    """Return the id of a source passage."""
    return f"chunk_{of.id}_{position}"


def memory(of: Document, found: Memory, now: float) -> Json:
    """Return a memory. Assumed: its metadata is its document's, and none is inferred or part of the stable profile."""
    return {
        "id": found.id,
        "memory": found.text,
        "metadata": of.metadata,
        "isStatic": False,
        "isInference": False,
        "isLatest": found.is_latest(now),
        "isForgotten": found.forgotten,
        "version": found.version,
        "system": {"createdAt": moment(found.formed_at), "updatedAt": moment(found.formed_at)},
    }


def related(of: Document, found: Memory, now: float, *, documents: bool = False) -> Json:
    """Return the versions before and after a memory, up to three steps away, nearest first."""
    parents: list[Memory] = []
    while len(parents) < 3 and (parent := (parents[-1] if parents else found).parent) is not None:
        parents.append(parent)
    children: list[Memory] = []
    while len(children) < 3:
        last = children[-1] if children else found
        following = next((other for other in of.formed(now) if other.parent is last), None)
        if following is None:
            break
        children.append(following)

    def version(other: Memory) -> Json:
        return {
            "id": other.id,
            "relation": "updates",
            "version": other.version,
            "memory": other.text,
            "metadata": of.metadata,
            "system": {"updatedAt": moment(other.formed_at)},
            **({"document": source(of)} if documents else {}),
        }

    return {"parents": [*map(version, parents)], "children": [*map(version, children)], "siblings": []}


def result(hit: Hit, included: Collection[str], now: float) -> Json:
    """Return a result of a search, with what is wanted `included`."""
    made: Json = {"metadata": hit.document.metadata, "similarity": hit.similarity, "isInference": False}
    parts: Json = {"document": source(hit.document)} if "documents" in included else {}
    if isinstance(hit.piece, Memory):
        made |= {"id": hit.piece.id, "memory": hit.text}
        made |= {"isLatest": hit.piece.is_latest(now) and not hit.piece.forgotten}
        made |= {"system": {"updatedAt": moment(hit.piece.formed_at)}}
        if "related" in included:
            parts["related"] = related(hit.document, hit.piece, now)
    else:
        made |= {"id": chunk_id(hit.document, hit.piece), "chunk": hit.text, "isLatest": True}
        made |= {"system": {"updatedAt": moment(hit.document.updated_at)}}
    return made | ({"included": parts} if parts else {})


def listed(found: Document, include: Json, now: float) -> Json:
    """Return a document as it is listed."""
    made: Json = {**document(found, now), "url": None}
    if include.get("memoryCount", True):
        made["system"]["memoryCount"] = len(found.recalled(now))
    if include.get("content"):
        made["content"] = found.published_at(now)
    return made


def namespace(name: str, found: Namespace) -> Json:
    """Return a namespace's settings."""
    return {"namespace": name, "supportingContext": found.supporting_context, "system": _times(found)}


def namespace_entry(name: str, found: Namespace, now: float) -> Json:
    """Return a namespace as it is listed."""
    return {
        "id": found.id,
        "namespace": name,
        "documentCount": len(found.documents),
        "memoryCount": sum(len(document.recalled(now)) for document in found.documents.values()),
        "description": None,
        "system": _times(found),
    }


def _times(found: Namespace) -> Json:
    return {"createdAt": moment(found.created_at), "updatedAt": moment(found.updated_at)}


def page(items: Sequence[Item], request: Request) -> tuple[Sequence[Item], Json]:
    """Return the items of the page that is asked for, and what stands beside them."""
    number, limit = int(request.first("page", "1")), int(request.first("limit", str(LIMIT)))
    beside = {"currentPage": number, "limit": limit, "totalItems": len(items), "totalPages": -(-len(items) // limit)}
    return items[(number - 1) * limit : number * limit], beside
