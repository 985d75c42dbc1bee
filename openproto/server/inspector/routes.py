"""The inspector (`--ui`) and `/docs`: files of this package, under a policy that lets a page load nothing else.

The pages speak the protocol's HTTP. One route exists for them alone: `/ui/status`, which returns what a key may do, and
how busy the server is. None is in the OpenAPI document, which describes the protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Path
from pydantic_core import to_json
from starlette.responses import Response

from openproto import NotFoundError
from openproto.server.route import ProtocolRoute
from openproto.server.routes import IfNoneMatch, Keys, Memory, Reader

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the browser keeps a file, and asks each time whether it is still the same
}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_OF_DOCS = ("base.css", "docs.css", "docs.js", "dom.js", "icon.svg")

_inspector = APIRouter(route_class=ProtocolRoute, include_in_schema=False)
_docs = APIRouter(route_class=ProtocolRoute, include_in_schema=False)

Name = Annotated[str, Path()]


class _File(NamedTuple):
    body: bytes
    etag: str
    media_type: str


def _file(body: bytes, suffix: str) -> _File:
    return _File(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', _TYPES[suffix])


def _read() -> dict[str, _File]:
    found: dict[str, _File] = {}
    for entry in files("openproto.server.inspector").joinpath("page").iterdir():
        suffix = PurePosixPath(entry.name).suffix
        if suffix in _TYPES:
            found[entry.name] = _file(entry.read_bytes(), suffix)
    # A page that asks for a key at once needs no refused request to learn that one is needed.
    asking = found["inspector.html"].body.replace(b'data-login="no"', b'data-login="yes"', 1)
    return {**found, "login.html": _file(asking, ".html")}


_files = _read()


@_inspector.get("/")
async def _go_to_inspector() -> Response:
    return Response(status_code=307, headers={**_HEADERS, "Location": "ui"})


@_inspector.get("/ui")
async def _show_inspector(keys: Keys, if_none_match: IfNoneMatch = None) -> Response:
    return _respond("login.html" if keys.required else "inspector.html", if_none_match)


@_inspector.get("/ui/status")
async def _show_status(caller: Reader, memory: Memory) -> Response:
    """Return what the caller's key may do; and to keys of all users, how busy this process is."""
    users = None if caller.users is None else sorted(caller.users)
    status: dict[str, Any] = {"key": {"users": users, "read_only": caller.read_only}}
    if users is None:
        status["figures"] = asdict(memory.stats())
    headers = {**_HEADERS, "Cache-Control": "no-store"}
    return Response(to_json(status), headers=headers, media_type="application/json")


@_inspector.get("/ui/{name}")
async def _show_part(name: Name, if_none_match: IfNoneMatch = None) -> Response:
    return _respond(name, if_none_match)


@_docs.get("/docs")
async def _show_docs(if_none_match: IfNoneMatch = None) -> Response:
    return _respond("docs.html", if_none_match)


@_docs.get("/docs/{name}")
async def _show_part_of_docs(name: Name, if_none_match: IfNoneMatch = None) -> Response:
    return _respond(name if name in _OF_DOCS else "", if_none_match)


def _respond(name: str, if_none_match: str | None) -> Response:
    if name not in _files:
        raise NotFoundError("the page has no such file; open the page again")
    body, etag, media_type = _files[name]
    headers = {**_HEADERS, "ETag": etag}
    if if_none_match == etag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def _routes(router: APIRouter) -> Sequence[ProtocolRoute]:
    return [route for route in router.routes if isinstance(route, ProtocolRoute)]


INSPECTOR, DOCS = _routes(_inspector), _routes(_docs)
