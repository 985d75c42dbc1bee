"""The hosted platform, through mem0's own client.

A memory counts as indexed once a search shows its text, whoever wrote it: all else is read anew when it is found. A
queued deletion is over when its event is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from openproto.blocking.threads import Threads
from openproto.emulation import (
    NATIVE,
    Ranked,
    Recent,
    Stored,
    Traits,
    api_key_of,
    first_owners,
    is_uuid,
    look_until,
    reading,
    user_token,
)
from openproto.errors import ProviderError
from openproto.http_status import unexpected_response
from openproto.models import Cancellation
from openproto.requests import MemoryInput, SearchQuery
from openproto_adapters.mem0.errors import connecting_error, typed_errors
from openproto_adapters.mem0.quiet_import import import_mem0
from openproto_adapters.mem0.rows import KEY, Metadata, Row, entity, first_of, metadata_of, nothing_inferred, to_stored

T = TypeVar("T")

HOSTED = "https://api.mem0.ai"

_PAGE = 200
_REQUEST_TIMEOUT = 30.0

_LOOKED_FOR = 100
"""How many memories at most one search looks for."""

_MOST_AWAITED = 10_000
_INDEXED_WITHIN = 60.0
"""Seconds after which a memory that no search has shown is taken for indexed all the same."""


class Platform:
    """mem0's `MemoryClient`, whose calls end when they are cancelled."""

    cancellation: Cancellation = "aborting"
    traits = Traits(
        native=NATIVE | {"update", "async_ingestion"},
        async_ingestion=True,
        removes_all=True,
        lists_users=True,
        asks_of_each_user=True,
    )

    def __init__(self, api_key: str | None, base_url: str | None, *, infer: bool, width: int) -> None:
        self._api_key = api_key
        self._url = (base_url or HOSTED).rstrip("/")
        self._infer = infer
        self._threads = Threads(width, "openproto-mem0")
        self._client: Any = None
        self._index = _Index()
        self._looking = asyncio.Lock()

    @property
    def name(self) -> str:
        return user_token(f"{self._url} {self._api_key}")

    async def open(self) -> None:
        """Import mem0 and make its client, which asks the platform whether the key is good."""
        self._api_key = api_key_of("the mem0 platform", self._api_key, "MEM0_API_KEY")
        self._client = await self._threads(self._connect)

    async def close(self) -> None:
        self._threads.close()

    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Add the text as it is, or, with `infer`, what mem0's language model makes of it.

        The platform drops a text that the user has already, and answers that nothing was stored: such a text is sent
        again with a mark at its end, which no record shows.
        """
        stored = Stored.new(item, key, id="")
        ids = await self._add(item, metadata_of(stored))
        if not ids and self._infer:
            raise nothing_inferred()
        if not ids:
            mark = f"\n\n[repeated: {user_token(key)}]"
            ids = await self._add(item, metadata_of(stored, mark), mark)
        if not ids:
            raise ProviderError("mem0 has stored nothing, and does not say why; add it again")
        found = await self.find(ids[0]) if self._infer else None
        return self._index.written(found or stored.changed(id=ids[0]))

    async def find(self, id: str) -> Stored | None:
        if not is_uuid(id):
            return None
        from mem0.exceptions import MemoryNotFoundError

        def get() -> Any:
            try:
                return self._client.get(id)
            except MemoryNotFoundError:
                return None

        answer = await self._call(get)
        found = to_stored(answer) if answer is not None else None
        if found is not None and found.record.id != id:
            raise unexpected_response("mem0")  # the answer to another request
        return found

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        name = entity(user_id)
        # The platform takes metadata in a filter only like this.
        filters = {"AND": [{"user_id": name}, {"metadata": {KEY: user_token(key)}}]}
        return first_of(key, await self._all(name, filters))

    async def replace(self, old: Stored, new: Stored) -> Stored:
        id = new.record.id  # and the text unmarked: only adding drops repeats
        await self._call(self._client.update, id, text=new.record.content, metadata=metadata_of(new))
        if new.record.content != old.record.content:
            return self._index.written(new)
        return new.changed(status="indexing" if self._index.awaits(old) else "done")

    async def remove(self, stored: Stored) -> bool:
        from mem0.exceptions import MemoryNotFoundError

        def delete() -> bool:
            try:
                self._client.delete(stored.record.id)
            except MemoryNotFoundError:
                return False
            return True

        return await self._call(delete)

    async def remove_all(self, user_id: str) -> int:
        """Delete everything that the user has, and wait until it is done."""
        if count := len(await self.everything(user_id)):
            await self._event(await self._call(self._client.delete_all, user_id=entity(user_id)))
        return count

    async def everything(self, user_id: str) -> list[Stored]:
        name = entity(user_id)
        return await self._all(name, {"user_id": name})

    async def owners(self) -> Collection[str]:
        """Return whose memories there are, of each of the platform's users by a memory: a name may be a token."""
        names, answer = set[str](), await self._call(self._client.users)
        while True:
            names |= {str(entity["id"]) for entity in _results(answer) if entity.get("type") == "user"}
            if not answer.get("next"):
                return await first_owners(map(self._first, names))
            # Never to another server, whatever the link says: the key goes with the request.
            answer = await self._get(f"/v1/entities/?{urlsplit(str(answer['next'])).query}")

    async def _first(self, name: str) -> AsyncGenerator[Stored, None]:
        page = {"filters": {"user_id": name}, "show_expired": True, "page": 1, "page_size": 1}
        for row in _results(await self._call(self._client.get_all, **page)):
            if stored := to_stored(row, name):
                yield stored

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Search, and read what is found as it is now: the index may not know yet what another client has written."""
        name = entity(query.user_id)
        results = await self._search({"user_id": name}, query.query, count)
        shown = await self._read(name, results)
        ids = [one.record.id for one in shown]
        listed = await self._all(name, {"AND": [{"user_id": name}, {"memory_ids": ids}]}) if ids else []
        now = {one.record.id: one for one in listed}
        scores = [float(result.get("score") or 0.0) for result in results]
        hits = [
            (there if there.record.content == one.record.content else there.changed(status="indexing"), score)
            for one, score in zip(shown, scores, strict=True)
            if (there := now.get(one.record.id))
        ]
        return Ranked(hits, complete=len(results) < count)

    async def status(self, stored: Stored) -> str:
        """Return whether a search shows the memory's text: "done" or "indexing"."""
        record, name = stored.record, entity(stored.record.user_id)
        if not self._index.awaits(stored):
            return "done"
        async with self._looking:  # one at a time: one search shows many of those that are waited for
            if self._index.awaits(stored):
                ids = [record.id, *self._index.awaited(record.user_id)][:_LOOKED_FOR]
                filters = {"AND": [{"user_id": name}, {"memory_ids": ids}]}
                await self._read(name, await self._search(filters, record.content, len(ids)))
        return "indexing" if self._index.awaits(stored) else "done"

    async def health(self) -> None:
        """Ask the platform whether the key is still good, as its client does when it is made."""
        await self._get("/v1/ping/")

    @property
    def location(self) -> str:
        return self._url

    def _connect(self) -> Any:
        mem0 = import_mem0()
        Row.model_rebuild()  # here, where it does not hold up the loop
        http = self._threads.http_client(timeout=_REQUEST_TIMEOUT)
        try:
            return mem0.MemoryClient(api_key=self._api_key, host=self._url, client=http)
        except Exception as error:
            raise connecting_error(error) from error

    async def _add(self, item: MemoryInput, metadata: Metadata, mark: str = "") -> list[str]:
        messages = [{"role": "user", "content": item.content + mark}]
        options = {"user_id": entity(item.user_id), "metadata": metadata, "infer": self._infer}
        answer = await self._call(self._client.add, messages, **options)
        if isinstance(answer, dict) and answer.get("status") == "PENDING":
            answer = await self._event(answer)
        return [str(result["id"]) for result in _results(answer) if result.get("id")]

    async def _search(self, filters: Mapping[str, Any], query: str, count: int) -> list[dict[str, Any]]:
        options = {"filters": filters, "top_k": count, "threshold": 0.0, "show_expired": True}
        return _results(await self._call(self._client.search, query, **options))

    async def _read(self, name: str, results: list[dict[str, Any]]) -> list[Stored]:
        """Return the memories that a search shows, and note that it shows them."""
        shown = await self._threads(lambda: [to_stored(result, name) for result in results])
        stored = [one for one in shown if one]
        for one in stored:
            self._index.shows(one)
        return stored

    async def _all(self, name: str, filters: Mapping[str, Any]) -> list[Stored]:
        """Return everything that fits, page by page; from the beginning where something was deleted meanwhile."""
        while True:
            found: dict[str, Stored] = {}
            counts: list[int] = []
            answer: Any = {"next": True}
            while answer.get("next"):
                page = {"page": len(counts) + 1, "page_size": _PAGE}
                answer = await self._call(self._client.get_all, filters=filters, show_expired=True, **page)
                rows = _results(answer)
                stored = await self._threads(lambda rows: [to_stored(row, name) for row in rows], rows)
                found |= {one.record.id: one for one in stored if one}
                counts.append(int(answer.get("count") or 0))
            # A page begins where the one before it ended, so that a deletion moves memories past its edge.
            if counts == sorted(counts):
                return [*found.values()]

    async def _event(self, answer: Any) -> Any:
        """Wait until what an answer has queued has ended, and return the event."""
        if not isinstance(answer, dict) or "event_id" not in answer:
            raise ProviderError("mem0 queued a request and did not say under which event; look before adding it again")
        path = f"/v1/event/{answer['event_id']}/"
        ended = ("SUCCEEDED", "FAILED")
        event = await look_until(
            lambda event: event.get("status") in ended, lambda: self._get(path), await self._get(path)
        )
        if event["status"] == "FAILED":
            raise ProviderError("mem0 accepted the request and then failed to carry it out; try again")
        return event

    async def _get(self, path: str) -> dict[str, Any]:
        """Return the answer to a request for which mem0's client has no method."""

        from mem0.client.utils import api_error_handler

        def get() -> dict[str, Any]:
            return dict(self._client.client.get(path).raise_for_status().json())

        handled: Any = api_error_handler(get)
        return await self._call(handled)

    async def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def call() -> T:
            with typed_errors():
                return function(*args, **kwargs)

        return await self._threads(call)


class _Index:
    """Which memories have a new text, whoever wrote it, and whether a search has shown that."""

    def __init__(self) -> None:
        self._new: Recent[str, tuple[Stored, bool]] = Recent(_MOST_AWAITED, within=_INDEXED_WITHIN)

    def written(self, stored: Stored) -> Stored:
        """Note what was written, and return it as it is then."""
        self._new.put(stored.record.id, (stored, False))
        return stored.changed(status="indexing")

    def shows(self, stored: Stored) -> None:
        """Note that a search shows a memory with this text."""
        new = self._new.get(stored.record.id)
        if new and new[0].record.content == stored.record.content:
            self._new.put(stored.record.id, (stored, True))

    def awaits(self, stored: Stored) -> bool:
        """Return whether no search has shown this text yet, where it was written here, or is of late."""
        new = self._new.get(stored.record.id)
        if new and new[0].record.content == stored.record.content:
            return not new[1]
        since = stored.record.updated_at or stored.record.created_at  # by another client's clock
        if is_new := abs((datetime.now(UTC) - since).total_seconds()) < _INDEXED_WITHIN:
            self.written(stored)
        return is_new

    def awaited(self, user_id: str) -> list[str]:
        """Return which of the user's memories no search has shown yet, newest first: old ones may be gone."""
        return [id for id, (one, shown) in self._new.items()[::-1] if not shown and one.record.user_id == user_id]


def _results(answer: Any) -> list[dict[str, Any]]:
    with reading("mem0"):
        results: list[dict[str, Any]] = answer["results"]
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise TypeError("a list of objects was expected")
    return results
