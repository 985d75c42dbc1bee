"""The calls that a mirror's task makes itself: bounded in time, and recorded under its own name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from openproto.errors import ProviderTimeoutError
from openproto.models import MemoryRecord, Verb
from openproto.provider import Call, Provider, current_call, new_request_id
from openproto.requests import MAX_LIST_LIMIT, ListQuery

T = TypeVar("T")

APP = "openproto-mirror"
"""What audit entries name as the app."""

CALL_SECONDS = 30.0


async def bounded(verb: Verb, call: Awaitable[T]) -> T:
    """Return what a call of either side returns; ProviderTimeoutError where that takes too long."""
    # Never fresh: an earlier attempt may have been carried out.
    current_call.set(Call(verb, new_request_id(), APP, is_retry=True))
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await call
    except TimeoutError as error:
        if isinstance(error, ProviderTimeoutError):
            raise
        raise ProviderTimeoutError(
            f"a call for the mirror did not finish within {CALL_SECONDS:g} s, and will be repeated; look at the load"
        ) from error


async def pages(provider: Provider, user_id: str) -> AsyncIterator[MemoryRecord]:
    """Yield all of the user's records."""
    query = ListQuery(user_id=user_id, limit=MAX_LIST_LIMIT)
    more = True
    while more:
        page = await bounded("list", provider.list(query))
        for record in page.items:
            yield record
        query = query.model_copy(update={"cursor": page.next_cursor})
        more = page.next_cursor is not None
