"""The two vendors that publish no document: what their SDKs, documentation, and mock servers show that they answer."""

from __future__ import annotations

from typing import Any

from player import Ask, Step

TEA, CAT = "Ann likes green tea", "Ann has a black cat"
V1 = {"tenant_id": "org_1", "user_id": "ann"}
BOB = {"x-end-user-id": "bob"}
ITEMS = [{"text": f"{CAT}; Ann has a dog", "tags": ["a"]}, {"text": "short"}, {"text": TEA}]
CREATED, REJECTED = {"status": "created", "memory_ids": [2, 3]}, {"status": "rejected"}


def skipped(reason: str) -> Any:
    return {"status": "skipped", "reason": reason}


MEMORYSYNC: tuple[Step, ...] = (
    Ask("POST /memory/query", {"query": "tea"}, status=401, headers={"x-api-key": "wrong"}),
    Ask("POST /memory/add", {"text": TEA}, {"detail": "MISSING_END_USER_ID"}, 400, {"x-end-user-id": ""}),
    Ask("GET /org/projects", None, [{"tenant_id": "org_1"}]),
    # A memory is its end user's alone.
    Ask("POST /memory/add", {"text": TEA, "tags": ["a"], "client_ref": "r1"}, {"id": 1, "tags": ["a"]}, 201),
    Ask("PATCH /memory/1", {"tags": ["a", "b"], "metadata": {"n": 1}}, {"text": TEA, "metadata": {"n": 1}}),
    Ask("GET /memory/1", None, {"id": 1, "text": TEA}),
    *(Ask(f"{route}", status=404, headers=BOB) for route in ("GET /memory/1", "GET /memory/1/history")),
    Ask("DELETE /memory/forget", {"memory_ids": [1]}, status=404, headers=BOB),
    Ask("POST /memory/batch-update", {"items": [{"memory_id": 1, "tags": []}]}, {"not_found": 1}, 207, BOB),
    Ask("GET /memory/export", None, {"memories": []}, headers=BOB),
    Ask("GET /memory/1/history", None, {"revisions": [{"event": "created"}, {"changed_fields": ["tags", "metadata"]}]}),
    # Filler, repeats, and references that are known.
    Ask("POST /memory/add", {"text": "ok thanks!"}, skipped("no_high_value_content")),
    Ask("POST /memory/add", {"text": "  tea is  "}, status=422),
    Ask("POST /memory/add", {"text": CAT, "client_ref": "r1"}, {**skipped("already_ingested"), "memory_ids": [1]}),
    {"facts": lambda text: text.split("; ")},
    Ask("POST /memory/bulk-add", {"items": ITEMS}, {"results": [CREATED, REJECTED, skipped("duplicate")]}, 207),
    # A search wants one of the tags, and forgetting wants all.
    Ask("POST /memory/query", {"query": "who likes tea", "k": 1}, {"memories": [{"id": 1}]}),
    Ask("POST /memory/retrieve", {"query": "tea", "filters": {"tags": ["b", "x"]}}, {"memories": [{"id": 1}]}),
    Ask("DELETE /memory/forget", {"filters": {"tags": ["a", "b"]}, "dry_run": True}, [1]),
    # The v1 plane sees the same memories; a key for evaluation sees less of them, and no project.
    Ask("GET /v1/memory/org_1/ann/list?limit=1&offset=2", None, {"memories": [{"memory_id": "m_1"}]}),
    Ask("GET /v1/memory/x/%2e%2e/org_1/ann/list?limit=1", None, {"memories": [{"memory_id": "m_3"}]}),
    Ask("POST /v1/memory/query", {**V1, "prompt": "tea", "k": 1}, {"memories": [{"memory_id": "m_1"}]}),
    Ask("POST /v1/memory/recall", {**V1, "prompt": "tea", "k": 1}, {"context": f"- {TEA}"}),
    {"lists_metadata": False, "lists_projects": False},
    Ask("GET /v1/memory/org_1/ann/list?limit=1", None, {"memories": [{"memory_id": "m_3", "metadata": None}]}),
    Ask("GET /org/projects", status=403),
    # Turns of the user are extracted once.
    Ask("POST /v1/memory/add_turn", {**V1, "text": "I have a fox", "metadata": {"a": 1, "b": {}}}, status=201),
    *(
        Ask("POST /v1/memory/add_turn", {**V1, **turn}, {"processing_status": status}, 201)
        for turn, status in (
            ({"text": "I have a fox"}, "skipped_replay"),
            ({"text": "ok"}, "skipped_low_value"),
            ({"text": "Noted, a fox.", "role": "assistant"}, "skipped_non_user_turn"),
        )
    ),
    # What is stored while embedding is down is there and not found.
    {"embedding_down": True},
    Ask("POST /memory/add", {"text": "Ann owns a zeppelin"}, {"id": 5}, 201),
    Ask("POST /memory/query", {"query": "zeppelin", "k": 1}, {"memories": [{"id": "$nearest"}]}),
    Ask("GET /v1/memory/status/5", None, {"processing_status": "pending"}),
    # Over the plan all seems well, or is refused.
    {"quota": "silent"},
    Ask("POST /memory/add", {"text": CAT}, {"status": "ok", "id": None}),
    Ask("POST /memory/bulk-add", {"items": [{"text": CAT}]}, {"results": None}),
    Ask("POST /v1/memory/add_turn", {**V1, "text": "I have a cow"}, {"processing_status": "skipped"}, 201),
    {"quota": "strict"},
    Ask("POST /memory/add", {"text": CAT}, {"detail": {"error": "limit_exceeded"}}, 429),
    {"quota": ""},
    Ask("DELETE /memory/forget", {"memory_ids": [1]}, [1]),
    Ask("DELETE /memory/forget", {"filters": {"before": "9999-12-31T00:00:00+00:00"}}, [5, 4, 3, 2]),
    # Purging a user erases the account, and with it everybody's memories.
    Ask("POST /memory/add", {"text": TEA}, {"id": 6}, 201),
    Ask("DELETE /memory/user/purge", headers=BOB),
    Ask("GET /memory/export", None, {"memories": []}),
)

SOURCE = {"session_id": "s", "source_event_ids": ["$tea"]}
SOURCES = {"source_metadata": [{"metadata": {"n": 1}}], "source_events": [{"event_id": "$tea"}]}
INGEST, FOUND, CONSOLE = "POST /v1/ingest", "POST /v1/search", "GET /v1/console/memories"


def said(content: Any, actor: Any = "ann", session: str = "s", **fields: Any) -> dict[str, Any]:
    return {"actor_id": actor, "session_id": session, "kind": "user_message", "content": content, **fields}


def contents(*texts: str) -> Any:
    return {"results": [{"content": text} for text in texts]}


MEMSY: tuple[Step, ...] = (
    Ask("GET /v1/health", None, {"status": "ok"}, headers={"authorization": "none"}),
    Ask(FOUND, {"query": "tea"}, {"detail": {"error": "error_401"}}, 401, {"authorization": "none"}),
    # An event is pending, and then completed and a memory, or failed.
    {"lag": 1.0, "failing": {"bad"}},
    Ask(INGEST, {"events": [said("Ann likes tea", metadata='{"n": 1}'), said("bad")]}, {"event_ids": ["$tea", "$bad"]}),
    Ask("POST /v1/status", {"event_ids": ["$tea", "$bad", "x"]}, {"pendingIds": ["$tea", "$bad"], "total": 3}),
    1.0,
    Ask("POST /v1/status", {"event_ids": ["$tea", "$bad"]}, {"completedIds": ["$tea"], "failedIds": ["$bad"]}),
    Ask(FOUND, {"query": "Ann likes tea"}, {"results": [{"id": "$memory", "score": 1.0, "metadata": SOURCE}]}),
    Ask(FOUND, {"query": "tea", "include_source_events": True}, {"results": [{"metadata": SOURCES}]}),
    Ask(f"{CONSOLE}/$memory", None, {"text": "Ann likes tea", "recall_count": 2, "scope": {"actor_id": "ann"}}),
    Ask(f"{CONSOLE}/00000000-0000-4000-8000-000000000000", status=404),
    Ask(f"{CONSOLE}/stats", None, {"total_memories": 1}),
    Ask("GET /v1/actors", None, {"total": 1}),
    Ask("GET /v1/actors/ann", None, {"memory_count": 1}),
    # The plan decides the scores.
    {"plan": "free"},
    Ask(FOUND, {"query": "Ann likes tea", "threshold": 0.05}, contents("Ann likes tea")),
    Ask(FOUND, {"query": "Ann likes tea", "threshold": 0.5}, contents()),
    {"plan": "pro"},
    # The same event within a minute is the one before.
    Ask(INGEST, {"events": [said("Ann likes tea")]}, {"event_ids": ["$tea"]}),
    Ask(INGEST, {"events": [said("tea", session="later")]}, {"event_ids": ["$later"]}),
    61.0,
    Ask(INGEST, {"events": [said("tea", session="later")]}, {"event_ids": ["$anew"]}),
    Ask(INGEST, {"events": [said("tea of bob", actor="bob"), said("tea of eve smith", actor="eve smith")]}),
    1.0,
    # A search is of one actor and session, or of everybody; not every id that was stored can be searched.
    Ask(FOUND, {"query": "tea", "session_id": "later"}, contents("tea", "tea")),
    *(Ask(FOUND, {"query": "tea", **options}, status=422) for options in ({"actor_id": "eve smith"}, {"limit": 101})),
    Ask(f"{CONSOLE}?actor_id=ann&limit=1&offset=2", None, {"total": 3, "items": [{"text": "Ann likes tea"}]}),
    Ask(f"{CONSOLE}?search=BOB&sort=observed_at_asc", None, {"items": [{"text": "tea of bob"}]}),
    # A wrong event is refused, and with it the batch.
    *(
        Ask(INGEST, {"events": [said("fine", session="never"), wrong]}, status=422)
        for wrong in (
            said(""),
            said("c" * 8000),
            said("x", actor=""),
            said("x", metadata={"not": "a string"}),
            said("x", kind="new"),
        )
    ),
    1.0,
    Ask(FOUND, {"query": "fine", "session_id": "never"}, contents()),
)
