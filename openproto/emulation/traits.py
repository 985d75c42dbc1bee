"""What a vendor can do, stated once by its adapter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from openproto.models import Support
from openproto.requests import MAX_CONTENT_LENGTH

NATIVE = frozenset({"add", "get", "delete", "search", "list", "capabilities", "vector_search"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The features and the bounds of a vendor."""

    native: frozenset[str] = NATIVE
    """The verbs and features that the vendor itself has; the others are emulated."""

    keyword_search: bool = False
    vector_search: bool = True
    async_ingestion: bool = False
    supersession: bool = True
    max_content_length: int = MAX_CONTENT_LENGTH

    replaces_at_once: bool = True
    """Whether `replace` is a single request, which a cancellation cannot split."""

    scans_newest_first: bool = False
    """Whether `scan` yields by `created_at` descending, so that a page needs no more than its own part of it."""

    most_ranked: int = 1000
    """The most hits that `rank` can be asked for."""

    restores: bool = True
    """Whether a memory can be written as it was: its text word for word, and found again by its idempotency key."""

    oldest: datetime | None = None
    """The earliest moment at which a restored memory may have been made; None where any will do."""

    most_of_one_moment: int = 0
    """How many of a user's memories that were made in one moment the vendor can list; 0 where that is no limit."""

    lists_users: bool = False
    """Whether `owners` returns whose memories there are."""

    asks_of_each_user: bool = False
    """Whether that takes a request for each user: then nothing is looked for among the memories of all users."""

    keys_outlive: Support = "none"
    """Whether an idempotency key is still known when its memory was deleted, and an old request brings nothing back."""

    processing_seconds: float = 0.0
    """How long a write waits at most until the vendor has processed the memory; 0 returns at once."""

    removes_all: bool = False
    """Whether the vendor can remove everything of a user, by `remove_all`."""

    most_removed: int = 1
    """How many memories `remove_many` can remove in one request; 1 where there is no such request."""

    most_created: int = 1
    """How many memories `create_many` can write in one request; 1 where there is no such request."""

    mixes_users: bool = False
    """Whether one such request may hold memories of several users."""

    most_writes: int = 8
    """How many writes of one batch are under way at once."""

    finish_seconds: float = 0.3
    """How long a write of several requests may go on after its caller was cancelled (PROTOCOL 4.4: 500 ms)."""
