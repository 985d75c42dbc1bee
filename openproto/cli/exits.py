"""How a command can end: the one table of exit statuses, and what to do about each error code."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    UNAVAILABLE = 5
    REFUSED = 6
    MISSING = 7
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "the backend failed, a check failed, or a part was not done",
    Exit.USAGE: "wrong usage, or a request that breaks a rule of the protocol",
    Exit.NOT_FOUND: "no such memory",
    Exit.DENIED: "the backend refuses these credentials, or what they ask for",
    Exit.UNAVAILABLE: "the backend cannot be reached, is too busy, or took too long",
    Exit.REFUSED: "contradicts what is stored, or the provider cannot do it",
    Exit.MISSING: "a package is not installed; the message holds the pip line",
    Exit.INTERRUPTED: "interrupted",
}

_BY_CODE: dict[str, tuple[Exit, str]] = {
    "unauthorized": (
        Exit.DENIED,
        "look at the credentials in OPENPROTO_URL or OPENPROTO_API_KEY (or --url, --option)",
    ),
    "scope_denied": (Exit.DENIED, "these credentials may not do this; use others, or ask the backend's owner"),
    "not_found": (Exit.NOT_FOUND, "`openproto list --user USER` shows the ids there are; other users' never show"),
    "invalid_request": (Exit.USAGE, "nothing was written; correct the value and run it again"),
    "unsupported_capability": (Exit.REFUSED, "`openproto capabilities` shows what this provider can do"),
    "conflict": (Exit.REFUSED, "nothing was written; an earlier write says otherwise"),
    "payload_too_large": (Exit.USAGE, "nothing was written; send less at a time"),
    "rate_limited": (Exit.UNAVAILABLE, "wait a little and run it again"),
    "provider_error": (Exit.FAILED, "`openproto doctor` checks the backend step by step"),
    "provider_unavailable": (Exit.UNAVAILABLE, "is the backend running? `openproto doctor` checks it step by step"),
    "provider_timeout": (Exit.UNAVAILABLE, "run it again, or allow more seconds with --timeout"),
    "ingestion_timeout": (Exit.UNAVAILABLE, "it is stored, and will be found once the backend has indexed it"),
    "internal_error": (Exit.FAILED, "the fault is the server's own; its log knows more under the request id"),
}


def exit_of(code: str) -> Exit:
    """Return the exit status for a protocol error code; one that is not known is a failure of the backend."""
    return _advice(code)[0]


def hint_of(code: str) -> str:
    """Say what to do about an error code."""
    return _advice(code)[1]


def _advice(code: str) -> tuple[Exit, str]:
    return _BY_CODE.get(code, _BY_CODE["provider_error"])
