"""From pages by number, which move under concurrent writes, to windows of time, which do not.

Each window is one request that answers everything in it, newest window first; it is cut by the memories' own
`created_at`, for Supermemory's clock orders them a little otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Protocol

from openproto_adapters.supermemory.api import PAGE, Document
from openproto_adapters.supermemory.documents import created_of

_MARGIN = PAGE // 8
"""How many memories fewer than a page a window is made for, since the clocks differ and writes go on."""


class Fetch(Protocol):
    """Answers a page of the documents between two microseconds, both included; None is without a bound."""

    def __call__(
        self, start: int | None, end: int | None, page: int = 1, order: str = "desc"
    ) -> Awaitable[Sequence[Document]]:
        """Return `PAGE` documents, or fewer where there are no more."""
        ...


async def newest_first(fetch: Fetch, end: int | None) -> AsyncGenerator[Sequence[Document], None]:
    """Yield all documents up to `end`, those of each window in no particular order."""
    while True:
        start = None
        window = await fetch(None, end)
        while len(window) >= PAGE:
            earliest = sorted(map(created_of, window))[_MARGIN]
            if earliest == start:
                window = await _by_pages(fetch, start, end)
                break
            start = earliest
            window = await fetch(start, end)
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
