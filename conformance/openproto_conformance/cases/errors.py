"""Errors: the right class and code, before anything is done, and nothing given away."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from openproto import (
    ConflictError,
    InvalidRequestError,
    MemorySource,
    NotFoundError,
    OpenProtoError,
    ProviderError,
    UnauthorizedError,
)
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.cases.every_verb import check_secrets, log_lines
from openproto_conformance.checks import Violation, ensure, equal, raises
from openproto_conformance.spy import spy_on

area = Area("errors")

MARKER = "xyzzy-plugh-4711"
"""Stands for private content: it may show in no message and no log line."""

NAIVE = datetime(2024, 1, 1)
AWARE = NAIVE.replace(tzinfo=UTC)
TOO_EARLY = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
NUL, SURROGATE, LOW = "a\0b", "a\ud800b", f"{MARKER}\udfff"
DEEP: Any = json.loads("[" * 101 + "1" + "]" * 101)
BAD_USERS = ("", " ", "u" * 257, NUL, SURROGATE, 5, None)
STARS = ("a*", "*/a", "a/*/b", "a/**", "**", "a/b*", f"*{MARKER}", "a/*/", "a//*")
EMPTY_SEGMENTS = ("/", "/a", "a//b", "a//", "//", "/*", "a/ /b", "/a/", f"{MARKER}//x")
BAD_SCOPES = ("", " ", "s" * 513, "s" * 513 + "/*", NUL, LOW, 5, b"a", ["a"], True, *STARS, *EMPTY_SEGMENTS)
BAD_MOMENTS = (NAIVE, "2024-01-01T00:00:00", MARKER, 0, TOO_EARLY, NAIVE.date(), AWARE.timestamp())
BAD_TAGS = (["t"] * 65, ["t" * 129], [""], [5], MARKER, [f"{MARKER}\0"], ["fine", LOW], {MARKER}, [None], [MARKER * 10])

INVALID: dict[str, tuple[dict[str, tuple[Any, ...]], dict[str, Any]]] = {
    "add": (
        {
            "content": ("", " \t\r\n\u3000", "c" * 100_001, f"{MARKER}\0", LOW, 5, MARKER.encode(), [MARKER], None),
            "user_id": BAD_USERS,
            "scope": (*BAD_SCOPES, "*", "a/*", "a/", " / "),
            "tags": (*BAD_TAGS, [" "], {MARKER: 1}),
            "source": (
                *(
                    MARKER,
                    {"unknown": "x"},
                    {"type": MARKER},
                    {"app": 5},
                    {"app": NUL},
                    {"app": ""},
                    {"app": "a" * 257},
                ),
                *({"ref": NUL}, {"app": LOW}, MemorySource.model_validate({"app": "a", "unknown": "x"})),
            ),
            "confidence": (-0.001, 1.001, float("nan"), float("inf"), MARKER, True),
            "valid_from": BAD_MOMENTS,
            "valid_to": BAD_MOMENTS,
            "supersedes": ("text", [""], [5], [NUL], [["i"]], [{}], ["i" * 513], [SURROGATE]),
            "idempotency_key": ("", " ", 5, NUL, "k" * 257, MARKER * 50, LOW),
            "x-note": (
                NUL,
                {"a": SURROGATE},
                {NUL: 1},
                float("nan"),
                object(),
                {"a": f"{MARKER}\0"},
                [MARKER, object()],
                *({1, 2}, b"bytes", AWARE, {1: "a"}, {b"bytes": "a"}, {None: 1}, {MARKER: object()}, [float("-inf")]),
                *(DEEP, 10**5000, [{"deep": [LOW]}], {SURROGATE: 1}),
            ),
        },
        {"content": MARKER, "user_id": "u"},
    ),
    "get": ({"id": ("", " ", 5, NUL, SURROGATE, "i" * 513, None), "user_id": BAD_USERS[:-1]}, {"id": "i"}),
    "delete": ({"id": ("", " ", 5, NUL, SURROGATE, "i" * 513, None), "user_id": BAD_USERS[:-1]}, {"id": "i"}),
    "update": (
        {
            "id": ("", " ", 5, NUL, None),
            "user_id": BAD_USERS[:-1],
            "content": (None, "", " ", "c" * 100_001, NUL, SURROGATE, 5),
            "scope": (*BAD_SCOPES, "*", "a/*", "a/", " / "),
            "tags": BAD_TAGS,
            "confidence": (-0.001, 1.001, float("nan"), "0.5", True),
            "valid_to": BAD_MOMENTS,
            "supersedes": ("text", [""], [5], ["i"]),
        },
        {"id": "i"},
    ),
    "list": (
        {
            "user_id": BAD_USERS,
            "scope": BAD_SCOPES,
            "tag": ("", " ", "t" * 129, NUL, LOW, 5, ["t"] * 65),
            "since": BAD_MOMENTS,
            "until": BAD_MOMENTS,
            "as_of": BAD_MOMENTS,
            "limit": (0, -1, 501, 1.5, 5.0, "5", True, None),
            "cursor": ("", " ", 5, "c" * 257, MARKER * 50, NUL, LOW),
        },
        {"user_id": "u"},
    ),
    "search": (
        {
            "query": ("", " ", "q" * 100_001, NUL, SURROGATE, 5, None),
            "user_id": BAD_USERS,
            "scope": BAD_SCOPES,
            "tag": ("", " ", "t" * 129, NUL, LOW, 5, ["t"] * 65),
            "as_of": BAD_MOMENTS,
            "limit": (0, -1, 101, 1.5, "5", True, None),
            "min_score": (-0.001, 1.001, float("nan"), "0.5"),
        },
        {"query": MARKER, "user_id": "u"},
    ),
    "context": (
        {
            "query": ("", " ", NUL, LOW, 5),
            "user_id": BAD_USERS,
            "scope": BAD_SCOPES,
            "tag": ("", NUL, 5),
            "as_of": BAD_MOMENTS,
            "token_budget": (0, -1, 1.5, "5"),
        },
        {"query": MARKER, "user_id": "u"},
    ),
    "audit": (
        {
            "user_id": BAD_USERS,
            "app": ("", " ", NUL, LOW, 5),
            "memory_id": ("", " ", NUL, LOW, 5),
            "since": BAD_MOMENTS,
            "limit": (0, -1, 1001, 1.5, "5", True),
        },
        {"user_id": "u"},
    ),
    "delete_all": ({"user_id": BAD_USERS, "scope": BAD_SCOPES, "tag": ("", " ", NUL, LOW, 5)}, {"user_id": "u"}),
}
"""For each call: bad values of each argument, and good arguments beside them."""


@area.case(hint="where validation happens: before the provider is opened or called")
async def invalid_arguments_reach_no_provider(bench: Bench) -> None:
    """Every broken limit and wrong type is invalid_request before any I/O, and the message never repeats the value."""
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = bench.build(provider)
    for verb, (arguments, good) in INVALID.items():
        if ("delete" if verb == "delete_all" else verb) not in bench.capabilities.verbs:
            continue
        for name, values in arguments.items():
            for value in values:
                try:
                    error = await raises(InvalidRequestError, getattr(client, verb), **{**good, name: value})
                except Violation as violation:
                    raise Violation(f"{verb}({name}={value!r:.40}): {violation}") from violation
                _check_error(error, "invalid_request", "invalid", 400)
                ensure(MARKER not in str(error), f"the message of {verb} with a bad {name} repeats the content")
                ensure(name in str(error), f"the message of {verb} with a bad {name} does not name it: {error}")
    equal(calls, [], "what reached the provider")


@area.case("add", "list", "update", hint="a write that is refused: nothing of it may be stored, and nothing changed")
async def a_refused_write_writes_nothing(bench: Bench) -> None:
    """After a write was refused, for any reason, the user's records are what they were."""
    user = bench.user()
    record = await bench.add("tea", user_id=user, idempotency_key="key-1", valid_from=AWARE)
    attempts: list[tuple[type[OpenProtoError], str, dict[str, Any]]] = [
        (InvalidRequestError, "add", {"content": "new", "user_id": user, "valid_from": AWARE, "valid_to": AWARE}),
        (InvalidRequestError, "add", {"content": "new", "user_id": user, "scope": "a*"}),
        (ConflictError, "add", {"content": "new", "user_id": user, "idempotency_key": "key-1"}),
        (InvalidRequestError, "update", {"id": record.id, "content": "new", "valid_to": AWARE}),
        (InvalidRequestError, "update", {"id": record.id, "content": "new", "confidence": 2.0}),
        (NotFoundError, "update", {"id": "no-such-id", "content": "new"}),
    ]
    if bench.capabilities.features.supports_supersession:
        bad = {"content": "new", "user_id": user, "supersedes": [record.id, "no-such-id"]}
        attempts.append((NotFoundError, "add", bad))
    for kind, verb, arguments in attempts:
        await raises(kind, getattr(bench.client, verb), **arguments)
        equal(await bench.inventory(user), [record], f"the records after {verb} was refused with {kind.__name__}")
    if "search" in bench.capabilities.verbs:
        equal(await bench.found("new", user, min_score=0.9), [], "what a search for the refused words finds")


@area.case(hint="a keyword that a verb does not have: TypeError, as from any function")
async def a_misspelt_keyword_is_a_type_error(bench: Bench) -> None:
    """A keyword that a verb does not have is a TypeError, before the provider is called."""
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = bench.build(provider)
    user = bench.user()
    attempts: dict[str, dict[str, Any]] = {
        "add": {"content": "tea", "user_id": user, "tagz": ["x"]},
        "get": {"id": "i", "user": user},
        "update": {"id": "i", "contents": "x"},
        "delete": {"id": "i", "force": True},
        "list": {"user_id": user, "scopes": "a"},
        "search": {"query": "tea", "user_id": user, "top_k": 3},
        "context": {"query": "tea", "user_id": user, "budget": 3},
        "audit": {"user_id": user, "actor": "x"},
        "delete_all": {"user_id": user, "tags": ["x"]},
    }
    for verb, arguments in attempts.items():
        await raises(TypeError, getattr(client, verb), **arguments)
    await raises(TypeError, client.update, "i", created_at=None)
    equal(calls, [], "what reached the provider")


@area.case("add", "get", hint="errors raised by the provider: typed, with its name and the request's id")
async def an_error_says_what_and_where(bench: Bench) -> None:
    """An error carries its code, type, status, provider, and request id, and an envelope with all of them."""
    user = bench.user()
    await bench.add("tea", user_id=user, idempotency_key="key-1")
    unknown = await raises(NotFoundError, bench.client.get, "no-such-id")
    conflict = await raises(ConflictError, bench.client.add, "milk", user_id=user, idempotency_key="key-1")
    _check_error(unknown, "not_found", "not_found", 404)
    _check_error(conflict, "conflict", "invalid", 409)
    for error in (unknown, conflict):
        equal(error.provider, bench.capabilities.provider, "the error's provider")
        ensure(error.request_id, "the error has no request id")
        body = error.to_envelope()["error"]
        wanted = {
            "code": error.code, "message": str(error), "type": error.type,
            "provider": error.provider, "request_id": error.request_id,
        }  # fmt: skip
        equal(body, wanted, "the envelope")
    ensure(unknown.request_id != conflict.request_id, "two calls have one request id")


@area.case(hint="opening: the vendor's errors mapped by class, in words of our own, without the options' values")
async def an_unreachable_backend_is_told_in_words(bench: Bench) -> None:
    """A backend that cannot be reached is a typed error within bounded time, and no secret is told."""
    make = await bench.unreachable()
    if make is None:
        for secret in (repr(bench.client), repr(bench.backend.provider())):
            check_secrets(bench, secret)
        return
    provider = make()
    with log_lines() as lines:
        client = bench.build(provider, timeout=10.0, retries=0)
        error = await raises(OpenProtoError, client.capabilities)
    ensure(isinstance(error, ProviderError | UnauthorizedError), f"{type(error).__name__} does not say unreachable")
    for text in (str(error), repr(error), repr(error.to_envelope()), repr(client), repr(provider), *lines):
        check_secrets(bench, text)
    health = await bench.build(make(), timeout=10.0).health()
    equal(health.status, "unavailable", "the health of a backend that cannot be reached")
    check_secrets(bench, repr(health))


def _check_error(error: OpenProtoError, code: str, type: str, status: int) -> None:
    equal((error.code, error.type, error.http_status), (code, type, status), "code, type, and status")
    ensure(not error.retryable, f"{code} must not be retryable")
