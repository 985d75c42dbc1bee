"""A reranker reorders the first hits; one that fails, or is late, is left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openproto import AsyncMemory, Memory


class ByLength:
    """Prefers short texts; is late, gives too few scores, or fails, where the test wants it."""

    timeout = 0.05

    def __init__(self, seconds: float = 0.0, answers: int = 3, error: Exception | None = None) -> None:
        self.seconds, self.answers, self.error = seconds, answers, error

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        return [-float(len(text)) for text in texts[: self.answers]]


class ByLengthLater:
    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        await asyncio.sleep(0)
        return [-len(text) for text in texts]


TEXTS = ["green tea with a lot of honey", "tea", "green tea"]


async def found(path: Path, reranker: Any) -> tuple[list[str], list[float], str]:
    async with AsyncMemory("sqlite", path=path, embedder="none", rerank=reranker) as memory:
        await memory.add_many([{"content": text, "user_id": "ada"} for text in TEXTS])
        results = await memory.search("green tea honey", "ada")
        block = await memory.context("green tea honey", "ada", token_budget=200)
        told = await memory.search("green tea honey", "ada", explain=True)
        assert [(hit.memory, hit.score) for hit in told] == [(hit.memory, hit.score) for hit in results]
        assert [sum((hit.parts or {}).values()) for hit in told] == pytest.approx([hit.score for hit in results])
    return [result.memory.content for result in results], [result.score for result in results], block.text


@pytest.mark.parametrize("reranker", [ByLength(), ByLengthLater()], ids=["plain", "async"])
async def test_the_first_hits_stand_in_the_rerankers_order(tmp_path: Path, reranker: Any) -> None:
    contents, scores, block = await found(tmp_path / "memory.db", reranker)
    assert contents == ["tea", "green tea", TEXTS[0]]
    assert scores == sorted(scores, reverse=True)
    assert block.startswith("tea [")


@pytest.mark.parametrize("reranker", [ByLength(0.3), ByLength(answers=1), ByLength(error=KeyError("secret"))])
async def test_a_late_or_broken_one_is_left(tmp_path: Path, reranker: Any, caplog: pytest.LogCaptureFixture) -> None:
    contents, scores, _ = await found(tmp_path / "memory.db", reranker)
    assert contents[0] == TEXTS[0]
    assert scores == sorted(scores, reverse=True)
    assert "the reranker was left out" in caplog.text
    assert "secret" not in caplog.text


def test_a_name_or_anything_else_is_refused() -> None:
    for wrong in ("cohere", object()):
        with pytest.raises(ValueError, match=r"rerank must be an object with rerank\(query, texts\)"):
            Memory("sqlite", rerank=wrong)  # type: ignore[arg-type]
