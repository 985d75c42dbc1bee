"""What mem0's library does by itself, and its local store under many threads, clients, and loops."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from openproto_adapters.mem0 import library
from openproto_adapters.mem0.config import complete, local_path
from openproto_adapters.mem0.shared_library import SharedLibrary, shared_library
from toy_embedders import HashEmbedder
from waiting import until

from openproto import AsyncMemory, Memory, NotFoundError, OpenProtoError, ProviderError, ProviderUnavailableError
from openproto.embedding import LocalEmbedder

EXPIRED = 450
"""More than mem0 looks at when it searches for what this provider asks for."""

SECRET = "the zeppelin is moored in Friedrichshafen"


@pytest.fixture
async def memory(folder: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("mem0", path=folder) as client:
        await client.health()
        yield client


def raw(folder: Path) -> Any:
    """Return mem0 itself on the store of the only client, as a program has it that uses the same embedder."""
    from openproto_adapters.mem0.parts import current_embed

    current_embed.set(lambda text: LocalEmbedder().embed([text])[0].tolist())
    return shared_library("qdrant", str(folder))._memory


def add_as_another_program(folder: Path, text: str, **options: Any) -> str:
    (added,) = raw(folder).add(text, infer=False, **options)["results"]
    return str(added["id"])


async def test_what_mem0_takes_for_everybody_or_everything_is_a_word_like_any_other(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.add("green tea", user_id="ann", tags=["a"], idempotency_key="1")
        starred = await memory.add("black tea", user_id="ann", tags=["*"], idempotency_key="*")
        assert [hit.memory.id for hit in await memory.search("tea", "ann", tag="*")] == [starred.id]
        assert (await memory.add("black tea", user_id="ann", tags=["*"], idempotency_key="*")).id == starred.id
        for name in ("*", "ann*", " ann", "ann ", "ann bob", '{"ne": "x"}', "openproto:x"):
            assert (await memory.list(name)).items == await memory.search("tea", name) == []
            assert await memory.delete_all(name) == 0
            own = await memory.add("coffee", user_id=name)
            assert [one.id for one in (await memory.list(name)).items] == [own.id]
        assert len((await memory.list("ann")).items) == 2


async def test_a_listing_goes_on_where_mem0_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_LISTED_AT_FIRST", 3)
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(45)])
        assert len([record async for record in memory.iter("ann", page_size=10)]) == 45


async def test_expired_memories_of_other_programs_take_no_place(folder: Path, memory: AsyncMemory) -> None:
    for _ in range(EXPIRED):
        add_as_another_program(folder, "tea", user_id="ann", expiration_date="2020-01-31")
    live = {add_as_another_program(folder, f"tea on shelf {n}", user_id="ann") for n in range(3)}
    assert {hit.memory.id for hit in await memory.search("tea", "ann", limit=3)} == live
    listed = [record async for record in memory.iter("ann")]
    assert len(listed) == EXPIRED + 3
    ends = {record.valid_to for record in listed if record.id not in live}
    assert ends == {datetime(2020, 2, 1, tzinfo=UTC)}


async def test_other_programs_memories_are_records(folder: Path, memory: AsyncMemory) -> None:
    metadata = {"mood": "calm", "created_at": "2026-01-02T03:04:05"}
    id = add_as_another_program(folder, "likes tea", user_id="ann", agent_id="7", run_id="1", metadata=metadata)
    record = await memory.get(id, user_id="ann")
    assert (record.content, record.scope) == ("likes tea", "agent/7/run/1")
    assert record.extensions == {"x-mem0": {"mood": "calm"}}
    assert record.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert [hit.memory.id for hit in await memory.search("tea", "ann", scope="agent/7")] == [id]
    updated = await memory.update(id, tags=["drink"])
    assert await memory.get(id) == updated
    assert raw(folder).get(id)["metadata"]["mood"] == "calm"
    with pytest.raises(NotFoundError):
        await memory.get(add_as_another_program(folder, "nobody's", agent_id="7"))
    extension = {"mood": "calm", "user_id": "bob", "data": "x", "nested": {"a": 1}}
    ours = await memory.add("likes jam", user_id="ann", scope="agent/7/run/1/notes", x_mem0=extension)
    seen = raw(folder).get(ours.id)
    assert (seen["user_id"], seen["agent_id"], seen["run_id"], seen["memory"]) == ("ann", "7", "1", "likes jam")
    assert seen["metadata"]["mood"] == "calm"
    assert (await memory.get(ours.id)).extensions == {"x-mem0": extension}


async def test_exact_words_score_one_and_weak_matches_are_found(folder: Path, memory: AsyncMemory) -> None:
    for text in ("Ann prefers green tea", "a train leaves the station at seven"):
        await memory.add(text, user_id="ann")
    assert (await memory.search("Ann prefers green tea", "ann"))[0].score == pytest.approx(1.0, abs=1e-5)
    cosine = raw(folder).search("morning", filters={"user_id": "ann"}, threshold=0.0, explain=True)["results"]
    weak = {one["id"] for one in cosine if one["score_details"]["semantic_score"] < 0.1}
    assert weak, "the example must have a match below the threshold that mem0 has by default"
    assert weak <= {hit.memory.id for hit in await memory.search("morning", "ann")}


async def test_a_damaged_memory_is_an_error_that_shows_nothing(folder: Path, memory: AsyncMemory) -> None:
    record = await memory.add(SECRET, user_id="bob")
    envelope = raw(folder).get(record.id)["metadata"]["openproto"]
    damaged = add_as_another_program(folder, SECRET, user_id="eve", metadata={"openproto": "{}"})
    add_as_another_program(folder, SECRET, user_id="ann", metadata={"openproto": envelope})
    for read, why in (
        (memory.get(damaged), "damaged"),
        (memory.list("ann"), "another user"),
        (memory.search("zeppelin", "ann"), "another user"),
    ):
        with pytest.raises(ProviderError, match=why) as caught:
            await read
        assert SECRET not in str(caught.value)


async def test_texts_stay_in_no_log_and_no_history_by_default(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with AsyncMemory("mem0", path=folder) as memory:
        record = await memory.add(SECRET, user_id="ann")
        await memory.search(SECRET, "ann")
        await memory.update(record.id, content=f"{SECRET} still")
        await memory.delete(record.id)
        assert raw(folder).history(record.id) == []
    config = {"history_db_path": str(folder / "history.db")}
    async with AsyncMemory("mem0", path=folder / "store", config=config) as memory:
        record = await memory.add(SECRET, user_id="ann")
        assert [entry["event"] for entry in raw(folder / "store").history(record.id)] == ["ADD"]
    assert "zeppelin" not in caplog.text


async def test_no_keyword_model_is_fetched_with_fastembed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Mock(return_value=None)
    monkeypatch.setitem(sys.modules, "fastembed", SimpleNamespace(SparseTextEmbedding=asked))
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.add("tea", user_id="ann")
        assert len(await memory.search("tea", "ann")) == 1
    assert asked.mock_calls == []


IMPORTING = """
import logging, os, sys
logging.getLogger("mem0").setLevel(logging.DEBUG)
before = dict(os.environ)
from openproto import Memory
with Memory("mem0", path=sys.argv[1]) as memory:
    memory.add("tea", user_id="ann")
import mem0.memory.telemetry as telemetry, mem0.memory.setup as setup
print(telemetry.MEM0_TELEMETRY, telemetry.client_telemetry.posthog, dict(os.environ) == before)
print(setup.mem0_dir, logging.getLogger("mem0").level)
"""


def test_importing_mem0_changes_and_sends_nothing(folder: Path, run_python: Any) -> None:
    home, theirs = folder / "home", folder / "theirs"
    home.mkdir(mode=0o500)
    ran = run_python(IMPORTING, folder / "store", env={"HOME": str(home / "none")})
    assert (ran.stdout.split()[:3], ran.stderr) == (["False", "None", "True"], "")
    assert [*home.iterdir()] == []
    ran = run_python(IMPORTING, folder / "another", env={"MEM0_DIR": str(theirs)})
    assert ran.stdout.split() == ["False", "None", "True", str(theirs), "10"], "what the program has set stays"
    assert (theirs / "config.json").exists()


async def test_without_an_embedder_it_says_both_ways_to_have_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("local", "resolve"):
        monkeypatch.setattr(f"openproto.embedding.{module}.is_installed", lambda: False)
    with pytest.raises(ImportError, match=r"pip install 'openproto\[local\]'.*embedder='openai/<model>' or config="):
        await AsyncMemory("mem0", path=folder).list("ann")


@pytest.mark.parametrize(
    ("given", "store", "local"),
    [
        ({"provider": "qdrant"}, {"path": "/data/mem0", "on_disk": True}, "/data/mem0"),
        ({"provider": "qdrant", "config": {"url": "http://q"}}, {"url": "http://q"}, None),
        ({"provider": "pgvector", "config": {"host": "db"}}, {"host": "db", "hnsw": False}, None),
    ],
)
def test_a_configuration_gets_what_mem0_would_choose_badly(given: Any, store: dict[str, Any], local: object) -> None:
    path, own = Path("/data/mem0"), {"embedder": {"provider": "openai", "config": {"embedding_dims": 512}}}
    made = complete({"vector_store": given}, path, 256)
    assert made["vector_store"] == {"provider": given["provider"], "config": {**store, "embedding_model_dims": 256}}
    assert (made["history_db_path"], local_path(made)) == (":memory:", local and ("qdrant", local))
    assert complete({"vector_store": made["vector_store"]}, path, 3)["vector_store"] == made["vector_store"]
    assert complete({**own, "vector_store": given}, path, None)["vector_store"]["config"]["embedding_model_dims"] == 512
    chroma = complete({"vector_store": {"provider": "chroma"}}, path, 256)
    assert chroma["vector_store"] == {"provider": "chroma", "config": {"path": "/data/chroma"}}


async def test_with_infer_the_model_decides_what_is_stored(folder: Path) -> None:
    facts: list[str] = []
    llm = {"provider": "openai", "config": {"api_key": "k"}}
    async with AsyncMemory("mem0", path=folder, config={"llm": llm}, infer=True) as memory:
        await memory.health()
        raw(folder).llm.generate_response = lambda **_: json.dumps(
            {"memory": [{"id": str(n), "text": fact} for n, fact in enumerate(facts)]}
        )
        with pytest.raises(ProviderError, match="nothing new"):
            await memory.add("hello", user_id="ann")
        facts += ["Ann drinks tea", "Ann lives in Berlin"]
        text = "I'm Ann, I drink tea, and I live in Berlin"
        record = await memory.add(text, user_id="ann", tags=["a"], idempotency_key="key")
        listed = (await memory.list("ann", tag="a")).items
        assert ({one.content for one in listed}, record.content) == (set(facts), "Ann drinks tea")
        assert record in listed
        assert (await memory.add(text, user_id="ann", tags=["a"], idempotency_key="key")) == record
        assert "Ann lives in Berlin" in [hit.memory.content for hit in await memory.search("where in Berlin", "ann")]


async def test_a_configuration_of_mem0s_own_class_is_read_as_what_was_set_in_it(folder: Path) -> None:
    from mem0.configs.base import MemoryConfig
    from mem0.vector_stores.configs import VectorStoreConfig

    store = VectorStoreConfig(provider="qdrant", config={"collection_name": "mine"})
    async with AsyncMemory("mem0", path=folder, config=MemoryConfig(vector_store=store)) as memory:
        await memory.add("tea", user_id="ann")
    assert (folder / "collection" / "mine").is_dir()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"vector_store": {"provider": "sesame"}}, "Unsupported vector store provider: sesame"),
        ({"vector_store": {"provider": "qdrant", "config": {"hots": "x"}}}, "hots"),
        ({"vectorstore": {"provider": "qdrant"}}, "'vectorstore'; did you mean 'vector_store'"),
        ({"llm": {"provder": "openai"}}, "'provder'; did you mean 'provider'"),
        ({"llm": {"provider": "openai", "config": {"modell": "x", "api_key": "k-secret"}}}, "'modell'"),
    ],
)
async def test_a_wrong_configuration_is_refused(folder: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        await AsyncMemory("mem0", path=folder, config=config).list("ann")
    assert "k-secret" not in str(caught.value)


async def test_every_memory_is_found_after_adds_from_many_threads_clients_and_loops(folder: Path) -> None:
    numbers = range(133)

    def add_from_threads() -> None:
        with Memory("mem0", path=folder) as memory, ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: memory.add(f"thread note {n}", user_id=f"user {n % 16}"), numbers))

    async def add_from_a_loop(name: str) -> None:
        async with AsyncMemory("mem0", path=folder) as memory:
            await asyncio.gather(*(memory.add(f"{name} note {n}", user_id=f"user {n % 16}") for n in numbers))

    await asyncio.gather(
        asyncio.to_thread(add_from_threads),
        add_from_a_loop("here"),
        asyncio.to_thread(lambda: asyncio.run(add_from_a_loop("there"))),
    )
    # Opened anew: what is read has been written.
    async with AsyncMemory("mem0", path=folder) as memory:
        contents = [record.content for user in range(16) async for record in memory.iter(f"user {user}", page_size=500)]
        assert sorted(contents) == sorted(f"{name} note {n}" for name in ("thread", "here", "there") for n in numbers)
        for n in numbers[::20]:
            hits = await memory.search(f"here note {n}", f"user {n % 16}", limit=5)
            assert f"here note {n}" in [hit.memory.content for hit in hits]


async def test_clients_of_one_process_and_one_configuration_share_a_store(folder: Path, run_python: Any) -> None:
    first, second = AsyncMemory("mem0", path=folder), AsyncMemory("mem0", path=str(folder) + "/.")
    config = {"vector_store": {"provider": "qdrant", "config": {"path": str(folder), "collection_name": "other"}}}
    program = (
        "import sys; from openproto import Memory, ProviderUnavailableError\n"
        "try:\n    Memory('mem0', path=sys.argv[1]).list('ann')\n"
        "except ProviderUnavailableError as error:\n    print(error)"
    )
    async with second:
        async with first:
            record = await first.add("tea", user_id="ann")
            with pytest.raises(ProviderError, match="another configuration"):
                await AsyncMemory("mem0", config=config).list("ann")
        assert (await second.get(record.id)).content == "tea"
        ran = await asyncio.to_thread(run_python, program, folder)
        assert "open in another process" in ran.stdout, ran.stderr
    with pytest.raises(ProviderError, match="built with the embedder 'wordllama-l2-supercat-256', and is opened"):
        await AsyncMemory("mem0", path=folder, embedder=HashEmbedder(256)).list("ann")
    async with AsyncMemory("mem0", path=folder) as third:
        assert (await third.get(record.id)).content == "tea"
    with pytest.raises(ProviderError, match="/dev/null/store cannot be created"):
        await AsyncMemory("mem0", path="/dev/null/store").list("ann")


def test_a_client_that_was_closed_meanwhile_gets_no_turn() -> None:
    library, client, closed = SharedLibrary(shared=True), object(), list[object]()
    library.enter(client, {}, lambda config: "mem0")
    with library.turn(client) as memory:
        assert memory == "mem0"
    library.leave(client, closed.append)
    with pytest.raises(ProviderUnavailableError, match="closed while"), library.turn(client):
        pass
    assert closed == ["mem0"]


async def test_calls_that_wait_for_the_store_end_at_once_never_happen_and_hold_up_no_closing(folder: Path) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("openproto-mem0") for thread in threading.enumerate())

    place = shared_library("qdrant", str(folder))
    memory = AsyncMemory("mem0", path=folder, close_timeout=0.4)
    assert (await memory.list("ann")).items == []
    with place.lock:  # as a slow call holds it
        calls = [asyncio.ensure_future(memory.add(f"note {n}", user_id="ann")) for n in range(100)]
        await until(lambda: threads() == 1)
        for call in calls:
            call.cancel()
        _, pending = await asyncio.wait(calls, timeout=0.5)
        assert (pending, threads()) == (set(), 1)
    assert (await memory.list("ann")).items == []
    with place.lock:
        async with asyncio.timeout(1):
            await memory.aclose()
    await until(lambda: not place._users)


async def test_a_collection_of_vectors_of_another_length_is_refused_and_left_closed(folder: Path) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))
    client.create_collection("mem0", models.VectorParams(size=1536, distance=models.Distance.COSINE))
    client.close()
    for _ in range(2):
        with pytest.raises(OpenProtoError, match="holds vectors of 1536 numbers, and the embedder makes 256"):
            await AsyncMemory("mem0", path=folder).list("ann")
    async with AsyncMemory("mem0", path=folder, embedder=HashEmbedder(1536)) as memory:
        await memory.add("tea", user_id="ann")
