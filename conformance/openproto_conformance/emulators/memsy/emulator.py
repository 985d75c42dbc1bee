"""The routes of the data plane and the console; onboarding and the control plane are not there.

Memsy publishes no OpenAPI document: shapes are those that its SDK reads and its documentation describes.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal
from uuid import UUID

from openproto_conformance.emulators.emulator import Emulator
from openproto_conformance.emulators.memsy.store import Event, Json, Memory, item, moment, result
from openproto_conformance.emulators.messages import Answer, Refused, Request
from openproto_conformance.emulators.routes import route
from openproto_conformance.emulators.similarity import similarity

KINDS = ("user_message", "assistant_message", "tool_result", "app_event")
SEARCHABLE = re.compile(r"[A-Za-z0-9_\-:.@/]{1,256}")
DEDUP_WINDOW = 60.0
MAX_CONTENT, MAX_METADATA, MAX_ID, MAX_STATUS_IDS = 7999, 4096, 256, 500
FREE_SCALE = 0.1
STRENGTH_STEP, MAX_STRENGTH = 0.1, 5.0

_SORTS: dict[str, Callable[[Memory], Any]] = {
    "observed_at_desc": lambda memory: memory.event.ts,
    "observed_at_asc": lambda memory: memory.event.ts,
    "created_at_desc": lambda memory: memory.event.ends_at,
    "strength_desc": lambda memory: memory.strength,
    "confidence_desc": lambda memory: 0.0,
}


class Memsy(Emulator):
    """Memsy; `plan` decides the scale of the scores."""

    name: ClassVar[str] = "memsy"
    beside_a_file: ClassVar[bool] = True
    add_path: ClassVar[str] = "/v1/ingest"

    def __init__(self, *, plan: Literal["free", "pro"] = "pro", **options: Any) -> None:
        super().__init__(**options)
        self.plan = plan
        self.events: dict[str, Event] = {}
        self.memories: dict[str, Memory] = {}
        self.extract: Callable[[str], Sequence[str]] = lambda text: [text]
        """Assumed: what a language model makes of a text is the text. Tests put others here, and `[]`."""
        self.failing: set[str] = set()
        """Texts whose processing fails."""
        self._latest: dict[tuple[str, str, str, str], Event] = {}
        self._of_actor: defaultdict[str, list[Memory]] = defaultdict(list)
        self._used: Counter[str] = Counter()

    def provider_options(self) -> dict[str, Any]:
        """Return the options that point the openproto provider at it."""
        return {"base_url": f"{self.url}/v1", "api_key": self.api_key}

    def error(self, status: int, message: str) -> Answer:
        """Return an error in the envelope that the SDK unwraps. Assumed: validation errors have it, too."""
        return Answer(status, {"detail": {"error": f"error_{status}", "message": message}})

    def headers(self) -> Mapping[str, str]:
        """Return what is used and what is left, which every response says."""
        return {
            **super().headers(),
            "x-plan": self.plan,
            "x-usage-eventsingested": str(self._used["events"]),
            "x-usage-searchqueries": str(self._used["searches"]),
            "x-ratelimit-limit": "1000",
            "x-ratelimit-remaining": "999",
        }

    @route("GET", "/v1/health", public=True)
    def health(self, request: Request) -> Answer:
        """Say that all is well, to anybody."""
        return Answer(200, {"status": "ok", "version": "emulated", "components": {}})

    @route("POST", "/v1/ingest")
    def ingest(self, request: Request) -> Answer:
        """Take events; one that was taken less than a minute ago is that one. Assumed: all of a batch, or none."""
        events = _fields(request).get("events")
        if not isinstance(events, list) or not events:
            raise Refused(422, "events: a list of events is required")
        for number, event in enumerate(events):
            if problem := _problem(event):
                raise Refused(422, f"events.{number}.{problem}")
        self._used["events"] += len(events)
        return Answer(200, {"event_ids": [self._take(event).id for event in events]})

    @route("POST", "/v1/status")
    def status(self, request: Request) -> Answer:
        """Sort ids by how far their events are. Assumed: an id that is unknown is in none of the lists."""
        ids = _fields(request).get("event_ids")
        if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_STATUS_IDS:
            raise Refused(422, f"event_ids: 1 to {MAX_STATUS_IDS} ids are required")
        now = self.now()
        statuses = {id: self.events[id].status(now) for id in ids if id in self.events}
        lists = {
            f"{name}Ids": [id for id, status in statuses.items() if status == name]
            for name in ("completed", "failed", "pending")
        }
        return Answer(200, {**lists, "total": len(ids), "statuses": statuses})

    @route("POST", "/v1/search")
    def search(self, request: Request) -> Answer:
        """Return the best memories, and strengthen them. Assumed: scores are `similarity`, smaller on the free plan."""
        asked, now = _fields(request), self.now()
        if not asked.get("query") or not 1 <= asked.get("limit", 10) <= 100:
            raise Refused(422, "query: is required; limit: 1 to 100")
        for name in ("actor_id", "session_id", "exclude_session_id"):
            if asked.get(name) and not (isinstance(asked[name], str) and SEARCHABLE.fullmatch(asked[name])):
                raise Refused(422, f"{name}: only letters, digits, and _-:.@/ can be searched")
        session, excluded = asked.get("session_id"), asked.get("exclude_session_id")
        if session and excluded:
            raise Refused(422, "session_id and exclude_session_id are mutually exclusive")
        self._used["searches"] += 1
        scale = FREE_SCALE if self.plan == "free" else 1.0
        hits = [
            (scale * similarity(asked["query"], memory.text), memory)
            for memory in self._formed(now, asked.get("actor_id"))
            if (not session or memory.event.session == session) and memory.event.session != excluded
        ]
        good = [hit for hit in hits if hit[0] >= asked.get("threshold", 0.0)]
        best = sorted(good, key=lambda hit: -hit[0])[: asked.get("limit", 10)]
        for _, memory in best:
            memory.strength = min(MAX_STRENGTH, memory.strength + STRENGTH_STEP)
            memory.recall_count += 1
            memory.last_recalled_at = now
        events = bool(asked.get("include_source_events"))
        results = [result(memory, score, _read(memory.event.metadata), events=events) for score, memory in best]
        return Answer(200, {"results": results})

    @route("GET", "/v1/console/memories")
    def list_memories(self, request: Request) -> Answer:
        """Return a page. Assumed: all memories are active, and an unknown sort is refused."""
        limit, offset = _number(request, "limit", 50), _number(request, "offset", 0)
        sort = request.first("sort", "observed_at_desc")
        if not 1 <= limit <= 200 or offset < 0 or sort not in _SORTS:
            raise Refused(422, "limit: 1 to 200; offset: 0 or more; sort: one of those in the documentation")
        found = [
            memory
            for memory in self._formed(self.now(), request.first("actor_id") or None)
            if request.first("search").lower() in memory.text.lower()
        ]
        if request.first("status", "active") != "active":
            found = []
        found.sort(key=lambda memory: (_SORTS[sort](memory), memory.id), reverse=sort.endswith("desc"))
        page = [item(memory) for memory in found[offset : offset + limit]]
        return Answer(200, {"items": page, "total": len(found), "limit": limit, "offset": offset})

    @route("GET", "/v1/console/memories/stats")
    def stats(self, request: Request) -> Answer:
        """Return how many memories there are."""
        count = len(self._formed(self.now(), None))
        counts = {"total": count, "total_memories": count, "active_memories": count}
        by = {"by_type": {"fact": count}, "by_kind": {"semantic": count}, "by_status": {"active": count}}
        return Answer(200, {**counts, **by, "avg_confidence": 0.9, "avg_strength": 1.0, "top_entities": []})

    @route("GET", "/v1/console/memories/{memory_id}")
    def get_memory(self, request: Request) -> Answer:
        """Return a memory of whatever actor."""
        try:
            id = str(UUID(request.params["memory_id"]))
        except ValueError:
            raise Refused(422, "memory_id: a UUID is required") from None
        found = self.memories.get(id)
        if found is None or found.event.status(self.now()) != "completed":
            raise Refused(404, "Memory not found")
        return Answer(200, item(found))

    @route("GET", "/v1/actors")
    def list_actors(self, request: Request) -> Answer:
        """Return a page of the actors that have memories."""
        limit, offset = _number(request, "limit", 100), _number(request, "offset", 0)
        actors = self._actors(request.first("q").lower())
        page = actors[offset : offset + limit]
        beside = {"total": len(actors), "limit": limit, "offset": offset, "truncated": False}
        return Answer(200, {"items": page, **beside})

    @route("GET", "/v1/actors/{actor_id}")
    def get_actor(self, request: Request) -> Answer:
        """Return an actor that has memories."""
        for actor in self._actors(""):
            if actor["actor_id"] == request.params["actor_id"]:
                return Answer(200, actor)
        raise Refused(404, "Actor not found")

    def _take(self, given: Json) -> Event:
        now = self.now()
        same = (given["actor_id"], given["session_id"], given["kind"], given["content"])
        before = self._latest.get(same)
        if before is not None and now - before.ingested_at < DEDUP_WINDOW:
            return before
        fails = given["content"] in self.failing
        ts = given.get("ts") or moment(now)
        event = Event(*same, given.get("metadata"), ts, now, now + self.lag, fails)
        self.events[event.id] = self._latest[same] = event
        for text in () if fails else self.extract(event.content):
            memory = Memory(text, event)
            self.memories[memory.id] = memory
            self._of_actor[event.actor].append(memory)
        return event

    def _formed(self, now: float, actor: str | None) -> list[Memory]:
        """Return what there is by now: of one actor, or of the whole organization."""
        memories = self.memories.values() if actor is None else self._of_actor.get(actor, ())
        return [memory for memory in memories if now >= memory.event.ends_at]

    def _actors(self, part: str) -> list[Json]:
        counts = Counter(memory.event.actor for memory in self._formed(self.now(), None))
        return [
            {"actor_id": actor, "memory_count": count, "active_memory_count": count, "scope_levels": ["actor"]}
            for actor, count in counts.items()
            if part in actor.lower()
        ]


def _fields(request: Request) -> Json:
    if not isinstance(request.json, dict):
        raise Refused(422, "body: a JSON object is required")
    return request.json


def _problem(event: Any) -> str | None:
    """Return why an event is refused; ids may hold any character, though no search takes them then."""
    if not isinstance(event, dict):
        return "a JSON object is required"
    for name in ("actor_id", "session_id"):
        if not isinstance(event.get(name), str) or not 1 <= len(event[name]) <= MAX_ID:
            return f"{name}: 1 to {MAX_ID} characters are required"
    if event.get("kind") not in KINDS:
        return f"kind: one of {', '.join(KINDS)} is required"
    if not isinstance(event.get("content"), str) or not 1 <= len(event["content"]) <= MAX_CONTENT:
        return f"content: 1 to {MAX_CONTENT} characters are required"
    metadata = event.get("metadata")
    if metadata is not None and not (isinstance(metadata, str) and len(metadata) <= MAX_METADATA):
        return f"metadata: a string of at most {MAX_METADATA} characters is required"
    return None


def _read(metadata: str | None) -> Json | None:
    """Return the metadata of an event where it is a JSON object."""
    try:
        value = json.loads(metadata or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _number(request: Request, name: str, default: int) -> int:
    try:
        return int(request.first(name, str(default)))
    except ValueError:
        raise Refused(422, f"{name}: a number is required") from None
