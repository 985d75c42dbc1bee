"""What passes between the wire and the handlers: a request, an answer, and the two ways to refuse one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived; `params` (percent-decoded) and `json` are there once a route has been found for it."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = None

    @classmethod
    def arrived(cls, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Return the request for a target such as `/notes/1?limit=2`; names of headers are in lower case."""
        path, _, query = target.partition("?")
        return cls(method, path, parse_qs(query, keep_blank_values=True), headers, body)

    def first(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        return self.query.get(name, [default])[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body: sent as JSON, as it stands where it is bytes, and not at all where it is None."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Problem(NamedTuple):
    """Why the document forbids a request: in which part of it, where in that part, and what is wrong."""

    part: Literal["path", "query", "body"]
    where: tuple[str | int, ...]
    message: str


class Refused(Exception):
    """Raised by a handler to answer with the vendor's own error body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
