"""The OpenAPI document: what FastAPI derives from the handlers, and what openproto's rules add to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from openproto import __version__
from openproto.models import OMP_VERSION
from openproto.server.http_errors import PROBLEM, Envelope, Problem

Responses: TypeAlias = dict[int | str, dict[str, Any]]

_ALWAYS = (400, 403, 408, 431, 500, 502, 503, 504)
_WITH_KEY = (401, 429)
_WORDS = {
    400: "The request breaks a rule of the protocol, or the backend cannot do this",
    401: "No API key, or an unknown one",
    403: "The key may not act for this user, or the request comes from a foreign web page",
    404: "No such memory, or not one of yours",
    408: "The request did not arrive in time",
    409: "Contradicts an earlier write, such as another memory under the same idempotency key",
    412: "The record is no longer the version that If-Match names",
    413: "The body is larger than 1 MiB",
    415: "The body is not JSON",
    429: "Too many requests; Retry-After says when to return",
    431: "The path and headers are too large",
    500: "A fault of the server",
    502: "The backend failed",
    503: "The backend cannot be reached or is shutting down",
    504: "The backend took too long",
}
_HEADERS = {
    "OMP-Version": {"schema": {"const": OMP_VERSION}},
    "X-Request-Id": {"schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}},
}
_ETAG = {"ETag": {"schema": {"type": "string"}, "description": "The version of the record, for If-Match"}}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds"}}
_USER = "Whose memories. May be left out where the key, or X-User-Id, leaves only one user"
_LABEL = {"type": "string", "pattern": "\\S", "maxLength": 256}
_TOLD: list[dict[str, Any]] = [
    {
        "name": "X-User-Id",
        "in": "header",
        "schema": _LABEL,
        "description": "Narrows the request to this user; never widens it",
    },
    {
        "name": "X-OMP-App",
        "in": "header",
        "schema": _LABEL,
        "description": "Names the calling program in audit entries",
    },
]


def answers(
    status: int, model: type[BaseModel] | None, *errors: int, etag: bool = False, open: bool = False
) -> Responses:
    """Return what a route answers: its success, its own errors, and those that every route can have.

    An `open` route needs no key.
    """
    success: dict[str, Any] = {"description": "Done", "headers": {**_HEADERS, **(_ETAG if etag else {})}}
    if model is not None:
        success["model"] = model
    found: Responses = {status: success}
    for code in sorted({*errors, *_ALWAYS, *(() if open else _WITH_KEY)}):
        retry = _RETRY_AFTER if code in (429, 503) else {}
        found[code] = {"description": _WORDS[code], "headers": {**_HEADERS, **retry}, "content": _error_content()}
    return found


def describe(routes: Sequence[BaseRoute], *, with_keys: bool) -> dict[str, Any]:
    """Return the document of the routes; keys are part of it only where the server asks for them."""
    found = get_openapi(
        title="openproto",
        version=__version__,
        summary=f"Open Memory Protocol {OMP_VERSION}",
        routes=routes,
    )
    schemas: dict[str, Any] = found["components"]["schemas"]
    for leftover in ("HTTPValidationError", "ValidationError"):
        schemas.pop(leftover, None)
    schemas.update(_schemas(Envelope, Problem))
    for model in ("NewMemory", "SearchBody", "ContextBody"):
        schemas[model]["required"].remove("user_id")
        schemas[model]["properties"]["user_id"]["description"] = _USER
    if with_keys:
        found["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    for path in found["paths"].values():
        for operation in path.values():
            # FastAPI declares its own answer to bad input; this server says 400 with the envelope.
            operation["responses"].pop("422", None)
            if "429" not in operation["responses"]:
                continue
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "user_id":
                    parameter |= {"required": False, "description": _USER}
            operation["parameters"] = [*operation.get("parameters", ()), *_TOLD]
            if with_keys:
                operation["security"] = [{"bearer": []}, {"header": []}]
            else:
                del operation["responses"]["401"]
    return found


def _error_content() -> dict[str, Any]:
    return {
        "application/json": {"schema": {"$ref": "#/components/schemas/Envelope"}},
        PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}},
    }


def _schemas(*models: type[BaseModel]) -> dict[str, Any]:
    wanted = [(model, "serialization") for model in models]
    _, schema = models_json_schema(wanted, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    definitions: dict[str, Any] = schema["$defs"]
    return definitions
