"""Supermemory indexes later than it answers: what is said of a memory meanwhile is true."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openproto_adapters.supermemory import Supermemory, memories
from openproto_adapters.supermemory.ids import DocumentId, namespace_of
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto import AsyncMemory, IngestionTimeoutError, NotFoundError, ProviderError, ProviderUnavailableError
from openproto.emulation import user_token


async def test_the_status_is_that_of_the_document(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.lag = 0.4
    added = await memory.add("tea", user_id="ada")
    assert added.status == "queued"
    assert [found.status for found in (await memory.list("ada")).items] == ["queued"]
    assert await memory.search("tea", "ada") == []
    seen: set[str | None] = {added.status}
    while (status := (await memory.get(added.id)).status) != "done":
        seen.add(status)
        await asyncio.sleep(0.01)
    assert seen == {"queued", "indexing"}
    assert [found.status for found in (await memory.list("ada")).items] == ["done"]
    assert [hit.memory.status for hit in await memory.search("tea", "ada")] == ["done"]


async def test_a_document_that_fails_is_told(memory: AsyncMemory, emulator: Emulator) -> None:
    id = DocumentId.of_key("ada", "key-1")
    emulator.failing.add(id.document)
    added = await memory.add("tea", user_id="ada", idempotency_key="key-1")
    with pytest.raises(ProviderError):
        await memory.wait_for_ingest([added.id], "ada", timeout=5)
    assert (await memory.get(added.id)).status == "failed"


async def test_waiting_ends_when_it_is_told_to(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.lag = 60.0
    added = await memory.add("tea", user_id="ada")
    with pytest.raises(IngestionTimeoutError):
        await memory.wait_for_ingest([added.id], "ada", timeout=0.2)


async def test_a_write_waits_to_be_indexed_where_that_is_wanted(emulator: Emulator) -> None:
    emulator.lag = 0.2
    async with AsyncMemory(Supermemory(**emulator.provider_options(), wait="indexed")) as memory:
        added = await memory.add("tea", user_id="ada")
        assert added.status == "done"
        assert [hit.memory.id for hit in await memory.search("tea", "ada")] == [added.id]
        changed = await memory.update(added.id, content="coffee")
        assert changed.status == "done"
        assert [hit.memory.content for hit in await memory.search("coffee", "ada")] == ["coffee"]
        (one, two) = await memory.add_many([{"content": text, "user_id": "ada"} for text in ("milk", "water")])
        assert [getattr(outcome, "status", outcome) for outcome in (one, two)] == ["done", "done"]


async def test_a_memory_that_is_not_shown_yet_is_queued_and_can_be_changed_and_deleted(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    emulator.missing_for = 0.4
    added = await memory.add("tea", user_id="ada")
    assert await memory.get(added.id) == added
    changed = await memory.update(added.id, content="green tea")
    assert changed.content == "green tea"
    emulator.missing_for = 0.0
    assert (await memory.get(added.id)).content == "green tea"
    gone = await memory.add("coffee", user_id="ada")
    emulator.missing_for = 0.4
    await memory.delete(gone.id)
    with pytest.raises(NotFoundError):
        await memory.get(gone.id)
    emulator.missing_for = 0.0
    assert [found.id for found in (await memory.list("ada")).items] == [added.id]


async def test_a_memory_that_never_shows_is_not_found_after_some_moments(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await memory.add("tea", user_id="ada")
    emulator.namespaces.clear()  # another process deletes it at once
    assert (await memory.get(added.id)).status == "queued"
    monkeypatch.setattr(memories._recent, "_within", 0.0)
    with pytest.raises(NotFoundError):
        await memory.get(added.id)
    with pytest.raises(NotFoundError):
        await memory.delete(added.id)


async def test_what_one_client_deletes_no_other_client_shows(memory: AsyncMemory, emulator: Emulator) -> None:
    added = await memory.add("tea", user_id="ada")
    async with AsyncMemory(Supermemory(**emulator.provider_options())) as other:
        await other.delete(added.id)
    with pytest.raises(NotFoundError):
        await memory.get(added.id)


async def test_another_account_at_the_same_place_sees_nothing_of_it(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.missing_for = 60.0
    added = await memory.add("tea", user_id="ada")
    emulator.authorized = lambda request: True  # type: ignore[method-assign]
    async with AsyncMemory(Supermemory(base_url=emulator.url, api_key="another-key")) as stranger:
        with pytest.raises(NotFoundError):
            await stranger.get(added.id)


@pytest.mark.usefixtures("forgetful")
async def test_a_long_text_that_is_not_extracted_yet_asks_for_patience(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await memory.add("tea" * 1000, user_id="ada")
    (document,) = emulator.namespaces[namespace_of(user_token("ada"))].documents.values()
    monkeypatch.setattr(type(document), "content", property(lambda self: None))
    monkeypatch.setattr(type(document), "published_at", lambda self, now: None)
    for reading in (lambda: memory.get(added.id), lambda: memory.list("ada")):
        with pytest.raises(ProviderUnavailableError) as caught:
            await reading()
        assert caught.value.retryable


@pytest.mark.parametrize("size", [10, 10_000])
async def test_an_update_shows_at_once_though_the_index_is_behind(
    memory: AsyncMemory, emulator: Emulator, size: int
) -> None:
    old, new = ("tea " * size).strip(), ("coffee " * size).strip()
    added = await memory.add(old, user_id="ada")
    await memory.wait_for_ingest([added.id], "ada")
    (document,) = emulator.namespaces[namespace_of(user_token("ada"))].documents.values()
    document.accepted_at, document.lag = document.accepted_at - 120.0, 60.0
    await memory.update(added.id, content=new)
    assert (await memory.get(added.id)).content == new
    (listed,) = (await memory.list("ada")).items
    assert (listed.content, listed.status) == (new, "queued")
    (hit,) = await memory.search("tea", "ada")
    assert (hit.memory.content, hit.memory.status) == (new, "queued")


async def test_with_learned_memories_a_record_is_the_text_and_its_score_the_best(emulator: Emulator, raw: Any) -> None:
    provider = Supermemory(**emulator.provider_options(), task_type="memory", dreaming="instant")
    async with AsyncMemory(provider) as memory:
        added = await memory.add("tea", user_id="ada")
        await memory.wait_for_ingest([added.id], "ada")
        place = DocumentId.of(added.id)
        assert len(raw.documents.get(place.namespace, place.document, include=["memories"]).memories) == 1
        assert [(hit.memory.content, hit.score) for hit in await memory.search("tea", "ada")] == [("tea", 1.0)]


async def test_texts_are_stored_word_for_word_and_nothing_is_learned_from_them(memory: AsyncMemory, raw: Any) -> None:
    added = await memory.add("Ann likes tea", user_id="ada")
    await memory.wait_for_ingest([added.id], "ada")
    place = DocumentId.of(added.id)
    document = raw.documents.get(place.namespace, place.document, include=["chunks", "memories"])
    assert ([chunk.content for chunk in document.chunks], document.memories) == (["Ann likes tea"], [])
