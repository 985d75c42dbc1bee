"""An invented vendor, Notes, and its OpenAPI document: what the framework's own tests are made with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openproto_conformance.emulators import Answer, Emulator, Problem, Refused, Request, route

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 20}}
_NOTE = {"$ref": "#/components/schemas/Note"}


def document(version: str = "3.1.0") -> dict[str, Any]:
    """Return the document; the text of a note may be null, which the two versions say each in its way."""
    new_style = version == "3.1.0"
    text = {"type": ["string", "null"]} if new_style else {"type": "string", "nullable": True}
    note = {"type": "object", "properties": {"id": {"type": "string"}, "text": text}, "required": ["id", "text"]}
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    new = {"type": "object", "properties": {"text": text, "stars": {"type": "integer"}}, "required": ["text"]}
    least = {"exclusiveMinimum": 0} if new_style else {"minimum": 0, "exclusiveMinimum": True}
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 5, **least}}
    one = {"200": _answer(_NOTE), "404": _answer({"$ref": "#/components/schemas/Error"})}
    listing = [
        {"$ref": "#/components/parameters/Limit"},
        {"name": "starred", "in": "query", "schema": {"type": "boolean"}},
        {"name": "ids", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
    ]
    body = {"required": True, "content": {"application/json": {"schema": new}}}
    schemas = {"Note": {**note, "additionalProperties": False}, "Error": error}
    return {
        "openapi": version,
        "components": {"schemas": schemas, "parameters": {"Limit": limit}},
        "paths": {
            "/notes": {
                "post": {"requestBody": body, "responses": {"201": _answer(_NOTE)}},
                "get": {"parameters": listing, "responses": {"200": _answer({"type": "array", "items": _NOTE})}},
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
    return {"description": "", "content": {"application/json": {"schema": schema}}}


class Notes(Emulator):
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
