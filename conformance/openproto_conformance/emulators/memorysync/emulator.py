"""The v1 plane: tenant and user stand in the path or the body, and ids are `m_<n>`."""

from __future__ import annotations

from typing import Any, ClassVar

from openproto_conformance.emulators.memorysync.headers import HeaderPlane, is_worthwhile
from openproto_conformance.emulators.memorysync.store import Json, Memory
from openproto_conformance.emulators.messages import Answer, Refused, Request
from openproto_conformance.emulators.relevance import relevance
from openproto_conformance.emulators.routes import route


class MemorySync(HeaderPlane):
    """MemorySync with both of its planes, over the same memories."""

    tenant: ClassVar[str] = "org_1"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lists_metadata = True
        """Whether listings carry metadata and tags. Assumed: the vendor's mock server shows ids and texts alone."""
        self.lists_projects = True
        """Whether the key may list projects; the keys for evaluation may not."""
        self._turns: set[tuple[str, ...]] = set()

    def provider_options(self) -> dict[str, Any]:
        """Return the options that point the openproto provider at it."""
        return {"base_url": self.url, "api_key": self.api_key}

    @route("GET", "/org/projects")
    def projects(self, request: Request) -> Answer:
        """Return the projects, each of which names the tenant."""
        if not self.lists_projects:
            raise Refused(403, "Insufficient scope. Missing: projects:read")
        return Answer(200, [{"id": "proj_1", "tenant_id": self.tenant, "name": "Default"}])

    @route("GET", "/v1/memory/{tenant}/{user}/list")
    def list_memories(self, request: Request) -> Answer:
        """Return a page, newest first; without a limit, everything."""
        found = self._mine(request.params["tenant"], request.params["user"])
        start, limit = int(request.first("offset", "0")), int(request.first("limit", "0"))
        page = found[start : start + limit] if limit else found[start:]
        return Answer(200, {"memories": [self._row(memory) for memory in page]})

    @route("POST", "/v1/memory/query")
    def query_v1(self, request: Request) -> Answer:
        """Return the nearest memories of a user."""
        if (over := self.metered({"memories": []})) is not None:
            return over
        return Answer(200, {"memories": self._nearest(request.json)})

    @route("POST", "/v1/memory/recall")
    def recall(self, request: Request) -> Answer:
        """Return a block of the nearest memories."""
        if (over := self.metered({"memories": []})) is not None:
            return over
        lines = [f"- {row['raw_text']}" for row in self._nearest(request.json)]
        return Answer(200, {"context": "\n".join(lines), "memories": [], "used_fallback": False})

    @route("GET", "/v1/memory/status/{id}")
    def status(self, request: Request) -> Answer:
        """Return how far a memory is processed. Assumed: in what words."""
        memory = self.memories.get(int(request.params["id"]))
        if memory is None or memory.deleted:
            raise Refused(404, "Memory not found")
        state = "completed" if memory.embedded else "pending"
        return Answer(200, {"memory_id": f"m_{memory.id}", "processing_status": state})

    @route("POST", "/v1/memory/add_turn")
    def add_turn(self, request: Request) -> Answer:
        """Extract facts from a user's turn; other turns, filler, and replays store nothing."""
        asked = request.json
        if not (asked.get("text") or "").strip():
            raise Refused(422, "'text' must be a non-empty string")
        if self.quota == "silent":
            return Answer(201, _acknowledged("skipped"))
        if (over := self.metered({})) is not None:
            return over
        if asked.get("role", "user") != "user":
            return Answer(201, _acknowledged("skipped_non_user_turn"))
        if not is_worthwhile(asked["text"]):
            return Answer(201, _acknowledged("skipped_low_value"))
        turn = tuple(str(asked.get(name)) for name in ("tenant_id", "user_id", "speaker", "occurred_at", "text"))
        if turn in self._turns:
            return Answer(201, {**_acknowledged("skipped_replay"), "already_exists": True})
        self._turns.add(turn)
        # Assumed: extraction is over at once; only scalars of the metadata are kept, as the vendor's mock server does.
        scalars = {name: one for name, one in (asked.get("metadata") or {}).items() if not isinstance(one, dict | list)}
        self.take({"text": asked["text"], "source": asked.get("source"), "metadata": scalars}, asked["user_id"])
        return Answer(201, {**_acknowledged("distilling"), "status": "processing", "request_id": "req_1"})

    def _mine(self, tenant: str, user: str) -> list[Memory]:
        # Assumed: another tenant's name finds nothing, and a v1 user is the end user of the headers.
        return self.of(user) if tenant == self.tenant else []

    def _nearest(self, asked: Json) -> list[Json]:
        found = [one for one in self._mine(asked["tenant_id"], asked["user_id"]) if one.embedded]
        scored = sorted(((relevance(asked["prompt"], one.text), one) for one in found), key=lambda hit: -hit[0])
        return [{**self._row(memory), "score": score} for score, memory in scored[: asked.get("k", 8)]]

    def _row(self, memory: Memory) -> Json:
        row: Json = {"memory_id": f"m_{memory.id}", "raw_text": memory.text}
        return {**row, "metadata": memory.metadata, "tags": memory.tags} if self.lists_metadata else row


def _acknowledged(processing_status: str) -> Json:
    return {
        "memory_id": None,
        "status": "ok",
        "processing_status": processing_status,
        "embed_mode": "none",
        "already_exists": False,
        "request_id": None,
    }
