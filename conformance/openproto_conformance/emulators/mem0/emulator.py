"""The routes on memories, as mem0's `MemoryClient` calls them; exports, profiles, and projects are not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID, uuid4

from openproto_conformance.emulators.emulator import Emulator
from openproto_conformance.emulators.mem0.filters import check, matches
from openproto_conformance.emulators.mem0.store import ENTITIES, Event, Json, Memory, Version, answer, moment
from openproto_conformance.emulators.messages import Answer, Refused, Request
from openproto_conformance.emulators.relevance import relevance
from openproto_conformance.emulators.routes import route

TOP_K, THRESHOLD, PAGE_SIZE = 10, 0.1, 100


class Mem0Platform(Emulator):
    """The mem0 platform; `lag` is how long the index and the queue take."""

    name: ClassVar[str] = "mem0"
    add_path: ClassVar[str] = "/v3/memories/add/"
    document_file: ClassVar[str] = "mem0-platform-openapi.json"
    document_from: ClassVar[str] = "docs/openapi.json in the repository of mem0"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.memories: dict[str, Memory] = {}
        self.events: dict[str, Event] = {}
        self.history: dict[str, list[Json]] = {}
        self._by_text: dict[tuple[tuple[str | None, ...], str], Memory] = {}
        self._by_user: dict[str | None, list[Memory]] = {}
        self.events_fail = False
        """Whether what is queued from now on fails."""

    def clear(self) -> None:
        """Forget every memory."""
        for kept in (self.memories, self._by_text, self._by_user):
            kept.clear()

    def provider_options(self) -> dict[str, Any]:
        """Return the options that point the openproto provider at it."""
        return {"base_url": self.url, "api_key": self.api_key}

    def authorized(self, request: Request) -> bool:
        """Say whether the API key is right; it comes as a token."""
        return request.headers.get("authorization") == f"Token {self.api_key}"

    def error(self, status: int, message: str) -> Answer:
        """Return an error: under `detail` where the credentials are wrong, under `error` otherwise."""
        return Answer(status, {"detail" if status in (401, 403) else "error": message})

    @route("GET", "/v1/ping/")
    def ping(self, request: Request) -> Answer:
        """Say that the key is good, and whose it is."""
        email = "emulated@example.com"
        return Answer(200, {"status": "ok", "org_id": "org", "project_id": "project", "user_email": email})

    @route("POST", "/v3/memories/add/")
    def add(self, request: Request) -> Answer:
        """Store the messages: at once as they are, or, with `infer`, later what a model makes of them."""
        asked, now = request.json, self.now()
        entities = {name: asked.get(name) for name in ENTITIES}
        if not any(entities.values()):
            raise Refused(400, "At least one of the filters: agent_id, user_id, app_id, run_id is required!")
        infer = asked.get("infer", True)
        # Assumed: what a model makes of a message is the message.
        at = now + self.lag if infer else now
        texts = [message["content"] for message in asked["messages"] if message["role"] != "system"]
        fails = infer and self.events_fail
        made = [] if fails else [self._create(text, entities, asked, at) for text in texts]
        results = [{"id": one.id, "data": {"memory": one.text}, "event": "ADD"} for one in made if one]
        event = self._queue("ADD", {"messages": asked["messages"]}, results, at)
        if infer:
            return Answer(200, {"event_id": event.id, "status": "PENDING"})
        told = {"message": "Memories stored", "status": "SUCCEEDED", "event_id": event.id, "results": results}
        return Answer(200, told)

    @route("POST", "/v3/memories/search/")
    def search(self, request: Request) -> Answer:
        """Return the best memories that the index has. Assumed: scores are `relevance`."""
        asked, now = request.json, self.now()
        self._refuse_entities(asked)
        check(asked["filters"], search=True)
        if not asked["query"].strip():
            raise Refused(400, "query must not be blank")
        hits: list[tuple[float, Memory, Version]] = []
        for memory in self._candidates(asked["filters"]):
            version = memory.indexed(now, self.lag)
            if version is None or (memory.is_expired(now) and not asked.get("show_expired")):
                continue
            if matches(asked["filters"], memory, version):
                hits.append((relevance(asked["query"], version.text), memory, version))
        good = [hit for hit in hits if hit[0] >= asked.get("threshold", THRESHOLD)]
        best = sorted(good, key=lambda hit: -hit[0])[: asked.get("top_k", TOP_K)]
        return Answer(
            200, {"results": [{**answer(one, version, run="run_id"), "score": score} for score, one, version in best]}
        )

    @route("POST", "/v3/memories/")
    def list_memories(self, request: Request) -> Answer:
        """Return a page. Assumed: newest first."""
        asked, now = request.json, self.now()
        self._refuse_entities(asked)
        check(asked["filters"], search=False)
        found = [
            memory
            for memory in self._candidates(asked["filters"])
            if memory.is_listed(now)
            and (asked.get("show_expired") or not memory.is_expired(now))
            and matches(asked["filters"], memory, memory.versions[-1])
        ]
        found.sort(key=lambda memory: memory.versions[0].at, reverse=True)
        page = int(request.first("page") or asked.get("page", 1))
        size = int(request.first("page_size") or asked.get("page_size", PAGE_SIZE))
        start, last = (page - 1) * size, max(1, -(-len(found) // size))
        if page > last:
            raise Refused(404, "Invalid page.")  # Assumed: as the listing of an entity's memories does.

        def link(number: int) -> str | None:
            wanted = urlencode({"page": number, "page_size": size})
            return f"{self.url}/v3/memories/?{wanted}" if 1 <= number <= last and number != page else None

        results = [answer(memory, memory.versions[-1], run="session_id") for memory in found[start : start + size]]
        beside = {"count": len(found), "next": link(page + 1), "previous": link(page - 1)}
        return Answer(200, {**beside, "results": results})

    @route("GET", "/v1/entities/")
    def list_entities(self, request: Request) -> Answer:
        """Return a page of whom memories are about. Assumed: also of whom none is left; named by the ids they have."""
        seen: dict[tuple[str, str], Memory] = {}
        for memory in self.memories.values():
            for kind, id in memory.entities.items():
                if id is not None:
                    seen.setdefault((kind.removesuffix("_id"), id), memory)
        size, page = PAGE_SIZE, int(request.first("page") or 1)
        found = [_entity(kind, id, memory) for (kind, id), memory in seen.items()]
        further = f"{self.url}/v1/entities/?page={page + 1}" if page * size < len(found) else None
        before = f"{self.url}/v1/entities/?page={page - 1}" if page > 1 else None
        beside = {"count": len(found), "next": further, "previous": before}
        totals = {f"total_{name}s": sum(kind == name for kind, _ in seen) for name in ("user", "agent", "app", "run")}
        return Answer(200, {**beside, "results": found[(page - 1) * size : page * size], **totals})

    @route("GET", "/v1/memories/{memory_id}/")
    def get(self, request: Request) -> Answer:
        """Return a memory, of whatever entity, expired or not."""
        memory = self._memory(request.params["memory_id"])
        return Answer(200, answer(memory, memory.versions[-1], run="session_id"))

    @route("PUT", "/v1/memories/{memory_id}/")
    def update(self, request: Request) -> Answer:
        """Change a memory. Assumed: metadata that is given replaces what was there."""
        memory = self._memory(request.params["memory_id"])
        self._change(memory, request.json)
        return Answer(200, answer(memory, memory.versions[-1], run="session_id"))

    @route("DELETE", "/v1/memories/{memory_id}/")
    def delete(self, request: Request) -> Answer:
        """Delete a memory."""
        self._remove(self._memory(request.params["memory_id"]), self.now())
        return Answer(200, {"message": "Memory deleted successfully!"})

    @route("GET", "/v1/memories/{memory_id}/history/")
    def get_history(self, request: Request) -> Answer:
        """Return what has become of a memory, oldest first. Assumed: also when it is no more."""
        return Answer(200, self.history.get(_checked(request.params["memory_id"]), []))

    @route("DELETE", "/v1/memories/")
    def delete_all(self, request: Request) -> Answer:
        """Queue the deletion of what fits; a `*` fits whatever is not null."""
        wanted = {name: request.first(name) for name in ENTITIES if request.first(name)}
        if not wanted:
            raise Refused(400, "At least one filter is required")
        now = self.now()
        chosen = [
            one for one in self.memories.values() if one.is_listed(now) and matches(wanted, one, one.versions[-1])
        ]
        event = self._queue("DELETE_ALL", wanted, [], now + self.lag)
        for memory in [] if event.fails else chosen:
            self._remove(memory, event.done_at)
        return Answer(200, {"message": "Delete in progress. This may take some time.", "event_id": event.id})

    @route("PUT", "/v1/batch/")
    def batch_update(self, request: Request) -> Answer:
        """Change several memories, or none where one is unknown."""
        found = [(self._memory(one["memory_id"]), one) for one in request.json["memories"]]
        for memory, changes in found:
            self._change(memory, changes)
        return Answer(200, {"message": f"Successfully updated {len(found)} memories"})

    @route("DELETE", "/v1/batch/")
    def batch_delete(self, request: Request) -> Answer:
        """Delete several memories, or none where one is unknown."""
        found = [self._memory(one["memory_id"]) for one in request.json["memories"]]
        for memory in found:
            self._remove(memory, self.now())
        return Answer(200, {"message": f"Successfully deleted {len(found)} memories"})

    @route("GET", "/v1/event/{event_id}/")
    def get_event(self, request: Request) -> Answer:
        """Return how far something that was queued is."""
        event = self.events.get(request.params["event_id"])
        if event is None:
            raise Refused(404, "Event not found or you don't have permission to access it.")
        return Answer(200, event.answer(self.now()))

    def _create(self, text: str, entities: Mapping[str, str | None], asked: Json, at: float) -> Memory | None:
        """Store a text; an exact repeat for the same entities is dropped, and nothing says so."""
        memory = Memory(entities, [Version(at, text, asked.get("metadata"))], asked.get("expiration_date"))
        before = self._by_text.get((self._scope(memory), text))
        if before is not None and before.text == text and before.is_there(self.now()):
            return None
        self.memories[memory.id] = self._by_text[self._scope(memory), text] = memory
        self._by_user.setdefault(entities["user_id"], []).append(memory)
        self._note(memory, "ADD", None, text, asked["messages"])
        return memory

    def _change(self, memory: Memory, changes: Json) -> None:
        last = memory.versions[-1]
        text, metadata = changes.get("text", last.text), changes.get("metadata", last.metadata)
        memory.versions.append(Version(self.now(), text, metadata))
        self._by_text[self._scope(memory), text] = memory
        if "expiration_date" in changes:
            memory.expiration_date = changes["expiration_date"]
        self._note(memory, "UPDATE", last.text, text, [])

    def _remove(self, memory: Memory, at: float) -> None:
        memory.gone_at = at
        self._note(memory, "DELETE", memory.text, "", [])

    def _note(self, memory: Memory, event: str, old: str | None, new: str, messages: Sequence[Json]) -> None:
        at = moment(self.now())
        entry = {
            "id": str(uuid4()),
            "memory_id": memory.id,
            "input": messages,
            "old_memory": old,
            "new_memory": new,
            "user_id": memory.entities["user_id"] or "",
            "event": event,
            "created_at": at,
            "updated_at": at,
        }
        self.history.setdefault(memory.id, []).append(entry)

    def _queue(self, kind: str, payload: Json, results: list[Json], done_at: float) -> Event:
        now = self.now()
        event = Event(kind, now, done_at, payload, results, fails=self.events_fail and done_at > now)
        self.events[event.id] = event
        return event

    def _candidates(self, filters: Json) -> Iterable[Memory]:
        """Return what may fit, as an index finds it: the memories that are named, or those of one user."""
        required = {name: value for part in (filters, *filters.get("AND", ())) for name, value in part.items()}
        if isinstance(ids := required.get("memory_ids"), list):
            return [self.memories[id] for id in ids if id in self.memories]
        if isinstance(user_id := required.get("user_id"), str) and user_id != "*":
            return self._by_user.get(user_id, ())
        return self.memories.values()

    def _memory(self, id: str) -> Memory:
        memory = self.memories.get(_checked(id))
        now = self.now()
        if memory is None or not memory.is_listed(now):
            raise Refused(404, "Memory not found!")
        return memory

    def _scope(self, memory: Memory) -> tuple[str | None, ...]:
        return tuple(memory.entities.values())

    def _refuse_entities(self, asked: Json) -> None:
        if any(name in asked for name in ENTITIES):
            raise Refused(400, "entity ids belong into filters")


def _checked(id: str) -> str:
    try:
        return str(UUID(id))
    except ValueError:
        raise Refused(400, "memory_id should be a valid UUID") from None


def _entity(kind: str, id: str, first: Memory) -> Json:
    at = moment(first.versions[0].at)
    return {"id": id, "name": id, "created_at": at, "updated_at": at, "owner": "org", "metadata": None, "type": kind}
