"""The errors that only HTTP has, and how every error of the protocol looks as a response.

The codes are the protocol's own, and so are the statuses of everything in `openproto.errors`; the classes here carry a
protocol code under the status that HTTP has for the case.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from pydantic import Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from openproto import ConflictError, InvalidRequestError, OpenProtoError
from openproto.fields import is_absent
from openproto.models import Result

PROBLEM = "application/problem+json"
_RETRY_SOON = 1


class MethodNotAllowedError(InvalidRequestError):
    """The route exists, but not for this method."""

    @property
    def http_status(self) -> int:
        """The status that HTTP has for it."""
        return 405


class PreconditionFailedError(ConflictError):
    """`If-Match` names a version of the record that is no longer the current one."""

    @property
    def http_status(self) -> int:
        """The status that HTTP has for it."""
        return 412


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body is not said to be JSON."""

    @property
    def http_status(self) -> int:
        """The status that HTTP has for it."""
        return 415


class RequestTimeoutError(InvalidRequestError):
    """The request did not arrive in time."""

    @property
    def http_status(self) -> int:
        """The status that HTTP has for it."""
        return 408


class HeadTooLargeError(InvalidRequestError):
    """The request line, headers, and trailers are too long together."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the path, headers, and trailers are larger than {max_bytes} bytes together; send less")

    @property
    def http_status(self) -> int:
        """The status that HTTP has for it."""
        return 431


class ErrorDetails(Result):
    """openproto's own part of an error: what a header would round or a batch has no header for."""

    retry_after: float


class ErrorBody(Result):
    """What went wrong."""

    code: str
    message: str
    type: str
    provider: str | None = Field(default=None, exclude_if=is_absent)
    request_id: str | None = Field(default=None, exclude_if=is_absent)
    x_openproto: ErrorDetails | None = Field(default=None, alias="x-openproto", exclude_if=is_absent)


class Envelope(Result):
    """The body of every error."""

    error: ErrorBody


class Problem(Result):
    """The body of an error for those who `Accept: application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    provider: str | None = Field(default=None, exclude_if=is_absent)
    request_id: str | None = Field(default=None, exclude_if=is_absent)
    x_openproto: ErrorDetails | None = Field(default=None, alias="x-openproto", exclude_if=is_absent)


def envelope(error: OpenProtoError) -> dict[str, Any]:
    """Return the wire form of an error; `x-openproto` keeps `retry_after` exactly."""
    found: dict[str, Any] = error.to_envelope()
    if error.retry_after is not None:
        found["error"]["x-openproto"] = {"retry_after": error.retry_after}
    return found


def error_response(error: OpenProtoError, request: Request) -> Response:
    """Return the response for an error, as a problem document where the client prefers one."""
    error.request_id = request.scope["openproto.request_id"]
    status, body, media_type = error.http_status, envelope(error), "application/json"
    if PROBLEM in request.headers.get("accept", ""):
        fault = body["error"]
        fault.update(title=HTTPStatus(status).phrase, status=status, detail=fault.pop("message"), type="about:blank")
        body, media_type = fault, PROBLEM
    return Response(to_json(body), status, _headers(error, status), media_type)


def _headers(error: OpenProtoError, status: int) -> dict[str, str] | None:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if error.retry_after is not None:
        return {"Retry-After": str(max(_RETRY_SOON, math.ceil(error.retry_after)))}
    return None
