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
    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        return [-len(text) for text in texts]


class ByLengthLater:
    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        await asyncio.sleep(0)
        return [-len(text) for text in texts]


class Late(ByLength):
    timeout = 0.05

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        time.sleep(0.3)
        return super().rerank(query, texts)


class Wrong:
    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        return [1.0]


class Broken:
    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        raise KeyError("secret")


TEXTS = ["green tea with a lot of honey", "tea", "green tea"]


async def found(path: Path, reranker: Any) -> tuple[list[str], list[float], str]:
    async with AsyncMemory("sqlite", path=path, embedder="none", rerank=reranker) as memory:
        await memory.add_many([{"content": text, "user_id": "ada"} for text in TEXTS])
        results = await memory.search("green tea honey", "ada")
        block = await memory.context("green tea honey", "ada", token_budget=200)
    return [result.memory.content for result in results], [result.score for result in results], block.text


@pytest.mark.parametrize("reranker", [ByLength(), ByLengthLater()], ids=["plain", "async"])
async def test_the_first_hits_stand_in_the_rerankers_order(tmp_path: Path, reranker: Any) -> None:
    contents, scores, block = await found(tmp_path / "memory.db", reranker)
    assert contents == ["tea", "green tea", TEXTS[0]]
    assert scores == sorted(scores, reverse=True)
    assert block.startswith("tea [")


@pytest.mark.parametrize("reranker", [Late(), Wrong(), Broken()], ids=["late", "wrong", "broken"])
async def test_one_that_is_of_no_use_is_left_out(
    tmp_path: Path, reranker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    contents, scores, _ = await found(tmp_path / "memory.db", reranker)
    assert contents[0] == TEXTS[0]
    assert scores == sorted(scores, reverse=True)
    assert "the reranker was left out" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("reranker", ["cohere", object()])
def test_a_name_or_anything_else_is_refused(reranker: Any) -> None:
    with pytest.raises(ValueError, match=r"rerank must be an object with rerank\(query, texts\)"):
        Memory("sqlite", rerank=reranker)
