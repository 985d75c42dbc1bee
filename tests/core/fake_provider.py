"""A provider that follows a script and records what it is asked, and calls that a client makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from openproto import AsyncMemory, MemoryInput, MemoryPage, MemoryRecord, Provider, SearchResult
from openproto.models import Cancellation
from openproto.provider import Call, current_call

Act: TypeAlias = BaseException | Callable[[], Awaitable[None]] | None

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

CALLS: dict[str, Callable[[AsyncMemory], Any]] = {
    "add": lambda m: m.add("tea", user_id="ada"),
    "get": lambda m: m.get("m1"),
    "update": lambda m: m.update("m1", content="milk"),
    "delete": lambda m: m.delete("m1"),
    "list": lambda m: m.list("ada"),
    "search": lambda m: m.search("tea", "ada"),
    "context": lambda m: m.context("tea", "ada"),
    "audit": lambda m: m.audit("ada"),
    "delete_all": lambda m: m.delete_all("ada"),
}


class Gate:
    """Something to wait for, and a way to learn that somebody waits."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.go.wait()


async def hang() -> None:
    await asyncio.Event().wait()


def record(id: str = "m1", content: str = "likes tea", **fields: Any) -> MemoryRecord:
    return MemoryRecord(**{"id": id, "content": content, "user_id": "ada", "created_at": NOON, **fields})


def answering(name: str, answer: Callable[[Any, Any], Any]) -> Any:
    """Return a method that notes what it is asked, does an act, and answers."""

    async def call(self: FakeProvider, *given: Any, **key: str) -> Any:
        self.keys += key.values()
        await self._verb(name, given[-1])
        return answer(self, given[0])

    return call


class FakeProvider(Provider):
    """Each opening and each verb does the next act of its script: nothing, raise, or await."""

    name = "fake"
    cancellation: Cancellation = "native"

    def __init__(self, *, opening: Iterable[Act] = (), acts: Iterable[Act] = (), closing: Iterable[Act] = ()) -> None:
        self.script: dict[str, list[Act]] = {"open": list(opening), "verb": list(acts), "close": list(closing)}
        self.opens = self.closes = self.running = self.most_running = 0
        self.calls: list[str] = []
        self.keys: list[str] = []
        self.requests: list[Any] = []
        self.contexts: list[Call] = []
        self.cancelled: list[str] = []
        self.started = asyncio.Event()
        self.pages: list[MemoryPage] = []
        self.statuses: list[str] = []

    async def open(self) -> None:
        self.opens += 1
        await self._act("open", "open")

    async def close(self) -> None:
        self.closes += 1
        await self._act("close", "close")

    add = answering("add", lambda self, item: record(content=item.content, user_id=item.user_id, scope=item.scope))
    get = answering("get", lambda self, ref: record(ref.id, status=self.statuses.pop(0) if self.statuses else "done"))
    update = answering("update", lambda self, ref: record(ref.id))
    delete = answering("delete", lambda self, ref: None)
    list = answering("list", lambda self, query: self.pages.pop(0) if self.pages else MemoryPage(items=[]))
    search = answering("search", lambda self, query: [SearchResult(memory=record(), score=0.5)])
    audit = answering("audit", lambda self, query: [])

    @property
    def inputs(self) -> Sequence[MemoryInput]:
        return [request for request in self.requests if isinstance(request, MemoryInput)]

    async def _verb(self, name: str, request: Any) -> None:
        self.calls.append(name)
        self.requests.append(request)
        self.contexts.append(current_call.get())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.started.set()
        try:
            await self._act("verb", name)
        finally:
            self.running -= 1

    async def _act(self, script: str, name: str) -> None:
        act = self.script[script].pop(0) if self.script[script] else None
        try:
            if isinstance(act, BaseException):
                raise act
            if act is not None:
                await act()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
