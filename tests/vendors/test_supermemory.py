"""Supermemory stores documents, indexes them later than it answers, and escapes nothing in a path."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from openproto_adapters.supermemory import Supermemory, memories, windows
from openproto_adapters.supermemory.api import Document
from openproto_adapters.supermemory.ids import DocumentId, graves_of, namespace_of
from openproto_conformance.emulators import Answer, Request, Status
from openproto_conformance.emulators.supermemory import Supermemory as Emulator
from openproto_conformance.emulators.supermemory.store import Document as Emulated
from supermemory import Supermemory as Sdk

from openproto import AsyncMemory, MemoryRecord, errors
from openproto.emulation import Recent, user_token

ANN = namespace_of(user_token("ann"))
SEARCH = "POST /ns/{namespace}/search"


def document_of(emulator: Emulator) -> Emulated:
    (document,) = emulator.namespaces[ANN].documents.values()
    return document


async def indexed(memory: AsyncMemory, *contents: str, **fields: Any) -> list[MemoryRecord]:
    outcomes = await memory.add_many([{"content": content, "user_id": "ann", **fields} for content in contents])
    return await memory.wait_for_ingest([getattr(outcome, "id", "") for outcome in outcomes], "ann")


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        ("https://example.com/a?b=c", "The address https://example.com/a?b=c"),
        (" ftp://example.com\n", "The address  ftp://example.com\n"),
        ("www.example.com", "The address www.example.com"),
        ("\n" + "long with edges " * 500, "\n" + "long with edges " * 500),
    ],
    ids=lambda value: value[:20],
)
async def test_texts_and_addresses_come_back(memory: AsyncMemory, emulator: Emulator, content: str, sent: str) -> None:
    (added,) = await indexed(memory, content)
    assert document_of(emulator).content == sent
    assert document_of(emulator).memories == [], "nothing is learned from it"
    assert (await memory.get(added.id)).content == content
    assert [found.content for found in (await memory.list("ann")).items] == [content]
    assert [hit.memory.content for hit in await memory.search(content[:500], "ann")] == [content]


async def test_a_hundred_memories_are_deleted_with_one_request(memory: AsyncMemory, emulator: Emulator) -> None:
    items = [{"content": f"note {n}", "user_id": "ann", "tags": [f"t{n % 2}"]} for n in range(220)]
    await memory.add_many(items)
    assert await memory.delete_all("ann", tag="t1") == 110
    assert emulator.counters.by_route["DELETE /ns/{namespace}/document"] == 2
    assert {tag for found in (await memory.list("ann", limit=500)).items for tag in found.tags} == {"t0"}
    added = await memory.add("tea", user_id="ann")
    answer = {"count": 0, "errors": [{"id": added.id.split(".")[1], "error": "Document not found"}]}
    emulator.faults.next(Status(200, body=answer), method="DELETE")
    with pytest.raises(errors.ProviderError, match="did not delete"):
        await memory.delete(added.id)
    await memory.delete(added.id)


async def test_delete_all_frees_keys(memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "_recent", Recent(0))  # as if another process had written it
    first = await memory.add("tea", user_id="ann", idempotency_key="key-1")
    assert (await memory.add("tea", user_id="ann", idempotency_key="key-1")).id == first.id
    await memory.delete(first.id)
    with pytest.raises(errors.ConflictError, match="deleted"):
        await memory.add("tea", user_id="ann", idempotency_key="key-1")
    await memory.add("other", user_id="ann")
    assert await memory.delete_all("ann") == 1
    assert not emulator.namespaces.keys() & {ANN, graves_of(user_token("ann"))}
    assert (await memory.add("tea", user_id="ann", idempotency_key="key-1")).content == "tea"


async def test_a_batch_fails_in_part(memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def halting(request: Request) -> Answer:
        ids = [item["id"] for item in request.json["documents"]]
        good = [{"id": id, "status": "queued"} for id in ids[::-1][1:]]
        bad = {"id": ids[-1], "status": "error", "error": "too strange"}
        return Answer(200, {"results": [*good, bad], "count": 2, "failed": 1})

    monkeypatch.setattr(emulator, "batch_add", halting)
    outcomes = await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(3)])
    assert [getattr(outcome, "content", None) for outcome in outcomes] == ["note 0", "note 1", None]
    assert isinstance(outcomes[2], errors.ProviderError)


async def test_windows_of_time_hold_everything_also_what_is_made_in_one_moment() -> None:
    def document(n: int, created: int) -> Document:
        system = {"status": "done", "dreamingStatus": "done"}
        return Document.model_validate({"id": str(n), "metadata": {"openproto_created": created}, "system": system})

    # Supermemory's own order is the number; created_at is at odds with it, and 250 share a moment.
    everything = [document(n, n * 7 % 90) for n in range(400)] + [document(n, 90) for n in range(400, 650)]
    asked = count()

    async def fetch(start: int | None, end: int | None, page: int = 1, order: str = "desc") -> list[Document]:
        next(asked)
        moments = range(start or 0, 91 if end is None else end + 1)
        within = [one for one in everything if one.metadata["openproto_created"] in moments]
        within = within if order == "asc" else within[::-1]
        return within[(page - 1) * windows.PAGE : page * windows.PAGE]

    seen = [one async for window in windows.newest_first(fetch, None) for one in window]
    assert sorted(int(one.id) for one in seen) == [*range(650)]
    assert [one.metadata["openproto_created"] for one in seen[:250]] == [90] * 250
    assert next(asked) < 50


async def test_filters_come_before_the_limit_and_weak_hits_stay(memory: AsyncMemory, emulator: Emulator) -> None:
    now = datetime.now(UTC)
    stale = [{"content": f"green tea {n}", "valid_to": now - timedelta(days=n + 1)} for n in range(120)]
    await memory.add_many([{"user_id": "ann", **item} for item in stale])
    (old,) = await indexed(memory, "green tea and milk")
    (current,) = await indexed(memory, "something else altogether", supersedes=[old.id])
    before = emulator.counters.by_route[SEARCH]
    assert [hit.memory.id for hit in await memory.search("green tea", "ann", limit=5)] == [current.id]
    assert emulator.counters.by_route[SEARCH] == before + 1
    assert emulator.counters.by_route["POST /ns/{namespace}/list/{type}"] == 0
    back = await memory.search("green tea", "ann", limit=100, as_of=now - timedelta(days=20, hours=1))
    stayed = {old.content, current.content}
    assert {hit.memory.content for hit in back} - stayed == {f"green tea {n}" for n in range(20)}


# What is not indexed yet


async def test_the_status_is_that_of_the_document(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.failing.add(DocumentId.of_key("ann", "key-1").document)
    failing = await memory.add("bad", user_id="ann", idempotency_key="key-1")
    with pytest.raises(errors.ProviderError):
        await memory.wait_for_ingest([failing.id], "ann", timeout=5)
    assert (await memory.get(failing.id)).status == "failed"
    emulator.lag, start = 100.0, emulator.now()
    added = await memory.add("tea", user_id="ann")
    for seconds, status in ((0, "queued"), (50, "indexing"), (105, "done")):
        emulator.now = lambda seconds=seconds: start + seconds  # type: ignore[method-assign]
        assert (await memory.get(added.id)).status == status


async def test_a_memory_that_is_not_shown(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.missing_for = 0.4
    added, gone = [await memory.add(text, user_id="ann") for text in ("tea", "coffee")]
    assert await memory.get(added.id) == added
    assert (await memory.update(added.id, content="green tea")).content == "green tea"
    await memory.delete(gone.id)
    with pytest.raises(errors.NotFoundError):
        await memory.get(gone.id)
    emulator.missing_for = 0.0
    assert [found.content for found in (await memory.list("ann")).items] == ["green tea"]
    lost = await memory.add("milk", user_id="ann")
    emulator.namespaces.clear()  # another process deletes it at once
    emulator.authorized = lambda request: True  # type: ignore[method-assign]
    assert (await memory.get(lost.id)).status == "queued"
    async with AsyncMemory(Supermemory(base_url=emulator.url, api_key="another-key")) as stranger:
        with pytest.raises(errors.NotFoundError):
            await stranger.get(lost.id)
    monkeypatch.setattr(memories._recent, "_within", 0.0)
    for call in (memory.get(lost.id), memory.delete(lost.id)):
        with pytest.raises(errors.NotFoundError):
            await call


async def test_a_text_that_is_not_extracted(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "_recent", Recent(0))
    added = await memory.add("tea" * 1000, user_id="ann")
    monkeypatch.setattr(Emulated, "content", property(lambda self: None))
    monkeypatch.setattr(Emulated, "published_at", lambda self, now: None)
    for call in (memory.get(added.id), memory.list("ann")):
        with pytest.raises(errors.ProviderUnavailableError, match="not extracted"):
            await call


@pytest.mark.parametrize("size", [10, 10_000])
async def test_an_update_shows_before_it_is_indexed(memory: AsyncMemory, emulator: Emulator, size: int) -> None:
    new = ("coffee " * size).strip()
    (added,) = await indexed(memory, ("tea " * size).strip())
    document = document_of(emulator)
    document.accepted_at, document.lag = document.accepted_at - 120.0, 60.0
    assert (await memory.update(added.id, tags=["x"])).status == "done", "the text is not sent again"
    await memory.update(added.id, content=new)
    (listed,) = (await memory.list("ann")).items
    (hit,) = await memory.search("tea", "ann")
    assert (await memory.get(added.id)).content == listed.content == hit.memory.content == new
    assert (listed.status, hit.memory.status) == ("queued", "queued")


async def test_with_learned_memories_a_record_is_the_text_and_its_score_the_best(emulator: Emulator) -> None:
    provider = Supermemory(**emulator.provider_options(), task_type="memory", dreaming="instant")
    async with AsyncMemory(provider) as memory:
        await indexed(memory, "tea")
        assert len(document_of(emulator).memories) == 1
        assert [(hit.memory.content, hit.score) for hit in await memory.search("tea", "ann")] == [("tea", 1.0)]


# Whose it is


async def test_a_damaged_document_is_an_error(memory: AsyncMemory, emulator: Emulator) -> None:
    (record,) = await indexed(memory, "tea")
    metadata = document_of(emulator).metadata
    for envelope in (metadata["openproto"].replace('"ann"', '"victim"'), "{}", "nonsense", [1]):
        metadata["openproto"] = envelope
        for read in (memory.get(record.id), memory.list("ann")):
            with pytest.raises(errors.ProviderError, match=r"another user's memory|damaged"):
                await read


async def test_documents_of_other_programs_are_passed_over(memory: AsyncMemory, emulator: Emulator) -> None:
    with Sdk(base_url=emulator.url, api_key=emulator.api_key) as program:
        program.add(ANN, content="green tea of another program", id="../doc", metadata={"openproto_created": 1})
        program.add(ANN, content="green tea of yet another", id="g" + "f" * 32)
    (added,) = await indexed(memory, "green tea")
    assert [found.id for found in (await memory.list("ann")).items] == [added.id]
    assert [hit.memory.id for hit in await memory.search("green tea", "ann")] == [added.id]
    with pytest.raises(errors.NotFoundError):
        await memory.get(f"{user_token('ann')}.g{'f' * 32}")


async def test_what_is_said_of_a_quota_is_quoted_without_the_key(memory: AsyncMemory, emulator: Emulator) -> None:
    body = {"error": f"Out of credits for {emulator.api_key}: upgrade at supermemory.ai" + "!" * 1000}
    emulator.faults.next(Status(402, body=body), path="*/document")
    with pytest.raises(errors.RateLimitedError, match="Out of credits for \\*\\*\\*: upgrade") as caught:
        await memory.add("tea", user_id="ann")
    assert len(str(caught.value)) < 300
