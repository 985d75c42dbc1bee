"""An invented vendor, Notes, and its OpenAPI document: what the framework's own tests are made with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from openproto_conformance.emulators import Answer, Emulator, Problem, Refused, Request, route

from openproto import MemoryRecord, Provider
from openproto.requests import MemoryInput

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 20}}
_JSON = "application/json"


def document(version: str = "3.1.0") -> dict[str, Any]:
    """Return the document; the text of a note may be null, which the two versions say each in its way."""
    text = {"type": ["string", "null"]} if version == "3.1.0" else {"type": "string", "nullable": True}
    note = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "text": text},
        "required": ["id", "text"],
        "additionalProperties": False,
    }
    new = {"type": "object", "properties": {"text": text, "stars": {"type": "integer"}}, "required": ["text"]}
    limit: dict[str, Any] = {"type": "integer", "maximum": 5, "exclusiveMinimum": 0}
    if version != "3.1.0":
        limit = {"type": "integer", "maximum": 5, "minimum": 0, "exclusiveMinimum": True}
    one = {
        "200": _answer({"$ref": "#/components/schemas/Note"}),
        "404": _answer({"$ref": "#/components/schemas/Error"}),
    }
    return {
        "openapi": version,
        "components": {
            "schemas": {
                "Note": note,
                "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
            },
            "parameters": {"Limit": {"name": "limit", "in": "query", "schema": limit}},
        },
        "paths": {
            "/notes": {
                "post": {
                    "requestBody": {"required": True, "content": {_JSON: {"schema": new}}},
                    "responses": {"201": _answer({"$ref": "#/components/schemas/Note"})},
                },
                "get": {
                    "parameters": [
                        {"$ref": "#/components/parameters/Limit"},
                        {"name": "starred", "in": "query", "schema": {"type": "boolean"}},
                        {"name": "ids", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    ],
                    "responses": {"200": _answer({"type": "array", "items": {"$ref": "#/components/schemas/Note"}})},
                },
            },
            "/notes/latest": {"get": {"responses": one}},
            "/notes/{id}": {
                "parameters": [_ID],
                "get": {"responses": one},
                "delete": {"responses": {"204": {"description": "gone"}, "404": one["404"]}},
            },
        },
    }


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "", "content": {_JSON: {"schema": schema}}}


class Notes(Emulator):
    """Keeps notes."""

    name = "notes"
    add_path = "/notes"
    document_file = "notes-openapi.json"
    document_from = "invented"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.notes: dict[str, Any] = {}
        self.wrong: Any = None

    def provider_options(self) -> dict[str, Any]:
        return {"url": self.url, "api_key": self.api_key}

    def invalid(self, request: Request, problems: Sequence[Problem]) -> Answer | None:
        if all(problem.where == ("stars",) for problem in problems):
            return None  # the vendor takes any stars
        return super().invalid(request, problems)

    @route("POST", "/notes")
    def create(self, request: Request) -> Answer:
        note = {"id": str(len(self.notes) + 1), "text": request.json["text"]}
        self.notes[note["id"]] = note
        return Answer(201, note)

    @route("GET", "/notes")
    def list(self, request: Request) -> Answer:
        return Answer(200, [*self.notes.values()][: int(request.first("limit", "5"))])

    @route("GET", "/notes/latest")
    def latest(self, request: Request) -> Answer:
        return Answer(200, self.wrong or [*self.notes.values()][-1])

    @route("GET", "/notes/{id}")
    def get(self, request: Request) -> Answer:
        if request.params["id"] not in self.notes:
            raise Refused(404, f"no note {request.params['id']}")
        return Answer(200, self.notes[request.params["id"]])

    @route("DELETE", "/notes/{id}")
    def delete(self, request: Request) -> Answer:
        if self.notes.pop(request.params["id"], None) is None:
            raise Refused(404, "no such note")
        return Answer(204)

    @route("GET", "/health", public=True, undocumented="every service has one")
    def health(self, request: Request) -> Answer:
        return Answer(200, {"ok": True})


class NotesProvider(Provider):
    """An openproto provider for Notes that can add, and nothing else."""

    name = "notes"

    def __init__(self, url: str, api_key: str) -> None:
        self._url, self._api_key = url, api_key

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        headers = {"authorization": f"Bearer {self._api_key}"}
        async with httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=False, verify=False) as client:
            note = (await client.post("/notes", json={"text": item.content})).json()
        return MemoryRecord(id=note["id"], content=note["text"], user_id=item.user_id, created_at=datetime.now(UTC))
