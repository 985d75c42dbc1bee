"""No user sees another's memories: Memsy's own calls reach the whole organization unless they are told otherwise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from memsy import AsyncMemsyClient, EventPayload
from openproto_adapters.memsy import Memsy
from openproto_adapters.memsy.ids import EventId
from openproto_conformance.emulators.memsy import Memsy as Emulator
from openproto_conformance.emulators.messages import Answer, Request

from openproto import AsyncMemory, NotFoundError, ProviderError
from openproto.emulation import user_token

ODD_USERS = ("ünñ ser", "../x?y#z", "*", "%2e%2e", " ", "ann", "Ann", "ann/", "a" * 256, "'; --")


@pytest.mark.promise(32)
async def test_every_search_names_its_actor_in_words_that_memsy_searches(
    memory: AsyncMemory, plain: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    search = Emulator.search

    def seen(self: Emulator, request: Request) -> Answer:
        asked.append(request.json)
        return search(self, request)

    monkeypatch.setattr(Emulator, "search", seen)
    users = [user for user in ODD_USERS if user.strip()]
    for user in users:
        for client in (memory, plain):
            record = await client.add(f"note of {user}"[:7000], user_id=user)
            (done,) = await client.wait_for_ingest([record.id], user, timeout=10)
            found = {hit.memory.content for hit in await client.search("note", user)}
            assert done.content in found
            assert all(content == done.content for content in found)
            await client.context("note", user)
    assert {body.get("actor_id") for body in asked} == {user_token(user) for user in users}


async def test_another_users_record_is_not_found_whoever_asks(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("tea", user_id="ann")
    before = emulator.counters.requests
    for call in (
        lambda: memory.get(record.id, user_id="bob"),
        lambda: memory.update(record.id, user_id="bob", tags=["x"]),
        lambda: memory.delete(record.id, user_id="bob"),
    ):
        with pytest.raises(NotFoundError):
            await call()
    assert emulator.counters.requests == before
    assert (await memory.list("bob")).items == []
    assert await memory.delete_all("bob") == 0
    assert (await memory.get(record.id)).content == "tea"


@pytest.mark.parametrize(
    "id",
    [
        "no-such-id",
        "..",
        "a/b",
        f"{'a' * 22}.{'b' * 22}",
        f"{'a' * 22}.{'b' * 22}.",
        f"{'a' * 22}.{'b' * 22}.c/d",
        f"{'a' * 22}.{'b' * 21}ü.c",
        f"{'a' * 22}.{'b' * 22}.{'c' * 65}",
    ],
)
async def test_an_id_that_was_never_made_here_is_asked_of_nobody(
    memory: AsyncMemory, plain: AsyncMemory, emulator: Emulator, id: str
) -> None:
    before = emulator.counters.requests
    for client in (memory, plain):
        with pytest.raises(NotFoundError):
            await client.get(id)
    assert emulator.counters.requests == before


async def test_an_id_with_another_event_is_not_found(memory: AsyncMemory) -> None:
    record = await memory.add("tea", user_id="ann")
    place = EventId.read(record.id)
    assert place is not None
    with pytest.raises(NotFoundError):
        await memory.get(dataclasses.replace(place, event="0" * 32).id)


async def test_a_foreign_row_in_an_answer_is_an_error(
    memory: AsyncMemory, plain: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in (memory, plain):
        record = await client.add("tea of bob", user_id="bob")
        await client.wait_for_ingest([record.id], "bob", timeout=10)
    # A server that loses the filter by actor.
    everything = emulator._formed
    monkeypatch.setattr(emulator, "_formed", lambda now, actor: everything(now, None))
    for client in (memory, plain):
        with pytest.raises(ProviderError, match="another user's memory"):
            await client.search("tea", "ann")


async def test_an_older_server_that_ignores_sessions_still_gives_the_right_memory(
    plain: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [await plain.add(f"note {n}", user_id="ann") for n in range(3)]
    await plain.wait_for_ingest([record.id for record in records], "ann", timeout=10)
    search = Emulator.search

    def older(self: Emulator, request: Request) -> Answer:
        request.json.pop("session_id", None)
        return search(self, request)

    monkeypatch.setattr(Emulator, "search", older)
    for record in records:
        assert (await plain.get(record.id)).content == record.content
    await plain.add("another", user_id="ann", idempotency_key="a key that nobody used")


async def test_an_event_that_others_made_with_our_words_is_no_crash(
    plain: AsyncMemory, raw: AsyncMemsyClient, emulator: Emulator
) -> None:
    emulator.lag = 0.0
    await raw.ingest(
        [EventPayload(user_token("ann"), "s" * 22, "user_message", "tea", metadata='{"openproto": "no envelope"}')]
    )
    with pytest.raises(ProviderError, match="damaged"):
        await plain.search("tea", "ann")


async def test_the_raw_sdk_cannot_search_ids_that_it_stored(raw: AsyncMemsyClient) -> None:
    from memsy.exceptions import MemsyAPIError

    await raw.ingest([EventPayload("ann smith", "s", "user_message", "tea")])
    with pytest.raises(MemsyAPIError) as caught:
        await raw.search("tea", actor_id="ann smith")
    assert caught.value.status_code == 422


def test_options_hold_no_secret_where_it_would_show() -> None:
    with pytest.raises(ValueError, match="base_url must not hold"):
        Memsy("https://ann:secret@api.example.com/v1")
