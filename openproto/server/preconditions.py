"""`ETag`, `If-Match`, and `If-None-Match` as versions of a record: an ETag is the record's `version`, quoted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from openproto import ConflictError, InvalidRequestError, MemoryRecord
from openproto.server.http_errors import PreconditionFailedError

_ETAG = re.compile(r'"([!#-~]{1,64})"')
_ABSENT = "absent"


def etag_of(record: MemoryRecord) -> dict[str, str]:
    """Return the header for a record; none where it has no version, or one that a header cannot hold."""
    etag = f'"{record.version}"'
    return {"ETag": etag} if record.version is not None and _ETAG.fullmatch(etag) else {}


def wanted_version(if_match: str | None) -> str | None:
    """Return the version that the record must have, or None where any will do."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None or found[1] == _ABSENT:
        raise InvalidRequestError('If-Match must be one ETag as a response had it, in its quotes: "..."')
    return found[1]


def put_condition(if_match: str | None, if_none_match: str | None) -> str | None:
    """Return the version that `put` must find, "absent" where there must be no record, or None where any will do."""
    if if_none_match is None:
        if if_match is not None and if_match.strip() == "*":
            raise InvalidRequestError("If-Match must name a version here: PATCH changes whichever there is")
        return wanted_version(if_match)
    if if_match is not None:
        raise InvalidRequestError("If-Match and If-None-Match exclude each other")
    if if_none_match.strip() != "*":
        raise InvalidRequestError("If-None-Match must be *, which demands that there is no such memory")
    return _ABSENT


@contextmanager
def precondition(version: str | None) -> Iterator[None]:
    """Make a conflict a 412 in the block, where the request named a version."""
    try:
        yield
    except ConflictError as error:
        if version is None:
            raise
        raise PreconditionFailedError(error.message, provider=error.provider) from error
