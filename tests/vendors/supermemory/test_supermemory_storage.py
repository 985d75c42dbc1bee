"""How memories are stored: word for word, under ids that repeat with their keys, and listed whatever else goes on."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openproto_adapters.supermemory import documents as documents_module
from openproto_adapters.supermemory import memories, windows
from openproto_adapters.supermemory.api import Document
from openproto_adapters.supermemory.ids import DocumentId, graves_of, namespace_of
from openproto_conformance.emulators import CloseConnection, Status
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto import AsyncMemory, ConflictError, NotFoundError, ProviderError
from openproto.emulation import Stored, user_token

ADA = namespace_of(user_token("ada"))


def documents(emulator: Emulator) -> int:
    return len(emulator.namespaces[ADA].documents)


async def test_documents_are_made_in_a_thread(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing long texts takes long enough for a hundred of them to hold up the loop."""
    made_in: list[str] = []

    def noted(stored: Stored) -> Any:
        made_in.append(threading.current_thread().name)
        return documents_module.new_document(stored)

    monkeypatch.setattr(memories, "new_document", noted)
    await memory.add("tea", user_id="ada")
    await memory.add_many([{"content": f"note {n}", "user_id": "ada"} for n in range(3)])
    assert len(made_in) == 4
    assert {name.partition("_")[0] for name in made_in} == {"openproto-supermemory"}


@pytest.mark.parametrize(
    "content",
    [
        "https://example.com/a?b=c",
        " http://example.com\n",
        "www.example.com",
        "  edges stay \n\n",
        "x" * 100_000,
        "\n" + "long with edges " * 500,
        "🍵 ünï\r\ncode\t",
    ],
)
async def test_a_text_comes_back_as_it_was_given(memory: AsyncMemory, content: str) -> None:
    added = await memory.add(content, user_id="ada")
    await memory.wait_for_ingest([added.id], "ada")
    assert (await memory.get(added.id)).content == content
    assert [found.content for found in (await memory.list("ada")).items] == [content]
    assert [hit.memory.content for hit in await memory.search(content[:500], "ada")] == [content]


@pytest.mark.parametrize("address", ["https://example.com/page", " ftp://example.com/x ", "www.example.com"])
async def test_an_address_alone_is_not_sent_as_one_for_its_page_would_be_kept_instead(
    memory: AsyncMemory, raw: Any, address: str
) -> None:
    added = await memory.add(address, user_id="ada")
    place = DocumentId.of(added.id)
    sent = raw.documents.get(place.namespace, place.document).content
    assert sent == f"The address {address}"


async def test_metadata_is_flat(memory: AsyncMemory, emulator: Emulator) -> None:
    added = await memory.add(
        "tea",
        user_id="ada",
        scope="kitchen/drinks",
        tags=["a", "b"],
        source={"app": "notebook"},
        valid_to=datetime(2999, 1, 1, tzinfo=UTC),
        x_note={"deep": {"er": [1, None]}},
    )
    (document,) = emulator.namespaces[ADA].documents.values()
    kinds = {type(value) for value in document.metadata.values()}
    assert kinds <= {str, int, list}
    assert document.metadata["openproto_scopes"] == ["kitchen", "kitchen/drinks"]
    assert document.metadata["openproto_tags"] == ["a", "b"]
    read = await memory.get(added.id)
    assert (read.extensions, read.valid_to) == (added.extensions, added.valid_to)


async def test_an_add_whose_answer_was_lost_and_that_is_sent_again_is_one_document(emulator: Emulator) -> None:
    emulator.faults.next(CloseConnection(), method="POST", path="*/document")
    async with AsyncMemory("supermemory", **emulator.provider_options(), retries=2) as memory:
        added = await memory.add("tea", user_id="ada")
        assert documents(emulator) == 1
        assert (await memory.get(added.id)).content == "tea"


@pytest.mark.usefixtures("forgetful")
async def test_a_repetition_from_another_process_is_the_same_memory(memory: AsyncMemory, emulator: Emulator) -> None:
    first = await memory.add("tea", user_id="ada", idempotency_key="key-1")
    async with AsyncMemory("supermemory", **emulator.provider_options()) as other:
        again = await other.add("tea", user_id="ada", idempotency_key="key-1")
        assert (again.id, again.created_at) == (first.id, first.created_at)
        with pytest.raises(ConflictError):
            await other.add("coffee", user_id="ada", idempotency_key="key-1")
    assert documents(emulator) == 1


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("everything", [False, True])
async def test_a_callers_key_is_used_up_with_its_memory_until_all_of_the_user_is_deleted(
    memory: AsyncMemory, emulator: Emulator, everything: bool
) -> None:
    first = await memory.add("tea", user_id="ada", tags=["x"], idempotency_key="key-1")
    deleting = memory.delete_all("ada", tag="x") if everything else memory.delete(first.id)
    await deleting
    async with AsyncMemory("supermemory", **emulator.provider_options()) as other:
        with pytest.raises(ConflictError):
            await other.add("tea", user_id="ada", idempotency_key="key-1")
        await other.add("other", user_id="ada")
        assert await other.delete_all("ada") == 1
        assert not emulator.namespaces.keys() & {ADA, graves_of(user_token("ada"))}
        assert (await other.add("tea", user_id="ada", idempotency_key="key-1")).content == "tea"


async def test_a_key_can_be_used_anew_at_once_when_everything_was_deleted(memory: AsyncMemory) -> None:
    first = await memory.add("tea", user_id="ada", idempotency_key="key-1")
    assert await memory.delete_all("ada") == 1
    with pytest.raises(NotFoundError):
        await memory.get(first.id)
    again = await memory.add("tea", user_id="ada", idempotency_key="key-1")
    assert [found.id for found in (await memory.list("ada")).items] == [again.id]


async def test_an_update_is_one_request_that_sends_the_text_only_when_it_changes(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    added = await memory.add("tea", user_id="ada")
    await memory.wait_for_ingest([added.id], "ada")
    emulator.lag = 60.0
    assert (await memory.update(added.id, tags=["x"])).status == "done"
    assert (await memory.update(added.id, content="coffee")).status == "queued"
    assert emulator.counters.by_route["PATCH /ns/{namespace}/document/{id}"] == 2
    assert (await memory.get(added.id)).id == added.id


async def test_no_weak_hit_is_dropped(memory: AsyncMemory) -> None:
    added = await memory.add_many([{"content": f"note {n}", "user_id": "ada"} for n in range(15)])
    await memory.wait_for_ingest([getattr(outcome, "id", "") for outcome in added], "ada")
    assert len(await memory.search("something else altogether", "ada", limit=15)) == 15


async def test_deleting_what_is_gone_is_not_found_although_the_answer_is_200(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    added = await memory.add("tea", user_id="ada")
    await memory.get(added.id)
    answer = {"count": 0, "errors": [{"id": added.id.split(".")[1], "error": "Document not found"}]}
    emulator.faults.next(Status(200, body=answer), method="DELETE")
    with pytest.raises(ProviderError, match="did not delete"):
        await memory.delete(added.id)
    await memory.delete(added.id)
    with pytest.raises(NotFoundError):
        await memory.delete(added.id)


async def test_a_part_of_a_batch_may_fail(memory: AsyncMemory, emulator: Emulator) -> None:
    ids: list[str] = []

    def answer(items: Any) -> Any:
        ids.extend(item["id"] for item in items)
        good = [{"id": id, "status": "queued"} for id in ids[::-1][1:]]
        return good, [{"id": ids[-1], "status": "error", "error": "too strange"}]

    batch = emulator.batch_add

    def halting(request: Any) -> Any:
        made = batch(request)
        good, bad = answer(request.json["documents"])
        return type(made)(200, {"results": [*good, *bad], "count": len(good), "failed": len(bad)})

    emulator.batch_add = halting  # type: ignore[method-assign]
    outcomes = await memory.add_many([{"content": f"note {n}", "user_id": "ada"} for n in range(3)])
    assert [getattr(outcome, "content", None) for outcome in outcomes] == ["note 0", "note 1", None]
    assert isinstance(outcomes[2], ProviderError)


async def test_a_batch_is_a_request_for_each_user_and_a_hundred_memories(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    items = [{"content": f"note {n}", "user_id": user} for n in range(150) for user in ("ada", "bob")]
    outcomes = await memory.add_many(items)
    assert [getattr(outcome, "content", None) for outcome in outcomes] == [item["content"] for item in items]
    assert emulator.counters.by_route["POST /ns/{namespace}/document/batch"] == 4
    assert emulator.counters.by_route["POST /ns/{namespace}/document"] == 0


async def test_a_deletion_by_tag_is_a_request_for_a_hundred_memories(memory: AsyncMemory, emulator: Emulator) -> None:
    items = [{"content": f"note {n}", "user_id": "ada", "tags": [f"t{n % 2}"]} for n in range(220)]
    await memory.add_many(items)
    assert await memory.delete_all("ada", tag="t1") == 110
    assert emulator.counters.by_route["DELETE /ns/{namespace}/document"] == 2
    assert {tag for found in (await memory.list("ada", limit=500)).items for tag in found.tags} == {"t0"}


async def test_paging_is_exact_while_others_add_and_delete(memory: AsyncMemory) -> None:
    outcomes = await memory.add_many([{"content": f"old {n}", "user_id": "ada"} for n in range(350)])
    old = [getattr(outcome, "id", "") for outcome in outcomes]
    doomed, stays = set(old[::7]), [id for n, id in enumerate(old) if n % 7]

    async def disturb() -> None:
        for n, id in enumerate(doomed):
            await memory.delete(id)
            await memory.add(f"new {n}", user_id="ada")

    disturbing = asyncio.create_task(disturb())
    seen: list[str] = []
    cursor = None
    while True:
        page = await memory.list("ada", limit=20, cursor=cursor)
        seen += [record.id for record in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    await disturbing
    assert len(set(seen)) == len(seen)
    assert set(stays) <= set(seen)


async def test_windows_of_time_hold_everything_also_what_is_made_in_one_moment() -> None:
    def document(n: int, created: int) -> Document:
        return Document.model_validate(
            {
                "id": str(n),
                "metadata": {"openproto_created": created},
                "system": {"status": "done", "dreamingStatus": "done"},
            }
        )

    # Supermemory's own order is the number; created_at is at odds with it, and 250 share a moment.
    everything = [document(n, n * 7 % 90) for n in range(400)] + [document(n, 90) for n in range(400, 650)]
    asked: list[tuple[int | None, int | None]] = []

    async def fetch(start: int | None, end: int | None, page: int = 1, order: str = "desc") -> list[Document]:
        asked.append((start, end))
        within = [
            one
            for one in everything
            if (start or 0) <= (at := int(str(one.metadata["openproto_created"]))) and (end is None or at <= end)
        ]
        within = within if order == "asc" else within[::-1]
        return within[(page - 1) * windows.PAGE : page * windows.PAGE]

    seen = [one async for window in windows.newest_first(fetch, None) for one in window]
    assert sorted(int(one.id) for one in seen) == [*range(650)]
    created = [int(str(one.metadata["openproto_created"])) for one in seen]
    assert created[:250] == [90] * 250
    assert len(asked) < 50


async def test_validity_and_supersession_are_filtered_before_the_limit(memory: AsyncMemory, emulator: Emulator) -> None:
    now = datetime.now(UTC)
    stale = [
        {"content": f"green tea {n}", "user_id": "ada", "valid_to": now - timedelta(days=n + 1)} for n in range(120)
    ]
    outcomes = await memory.add_many(stale)
    old = await memory.add("green tea and milk", user_id="ada")
    current = await memory.add("tea, now and then and also with sugar", user_id="ada", supersedes=[old.id])
    ids = [getattr(outcome, "id", "") for outcome in outcomes]
    await memory.wait_for_ingest([*ids, old.id, current.id], "ada")
    before = emulator.counters.by_route["POST /ns/{namespace}/search"]
    assert [hit.memory.id for hit in await memory.search("green tea", "ada", limit=5)] == [current.id]
    assert emulator.counters.by_route["POST /ns/{namespace}/search"] == before + 1
    assert emulator.counters.by_route["POST /ns/{namespace}/list/{type}"] == 0
    back = await memory.search("green tea", "ada", limit=100, as_of=now - timedelta(days=20, hours=1))
    stayed = {old.content, current.content}
    assert {hit.memory.content for hit in back} - stayed == {f"green tea {n}" for n in range(20)}
