"""The routes: documents, search, lists, memories, and the profile; files, connectors, and feedback are not there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import uuid4

from openproto_conformance.emulators.messages import Answer, Problem, Refused, Request
from openproto_conformance.emulators.routes import route
from openproto_conformance.emulators.similarity import similarity
from openproto_conformance.emulators.supermemory import answers
from openproto_conformance.emulators.supermemory.answers import LIMIT, Hit, Json
from openproto_conformance.emulators.supermemory.filters import check_levels, matches
from openproto_conformance.emulators.supermemory.namespaces import Namespaces
from openproto_conformance.emulators.supermemory.store import Document, Memory, Namespace

THRESHOLD = 0.3
FORGET_ALIKE = 0.5
"""Assumed: how similar a memory must be to be forgotten with a description of it."""


class Supermemory(Namespaces):
    """Supermemory 5; `missing_for` seconds after it was added, a document is not found yet, as users have seen."""

    name: ClassVar[str] = "supermemory"
    add_path: ClassVar[str] = "/ns/*/document"
    document_file: ClassVar[str] = "supermemory-5.0.1-openapi.json"
    document_from: ClassVar[str] = "fern/openapi.json in the source distribution of supermemory 5.0.1"

    def __init__(self, *, missing_for: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.missing_for = missing_for
        self.failing: set[str] = set()
        """Ids of documents whose processing fails."""

    def provider_options(self) -> dict[str, Any]:
        """Return the options that point the openproto provider at it."""
        return {"base_url": self.url, "api_key": self.api_key}

    def invalid(self, request: Request, problems: Sequence[Problem]) -> Answer:
        """Return the second of the two shapes of a 400, which lists what is wrong where."""
        issues = [{"message": problem.message, "path": [*problem.where]} for problem in problems]
        return Answer(400, {"success": False, "error": issues, "data": request.json})

    @route("POST", "/ns/{namespace}/document")
    def add(self, request: Request) -> Answer:
        """Create a document, or append to the one that has the id."""
        return Answer(200, self._add(request, request.json))

    @route("POST", "/ns/{namespace}/document/batch")
    def batch_add(self, request: Request) -> Answer:
        """Add each document on its own."""
        shared = {name: value for name, value in request.json.items() if name != "documents"}
        results = [self._add(request, {**shared, **item}) for item in request.json["documents"]]
        return Answer(200, {"results": results, "count": len(results), "failed": 0})

    def _add(self, request: Request, item: Json) -> Json:
        now = self.now()
        documents = self.namespaces.setdefault(request.params["namespace"], Namespace(now, now)).documents
        found = documents.get(item.get("id", ""))
        if found is None:
            found = Document(item.get("id") or uuid4().hex, now, now, now, self.lag)
            documents[found.id] = found
        elif item["content"] in found.texts:
            # The document says that an unchanged duplicate is no new work. Assumed: so is any text added before.
            item = {**item, "content": None}
        self._change(found, item, replaces=False)
        return {"id": found.id, "status": found.status(self.now())}

    def _change(self, document: Document, item: Json, *, replaces: bool) -> None:
        document.updated_at = now = self.now()
        if "metadata" in item:
            # Assumed: an append adds to the metadata, an update replaces it whole.
            document.metadata = item["metadata"] if replaces else {**document.metadata, **item["metadata"]}
        document.learns = item.get("taskType", "memory" if document.learns else "superrag") == "memory"
        document.instant = item.get("dreaming", "instant" if document.instant else "dynamic") == "instant"
        if item.get("content") is not None:
            document.take(item["content"], now, replaces=replaces, fails=document.id in self.failing)

    @route("GET", "/ns/{namespace}/document/{id}")
    def get_document(self, request: Request) -> Answer:
        """Return a document, and its chunks and memories where they are wanted."""
        found, now = self._document(request), self.now()
        # Assumed: plain text needs no extraction, so that the content is there before it is processed.
        answer = {**answers.document(found, now), "content": found.content}
        wanted = _included(request)
        if "chunks" in wanted:
            answer["chunks"] = [answers.chunk(found, *chunk) for chunk in enumerate(found.chunks(now))]
        if "memories" in wanted:
            answer["memories"] = [answers.memory(found, memory, now) for memory in found.formed(now)]
        return Answer(200, answer)

    @route("PATCH", "/ns/{namespace}/document/{id}")
    def update_document(self, request: Request) -> Answer:
        """Replace the content and whatever else is given; the rest stays."""
        found = self._document(request)
        self._change(found, request.json, replaces=True)
        return Answer(200, {"id": found.id, "status": found.status(self.now())})

    @route("DELETE", "/ns/{namespace}/document")
    def delete_documents(self, request: Request) -> Answer:
        """Remove documents and what came from them; ids that are unknown are errors beside the success."""
        documents, ids = self.namespace(request).documents, request.json["ids"]
        gone = [id for id in ids if id not in documents or self._is_missing(documents[id])]
        for id in set(ids).difference(gone):
            del documents[id]
        errors = [{"id": id, "error": "Document not found"} for id in gone]
        return Answer(200, {"count": len(ids) - len(errors), "errors": errors})

    @route("POST", "/ns/{namespace}/search")
    def search(self, request: Request) -> Answer:
        """Return memories and chunks, best first. Assumed: both, where a memory says what its chunk says."""
        started, now, asked = time.perf_counter(), self.now(), request.json
        include = {name for name, wanted in asked.get("include", {}).items() if wanted}
        hits: list[Hit] = []
        for found in self._matching(request):
            pieces: list[tuple[Memory | int, str]] = []
            if asked.get("searchMode") != "chunks":
                recalled = found.recalled(now, forgotten="forgotten" in include)
                pieces += [(memory, memory.text) for memory in recalled]
            if asked.get("searchMode") != "memories":
                pieces += enumerate(found.chunks(now))
            hits += [Hit(similarity(asked["query"], text), text, found, piece) for piece, text in pieces]
        good = [hit for hit in hits if hit.similarity >= asked.get("threshold", THRESHOLD)]
        best = sorted(good, key=lambda hit: -hit.similarity)[: asked.get("limit", LIMIT)]
        results = [answers.result(hit, include, now) for hit in best]
        return Answer(200, {"results": results, "searchTime": (time.perf_counter() - started) * 1000})

    @route("POST", "/ns/{namespace}/list/{type}")
    def list_items(self, request: Request) -> Answer:
        """Return a page of documents, chunks, or memories; the other two collections are empty."""
        now, include = self.now(), (request.json or {}).get("include", {})
        by_update, descending = request.first("sort") == "updatedAt", request.first("order", "desc") == "desc"
        documents = sorted(
            self._matching(request),
            key=lambda one: (one.updated_at if by_update else one.created_at, one.order),
            reverse=descending,
        )
        collections: Json = {"documents": [], "chunks": [], "memories": []}
        match request.params["type"]:
            case "chunks":
                chunks = [(one, chunk) for one in documents for chunk in enumerate(one.chunks(now))]
                page, beside = answers.page(chunks, request)
                collections["chunks"] = [{**answers.chunk(one, *chunk), "documentId": one.id} for one, chunk in page]
            case "memories":
                forgotten = include.get("forgotten", False)
                recalled = [(one, memory) for one in documents for memory in one.recalled(now, forgotten=forgotten)]
                remembered, beside = answers.page(recalled, request)
                collections["memories"] = [answers.memory(one, memory, now) for one, memory in remembered]
            case _:
                listed, beside = answers.page(documents, request)
                collections["documents"] = [answers.listed(one, include, now) for one in listed]
        return Answer(200, {**collections, "pagination": beside})

    @route("POST", "/ns/{namespace}/list/documents/memory-counts")
    def memory_counts(self, request: Request) -> Answer:
        """Count the memories of documents; unknown documents are left out."""
        documents, now = self.namespace(request).documents, self.now()
        known = [documents[id] for id in request.json["ids"] if id in documents]
        return Answer(200, {"counts": [{"id": one.id, "memoryCount": len(one.recalled(now))} for one in known]})

    @route("GET", "/ns/{namespace}/memories/{id}")
    def get_memory(self, request: Request) -> Answer:
        """Return a memory, and its versions and its document where they are wanted."""
        now, wanted = self.now(), _included(request)
        for document, memory in self.namespace(request).memories(now):
            if memory.id == request.params["id"]:
                parts: Json = {}
                if "related" in wanted:
                    parts["related"] = answers.related(document, memory, now, documents="documents" in wanted)
                if "documents" in wanted:
                    parts["document"] = answers.source(document)
                return Answer(200, {**answers.memory(document, memory, now), **({"included": parts} if parts else {})})
        raise Refused(404, "Memory not found")

    @route("DELETE", "/ns/{namespace}/memories")
    def forget(self, request: Request) -> Answer:
        """Forget memories by their ids, which are not their documents' ids; the documents' chunks stay."""
        now, matched, errors = self.now(), [], []
        known = {memory.id: memory for _, memory in self.namespace(request).memories(now) if not memory.forgotten}
        for id in request.json["ids"]:
            if (memory := known.pop(id, None)) is None:
                errors.append({"id": id, "error": "Memory not found"})
            else:
                memory.forgotten = True
                matched.append({"id": id, "memory": memory.text})
        return Answer(200, {"count": len(matched), "errors": errors, "matches": matched})

    @route("DELETE", "/ns/{namespace}/memories/semantic")
    def forget_matching(self, request: Request) -> Answer:
        """Forget the memories that a description fits, or say which they would be."""
        now, asked = self.now(), request.json
        matched = [
            memory
            for document in self.namespace(request).documents.values()
            for memory in document.recalled(now)
            if similarity(asked["query"], memory.text) >= FORGET_ALIKE
        ]
        for memory in matched:
            memory.forgotten = not asked["dryRun"]
        previewed = [{"id": memory.id, "memory": memory.text} for memory in matched]
        return Answer(200, {"count": len(matched), "errors": [], "matches": previewed})

    @route("POST", "/ns/{namespace}/profile")
    def profile(self, request: Request) -> Answer:
        """Return what is known of the subject. Assumed: everything is evolving context, and buckets stay empty."""
        now, asked = self.now(), request.json or {}
        facts = [
            {"id": memory.id, "memory": memory.text} for one in self._matching(request) for memory in one.recalled(now)
        ]
        buckets = asked.get("buckets", [*self.namespace(request).buckets])
        return Answer(200, {"profile": {"static": [], "dynamic": facts, "buckets": {name: [] for name in buckets}}})

    def _document(self, request: Request) -> Document:
        found = self.namespace(request).documents.get(request.params["id"])
        if found is None or self._is_missing(found):
            raise Refused(404, "Document not found")
        return found

    def _is_missing(self, document: Document) -> bool:
        """Say whether a document is not found yet. Assumed: then it can be neither changed nor deleted."""
        return self.now() < document.created_at + self.missing_for

    def _matching(self, request: Request) -> list[Document]:
        """Return the documents that fit a request's filter."""
        expression = (request.json or {}).get("filter")
        if expression is not None:
            check_levels(expression)
        return [one for one in self.namespace(request).documents.values() if matches(expression, one.metadata)]


def _included(request: Request) -> set[str]:
    return {name for value in request.query.get("include", ()) for name in value.split(",")}
