"""Each call that a client has, once: what is tried for one of them is tried for all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from openproto import AsyncMemory, MemoryRecord
from openproto_conformance.bench import Bench
from openproto_conformance.checks import ensure, equal

Check: TypeAlias = Callable[[Any], object]


FOR_ONE_USER = 50
"""How many records a user has: the calls are to be many, not each of them much."""


@dataclass(frozen=True)
class Question:
    """A call about one subject, and how its answer shows that it is about that one."""

    call: Callable[[], Awaitable[Any]]
    check: Check


def _declared(bench: Bench, name: str) -> bool:
    """Whether the provider declares a call of the table."""
    if name == "put":
        return bench.capabilities.x_openproto.support.get("put", "none") != "none"
    return {"add_many": "add"}.get(name, name) in bench.capabilities.verbs


async def questions(
    bench: Bench, client: AsyncMemory, count: int, words: str = "the note"
) -> dict[str, list[Question]]:
    """Return for each call `count` questions about different subjects, whose records are there already."""
    user = bench.user("every")
    subjects = await _records(bench, "subject", count, words)
    doomed = await _records(bench, "doomed", count, words)
    owners = [bench.user(f"owner {n}") for n in range(min(count, 40))]
    owned = [await bench.add(f"{words} owned{n}", user_id=owner) for n, owner in enumerate(owners)]
    table = {
        "add": [_adds(client, user, f"{words} added{n}") for n in range(count)],
        "add_many": [_adds_many(client, user, f"{words} batch{n}") for n in range(count)],
        "get": [_gets(client, record) for record in subjects],
        "list": [_lists(client, owned[n % len(owned)]) for n in range(count)],
        "search": [_searches(client, record, n) for n, record in enumerate(subjects)],
        "context": [_contexts(client, record, n) for n, record in enumerate(subjects)],
        "audit": [_audits(client, record) for record in subjects],
        "update": [_updates(client, record, f"{words} changed{n}") for n, record in enumerate(subjects)],
        "delete": [_deletes(client, record) for record in doomed],
        "put": [_puts(client, user, f"{words} put{n}") for n in range(count)],
    }
    return {name: asked for name, asked in table.items() if _declared(bench, name)}


async def _records(bench: Bench, name: str, count: int, words: str) -> Sequence[MemoryRecord]:
    records: list[MemoryRecord] = []
    for start in range(0, count, FOR_ONE_USER):
        user, numbers = bench.user(f"{name} {start}"), range(start, min(start + FOR_ONE_USER, count))
        records += await bench.add_many([{"content": f"{words} subject{n}", "user_id": user} for n in numbers])
    return records


def _gets(client: AsyncMemory, record: MemoryRecord) -> Question:
    return Question(lambda: client.get(record.id), lambda answer: equal(answer, record, "the record"))


def _deletes(client: AsyncMemory, record: MemoryRecord) -> Question:
    return Question(lambda: client.delete(record.id), lambda answer: equal(answer, None, "the answer"))


def _adds(client: AsyncMemory, user: str, content: str) -> Question:
    return Question(lambda: client.add(content, user_id=user), lambda a: equal(a.content, content, "the content"))


def _adds_many(client: AsyncMemory, user: str, content: str) -> Question:
    items = [{"content": f"{content} {n}", "user_id": user} for n in range(3)]
    wanted = [item["content"] for item in items]
    return Question(
        lambda: client.add_many(items),
        lambda answer: equal([getattr(a, "content", a) for a in answer], wanted, "the contents"),
    )


def _lists(client: AsyncMemory, record: MemoryRecord) -> Question:
    return Question(
        lambda: client.list(record.user_id), lambda page: equal([r.id for r in page.items], [record.id], "the ids")
    )


def _searches(client: AsyncMemory, record: MemoryRecord, n: int) -> Question:
    def check(hits: Any) -> None:
        ensure(record.id in [hit.memory.id for hit in hits], f"a search for subject{n} does not find it")

    return Question(lambda: client.search(f"subject{n}", record.user_id, limit=5), check)


def _contexts(client: AsyncMemory, record: MemoryRecord, n: int) -> Question:
    def check(block: Any) -> None:
        ensure(f"subject{n} " in block.text, f"a context about subject{n} does not hold it")

    return Question(lambda: client.context(f"subject{n}", record.user_id, token_budget=100), check)


def _audits(client: AsyncMemory, record: MemoryRecord) -> Question:
    def check(entries: Any) -> None:
        equal({entry.memory_id for entry in entries}, {record.id}, "the memories of the entries")

    return Question(lambda: client.audit(record.user_id, memory_id=record.id), check)


def _updates(client: AsyncMemory, record: MemoryRecord, content: str) -> Question:
    return Question(
        lambda: client.update(record.id, content=content),
        lambda a: equal((a.id, a.content), (record.id, content), "id and content"),
    )


def _puts(client: AsyncMemory, user: str, content: str) -> Question:
    return Question(
        lambda: client.put(content, user_id=user, key=content),
        lambda a: equal((a.content, a.key), (content, content), "content and key"),
    )
