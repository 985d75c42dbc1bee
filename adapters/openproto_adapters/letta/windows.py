"""From a search that answers the oldest passages first to a listing that begins with the newest."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias

from openproto.stores.moments import EPOCH, MICROSECOND
from openproto_adapters.letta.api import PAGE, Hit

FIRST = EPOCH
"""Nothing older is a memory: there are the idempotency keys."""

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Hit]]]
"""`fetch(start=, end=, limit=PAGE)` returns the oldest passages between two moments: `limit`, or all where fewer."""


async def newest_first(fetch: Fetch, until: datetime | None) -> AsyncGenerator[Sequence[Hit], None]:
    """Yield all passages up to `until` in windows of time, newest window first, each newest first.

    Passages of one moment are always in one window; of more than a page of them, only a page can be had.
    """
    start, end = FIRST, until
    page = await fetch(start=start, end=end)
    begin = page[0].passage.created_at if page else FIRST
    while True:
        if len(page) == PAGE and start != end:
            start, end = await _tail(fetch, page, end)
        else:
            yield page[::-1]
            if end is None or start <= begin:
                return
            # Too wide a window costs a few requests, too narrow ones in a gap of years cost many.
            width = (end - start + MICROSECOND) * (1 if len(page) > PAGE / 2 else 4 if page else 64)
            end = start - MICROSECOND
            start = end - min(width, end - begin)
        page = await fetch(start=start, end=end)


async def _tail(fetch: Fetch, page: Sequence[Hit], end: datetime | None) -> tuple[datetime, datetime]:
    """Return a window at the end of the passages up to `end`, in steps that double; `page` holds the oldest of them."""
    newest = page[-1].passage.created_at
    step = newest - page[0].passage.created_at + MICROSECOND
    while end is None or newest + step <= end:
        found = await fetch(start=newest + step, end=end, limit=1)
        if not found:
            return newest, newest + step - MICROSECOND
        newest, step = found[0].passage.created_at, step * 2
    return newest, end
