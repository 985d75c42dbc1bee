"""What the SDK does not escape never reaches it: a user's memories are out of the reach of ids, names, and filters."""

from __future__ import annotations

from typing import Any

import pytest
from openproto_adapters.supermemory.ids import DocumentId, namespace_of
from openproto_conformance.emulators import Status
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto import AsyncMemory, NotFoundError, ProviderError
from openproto.emulation import user_token

VICTIM = namespace_of(user_token("victim"))
NAMES = ("me/../victim", "../victim", "..", "*", "victim?x=", "victim#", "%2e%2e/victim", "VICTIM", "victim ", "a/b")


async def test_the_sdk_itself_reaches_another_namespace_by_dots_in_a_path(memory: AsyncMemory, raw: Any) -> None:
    record = await memory.add("the secret of the victim", user_id="victim")
    await memory.wait_for_ingest([record.id], "victim")
    document = DocumentId.of(record.id)
    assert raw.search(f"me/../{VICTIM}", query="secret").results
    assert raw.documents.get("me", f"../../{VICTIM}/document/{document.document}").content.startswith("the secret")


@pytest.mark.parametrize("name", NAMES)
async def test_a_user_id_made_of_path_parts_reaches_nobody_else(memory: AsyncMemory, name: str) -> None:
    record = await memory.add("the secret of the victim", user_id="victim")
    await memory.wait_for_ingest([record.id], "victim")
    assert (await memory.list(name)).items == []
    assert await memory.search("secret", name) == []
    assert await memory.delete_all(name) == 0
    for verb in (memory.get, memory.delete):
        with pytest.raises(NotFoundError):
            await verb(record.id, user_id=name)
    mine = await memory.add("mine", user_id=name)
    assert [found.id for found in (await memory.list(name)).items] == [mine.id]
    assert [found.id for found in (await memory.list("victim")).items] == [record.id]


async def test_an_id_that_was_never_made_here_is_not_found_without_a_request(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("tea", user_id="victim")
    token, document = record.id.split(".")
    before = emulator.counters.requests
    ids = (
        f"{token}./../{document}",
        f"{token}.../../{VICTIM}/document/{document}",
        f"../{record.id}",
        f"{record.id}/",
        f"{record.id}?include=chunks",
        f"{record.id}#",
        f"{record.id}\n",
        f"{token}.{document.upper()}",
        document,
        token,
        "*",
        "..",
        VICTIM,
    )
    for id in ids:
        for verb in (memory.get, memory.delete):
            with pytest.raises(NotFoundError):
                await verb(id)
        with pytest.raises(NotFoundError):
            await memory.update(id, content="x")
    with pytest.raises(NotFoundError):
        await memory.get(record.id, user_id="ada")
    assert emulator.counters.requests == before


@pytest.mark.parametrize("word", ["*", '"', "' or 1=1", "}]}", "openproto_tags", "a,b", "\\", "🍵"])
async def test_scopes_and_tags_are_values_and_never_filters(memory: AsyncMemory, word: str) -> None:
    scope = word.replace("*", "star")
    added = await memory.add("tea", user_id="ada", scope=scope, tags=[word])
    other = await memory.add("tea", user_id="ada", scope="other", tags=["other"])
    await memory.wait_for_ingest([added.id, other.id], "ada")
    narrowed: list[dict[str, Any]] = [{"tag": word}, {"scope": scope}]
    for filters in narrowed:
        assert [hit.memory.id for hit in await memory.search("tea", "ada", **filters)] == [added.id]
        assert [found.id for found in (await memory.list("ada", **filters)).items] == [added.id]
    assert await memory.delete_all("ada", tag=word) == 1
    assert [found.id for found in (await memory.list("ada")).items] == [other.id]


async def test_another_users_row_in_an_answer_goes_no_further(
    memory: AsyncMemory, emulator: Emulator, raw: Any
) -> None:
    theirs = await memory.add("the secret of the victim", user_id="victim")
    mine = await memory.add("mine", user_id="ada")
    await memory.wait_for_ingest([theirs.id], "victim")
    place = DocumentId.of(theirs.id)
    document = raw.documents.get(place.namespace, place.document).to_dict(mode="json")
    emulator.faults.next(Status(200, body=document), method="GET", path="/ns/*/document/*")
    with pytest.raises(ProviderError):
        await memory.get(mine.id, user_id="ada")
    answers = {
        "documents": raw.list(place.namespace, "documents").to_dict(mode="json"),
        "search": raw.search(place.namespace, query="secret", include={"documents": True}).to_dict(mode="json"),
    }
    for path, answer in answers.items():
        emulator.faults.next(Status(200, body=answer), path=f"*/{path}")
        with pytest.raises(ProviderError) as caught:
            await (memory.list("ada") if path == "documents" else memory.search("secret", "ada"))
        assert "secret" not in str(caught.value)


async def test_a_memory_that_names_another_user_than_its_namespace_does_is_dropped(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("tea", user_id="ada")
    (document,) = emulator.namespaces[namespace_of(user_token("ada"))].documents.values()
    document.metadata["openproto"] = document.metadata["openproto"].replace('"ada"', '"victim"')
    with pytest.raises(ProviderError):
        await memory.get(record.id)


async def test_documents_of_other_programs_are_passed_over(memory: AsyncMemory, raw: Any, emulator: Emulator) -> None:
    added = await memory.add("green tea", user_id="ada")
    namespace = namespace_of(user_token("ada"))
    raw.add(namespace, content="green tea of another program", id="../doc", metadata={"openproto_created": 1})
    raw.add(namespace, content="green tea of yet another", id="g" + "f" * 32)
    await memory.wait_for_ingest([added.id], "ada")
    assert [found.id for found in (await memory.list("ada")).items] == [added.id]
    assert [hit.memory.id for hit in await memory.search("green tea", "ada")] == [added.id]
    with pytest.raises(NotFoundError):
        await memory.get(f"{user_token('ada')}.g{'f' * 32}")
