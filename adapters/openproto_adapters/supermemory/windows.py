"""From pages by number, which move under concurrent writes, to windows of time, which do not.

Each window is one request, newest window first, cut by the memories' own `created_at`: Supermemory's clock may differ.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeAlias

from openproto_adapters.supermemory.api import PAGE, Document
from openproto_adapters.supermemory.documents import created_of

_MARGIN = PAGE // 8
"""How many memories fewer than a page a window is made for, since the clocks differ and writes go on."""

Fetch: TypeAlias = Callable[[int | None, int | None, int, str], Awaitable[Sequence[Document]]]
"""`fetch(start, end, page, order)` returns a page of the documents between two microseconds, both included."""


async def newest_first(fetch: Fetch, end: int | None) -> AsyncGenerator[Sequence[Document], None]:
    """Yield all documents up to `end`, those of each window in no particular order."""
    while True:
        start = None
        window = await fetch(None, end, 1, "desc")
        while len(window) >= PAGE:
            earliest = sorted(map(created_of, window))[_MARGIN]
            if earliest == start:
                window = await _by_pages(fetch, start, end)
                break
            start = earliest
            window = await fetch(start, end, 1, "desc")
        yield window
        if start is None:
            return
        end = start - 1


async def _by_pages(fetch: Fetch, start: int | None, end: int | None) -> Sequence[Document]:
    """Return more than a page of one microsecond, oldest first: what is added meanwhile comes last, and moves none."""
    found: dict[str, Document] = {}
    number = 1
    while True:
        page = await fetch(start, end, number, "asc")
        found |= {document.id: document for document in page}
        if len(page) < PAGE:
            return [*found.values()]
        number += 1
