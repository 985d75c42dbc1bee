"""What a context block holds and in which order; that it never exceeds its budget is the suite's to say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fake_provider import FakeProvider, record

from openproto import AsyncMemory, MemoryPage, MemoryRecord, SearchResult
from openproto.context import estimate_tokens, fill_context
from openproto.models import ContextBlock
from openproto.requests import ContextQuery, ListQuery, SearchQuery


def records(letter: str, contents: Sequence[str]) -> list[MemoryRecord]:
    return [record(f"{letter}{number}", content) for number, content in enumerate(contents)]


def hits(contents: Sequence[str]) -> list[SearchResult]:
    found = records("m", contents)
    return [SearchResult(memory=memory, score=1 / (number + 1)) for number, memory in enumerate(found)]


def build_context(
    found: Sequence[SearchResult], budget: int, count: Callable[[str], int], newest: Sequence[str] = ()
) -> ContextBlock:
    """Build the block of what a search finds and a listing, three records a page, then holds."""
    listed = records("n", newest)

    async def search(query: SearchQuery) -> Sequence[SearchResult]:
        return found

    async def list_page(query: ListQuery) -> MemoryPage:
        start = int(query.cursor or 0)
        more = str(start + 3) if start + 3 < len(listed) else None
        return MemoryPage(items=listed[start : start + 3], next_cursor=more)

    query = ContextQuery(query="tea", user_id="ada", token_budget=budget)
    return asyncio.run(fill_context(query, count, search, list_page))


def by_words(text: str) -> int:
    return len(text.split())


def test_a_turn_stands_behind_what_it_answers_within_the_budget() -> None:
    def turn(number: int, content: str, conversation: str = "c") -> SearchResult:
        told = {"conversation": conversation, "turn": number}
        memory = record(content, content).model_copy(update={"x-openproto": told})
        return SearchResult(memory=memory, score=1 / (len(content) + 1))

    turns = [(5, "yes"), (9, "tea"), (9, "other", "d"), (6, "later"), (3, "where?"), (8, "drink?")]
    found = [*(turn(*told) for told in turns), SearchResult(memory=record("fact", "fact"), score=0.1)]
    block = build_context(found, 1000, by_words)
    wanted = ["where?", "yes", "later", "drink?", "tea", "other", "fact"]
    assert [cited.memory_id for cited in block.citations] == wanted
    assert [line.split()[0] for line in block.text.splitlines()] == wanted
    assert build_context(found, 4, by_words).text == "where? [where?]\nyes [yes]"


@pytest.mark.parametrize(
    ("found", "newest", "budget", "text"),
    [
        # What a search finds: each once, on one line, as many as fit.
        (["Likes tea", "likes   TEA\n", "likes coffee"], [], 1000, "Likes tea [m0]\nlikes coffee [m2]"),
        (["tea", "milk"], [], 18, "tea [m0]\nmilk [m1]"),  # which is exactly as long
        (["tea", "x" * 100, "milk"], [], 20, "tea [m0]\nmilk [m2]"),
        (["x" * 50, "tea"], [], 10, "tea [m1]"),
        # Only the first is ever cut, between words.
        (["alpha beta gamma delta"], [], 16, "alpha beta [m0]"),
        (["tea", "alpha beta gamma delta"], [], 22, "tea [m0]"),
        (["antidisestablishmentarianism"], [], 10, ""),
        # A text without spaces is cut between characters, where others are cut between words.
        (["アレルギーはナッツです"], [], 9, "アレル [m0]"),
        (["我对坚果过敏"], [], 9, "我对坚果 [m0]"),
        (["ฉันแพ้ถั่ว"], [], 9, "ฉัน [m0]"),
        (["allergic"], [], 9, ""),
        (["我 allergic"], [], 9, "我 [m0]"),
        ([" ".join("abcdefghijklmnop")], [], 24, "a b c d e f g h i j [m0]"),  # as many words as fit
        (["likes tea", "x" * 500], ["x" * 500, "likes milk"], 100, "likes tea [m0]\nlikes milk [n1]"),
        # What no search found follows, newest first, while the budget lasts.
        (
            ["likes tea"],
            ["likes tea", "likes milk", "is from Ulm", "has a cat", "x" * 50, "has a dog"],
            90,
            "likes tea [m0]\nlikes milk [n1]\nis from Ulm [n2]\nhas a cat [n3]\nhas a dog [n5]",
        ),
        (["likes tea", "likes milk"], ["milk", "nuts"], 35, "likes tea [m0]\nlikes milk [m1]"),
    ],
)
def test_the_block_holds_what_fits(found: list[str], newest: list[str], budget: int, text: str) -> None:
    block = build_context(hits(found), budget, len, newest)
    assert (block.text, block.token_count) == (text, len(text))
    ids = re.findall(r"\[([mn]\d)\]", text)
    scores = [1 / (int(id[1:]) + 1) if id[0] == "m" else 0 for id in ids]
    assert [(cited.memory_id, cited.score) for cited in block.citations] == list(zip(ids, scores, strict=True))


@pytest.mark.parametrize(
    ("options", "budget", "tokens", "limit"),
    [({"token_counter": by_words}, 3, 3, 10), ({}, 4, 4, 10), ({}, 500, 4, 50), ({}, 100_000, 4, 100)],
)
async def test_a_client_counts_or_estimates_tokens(options: Any, budget: int, tokens: int, limit: int) -> None:
    sizes = {"": 0, "a": 1, "abcd": 1, "abcde": 2, "日本": 2, "🙂🙂": 2}  # four bytes a token, rounded up
    assert {text: estimate_tokens(text) for text in sizes} == sizes
    provider = FakeProvider()
    async with AsyncMemory(provider, **options) as memory:
        block = await memory.context("tea", "ada", token_budget=budget)
    assert (block.text, block.token_count) == ("likes tea [m1]", tokens)
    assert provider.requests[0].limit == limit
