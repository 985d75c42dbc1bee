"""The MemorySync emulator, through the vendor's own SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from memorysync import (
    AddSkippedResponse,
    AuthError,
    BulkAddItem,
    Memory,
    MemorySyncClient,
    NotFoundError,
    RateLimitError,
    ValidationError,
)
from openproto_conformance.emulators.memorysync import MemorySync

TEA = "Ann likes green tea"


@pytest.fixture
def emulator() -> Iterator[MemorySync]:
    with MemorySync() as running:
        yield running
        assert running.violations == []


@pytest.fixture
def client(emulator: MemorySync) -> Iterator[MemorySyncClient]:
    with MemorySyncClient(emulator.api_key, emulator.url, end_user_id="ann") as made:
        yield made


def stored(client: MemorySyncClient, text: str, **fields: Any) -> Memory:
    added = client.add(text, **fields)
    assert isinstance(added, Memory)
    return added


def reason(skipped: object) -> str:
    assert isinstance(skipped, AddSkippedResponse)
    return skipped.reason


def v1(**asked: Any) -> dict[str, Any]:
    return {"tenant_id": MemorySync.tenant, "user_id": "ann", **asked}


def test_a_wrong_key_and_a_missing_end_user_are_refused(emulator: MemorySync) -> None:
    with MemorySyncClient("wrong", emulator.url, end_user_id="ann") as stranger, pytest.raises(AuthError):
        stranger.query("tea")
    with (
        MemorySyncClient(emulator.api_key, emulator.url) as nobody,
        pytest.raises(ValidationError, match="END_USER_ID"),
    ):
        nobody.add(TEA)


def test_a_memory_is_read_and_edited_by_its_end_user_alone(client: MemorySyncClient, emulator: MemorySync) -> None:
    added = stored(client, TEA, tags=["drinks"], metadata={"n": 1})
    assert client.get(added.id) == added
    edited = client.update(added.id, tags=["tea"], metadata={"m": 2})
    assert (edited.text, edited.tags, edited.metadata) == (TEA, ["tea"], {"m": 2})
    with MemorySyncClient(emulator.api_key, emulator.url, end_user_id="bob") as bob:
        for attempt in (lambda: bob.get(added.id), lambda: bob.forget([added.id]), lambda: bob.history(added.id)):
            with pytest.raises(NotFoundError):
                attempt()
        assert bob.batch_update([{"memory_id": added.id, "tags": ["bob's"]}]).not_found == 1
        assert bob.query("tea").memories == bob.export_all().memories == []
    changes = [(revision.revision, revision.event, revision.changed_fields) for revision in client.history(1).revisions]
    assert changes == [(0, "created", []), (1, "updated", ["tags", "metadata"])]


@pytest.mark.parametrize(
    ("text", "why"),
    [("ok thanks!", "no_high_value_content"), ("1234567890", "no_high_value_content"), (TEA, "duplicate")],
)
def test_filler_and_repeats_are_skipped(client: MemorySyncClient, text: str, why: str) -> None:
    stored(client, TEA)
    assert reason(client.add(text)) == why


def test_a_short_text_is_refused(client: MemorySyncClient) -> None:
    with pytest.raises(ValidationError, match="at least 10 characters"):
        client.add("  tea is  ")


def test_a_reference_is_known_again_also_when_the_memory_is_gone(client: MemorySyncClient) -> None:
    added = stored(client, TEA, client_ref="r1")
    again = client.add("quite another text", client_ref="r1")
    assert isinstance(again, AddSkippedResponse)
    assert (again.reason, again.memory_ids) == ("already_ingested", [added.id])
    client.forget([added.id])
    assert reason(client.add(TEA, client_ref="r1")) == "already_ingested"
    assert isinstance(client.add(TEA, client_ref="r2"), Memory)


def test_each_item_of_a_batch_has_its_outcome(client: MemorySyncClient, emulator: MemorySync) -> None:
    emulator.facts = lambda text: text.split("; ")
    texts = (f"{TEA}; Ann has a cat", "short", "ok thanks a", TEA)
    results = client.bulk_add([BulkAddItem(text, tags=["b"]) for text in texts]).results
    outcomes = [(one.index, one.status, one.memory_ids) for one in results]
    assert outcomes == [(0, "created", [1, 2]), (1, "rejected", []), (2, "created", [3]), (3, "skipped", [1])]
    assert client.get(2).tags == ["b"]


def test_a_search_finds_one_of_the_tags_and_forgetting_wants_all(client: MemorySyncClient) -> None:
    tea = stored(client, TEA, tags=["a", "b"])
    cat = stored(client, "Ann has a black cat", tags=["a"])
    found = client.query("who likes tea", k=5)
    assert [memory.id for memory in found.memories] == [tea.id, cat.id]
    assert found.context is not None
    assert [memory.id for memory in client.query("cat", filters={"tags": ["b", "x"]}).memories] == [tea.id]
    assert client.forget(filters={"tags": ["a", "b"]}, dry_run=True) == [tea.id]
    assert client.forget(filters={"tags": ["a", "b"]}) == [tea.id]
    with pytest.raises(NotFoundError):
        client.forget(filters={"tags": ["a", "b"]})
    assert client.forget(filters={"before": "9999-12-31T00:00:00+00:00"}) == [cat.id]


def test_what_was_stored_while_embedding_was_down_is_there_and_not_found(
    client: MemorySyncClient, emulator: MemorySync
) -> None:
    emulator.embedding_down = True
    added = stored(client, TEA)
    assert client.get(added.id) == added
    assert client.query(TEA).memories == []
    assert client.status(added.id)["processing_status"] == "pending"


def test_over_the_plan_all_seems_well_or_is_refused(client: MemorySyncClient, emulator: MemorySync) -> None:
    stored(client, TEA)
    emulator.quota = "silent"
    assert reason(client.add("Ann has a black cat")) == "quota_exhausted"
    assert client.bulk_add([BulkAddItem("Ann has a black cat")]).unreported == 1
    assert client.query("tea").memories == []
    assert client.add_turn(**v1(text="I have a black cat"))["processing_status"] == "skipped"
    emulator.quota = "strict"
    for attempt in (lambda: client.add(TEA), lambda: client.query("tea"), lambda: client.recall(**v1(prompt="tea"))):
        with pytest.raises(RateLimitError) as caught:
            attempt()
        assert caught.value.retry_after_seconds == 0.0
    assert len(emulator.memories) == 1


def test_the_v1_plane_sees_the_same_memories(client: MemorySyncClient, emulator: MemorySync) -> None:
    for text in (TEA, "Ann has a black cat"):
        stored(client, text, metadata={"n": 1})
    listed = client.list_memories(tenant_id=emulator.tenant, user_id="ann", limit=1, offset=0)["memories"]
    assert [(row["memory_id"], row["metadata"]) for row in listed] == [("m_2", {"n": 1})]
    emulator.lists_metadata = False
    everything = client.list_memories(tenant_id=emulator.tenant, user_id="ann")["memories"]
    assert everything == [
        {"memory_id": "m_2", "raw_text": "Ann has a black cat"},
        {"memory_id": "m_1", "raw_text": TEA},
    ]
    assert client.list_memories(tenant_id="default", user_id="ann")["memories"] == []
    assert client.recall(**v1(prompt="tea", k=1))["context"] == f"- {TEA}"
    assert [one.text for one in client.retrieve("tea", k=1).memories] == [TEA]


def test_a_path_that_climbs_reaches_another_users_listing(client: MemorySyncClient, emulator: MemorySync) -> None:
    stored(client, TEA)
    climbed = client.list_memories(tenant_id="x", user_id=f"../{emulator.tenant}/ann")["memories"]
    assert [row["raw_text"] for row in climbed] == [TEA]


def test_turns_of_the_user_are_extracted_once(client: MemorySyncClient) -> None:
    said: dict[str, Any] = v1(text="I have a black cat", occurred_at="2026-01-01", metadata={"a": 1, "b": {}})
    answers = [
        client.add_turn(**one) for one in (said, said, v1(text="ok"), v1(text="Noted, a cat.", role="assistant"))
    ]
    states = [answer["processing_status"] for answer in answers]
    assert states == ["distilling", "skipped_replay", "skipped_low_value", "skipped_non_user_turn"]
    assert {answer["memory_id"] for answer in answers} == {None}
    assert [(entry["text"], entry["metadata"]) for entry in client.export_all().memories] == [
        ("I have a black cat", {"a": 1})
    ]


def test_purging_a_user_erases_the_account_and_everybodys_memories(
    client: MemorySyncClient, emulator: MemorySync
) -> None:
    stored(client, TEA)
    with pytest.raises(ValidationError):
        client.purge_user()
    assert emulator.purges == 0
    headers = {"X-API-Key": emulator.api_key, "X-End-User-ID": "bob"}
    httpx.delete(f"{emulator.url}/memory/user/purge", headers=headers, trust_env=False)
    assert emulator.purges == 1
    assert client.export_all().memories == []
