"""From a path to the method that handles it, as real routers do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from openproto_conformance.emulators.messages import Answer, Request

Handler = TypeVar("Handler", bound=Callable[[Any, Request], Answer])

_ROUTES = "__openproto_routes__"
_HERE, _ABOVE = (".", "%2e"), ("..", ".%2e", "%2e.", "%2e%2e")


class Route(NamedTuple):
    """A method and a path with `{parameters}`, and the name of the handler."""

    method: str
    path: str
    public: bool
    undocumented: str
    handler: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """Return the parameters where the path fits; an empty segment fits no parameter."""
        parts = self.path.split("/")
        if len(parts) != len(segments):
            return None
        params: dict[str, str] = {}
        for part, segment in zip(parts, segments, strict=True):
            if part.startswith("{") and segment:
                params[part[1:-1]] = segment
            elif part != segment:
                return None
        return params


def route(method: str, path: str, *, public: bool = False, undocumented: str = "") -> Callable[[Handler], Handler]:
    """Let the decorated method of an `Emulator` handle `method path`; the path is spelled as in the document.

    `public` routes need no credentials; `undocumented` says why the document does not have this one.
    """

    def mark(handler: Handler) -> Handler:
        marks = handler.__dict__.setdefault(_ROUTES, [])
        marks.append(Route(method, path, public, undocumented, handler.__name__))
        return handler

    return mark


def routes_of(cls: type) -> list[Route]:
    """Return the routes of an emulator class, literal paths first; a handler that is overridden keeps its routes."""
    found = [mark for name in dir(cls) for mark in _marks(cls, name)]
    return sorted(found, key=lambda route: [part.startswith("{") for part in route.path.split("/")])


def _marks(cls: type, name: str) -> list[Route]:
    handlers = (vars(base).get(name) for base in cls.__mro__)
    return next((getattr(handler, _ROUTES) for handler in handlers if hasattr(handler, _ROUTES)), [])


def segments_of(path: str) -> list[str]:
    """Return the segments of a path as it arrived: dot segments resolved, then each percent-decoded.

    The URL Standard takes `%2e%2e` for `..` too, and so do the edge servers in front of hosted services.
    """
    kept: list[str] = []
    segments = path.split("/")
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        if segment.lower() in _ABOVE:
            if len(kept) > 1:
                kept.pop()
            if is_last:
                kept.append("")
        elif segment.lower() not in _HERE:
            kept.append(unquote(segment))
        elif is_last:
            kept.append("")
    return kept


def find(routes: Iterable[Route], method: str, path: str) -> tuple[Route | None, dict[str, str], bool]:
    """Return the route for a request, its parameters, and whether any method is known at that path."""
    segments = segments_of(path)
    known = False
    for candidate in routes:
        params = candidate.match(segments)
        if params is not None:
            if candidate.method == method:
                return candidate, params, True
            known = True
    return None, {}, known
