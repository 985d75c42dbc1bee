"""From a request's bytes to a valid model: the JSON body, never more of it than allowed, and the query string."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from openproto import InvalidRequestError, PayloadTooLargeError
from openproto.requests import Request as Model
from openproto.requests import build
from openproto.server.access import ONLY_USER, header
from openproto.server.disconnect import LATE_BODY, ClientGoneError
from openproto.server.http_errors import RequestTimeoutError, UnsupportedMediaTypeError

M = TypeVar("M", bound=Model)

_REPEATABLE = "tag"

MAX_BODY = 2**20
"""Bytes of a request's body; counted while it arrives."""


async def read_model(request: Request, model: type[M]) -> M:
    """Return the body as `model`; InvalidRequestError names what is wrong with it."""
    media_type = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    if not (
        media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
    ):
        raise UnsupportedMediaTypeError("the body must be JSON, sent with Content-Type: application/json")
    return build(model, **_with_user(request, model, read_object(await _read(request))))


def read_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that `data` spells."""
    try:
        found = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return found


def read_query(request: Request, model: type[M]) -> M:
    """Return the query string as `model`; an unknown parameter is refused, and one given twice, unless it may be."""
    query: bytes = request.scope["query_string"]
    if not query:
        return build(model, **_with_user(request, model, {}))
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise InvalidRequestError("the query string must be percent-encoded UTF-8") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name == _REPEATABLE:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise InvalidRequestError("the query string names a parameter twice")
        else:
            found[name] = value
    return build(model, **_with_user(request, model, found))


def _with_user(request: Request, model: type[Model], found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found with the user that the caller's key makes plain, where the model has one."""
    if "user_id" in model.model_fields and (user_id := request.scope.get(ONLY_USER)) is not None:
        found.setdefault("user_id", user_id)
    return found


async def _read(request: Request) -> bytes:
    try:
        if int(header(request, b"content-length") or 0) > MAX_BODY:
            raise _too_large()
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                raise _too_large()
    except ClientDisconnect:
        raise ClientGoneError from None
    if LATE_BODY in request.scope:
        raise RequestTimeoutError("the body did not arrive in time; send less at a time, or over a faster connection")
    return bytes(data)


def _too_large() -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the body is larger than {MAX_BODY} bytes; send less at a time")
