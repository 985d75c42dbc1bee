"""The header plane: what the SDK's methods on memories call, each for the end user that a header names.

The vendor publishes no OpenAPI document. Shapes are those that its SDK reads and its own mock servers answer; what
neither says is "assumed". The stores for transcripts and for the state of frameworks, which hold no memories, are not
there, nor are connectors, imports, and the knowledge graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar, Literal

from openproto_conformance.emulators.emulator import Emulator
from openproto_conformance.emulators.memorysync.store import EDITABLE, Json, Memory, moment, normal
from openproto_conformance.emulators.messages import Answer, Refused, Request
from openproto_conformance.emulators.relevance import relevance
from openproto_conformance.emulators.routes import route

SHORTEST_TEXT = 10
LONGEST_REF = 128
MOST_AT_ONCE, MOST_EDITS = 50, 100

Quota = Literal["", "silent", "strict"]


class HeaderPlane(Emulator):
    """Keeps the memories; adds and queries are metered."""

    name: ClassVar[str] = "memorysync"
    add_path: ClassVar[str] = "/memory/bulk-add"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.memories: dict[int, Memory] = {}
        """Every memory by id, deleted ones too."""
        self.quota: Quota = ""
        """What being over the plan's limit looks like; within the limit, nothing."""
        self.facts: Callable[[str], list[str]] = lambda text: [text]
        """What is extracted from a text. Assumed: the text itself; the vendor's model words facts anew."""
        self.embedding_down = False
        """Whether what is stored now cannot be searched."""
        self.purges = 0
        self._ids = count(1)
        self._present: dict[str, dict[int, Memory]] = {}
        self._texts: dict[tuple[str, str], int] = {}
        self._refs: dict[tuple[str, str], list[int]] = {}

    def authorized(self, request: Request) -> bool:
        """Say whether the API key is right."""
        return request.headers.get("x-api-key") == self.api_key

    def error(self, status: int, message: str) -> Answer:
        """Return an error as FastAPI words it, or the body that names a rate limit."""
        if status == 429:
            return Answer(429, {"error": {"code": "RATE_LIMIT_EXCEEDED", "message": message, "retry_after": 30}})
        return Answer(status, {"detail": message})

    @route("POST", "/memory/add")
    def add(self, request: Request) -> Answer:
        """Extract facts from a text, and return the first."""
        end_user = self._end_user(request)
        if (over := self.metered({"status": "ok"})) is not None:
            return over
        _check_text(request.json.get("text"))
        outcome = self.take(request.json, end_user)
        if outcome["status"] == "skipped":
            told = {"candidates_extracted": 0, "candidates_stored": 0}
            return Answer(200, {**outcome, **told})
        return Answer(201, self.memories[outcome["memory_ids"][0]].answer())

    @route("POST", "/memory/bulk-add")
    def bulk_add(self, request: Request) -> Answer:
        """Extract facts from up to fifty texts; each has an outcome of its own. Deduplication is always on."""
        end_user = self._end_user(request)
        if (over := self.metered({"status": "ok"})) is not None:
            return over
        items = request.json["items"]
        if not 0 < len(items) <= MOST_AT_ONCE:
            raise Refused(422, f"items must have 1 to {MOST_AT_ONCE} entries")
        results: list[Json] = []
        for index, item in enumerate(items):
            try:
                _check_text(item.get("text"))
                outcome = self.take(item, end_user)
            except Refused as refused:
                outcome = {"status": "rejected", "reason": refused.message, "memory_ids": []}
            results.append({"index": index, **outcome})
        states = [result["status"] for result in results]
        counts = {state: states.count(state) for state in ("created", "skipped", "rejected")}
        return Answer(207, {"total": len(items), **counts, "results": results})

    @route("POST", "/memory/query")
    @route("POST", "/memory/retrieve")
    def query(self, request: Request) -> Answer:
        """Return the nearest memories. Assumed: none is too far, as vector searches have it; scores are `relevance`."""
        end_user, asked = self._end_user(request), request.json
        if (over := self.metered({"memories": []})) is not None:
            return over
        filters = asked.get("filters") or {}
        hits = [
            (relevance(asked["query"], memory.text), memory)
            for memory in self.of(end_user)
            if memory.embedded
            and (not filters.get("tags") or set(filters["tags"]) & set(memory.tags or ()))
            and filters.get("source", memory.source) == memory.source
            and (not filters.get("since") or moment(memory.created_at) >= filters["since"])
            and (not filters.get("until") or moment(memory.created_at) <= filters["until"])
        ]
        best = sorted(hits, key=lambda hit: -hit[0])[: asked.get("k", 10)]
        context = "\n".join(f"- {memory.text}" for _, memory in best)
        shown = [memory.answer(score) for score, memory in best]
        return Answer(200, {"memories": shown, "context": context, "latency_ms": 1.0, "query_intent": "semantic"})

    @route("GET", "/memory/export")
    def export(self, request: Request) -> Answer:
        """Return everything of the end user."""
        shown = [memory.answer() for memory in self.of(self._end_user(request))]
        return Answer(200, {"user_id": 1, "memories": shown, "generated_at": moment(self.now())})

    @route("GET", "/memory/{id}")
    def get(self, request: Request) -> Answer:
        """Return a memory of the end user."""
        return Answer(200, self._memory(request).answer())

    @route("PATCH", "/memory/{id}")
    def update(self, request: Request) -> Answer:
        """Change what may be changed, which the text is not."""
        memory = self._memory(request)
        memory.change(_edits(request.json), self.now())
        return Answer(200, memory.answer())

    @route("POST", "/memory/batch-update")
    def batch_update(self, request: Request) -> Answer:
        """Change several memories; one that is not the end user's is an outcome and no error."""
        end_user, items = self._end_user(request), request.json["items"]
        if not 0 < len(items) <= MOST_EDITS or len({item["memory_id"] for item in items}) < len(items):
            raise Refused(422, f"items must be 1 to {MOST_EDITS} different memories")
        results: list[Json] = []
        for index, item in enumerate(items):
            found = self._present.get(end_user, {}).get(item["memory_id"])
            changed = found.change(_edits(item), self.now()) if found else []
            status = "updated" if found else "not_found"
            told = {"index": index, "memory_id": item["memory_id"]}
            results.append({**told, "status": status, "changed_fields": changed})
        states = [result["status"] for result in results]
        counts = {state: states.count(state) for state in ("updated", "not_found")}
        return Answer(207, {"total": len(items), **counts, "results": results})

    @route("DELETE", "/memory/forget")
    def forget(self, request: Request) -> Answer:
        """Delete by ids or by a filter, and return the ids. Assumed: 404 where that is nothing at all."""
        end_user, asked = self._end_user(request), request.json
        ids, filters = asked.get("memory_ids"), asked.get("filters")
        if (ids is None) == (filters is None) or not (ids or filters):
            raise Refused(422, "either memory_ids or filters, with at least one criterion")
        chosen = [
            memory for memory in self.of(end_user) if (memory.id in ids if ids is not None else _fits(memory, filters))
        ]
        if not chosen:
            raise Refused(404, "No memories found")
        if not asked.get("dry_run"):
            for memory in chosen:
                memory.delete(self.now())
                del self._present[end_user][memory.id]
                self._texts.pop((end_user, normal(memory.text)), None)
        return Answer(200, [memory.id for memory in chosen])

    @route("GET", "/memory/{id}/history")
    def history(self, request: Request) -> Answer:
        """Return what has become of a memory, oldest first."""
        memory = self._memory(request)
        start, limit = int(request.first("offset", "0")), int(request.first("limit", "50"))
        page = memory.revisions[start : start + limit]
        total = len(memory.revisions)
        told = {"memory_id": memory.id, "total": total, "revisions": page, "tracked_fields": [*EDITABLE]}
        return Answer(200, told)

    @route("DELETE", "/memory/user/purge")
    def purge(self, request: Request) -> Answer:
        """Erase the account behind the key, with everybody's memories."""
        self.purges += 1
        self.memories.clear()
        self._present.clear()
        self._texts.clear()
        return Answer(200, {"status": "purged"})

    def of(self, end_user: str) -> list[Memory]:
        """Return what is there of an end user, newest first."""
        return [*reversed(self._present.get(end_user, {}).values())]

    def metered(self, silent: Json) -> Answer | None:
        """Return the answer to a request over the plan's limit: by default as if all were well."""
        if self.quota == "strict":
            return Answer(429, {"detail": {"error": "limit_exceeded", "message": "You have reached your limit."}})
        return Answer(200, silent) if self.quota else None

    def take(self, item: Json, end_user: str) -> Json:
        """Store what is extracted from a text, or say why nothing is."""
        text, ref = item["text"], item.get("client_ref")
        if ref is not None and len(ref) > LONGEST_REF:
            raise Refused(422, f"client_ref has more than {LONGEST_REF} characters")
        # Assumed: a reference is the end user's own, and outlives the memories that it brought about.
        if ref is not None and (end_user, ref) in self._refs:
            return {"status": "skipped", "reason": "already_ingested", "memory_ids": self._refs[end_user, ref]}
        facts = self.facts(text) if is_worthwhile(text) else []
        if not facts:
            return {"status": "skipped", "reason": "no_high_value_content", "memory_ids": []}
        known = [self._texts.get((end_user, normal(fact))) for fact in facts]
        if None not in known:
            return {"status": "skipped", "reason": "duplicate", "memory_ids": known}
        ids = [self._store(item, fact, end_user) for fact, id in zip(facts, known, strict=True) if id is None]
        if ref is not None:
            self._refs[end_user, ref] = ids
        return {"status": "created", "memory_ids": ids}

    def _store(self, item: Json, fact: str, end_user: str) -> int:
        # Assumed: every fact carries the tags and the metadata of the text that it comes from.
        id, now = next(self._ids), self.now()
        memory = Memory(id, end_user, fact, now, now, embedded=not self.embedding_down)
        for name in EDITABLE:
            setattr(memory, name, item.get(name))
        self.memories[id] = self._present.setdefault(end_user, {})[id] = memory
        self._texts[end_user, normal(fact)] = id
        return id

    def _memory(self, request: Request) -> Memory:
        end_user, id = self._end_user(request), request.params["id"]
        if not id.isdecimal():
            raise Refused(422, "memory_id must be an integer")
        memory = self._present.get(end_user, {}).get(int(id))
        if memory is None:
            raise Refused(404, "Memory not found")
        return memory

    def _end_user(self, request: Request) -> str:
        end_user = request.headers.get("x-end-user-id", "")
        if not end_user:
            raise Refused(400, "MISSING_END_USER_ID")
        return end_user


def is_worthwhile(text: str) -> bool:
    """Say whether a text is more than filler, as the vendor's own mock server decides it."""
    words = re.findall(r"[a-z']+", text.casefold())
    return len(words) > 2 or (len(words) == 2 and not _FILLER.issuperset(words))


def _check_text(text: object) -> None:
    if not isinstance(text, str) or len(text.strip()) < SHORTEST_TEXT:
        raise Refused(422, f"text must have at least {SHORTEST_TEXT} characters")


def _edits(asked: Json) -> Json:
    edits = {name: asked[name] for name in EDITABLE if name in asked}
    if not edits:
        raise Refused(422, "nothing to change")
    return edits


def _fits(memory: Memory, filters: Json) -> bool:
    """Say whether a memory is to be forgotten: of tags, it must have all."""
    return (
        set(filters.get("tags") or ()) <= set(memory.tags or ())
        and all(_same(filters.get(name), getattr(memory, name)) for name in ("source", "event_type"))
        and moment(memory.created_at) < filters.get("before", "9999")
        and moment(memory.created_at) > filters.get("after", "")
    )


def _same(wanted: Any, found: Any) -> bool:
    return wanted is None or wanted == found


_FILLER: frozenset[str] = frozenset(
    "ok okay yes yeah yep no nope sure right fine good cool nice great thanks thank you please hi hello hey bye".split()
)
