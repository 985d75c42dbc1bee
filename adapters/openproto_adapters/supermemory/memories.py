"""The memories of one account: what is written, shown, found, and deleted, also while Supermemory is not up to date.

Supermemory answers a write before it has carried it out, so for some seconds what this process wrote takes precedence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from openproto.emulation import OwnedId, Ranked, Recent, Stored, user_token
from openproto.errors import ProviderError, ProviderUnavailableError
from openproto.models import Status
from openproto.provider import Outcomes
from openproto.requests import SearchQuery
from openproto_adapters.supermemory import documents
from openproto_adapters.supermemory.api import PAGE, Api, Document, Hit, Metadata
from openproto_adapters.supermemory.ids import DocumentId, graves_of, namespace_of
from openproto_adapters.supermemory.windows import newest_first

T = TypeVar("T")
Ids: TypeAlias = Sequence[DocumentId]

LOOK_AGAIN = 0.1
"""Seconds between two looks at what is not there yet."""

_GRAVE = "The memory of an idempotency key was deleted: a late repetition must not bring it back."

State: TypeAlias = Stored | Literal["deleted", "erased"]

_recent: Recent[tuple[str, str], State] = Recent(1000, within=10.0)
"""The last state of each memory that this process has written, by account and id: "erased" is deleted with its key.

A document is at times not found right after it was added, and one that was deleted may still be found. Shared by all
clients of the process, so that none of them knows less than another.
"""


class Memories:
    """The memories that `api` reaches; `name` is what two clients of one account share."""

    def __init__(self, name: str, api: Api) -> None:
        self.name = name
        self._api = api

    async def write(self, stored: Stored) -> Stored:
        """Write a new memory and return it with its status."""
        accepted = await self._api.add(
            DocumentId.of(stored.record.id).namespace, partial(documents.new_document, stored)
        )
        return self._noted(stored, accepted.status)

    async def write_together(self, batch: Sequence[Stored]) -> Outcomes:
        """Write new memories of one user with one request; each has its own outcome."""
        namespace = DocumentId.of(batch[0].record.id).namespace
        answers = await self._api.batch_add(namespace, lambda: [*map(documents.new_document, batch)])
        accepted = {answer.id: answer.status for answer in answers if answer.error is None}
        outcomes: Outcomes = []
        for stored in batch:
            status = accepted.get(DocumentId.of(stored.record.id).document)
            outcomes.append(
                ProviderError("Supermemory has stored others of these memories, and not this one; add it again")
                if status is None
                else self._noted(stored, status).record
            )
        return outcomes

    async def change(self, old: Stored, new: Stored) -> Stored | None:
        """Give a memory new metadata, and new text only where that has changed; None where it is gone."""
        own, text = DocumentId.of(new.record.id), new.record.content
        changed = documents.sent(text) if text != old.record.content else None
        accepted = await self._once_there(
            own, partial(self._api.update, own.namespace, own.document, changed, documents.metadata_of(new))
        )
        if accepted is None:
            return None
        # Metadata alone is not indexed anew: then the memory is as far as it was.
        return self._noted(new, accepted.status if changed is not None else new.record.status)

    async def find(self, own: DocumentId) -> Stored | None:
        """Return the memory; one that was added a moment ago may not be shown yet, and is queued."""
        before = _recent.get((self.name, own.id))
        document = await self._api.get(own.namespace, own.document)
        known = _recent.get((self.name, own.id))
        if document is None or isinstance(known, str):
            return known if isinstance(known, Stored) else None
        if not documents.is_ours(document.metadata):
            return None
        written = known.record.content if known else None
        text = documents.text_of(document.metadata, document.content, written) or document.content
        if text is None:
            raise ProviderUnavailableError("Supermemory has not extracted this memory's text yet; try again soon")
        stored = documents.to_stored(own, document.metadata, text, documents.status_of(document.system))
        if known is not None and known is before and stored.record.status in ("done", "failed"):
            _recent.pop((self.name, own.id), known)
        return stored

    async def remove(self, own: DocumentId) -> bool:
        """Delete a memory, its key being used up for good; False where it is gone already."""
        await self._bury([own])
        deleted = await self._once_there(own, partial(self._delete, own))
        _recent.put((self.name, own.id), "deleted")
        return deleted is not None

    async def remove_together(self, ids: Ids) -> int:
        """Delete up to a page of one user's memories with one request, and return how many were there."""
        await self._bury(ids)
        refused = await self._api.delete(ids[0].namespace, [own.document for own in ids])
        deleted = [own for own in ids if own.document not in refused]
        for own in deleted:
            _recent.put((self.name, own.id), "deleted")
        return len(deleted) + sum([await self.remove(own) for own in ids if own.document in refused])

    async def remove_all(self, token: str) -> int:
        """Delete everything of a user, the used-up keys too, and return how many memories that were."""
        count = await self._api.delete_namespace(namespace_of(token))
        await self._api.delete_namespace(graves_of(token))
        for written in [key for key, _ in _recent.items() if key[0] == self.name and key[1].startswith(token)]:
            _recent.put(written, "erased")
        return count

    async def is_buried(self, own: DocumentId) -> bool:
        """Return whether a memory was deleted whose key must not bring it back."""
        return _recent.get((self.name, own.id)) == "deleted" or await self._api.get(*own.grave) is not None

    async def all(self, token: str, until: datetime | None) -> AsyncGenerator[Stored, None]:
        """Yield the memories of a user, newest first."""

        def fetch(start: int | None, end: int | None, page: int, order: str) -> Awaitable[list[Document]]:
            return self._api.listing(namespace_of(token), documents.created_between(start, end), page, order)

        async with aclosing(newest_first(fetch, documents.created(until) if until else None)) as windows:
            async for window in windows:
                shown = await asyncio.gather(*(self._listed(token, document) for document in window))
                found = [stored for stored in shown if stored is not None]
                for stored in sorted(found, key=lambda stored: stored.record.created_at, reverse=True):
                    yield stored

    async def tokens(self) -> set[str]:
        """Return the tokens of the users who have a namespace."""
        names: list[str] = []
        while page := await self._api.namespaces(-(-len(names) // PAGE) + 1, PAGE):
            names += page
        return {own.token for name in names if (own := OwnedId.read(name.removeprefix(namespace_of("")))) is not None}

    async def search(self, query: SearchQuery, count: int) -> Ranked:
        """Return what `count` passages and memories are of, each with the score of its best."""
        token = user_token(query.user_id)
        filter = documents.current_and_matching(query, query.as_of or datetime.now(UTC))
        hits = await self._api.search(namespace_of(token), query.query, filter, count)
        by_document: dict[str, list[Hit]] = {}
        for hit in hits:
            if hit.document is not None:
                by_document.setdefault(hit.document.id, []).append(hit)
        shown = await asyncio.gather(*(self._found(token, id, of) for id, of in by_document.items()))
        scores = (max(hit.similarity for hit in of) for of in by_document.values())
        ranked = [(stored, score) for stored, score in zip(shown, scores, strict=True) if stored is not None]
        return Ranked(ranked, complete=len(hits) < count)

    async def _listed(self, token: str, document: Document) -> Stored | None:
        return await self._shown(
            token, document.id, document.metadata, [document.content], documents.status_of(document.system)
        )

    async def _found(self, token: str, id: str, hits: Sequence[Hit]) -> Stored | None:
        """Return the memory that hits are of: indexed, unless it was written just now."""
        own = DocumentId.read(DocumentId(token, id).id)
        if own is not None and isinstance(_recent.get((self.name, own.id)), Stored):
            return await self.find(own)
        metadata = next((hit.document.metadata for hit in hits if hit.document), {})
        return await self._shown(token, id, metadata, [hit.chunk for hit in hits], "done")

    async def _shown(
        self, token: str, id: str, metadata: Metadata, texts: Sequence[str | None], status: Status
    ) -> Stored | None:
        """Return a memory from what Supermemory shows of it; got whole where its text is not among that."""
        own = DocumentId.read(DocumentId(token, id).id)
        if own is None or not documents.is_ours(metadata) or isinstance(_recent.get((self.name, own.id)), str):
            return None
        text = documents.text_of(metadata, *texts)
        return await self.find(own) if text is None else documents.to_stored(own, metadata, text, status)

    async def _once_there(self, own: DocumentId, attempt: Callable[[], Awaitable[T | None]]) -> T | None:
        """Return the first answer; a document that was added a moment ago may not be there yet."""
        while True:
            answer = await attempt()
            if answer is not None or not isinstance(_recent.get((self.name, own.id)), Stored):
                return answer
            await asyncio.sleep(LOOK_AGAIN)

    async def _bury(self, ids: Ids) -> None:
        """Say of memories that are about to be deleted which callers' keys are used up."""
        graves = [own.grave for own in ids if own.has_key]
        if graves:
            await self._api.batch_add(graves[0][0], lambda: [{"id": id, "content": _GRAVE} for _, id in graves])

    async def _delete(self, own: DocumentId) -> Literal["deleted"] | None:
        if not await self._api.delete(own.namespace, [own.document]):
            return "deleted"
        if await self._api.get(own.namespace, own.document) is not None:
            raise ProviderError("Supermemory did not delete the memory; try again")
        return None

    def _noted(self, stored: Stored, status: str | None) -> Stored:
        """Return what has just been written, and remember it for as long as Supermemory may not know it yet."""
        stored = stored.changed(status=documents.accepted_status(status or "unknown"))
        _recent.put((self.name, stored.record.id), stored)
        return stored
